//! What a prompt cache is worth: what it costs to write it again elsewhere, and how long a developer may be kept waiting
//! instead.

use super::{Candidate, View, WAIT_MAX, warm};
use crate::{
    base::{CredentialSlot, MicroUsd, Mono, Span},
    upstream::{ModelClass, Warm, fit::BYTES_USUAL},
};

/// What a developer's second costs, in millionths of a dollar: 100 dollars an hour.
const SECOND_MICRO_USD: u64 = 27_778;

/// What one million of what a model counts costs more when it is written to a cache than when it is read from one, in
/// cents: for five minutes, and for an hour. List prices of Opus 5, Sonnet 5, Haiku 4.5; others are taken to cost what
/// Haiku does. A table of prices with dates is elsewhere; here only the order of magnitude decides.
const REWRITE_CENTS: [(&str, [u64; 2]); 3] = [("opus", [575, 950]), ("sonnet", [230, 380]), ("haiku", [115, 190])];
const REWRITE_CENTS_OTHER: [u64; 2] = [115, 190];

/// How much of a request's prompt is cached, as a model counts it.
pub(super) fn cached(view: &View<'_>, warm: &Warm) -> u64 {
    warm.bytes.min(view.bytes) / BYTES_USUAL
}

/// What it costs to have that much written to a cache again, in millionths of a dollar.
fn rewrite_micro_usd(class: ModelClass, llm_tokens: u64, long: bool) -> u64 {
    let row = REWRITE_CENTS.iter().find(|(name, _)| *name == class.name());
    let [short_cents, long_cents] = row.map_or(REWRITE_CENTS_OTHER, |(_, cents)| *cents);
    llm_tokens.saturating_mul(if long { long_cents } else { short_cents }) / 100
}

/// How long a request may go on waiting for the credential at which its conversation is warm. A wait that costs more of
/// a developer's time than the cache is worth is none.
pub(super) fn patience(view: &View<'_>, class: ModelClass, warm: &Warm) -> Span {
    let worth = rewrite_micro_usd(class, cached(view, warm), warm.long);
    let span = Span::from_ms(worth.saturating_mul(1_000) / SECOND_MICRO_USD).min(WAIT_MAX);
    Span(span.0.saturating_sub(view.waited.0))
}

/// A conversation that is answered elsewhere than where it is warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The credential that has its cache.
    pub from: CredentialSlot,
    /// How much has to be written to a cache again, as a model counts it: an estimate.
    pub llm_tokens: u64,
    /// What that costs, by list prices of the class: an estimate.
    pub cost: MicroUsd,
}

/// What asking `candidate` costs in cache, if the conversation is warm elsewhere. To be counted when it is asked.
pub fn leaving(view: &View<'_>, candidate: &Candidate, now: Mono) -> Option<Leaving> {
    let warm = warm(view, now).filter(|warm| warm.credential != candidate.credential)?;
    let llm_tokens = cached(view, &warm);
    let cost = rewrite_micro_usd(candidate.class, llm_tokens, warm.long);
    Some(Leaving { from: warm.credential, llm_tokens, cost: MicroUsd(i64::try_from(cost).unwrap_or(i64::MAX)) })
}
