//! What a seed makes up: a configuration, upstreams, clients, and everything that will go wrong.
//!
//! What a request should lead to is worked out here, by a reading of the configuration that shares nothing with
//! `table`.

use super::{dice::Dice, drawn, pipe::Manner, request::Asked};
use crate::{
    base::{Mono, Span},
    table::{Bounds, Patience, Verdict},
};
use std::{fmt::Write, net::SocketAddr};

/// An upstream as made up.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Put before paths.
    pub base_path: String,
    /// The pool: each credential's field, as the upstream must see it.
    pub credentials: Vec<(String, String)>,
    /// Where it is; what connects to an address, in tenths: accepted, refused, swallowed.
    pub addresses: Vec<(SocketAddr, [usize; 3])>,
    /// It closes connections that have been idle for so long.
    pub idle_ms: Option<u64>,
    /// How long the head of an answer may take before somebody else is asked.
    pub first_byte: Option<Span>,
    /// It is out of order for a while.
    pub ill: Option<Ill>,
    /// The operator's word on answers with a status.
    pub verdicts: Vec<(u16, Verdict)>,
}

impl Site {
    /// Whether a connection can fail to come about.
    pub fn is_flaky(&self) -> bool {
        let refuses = self.ill.is_some_and(|ill| matches!(ill.how, Illness::Refuses | Illness::Swallows));
        refuses || self.addresses.first().is_none_or(|(_, mood)| mood[0] < 10)
    }
}

/// When an upstream is out of order, and how it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ill {
    /// From when, in ms.
    pub from_ms: u64,
    /// Until when, in ms.
    pub to_ms: u64,
    /// How.
    pub how: Illness,
}

impl Ill {
    /// Whether it is so now.
    pub fn is_now(&self, now: Mono) -> bool {
        (self.from_ms..self.to_ms).contains(&(now.0 / 1_000_000))
    }
}

/// How an upstream is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illness {
    /// It takes no connections.
    Refuses,
    /// Nobody answers to a connection.
    Swallows,
    /// It takes requests and says nothing.
    Hangs,
    /// It takes requests and closes.
    Closes,
    /// It answers with this status.
    Says(u16),
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
    /// A failure of one upstream may lead to the next.
    pub fallback: bool,
}

/// A model rule as made up.
#[derive(Clone, Debug)]
pub struct Rule {
    /// An id, or a beginning of ids with `*` behind it.
    pub name: String,
    /// Where it leads; no two of them are the same site with the same id.
    pub targets: Vec<Aim>,
    /// A failure of one target may lead to the next.
    pub fallback: bool,
}

/// A target as made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Where.
    pub site: usize,
    /// The model's id there; `None` for the one that was asked for.
    pub model: Option<String>,
    /// Lower ones go first.
    pub tier: u8,
    /// Its share inside the tier.
    pub weight: u32,
}

/// A new configuration that comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// When, in ms.
    pub at_ms: u64,
    /// Whose key it switches off.
    pub switched_off: usize,
    /// Which upstream it closes, and to whom.
    pub shut: Option<(usize, usize)>,
}

/// Something that the operator takes out of service for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// From when, in ms.
    pub at_ms: u64,
    /// For how long, in ms.
    pub for_ms: u64,
    /// Which upstream.
    pub site: usize,
    /// Which of its credentials; `None` for all of it.
    pub credential: Option<usize>,
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
    /// A new configuration.
    pub reload: Option<Reload>,
    /// What the operator takes out of service.
    pub drained: Vec<Drained>,
    /// What kind of times these are.
    pub times: Times,
    /// How the bytes of upstream connections travel.
    pub manner: Manner,
    /// Some client connection's task panics.
    pub panics: bool,
}

/// What kind of times a story tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Everything can happen.
    Mixed,
    /// Upstreams answer, and refuse only what is the request's own fault.
    Calm,
    /// Nothing works anywhere.
    Outage,
}

impl Plan {
    /// What `seed` makes up.
    pub fn of(seed: u64) -> Plan {
        let dice = &mut Dice::new(seed);
        let times = match dice.below(16) {
            0 | 1 => Times::Calm,
            2 => Times::Outage,
            _ => Times::Mixed,
        };
        let sites: Vec<Site> = (0..dice.between(1, if times == Times::Outage { 2 } else { 4 }))
            .map(|n| drawn::site(dice, n, times))
            .collect();
        let people: Vec<Person> = (0..dice.between(1, 4)).map(|_| drawn::person(dice, sites.len(), times)).collect();
        let rules = drawn::rules(dice, sites.len());
        let mut plan = Plan {
            seed,
            patience: drawn::patience(dice),
            bounds: drawn::bounds(dice),
            sites,
            people,
            rules,
            visits: Vec::new(),
            spurious: dice.chance(4),
            jumps: Vec::new(),
            drains_at_ms: dice.chance(6).then(|| dice.below(20_000) as u64),
            reload: None,
            drained: Vec::new(),
            times,
            manner: drawn::manner(dice),
            panics: dice.chance(10),
        };
        plan.disturb(dice);
        let (count_max, mut id) = (if times == Times::Outage { 20 } else { *dice.pick(&[2, 6, 20]) }, 0);
        let count_min = if times == Times::Outage { 12 } else { 1 };
        for _ in 0..dice.between(count_min, count_max) {
            let visit = drawn::visit(dice, &plan, &mut id);
            plan.visits.push(visit);
        }
        if plan.panics {
            let unlucky = dice.below(plan.visits.len());
            plan.visits[unlucky].manner.panic = Some((1, dice.between(1, 6) as u64));
        }
        plan
    }

    /// What happens to the process while clients come and go.
    fn disturb(&mut self, dice: &mut Dice) {
        let (people, sites) = (self.people.len(), self.sites.len());
        self.reload = dice.chance(3).then(|| Reload {
            at_ms: dice.size(20_000) as u64,
            switched_off: dice.below(people),
            shut: dice.chance(2).then(|| (dice.below(people), dice.below(sites))),
        });
        if dice.chance(4) {
            self.jumps = (0..3)
                .map(|_| (dice.below(30_000) as u64, dice.between(0, 200_000_000) as i64 - 100_000_000))
                .collect();
        }
        if self.times == Times::Mixed && dice.chance(4) {
            self.drained = (0..dice.between(1, 3))
                .map(|_| {
                    let site = dice.below(sites);
                    let credential = dice.chance(2).then(|| dice.below(self.sites[site].credentials.len()));
                    let (at_ms, for_ms) = (dice.size(20_000) as u64, dice.size(100_000) as u64);
                    Drained { at_ms, for_ms, site, credential }
                })
                .collect();
        }
    }

    /// The upstreams that are open to a caller, in the first configuration or in the one that takes its place.
    pub fn sites_of(&self, person: usize, is_reloaded: bool) -> Vec<usize> {
        let shut = self.reload.filter(|_| is_reloaded).and_then(|reload| reload.shut);
        self.people[person].sites.iter().copied().filter(|site| shut != Some((person, *site))).collect()
    }

    /// The rule that a model falls under.
    pub fn rule(&self, model: &str) -> Option<&Rule> {
        let exact = self.rules.iter().find(|rule| rule.name == model);
        exact.or_else(|| self.rules.iter().find(|rule| is_of(&rule.name, model)))
    }

    /// Where a request of a caller for `model` may go, or why it goes nowhere.
    pub fn resolve(&self, person: usize, model: &str, is_reloaded: bool) -> Result<Vec<Aim>, &'static str> {
        let rule = self.rule(model).ok_or("model_unknown")?;
        if self.people[person].models.as_ref().is_some_and(|open| !open.iter().any(|name| is_of(name, model))) {
            return Err("model_denied");
        }
        let sites = self.sites_of(person, is_reloaded);
        let open: Vec<Aim> = rule.targets.iter().filter(|aim| sites.contains(&aim.site)).cloned().collect();
        if open.is_empty() { Err("upstreams_denied") } else { Ok(open) }
    }

    /// The story in a few lines, for whoever replays a seed.
    pub fn tell(&self) -> String {
        let mut text = format!("{:?}\n{:?}\nupstreams: {:?}\n", self.patience, self.bounds, self.manner);
        for site in &self.sites {
            let _ = writeln!(
                text,
                "  {} {:?} idle {:?} pool of {} first byte {:?} ill {:?} verdicts {:?}",
                site.name,
                site.addresses,
                site.idle_ms,
                site.credentials.len(),
                site.first_byte,
                site.ill,
                site.verdicts
            );
        }
        let _ = writeln!(text, "{:?}, reload {:?}, drained {:?}", self.times, self.reload, self.drained);
        for rule in &self.rules {
            let _ = writeln!(text, "  {rule:?}");
        }
        for visit in &self.visits {
            let _ = writeln!(
                text,
                "client at {} ms: pipelines {}, pause {:?}, stall {:?}, leaves {:?}, waits {}, {:?}",
                visit.at_ms, visit.pipelines, visit.pause, visit.stall, visit.leaves, visit.waits, visit.manner
            );
            for asked in &visit.asks {
                let scripts: Vec<String> = asked.scripts.iter().map(|script| script.tell()).collect();
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
}

/// Whether an id falls under a name, or under the beginning of names.
fn is_of(name: &str, id: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == name,
    }
}
