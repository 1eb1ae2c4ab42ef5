//! The only door to the machine: clock, timers, tasks, sockets. `ring` is monoio and the only file that names it; the
//! simulation has its own implementation of `Runtime`.
//!
//! **A socket can only be read through its `Inbox`.** An io_uring operation that is dropped in flight loses bytes or
//! descriptors, so every socket has one reader task whose operation is never dropped, and a one-slot inbox whose
//! `next` may be dropped at any time without losing anything. The standing read is also the watch for a peer that
//! leaves. A write that is given up ends the connection.

pub mod inbox;
pub mod ring;
pub mod segment;

pub use inbox::{Inbox, Read};
pub use segment::Segment;

use crate::base::{Mono, Wall};
use std::{future::Future, io, net::SocketAddr, pin::pin, rc::Rc, task::Poll};

/// What the machine offers to one worker.
pub trait Runtime: Clone + 'static {
    /// The writing side of this machine's sockets.
    type Outbox: Outbox;

    /// The monotonic clock.
    fn now(&self) -> Mono;
    /// The wall clock.
    fn wall(&self) -> Wall;
    /// Ready once the monotonic clock has reached `at`. Rounds up to the timer's tick (1 ms).
    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static;
    /// Runs `task` beside the caller, on the same core. A panic in it is contained and counted, and ends only it.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
    /// Opens a TCP connection, without delay (`TCP_NODELAY`).
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Socket<Self::Outbox>>> + 'static;
}

/// One TCP connection: its inbox and its outbox, which can be used at the same time. Dropping both closes it.
pub struct Socket<O> {
    /// What arrives.
    pub inbox: Inbox,
    /// What leaves.
    pub outbox: O,
    /// The other side.
    pub peer: SocketAddr,
}

/// The writing side of a socket. Dropping it shuts the whole connection down, so that the reader task ends too.
pub trait Outbox: 'static {
    /// Writes all of `segment`'s live bytes; hands the segment back for reuse. To drop this future in the middle is
    /// to give the connection's writing side up.
    fn write(&mut self, segment: Segment) -> impl Future<Output = (io::Result<()>, Segment)>;
    /// The same for bytes that may be needed again: who gives this up in the middle still has them.
    fn write_kept(&mut self, kept: &Rc<Segment>) -> impl Future<Output = io::Result<()>> {
        let copy = Segment::copy_of(kept.live());
        async move { self.write(copy).await.0 }
    }
    /// Says that no more will be written (FIN), while reading goes on.
    fn finish(&mut self);
    /// Makes the coming close a reset (RST), so that a peer who waits for the close cannot take it for an end.
    fn abort(&mut self);
}

/// Runs `work` until it is done or `at` has come; `None` when time was up. Only for work that may be dropped.
pub async fn deadline<R: Runtime, T>(rt: &R, at: Mono, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // Made only if there is something to wait for: what is there already costs no timer.
    let mut timer = pin!(None);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        if timer.is_none() {
            timer.set(Some(rt.sleep_until(at)));
        }
        timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx).map(|()| None))
    })
    .await
}
