//! Building everything from one table, in order: sockets, then workers, then the word that it listens; and taking it
//! down again. What can fail fails here, before a client is let in.

use crate::{
    base::{Rng, Span, UpstreamSlot},
    config::{Source, Trace},
    control::{self, Format, Outputs, Signals},
    net::listener,
    rt::ring::{mono, wall},
    serve::shard::Shared,
    table::{Driver, Table, live::Live},
    telemetry::Telemetry,
    upstream::Health,
    worker::{self, Assignment, Cpus, Mesh},
};
use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

/// How long the start waits for the workers and for the upstreams' names. Past it, forebay serves all the same: a
/// name that cannot be resolved now may be in a minute.
const READY_MAX: Span = Span::from_secs(3);
/// How often it looks.
const READY_TICK: Span = Span::from_ms(2);

/// Descriptors beside connections: listeners, rings, logs, look-ups.
const OTHER_FILES: u64 = 64;

/// The limit of open files of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// What the table's bounds may need.
    pub wanted: u64,
    /// The limit that the process was started with; `u64::MAX` is none.
    pub before: u64,
    /// The one in force.
    pub now: u64,
}

impl Files {
    /// How many `workers` may need under the bounds of `table`: each client has an upstream.
    pub fn wanted(table: &Table, workers: usize) -> u64 {
        let clients = (table.bounds.connections_max as u64).saturating_mul(workers as u64);
        clients.saturating_mul(2).saturating_add(OTHER_FILES)
    }

    /// The `connections_max` that `files` suffice for.
    pub fn connections(files: u64, workers: usize) -> u64 {
        (files.saturating_sub(OTHER_FILES) / 2 / (workers as u64).max(1)).max(1)
    }

    /// Raises the limit to what may be needed, as far as the hard limit lets us. It is never lowered.
    fn raise(wanted: u64) -> Files {
        let found = getrlimit(Resource::Nofile);
        let before = found.current.unwrap_or(u64::MAX);
        let goal = Files::goal(wanted, before, found.maximum.unwrap_or(u64::MAX));
        let set = goal > before && setrlimit(Resource::Nofile, Rlimit { current: Some(goal), ..found }).is_ok();
        Files { wanted, before, now: if set { goal } else { before } }
    }

    fn goal(wanted: u64, soft: u64, hard: u64) -> u64 {
        wanted.min(hard).max(soft)
    }
}

/// Why forebay did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A socket cannot be had.
    #[error("cannot listen on {address} ({what}): {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The setting that asks for it.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The TLS settings of an upstream do not work.
    #[error("upstream `{upstream}`: {error}")]
    Tls {
        /// Its name.
        upstream: Arc<str>,
        /// Why.
        error: String,
    },
    /// The system refuses a thread, a signal handler or an event loop.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running forebay.
pub struct Running {
    /// Where clients connect, in the table's order, with the ports that the system chose.
    pub addresses: Vec<SocketAddr>,
    /// Which of them speak TLS.
    pub secure: Vec<bool>,
    /// The operator's listener.
    pub admin: Option<SocketAddr>,
    /// The health listener.
    pub health: Option<SocketAddr>,
    /// Counters, and the driver of each worker.
    pub telemetry: Arc<Telemetry>,
    /// How many files may be open.
    pub files: Files,
    draining: Arc<AtomicBool>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    control: control::ControlHandle,
}

/// Starts everything; when this returns, clients are served. The table stays.
///
/// # Errors
/// See `BootError`.
pub fn start(table: Table) -> Result<Running, BootError> {
    start_from(table, None)
}

/// The same, and follows the `configuration` that the table was read from wherever it goes.
///
/// # Errors
/// See `BootError`.
pub fn start_from(table: Table, configuration: Option<(Source, Trace)>) -> Result<Running, BootError> {
    silence_panics();
    let cpus = worker::usable();
    let count = table.runtime.workers.unwrap_or_else(|| cpus.workers()).max(1);
    // 300 laptops with a few streams each are past the 1,024 that most shells and containers begin with.
    let files = Files::raise(Files::wanted(&table, count));
    let Sockets { addresses, by_worker, admin, health } = Sockets::bind(&table, count)?;
    let secure = table.listeners.iter().map(|listener| listener.tls.is_some()).collect();
    let telemetry = Arc::new(Telemetry::new(count, wall(), env!("CARGO_PKG_VERSION")));
    let tls = control::reload::client_tls(&table, &Vec::new());
    let tls = tls.map_err(|(upstream, error)| BootError::Tls { upstream, error })?;
    let shared = Shared {
        tls: Arc::new(ArcSwap::from_pointee(tls)),
        upstreams: Arc::new(ArcSwap::from_pointee(Health::default().grown_for(&table))),
        live: Arc::new(ArcSwap::from_pointee(first_live(&table)?)),
        table: Arc::new(ArcSwap::from_pointee(table)),
        ratios: Arc::default(),
        bodies: Arc::new(AtomicU64::new(0)),
        draining: Arc::new(AtomicBool::new(false)),
    };
    let local = |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let (admin_address, health_address) = (local(&admin), local(&health));
    let control = control::start(control::Options {
        table: Arc::clone(&shared.table),
        configuration,
        live: Arc::clone(&shared.live),
        tls: Arc::clone(&shared.tls),
        upstreams: Arc::clone(&shared.upstreams),
        telemetry: Arc::clone(&telemetry),
        draining: Arc::clone(&shared.draining),
        format: Format::of(shared.table.load().log),
        outputs: Outputs::standard()?,
        admin,
        health,
    })?;
    let mut workers = start_workers(by_worker, &cpus, &telemetry, &shared)?;
    wait_until_ready(&telemetry, &shared, &mut workers)?;
    Ok(Running {
        addresses,
        secure,
        admin: admin_address,
        health: health_address,
        telemetry,
        files,
        draining: shared.draining,
        workers,
        control,
    })
}

/// Every listening socket.
struct Sockets {
    addresses: Vec<SocketAddr>,
    by_worker: Vec<Vec<TcpListener>>,
    admin: Option<TcpListener>,
    health: Option<TcpListener>,
}

impl Sockets {
    fn bind(table: &Table, workers: usize) -> Result<Sockets, BootError> {
        let bind = |address, count, what| {
            listener::bind(address, count).map_err(|error| BootError::Listen { address, what, error })
        };
        let mut by_worker: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for wanted in &table.listeners {
            let sockets = bind(wanted.address, workers, "[listen]")?;
            addresses.extend(sockets.first().map(TcpListener::local_addr).transpose()?);
            by_worker.iter_mut().zip(sockets).for_each(|(worker, socket)| worker.push(socket));
        }
        let single = |address: Option<SocketAddr>, what| match address {
            Some(address) => Ok::<_, BootError>(bind(address, 1, what)?.pop()),
            None => Ok(None),
        };
        Ok(Sockets {
            addresses,
            by_worker,
            admin: single(table.admin, "[admin]")?,
            health: single(table.health, "[health]")?,
        })
    }
}

/// A thread for each worker, pinned where there are CPUs for all.
fn start_workers(
    sockets: Vec<Vec<TcpListener>>,
    cpus: &Cpus,
    telemetry: &Telemetry,
    shared: &Shared,
) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    let pinned = sockets.len() <= cpus.allowed.len();
    let force_epoll = shared.table.load().runtime.driver == Driver::Epoll;
    let mut seeds = Rng(wall().0 ^ mono().0.rotate_left(32) ^ u64::from(std::process::id()));
    let mesh = Mesh::new(&telemetry.cores);
    let mut workers = Vec::new();
    for ((number, listeners), core) in sockets.into_iter().enumerate().zip(&telemetry.cores) {
        let assignment = Assignment {
            worker: number as u16,
            cpu: pinned.then(|| cpus.allowed.get(number).copied()).flatten(),
            mesh: mesh.clone(),
            listeners,
            force_epoll,
            core: Arc::clone(core),
            shared: shared.clone(),
            seed: seeds.draw(),
        };
        let name = format!("forebay-{number}");
        workers.push(thread::Builder::new().name(name).spawn(move || worker::run(assignment))?);
    }
    Ok(workers)
}

impl Running {
    /// Waits for SIGINT or SIGTERM, then drains and ends; a second one ends at once, with exit code 1.
    ///
    /// # Errors
    /// A worker's, when its event loop ended by one.
    pub fn until_signal(self, mut signals: Signals) -> io::Result<()> {
        signals.wait();
        // Who asks twice does not want to wait.
        thread::Builder::new().name("forebay-signals".into()).spawn(move || {
            signals.wait();
            std::process::exit(1);
        })?;
        self.stop()
    }

    /// Takes no new work, lets exchanges in flight end within their bound, and ends.
    ///
    /// # Errors
    /// A worker's, when its event loop ended by one.
    pub fn stop(self) -> io::Result<()> {
        self.draining.store(true, Ordering::SeqCst);
        let mut result = Ok(());
        for worker in self.workers {
            let ended = worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            result = result.and(ended);
        }
        self.control.shutdown();
        result
    }
}

/// Nothing known about upstreams, and the certificates that the table came with.
fn first_live(table: &Table) -> Result<Live, BootError> {
    let fronts = control::certificates::fronts(&table.listeners);
    let fronts = fronts.map_err(|error| io::Error::other(format!("TLS: {error}")))?;
    Ok(Live { fronts, ..Live::unknown(table.upstream_slots_len()) })
}

fn wait_until_ready(
    telemetry: &Telemetry,
    shared: &Shared,
    workers: &mut Vec<JoinHandle<io::Result<()>>>,
) -> Result<(), BootError> {
    let until = mono().after(READY_MAX);
    loop {
        if let Some(ended) = workers.iter().position(JoinHandle::is_finished) {
            let result = workers.swap_remove(ended).join();
            return Err(result.ok().and_then(Result::err).unwrap_or_else(|| io::Error::other("a worker ended")).into());
        }
        let listening = telemetry.cores.iter().all(|core| core.listening());
        let live = shared.live.load();
        let known = |slot: u32| {
            let slot = UpstreamSlot(slot);
            !live.addresses_of(slot).is_empty() || live.address_error(slot).is_some()
        };
        if listening && (0..live.addresses.len() as u32).all(known) || mono() >= until {
            return Ok(());
        }
        thread::park_timeout(READY_TICK.to_std());
    }
}

/// A panic's message may hold a piece of a request. The place is enough to find it; it is counted where it is caught.
fn silence_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
        #[allow(clippy::print_stderr)] // the log may be what panicked
        {
            eprintln!("forebay: internal error{place}; please report it");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_needed_and_allowed_and_never_lowered() {
        assert_eq!(Files::goal(65_600, 1_024, 524_288), 65_600);
        assert_eq!(Files::goal(65_600, 1_024, 20_000), 20_000);
        assert_eq!(Files::goal(65_600, 100_000, 524_288), 100_000);
        assert_eq!(Files::goal(65_600, 1_024, u64::MAX), 65_600);
    }
}
