//! Waiting on several things at once, without losing any of them.

use super::{drain::Stage, shard::Shard};
use crate::{
    base::{Mono, Span},
    net::Inbound,
    rt::Runtime,
};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

/// How a watched piece of work came out.
pub enum Watched<T> {
    /// It is done.
    Done(T),
    /// The client has closed its connection.
    ClientGone,
    /// Time is up.
    TimeUp,
}

/// Runs `work` while watching the client; gives up when it leaves, or at `until`. Only for work whose connection ends
/// when it is given up.
pub async fn watched<R: Runtime, T>(
    rt: &R,
    client: &mut Inbound,
    until: Mono,
    work: impl Future<Output = T>,
) -> Watched<T> {
    let mut work = pin!(work);
    // The timer is made only if there is something to wait for.
    let mut timer = pin!(None);
    poll_fn(|cx| {
        if let Poll::Ready(value) = work.as_mut().poll(cx) {
            return Poll::Ready(Watched::Done(value));
        }
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(Watched::ClientGone);
        }
        if timer.is_none() {
            timer.set(Some(rt.sleep_until(until)));
        }
        match timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Watched::TimeUp),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Lets the core's other tasks run once: for loops that may stay ready for long.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How often a long wait looks at the time.
const TICK: Span = Span::from_secs(2);

/// One timer for all the waits of a relay. A timer per event would cost more than the event; this one fires every two
/// seconds, so a wait ends up to that much late.
pub struct Ticker<'a, F> {
    timer: Pin<&'a mut Option<F>>,
    make: &'a dyn Fn(Mono) -> F,
}

impl<'a, F: Future<Output = ()>> Ticker<'a, F> {
    /// A ticker that puts what `make` makes into `timer`, once there is something to wait for.
    pub fn new(timer: Pin<&'a mut Option<F>>, make: &'a dyn Fn(Mono) -> F) -> Ticker<'a, F> {
        Ticker { timer, make }
    }

    /// Runs `work` while watching the client, until about `until` or until the core's time is up.
    pub async fn watch<R: Runtime, T>(
        &mut self,
        shard: &Shard<R>,
        client: &mut Inbound,
        until: Mono,
        work: impl Future<Output = T>,
    ) -> Watched<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Watched::Done(value));
            }
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Watched::ClientGone);
            }
            loop {
                match self.timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx)) {
                    Some(Poll::Pending) => return Poll::Pending,
                    Some(Poll::Ready(())) if shard.rt.now() >= until || shard.drain.stage() == Stage::Ending => {
                        return Poll::Ready(Watched::TimeUp);
                    }
                    _ => {
                        let next = shard.rt.now().after(TICK).min(until);
                        self.timer.set(Some((self.make)(next)));
                    }
                }
            }
        })
        .await
    }
}
