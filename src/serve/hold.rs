//! The time between an answer's head and its first content, in which it can still become another candidate's answer:
//! what has come is kept back. No I/O.
//!
//! The commit point is the first content, an event that is not known, 4 KiB, or one second, whichever comes first:
//! nobody waits long for a failure that does not come.

use super::events::append;
use crate::{
    base::{Mono, Span},
    dialect::anthropic::{self, Fault},
    rt::Segment,
};

/// How long an answer is held back at most.
pub const HOLD_MAX: Span = Span::from_secs(1);
/// How much of it.
const HOLD_BYTES_MAX: usize = 4 * 1024;

/// How much of a document is looked at.
const BEGINNING_BYTES_MAX: usize = 512;

/// What is held back.
pub struct Hold {
    /// Until then at most.
    pub until: Mono,
    kept: Option<Segment>,
    /// The beginning of a document, without framing.
    beginning: Vec<u8>,
}

impl Hold {
    /// Nothing yet, and until `HOLD_MAX` after the head at most.
    pub fn since(head: Mono) -> Hold {
        Hold { until: head.after(HOLD_MAX), kept: None, beginning: Vec::new() }
    }

    /// Keeps `more`, framed as it will be sent.
    pub fn keep(&mut self, more: Segment) {
        self.kept = Some(match self.kept.take() {
            None => more,
            Some(kept) => append(kept, &more),
        });
    }

    /// Looks at the payload of a document; what fault it tells of, if it is an error in a success's clothes.
    pub fn look(&mut self, payload: &[u8]) -> Option<Fault> {
        let room = BEGINNING_BYTES_MAX.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(payload.get(..room).unwrap_or(payload));
        anthropic::is_error(&self.beginning).then(|| anthropic::fault(&self.beginning))
    }

    /// Whether there is more than is worth waiting with.
    pub fn is_full(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.len() > HOLD_BYTES_MAX)
    }

    /// Gives out what was kept.
    pub fn release(self) -> Option<Segment> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_known_in_however_small_pieces_it_comes() {
        let document = br#"{"type":"error","error":{"type":"rate_limit_error","message":"no"}}"#;
        let mut hold = Hold::since(Mono(0));
        let told = document.iter().filter_map(|byte| hold.look(std::slice::from_ref(byte))).last();
        assert_eq!(told, Some(Fault::Room));
        let mut hold = Hold::since(Mono(0));
        assert!(document.iter().all(|byte| hold.look(&[b'x', *byte]).is_none()));
    }

    #[test]
    fn what_was_kept_comes_out_in_order() {
        let mut hold = Hold::since(Mono(7));
        assert_eq!(hold.until, Mono(7).after(HOLD_MAX));
        hold.keep(Segment::copy_of(b"ab"));
        hold.keep(Segment::copy_of(&[b'c'; HOLD_BYTES_MAX - 2]));
        assert!(!hold.is_full());
        hold.keep(Segment::copy_of(b"d"));
        assert!(hold.is_full());
        let out = hold.release().unwrap();
        assert!(out.live().starts_with(b"abcc") && out.live().ends_with(b"cd"));
    }
}
