//! Whether an upstream works, as its answers tell. All cores share one state, read with one relaxed load when it is well.
//!
//! It is left alone after five failures in a row, or when half of at least twenty answers within some ten seconds are
//! failures: 5 s the first time, twice as long each further time, five minutes at most; a minute in which it works
//! takes one doubling back. Then one request may see (the probe). Its success opens a slow start: a share that rises to
//! all in 30 s, during which two failures in a row are enough. Active checks, and what counts as a failure, are not here.

use crate::base::{Mono, Span};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Failures in a row after which it is left alone.
const CONSECUTIVE_MAX: u32 = 5;
/// The same during a slow start.
const CONSECUTIVE_SLOW_MAX: u32 = 2;
/// Answers that it takes to speak of a share of failures.
const RATIO_OF_MIN: u64 = 20;
/// How long it is left alone, the first time and at most.
const EJECTION: Span = Span::from_secs(5);
const EJECTION_MAX: Span = Span::from_secs(300);
/// The count of ejections beyond which the time grows no more: 5 s * 2^6 is beyond its cap.
const EJECTIONS_MAX: u64 = 7;
/// A time of health that takes one ejection back.
const DECAY: Span = Span::from_secs(60);
/// A probe that is lost gives its claim back after that.
const CLAIM: Span = Span::from_secs(60);
/// How long a slow start takes, and the share that it begins with, in per cent.
const SLOW: Span = Span::from_secs(30);
const SLOW_PERCENT_MIN: u64 = 10;
/// Half of the time that answers are counted in; the present half and the one before it count.
const HALF: Span = Span::from_secs(5);
/// Attempts to change the shared word before a caller gives up: somebody else has just said something.
const TRIES_MAX: usize = 8;

/// What a breaker says of its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It works.
    Closed,
    /// It has come back; only so many per cent of what it could have should go there yet.
    Slow(u8),
    /// It is left alone.
    Open {
        /// Until then.
        until: Mono,
    },
    /// Its time is over, and one request may see whether it works again.
    Probe,
}

/// What people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What it says now.
    pub standing: Standing,
    /// Ejections that the length of the next one counts; health takes them back.
    pub ejections: u32,
    /// Ejections since the process began.
    pub ejections_total: u32,
    /// Failures in a row.
    pub failures_in_row: u32,
    /// Failures and answers counted within the last ten seconds. Answers count from the first failure on.
    pub failures_of: (u64, u64),
}

/// The state of one upstream, on a cache line of its own.
#[derive(Default)]
pub struct Breaker {
    inner: CachePadded<Inner>,
}

#[derive(Default)]
struct Inner {
    /// A `Word`; zero is healthy from the start.
    word: AtomicU64,
    consecutive: AtomicU32,
    ejections_total: AtomicU32,
    /// Two `Half`s, by turns.
    halves: [AtomicU64; 2],
}

/// What the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Healthy; the time is when the last slow start began.
    Closed,
    /// Left alone until the time.
    Open,
    /// A probe is out; the time is when its claim ends.
    Probing,
    /// Coming back since the time.
    Slow,
}

/// The whole state in 64 bits, so that every change is one CAS: phase 2, ejections 6, time 56 in units of 1024 ns (more
/// than two thousand years).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    phase: Phase,
    ejections: u64,
    time: Mono,
}

impl Word {
    fn unpack(bits: u64) -> Word {
        let phase = match bits >> 62 {
            0 => Phase::Closed,
            1 => Phase::Open,
            2 => Phase::Probing,
            _ => Phase::Slow,
        };
        Word { phase, ejections: bits >> 56 & 63, time: Mono((bits & ((1 << 56) - 1)).saturating_mul(1_024)) }
    }

    fn pack(self) -> u64 {
        // Rounded up, so that no time is over before its end.
        let time = self.time.0.div_ceil(1_024).min((1 << 56) - 1);
        (self.phase as u64) << 62 | self.ejections.min(63) << 56 | time
    }

    /// When the present ejection began.
    fn ejected(self) -> Mono {
        Mono(self.time.0.saturating_sub(ejection(self.ejections).0))
    }

    /// Whether a request that began at `began` did so before the probe was claimed.
    fn is_older_than_the_claim(self, began: Mono) -> bool {
        Mono(began.0.saturating_add(CLAIM.0 + 1_024)) < self.time
    }

    fn is_slow(self, now: Mono) -> bool {
        self.phase == Phase::Slow && now.since(self.time) < SLOW
    }

    /// The ejections that still count: health takes them back, one a minute.
    fn ejections_left(self, now: Mono) -> u64 {
        match self.phase {
            Phase::Closed | Phase::Slow => self.ejections.saturating_sub(now.since(self.time).0 / DECAY.0),
            Phase::Open | Phase::Probing => self.ejections,
        }
    }

    fn standing(self, now: Mono) -> Standing {
        match self.phase {
            Phase::Open | Phase::Probing if self.time > now => Standing::Open { until: self.time },
            Phase::Open | Phase::Probing => Standing::Probe,
            Phase::Slow if self.is_slow(now) => {
                let part = now.since(self.time).0 * (100 - SLOW_PERCENT_MIN) / SLOW.0;
                Standing::Slow((SLOW_PERCENT_MIN + part) as u8)
            }
            Phase::Slow | Phase::Closed => Standing::Closed,
        }
    }
}

/// How long the nth ejection lasts, n from 1.
const fn ejection(n: u64) -> Span {
    let doublings = if n == 0 { 0 } else { n - 1 };
    if n >= EJECTIONS_MAX { EJECTION_MAX } else { Span(EJECTION.0 << doublings) }
}

/// Answers of one half of the window in 64 bits: number of the half 20 (it comes round after sixty days), answers that
/// were no failures 22, failures 22.
#[derive(Clone, Copy)]
struct Half(u64);

impl Half {
    const OK: u64 = 1 << 22;
    const FAILED: u64 = 1;

    fn number(now: Mono) -> u64 {
        (now.0 / HALF.0) & 0xf_ffff
    }

    /// Failures and answers, if the half is that one.
    fn counts(self, number: u64) -> (u64, u64) {
        if self.0 >> 44 != number {
            return (0, 0);
        }
        let failed = self.0 & (Self::OK - 1);
        (failed, failed + (self.0 >> 22 & (Self::OK - 1)))
    }
}

impl Breaker {
    /// What there is to say now.
    pub fn standing(&self, now: Mono) -> Standing {
        match self.inner.word.load(Relaxed) {
            0 => Standing::Closed,
            bits => Word::unpack(bits).standing(now),
        }
    }

    /// All that people may want to know.
    pub fn shown(&self, now: Mono) -> Shown {
        let word = self.word();
        Shown {
            standing: word.standing(now),
            ejections: word.ejections_left(now) as u32,
            ejections_total: self.inner.ejections_total.load(Relaxed),
            failures_in_row: self.inner.consecutive.load(Relaxed),
            failures_of: self.counted(now),
        }
    }

    /// Takes the one probe that `Standing::Probe` offers; false when somebody else has it, or none is offered. Who got
    /// it says `succeeded`, `failed` or `abandoned`; who never does loses it after a minute.
    pub fn claim_probe(&self, now: Mono) -> bool {
        let word = self.word();
        let probing = Word { phase: Phase::Probing, time: now.after(CLAIM), ..word };
        word.standing(now) == Standing::Probe && self.change(word, probing)
    }

    /// A request was answered, whatever the answer, in a way that shows a working upstream. While it is left alone, that
    /// tells nothing: the request may have begun before.
    pub fn succeeded(&self, now: Mono) {
        self.succeeded_since(Mono(0), now);
    }

    /// The same of a request that began at `began`. While the upstream is left alone, one that began since then (it was
    /// sent there because there was nobody else) ends that; an older one tells nothing new. While a probe is out any
    /// answer is taken for the probe's: it shows that the upstream answers, and what follows is a slow start in either case.
    pub fn succeeded_since(&self, began: Mono, now: Mono) {
        if self.inner.consecutive.load(Relaxed) != 0 {
            self.inner.consecutive.store(0, Relaxed);
        }
        // Answers count from the first failure on, so that a healthy upstream's write nothing.
        if self.counted(now).0 > 0 {
            self.count(Half::OK, now);
        }
        if self.inner.word.load(Relaxed) == 0 {
            return;
        }
        for _ in 0..TRIES_MAX {
            let word = self.word();
            let next = match word.phase {
                Phase::Probing => Word { phase: Phase::Slow, time: now, ..word },
                Phase::Open if began > word.ejected() => Word { phase: Phase::Slow, time: now, ..word },
                Phase::Slow if !word.is_slow(now) => Word { phase: Phase::Closed, ..word },
                Phase::Closed if word.ejections_left(now) == 0 => Word::unpack(0),
                Phase::Open | Phase::Slow | Phase::Closed => return,
            };
            if self.change(word, next) {
                return;
            }
        }
    }

    /// A request failed in a way that counts against the upstream.
    pub fn failed(&self, now: Mono) {
        self.failed_since(now, now);
    }

    /// The same of a request that began at `began`. One that began before the upstream came back tells nothing: those
    /// that hung when it was down fail long after it is well again.
    pub fn failed_since(&self, began: Mono, now: Mono) {
        for _ in 0..TRIES_MAX {
            let word = self.word();
            let eject = match word.phase {
                Phase::Open => return,
                Phase::Probing if word.is_older_than_the_claim(began) => return,
                Phase::Probing => true,
                Phase::Slow | Phase::Closed if began < word.time && word.time.since(began).0 > 1_024 => return,
                Phase::Slow | Phase::Closed => {
                    self.count(Half::FAILED, now);
                    let in_row = self.inner.consecutive.fetch_add(1, Relaxed).saturating_add(1);
                    let (failed, all) = self.counted(now);
                    let in_row_max = if word.is_slow(now) { CONSECUTIVE_SLOW_MAX } else { CONSECUTIVE_MAX };
                    in_row >= in_row_max || all >= RATIO_OF_MIN && failed * 2 >= all
                }
            };
            // A lost race is somebody's who has failed or succeeded at this moment: the count is kept, and enough.
            if !eject || self.eject(word, now) || word.phase != Phase::Probing {
                return;
            }
        }
    }

    /// The request that claimed the probe ended without telling anything: its client left. The next one may try. Only
    /// for who claimed it.
    pub fn abandoned(&self, now: Mono) {
        self.abandoned_since(now, now);
    }

    /// The same of any request that began at `began`: one that began before the claim did not make it, and gives nothing back.
    pub fn abandoned_since(&self, began: Mono, now: Mono) {
        let word = self.word();
        if word.phase == Phase::Probing && word.time > now && !word.is_older_than_the_claim(began) {
            self.change(word, Word { phase: Phase::Open, time: now, ..word });
        }
    }

    /// Leaves it alone. One of several that fail at once does it.
    fn eject(&self, word: Word, now: Mono) -> bool {
        let ejections = (word.ejections_left(now) + 1).min(EJECTIONS_MAX);
        let open = Word { phase: Phase::Open, ejections, time: now.after(ejection(ejections)) };
        let won = self.change(word, open);
        if won {
            self.inner.ejections_total.fetch_add(1, Relaxed);
            self.inner.consecutive.store(0, Relaxed);
            self.inner.halves.iter().for_each(|half| half.store(0, Relaxed));
        }
        won
    }

    fn word(&self) -> Word {
        Word::unpack(self.inner.word.load(Relaxed))
    }

    fn change(&self, from: Word, to: Word) -> bool {
        self.inner.word.compare_exchange(from.pack(), to.pack(), Relaxed, Relaxed).is_ok()
    }

    /// Failures and answers of the last five to ten seconds.
    fn counted(&self, now: Mono) -> (u64, u64) {
        let number = Half::number(now);
        let before = number.wrapping_sub(1) & 0xf_ffff;
        [number, before].iter().fold((0, 0), |(failed, all), number| {
            let half = self.inner.halves.get((number & 1) as usize).map_or(0, |half| half.load(Relaxed));
            let (f, a) = Half(half).counts(*number);
            (failed + f, all + a)
        })
    }

    fn count(&self, what: u64, now: Mono) {
        let number = Half::number(now);
        let Some(half) = self.inner.halves.get((number & 1) as usize) else { return };
        let old = half.load(Relaxed);
        if old >> 44 != number {
            // Who loses that has been overtaken by somebody who began the half.
            let _ = half.compare_exchange(old, number << 44, Relaxed, Relaxed);
        }
        half.fetch_add(what, Relaxed);
    }
}

#[cfg(test)]
mod tests;
