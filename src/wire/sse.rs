//! Borders between server-sent events (WHATWG HTML, section 9.2 "Server-sent events"), by offsets into the bytes of
//! a stream as they pass.
//!
//! Not here: what an event means. Only its name is kept, so that the few events that carry usage are found without a
//! look at the others.

#[cfg(test)]
mod tests;

use memchr::memchr2;

/// Bytes of an event's name that are kept.
pub const EVENT_NAME_BYTES_MAX: usize = 48;

/// Bytes kept of a line that a read has cut: what `event:`, a space and a name need, and a byte order mark.
const HEAD_BYTES_MAX: usize = EVENT_NAME_BYTES_MAX + 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a line end stands that began with CR: an LF behind it belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// The CR ended a line of the event.
    Line,
    /// The CR ended the event.
    Border,
}

/// Finds the events of one stream. Its memory is fixed, however long an event is.
#[derive(Clone, Debug)]
pub struct EventScanner {
    /// The beginning of the current line, as far as earlier calls have seen it.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    pending: Pending,
    /// The last border is behind us, and nothing of the next event has been seen.
    at_border: bool,
    /// The next line is the first of its event.
    fresh: bool,
    /// The next line is the first of the stream, where a byte order mark may stand.
    first: bool,
    name: [u8; EVENT_NAME_BYTES_MAX],
    name_len: usize,
}

impl Default for EventScanner {
    fn default() -> EventScanner {
        EventScanner::new()
    }
}

impl EventScanner {
    /// A scanner at the beginning of a stream.
    pub const fn new() -> EventScanner {
        EventScanner {
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            pending: Pending::Nothing,
            at_border: true,
            fresh: true,
            first: true,
            name: [0; EVENT_NAME_BYTES_MAX],
            name_len: 0,
        }
    }

    /// The offset just behind the next event, its blank line included, in `bytes[from..]`, which continue the stream
    /// where the last call stopped. `None`: all of it was taken in, and no event ends there.
    ///
    /// Lines may end with LF, CRLF or CR. When `bytes` end with the CR of a blank line, the event ends at the next
    /// call, which sees whether an LF belongs to it; then the offset may be `from` itself. A blank line behind another
    /// ends an empty event.
    pub fn next(&mut self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        if self.pending != Pending::Nothing {
            at += usize::from(*bytes.get(at)? == b'\n');
            if std::mem::replace(&mut self.pending, Pending::Nothing) == Pending::Border {
                return Some(self.border(at));
            }
        }
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            self.at_border &= rest.is_empty();
            let Some(len) = memchr2(b'\n', b'\r', rest) else {
                self.keep(rest);
                return None;
            };
            let (line, end) = rest.split_at_checked(len)?;
            let blank = self.end_line(line);
            at += len + 1;
            if end.first() == Some(&b'\r') {
                let Some(byte) = end.get(1) else {
                    self.pending = if blank { Pending::Border } else { Pending::Line };
                    return None;
                };
                at += usize::from(*byte == b'\n');
            }
            if blank {
                return Some(self.border(at));
            }
        }
    }

    /// The `event:` value of the event that has just ended, cut to `EVENT_NAME_BYTES_MAX`; empty if it had none.
    pub fn name(&self) -> &[u8] {
        self.name.get(..self.name_len).unwrap_or_default()
    }

    /// Whether bytes of an unfinished event have been seen. A CR that may still want its LF counts as such.
    pub fn is_partial(&self) -> bool {
        !self.at_border
    }

    /// The stream has ended. True if that shows that an event had: its last byte was the CR of its blank line.
    pub fn finish(&mut self) -> bool {
        let ended = std::mem::replace(&mut self.pending, Pending::Nothing) == Pending::Border;
        if ended {
            self.border(0);
        }
        ended
    }

    fn border(&mut self, at: usize) -> usize {
        self.at_border = true;
        self.fresh = true;
        at
    }

    /// Keeps the beginning of a line that goes on behind `part`.
    fn keep(&mut self, part: &[u8]) {
        let room = self.head.get_mut(self.head_len..).unwrap_or_default();
        let len = part.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..len), part.get(..len)) {
            to.copy_from_slice(from);
            self.head_len += len;
        }
    }

    /// A line has ended, of which `line` is what this call saw. True if it was blank.
    fn end_line(&mut self, line: &[u8]) -> bool {
        if std::mem::take(&mut self.fresh) {
            self.name_len = 0;
        }
        let cut = self.head_len > 0;
        if cut {
            self.keep(line);
        }
        let head = self.head;
        let mut whole = if cut { head.get(..self.head_len).unwrap_or_default() } else { line };
        self.head_len = 0;
        if std::mem::take(&mut self.first) {
            whole = whole.strip_prefix(BYTE_ORDER_MARK).unwrap_or(whole);
        }
        if whole.first() == Some(&b'e') {
            self.read_name(whole);
        }
        whole.is_empty()
    }

    fn read_name(&mut self, line: &[u8]) {
        let value = match line.strip_prefix(b"event") {
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            Some([]) => &[],
            _ => return,
        };
        let len = value.len().min(EVENT_NAME_BYTES_MAX);
        if let (Some(to), Some(from)) = (self.name.get_mut(..len), value.get(..len)) {
            to.copy_from_slice(from);
            self.name_len = len;
        }
    }
}

/// The payloads of the `data:` lines of a whole event, in order. A parser joins them with LF; the APIs served here
/// send one.
pub fn data_lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    event.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| match line.strip_prefix(b"data:") {
        Some([b' ', value @ ..]) => Some(value),
        other => other,
    })
}
