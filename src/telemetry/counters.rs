//! What a core counts. Each number has one writer, the core itself, so that adding is a load and a store without a
//! locked instruction; every thread may read, and sees values that are at most a moment old.

use super::{
    histogram::Histogram,
    record::{Attempt, Ending, Record},
};
use crate::base::{CredentialSlot, Kind, Origin, UpstreamSlot, failure::TABLE};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Upstreams that are counted apart; the slots after them share the last place, so that labels stay bounded.
pub const UPSTREAMS_MAX: usize = 64;
/// Credentials that are counted apart; likewise.
pub const CREDENTIALS_MAX: usize = 128;
/// What an attempt came to, besides the failure table's reasons: it was the client's answer; it was an error before it
/// had content; or what followed from its status.
pub const OUTCOMES: [&str; 6] = ["delivered", "early_error", "passed_over", "nothing", "no_room", "upstream_failed"];
/// One place for each of them, one for each row of the failure table, and one for what is in neither.
const VERDICTS: usize = OUTCOMES.len() + TABLE.len() + 1;
/// Every status that HTTP has a class for.
const STATUSES: std::ops::Range<usize> = 100..600;
/// One place for each row of the failure table, and one for a reason that is not in it.
const REASONS: usize = TABLE.len() + 1;

/// A number that only grows. One thread writes it.
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds `n`. Only the owner may: two writers would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Default for Counter {
    fn default() -> Counter {
        Counter::new()
    }
}

/// A level that rises and falls. One thread writes it; what begins on one core and ends on another makes one core's
/// level negative, and the sum over the cores true.
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Zero.
    pub const fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    /// Makes the level `n`. Only the owner may.
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// Raises the level by `n`. Only the owner may.
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Lowers the level by `n`. Only the owner may.
    pub fn sub(&self, n: i64) {
        self.add(n.wrapping_neg());
    }

    /// Raises the level by one for as long as what this returns lives, also when a panic ends that. Only the owner may.
    #[must_use]
    pub fn hold(&self) -> Held<'_> {
        self.add(1);
        Held(self)
    }

    /// The level now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One of what a gauge counts.
pub struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge::new()
    }
}

/// What is counted for each upstream.
#[derive(Default)]
pub struct UpstreamCounters {
    /// Exchanges that ended here, by the class of the status that the client got: 1xx to 5xx.
    pub answers: [Counter; 5],
    /// Exchanges that ended here and that the upstream, or the way to it, made fail.
    pub failures: Counter,
    /// Connections opened.
    pub connects: Counter,
    /// Connections that could not be opened: refused, timed out, or no TLS.
    pub connect_failures: Counter,
    /// Requests sent on a connection that had served before.
    pub reuses: Counter,
    /// Requests sent a second time, because a reused connection turned out to be closed.
    pub replays: Counter,
    /// Requests sent here although it was doubtful: to see whether it works again, or because there was nobody else.
    pub probes: Counter,
}

/// How the client of an answer that failed after it had begun learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// By an error event.
    Event,
    /// By a body without its end.
    Cut,
    /// Not at all: nothing but the last event was missing, and forebay wrote it.
    Completed,
}

impl Late {
    /// All of them, in order.
    pub const ALL: [Late; 3] = [Late::Event, Late::Cut, Late::Completed];

    /// As it stands in metrics.
    pub const fn slug(self) -> &'static str {
        match self {
            Late::Event => "error_event",
            Late::Cut => "cut",
            Late::Completed => "completed",
        }
    }
}

/// How a client's TLS handshake came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// With the whole exchange of keys and certificates.
    Full,
    /// From a ticket of an earlier session.
    Resumed,
    /// The client spoke plain HTTP.
    PlainHttp,
    /// It was not done in time.
    Timeout,
    /// The client closed before it was done.
    Closed,
    /// No version, cipher or protocol in common, or not TLS at all.
    Refused,
    /// The client does not trust the certificate.
    Distrusted,
}

impl Handshake {
    /// All of them, in order.
    pub const ALL: [Handshake; 7] = [
        Handshake::Full,
        Handshake::Resumed,
        Handshake::PlainHttp,
        Handshake::Timeout,
        Handshake::Closed,
        Handshake::Refused,
        Handshake::Distrusted,
    ];

    /// As it stands in metrics.
    pub const fn slug(self) -> &'static str {
        match self {
            Handshake::Full => "full",
            Handshake::Resumed => "resumed",
            Handshake::PlainHttp => "plain_http",
            Handshake::Timeout => "timeout",
            Handshake::Closed => "closed",
            Handshake::Refused => "refused",
            Handshake::Distrusted => "distrusted",
        }
    }
}

/// All that one core counts.
pub struct Counters {
    /// Client connections accepted.
    pub accepted: Counter,
    /// Of those, handed on to a less busy core.
    pub handed_over: Counter,
    /// Client connections open.
    pub connections: Gauge,
    /// Exchanges in flight.
    pub exchanges: Gauge,
    /// Answers that are streaming now.
    pub streams: Gauge,
    /// Upstream connections that wait in the pool. Set from time to time.
    pub idle: Gauge,
    /// Bytes of request bodies held now.
    pub bodies_bytes: Gauge,
    /// Bytes of request bodies received, of exchanges that have ended.
    pub bytes_in: Counter,
    /// Bytes of answer bodies sent, of exchanges that have ended.
    pub bytes_out: Counter,
    /// SSE events passed on, of exchanges that have ended.
    pub events: Counter,
    /// Panics that ended one task and nothing else.
    pub panics: Counter,
    /// Records that gave way because the access log was behind.
    pub records_lost: Counter,
    /// Turns of the core's loop; it stands still when the core does.
    pub beats: Counter,
    /// Until the whole request was read.
    pub body_read: Histogram,
    /// From the request until the first byte of the answer.
    pub first_byte: Histogram,
    /// From the request until the end of the answer.
    pub duration: Histogram,
    /// forebay's own part of the duration: without waiting for the client or the upstream.
    pub overhead: Histogram,
    /// From the head of an answer until it was certain that it would be the client's: how long its beginning was held.
    pub held: Histogram,
    /// Answers that were committed to a client.
    pub commits: Counter,
    /// Exchanges for which more than one candidate was asked, and whose client has its answer.
    pub failovers_saved: Counter,
    /// The same, but without an answer for the client.
    pub failovers_lost: Counter,
    /// Pings of forebay's own in streams whose upstream was silent.
    pub pings: Counter,
    /// Thinking blocks left out because another family's signature is on them.
    pub thinking_dropped: Counter,
    /// Conversations that went to another credential than the one that has their cache.
    pub moved: Counter,
    /// About how much cached input that made new, in tokens as a model counts them.
    pub moved_llm_tokens: Counter,
    late: [Counter; Late::ALL.len()],
    /// One for each credential that is counted apart.
    attempts: Box<[[Counter; VERDICTS]]>,
    handshakes: [Counter; Handshake::ALL.len()],
    statuses: [Counter; STATUSES.end - STATUSES.start],
    reasons: [Counter; REASONS],
    upstreams: [UpstreamCounters; UPSTREAMS_MAX],
}

impl Counters {
    /// All zero.
    pub fn new() -> Counters {
        Counters {
            idle: Gauge::new(),
            accepted: Counter::new(),
            handed_over: Counter::new(),
            connections: Gauge::new(),
            exchanges: Gauge::new(),
            streams: Gauge::new(),
            bodies_bytes: Gauge::new(),
            bytes_in: Counter::new(),
            bytes_out: Counter::new(),
            events: Counter::new(),
            panics: Counter::new(),
            records_lost: Counter::new(),
            beats: Counter::new(),
            body_read: Histogram::new(),
            first_byte: Histogram::new(),
            duration: Histogram::new(),
            overhead: Histogram::new(),
            held: Histogram::new(),
            commits: Counter::new(),
            failovers_saved: Counter::new(),
            failovers_lost: Counter::new(),
            pings: Counter::new(),
            thinking_dropped: Counter::new(),
            moved: Counter::new(),
            moved_llm_tokens: Counter::new(),
            late: [const { Counter::new() }; Late::ALL.len()],
            attempts: (0..CREDENTIALS_MAX).map(|_| [const { Counter::new() }; VERDICTS]).collect(),
            handshakes: [const { Counter::new() }; Handshake::ALL.len()],
            statuses: [const { Counter::new() }; STATUSES.end - STATUSES.start],
            reasons: [const { Counter::new() }; REASONS],
            upstreams: std::array::from_fn(|_| UpstreamCounters::default()),
        }
    }

    /// Clients' TLS handshakes that came out so.
    pub fn handshakes(&self, outcome: Handshake) -> &Counter {
        &self.handshakes[outcome as usize]
    }

    /// Answers that failed after they had begun, and whose clients were told so.
    pub fn late(&self, told: Late) -> &Counter {
        &self.late[told as usize]
    }

    /// What came of the attempts with a credential: each verdict and how often, without those that never came.
    pub fn attempts(&self, credential: CredentialSlot) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = &self.attempts[credential.index().min(CREDENTIALS_MAX - 1)];
        let counted = counts.iter().enumerate().map(|(at, count)| (verdict_at(at), count.get()));
        counted.filter(|(_, count)| *count > 0)
    }

    /// Exchanges that ended with `status`; a status outside 100..600 counts as 599.
    pub fn status(&self, status: u16) -> &Counter {
        let at = usize::from(status).wrapping_sub(STATUSES.start).min(self.statuses.len() - 1);
        &self.statuses[at]
    }

    /// Exchanges that ended with a failure of `kind`.
    pub fn failures(&self, kind: Kind) -> &Counter {
        &self.reasons[kind as usize]
    }

    /// Exchanges that ended with a reason that the failure table does not have.
    pub fn other_failures(&self) -> &Counter {
        &self.reasons[TABLE.len()]
    }

    /// The counters of an upstream.
    pub fn upstream(&self, slot: UpstreamSlot) -> &UpstreamCounters {
        &self.upstreams[slot.index().min(UPSTREAMS_MAX - 1)]
    }

    /// Counts and measures an exchange that has ended.
    pub fn observe(&self, record: &Record) {
        self.bytes_in.add(record.bytes_in);
        self.bytes_out.add(record.bytes_out);
        self.events.add(record.events);
        self.status(record.status).add(1);
        if !record.reason.is_empty() {
            let row = TABLE.iter().find(|row| row.reason == record.reason);
            row.map_or(self.other_failures(), |row| self.failures(row.kind)).add(1);
        }
        if let Some(slot) = record.upstream_slot {
            let upstream = self.upstream(slot);
            let class = usize::from(record.status / 100).clamp(1, 5) - 1;
            upstream.answers[class].add(1);
            if record.origin == Some(Origin::Upstream) {
                upstream.failures.add(1);
            }
        }
        self.observe_attempts(record);
        self.body_read.observe(record.body_us);
        if record.first_byte_us > 0 {
            self.first_byte.observe(record.first_byte_us);
        }
        self.duration.observe(record.duration_us);
        self.overhead.observe(record.overhead_us);
    }

    fn observe_attempts(&self, record: &Record) {
        self.thinking_dropped.add(u64::from(record.dropped));
        let mut tried = 0;
        for Attempt { credential, verdict, .. } in record.tried.iter().flatten() {
            tried += 1;
            self.attempts[credential.index().min(CREDENTIALS_MAX - 1)][place_of(verdict)].add(1);
        }
        if tried > 1 {
            let is_saved = record.ending == Ending::Complete && record.status < 500 && record.status != 429;
            (if is_saved { &self.failovers_saved } else { &self.failovers_lost }).add(1);
        }
        if record.commit_us > 0 {
            self.commits.add(1);
        }
    }
}

/// Where a verdict is counted.
fn place_of(verdict: &str) -> usize {
    let own = OUTCOMES.iter().position(|outcome| *outcome == verdict);
    let reason = || TABLE.iter().position(|row| row.reason == verdict).map(|at| OUTCOMES.len() + at);
    own.or_else(reason).unwrap_or(VERDICTS - 1)
}

/// What is counted there.
fn verdict_at(place: usize) -> &'static str {
    let reason = || TABLE.get(place.wrapping_sub(OUTCOMES.len())).map(|row| row.reason);
    OUTCOMES.get(place).copied().or_else(reason).unwrap_or("other")
}

impl Default for Counters {
    fn default() -> Counters {
        Counters::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::Wall, telemetry::RequestId};

    fn record() -> Record {
        Record::new(Wall(1), RequestId::new(Wall(1), 1), 0)
    }

    #[test]
    fn a_failure_is_counted_once_under_each_label() {
        let counters = Counters::new();
        let mut failed = record();
        failed.status = 504;
        failed.origin = Some(Origin::Upstream);
        failed.reason = Kind::ConnectTimeout.row().reason;
        failed.upstream_slot = Some(UpstreamSlot(3));
        (failed.bytes_in, failed.bytes_out, failed.events) = (7, 8, 9);
        counters.observe(&failed);
        assert_eq!([&counters.bytes_in, &counters.bytes_out, &counters.events].map(Counter::get), [7, 8, 9]);
        assert_eq!(counters.status(504).get(), 1);
        assert_eq!(counters.failures(Kind::ConnectTimeout).get(), 1);
        assert_eq!(counters.other_failures().get(), 0);
        assert_eq!(counters.upstream(UpstreamSlot(3)).failures.get(), 1);
        assert_eq!(counters.upstream(UpstreamSlot(3)).answers[4].get(), 1);
    }

    #[test]
    fn labels_stay_bounded_whatever_comes() {
        let counters = Counters::new();
        let mut odd = record();
        odd.status = 0;
        odd.reason = "a reason of tomorrow";
        odd.upstream_slot = Some(UpstreamSlot(u32::MAX));
        counters.observe(&odd);
        odd.status = 999;
        counters.observe(&odd);
        assert_eq!(counters.status(599).get(), 2);
        assert_eq!(counters.other_failures().get(), 2);
        assert_eq!(counters.upstream(UpstreamSlot(63)).answers[0].get(), 1);
        assert_eq!(counters.upstream(UpstreamSlot(63)).answers[4].get(), 1);
    }

    #[test]
    fn attempts_are_counted_by_credential_and_verdict() {
        let counters = Counters::new();
        let attempt = |credential, verdict| {
            let (upstream, credential) = (UpstreamSlot(0), CredentialSlot(credential));
            Some(Attempt { upstream, credential, status: 0, verdict, at_us: 0, took_us: 0 })
        };
        let mut failed_over = record();
        failed_over.status = 200;
        (failed_over.commit_us, failed_over.dropped) = (1_400, 2);
        failed_over.tried = [attempt(0, "connect_failed"), attempt(u32::MAX, "a verdict of tomorrow"), None];
        counters.observe(&failed_over);
        failed_over.tried = [attempt(0, "connect_failed"), attempt(1, "delivered"), None];
        counters.observe(&failed_over);
        failed_over.status = 529;
        failed_over.commit_us = 0;
        counters.observe(&failed_over);
        let of = |slot| counters.attempts(CredentialSlot(slot)).collect::<Vec<_>>();
        assert_eq!(of(0), [("connect_failed", 3)]);
        assert_eq!(of(1), [("delivered", 2)]);
        assert_eq!(of(CREDENTIALS_MAX as u32 + 5), [("other", 1)]);
        assert_eq!((counters.failovers_saved.get(), counters.failovers_lost.get()), (2, 1));
        assert_eq!((counters.commits.get(), counters.thinking_dropped.get()), (2, 6));
    }

    #[test]
    fn every_verdict_has_a_place_of_its_own() {
        let all: Vec<usize> =
            OUTCOMES.iter().copied().chain(TABLE.iter().map(|row| row.reason)).map(place_of).collect();
        assert_eq!(all, (0..VERDICTS - 1).collect::<Vec<_>>());
        assert!((0..VERDICTS - 1).all(|place| place_of(verdict_at(place)) == place));
        assert_eq!(verdict_at(VERDICTS - 1), "other");
    }

    #[test]
    fn an_exchange_without_an_answer_has_no_first_byte() {
        let counters = Counters::new();
        let mut gone = record();
        gone.duration_us = 10;
        counters.observe(&gone);
        let mut first_byte = super::super::histogram::Snapshot::default();
        first_byte.add(&counters.first_byte);
        assert_eq!(first_byte.count(), 0);
    }
}
