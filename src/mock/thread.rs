//! The simulator on a thread of its own, for those who have no event loop: `forebay demo`, the load test, tests.

use super::{engine::Engine, options::Options, server::serve};
use crate::{
    base::{Span, bounds::CONNECTIONS_MAX},
    net::listener,
    rt::{
        Runtime,
        ring::{Listener, Ring},
    },
};
use std::{
    cell::{Cell, RefCell},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// How often the thread looks whether it should stop.
const STOP_TICK: Span = Span::from_ms(10);
/// How long to wait when accept(2) fails.
const ACCEPT_PAUSE: Span = Span::from_ms(50);

/// A running simulator; dropping it stops it, and breaks the answers that are under way.
pub struct Handle {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Waits until the simulator ends, which it does only when its thread fails.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a simulator on its own thread, with an event loop of its own. It listens when this returns.
///
/// # Errors
/// When the address cannot be had, a rule makes no sense (`InvalidInput`), or the thread cannot be started.
pub fn spawn_on_thread(options: Options) -> io::Result<Handle> {
    let force_epoll = options.force_epoll;
    let mut sockets = listener::bind(options.listen, 1)?;
    let socket = sockets.pop().ok_or_else(|| io::Error::other("no listening socket"))?;
    let address = socket.local_addr()?;
    // Built here for its errors, and again there because it stays on its thread.
    Engine::new(options.clone()).map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let thread = thread::Builder::new().name("simulated-provider".to_owned()).spawn(move || {
        let Ok(engine) = Engine::new(options) else { return };
        let engine = Rc::new(RefCell::new(engine));
        let _ = Ring::run(force_epoll, Arc::default(), |ring, _| run(ring, socket, engine, stopping));
    })?;
    Ok(Handle { address, stop, thread: Some(thread) })
}

async fn run(ring: Ring, socket: TcpListener, engine: Rc<RefCell<Engine>>, stop: Arc<AtomicBool>) {
    let Ok(listener) = ring.listen(socket) else { return };
    let closer = listener.closer();
    ring.spawn(accept(ring.clone(), listener, engine, Arc::clone(&stop)));
    while !stop.load(Ordering::Acquire) {
        ring.sleep_until(ring.now().after(STOP_TICK)).await;
    }
    closer.close();
}

async fn accept(ring: Ring, listener: Listener, engine: Rc<RefCell<Engine>>, stop: Arc<AtomicBool>) {
    let open = Rc::new(Cell::new(0_usize));
    while !stop.load(Ordering::Acquire) {
        let Ok(socket) = listener.accept().await else {
            ring.sleep_until(ring.now().after(ACCEPT_PAUSE)).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        let counted = Counted::new(&open);
        let work = serve(ring.clone(), socket, Rc::clone(&engine));
        ring.spawn(async move {
            let _counted = counted;
            work.await;
        });
    }
}

/// Counts a connection as long as its task lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(open: &Rc<Cell<usize>>) -> Counted {
        open.set(open.get() + 1);
        Counted(Rc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
