//! How the events of an answer leave: paced, in batches, and broken where that was asked for. `events` makes them,
//! `script` puts the head before and the end behind.

use super::{
    behave::{Behaviour, Fault, Framing},
    events::{Events, Mark},
    script::{Step, broken_off, framed},
};
use crate::base::{Mono, Span};
use std::io::Write;

/// What came of asking for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flowed {
    /// There is something to send.
    Send,
    /// Nothing yet.
    Wait(Span),
    /// Every event has left.
    Done,
    /// No event follows, though some should; the body ends well-formed.
    EndEarly,
    /// The connection ends now.
    Break(Step),
}

/// The events of one stream on their way out.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    events: Events,
    fault: Fault,
    after: u64,
    cut_bytes: Option<u64>,
    fin: bool,
    stall: Span,
    stall_ping: Span,
    stalled_until: Option<Mono>,
    ping_at: Mono,
    batch: u64,
    gap: Span,
    /// When the next delta is due: a fixed schedule from the first one, so that delays do not add up.
    due: Option<Mono>,
    blocks_done: u64,
    error_type: String,
    message: String,
    request_id: String,
    /// What the next call gives, whatever else.
    then: Option<Flowed>,
    payload: Vec<u8>,
}

impl Flow {
    pub(super) fn new(events: Events, behaviour: &Behaviour, request_id: &str) -> Flow {
        let whole = behaviour.framing == Some(Framing::Length);
        Flow {
            events,
            fault: behaviour.fault,
            after: behaviour.after,
            cut_bytes: behaviour.cut_bytes,
            fin: behaviour.fin,
            stall: behaviour.stall,
            // A ping that nobody counted would not fit into a told length.
            stall_ping: if whole { Span::ZERO } else { behaviour.stall_ping },
            stalled_until: None,
            ping_at: Mono(0),
            batch: behaviour.batch.max(1),
            gap: behaviour.gap,
            due: None,
            blocks_done: 0,
            error_type: behaviour.error_type.clone().unwrap_or_else(|| "overloaded_error".to_owned()),
            message: behaviour.message.clone().unwrap_or_else(|| "Overloaded (simulated)".to_owned()),
            request_id: request_id.to_owned(),
            then: None,
            payload: Vec::new(),
        }
    }

    /// Output tokens in what has left so far.
    pub(super) fn produced(&self) -> u64 {
        self.events.produced()
    }

    /// The bytes of the whole body; a connection that will break is told the length of the healthy answer.
    pub(super) fn length(&self) -> u64 {
        let mut dry = self.clone();
        (dry.gap, dry.stall) = (Span::ZERO, Span::ZERO);
        if matches!(dry.fault, Fault::Cut | Fault::CutBlock) {
            dry.fault = Fault::None;
        }
        let (mut length, mut out) = (0, Vec::new());
        loop {
            out.clear();
            match dry.next(Mono(0), Framing::Length, &mut out) {
                Flowed::Send => length += out.len() as u64,
                Flowed::Wait(_) => {}
                Flowed::Done | Flowed::EndEarly | Flowed::Break(_) => return length,
            }
        }
    }

    /// Puts the next events into `out` (which is empty), framed as one part of the body.
    pub(super) fn next(&mut self, now: Mono, framing: Framing, out: &mut Vec<u8>) -> Flowed {
        if let Some(then) = self.then.take() {
            return then;
        }
        self.payload.clear();
        let (mut left, mut kept) = (self.batch, None);
        while left > 0 && kept.is_none() {
            left -= 1;
            let Some(mark) = self.events.peek() else {
                self.then = Some(Flowed::Done);
                break;
            };
            if let Some(wait) = self.hold(mark, now) {
                self.then = Some(Flowed::Wait(wait)).filter(|_| self.payload.is_empty());
                break;
            }
            if self.trips(mark) {
                kept = self.trip(now);
                continue;
            }
            self.send(mark, now);
        }
        if self.payload.is_empty() {
            return self.then.take().unwrap_or(Flowed::Wait(Span::ZERO));
        }
        let before = out.len();
        let payload = std::mem::take(&mut self.payload);
        framed(framing, payload.len() as u64, out, |out| out.extend_from_slice(&payload));
        if let Some(kept) = kept.filter(|kept| *kept < payload.len()) {
            let prefix = if framing == Framing::Chunked { chunk_line_len(payload.len()) } else { 0 };
            out.truncate(before + prefix + kept);
        }
        self.payload = payload;
        Flowed::Send
    }

    /// How long to wait before an event of this kind; a ping may be sent meanwhile.
    fn hold(&mut self, mark: Mark, now: Mono) -> Option<Span> {
        if let Some(until) = self.stalled_until {
            if now < until {
                return Some(self.stalled(until, now));
            }
            self.stalled_until = None;
            self.due = self.due.map(|due| due.max(now));
        }
        if mark != Mark::Delta || self.gap == Span::ZERO {
            return None;
        }
        let due = *self.due.get_or_insert(now);
        Some(due.since(now)).filter(|wait| *wait > Span::ZERO)
    }

    fn stalled(&mut self, until: Mono, now: Mono) -> Span {
        if self.stall_ping == Span::ZERO {
            return until.since(now);
        }
        if now >= self.ping_at {
            self.ping_at = now.after(self.stall_ping);
            self.events.write_ping(&mut self.payload);
        }
        until.min(self.ping_at).since(now)
    }

    fn send(&mut self, mark: Mark, now: Mono) {
        self.events.write(now, &mut self.payload);
        match mark {
            Mark::Delta => self.due = self.due.map(|due| due.after(self.gap)),
            Mark::BlockStop => self.blocks_done += 1,
            _ => {}
        }
    }

    /// Whether the fault strikes before the coming event. An answer that is too short is struck at its end.
    fn trips(&self, mark: Mark) -> bool {
        let at_end = mark == Mark::MessageDelta;
        match self.fault {
            Fault::ErrorFirst => mark == Mark::Start,
            Fault::ErrorAfter | Fault::Cut | Fault::CleanCut | Fault::Stall => {
                at_end || (mark == Mark::Delta && self.events.deltas() >= self.after)
            }
            Fault::CutBlock => at_end || self.blocks_done >= self.after,
            Fault::NoStop => mark == Mark::MessageStop,
            _ => false,
        }
    }

    /// Lets the fault strike; the bytes of the payload that still leave, when that is not all of them.
    fn trip(&mut self, now: Mono) -> Option<usize> {
        let whole = self.payload.len();
        match std::mem::take(&mut self.fault) {
            Fault::Stall => {
                self.stalled_until = Some(now.after(self.stall));
                self.ping_at = now.after(self.stall_ping);
                return None;
            }
            Fault::ErrorFirst | Fault::ErrorAfter => {
                self.events.write_error(&self.error_type, &self.message, &self.request_id, &mut self.payload);
                self.then = Some(Flowed::EndEarly);
                return Some(usize::MAX);
            }
            Fault::Cut => {
                self.events.write(now, &mut self.payload);
                let event = self.payload.len() - whole;
                self.then = Some(Flowed::Break(broken_off(self.fin)));
                let cut = self.cut_bytes.map_or(event / 2, |bytes| (bytes as usize).min(event));
                return Some(whole + cut);
            }
            Fault::CutBlock => self.then = Some(Flowed::Break(broken_off(self.fin))),
            _ => self.then = Some(Flowed::EndEarly),
        }
        Some(usize::MAX)
    }
}

/// Bytes of the chunk-size line that `framed` writes before `len` bytes.
fn chunk_line_len(len: usize) -> usize {
    let mut line = Vec::new();
    let _ = write!(line, "{len:x}\r\n");
    line.len()
}
