//! A sliding sum: what happened within the last so many seconds, in slots that fall out one by one. Shared atomics; an
//! addition is one `fetch_add`, a sum is as many relaxed loads as there are slots.

use crate::base::{Mono, Span};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of a slot's sum; the other 24 say which slot of time it is (they come round after two and a half years of 5 s).
const SUM_BITS: u32 = 40;
const SUM_MAX: u64 = (1 << SUM_BITS) - 1;
const NUMBER_MAX: u64 = (1 << (64 - SUM_BITS)) - 1;
/// The most that one addition adds, so that a slot cannot run over.
const ADD_MAX: u64 = 1 << 30;

/// `SLOTS` slots of `SLOT_S` seconds each.
pub(super) struct Window<const SLOTS: usize, const SLOT_S: u64> {
    slots: CachePadded<[AtomicU64; SLOTS]>,
}

impl<const SLOTS: usize, const SLOT_S: u64> Default for Window<SLOTS, SLOT_S> {
    fn default() -> Self {
        Window { slots: CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0))) }
    }
}

impl<const SLOTS: usize, const SLOT_S: u64> Window<SLOTS, SLOT_S> {
    const SLOT: Span = Span::from_secs(SLOT_S);

    /// Adds to the present slot.
    pub(super) fn add(&self, units: u64, now: Mono) {
        let number = now.0 / Self::SLOT.0;
        let Some(slot) = self.slot(number) else { return };
        let old = slot.load(Relaxed);
        if old >> SUM_BITS != number & NUMBER_MAX {
            // Who loses that has been overtaken by somebody who began the slot.
            let _ = slot.compare_exchange(old, (number & NUMBER_MAX) << SUM_BITS, Relaxed, Relaxed);
        }
        slot.fetch_add(units.min(ADD_MAX), Relaxed);
    }

    /// Takes back what was added at `then`, if that slot is still there.
    pub(super) fn take_back(&self, units: u64, then: Mono) {
        let number = then.0 / Self::SLOT.0;
        if let Some(slot) = self.slot(number)
            && slot.load(Relaxed) >> SUM_BITS == number & NUMBER_MAX
        {
            slot.fetch_sub(units.min(ADD_MAX), Relaxed);
        }
    }

    /// The sum of the slots from `newest` to `oldest` ago; 0 is the present one.
    pub(super) fn sum(&self, newest: u64, oldest: u64, now: Mono) -> u64 {
        (newest..=oldest).map(|ago| self.ago(ago, now)).sum()
    }

    /// When the sum of the present slot and `oldest` before it will be at most `max`, if nothing is added.
    pub(super) fn falls_to(&self, max: u64, oldest: u64, now: Mono) -> Mono {
        let mut sum = self.sum(0, oldest, now);
        let present = now.0 / Self::SLOT.0;
        for ago in (0..=oldest).rev() {
            if sum <= max {
                break;
            }
            sum = sum.saturating_sub(self.ago(ago, now));
            if sum <= max {
                // The slot that is `ago` old falls out when it is one older than the oldest.
                return Mono((present + oldest + 1 - ago).saturating_mul(Self::SLOT.0));
            }
        }
        now
    }

    fn ago(&self, ago: u64, now: Mono) -> u64 {
        let Some(number) = (now.0 / Self::SLOT.0).checked_sub(ago) else { return 0 };
        let word = self.slot(number).map_or(0, |slot| slot.load(Relaxed));
        if word >> SUM_BITS == number & NUMBER_MAX { word & SUM_MAX } else { 0 }
    }

    fn slot(&self, number: u64) -> Option<&AtomicU64> {
        self.slots.get((number % SLOTS as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono(Span::from_secs(1_000 + s).0)
    }

    #[test]
    fn what_is_old_falls_out() {
        let window = Window::<8, 5>::default();
        (0..30).for_each(|s| window.add(1, at(s)));
        assert_eq!(window.sum(0, 3, at(29)), 20);
        assert_eq!(window.sum(1, 3, at(29)), 15);
        assert_eq!(window.falls_to(20, 3, at(29)), at(29));
        assert_eq!(window.falls_to(19, 3, at(29)), at(30));
        assert_eq!(window.falls_to(12, 3, at(29)), at(35));
        assert_eq!(window.sum(0, 3, at(34)), 15);
        assert_eq!(window.sum(0, 7, at(500)), 0);
        window.take_back(5, at(29));
        assert_eq!(window.sum(0, 3, at(29)), 15);
        window.take_back(5, Mono(at(29).0 - Span::from_secs(40).0));
        assert_eq!(window.sum(0, 3, at(29)), 15, "that slot is somebody else's now");
    }
}
