//! One limit of a (credential, model class) as the upstream's answers tell it, and what we have sent since.
//!
//! The upstream's bucket is known by the moment at which it will be full: what is spent moves that moment on, and
//! refilling needs no arithmetic. An answer tells the moment as it was when the request was let in, its own need
//! included; the bucket is never fuller than the latest such moment says. So what is missing is
//!   the latest moment told by an answer, and the need of all requests whose answers have not begun:
//! no answer can count one of those twice, and none is forgotten, in whatever order heads arrive. Moments are forgotten
//! when newer answers include all that they knew: what an upstream gives back (output that it had set aside, input that
//! was cached) is seen then.
//!
//! What others spend with the same credential shows as a bucket that fills more slowly than it should. The share is
//! learned, and taken off what would have refilled since the last answer.

use super::told::Level;
use crate::base::{Mono, Span};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECOND: f64 = 1e9;
const MINUTE_S: f64 = 60.0;
/// Between two looks at what others spend; an answer's times are whole seconds, so shorter is noise.
const OTHERS_EVERY: Span = Span::from_secs(5);
/// What was learned of others weighs half after about this.
const OTHERS_MEMORY_S: f64 = 10.0;
/// The largest share of a limit that others are believed to take.
const OTHERS_MAX: f64 = 0.95;
/// What others spend comes in lumps: so much of it is taken off at once.
const OTHERS_AHEAD: Span = Span::from_secs(2);
/// For so long after the last answer it is taken off; then less and less, until after some minutes nothing is.
const OTHERS_FOR: Span = Span::from_secs(30);

/// One limit.
#[derive(Default)]
pub(super) struct Bucket {
    told: CachePadded<Tale>,
    ours: CachePadded<Ours>,
}

/// Written when answers come.
#[derive(Default)]
struct Tale {
    /// What the full bucket holds; zero when nobody has told of it.
    size: AtomicU64,
    /// What refills in a second, as the bits of an `f64`.
    rate: AtomicU64,
    /// The latest moment told since the last turn, and before it.
    newer: AtomicU64,
    older: AtomicU64,
    /// When the latest request began whose answer has told.
    heard_of: AtomicU64,
    /// The share of the rate that others spend, as the bits of an `f64`; may be a little below zero.
    others: AtomicU64,
    /// At the last look: the moment told, what we had spent, and when that request began.
    base_full: AtomicU64,
    base_spent: AtomicU64,
    base_at: AtomicU64,
}

/// Written when requests begin and end.
#[derive(Default)]
struct Ours {
    /// The need of requests whose answers have not begun.
    pending: AtomicU64,
    /// The need of all requests ever.
    spent: AtomicU64,
}

/// What an answer must say of the request that it answers, for what it tells to be understood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// When the request began.
    pub(super) began: Mono,
    /// What had been spent when it began, its own need included.
    pub(super) spent: u64,
    /// It includes all answers before the last turn, and begins the next.
    pub(super) turns: bool,
    /// When its head came.
    pub(super) now: Mono,
}

impl Bucket {
    /// Whether anybody has told of this limit.
    pub(super) fn is_told(&self) -> bool {
        self.told.size.load(Relaxed) > 0
    }

    /// What refills in a minute; zero when nobody has told.
    pub(super) fn per_minute(&self) -> f64 {
        if self.is_told() { self.rate() * MINUTE_S } else { 0.0 }
    }

    /// A request begins; returns what has been spent, for its `Reading`.
    pub(super) fn begin(&self, units: u64) -> u64 {
        self.ours.pending.fetch_add(units, Relaxed);
        self.ours.spent.fetch_add(units, Relaxed).wrapping_add(units)
    }

    /// Its answer's head has come, or it ended without.
    pub(super) fn end(&self, units: u64) {
        self.ours.pending.fetch_sub(units, Relaxed);
    }

    /// The need of requests whose answers have not begun.
    pub(super) fn pending(&self) -> u64 {
        self.ours.pending.load(Relaxed)
    }

    /// How long until `need` is there behind what is pending; `None` when it is there, or when nobody has told of this limit.
    /// `own` is what the request itself has in what is pending. An eighth more is asked for where needs are `estimated`.
    /// A need larger than the bucket waits until it is nearly full, and is let into debt.
    pub(super) fn wait_for(&self, need: u64, own: u64, estimated: bool, now: Mono) -> Option<Span> {
        let size = self.told.size.load(Relaxed);
        if size == 0 {
            return None;
        }
        let margin = if estimated { 1.125 } else { 1.0 };
        let need = (need as f64 * margin).min(size as f64 * 0.95);
        let wanted = need + self.pending().saturating_sub(own) as f64 * margin;
        self.wait_until_level(wanted, size, now)
    }

    /// How long until more than `units` are there, whatever is pending.
    pub(super) fn wait_for_more_than(&self, units: f64, now: Mono) -> Option<Span> {
        let size = self.told.size.load(Relaxed);
        (size > 0).then(|| self.wait_until_level((units + 1.0).min(size as f64 * 0.95), size, now)).flatten()
    }

    fn wait_until_level(&self, wanted: f64, size: u64, now: Mono) -> Option<Span> {
        let missing = wanted - self.level(size, now);
        if missing <= 0.0 {
            return None;
        }
        let rate = self.rate();
        Some(if rate > 0.0 { Span((missing / rate * SECOND) as u64 + 1) } else { Span::from_secs(60) })
    }

    /// What is there by all that was told, pending needs not taken off; below zero in debt.
    fn level(&self, size: u64, now: Mono) -> f64 {
        let told = &*self.told;
        let full = Mono(told.newer.load(Relaxed).max(told.older.load(Relaxed)));
        let unheard = now.since(Mono(told.heard_of.load(Relaxed))).0;
        let unheard =
            (unheard + OTHERS_AHEAD.0).min(OTHERS_FOR.0).saturating_sub(unheard.saturating_sub(OTHERS_FOR.0) / 8);
        let others = f64::from_bits(told.others.load(Relaxed)).max(0.0);
        let missing = full.since(now).0 as f64 + unheard as f64 * others;
        size as f64 - missing / SECOND * self.rate()
    }

    /// For people: what is there, and what the full bucket holds.
    pub(super) fn shown(&self, now: Mono) -> Option<(i64, u64)> {
        let size = self.told.size.load(Relaxed);
        (size > 0).then(|| ((self.level(size, now) - self.pending() as f64) as i64, size))
    }

    /// Forgets the limit: it is told no more.
    pub(super) fn forget(&self) {
        if self.is_told() {
            self.told.size.store(0, Relaxed);
        }
    }

    /// An answer tells. Writes only what has changed.
    pub(super) fn learn(&self, level: &Level, reading: &Reading) {
        if let Some((full, rate)) = self.read(level, reading) {
            if reading.turns {
                self.look_for_others(full, rate, reading);
            }
            self.turn(full, reading);
        }
    }

    /// The same where it is not known what we have spent.
    pub(super) fn learn_without_others(&self, level: &Level, reading: &Reading) {
        if let Some((full, _)) = self.read(level, reading) {
            self.turn(full, reading);
        }
    }

    /// The moment at which the bucket will be full, and what refills in a second.
    fn read(&self, level: &Level, reading: &Reading) -> Option<(Mono, f64)> {
        let (limit, remaining) = (level.limit?, level.remaining?);
        let limit = limit.max(remaining);
        let missing = (limit - remaining) as f64;
        let full_in = level.full_in.map(|span| span.0 as f64 / SECOND);
        let minute_rate = limit as f64 / MINUTE_S;
        let rate = match full_in {
            // Limits by the day are told like those by the minute; how fast they fill tells them apart.
            Some(full_in) if !level.per_minute && full_in > 0.0 && missing > 0.0 => {
                (missing / full_in).min(minute_rate)
            }
            _ if level.per_minute || !self.is_told() => minute_rate,
            _ => self.rate(),
        };
        set(&self.told.rate, rate.to_bits());
        self.resize(level, limit, remaining, rate * reading.now.since(reading.began).0 as f64 / SECOND);
        let by_level = missing.min(self.told.size.load(Relaxed) as f64 - remaining as f64).max(0.0) / rate;
        let ahead = match full_in {
            Some(full_in) if remaining > 0 => by_level.min(full_in),
            // Debt shows in the time alone.
            Some(full_in) if level.per_minute => by_level.max(full_in),
            _ => by_level,
        };
        Some((reading.now.after(Span((ahead * SECOND) as u64)), rate))
    }

    fn turn(&self, full: Mono, reading: &Reading) {
        self.told.newer.fetch_max(full.0, Relaxed);
        self.told.heard_of.fetch_max(reading.began.0, Relaxed);
        if reading.turns {
            let turned = self.told.newer.swap(0, Relaxed).max(full.0);
            self.told.older.store(turned, Relaxed);
        }
    }

    /// The full bucket can be smaller than its limit (a burst of less than a minute): what remains and the time to full
    /// say how small. Times are rounded up, and `refilled` since the request began is the most that was not counted yet,
    /// so the smallest that was seen is right.
    fn resize(&self, level: &Level, limit: u64, remaining: u64, refilled: f64) {
        let known = self.told.size.load(Relaxed);
        let full_in = level.full_in.filter(|_| level.per_minute && remaining > 0);
        let seen = match full_in {
            Some(full_in) => {
                let refills = limit as f64 / MINUTE_S * full_in.0 as f64 / SECOND;
                ((remaining as f64 + refills + refilled) as u64).clamp(1, limit)
            }
            None if known > 0 && level.per_minute => known.min(limit),
            None => limit,
        };
        let size = if known == 0 || seen < known || seen > known.saturating_mul(2) {
            seen
        } else {
            known + (seen - known) / 16
        };
        set(&self.told.size, size);
    }

    /// What others have spent since the last look: what the moment moved on by, less what we have spent.
    fn look_for_others(&self, full: Mono, rate: f64, reading: &Reading) {
        let told = &*self.told;
        let base_at = Mono(told.base_at.load(Relaxed));
        let since = reading.began.since(base_at);
        if since < OTHERS_EVERY {
            return;
        }
        let seconds = since.0 as f64 / SECOND;
        let base_full = Mono(told.base_full.load(Relaxed));
        let ours = reading.spent.wrapping_sub(told.base_spent.load(Relaxed)) as f64;
        let weight = seconds / (seconds + OTHERS_MEMORY_S);
        // A bucket that has been full meanwhile, or may have been, tells nothing of what was spent.
        let spent = if base_full > reading.began && full > reading.now && rate > 0.0 {
            (full.since(base_full).0 as f64 / SECOND * rate - ours) / (rate * seconds)
        } else {
            0.0
        };
        let others = f64::from_bits(told.others.load(Relaxed));
        let others = others + (spent.clamp(-0.5, OTHERS_MAX) - others) * weight;
        told.others.store(others.to_bits(), Relaxed);
        told.base_full.store(full.0, Relaxed);
        told.base_spent.store(reading.spent, Relaxed);
        told.base_at.store(reading.began.0, Relaxed);
    }

    fn rate(&self) -> f64 {
        f64::from_bits(self.told.rate.load(Relaxed))
    }
}

/// Stores what is new, so that a line that others read stays theirs.
fn set(word: &AtomicU64, to: u64) {
    if word.load(Relaxed) != to {
        word.store(to, Relaxed);
    }
}
