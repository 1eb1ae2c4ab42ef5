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
    collections::HashMap,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    thread::{self, JoinHandle},
};

/// How often the thread looks whether it should stop.
const STOP_TICK: Span = Span::from_ms(10);
/// How long its connections may take to end then.
const STOP_MAX: Span = Span::from_secs(1);
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
    let (closer, house) = (listener.closer(), Rc::new(House::default()));
    let guest = Guest::new(&house);
    ring.spawn(accept(ring.clone(), listener, engine, guest));
    while !stop.load(Ordering::Acquire) {
        ring.sleep_until(ring.now().after(STOP_TICK)).await;
    }
    closer.close();
    house.stop();
    // The loop forgets its tasks when it ends, and their sockets with them: they end themselves before.
    let until = ring.now().after(STOP_MAX);
    while house.guests.get() > 0 && ring.now() < until {
        ring.sleep_until(ring.now().after(Span::from_ms(1))).await;
    }
    ring.sleep_until(ring.now().after(STOP_TICK)).await;
}

async fn accept(ring: Ring, listener: Listener, engine: Rc<RefCell<Engine>>, itself: Guest) {
    while !itself.house.stopping.get() {
        let Ok(socket) = listener.accept().await else {
            if !itself.house.stopping.get() {
                ring.sleep_until(ring.now().after(ACCEPT_PAUSE)).await;
            }
            continue;
        };
        if itself.house.guests.get() > CONNECTIONS_MAX {
            continue;
        }
        let guest = Guest::new(&itself.house);
        let work = serve(ring.clone(), socket.stay(), Rc::clone(&engine));
        ring.spawn(async move { guest.until_stopped(work).await });
    }
}

/// The tasks of one simulator, so that they can be counted and told to end.
#[derive(Default)]
struct House {
    guests: Cell<usize>,
    last: Cell<u64>,
    stopping: Cell<bool>,
    wakers: RefCell<HashMap<u64, Waker>>,
}

impl House {
    fn stop(&self) {
        self.stopping.set(true);
        self.wakers.take().into_values().for_each(Waker::wake);
    }
}

/// One task.
struct Guest {
    house: Rc<House>,
    number: u64,
}

impl Guest {
    fn new(house: &Rc<House>) -> Guest {
        house.guests.set(house.guests.get() + 1);
        house.last.set(house.last.get() + 1);
        Guest { house: Rc::clone(house), number: house.last.get() }
    }

    /// Runs `work` to its end, or drops it when the simulator stops.
    async fn until_stopped(&self, work: impl Future<Output = ()>) {
        let (mut work, mut known) = (pin!(work), false);
        poll_fn(|cx| {
            if self.house.stopping.get() {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut known, true) {
                self.house.wakers.borrow_mut().insert(self.number, cx.waker().clone());
            }
            work.as_mut().poll(cx)
        })
        .await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.house.guests.set(self.house.guests.get().saturating_sub(1));
        self.house.wakers.borrow_mut().remove(&self.number);
    }
}
