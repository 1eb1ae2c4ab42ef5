//! Where a conversation's prompt cache is: which credential answered its last turn. A table of fixed size, read and
//! written by all cores without a lock; what is pushed out of it, or too old, is as good as never known.

use crate::base::{CredentialSlot, Mono, Span};

/// A conversation: a number made from who asks and what it calls the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversation(pub u64);

/// What is remembered of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// The credential that answered last.
    pub credential: CredentialSlot,
    /// How large the request was, in bytes: about so much of the next one is cached.
    pub bytes: u64,
    /// How long ago that was.
    pub since: Span,
}

/// The table.
#[derive(Default)]
pub struct Affinity {}

impl Affinity {
    /// Where the conversation is warm; `None` when that is not known, or too long ago for a cache.
    pub fn find(&self, _conversation: Conversation, _now: Mono) -> Option<Warm> {
        None
    }

    /// A credential has answered a turn whose request had `bytes`.
    pub fn note(&self, _conversation: Conversation, _credential: CredentialSlot, _bytes: u64, _now: Mono) {}
}
