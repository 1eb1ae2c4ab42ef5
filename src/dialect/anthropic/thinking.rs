//! Takes the thinking blocks out of a request's history, when it goes to another family of providers than the one that
//! signed them: that one answers 400 to a signature that it cannot check. Every other byte stays.
//!
//! `thinking` and `redacted_thinking` blocks go from the content of assistant messages. A message of which nothing is
//! left goes whole: the API refuses empty content, and merges neighbours of one role by itself; a text put in its place
//! would be words that the model never said. Not a JSON parser: what it cannot follow it leaves to the upstream to judge.

use crate::{
    base::bounds::JSON_DEPTH_MAX,
    wire::json::{string_end, unescaped},
};
use std::ops::Range;

/// What is to be cut out of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Offsets in the body: in order, apart, none empty.
    ranges: Vec<Range<usize>>,
    /// How many blocks are in them.
    pub blocks: usize,
    /// How many messages go whole.
    pub messages: usize,
    /// The last assistant message loses some: models that think with a budget (`"type": "enabled"`) refuse a tool's
    /// result whose call has lost its thinking. Those that think adaptively do not mind.
    pub in_last_turn: bool,
}

/// Finds the thinking blocks of a request's body; `None` when it cannot be read.
pub fn cut_thinking(body: &[u8]) -> Option<Cuts> {
    let (mut walk, mut cuts) = (Walk { bytes: body, at: 0, key: b"" }, Cuts::default());
    walk.open(b'{')?;
    while walk.key()? {
        if is(walk.key, b"messages") && walk.peek() == Some(b'[') {
            messages(&mut walk, &mut cuts)?;
        } else {
            walk.skip()?;
        }
    }
    walk.space();
    (walk.at == body.len()).then_some(cuts)
}

impl Cuts {
    /// Whether the body stays as it is.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many bytes go.
    pub fn bytes(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// What stays of `body`, from which these cuts were made, in parts.
    pub fn kept<'a>(&'a self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let starts = std::iter::once(0).chain(self.ranges.iter().map(|range| range.end));
        let ends = self.ranges.iter().map(|range| range.start).chain(std::iter::once(body.len()));
        starts.zip(ends).map(|(start, end)| body.get(start..end).unwrap_or_default())
    }

    /// The body without them.
    pub fn apply(&self, body: &[u8]) -> Vec<u8> {
        let mut left = Vec::with_capacity(body.len().saturating_sub(self.bytes()));
        self.kept(body).for_each(|part| left.extend_from_slice(part));
        left
    }
}

/// The array of messages, which begins here.
fn messages(walk: &mut Walk<'_>, cuts: &mut Cuts) -> Option<()> {
    let mut list = List::default();
    walk.open(b'[')?;
    while walk.element()? {
        let (start, before) = (walk.at, cuts.ranges.len());
        let is_emptied = if walk.peek() == Some(b'{') { message(walk, cuts)? } else { walk.skip()? };
        if is_emptied {
            cuts.ranges.truncate(before);
            cuts.messages += 1;
        }
        list.see(start..walk.at, is_emptied, before, &mut cuts.ranges);
    }
    list.end(&mut cuts.ranges);
    Some(())
}

/// One message; whether nothing is left of it. Of two fields of one name the last counts, as in most parsers.
fn message(walk: &mut Walk<'_>, cuts: &mut Cuts) -> Option<bool> {
    let before = cuts.ranges.len();
    let (mut is_assistant, mut blocks, mut is_emptied) = (false, 0, false);
    walk.open(b'{')?;
    while walk.key()? {
        match walk.peek() {
            Some(b'[') if is(walk.key, b"content") => {
                cuts.ranges.truncate(before);
                (blocks, is_emptied) = content(walk, &mut cuts.ranges)?;
            }
            Some(b'"') if is(walk.key, b"role") => is_assistant = is(walk.string()?, b"assistant"),
            _ => drop(walk.skip()?),
        }
    }
    if !is_assistant {
        cuts.ranges.truncate(before);
        return Some(false);
    }
    cuts.blocks += blocks;
    cuts.in_last_turn = blocks > 0;
    Some(is_emptied)
}

/// The array of a message's blocks: how many of them are thinking, and whether all are.
fn content(walk: &mut Walk<'_>, ranges: &mut Vec<Range<usize>>) -> Option<(usize, bool)> {
    let (mut list, mut blocks) = (List::default(), 0);
    walk.open(b'[')?;
    while walk.element()? {
        let (start, before) = (walk.at, ranges.len());
        let thinks = if walk.peek() == Some(b'{') { block(walk)? } else { walk.skip()? };
        blocks += usize::from(thinks);
        list.see(start..walk.at, thinks, before, ranges);
    }
    Some((blocks, blocks > 0 && !list.has_kept))
}

/// One block; whether it is thinking.
fn block(walk: &mut Walk<'_>) -> Option<bool> {
    let mut thinks = false;
    walk.open(b'{')?;
    while walk.key()? {
        if walk.peek() == Some(b'"') && is(walk.key, b"type") {
            let kind = walk.string()?;
            thinks = is(kind, b"thinking") || is(kind, b"redacted_thinking");
        } else {
            walk.skip()?;
        }
    }
    Some(thinks)
}

/// An array some of whose elements go, each with one comma.
#[derive(Default)]
struct List {
    /// Elements that go before any that stays: they go with the comma behind them.
    lead: Option<usize>,
    has_kept: bool,
    /// The end of the last element.
    end: usize,
}

impl List {
    /// The next element. `before` is how many ranges there were when it began; those inside it are behind that.
    fn see(&mut self, element: Range<usize>, goes: bool, before: usize, ranges: &mut Vec<Range<usize>>) {
        match (goes, self.has_kept) {
            (true, false) => self.lead = self.lead.or(Some(element.start)),
            (true, true) => match ranges.last_mut() {
                Some(last) if last.end == self.end => last.end = element.end,
                _ => ranges.push(self.end..element.end),
            },
            (false, _) => {
                if let Some(start) = self.lead.take() {
                    ranges.insert(before.min(ranges.len()), start..element.start);
                }
                self.has_kept = true;
            }
        }
        self.end = element.end;
    }

    /// The array is over.
    fn end(self, ranges: &mut Vec<Range<usize>>) {
        if let Some(start) = self.lead {
            ranges.push(start..self.end);
        }
    }
}

/// Whether a string, as written, says `text`.
fn is(raw: &[u8], text: &[u8]) -> bool {
    let mut plain = [0; 24];
    unescaped(raw, &mut plain) == Some(text)
}

/// A place in a JSON text. Its methods give `None` where the text breaks off or breaks the grammar.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The key that was read last, as written.
    key: &'a [u8],
}

impl<'a> Walk<'a> {
    fn space(&mut self) {
        while self.bytes.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.bytes.get(self.at).copied()
    }

    /// Steps over this byte.
    fn open(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// The byte before the place that is no space: whether a list has just begun.
    fn has_begun(&self) -> bool {
        let before = self.bytes.get(..self.at).unwrap_or_default().trim_ascii_end();
        matches!(before.last(), Some(b'{' | b'['))
    }

    /// Whether an object has another field, with the place behind its colon.
    fn key(&mut self) -> Option<bool> {
        let more = self.more(b'}')?;
        if more {
            self.key = self.string()?;
            self.open(b':')?;
            self.space();
        }
        Some(more)
    }

    /// Whether an array has another element, with the place at its beginning.
    fn element(&mut self) -> Option<bool> {
        let more = self.more(b']')?;
        self.space();
        Some(more)
    }

    /// Steps over the comma before what comes next, or over the end.
    fn more(&mut self, end: u8) -> Option<bool> {
        let has_begun = self.has_begun();
        let byte = self.peek()?;
        if byte == end {
            self.at += 1;
            return Some(false);
        }
        if !has_begun {
            self.open(b',')?;
        }
        Some(true)
    }

    /// A string, without its quotes and as written.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.open(b'"')?;
        let (start, mut escaped) = (self.at, false);
        let end = string_end(self.bytes, start, &mut escaped)?;
        self.at = end + 1;
        self.bytes.get(start..end)
    }

    /// Steps over a value and all in it, in which nothing is to be cut: `false`.
    fn skip(&mut self) -> Option<bool> {
        match self.peek()? {
            b'"' => drop(self.string()?),
            b'{' | b'[' => self.skip_nested()?,
            _ => {
                let rest = self.bytes.get(self.at..)?;
                let len = rest.iter().position(|byte| b",:{}[]\" \t\r\n".contains(byte)).unwrap_or(rest.len());
                self.at += len;
                if len == 0 {
                    return None;
                }
            }
        }
        Some(false)
    }

    /// Its brackets are matched, and no deeper than `JSON_DEPTH_MAX`; bit 0 of `kinds` says whether the innermost is an
    /// object.
    fn skip_nested(&mut self) -> Option<()> {
        let (mut depth, mut kinds) = (0, 0_u128);
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                open @ (b'{' | b'[') => {
                    depth += 1;
                    kinds = (kinds << 1) | u128::from(*open == b'{');
                    if depth > JSON_DEPTH_MAX {
                        return None;
                    }
                }
                close => {
                    if (kinds & 1 == 1) != (*close == b'}') {
                        return None;
                    }
                    depth -= 1;
                    kinds >>= 1;
                }
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
