//! One answer as a sequence of steps, made as they are asked for: wait, send these bytes, end this way. A script owns
//! all that it needs; it never looks at the engine again. `Engine::step` drives it, and books what it produced.

use super::{
    behave::{Behaviour, Fault, Framing},
    events::{Events, fill},
    head::{Head, Reach, framing, write_head},
    limits::SetId,
    log::Ending,
    stream::{Flow, Flowed},
};
use crate::base::{Mono, Span};
use std::{collections::VecDeque, io::Write};

/// Filler that is made at a time.
const FILL_BYTES: u64 = 16 * 1024;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Do nothing for so long.
    Wait(Span),
    /// Send the bytes that were put into the buffer, in one write.
    Send,
    /// The answer is complete; the connection can be used again.
    Finish,
    /// Close the connection (FIN): a broken answer, or the end of one that is delimited so.
    Close,
    /// Reset the connection (RST).
    Reset,
}

/// What stands in the queue of a script.
#[derive(Debug)]
pub(super) enum Todo {
    Wait(Span),
    /// Bytes as they are: heads, last chunks.
    Raw(Vec<u8>),
    /// A part of the body.
    Body(Vec<u8>),
    /// Filler text from one position to another.
    Fill(u64, u64),
    /// The events of a stream.
    Flow(Box<Flow>),
    /// The end, and how it is booked.
    End(Step, Ending),
}

/// Where a script is booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) epoch: u64,
    pub(super) row: u64,
    pub(super) set: Option<SetId>,
}

/// One answer.
#[derive(Debug)]
pub struct Script {
    todo: VecDeque<Todo>,
    framing: Framing,
    drip_bytes: u64,
    drip_every: Span,
    /// Bytes that drip, and how many have.
    held: Vec<u8>,
    dripped: usize,
    drip_pause: bool,
    /// Output tokens that have left with the bytes so far, and how many of them were booked.
    pub(super) produced: u64,
    pub(super) booked: u64,
    pub(super) ending: Ending,
    pub(super) ticket: Option<Ticket>,
}

/// The parts of a body that is known from the start.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) before: Vec<u8>,
    /// Where filler begins in its text, and how long it is.
    pub(super) filler: (u64, u64),
    pub(super) after: Vec<u8>,
}

impl From<Vec<u8>> for Whole {
    fn from(before: Vec<u8>) -> Whole {
        Whole { before, ..Whole::default() }
    }
}

impl Script {
    fn with(framing: Framing, behaviour: &Behaviour) -> Script {
        Script {
            todo: VecDeque::new(),
            framing,
            drip_bytes: behaviour.drip_bytes,
            drip_every: behaviour.drip_every,
            held: Vec::new(),
            dripped: 0,
            drip_pause: false,
            produced: 0,
            booked: 0,
            ending: Ending::Open,
            ticket: None,
        }
    }

    /// The connection ends before any byte.
    pub(super) fn nothing(behaviour: &Behaviour, step: Step) -> Script {
        let mut script = Script::with(Framing::Close, behaviour);
        script.todo = [Todo::Wait(behaviour.first_byte), Todo::End(step, Ending::Broken)].into();
        script
    }

    /// An answer with a body that is known from the start; `output` tokens are in it.
    pub(super) fn whole(reach: &Reach, behaviour: &Behaviour, head: &Head, mut body: Whole, output: u64) -> Script {
        let broken =
            output > 0 && matches!(behaviour.fault, Fault::Cut | Fault::CutBlock | Fault::CleanCut | Fault::Stall);
        let half = if broken { body.before.split_off(body.before.len() / 2) } else { Vec::new() };
        let all = (body.before.len() + half.len() + body.after.len()) as u64 + body.filler.1;
        let length = if behaviour.fault == Fault::CleanCut && broken { body.before.len() as u64 } else { all };
        let how = framing(reach, behaviour, Some(length));
        let mut script = Script::with(how, behaviour);
        script.produced = output;
        let mut first = Vec::new();
        write_head(&mut first, reach, behaviour, head, how, Some(length));
        script.todo.push_back(Todo::Wait(behaviour.first_byte));
        script.todo.push_back(Todo::Raw(first));
        if !reach.no_body {
            script.todo.push_back(Todo::Body(body.before));
            let rest =
                [Todo::Body(half), Todo::Fill(body.filler.0, body.filler.0 + body.filler.1), Todo::Body(body.after)];
            match behaviour.fault {
                Fault::Cut | Fault::CutBlock if broken => {
                    script.todo.push_back(Todo::End(broken_off(behaviour.fin), Ending::Broken));
                }
                Fault::CleanCut if broken => {}
                Fault::Stall if broken => {
                    script.todo.push_back(Todo::Wait(behaviour.stall));
                    script.todo.extend(rest);
                }
                _ => script.todo.extend(rest),
            }
        }
        script.end(reach, behaviour, broken && behaviour.fault == Fault::CleanCut);
        script
    }

    /// A stream of events.
    pub(super) fn stream(reach: &Reach, behaviour: &Behaviour, head: &Head, events: Events) -> Script {
        let flow = Flow::new(events, behaviour, &reach.request_id);
        let length = (behaviour.framing == Some(Framing::Length)).then(|| flow.length());
        let how = framing(reach, behaviour, length);
        let mut script = Script::with(how, behaviour);
        let mut first = Vec::new();
        write_head(&mut first, reach, behaviour, head, how, length);
        script.todo.extend([Todo::Wait(behaviour.first_byte), Todo::Raw(first), Todo::Wait(behaviour.first_event)]);
        script.todo.push_back(Todo::Flow(Box::new(flow)));
        script.end(reach, behaviour, false);
        script
    }

    /// What follows the body: the last chunk, a stray interim answer, and whether the connection stays.
    fn end(&mut self, reach: &Reach, behaviour: &Behaviour, broken: bool) {
        let mut last = Vec::new();
        if self.framing == Framing::Chunked && !reach.no_body {
            let trailers = if behaviour.trailers { "x-sim-trailer: 1\r\n" } else { "" };
            let _ = write!(last, "0\r\n{trailers}\r\n");
        }
        if behaviour.trailing {
            last.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\n\r\n");
        }
        self.todo.push_back(Todo::Raw(last));
        let stays = reach.keep_alive && self.framing != Framing::Close;
        let ending = if broken { Ending::Broken } else { Ending::Finished };
        self.todo.push_back(Todo::End(if stays { Step::Finish } else { Step::Close }, ending));
    }

    /// The next step; the bytes of a `Send` are in `out`. An ending is said again when asked again.
    pub(super) fn next(&mut self, now: Mono, out: &mut Vec<u8>) -> Step {
        out.clear();
        if let Some(step) = self.drip(out) {
            return step;
        }
        let step = self.advance(now, out);
        if step != Step::Send || self.drip_bytes == 0 {
            return step;
        }
        std::mem::swap(&mut self.held, out);
        out.clear();
        self.dripped = 0;
        self.drip(out).unwrap_or(Step::Wait(Span::ZERO))
    }

    /// A few of the bytes that are held, or the pause before them.
    fn drip(&mut self, out: &mut Vec<u8>) -> Option<Step> {
        let rest = self.held.get(self.dripped..).filter(|rest| !rest.is_empty())?;
        if std::mem::take(&mut self.drip_pause) {
            return Some(Step::Wait(self.drip_every));
        }
        let drop = rest.get(..self.drip_bytes as usize).unwrap_or(rest);
        out.extend_from_slice(drop);
        self.dripped += drop.len();
        self.drip_pause = true;
        Some(Step::Send)
    }

    /// The next step, before dripping. Parts that follow each other without a pause leave together.
    fn advance(&mut self, now: Mono, out: &mut Vec<u8>) -> Step {
        let framing = self.framing;
        loop {
            let together = matches!(
                self.todo.front(),
                Some(Todo::Raw(_) | Todo::Body(_) | Todo::Fill(..) | Todo::Wait(Span::ZERO))
            );
            if !out.is_empty() && (!together || out.len() as u64 >= FILL_BYTES) {
                return Step::Send;
            }
            match self.todo.front_mut() {
                None => return Step::Close,
                Some(Todo::End(step, ending)) => {
                    self.ending = *ending;
                    return *step;
                }
                Some(Todo::Fill(at, to)) => {
                    let len = (*to - *at).min(FILL_BYTES);
                    framed(framing, len, out, |out| fill(out, *at, len));
                    *at += len;
                    if *at < *to {
                        continue;
                    }
                }
                Some(Todo::Wait(span)) => {
                    let span = std::mem::take(span);
                    if span > Span::ZERO {
                        return Step::Wait(span);
                    }
                }
                Some(Todo::Raw(bytes)) => out.append(bytes),
                Some(Todo::Body(bytes)) => framed(framing, bytes.len() as u64, out, |out| out.extend_from_slice(bytes)),
                Some(Todo::Flow(flow)) => {
                    let flowed = flow.next(now, framing, out);
                    self.produced = flow.produced();
                    match flowed {
                        Flowed::Send => return Step::Send,
                        Flowed::Wait(span) => return Step::Wait(span),
                        Flowed::Done => {}
                        Flowed::EndEarly => self.spoil(),
                        Flowed::Break(step) => {
                            self.todo.clear();
                            self.todo.extend([Todo::Wait(Span::ZERO), Todo::End(step, Ending::Broken)]);
                        }
                    }
                }
            }
            self.todo.pop_front();
        }
    }

    /// The end will be well-formed HTTP, but the answer is not whole.
    fn spoil(&mut self) {
        if let Some(Todo::End(_, ending)) = self.todo.back_mut() {
            *ending = Ending::Broken;
        }
    }
}

/// A part of the body in its framing; an empty one leaves nothing (an empty chunk would end the body).
pub(super) fn framed(framing: Framing, len: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    if len == 0 {
        return;
    }
    if framing == Framing::Chunked {
        let _ = write!(out, "{len:x}\r\n");
    }
    write(out);
    if framing == Framing::Chunked {
        out.extend_from_slice(b"\r\n");
    }
}

/// How a broken answer's connection ends.
pub(super) fn broken_off(fin: bool) -> Step {
    if fin { Step::Close } else { Step::Reset }
}
