//! What an answer's head tells of its credential's limits: Anthropic's `anthropic-ratelimit-*`, OpenAI's
//! `x-ratelimit-*`, and `retry-after`.

use crate::base::{Span, Wall};

/// One limit, as an answer tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// What the full bucket holds.
    pub limit: Option<u64>,
    /// What it holds now.
    pub remaining: Option<u64>,
    /// How long until it is full.
    pub full_in: Option<Span>,
}

/// All that one head tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests.
    pub requests: Level,
    /// Input and output together, in tokens as a model counts them.
    pub both: Level,
    /// Uncached input.
    pub input: Level,
    /// Output.
    pub output: Level,
    /// How long to wait before asking again.
    pub retry_after: Option<Span>,
}

impl Told {
    /// Reads the fields of a head. What cannot be read is passed over.
    pub fn read<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, _wall: Wall) -> Told {
        let mut told = Told::default();
        for (name, value) in fields {
            if name.eq_ignore_ascii_case(b"retry-after")
                && let Some(seconds) = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok())
            {
                told.retry_after = Some(Span::from_secs(seconds));
            }
        }
        told
    }
}
