//! A reader of HTTP/1.1 messages that shares nothing with `wire`: the judge's own eyes. Strict, and slow.

use crate::base::Mono;

/// A message's fields, in order.
pub type Fields = Vec<(String, String)>;

/// One message, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The request line or status line.
    pub first: String,
    /// The fields, in order, names as written.
    pub fields: Fields,
    /// The payload, without its framing.
    pub body: Vec<u8>,
    /// Payload offsets at which chunks ended.
    pub chunks: Vec<usize>,
    /// The body's end has come.
    pub is_complete: bool,
    /// Only the end of the connection ends the body.
    pub until_close: bool,
    /// When the head was complete.
    pub head_at: Mono,
    /// When the end came.
    pub done_at: Mono,
}

impl Message {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The status of an answer; zero if it has none.
    pub fn status(&self) -> u16 {
        self.first.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd(u8),
    LastChunk(u8),
    UntilClose,
    Failed,
}

/// Which messages are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// Requests.
    Requests,
    /// Answers to requests; for each in turn, whether it was a HEAD.
    Answers(Vec<bool>),
}

/// Reads messages one after the other.
#[derive(Clone, Debug)]
pub struct Reader {
    side: Side,
    state: State,
    /// The head or the chunk-size line that is being read.
    line: Vec<u8>,
    /// Messages whose head is complete; only the last may be incomplete. Interim answers are left out.
    pub messages: Vec<Message>,
    /// What is wrong with the bytes, once something is.
    pub fault: Option<String>,
    /// Interim answers seen.
    pub interim: usize,
}

impl Reader {
    /// A reader at the beginning of a connection.
    pub fn new(side: Side) -> Reader {
        Reader { side, state: State::Head, line: Vec::new(), messages: Vec::new(), fault: None, interim: 0 }
    }

    /// Takes bytes in.
    pub fn feed(&mut self, mut bytes: &[u8], now: Mono) {
        while !bytes.is_empty() && self.state != State::Failed {
            let taken = match self.state {
                State::Length(left) | State::ChunkData(left) => {
                    let taken = left.min(bytes.len());
                    self.payload(bytes.get(..taken).unwrap_or_default());
                    let left = left - taken;
                    self.state = match self.state {
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::ChunkEnd(0),
                        _ => State::ChunkData(left),
                    };
                    if self.state == State::Length(0) {
                        self.done(now);
                    }
                    taken
                }
                State::UntilClose => {
                    self.payload(bytes);
                    bytes.len()
                }
                _ => {
                    if let Some(byte) = bytes.first() {
                        self.step(*byte, now);
                    }
                    1
                }
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// The connection has ended, cleanly or by a reset.
    pub fn end(&mut self, clean: bool, now: Mono) {
        if clean && self.state == State::UntilClose {
            self.done(now);
        }
    }

    /// Whether a message has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.state != State::Head || !self.line.is_empty()
    }

    /// Messages that are complete.
    pub fn complete(&self) -> usize {
        self.messages.iter().filter(|message| message.is_complete).count()
    }

    fn payload(&mut self, bytes: &[u8]) {
        if let Some(message) = self.messages.last_mut() {
            message.body.extend_from_slice(bytes);
        }
    }

    fn fail(&mut self, what: &str) {
        self.state = State::Failed;
        self.fault.get_or_insert_with(|| what.to_owned());
    }

    fn done(&mut self, now: Mono) {
        if let Some(message) = self.messages.last_mut() {
            message.is_complete = true;
            message.done_at = now;
        }
        self.state = State::Head;
        self.line.clear();
    }

    fn step(&mut self, byte: u8, now: Mono) {
        self.line.push(byte);
        match self.state {
            State::Head if self.line.ends_with(b"\r\n\r\n") => {
                let head = std::mem::take(&mut self.line);
                self.head(&head, now);
            }
            State::Head if self.line.len() > 80 * 1024 => self.fail("a head without end"),
            State::ChunkSize if self.line.ends_with(b"\r\n") => {
                let line = std::mem::take(&mut self.line);
                let text = String::from_utf8_lossy(line.get(..line.len() - 2).unwrap_or_default()).into_owned();
                match usize::from_str_radix(text.split(';').next().unwrap_or_default(), 16) {
                    Ok(0) => self.state = State::LastChunk(0),
                    Ok(size) => self.state = State::ChunkData(size),
                    Err(_) => self.fail(&format!("no chunk size: {text:?}")),
                }
            }
            State::ChunkEnd(at) if b"\r\n".get(usize::from(at)) == Some(&byte) => {
                self.state = State::ChunkEnd(at + 1);
                if at == 1 {
                    self.line.clear();
                    if let Some(message) = self.messages.last_mut() {
                        message.chunks.push(message.body.len());
                    }
                    self.state = State::ChunkSize;
                }
            }
            // No trailers: nothing here sends any to a client.
            State::LastChunk(at) if b"\r\n".get(usize::from(at)) == Some(&byte) => {
                self.state = State::LastChunk(at + 1);
                if at == 1 {
                    self.done(now);
                }
            }
            State::ChunkEnd(_) | State::LastChunk(_) => self.fail("a chunk does not end where its size says"),
            _ => {}
        }
    }

    fn head(&mut self, head: &[u8], now: Mono) {
        let Ok(text) = str::from_utf8(head) else { return self.fail("a head that is not text") };
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let mut message =
            Message { first: lines.next().unwrap_or_default().to_owned(), head_at: now, ..Message::default() };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { return self.fail(&format!("no field: {line:?}")) };
            message.fields.push((name.to_owned(), value.trim().to_owned()));
        }
        let is_head = match &self.side {
            Side::Requests => false,
            Side::Answers(heads) => {
                if !message.first.starts_with("HTTP/1.1 ") || message.status() < 100 {
                    return self.fail(&format!("no status line: {:?}", message.first));
                }
                if message.status() < 200 {
                    self.interim += 1;
                    self.line.clear();
                    return;
                }
                match heads.get(self.messages.len()) {
                    Some(is_head) => *is_head,
                    None => return self.fail("an answer to no request"),
                }
            }
        };
        let lengths: Vec<&String> = named(&message.fields, "content-length");
        let codings: Vec<&String> = named(&message.fields, "transfer-encoding");
        let state = match (lengths.as_slice(), codings.as_slice()) {
            _ if is_head || matches!(message.status(), 204 | 304) && self.side != Side::Requests => State::Length(0),
            ([length], []) => match length.parse() {
                Ok(length) => State::Length(length),
                Err(_) => return self.fail("a length that is none"),
            },
            ([], [coding]) if *coding == "chunked" => State::ChunkSize,
            ([], []) if self.side == Side::Requests => State::Length(0),
            ([], []) => State::UntilClose,
            _ => return self.fail("framed in two ways"),
        };
        message.until_close = state == State::UntilClose;
        self.messages.push(message);
        self.state = state;
        self.line.clear();
        if state == State::Length(0) {
            self.done(now);
        }
    }
}

fn named<'a>(fields: &'a Fields, name: &str) -> Vec<&'a String> {
    fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(side: Side, bytes: &[u8], piece: usize, clean: bool) -> Reader {
        let mut reader = Reader::new(side);
        bytes.chunks(piece).for_each(|piece| reader.feed(piece, Mono(1)));
        reader.end(clean, Mono(2));
        reader
    }

    #[test]
    fn framings_are_told_apart_at_every_cut() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc\
            HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
            2\r\nab\r\n1\r\nc\r\n0\r\n\r\nHTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc";
        for piece in 1..bytes.len() {
            let reader = read(Side::Answers(vec![false, true, false, false, false]), bytes, piece, true);
            let bodies: Vec<&[u8]> = reader.messages.iter().map(|m| m.body.as_slice()).collect();
            assert_eq!(bodies, [b"abc".as_slice(), b"", b"abc", b"", b"abc"]);
            assert_eq!((reader.complete(), reader.interim, reader.fault), (5, 1, None));
            assert_eq!(reader.messages[2].chunks, [2, 3]);
        }
    }

    #[test]
    fn what_broke_off_is_incomplete_and_what_is_wrong_is_named() {
        for bytes in ["content-length: 4\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "\r\nabc"] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{bytes}");
            let reader = read(Side::Answers(vec![false]), bytes.as_bytes(), 1, false);
            assert_eq!((reader.complete(), reader.fault.as_deref()), (0, None), "{bytes}");
        }
        for bytes in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcX",
            "junk\r\n\r\n",
            "HTTP/1.1 204 \r\n\r\nHTTP/1.1 204 \r\n\r\n",
        ] {
            assert!(read(Side::Answers(vec![false]), bytes.as_bytes(), 1, true).fault.is_some(), "{bytes}");
        }
    }
}
