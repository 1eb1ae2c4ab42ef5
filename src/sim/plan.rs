//! What a seed makes up: a configuration, upstreams, clients, and everything that will go wrong.
//!
//! What a request should lead to is worked out here, by a reading of the configuration that shares nothing with
//! `table`.

use super::{
    client,
    dice::Dice,
    pipe::{Cut, Manner},
    request::{self, Asked},
    script::Script,
};
use crate::{
    auth::key,
    base::{CallerSlot, Mono, Span, TeamSlot, UpstreamSlot, Wall},
    table::{
        Access, Bounds, Caller, Class, Credential, Digests, Hosts, Listener, LogFormat, Model, Org, Patience, Pattern,
        Provider, RuntimeSettings, SecretLine, Slots, Table, Target, Team, Upstream,
    },
};
use std::{fmt::Write, net::SocketAddr};

/// An upstream as made up.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Put before paths.
    pub base_path: String,
    /// The credential's field, as the upstream must see it.
    pub credential: (String, String),
    /// Where it is; what connects to an address, in tenths: accepted, refused, swallowed.
    pub addresses: Vec<(SocketAddr, [usize; 3])>,
    /// It closes connections that have been idle for so long.
    pub idle_ms: Option<u64>,
}

impl Site {
    /// Whether a connection can fail to come about.
    pub fn is_flaky(&self) -> bool {
        self.addresses.first().is_none_or(|(_, mood)| mood[0] < 10)
    }
}

/// A caller as made up.
#[derive(Clone, Debug)]
pub struct Person {
    /// The key.
    pub key: String,
    /// Refused before anything is asked, for this reason.
    pub refused: Option<&'static str>,
    /// The models that are open; `None` for all.
    pub models: Option<Vec<String>>,
    /// The upstreams that are open.
    pub sites: Vec<usize>,
    /// `/v1/files` is open.
    pub files: bool,
}

/// A model rule as made up.
#[derive(Clone, Debug)]
pub struct Rule {
    /// An id, or a beginning of ids with `*` behind it.
    pub name: String,
    /// Where it leads, in order, and under which id.
    pub targets: Vec<(usize, Option<String>)>,
}

/// How a client goes before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Closes.
    Close,
    /// Resets.
    Reset,
    /// Says that it will send no more, and goes on reading.
    HalfClose,
}

/// When a client goes before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After so many bytes of its requests.
    Sent(usize),
    /// After so many bytes of answers.
    Got(usize),
    /// After so many ms.
    After(u64),
}

/// A client as made up.
#[derive(Clone, Debug)]
pub struct Visit {
    /// When it comes, in ms.
    pub at_ms: u64,
    /// What it asks.
    pub asks: Vec<Asked>,
    /// It does not wait for answers.
    pub pipelines: bool,
    /// It pauses while sending: at an offset, in ms.
    pub pause: Option<(usize, u64)>,
    /// It stops reading for a while: at an offset, in ms.
    pub stall: Option<(usize, u64)>,
    /// It goes before its time.
    pub leaves: Option<(When, How)>,
    /// It waits for the server to close, in the end.
    pub waits: bool,
    /// How its bytes travel.
    pub manner: Manner,
}

/// Everything that a seed makes up.
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How long things may take, and the bounds.
    pub patience: Patience,
    /// The operator's bounds.
    pub bounds: Bounds,
    /// Upstreams.
    pub sites: Vec<Site>,
    /// Callers.
    pub people: Vec<Person>,
    /// Models.
    pub rules: Vec<Rule>,
    /// Clients.
    pub visits: Vec<Visit>,
    /// Futures are polled without being woken, too.
    pub spurious: bool,
    /// When the wall clock jumps, and by how many ms.
    pub jumps: Vec<(u64, i64)>,
    /// When the process begins to drain, in ms.
    pub drains_at_ms: Option<u64>,
    /// When a new configuration comes into force, in ms, and whose key it switches off.
    pub reload: Option<(u64, usize)>,
    /// How the bytes of upstream connections travel.
    pub manner: Manner,
    /// Some client connection's task panics.
    pub panics: bool,
}

/// Exact names, the beginnings of names, and names that lead nowhere.
const NAMES: [&str; 4] = ["claude-sonnet-5", "claude-opus-*", "fast", "claude-*"];

impl Plan {
    /// What `seed` makes up.
    pub fn of(seed: u64) -> Plan {
        let dice = &mut Dice::new(seed);
        let sites: Vec<Site> = (0..dice.between(1, 3)).map(|n| site(dice, n)).collect();
        let people: Vec<Person> = (0..dice.between(1, 4)).map(|_| person(dice, sites.len())).collect();
        let rules = rules(dice, sites.len());
        let mut plan = Plan {
            seed,
            patience: patience(dice),
            bounds: bounds(dice),
            sites,
            people,
            rules,
            visits: Vec::new(),
            spurious: dice.chance(4),
            jumps: Vec::new(),
            drains_at_ms: dice.chance(6).then(|| dice.below(20_000) as u64),
            reload: None,
            manner: manner(dice),
            panics: dice.chance(10),
        };
        plan.reload = dice.chance(3).then(|| (dice.size(20_000) as u64, dice.below(plan.people.len())));
        if dice.chance(4) {
            plan.jumps = (0..3)
                .map(|_| (dice.below(30_000) as u64, dice.between(0, 200_000_000) as i64 - 100_000_000))
                .collect();
        }
        let (count_max, mut id) = (*dice.pick(&[2, 6, 20]), 0);
        for _ in 0..dice.between(1, count_max) {
            let visit = visit(dice, &plan, &mut id);
            plan.visits.push(visit);
        }
        if plan.panics {
            let unlucky = dice.below(plan.visits.len());
            plan.visits[unlucky].manner.panic = Some((1, dice.between(1, 6) as u64));
        }
        plan
    }

    /// Where a request of `person` for `model` goes and under which id, or why it goes nowhere.
    pub fn resolve(&self, person: &Person, model: &str) -> Result<(usize, Option<String>), &'static str> {
        let is_of = |name: &str, id: &str| match name.strip_suffix('*') {
            Some(start) => id.starts_with(start),
            None => id == name,
        };
        let exact = self.rules.iter().find(|rule| rule.name == model);
        let rule = exact.or_else(|| self.rules.iter().find(|rule| is_of(&rule.name, model))).ok_or("model_unknown")?;
        if person.models.as_ref().is_some_and(|open| !open.iter().any(|name| is_of(name, model))) {
            return Err("model_denied");
        }
        let open = rule.targets.iter().find(|(site, _)| person.sites.contains(site));
        open.cloned().ok_or("upstreams_denied")
    }

    /// The story in a few lines, for whoever replays a seed.
    pub fn tell(&self) -> String {
        let mut text = format!("{:?}\n{:?}\nupstreams: {:?}\n", self.patience, self.bounds, self.manner);
        for site in &self.sites {
            let _ = writeln!(text, "  {} {:?} idle {:?}", site.name, site.addresses, site.idle_ms);
        }
        for visit in &self.visits {
            let _ = writeln!(
                text,
                "client at {} ms: pipelines {}, pause {:?}, stall {:?}, leaves {:?}, waits {}, {:?}",
                visit.at_ms, visit.pipelines, visit.pause, visit.stall, visit.leaves, visit.waits, visit.manner
            );
            for asked in &visit.asks {
                let scripts: Vec<String> = asked.scripts.iter().map(Script::tell).collect();
                let (method, target, bytes) = (asked.method, &asked.target, asked.wire.len());
                let _ =
                    writeln!(text, "  {}: {method} {target} {bytes} bytes {:?}: {scripts:?}", asked.id, asked.expect);
            }
        }
        text
    }

    /// When a drain lets no idle connection live on, and when it breaks what still streams.
    pub fn drain(&self) -> Option<[Mono; 2]> {
        let begins = Mono::default().after(Span::from_ms(self.drains_at_ms?));
        let closes = begins.after(self.patience.drain_grace);
        Some([closes, closes.after(self.patience.drain)])
    }

    /// The configuration that says all this: the first one, or the one that takes its place.
    pub fn table(&self, is_reloaded: bool) -> Table {
        let switched_off = self.reload.filter(|_| is_reloaded).map(|(_, person)| person);
        let mut digests = Digests::default();
        for (at, person) in self.people.iter().enumerate() {
            digests.add(key::digest(person.key.as_bytes()), CallerSlot(at as u32));
        }
        let people = self.people.iter().enumerate();
        Table {
            generation: 1 + u64::from(is_reloaded),
            org: Org { contact: Some("#ops".into()), timezone: "UTC".into() },
            listeners: vec![Listener {
                address: SocketAddr::from(([127, 0, 0, 1], 80)),
                plaintext: true,
                tls: None,
                hosts: Hosts::Any,
                refuse_cross_site: false,
            }],
            admin: None,
            health: None,
            upstreams: self.sites.iter().map(upstream).collect(),
            models: self.rules.iter().map(model).collect(),
            teams: self.people.iter().enumerate().map(|(at, person)| team(at, person)).collect(),
            callers: people.map(|(at, person)| caller(at, person, switched_off == Some(at))).collect(),
            digests,
            bounds: self.bounds,
            patience: self.patience,
            runtime: RuntimeSettings::default(),
            log: LogFormat::Json,
            prices: crate::table::prices::Prices::default(),
            slots: Slots::default(),
        }
    }
}

fn site(dice: &mut Dice, number: usize) -> Site {
    let secret = format!("sk-of-site-{number}-{:016x}", dice.bits());
    let bearer = dice.chance(3);
    let credential = if bearer {
        ("authorization".to_owned(), format!("Bearer {secret}"))
    } else {
        ("x-api-key".to_owned(), secret)
    };
    let moods: &[[usize; 3]] = match dice.below(9) {
        0 => &[[0, 10, 0], [10, 0, 0]],
        4 => &[[0, 5, 5], [0, 0, 10]],
        1 => &[[0, 0, 10], [10, 0, 0]],
        2 => &[[6, 3, 1], [7, 3, 0]],
        3 => &[[0, 10, 0]],
        _ => &[[10, 0, 0]],
    };
    let address = |at: usize| SocketAddr::from(([10, 0, number as u8, at as u8], 443));
    Site {
        name: format!("site-{number}"),
        base_path: if dice.chance(3) { "/base".into() } else { String::new() },
        credential,
        addresses: moods.iter().enumerate().map(|(at, mood)| (address(at), *mood)).collect(),
        idle_ms: dice.chance(2).then(|| dice.size(60_000) as u64),
    }
}

fn person(dice: &mut Dice, sites: usize) -> Person {
    let mut random = [0; 32];
    for byte in &mut random {
        *byte = dice.bits() as u8;
    }
    let key = key::mint(random).expose().to_owned();
    let open = (0..sites).filter(|_| !dice.chance(4)).collect();
    Person {
        key,
        refused: *dice.pick(&[None, None, None, None, None, None, Some("key_disabled")]),
        models: dice.chance(4).then(|| (0..2).map(|_| (*dice.pick(&NAMES)).to_owned()).collect()),
        sites: open,
        files: dice.chance(2),
    }
}

fn rules(dice: &mut Dice, sites: usize) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for name in NAMES {
        if dice.chance(4) {
            continue;
        }
        let alias = name == "fast" || dice.chance(8);
        let id = || alias.then(|| "claude-haiku-4-5-20251001".to_owned());
        let count = dice.between(1, 2);
        let targets = (0..count).map(|_| (dice.below(sites), id())).collect();
        rules.push(Rule { name: name.to_owned(), targets });
    }
    if rules.is_empty() {
        rules.push(Rule { name: "*".into(), targets: vec![(dice.below(sites), None)] });
    }
    rules
}

fn patience(dice: &mut Dice) -> Patience {
    let mut secs = |from, to| Span::from_secs(dice.between(from, to) as u64);
    Patience {
        connect: secs(1, 5),
        tls: secs(1, 5),
        head: secs(2, 15),
        body: secs(5, 60),
        send: secs(3, 30),
        first_byte: secs(10, 40),
        idle: secs(6, 40),
        write_stall: secs(6, 40),
        keep_alive: secs(5, 75),
        drain_grace: secs(0, 3),
        drain: secs(1, 20),
        ..Patience::default()
    }
}

fn bounds(dice: &mut Dice) -> Bounds {
    let mut bounds = Bounds { body_bytes_max: 400_000, ..Bounds::default() };
    if dice.chance(8) {
        bounds.bodies_bytes_max = dice.between(100, 60_000) as u64;
    }
    if dice.chance(10) {
        bounds.body_bytes_max = dice.between(200, 5_000) as u64;
    }
    if dice.chance(12) {
        bounds.connections_max = dice.between(1, 4);
    }
    bounds.pool_idle_max = dice.between(1, 4);
    bounds
}

/// How bytes travel on a connection.
pub fn manner(dice: &mut Dice) -> Manner {
    Manner {
        cut: *dice.pick(&[Cut::Whole, Cut::Whole, Cut::Anywhere, Cut::Anywhere, Cut::Bytes]),
        delay_ms_max: *dice.pick(&[0, 0, 2, 20]),
        buffer_bytes: *dice.pick(&[200, 3_000, 64 * 1024, 1 << 20]),
        panic: None,
    }
}

fn visit(dice: &mut Dice, plan: &Plan, id: &mut u32) -> Visit {
    let asks: Vec<Asked> = (0..dice.between(1, 5))
        .map(|_| {
            *id += 1;
            request::make(dice, plan, *id)
        })
        .collect();
    let bytes: usize = asks.iter().map(|ask| ask.wire.len()).sum();
    let how = *dice.pick(&[How::Close, How::Close, How::Reset, How::HalfClose]);
    let leaves = match dice.below(10) {
        0 => Some((When::Sent(dice.below(bytes)), how)),
        1 => Some((When::Got(dice.size(100_000)), how)),
        2 => Some((When::After(dice.size(60_000) as u64), how)),
        _ => None,
    };
    let longer = [plan.patience.head, plan.patience.body, plan.patience.write_stall].map(|span| span.as_ms() + 5_000);
    let pause = |dice: &mut Dice, bytes: usize| {
        let ms = *dice.pick(&[100, 1_500, longer[0], longer[1], longer[2], client::LASTING_MS]);
        dice.chance(6).then(|| (dice.below(bytes), ms))
    };
    Visit {
        at_ms: dice.size(30_000) as u64,
        asks,
        pipelines: dice.chance(4),
        pause: pause(dice, bytes),
        stall: pause(dice, 100_000).map(|(at, ms)| (at / dice.between(1, 300), ms)),
        leaves,
        waits: dice.chance(3),
        manner: manner(dice),
    }
}

fn upstream(site: &Site) -> Upstream {
    let (name, value) = &site.credential;
    let header = match value.strip_prefix("Bearer ") {
        Some(secret) if name == "authorization" => SecretLine::bearer(secret),
        _ => SecretLine::x_api_key(value),
    };
    Upstream {
        name: site.name.as_str().into(),
        provider: Provider::AnthropicCompatible,
        tls: false,
        host: format!("{}.example", site.name).into(),
        port: 80,
        base_path: site.base_path.clone(),
        host_header: format!("{}.example", site.name),
        credentials: vec![Credential::new("only", header)],
        extra_ca: Vec::new(),
        via: None,
        guard: crate::net::Guard::Inside,
        first_byte: None,
        charge: crate::table::prices::Charge::default(),
        verdicts: Vec::new(),
    }
}

fn model(rule: &Rule) -> Model {
    let targets = rule.targets.iter().map(|(site, model)| Target {
        model: model.as_deref().map(Into::into),
        ..Target::to(UpstreamSlot(*site as u32))
    });
    Model::new(Pattern::new(rule.name.as_str()), targets.collect())
}

/// A team of one, which holds the bounds of its only member; the member itself has none.
fn team(at: usize, person: &Person) -> Team {
    let access = Access {
        models: person.models.as_ref().map(|open| open.iter().map(|name| Pattern::new(name.as_str())).collect()),
        upstreams: Some(person.sites.iter().map(|site| UpstreamSlot(*site as u32)).collect()),
        passthrough: if person.files { vec!["/v1/files".into()] } else { Vec::new() },
    };
    Team { name: format!("team-{at}").into(), access }
}

fn caller(at: usize, person: &Person, is_switched_off: bool) -> Caller {
    Caller {
        name: format!("caller-{at}").into(),
        owner: None,
        team: Some(TeamSlot(at as u32)),
        access: Access::default(),
        expires: Some(crate::table::Expiry { at: Wall(u64::MAX), day: "never".into() }),
        disabled: is_switched_off || person.refused.is_some(),
        class: Class::default(),
        fallback: true,
    }
}
