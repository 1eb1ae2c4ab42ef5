//! Whether an upstream works, as its answers tell. All cores share one state, read with one relaxed load when it is well.

use crate::base::{Mono, Span};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Failures in a row after which it is left alone.
const CONSECUTIVE_MAX: u32 = 5;
/// How long, the first time.
const EJECTION: Span = Span::from_secs(10);

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

/// The state of one upstream.
#[derive(Default)]
pub struct Breaker {
    consecutive: AtomicU32,
    open_until: AtomicU64,
}

impl Breaker {
    /// What there is to say now.
    pub fn standing(&self, now: Mono) -> Standing {
        let until = Mono(self.open_until.load(Relaxed));
        if until > now { Standing::Open { until } } else { Standing::Closed }
    }

    /// Takes the one probe that `Standing::Probe` offers; false when somebody else has it.
    pub fn claim_probe(&self, now: Mono) -> bool {
        self.standing(now) == Standing::Closed
    }

    /// A request was answered, whatever the answer, in a way that shows a working upstream.
    pub fn succeeded(&self, _now: Mono) {
        self.consecutive.store(0, Relaxed);
    }

    /// A request failed in a way that counts against the upstream.
    pub fn failed(&self, now: Mono) {
        if self.consecutive.fetch_add(1, Relaxed) + 1 >= CONSECUTIVE_MAX {
            self.open_until.store(now.after(EJECTION).0, Relaxed);
        }
    }

    /// A request ended without telling anything: its client left.
    pub fn abandoned(&self, _now: Mono) {}
}
