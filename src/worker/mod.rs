//! One core's loop: accept, serve, keep house. Nothing in it waits for another core.

mod cpus;

pub use cpus::{Cpus, usable};

use crate::{
    base::Span,
    net::Conn,
    rt::{
        Runtime,
        ring::{Driver, Listener, ListenerCloser, Ring, pin_to},
    },
    serve::{self, Shard, drain::Stage, shard::Shared},
    telemetry::{Core, Counters},
};
use std::{
    io,
    net::TcpListener,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How often a worker looks at flags, reports that it lives, and sweeps its pool.
const HOUSEKEEPING: Span = Span::from_ms(100);
/// How long broken streams, and clients that still read, may take at the very end.
const ENDING_MAX: Span = Span::from_secs(5);
/// How long to wait when accept(2) fails, for want of descriptors above all.
const ACCEPT_PAUSE: Span = Span::from_ms(50);

/// What one worker is given.
pub struct Assignment {
    /// Its number.
    pub worker: u16,
    /// The CPU to stay on; `None` leaves that to the kernel.
    pub cpu: Option<usize>,
    /// Its own listening sockets, in the table's order.
    pub listeners: Vec<TcpListener>,
    /// Never use the ring.
    pub force_epoll: bool,
    /// This core's counters and records.
    pub core: Arc<Core>,
    /// What all workers share.
    pub shared: Shared,
    /// Seeds request ids and jitter.
    pub seed: u64,
}

/// Runs a worker on this thread until the process drains.
///
/// # Errors
/// When no event loop can be built, or a listener cannot be taken into it.
pub fn run(assignment: Assignment) -> io::Result<()> {
    if let Some(cpu) = assignment.cpu {
        // A cpuset that changed under us is no reason not to serve.
        let _ = pin_to(cpu);
    }
    let panics = Arc::new(AtomicU64::new(0));
    Ring::run(assignment.force_epoll, Arc::clone(&panics), |ring, driver| work(ring, driver, assignment, panics))?
}

async fn work(ring: Ring, driver: Driver, assignment: Assignment, panics: Arc<AtomicU64>) -> io::Result<()> {
    let Assignment { worker, listeners, force_epoll, core, shared, seed, .. } = assignment;
    core.set_driver(driver.slug(), driver.reason(force_epoll));
    let shard = Rc::new(Shard::new(ring.clone(), worker, Arc::clone(&core), shared, seed));
    let mut closers = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let listener = ring.listen(listener)?;
        closers.push(listener.closer());
        ring.spawn(accept(Rc::clone(&shard), listener, number));
    }
    core.set_listening(true);
    let mut panics_seen = 0;
    while !shard.is_draining() {
        let panicked = panics.load(Ordering::Relaxed);
        core.counters.panics.add(panicked - std::mem::replace(&mut panics_seen, panicked));
        core.beat();
        shard.pool.borrow_mut().sweep(ring.now());
        core.counters.idle.set(shard.pool.borrow().len() as i64);
        ring.sleep_until(ring.now().after(HOUSEKEEPING)).await;
    }
    let patience = shard.table().patience;
    pass(&shard, patience.drain_grace, |_| true).await;
    core.set_listening(false);
    closers.iter().for_each(ListenerCloser::close);
    shard.drain.advance(Stage::Closing);
    pass(&shard, patience.drain, |counters| counters.exchanges.get() > 0).await;
    shard.drain.advance(Stage::Ending);
    pass(&shard, ENDING_MAX, |counters| counters.connections.get() > 0).await;
    Ok(())
}

/// Lets time pass, at most `span`, as long as `busy`.
async fn pass(shard: &Shard<Ring>, span: Span, busy: impl Fn(&Counters) -> bool) {
    let until = shard.rt.now().after(span);
    while busy(&shard.core.counters) && shard.rt.now() < until {
        shard.core.beat();
        shard.rt.sleep_until(shard.rt.now().after(HOUSEKEEPING).min(until)).await;
    }
}

/// Accepts for ever; every connection is a task of its own, which a panic ends alone.
async fn accept(shard: Rc<Shard<Ring>>, listener: Listener, number: usize) {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                let (shard, conn) = (Rc::clone(&shard), Conn::plain(socket));
                shard.clone().rt.spawn(async move {
                    let core = Arc::clone(&shard.core);
                    let _open = core.counters.connections.hold();
                    core.counters.accepted.add(1);
                    if shard.core.counters.connections.get() > shard.table().bounds.connections_max as i64 {
                        serve::connection::turn_away(&shard, conn).await;
                    } else {
                        serve::connection(shard, conn, number).await;
                    }
                });
            }
            Err(_) if shard.is_draining() => return,
            Err(_) => shard.rt.sleep_until(shard.rt.now().after(ACCEPT_PAUSE)).await,
        }
    }
}
