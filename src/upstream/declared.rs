//! The limits that the operator knows of a credential, for upstreams whose answers do not tell (OpenRouter's free models,
//! vLLM). They hold for the credential as a whole, whatever the model: in no minute more than declared, in no day (UTC)
//! more than declared. What was sent before the process began is not known.

use super::{Need, window::Window};
use crate::{
    base::{Mono, Span, Wall},
    table::CredentialLimits,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const DAY_MS: u64 = 86_400_000;
/// A minute in slots of 5 s, and the one that it began in.
const OLDEST: u64 = 12;
/// Bits of the day's count; the other 40 are the second in which the day ends. More than a count that fits is no limit.
const DAY_BITS: u32 = 24;
const DAY_MAX: u64 = (1 << DAY_BITS) - 1;
/// How long until room is looked for again where only answers that end can make it.
const LATER: Span = Span::from_secs(1);

type Minute = Window<16, 5>;

/// What was sent with one credential, as far as there are limits.
#[derive(Default)]
pub struct Declared {
    requests: Minute,
    input: Minute,
    output: Minute,
    /// Output that is expected of answers that have not ended.
    output_open: AtomicU64,
    /// When the day ends, and the requests in it.
    day: AtomicU64,
}

impl Declared {
    /// When there is room for a request that takes `need` and probably answers with `output`; `None` for now.
    pub(super) fn room(&self, need: Need, output: u64, limits: &CredentialLimits, now: Mono) -> Option<Mono> {
        self.soonest(need.input, output, 1, limits, now)
    }

    /// Whether what has begun keeps to the limits.
    pub(super) fn holds(&self, limits: &CredentialLimits, now: Mono) -> Option<Mono> {
        self.soonest(0, 0, 0, limits, now)
    }

    fn soonest(&self, input: u64, output: u64, requests: u64, limits: &CredentialLimits, now: Mono) -> Option<Mono> {
        let open = self.output_open.load(Relaxed);
        let minute = [
            (&self.requests, limits.rpm.map(u64::from), requests, 0),
            (&self.input, limits.input_tpm, input, 0),
            (&self.output, limits.output_tpm, output, open),
        ];
        let minute = minute.into_iter().filter_map(|(window, limit, units, open)| {
            let limit = limit?;
            // What is larger than the limit goes when nothing else did.
            let before = limit.saturating_sub(units.min(limit));
            let fits = window.sum(0, OLDEST, now) + open <= before;
            let later = || window.falls_to(before.saturating_sub(open), OLDEST, now).max(now.after(LATER));
            (!fits).then(later)
        });
        minute.chain(self.day_room(requests, limits, now)).max()
    }

    fn day_room(&self, requests: u64, limits: &CredentialLimits, now: Mono) -> Option<Mono> {
        let limit = limits.requests_per_day.map(u64::from).filter(|limit| *limit < DAY_MAX)?;
        let (ends, count) = unpack(self.day.load(Relaxed));
        (ends > now && count + requests > limit).then_some(ends)
    }

    /// A request is sent.
    pub(super) fn begin(&self, need: Need, output: u64, limits: &CredentialLimits, now: Mono, wall: Wall) {
        if limits.rpm.is_some() {
            self.requests.add(1, now);
        }
        if limits.input_tpm.is_some() {
            self.input.add(need.input, now);
        }
        self.output_open.fetch_add(output, Relaxed);
        if limits.requests_per_day.is_some() {
            self.count_day(now, wall);
        }
    }

    /// It was not sent after all.
    pub(super) fn undo(&self, need: Need, limits: &CredentialLimits, then: Mono) {
        if limits.rpm.is_some() {
            self.requests.take_back(1, then);
        }
        if limits.input_tpm.is_some() {
            self.input.take_back(need.input, then);
        }
        if limits.requests_per_day.is_some() && unpack(self.day.load(Relaxed)).1 > 0 {
            self.day.fetch_sub(1, Relaxed);
        }
    }

    /// Its answer has ended, or will not come; `expected` was expected of it.
    pub(super) fn end(&self, expected: u64) {
        self.output_open.fetch_sub(expected, Relaxed);
    }

    /// So much was answered.
    pub(super) fn answered(&self, output: u64, limits: &CredentialLimits, now: Mono) {
        if limits.output_tpm.is_some() {
            self.output.add(output, now);
        }
    }

    /// Counts a request in the day that `wall` is in.
    fn count_day(&self, now: Mono, wall: Wall) {
        let day = self.day.load(Relaxed);
        let (ends, count) = unpack(day);
        if ends <= now {
            let ends_s = now.after(Span::from_ms(DAY_MS - wall.0 % DAY_MS)).0.div_ceil(1_000_000_000);
            // Who loses that has been overtaken by somebody who began the day.
            let _ = self.day.compare_exchange(day, ends_s << DAY_BITS, Relaxed, Relaxed);
        } else if count >= DAY_MAX / 2 {
            return;
        }
        self.day.fetch_add(1, Relaxed);
    }

    /// Requests in the present day, if they are counted.
    pub fn today(&self, now: Mono) -> u64 {
        let (ends, count) = unpack(self.day.load(Relaxed));
        if ends > now { count } else { 0 }
    }
}

fn unpack(day: u64) -> (Mono, u64) {
    (Mono((day >> DAY_BITS).saturating_mul(1_000_000_000)), day & DAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    const NEED: Need = Need { input: 100, output: 50 };
    /// 2026-11-25T23:59:00Z.
    const WALL: Wall = Wall(1_795_651_140_000);

    fn at(ms: u64) -> Mono {
        Mono(Span::from_ms(5_000_000 + ms).0)
    }

    fn limits(rpm: u32) -> CredentialLimits {
        CredentialLimits { rpm: Some(rpm), ..CredentialLimits::default() }
    }

    #[test]
    fn no_minute_has_more_than_was_declared_and_little_is_wasted() {
        let (declared, limits, mut rng) = (Declared::default(), limits(20), Rng(9));
        let (mut sent, mut ms) = (Vec::new(), 0);
        while ms < 1_800_000 {
            ms += rng.below(1_000);
            match declared.room(NEED, 0, &limits, at(ms)) {
                None => {
                    declared.begin(NEED, 0, &limits, at(ms), WALL);
                    sent.push(ms);
                }
                Some(later) => assert!(later > at(ms)),
            }
        }
        for (from, first) in sent.iter().enumerate() {
            let within = sent[from..].iter().take_while(|ms| **ms < first + 60_000).count();
            assert!(within <= 20, "{within}");
        }
        assert!(sent.len() > 30 * 20 * 85 / 100, "{}", sent.len());
    }

    #[test]
    fn the_time_of_room_is_true() {
        let (declared, limits) = (Declared::default(), limits(3));
        for ms in [0, 7_000, 14_000] {
            assert_eq!(declared.room(NEED, 0, &limits, at(ms)), None);
            declared.begin(NEED, 0, &limits, at(ms), WALL);
        }
        let later = declared.room(NEED, 0, &limits, at(14_000)).unwrap();
        assert!(later >= at(60_000) && later <= at(65_000), "{later:?}");
        assert!(declared.room(NEED, 0, &limits, Mono(later.0 - 1)).is_some());
        assert_eq!(declared.room(NEED, 0, &limits, later), None);
    }

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let declared = Declared::default();
        let limits = CredentialLimits { requests_per_day: Some(2), ..CredentialLimits::default() };
        for _ in 0..2 {
            assert_eq!(declared.room(NEED, 0, &limits, at(0)), None);
            declared.begin(NEED, 0, &limits, at(0), WALL);
        }
        assert_eq!(declared.room(NEED, 0, &limits, at(59_000)), Some(at(60_000)));
        assert_eq!(declared.today(at(59_000)), 2);
        assert_eq!(declared.room(NEED, 0, &limits, at(60_000)), None);
        declared.begin(NEED, 0, &limits, at(61_000), Wall(WALL.0 + 61_000));
        assert_eq!(declared.today(at(61_000)), 1);
        declared.begin(NEED, 0, &limits, at(61_000), Wall(WALL.0 + 61_000));
        assert_eq!(declared.room(NEED, 0, &limits, at(61_000)), Some(at(86_460_000)));
    }

    #[test]
    fn tokens_count_when_they_are_sent_and_when_they_are_answered() {
        let declared = Declared::default();
        let limits = CredentialLimits { input_tpm: Some(250), output_tpm: Some(100), ..CredentialLimits::default() };
        declared.begin(NEED, 50, &limits, at(0), WALL);
        assert_eq!(declared.room(NEED, 50, &limits, at(0)), None);
        assert!(declared.room(NEED, 51, &limits, at(0)).is_some(), "output is under way");
        assert!(declared.room(Need { input: 151, output: 0 }, 0, &limits, at(0)).is_some());
        declared.end(50);
        declared.answered(80, &limits, at(1_000));
        assert!(declared.room(NEED, 21, &limits, at(1_000)).is_some());
        assert_eq!(declared.room(NEED, 20, &limits, at(1_000)), None);
        assert_eq!(
            declared.room(Need { input: 9_999, output: 0 }, 0, &limits, at(70_000)),
            None,
            "larger than the limit"
        );
    }
}
