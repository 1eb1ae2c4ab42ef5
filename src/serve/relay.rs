//! The answer on its way to the client: the buffer that the kernel filled is the buffer that is sent.
//!
//! The payload's bytes pass untouched; the framing is ours. A stream is cut into chunks at the borders of its events,
//! so that what the client has got always ends at a border, where an error event can follow. An answer that breaks
//! off never ends cleanly (R40): an error event, or a body without its end. Before its first content has come, nothing
//! is sent as long as another candidate could answer instead (`hold`).

use super::{
    answer::{STAMP_BYTES_MAX, failure_text, stamp, status_line},
    attempt::Answered,
    body::Body,
    client::Client,
    drain::Stage,
    edits::{answer_fields, push_number},
    events::{Events, Pace, append},
    exchange::Story,
    hold::Hold,
    shard::Shard,
    watch::{Ticker, Watched},
};
use crate::{
    base::{
        Failure, Kind, Mono, Origin, Span,
        bounds::{READ_BYTES_MIN, STREAM_READ_BYTES_MAX},
    },
    dialect::{
        anthropic::{self, Fault},
        late::Telling,
    },
    meter::Tap,
    net::{Inbound, Outbound},
    rt::{Outbox, Read, Runtime, Segment},
    table::Patience,
    telemetry::{Ending, Late},
    wire::{self, BodyDecoder, Framing, Version},
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// How the body is framed for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// No body.
    None,
    /// With the length that the upstream gave.
    Length(u64),
    /// In chunks.
    Chunks,
    /// Until the connection closes: what an HTTP/1.0 client understands.
    Close,
}

/// Why a flow stopped before the answer's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    ClientGone,
    ClientStalled,
    Answer(Kind),
    /// It told of an error before any content, while another candidate could still answer.
    Early(Fault),
}

/// How a relay came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has the whole answer.
    Complete,
    /// The answer broke before anything of it was sent: the client can be told in so many words.
    Untold(Kind),
    /// The answer was an error in a success's clothes, and nothing of it was sent.
    Early(Fault),
    /// The answer broke, and what the client has got ends well all the same: with an error event, or because nothing
    /// that it waits for was missing.
    Told(Kind),
    /// The answer broke, and the client must see it by a body without an end.
    Cut(Kind),
    /// The client left.
    ClientGone,
    /// The client stopped reading.
    ClientStalled,
}

/// On which terms an answer is passed on.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Somebody else could answer instead, as long as nothing has been sent.
    pub may_leave: bool,
    /// It tells what it used.
    pub metered: bool,
}

/// What there is to know after a relay.
pub struct Relayed {
    /// How it came out.
    pub outcome: Outcome,
    /// The client was told that the connection ends after this answer.
    pub closes: bool,
    /// The close is the only end that the client can see.
    pub ends_by_close: bool,
    /// The connection to the upstream can serve another exchange.
    pub reusable: bool,
}

/// Passes the answer on to its end. With `Terms::may_leave`, what comes before the first content is held back, and an answer
/// that fails until then has left no trace with the client. The `body` of the request goes when the answer is committed.
pub async fn relay<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    answered: &mut Answered<R::Outbox>,
    body: &mut Body,
    Terms { may_leave, metered }: Terms,
    story: &mut Story,
) -> Relayed {
    let frame = frame(client, answered);
    let closes = frame == Frame::Close || !story.may_go_on(shard, client);
    // A stream with a length says itself where it ends; of one that ends by a close, only its events can tell.
    let reads_events = story.note_answer(answered, shard.rt.now()) && matches!(frame, Frame::Chunks | Frame::Close);
    let head = render_head(answered, story, frame, closes);
    let _stream = story.record.stream.then(|| shard.core.counters.streams.hold());
    answered.bytes = Segment::none();
    let rest = answered.rest.take();
    let mut flow = Flow {
        patience: story.table.patience,
        from: &mut answered.conn.inbound,
        gone: &mut client.inbound,
        to: &mut client.outbound,
        request: &mut client.head_bytes,
        body,
        hold: may_leave.then(|| Hold::since(answered.arrived)),
        early: None,
        whole: false,
        committed: None,
        decoder: BodyDecoder::new(answered.head.framing),
        frame,
        events: reads_events.then(Events::default),
        tap: metered.then(Box::default),
        pace: Pace::new(story.table.bounds.event_rate_min),
        head: Some(head),
        surplus: false,
        payload_bytes: 0,
    };
    let outcome = match flow.run(shard, rest).await {
        Ok(()) => Outcome::Complete,
        Err(Broken::ClientGone) => Outcome::ClientGone,
        Err(Broken::ClientStalled) => Outcome::ClientStalled,
        Err(Broken::Early(fault)) => Outcome::Early(fault),
        Err(Broken::Answer(kind)) if flow.head.is_some() => Outcome::Untold(kind),
        Err(Broken::Answer(kind)) if Box::pin(flow.tell_break(shard, kind, story)).await => Outcome::Told(kind),
        Err(Broken::Answer(kind)) => Outcome::Cut(kind),
    };
    story.record.bytes_out = flow.payload_bytes;
    if let Some(mut tap) = flow.tap.take() {
        story.used(&tap.finish(ending(outcome), shard.ratios()));
    }
    story.record.events = flow.events.as_ref().map_or(0, |events| events.count);
    if let Some(at) = flow.committed {
        story.record.commit_us = at.since(story.started).as_us();
        story.record.first_byte_us = story.record.commit_us;
        shard.core.counters.held.observe(at.since(answered.arrived).as_us());
    }
    let clean = outcome == Outcome::Complete && !flow.surplus;
    let reusable = clean && answered.request_sent && answered.head.keep_alive;
    Relayed { outcome, closes, ends_by_close: frame == Frame::Close, reusable }
}

fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Complete => Ending::Complete,
        Outcome::ClientGone | Outcome::ClientStalled => Ending::ClientGone,
        Outcome::Untold(_) | Outcome::Early(_) | Outcome::Told(_) | Outcome::Cut(_) => Ending::Broken,
    }
}

fn frame<O: Outbox>(client: &Client<O>, answered: &Answered<O>) -> Frame {
    let head_only = client.head.method.of(client.head_bytes.live()) == b"HEAD";
    match answered.head.framing {
        _ if head_only || matches!(answered.head.status, 204 | 304) => Frame::None,
        Framing::Length(bytes) => Frame::Length(bytes),
        Framing::None => Frame::Length(0),
        Framing::Chunked | Framing::UntilClose if client.head.version == Version::Http10 => Frame::Close,
        Framing::Chunked | Framing::UntilClose => Frame::Chunks,
    }
}

fn render_head<O: Outbox>(answered: &Answered<O>, story: &Story, frame: Frame, close: bool) -> Segment {
    let bytes = answered.bytes.live();
    let mut out = Segment::with_room(bytes.len() + STAMP_BYTES_MAX + 512);
    status_line(&mut out, answered.head.status, answered.head.reason.of(bytes));
    answer_fields(&mut out, &answered.head, bytes);
    stamp(&mut out, story, Origin::Upstream.slug(), story.record.reason);
    match frame {
        Frame::None => {
            // What the body would have been long, where that is known (RFC 9110 section 9.3.2).
            if let Some(length) = answered.head.field(bytes, "content-length") {
                out.extend(b"content-length: ");
                out.extend(length);
                out.extend(b"\r\n");
            }
        }
        Frame::Length(length) => push_number(&mut out, b"content-length: ", length),
        Frame::Chunks => out.extend(b"transfer-encoding: chunked\r\n"),
        Frame::Close => {}
    }
    if close {
        out.extend(b"connection: close\r\n");
    }
    out.extend(b"\r\n");
    out
}

/// The flow of one answer's body.
struct Flow<'a, O: Outbox> {
    patience: Patience,
    from: &'a mut Inbound,
    gone: &'a mut Inbound,
    to: &'a mut Outbound<O>,
    /// The head of the request; of no use once that of the answer has left.
    request: &'a mut Segment,
    /// The body of the request; likewise.
    body: &'a mut Body,
    /// What is kept back, as long as another candidate could answer instead.
    hold: Option<Hold>,
    /// What went wrong before any content.
    early: Option<Fault>,
    /// All of the answer has come.
    whole: bool,
    /// When the answer's head left.
    committed: Option<Mono>,
    decoder: BodyDecoder,
    frame: Frame,
    events: Option<Events>,
    pace: Pace,
    /// Reads along for what the answer used; only where there is something to be used.
    tap: Option<Box<Tap>>,
    /// The head, until it leaves: together with the first bytes of the body if they are there.
    head: Option<Segment>,
    /// The upstream sent more than its answer.
    surplus: bool,
    payload_bytes: u64,
}

impl<O: Outbox> Flow<'_, O> {
    async fn run<R: Runtime<Outbox = O>>(&mut self, shard: &Shard<R>, rest: Option<Segment>) -> Result<(), Broken> {
        let make = |at| shard.rt.sleep_until(at);
        let timer = pin!(None);
        let mut ticker = Ticker::new(timer, &make);
        let mut arrived = rest.map(Read::Data);
        if self.frame == Frame::None {
            self.surplus |= arrived.is_some();
            return self.write(shard, &mut ticker, None).await;
        }
        while !self.decoder.is_done() {
            let read = match arrived.take() {
                Some(read) => read,
                None => self.next(shard, &mut ticker).await?,
            };
            match read {
                Read::Data(segment) => {
                    let out = self.process(segment)?;
                    self.whole = self.decoder.is_done();
                    self.pass(shard, &mut ticker, out).await?;
                }
                Read::End => {
                    self.decoder.eof().map_err(|_| Broken::Answer(Kind::AnswerBroken))?;
                    // Where the close is the end of the framing, only the events can tell an end from a break.
                    if self.events.as_mut().is_some_and(|events| !events.are_whole()) {
                        return Err(Broken::Answer(Kind::AnswerBroken));
                    }
                    let out = self.last(None);
                    (self.whole, self.surplus) = (true, true);
                    return self.pass(shard, &mut ticker, out).await;
                }
                Read::Failed(_) => return Err(Broken::Answer(Kind::AnswerBroken)),
            }
        }
        // Answers of length 0 come here with their head unsent, and with whatever came behind it.
        self.surplus |= arrived.is_some();
        self.whole = true;
        self.pass(shard, &mut ticker, None).await
    }

    /// Sends what has come, or keeps it back as long as the answer can still become another's.
    async fn pass<R: Runtime<Outbox = O>, F: Future<Output = ()>>(
        &mut self,
        shard: &Shard<R>,
        ticker: &mut Ticker<'_, F>,
        out: Option<Segment>,
    ) -> Result<(), Broken> {
        let Some(hold) = &mut self.hold else { return self.write(shard, ticker, out).await };
        if let Some(out) = out {
            hold.keep(out);
        }
        let has_content = self.events.as_ref().is_some_and(Events::are_committed);
        let is_due = has_content || self.whole || hold.is_full() || shard.rt.now() >= hold.until;
        // An event that has come is whole; of a document there may be more to tell whose fault it is.
        let is_told = is_due || self.events.is_some();
        if let Some(fault) = self.early.filter(|fault| is_told && *fault != Fault::Request) {
            return Err(Broken::Early(fault));
        }
        if !is_due {
            return Ok(());
        }
        self.commit(shard, ticker).await
    }

    /// From here on the answer is this one and no other.
    async fn commit<R: Runtime<Outbox = O>, F: Future<Output = ()>>(
        &mut self,
        shard: &Shard<R>,
        ticker: &mut Ticker<'_, F>,
    ) -> Result<(), Broken> {
        let kept = self.hold.take().and_then(Hold::release);
        self.write(shard, ticker, kept).await
    }

    /// The next read from the upstream. A head that waits for company leaves when there is none, and a silent stream is
    /// given signs of life.
    async fn next<R: Runtime<Outbox = O>, F: Future<Output = ()>>(
        &mut self,
        shard: &Shard<R>,
        ticker: &mut Ticker<'_, F>,
    ) -> Result<Read, Broken> {
        if self.head.is_some() && self.hold.is_none() {
            if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(self.from.poll_next(cx))).await {
                return Ok(read);
            }
            self.write(shard, ticker, None).await?;
        }
        let mut now = shard.rt.now();
        if self.pace.is_too_slow(self.events.as_ref(), now) {
            return Err(Broken::Answer(Kind::AnswerIdle));
        }
        let pings = self.patience.ping > Span::ZERO;
        let silent_until = now.after(self.patience.idle);
        loop {
            let until = match &self.hold {
                Some(hold) => hold.until,
                None if pings && self.events.as_ref().is_some_and(Events::can_ping) => now.after(self.patience.ping),
                None => silent_until,
            };
            let from = &mut *self.from;
            let work = poll_fn(|cx| from.poll_next(cx));
            match ticker.watch(shard, self.gone, until.min(silent_until), work).await {
                Watched::Done(read) => return Ok(read),
                Watched::ClientGone => return Err(Broken::ClientGone),
                Watched::TimeUp if shard.drain.stage() == Stage::Ending => return Err(Broken::Answer(Kind::Draining)),
                Watched::TimeUp => now = shard.rt.now(),
            }
            if now >= silent_until {
                return Err(Broken::Answer(Kind::AnswerIdle));
            }
            if self.hold.is_some() {
                self.pass(shard, ticker, None).await?;
            } else {
                self.write(shard, ticker, Some(self.framed(Segment::copy_of(anthropic::PING)))).await?;
                shard.core.counters.pings.add(1);
            }
        }
    }

    /// Takes the upstream's framing off and puts ours on, in place.
    fn process(&mut self, mut segment: Segment) -> Result<Option<Segment>, Broken> {
        let stripped = self.decoder.strip(segment.live_mut()).map_err(|_| Broken::Answer(Kind::AnswerBroken))?;
        self.surplus |= stripped.consumed < segment.len();
        if self.events.is_some() && segment.capacity() >= STREAM_READ_BYTES_MAX {
            // Before the reader task starts the next one.
            self.from.expect(STREAM_READ_BYTES_MAX);
        }
        segment.narrow(stripped.payload);
        self.payload_bytes += segment.len() as u64;
        let payload = match &mut self.events {
            _ if segment.is_empty() => None,
            None => {
                if let Some(hold) = &mut self.hold {
                    self.early = hold.look(segment.live());
                }
                if let Some(tap) = &mut self.tap {
                    tap.body(segment.live());
                }
                Some(segment)
            }
            Some(events) => {
                let payload = events.take(segment, self.tap.as_deref_mut());
                self.early = events.early_fault();
                payload
            }
        };
        if self.decoder.is_done() {
            // The next read stands until the next answer, perhaps for long.
            self.from.expect(READ_BYTES_MIN);
            return Ok(self.last(payload));
        }
        Ok(payload.map(|payload| self.framed(payload)))
    }

    fn framed(&self, mut payload: Segment) -> Segment {
        if self.frame == Frame::Chunks {
            let head = wire::chunk_head(payload.len());
            payload.prepend(head.as_bytes());
            payload.extend(wire::CHUNK_END);
        }
        payload
    }

    /// The last of the body: what is left of it, framed, and the end of the framing.
    fn last(&mut self, payload: Option<Segment>) -> Option<Segment> {
        let partial = self.events.as_mut().and_then(|events| events.partial.take());
        let payload = match (payload, partial) {
            (Some(payload), Some(partial)) => Some(append(payload, &partial)),
            (payload, partial) => payload.or(partial),
        };
        if self.frame != Frame::Chunks {
            return payload;
        }
        let mut out = match payload {
            Some(payload) => self.framed(payload),
            None => Segment::with_room(0),
        };
        out.extend(wire::LAST_CHUNK);
        Some(out)
    }

    /// Writes to the client, the waiting head first; together where they fit into one buffer.
    async fn write<R: Runtime<Outbox = O>, F: Future<Output = ()>>(
        &mut self,
        shard: &Shard<R>,
        ticker: &mut Ticker<'_, F>,
        payload: Option<Segment>,
    ) -> Result<(), Broken> {
        if self.head.is_some() {
            // An answer may take minutes; nothing of the request is needed for it.
            (*self.request, *self.body) = (Segment::none(), Body::default());
            self.committed = Some(shard.rt.now());
        }
        let mut queue = [self.head.take(), payload];
        if let [Some(head), Some(payload)] = &mut queue
            && head.room() >= payload.len()
        {
            head.extend(payload.live());
            queue[1] = None;
        }
        for segment in queue.into_iter().flatten() {
            let until = shard.rt.now().after(self.patience.write_stall);
            // Pinned here, or `watch` would hold room for it twice.
            let writing = pin!(self.to.write(segment));
            match ticker.watch(shard, self.gone, until, writing).await {
                Watched::Done((Ok(()), _)) => {}
                Watched::Done((Err(_), _)) | Watched::ClientGone => return Err(Broken::ClientGone),
                Watched::TimeUp => return Err(Broken::ClientStalled),
            }
        }
        Ok(())
    }

    /// Ends a stream that broke: by an error event where the client can use one. True when the end was written.
    async fn tell_break<R: Runtime<Outbox = O>>(&mut self, shard: &Shard<R>, kind: Kind, story: &Story) -> bool {
        let telling = self.events.as_ref().map_or(Telling::Silence, Events::told);
        if telling == Telling::Silence {
            return false;
        }
        let make = |at: Mono| shard.rt.sleep_until(at);
        let timer = pin!(None);
        let mut ticker = Ticker::new(timer, &make);
        if let Some(events) = &mut self.events {
            events.partial = None;
        }
        let (event, late) = match telling {
            Telling::Event => (Some(Segment::copy_of(break_event(kind, story).as_bytes())), Some(Late::Event)),
            // Why the answer ends has been told; the client waits for nothing but this.
            Telling::Stop => (Some(Segment::copy_of(anthropic::MESSAGE_STOP)), Some(Late::Completed)),
            Telling::Silence | Telling::Complete => (None, None),
        };
        let out = self.last(event);
        let is_told = self.write(shard, &mut ticker, out).await.is_ok();
        if let Some(late) = late.filter(|_| is_told) {
            shard.core.counters.late(late).add(1);
        }
        is_told
    }
}

/// The error event that tells of a break.
fn break_event(kind: Kind, story: &Story) -> String {
    let text = failure_text(&broke(kind, story), story.table.org.contact.as_deref(), story.record.request_id);
    anthropic::error_event(kind.row().error_type, &text, &story.record.request_id.to_string())
}

/// The failure of an answer that broke off.
pub fn broke(kind: Kind, story: &Story) -> Failure {
    let upstream = story.record.upstream.as_deref().unwrap_or("the upstream");
    let what = match kind {
        Kind::Draining => return Failure::new(kind, "this forebay is going down. Try again."),
        Kind::AnswerIdle => "fell silent in the middle of its answer",
        _ => "broke its answer off",
    };
    Failure::new(kind, format!("the upstream {upstream} {what}. Try again."))
}
