//! Idle upstream connections of one worker: last in, first out, so that the warm ones stay warm and the rest age.
//!
//! Providers' edges close idle connections after a minute or more; we let go before they do.

use super::Conn;
use crate::{
    base::{Mono, Span, UpstreamSlot},
    rt::Outbox,
};
use std::{collections::VecDeque, net::SocketAddr};

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
    /// The warmest connection to `upstream` that is still open and silent and leads to one of `addresses`, and when it
    /// was opened. Those that lead elsewhere are dropped: the name, or the proxy on the way, has moved.
    pub fn take(&mut self, upstream: UpstreamSlot, addresses: &[SocketAddr], now: Mono) -> Option<(Conn<O>, Mono)> {
        let shelf = self.idle.get_mut(upstream.index())?;
        while let Some(mut idle) = shelf.pop_back() {
            if is_fresh(&idle, now) && leads_to(&idle, addresses) && idle.conn.inbound.is_quiet() {
                return Some((idle.conn, idle.opened));
            }
        }
        None
    }

    /// Keeps a connection, opened at `opened`, for the next exchange; drops it when it is old, leads to none of
    /// `addresses`, or `max` wait already.
    pub fn put(
        &mut self,
        upstream: UpstreamSlot,
        addresses: &[SocketAddr],
        conn: Conn<O>,
        opened: Mono,
        now: Mono,
        max: usize,
    ) {
        if self.idle.len() <= upstream.index() {
            self.idle.resize_with(upstream.index() + 1, VecDeque::new);
        }
        let idle = Idle { conn, opened, since: now };
        if let Some(shelf) = self.idle.get_mut(upstream.index())
            && shelf.len() < max
            && is_fresh(&idle, now)
            && leads_to(&idle, addresses)
        {
            shelf.push_back(idle);
        }
    }

    /// Drops what has been closed, has waited too long, or leads to an upstream that `stays` says no to: one that a
    /// reload has removed or moved. Called several times a second.
    pub fn sweep(&mut self, now: Mono, stays: impl Fn(UpstreamSlot) -> bool) {
        for (shelf, slot) in self.idle.iter_mut().zip(0..).filter(|(shelf, _)| !shelf.is_empty()) {
            if stays(UpstreamSlot(slot)) {
                shelf.retain_mut(|idle| is_fresh(idle, now) && idle.conn.inbound.is_quiet());
            } else {
                shelf.clear();
            }
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

/// An IPv6 scope says through which interface, not to whom.
fn leads_to<O: Outbox>(idle: &Idle<O>, addresses: &[SocketAddr]) -> bool {
    let peer = idle.conn.peer;
    addresses.iter().any(|address| (address.ip(), address.port()) == (peer.ip(), peer.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::{Inbound, Outbound},
        rt::{
            Read, Segment,
            inbox::{Feeder, inbox},
        },
    };
    use std::io;

    struct Mute;

    impl Outbox for Mute {
        async fn write(&mut self, segment: Segment) -> (io::Result<()>, Segment) {
            (Ok(()), segment)
        }

        fn finish(&mut self) {}

        fn abort(&mut self) {}
    }

    const SLOT: UpstreamSlot = UpstreamSlot(1);

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn conn(peer: SocketAddr) -> (Conn<Mute>, Feeder) {
        let (inbox, feeder) = inbox();
        (Conn { inbound: Inbound::Plain(inbox), outbound: Outbound::Plain(Mute), peer }, feeder)
    }

    fn secs(s: u64) -> Mono {
        Mono::default().after(Span::from_secs(s))
    }

    /// A pool with connections to these, put at second 0.
    fn pool(peers: &[SocketAddr]) -> (Pool<Mute>, Vec<Feeder>) {
        let mut pool = Pool::default();
        let put = |peer: &SocketAddr| {
            let (conn, feeder) = conn(*peer);
            pool.put(SLOT, &[*peer], conn, secs(0), secs(0), 8);
            feeder
        };
        let feeders = peers.iter().map(put).collect();
        (pool, feeders)
    }

    fn take(pool: &mut Pool<Mute>, addresses: &[SocketAddr], now: Mono) -> Option<SocketAddr> {
        pool.take(SLOT, addresses, now).map(|(conn, _)| conn.peer)
    }

    #[test]
    fn the_warmest_good_one_is_taken() {
        let (mut pool, feeders) = pool(&[at(1), at(2), at(3)]);
        feeders[2].deliver(Read::End);
        assert_eq!(take(&mut pool, &[at(1), at(2), at(3)], secs(1)), Some(at(2)), "one that has ended is no use");
        assert_eq!(pool.len(), 1);
        assert_eq!(pool.take(UpstreamSlot(0), &[at(1)], secs(1)).map(|_| ()), None);
        assert_eq!(take(&mut pool, &[at(1)], secs(1)), Some(at(1)));
        assert!(pool.is_empty());
    }

    #[test]
    fn a_connection_to_where_the_name_no_longer_leads_is_dropped() {
        let (mut pool, _feeders) = pool(&[at(1), at(2)]);
        assert_eq!(take(&mut pool, &[at(1), at(3)], secs(1)), Some(at(1)));
        assert!(pool.is_empty());
        let (moved, _feeder) = conn(at(1));
        pool.put(SLOT, &[at(2)], moved, secs(0), secs(1), 8);
        assert!(pool.is_empty(), "it is not even kept");
        let other_port = SocketAddr::new(at(1).ip(), 80);
        let (moved, _feeder) = conn(at(1));
        pool.put(SLOT, &[other_port], moved, secs(0), secs(1), 8);
        assert!(pool.is_empty());
    }

    #[test]
    fn idleness_and_age_are_bounded() {
        let (mut waiting, _feeders) = pool(&[at(1)]);
        assert_eq!(take(&mut waiting, &[at(1)], secs(50)), None, "idle for 50 s");
        let (mut waiting, _feeders) = pool(&[at(1)]);
        assert_eq!(take(&mut waiting, &[at(1)], secs(49)), Some(at(1)));
        let (old, _feeder) = conn(at(1));
        waiting.put(SLOT, &[at(1)], old, secs(0), secs(299), 8);
        assert_eq!(waiting.len(), 1);
        assert_eq!(take(&mut waiting, &[at(1)], secs(300)), None, "300 s old");
        let (old, _feeder) = conn(at(1));
        waiting.put(SLOT, &[at(1)], old, secs(0), secs(300), 8);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_sweep_drops_what_is_of_no_use() {
        let (mut pool, feeders) = pool(&[at(1), at(2)]);
        feeders[0].deliver(Read::End);
        pool.sweep(secs(1), |_| true);
        assert_eq!(pool.len(), 1);
        pool.sweep(secs(50), |_| true);
        assert!(pool.is_empty());
    }

    #[test]
    fn an_upstream_that_is_gone_leaves_nothing() {
        let (mut pool, _feeders) = pool(&[at(1), at(2)]);
        pool.sweep(secs(1), |slot| slot == SLOT);
        assert_eq!(pool.len(), 2);
        pool.sweep(secs(1), |slot| slot != SLOT);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_full_shelf_takes_no_more() {
        let (mut pool, _feeders) = pool(&[at(1)]);
        let (another, _feeder) = conn(at(1));
        pool.put(SLOT, &[at(1)], another, secs(0), secs(0), 1);
        assert_eq!(pool.len(), 1);
    }
}
