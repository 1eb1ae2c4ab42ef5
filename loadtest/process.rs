//! What a process costs: time on a CPU from the scheduler's own books, memory from the kernel's. Both come from /proc,
//! so any program can be measured, and neither disturbs it.

use std::{collections::HashMap, fs, time::Instant};

/// A look at some processes and at the machine's CPUs.
pub struct Sample {
    at: Instant,
    /// Nanoseconds on a CPU, by thread.
    tasks: HashMap<u32, u64>,
    rss_kb: u64,
    /// By CPU: ticks in all, idle ones, and stolen ones.
    cpus: Vec<[u64; 3]>,
}

/// What happened between two looks.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Wall time between them.
    pub seconds: f64,
    /// Time on a CPU, in nanoseconds.
    pub cpu_ns: u64,
    /// Threads that ended in between; what they cost last is not in `cpu_ns`.
    pub tasks_ended: usize,
    /// Resident memory before and after, in KiB.
    pub rss_kb: [u64; 2],
    /// By CPU: the share of the time that it was not idle, and that the hypervisor kept it, in percent.
    pub cpus: Vec<[f64; 2]>,
}

/// Looks at the threads of `pids` now.
pub fn sample(pids: &[u32]) -> Sample {
    let mut tasks = HashMap::new();
    let mut rss_kb = 0;
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let Some(task) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let schedstat = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            if let Some(ns) = schedstat.split(' ').next().and_then(|ns| ns.parse().ok()) {
                tasks.insert(task, ns);
            }
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        rss_kb += line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or_default();
    }
    Sample { at: Instant::now(), tasks, rss_kb, cpus: cpus() }
}

fn cpus() -> Vec<[u64; 3]> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let lines = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    lines
        .map(|line| {
            let ticks: Vec<u64> = line.split(' ').skip(1).take(8).filter_map(|tick| tick.parse().ok()).collect();
            let at = |place: usize| ticks.get(place).copied().unwrap_or_default();
            [ticks.iter().sum(), at(3) + at(4), at(7)]
        })
        .collect()
}

impl Sample {
    /// What happened until `later`.
    pub fn until(&self, later: &Sample) -> Usage {
        let mut cpu_ns = 0;
        for (task, ns) in &later.tasks {
            cpu_ns += ns.saturating_sub(self.tasks.get(task).copied().unwrap_or_default());
        }
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
        let cpus = self.cpus.iter().zip(&later.cpus).map(|(before, after)| {
            let [all, idle, stolen] = std::array::from_fn(|at| after[at].saturating_sub(before[at]));
            [share(all.saturating_sub(idle), all), share(stolen, all)]
        });
        Usage {
            seconds: later.at.duration_since(self.at).as_secs_f64(),
            cpu_ns,
            tasks_ended: self.tasks.keys().filter(|task| !later.tasks.contains_key(*task)).count(),
            rss_kb: [self.rss_kb, later.rss_kb],
            cpus: cpus.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_and_rest_is_not() {
        let pids = [std::process::id()];
        let before = sample(&pids);
        let until = Instant::now() + std::time::Duration::from_millis(60);
        while Instant::now() < until {
            std::hint::black_box(0);
        }
        let usage = before.until(&sample(&pids));
        // Other tests of this binary may run beside it, and another process may take half the CPU.
        assert!(usage.cpu_ns > 5_000_000, "{usage:?}");
        assert!(usage.rss_kb[1] > 100, "{usage:?}");
        assert!(sample(&[]).until(&sample(&[])).cpu_ns == 0);
    }
}
