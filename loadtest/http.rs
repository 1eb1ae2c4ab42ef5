//! The little HTTP/1.1 that a load generator needs, written for itself: the reader of answers shares no line with
//! forebay's, so that a fault of forebay's cannot hide in it. Strict: whatever is not exactly right is a fault.

use memchr::memmem;

/// A head may be this long.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What was wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The head is not one, or is too long.
    #[error("a head that is not HTTP/1.1")]
    Head,
    /// Neither a length nor chunks.
    #[error("a body without a length and without chunks")]
    Framing,
    /// A chunk is not one.
    #[error("a broken chunk")]
    Chunk,
    /// Bytes behind the end.
    #[error("bytes behind the end of the answer")]
    Surplus,
}

/// The value of a field in `head`, which begins with its start line.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (found, value) = line.split_at(colon);
        let value = std::str::from_utf8(value.get(1..)?).ok()?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim())
    })
}

/// The number in a field.
pub fn number(head: &[u8], name: &str) -> Option<u64> {
    field(head, name)?.parse().ok()
}

/// Collects a head from the reads that it comes in.
#[derive(Default)]
pub struct HeadReader {
    held: Vec<u8>,
}

impl HeadReader {
    /// Takes `bytes` in. When the head is complete: calls `then` with it, and gives back what lies behind it.
    ///
    /// # Errors
    /// When it is too long.
    pub fn feed<'a>(&mut self, bytes: &'a [u8], then: impl FnOnce(&[u8])) -> Result<Option<&'a [u8]>, Fault> {
        if self.held.is_empty()
            && let Some(end) = memmem::find(bytes, b"\r\n\r\n")
        {
            let (head, rest) = bytes.split_at(end + 4);
            then(head);
            return Ok(Some(rest));
        }
        let before = self.held.len();
        self.held.extend_from_slice(bytes.get(..bytes.len().min(HEAD_BYTES_MAX + 1)).unwrap_or_default());
        let Some(end) = memmem::find(&self.held, b"\r\n\r\n").filter(|end| *end <= HEAD_BYTES_MAX) else {
            return if self.held.len() > HEAD_BYTES_MAX { Err(Fault::Head) } else { Ok(None) };
        };
        self.held.truncate(end + 4);
        then(&self.held);
        self.held.clear();
        Ok(Some(bytes.get(end + 4 - before..).unwrap_or_default()))
    }
}

/// Where an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    Length(u64),
    /// In a chunk-size line: the size so far, and its digits.
    Size(u64, u8),
    SizeEnd(u64),
    Chunk(u64),
    ChunkEnd(u8),
    LastEnd(u8),
    Done,
}

/// Reads one answer after the other from a connection.
pub struct AnswerReader {
    head: HeadReader,
    at: At,
    /// The status of the answer whose head has come.
    pub status: u16,
}

impl Default for AnswerReader {
    fn default() -> AnswerReader {
        AnswerReader { head: HeadReader::default(), at: At::Head, status: 0 }
    }
}

impl AnswerReader {
    /// Takes `bytes` in and hands the body's to `body`; true when they end with the answer's end.
    ///
    /// # Errors
    /// The first thing that is wrong; the connection is of no further use.
    pub fn feed(&mut self, mut bytes: &[u8], mut body: impl FnMut(&[u8])) -> Result<bool, Fault> {
        if self.at == At::Head {
            let (mut status, mut at) = (0, Err(Fault::Head));
            let rest = self.head.feed(bytes, |head| (status, at) = begin(head))?;
            let Some(rest) = rest else { return Ok(false) };
            self.status = status;
            self.at = at?;
            bytes = rest;
        }
        while !bytes.is_empty() {
            bytes = self.step(bytes, &mut body)?;
        }
        if matches!(self.at, At::Done | At::Length(0)) {
            self.at = At::Head;
            return Ok(true);
        }
        Ok(false)
    }

    fn step<'a>(&mut self, bytes: &'a [u8], body: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Fault> {
        let (first, rest) = bytes.split_first().ok_or(Fault::Chunk)?;
        let expect = |wanted: u8, then: At| if *first == wanted { Ok(then) } else { Err(Fault::Chunk) };
        let (at, rest) = match self.at {
            At::Head | At::Done | At::Length(0) => return Err(Fault::Surplus),
            At::Length(left) | At::Chunk(left) => {
                let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                body(now);
                let left = left - now.len() as u64;
                let at = match self.at {
                    At::Chunk(_) if left == 0 => At::ChunkEnd(b'\r'),
                    At::Chunk(_) => At::Chunk(left),
                    _ => At::Length(left),
                };
                (at, later)
            }
            At::Size(size, digits) => match (char::from(*first).to_digit(16), digits) {
                (Some(digit), 0..8) => (At::Size(size * 16 + u64::from(digit), digits + 1), rest),
                (None, 1..) => (expect(b'\r', At::SizeEnd(size))?, rest),
                _ => return Err(Fault::Chunk),
            },
            At::SizeEnd(0) => (expect(b'\n', At::LastEnd(b'\r'))?, rest),
            At::SizeEnd(size) => (expect(b'\n', At::Chunk(size))?, rest),
            At::ChunkEnd(b'\r') => (expect(b'\r', At::ChunkEnd(b'\n'))?, rest),
            At::ChunkEnd(_) => (expect(b'\n', At::Size(0, 0))?, rest),
            At::LastEnd(b'\r') => (expect(b'\r', At::LastEnd(b'\n'))?, rest),
            At::LastEnd(_) => (expect(b'\n', At::Done)?, rest),
        };
        self.at = at;
        Ok(rest)
    }
}

/// The status that a head tells, and where its body begins.
fn begin(head: &[u8]) -> (u16, Result<At, Fault>) {
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok())
        .unwrap_or_default();
    let at = match (status, number(head, "content-length"), field(head, "transfer-encoding")) {
        (200..600, Some(length), None) => Ok(At::Length(length)),
        (200..600, None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(At::Size(0, 0)),
        (200..600, _, _) => Err(Fault::Framing),
        _ => Err(Fault::Head),
    };
    (status, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, piece: usize) -> Result<(u16, String, bool), Fault> {
        let (mut reader, mut body, mut done) = (AnswerReader::default(), Vec::new(), false);
        for bytes in text.as_bytes().chunks(piece) {
            done = reader.feed(bytes, |payload| body.extend_from_slice(payload))?;
        }
        Ok((reader.status, String::from_utf8(body).unwrap(), done))
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let whole = "HTTP/1.1 429 Too Many\r\nx: y\r\nContent-Length: 3\r\n\r\nabc";
        for piece in 1..chunked.len() {
            assert_eq!(read(chunked, piece), Ok((200, "abc0123456789".into(), true)), "{piece}");
            assert_eq!(read(whole, piece), Ok((429, "abc".into(), true)), "{piece}");
        }
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 7), Ok((200, String::new(), true)));
    }

    #[test]
    fn two_answers_follow_each_other_on_one_connection() {
        let mut reader = AnswerReader::default();
        for text in ["HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na", "HTTP/1.1 201 OK\r\ncontent-length: 1\r\n\r\nb"] {
            assert_eq!(reader.feed(text.as_bytes(), |_| {}), Ok(true));
        }
        assert_eq!(reader.status, 201);
    }

    #[test]
    fn what_is_wrong_is_a_fault() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (text, fault) in [
            ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), Fault::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Fault::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab".to_owned(), Fault::Surplus),
            ("ICY 200 OK\r\n\r\n".to_owned(), Fault::Head),
            (format!("{head}3\r\nabcd\r\n"), Fault::Chunk),
            (format!("{head}3\nabc\r\n"), Fault::Chunk),
            (format!("{head}\r\n"), Fault::Chunk),
            (format!("{head}0\r\n\r\nx"), Fault::Surplus),
            (format!("{head}000000001\r\nx"), Fault::Chunk),
        ] {
            assert_eq!(read(&text, text.len()), Err(fault), "{text}");
        }
        assert_eq!(read(&"x".repeat(HEAD_BYTES_MAX + 2), 1000), Err(Fault::Head));
    }

    #[test]
    fn an_answer_that_ends_too_early_is_not_done() {
        let (_, _, done) = read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 9).unwrap();
        assert!(!done);
    }
}
