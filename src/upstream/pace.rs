//! Pacing: how fast requests may go where the limits that are told do not explain what an upstream refuses, and where a
//! rise would be sharp (providers have acceleration limits, which they do not tell).
//!
//! The rules. (1) After a refusal that no told limit explains, requests go one by one, at half of the rate of the minute
//! before it; the rate doubles every 2 s, or every 15 s where no limit is told at all, and after five doublings it is free.
//! (2) Input of the last minute is at most twice that of the minute before it, or half of the told limit if that is
//! more; or, within ten minutes of a refusal that nothing explains, what had been let in before it. This is a
//! preference: another credential is taken first, and where there is none the request goes all the same. Held to
//! strictly, it was found to spread load so unevenly that more was refused, not less.

use super::window::Window;
use crate::base::{Mono, Span};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// After that the rate doubles: where limits are told, and where none is.
const STEP_TOLD: Span = Span::from_secs(2);
const STEP_UNTOLD: Span = Span::from_secs(15);
/// So often, and then it is free.
const STEPS: u64 = 5;
/// The gaps that a refusal can lead to.
const GAP_MIN: Span = Span::from_ms(2);
const GAP_MAX: Span = Span::from_secs(5);
/// How long a limit on rises that was met is remembered.
const RAMP_FOR: Span = Span::from_secs(600);
/// A minute in slots of 15 s: the present one and four before it, so at least a minute; and the minute before it.
const MINUTE: (u64, u64) = (0, 4);
const MINUTE_BEFORE: (u64, u64) = (5, 8);
/// How long until it is worth to look again, where a rise is spread without need.
const SPREAD: Span = Span::from_ms(250);

/// The pace of one (credential, model class).
#[derive(Default)]
pub(super) struct Pace {
    gap: CachePadded<Gap>,
    requests: Window<10, 15>,
    input: Window<10, 15>,
}

#[derive(Default)]
struct Gap {
    /// Between two requests at first, in ns; zero when free.
    first: AtomicU64,
    /// After so many ns it is half of that, and so on.
    step: AtomicU64,
    /// Since when.
    since: AtomicU64,
    /// When the next one may go.
    next: AtomicU64,
    /// The input of a minute that is known to be let in, and until when that is remembered.
    known: AtomicU64,
    known_until: AtomicU64,
}

impl Pace {
    /// When the next request may go; `None` for now.
    pub(super) fn wait(&self, now: Mono) -> Option<Mono> {
        let next = Mono(self.gap.next.load(Relaxed));
        (next > now && self.present_gap(now) > Span::ZERO).then_some(next)
    }

    /// Whether `input` more would be too sharp a rise: then it is better sent elsewhere, or a little later. `per_minute` is
    /// the told limit, zero if none was.
    pub(super) fn is_sharp(&self, input: u64, per_minute: f64, now: Mono) -> Option<Mono> {
        let is_known = self.is_known(now);
        if !is_known && per_minute <= 0.0 {
            return None;
        }
        let before = self.input.sum(MINUTE.0, MINUTE.1, now);
        let floor = if is_known { self.gap.known.load(Relaxed) } else { (per_minute / 2.0) as u64 };
        let fits = |most: u64| before.saturating_add(input) <= most;
        let free =
            before == 0 || fits(floor) || fits(self.input.sum(MINUTE_BEFORE.0, MINUTE_BEFORE.1, now).saturating_mul(2));
        (!free).then(|| now.after(SPREAD))
    }

    /// A request is sent.
    pub(super) fn begin(&self, input: u64, now: Mono) {
        self.requests.add(1, now);
        self.input.add(input, now);
        let gap = self.present_gap(now);
        if gap > Span::ZERO {
            let next = Mono(self.gap.next.load(Relaxed)).max(now).after(gap);
            // Two at once count as one: the next one waits for both.
            self.gap.next.fetch_max(next.0, Relaxed);
        }
    }

    /// The upstream refused until `until`, and no told limit explains why; `input` was not let in. `is_told`: there are
    /// told limits.
    pub(super) fn refuse(&self, input: u64, is_told: bool, now: Mono, until: Mono) {
        let requests = self.requests.sum(MINUTE.0, MINUTE.1, now).max(1);
        let gap = Span(2 * 60_000_000_000 / requests).0.clamp(GAP_MIN.0, GAP_MAX.0);
        // Refused while it was slow: slower still.
        let gap = self.present_gap(now).0.saturating_mul(2).max(gap).min(GAP_MAX.0);
        self.gap.first.store(gap, Relaxed);
        self.gap.step.store(if is_told { STEP_TOLD.0 } else { STEP_UNTOLD.0 }, Relaxed);
        self.gap.since.store(until.0, Relaxed);
        self.gap.next.fetch_max(until.0, Relaxed);
        let minute = self.input.sum(MINUTE.0, MINUTE.1, now).saturating_sub(input);
        if minute > self.input.sum(MINUTE_BEFORE.0, MINUTE_BEFORE.1, now) {
            // What is summed up may be a quarter more than a minute's. The least that was refused is what is let in at any time.
            let known = if self.is_known(now) { self.gap.known.load(Relaxed) } else { u64::MAX };
            self.gap.known.store(known.min(minute / 5 * 4), Relaxed);
            self.gap.known_until.store(now.after(RAMP_FOR).0, Relaxed);
        }
    }

    fn is_known(&self, now: Mono) -> bool {
        self.gap.known_until.load(Relaxed) > now.0
    }

    /// Between two requests at present.
    fn present_gap(&self, now: Mono) -> Span {
        let first = self.gap.first.load(Relaxed);
        if first == 0 {
            return Span::ZERO;
        }
        let steps = now.since(Mono(self.gap.since.load(Relaxed))).0 / self.gap.step.load(Relaxed).max(1);
        if steps >= STEPS { Span::ZERO } else { Span(first >> steps) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Span::from_ms(1_000_000_000 + ms).0)
    }

    /// What is sent in each `slot_ms` after a refusal until 65 s, when a thousand a second want to go.
    fn sent_after(is_told: bool, slot_ms: u64) -> [u64; 9] {
        let pace = Pace::default();
        (0..600).for_each(|n| pace.begin(0, at(n * 100)));
        pace.refuse(0, is_told, at(60_000), at(65_000));
        let mut sent = [0; 9];
        for ms in 65_000..65_000 + slot_ms * 9 {
            if pace.wait(at(ms)).is_none() {
                pace.begin(0, at(ms));
                sent[((ms - 65_000) / slot_ms) as usize] += 1;
            }
        }
        sent
    }

    #[test]
    fn after_a_refusal_the_herd_goes_one_by_one_and_then_faster() {
        // 600 a minute is ten a second: five at first, ten after a step, and so on.
        for (is_told, step_ms) in [(true, 2_000), (false, 15_000)] {
            let sent = sent_after(is_told, step_ms);
            for (at, wanted) in [5, 10, 20, 40, 80].into_iter().enumerate() {
                let wanted = wanted * step_ms / 1_000;
                assert!(sent[at].abs_diff(wanted) <= 1 + wanted / 8, "{sent:?}: {at}, {wanted}");
            }
            assert_eq!(sent[5..], [step_ms; 4], "free");
        }
    }

    #[test]
    fn refused_while_it_was_slow_it_is_slower_still() {
        let pace = Pace::default();
        (0..60).for_each(|n| pace.begin(0, at(n * 1_000)));
        pace.refuse(0, true, at(60_000), at(61_000));
        let gap = pace.present_gap(at(61_000));
        pace.refuse(0, true, at(61_500), at(62_500));
        assert_eq!(pace.present_gap(at(62_500)).0, (gap.0 * 2).min(GAP_MAX.0));
    }

    #[test]
    fn a_sharp_rise_is_known_and_a_slow_one_is_free() {
        let pace = Pace::default();
        let is_sharp = |input, ms| pace.is_sharp(input, 60_000.0, at(ms)).is_some();
        assert!(!is_sharp(200_000, 0), "the first one");
        pace.begin(25_000, at(0));
        assert!(is_sharp(6_000, 10));
        assert!(!is_sharp(5_000, 10), "half of the limit");
        assert!(!is_sharp(50_000, 90_000), "a minute later twice as much is no rise");
        pace.begin(1, at(90_000));
        assert!(!is_sharp(49_999, 90_000) && is_sharp(50_000, 90_000));
        assert_eq!(pace.is_sharp(1 << 40, 0.0, at(90_000)), None, "where no limit is told there is nothing to go by");
    }

    #[test]
    fn a_limit_on_rises_that_was_met_is_remembered() {
        let pace = Pace::default();
        (0..10).for_each(|s| pace.begin(1_000, at(s * 1_000)));
        pace.refuse(1_000, true, at(10_000), at(11_000));
        let is_sharp = |input, ms| pace.is_sharp(input, 60_000.0, at(ms)).is_some();
        assert!(is_sharp(10, 11_000), "four fifths of nine thousand are used up");
        pace.begin(7_000, at(400_000));
        assert!(!is_sharp(200, 400_000) && is_sharp(300, 400_000), "what had been let in");
        pace.begin(7_000, at(620_000));
        assert!(!is_sharp(20_000, 620_000), "forgotten");
    }
}
