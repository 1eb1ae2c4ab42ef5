//! What a request demands of the model that answers it, and whether a target can give it.

use crate::table::Can;

/// What a request demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The prompt, in tokens as a model counts them: an estimate from its bytes.
    pub input: u64,
    /// The most that the answer may have: `max_tokens`.
    pub output_max: u64,
    /// There are images in it.
    pub images: bool,
    /// There are tools in it.
    pub tools: bool,
    /// It asks for thinking.
    pub thinking: bool,
}

impl Demand {
    /// Whether `can` takes it. What is not known of a target is taken to fit.
    pub fn fits(&self, can: &Can) -> bool {
        (can.images || !self.images)
            && (can.tools || !self.tools)
            && (can.thinking || !self.thinking)
            && can.window_max.is_none_or(|window| self.input <= window)
    }
}
