//! The choice explained: every target of the model with each of its credentials, how it stands, and which one a request
//! would go to now. For people; it allocates, and takes neither a probe nor from the budget.

use std::fmt::Write as _;

use super::{
    Candidate, Tried, View,
    decide::{Decision, Graded, Ground, State, decide, survey},
};
use crate::{
    base::{Mono, UpstreamSlot},
    upstream::fit::Misfit,
};

/// One candidate, or one target that is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// Its tier.
    pub tier: u8,
    /// Which target of the model, by place.
    pub target: usize,
    /// Its upstream.
    pub upstream: UpstreamSlot,
    /// The candidate; `None` for a target that the caller may not use.
    pub candidate: Option<Candidate>,
    /// It works, has room, and holds the request.
    pub good: bool,
    /// The request would go there now.
    pub chosen: bool,
    /// How it stands, in words. Times are from now.
    pub state: String,
}

/// Weighs all targets of the plan's model, in the order in which they would be asked: the first that is `good` is the one
/// that `choose` asks. A request without a conversation goes by a random number; here it is 0.
pub fn weigh(view: &View<'_>, tried: &Tried, now: Mono) -> Vec<Weighed> {
    let ground = Ground::of(view, now, 0, 0);
    let decision = decide(view, tried, now, 0, 0);
    let chosen = match decision {
        Decision::Ask(candidate) | Decision::Probe(candidate) | Decision::Panic(candidate, _) => Some(candidate),
        Decision::Wait(_) | Decision::Nobody(_) => None,
    };
    let mut all: Vec<Graded> = survey(view, tried, now, &ground).collect();
    all.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| a.order(b)));
    for tier in all.chunk_by_mut(|a, b| a.tier == b.tier) {
        put_in_order(tier);
    }
    let is_chosen = |at: &Candidate| chosen.is_some_and(|to| to.target == at.target && to.credential == at.credential);
    let mut weighed: Vec<Weighed> = all
        .iter()
        .map(|graded| Weighed {
            tier: graded.tier,
            target: graded.candidate.target,
            upstream: graded.candidate.upstream,
            candidate: Some(graded.candidate),
            good: graded.state.is_usable(),
            chosen: is_chosen(&graded.candidate),
            state: words(graded, now, &decision),
        })
        .collect();
    weighed.extend(outside(view));
    weighed
}

/// As the tier's turn would be: the warm one, and if that cannot be asked the best two by their load, then the others by
/// score.
fn put_in_order(tier: &mut [Graded]) {
    tier.sort_by_key(|graded| !graded.candidate.warm); // stable
    let mut usable = (0..tier.len()).filter(|at| tier.get(*at).is_some_and(|graded| graded.state.is_usable()));
    if let (Some(best), Some(second)) = (usable.next(), usable.next())
        && let (Some(one), Some(other)) = (tier.get(best), tier.get(second))
        && !one.candidate.warm
        && one.has_more_than(other)
    {
        tier.swap(best, second);
    }
}

/// The targets of the model that the plan leaves out.
fn outside<'a>(view: &'a View<'_>) -> impl Iterator<Item = Weighed> + use<'a> {
    let targets = view.table.model(view.plan.model).map_or(&[][..], |model| &model.targets);
    let is_open = |at: usize| view.plan.numbered(view.table).any(|(_, open)| open == at);
    targets.iter().enumerate().filter(move |(at, _)| !is_open(*at)).map(|(at, target)| Weighed {
        tier: target.tier,
        target: at,
        upstream: target.upstream,
        candidate: None,
        good: false,
        chosen: false,
        state: "outside the upstreams that your team or key may use".to_owned(),
    })
}

fn words(graded: &Graded, now: Mono, decision: &Decision) -> String {
    let span = |until: Mono| format!("{:.1} s", until.since(now).0 as f64 / 1e9);
    let mut text = match graded.state {
        State::Good => "good".to_owned(),
        State::Paced => "good, but its traffic rises sharply or it is not known yet: others first".to_owned(),
        State::Probe => "back from a failure; one request sees whether it works".to_owned(),
        State::Slow(percent) => {
            format!("starting slowly: {percent} % of the conversations, and this is not one of them")
        }
        State::Full { until, refused: false } => format!("full, room is reckoned in {}", span(until)),
        State::Full { until, refused: true } => format!("full, it refuses for {}", span(until)),
        State::Open(until) => format!("failing, left alone for {}", span(until)),
        State::Refused(until) => format!("its credential is refused, left alone for {}", span(until)),
        State::Unfit(misfit) => format!("does not fit: {}", misfit_words(misfit)),
        State::Tried => "was asked already".to_owned(),
        State::Drained(until) => format!("drained for {}", span(until)),
        State::Unknown => "not in force yet".to_owned(),
    };
    if graded.candidate.warm {
        text.push_str("; the conversation is warm here");
        if let Decision::Wait(until) = decision {
            let _ = write!(text, ", and worth waiting {} for", span(*until));
        }
    }
    text
}

fn misfit_words(misfit: Misfit) -> String {
    match misfit {
        Misfit::Images => "it takes no images".to_owned(),
        Misfit::Tools => "it calls no tools".to_owned(),
        Misfit::Thinking => "it does not know `thinking`".to_owned(),
        Misfit::Window { holds, needs } => format!("window {holds} < about {needs}"),
    }
}
