//! One core's loop: accept, serve, keep house. Nothing in it waits for another core.

mod cpus;

pub use cpus::{Cpus, usable};

use crate::{
    base::Span,
    net::{Conn, tls},
    rt::{
        Runtime, Socket, deadline,
        ring::{Driver, Listener, ListenerCloser, Ring, RingOutbox, pin_to},
    },
    serve::{self, Shard, shard::Shared},
    telemetry::{Core, Handshake},
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
/// How long exchanges in flight may go on once the process drains.
const DRAIN_MAX: Span = Span::from_secs(30);
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
    core.set_listening(false);
    closers.iter().for_each(ListenerCloser::close);
    let until = ring.now().after(DRAIN_MAX);
    while core.counters.exchanges.get() > 0 && ring.now() < until {
        core.beat();
        ring.sleep_until(ring.now().after(HOUSEKEEPING)).await;
    }
    Ok(())
}

/// Accepts for ever; every connection is a task of its own, which a panic ends alone.
async fn accept(shard: Rc<Shard<Ring>>, listener: Listener, number: usize) {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                let shard = Rc::clone(&shard);
                shard.clone().rt.spawn(async move {
                    let _open = Open::new(&shard.core);
                    let Some(conn) = greet(&shard, socket, number).await else { return };
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

/// The connection in the clear for us: at once, or after the handshake where the listener has a certificate. `None`
/// when nothing came of it, which is counted. With HTTP/2 this is where the agreed protocol will part the ways.
async fn greet(shard: &Shard<Ring>, socket: Socket<RingOutbox>, number: usize) -> Option<Conn<RingOutbox>> {
    let table = shard.table();
    // The table decides, so that no fault can make a listener speak plain HTTP that must not.
    if table.listeners.get(number).is_none_or(|listener| listener.tls.is_none()) {
        return Some(Conn::plain(socket));
    }
    let config = Arc::clone(&shard.live().front(number)?.config);
    let until = shard.rt.now().after(table.patience.tls);
    drop(table);
    // Boxed, because a handshake is large and short, and the connection's task small and long.
    let handshake = Box::pin(tls::accept(socket, config));
    let (outcome, conn) = deadline(&shard.rt, until, handshake).await.unwrap_or((Handshake::Timeout, None));
    shard.core.counters.handshakes(outcome).add(1);
    if outcome == Handshake::PlainHttp {
        serve::connection::refuse_plain(shard, conn?).await;
        return None;
    }
    conn
}

/// Counts a connection for as long as its task lives, however that ends.
struct Open(Arc<Core>);

impl Open {
    fn new(core: &Arc<Core>) -> Open {
        core.counters.accepted.add(1);
        core.counters.connections.add(1);
        Open(Arc::clone(core))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections.sub(1);
    }
}
