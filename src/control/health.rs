//! Whether the process lives, and whether it should get requests: the decisions behind `/healthz` and `/readyz`. Pure
//! but for the pulses that it remembers; moments are arguments.

use crate::{
    base::{Mono, Span},
    table::{Table, live::Live},
    telemetry::Telemetry,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A worker beats at least once a second; after this long without a beat its core is taken for stuck.
pub const PULSE_MAX: Span = Span::from_secs(5);

/// When one worker's beats were last seen to grow.
pub struct Pulse {
    beats: AtomicU64,
    changed_at: AtomicU64,
}

impl Pulse {
    /// A worker that is taken for fresh at `now`.
    pub fn new(now: Mono) -> Pulse {
        Pulse { beats: AtomicU64::new(0), changed_at: AtomicU64::new(now.0) }
    }

    /// Takes a reading in; says how long ago the beats last grew.
    pub fn read(&self, beats: u64, now: Mono) -> Span {
        if self.beats.swap(beats, Relaxed) != beats {
            self.changed_at.store(now.0, Relaxed);
        }
        now.since(Mono(self.changed_at.load(Relaxed)))
    }
}

/// Why the process is not alive: workers whose loop has stopped. Empty when all is well.
pub fn not_alive(telemetry: &Telemetry, pulses: &[Pulse], now: Mono) -> Vec<String> {
    let silent = telemetry.cores.iter().zip(pulses).enumerate().filter_map(|(worker, (core, pulse))| {
        let silence = pulse.read(core.counters.beats.get(), now);
        (silence > PULSE_MAX).then(|| format!("worker {worker} has been stuck for {} s", silence.as_ms() / 1_000))
    });
    silent.collect()
}

/// Whether the process should get requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What keeps it from being ready; empty when it is.
    pub reasons: Vec<String>,
    /// What an operator should look at all the same.
    pub warnings: Vec<String>,
}

/// Ready means: every worker accepts connections and lives, every upstream's name has been looked up, at least one of
/// them has an address, and the process is not going down. One upstream without an address is a warning only: taking
/// every request away from the others would make a small fault a large one.
pub fn readiness(telemetry: &Telemetry, table: &Table, live: &Live, draining: bool, stuck: Vec<String>) -> Readiness {
    let mut readiness = Readiness { reasons: stuck, warnings: Vec::new() };
    if draining {
        readiness.reasons.push("the process is going down".into());
    }
    for (worker, core) in telemetry.cores.iter().enumerate() {
        if !core.listening() && !draining {
            readiness.reasons.push(format!("worker {worker} does not listen yet"));
        }
    }
    let mut known = 0;
    for (slot, upstream) in table.upstream_slots() {
        match live.addresses.get(slot.index()) {
            Some(addresses) if !addresses.known.is_empty() => {
                known += 1;
                if let Some(error) = &addresses.error {
                    readiness.warnings.push(format!("upstream `{}`: {error}; its last addresses stay", upstream.name));
                }
            }
            Some(crate::table::live::Addresses { error: Some(error), .. }) => {
                readiness.warnings.push(format!("upstream `{}`: {error}", upstream.name));
            }
            _ => readiness.reasons.push(format!("upstream `{}` has not been looked up yet", upstream.name)),
        }
    }
    if known == 0 {
        readiness.reasons.push("no upstream has an address".into());
    }
    readiness
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Wall,
        control::resolve,
        control::tests::{table, upstream},
    };

    const S: Span = Span::from_secs(1);

    #[test]
    fn a_worker_that_stops_beating_is_told() {
        let telemetry = Telemetry::new(2, Wall(0), "");
        let pulses = [Pulse::new(Mono(0)), Pulse::new(Mono(0))];
        let at = |s| Mono(S.0 * s);
        telemetry.cores[0].beat();
        assert!(not_alive(&telemetry, &pulses, at(5)).is_empty());
        telemetry.cores[0].beat();
        assert_eq!(not_alive(&telemetry, &pulses, at(9)), ["worker 1 has been stuck for 9 s"]);
        telemetry.cores[1].beat();
        assert!(not_alive(&telemetry, &pulses, at(10)).is_empty());
        assert_eq!(not_alive(&telemetry, &pulses, at(20)).len(), 2);
    }

    #[test]
    fn ready_once_all_listen_and_an_address_is_known() {
        let telemetry = Telemetry::new(1, Wall(0), "");
        let table = table(vec![upstream("far", "upstream.invalid", 443), upstream("near", "127.0.0.1", 80)]);
        let mut live = resolve::literals(&table, Wall(1));
        let ready = |live: &Live, draining| readiness(&telemetry, &table, live, draining, Vec::new());
        assert_eq!(
            ready(&live, false).reasons,
            ["worker 0 does not listen yet", "upstream `far` has not been looked up yet"]
        );
        telemetry.cores[0].set_listening(true);
        live.addresses[0].error = Some("no such name".into());
        let with_one = ready(&live, false);
        assert!(with_one.reasons.is_empty(), "{with_one:?}");
        assert_eq!(with_one.warnings, ["upstream `far`: no such name"]);
        assert_eq!(ready(&live, true).reasons, ["the process is going down"]);
    }

    #[test]
    fn no_address_at_all_is_not_ready() {
        let telemetry = Telemetry::new(0, Wall(0), "");
        let table = table(vec![upstream("far", "upstream.invalid", 443)]);
        let mut live = Live::unknown(1);
        live.addresses[0].error = Some("no such name".into());
        let readiness = readiness(&telemetry, &table, &live, false, Vec::new());
        assert_eq!(readiness.reasons, ["no upstream has an address"]);
    }
}
