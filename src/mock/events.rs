//! An answer as the API tells it: the events of a stream, in the order that clients rely on, or one JSON message. Made
//! one event at a time, so that a long answer holds no memory. How and when they leave is `stream`'s business.

use super::{
    behave::Behaviour,
    content::quote,
    estimate::{Input, tokens_of_bytes},
};
use crate::base::Mono;
use std::{io::Write, rc::Rc};

/// What an answer says.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) blocks: Vec<Block>,
    pub(super) stop: &'static str,
    pub(super) input: Input,
    pub(super) output: u64,
    pub(super) thinking: u64,
}

/// One content block.
#[derive(Clone, Debug)]
pub(super) enum Block {
    /// Thinking; with `shown` off only its signature leaves.
    Thinking {
        text: &'static str,
        shown: bool,
    },
    Text(Text),
    /// A tool call; `input` is a JSON object as written.
    Tool {
        id: String,
        name: String,
        input: String,
    },
}

/// Text: its literal start, and filler up to `total` bytes.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) literal: String,
    pub(super) total: u64,
    /// Bytes in a delta.
    pub(super) piece: u64,
    /// Every delta begins with `#sequence@nanoseconds;` and filler follows, instead of the literal.
    pub(super) stamped: bool,
}

pub(super) const SIGNATURE: &str = "c2ltdWxhdGVkIHNpZ25hdHVyZQ==";
const FILLER: &[u8; 64] = b"water runs down from the basin and turns the wheel below it now ";
/// `#`, 8 digits, `@`, 20 digits, `;`.
const STAMP_BYTES: u64 = 31;

impl Text {
    /// Text of which `literal` is all, or the start when `behaviour` asks for a size.
    pub(super) fn new(literal: String, behaviour: &Behaviour) -> Text {
        let len = literal.len() as u64;
        let total = behaviour.text_bytes(len).unwrap_or(len);
        let piece = behaviour.piece_bytes().unwrap_or_else(|| len.div_ceil(3).clamp(1, 4_096));
        let mut text = Text { literal, total, piece, stamped: behaviour.stamp };
        text.clip(total);
        text
    }

    /// Keeps `total` bytes at most.
    pub(super) fn clip(&mut self, total: u64) {
        self.total = self.total.min(total);
        if self.literal.len() as u64 > self.total {
            let kept = quote(&self.literal, self.total as usize).len();
            self.literal.truncate(kept);
        }
    }

    /// Writes the piece that begins at `at` as the inside of a JSON string; where it ends.
    fn write_piece(&self, at: u64, sequence: u64, now: Mono, out: &mut Vec<u8>) -> u64 {
        let end = (at + self.piece).min(self.total);
        if self.stamped {
            let _ = write!(out, "#{sequence:08}@{:020};", now.0);
            fill(out, at, (end - at).saturating_sub(STAMP_BYTES));
            return end;
        }
        let literal = self.literal.len() as u64;
        if at >= literal {
            fill(out, at, end - at);
            return end;
        }
        let rest = self.literal.get(at as usize..).unwrap_or_default();
        let mut said = quote(rest, (end - at) as usize);
        if said.is_empty() {
            said = rest.split_at(rest.chars().next().map_or(0, char::len_utf8)).0;
        }
        write_inside(out, said);
        let reached = at + said.len() as u64;
        if reached == literal {
            fill(out, literal, end.saturating_sub(literal));
            return end.max(literal);
        }
        reached
    }
}

/// `len` bytes of filler, as they stand at `at` in the text.
pub(super) fn fill(out: &mut Vec<u8>, at: u64, len: u64) {
    let (mut at, mut left) = ((at % 64) as usize, len as usize);
    while left > 0 {
        let part = FILLER.get(at..).unwrap_or_default();
        let part = part.get(..left.min(part.len())).unwrap_or_default();
        out.extend_from_slice(part);
        left -= part.len();
        at = 0;
    }
}

/// `text` as a JSON string. Writing to a vector cannot fail.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

/// `text` as the inside of a JSON string.
fn write_inside(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    write_string(out, text);
    out.pop();
    out.remove(start);
}

/// What kind of event comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Start,
    Open,
    Ping,
    Delta,
    BlockStop,
    MessageDelta,
    MessageStop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Open(usize),
    Inside(usize),
    Stop(usize),
    MessageDelta,
    MessageStop,
    End,
}

/// The events of one answer, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Events {
    reply: Rc<Reply>,
    at: At,
    /// Bytes of text, or deltas, of the block that is open.
    inside: u64,
    deltas: u64,
    emitted: u64,
    first_ping: bool,
    ping_due: bool,
    ping_every: u64,
    comments: bool,
    end_of_line: &'static str,
}

impl Events {
    pub(super) fn new(reply: Rc<Reply>, behaviour: &Behaviour) -> Events {
        Events {
            reply,
            at: At::Start,
            inside: 0,
            deltas: 0,
            emitted: 0,
            first_ping: behaviour.ping,
            ping_due: false,
            ping_every: behaviour.ping_every,
            comments: behaviour.comments,
            end_of_line: if behaviour.crlf { "\r\n" } else { "\n" },
        }
    }

    /// The kind of the next event; `None` behind the last.
    pub(super) fn peek(&self) -> Option<Mark> {
        if self.ping_due {
            return Some(Mark::Ping);
        }
        match self.at {
            At::Start => Some(Mark::Start),
            At::Open(_) => Some(Mark::Open),
            At::Inside(_) => Some(Mark::Delta),
            At::Stop(_) => Some(Mark::BlockStop),
            At::MessageDelta => Some(Mark::MessageDelta),
            At::MessageStop => Some(Mark::MessageStop),
            At::End => None,
        }
    }

    /// Content deltas written so far.
    pub(super) fn deltas(&self) -> u64 {
        self.deltas
    }

    /// Tokens produced so far.
    pub(super) fn produced(&self) -> u64 {
        tokens_of_bytes(self.emitted).min(self.reply.output)
    }

    /// Appends the next event to `out`, stamped with `now` where that was asked for.
    pub(super) fn write(&mut self, now: Mono, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.ping_due) {
            self.event(out, "ping", |_, out| out.extend_from_slice(b"}"));
            return;
        }
        let reply = Rc::clone(&self.reply);
        match self.at {
            At::Start => {
                self.event(out, "message_start", |_, out| {
                    out.extend_from_slice(b",\"message\":");
                    write_message_head(&reply, out);
                    out.extend_from_slice(b",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
                    write_usage(&reply, reply.output.min(1), out);
                    out.extend_from_slice(b"}}");
                });
                self.at = self.block_or_end(0);
            }
            At::Open(index) => self.open(index, &reply, out),
            At::Inside(index) => self.delta(index, &reply, now, out),
            At::Stop(index) => {
                self.event(out, "content_block_stop", |_, out| {
                    let _ = write!(out, ",\"index\":{index}}}");
                });
                self.at = self.block_or_end(index + 1);
            }
            At::MessageDelta => {
                self.event(out, "message_delta", |_, out| write_message_delta(&reply, out));
                self.at = At::MessageStop;
            }
            At::MessageStop => {
                self.event(out, "message_stop", |_, out| out.extend_from_slice(b"}"));
                self.at = At::End;
            }
            At::End => {}
        }
    }

    /// An `error` event, which ends a stream.
    pub(super) fn write_error(&mut self, error_type: &str, message: &str, request_id: &str, out: &mut Vec<u8>) {
        self.event(out, "error", |_, out| {
            out.extend_from_slice(b",\"error\":{\"type\":");
            write_string(out, error_type);
            out.extend_from_slice(b",\"message\":");
            write_string(out, message);
            out.extend_from_slice(b"},\"request_id\":");
            write_string(out, request_id);
            out.extend_from_slice(b"}");
        });
    }

    /// A ping that is not in the order of events.
    pub(super) fn write_ping(&mut self, out: &mut Vec<u8>) {
        self.event(out, "ping", |_, out| out.extend_from_slice(b"}"));
    }

    fn event(&mut self, out: &mut Vec<u8>, name: &str, rest: impl FnOnce(&mut Events, &mut Vec<u8>)) {
        let end = self.end_of_line;
        if self.comments {
            let _ = write!(out, ": simulated{end}{end}");
        }
        let _ = write!(out, "event: {name}{end}data: {{\"type\":\"{name}\"");
        rest(self, out);
        let _ = write!(out, "{end}{end}");
    }

    fn block_or_end(&self, index: usize) -> At {
        if index < self.reply.blocks.len() { At::Open(index) } else { At::MessageDelta }
    }

    fn open(&mut self, index: usize, reply: &Reply, out: &mut Vec<u8>) {
        let Some(block) = reply.blocks.get(index) else { return };
        self.event(out, "content_block_start", |_, out| {
            let _ = write!(out, ",\"index\":{index},\"content_block\":");
            match block {
                Block::Thinking { .. } => {
                    out.extend_from_slice(br#"{"type":"thinking","thinking":"","signature":""}}"#);
                }
                Block::Text(_) => out.extend_from_slice(br#"{"type":"text","text":""}}"#),
                Block::Tool { id, name, .. } => {
                    let _ = write!(out, "{{\"type\":\"tool_use\",\"id\":\"{id}\",\"name\":");
                    write_string(out, name);
                    out.extend_from_slice(b",\"input\":{}}}");
                }
            }
        });
        self.inside = 0;
        let empty = matches!(block, Block::Text(text) if text.total == 0);
        self.at = if empty { At::Stop(index) } else { At::Inside(index) };
        self.ping_due = std::mem::take(&mut self.first_ping);
    }

    fn delta(&mut self, index: usize, reply: &Reply, now: Mono, out: &mut Vec<u8>) {
        let Some(block) = reply.blocks.get(index) else { return };
        let (from, sequence) = (self.inside, self.deltas);
        let mut done = (0, 0, false);
        self.event(out, "content_block_delta", |_, out| {
            let _ = write!(out, ",\"index\":{index},\"delta\":{{\"type\":");
            done = match block {
                Block::Text(text) => write_text_delta(text, from, sequence, now, out),
                Block::Thinking { text, shown } => write_thinking_delta(text, from, *shown, out),
                Block::Tool { input, .. } => write_input_delta(input, from, out),
            };
            out.extend_from_slice(b"}}");
        });
        let (inside, emitted, last) = done;
        self.inside = inside;
        self.emitted += emitted;
        self.deltas += 1;
        self.ping_due = self.ping_every > 0 && self.deltas.is_multiple_of(self.ping_every);
        if last {
            self.at = At::Stop(index);
        }
    }
}

/// Each `write_*_delta` gives where the block now stands, the bytes that it emitted, and whether it was the last.
fn write_text_delta(text: &Text, at: u64, sequence: u64, now: Mono, out: &mut Vec<u8>) -> (u64, u64, bool) {
    out.extend_from_slice(b"\"text_delta\",\"text\":\"");
    let end = text.write_piece(at, sequence, now, out);
    out.push(b'"');
    (end, end - at, end >= text.total)
}

fn write_thinking_delta(text: &str, from: u64, shown: bool, out: &mut Vec<u8>) -> (u64, u64, bool) {
    let thought = if from == 0 { text.len() as u64 } else { 0 };
    if from > 0 || !shown {
        let _ = write!(out, "\"signature_delta\",\"signature\":\"{SIGNATURE}\"");
        return (1, thought, true);
    }
    out.extend_from_slice(b"\"thinking_delta\",\"thinking\":");
    write_string(out, text);
    (1, thought, false)
}

/// An empty fragment first, as the API does, then the input in three.
fn write_input_delta(input: &str, at: u64, out: &mut Vec<u8>) -> (u64, u64, bool) {
    out.extend_from_slice(b"\"input_json_delta\",\"partial_json\":");
    let from = at.saturating_sub(1) as usize;
    let rest = input.get(from..).unwrap_or_default();
    let mut said = if at == 0 { "" } else { quote(rest, input.len().div_ceil(3)) };
    if at > 0 && said.is_empty() {
        said = rest;
    }
    write_string(out, said);
    (at.max(1) + said.len() as u64, said.len() as u64, at > 0 && said.len() == rest.len())
}

fn write_message_head(reply: &Reply, out: &mut Vec<u8>) {
    let _ = write!(out, "{{\"id\":\"{}\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", reply.id);
    write_string(out, &reply.model);
}

fn write_counts(reply: &Reply, out: &mut Vec<u8>) {
    let input = reply.input;
    let _ = write!(
        out,
        "{{\"input_tokens\":{},\"cache_creation_input_tokens\":{},\"cache_read_input_tokens\":{}",
        input.fresh, input.write, input.read
    );
}

fn write_usage(reply: &Reply, output: u64, out: &mut Vec<u8>) {
    write_counts(reply, out);
    let (hour, short) = (reply.input.write_hour, reply.input.write - reply.input.write_hour);
    let _ = write!(
        out,
        ",\"cache_creation\":{{\"ephemeral_5m_input_tokens\":{short},\"ephemeral_1h_input_tokens\":{hour}}},\
         \"output_tokens\":{output},\"service_tier\":\"standard\"}}"
    );
}

fn write_message_delta(reply: &Reply, out: &mut Vec<u8>) {
    let _ = write!(out, ",\"delta\":{{\"stop_reason\":\"{}\",\"stop_sequence\":null}},\"usage\":", reply.stop);
    write_counts(reply, out);
    let _ = write!(out, ",\"output_tokens\":{}", reply.output);
    if reply.thinking > 0 {
        let _ = write!(out, ",\"output_tokens_details\":{{\"thinking_tokens\":{}}}", reply.thinking);
    }
    out.extend_from_slice(b"}}");
}

/// The answer as one JSON message: what stands before the filler, where the filler stands in its text and how long it
/// is, and what stands behind it.
pub(super) fn message(reply: &Reply) -> (Vec<u8>, (u64, u64), Vec<u8>) {
    let (mut out, mut before, mut filler) = (Vec::new(), None, (0, 0));
    write_message_head(reply, &mut out);
    out.extend_from_slice(b",\"content\":[");
    for (index, block) in reply.blocks.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match block {
            Block::Thinking { text, shown } => {
                let text = if *shown { text } else { "" };
                let _ = write!(out, "{{\"type\":\"thinking\",\"thinking\":\"{text}\",\"signature\":\"{SIGNATURE}\"}}");
            }
            Block::Tool { id, name, input } => {
                let _ = write!(out, "{{\"type\":\"tool_use\",\"id\":\"{id}\",\"name\":");
                write_string(&mut out, name);
                let _ = write!(out, ",\"input\":{input}}}");
            }
            Block::Text(text) => {
                out.extend_from_slice(b"{\"type\":\"text\",\"text\":\"");
                write_inside(&mut out, &text.literal);
                let literal = text.literal.len() as u64;
                if text.total > literal && before.is_none() {
                    filler = (literal, text.total - literal);
                    before = Some(std::mem::take(&mut out));
                }
                out.extend_from_slice(b"\"}");
            }
        }
    }
    let _ = write!(out, "],\"stop_reason\":\"{}\",\"stop_sequence\":null,\"usage\":", reply.stop);
    write_usage(reply, reply.output, &mut out);
    out.push(b'}');
    match before {
        Some(before) => (before, filler, out),
        None => (out, filler, Vec::new()),
    }
}
