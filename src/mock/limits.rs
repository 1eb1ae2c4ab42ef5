//! The enforcing mode: token buckets as the provider has them (R70), one set per (credential, model class), refilled
//! continuously and exactly. What is admitted in any window of length w is at most B + R*w requests and input tokens;
//! output is charged as it is produced and may go into debt. Also the ramp: a bound on how fast input may grow.

use crate::base::{Mono, Span};
use std::collections::HashMap;

/// Sets of buckets kept; credentials beyond it share one set.
const SETS_MAX: usize = 4_096;
const MINUTE_NS: i128 = 60_000_000_000;
/// Seconds that a ramp looks back: a minute, and the one before it.
const RAMP_SECONDS: usize = 120;

/// What a model's limits are shared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Opus,
    Sonnet,
    Haiku,
    Other,
}

impl Class {
    pub(super) const ALL: [Class; 4] = [Class::Opus, Class::Sonnet, Class::Haiku, Class::Other];

    /// By the model's name.
    pub(super) fn of(model: &str) -> Class {
        let named = |class: &&Class| model.contains(class.slug());
        Class::ALL.iter().find(named).copied().unwrap_or(Class::Other)
    }

    pub(super) fn slug(self) -> &'static str {
        match self {
            Class::Opus => "opus",
            Class::Sonnet => "sonnet",
            Class::Haiku => "haiku",
            Class::Other => "other",
        }
    }
}

/// The limits of one model class; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct ClassLimits {
    rpm: Option<u64>,
    itpm: Option<u64>,
    otpm: Option<u64>,
    count_rpm: Option<u64>,
    burst_s: Option<u64>,
    ramp_itpm: Option<u64>,
    ramp_percent: Option<u64>,
}

/// The limits of every model class, as written in `--enforce`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LimitSet([ClassLimits; 4]);

impl LimitSet {
    /// Parses `rpm=50,itpm=30000,otpm=8000,burst_s=10,opus.rpm=20`: per minute, for every class or for one. `burst_s`
    /// is the bucket's size in seconds of refill (60 unless said). `ramp_itpm` and `ramp_percent` (200 unless said):
    /// the input admitted in one minute is at most the larger of `ramp_itpm` and so much of the minute before it.
    /// `count_rpm` is for `count_tokens`, which has a limit of its own. The error names the part that does not fit.
    pub fn parse(text: &str) -> Result<LimitSet, String> {
        let mut set = LimitSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = || format!("`{part}` is not a limit: write [class.]name=number");
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            let value: u64 = value.trim().parse().map_err(|_| bad())?;
            let (class, name) =
                key.trim().split_once('.').map_or((None, key.trim()), |(class, name)| (Some(class), name));
            if class.is_some_and(|class| Class::ALL.iter().all(|one| one.slug() != class)) {
                return Err(bad());
            }
            let chosen =
                Class::ALL.iter().zip(&mut set.0).filter(|(one, _)| class.is_none_or(|class| one.slug() == class));
            for (_, limits) in chosen {
                let field = match name {
                    "rpm" => &mut limits.rpm,
                    "itpm" => &mut limits.itpm,
                    "otpm" => &mut limits.otpm,
                    "count_rpm" => &mut limits.count_rpm,
                    "burst_s" => &mut limits.burst_s,
                    "ramp_itpm" => &mut limits.ramp_itpm,
                    "ramp_percent" => &mut limits.ramp_percent,
                    _ => return Err(bad()),
                };
                *field = Some(value.min(u64::from(u32::MAX)));
            }
        }
        Ok(set)
    }
}

/// One bucket. The level counts in 1/60e9 of a unit, so that refill by the nanosecond is exact.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    per_minute: u64,
    full: i128,
    level: i128,
    at: Mono,
}

impl Bucket {
    /// A full bucket of `burst_s` seconds of refill, one unit at least.
    fn new(per_minute: u64, burst_s: u64, now: Mono) -> Bucket {
        let full = (i128::from(per_minute) * i128::from(burst_s) * (MINUTE_NS / 60)).max(MINUTE_NS);
        Bucket { per_minute, full, level: full, at: now }
    }

    fn refill(&mut self, now: Mono) {
        let earned = i128::from(self.per_minute) * i128::from(now.since(self.at).0);
        self.level = self.full.min(self.level + earned);
        self.at = self.at.max(now);
    }

    /// How long until `units` are there; zero when they are.
    fn wait_for(&self, units: u64) -> Span {
        let missing = i128::from(units) * MINUTE_NS - self.level;
        Span(u64::try_from(div_up(missing.max(0), i128::from(self.per_minute.max(1)))).unwrap_or(u64::MAX))
    }

    fn take(&mut self, units: u64) {
        self.level -= i128::from(units) * MINUTE_NS;
    }

    /// Whole units that are there; zero in debt.
    fn remaining(&self) -> u64 {
        u64::try_from(self.level.max(0) / MINUTE_NS).unwrap_or(u64::MAX)
    }

    fn until_full(&self) -> Span {
        Span(u64::try_from(div_up(self.full - self.level, i128::from(self.per_minute.max(1)))).unwrap_or(u64::MAX))
    }
}

/// `a / b`, rounded up; `b` is positive.
fn div_up(a: i128, b: i128) -> i128 {
    (a + b - 1).div_euclid(b)
}

/// Input admitted in each of the last 120 seconds.
#[derive(Clone, Debug)]
struct Ramp {
    floor: u64,
    percent: u64,
    seconds: [u64; RAMP_SECONDS],
    at_s: u64,
}

impl Ramp {
    fn advance(&mut self, now_s: u64) {
        for step in 1..=now_s.saturating_sub(self.at_s).min(RAMP_SECONDS as u64) {
            self.seconds[((self.at_s + step) % RAMP_SECONDS as u64) as usize] = 0;
        }
        self.at_s = self.at_s.max(now_s);
    }

    /// Admitted in the minute that ends with second `at_s - ago_s`.
    fn minute(&self, ago_s: u64) -> u64 {
        let end = self.at_s + 2 * RAMP_SECONDS as u64 - ago_s;
        (0..60).map(|back| self.seconds[((end - back) % RAMP_SECONDS as u64) as usize]).sum()
    }

    fn admits(&self, units: u64) -> bool {
        let allowed = self.floor.max(self.minute(60).saturating_mul(self.percent) / 100);
        self.minute(0) + units <= allowed
    }

    fn take(&mut self, units: u64) {
        self.seconds[(self.at_s % RAMP_SECONDS as u64) as usize] += units;
    }

    /// Whole seconds until `units` would be admitted if nothing else came; 60 when they never would.
    fn wait_for(&self, units: u64) -> Span {
        let mut later = self.clone();
        for seconds in 1..60 {
            later.advance(self.at_s + seconds);
            if later.admits(units) {
                return Span::from_secs(seconds);
            }
        }
        Span::from_secs(60)
    }
}

/// Which limit a request ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Requests,
    Input,
    Output,
    Ramp,
}

/// A refusal: which limit, how large it is, and how long until the request would fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) limit: Limit,
    pub(super) per_minute: u64,
    pub(super) wait: Span,
}

/// One (credential, model class).
#[derive(Clone, Debug)]
struct Buckets {
    requests: Option<Bucket>,
    input: Option<Bucket>,
    output: Option<Bucket>,
    counts: Option<Bucket>,
    ramp: Option<Ramp>,
}

/// Where an exchange's output is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId {
    epoch: u64,
    index: usize,
}

/// One bucket as the answer's head tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) full_in: Span,
}

/// Every bucket of the simulator.
pub(super) struct Limits {
    set: LimitSet,
    epoch: u64,
    ids: HashMap<(u64, Class), usize>,
    buckets: Vec<Buckets>,
}

impl Limits {
    pub(super) fn new(set: LimitSet) -> Limits {
        Limits { set, epoch: 0, ids: HashMap::new(), buckets: Vec::new() }
    }

    /// New limits, or the old ones, with full buckets. What older exchanges still produce is charged to nobody.
    pub(super) fn reset(&mut self, set: Option<LimitSet>) {
        let set = set.unwrap_or_else(|| self.set.clone());
        *self = Limits { epoch: self.epoch + 1, ..Limits::new(set) };
    }

    fn get(&mut self, id: SetId) -> Option<&mut Buckets> {
        if id.epoch == self.epoch { self.buckets.get_mut(id.index) } else { None }
    }

    /// The buckets of `credential` (its hash) for `class`; full when first asked for.
    pub(super) fn id(&mut self, credential: u64, class: Class, now: Mono) -> SetId {
        let full = self.buckets.len() >= SETS_MAX;
        let key = if full && !self.ids.contains_key(&(credential, class)) { (0, class) } else { (credential, class) };
        let limits = self.set.0[class as usize];
        let index = *self.ids.entry(key).or_insert_with(|| {
            let burst_s = limits.burst_s.unwrap_or(60);
            let bucket = |rate: Option<u64>| rate.map(|rate| Bucket::new(rate, burst_s, now));
            self.buckets.push(Buckets {
                requests: bucket(limits.rpm),
                input: bucket(limits.itpm),
                output: bucket(limits.otpm),
                counts: bucket(limits.count_rpm),
                ramp: limits.ramp_itpm.map(|floor| Ramp {
                    floor,
                    percent: limits.ramp_percent.unwrap_or(200),
                    seconds: [0; RAMP_SECONDS],
                    at_s: now.0 / 1_000_000_000,
                }),
            });
            self.buckets.len() - 1
        });
        SetId { epoch: self.epoch, index }
    }

    /// Admits a generation of `input` countable tokens, or says why not. All limits or none are charged.
    pub(super) fn admit(&mut self, id: SetId, input: u64, now: Mono) -> Result<(), Refused> {
        let Some(set) = self.get(id) else { return Ok(()) };
        let asked = [
            (Limit::Requests, &mut set.requests, 1),
            (Limit::Input, &mut set.input, input),
            (Limit::Output, &mut set.output, 1),
        ];
        for (limit, bucket, units) in asked {
            let Some(bucket) = bucket else { continue };
            bucket.refill(now);
            let wait = bucket.wait_for(units);
            if wait > Span::ZERO {
                return Err(Refused { limit, per_minute: bucket.per_minute, wait });
            }
        }
        if let Some(ramp) = &mut set.ramp {
            ramp.advance(now.0 / 1_000_000_000);
            if !ramp.admits(input) {
                return Err(Refused { limit: Limit::Ramp, per_minute: ramp.floor, wait: ramp.wait_for(input) });
            }
            ramp.take(input);
        }
        set.requests.iter_mut().for_each(|bucket| bucket.take(1));
        set.input.iter_mut().for_each(|bucket| bucket.take(input));
        Ok(())
    }

    /// Admits a `count_tokens`.
    pub(super) fn admit_count(&mut self, id: SetId, now: Mono) -> Result<(), Refused> {
        let Some(bucket) = self.get(id).and_then(|set| set.counts.as_mut()) else { return Ok(()) };
        bucket.refill(now);
        let wait = bucket.wait_for(1);
        if wait > Span::ZERO {
            return Err(Refused { limit: Limit::Requests, per_minute: bucket.per_minute, wait });
        }
        bucket.take(1);
        Ok(())
    }

    /// Charges output that was produced; into debt if need be.
    pub(super) fn produced(&mut self, id: SetId, output: u64, now: Mono) {
        if let Some(bucket) = self.get(id).and_then(|set| set.output.as_mut()) {
            bucket.refill(now);
            bucket.take(output);
        }
    }

    /// What the head of an answer tells: requests, input, output; `None` where nothing is limited.
    pub(super) fn tell(&mut self, id: SetId, now: Mono) -> [Option<Told>; 3] {
        let Some(set) = self.get(id) else { return [None; 3] };
        [&mut set.requests, &mut set.input, &mut set.output].map(|bucket| {
            let bucket = bucket.as_mut()?;
            bucket.refill(now);
            Some(Told { limit: bucket.per_minute, remaining: bucket.remaining(), full_in: bucket.until_full() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn limits(text: &str) -> (Limits, SetId) {
        let mut limits = Limits::new(LimitSet::parse(text).unwrap());
        let id = limits.id(7, Class::Opus, Mono(0));
        (limits, id)
    }

    #[test]
    fn no_window_admits_more_than_its_burst_and_refill() {
        let (mut limits, id) = limits("rpm=60,itpm=6000,burst_s=10");
        let (mut rng, mut now, mut admitted) = (Rng(3), Mono(0), Vec::new());
        for _ in 0..4_000 {
            now = now.after(Span(rng.below(400_000_000)));
            let input = rng.below(300);
            if limits.admit(id, input, now).is_ok() {
                admitted.push((now.0, input));
            }
        }
        assert!(admitted.len() > 200, "{}", admitted.len());
        for (from, (start, _)) in admitted.iter().enumerate() {
            let (mut requests, mut inputs) = (0_u64, 0_u64);
            for (at, input) in &admitted[from..] {
                (requests, inputs) = (requests + 1, inputs + input);
                let window = u128::from(at - start);
                // B + R*w, in 1/60e9 units.
                assert!(u128::from(requests) * 60_000_000_000 <= 10 * 60_000_000_000 + 60 * window);
                assert!(u128::from(inputs) * 60_000_000_000 <= 1_000 * 60_000_000_000 + 6_000 * window);
            }
        }
    }

    #[test]
    fn a_refused_request_fits_exactly_when_it_was_told() {
        let (mut limits, id) = limits("itpm=6000,burst_s=10");
        limits.admit(id, 1_000, Mono(0)).unwrap();
        let refused = limits.admit(id, 77, Mono(1)).unwrap_err();
        assert_eq!((refused.limit, refused.per_minute), (Limit::Input, 6_000));
        assert!(limits.admit(id, 77, Mono(refused.wait.0)).is_err());
        assert_eq!(limits.admit(id, 77, Mono(1 + refused.wait.0)), Ok(()));
    }

    #[test]
    fn nothing_is_charged_when_one_limit_refuses() {
        let (mut limits, id) = limits("rpm=60,itpm=600");
        assert!(limits.admit(id, 601, Mono(0)).is_err());
        let told = limits.tell(id, Mono(0));
        assert_eq!(told.map(|told| told.map(|told| told.remaining)), [Some(60), Some(600), None]);
    }

    #[test]
    fn output_goes_into_debt_and_then_refuses() {
        let (mut limits, id) = limits("otpm=60");
        limits.admit(id, 5, Mono(0)).unwrap();
        limits.produced(id, 90, Mono(0));
        assert_eq!(limits.tell(id, Mono(0))[2], Some(Told { limit: 60, remaining: 0, full_in: Span::from_secs(90) }));
        let refused = limits.admit(id, 5, Mono(0)).unwrap_err();
        assert_eq!((refused.limit, refused.wait), (Limit::Output, Span::from_secs(31)));
        assert_eq!(limits.admit(id, 5, Mono(31_000_000_000)), Ok(()));
    }

    #[test]
    fn a_ramp_lets_traffic_double_from_minute_to_minute() {
        let (mut limits, id) = limits("ramp_itpm=1000");
        let second = |s: u64| Mono(s * 1_000_000_000);
        limits.admit(id, 1_000, second(30)).unwrap();
        let refused = limits.admit(id, 1, second(40)).unwrap_err();
        assert_eq!((refused.limit, refused.wait), (Limit::Ramp, Span::from_secs(50)));
        assert_eq!(limits.admit(id, 2_000, second(90)), Ok(()));
        assert!(limits.admit(id, 1, second(91)).is_err());
        assert_eq!(limits.admit(id, 1_000, second(400)), Ok(()), "the floor is there again after silence");
        assert!(limits.admit(id, 1, second(401)).is_err());
    }

    #[test]
    fn classes_and_credentials_do_not_share() {
        let set = LimitSet::parse("rpm=1,haiku.rpm=2").unwrap();
        let mut limits = Limits::new(set);
        let mut admitted = |credential, model: &str| {
            let id = limits.id(credential, Class::of(model), Mono(0));
            (0..5).filter(|_| limits.admit(id, 1, Mono(0)).is_ok()).count()
        };
        assert_eq!(admitted(1, "claude-opus-5"), 1);
        assert_eq!(admitted(1, "claude-haiku-5"), 2);
        assert_eq!(admitted(2, "claude-opus-5"), 1);
    }

    #[test]
    fn limits_that_are_none_are_named() {
        for bad in ["rpm", "rpm=x", "gpt.rpm=1", "speed=1"] {
            assert!(LimitSet::parse(bad).unwrap_err().contains(bad));
        }
    }
}
