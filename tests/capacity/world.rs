//! Four credentials of an enforcing provider, an hour or a day of agents' requests, and virtual time: what `upstream`
//! chooses and counts is the product's, what is let in is the simulated provider's.
//!
//! A request arrives, a credential is chosen and claimed; some tens of milliseconds later the provider sees it, the
//! head of its answer comes after the time that a model thinks, and the answer streams. What is true of the provider
//! (how many requests it let in, what it refused) is read from the answers themselves.

use forebay::{
    base::{CallerSlot, Mono, Rng, Span, Wall},
    config::{self, host::Machine},
    mock::{Engine, LimitSet, Options, Request, Script, Step},
    table::Table,
    upstream::{Candidate, Choice, Demand, Health, Room, Sent, Spent, Told, Tried, View, choose},
    wire::ResponseHead,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// 2026-11-25T10:00:00Z, and a fraction of a second that is not round.
const WALL: Wall = Wall(1_795_600_800_317);
const START: Mono = Mono(77_000_000_123);
/// The longest body, in bytes: its tokens are a quarter.
const BODY_BYTES_MAX: usize = 2 << 20;
const MODEL: &str = "claude-opus-5-5";
const OUTPUT_MAX: u64 = 32_000;

/// One story.
pub struct Setting {
    pub seed: u64,
    /// Requests of our clients in all.
    pub requests: u64,
    /// What each credential's provider enforces.
    pub limits: [&'static str; 4],
    /// Input that all four together let in, in tokens a minute, and how much of that our clients send.
    pub total_per_minute: f64,
    pub load: f64,
    /// The share of the first credential's input that others spend, in per cent of its limit; `itpm` of it.
    pub others: Option<(u64, u64)>,
    /// The provider's clock is ahead of ours.
    pub skew_ms: u64,
    /// Answers tell nothing of limits, but for `retry-after`.
    pub tells_nothing: bool,
    /// Traffic begins at once, or rises over so many minutes.
    pub rises_over_minutes: f64,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Clone)]
pub struct Outcome {
    pub requests: u64,
    /// Requests that a client got no answer for.
    pub visible: u64,
    /// What the provider was asked, and refused, for each credential.
    pub asked: [u64; 4],
    pub refused: [u64; 4],
    /// The moments of the first refusals, in seconds from the start, and whose.
    pub refusals: Vec<(u64, usize)>,
    /// The most that was under way at once.
    pub in_flight_max: u64,
    /// Under way when all had ended.
    pub in_flight_end: u64,
    /// The most that arrived beyond what would have refilled, had the four been one bucket: in seconds of refill. What
    /// suffices for that is less than what the buckets hold.
    pub backlog_max_s: f64,
    /// How long it took, in virtual seconds.
    pub seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    /// The provider sees the request.
    Reaches(u64),
    /// The answer goes on.
    Steps(u64),
    /// Others send a request with the first credential.
    Others,
}

struct Exchange {
    input: u64,
    output: u64,
    tried: Tried,
    demand: Demand,
    draw: u64,
    candidate: Option<Candidate>,
    sent: Option<Sent>,
    script: Option<Script>,
    head: Vec<u8>,
    /// The head has been read.
    headed: bool,
    others: bool,
}

pub struct World<'a> {
    setting: &'a Setting,
    table: Table,
    health: Health,
    engines: Vec<Engine>,
    events: BinaryHeap<Reverse<(Mono, u64, Event)>>,
    exchanges: HashMap<u64, Exchange>,
    numbers: u64,
    rng: Rng,
    now: Mono,
    body: Vec<u8>,
    left: u64,
    /// What has arrived beyond what has refilled, in seconds of refill, and when that was.
    backlog: (f64, Mono),
    /// Until when traffic is heavier or lighter, and how much.
    mood: (Mono, f64),
    outcome: Outcome,
}

fn table() -> Table {
    let text = r#"
        listen = { address = "127.0.0.1:8080" }
        [[upstream]]
        name = "sim"
        provider = "anthropic"
        credentials = [{ name = "a", env = "A" }, { name = "b", env = "B" }, { name = "c", env = "C" }, { name = "d", env = "D" }]
        [[key]]
        name = "alice"
        hash = "sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
    "#;
    let env = |name: &str| Some(format!("sk-{name}"));
    config::parse(Path::new("forebay.toml"), text, &Machine { env: &env }).unwrap_or_else(|report| panic!("{report}"))
}

impl World<'_> {
    pub fn run(setting: &Setting) -> Outcome {
        let table = table();
        let engine = |at: usize| {
            let enforce = LimitSet::parse(setting.limits[at]).unwrap();
            Engine::new(Options { enforce, seed: setting.seed, log_rows_max: 16, ..Options::default() }).unwrap()
        };
        let mut body = format!("{{\"model\":\"{MODEL}\",").into_bytes();
        body.resize(BODY_BYTES_MAX, b' ');
        let mut world = World {
            setting,
            health: Health::default().grown_for(&table),
            table,
            engines: (0..4).map(engine).collect(),
            events: BinaryHeap::new(),
            exchanges: HashMap::new(),
            numbers: 0,
            rng: Rng(setting.seed),
            now: START,
            body,
            left: setting.requests,
            backlog: (0.0, START),
            mood: (START, 1.0),
            outcome: Outcome { requests: setting.requests, ..Outcome::default() },
        };
        world.at(START, Event::Arrives);
        if setting.others.is_some() {
            world.at(START, Event::Others);
        }
        while let Some(Reverse((when, _, event))) = world.events.pop() {
            world.now = when;
            world.happens(event);
        }
        let credentials: Vec<_> = world.table.credential_slots().map(|(slot, ..)| slot).collect();
        let states = credentials.into_iter().filter_map(|slot| world.health.credential(slot));
        world.outcome.in_flight_end = states.map(|state| state.in_flight.load(Relaxed)).sum();
        world.outcome.seconds = world.now.since(START).as_ms() / 1_000;
        world.outcome
    }

    fn at(&mut self, when: Mono, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((when, self.numbers, event)));
    }

    fn later(&mut self, span: Span, event: Event) {
        self.at(self.now.after(span), event);
    }

    /// Uniform in 0..1.
    fn unit(&mut self) -> f64 {
        self.rng.below(1 << 32) as f64 / (1_u64 << 32) as f64
    }

    fn wall(&self) -> Wall {
        Wall(WALL.0 + self.now.since(START).as_ms())
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives => self.arrives(),
            Event::Reaches(number) => self.reaches(number),
            Event::Steps(number) => self.steps(number),
            Event::Others => self.others_ask(),
        }
    }

    /// Most turns bring a tool's result; one in twenty a whole context without a cache.
    fn input(&mut self) -> u64 {
        let unit = self.unit();
        if self.rng.below(20) == 0 { 60_000 + (unit * 100_000.0) as u64 } else { (1_000.0 * 40_f64.powf(unit)) as u64 }
    }

    const INPUT_MEAN: f64 = 0.95 * 39_000.0 / 3.688_879 + 0.05 * 110_000.0;

    fn arrives(&mut self) {
        if self.left == 0 {
            return;
        }
        // A burst: a fleet that starts at once.
        let together = if self.rng.below(400) == 0 { 10 + self.rng.below(20) } else { 1 };
        for _ in 0..together.min(self.left) {
            self.left -= 1;
            let (input, output, draw) = (self.input(), 40 + self.rng.below(1_000), self.rng.draw());
            self.backs_up(input);
            // What is estimated from bytes is off by up to 15 %.
            let estimate = (input as f64 * (0.85 + 0.3 * self.unit())) as u64;
            let demand = Demand { input: estimate, output_max: OUTPUT_MAX, ..Demand::default() };
            let number = self.open(Exchange {
                input,
                output,
                tried: Tried::default(),
                demand,
                draw,
                candidate: None,
                sent: None,
                script: None,
                head: Vec::new(),
                headed: false,
                others: false,
            });
            self.ask(number);
        }
        let minutes = self.now.since(START).0 as f64 / 60e9;
        let risen = if self.setting.rises_over_minutes > 0.0 {
            (0.05 + minutes / self.setting.rises_over_minutes).min(1.0)
        } else {
            1.0
        };
        // A burst of a mean of 19.5 comes with one in 400.
        let mean_s = Self::INPUT_MEAN * (1.0 + 18.5 / 400.0) * 60.0
            / (self.setting.load * self.setting.total_per_minute)
            / risen;
        let gap_s = -(1.0 - self.unit()).ln() * mean_s / self.mood();
        self.later(Span((gap_s * 1e9) as u64), Event::Arrives);
    }

    fn backs_up(&mut self, input: u64) {
        let refilled = self.now.since(self.backlog.1).0 as f64 / 1e9;
        let arrived = input as f64 * 60.0 / self.setting.total_per_minute;
        self.backlog = ((self.backlog.0 - refilled).max(0.0) + arrived, self.now);
        self.outcome.backlog_max_s = self.outcome.backlog_max_s.max(self.backlog.0);
    }

    /// Traffic comes in waves of half a minute: half as much again, and half as much.
    fn mood(&mut self) -> f64 {
        if self.mood.0 <= self.now {
            let busy = if self.mood.1 > 1.0 { 0.6 } else { 1.4 };
            self.mood = (self.now.after(Span::from_secs(20 + self.rng.below(20))), busy);
        }
        self.mood.1
    }

    fn open(&mut self, exchange: Exchange) -> u64 {
        self.numbers += 1;
        self.exchanges.insert(self.numbers, exchange);
        self.numbers
    }

    /// The next attempt of a request, or its end.
    fn ask(&mut self, number: u64) {
        let (now, wall) = (self.now, self.wall());
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        let plan = self.table.resolve(CallerSlot(0), MODEL).unwrap();
        let view = View {
            table: &self.table,
            health: &self.health,
            plan,
            model: MODEL,
            demand: exchange.demand,
            bytes: exchange.input * 4,
            conversation: None,
            fallback: true,
            bound: false,
            counts_only: false,
            waited: Span::ZERO,
        };
        if exchange.tried.is_empty() {
            self.health.budget.note_request(now);
        }
        // A candidate whose last room another has taken meanwhile is chosen anew; here nobody else is at it.
        let Choice::Ask(candidate) = choose(&view, &exchange.tried, now, exchange.draw) else {
            self.outcome.visible += 1;
            self.exchanges.remove(&number);
            return;
        };
        let state = Arc::clone(self.health.credential(candidate.credential).unwrap());
        let limits = self.table.credential_limits(candidate.upstream, candidate.place);
        let (class, need) = (candidate.class, candidate.need);
        let sent = match Sent::claim(Arc::clone(&state), class, need, limits, now, wall) {
            Ok(sent) => sent,
            // It was chosen although it has no room, as the last resort.
            Err(Room::At(_) | Room::Refused(_)) => Sent::begin(state, class, need, limits, now, wall),
            Err(room) => panic!("{room:?} is room"),
        };
        (exchange.sent, exchange.candidate) = (Some(sent), Some(candidate));
        (exchange.script, exchange.headed) = (None, false);
        exchange.head.clear();
        self.outcome.in_flight_max = self.outcome.in_flight_max.max(self.exchanges.len() as u64);
        let way = Span::from_ms(10 + self.rng.below(80));
        self.later(way, Event::Reaches(number));
    }

    fn reaches(&mut self, number: u64) {
        let thinks_ms = 300 + (self.unit().powi(4) * 6_000.0) as u64;
        let gap_ms = 200 + self.rng.below(3_000);
        let now = self.now;
        let wall = Wall(self.wall().0 + self.setting.skew_ms);
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        let place = exchange.candidate.map_or(0, |candidate| candidate.place);
        let key = format!("sk-{place}");
        let bytes = exchange.output;
        let sim = format!("blind,first_byte_ms={thinks_ms},events=4,event_bytes={bytes},gap_ms={gap_ms},ping=0");
        let fields = [("x-api-key", key.as_bytes()), ("x-sim", sim.as_bytes())];
        let body = &self.body[..(exchange.input as usize * 4).min(BODY_BYTES_MAX)];
        let request = Request {
            method: "POST",
            target: "/v1/messages",
            fields: &fields,
            body,
            http10: false,
            keep_alive: true,
            loopback: true,
        };
        exchange.script = Some(self.engines[place].answer(now, wall, &request));
        if !exchange.others {
            self.outcome.asked[place] += 1;
        }
        self.steps(number);
    }

    fn steps(&mut self, number: u64) {
        let mut out = Vec::new();
        loop {
            let now = self.now;
            let Some(exchange) = self.exchanges.get_mut(&number) else { return };
            let place = exchange.candidate.map_or(0, |candidate| candidate.place);
            let Some(script) = exchange.script.as_mut() else { return };
            match self.engines[place].step(script, now, &mut out) {
                Step::Wait(span) => return self.later(span, Event::Steps(number)),
                Step::Send if exchange.headed || exchange.others => {}
                Step::Send => {
                    exchange.head.extend_from_slice(&out);
                    if self.reads_head(number) {
                        return;
                    }
                }
                Step::Finish | Step::Close | Step::Reset => {
                    if let Some(sent) = exchange.sent.as_mut() {
                        sent.finished(exchange.output, now);
                    }
                    self.exchanges.remove(&number);
                    return;
                }
            }
        }
    }

    /// Reads the head of an answer; true if it was a refusal, and the request has gone on or ended.
    fn reads_head(&mut self, number: u64) -> bool {
        let (now, wall) = (self.now, self.wall());
        let Some(exchange) = self.exchanges.get_mut(&number) else { return true };
        let mut head = ResponseHead::new();
        let bytes = &exchange.head;
        if head.parse(bytes, false).unwrap().is_none() {
            return false;
        }
        exchange.headed = true;
        let told = Told::read(head.fields.iter().map(|field| (field.name.of(bytes), field.value.of(bytes))), wall);
        let told =
            if self.setting.tells_nothing { Told { retry_after: told.retry_after, ..Told::default() } } else { told };
        let (sent, candidate) = (exchange.sent.as_mut().unwrap(), exchange.candidate.unwrap());
        match head.status {
            200 => {
                sent.answered(&told, now);
                return false;
            }
            429 => {
                sent.refused(&told, now);
                exchange.sent = None;
                exchange.tried.note(&candidate, Spent::Candidate);
            }
            status => panic!("status {status}"),
        }
        self.outcome.refused[candidate.place] += 1;
        if self.outcome.refusals.len() < 40 {
            self.outcome.refusals.push((now.since(START).as_ms() / 1_000, candidate.place));
        }
        self.ask(number);
        true
    }

    /// Others spend with the first credential what they can, in waves of two minutes: from a little to twice their mean.
    fn others_ask(&mut self) {
        let Some((percent, itpm)) = self.setting.others.filter(|_| self.left > 0) else { return };
        let input = 1_000 + self.rng.below(29_000);
        let number = self.open(Exchange {
            input,
            output: 300,
            tried: Tried::default(),
            demand: Demand::default(),
            draw: 0,
            candidate: None,
            sent: None,
            script: None,
            head: Vec::new(),
            headed: false,
            others: true,
        });
        self.reaches(number);
        let phase = self.now.since(START).0 as f64 / 120e9 * std::f64::consts::TAU;
        let per_second = (itpm * percent) as f64 / 100.0 / 60.0 * (1.0 + 0.9 * phase.sin());
        let gap_s = -(1.0 - self.unit()).ln() * 15_500.0 / per_second;
        self.later(Span((gap_s * 1e9) as u64), Event::Others);
    }
}
