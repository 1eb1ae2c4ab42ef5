//! What one core has done: counters, histograms, and the record of each exchange, written by that core alone and read
//! by the control thread now and then. Nothing here allocates, locks or waits once a core is running.
//!
//! Not here: how any of it is shown. `control` renders metrics and the access log.

pub mod counters;
pub mod histogram;
pub mod record;
pub mod text;

pub use counters::{Counter, Counters, Gauge, Handshake, Late, UpstreamCounters};
pub use histogram::Histogram;
pub use record::{ATTEMPTS_KEPT, Attempt, Client, Ending, Record, RequestId};
pub use text::Text;

use crate::base::Wall;
use crossbeam::{queue::ArrayQueue, utils::CachePadded};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// Records that one core holds until the control thread fetches them (every 20 ms): 100k exchanges a second.
pub const RECORDS_MAX: usize = 2048;

/// How a core talks to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// A label: `io_uring`, `epoll`, or a finer name of the kind.
    pub kind: &'static str,
    /// Why this one, in a sentence.
    pub reason: String,
}

/// One core's telemetry. Its worker writes, the control thread reads.
pub struct Core {
    /// What was counted and measured. Padded, so that no other core's writes share its cache lines.
    pub counters: CachePadded<Counters>,
    records: ArrayQueue<Record>,
    driver: OnceLock<Driver>,
    listening: AtomicBool,
}

impl Core {
    /// A core that has done nothing. Allocates all it will ever need.
    pub fn new() -> Core {
        Core {
            counters: CachePadded::new(Counters::new()),
            records: ArrayQueue::new(RECORDS_MAX),
            driver: OnceLock::new(),
            listening: AtomicBool::new(false),
        }
    }

    /// Counts and measures an exchange that has ended.
    pub fn observe(&self, record: &Record) {
        self.counters.observe(record);
    }

    /// Hands a record to the access log. When the log is behind, the oldest record gives way and is counted as lost.
    pub fn push(&self, record: Record) {
        if self.records.force_push(record).is_some() {
            self.counters.records_lost.add(1);
        }
    }

    /// `observe` and `push`: the last step of every exchange.
    pub fn finish(&self, record: Record) {
        self.observe(&record);
        self.push(record);
    }

    /// The oldest record that waits. For the control thread.
    pub fn pop(&self) -> Option<Record> {
        self.records.pop()
    }

    /// Says how this core talks to the kernel; only the first word counts.
    pub fn set_driver(&self, kind: &'static str, reason: impl Into<String>) {
        self.driver.get_or_init(|| Driver { kind, reason: reason.into() });
    }

    /// How this core talks to the kernel; `None` until its worker has said so.
    pub fn driver(&self) -> Option<&Driver> {
        self.driver.get()
    }

    /// Says whether this core accepts connections.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Release);
    }

    /// Whether this core accepts connections.
    pub fn listening(&self) -> bool {
        self.listening.load(Ordering::Acquire)
    }

    /// Says that the core's loop turns; to be called at least once a second.
    pub fn beat(&self) {
        self.counters.beats.add(1);
    }
}

impl Default for Core {
    fn default() -> Core {
        Core::new()
    }
}

/// The telemetry of the whole process.
pub struct Telemetry {
    /// One per worker, in worker order.
    pub cores: Vec<Arc<Core>>,
    /// Log lines that were dropped because standard output did not take them. Written by the control thread.
    pub lines_lost: Counter,
    /// Panics on the control thread, each contained in one task. Written by that thread.
    pub panics: Counter,
    /// When the process began.
    pub started: Wall,
    /// The program's version.
    pub version: &'static str,
}

impl Telemetry {
    /// For `workers` workers.
    pub fn new(workers: usize, started: Wall, version: &'static str) -> Telemetry {
        let cores = (0..workers).map(|_| Arc::new(Core::new())).collect();
        Telemetry { cores, lines_lost: Counter::new(), panics: Counter::new(), started, version }
    }

    /// The sum over all cores of what `pick` picks.
    pub fn sum(&self, pick: impl Fn(&Counters) -> u64) -> u64 {
        self.cores.iter().fold(0, |sum, core| sum.wrapping_add(pick(&core.counters)))
    }

    /// The sum over all cores of the gauge that `pick` picks. A gauge may be below zero on one core, not in sum.
    pub fn level(&self, pick: impl Fn(&Counters) -> i64) -> i64 {
        self.cores.iter().fold(0, |sum, core| sum.wrapping_add(pick(&core.counters)))
    }

    /// All cores' histograms that `pick` picks, as one.
    pub fn merge(&self, pick: impl Fn(&Counters) -> &Histogram) -> histogram::Snapshot {
        let mut whole = histogram::Snapshot::default();
        for core in &self.cores {
            whole.add(pick(&core.counters));
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let core = Core::new();
        for n in 0..RECORDS_MAX + 3 {
            let mut record = Record::new(Wall(n as u64), RequestId::new(Wall(n as u64), 7), 0);
            record.status = 200;
            core.finish(record);
        }
        assert_eq!(core.counters.records_lost.get(), 3);
        assert_eq!(core.pop().map(|r| r.at), Some(Wall(3)));
        assert_eq!(core.counters.status(200).get(), RECORDS_MAX as u64 + 3);
    }

    #[test]
    fn sums_run_over_all_cores_and_gauges_may_cross_them() {
        let telemetry = Telemetry::new(2, Wall(0), "1");
        telemetry.cores[0].counters.connections.add(1);
        telemetry.cores[1].counters.connections.sub(1);
        telemetry.cores[0].counters.accepted.add(2);
        telemetry.cores[1].counters.accepted.add(3);
        telemetry.cores[1].counters.overhead.observe(5);
        assert_eq!(telemetry.level(|c| c.connections.get()), 0);
        assert_eq!(telemetry.sum(|c| c.accepted.get()), 5);
        assert_eq!(telemetry.merge(|c| &c.overhead).count(), 1);
    }

    #[test]
    fn the_first_word_on_the_driver_stays() {
        let core = Core::new();
        assert_eq!(core.driver(), None);
        core.set_driver("epoll", "io_uring_setup is not permitted");
        core.set_driver("io_uring", "");
        assert_eq!(core.driver().map(|d| d.kind), Some("epoll"));
    }
}
