//! The tap: what an answer used and which model gave it, read while the answer passes. Of a stream only `message_start`
//! and `message_delta` are read; an event of content costs its length. Of a document everything but `usage`, the model
//! and the reason to stop is skipped. Nothing is held but one short value.
//!
//! Not here: what usage means for limits, prices or books. No content is parsed or kept.

mod ratio;
mod reading;
mod walk;

#[cfg(test)]
mod tests;

pub use ratio::Ratios;

use crate::{
    base::units::LlmTokens,
    dialect::usage::{ModelName, Stop, Usage},
    telemetry::record::Ending,
    wire::sse::data_lines,
};
use memchr::memmem::Finder;
use reading::Reading;
use std::sync::LazyLock;
use walk::{Place, Walk};

/// Bytes around the text of an event of content, as the API writes it.
const ENVELOPE_BYTES: u64 = concat!(
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}"#,
    "\n\n"
)
.len() as u64;
/// A longer event may be a signature, which is no output; its key is in the beginning. (In a text the quotes of such a
/// key are escaped.)
const SIGNATURE_BYTES_MIN: usize = 256;
/// See `SIGNATURE_BYTES_MIN`.
const SIGNATURE_NAME_WITHIN: usize = 160;
/// See `SIGNATURE_BYTES_MIN`. Prepared once: to prepare it takes longer than to look.
static SIGNATURE_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"signature\":"));

/// What is to be known about a figure before it is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Output was made of bytes, since the provider did not tell it to the end.
    pub const ESTIMATED: Flags = Flags(1);
    /// The answer did not tell what went in.
    pub const NO_INPUT: Flags = Flags(2);
    /// The answer was whole and did not tell what came out.
    pub const NO_OUTPUT: Flags = Flags(4);
    /// Something in `usage` cannot be right, and was passed over: another type, a count that shrank to nothing, parts
    /// that are more than their sum.
    pub const WRONG: Flags = Flags(8);
    /// How long cache writes are kept was not told for all of them: the rest is taken to be like what was told, and
    /// five minutes where nothing was.
    pub const SPLIT_GUESSED: Flags = Flags(16);
    /// Several models, or a compaction, are in the bill: see `Usage::asides`.
    pub const MIXED: Flags = Flags(32);
    /// The answer is not the JSON that it should be.
    pub const UNREADABLE: Flags = Flags(64);
    /// The answer ended with an error of the provider's.
    pub const FAILED: Flags = Flags(128);

    /// In the order of their bits: as they stand in logs.
    pub const SLUGS: [&str; 8] =
        ["estimated", "no_input", "no_output", "wrong", "split_guessed", "mixed", "unreadable", "failed"];

    /// Whether all of `flags` are set.
    pub const fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Sets them.
    pub const fn add(&mut self, flags: Flags) {
        self.0 |= flags.0;
    }

    /// Whether none is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them, one a bit, for a column of a store.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The names of those that are set.
    pub fn slugs(self) -> impl Iterator<Item = &'static str> {
        Self::SLUGS.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, slug)| slug)
    }
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// The model that answered, by its own word; empty if it did not say.
    pub model: ModelName,
    /// Why it stopped.
    pub stop: Stop,
    /// What it used.
    pub usage: Usage,
    /// How far that can be believed.
    pub flags: Flags,
    /// Bytes of content, JSON escapes included, without what is around them.
    pub content_bytes: u64,
}

/// Reads along with one answer of the Messages API. It must not be put on an answer without usage (a refusal, a model
/// list, a count): that would be flagged.
#[derive(Clone, Debug)]
pub struct Tap {
    walk: Walk,
    reading: Reading,
    content_bytes: u64,
    /// `content_bytes` when output was last told.
    told_at_bytes: u64,
    /// A first, preliminary figure is all that is known of the output.
    preliminary: bool,
    is_stream: bool,
}

impl Default for Tap {
    fn default() -> Tap {
        Tap::new()
    }
}

impl Tap {
    /// Before the first byte.
    pub fn new() -> Tap {
        Tap {
            walk: Walk::new(Place::Message),
            reading: Reading::default(),
            content_bytes: 0,
            told_at_bytes: 0,
            preliminary: false,
            is_stream: false,
        }
    }

    /// A whole event of a stream, from its first line to its blank one, and its name.
    pub fn event(&mut self, name: &[u8], event: &[u8]) {
        self.is_stream = true;
        match name {
            b"content_block_delta" if is_signature(event) => {}
            b"content_block_delta" => {
                self.content_bytes += (event.len() as u64).saturating_sub(ENVELOPE_BYTES);
            }
            b"message_start" => {
                self.read(event);
                self.preliminary = true;
            }
            b"message_delta" => {
                self.reading.saw_output = false;
                self.read(event);
                if self.reading.saw_output {
                    self.preliminary = false;
                    self.told_at_bytes = self.content_bytes;
                }
            }
            b"error" => self.reading.flags.add(Flags::FAILED),
            _ => {}
        }
    }

    /// A part of an event that was too long to be waited for, its name if that is known yet. Such an event is counted,
    /// not read.
    pub fn part(&mut self, name: &[u8], bytes: &[u8]) {
        self.is_stream = true;
        if name == b"content_block_delta" {
            self.content_bytes += bytes.len() as u64;
        }
    }

    fn read(&mut self, event: &[u8]) {
        self.walk.restart(Place::Event);
        for line in data_lines(event) {
            self.walk.feed(line, &mut self.reading);
            self.walk.feed(b"\n", &mut self.reading);
        }
        if !self.walk.is_done() {
            self.reading.flags.add(Flags::UNREADABLE);
        }
    }

    /// The next bytes of an answer that is one document.
    pub fn body(&mut self, piece: &[u8]) {
        self.content_bytes += piece.len() as u64;
        self.walk.feed(piece, &mut self.reading);
    }

    /// The answer is over, and ended like this. A whole answer teaches `ratios`, one that broke off is estimated by
    /// them. The tap is spent.
    pub fn finish(&mut self, ending: Ending, ratios: &Ratios) -> Metered {
        let whole = ending == Ending::Complete && !self.reading.flags.has(Flags::FAILED);
        if whole && !self.is_stream && !self.walk.is_done() {
            self.reading.flags.add(Flags::UNREADABLE);
        }
        let mut usage = self.reading.usage();
        let model = self.reading.model;
        let told = self.reading.output().filter(|_| !self.preliminary);
        let rest = self.content_bytes.saturating_sub(self.told_at_bytes);
        let exact = told.is_some() && (!self.is_stream || rest == 0 || self.reading.stop != Stop::Untold);
        if exact {
            if whole && self.is_stream {
                ratios.learn(model.as_str(), self.content_bytes, LlmTokens(usage.counts.output));
            }
        } else {
            let estimate = ratios.tokens(model.as_str(), rest).0;
            // A preliminary figure is what had come by then of the same output.
            usage.counts.output = told.map_or(usage.counts.output.max(estimate), |told| told.saturating_add(estimate));
            self.reading.flags.add(Flags::ESTIMATED);
        }
        if whole && told.is_none() {
            self.reading.flags.add(Flags::NO_OUTPUT);
        }
        if usage.counts.prompt() == 0 {
            self.reading.flags.add(Flags::NO_INPUT);
        }
        Metered { model, stop: self.reading.stop, usage, flags: self.reading.flags, content_bytes: self.content_bytes }
    }
}

/// Whether an event of content carries a signature.
fn is_signature(event: &[u8]) -> bool {
    let Some(beginning) = event.get(..SIGNATURE_NAME_WITHIN).filter(|_| event.len() > SIGNATURE_BYTES_MIN) else {
        return false;
    };
    SIGNATURE_KEY.find(beginning).is_some()
}
