//! Whether this host carries what the configuration asks of it: event loop, descriptors, memory that may be locked,
//! CPUs. The host is looked at in `Host::look`; all else judges.

use super::finding::{Finding, counted};
use crate::{
    boot::Files,
    rt::ring::{Driver, Ring, ring_available},
    table::{Driver as Wanted, Table},
    worker::{self, Cpus},
};
use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

/// What the kernel locks for one worker's ring of 4096 entries, rounded up, in bytes.
const RING_BYTES: u64 = 512 << 10;
/// Up to this kernel, rings count as locked memory.
const LOCKED_RINGS_BEFORE: (u64, u64) = (5, 12);

/// What is known about the host.
pub struct Host {
    /// The event loop that a worker would get now, or why it would get none.
    pub driver: Result<Driver, String>,
    /// The configuration forces epoll.
    pub forced: bool,
    /// A variable forces epoll.
    pub forced_by_variable: bool,
    /// The kernel has rings for this process.
    pub ring_available: bool,
    /// Such as `6.1.0-13-amd64`.
    pub kernel: Option<String>,
    /// `kernel.io_uring_disabled`: 0 for all, 1 for a group, 2 for nobody.
    pub uring_disabled: Option<u8>,
    /// 0 none, 1 strict, 2 a filter.
    pub seccomp: Option<u8>,
    /// Open files, as high as the limit may be raised; `u64::MAX` is none.
    pub files_hard: Option<u64>,
    /// Bytes that may be locked; `u64::MAX` is no limit.
    pub memlock: Option<u64>,
    /// Where workers may run.
    pub cpus: Cpus,
    /// The host's own addresses.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// Looks at this host. Builds an event loop as a worker would and takes it down again.
    pub fn look(wanted: Wanted) -> Host {
        let forced = wanted == Wanted::Epoll;
        let driver = Ring::run(forced, Arc::default(), |_, driver| async move { driver });
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let files = limit(&limits, "Max open files");
        Host {
            driver: driver.map_err(|error| error.to_string()),
            forced,
            forced_by_variable: std::env::var_os("MONOIO_FORCE_LEGACY_DRIVER").is_some_and(|value| value == "1"),
            ring_available: ring_available(),
            kernel: Some(kernel).filter(|kernel| !kernel.is_empty()),
            uring_disabled: read("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            seccomp: status.lines().find_map(|line| line.strip_prefix("Seccomp:")?.trim().parse().ok()),
            files_hard: files.map(|(_, hard)| hard),
            memlock: limit(&limits, "Max locked memory").map(|(soft, _)| soft),
            cpus: worker::usable(),
            addresses: addresses(&read("/proc/net/fib_trie"), &read("/proc/net/if_inet6")),
        }
    }
}

/// A line of `/proc/self/limits`: the limit in force and the one up to which it may be raised.
fn limit(text: &str, name: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut numbers = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some((numbers.next()??, numbers.next()??))
}

/// This host's addresses, from the kernel's tables.
fn addresses(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last: Option<IpAddr> = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.take());
        }
    }
    let hex = if_inet6.lines().filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok());
    found.extend(hex.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
    found.sort();
    found.dedup();
    found
}

/// `6.1.0-13-amd64` is 6.1.
fn version(kernel: &str) -> Option<(u64, u64)> {
    let mut parts = kernel.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// All findings about the host.
pub fn findings(host: &Host, table: &Table) -> Vec<Finding> {
    let workers = table.runtime.workers.unwrap_or_else(|| host.cpus.workers()).max(1);
    vec![driver(host), files(host, table, workers), memlock(host, workers), cpus(host, table.runtime.workers)]
}

fn driver(host: &Host) -> Finding {
    let kernel = host.kernel.as_deref().unwrap_or("unknown");
    let driver = match &host.driver {
        Ok(driver) => *driver,
        Err(error) => {
            return Finding::fail(
                "driver",
                format!("no event loop can be built: {error}"),
                "raise this process's limits",
            );
        }
    };
    let found = format!("{} on Linux {kernel}: {}", driver.slug(), driver.reason(host.forced));
    match driver {
        Driver::RingDeferred | Driver::RingCooperative | Driver::RingPlain => Finding::ok("driver", found),
        Driver::Epoll if host.forced || host.forced_by_variable => Finding::ok("driver", found),
        Driver::Epoll => {
            let (why, advice) = why_epoll(host);
            Finding::warn("driver", format!("epoll on Linux {kernel}: {why}"), advice)
        }
    }
}

/// Why there is no ring, as far as the host tells, and what helps. It serves all the same, with more CPU per event.
fn why_epoll(host: &Host) -> (String, &'static str) {
    if let Some(disabled @ (1 | 2)) = host.uring_disabled {
        return (
            format!("kernel.io_uring_disabled is {disabled}"),
            "set it to 0 with sysctl if the host's policy allows",
        );
    }
    if host.ring_available {
        return ("io_uring is there, but no ring could be built".into(), "raise memlock (LimitMEMLOCK=64M)");
    }
    if host.seccomp == Some(2) {
        let why = "a seccomp filter is in force, and the default ones of container runtimes block io_uring";
        return (
            why.into(),
            "run with a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register",
        );
    }
    ("the kernel has no io_uring for this process".into(), "use Linux 6.1 or later")
}

/// `serve` raises its limit to the hard one by itself, as far as it needs, so that one counts.
fn files(host: &Host, table: &Table, workers: usize) -> Finding {
    let connections = table.bounds.connections_max;
    let want = Files::wanted(table, workers);
    let Some(files) = host.files_hard else {
        return Finding::warn("files", "the limit of open files cannot be read", "make sure that /proc is mounted");
    };
    let why = format!(
        "{connections} clients on each of {}, two descriptors each, want {want}",
        counted(workers, "worker", "workers")
    );
    if files >= want {
        let shown = if files == u64::MAX { "no limit of open files".into() } else { format!("{files} open files") };
        return Finding::ok("files", format!("{shown}; {why}"));
    }
    Finding::warn(
        "files",
        format!("{files} open files; {why}"),
        format!(
            "raise it (LimitNOFILE={want}), or set [bounds] connections_max to {}",
            Files::connections(files, workers)
        ),
    )
}

fn memlock(host: &Host, workers: usize) -> Finding {
    let Some(bytes) = host.memlock else {
        return Finding::warn(
            "memlock",
            "the limit of locked memory cannot be read",
            "make sure that /proc is mounted",
        );
    };
    let shown = if bytes == u64::MAX { "unlimited".into() } else { format!("{} KiB", bytes >> 10) };
    let counts = host.kernel.as_deref().and_then(version).is_some_and(|kernel| kernel < LOCKED_RINGS_BEFORE);
    if !counts || !host.ring_available {
        return Finding::ok("memlock", format!("{shown}; rings do not count on this kernel, or are not used"));
    }
    let want = RING_BYTES.saturating_mul(workers as u64);
    if bytes >= want {
        return Finding::ok(
            "memlock",
            format!("{shown}; {} want {} KiB", counted(workers, "ring", "rings"), want >> 10),
        );
    }
    Finding::warn(
        "memlock",
        format!("{shown}; {} want {} KiB on kernels before 5.12", counted(workers, "ring", "rings"), want >> 10),
        "raise it (LimitMEMLOCK=64M), or workers fall back to epoll",
    )
}

fn cpus(host: &Host, wanted: Option<usize>) -> Finding {
    let (allowed, usable) = (host.cpus.allowed.len().max(1), host.cpus.workers());
    let quota = host.cpus.quota.map_or_else(String::new, |quota| format!(", a cgroup quota of {quota}"));
    let workers = wanted.unwrap_or(usable);
    let found = format!("{} on {}{quota}", counted(workers, "worker", "workers"), counted(allowed, "CPU", "CPUs"));
    if workers > usable {
        let advice =
            format!("set [runtime] workers to {usable}, or leave it out: workers beyond the CPUs wait for each other");
        return Finding::warn("workers", found, advice);
    }
    Finding::ok("workers", found)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};
    use crate::config;

    fn host() -> Host {
        Host {
            driver: Ok(Driver::RingDeferred),
            forced: false,
            forced_by_variable: false,
            ring_available: true,
            kernel: Some("6.1.0-13-amd64".into()),
            uring_disabled: Some(0),
            seccomp: Some(0),
            files_hard: Some(1 << 20),
            memlock: Some(8 << 20),
            cpus: Cpus { allowed: vec![0, 1, 2, 3], quota: Some(2) },
            addresses: Vec::new(),
        }
    }

    fn table() -> Table {
        config::quickstart("sk".into(), None, [0; 32], "127.0.0.1:1".parse().unwrap(), &|_| None).unwrap()
    }

    #[test]
    fn a_good_host_is_all_well() {
        let findings = findings(&host(), &table());
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
        assert_eq!(findings[0].found, "io_uring+defer_taskrun on Linux 6.1.0-13-amd64: the kernel offers everything");
        assert_eq!(findings[3].found, "2 workers on 4 CPUs, a cgroup quota of 2");
    }

    #[test]
    fn epoll_is_explained() {
        let epoll = |change: fn(&mut Host)| {
            let mut host = Host { driver: Ok(Driver::Epoll), ring_available: false, ..host() };
            change(&mut host);
            let finding = driver(&host);
            (finding.level, finding.found)
        };
        let (level, found) = epoll(|host| host.uring_disabled = Some(2));
        assert!(level == Level::Warn && found.ends_with("kernel.io_uring_disabled is 2"), "{found}");
        assert!(epoll(|host| host.seccomp = Some(2)).1.contains("seccomp"));
        assert!(epoll(|host| host.ring_available = true).1.contains("no ring could be built"));
        assert!(epoll(|host| host.uring_disabled = None).1.contains("has no io_uring"));
        let (level, found) = epoll(|host| host.forced = true);
        assert!(level == Level::Ok && found.ends_with("forced by the configuration"), "{found}");
        assert_eq!(epoll(|host| host.forced_by_variable = true).0, Level::Ok);
        assert_eq!(driver(&Host { driver: Err("EMFILE".into()), ..host() }).level, Level::Fail);
    }

    #[test]
    fn limits_are_compared_with_what_is_wanted() {
        let want = 16_384 * 2 * 2 + 64;
        let of = |hard| files(&Host { files_hard: Some(hard), ..host() }, &table(), 2);
        assert_eq!(of(want).level, Level::Ok);
        assert_eq!(of(u64::MAX).level, Level::Ok);
        let low = of(1_024);
        assert_eq!(low.level, Level::Warn);
        assert_eq!(low.advice.unwrap(), "raise it (LimitNOFILE=65600), or set [bounds] connections_max to 240");
        let old = |bytes| memlock(&Host { kernel: Some("5.10.1".into()), memlock: Some(bytes), ..host() }, 4).level;
        assert_eq!((old(64 << 10), old(2 << 20)), (Level::Warn, Level::Ok));
        assert_eq!(memlock(&Host { memlock: Some(0), ..host() }, 4).level, Level::Ok);
    }

    #[test]
    fn workers_beyond_the_quota_are_too_many() {
        assert_eq!(cpus(&host(), Some(3)).level, Level::Warn);
        assert_eq!(cpus(&host(), Some(1)).level, Level::Ok);
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "Limit  Soft\nMax open files            20000                unlimited            files     \n";
        assert_eq!(limit(text, "Max open files"), Some((20_000, u64::MAX)));
        assert_eq!(limit(text, "Max locked memory"), None);
        let trie = "  |-- 10.0.0.0\n    /24 link UNICAST\n  |-- 10.0.0.2\n    /32 host LOCAL\n  |-- 10.0.0.2\n    /32 host LOCAL\n";
        let six = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\nnonsense\n";
        let found: Vec<String> = addresses(trie, six).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.2", "fe80::fc:ff:fe00:1"]);
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("unknown"), None);
    }
}
