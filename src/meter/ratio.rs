//! How many bytes of a stream one token of output is, learned for each model from answers that told it. An answer that
//! broke off has only its bytes; this makes tokens of them.

use crate::base::units::LlmTokens;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Before anything has been learned: English and code, as a rule of thumb.
const DEFAULT_MILLI: u64 = 4_000;
/// What an answer may teach. Thinking that is not shown makes bytes few; escapes make them many.
const MILLI_MIN: u64 = 100;
/// See `MILLI_MIN`.
const MILLI_MAX: u64 = 20_000;
/// Shorter answers teach nothing.
const TOKENS_MIN: u64 = 32;
/// What one answer counts among those before it.
const WEIGHT: u64 = 16;
/// Models that are told apart; two that meet in one place displace each other, and begin anew.
const MODELS: usize = 64;

/// The ratios of all models, shared by all cores: a race loses a lesson, never more.
pub struct Ratios([AtomicU64; MODELS]);

impl Ratios {
    /// Nothing learned.
    pub const fn new() -> Ratios {
        Ratios([const { AtomicU64::new(0) }; MODELS])
    }

    /// An answer of `model` had so many bytes of content and so many tokens of output.
    pub fn learn(&self, model: &str, bytes: u64, output: LlmTokens) {
        if output.0 < TOKENS_MIN || bytes == 0 {
            return;
        }
        let sample = (bytes.saturating_mul(1_000) / output.0).clamp(MILLI_MIN, MILLI_MAX);
        let (place, tag) = self.place(model);
        let known = place.load(Relaxed);
        let milli = if known >> 32 == tag {
            let old = known & u64::from(u32::MAX);
            (old * (WEIGHT - 1) + sample) / WEIGHT
        } else {
            sample
        };
        place.store((tag << 32) | milli, Relaxed);
    }

    /// What `bytes` of content by `model` are in tokens, rounded up.
    pub fn tokens(&self, model: &str, bytes: u64) -> LlmTokens {
        let (place, tag) = self.place(model);
        let known = place.load(Relaxed);
        let milli = if known >> 32 == tag { known & u64::from(u32::MAX) } else { DEFAULT_MILLI };
        LlmTokens(bytes.saturating_mul(1_000).div_ceil(milli.max(1)))
    }

    /// Where a model's ratio is, and the upper half by which it is known to be this model's.
    fn place(&self, model: &str) -> (&AtomicU64, u64) {
        let hash = u64::from(crc32fast::hash(model.as_bytes()));
        let [first, ..] = &self.0;
        // The tag of a place that was never written is zero.
        (self.0.get(hash as usize % MODELS).unwrap_or(first), hash.max(1))
    }
}

impl Default for Ratios {
    fn default() -> Ratios {
        Ratios::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_teaches_its_own_ratio() {
        let ratios = Ratios::new();
        assert_eq!(ratios.tokens("a", 401), LlmTokens(101), "four bytes, rounded up");
        ratios.learn("a", 3_000, LlmTokens(1_000));
        assert_eq!((ratios.tokens("a", 300), ratios.tokens("b", 400)), (LlmTokens(100), LlmTokens(100)));
        for _ in 0..200 {
            ratios.learn("a", 5_000, LlmTokens(1_000));
        }
        let near = ratios.tokens("a", 5_000).0;
        assert!((1_000..=1_010).contains(&near), "{near}");
    }

    #[test]
    fn nonsense_teaches_little() {
        let ratios = Ratios::new();
        ratios.learn("a", u64::MAX, LlmTokens(31));
        ratios.learn("a", 0, LlmTokens(u64::MAX));
        assert_eq!(ratios.tokens("a", 400), LlmTokens(100), "too short, and without bytes");
        ratios.learn("a", u64::MAX, LlmTokens(32));
        assert_eq!(ratios.tokens("a", 20_000), LlmTokens(1_000));
        ratios.learn("b", 1, LlmTokens(u64::MAX));
        assert_eq!(ratios.tokens("b", 100), LlmTokens(1_000));
        assert!(ratios.tokens("b", u64::MAX) > LlmTokens(0));
    }
}
