//! The simulation: the data path as it runs in production, `serve` and all below it, in a world that a seed makes up.
//! Clients, upstreams, cuts, delays, resets, jumps of the clock; and after each run the judge, who holds what everyone
//! saw against the invariants in `judge`. One seed is one run. `docs/simulation.md` tells how to replay one.
//!
//! Not here: TLS (its randomness is not the seed's), and the sockets of the kernel, which the loopback tests use.

pub mod client;
mod compiled;
pub mod content;
pub mod dice;
mod drawn;
pub mod judge;
pub mod message;
pub mod pipe;
pub mod plan;
pub mod provider;
pub mod request;
pub mod script;
pub mod world;

use crate::{
    base::{CredentialSlot, Mono, Span, UpstreamSlot},
    net::Conn,
    rt::{Runtime, Socket},
    serve::{self, Shard, drain, shard::Shared},
    table::live::{Addresses, Live},
    telemetry::{Core, Record},
    upstream::Health,
};
use arc_swap::ArcSwap;
use client::{Client, Saw};
use pipe::PipeOutbox;
use plan::{Drained, Ill, Illness, Plan, Reload};
use provider::{Providers, Seen};
use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use world::{Fate, Mood, Quiet, World};

/// More steps than any world of this size takes.
const STEPS_MAX: u64 = 3_000_000;
/// How often the worker keeps house: as the real one.
const HOUSEKEEPING: Span = Span::from_ms(100);
/// Where clients connect to.
const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 9, 9)), 8080);

/// Everything that was seen of one run: what the judge goes by.
#[derive(Clone, Default)]
pub struct Observed {
    /// What each client saw, in the order of the plan.
    pub clients: Vec<Saw>,
    /// What the upstreams saw.
    pub upstreams: Seen,
    /// When somebody wanted to connect to which upstream.
    pub knocks: Vec<(usize, Mono)>,
    /// The log.
    pub records: Vec<Record>,
    /// The counters that must have come back to zero, by name.
    pub gauges: Vec<(&'static str, i64)>,
    /// Exchanges by status, connections accepted, records lost.
    pub counted: [u64; 3],
    /// Most idle connections that the pool held for one upstream... over all upstreams.
    pub pool_max: usize,
    /// Most bytes of bodies that the process held.
    pub bodies_max: u64,
    /// How the world came to rest.
    pub quiet: Quiet,
    /// What became of the connections, by number.
    pub fates: Vec<Fate>,
    /// Panics that were contained.
    pub panics: u64,
    /// What was seen broken while the world ran.
    pub live: Vec<(&'static str, String)>,
}

/// What came of one run.
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What the seed made up.
    pub plan: Plan,
    /// What was seen.
    pub observed: Observed,
    /// The trace in one number.
    pub trace_hash: u64,
    /// The end of the trace.
    pub trace_tail: Vec<String>,
}

impl Outcome {
    /// What is wrong, by invariant; empty when nothing is.
    pub fn breaches(&self) -> Vec<(&'static str, String)> {
        judge::judge(&self.plan, &self.observed)
    }

    /// What to print about a seed that failed.
    pub fn report(&self, breaches: &[(&'static str, String)]) -> String {
        let mut text = format!("seed {} breaks {} invariant(s):\n", self.seed, breaches.len());
        for (invariant, detail) in breaches.iter().take(8) {
            let _ = writeln!(text, "  [{invariant}] {detail:.600}");
        }
        for line in self.trace_tail.iter().rev().take(25).rev() {
            let _ = writeln!(text, "    {line}");
        }
        let _ = write!(text, "replay: FOREBAY_SEED={} cargo test --test sim one_seed -- --nocapture", self.seed);
        text
    }
}

/// Whether an upstream is out of order in this way now.
fn is_ill(world: &World, ill: Option<Ill>, how: Illness) -> bool {
    ill.is_some_and(|ill| ill.how == how && ill.is_now(world.now()))
}

/// Runs one seed; prints the trace as it grows if `loud`.
pub fn run(seed: u64, loud: bool) -> Outcome {
    play(Plan::of(seed), loud)
}

/// Runs a story that a seed, or a test, has made up.
pub fn play(plan: Plan, loud: bool) -> Outcome {
    let seed = plan.seed;
    let world = World::new(seed);
    if plan.spurious {
        world.poll_spuriously();
    }
    if loud {
        world.be_loud();
        world::let_it_be_heard(&plan.tell());
    }
    let stage = Stage::new(&world, &plan);
    stage.open_upstreams(&plan);
    stage.open_front();
    let clients: Vec<Rc<Client>> = plan.visits.iter().map(|visit| Client::new(&world, visit)).collect();
    for client in &clients {
        world.spawn(Rc::clone(client).run(FRONT));
    }
    world.spawn(Rc::clone(&stage).keep_house(clients.clone()));
    stage.disturb(&plan);
    let quiet = world.run(STEPS_MAX);
    let observed = stage.observe(&clients, quiet);
    let outcome = Outcome { seed, plan, observed, trace_hash: world.trace_hash(), trace_tail: world.trace_tail() };
    world.end();
    outcome
}

/// forebay's side of the world, and the upstreams.
struct Stage {
    world: World,
    shard: Rc<Shard<World>>,
    core: Arc<Core>,
    shared: Shared,
    providers: Rc<Providers>,
    records: RefCell<Vec<Record>>,
    knocks: RefCell<Vec<(usize, Mono)>>,
    pool_max: Cell<usize>,
    bodies_max: Cell<u64>,
}

impl Stage {
    fn new(world: &World, plan: &Plan) -> Rc<Stage> {
        let mut live = Live::unknown(plan.sites.len());
        for (known, site) in live.addresses.iter_mut().zip(&plan.sites) {
            let addresses = site.addresses.iter().map(|(address, _)| *address).collect();
            *known = Addresses { known: addresses, resolved_at: Some(world.wall()), error: None, refused: false };
        }
        let table = compiled::table(plan, false);
        let shared = Shared {
            upstreams: Arc::new(ArcSwap::from_pointee(Health::default().grown_for(&table))),
            table: Arc::new(ArcSwap::from_pointee(table)),
            live: Arc::new(ArcSwap::from_pointee(live)),
            tls: Arc::new(ArcSwap::from_pointee(plan.sites.iter().map(|_| None).collect())),
            ratios: Arc::default(),
            bodies: Arc::new(AtomicU64::new(0)),
            draining: Arc::new(AtomicBool::new(false)),
        };
        let core = Arc::new(Core::new());
        let shard = Rc::new(Shard::new(world.clone(), 0, Arc::clone(&core), shared.clone(), plan.seed));
        let providers = Rc::new(Providers::new(plan));
        let (world, records, knocks) = (world.clone(), RefCell::default(), RefCell::default());
        let (pool_max, bodies_max) = (Cell::new(0), Cell::new(0));
        Rc::new(Stage { world, shard, core, shared, providers, records, knocks, pool_max, bodies_max })
    }

    fn open_upstreams(self: &Rc<Stage>, plan: &Plan) {
        for (at, site) in plan.sites.iter().enumerate() {
            for (address, moods) in &site.addresses {
                let (moods, manner, idle_ms, ill) = (*moods, plan.manner, site.idle_ms, site.ill);
                let stage = Rc::clone(self);
                let greet = Rc::new(move |world: &World| {
                    let roll = world.roll(10) as usize;
                    stage.knocks.borrow_mut().push((at, world.now()));
                    let mood = match roll {
                        _ if is_ill(world, ill, Illness::Refuses) => Mood::Refuse,
                        _ if is_ill(world, ill, Illness::Swallows) => Mood::Swallow,
                        _ if roll < moods[0] => Mood::Accept,
                        _ if roll < moods[0] + moods[1] => Mood::Refuse,
                        _ => Mood::Swallow,
                    };
                    (mood, manner)
                });
                let providers = Rc::clone(&self.providers);
                let serve = Rc::new(move |world: World, socket: Socket<PipeOutbox>| {
                    let work = provider::serve(Rc::clone(&providers), world.clone(), at, idle_ms, socket);
                    world.spawn(work);
                });
                self.world.listen(*address, greet, serve);
            }
        }
    }

    /// Takes clients as the worker does.
    fn open_front(self: &Rc<Stage>) {
        let greet = Rc::new(|_: &World| (Mood::Accept, pipe::Manner::PLAIN));
        let stage = Rc::clone(self);
        let serve = Rc::new(move |world: World, socket: Socket<PipeOutbox>| {
            let (shard, core) = (Rc::clone(&stage.shard), Arc::clone(&stage.core));
            world.spawn(async move {
                let _open = core.counters.connections.hold();
                core.counters.accepted.add(1);
                if shard.core.counters.connections.get() > shard.table().bounds.connections_max as i64 {
                    serve::connection::turn_away(&shard, Conn::plain(socket)).await;
                } else {
                    serve::connection(shard, Conn::plain(socket), 0).await;
                }
            });
        });
        self.world.listen(FRONT, greet, serve);
    }

    /// Sweeps the pool, fetches the log, and drops what is idle once everyone has gone.
    async fn keep_house(self: Rc<Stage>, clients: Vec<Rc<Client>>) {
        loop {
            self.world.sleep_until(self.world.now().after(HOUSEKEEPING)).await;
            self.pool_max.set(self.pool_max.get().max(self.shard.pool.borrow().len()));
            self.bodies_max.set(self.bodies_max.get().max(self.shared.bodies.load(Ordering::Relaxed)));
            let table = self.shard.table();
            self.shard.pool.borrow_mut().sweep(self.world.now(), |slot| table.upstream(slot).is_some());
            self.records.borrow_mut().extend(std::iter::from_fn(|| self.core.pop()));
            let is_quiet = self.core.counters.connections.get() == 0 && clients.iter().all(|client| client.is_done());
            let is_late = self.world.now() > Mono::default().after(Span::from_secs(20_000));
            if is_quiet || is_late {
                break;
            }
        }
        // Whatever is in the pool outlives nobody.
        self.shard.pool.take();
    }

    /// Lets the clock jump and the drain begin when the plan says so.
    fn disturb(self: &Rc<Stage>, plan: &Plan) {
        for (at_ms, by_ms) in plan.jumps.clone() {
            let stage = Rc::clone(self);
            self.world.spawn(async move {
                stage.world.sleep_until(Mono::default().after(Span::from_ms(at_ms))).await;
                stage.world.jump_wall(by_ms);
            });
        }
        for drained in plan.drained.clone() {
            let stage = Rc::clone(self);
            self.world.spawn(async move {
                stage.world.sleep_until(Mono::default().after(Span::from_ms(drained.at_ms))).await;
                stage.take_out(drained);
            });
        }
        if let Some(Reload { at_ms, .. }) = plan.reload {
            let (stage, table) = (Rc::clone(self), Arc::new(compiled::table(plan, true)));
            self.world.spawn(async move {
                stage.world.sleep_until(Mono::default().after(Span::from_ms(at_ms))).await;
                stage.world.note("reload", 0, 0);
                stage.shared.table.store(table);
            });
        }
        if let (Some(at_ms), Some([closes, ends])) = (plan.drains_at_ms, plan.drain()) {
            let stage = Rc::clone(self);
            self.world.spawn(async move {
                stage.world.sleep_until(Mono::default().after(Span::from_ms(at_ms))).await;
                stage.world.note("drain", 0, 0);
                stage.shared.draining.store(true, Ordering::Relaxed);
                stage.world.sleep_until(closes).await;
                stage.world.note("drain: closing", 0, 0);
                stage.shard.drain.advance(drain::Stage::Closing);
                stage.world.sleep_until(ends).await;
                stage.world.note("drain: ending", 0, 0);
                stage.shard.drain.advance(drain::Stage::Ending);
            });
        }
    }

    /// The operator takes something out of service.
    fn take_out(&self, Drained { at_ms, for_ms, site, credential }: Drained) {
        self.world.note("drained", site as u64, credential.map_or(0, |at| at as u64 + 1));
        let until = Mono::default().after(Span::from_ms(at_ms + for_ms));
        let (health, slot) = (self.shared.upstreams.load(), UpstreamSlot(site as u32));
        match credential {
            None => health.upstream(slot).map(|upstream| upstream.drained.set(until)),
            Some(at) => {
                let slot = self.shard.table().credential_slot(slot, at);
                slot.and_then(|slot| health.credential(slot)).map(|credential| credential.drained.set(until))
            }
        };
    }

    /// Requests that are said to be under way, over all credentials.
    fn in_flight(&self) -> i64 {
        let health = self.shared.upstreams.load();
        let slots = (0..self.shard.table().credential_slots_len() as u32).map(CredentialSlot);
        slots
            .filter_map(|slot| health.credential(slot))
            .map(|state| state.in_flight.load(Ordering::Relaxed) as i64)
            .sum()
    }

    fn observe(&self, clients: &[Rc<Client>], quiet: Quiet) -> Observed {
        let counters = &self.core.counters;
        self.records.borrow_mut().extend(std::iter::from_fn(|| self.core.pop()));
        Observed {
            clients: clients.iter().map(|client| client.saw()).collect(),
            upstreams: self.providers.seen.borrow().clone(),
            knocks: self.knocks.take(),
            records: self.records.take(),
            gauges: vec![
                ("connections", counters.connections.get()),
                ("exchanges", counters.exchanges.get()),
                ("streams", counters.streams.get()),
                ("requests under way at upstreams", self.in_flight()),
                ("bodies_bytes", counters.bodies_bytes.get()),
                ("body bytes of the process", self.shared.bodies.load(Ordering::Relaxed) as i64),
            ],
            counted: [
                (100..600).map(|status| counters.status(status).get()).sum(),
                counters.accepted.get(),
                counters.records_lost.get(),
            ],
            pool_max: self.pool_max.get(),
            bodies_max: self.bodies_max.get(),
            quiet,
            fates: self.world.fates(),
            panics: self.world.panics(),
            live: self.world.take_breaches(),
        }
    }
}
