//! The retry budget: of what is asked of upstreams that are doubtful, only a part may be asked again, so that an outage
//! is not answered by a multiple of the load. In every span of time, however long or short, retries are at most 20 % of
//! the requests in it, and three: a credit that requests fill and retries empty, and that holds three retries. What was
//! not needed before an outage is not saved up for it.

use crate::base::Mono;
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a retry costs, in requests: 20 %.
const COST: u64 = 5;
/// Retries that need no request before them.
const SPARE: u64 = 3;
/// Attempts to change the shared word before a caller gives up; always to the side of fewer retries.
const TRIES_MAX: usize = 16;

/// One budget for the process.
#[derive(Default)]
pub struct RetryBudget {
    /// What is missing of a full credit, in requests: zero when nobody has retried of late.
    missing: CachePadded<AtomicU64>,
}

impl RetryBudget {
    /// A request begins. Writes nothing while the credit is full.
    pub fn note_request(&self, _now: Mono) {
        self.change(|missing| missing.checked_sub(1));
    }

    /// Whether one more attempt at a doubtful upstream is within the budget; takes it if so.
    pub fn take(&self, _now: Mono) -> bool {
        self.change(|missing| (missing + COST <= SPARE * COST).then_some(missing + COST))
    }

    /// Retries that would be let through now, one after the other.
    pub fn left(&self) -> u64 {
        SPARE.saturating_sub(self.missing.load(Relaxed).div_ceil(COST))
    }

    fn change(&self, to: impl Fn(u64) -> Option<u64>) -> bool {
        let mut missing = self.missing.load(Relaxed);
        for _ in 0..TRIES_MAX {
            let Some(next) = to(missing) else { return false };
            match self.missing.compare_exchange_weak(missing, next, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(seen) => missing = seen,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use std::thread;

    const NOW: Mono = Mono(0);

    #[test]
    fn a_total_outage_is_not_answered_by_a_multiple_of_the_load() {
        let budget = RetryBudget::default();
        // A long good time saves nothing up.
        (0..10_000).for_each(|_| budget.note_request(NOW));
        let (requests, mut attempts) = (5_000, 0);
        for _ in 0..requests {
            budget.note_request(NOW);
            attempts += 1;
            attempts += (0..2).filter(|_| budget.take(NOW)).count();
        }
        assert!(attempts <= requests * 12 / 10 + 3, "{attempts}");
        assert!(attempts >= requests * 12 / 10 - 3, "the budget is there to be used: {attempts}");
    }

    #[test]
    fn every_span_keeps_to_it() {
        let (budget, mut rng, mut seen) = (RetryBudget::default(), Rng(5), Vec::new());
        for _ in 0..3_000 {
            let asked = rng.below(3) > 0;
            if asked {
                budget.note_request(NOW);
                seen.push((1, 0));
            } else if budget.take(NOW) {
                seen.push((0, 1));
            }
        }
        for from in 0..seen.len() {
            let (mut requests, mut retries) = (0, 0);
            for (request, retry) in &seen[from..] {
                (requests, retries) = (requests + request, retries + retry);
                assert!(retries <= requests / 5 + 4 && retries * 5 <= requests + 15, "{retries} of {requests}");
            }
        }
    }

    #[test]
    fn three_need_no_request_before_them() {
        let budget = RetryBudget::default();
        assert_eq!(budget.left(), 3);
        assert_eq!((0..10).filter(|_| budget.take(NOW)).count(), 3);
        (0..4).for_each(|_| budget.note_request(NOW));
        assert!(!budget.take(NOW));
        budget.note_request(NOW);
        assert!(budget.take(NOW) && !budget.take(NOW));
    }

    #[test]
    fn all_cores_share_it() {
        let budget = RetryBudget::default();
        let taken: usize = thread::scope(|scope| {
            let core = || {
                (0..10_000)
                    .filter(|_| {
                        budget.note_request(NOW);
                        budget.take(NOW)
                    })
                    .count()
            };
            let cores: Vec<_> = (0..4).map(|_| scope.spawn(core)).collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert!(taken <= 40_000 / 5 + 3 && taken > 4_000, "{taken}");
    }
}
