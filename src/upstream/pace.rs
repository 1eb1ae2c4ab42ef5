//! Pacing: how fast requests may go where the limits that are told do not explain what an upstream refuses, and where a
//! rise would be sharp (providers have acceleration limits, which they do not tell).
//!
//! The rules. (1) After a refusal that no told limit explains, requests go one by one, at half of the rate of the minute
//! before it; every 15 s the rate doubles, and after 90 s it is free. (2) Input of the last minute is at most twice that
//! of the minute before it, or half of the told limit if that is more. This is a preference: another credential is taken
//! first, and where there is none the request goes all the same. (3) Once a refusal that no told limit explains came while traffic
//! rose, rule 2 holds strictly for ten minutes, with what was let in before that refusal in place of half the limit.

use super::window::Window;
use crate::base::{Mono, Span};
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// After that the rate doubles; so often, and then it is free.
const STEP: Span = Span::from_secs(15);
const STEPS: u64 = 6;
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

/// What a rise may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rise {
    /// Within all rules.
    Free,
    /// Sharper than it should be.
    Sharp(Mono),
    /// Sharper than the upstream was seen to take.
    Refused(Mono),
}

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

    /// Whether `input` more would be too sharp a rise; `per_minute` is the told limit, zero if none was.
    pub(super) fn rise(&self, input: u64, per_minute: f64, now: Mono) -> Rise {
        let is_known = self.is_known(now);
        if !is_known && per_minute <= 0.0 {
            return Rise::Free;
        }
        let minute = self.input.sum(MINUTE.0, MINUTE.1, now).saturating_add(input);
        let floor = if is_known { self.gap.known.load(Relaxed) } else { (per_minute / 2.0) as u64 };
        if minute <= floor || minute == input {
            return Rise::Free;
        }
        let doubled = self.input.sum(MINUTE_BEFORE.0, MINUTE_BEFORE.1, now).saturating_mul(2);
        match (minute <= doubled, is_known) {
            (true, _) => Rise::Free,
            (false, true) => Rise::Refused(Window::<10, 15>::next(now)),
            (false, false) => Rise::Sharp(now.after(SPREAD)),
        }
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

    /// The upstream refused until `until`, and no told limit explains why; `input` was not let in.
    pub(super) fn refuse(&self, input: u64, now: Mono, until: Mono) {
        let requests = self.requests.sum(MINUTE.0, MINUTE.1, now).max(1);
        let gap = Span(2 * 60_000_000_000 / requests).0.clamp(GAP_MIN.0, GAP_MAX.0);
        // Refused while it was slow: slower still.
        let gap = self.present_gap(now).0.saturating_mul(2).max(gap).min(GAP_MAX.0);
        self.gap.first.store(gap, Relaxed);
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
        let steps = now.since(Mono(self.gap.since.load(Relaxed))).0 / STEP.0;
        if steps >= STEPS { Span::ZERO } else { Span(first >> steps) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Span::from_ms(1_000_000_000 + ms).0)
    }

    #[test]
    fn after_a_refusal_the_herd_goes_one_by_one_and_then_faster() {
        let pace = Pace::default();
        (0..600).for_each(|n| pace.begin(0, at(n * 100)));
        pace.refuse(0, at(60_000), at(65_000));
        let mut sent = [0; 12];
        for ms in 65_000..170_000 {
            // A thousand a second want to go.
            if pace.wait(at(ms)).is_none() {
                pace.begin(0, at(ms));
                if let Some(count) = sent.get_mut(((ms - 65_000) / 10_000) as usize) {
                    *count += 1;
                }
            }
        }
        // 600 a minute is ten a second: five at first, ten after 15 s, and so on.
        assert!((45..=55).contains(&sent[0]), "{sent:?}");
        assert!((90..=110).contains(&sent[2]), "{sent:?}");
        assert!(sent[4] >= 180 && sent[9] == 10_000, "{sent:?}");
        assert!(sent.windows(2).all(|pair| pair[0] <= pair[1] || pair[1] == 0 || pair[1] == 5_000), "{sent:?}");
    }

    #[test]
    fn a_sharp_rise_is_spread_and_a_slow_one_is_free() {
        let pace = Pace::default();
        let limit = 60_000.0;
        assert_eq!(pace.rise(25_000, limit, at(0)), Rise::Free, "the first one, and below half of the limit");
        pace.begin(25_000, at(0));
        assert!(matches!(pace.rise(6_000, limit, at(10)), Rise::Sharp(_)));
        assert_eq!(pace.rise(5_000, limit, at(10)), Rise::Free);
        // A minute later twice as much is no rise.
        assert_eq!(pace.rise(50_000, limit, at(90_000)), Rise::Free);
        assert_eq!(pace.rise(1 << 40, 0.0, at(0)), Rise::Free, "where no limit is told there is nothing to go by");
    }

    #[test]
    fn a_limit_on_rises_that_was_met_is_kept_to() {
        let pace = Pace::default();
        (0..10).for_each(|s| pace.begin(1_000, at(s * 1_000)));
        pace.refuse(1_000, at(10_000), at(11_000));
        assert_eq!(
            pace.rise(10, 0.0, at(11_000)),
            Rise::Refused(at(20_000)),
            "nine tenths of nine thousand are used up"
        );
        assert_eq!(pace.rise(8_000, 0.0, at(95_000)), Rise::Free);
        pace.begin(8_000, at(95_000));
        assert_eq!(pace.rise(10_000, 0.0, at(95_000)), Rise::Free, "twice the minute before");
        assert!(matches!(pace.rise(13_000, 0.0, at(95_000)), Rise::Refused(_)));
        assert_eq!(pace.rise(1 << 40, 0.0, at(700_000)), Rise::Free, "forgotten");
    }
}
