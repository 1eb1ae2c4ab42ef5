//! The head of an answer.

use super::fields::{Facts, Lines, tokenise};
use super::{Field, Framing, HeadError, Part, Version, version};
use crate::base::bounds::{FIELDS_MAX, HEAD_BYTES_MAX};

/// An answer's head, found in the bytes of a connection. `reset` keeps its room for the next one.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// 100 to 599. Of 1xx the caller reads on: the real answer follows.
    pub status: u16,
    /// The version of the status line.
    pub version: Version,
    /// The reason phrase; may be empty.
    pub reason: Part,
    /// The fields, in order, with duplicates.
    pub fields: Vec<Field>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection can take another request once the body has been read.
    pub keep_alive: bool,
    lines: Lines,
    fields_at: usize,
    count: usize,
    facts: Facts,
}

impl ResponseHead {
    /// A head that has seen no byte.
    pub fn new() -> ResponseHead {
        ResponseHead::default()
    }

    /// Forgets the answer, keeps the room: to be called before the next head's bytes, that of a final answer behind an
    /// interim one included.
    pub fn reset(&mut self) {
        let (mut fields, mut facts) = (std::mem::take(&mut self.fields), std::mem::take(&mut self.facts));
        fields.clear();
        facts.reset();
        *self = ResponseHead { fields, facts, ..ResponseHead::default() };
    }

    /// Looks for the head in `buf`, which holds every byte received of it so far; only new bytes are looked at.
    /// `Some(n)`: complete, and `n` bytes long. An interim answer (1xx) is a head without a body; 101 is refused,
    /// since nothing here asks for another protocol.
    pub fn parse(&mut self, buf: &[u8], request_was_head: bool) -> Result<Option<usize>, HeadError> {
        let window = buf.get(..HEAD_BYTES_MAX).unwrap_or(buf);
        if self.fields_at == 0 {
            check_start(window)?;
            let Some(line) = self.lines.next(window)? else { return incomplete(buf) };
            self.read_status_line(window, line)?;
            self.fields_at = self.lines.consumed();
        }
        while let Some(line) = self.lines.next(window)? {
            if line.is_empty() {
                let end = self.lines.consumed();
                tokenise(window, self.fields_at, end, self.count, &mut self.fields)?;
                self.facts.gather(window, &self.fields, self.version)?;
                self.frame(request_was_head)?;
                return Ok(Some(end));
            }
            self.count += 1;
            if self.count > FIELDS_MAX {
                return Err(HeadError::TooManyFields);
            }
        }
        incomplete(buf)
    }

    /// `HTTP/1.1 200 reason`. The space before an empty reason, which RFC 9112 section 4 asks of senders, may be
    /// missing: nothing depends on it.
    fn read_status_line(&mut self, buf: &[u8], line: Part) -> Result<(), HeadError> {
        const SHAPE: HeadError = HeadError::Malformed(
            "the status line is not `HTTP/1.1 200 reason` with a status of 100 to 599 (RFC 9112 section 4)",
        );
        let bytes = line.of(buf);
        let (first, rest) = bytes.split_at_checked(8).ok_or(SHAPE)?;
        self.version = version(first)?;
        let (status, reason) = match rest {
            [b' ', hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9', reason @ ..] => {
                ([hundreds, tens, ones].iter().fold(0, |sum, digit| sum * 10 + u16::from(*digit - b'0')), reason)
            }
            _ => return Err(SHAPE),
        };
        let reason = match reason {
            [] => reason,
            [b' ', text @ ..] => text,
            _ => return Err(SHAPE),
        };
        if reason.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(HeadError::Malformed("the reason phrase has a control byte (RFC 9112 section 4)"));
        }
        if status == 101 {
            return Err(HeadError::Malformed("the upstream switches protocols unasked (RFC 9110 section 7.8)"));
        }
        self.status = status;
        self.reason = Part::within(buf, reason);
        Ok(())
    }

    /// RFC 9112 section 6.3, rules 1 and 4 to 8.
    fn frame(&mut self, request_was_head: bool) -> Result<(), HeadError> {
        let framed = self.facts.framing();
        let persists = self.facts.persists(self.version);
        if self.status < 200 && !matches!(framed, None | Some(Framing::Length(0))) {
            return Err(HeadError::Malformed("an interim answer announces a body (RFC 9110 section 15.2)"));
        }
        if request_was_head || self.status < 200 || matches!(self.status, 204 | 304) {
            self.framing = Framing::None;
            // A 204 that announces a body may also send it: its connection is not used again.
            self.keep_alive = persists && (self.status != 204 || matches!(framed, None | Some(Framing::Length(0))));
        } else {
            self.framing = framed.unwrap_or(Framing::UntilClose);
            self.keep_alive = persists && framed.is_some();
        }
        Ok(())
    }

    /// The first field of that name, compared without case.
    pub fn field<'a>(&self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        super::first_named(&self.fields, buf, name)
    }

    /// Whether the field ends at this hop; the same rule as for requests.
    pub fn is_hop_by_hop(&self, buf: &[u8], field: &Field) -> bool {
        self.facts.is_hop_by_hop(buf, field.name.of(buf))
    }
}

fn incomplete(buf: &[u8]) -> Result<Option<usize>, HeadError> {
    if buf.len() >= HEAD_BYTES_MAX { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// Refuses bytes that cannot become a status line as soon as that shows.
fn check_start(buf: &[u8]) -> Result<(), HeadError> {
    const START: &[u8] = b"HTTP/";
    let seen = buf.len().min(START.len());
    if buf.get(..seen) == START.get(..seen) {
        return Ok(());
    }
    Err(HeadError::Malformed("the answer does not begin with a status line (RFC 9112 section 4)"))
}
