//! The answer on its way to the client: the buffer that the kernel filled is the buffer that is sent.
//!
//! The payload's bytes pass untouched; the framing is ours. A stream is cut into chunks at the borders of its events,
//! so that what the client has got always ends at a border, where an error event can follow. An answer that breaks
//! off never ends cleanly (R40): an error event, or a body without its end.

use super::{
    answer::{STAMP_BYTES_MAX, failure_text, stamp, status_line},
    attempt::Answered,
    client::Client,
    drain::Stage,
    edits::{answer_fields, push_number},
    exchange::{After, Stop, Story},
    shard::Shard,
    watch::{Ticker, Watched, first_tick, watched},
};
use crate::{
    base::{Failure, Kind, Mono, Origin, Span, bounds::EVENT_BYTES_MAX},
    dialect::anthropic::{self, Progress},
    net::{Inbound, Outbound},
    rt::{Outbox, Read, Runtime, Segment},
    table::Patience,
    telemetry::Ending,
    wire::{self, BodyDecoder, EventScanner, Framing, Version},
};
use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    task::Poll,
};

/// How long a client may take in what it was sent, before the connection's end shows it that no more comes. A body that
/// fails takes with it what its reader has not fetched yet: Claude Code lost a finished block so, on a busy machine.
const TAKE_IN_MAX: Span = Span::from_ms(250);

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

/// Why a relay stopped before the answer's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    ClientGone,
    ClientStalled,
    Answer(Kind),
}

/// Passes the answer on to its end, and says what becomes of the client's connection.
///
/// # Errors
/// When the answer broke before anything of it was sent: then the client can be told in so many words.
pub async fn relay<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    answered: Answered<R::Outbox>,
    story: &mut Story,
) -> Result<After, Stop> {
    let frame = frame(client, &answered);
    let close = frame == Frame::Close || !story.may_go_on(shard, client);
    story.record.status = answered.head.status;
    let content_type = answered.head.field(answered.bytes.live(), "content-type").unwrap_or_default();
    story.record.stream = content_type.get(..17).is_some_and(|t| t.eq_ignore_ascii_case(b"text/event-stream"));
    if answered.head.status >= 400 {
        story.record.origin = Some(Origin::Upstream);
        story.record.reason = "upstream_answer";
    }
    let now = shard.rt.now();
    story.record.overhead_us += now.since(answered.arrived).as_us();
    story.record.first_byte_us = now.since(story.started).as_us();
    let head = render_head(&answered, story, frame, close);
    let _stream = story.record.stream.then(|| shard.core.counters.streams.hold());
    let Answered { mut conn, slot, opened, head: upstream_head, rest, request_sent, .. } = answered;
    let mut flow = Flow {
        patience: story.table.patience,
        from: &mut conn.inbound,
        gone: &mut client.inbound,
        to: &mut client.outbound,
        decoder: BodyDecoder::new(upstream_head.framing),
        frame,
        events: (story.record.stream && frame == Frame::Chunks).then(Events::default),
        head: Some(head),
        surplus: false,
        sent_bytes: 0,
    };
    let outcome = flow.run(shard, rest).await;
    let broken_stream = match (outcome, &flow.events) {
        (Err(Broken::Answer(kind)), Some(events)) if flow.head.is_none() => {
            flow.tell_break(shard, events.told(), kind, story).await
        }
        _ => false,
    };
    story.record.bytes_out = flow.sent_bytes;
    story.record.events = flow.events.as_ref().map_or(0, |events| events.count);
    let untold = flow.head.is_some();
    let reusable = !flow.surplus && request_sent && upstream_head.keep_alive;
    drop(flow);
    match outcome {
        Ok(()) => {
            if reusable {
                let now = shard.rt.now();
                shard.pool.borrow_mut().put(slot, conn, opened, now, story.table.bounds.pool_idle_max);
            }
            story.record.ending = Ending::Complete;
            Ok(if close { After::Close } else { After::Next })
        }
        Err(Broken::Answer(kind)) if untold => Err(Stop::Failed(broke(kind, story))),
        Err(Broken::Answer(kind)) if !broken_stream => {
            let now = shard.rt.now();
            let _ = watched(&shard.rt, &mut client.inbound, now.after(TAKE_IN_MAX), pending::<()>()).await;
            Ok(ended(Broken::Answer(kind), false, frame, close, story))
        }
        Err(broken) => Ok(ended(broken, broken_stream, frame, close, story)),
    }
}

/// What the log says of a relay that broke, and how the client is let go.
fn ended(broken: Broken, told: bool, frame: Frame, close: bool, story: &mut Story) -> After {
    match broken {
        Broken::ClientGone => story.client_left(),
        Broken::ClientStalled => story.refuse(&Failure::new(Kind::ClientStalled, "")),
        Broken::Answer(kind) => story.refuse(&Failure::new(kind, "")),
    }
    match (broken, frame) {
        // The body's framing has ended; to close now would cost the client its next request.
        (Broken::Answer(_), _) if told && !close => After::Next,
        (Broken::Answer(_), _) if told => After::Close,
        (Broken::Answer(_), Frame::Close) | (Broken::ClientStalled, _) => After::Abort,
        _ => After::Drop,
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
        Frame::Length(length) => push_number(&mut out, b"content-length: ", length),
        Frame::Chunks => out.extend(b"transfer-encoding: chunked\r\n"),
        Frame::None | Frame::Close => {}
    }
    if close {
        out.extend(b"connection: close\r\n");
    }
    out.extend(b"\r\n");
    out
}

/// The events of a stream, as far as they have come.
#[derive(Default)]
struct Events {
    scanner: EventScanner,
    progress: Progress,
    /// The beginning of an event whose end has not come.
    partial: Option<Segment>,
    /// A part of an event has been sent: the output does not stand at a border.
    split: bool,
    count: u64,
}

impl Events {
    /// Whether the client can be told of a break inside the stream, and whether it has to be.
    fn told(&self) -> Telling {
        match (self.split, self.progress) {
            (_, Progress { ended: true, .. }) => Telling::Complete,
            // After a finished block Claude Code keeps what it has, and an error event would make it start over (R44).
            (false, Progress { block_finished: false, .. }) => Telling::Event,
            _ => Telling::Silence,
        }
    }

    /// Takes payload in; gives out what can be sent: whole events, or what is too long to wait for.
    fn take(&mut self, segment: Segment) -> Option<Segment> {
        let held = self.partial.as_ref().map_or(0, Segment::len);
        let mut all = match self.partial.take() {
            None => segment,
            Some(partial) => append(partial, &segment),
        };
        let (mut at, mut border) = (held, 0);
        while let Some(end) = self.scanner.next(all.live(), at) {
            self.progress.saw(self.scanner.name());
            self.count += 1;
            (at, border) = (end, end);
        }
        if border == 0 && all.len() <= EVENT_BYTES_MAX {
            self.partial = Some(all);
            return None;
        }
        if border == 0 {
            self.split = true;
            return Some(all);
        }
        self.split = false;
        if border < all.len() {
            self.partial = Some(Segment::copy_of(all.live().get(border..).unwrap_or_default()));
            all.truncate(border);
        }
        Some(all)
    }
}

/// `more` behind `held`, in a buffer that has room for a whole event.
fn append(mut held: Segment, more: &Segment) -> Segment {
    if held.room() < more.len() {
        let mut larger = Segment::with_room((held.len() + more.len()).max(EVENT_BYTES_MAX));
        larger.extend(held.live());
        held = larger;
    }
    held.extend(more.live());
    held
}

/// How a broken stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// By an error event.
    Event,
    /// By a body without its end.
    Silence,
    /// Cleanly: the last event that the client waits for has come.
    Complete,
}

/// The flow of one answer's body.
struct Flow<'a, O: Outbox> {
    patience: Patience,
    from: &'a mut Inbound,
    gone: &'a mut Inbound,
    to: &'a mut Outbound<O>,
    decoder: BodyDecoder,
    frame: Frame,
    events: Option<Events>,
    /// The head, until it leaves: together with the first bytes of the body if they are there.
    head: Option<Segment>,
    /// The upstream sent more than its answer.
    surplus: bool,
    sent_bytes: u64,
}

impl<O: Outbox> Flow<'_, O> {
    async fn run<R: Runtime<Outbox = O>>(&mut self, shard: &Shard<R>, rest: Option<Segment>) -> Result<(), Broken> {
        let make = |at| shard.rt.sleep_until(at);
        let timer = pin!(make(first_tick(shard.rt.now())));
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
                    self.write(shard, &mut ticker, out).await?;
                }
                Read::End => {
                    self.decoder.eof().map_err(|_| Broken::Answer(Kind::AnswerBroken))?;
                    let out = self.last(None);
                    self.write(shard, &mut ticker, out).await?;
                    self.surplus = true;
                    return Ok(());
                }
                Read::Failed(_) => return Err(Broken::Answer(Kind::AnswerBroken)),
            }
        }
        // Answers of length 0 come here with their head unsent.
        self.write(shard, &mut ticker, None).await
    }

    /// The next read from the upstream. A head that waits for company leaves when there is none.
    async fn next<R: Runtime<Outbox = O>, F: Future<Output = ()>>(
        &mut self,
        shard: &Shard<R>,
        ticker: &mut Ticker<'_, F>,
    ) -> Result<Read, Broken> {
        if self.head.is_some() {
            if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(self.from.poll_next(cx))).await {
                return Ok(read);
            }
            self.write(shard, ticker, None).await?;
        }
        let until = shard.rt.now().after(self.patience.idle);
        let from = &mut *self.from;
        match ticker.watch(shard, self.gone, until, poll_fn(|cx| from.poll_next(cx))).await {
            Watched::Done(read) => Ok(read),
            Watched::ClientGone => Err(Broken::ClientGone),
            Watched::TimeUp if shard.drain.stage() == Stage::Ending => Err(Broken::Answer(Kind::Draining)),
            Watched::TimeUp => Err(Broken::Answer(Kind::AnswerIdle)),
        }
    }

    /// Takes the upstream's framing off and puts ours on, in place.
    fn process(&mut self, mut segment: Segment) -> Result<Option<Segment>, Broken> {
        let stripped = self.decoder.strip(segment.live_mut()).map_err(|_| Broken::Answer(Kind::AnswerBroken))?;
        self.surplus |= stripped.consumed < segment.len();
        segment.narrow(stripped.payload);
        self.sent_bytes += segment.len() as u64;
        let payload = match &mut self.events {
            _ if segment.is_empty() => None,
            None => Some(segment),
            Some(events) => events.take(segment),
        };
        if self.decoder.is_done() {
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
        let mut queue = [self.head.take(), payload];
        if let [Some(head), Some(payload)] = &mut queue
            && head.room() >= payload.len()
        {
            head.extend(payload.live());
            queue[1] = None;
        }
        for segment in queue.into_iter().flatten() {
            let until = shard.rt.now().after(self.patience.write_stall);
            match ticker.watch(shard, self.gone, until, self.to.write(segment)).await {
                Watched::Done((Ok(()), _)) => {}
                Watched::Done((Err(_), _)) | Watched::ClientGone => return Err(Broken::ClientGone),
                Watched::TimeUp => return Err(Broken::ClientStalled),
            }
        }
        Ok(())
    }

    /// Ends a stream that broke: by an error event where the client can use one. True when the end was written.
    async fn tell_break<R: Runtime<Outbox = O>>(
        &mut self,
        shard: &Shard<R>,
        telling: Telling,
        kind: Kind,
        story: &Story,
    ) -> bool {
        if telling == Telling::Silence {
            return false;
        }
        let make = |at: Mono| shard.rt.sleep_until(at);
        let timer = pin!(make(first_tick(shard.rt.now())));
        let mut ticker = Ticker::new(timer, &make);
        if let Some(events) = &mut self.events {
            events.partial = None;
        }
        let event = (telling == Telling::Event).then(|| Segment::copy_of(break_event(kind, story).as_bytes()));
        let out = self.last(event);
        self.write(shard, &mut ticker, out).await.is_ok()
    }
}

/// The error event that tells of a break.
fn break_event(kind: Kind, story: &Story) -> String {
    let text = failure_text(&broke(kind, story), story.table.org.contact.as_deref(), story.record.request_id);
    anthropic::error_event(kind.row().error_type, &text, &story.record.request_id.to_string())
}

/// The failure of an answer that broke off.
fn broke(kind: Kind, story: &Story) -> Failure {
    let upstream = story.record.upstream.as_deref().unwrap_or("the upstream");
    let what = match kind {
        Kind::Draining => return Failure::new(kind, "this forebay is going down. Try again."),
        Kind::AnswerIdle => "fell silent in the middle of its answer",
        _ => "broke its answer off",
    };
    Failure::new(kind, format!("the upstream {upstream} {what}. Try again."))
}
