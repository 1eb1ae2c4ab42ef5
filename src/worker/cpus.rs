//! How many workers, and where: the CPUs that this process may use, cut down to what its cgroup pays for. A pinned
//! worker beyond the quota would be throttled, and its connections with it.

use std::fs;

/// The CPUs that workers may be pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Their numbers.
    pub allowed: Vec<usize>,
    /// How many of them the cgroup's quota amounts to, rounded up; `None` without a quota.
    pub quota: Option<usize>,
}

impl Cpus {
    /// How many workers to run.
    pub fn workers(&self) -> usize {
        self.allowed.len().min(self.quota.unwrap_or(usize::MAX)).max(1)
    }
}

/// Reads this process's affinity and its cgroup's quota (cgroup v2, then v1).
pub fn usable() -> Cpus {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    let max = fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().or_else(|| {
        let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/cpu/{name}")).ok();
        Some(format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()))
    });
    Cpus { allowed: cpu_list(list), quota: max.as_deref().and_then(quota) }
}

/// `0-2,5` is 0, 1, 2 and 5.
fn cpu_list(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cpus.extend(first..=last.min(first + 4096));
        }
    }
    cpus
}

/// `150000 100000` is two CPUs; `max 100000` and `-1 100000` are no quota.
fn quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<usize>().ok()?, period.trim().parse::<usize>().ok()?);
    (quota > 0 && period > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_quotas() {
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("7"), [7]);
        assert_eq!(quota("150000 100000\n"), Some(2));
        assert_eq!(quota("50000 100000"), Some(1));
        assert_eq!(quota("max 100000"), None);
        assert_eq!(quota("-1 100000"), None);
    }

    #[test]
    fn workers_are_bound_by_both() {
        let cpus = |allowed: &[usize], quota| Cpus { allowed: allowed.to_vec(), quota };
        assert_eq!(cpus(&[0, 1, 2, 3], Some(2)).workers(), 2);
        assert_eq!(cpus(&[0, 1], Some(8)).workers(), 2);
        assert_eq!(cpus(&[], None).workers(), 1);
    }
}
