//! Which candidate is asked next: a target of the plan together with one of its upstream's credentials.

use super::{Conversation, Demand, Health, ModelClass, Need, Room, Standing, Warm};
use crate::{
    base::{CredentialSlot, Mono, UpstreamSlot},
    table::{Plan, Table, Target},
};

/// Candidates that one request is sent to at most.
pub const TRIES_MAX: usize = 3;

/// What is looked at.
pub struct View<'a> {
    /// The configuration that the exchange began under.
    pub table: &'a Table,
    /// What is known of upstreams.
    pub health: &'a Health,
    /// Where the request may go at all.
    pub plan: Plan,
    /// The model id that the client asked for; targets without an id of their own get it.
    pub model: &'a str,
    /// What it demands.
    pub demand: Demand,
    /// The size of its body, in bytes.
    pub bytes: u64,
    /// The conversation that it belongs to, if it says so.
    pub conversation: Option<Conversation>,
}

/// A place to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which target of the model, by place.
    pub target: usize,
    /// Its upstream.
    pub upstream: UpstreamSlot,
    /// Which of the upstream's credentials, by place in the pool.
    pub place: usize,
    /// The same as a slot.
    pub credential: CredentialSlot,
    /// What its limits count by.
    pub class: ModelClass,
    /// What the request takes from them.
    pub need: Need,
    /// The conversation's cache is there.
    pub warm: bool,
    /// It is asked although it is doubtful: as the probe of its breaker, or as the last one standing.
    pub suspect: bool,
}

/// Who was asked already for this request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    asked: [Option<(UpstreamSlot, CredentialSlot)>; TRIES_MAX],
    /// Upstreams that failed as a whole: no other credential of theirs is asked.
    failed: [Option<UpstreamSlot>; TRIES_MAX],
}

impl Tried {
    /// How many were asked.
    pub fn len(&self) -> usize {
        self.asked.iter().flatten().count()
    }

    /// Whether nobody was asked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `candidate` has been asked; `whole` when its failure was the upstream's and not the credential's.
    pub fn note(&mut self, candidate: &Candidate, whole: bool) {
        if let Some(free) = self.asked.iter_mut().find(|place| place.is_none()) {
            *free = Some((candidate.upstream, candidate.credential));
        }
        if whole && let Some(free) = self.failed.iter_mut().find(|place| place.is_none()) {
            *free = Some(candidate.upstream);
        }
    }

    /// Whether it makes no sense, or is not allowed, to ask there.
    pub fn has(&self, upstream: UpstreamSlot, credential: CredentialSlot) -> bool {
        self.asked.iter().flatten().any(|asked| asked.1 == credential)
            || self.failed.iter().flatten().any(|failed| *failed == upstream)
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Ask there.
    Ask(Candidate),
    /// Wait until then, and choose again: the conversation's cache is worth it.
    Wait(Mono),
    /// There is nobody to ask, or nobody any more.
    Nobody {
        /// When the first one will have room again, if room was what was missing.
        room_at: Option<Mono>,
    },
}

/// Chooses. `draw` is a random number for what has no reason of its own.
pub fn choose(view: &View<'_>, tried: &Tried, now: Mono, _draw: u64) -> Choice {
    let (mut room_at, mut doubtful): (Option<Mono>, Option<Candidate>) = (None, None);
    if tried.len() >= TRIES_MAX {
        return Choice::Nobody { room_at };
    }
    for (target, at) in view.plan.numbered(view.table) {
        for place in 0..view.table.upstream(target.upstream).map_or(0, crate::table::Upstream::pool_len) {
            let Some(mut candidate) = candidate(view, target, at, place) else { continue };
            if tried.has(candidate.upstream, candidate.credential) {
                continue;
            }
            match state(view, &candidate, now) {
                State::Good => return Choice::Ask(candidate),
                State::Full(until) => room_at = Some(room_at.map_or(until, |least| least.min(until))),
                State::Doubtful => {
                    candidate.suspect = true;
                    doubtful = doubtful.or(Some(candidate));
                }
                State::Out => {}
            }
        }
    }
    match doubtful {
        Some(candidate) if room_at.is_none() && (tried.is_empty() || view.health.budget.take(now)) => {
            Choice::Ask(candidate)
        }
        _ => Choice::Nobody { room_at },
    }
}

enum State {
    Good,
    Full(Mono),
    Doubtful,
    Out,
}

fn candidate(view: &View<'_>, target: &Target, at: usize, place: usize) -> Option<Candidate> {
    let credential = view.table.credential_slot(target.upstream, place)?;
    let class = ModelClass::of(target.model.as_deref().unwrap_or(view.model));
    let need = Need { input: view.demand.input, output: view.demand.output_max };
    let warm = false;
    Some(Candidate { target: at, upstream: target.upstream, place, credential, class, need, warm, suspect: false })
}

fn state(view: &View<'_>, candidate: &Candidate, now: Mono) -> State {
    let (Some(upstream), Some(credential)) =
        (view.health.upstream(candidate.upstream), view.health.credential(candidate.credential))
    else {
        return State::Out;
    };
    if upstream.drained.until(now).is_some() || credential.drained.until(now).is_some() {
        return State::Out;
    }
    if credential.refused.until(now).is_some() {
        return State::Doubtful;
    }
    let limits = view.table.credential_limits(candidate.upstream, candidate.place);
    if let Some(capacity) = credential.classes.get(candidate.class.index())
        && let Room::At(until) | Room::Refused(until) = capacity.room(candidate.need, &limits, now)
    {
        return State::Full(until);
    }
    match upstream.breaker.standing(now) {
        Standing::Closed | Standing::Slow(_) => State::Good,
        Standing::Probe if upstream.breaker.claim_probe(now) => State::Good,
        Standing::Probe | Standing::Open { .. } => State::Doubtful,
    }
}

/// Whether `choose` would find somebody besides those in `tried`; claims nothing.
pub fn left(view: &View<'_>, tried: &Tried, now: Mono) -> bool {
    tried.len() < TRIES_MAX
        && view.plan.numbered(view.table).any(|(target, at)| {
            let pool = view.table.upstream(target.upstream).map_or(0, crate::table::Upstream::pool_len);
            (0..pool).filter_map(|place| candidate(view, target, at, place)).any(|candidate| {
                !tried.has(candidate.upstream, candidate.credential)
                    && matches!(state(view, &candidate, now), State::Good)
            })
        })
}

/// Where the conversation is warm, if that is still so.
pub fn warm(view: &View<'_>, now: Mono) -> Option<Warm> {
    view.health.affinity.find(view.conversation?, now)
}
