//! The client's side of a connection: its head, the bytes that came with it, and how to take leave.

use super::drain::Drain;
use crate::{
    base::{
        Failure, Kind, Mono, Span,
        bounds::{HEAD_BYTES_MAX, LINGER_BYTES_MAX, LINGER_MAX, READ_BYTES_MIN},
    },
    net::{Conn, Inbound, Outbound},
    rt::{Outbox, Read, Runtime, Segment, deadline},
    wire::{Framing, HeadError, RequestHead},
};
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    task::Poll,
};

/// How long taking leave of an idle client may take.
const LEAVE_MAX: Span = Span::from_secs(1);

/// A client's connection, between and during exchanges.
pub struct Client<O: Outbox> {
    /// What the client sends.
    pub inbound: Inbound,
    /// What it gets.
    pub outbound: Outbound<O>,
    /// Its address.
    pub peer: SocketAddr,
    /// The request's head, as parts of `head_bytes`.
    pub head: Box<RequestHead>,
    /// The bytes of the request's head.
    pub head_bytes: Segment,
    /// Part of the request's body has not been read: it is in the way of the next request.
    pub owes_body: bool,
    /// Received, and not yet used: the body's beginning, or the next request.
    pub unread: Option<Segment>,
}

/// What came where a head was due.
pub enum Arrived {
    /// A head, in `head` and `head_bytes`.
    Head,
    /// Nothing, and nothing is owed: the client closed, or stayed idle for too long.
    Nothing,
    /// Something that is refused; the connection cannot go on.
    Refused(Failure),
}

impl<O: Outbox> Client<O> {
    /// The client at the other end of `conn`.
    pub fn new(conn: Conn<O>) -> Client<O> {
        Client {
            inbound: conn.inbound,
            outbound: conn.outbound,
            peer: conn.peer,
            head: Box::default(),
            head_bytes: Segment::none(),
            owes_body: false,
            unread: None,
        }
    }

    /// Waits for the next head: at most `keep_alive` for its first byte, and not at all once the core goes down; then
    /// `patience` for the rest.
    pub async fn read_head<R: Runtime<Outbox = O>>(
        &mut self,
        rt: &R,
        drain: &Drain,
        keep_alive: Span,
        patience: Span,
    ) -> Arrived {
        self.head.reset();
        // While a client says nothing, only the standing read holds a buffer for it.
        self.head_bytes = Segment::none();
        self.inbound.expect(READ_BYTES_MIN);
        let mut bytes = self.unread.take();
        let mut until = rt.now().after(if bytes.is_some() { patience } else { keep_alive });
        loop {
            if let Some(bytes) = &mut bytes {
                match self.head.parse(bytes.live()) {
                    Ok(Some(length)) => return self.split_head(bytes, length),
                    Ok(None) => {}
                    Err(error) => return self.refused(bytes, refusal(&error)),
                }
            }
            let idle = bytes.is_none();
            let read = {
                // Pinned here, or `deadline` would hold room for it twice.
                let next = pin!(next_unless(&mut self.inbound, idle.then_some(drain)));
                deadline(rt, until, next).await
            };
            match read {
                Some(Read::Data(more)) => {
                    if bytes.is_none() {
                        until = rt.now().after(patience);
                    }
                    bytes = Some(joined(bytes, more));
                }
                Some(Read::End | Read::Failed(_)) => return Arrived::Nothing,
                None => return self.late(bytes, patience),
            }
        }
    }

    /// Copies the head out of the read (it is small), so that the body's bytes stay where the kernel put them.
    fn split_head(&mut self, bytes: &mut Segment, length: usize) -> Arrived {
        self.head_bytes = Segment::copy_of(&bytes.live()[..length]);
        self.owes_body = !matches!(self.head.framing, Framing::None | Framing::Length(0));
        bytes.consume(length);
        if !bytes.is_empty() {
            self.unread = Some(std::mem::take(bytes));
        }
        Arrived::Head
    }

    /// Ends a connection on which nothing is owed. Over TLS the client is told, so that it can tell this from a cut.
    pub async fn leave<R: Runtime<Outbox = O>>(mut self, rt: &R) {
        let _ = deadline(rt, rt.now().after(LEAVE_MAX), self.outbound.finish()).await;
    }

    /// Time is up; an idle connection owes nothing.
    fn late(&mut self, bytes: Option<Segment>, patience: Span) -> Arrived {
        let Some(mut bytes) = bytes else { return Arrived::Nothing };
        let text = format!("the request's head did not arrive within {} s. Send it again.", patience.as_ms() / 1000);
        self.refused(&mut bytes, Failure::new(Kind::RequestTimeout, text))
    }

    /// Keeps what came of the head: the parts of `head` that were found before it was refused are parts of these bytes,
    /// not of the head before.
    fn refused(&mut self, bytes: &mut Segment, failure: Failure) -> Arrived {
        self.head_bytes = std::mem::take(bytes);
        Arrived::Refused(failure)
    }

    /// Closes so that the client can read the answer it was sent: says that no more comes, and takes in what the
    /// client still sends, within bounds (RFC 9112 section 9.6).
    pub async fn linger<R: Runtime<Outbox = O>>(&mut self, rt: &R) {
        let until: Mono = rt.now().after(LINGER_MAX);
        // Over TLS this is a write, for which a client that does not read may let us wait.
        if deadline(rt, until, self.outbound.finish()).await.is_none() {
            return;
        }
        let mut taken = 0;
        self.inbound.expect(usize::MAX);
        while taken < LINGER_BYTES_MAX {
            match deadline(rt, until, self.inbound.next()).await {
                Some(Read::Data(segment)) => taken += segment.len() as u64,
                Some(Read::End | Read::Failed(_)) | None => return,
            }
        }
    }
}

/// The next read; an end, if the core goes down first.
async fn next_unless(inbound: &mut Inbound, drain: Option<&Drain>) -> Read {
    let mut closing = pin!(drain.map(Drain::closing));
    poll_fn(|cx| match (inbound.poll_next(cx), closing.as_mut().as_pin_mut()) {
        (Poll::Pending, Some(closing)) => closing.poll(cx).map(|()| Read::End),
        (read, _) => read,
    })
    .await
}

/// `more` behind `bytes`, in one buffer.
pub(super) fn joined(bytes: Option<Segment>, more: Segment) -> Segment {
    let Some(mut bytes) = bytes else { return more };
    if bytes.room() < more.len() {
        let room = ((bytes.len() + more.len()) * 2).min(HEAD_BYTES_MAX + more.len() + bytes.len());
        let mut larger = Segment::with_room(room);
        larger.extend(bytes.live());
        bytes = larger;
    }
    bytes.extend(more.live());
    bytes
}

fn refusal(error: &HeadError) -> Failure {
    Failure::new(
        error.kind(),
        format!("the request cannot be read as HTTP/1.1: {error}. Check the client, or the proxy in front of it."),
    )
}
