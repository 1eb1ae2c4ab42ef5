//! What a simulated upstream answers to one request: every byte of it, where it breaks off, and what then.

use super::{
    content,
    dice::Dice,
    message::{Fields, Message, Reader, Side},
};
use crate::base::Mono;

/// What comes behind the last byte that a script writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next request, on the same connection.
    Next,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing, until the other side gives up.
    Silence,
}

/// How much of the request is read before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// All of it.
    Whole,
    /// The head; the rest while answering.
    Head,
    /// The head, and never the rest.
    HeadOnly,
}

/// One answer.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
#[derive(Clone, Debug)]
pub struct Script {
    /// The status.
    pub status: u16,
    /// The fields of the final head, framing included.
    pub fields: Fields,
    /// Interim heads, head, framed body, surplus.
    pub wire: Vec<u8>,
    /// Where in `wire` the final head is complete.
    pub head_end: usize,
    /// Where in `wire` the answer is complete.
    pub body_end: usize,
    /// It answers a HEAD.
    pub is_head: bool,
    /// The payload.
    pub body: Vec<u8>,
    /// A stream of events.
    pub is_stream: bool,
    /// Ended by the end of the connection.
    pub until_close: bool,
    /// Not HTTP/1.1.
    pub is_malformed: bool,
    /// Interim answers before the real one.
    pub interim: usize,
    /// How much of the request is read first.
    pub reads: Reads,
    /// How many bytes of `wire` are written.
    pub written: usize,
    /// What then.
    pub then: Then,
    /// A pause in ms at an offset of `wire`.
    pub pause: Option<(usize, u64)>,
    /// On a connection that has served before, it is closed (or reset) without a byte instead.
    pub is_stale: bool,
}

impl Script {
    /// The first value of a field of its head.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// What a client gets at best, and whether that is all of the answer.
    pub fn at_best(&self) -> (Option<Message>, bool) {
        let mut reader = Reader::new(Side::Answers(vec![self.is_head, false]));
        reader.feed(self.wire.get(..self.written.min(self.body_end)).unwrap_or_default(), Mono(0));
        reader.end(self.then == Then::Close, Mono(0));
        let message = reader.messages.into_iter().next();
        let is_whole = message.as_ref().is_some_and(|message| message.is_complete);
        (message, is_whole)
    }

    /// Whether the answer is well-formed, whole and in time, so that a client that stays must get it.
    pub fn is_benign(&self, patience_ms: u64) -> bool {
        !self.is_malformed
            && self.interim <= 8
            && self.reads != Reads::HeadOnly
            && self.pause.is_none_or(|(_, ms)| ms + 3_000 < patience_ms)
            && self.written >= self.body_end
            && self.at_best().1
            && !(self.reads == Reads::Head && self.then != Then::Next)
            && self.then != Then::Reset
    }

    /// The script in a line.
    pub fn tell(&self) -> String {
        format!(
            "{} head {} body {} written {} {:?} {:?} pause {:?} interim {} stream {} close {} stale {} malformed {}",
            self.status,
            self.head_end,
            self.body_end,
            self.written,
            self.reads,
            self.then,
            self.pause,
            self.interim,
            self.is_stream,
            self.until_close,
            self.is_stale,
            self.is_malformed
        )
    }

    /// Makes it the answer to a HEAD: the same, without its body.
    pub fn for_head(&mut self) {
        self.is_head = true;
        self.wire.truncate(self.head_end);
        self.body.clear();
        self.body_end = self.head_end;
        self.pause = self.pause.filter(|(at, _)| *at < self.head_end);
        self.written = self.written.min(self.head_end);
        if self.written == self.body_end && self.then == Then::Silence {
            self.then = Then::Next; // nothing is missing
        }
    }

    /// Makes up the answer that request `id` gets when it comes for the `at`th time.
    pub fn make(dice: &mut Dice, id: u32, at: usize, patience_ms: u64) -> Script {
        let is_stream = dice.chance(2);
        let status = if is_stream {
            200
        } else {
            *dice.pick(&[200, 200, 200, 200, 400, 400, 401, 402, 403, 404, 413, 429, 429, 500, 503, 529, 204, 302, 408])
        };
        let (kind, body) = match status {
            204 => ("application/json", Vec::new()),
            _ if is_stream => (*dice.pick(&content::STREAMS), content::stream(dice, id)),
            _ if dice.chance(14) => ("text/html", b"<html>not an API</html>".to_vec()),
            200 => ("application/json", content::document(dice, id)),
            _ => ("application/json", content::refusal(dice, id, status)),
        };
        let mut script = Script::whole(status, fields(dice, (id, at), kind), body);
        script.is_stream = is_stream;
        script.is_stale = dice.chance(8);
        if dice.chance(6) {
            script.interim = dice.between(1, 3);
        }
        if dice.chance(60) {
            script.interim = dice.between(8, 10);
        }
        script.frame(dice);
        script.fault(dice, patience_ms);
        script
    }

    /// Makes up an answer as a working upstream gives it, whether or not it likes the request.
    pub fn calm(dice: &mut Dice, id: u32, at: usize) -> Script {
        let is_stream = dice.chance(3);
        let status = if is_stream { 200 } else { *dice.pick(&[200, 400, 400, 405, 409, 413, 415, 422]) };
        let (kind, body) = match status {
            _ if is_stream => (content::STREAMS[0], content::whole_stream(dice, id)),
            200 => ("application/json", content::answer(dice, id)),
            _ => ("application/json", content::envelope("invalid_request_error", id)),
        };
        let mut script = Script::whole(status, fields(dice, (id, at), kind), body);
        script.is_stream = is_stream;
        script.frame(dice);
        if script.is_malformed {
            return Script::calm(dice, id, at);
        }
        script
    }

    /// What an upstream that is out of order answers; nothing at all without a status.
    pub fn ill(id: u32, at: usize, status: Option<u16>, then: Then) -> Script {
        let kind = match status {
            Some(401) => "authentication_error",
            Some(429) => "rate_limit_error",
            Some(529) => "overloaded_error",
            _ => "api_error",
        };
        let name: Fields = vec![("x-sim-id".into(), id.to_string()), ("x-sim-try".into(), at.to_string())];
        let mut script = Script::whole(status.unwrap_or(500), name, content::envelope(kind, id));
        script.fields.push(("content-length".into(), script.body.len().to_string()));
        script.head();
        script.wire.extend_from_slice(&script.body);
        script.body_end = script.wire.len();
        (script.written, script.then) = (if status.is_some() { script.body_end } else { 0 }, then);
        script
    }

    /// An answer that nothing is wrong with, unframed.
    fn whole(status: u16, fields: Fields, body: Vec<u8>) -> Script {
        Script {
            status,
            fields,
            wire: Vec::new(),
            head_end: 0,
            body_end: 0,
            is_head: false,
            body,
            is_stream: false,
            until_close: false,
            is_malformed: false,
            interim: 0,
            reads: Reads::Whole,
            written: 0,
            then: Then::Next,
            pause: None,
            is_stale: false,
        }
    }

    fn head(&mut self) {
        self.wire.extend_from_slice(format!("HTTP/1.1 {} Said\r\n", self.status).as_bytes());
        for (name, value) in &self.fields {
            self.wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        self.wire.extend_from_slice(b"\r\n");
        self.head_end = self.wire.len();
    }

    fn frame(&mut self, dice: &mut Dice) {
        let closes = dice.chance(8);
        if closes {
            self.fields.push(("connection".into(), "close".into()));
            self.then = Then::Close;
        }
        let mut body = Vec::new();
        match dice.below(if self.is_stream { 6 } else { 4 }) {
            _ if self.status == 204 => {}
            0 | 1 => {
                self.fields.push(("content-length".into(), self.body.len().to_string()));
                body.clone_from(&self.body);
            }
            2 if dice.chance(2) => {
                self.until_close = true;
                self.then = Then::Close;
                body.clone_from(&self.body);
            }
            _ => {
                self.fields.push(("Transfer-Encoding".into(), "chunked".into()));
                chunked(dice, &self.body, &mut body);
            }
        }
        for _ in 0..self.interim {
            let early = ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"];
            self.wire.extend_from_slice(dice.pick(&early).as_bytes());
        }
        let head_at = self.wire.len();
        self.head();
        if dice.chance(40) {
            self.is_malformed = true;
            let at = head_at + dice.below(9);
            self.wire[at] = b'\x01';
        }
        self.wire.extend_from_slice(&body);
        self.body_end = self.wire.len();
        self.written = self.body_end;
    }

    fn fault(&mut self, dice: &mut Dice, patience_ms: u64) {
        match dice.below(14) {
            0 | 2 => {
                self.written = dice.below(self.body_end);
                self.then = *dice.pick(&[Then::Close, Then::Close, Then::Reset, Then::Silence]);
            }
            1 if self.is_stream => {
                // At the border of an event.
                let borders = content::borders(&self.body);
                self.written = self.wire_at(*dice.pick(&borders));
                self.then = *dice.pick(&[Then::Close, Then::Reset, Then::Silence]);
            }
            3 if self.head_end < self.body_end => {
                self.written = dice.between(self.head_end, self.body_end - 1);
                self.then = *dice.pick(&[Then::Close, Then::Reset, Then::Silence]);
            }
            4 => {
                let long = patience_ms + 10_000;
                let ms = *dice.pick(&[50, 500, patience_ms / 2, long]);
                self.pause = Some((dice.below(self.body_end), ms));
            }
            5 | 8 if !self.until_close => self.wire.extend_from_slice(b"\x02surplus\r\n\r\n"),
            6 if dice.chance(2) => self.reads = Reads::Head,
            6 => {
                // Whoever does not read the rest cannot go on with the connection.
                self.reads = Reads::HeadOnly;
                self.then = *dice.pick(&[Then::Close, Then::Reset]);
            }
            7 if !self.until_close => self.then = *dice.pick(&[Then::Close, Then::Reset]),
            _ => {}
        }
        if self.wire.len() > self.body_end {
            self.written = self.wire.len();
        }
        if self.written >= self.body_end && self.then == Then::Silence {
            self.then = Then::Next; // nothing is missing
        }
    }

    /// Where in `wire` so many bytes of the payload are complete.
    fn wire_at(&self, mut payload: usize) -> usize {
        let mut at = self.head_end;
        if !self.fields.iter().any(|(_, value)| value == "chunked") {
            return at + payload;
        }
        loop {
            let line: Vec<u8> = self.wire[at..].iter().copied().take_while(|byte| *byte != b'\n').collect();
            let size = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(size.split([';', '\r']).next().unwrap_or_default(), 16).unwrap_or(0);
            at += line.len() + 1;
            if size == 0 || payload <= size {
                return at + payload.min(size);
            }
            (at, payload) = (at + size + 2, payload - size);
        }
    }
}

fn fields(dice: &mut Dice, (id, at): (u32, usize), kind: &str) -> Fields {
    let mut fields: Fields = vec![
        ("Content-Type".into(), kind.into()),
        ("x-sim-id".into(), id.to_string()),
        ("x-sim-try".into(), at.to_string()),
    ];
    let more: [(&str, &str); 9] = [
        ("request-id", "req_sim"),
        ("X-Odd-CASE", "a  b"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("set-cookie", "session=upstream-cookie"),
        ("anthropic-ratelimit-requests-remaining", "7"),
        ("Connection", "x-hop"),
        ("x-hop", "hop"),
        ("retry-after", "7"),
    ];
    fields.extend(more.iter().filter(|_| dice.chance(2)).map(|(name, value)| ((*name).into(), (*value).into())));
    fields
}

/// Puts `body` into `out`, in chunks of all sizes.
pub fn chunked(dice: &mut Dice, mut body: &[u8], out: &mut Vec<u8>) {
    while !body.is_empty() {
        let size = dice.between(1, body.len()).min(*dice.pick(&[1, 20, 300, 5_000, 100_000]));
        let (now, later) = body.split_at(size.max(body.len() / 60));
        let extension = if dice.chance(10) { ";ext=1" } else { "" };
        out.extend_from_slice(format!("{:X}{extension}\r\n", now.len()).as_bytes());
        out.extend_from_slice(now);
        out.extend_from_slice(b"\r\n");
        body = later;
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_script_is_a_whole_answer_for_strict_eyes() {
        let mut dice = Dice::new(1);
        let (mut whole, mut broken) = (0, 0);
        for id in 0..400 {
            let script = Script::make(&mut dice, id, 0, 20_000);
            let (message, is_whole) = script.at_best();
            // Without framing, an answer that was cut short and then ended is a whole answer.
            if is_whole && script.written >= script.body_end {
                let message = message.unwrap();
                assert!(message.body == script.body, "{}", script.tell());
                assert_eq!((message.status(), message.fields), (script.status, script.fields));
                whole += 1;
            } else {
                broken += 1;
            }
        }
        assert!(whole > 150 && broken > 60, "{whole} whole, {broken} broken");
    }
}
