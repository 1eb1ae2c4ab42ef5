//! A log-linear histogram of microseconds: eight buckets to each doubling, so that every value is known to 12.5 %,
//! from 1 us to more than an hour, in two kilobytes that never move.

use super::counters::Counter;

const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;
/// Values from this power of two on share the last bucket: 2^32 us are 71 minutes.
const POWER_MAX: u32 = 32;
const BUCKETS: usize = (POWER_MAX - SUB_BITS + 1) as usize * SUB + 1;

/// One core's histogram. Only its owner observes.
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Histogram {
    /// Nothing observed.
    pub const fn new() -> Histogram {
        Histogram { buckets: [const { Counter::new() }; BUCKETS], sum_us: Counter::new() }
    }

    /// Takes `us` microseconds in.
    pub fn observe(&self, us: u64) {
        if let Some(bucket) = self.buckets.get(index(us)) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

/// The bucket of `us`.
const fn index(us: u64) -> usize {
    if us < SUB as u64 {
        return us as usize;
    }
    let power = us.ilog2();
    if power >= POWER_MAX {
        return BUCKETS - 1;
    }
    let sub = (us >> (power - SUB_BITS)) as usize & (SUB - 1);
    (power - SUB_BITS + 1) as usize * SUB + sub
}

/// The least value that falls in bucket `at`.
const fn floor(at: usize) -> u64 {
    if at < SUB {
        return at as u64;
    }
    let power = (at / SUB) as u32 + SUB_BITS - 1;
    (1 << power) + (((at % SUB) as u64) << (power - SUB_BITS))
}

/// Histograms of several cores, added up at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    counts: [u64; BUCKETS],
    /// The sum of all values, in microseconds.
    pub sum_us: u64,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot { counts: [0; BUCKETS], sum_us: 0 }
    }
}

impl Snapshot {
    /// Adds one core's histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.counts.iter_mut().zip(&histogram.buckets) {
            *sum = sum.wrapping_add(bucket.get());
        }
        self.sum_us = self.sum_us.wrapping_add(histogram.sum_us.get());
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many values are below 2^`power` us; exact, because a bucket ends there (`power` <= 32).
    pub fn below(&self, power: u32) -> u64 {
        let end = index(1 << power.min(POWER_MAX));
        self.counts.iter().take(end).sum()
    }

    /// A value that `part` (0..=1) of the values do not exceed, in microseconds, at most 12.5 % too high; `None` when
    /// there are no values.
    pub fn quantile_us(&self, part: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((count as f64 * part).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (at, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Some(if at + 1 < BUCKETS { floor(at + 1) - 1 } else { floor(at) });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for at in 0..BUCKETS {
            assert_eq!(index(floor(at)), at, "the floor of bucket {at}");
            if at + 1 < BUCKETS {
                assert_eq!(index(floor(at + 1) - 1), at, "the end of bucket {at}");
            }
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn below_is_exact_at_powers_of_two() {
        let (histogram, mut snapshot) = (Histogram::new(), Snapshot::default());
        for us in [0, 1, 15, 16, 17, 1023, 1024, u64::from(u32::MAX), 1 << 32] {
            histogram.observe(us);
        }
        snapshot.add(&histogram);
        assert_eq!(snapshot.below(4), 3);
        assert_eq!(snapshot.below(10), 6);
        assert_eq!(snapshot.below(32), 8);
        assert_eq!(snapshot.count(), 9);
    }

    #[test]
    fn an_empty_one_has_no_quantile() {
        assert_eq!(Snapshot::default().quantile_us(0.5), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_an_eighth_too_high(mut values in prop::collection::vec(0_u64..1 << 30, 1..200), part in 0.0..=1.0_f64) {
            let (histogram, mut snapshot) = (Histogram::new(), Snapshot::default());
            for us in &values {
                histogram.observe(*us);
            }
            snapshot.add(&histogram);
            values.sort_unstable();
            let rank = ((values.len() as f64 * part).ceil() as usize).clamp(1, values.len());
            let (real, told) = (values[rank - 1], snapshot.quantile_us(part).unwrap());
            prop_assert!(real <= told && told <= real + real / 8, "{} told as {}", real, told);
            prop_assert_eq!(snapshot.sum_us, values.iter().sum::<u64>());
        }
    }
}
