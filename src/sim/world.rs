//! A machine made of nothing but a seed: a virtual clock, and a scheduler whose choices the seed makes.
//!
//! Time stands still while a task runs and moves a few microseconds between two; when no task is ready it jumps to the
//! next timer. A task is polled only when it was woken, as on the real machine, so that a waker that was lost is a
//! task that never ends. What a panic ends is one task.

use super::pipe::{self, Manner, PipeOutbox};
use crate::{
    base::{Mono, Rng, Span, Wall},
    rt::{Runtime, Socket},
};
use crossbeam::queue::SegQueue;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// The timer's tick, in nanoseconds: that of the real machine.
const TICK_NS: u64 = 1_000_000;
/// Lines of the trace that are kept for a report.
const TRACE_LINES_MAX: usize = 80;
/// The wall clock when the world begins: 2026-01-01T00:00:00Z.
const WALL_START: Wall = Wall(1_767_225_600_000);

/// What a listener does with a connection that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes it.
    Accept,
    /// Answers with a reset.
    Refuse,
    /// Does not answer at all.
    Swallow,
}

/// What takes the far end of a connection to a listener.
pub type Service = Rc<dyn Fn(World, Socket<PipeOutbox>)>;
/// What a listener does with its next connection, and how its bytes will travel.
pub type Greeting = Rc<dyn Fn(&World) -> (Mood, Manner)>;

#[derive(Clone)]
struct Listener {
    greet: Greeting,
    serve: Service,
}

struct Woken {
    task: usize,
    is_queued: AtomicBool,
    ready: Arc<SegQueue<usize>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.task);
        }
    }
}

struct Task {
    woken: Arc<Woken>,
    work: Pin<Box<dyn Future<Output = ()>>>,
}

struct Inner {
    now: Cell<Mono>,
    wall_skew_ms: Cell<i64>,
    rng: RefCell<Rng>,
    /// By number; `None` once a task has ended, or while it runs.
    tasks: RefCell<Vec<Option<Task>>>,
    ready: Arc<SegQueue<usize>>,
    timers: RefCell<BTreeMap<(Mono, u64), Waker>>,
    timer_count: Cell<u64>,
    fates: RefCell<Vec<Fate>>,
    listeners: RefCell<BTreeMap<SocketAddr, Listener>>,
    spurious: Cell<bool>,
    panics: Cell<u64>,
    trace: Trace,
    breaches: RefCell<Vec<(&'static str, String)>>,
}

#[derive(Default)]
struct Trace {
    hash: Cell<u64>,
    lines: RefCell<VecDeque<(Mono, &'static str, u64, u64)>>,
    is_loud: Cell<bool>,
}

/// What became of a connection, by side: 0 is the one that connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// When the side was told that the other one had finished or broken off.
    pub heard: [Option<Mono>; 2],
    /// When the side let go of its writing half.
    pub let_go: [Option<Mono>; 2],
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quiet {
    /// How often a task was polled.
    pub steps: u64,
    /// Tasks that wait for something that will never come.
    pub stuck: usize,
    /// The run was ended because it did not end.
    pub endless: bool,
}

/// The world. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct World(Rc<Inner>);

impl World {
    /// The world of `seed`.
    pub fn new(seed: u64) -> World {
        World(Rc::new(Inner {
            now: Cell::new(Mono(1)),
            wall_skew_ms: Cell::new(0),
            rng: RefCell::new(Rng(seed)),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            timer_count: Cell::new(0),
            fates: RefCell::default(),
            listeners: RefCell::default(),
            spurious: Cell::new(false),
            panics: Cell::new(0),
            trace: Trace::default(),
            breaches: RefCell::default(),
        }))
    }

    /// A number in `0..n`; zero when `n` is zero.
    pub fn roll(&self, n: u64) -> u64 {
        self.0.rng.borrow_mut().below(n)
    }

    /// Whether something comes about that has one chance in `n`.
    pub fn chance(&self, n: u64) -> bool {
        self.roll(n) == 0
    }

    /// Tasks are now and then polled although nobody has woken them, which every future must bear.
    pub fn poll_spuriously(&self) {
        self.0.spurious.set(true);
    }

    /// Prints the trace as it grows.
    pub fn be_loud(&self) {
        self.0.trace.is_loud.set(true);
    }

    /// Moves the wall clock, and only that.
    pub fn jump_wall(&self, ms: i64) {
        self.note("wall clock jumps", ms.unsigned_abs(), u64::from(ms < 0));
        self.0.wall_skew_ms.set(self.0.wall_skew_ms.get().saturating_add(ms));
    }

    /// Connections to `address` from now on.
    pub fn listen(&self, address: SocketAddr, greet: Greeting, serve: Service) {
        self.0.listeners.borrow_mut().insert(address, Listener { greet, serve });
    }

    /// A number for a new connection.
    pub(super) fn next_connection(&self) -> u64 {
        let mut fates = self.0.fates.borrow_mut();
        fates.push(Fate::default());
        fates.len() as u64 - 1
    }

    /// Writes down what becomes of a connection.
    pub(super) fn fated(&self, connection: u64, change: impl FnOnce(&mut Fate, Mono)) {
        if let Some(fate) = self.0.fates.borrow_mut().get_mut(connection as usize) {
            change(fate, self.now());
        }
    }

    /// What became of the connections, by number.
    pub fn fates(&self) -> Vec<Fate> {
        self.0.fates.borrow().clone()
    }

    /// Takes a step of the story down. Two runs of one seed leave the same trace.
    pub fn note(&self, what: &'static str, a: u64, b: u64) {
        let (trace, now) = (&self.0.trace, self.now());
        let mut hash = trace.hash.get();
        for word in [now.0, what.len() as u64, a, b] {
            hash = (hash.rotate_left(7) ^ word).wrapping_mul(0x0100_0000_01b3).wrapping_add(0x9e37_79b9);
        }
        trace.hash.set(hash);
        let mut lines = trace.lines.borrow_mut();
        if lines.len() == TRACE_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back((now, what, a, b));
        if trace.is_loud.get() {
            let_it_be_heard(&line(&(now, what, a, b)));
        }
    }

    /// The trace in one number.
    pub fn trace_hash(&self) -> u64 {
        self.0.trace.hash.get()
    }

    /// The last lines of the trace.
    pub fn trace_tail(&self) -> Vec<String> {
        self.0.trace.lines.borrow().iter().map(line).collect()
    }

    /// An invariant was seen broken while the world ran.
    pub fn breach(&self, invariant: &'static str, detail: String) {
        self.note("breach", 0, 0);
        self.0.breaches.borrow_mut().push((invariant, detail));
    }

    /// What was seen broken so far.
    pub fn take_breaches(&self) -> Vec<(&'static str, String)> {
        self.0.breaches.take()
    }

    /// Panics that were contained.
    pub fn panics(&self) -> u64 {
        self.0.panics.get()
    }

    /// Runs until nothing can move, or for `steps_max` steps.
    pub fn run(&self, steps_max: u64) -> Quiet {
        let mut quiet = Quiet::default();
        let mut ready = Vec::new();
        loop {
            self.wake_due();
            ready.extend(std::iter::from_fn(|| self.0.ready.pop()));
            if self.0.spurious.get() && !ready.is_empty() && self.chance(16) {
                let any = self.roll(self.0.tasks.borrow().len() as u64) as usize;
                self.poll(any);
            }
            if ready.is_empty() {
                let next = self.0.timers.borrow().keys().next().map(|(at, _)| *at);
                let Some(at) = next else { break };
                self.0.now.set(at.max(self.now()));
                continue;
            }
            let task = ready.swap_remove(self.roll(ready.len() as u64) as usize);
            self.poll(task);
            self.0.now.set(self.now().after(Span(1_000 + self.roll(30_000))));
            quiet.steps += 1;
            if quiet.steps == steps_max {
                quiet.endless = true;
                break;
            }
        }
        quiet.stuck = self.0.tasks.borrow().iter().flatten().count();
        quiet
    }

    /// Drops every task that is left, so that what they hold is let go.
    pub fn end(&self) {
        let tasks = self.0.tasks.take();
        drop(tasks);
        self.0.timers.take();
        self.0.listeners.take();
        let late = self.0.tasks.take();
        drop(late);
    }

    fn wake_due(&self) {
        loop {
            let mut timers = self.0.timers.borrow_mut();
            match timers.first_entry() {
                Some(first) if first.key().0 <= self.now() => {
                    let waker = first.remove();
                    drop(timers);
                    waker.wake();
                }
                _ => return,
            }
        }
    }

    fn poll(&self, number: usize) {
        let taken = self.0.tasks.borrow_mut().get_mut(number).and_then(Option::take);
        let Some(mut task) = taken else { return };
        task.woken.is_queued.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&task.woken));
        let polled = catch_unwind(AssertUnwindSafe(|| task.work.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(Poll::Pending) => {
                if let Some(place) = self.0.tasks.borrow_mut().get_mut(number) {
                    *place = Some(task);
                }
                return;
            }
            Ok(Poll::Ready(())) => {}
            Err(_) => {
                self.note("a panic is contained", number as u64, 0);
                self.0.panics.set(self.0.panics.get() + 1);
            }
        }
        drop(task);
    }
}

fn line((at, what, a, b): &(Mono, &'static str, u64, u64)) -> String {
    format!("{:>12.3} ms  {what} {a} {b}", at.0 as f64 / 1e6)
}

/// Prints a line for whoever replays a seed.
#[expect(clippy::print_stderr, reason = "asked for by whoever replays a seed")]
pub fn let_it_be_heard(line: &str) {
    eprintln!("{line}");
}

impl Runtime for World {
    type Outbox = PipeOutbox;

    fn now(&self) -> Mono {
        self.0.now.get()
    }

    fn wall(&self) -> Wall {
        let passed = (self.now().0 / 1_000_000) as i64;
        Wall(WALL_START.0.saturating_add_signed(passed.saturating_add(self.0.wall_skew_ms.get())))
    }

    fn sleep_until(&self, at: Mono) -> impl Future<Output = ()> + 'static {
        // A timer that is due already fires at once; all others at the end of their tick.
        let at = if at <= self.now() { at } else { Mono(at.0.div_ceil(TICK_NS).saturating_mul(TICK_NS)) };
        Sleep { world: self.clone(), at, key: None }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.0.tasks.borrow_mut();
        let number = tasks.len();
        let ready = Arc::clone(&self.0.ready);
        let woken = Arc::new(Woken { task: number, is_queued: AtomicBool::new(true), ready });
        tasks.push(Some(Task { woken, work: Box::pin(task) }));
        self.0.ready.push(number);
    }

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Socket<PipeOutbox>>> + 'static {
        self.connect_in(to, None)
    }
}

impl World {
    /// Connects, on a connection of this manner, or of the listener's.
    pub fn connect_in(
        &self,
        to: SocketAddr,
        manner: Option<Manner>,
    ) -> impl Future<Output = io::Result<Socket<PipeOutbox>>> + 'static {
        let world = self.clone();
        async move {
            let latency = Span::from_ms(world.roll(4));
            world.sleep_until(world.now().after(latency)).await;
            let listener = world.0.listeners.borrow().get(&to).cloned();
            let Some(listener) = listener else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            match (listener.greet)(&world) {
                (Mood::Accept, usual) => {
                    let (near, far) = pipe::pair(&world, to, manner.unwrap_or(usual));
                    (listener.serve)(world, far);
                    Ok(near)
                }
                (Mood::Refuse, _) => Err(io::ErrorKind::ConnectionRefused.into()),
                (Mood::Swallow, _) => poll_fn(|_| Poll::Pending).await,
            }
        }
    }
}

/// A timer. Dropping it takes it off the clock.
struct Sleep {
    world: World,
    at: Mono,
    key: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.at {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            let count = &self.world.0.timer_count;
            count.set(count.get() + 1);
            count.get()
        });
        self.key = Some(key);
        self.world.0.timers.borrow_mut().insert((self.at, key), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.world.0.timers.borrow_mut().remove(&(self.at, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_at_the_end_of_their_tick() {
        let world = World::new(1);
        let fired = Rc::new(RefCell::new(Vec::new()));
        for ms in [30, 10, 20] {
            let (world, fired) = (world.clone(), Rc::clone(&fired));
            world.clone().spawn(async move {
                world.sleep_until(Mono(ms * 1_000_000 - 5)).await;
                fired.borrow_mut().push((ms, world.now()));
            });
        }
        assert_eq!(world.run(100), Quiet { steps: 6, stuck: 0, endless: false });
        let fired = fired.take();
        assert_eq!(fired.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(), [10, 20, 30]);
        assert!(fired.iter().all(|(ms, at)| at.0 >= ms * 1_000_000 && at.0 < (ms + 1) * 1_000_000), "{fired:?}");
    }

    #[test]
    fn a_panic_ends_one_task_and_is_counted() {
        let world = World::new(1);
        let done = Rc::new(Cell::new(false));
        world.spawn(async { panic!("contained") });
        let seen = Rc::clone(&done);
        world.spawn(async move { seen.set(true) });
        assert_eq!(world.run(100).stuck, 0);
        assert_eq!((world.panics(), done.get()), (1, true));
    }

    #[test]
    fn a_lost_waker_is_a_stuck_task_and_an_endless_one_is_stopped() {
        let world = World::new(1);
        world.spawn(poll_fn(|_| Poll::Pending));
        assert_eq!(world.run(100), Quiet { steps: 1, stuck: 1, endless: false });
        world.spawn(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        assert!(world.run(100).endless);
        world.end();
    }

    #[test]
    fn the_seed_chooses_who_runs_first() {
        let order = |seed| {
            let world = World::new(seed);
            let order = Rc::new(RefCell::new(Vec::new()));
            for n in 0..6 {
                let order = Rc::clone(&order);
                world.spawn(async move { order.borrow_mut().push(n) });
            }
            world.run(100);
            order.take()
        };
        assert_eq!(order(5), order(5));
        assert!((0..20).any(|seed| order(seed) != order(5)));
    }
}
