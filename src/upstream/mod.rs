//! What is known of the upstreams while they run, and what follows from it: which candidate a request goes to, what an
//! answer means for the request and for the one who gave it, and where a conversation's prompt cache is.
//!
//! Shared by all cores: atomics, without a lock. No I/O, no clock (`now` is an argument). The configuration is in
//! `table`, what was sent and received in `serve`.

pub mod affinity;
pub mod breaker;
mod bucket;
pub mod budget;
pub mod capacity;
pub mod choose;
mod declared;
pub mod fit;
mod pace;
mod sent;
mod stamp;
pub mod told;
pub mod verdict;
mod window;

pub use affinity::{Affinity, Conversation, Turn, Warm, conversation};
pub use breaker::{Breaker, Standing};
pub use budget::RetryBudget;
pub use capacity::{Capacity, Need, Room};
pub use choose::{Candidate, Choice, Leaving, Spent, Tried, View, Weighed, choose, weigh};
pub use declared::Declared;
pub use fit::{Demand, Misfit};
pub use sent::Sent;
pub use told::Told;
pub use verdict::{Effect, Ruling};

use crate::{
    base::{CredentialSlot, Mono, UpstreamSlot},
    table::{CredentialLimits, Table},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A class of models that share a provider's rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelClass(u8);

impl ModelClass {
    /// How many there are. Anthropic limits by family; elsewhere models share a class by chance, which errs on the side
    /// of asking less.
    pub const COUNT: usize = 12;
    const FAMILIES: [&'static str; 3] = ["opus", "sonnet", "haiku"];
    /// Questions of how long a prompt is: Claude Code asks 25 at once, and providers limit them apart.
    pub const COUNTING: ModelClass = ModelClass(Self::COUNT as u8 - 1);

    /// The class of a model by its id at the upstream.
    pub fn of(model: &str) -> ModelClass {
        let family = Self::FAMILIES.iter().position(|family| model.contains(family));
        let class = family.unwrap_or_else(|| {
            let others = Self::COUNT - Self::FAMILIES.len() - 1;
            Self::FAMILIES.len() + (crc32fast::hash(model.as_bytes()) as usize) % others
        });
        ModelClass(class as u8)
    }

    /// The class as an index below `COUNT`.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        let other = if self == Self::COUNTING { "count_tokens" } else { "other" };
        Self::FAMILIES.get(self.index()).copied().unwrap_or(other)
    }
}

/// A span of time in which something is left alone; zero for none.
#[derive(Default)]
pub struct Rest(AtomicU64);

impl Rest {
    /// Until when, if that is still to come.
    pub fn until(&self, now: Mono) -> Option<Mono> {
        let until = Mono(self.0.load(Relaxed));
        (until > now).then_some(until)
    }

    /// Leaves it alone until `until`, whatever was said before.
    pub fn set(&self, until: Mono) {
        self.0.store(until.0, Relaxed);
    }

    /// Leaves it alone until `until`, or longer if that was said before.
    pub fn extend(&self, until: Mono) {
        self.0.fetch_max(until.0, Relaxed);
    }

    /// Ends it.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// What is known of one upstream.
#[derive(Default)]
pub struct UpstreamState {
    /// Whether it works.
    pub breaker: Breaker,
    /// Taken out by the operator.
    pub drained: Rest,
}

/// What is known of one credential.
#[derive(Default)]
pub struct CredentialState {
    /// Refused by the upstream, or out of money.
    pub refused: Rest,
    /// Taken out by the operator.
    pub drained: Rest,
    /// Its limits as answers tell them, by model class.
    pub classes: [Capacity; ModelClass::COUNT],
    /// What counts against the limits that the operator declared.
    pub declared: Declared,
    /// Requests that have been sent with it and whose answers have not ended.
    pub in_flight: AtomicU64,
}

impl CredentialState {
    /// Whether a request to that class of models has room now, by what answers told and by what was declared.
    pub fn room(&self, class: ModelClass, need: Need, declared: &CredentialLimits, now: Mono) -> Room {
        let capacity = self.class(class);
        match (capacity.room(need, now), self.declared.room(need, capacity.output_expected(need), declared, now)) {
            (Room::Refused(until), declared) => Room::Refused(declared.map_or(until, |at| at.max(until))),
            (Room::At(told), Some(declared)) => Room::At(told.max(declared)),
            (Room::Now | Room::Paced(_), Some(declared)) => Room::At(declared),
            (room, None) => room,
        }
    }

    /// What is known of a class of models.
    pub fn class(&self, class: ModelClass) -> &Capacity {
        // A class is below COUNT by its making.
        self.classes.get(class.index()).unwrap_or(&self.classes[0])
    }
}

/// Everything that is known, by slot. It is replaced whole when a table brings new slots, and the states of old ones go on.
#[derive(Clone, Default)]
pub struct Health {
    upstreams: Vec<Arc<UpstreamState>>,
    credentials: Vec<Arc<CredentialState>>,
    /// Bounds what is asked of upstreams that are doubtful.
    pub budget: Arc<RetryBudget>,
    /// Where conversations are warm.
    pub affinity: Arc<Affinity>,
}

impl Health {
    /// Room for every slot of `table`, and what was known before.
    #[must_use]
    pub fn grown_for(&self, table: &Table) -> Health {
        let mut grown = self.clone();
        let upstreams = table.upstream_slots_len().max(grown.upstreams.len());
        let credentials = table.credential_slots_len().max(grown.credentials.len());
        grown.upstreams.resize_with(upstreams, Arc::default);
        grown.credentials.resize_with(credentials, Arc::default);
        grown
    }

    /// What is known of an upstream; `None` only for a slot of a table that `grown_for` has not seen.
    pub fn upstream(&self, slot: UpstreamSlot) -> Option<&Arc<UpstreamState>> {
        self.upstreams.get(slot.index())
    }

    /// What is known of a credential; likewise.
    pub fn credential(&self, slot: CredentialSlot) -> Option<&Arc<CredentialState>> {
        self.credentials.get(slot.index())
    }
}
