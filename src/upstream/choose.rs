//! Which candidate is asked next: a target of the plan together with one of its upstream's credentials.
//!
//! The rules, in the order in which they speak:
//!
//! 1. What an operator has drained is never asked. What cannot hold the request is passed over (`fit`).
//! 2. Tiers go in order. A lower tier is left for a higher one as soon as somebody there is well, warm or not: tiers are
//!    the operator's order, and a conversation that is never cold would else stay with its second best for a day.
//! 3. Inside a tier the credential goes first at which the conversation is warm. If it lacks nothing but room, and will
//!    have that soon enough to be worth it, the request waits (`worth`). A conversation that left stays where it is now
//!    warm; it goes home at its next cold turn.
//! 4. Else by rendezvous: each credential has a score made from it and the conversation, by weight. The best two are
//!    looked at, and the second takes the first one's place if that one has clearly more to do for its weight. Without
//!    a conversation a random number stands in for it.
//! 5. An upstream whose breaker offers a probe is asked by whoever would have chosen it and gets the probe. One that is
//!    starting slowly gets a growing part of its conversations, each once and for all.
//! 6. When nobody is well: one that is starting slowly, whatever its part; then, for a request that has asked nobody,
//!    the one whose room is reckoned to come soonest, since a reckoning may be wrong, an answer is better than a
//!    refusal, and there is no queue to wait in yet; then the one that is likeliest to work (`Standing::Open`, the
//!    soonest to come back, before a credential that was refused, which works only after somebody has done something
//!    about it). For a first attempt this is always allowed, for another only by the budget.
//! 7. Without `fallback`, for what is `bound`, and when no target can hold the request, only the first choice is asked,
//!    once, whatever its state: its failure is the honest answer.

mod decide;
#[cfg(test)]
mod tests;
mod weigh;
mod worth;

pub use weigh::{Weighed, weigh};
pub use worth::{Leaving, leaving};

use super::{Conversation, Demand, Health, ModelClass, Need, Warm, affinity::Turn};
use crate::{
    base::{CredentialSlot, Mono, Span, UpstreamSlot},
    table::{Can, Family, Plan, Table, Target},
};
use decide::{Decision, decide};

/// Candidates that one request is sent to at most.
pub const TRIES_MAX: usize = 3;
/// A request waits no longer than this for room, all its waits together.
pub const WAIT_MAX: Span = Span::from_secs(5);

/// What is looked at.
pub struct View<'a> {
    /// The configuration that the exchange began under.
    pub table: &'a Table,
    /// What is known of upstreams.
    pub health: &'a Health,
    /// Where the request may go at all.
    pub plan: Plan,
    /// The model id that the client asked for.
    pub model: &'a str,
    /// What it demands.
    pub demand: Demand,
    /// The size of its body, in bytes.
    pub bytes: u64,
    /// The conversation that it belongs to, if it says so.
    pub conversation: Option<Conversation>,
    /// A failure of one candidate may lead to the next: the model, the caller and the request all say so.
    pub fallback: bool,
    /// It can be answered only where the conversation's last turn was: it refers to what is kept there.
    pub bound: bool,
    /// How long it has waited for room already.
    pub waited: Span,
    /// It only asks how long a prompt is, which has limits of its own.
    pub counts_only: bool,
}

impl View<'_> {
    /// The conversation under this model: what it is remembered by.
    fn thread(&self) -> Option<Conversation> {
        self.conversation.map(|conversation| conversation.under(self.plan.model))
    }

    /// What a target can take of this request.
    fn can(&self, target: &Target) -> Can {
        self.table.can(&self.plan, target, self.model)
    }
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
    asked: [Option<Asked>; TRIES_MAX],
}

/// One that was asked; small, since it is held for as long as an answer takes.
#[derive(Clone, Copy, Debug)]
struct Asked {
    target: u16,
    upstream: UpstreamSlot,
    credential: CredentialSlot,
    spent: Spent,
}

/// What makes no sense to ask again after a candidate has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The candidate alone: another model with the same credential is another one, since it may be the model that was not
    /// to be had, or its limits that were reached.
    Candidate,
    /// Its credential, for whatever model.
    Credential,
    /// Its upstream, with whatever credential.
    Upstream,
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

    /// `candidate` has been asked, which has `spent` so much.
    pub fn note(&mut self, candidate: &Candidate, spent: Spent) {
        if let Some(free) = self.asked.iter_mut().find(|place| place.is_none()) {
            let Candidate { target, upstream, credential, .. } = *candidate;
            *free = Some(Asked { target: target as u16, upstream, credential, spent });
        }
    }

    /// Whether it makes no sense, or is not allowed, to ask there.
    pub fn has(&self, candidate: &Candidate) -> bool {
        self.asked.iter().flatten().any(|asked| match asked.spent {
            Spent::Candidate => {
                (usize::from(asked.target), asked.credential) == (candidate.target, candidate.credential)
            }
            Spent::Credential => asked.credential == candidate.credential,
            Spent::Upstream => asked.upstream == candidate.upstream,
        })
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

/// Chooses; takes the probe of a breaker, and from the budget, if the choice needs it. `draw` is a random number for what
/// has no reason of its own; it stays the same while one request chooses again.
pub fn choose(view: &View<'_>, tried: &Tried, now: Mono, draw: u64) -> Choice {
    // Targets whose probe went to somebody else while we were looking; each turn of the loop adds one.
    let mut lost: u16 = 0;
    loop {
        return match decide(view, tried, now, draw, lost) {
            Decision::Ask(candidate) => Choice::Ask(candidate),
            Decision::Probe(candidate) => {
                let breaker = view.health.upstream(candidate.upstream).map(|upstream| &upstream.breaker);
                // A probe is an attempt at something doubtful: one that follows a failure comes out of the budget.
                let allowed = tried.is_empty() || view.health.budget.take(now);
                if !(allowed && breaker.is_some_and(|breaker| breaker.claim_probe(now))) {
                    lost |= 1 << candidate.target;
                    continue;
                }
                Choice::Ask(candidate)
            }
            Decision::Panic(candidate, room_at) => {
                let allowed = tried.is_empty() || view.health.budget.take(now);
                if allowed { Choice::Ask(candidate) } else { Choice::Nobody { room_at } }
            }
            Decision::Wait(until) => Choice::Wait(until),
            Decision::Nobody(room_at) => Choice::Nobody { room_at },
        };
    }
}

/// Whether `choose` would find somebody who is well besides those in `tried`; takes nothing.
pub fn left(view: &View<'_>, tried: &Tried, now: Mono) -> bool {
    match decide(view, tried, now, 0, 0) {
        Decision::Ask(candidate) => !candidate.suspect,
        Decision::Probe(_) => tried.is_empty() || view.health.budget.left() > 0,
        Decision::Wait(_) => true,
        Decision::Panic(..) | Decision::Nobody(_) => false,
    }
}

/// Where the conversation is warm, if that is still so.
pub fn warm(view: &View<'_>, now: Mono) -> Option<Warm> {
    view.health.affinity.find(view.thread()?, now)
}

/// `candidate` has answered a turn whose request was sent at `sent`; from now on the conversation is warm there. `long`
/// if the request asked for an hour's cache, `crossed` as it was said of this candidate before the request was sent.
pub fn remember(view: &View<'_>, candidate: &Candidate, long: bool, crossed: bool, sent: Mono) {
    if let Some(thread) = view.thread() {
        let turn = Turn { credential: candidate.credential, bytes: view.bytes, long, crossed };
        view.health.affinity.note(thread, turn, sent);
    }
}

/// Whether the conversation's history has, or may have, thinking blocks of another family than the candidate's: its last
/// turn was answered by one, or an earlier turn was. Once it has crossed, a history stays mixed, since the client keeps
/// sending all of it. False for what is not remembered.
pub fn crossed(view: &View<'_>, candidate: &Candidate, now: Mono) -> bool {
    let Some(last) = view.thread().and_then(|thread| view.health.affinity.last(thread, now)) else { return false };
    if last.mixed || last.credential == candidate.credential {
        return last.mixed;
    }
    let owner = |slot: CredentialSlot| view.table.credential_slots().find(|known| known.0 == slot).map(|known| known.1);
    let family = |slot: UpstreamSlot| view.table.upstream(slot).map(|upstream| upstream.provider.family());
    // A credential that this table does not have any more may have been of any family.
    let Some(before) = owner(last.credential) else { return true };
    before != candidate.upstream
        && !matches!((family(before), family(candidate.upstream)), (Some(Family::Claude), Some(Family::Claude)))
}
