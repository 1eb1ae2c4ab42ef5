//! The thread that may block, so that no core ever does: names, model lists, certificates, the access log, the
//! operator's listeners.
//! Downwards it publishes `Live`; upwards it reads each core's telemetry. Workers never wait for it, and serve on when
//! it is slow.

pub mod admin;
pub mod certificates;
pub mod drains;
pub mod explain;
pub mod health;
pub mod levers;
pub mod line;
pub mod metrics;
pub mod models;
pub mod names;
pub mod probe;
pub mod recent;
pub mod reload;
pub mod resolve;
pub mod signals;
pub mod sink;
pub mod upstreams;
pub mod used;
pub mod view;
pub mod way;

pub use line::Format;
pub use signals::{Signals, Stop};
pub use sink::Outputs;

use crate::{
    base::Span,
    config::{Source, Trace},
    net::TlsBySlot,
    rt::ring::{mono, wall},
    table::{Table, live::Live},
    telemetry::{RECORDS_MAX, Telemetry},
    upstream,
};
use admin::Scope;
use arc_swap::ArcSwap;
use drains::Drains;
use health::{Pulse, Readiness};
use names::Names;
use recent::Recent;
use reload::Reloads;
use sink::{PIECE_BYTES, Sink, SinkEnd};
use std::{
    future::Future,
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, oneshot},
};

/// How often the cores' records are fetched.
const LOG_TICK: Span = Span::from_ms(20);
/// How often the workers' pulses are taken.
const PULSE_TICK: Span = Span::from_ms(500);
/// How often a waiting task looks whether there is another table.
const TABLE_TICK: Span = Span::from_secs(1);
/// The pause before a task that panicked begins anew.
const RESTART: Span = Span::from_secs(1);
/// Threads for look-ups, each of which may block for long.
const BLOCKING_THREADS_MAX: usize = 16;

/// What the control thread works with.
pub struct Options {
    /// The configuration in force; the next ones are published here.
    pub table: Arc<ArcSwap<Table>>,
    /// Where the table came from, and what it was read from; without it there are no further ones.
    pub configuration: Option<(Source, Trace)>,
    /// Published here, and by nobody else.
    pub live: Arc<ArcSwap<Live>>,
    /// TLS settings for the table's upstreams; those of further ones are published here.
    pub tls: Arc<ArcSwap<TlsBySlot>>,
    /// What is known of upstreams; room for those of further tables is made here.
    pub upstreams: Arc<ArcSwap<upstream::Health>>,
    /// Read, and written only where it says so.
    pub telemetry: Arc<Telemetry>,
    /// Set once the process is going down.
    pub draining: Arc<AtomicBool>,
    /// What the access log looks like.
    pub format: Format,
    /// Where it goes.
    pub outputs: Outputs,
    /// The operator's listener, bound.
    pub admin: Option<TcpListener>,
    /// The listener with health and metrics only, bound.
    pub health: Option<TcpListener>,
}

/// What the tasks of the control thread share.
pub struct Control {
    table: Arc<ArcSwap<Table>>,
    live: Arc<ArcSwap<Live>>,
    tls: Arc<ArcSwap<TlsBySlot>>,
    upstreams: Arc<ArcSwap<upstream::Health>>,
    drains: Drains,
    names: ArcSwap<Names>,
    /// Held over no wait, so that whoever wants it has it.
    recent: Mutex<Recent>,
    reloads: Reloads,
    telemetry: Arc<Telemetry>,
    draining: Arc<AtomicBool>,
    format: Format,
    sink: Sink,
    pulses: Vec<Pulse>,
}

/// Ends the control thread. Dropped without `shutdown`, it ends it as well but does not wait.
pub struct ControlHandle {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ControlHandle {
    /// Writes what is left of the access log and ends the thread; waits for an output that does not take it for two
    /// seconds. Call it when the workers have ended.
    pub fn shutdown(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Starts the control thread. When this returns, `live` has the upstreams that are given by address; names follow.
///
/// # Errors
/// When a thread, the event loop or a listener cannot be set up.
pub fn start(options: Options) -> io::Result<ControlHandle> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()?;
    let adopt = |listener: Option<TcpListener>| {
        let _entered = runtime.enter();
        let adopted = listener.map(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        });
        adopted.transpose()
    };
    let listeners = [(adopt(options.admin)?, Scope::Admin), (adopt(options.health)?, Scope::Health)];
    let (sink, end) = Sink::open(options.outputs)?;
    let pulses = options.telemetry.cores.iter().map(|_| Pulse::new(mono())).collect();
    let reloads = Reloads::new(options.configuration, &options.table.load());
    let names = Names::default().and(&options.table.load());
    if reloads.can_reload() {
        // From here on a hang-up does not end the process; the task that minds it comes later.
        let _entered = runtime.enter();
        drop(signal(SignalKind::hangup())?);
    }
    let control = Arc::new(Control {
        table: options.table,
        live: options.live,
        tls: options.tls,
        upstreams: options.upstreams,
        drains: Drains::default(),
        names: ArcSwap::from_pointee(names),
        recent: Mutex::default(),
        reloads,
        telemetry: options.telemetry,
        draining: options.draining,
        format: options.format,
        sink,
        pulses,
    });
    let mut live = resolve::literals(&control.table.load(), wall());
    live.fronts.clone_from(&control.live.load().fronts);
    control.live.store(Arc::new(live));
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("forebay-control".into())
        .spawn(move || live_through(runtime, control, listeners, stopped, end))?;
    Ok(ControlHandle { stop, thread })
}

type Listeners = [(Option<tokio::net::TcpListener>, Scope); 2];

/// The life of the control thread.
fn live_through(
    runtime: Runtime,
    control: Arc<Control>,
    listeners: Listeners,
    stopped: oneshot::Receiver<()>,
    end: SinkEnd,
) {
    runtime.block_on(async {
        tokio::spawn(keep("resolve", RESTART, Arc::clone(&control), resolve::run));
        tokio::spawn(keep("certificates", RESTART, Arc::clone(&control), certificates::run));
        tokio::spawn(keep("models", RESTART, Arc::clone(&control), models::run));
        tokio::spawn(keep("pulses", RESTART, Arc::clone(&control), take_pulses));
        tokio::spawn(keep("drains", RESTART, Arc::clone(&control), levers::run));
        tokio::spawn(keep("log", RESTART, Arc::clone(&control), write_log));
        tokio::spawn(keep("watch", RESTART, Arc::clone(&control), reload::watch::run));
        tokio::spawn(keep("hangups", RESTART, Arc::clone(&control), reload::hangups));
        for (listener, scope) in listeners {
            let Some(listener) = listener.map(Arc::new) else { continue };
            let serve = move |control| admin::run(control, Arc::clone(&listener), scope);
            tokio::spawn(keep("listener", RESTART, Arc::clone(&control), serve));
        }
        let _ = stopped.await;
    });
    runtime.shutdown_background(); // a look-up may block for half a minute yet
    control.drain_records();
    drop(control);
    end.wait();
}

/// Runs a task that should never end; `pause` after a panic it begins anew.
async fn keep<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    pause: Span,
    control: Arc<Control>,
    run: impl Fn(Arc<Control>) -> F,
) {
    while let Err(ended) = tokio::spawn(run(Arc::clone(&control))).await {
        if !ended.is_panic() {
            return;
        }
        control.telemetry.panics.add(1);
        control.sink.notice(&format!("the task `{name}` panicked; it begins anew. Please report this"));
        tokio::time::sleep(pause.to_std()).await;
    }
}

async fn take_pulses(control: Arc<Control>) {
    loop {
        health::not_alive(&control.telemetry, &control.pulses, mono());
        tokio::time::sleep(PULSE_TICK.to_std()).await;
    }
}

async fn write_log(control: Arc<Control>) {
    loop {
        control.drain_records();
        tokio::time::sleep(LOG_TICK.to_std()).await;
    }
}

impl Control {
    /// Publishes `live` as `change` leaves it; when that says `None`, there is nothing new. Only the control thread
    /// writes, and nothing waits in here, so that no change is lost.
    fn change_live(&self, upstreams: usize, change: impl FnOnce(&mut Live) -> Option<()>) {
        let mut live = Live::clone(&self.live.load());
        live.grow(upstreams);
        if change(&mut live).is_some() {
            self.live.store(Arc::new(live));
        }
    }

    /// Waits for `span`, or until the table is not of `generation` any more.
    async fn pause(&self, span: Span, generation: u64) {
        let until = mono().after(span);
        while mono() < until && self.table.load().generation == generation {
            let step = until.since(mono()).min(TABLE_TICK);
            tokio::time::sleep(step.to_std()).await;
        }
    }

    fn readiness(&self) -> Readiness {
        let stuck = health::not_alive(&self.telemetry, &self.pulses, mono());
        let draining = self.draining.load(Ordering::Acquire);
        let (table, live) = (self.table.load(), self.live.load());
        let mut readiness = health::readiness(&self.telemetry, &table, &live, draining, stuck);
        readiness.warnings.extend(certificates::warnings(&table, &live, wall()));
        readiness.warnings.extend(levers::warnings(&self.drains, mono(), wall()));
        readiness.warnings.extend(reload::pages::warning(&self.reloads.status(), table.generation));
        readiness
    }

    /// Makes what is known of upstreams say what is drained.
    fn apply_drains(&self) {
        self.drains.apply(&self.table.load(), &self.upstreams.load());
    }

    /// What `look` sees of the recent exchanges.
    fn with_recent<T>(&self, look: impl FnOnce(&Recent) -> T) -> T {
        match self.recent.try_lock() {
            Ok(recent) => look(&recent),
            Err(_) => look(&Recent::default()), // cannot be: it is held over no wait, and by this thread only
        }
    }

    /// What `look` sees of the upstreams now.
    fn with_scene<T>(&self, look: impl FnOnce(&upstreams::Scene<'_>) -> T) -> T {
        let (table, live, health) = (self.table.load_full(), self.live.load_full(), self.upstreams.load_full());
        let (names, drains) = (self.names.load_full(), &self.drains);
        let (table, health, live, names) = (&*table, &*health, &*live, &*names);
        let (now, wall) = (mono(), wall());
        self.with_recent(|recent| look(&upstreams::Scene { table, health, live, drains, recent, names, now, wall }))
    }

    /// Fetches every core's records and hands their lines over; what the output does not take is counted as lost.
    fn drain_records(&self) {
        let (mut lines, mut count) = (Vec::new(), 0);
        let names = self.names.load();
        let mut recent = self.recent.try_lock();
        for core in &self.telemetry.cores {
            for record in std::iter::from_fn(|| core.pop()).take(RECORDS_MAX) {
                self.format.append(&record, &names, &mut lines);
                if let Ok(recent) = &mut recent {
                    recent.keep(&record, &names);
                }
                count += 1;
                if lines.len() >= PIECE_BYTES {
                    self.hand_over(&mut lines, &mut count);
                }
            }
        }
        self.hand_over(&mut lines, &mut count);
    }

    fn hand_over(&self, lines: &mut Vec<u8>, count: &mut u64) {
        if !lines.is_empty() && !self.sink.log(std::mem::take(lines)) {
            self.telemetry.lines_lost.add(*count);
        }
        *count = 0;
    }
}

#[cfg(test)]
mod tests;
