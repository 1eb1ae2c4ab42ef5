//! The exchanges that ended last, so that someone who has a request's id can be told what became of it, and the last
//! failure of each credential. Bounded in number and in bytes; what is older is in the access log only.
//!
//! An exchange that went as it should gives way to others like it, and never to one of those that are asked about: the
//! ones that failed, were refused, or needed more than one candidate.

use super::{line, names::Names, used::Used};
use crate::{
    base::{CredentialSlot, Wall},
    telemetry::{Attempt, Ending, Record, RequestId},
};
use std::collections::{HashMap, VecDeque};

/// Exchanges of each kind that are kept.
const KEPT_MAX: usize = 10_000;
/// And their lines, in bytes, of each kind. A line has about 600.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// Verdicts on attempts that are not held against anybody.
const HARMLESS: [&str; 5] = ["delivered", "passed_over", "nothing", "client_gone", "client_stalled"];

/// The exchanges, and the failures.
#[derive(Default)]
pub struct Recent {
    plain: Ring,
    notable: Ring,
    failures: HashMap<CredentialSlot, Failure>,
    /// What was used.
    pub used: Used,
}

/// The last attempt with a credential that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: Wall,
    /// The status; zero when there was no answer.
    pub status: u16,
    /// What it was taken for.
    pub verdict: &'static str,
    /// In which exchange.
    pub request_id: RequestId,
}

/// Lines, the oldest first, one behind the other in one buffer, so that nothing is allocated once it has its size.
#[derive(Default)]
struct Ring {
    lines: VecDeque<Entry>,
    bytes: VecDeque<u8>,
    /// Some have given way.
    has_lost: bool,
}

struct Entry {
    id: RequestId,
    at: Wall,
    length: usize,
}

impl Recent {
    /// Takes an exchange in.
    pub fn keep(&mut self, record: &Record, names: &Names) {
        self.used.add(record);
        for attempt in record.tried.iter().flatten().filter(|attempt| is_failure(attempt)) {
            let Attempt { status, verdict, .. } = *attempt;
            let at = Wall(record.at.0.saturating_add((u64::from(attempt.at_us) + u64::from(attempt.took_us)) / 1_000));
            let failure = Failure { at, status, verdict, request_id: record.request_id };
            // The log of several cores is not in order.
            let last = self.failures.entry(attempt.credential).or_insert(failure);
            if last.at <= at {
                *last = failure;
            }
        }
        let notable =
            record.ending != Ending::Complete || record.status >= 400 || record.tried.iter().flatten().count() > 1;
        (if notable { &mut self.notable } else { &mut self.plain }).push(record, names);
    }

    /// The line of an exchange, as the access log in JSON has it.
    pub fn find(&self, id: &str) -> Option<String> {
        self.notable.find(id).or_else(|| self.plain.find(id))
    }

    /// How far back it reaches: for exchanges that went as they should, and for the others. `None` for all there were.
    pub fn reach(&self) -> (Option<Wall>, Option<Wall>) {
        (self.plain.oldest(), self.notable.oldest())
    }

    /// The last failure of a credential.
    pub fn failure(&self, credential: CredentialSlot) -> Option<Failure> {
        self.failures.get(&credential).copied()
    }
}

/// Whether an attempt's outcome speaks against its upstream or its credential.
fn is_failure(attempt: &Attempt) -> bool {
    !HARMLESS.contains(&attempt.verdict)
}

impl Ring {
    fn push(&mut self, record: &Record, names: &Names) {
        let mut line = Vec::with_capacity(1024);
        line::json(record, names, &mut line);
        while self.lines.len() >= KEPT_MAX || self.bytes.len() + line.len() > KEPT_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.has_lost = true;
            self.bytes.drain(..oldest.length.min(self.bytes.len()));
        }
        self.lines.push_back(Entry { id: record.request_id, at: record.at, length: line.len() });
        self.bytes.extend(line);
    }

    fn find(&self, id: &str) -> Option<String> {
        let mut start = 0;
        for entry in &self.lines {
            if entry.id.ascii() == id.as_bytes() {
                let line = self.bytes.iter().skip(start).take(entry.length).copied().collect();
                return String::from_utf8(line).ok();
            }
            start += entry.length;
        }
        None
    }

    fn oldest(&self) -> Option<Wall> {
        self.lines.front().filter(|_| self.has_lost).map(|entry| entry.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::UpstreamSlot;

    fn record(n: u64, status: u16) -> Record {
        let mut record = Record::new(Wall(n), RequestId::new(Wall(n), n), 0);
        record.status = status;
        record
    }

    fn attempt(credential: u32, verdict: &'static str, took_us: u32) -> Attempt {
        let (upstream, credential) = (UpstreamSlot(0), CredentialSlot(credential));
        Attempt { upstream, credential, status: 529, verdict, at_us: 0, took_us }
    }

    #[test]
    fn the_oldest_give_way_and_failed_ones_only_to_failed_ones() {
        let (mut recent, names) = (Recent::default(), Names::default());
        recent.keep(&record(0, 529), &names);
        for n in 1..=KEPT_MAX as u64 + 2 {
            recent.keep(&record(n, 200), &names);
        }
        let find = |n| recent.find(&RequestId::new(Wall(n), n).to_string());
        assert!(find(0).is_some_and(|line| line.contains(r#""status":529"#)));
        assert_eq!([1, 2].map(find), [None, None]);
        for n in [3, 4, KEPT_MAX as u64 + 2] {
            let line: serde_json::Value = serde_json::from_str(&find(n).unwrap()).unwrap();
            assert_eq!(line["request_id"], RequestId::new(Wall(n), n).to_string());
        }
        assert_eq!(recent.reach(), (Some(Wall(3)), None));
        assert!(recent.find("").is_none());
    }

    #[test]
    fn lines_take_no_more_than_their_bytes() {
        let mut ring = Ring::default();
        let mut long = record(1, 200);
        long.path = "x".repeat(64).as_str().into();
        long.model = "y".repeat(64).as_str().into();
        long.caller = Some("z".repeat(1_000).into());
        for _ in 0..KEPT_MAX {
            ring.push(&long, &Names::default());
        }
        assert!(ring.lines.len() < KEPT_MAX && ring.bytes.len() <= KEPT_BYTES_MAX);
        assert_eq!(ring.lines.iter().map(|entry| entry.length).sum::<usize>(), ring.bytes.len());
    }

    #[test]
    fn the_last_failure_of_each_credential_is_known() {
        let (mut recent, names) = (Recent::default(), Names::default());
        let mut failed = record(10, 200);
        failed.tried = [Some(attempt(0, "connect_failed", 5_000)), Some(attempt(1, "delivered", 1)), None];
        recent.keep(&failed, &names);
        assert_eq!(recent.failure(CredentialSlot(0)).map(|f| (f.at, f.verdict)), Some((Wall(15), "connect_failed")));
        assert_eq!(recent.failure(CredentialSlot(1)), None);
        let mut earlier = record(2, 200);
        earlier.tried = [Some(attempt(0, "upstream_failed", 1_000)), None, None];
        recent.keep(&earlier, &names);
        assert_eq!(recent.failure(CredentialSlot(0)).map(|f| f.verdict), Some("connect_failed"));
    }
}
