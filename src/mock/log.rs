//! The simulator's own account of what it was asked and what it gave: a bounded list of rows, and totals that do not
//! forget. What forebay's books say is compared with this.

use crate::base::{Mono, Wall};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is still going on.
    Open,
    /// The whole answer was handed to the socket.
    Finished,
    /// The simulator broke it off, as it was asked to.
    Broken,
    /// The client left.
    Aborted,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Position since the last reset.
    pub seq: u64,
    /// When it arrived.
    pub at_wall_ms: u64,
    /// When it arrived, on the monotonic clock.
    pub at_mono_ns: u64,
    /// The `request-id` of the answer.
    pub request_id: String,
    /// The path, without the query.
    pub path: String,
    /// The credential's name, or the first eight hex digits of its SHA-256.
    pub credential: String,
    /// The model class whose limits count.
    pub class: &'static str,
    /// The model as asked for.
    pub model: String,
    /// `x-claude-code-session-id`, if it came.
    pub session: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Bytes of the request's body.
    pub body_bytes: u64,
    /// SHA-256 of the request's body, where `hash_bodies` is on.
    pub body_sha256: Option<String>,
    /// The answer's status; 0 when the connection was broken before one.
    pub status: u16,
    /// Whether the limits let it in; a simulated failure does not count as let in.
    pub admitted: bool,
    /// Uncached input.
    pub input_tokens: u64,
    /// Written to the prompt cache.
    pub cache_write_tokens: u64,
    /// Read from the prompt cache.
    pub cache_read_tokens: u64,
    /// Produced so far.
    pub output_tokens: u64,
    /// How it ended.
    pub ending: Ending,
    /// When it ended, on the monotonic clock.
    pub ended_mono_ns: Option<u64>,
}

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) admitted: u64,
    pub(super) throttled: u64,
    pub(super) failed: u64,
    pub(super) open: u64,
    pub(super) finished: u64,
    pub(super) broken: u64,
    pub(super) aborted: u64,
    pub(super) input_tokens: u64,
    pub(super) cache_write_tokens: u64,
    pub(super) cache_read_tokens: u64,
    pub(super) output_tokens: u64,
}

/// Credentials and classes told apart in the totals; further ones are summed under `(more)`.
const SUMS_MAX: usize = 4_096;

/// The log.
pub(super) struct UsageLog {
    rows: VecDeque<Row>,
    first: u64,
    rows_max: usize,
    all: Totals,
    each: BTreeMap<String, Totals>,
}

impl UsageLog {
    pub(super) fn new(rows_max: usize) -> UsageLog {
        UsageLog {
            rows: VecDeque::new(),
            first: 0,
            rows_max: rows_max.max(1),
            all: Totals::default(),
            each: BTreeMap::new(),
        }
    }

    /// Adds a row that is open; its position.
    pub(super) fn open(&mut self, mut row: Row) -> u64 {
        let seq = self.first + self.rows.len() as u64;
        row.seq = seq;
        for totals in self.totals(&row.credential, row.class) {
            totals.requests += 1;
            totals.open += 1;
            totals.admitted += u64::from(row.admitted);
            totals.throttled += u64::from(row.status == 429);
            totals.failed += u64::from(!row.admitted && row.status != 429);
            totals.input_tokens += row.input_tokens;
            totals.cache_write_tokens += row.cache_write_tokens;
            totals.cache_read_tokens += row.cache_read_tokens;
        }
        if self.rows.len() >= self.rows_max {
            self.rows.pop_front();
            self.first += 1;
        }
        self.rows.push_back(row);
        seq
    }

    /// Adds output to an open row. A row that has been pushed out keeps counting in the totals of all.
    pub(super) fn produced(&mut self, seq: u64, output: u64) {
        self.change(seq, |row, totals| {
            if let Some(row) = row {
                row.output_tokens += output;
            }
            for totals in totals {
                totals.output_tokens += output;
            }
        });
    }

    /// Closes a row, once.
    pub(super) fn close(&mut self, seq: u64, ending: Ending, now: Mono) {
        self.change(seq, |row, totals| {
            if let Some(row) = row {
                row.ending = ending;
                row.ended_mono_ns = Some(now.0);
            }
            for totals in totals {
                totals.open = totals.open.saturating_sub(1);
                match ending {
                    Ending::Open => totals.open += 1,
                    Ending::Finished => totals.finished += 1,
                    Ending::Broken => totals.broken += 1,
                    Ending::Aborted => totals.aborted += 1,
                }
            }
        });
    }

    /// Rows from position `from` on, `max` at most.
    pub(super) fn rows(&self, from: u64, max: usize) -> impl Iterator<Item = &Row> {
        self.rows.iter().skip(from.saturating_sub(self.first) as usize).take(max)
    }

    /// The position behind the last row.
    pub(super) fn next(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// The sums: of all, and by `credential/class`.
    pub(super) fn sums(&self) -> (&Totals, &BTreeMap<String, Totals>) {
        (&self.all, &self.each)
    }

    fn change(&mut self, seq: u64, apply: impl FnOnce(Option<&mut Row>, &mut [&mut Totals])) {
        let row = seq.checked_sub(self.first).and_then(|at| self.rows.get_mut(at as usize));
        match row {
            Some(row) => match self.each.get_mut(&key(&row.credential, row.class)) {
                Some(each) => apply(Some(row), &mut [&mut self.all, each]),
                None => apply(Some(row), &mut [&mut self.all]),
            },
            None => apply(None, &mut [&mut self.all]),
        }
    }

    fn totals(&mut self, credential: &str, class: &str) -> [&mut Totals; 2] {
        let mut key = key(credential, class);
        if self.each.len() >= SUMS_MAX && !self.each.contains_key(&key) {
            "(more)".clone_into(&mut key);
        }
        [&mut self.all, self.each.entry(key).or_default()]
    }
}

fn key(credential: &str, class: &str) -> String {
    format!("{credential}/{class}")
}

/// The start of a row; the rest is filled in as it becomes known.
pub(super) fn row(now: Mono, wall: Wall, request_id: &str) -> Row {
    Row {
        seq: 0,
        at_wall_ms: wall.0,
        at_mono_ns: now.0,
        request_id: request_id.to_owned(),
        path: String::new(),
        credential: String::new(),
        class: "other",
        model: String::new(),
        session: None,
        stream: false,
        body_bytes: 0,
        body_sha256: None,
        status: 0,
        admitted: false,
        input_tokens: 0,
        cache_write_tokens: 0,
        cache_read_tokens: 0,
        output_tokens: 0,
        ending: Ending::Open,
        ended_mono_ns: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_do_not_forget_the_rows_that_were_pushed_out() {
        let mut log = UsageLog::new(2);
        for at in 0..5 {
            let mut row = row(Mono(at), Wall(at), "req");
            (row.admitted, row.input_tokens, row.status) = (true, 10, 200);
            let seq = log.open(row);
            assert_eq!(seq, at);
        }
        for seq in 0..5 {
            log.produced(seq, 3);
            log.close(seq, Ending::Finished, Mono(9));
        }
        let (all, _) = log.sums();
        assert_eq!((all.requests, all.open, all.finished, all.input_tokens, all.output_tokens), (5, 0, 5, 50, 15));
        assert_eq!(log.rows(0, 10).map(|row| row.seq).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(
            log.rows(4, 10).map(|row| (row.output_tokens, row.ending)).collect::<Vec<_>>(),
            [(3, Ending::Finished)]
        );
    }
}
