//! One attempt at an upstream: a connection (warm or new), the request on it, and the head of the answer.
//!
//! A request goes out twice in one case only: the connection was a reused one and gave not a single byte back, so the
//! upstream had closed it while it was idle. The client is watched all the time; when it leaves, the upstream is left.

use super::{
    body::Body,
    client::Client,
    edits::{self, Forward},
    exchange::{Stop, Story},
    gate::Door,
    shard::Shard,
    watch::{Watched, watched},
};
use crate::{
    base::{Failure, Kind, Mono, Span, UpstreamSlot, bounds::INTERIM_ANSWERS_MAX},
    net::{Conn, DialError, dial},
    rt::{Outbox, Read, Runtime, Segment},
    table::{Table, Upstream},
    telemetry::Text,
    wire::{RequestHead, ResponseHead},
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

/// What is to be sent, and where.
pub struct Order<'a> {
    slot: UpstreamSlot,
    upstream: &'a Upstream,
    head: Vec<u8>,
    asks_for_head_only: bool,
}

/// An upstream's answer, as far as its head.
pub struct Answered<O: Outbox> {
    /// The connection, for the answer's body.
    pub conn: Conn<O>,
    /// Where the connection goes back to when the answer is complete.
    pub slot: UpstreamSlot,
    /// When it was opened.
    pub opened: Mono,
    /// The head, as parts of `bytes`.
    pub head: ResponseHead,
    /// The head's bytes.
    pub bytes: Segment,
    /// What came with the head.
    pub rest: Option<Segment>,
    /// When the head was complete.
    pub arrived: Mono,
    /// The upstream has read the whole request: without that the connection is of no further use.
    pub request_sent: bool,
}

impl<'a> Order<'a> {
    /// The request of `head`, for an upstream of `table`.
    ///
    /// # Errors
    /// `Internal` when the table has no such upstream or the upstream no credential; `check` refuses both.
    pub fn new(
        table: &'a Table,
        slot: UpstreamSlot,
        door: Door,
        head: &RequestHead,
        bytes: &[u8],
        body: &Body,
    ) -> Result<Order<'a>, Failure> {
        let incomplete = || Failure::new(Kind::Internal, "the upstream of this plan is incomplete. Report this.");
        let upstream = table.upstream(slot).ok_or_else(incomplete)?;
        let credential = upstream.credentials.first().ok_or_else(incomplete)?;
        let has_body = body.bytes > 0 || head.field(bytes, "content-length").is_some() || door.peeks();
        let forward = Forward {
            target: head.path_and_query(bytes),
            base_path: &upstream.base_path,
            host: &upstream.host_header,
            credential: credential.header.as_bytes(),
            body_bytes: has_body.then_some(body.bytes),
            decoded: body.decoded,
            identity: door.peeks(),
        };
        Ok(Order {
            slot,
            upstream,
            head: edits::request_head(head, bytes, &forward).live().to_vec(),
            asks_for_head_only: head.method.of(bytes) == b"HEAD",
        })
    }
}

/// A failed try, and whether the upstream may have acted on it.
enum Failed {
    /// Not one byte came back.
    Silent(Failure),
    /// The exchange is over.
    Over(Stop),
}

/// Sends the order and waits for the head of the answer.
///
/// # Errors
/// `Stop`, with the failure that the client is told.
pub async fn attempt<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    body: &mut Body,
    story: &mut Story,
) -> Result<Answered<R::Outbox>, Stop> {
    story.record.upstream = Some(Arc::clone(&order.upstream.name));
    story.record.upstream_slot = Some(order.slot);
    story.record.credential = order.upstream.credentials.first().map(|credential| Arc::clone(&credential.name));
    let counters = shard.core.counters.upstream(order.slot);
    let pooled = shard.pool.borrow_mut().take(order.slot, shard.rt.now());
    if let Some((conn, opened)) = pooled {
        counters.reuses.add(1);
        match on_connection(shard, client, order, body, story, conn, opened).await {
            Ok(answered) => return Ok(answered),
            Err(Failed::Over(stop)) => return Err(stop),
            Err(Failed::Silent(_)) => counters.replays.add(1),
        }
    }
    let (conn, opened) = connect(shard, client, order, story).await?;
    match on_connection(shard, client, order, body, story, conn, opened).await {
        Ok(answered) => Ok(answered),
        Err(Failed::Over(stop)) => Err(stop),
        Err(Failed::Silent(failure)) => Err(Stop::Failed(failure)),
    }
}

async fn connect<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    story: &mut Story,
) -> Result<(Conn<R::Outbox>, Mono), Stop> {
    let counters = shard.core.counters.upstream(order.slot);
    let (live, started) = (shard.live(), shard.rt.now());
    let endpoint = shard.endpoint(&story.table, order.slot);
    let addresses = live.addresses_of(order.slot);
    let dialling = dial(&shard.rt, &endpoint, addresses);
    let until = started.after(story.table.patience.first_byte);
    let result = match watched(&shard.rt, &mut client.inbound, until, dialling).await {
        Watched::Done(result) => result,
        Watched::ClientGone => return Err(Stop::ClientGone),
        Watched::TimeUp => Err(DialError { kind: Kind::ConnectTimeout, detail: "no address answered in time".into() }),
    };
    let now = shard.rt.now();
    story.record.connect_us = now.since(started).as_us();
    match result {
        Ok(conn) => {
            counters.connects.add(1);
            Ok((conn, now))
        }
        Err(error) => {
            counters.connect_failures.add(1);
            let detail = live.address_error(order.slot).unwrap_or(&error.detail);
            Err(Stop::Failed(failed(order, error.kind, &format!("cannot be reached ({detail})"))))
        }
    }
}

async fn on_connection<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    body: &mut Body,
    story: &mut Story,
    mut conn: Conn<R::Outbox>,
    opened: Mono,
) -> Result<Answered<R::Outbox>, Failed> {
    story.record.attempts = story.record.attempts.saturating_add(1);
    let until = shard.rt.now().after(story.table.patience.first_byte);
    story.record.overhead_us = overhead(story, shard.rt.now());
    let sent = send(shard, client, order, body, &mut conn, story.table.patience.send).await?;
    let request_sent = matches!(sent, Sent::Whole);
    let early = match sent {
        Sent::AnsweredEarly(segment) => Some(segment),
        Sent::Whole | Sent::Refused => None,
    };
    let mut answered = read_head(shard, client, order, conn, early, until).await?;
    answered.opened = opened;
    answered.request_sent = request_sent;
    let id = answered.head.field(answered.bytes.live(), "request-id").unwrap_or_default();
    story.record.upstream_request_id = Text::new(id);
    Ok(answered)
}

/// What forebay has cost until now: the time since the body was read, without the time it took to connect.
fn overhead(story: &Story, now: Mono) -> u64 {
    now.since(story.started).as_us().saturating_sub(story.record.body_us).saturating_sub(story.record.connect_us)
}

/// How the sending ended.
enum Sent {
    /// Every byte went out.
    Whole,
    /// The upstream answered before it had read everything; these are the answer's first bytes.
    AnsweredEarly(Segment),
    /// The upstream takes no more; perhaps it says why.
    Refused,
}

/// Sends head and body, a segment at a time; each comes back for a replay.
async fn send<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    body: &mut Body,
    conn: &mut Conn<R::Outbox>,
    patience: Span,
) -> Result<Sent, Failed> {
    let mut head = Segment::copy_of(&order.head);
    let mut next = 0;
    // A small body leaves with its head, in one packet.
    if let Some(first) = body.segments.first()
        && head.room() >= first.len()
    {
        head.extend(first.live());
        next = 1;
    }
    match send_segment(shard, client, order, conn, head, patience).await? {
        (Sent::Whole, _) => {}
        (other, _) => return Ok(other),
    }
    while let Some(place) = body.segments.get_mut(next) {
        let segment = std::mem::replace(place, Segment::with_room(0));
        let (sent, segment) = send_segment(shard, client, order, conn, segment, patience).await?;
        if let (Some(segment), Some(place)) = (segment, body.segments.get_mut(next)) {
            *place = segment;
        }
        if !matches!(sent, Sent::Whole) {
            return Ok(sent);
        }
        next += 1;
    }
    Ok(Sent::Whole)
}

async fn send_segment<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    conn: &mut Conn<R::Outbox>,
    segment: Segment,
    patience: Span,
) -> Result<(Sent, Option<Segment>), Failed> {
    let until = shard.rt.now().after(patience);
    let Conn { inbound, outbound, .. } = conn;
    let mut write = pin!(outbound.write(segment));
    let mut ended = false;
    let race = poll_fn(|cx| {
        if let Poll::Ready((result, segment)) = write.as_mut().poll(cx) {
            let sent = if result.is_ok() { Sent::Whole } else { Sent::Refused };
            return Poll::Ready((sent, Some(segment)));
        }
        // An upstream that has closed will fail the write too, and so hand the segment back.
        if !ended {
            match inbound.poll_next(cx) {
                Poll::Ready(Read::Data(answer)) => return Poll::Ready((Sent::AnsweredEarly(answer), None)),
                Poll::Ready(Read::End | Read::Failed(_)) => ended = true,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    });
    match watched(&shard.rt, &mut client.inbound, until, race).await {
        Watched::Done(sent) => Ok(sent),
        Watched::ClientGone => Err(Failed::Over(Stop::ClientGone)),
        Watched::TimeUp => {
            Err(Failed::Over(Stop::Failed(failed(order, Kind::SendTimeout, "did not take the request in time"))))
        }
    }
}

/// Reads the head of the answer, past interim ones (RFC 9110 section 15.2).
async fn read_head<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    mut conn: Conn<R::Outbox>,
    early: Option<Segment>,
    until: Mono,
) -> Result<Answered<R::Outbox>, Failed> {
    let over = |kind, what: &str| Failed::Over(Stop::Failed(failed(order, kind, what)));
    let (mut head, mut bytes, mut interim) = (ResponseHead::new(), early, 0);
    loop {
        if let Some(held) = &mut bytes {
            match head.parse(held.live(), order.asks_for_head_only) {
                Ok(Some(length)) if head.status < 200 => {
                    interim += 1;
                    if interim > INTERIM_ANSWERS_MAX {
                        return Err(over(Kind::AnswerMalformed, "sent interim answers without end"));
                    }
                    held.consume(length);
                    head.reset();
                    if !held.is_empty() {
                        continue;
                    }
                }
                Ok(Some(length)) => return Ok(answered(shard, order, conn, head, held, length)),
                Ok(None) => {}
                Err(error) => {
                    return Err(over(Kind::AnswerMalformed, &format!("gave an answer that is not HTTP/1.1: {error}")));
                }
            }
        }
        match watched(&shard.rt, &mut client.inbound, until, conn.inbound.next()).await {
            Watched::Done(Read::Data(more)) => bytes = Some(super::client::joined(bytes, more)),
            Watched::Done(Read::End | Read::Failed(_)) => {
                let failure = failed(order, Kind::UpstreamClosed, "closed the connection without an answer");
                return Err(if bytes.is_none() {
                    Failed::Silent(failure)
                } else {
                    Failed::Over(Stop::Failed(failure))
                });
            }
            Watched::ClientGone => return Err(Failed::Over(Stop::ClientGone)),
            Watched::TimeUp => return Err(over(Kind::HeadTimeout, "did not answer in time")),
        }
    }
}

fn answered<R: Runtime>(
    shard: &Shard<R>,
    order: &Order<'_>,
    conn: Conn<R::Outbox>,
    head: ResponseHead,
    held: &mut Segment,
    length: usize,
) -> Answered<R::Outbox> {
    let bytes = Segment::copy_of(held.live().get(..length).unwrap_or_default());
    held.consume(length);
    let rest = (!held.is_empty()).then(|| std::mem::replace(held, Segment::with_room(0)));
    let now = shard.rt.now();
    Answered { conn, slot: order.slot, opened: now, head, bytes, rest, arrived: now, request_sent: false }
}

fn failed(order: &Order<'_>, kind: Kind, what: &str) -> Failure {
    let name = &order.upstream.name;
    Failure::new(kind, format!("the upstream {name} {what}. Try again; if it lasts, tell the operator."))
}
