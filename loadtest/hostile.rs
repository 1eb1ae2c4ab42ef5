//! Clients that mean harm, or are merely slow, on a thread of their own, while an honest open-loop client measures what
//! they do to it. When they have gone, every descriptor must be back.

use super::{
    limits,
    load::{Measured, Target},
    passthrough,
    process::{self, Descriptors},
    provider::StreamOrder,
    reactor, shapes,
};
use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// Nothing: what the honest client sees without them.
    None,
    /// Send a request's head byte by byte.
    SlowHead,
    /// Send a request's body byte by byte.
    SlowBody,
    /// Ask for streams that pour, and read a few bytes now and then.
    SlowReader,
    /// Say that they send no more, some of them after a request, and stay.
    HalfClose,
    /// Are there.
    Idle,
    /// Come and go, most of them in the middle of something.
    Churn,
}

impl Attack {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Attack::None => "no attack",
            Attack::SlowHead => "slowloris, heads",
            Attack::SlowBody => "slowloris, bodies",
            Attack::SlowReader => "slow readers",
            Attack::HalfClose => "half-closed connections",
            Attack::Idle => "idle connections",
            Attack::Churn => "churn",
        }
    }

    /// How many, how often each does something, and how long until all are in place.
    fn shape(self) -> (usize, Duration, Duration) {
        let ms = Duration::from_millis;
        match self {
            Attack::None => (0, ms(1000), ms(0)),
            Attack::SlowHead | Attack::SlowBody => (1_000, ms(1000), ms(2500)),
            Attack::SlowReader => (100, ms(100), ms(2000)),
            Attack::HalfClose => (200, ms(500), ms(1500)),
            Attack::Idle => (4_000, ms(1000), ms(3000)),
            Attack::Churn => (64, ms(100), ms(500)),
        }
    }

    /// Connections to the provider that may wait for the next request because of them.
    fn may_pool(self) -> usize {
        match self {
            // As many as both proxies are told to keep.
            Attack::HalfClose | Attack::Churn | Attack::Idle => 256,
            _ => 0,
        }
    }
}

/// What to do.
pub struct Plan {
    /// What they do.
    pub attack: Attack,
    /// Requests a second of the honest client.
    pub rate: f64,
}

/// What came out.
pub struct Attacked {
    /// What the honest client saw.
    pub healthy: Measured,
    /// Connections that the attack opened, and of those that the proxy ended.
    pub opened: usize,
    /// See `opened`.
    pub ended: usize,
    /// At the height of it.
    pub height: Descriptors,
    /// Descriptors that did not come back within ten seconds.
    pub missing: usize,
}

const BODY_BYTES: usize = 4_000;
const HEALTHY_CONNECTIONS: usize = 32;
const TURN: Duration = Duration::from_millis(10);
const FILL_MAX: Duration = Duration::from_secs(20);
const RETURN_MAX: Duration = Duration::from_secs(10);

/// Runs the plan.
///
/// # Errors
/// When there are too few descriptors, or the honest client cannot go on.
pub fn run(target: &Target, plan: &Plan) -> io::Result<Attacked> {
    let (crowd, _, in_place) = plan.attack.shape();
    limits::need_files(crowd as u64 + 256)?;
    let provider_port = target.provider.map_or(0, |provider| provider.port());
    let look = || process::descriptors(&target.pids, target.to.port(), provider_port);
    let healthy = passthrough::Plan {
        body_bytes: BODY_BYTES,
        connections: HEALTHY_CONNECTIONS,
        rate: Some(plan.rate),
        may_reopen: false,
    };
    let before = look();
    let (stop, opened, ended) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (measured, height) = thread::scope(|scope| {
        let attack = scope.spawn(|| attack(target, plan.attack, &stop, &opened, &ended));
        thread::sleep(in_place);
        if plan.attack == Attack::SlowReader {
            // Until every buffer on the way is full; filling them is no attack, and takes the machine's time.
            process::settle(&target.pids, FILL_MAX);
        }
        let measured = passthrough::run(target, &healthy);
        let height = look();
        stop.store(true, Ordering::Relaxed);
        match attack.join() {
            Ok(Ok(())) => Ok((measured?, height)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the attack broke off")),
        }
    })?;
    let upstreams_max = before.upstreams.max(HEALTHY_CONNECTIONS) + plan.attack.may_pool();
    let until = Instant::now() + RETURN_MAX;
    let missing = loop {
        let now = look();
        let missing = now.clients.saturating_sub(before.clients)
            + now.upstreams.saturating_sub(upstreams_max)
            + now.other.saturating_sub(before.other);
        if missing == 0 || Instant::now() > until {
            break missing;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let (opened, ended) = (opened.into_inner(), ended.into_inner());
    Ok(Attacked { healthy: measured, opened, ended, height, missing })
}

struct Attacker {
    stream: Option<TcpStream>,
    /// How often it has acted on this connection.
    acts: usize,
    next: Instant,
}

struct Crowd<'a> {
    to: SocketAddr,
    attack: Attack,
    request: Vec<u8>,
    opened: &'a AtomicUsize,
    ended: &'a AtomicUsize,
}

fn attack(
    target: &Target,
    attack: Attack,
    stop: &AtomicBool,
    opened: &AtomicUsize,
    ended: &AtomicUsize,
) -> io::Result<()> {
    let (count, every, in_place) = attack.shape();
    let pours = StreamOrder { events: 1_000_000, every: TURN, first: TURN, bytes: 16_000 }.render();
    let order = (attack == Attack::SlowReader).then_some(&*pours);
    let body = if attack == Attack::SlowBody { 100_000 } else { BODY_BYTES };
    let request = shapes::request(&target.key, order, &shapes::request_body(body));
    let crowd = Crowd { to: target.to, attack, request, opened, ended };
    let began = Instant::now();
    let begins = |number: usize| began + in_place * number as u32 * 4 / 5 / count.max(1) as u32;
    let mut attackers: Vec<Attacker> =
        (0..count).map(|number| Attacker { stream: None, acts: 0, next: begins(number) }).collect();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (number, attacker) in attackers.iter_mut().enumerate().filter(|(_, attacker)| attacker.next <= now) {
            attacker.next += every;
            crowd.act(number, attacker)?;
        }
        thread::sleep(TURN.saturating_sub(now.elapsed()));
    }
    attackers.into_iter().filter_map(|attacker| attacker.stream).for_each(limits::reset);
    Ok(())
}

impl Crowd<'_> {
    /// One attacker's turn. What the proxy has ended is opened again.
    fn act(&self, number: usize, attacker: &mut Attacker) -> io::Result<()> {
        let Some(stream) = &attacker.stream else {
            let narrow = self.attack == Attack::SlowReader;
            attacker.stream = Some(limits::connect(self.to, number, narrow.then_some(16 * 1024))?);
            attacker.acts = 0;
            self.opened.fetch_add(1, Ordering::Relaxed);
            return self.act(number, attacker);
        };
        let acts = attacker.acts;
        attacker.acts += 1;
        let odd = number % 2 == 1;
        let (head, body) = self
            .request
            .split_at(memchr::memmem::find(&self.request, b"\r\n\r\n").map_or(self.request.len(), |at| at + 4));
        let bytes = match self.attack {
            Attack::SlowHead => head.get(acts..=acts).unwrap_or_default(),
            Attack::SlowBody if acts == 0 => head,
            Attack::SlowBody => body.get(acts - 1..acts).unwrap_or_default(),
            Attack::SlowReader | Attack::HalfClose | Attack::Idle | Attack::Churn if acts == 0 && odd => &self.request,
            Attack::SlowReader if acts == 0 => &self.request,
            // Half a head, and gone at its next turn.
            Attack::Churn if acts == 0 && number.is_multiple_of(4) => head.get(..head.len() / 2).unwrap_or_default(),
            _ => &[],
        };
        let written = if bytes.is_empty() { Ok(0) } else { reactor::write(stream, bytes) };
        if self.attack == Attack::HalfClose && acts == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        if self.attack == Attack::Churn && acts > 0 {
            attacker.stream.take().into_iter().for_each(limits::reset);
            return Ok(());
        }
        let mut few = [0; 256];
        let mut much = [0; 16 * 1024];
        let into: &mut [u8] = if self.attack == Attack::SlowReader { &mut few } else { &mut much };
        if written.is_err() || !matches!(reactor::read(stream, into), Ok(None | Some(1..))) {
            self.ended.fetch_add(1, Ordering::Relaxed);
            attacker.stream = None;
        }
        Ok(())
    }
}
