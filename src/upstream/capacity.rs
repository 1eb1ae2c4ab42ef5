//! How much room a credential has for a class of models, as the upstream's answers tell (R70, R71): a candidate without room
//! is passed over before it answers 429. Here is what a (credential, model class) knows; what requests do with it goes
//! through `Sent`, so that nothing is counted twice or forgotten.
//!
//! There is room when every told limit has, behind all requests whose answers have not begun; output in flight is
//! taken off as far as it will not have refilled within `OUTPUT_HORIZON`. A refusal empties all until its time, and then
//! requests go as the limits told, or paced. All of it is relaxed atomics: `room` reads some thirty words.

use super::{
    Rest, Told,
    bucket::{Bucket, Reading},
    pace::Pace,
    told::Level,
};
use crate::base::{Mono, Span};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Output that an answer is taken to have before anything is known of them, in tokens as a model counts them.
const OUTPUT_FIRST: u64 = 1_024;
/// The weight of a new answer in the mean of outputs: one in 16.
const OUTPUT_WEIGHT: u64 = 16;
/// What is produced within that time is covered by what refills within it.
const OUTPUT_HORIZON: Span = Span::from_secs(10);
/// Requests that may be under way before anything is known of a credential; more rather go elsewhere.
const UNKNOWN_MAX: u64 = 8;
const UNKNOWN_LATER: Span = Span::from_ms(100);
/// A refusal without a time: so long, twice as long each further time in a row, and at most.
const REFUSED_FIRST: Span = Span::from_secs(1);
const REFUSED_DOUBLINGS_MAX: u32 = 6;
/// A refusal lasts at least so long, whatever is said.
const REFUSED_MIN: Span = Span::from_ms(500);
/// The largest need that is counted with.
const NEED_MAX: u64 = 1 << 30;

/// What a request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Uncached input, in tokens as a model counts them: an estimate.
    pub input: u64,
    /// The most output that it allows, likewise; what is expected is learned.
    pub output: u64,
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Now,
    /// There is, but traffic to it rises sharply, or nothing is known of it yet: another with room is better, and
    /// a moment later is too. Where there is no other, it may go.
    Paced(Mono),
    /// There is none, as far as can be reckoned, before then.
    At(Mono),
    /// The upstream has refused, and said or implied that it will until then.
    Refused(Mono),
}

/// For people: what is left of one limit, and what it is. Below zero is debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// What is left, requests under way taken off.
    pub left: i64,
    /// What the full bucket holds.
    pub of: u64,
}

/// For people: all limits of one (credential, model class); `None` where none was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityShown {
    /// Requests.
    pub requests: Option<Left>,
    /// Input and output together.
    pub both: Option<Left>,
    /// Uncached input.
    pub input: Option<Left>,
    /// Output.
    pub output: Option<Left>,
    /// It has refused, until then.
    pub refused_until: Option<Mono>,
}

/// The room of one (credential, model class).
#[derive(Default)]
pub struct Capacity {
    refused: Rest,
    /// Refusals in a row that no told limit explains.
    refusals: AtomicU32,
    /// Somebody has been answered.
    is_known: AtomicBool,
    /// The mean of outputs, in sixteenths; zero when nothing is known.
    output_mean: AtomicU64,
    /// When the present turn of the buckets began.
    turn: CachePadded<AtomicU64>,
    requests: Bucket,
    both: Bucket,
    input: Bucket,
    output: Bucket,
    pace: Pace,
}

/// What one request has put into the buckets, and must take out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    input: u64,
    /// Output that is expected.
    pub(super) output: u64,
    /// What had been spent: requests, both, input.
    spent: [u64; 3],
}

impl Capacity {
    /// Whether a request that takes `need` has room now. What the operator declared is not here, but in
    /// `CredentialState::room`.
    pub fn room(&self, need: Need, now: Mono) -> Room {
        let input = need.input.min(NEED_MAX);
        let new = Taken { input, output: self.output_expected(need), spent: [0; 3] };
        match self.told(&new, false, now) {
            Room::Now => self.paced(input, now),
            full => full,
        }
    }

    /// Whether there is room for one that has just been added to what is under way.
    pub(super) fn holds(&self, taken: &Taken, now: Mono) -> Room {
        self.told(taken, true, now)
    }

    /// Room by what was told.
    fn told(&self, one: &Taken, is_under_way: bool, now: Mono) -> Room {
        if let Some(until) = self.refused.until(now) {
            return Room::Refused(until);
        }
        let own = |units: u64| if is_under_way { units } else { 0 };
        let (input, both) = (one.input, one.input + one.output);
        let open = self.output.pending() + one.output - own(one.output).min(self.output.pending());
        let refills = self.output.per_minute() * HORIZON_MINUTES;
        let waits = [
            self.requests.wait_for(1, own(1), false, now),
            self.input.wait_for(input, own(input), true, now),
            self.both.wait_for(both, own(both), true, now),
            self.output.wait_for_more_than((open as f64 - refills).max(0.0), now),
        ];
        waits.into_iter().flatten().max().map_or(Room::Now, |span| Room::At(now.after(span)))
    }

    /// Room by how traffic rises, and has been refused.
    fn paced(&self, input: u64, now: Mono) -> Room {
        if let Some(later) = self.pace.wait(now) {
            return Room::At(later);
        }
        let per_minute = self.input.per_minute().max(self.both.per_minute());
        if let Some(later) = self.pace.is_sharp(input, per_minute, now) {
            return Room::Paced(later);
        }
        if !self.is_known.load(Relaxed) && self.requests.pending() >= UNKNOWN_MAX {
            return Room::Paced(now.after(UNKNOWN_LATER));
        }
        Room::Now
    }

    /// Output that is expected of a request.
    pub(super) fn output_expected(&self, need: Need) -> u64 {
        let mean = self.output_mean.load(Relaxed);
        need.output.min(if mean == 0 { OUTPUT_FIRST } else { mean / OUTPUT_WEIGHT }).min(NEED_MAX)
    }

    /// A request is sent.
    pub(super) fn begin(&self, need: Need, now: Mono) -> Taken {
        let (input, output) = (need.input.min(NEED_MAX), self.output_expected(need));
        self.pace.begin(input, now);
        self.output.begin(output);
        Taken {
            input,
            output,
            spent: [self.requests.begin(1), self.both.begin(input + output), self.input.begin(input)],
        }
    }

    /// Its answer has begun, or will not come: what it took is told by answers from now on.
    pub(super) fn headed(&self, taken: &Taken) {
        self.requests.end(1);
        self.both.end(taken.input + taken.output);
        self.input.end(taken.input);
    }

    /// Its answer has ended, or will not come.
    pub(super) fn ended(&self, taken: &Taken) {
        self.output.end(taken.output);
    }

    /// An answer's head tells of limits.
    pub(super) fn learn(&self, taken: &Taken, told: &Told, began: Mono, now: Mono) {
        if !self.is_known.load(Relaxed) {
            self.is_known.store(true, Relaxed);
        }
        let is_told = |level: &Level| level.limit.is_some() && level.remaining.is_some();
        if !told.levels().into_iter().any(is_told) {
            return;
        }
        let turn = self.turn.load(Relaxed);
        let turns = began.0 >= turn && self.turn.compare_exchange(turn, now.0, Relaxed, Relaxed).is_ok();
        let [requests, both, input] = taken.spent.map(|spent| Reading { began, spent, turns, now });
        self.requests.learn(&told.requests, &requests);
        self.input.learn(&told.input, &input);
        // What others do to output cannot be told from what we do: nobody has counted ours when a head comes.
        self.output.learn_without_others(&told.output, &input);
        // Anthropic repeats the tightest limit there; only one that is none of the others is one more.
        let repeats = |level: &Level| level.limit == told.both.limit;
        if repeats(&told.input) || repeats(&told.output) {
            self.both.forget();
        } else {
            self.both.learn(&told.both, &both);
        }
    }

    /// The upstream works for this class.
    pub(super) fn accepted(&self) {
        if self.refusals.load(Relaxed) != 0 {
            self.refusals.store(0, Relaxed);
        }
    }

    /// The upstream refused for want of room what `taken` asked for; returns until when it is left alone.
    pub(super) fn refuse(&self, taken: &Taken, told: &Told, now: Mono) -> Mono {
        let lacks = |level: &Level, units: u64| level.remaining.is_some_and(|remaining| remaining < units.max(1));
        let explained = lacks(&told.requests, 1)
            || lacks(&told.input, taken.input)
            || lacks(&told.output, 1)
            || lacks(&told.both, taken.input);
        let known = told.retry_after.or_else(|| {
            let waits = [
                self.requests.wait_for(1, 0, false, now),
                self.input.wait_for(taken.input, 0, true, now),
                self.both.wait_for(taken.input, 0, true, now),
                self.output.wait_for_more_than(0.0, now),
            ];
            waits.into_iter().flatten().max().filter(|_| explained)
        });
        let span = known.unwrap_or_else(|| {
            let in_row = self.refusals.fetch_add(1, Relaxed).min(REFUSED_DOUBLINGS_MAX);
            Span(REFUSED_FIRST.0 << in_row)
        });
        let until = now.after(span.max(REFUSED_MIN).min(super::told::RETRY_AFTER_MAX));
        self.refused.extend(until);
        if !explained {
            let is_told = self.requests.is_told() || self.input.is_told() || self.both.is_told();
            self.pace.refuse(taken.input, is_told, now, until);
        }
        until
    }

    /// The upstream refused for want of room, and nothing is known but until when.
    pub fn refused(&self, until: Mono) {
        self.refused.extend(until);
    }

    /// An answer had so much output.
    pub(super) fn produced(&self, output: u64) {
        let mean = self.output_mean.load(Relaxed);
        let output = output.min(NEED_MAX);
        let next = if mean == 0 { output * OUTPUT_WEIGHT } else { mean - mean / OUTPUT_WEIGHT + output };
        // One lost among many cores does not matter for a mean.
        self.output_mean.store(next.max(1), Relaxed);
    }

    /// All that people may want to know.
    pub fn shown(&self, now: Mono) -> CapacityShown {
        let left = |bucket: &Bucket| bucket.shown(now).map(|(left, of)| Left { left, of });
        CapacityShown {
            requests: left(&self.requests),
            both: left(&self.both),
            input: left(&self.input),
            output: left(&self.output),
            refused_until: self.refused.until(now),
        }
    }
}

const HORIZON_MINUTES: f64 = OUTPUT_HORIZON.0 as f64 / 60e9;

#[cfg(test)]
mod tests;
