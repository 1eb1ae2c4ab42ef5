//! How much room a credential has for a class of models, as declared and as the upstream's answers tell.

use super::{Rest, Told};
use crate::{base::Mono, table::CredentialLimits};

/// What a request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Uncached input, in tokens as a model counts them: an estimate.
    pub input: u64,
    /// Output, likewise.
    pub output: u64,
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Now,
    /// There is none, as far as can be reckoned, before then.
    At(Mono),
    /// The upstream has refused, and said or implied that it will until then.
    Refused(Mono),
}

/// The room of one (credential, model class).
#[derive(Default)]
pub struct Capacity {
    refused: Rest,
}

impl Capacity {
    /// Whether a request that takes `need` has room now.
    pub fn room(&self, _need: Need, _declared: &CredentialLimits, now: Mono) -> Room {
        self.refused.until(now).map_or(Room::Now, Room::Refused)
    }

    /// A request is sent.
    pub fn begin(&self, _need: Need, _declared: &CredentialLimits, _now: Mono) {}

    /// The head of its answer has come, and tells of limits.
    pub fn answered(&self, _need: Need, _told: &Told, _now: Mono) {}

    /// It ended without an answer's head.
    pub fn ended(&self, _need: Need, _now: Mono) {}

    /// The upstream refused for want of room.
    pub fn refused(&self, until: Mono) {
        self.refused.extend(until);
    }
}
