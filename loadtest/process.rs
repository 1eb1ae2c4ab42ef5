//! What a process costs: time on a CPU from the scheduler's own books, memory and descriptors from the kernel's. All come
//! from /proc, so any program can be measured, and none disturbs it.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::HashMap,
    fs, io,
    time::{Duration, Instant},
};

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

/// Resident memory of `pids`, in KiB.
pub fn rss_kb(pids: &[u32]) -> u64 {
    sample(pids).rss_kb
}

/// Waits until `pids` do next to nothing and their memory stays as it is, at most `max`.
pub fn settle(pids: &[u32], max: Duration) {
    let until = Instant::now() + max;
    let mut before = sample(pids);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(300));
        let after = sample(pids);
        let usage = before.until(&after);
        let is_idle = usage.cpu_ns as f64 / 1e9 < 0.01 * usage.seconds;
        if is_idle && usage.rss_kb[0].abs_diff(usage.rss_kb[1]) <= 64 {
            return;
        }
        before = after;
    }
}

/// Tells a process to read its configuration anew.
///
/// # Errors
/// Those of kill(2).
pub fn hang_up(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, Signal::HUP)?)
}

/// The descriptors of a proxy, by what is at their other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections to its own port.
    pub clients: usize,
    /// Connections to the provider's.
    pub upstreams: usize,
    /// All else: listeners, files, rings, and sockets that are connected to nothing any more.
    pub other: usize,
}

/// Looks at the descriptors of `pids`, a proxy that listens on `port` in front of `provider_port`.
pub fn descriptors(pids: &[u32], port: u16, provider_port: u16) -> Descriptors {
    let connections = connections();
    let mut found = Descriptors::default();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            match inode.and_then(|inode: u64| connections.get(&inode)) {
                Some([local, _]) if *local == port => found.clients += 1,
                Some([_, remote]) if *remote == provider_port => found.upstreams += 1,
                _ => found.other += 1,
            }
        }
    }
    found
}

/// Every TCP connection of the machine that has an other end: inode to local and remote port.
fn connections() -> HashMap<u64, [u16; 2]> {
    let mut found = HashMap::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(path).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
            let [_, local, remote, _, _, _, _, _, _, inode] = fields.as_slice() else { continue };
            let port = |text: &str| text.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            if let (Some(local), Some(remote @ 1..), Ok(inode)) = (port(local), port(remote), inode.parse()) {
                found.insert(inode, [local, remote]);
            }
        }
    }
    found
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

    #[test]
    fn descriptors_are_told_apart_by_their_other_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let pids = [std::process::id()];
        let seen = descriptors(&pids, port, 1);
        assert_eq!((seen.clients, seen.upstreams), (1, 0));
        // The same connection, seen from its other end.
        assert_eq!(descriptors(&pids, 1, port).upstreams, 1);
        drop((client, accepted));
        assert_eq!(descriptors(&pids, port, 1).clients, 0);
    }
}
