//! A connection whose bytes are in the clear for its user, whatever is on the wire.

use super::tls::{TlsInbound, TlsOutbound};
use crate::rt::{Inbox, Outbox, Read, Segment, Socket};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// A connection: what arrives and what leaves, usable at the same time. Dropping both closes it.
pub struct Conn<O: Outbox> {
    /// What arrives.
    pub inbound: Inbound,
    /// What leaves.
    pub outbound: Outbound<O>,
    /// The other side.
    pub peer: SocketAddr,
}

/// What arrives. `next` is cancel-safe.
pub enum Inbound {
    /// Straight from the socket.
    Plain(Inbox),
    /// Through TLS.
    Tls(TlsInbound),
}

/// What leaves.
pub enum Outbound<O: Outbox> {
    /// Straight to the socket.
    Plain(O),
    /// Through TLS.
    Tls(TlsOutbound<O>),
}

impl<O: Outbox> Conn<O> {
    /// A connection without TLS.
    pub fn plain(socket: Socket<O>) -> Conn<O> {
        Conn { inbound: Inbound::Plain(socket.inbox), outbound: Outbound::Plain(socket.outbox), peer: socket.peer }
    }
}

impl Inbound {
    /// The next bytes, the end, or the failure. Cancel-safe.
    pub async fn next(&mut self) -> Read {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same, for a hand-written `select`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        match self {
            Inbound::Plain(inbox) => inbox.poll_next(cx),
            Inbound::Tls(tls) => tls.poll_next(cx),
        }
    }

    /// Ready once the peer has closed or reset the connection, even if bytes of its wait unread.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Inbound::Plain(inbox) => inbox.poll_gone(cx),
            Inbound::Tls(tls) => tls.poll_gone(cx),
        }
    }

    /// Whether an idle connection is still good: open, and nothing has come that nobody asked for.
    pub fn is_quiet(&mut self) -> bool {
        self.poll_next(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Says that about `bytes` more are coming; a hint for the size of reads.
    pub fn expect(&mut self, bytes: usize) {
        match self {
            Inbound::Plain(inbox) => inbox.expect(bytes),
            Inbound::Tls(tls) => tls.expect(bytes),
        }
    }
}

impl<O: Outbox> Outbound<O> {
    /// Writes the segment's live bytes, all of them; hands the segment back. To drop this in the middle gives the
    /// writing side up.
    pub async fn write(&mut self, segment: Segment) -> (io::Result<()>, Segment) {
        match self {
            Outbound::Plain(outbox) => outbox.write(segment).await,
            Outbound::Tls(tls) => (tls.write(segment.live()).await, segment),
        }
    }

    /// The same for bytes that may be needed again: who gives this up in the middle still has them.
    pub async fn write_kept(&mut self, kept: &Rc<Segment>) -> io::Result<()> {
        match self {
            Outbound::Plain(outbox) => outbox.write_kept(kept).await,
            Outbound::Tls(tls) => tls.write(kept.live()).await,
        }
    }

    /// Says that no more will be written, while reading goes on.
    pub async fn finish(&mut self) {
        match self {
            Outbound::Plain(outbox) => outbox.finish(),
            Outbound::Tls(tls) => tls.finish().await,
        }
    }

    /// Drops the connection at once, with a reset.
    pub fn abort(&mut self) {
        match self {
            Outbound::Plain(outbox) => outbox.abort(),
            Outbound::Tls(tls) => tls.abort(),
        }
    }
}
