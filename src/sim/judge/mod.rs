//! The judge: holds what everyone saw of a run against what must hold in every run. A pure function of the plan and
//! what was observed, so that it can itself be tested by showing it things that did not happen.

mod answers;
mod reading;
mod requests;
mod timing;
mod tries;

use super::{
    Observed,
    plan::{Plan, Site, Visit},
    provider::Attempt,
    request::{Asked, Expect},
};
use crate::{base::Mono, telemetry::Record};
use std::collections::{HashMap, HashSet};

/// What is wrong: the invariant, and what was seen instead.
pub type Breaches = Vec<(&'static str, String)>;

/// The names of the invariants.
pub mod rule {
    /// The world comes to rest, and nothing waits in it any more.
    pub const REST: &str = "everything ends";
    /// No panic but the injected one.
    pub const PANIC: &str = "no panic";
    /// Levels are back to zero.
    pub const LEVELS: &str = "what was taken is given back";
    /// One record an exchange, and one exchange a request.
    pub const RECORDS: &str = "one record an exchange";
    /// The log tells what the client saw.
    pub const LOG: &str = "the log tells the truth";
    /// Idle connections stay within their bound.
    pub const POOL: &str = "the pool stays within its bound";
    /// Request bodies stay within the process's bound.
    pub const MEMORY: &str = "bodies stay within their bound";
    /// A connection on which more came than the answer is not used again.
    pub const SURPLUS: &str = "a connection that said too much is not used again";
    /// What clients get is HTTP/1.1 for strict eyes.
    pub const FRAMING: &str = "answers are well-formed";
    /// Answers belong to the requests that they follow.
    pub const ORDER: &str = "each request gets its own answer";
    /// A request that came whole is answered.
    pub const ANSWERED: &str = "every request is answered";
    /// Refusals and failures have a cause.
    pub const CAUSE: &str = "every failure has its cause";
    /// Answers pass unmodified, but for the table of edits.
    pub const ANSWER_BYTES: &str = "answers pass byte for byte";
    /// A broken answer never looks complete (R40), and ends at an event's border where it was told.
    pub const BROKEN: &str = "a broken answer is seen to be broken";
    /// A whole answer arrives whole.
    pub const WHOLE: &str = "a whole answer arrives whole";
    /// Nothing follows an answer that broke or that closes.
    pub const AFTER: &str = "nothing follows the last answer";
    /// Nobody is asked once the answer is the client's.
    pub const COMMIT: &str = "nobody is asked after the answer has begun";
    /// Three candidates at most, each once.
    pub const TRIES: &str = "a request is sent to three candidates at most, to each once";
    /// Whoever forbids that a failure leads elsewhere gets that failure.
    pub const ALONE: &str = "without fallback one candidate is asked";
    /// What the operator has taken out of service is left alone.
    pub const DRAINED: &str = "what is drained gets no request";
    /// A fault of the request is held against nobody.
    pub const COOLS: &str = "a request's own fault cools nothing";
    /// An outage is not answered by a multiple of the load.
    pub const OUTAGE: &str = "a total outage gets 1.2 attempts a request, and three";
    /// Failures can be read: an envelope, or an event with one; and nothing that reads as the developer's fault.
    pub const READABLE: &str = "every failure can be read";
    /// Requests pass unmodified, but for the table of edits.
    pub const REQUEST_BYTES: &str = "requests pass byte for byte";
    /// No request reaches an upstream that its caller may not use, or that it was refused for.
    pub const BOUNDARY: &str = "requests go only where they may";
    /// Credentials and keys stay on their side.
    pub const SECRETS: &str = "secrets stay on their side";
    /// At most one replay, and only of a request that got no byte on a reused connection.
    pub const REPLAY: &str = "a request is replayed once, if it was never heard";
    /// Whose key a reload switched off gets nothing more.
    pub const RELOAD: &str = "a reload is in force for every request behind it";
    /// Once a drain has begun, no connection goes on.
    pub const DRAIN: &str = "a drain lets no connection go on";
    /// The upstream is left when the client has left.
    pub const GONE: &str = "the upstream is left with the client";
    /// No wait is longer than its timeout.
    pub const PATIENCE: &str = "nothing waits beyond its timeout";
}

/// Everything that the rules look things up in.
struct Court<'a> {
    plan: &'a Plan,
    seen: &'a Observed,
    asks: HashMap<u32, (&'a Visit, &'a Asked)>,
    /// What clients know of the circumstances of a request: when they began to ask, and under which configuration it
    /// was answered.
    known: HashMap<u32, (Mono, Option<u64>)>,
    records: HashMap<String, &'a Record>,
    breaches: Breaches,
}

impl<'a> Court<'a> {
    fn breach(&mut self, rule: &'static str, detail: String) {
        self.breaches.push((rule, detail));
    }

    fn attempts(&self, id: u32) -> impl Iterator<Item = &'a Attempt> + use<'a> {
        self.seen.upstreams.attempts.iter().filter(move |attempt| attempt.id == Some(id))
    }

    /// Secrets of the upstreams, by site.
    fn secrets(&self) -> Vec<(usize, &'a str)> {
        let bare = |value: &'a str| value.strip_prefix("Bearer ").unwrap_or(value);
        let pool = |(at, site): (usize, &'a Site)| site.credentials.iter().map(move |field| (at, bare(&field.1)));
        self.plan.sites.iter().enumerate().flat_map(pool).collect()
    }

    /// What can have been due for a request, as far as it is known which configuration was in force.
    fn due(&self, asked: &'a Asked) -> Vec<&'a Expect> {
        let (began, generation) = self.known.get(&asked.id).copied().unwrap_or_default();
        match (self.plan.reload, generation) {
            (None, _) | (_, Some(1)) => vec![&asked.expect],
            (_, Some(_)) => vec![&asked.later],
            (Some(reload), None) if began.0 > (reload.at_ms + 2) * 1_000_000 => vec![&asked.later],
            _ => vec![&asked.expect, &asked.later],
        }
    }
}

/// The clients to which everything is owed, by number: they did their part, and nothing excuses a loss.
pub fn faithful(plan: &Plan, seen: &Observed) -> Vec<usize> {
    let court = court(plan, seen);
    let clients = plan.visits.iter().zip(&seen.clients).enumerate();
    clients.filter(|(_, (visit, saw))| !answers::is_excused(&court, visit, saw)).map(|(at, _)| at).collect()
}

/// Everything that is wrong with a run.
pub fn judge(plan: &Plan, seen: &Observed) -> Breaches {
    let mut court = court(plan, seen);
    rest(&mut court);
    records(&mut court);
    answers::judge(&mut court);
    requests::judge(&mut court);
    tries::judge(&mut court);
    timing::judge(&mut court);
    court.breaches
}

fn court<'a>(plan: &'a Plan, seen: &'a Observed) -> Court<'a> {
    let asks = plan.visits.iter().flat_map(|visit| visit.asks.iter().map(move |asked| (asked.id, (visit, asked))));
    let known = plan.visits.iter().zip(&seen.clients).flat_map(|(visit, saw)| {
        visit.asks.iter().zip(&saw.began_at).enumerate().map(move |(at, (asked, began))| {
            let message = saw.reader.messages.get(at);
            let generation = message.and_then(|message| message.field("x-forebay-generation")?.parse().ok());
            (asked.id, (*began, generation))
        })
    });
    Court {
        plan,
        seen,
        asks: asks.collect(),
        known: known.collect(),
        records: seen.records.iter().map(|record| (record.request_id.to_string(), record)).collect(),
        breaches: seen.live.clone(),
    }
}

fn rest(court: &mut Court<'_>) {
    let seen = court.seen;
    if seen.quiet.endless || seen.quiet.stuck > 0 {
        court.breach(rule::REST, format!("{:?}", seen.quiet));
    }
    if seen.panics > u64::from(court.plan.panics) {
        court.breach(rule::PANIC, format!("{} panics", seen.panics));
    }
    for (name, level) in &seen.gauges {
        if *level != 0 {
            court.breach(rule::LEVELS, format!("{name} is {level}"));
        }
    }
    let (bound, sites) = (court.plan.bounds.pool_idle_max, court.plan.sites.len());
    if seen.pool_max > bound * sites {
        court.breach(rule::POOL, format!("{} idle connections, {bound} for each of {sites} upstreams", seen.pool_max));
    }
    let bodies_max = court.plan.bounds.bodies_bytes_max;
    if seen.bodies_max > bodies_max {
        court.breach(rule::MEMORY, format!("{} bytes of bodies were held, {bodies_max} are allowed", seen.bodies_max));
    }
    for client in &seen.clients {
        if client.gone_at.is_none() && client.last.0 > 0 {
            court.breach(rule::REST, "a client's connection did not end".into());
        }
    }
}

fn records(court: &mut Court<'_>) {
    let seen = court.seen;
    let [requests, _, lost] = seen.counted;
    if court.records.len() != seen.records.len() || lost > 0 {
        court.breach(rule::RECORDS, format!("{} names for {} records", court.records.len(), seen.records.len()));
    }
    if requests != seen.records.len() as u64 {
        court.breach(rule::RECORDS, format!("{requests} requests counted, {} records", seen.records.len()));
    }
    let asked: usize = seen.clients.iter().zip(&court.plan.visits).map(|(saw, visit)| begun(saw.sent, visit)).sum();
    let turned_away = seen.clients.len();
    if seen.records.len() > asked + turned_away {
        court.breach(rule::RECORDS, format!("{asked} requests begun, {} records", seen.records.len()));
    }
    let mut told = HashSet::new();
    for message in seen.clients.iter().flat_map(|saw| &saw.reader.messages) {
        let Some(name) = message.field("x-forebay-request-id") else {
            court.breach(rule::RECORDS, format!("an answer without a name: {}", message.first));
            continue;
        };
        if !told.insert(name) {
            court.breach(rule::RECORDS, format!("two answers are named {name}"));
        }
        match court.records.get(name) {
            None => court.breach(rule::RECORDS, format!("no record of {name}")),
            Some(record) if record.status != message.status() => {
                let detail = format!("{name}: the client got {}, the log says {}", message.status(), record.status);
                court.breach(rule::LOG, detail);
            }
            Some(_) => {}
        }
    }
}

/// How many requests of a visit had begun when `sent` bytes had gone out.
fn begun(sent: usize, visit: &Visit) -> usize {
    let mut end = 0;
    let before = visit.asks.iter().take_while(|asked| {
        end += asked.wire.len();
        end <= sent
    });
    before.count() + 1
}
