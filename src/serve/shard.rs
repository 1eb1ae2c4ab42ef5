//! All that one core owns, and the few things it shares with the others through atomics.

use super::drain::Drain;
use crate::{
    base::{Rng, UpstreamSlot},
    meter::Ratios,
    net::{Endpoint, Pool, TlsBySlot},
    rt::Runtime,
    table::{Table, live::Live},
    telemetry::Core,
    upstream,
};
use arc_swap::{ArcSwap, Cache};
use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// The configuration in force.
    pub table: Arc<ArcSwap<Table>>,
    /// Resolved addresses and model lists.
    pub live: Arc<ArcSwap<Live>>,
    /// TLS settings by upstream slot. Shared, so that sessions resume on every core.
    pub tls: Arc<ArcSwap<TlsBySlot>>,
    /// What is known of upstreams while they run.
    pub upstreams: Arc<ArcSwap<upstream::Health>>,
    /// Bytes of a stream by tokens of output, by model, for answers that broke off.
    pub ratios: Arc<Ratios>,
    /// Bytes of request bodies held by the process.
    pub bodies: Arc<AtomicU64>,
    /// The process takes no new work.
    pub draining: Arc<AtomicBool>,
}

/// One core's share of the work.
pub struct Shard<R: Runtime> {
    /// The machine.
    pub rt: R,
    /// Which worker this is.
    pub worker: u16,
    /// This core's counters and records.
    pub core: Arc<Core>,
    /// Idle upstream connections.
    pub pool: RefCell<Pool<R::Outbox>>,
    /// How far it has come on its way down.
    pub drain: Drain,
    /// For request ids and jitter.
    pub rng: RefCell<Rng>,
    shared: Shared,
    table: RefCell<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    live: RefCell<Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    upstreams: RefCell<Cache<Arc<ArcSwap<upstream::Health>>, Arc<upstream::Health>>>,
}

impl<R: Runtime> Shard<R> {
    /// The shard of worker `worker`.
    pub fn new(rt: R, worker: u16, core: Arc<Core>, shared: Shared, seed: u64) -> Shard<R> {
        Shard {
            rt,
            worker,
            core,
            pool: RefCell::default(),
            drain: Drain::default(),
            rng: RefCell::new(Rng(seed)),
            table: RefCell::new(Cache::new(Arc::clone(&shared.table))),
            live: RefCell::new(Cache::new(Arc::clone(&shared.live))),
            upstreams: RefCell::new(Cache::new(Arc::clone(&shared.upstreams))),
            shared,
        }
    }

    /// The table in force, pinned: it stays the same for whoever holds it.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(self.table.borrow_mut().load())
    }

    /// Addresses and model lists as of now.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(self.live.borrow_mut().load())
    }

    /// What is known of upstreams; has room for every slot of `table`.
    pub fn upstreams(&self) -> Arc<upstream::Health> {
        Arc::clone(self.upstreams.borrow_mut().load())
    }

    /// Bytes of a stream by tokens of output.
    pub fn ratios(&self) -> &Ratios {
        &self.shared.ratios
    }

    /// Whether the process takes no new work.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// How to connect to an upstream of `table`. `None` when TLS is wanted and there are no settings for it: a
    /// credential never goes in clear by mistake.
    pub fn endpoint(&self, table: &Table, upstream: UpstreamSlot) -> Option<Endpoint> {
        let tls = self.shared.tls.load().get(upstream.index()).cloned().flatten();
        let way = table.upstream(upstream)?;
        (tls.is_some() == way.tls).then(|| Endpoint {
            via: way.via.clone(),
            guard: way.guard,
            tls,
            connect: table.patience.connect,
            handshake: table.patience.tls,
        })
    }

    /// Claims `bytes` of body memory from the process; `None` when it would hold more than `max`.
    pub fn claim(&self, bytes: u64, max: u64) -> Option<Claim> {
        let mut claim = Claim { bodies: Arc::clone(&self.shared.bodies), core: Arc::clone(&self.core), bytes: 0, max };
        claim.grow_to(bytes).then_some(claim)
    }
}

/// A share of the process's body memory, given back when dropped.
pub struct Claim {
    bodies: Arc<AtomicU64>,
    core: Arc<Core>,
    bytes: u64,
    max: u64,
}

impl Claim {
    /// Makes the claim at least `bytes` large; false, and unchanged, when the process would hold too much.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let held = self.bodies.fetch_add(more, Ordering::Relaxed);
        if held.saturating_add(more) > self.max {
            self.bodies.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.core.counters.bodies_bytes.add(more as i64);
        self.bytes += more;
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.bodies.fetch_sub(self.bytes, Ordering::Relaxed);
        self.core.counters.bodies_bytes.sub(self.bytes as i64);
    }
}
