//! What was used, added up from the records: by key, since the process began, and by credential, of late. The latter
//! shows whether conversations stay where their prompt cache is. Bounded: keys past `KEYS_MAX` share one place. A record
//! that gave way because the log was behind is missing here too. Pure.

use crate::{
    base::{Counts, CredentialSlot, Span, Wall},
    telemetry::Record,
};
use std::{collections::BTreeMap, sync::Arc};

/// Keys that are told apart.
const KEYS_MAX: usize = 500;
/// The name that the others share. No key may be called so.
const OTHERS: &str = "(others)";
/// How long a half of "of late" is: it reaches back for one to two of them.
const HALF: Span = Span::from_secs(15 * 60);

/// The sums.
#[derive(Default)]
pub struct Used {
    keys: BTreeMap<Arc<str>, Counts>,
    /// The present half, and the one before it.
    of_late: [BTreeMap<CredentialSlot, Counts>; 2],
    turned: Wall,
}

impl Used {
    /// Takes an exchange in.
    pub fn add(&mut self, record: &Record) {
        if record.counts == Counts::default() {
            return;
        }
        if let Some(key) = &record.caller {
            let is_known = self.keys.contains_key(key) || self.keys.len() < KEYS_MAX;
            let key = if is_known { Arc::clone(key) } else { OTHERS.into() };
            let sum = self.keys.entry(key).or_default();
            *sum = sum.plus(&record.counts);
        }
        let Some(answered) = record.tried.iter().flatten().last() else { return };
        self.turn(record.at);
        let [now, _] = &mut self.of_late;
        let sum = now.entry(answered.credential).or_default();
        *sum = sum.plus(&record.counts);
    }

    fn turn(&mut self, at: Wall) {
        let passed = at.0.saturating_sub(self.turned.0);
        if passed < HALF.as_ms() {
            return;
        }
        let [now, before] = &mut self.of_late;
        *before = std::mem::take(now);
        if passed >= 2 * HALF.as_ms() {
            before.clear();
        }
        self.turned = at;
    }

    /// Each key with all that it has used.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Counts)> {
        self.keys.iter().map(|(key, counts)| (&**key, counts))
    }

    /// The part of the prompts of late that was read from a cache, under all of these slots together; `None` when there
    /// were none.
    pub fn cache_share(&self, slots: impl Iterator<Item = CredentialSlot>, now: Wall) -> Option<f64> {
        let old = now.0.saturating_sub(self.turned.0) / HALF.as_ms();
        let halves = self.of_late.get(..2_usize.saturating_sub(old as usize)).unwrap_or_default();
        let sum = slots.fold(Counts::default(), |sum, slot| {
            halves.iter().filter_map(|half| half.get(&slot)).fold(sum, |sum, counts| sum.plus(counts))
        });
        (sum.prompt() > 0).then(|| sum.cache_read as f64 / sum.prompt() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::UpstreamSlot,
        telemetry::{Attempt, RequestId},
    };

    fn record(key: &str, at_min: u64, credential: u32, input: u64, cache_read: u64) -> Record {
        let at = Wall(at_min * 60_000);
        let mut record = Record::new(at, RequestId::new(at, 1), 0);
        record.caller = Some(key.into());
        record.counts = Counts { input, cache_read, ..Counts::default() };
        let (upstream, credential) = (UpstreamSlot(0), CredentialSlot(credential));
        record.tried[0] =
            Some(Attempt { upstream, credential, status: 200, verdict: "delivered", at_us: 0, took_us: 0 });
        record
    }

    #[test]
    fn keys_add_up_and_are_bounded() {
        let mut used = Used::default();
        for n in 0..KEYS_MAX + 3 {
            used.add(&record(&format!("key-{n}"), 1, 0, 1, 2));
        }
        used.add(&record("key-0", 1, 0, 1, 2));
        used.add(&Record::new(Wall(0), RequestId::new(Wall(0), 1), 0));
        assert_eq!(used.keys().count(), KEYS_MAX + 1);
        let of =
            |name: &str| used.keys().find(|(key, _)| *key == name).map(|(_, counts)| (counts.input, counts.cache_read));
        assert_eq!((of("key-0"), of("key-499"), of(OTHERS)), (Some((2, 4)), Some((1, 2)), Some((3, 6))));
    }

    #[test]
    fn the_share_is_that_of_late() {
        let mut used = Used::default();
        let share = |used: &Used, slots: &[u32], at_min: u64| {
            used.cache_share(slots.iter().map(|slot| CredentialSlot(*slot)), Wall(at_min * 60_000))
        };
        used.add(&record("a", 100, 0, 100, 0));
        used.add(&record("a", 101, 1, 0, 300));
        assert_eq!((share(&used, &[0], 102), share(&used, &[1], 102)), (Some(0.0), Some(1.0)));
        assert_eq!((share(&used, &[0, 1], 102), share(&used, &[2], 102)), (Some(0.75), None));
        used.add(&record("a", 116, 0, 0, 100));
        assert_eq!(share(&used, &[0], 117), Some(0.5));
        assert_eq!(share(&used, &[0], 131), Some(1.0), "what is half an hour old is no more of late");
        used.add(&record("a", 140, 0, 10, 0));
        assert_eq!(share(&used, &[0], 141), Some(100.0 / 110.0));
        used.add(&record("a", 300, 0, 10, 0));
        assert_eq!((share(&used, &[0], 301), share(&used, &[0], 340)), (Some(0.0), None));
    }
}
