//! Where a conversation's prompt cache is: which credential answered its last turn. A table of fixed size, read and
//! written by all cores without a lock; what is pushed out of it, or too old, is as good as never known.
//!
//! An entry is two words, of which the second says what is remembered and the first is the conversation's number mixed
//! with the second. A reader that meets one word of one writer and one of another finds no conversation that it knows,
//! and a set of four entries is one cache line.

mod name;
#[cfg(test)]
mod tests;

pub use name::conversation;

use crate::base::{CredentialSlot, ModelSlot, Mono, Span};
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Entries that a conversation may be in.
const WAYS: usize = 4;
/// Sets of `WAYS`; with 16 bytes an entry, 1 MiB holds 65,536 conversations.
const SETS: usize = 1 << 14;

/// How long a provider keeps a prompt cache after its last use (R72), and if the request asked for an hour.
const WARM: Span = Span::from_secs(5 * 60);
const WARM_LONG: Span = Span::from_secs(60 * 60);

/// A conversation: a number made from who asks and what it calls the conversation. It tells nothing of either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversation(pub u64);

impl Conversation {
    /// What it is under one `[[model]]`. Caches are a model's own, and one session asks for several models: without
    /// this, its small background requests would call it away from where its large ones are cached.
    #[must_use]
    pub fn under(self, model: ModelSlot) -> Conversation {
        Conversation(mix(self.0 ^ mix(u64::from(model.0).wrapping_add(1))))
    }
}

/// What is remembered of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// The credential that answered last.
    pub credential: CredentialSlot,
    /// How large the request was, in bytes: about so much of the next one is cached.
    pub bytes: u64,
    /// How long ago that was, to the second.
    pub since: Span,
    /// The cache was asked to last an hour.
    pub long: bool,
    /// Its history has come from more than one family of providers.
    pub mixed: bool,
}

impl Warm {
    /// Whether the provider still has the cache.
    pub fn is_warm(&self) -> bool {
        self.since < if self.long { WARM_LONG } else { WARM }
    }
}

/// A turn that has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// With which credential.
    pub credential: CredentialSlot,
    /// The size of its request's body.
    pub bytes: u64,
    /// It asked for a cache that lasts an hour.
    pub long: bool,
    /// It came to this credential from another family of providers; remembered from then on.
    pub crossed: bool,
}

/// The table. It takes its memory when the first turn is noted.
#[derive(Default)]
pub struct Affinity {
    room: OnceLock<Room>,
}

struct Room {
    /// Of this process alone, so that nobody can choose names that fall into one set and push others' out.
    key: u64,
    sets: Box<[Set]>,
}

#[derive(Default)]
#[repr(align(64))]
struct Set([Entry; WAYS]);

#[derive(Default)]
struct Entry {
    /// The conversation, mixed with `what`.
    who: AtomicU64,
    /// `Packed`; zero when the entry is free.
    what: AtomicU64,
}

impl Affinity {
    /// Where the conversation is warm; `None` when that is not known, or too long ago for a cache.
    pub fn find(&self, conversation: Conversation, now: Mono) -> Option<Warm> {
        self.last(conversation, now).filter(Warm::is_warm)
    }

    /// Where the conversation's last turn was answered, however long ago: for what cannot be answered elsewhere, and
    /// for signatures, which outlive caches.
    pub fn last(&self, conversation: Conversation, now: Mono) -> Option<Warm> {
        let room = self.room.get()?;
        let packed = room.set(conversation)?.0.iter().find_map(|entry| entry.read(conversation))?;
        Some(packed.warm(now))
    }

    /// A turn has been answered whose request was sent at `now`: a provider counts a cache's life from there.
    pub fn note(&self, conversation: Conversation, turn: Turn, now: Mono) {
        let room = self.room.get_or_init(Room::new);
        let Some(set) = room.set(conversation) else { return };
        let own = set.0.iter().find_map(|entry| entry.read(conversation).map(|was| (entry, was)));
        let mixed = turn.crossed || own.is_some_and(|(_, was)| was.mixed());
        let Some(packed) = Packed::new(turn, mixed, now) else { return };
        let oldest = || set.0.iter().min_by_key(|entry| Packed(entry.what.load(Relaxed)).used_s());
        if let Some(entry) = own.map(|(entry, _)| entry).or_else(oldest) {
            entry.who.store(conversation.0 ^ mix(packed.0), Relaxed);
            entry.what.store(packed.0, Relaxed);
        }
    }
}

impl Room {
    fn new() -> Room {
        Room { key: RandomState::new().hash_one(0_u8), sets: (0..SETS).map(|_| Set::default()).collect() }
    }

    fn set(&self, conversation: Conversation) -> Option<&Set> {
        self.sets.get(mix(conversation.0 ^ self.key) as usize % SETS)
    }
}

impl Entry {
    /// What it remembers, if it is of this conversation and was not read while being written.
    fn read(&self, conversation: Conversation) -> Option<Packed> {
        let what = self.what.load(Relaxed);
        let is_its = what != 0 && self.who.load(Relaxed) ^ mix(what) == conversation.0;
        is_its.then_some(Packed(what))
    }
}

/// What is remembered, in one word: from the lowest bit, the second of its last use (28 bits: 8 years of uptime), the
/// credential's slot (16), the size in KiB (16: 64 MiB), an hour's cache, a mixed history, and that it is taken.
#[derive(Clone, Copy)]
struct Packed(u64);

const SECONDS: u64 = (1 << 28) - 1;
const SLOTS: u64 = (1 << 16) - 1;
const KIBS: u64 = (1 << 16) - 1;
const LONG: u64 = 1 << 60;
const MIXED: u64 = 1 << 61;
const TAKEN: u64 = 1 << 62;

impl Packed {
    /// `None` for a slot that has no room: after 65,536 credentials in one process, new ones are never warm.
    fn new(turn: Turn, mixed: bool, now: Mono) -> Option<Packed> {
        let slot = u64::from(turn.credential.0);
        if slot > SLOTS {
            return None;
        }
        let seconds = (now.0 / Span::from_secs(1).0).min(SECONDS);
        let kib = turn.bytes.div_ceil(1024).min(KIBS);
        let flags = (u64::from(turn.long) * LONG) | (u64::from(mixed) * MIXED) | TAKEN;
        Some(Packed(seconds | (slot << 28) | (kib << 44) | flags))
    }

    /// When it was used last; a free entry is older than all.
    fn used_s(self) -> u64 {
        self.0 & SECONDS
    }

    fn mixed(self) -> bool {
        self.0 & MIXED != 0
    }

    fn warm(self, now: Mono) -> Warm {
        Warm {
            credential: CredentialSlot(((self.0 >> 28) & SLOTS) as u32),
            bytes: ((self.0 >> 44) & KIBS) * 1024,
            since: now.since(Mono(Span::from_secs(self.used_s()).0)),
            long: self.0 & LONG != 0,
            mixed: self.mixed(),
        }
    }
}

/// Spreads a number over all its bits (the finaliser of splitmix64): a bijection, fast, not for secrets.
pub(super) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
