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
    watch::{Watched, watched, yield_now},
};
use crate::{
    base::{Failure, Kind, Mono, Span, UpstreamSlot, bounds::INTERIM_ANSWERS_MAX},
    net::{Conn, DialError, Inbound, dial},
    rt::{Outbox, Read, Runtime, Segment},
    table::{Table, Upstream, live::Live},
    telemetry::Text,
    wire::{RequestHead, ResponseHead},
};
use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

/// After a longer silence a request is not sent again.
const REPLAY_MAX: Span = Span::from_secs(2);

/// What is to be sent, where, and how long to wait for an answer.
pub struct Order<'a> {
    slot: UpstreamSlot,
    upstream: &'a Upstream,
    credential: usize,
    head: Segment,
    asks_for_head_only: bool,
    waits: Waits,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// For the head of an answer, whatever comes before it.
    pub until: Mono,
    /// From the last byte of the request to it; also for each part of the request to be taken.
    pub head: Option<Span>,
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

impl<O: Outbox> Answered<O> {
    /// Keeps the connection for another exchange; at most `max` wait.
    pub fn shelve<R: Runtime<Outbox = O>>(self, shard: &Shard<R>, max: usize) {
        let (now, live) = (shard.rt.now(), shard.live());
        shard.pool.borrow_mut().put(self.slot, live.addresses_of(self.slot), self.conn, self.opened, now, max);
    }
}

impl<'a> Order<'a> {
    /// The request of `head` for an upstream of `table`, with the credential at `credential` of its pool; given up
    /// after `waits` if no answer has begun.
    ///
    /// # Errors
    /// `Internal` when the table has no such upstream; a plan names only its own table's.
    pub fn new(
        table: &'a Table,
        (slot, credential): (UpstreamSlot, usize),
        door: Door,
        (head, bytes): (&RequestHead, &[u8]),
        body: &Body,
        waits: Waits,
    ) -> Result<Order<'a>, Failure> {
        let incomplete = || Failure::new(Kind::Internal, "the upstream of this plan is incomplete. Report this.");
        let upstream = table.upstream(slot).ok_or_else(incomplete)?;
        let announced = ["content-length", "transfer-encoding"].iter().any(|name| head.field(bytes, name).is_some());
        let forward = Forward {
            target: head.path_and_query(bytes),
            base_path: &upstream.base_path,
            host: &upstream.host_header,
            credential: upstream.credential_line(credential),
            body_bytes: (announced || door.peeks()).then_some(body.bytes),
            decoded: body.decoded,
            identity: door.peeks(),
        };
        Ok(Order {
            slot,
            upstream,
            credential,
            waits,
            head: edits::request_head(head, bytes, &forward),
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
    story.record.credential =
        order.upstream.credentials.get(order.credential).map(|credential| Arc::clone(&credential.name));
    let counters = shard.core.counters.upstream(order.slot);
    let live = shard.live();
    let pooled = shard.pool.borrow_mut().take(order.slot, live.addresses_of(order.slot), shard.rt.now());
    drop(live);
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
    let Some(endpoint) = shard.endpoint(&story.table, order.slot) else {
        return Err(Stop::Failed(failed(order, Kind::TlsFailed, "has no TLS settings, which is a fault of forebay's")));
    };
    let addresses = live.addresses_of(order.slot);
    // On the heap: it is as large as the rest of the exchange, and most exchanges reuse a connection.
    let dialling = Box::pin(dial(&shard.rt, &endpoint, addresses));
    let until = order.waits.until;
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
            Err(Stop::Failed(unreachable(order, &live, error)))
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
    story.record.overhead_us = overhead(story, shard.rt.now());
    let mut early = None;
    let sent = send(shard, client, order, body, &mut conn, &mut early, story).await?;
    let sent_at = shard.rt.now();
    let request_sent = matches!(sent, Sent::Whole);
    let until = order.waits.head.map_or(order.waits.until, |span| sent_at.after(span).min(order.waits.until));
    let mut answered = match read_head(shard, client, order, conn, early, until).await {
        Err(Failed::Silent(failure)) if !may_replay(&sent, shard.rt.now().since(sent_at)) => {
            return Err(Failed::Over(Stop::Failed(failure)));
        }
        result => result?,
    };
    answered.opened = opened;
    answered.request_sent = request_sent;
    let id = answered.head.field(answered.bytes.live(), "request-id").unwrap_or_default();
    story.record.upstream_request_id = Text::new(id);
    Ok(answered)
}

/// Whether a connection that ended without a byte was closed before the request reached it. That shows within about a
/// round trip; an upstream that closes later may have been at work, and would work, and bill, twice.
fn may_replay(sent: &Sent, silence: Span) -> bool {
    matches!(sent, Sent::Refused) || silence < REPLAY_MAX
}

/// What forebay has cost until now: the time since the body was read, without the time it took to connect.
fn overhead(story: &Story, now: Mono) -> u64 {
    now.since(story.started).as_us().saturating_sub(story.record.body_us).saturating_sub(story.record.connect_us)
}

/// How the sending ended.
enum Sent {
    /// Every byte went out.
    Whole,
    /// The upstream answered before it had read everything.
    AnsweredEarly,
    /// The upstream takes no more; perhaps it says why.
    Refused,
}

/// Sends head and body, a segment at a time; each comes back for whoever is asked next, even if its sending was given up in
/// the middle. What the upstream says in the meantime is in
/// `early`.
async fn send<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    body: &mut Body,
    conn: &mut Conn<R::Outbox>,
    early: &mut Option<Segment>,
    story: &Story,
) -> Result<Sent, Failed> {
    let mut head = Segment::copy_of(order.head.live());
    let mut next = 0;
    // A small body leaves with its head, in one packet.
    if let Some(first) = body.segments.first()
        && head.room() >= first.len()
    {
        head.extend(first.live());
        next = 1;
    }
    let Conn { inbound, outbound, .. } = conn;
    // The head is rendered anew for whoever is asked next, and need not come back.
    let write = async { outbound.write(head).await.0 };
    match send_segment(shard, client, order, inbound, early, story, write).await? {
        Sent::Whole => {}
        other => return Ok(other),
    }
    while let Some(place) = body.segments.get_mut(next) {
        // An upstream that takes the body as fast as it is given would let nobody else on this core have a turn, nor
        // us see that the client has left.
        yield_now().await;
        if poll_fn(|cx| Poll::Ready(client.inbound.poll_gone(cx).is_ready())).await {
            return Err(Failed::Over(Stop::ClientGone));
        }
        let kept = Rc::new(std::mem::take(place));
        let write = outbound.write_kept(&kept);
        let sent = send_segment(shard, client, order, inbound, early, story, write).await;
        // The kernel may not have let go yet of what was given up.
        *place = Rc::try_unwrap(kept).unwrap_or_else(|kept| Segment::copy_of(kept.live()));
        match sent? {
            Sent::Whole => {}
            other => return Ok(other),
        }
        next += 1;
    }
    Ok(Sent::Whole)
}

async fn send_segment<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    order: &Order<'_>,
    inbound: &mut Inbound,
    early: &mut Option<Segment>,
    story: &Story,
    write: impl Future<Output = io::Result<()>>,
) -> Result<Sent, Failed> {
    // For each segment anew: a slow link is no hang.
    let stall = order.waits.head.map_or(story.table.patience.send, |head| head.min(story.table.patience.send));
    let until = shard.rt.now().after(stall).min(order.waits.until);
    let mut write = pin!(write);
    let mut ended = false;
    let race = poll_fn(|cx| {
        if let Poll::Ready(result) = write.as_mut().poll(cx) {
            return Poll::Ready(if result.is_ok() { Sent::Whole } else { Sent::Refused });
        }
        // An upstream that has closed will fail the write too.
        while !ended {
            match inbound.poll_next(cx) {
                Poll::Ready(Read::Data(said)) => {
                    if is_final(early, said) {
                        return Poll::Ready(Sent::AnsweredEarly);
                    }
                }
                Poll::Ready(Read::End | Read::Failed(_)) => ended = true,
                Poll::Pending => return Poll::Pending,
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

/// Takes in what the upstream says while the request is being sent. Interim answers are dropped, and the sending goes on;
/// true when it is more than that, or cannot be read.
fn is_final(early: &mut Option<Segment>, said: Segment) -> bool {
    let mut held = super::client::joined(early.take(), said);
    let mut head = ResponseHead::new();
    loop {
        match head.parse(held.live(), false) {
            Ok(Some(length)) if head.status < 200 => {
                held.consume(length);
                head.reset();
                if held.is_empty() {
                    return false;
                }
            }
            parsed => {
                *early = Some(held);
                return !matches!(parsed, Ok(None));
            }
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
    let rest = (!held.is_empty()).then(|| std::mem::take(held));
    let now = shard.rt.now();
    Answered { conn, slot: order.slot, opened: now, head, bytes, rest, arrived: now, request_sent: false }
}

/// Why there is no connection. When no address is known, the resolver knows why.
fn unreachable(order: &Order<'_>, live: &Live, error: DialError) -> Failure {
    let DialError { mut kind, mut detail } = error;
    if let (Kind::NameUnresolved, Some(told)) = (kind, live.address_error(order.slot)) {
        told.clone_into(&mut detail);
        if live.is_refused(order.slot) {
            kind = Kind::AddressRefused;
        }
    }
    let what = format!("cannot be reached ({detail})");
    match kind {
        // Neither goes away by itself.
        Kind::AddressRefused | Kind::ProxyRefused => {
            Failure::new(kind, format!("the upstream {} {what}. Tell the operator.", order.upstream.name))
        }
        kind => failed(order, kind, &what),
    }
}

fn failed(order: &Order<'_>, kind: Kind, what: &str) -> Failure {
    let name = &order.upstream.name;
    Failure::new(kind, format!("the upstream {name} {what}. Try again; if it lasts, tell the operator."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_was_closed_already_is_replayed() {
        assert!(may_replay(&Sent::Whole, Span::from_ms(300)));
        assert!(!may_replay(&Sent::Whole, Span::from_secs(3)), "it may have been at work");
        assert!(may_replay(&Sent::Refused, Span::from_secs(3)), "it did not even take the request");
    }

    #[test]
    fn interim_answers_are_told_from_final_ones_however_they_are_split() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 413 X\r\n\r\n";
        for cut in 1..bytes.len() {
            let mut early = None;
            let first = is_final(&mut early, Segment::copy_of(&bytes[..cut]));
            assert!(!first, "{cut}");
            assert!(is_final(&mut early, Segment::copy_of(&bytes[cut..])), "{cut}");
            assert!(early.unwrap().live().starts_with(b"HTTP/1.1 413"), "{cut}");
        }
    }
}
