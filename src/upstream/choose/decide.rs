//! The decision, without its effects: no probe is taken, no budget spent. `choose` acts on it and `weigh` explains it.

use super::{Candidate, TRIES_MAX, Tried, View, worth};
use std::{cmp::Ordering, sync::atomic::Ordering::Relaxed};

use crate::{
    base::{CredentialSlot, Mono, Span},
    table::{Target, Upstream},
    upstream::{
        ModelClass, Need, Room, Standing, Warm,
        affinity::mix,
        fit::{Misfit, Reach},
    },
};

/// Of what was cached last time, so many per cent are taken to be read from the cache this time.
const CACHED_PERCENT: u64 = 90;
/// Somebody has clearly more to do than another: by a quarter, and by some requests that are chance.
const MORE_FACTOR: f64 = 1.25;
const MORE_REQUESTS: f64 = 2.0;
/// Stands for a weight of zero: a target that is there for when its tier has no other.
const WEIGHT_LEAST: f64 = 1e-9;
/// Room that comes within that time is told to the client rather than a doubtful upstream asked; Claude Code waits for
/// a `retry-after` of up to a minute.
const ROOM_SOON: Span = Span::from_secs(59);

/// What is to be done, before it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// Ask there.
    Ask(Candidate),
    /// Ask there, if its breaker's probe can be had.
    Probe(Candidate),
    /// Ask there, if it is a first attempt or the budget allows it; else nobody, and then is room.
    Panic(Candidate, Option<Mono>),
    /// Wait for room at the warm credential.
    Wait(Mono),
    /// Nobody; then is room.
    Nobody(Option<Mono>),
}

/// How a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// It can be asked.
    Good,
    /// It can be asked by whoever gets its probe.
    Probe,
    /// It can be asked, but others of its tier are better: its traffic rises sharply, or nothing is known of it yet.
    Paced,
    /// It is starting slowly, at so many per cent, and this conversation is not among them.
    Slow(u8),
    /// It has no room.
    Full { until: Mono, refused: bool },
    /// Its breaker is open.
    Open(Mono),
    /// Its upstream refuses the credential.
    Refused(Mono),
    /// It cannot hold the request.
    Unfit(Misfit),
    /// It was asked already.
    Tried,
    /// It is taken out.
    Drained(Mono),
    /// The process knows nothing of it: the table is older than the process's knowledge, or newer.
    Unknown,
}

impl State {
    pub(super) fn is_usable(self) -> bool {
        matches!(self, State::Good | State::Probe | State::Paced)
    }
}

/// One candidate with all that the decision goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Graded {
    pub candidate: Candidate,
    pub tier: u8,
    pub state: State,
    /// Of the rendezvous; the least is the best.
    pub score: f64,
    /// Requests in flight for its weight.
    load: f64,
    /// Requests that are chance, for its weight.
    slack: f64,
}

impl Graded {
    /// Whose turn comes first inside a tier, but for their loads.
    pub(super) fn order(&self, other: &Graded) -> Ordering {
        let paced = |graded: &Graded| graded.state == State::Paced;
        paced(self).cmp(&paced(other)).then(self.score.total_cmp(&other.score))
    }

    fn is_before(&self, other: &Graded) -> bool {
        self.order(other).is_lt()
    }

    /// Whether it has clearly more to do than `other`.
    pub(super) fn has_more_than(&self, other: &Graded) -> bool {
        other.state != State::Paced && self.load > other.load * MORE_FACTOR + self.slack
    }
}

/// What holds for all candidates of one decision.
pub(super) struct Ground {
    /// The number that stands for the conversation.
    key: u64,
    pub warm: Option<Warm>,
    /// The credential that the request is bound to.
    held: Option<CredentialSlot>,
    reach: Reach,
    /// Some target holds the request.
    fits: bool,
    lost: u16,
}

impl Ground {
    pub(super) fn of(view: &View<'_>, now: Mono, draw: u64, lost: u16) -> Ground {
        let last = view.thread().and_then(|thread| view.health.affinity.last(thread, now));
        let first_tier = view.plan.candidates(view.table).next().map_or(0, |target| target.tier);
        let first = view.plan.candidates(view.table).take_while(|target| target.tier == first_tier);
        let reach = Reach::of(first.map(|target| view.can(target)));
        Ground {
            key: view.conversation.map_or(draw, |conversation| conversation.0),
            warm: last.filter(Warm::is_warm),
            held: last.filter(|_| view.bound).map(|last| last.credential),
            reach,
            fits: view.plan.candidates(view.table).any(|target| view.demand.misfit(&view.can(target), reach).is_none()),
            lost,
        }
    }

    /// Whether only the first choice is asked, whatever its state.
    pub(super) fn is_honest(&self, view: &View<'_>) -> bool {
        !view.fallback || view.bound || !self.fits
    }
}

/// Every candidate of the plan, by tier, then in file order.
pub(super) fn survey<'a>(
    view: &'a View<'_>,
    tried: &'a Tried,
    now: Mono,
    ground: &'a Ground,
) -> impl Iterator<Item = Graded> + use<'a> {
    view.plan.numbered(view.table).flat_map(move |(target, at)| {
        let pool_len = view.table.upstream(target.upstream).map_or(0, Upstream::pool_len);
        let class = match view.counts_only {
            true => ModelClass::COUNTING,
            false => ModelClass::of(view.table.id_there(&view.plan, target, view.model)),
        };
        let misfit = view.demand.misfit(&view.can(target), ground.reach);
        (0..pool_len).filter_map(move |place| {
            let credential = view.table.credential_slot(target.upstream, place)?;
            let warm = ground.warm.filter(|warm| warm.credential == credential);
            let cached = warm.map_or(0, |warm| worth::cached(view, &warm) * CACHED_PERCENT / 100);
            let need = match view.counts_only {
                true => Need::default(),
                false => Need { input: view.demand.input.saturating_sub(cached), output: view.demand.output_max },
            };
            let upstream = target.upstream;
            let warm = warm.is_some();
            let candidate = Candidate { target: at, upstream, place, credential, class, need, warm, suspect: false };
            Some(grade(view, tried, now, ground, target, pool_len, candidate, misfit))
        })
    })
}

#[allow(clippy::too_many_arguments)] // one candidate's part of `survey`, apart for its length
fn grade(
    view: &View<'_>,
    tried: &Tried,
    now: Mono,
    ground: &Ground,
    target: &Target,
    pool_len: usize,
    candidate: Candidate,
    misfit: Option<Misfit>,
) -> Graded {
    let state = state(view, tried, now, ground, &candidate, misfit);
    let in_flight =
        view.health.credential(candidate.credential).map_or(0, |credential| credential.in_flight.load(Relaxed));
    // A target's weight is its upstream's credentials' together; one without weight is for when there is no other.
    let weight = (target.weight as f64 / pool_len as f64).max(WEIGHT_LEAST);
    let place = mix(ground.key ^ mix(u64::from(candidate.credential.0) | (candidate.target as u64) << 32));
    let uniform = ((place >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    Graded {
        candidate,
        tier: target.tier,
        state,
        score: -uniform.ln() / weight,
        load: in_flight as f64 / weight,
        slack: MORE_REQUESTS / weight,
    }
}

fn state(
    view: &View<'_>,
    tried: &Tried,
    now: Mono,
    ground: &Ground,
    candidate: &Candidate,
    misfit: Option<Misfit>,
) -> State {
    let (Some(upstream), Some(credential)) =
        (view.health.upstream(candidate.upstream), view.health.credential(candidate.credential))
    else {
        return State::Unknown;
    };
    if let Some(until) = upstream.drained.until(now).or_else(|| credential.drained.until(now)) {
        return State::Drained(until);
    }
    if tried.has(candidate) {
        return State::Tried;
    }
    if let (Some(misfit), true) = (misfit, ground.fits) {
        return State::Unfit(misfit);
    }
    if let Some(until) = credential.refused.until(now) {
        return State::Refused(until);
    }
    let limits = view.table.credential_limits(candidate.upstream, candidate.place);
    let room = credential.room(candidate.class, candidate.need, &limits, now);
    let standing = upstream.breaker.standing(now);
    match (room, standing) {
        (Room::Refused(until), _) => State::Full { until, refused: true },
        (_, Standing::Open { until }) => State::Open(until),
        (_, Standing::Probe) if ground.lost & (1 << candidate.target) != 0 => State::Open(now),
        (Room::At(until), _) => State::Full { until, refused: false },
        (_, Standing::Probe) => State::Probe,
        (_, Standing::Slow(percent)) if share(ground.key, candidate) >= percent => State::Slow(percent),
        (Room::Paced(_), _) => State::Paced,
        (Room::Now, _) => State::Good,
    }
}

/// Where, from 0 to 99, a conversation stands in the queue for an upstream that is starting slowly. By the conversation
/// and not by the request: it moves over once, when its turn has come, and does not go to and fro.
fn share(key: u64, candidate: &Candidate) -> u8 {
    (mix(key ^ mix(u64::from(candidate.upstream.0) | 1 << 40)) % 100) as u8
}

/// The candidates of one tier that may be asked, as far as they have been seen.
#[derive(Default)]
struct Tier {
    number: u8,
    warm: Option<Graded>,
    best: Option<Graded>,
    second: Option<Graded>,
}

impl Tier {
    fn see(&mut self, graded: &Graded, usable: bool) {
        let is_warmer = |warm: Graded| match (usable, warm.state.is_usable()) {
            (true, false) => true,
            (false, true) => false,
            _ => graded.is_before(&warm),
        };
        if graded.candidate.warm && self.warm.is_none_or(is_warmer) {
            self.warm = Some(*graded);
        }
        if !usable {
            return;
        }
        if self.best.is_none_or(|best| graded.is_before(&best)) {
            self.second = self.best.replace(*graded);
        } else if self.second.is_none_or(|second| graded.is_before(&second)) {
            self.second = Some(*graded);
        }
    }

    /// The best, or the second if the best has clearly more to do.
    fn pick(&self) -> Option<Graded> {
        match (self.best, self.second) {
            (Some(best), Some(second)) if best.has_more_than(&second) => Some(second),
            (best, _) => best,
        }
    }

    fn decision(&self, view: &View<'_>, now: Mono, ground: &Ground) -> Option<Decision> {
        if let (Some(graded), Some(warm)) = (&self.warm, &ground.warm) {
            match graded.state {
                state if state.is_usable() => return Some(ask(graded)),
                State::Full { until, .. }
                    if until.since(now) <= worth::patience(view, graded.candidate.class, warm) =>
                {
                    return Some(Decision::Wait(until));
                }
                _ => {}
            }
        }
        self.pick().map(|graded| ask(&graded))
    }
}

fn ask(graded: &Graded) -> Decision {
    match graded.state {
        State::Probe => Decision::Probe(Candidate { suspect: true, ..graded.candidate }),
        State::Open(_) | State::Refused(_) => Decision::Ask(Candidate { suspect: true, ..graded.candidate }),
        _ => Decision::Ask(graded.candidate),
    }
}

/// What is left when no tier has anybody who is well.
#[derive(Default)]
struct Aside {
    slow: Option<Graded>,
    /// The soonest to have room, as far as can be reckoned.
    reckoned: Option<(Mono, Graded)>,
    /// The likeliest to work: what it is, and until when.
    doubtful: Option<((u8, Mono), Graded)>,
    room_at: Option<Mono>,
}

impl Aside {
    fn see(&mut self, graded: &Graded) {
        match graded.state {
            State::Slow(_) => {
                let is_better = |slow: Graded| graded.tier == slow.tier && graded.is_before(&slow);
                if self.slow.is_none_or(is_better) {
                    self.slow = Some(*graded);
                }
            }
            State::Full { until, refused } => {
                self.room_at = Some(self.room_at.map_or(until, |least| least.min(until)));
                if !refused && self.reckoned.is_none_or(|(least, _)| until < least) {
                    self.reckoned = Some((until, *graded));
                }
            }
            State::Open(until) => self.doubt((0, until), graded),
            State::Refused(until) => self.doubt((1, until), graded),
            _ => {}
        }
    }

    fn doubt(&mut self, rank: (u8, Mono), graded: &Graded) {
        if self.doubtful.is_none_or(|(least, _)| rank < least) {
            self.doubtful = Some((rank, *graded));
        }
    }

    fn decision(&self, tried: &Tried, now: Mono) -> Decision {
        if let Some(graded) = &self.slow {
            return ask(graded);
        }
        if let (Some((_, graded)), true) = (&self.reckoned, tried.is_empty()) {
            return ask(graded);
        }
        let soon = self.room_at.is_some_and(|at| at.since(now) <= ROOM_SOON);
        match self.doubtful {
            Some((_, graded)) if !soon => {
                Decision::Panic(Candidate { suspect: true, ..graded.candidate }, self.room_at)
            }
            _ => Decision::Nobody(self.room_at),
        }
    }
}

/// Decides. Bit `i` of `lost` says that the probe of target `i` cannot be had.
pub(super) fn decide(view: &View<'_>, tried: &Tried, now: Mono, draw: u64, lost: u16) -> Decision {
    if tried.len() >= TRIES_MAX {
        return Decision::Nobody(None);
    }
    let ground = Ground::of(view, now, draw, lost);
    if ground.is_honest(view) {
        return honest(view, tried, now, &ground);
    }
    let (mut tier, mut aside) = (Tier::default(), Aside::default());
    for graded in survey(view, tried, now, &ground) {
        if graded.tier != tier.number {
            if let Some(decision) = tier.decision(view, now, &ground) {
                return decision;
            }
            tier = Tier { number: graded.tier, ..Tier::default() };
        }
        tier.see(&graded, graded.state.is_usable());
        aside.see(&graded);
    }
    tier.decision(view, now, &ground).unwrap_or_else(|| aside.decision(tried, now))
}

/// The first choice whatever its state, once: where it is bound to, else by tier, cache and weight.
fn honest(view: &View<'_>, tried: &Tried, now: Mono, ground: &Ground) -> Decision {
    if !tried.is_empty() {
        return Decision::Nobody(None);
    }
    let mut first: Option<Tier> = None;
    for graded in survey(view, tried, now, ground) {
        if matches!(graded.state, State::Drained(_) | State::Unknown) {
            continue;
        }
        if ground.held == Some(graded.candidate.credential) {
            return ask(&graded);
        }
        let tier = first.get_or_insert_with(|| Tier { number: graded.tier, ..Tier::default() });
        if tier.number == graded.tier {
            tier.see(&graded, true);
        }
    }
    let chosen = first.and_then(|tier| tier.warm.or_else(|| tier.pick()));
    chosen.map_or(Decision::Nobody(None), |graded| ask(&graded))
}
