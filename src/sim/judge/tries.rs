//! Who was asked for each request, in which order, and whether that was allowed: any choice that the rules leave open is
//! right, and this does not know how it is made.

use super::{Court, reading, rule};
use crate::{
    base::{Mono, Span},
    sim::{
        client::Saw,
        message::Message,
        pipe::Cut,
        plan::{Illness, Times, Visit},
        provider::Attempt,
        request::{Asked, Expect},
        script::Then,
    },
    telemetry::{self, Ending},
};
use std::collections::HashMap;

/// Candidates that one request may be sent to.
const TRIES_MAX: usize = 3;
/// Failures in a row after which an upstream is known to be out of order.
const OPENED: usize = 5;
/// How long news of a failure, or of something that an operator has done, take at most.
const NEWS: Span = Span::from_ms(50);
/// So many clients at once are no reason yet to pass over somebody of whom nothing is known.
const FEW: usize = 6;

/// One candidate that was asked: once, or twice if the first time was never heard.
pub struct Try<'a> {
    /// Which upstream.
    pub site: usize,
    /// Which credential of its pool; `None` for one that is not in it.
    pub credential: Option<usize>,
    /// The model's name there, if the request came so far.
    pub model: Option<String>,
    /// The requests.
    pub attempts: Vec<&'a Attempt>,
}

impl<'a> Try<'a> {
    fn last(&self) -> &'a Attempt {
        self.attempts[self.attempts.len() - 1]
    }

    fn is_like(&self, other: &Try<'_>) -> bool {
        let same_model = self.model.is_none() || other.model.is_none() || self.model == other.model;
        (self.site, self.credential) == (other.site, other.credential) && same_model
    }
}

/// Who was asked for request `id`, in order.
pub fn tries<'a>(court: &Court<'a>, id: u32) -> Vec<Try<'a>> {
    let mut tries: Vec<Try<'a>> = Vec::new();
    let is_replay = |first: &Attempt, again: &Attempt| {
        first.before > 0 && again.before == 0 && (first.sent == 0 || first.script.then == Then::Reset)
    };
    for attempt in court.attempts(id) {
        let pool = &court.plan.sites[attempt.site].credentials;
        let credential = pool.iter().position(|field| attempt.request.fields.contains(field));
        let one = Try { site: attempt.site, credential, model: model(attempt), attempts: vec![attempt] };
        match tries.last_mut() {
            Some(last) if last.is_like(&one) && (names(court, id, one.site) < 2 || is_replay(last.last(), attempt)) => {
                last.model = last.model.take().or(one.model);
                last.attempts.push(attempt);
            }
            _ => tries.push(one),
        }
    }
    tries
}

/// Under how many names a site is a target of request `id`. Where that is one, a second request is the same candidate's.
fn names(court: &Court<'_>, id: u32, site: usize) -> usize {
    let due = court.asks.get(&id).map(|(_, asked)| [&asked.expect, &asked.later]);
    let aims = due.into_iter().flatten().map(|due| due.aims().iter().filter(|aim| aim.site == site).count());
    aims.max().unwrap_or(0)
}

/// The model that a request names, if it came so far.
fn model(attempt: &Attempt) -> Option<String> {
    let body = &attempt.request.body;
    if attempt.request.is_complete {
        let json: serde_json::Value = serde_json::from_slice(body).ok()?;
        return json["model"].as_str().map(str::to_owned);
    }
    let value = body.strip_prefix(b"{\"model\":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', value)?;
    String::from_utf8(value[..end].to_vec()).ok()
}

pub fn judge(court: &mut Court<'_>) {
    let (plan, seen) = (court.plan, court.seen);
    for (visit, saw) in plan.visits.iter().zip(&seen.clients) {
        for (at, asked) in visit.asks.iter().enumerate() {
            let case =
                Case { asked, saw, visit, began: saw.began_at.get(at).copied(), message: saw.reader.messages.get(at) };
            one(court, &case);
        }
    }
    if plan.times == Times::Outage {
        outage(court);
    }
}

struct Case<'a> {
    asked: &'a Asked,
    saw: &'a Saw,
    visit: &'a Visit,
    began: Option<Mono>,
    message: Option<&'a Message>,
}

fn one(court: &mut Court<'_>, case: &Case<'_>) {
    let tries = tries(court, case.asked.id);
    let id = case.asked.id;
    let told: Vec<_> = tries.iter().map(|one| (one.site, one.credential, one.last().script.status)).collect();
    if tries.len() > TRIES_MAX {
        court.breach(rule::TRIES, format!("request {id} was sent to {told:?}"));
    }
    // Where a site is asked under several names, those that did not come so far cannot be told apart.
    let is_again = |one: &Try<'_>, before: &Try<'_>| {
        before.is_like(one) && (names(court, id, one.site) < 2 || before.model.is_some() && one.model.is_some())
    };
    if tries.iter().enumerate().any(|(at, one)| tries[..at].iter().any(|before| is_again(one, before))) {
        court.breach(rule::TRIES, format!("request {id} was sent somewhere twice: {told:?}"));
    }
    if tries.len() > 1 && is_alone(court, case) {
        court.breach(rule::ALONE, format!("request {id} went over to somebody else: {told:?}"));
    }
    for pair in tries.windows(2) {
        if let [before, after] = pair
            && reading::is_settled(court.plan, before.last())
        {
            let detail = format!(
                "request {id} had its answer from site {} ({}), and then went to site {}",
                before.site,
                before.last().script.tell(),
                after.site
            );
            court.breach(rule::COMMIT, detail);
        }
    }
    drained(court, case, &tries);
    calm(court, case, &tries);
    if let Some(message) = case.message {
        committed(court, case, message);
        agrees(court, case, message, &tries);
    }
}

/// Whether a failure of the first one asked must not lead to another.
fn is_alone(court: &Court<'_>, case: &Case<'_>) -> bool {
    let plan = court.plan;
    let model =
        String::from_utf8_lossy(case.asked.body.get(case.asked.name_at.clone()).unwrap_or_default()).into_owned();
    let is_fixed = matches!(case.asked.expect, Expect::Fixed(_));
    let is_shut = case.asked.person.is_some_and(|person| !plan.people[person].fallback);
    case.asked.is_off || is_fixed || is_shut || plan.rule(&model).is_some_and(|rule| !rule.fallback)
}

/// Once the client has the beginning of an answer, nobody is asked any more.
fn committed(court: &mut Court<'_>, case: &Case<'_>, message: &Message) {
    let name = message.field("x-sim-try");
    for attempt in court.attempts(case.asked.id) {
        // What has been sent can arrive after it was given up.
        let fate = court.seen.fates.get(attempt.connection as usize);
        let was_given_up = fate.and_then(|fate| fate.let_go[0]).is_some_and(|at| at <= message.head_at);
        if attempt.began > message.head_at && !was_given_up {
            let detail = format!(
                "request {}: the client had {} when site {} was asked",
                case.asked.id, message.first, attempt.site
            );
            court.breach(rule::COMMIT, detail);
        }
    }
    let Some(from) = court.attempts(case.asked.id).find(|attempt| attempt.script.field("x-sim-try") == name) else {
        return;
    };
    let is_last = court.attempts(case.asked.id).all(|other| other.began <= from.began);
    // An answer that was not the client's is kept for when nobody has a better one.
    let kept = reading::word(&court.plan.sites[from.site], &from.script) != reading::Word::Final;
    if name.is_some() && !is_last && !kept {
        let detail = format!("request {}: somebody was asked after site {} had answered", case.asked.id, from.site);
        court.breach(rule::COMMIT, detail);
    }
}

/// What the operator has taken out of service gets no request that began afterwards.
fn drained(court: &mut Court<'_>, case: &Case<'_>, tries: &[Try<'_>]) {
    let Some(began) = case.began else { return };
    let plan = court.plan;
    // Of two words on one thing the later holds.
    let is_word = |n: usize| {
        let (site, credential) = (plan.drained[n].site, plan.drained[n].credential);
        plan.drained.iter().filter(|other| (other.site, other.credential) == (site, credential)).count() == 1
    };
    for (n, drained) in plan.drained.iter().enumerate().filter(|(n, _)| is_word(*n)) {
        let from = Mono::default().after(Span::from_ms(drained.at_ms)).after(NEWS);
        let to = Mono::default().after(Span::from_ms(drained.at_ms + drained.for_ms));
        let is_out =
            |one: &Try<'_>| one.site == drained.site && drained.credential.is_none_or(|at| one.credential == Some(at));
        for one in tries.iter().filter(|one| is_out(one) && began > from && one.last().began < to) {
            if !matches!(case.asked.expect, Expect::Fixed(_)) {
                court.breach(
                    rule::DRAINED,
                    format!("request {} at site {} ({n}: {drained:?})", case.asked.id, one.site),
                );
            }
        }
    }
}

/// Where upstreams only ever refuse what is the request's own fault, nothing is held against them: the first tier is
/// asked, and nobody else.
fn calm(court: &mut Court<'_>, case: &Case<'_>, tries: &[Try<'_>]) {
    // A link of some hundred bytes a second is slower than an upstream's short patience of its own.
    let manner = court.plan.manner;
    let crawls = manner.delay_ms_max > 0 && manner.cut == Cut::Bytes;
    let is_slow = crawls && court.plan.sites.iter().any(|site| site.first_byte.is_some());
    if court.plan.times != Times::Calm || court.plan.visits.len() > FEW || is_slow {
        return;
    }
    let first = |due: &Expect| due.aims().iter().map(|aim| aim.tier).min();
    let is_first = |one: &Try<'_>| {
        [&case.asked.expect, &case.asked.later].into_iter().any(|due| {
            *due == Expect::Fixed(one.site)
                || due.aims().iter().any(|aim| aim.site == one.site && Some(aim.tier) == first(due))
        })
    };
    if tries.len() > 1 || !tries.iter().all(is_first) {
        let sites: Vec<_> = tries.iter().map(|one| one.site).collect();
        let detail = format!("request {} went to {sites:?}, due: {:?}", case.asked.id, case.asked.expect);
        court.breach(rule::COOLS, detail);
    }
}

/// The log's list of attempts is what upstreams saw, and those that could not be reached.
fn agrees(court: &mut Court<'_>, case: &Case<'_>, message: &Message, tries: &[Try<'_>]) {
    let name = message.field("x-forebay-request-id").unwrap_or_default();
    let Some(record) = court.records.get(name).copied() else { return };
    let has_panicked = case.visit.manner.panic.is_some() || case.saw.left.is_some();
    if matches!(record.ending, Ending::ClientGone) || record.reason == "client_stalled" || has_panicked {
        return;
    }
    let mut told: Vec<&telemetry::Attempt> = record.tried.iter().flatten().collect();
    let told_all = format!(
        "{:?}",
        told.iter().map(|one| (one.upstream.0, one.credential.0, one.status, one.verdict)).collect::<Vec<_>>()
    );
    let slot = |one: &Try<'_>| {
        let before: usize = court.plan.sites[..one.site].iter().map(|site| site.credentials.len()).sum();
        (one.site, one.credential.map(|at| before + at))
    };
    let all = told.clone();
    let is_excused = |odd: &&telemetry::Attempt| {
        let site = odd.upstream.index();
        let same = |one: &&&telemetry::Attempt| (one.upstream, one.credential) == (odd.upstream, odd.credential);
        let here = |one: &&Try<'_>| slot(one) == (site, Some(odd.credential.index()));
        let seen: usize = tries.iter().filter(here).map(|one| one.attempts.len()).sum();
        let had_surplus = || court.seen.upstreams.lines.iter().any(|line| line.site == site && line.had_surplus);
        // Two names of one site that did not come so far look like one candidate asked twice; and what an answer before
        // had too much can be taken for an answer before the request has been read.
        was_out_of_reach(odd)
            || names(court, case.asked.id, site) > 1 && seen >= all.iter().filter(same).count()
            || odd.verdict == "answer_malformed" && had_surplus()
    };
    let mut fault = None;
    for one in tries {
        let is_it = |told: &&telemetry::Attempt| (told.upstream.index(), Some(told.credential.index())) == slot(one);
        let Some(at) = told.iter().position(&is_it) else {
            fault = Some(format!("site {} is not in the log", one.site));
            break;
        };
        let [unseen @ .., this] = &told[..=at] else { break };
        if let Some(odd) = unseen.iter().find(|told| !is_excused(told)) {
            fault = Some(format!("nobody saw {odd:?}"));
        }
        if this.status != 0 && one.attempts.iter().all(|attempt| attempt.script.status != this.status) {
            fault = Some(format!("site {} said {}", one.site, one.last().script.status));
        }
        told.drain(..=at);
    }
    if let Some(odd) = told.iter().find(|told| !is_excused(told)) {
        fault = Some(format!("nobody saw {odd:?}"));
    }
    if let Some(fault) = fault {
        court.breach(rule::LOG, format!("request {}: the log tells of {told_all}: {fault}", case.asked.id));
    }
}

/// An attempt of which the upstream may have seen nothing.
fn was_out_of_reach(told: &telemetry::Attempt) -> bool {
    matches!(
        told.verdict,
        "connect_failed" | "connect_timeout" | "upstream_closed" | "send_timeout" | "first_byte_timeout"
    )
}

/// Where nothing works anywhere, that is not answered by a multiple of the load once it is known.
fn outage(court: &mut Court<'_>) {
    let Some(known) = known_at(court) else { return };
    let (mut requests, mut attempts) = (0_usize, 0_usize);
    for (visit, saw) in court.plan.visits.iter().zip(&court.seen.clients) {
        for ((asked, began), message) in visit.asks.iter().zip(&saw.began_at).zip(&saw.reader.messages) {
            let name = message.field("x-forebay-request-id").unwrap_or_default();
            if let Some(record) = court.records.get(name).filter(|_| *began > known && !asked.expect.aims().is_empty())
            {
                requests += usize::from(record.tried[0].is_some());
                attempts += record.tried.iter().flatten().count();
            }
        }
    }
    if attempts > requests + requests.div_ceil(5) + 3 {
        court.breach(rule::OUTAGE, format!("{attempts} attempts for {requests} requests"));
    }
}

/// When every upstream that is asked has failed often enough in a row; `None` if that does not come.
fn known_at(court: &Court<'_>) -> Option<Mono> {
    let mut failures: HashMap<usize, Vec<Mono>> = HashMap::new();
    for attempt in &court.seen.upstreams.attempts {
        failures.entry(attempt.site).or_default().push(attempt.sent_at.unwrap_or(attempt.began));
    }
    for (site, at) in &court.seen.knocks {
        let is_silent = court.plan.sites[*site].ill.is_some_and(|ill| ill.how == Illness::Refuses);
        if is_silent {
            failures.entry(*site).or_default().push(*at);
        }
    }
    let aims = court.plan.visits.iter().flat_map(|visit| &visit.asks).flat_map(|asked| asked.expect.sites());
    let mut known = Mono::default();
    for site in aims {
        let mut at = failures.get(&site)?.clone();
        at.sort_unstable();
        known = known.max(at.get(OPENED - 1)?.after(NEWS));
    }
    Some(known)
}
