//! Idle upstream connections of one worker: last in, first out, so that the warm ones stay warm and the rest age.
//!
//! Providers' edges close idle connections after a minute or more; we let go before they do.

use super::Conn;
use crate::{
    base::{Mono, Span, UpstreamSlot},
    rt::Outbox,
};
use std::collections::VecDeque;

/// Below the 60 s after which common load balancers close.
const IDLE_MAX: Span = Span::from_secs(50);
/// A connection is not used longer than this, so that a provider's DNS changes take effect.
const AGE_MAX: Span = Span::from_secs(300);

struct Idle<O: Outbox> {
    conn: Conn<O>,
    opened: Mono,
    since: Mono,
}

/// The pool. Bounded per upstream.
pub struct Pool<O: Outbox> {
    idle: Vec<VecDeque<Idle<O>>>,
}

impl<O: Outbox> Default for Pool<O> {
    fn default() -> Pool<O> {
        Pool { idle: Vec::new() }
    }
}

impl<O: Outbox> Pool<O> {
    /// The warmest connection to `upstream` that is still open and silent, and when it was opened.
    pub fn take(&mut self, upstream: UpstreamSlot, now: Mono) -> Option<(Conn<O>, Mono)> {
        let shelf = self.idle.get_mut(upstream.index())?;
        while let Some(mut idle) = shelf.pop_back() {
            if is_fresh(&idle, now) && idle.conn.inbound.is_quiet() {
                return Some((idle.conn, idle.opened));
            }
        }
        None
    }

    /// Keeps a connection, opened at `opened`, for the next exchange; drops it when it is old or `max` wait already.
    pub fn put(&mut self, upstream: UpstreamSlot, conn: Conn<O>, opened: Mono, now: Mono, max: usize) {
        if self.idle.len() <= upstream.index() {
            self.idle.resize_with(upstream.index() + 1, VecDeque::new);
        }
        let idle = Idle { conn, opened, since: now };
        if let Some(shelf) = self.idle.get_mut(upstream.index())
            && shelf.len() < max
            && is_fresh(&idle, now)
        {
            shelf.push_back(idle);
        }
    }

    /// Drops what has been closed or has waited too long; called about once a second.
    pub fn sweep(&mut self, now: Mono) {
        for shelf in &mut self.idle {
            shelf.retain_mut(|idle| is_fresh(idle, now) && idle.conn.inbound.is_quiet());
        }
    }

    /// How many connections wait.
    pub fn len(&self) -> usize {
        self.idle.iter().map(VecDeque::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_fresh<O: Outbox>(idle: &Idle<O>, now: Mono) -> bool {
    now.since(idle.since) < IDLE_MAX && now.since(idle.opened) < AGE_MAX
}
