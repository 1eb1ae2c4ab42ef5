//! One core's loop: accept, serve, keep house. Nothing in it waits for another core.

mod cpus;
mod mesh;

pub use cpus::{Cpus, usable};
pub use mesh::{Mesh, Parcel};

use crate::{
    base::Span,
    net::{Conn, tls},
    rt::{
        Runtime, Socket, deadline,
        ring::{Driver, Listener, ListenerCloser, Ring, RingOutbox, pin_to},
    },
    serve::{self, Shard, drain::Stage, shard::Shared},
    telemetry::{Core, Counters, Handshake},
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
    /// The way to the other workers.
    pub mesh: Mesh,
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
    let Assignment { worker, mesh, listeners, force_epoll, core, shared, seed, .. } = assignment;
    core.set_driver(driver.slug(), driver.reason(force_epoll));
    let shard = Rc::new(Shard::new(ring.clone(), worker, Arc::clone(&core), shared, seed));
    let mut closers = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let listener = ring.listen(listener)?;
        closers.push(listener.closer());
        ring.spawn(accept(Rc::clone(&shard), mesh.clone(), listener, number));
    }
    ring.spawn(receive(Rc::clone(&shard), mesh));
    core.set_listening(true);
    let mut panics_seen = 0;
    while !shard.is_draining() {
        let panicked = panics.load(Ordering::Relaxed);
        core.counters.panics.add(panicked - std::mem::replace(&mut panics_seen, panicked));
        core.beat();
        let table = shard.table();
        shard.pool.borrow_mut().sweep(ring.now(), |slot| table.upstream(slot).is_some());
        drop(table); // a table that gives way is freed, not held over the sleep
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

/// Takes over what other cores hand on.
async fn receive(shard: Rc<Shard<Ring>>, mesh: Mesh) {
    while let Some(Parcel { stream, listener }) = mesh.receive(usize::from(shard.worker)).await {
        if let Ok(socket) = shard.rt.adopt(stream) {
            serve_socket(&shard, socket, listener);
        }
    }
}

/// Every connection is a task of its own, which a panic ends alone.
fn serve_socket(shard: &Rc<Shard<Ring>>, socket: Socket<RingOutbox>, listener: usize) {
    let shard = Rc::clone(shard);
    shard.clone().rt.spawn(async move {
        let core = Arc::clone(&shard.core);
        let _open = core.counters.connections.hold();
        let Some(conn) = greet(&shard, socket, listener).await else { return };
        if core.counters.connections.get() > shard.table().bounds.connections_max as i64 {
            serve::connection::turn_away(&shard, conn).await;
        } else {
            serve::connection(shard, conn, listener).await;
        }
    });
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

/// Lets time pass, at most `span`, as long as `busy`.
async fn pass(shard: &Shard<Ring>, span: Span, busy: impl Fn(&Counters) -> bool) {
    let until = shard.rt.now().after(span);
    while busy(&shard.core.counters) && shard.rt.now() < until {
        shard.core.beat();
        shard.rt.sleep_until(shard.rt.now().after(HOUSEKEEPING).min(until)).await;
    }
}

/// Accepts for ever, and keeps what no other core should have.
async fn accept(shard: Rc<Shard<Ring>>, mesh: Mesh, listener: Listener, number: usize) {
    let own = usize::from(shard.worker);
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                shard.core.counters.accepted.add(1);
                let dice = shard.rng.borrow_mut().draw();
                match mesh.better_than(own, dice).and_then(|to| Some((to, accepted.leave().ok()?))) {
                    Some((to, stream)) => match mesh.send(to, Parcel { stream, listener: number }) {
                        Ok(()) => shard.core.counters.handed_over.add(1),
                        Err(_full) => serve_socket(&shard, accepted.stay(), number),
                    },
                    None => serve_socket(&shard, accepted.stay(), number),
                }
            }
            Err(_) if shard.drain.stage() > Stage::Serving => return,
            Err(_) => shard.rt.sleep_until(shard.rt.now().after(ACCEPT_PAUSE)).await,
        }
    }
}
