//! How long things took, in virtual time.

use super::{Court, rule};
use crate::{
    base::{Mono, Span},
    sim::{
        client::Saw,
        pipe::Cut,
        plan::{Plan, Visit},
        provider::Attempt,
        request::Asked,
    },
};

/// How late a relay may notice that time is up (its ticks are two seconds apart), and what the world's own delays add.
const SLACK: Span = Span::from_ms(3_500);

/// How soon an upstream is left once it is known that the client has left.
const AT_ONCE: Span = Span::from_ms(5);

pub fn judge(court: &mut Court<'_>) {
    let (plan, seen) = (court.plan, court.seen);
    for (visit, saw) in plan.visits.iter().zip(&seen.clients) {
        patience(court, saw);
        if let Some((left, _)) = saw.left {
            gone(court, visit, saw, left);
        }
    }
}

/// The longest time that may pass without anything happening on a client's connection.
fn longest(plan: &Plan) -> Span {
    let patience = &plan.patience;
    let connect = patience.connect.0 * 3;
    let answer = connect.min(patience.first_byte.0) + 2 * patience.first_byte.0;
    let other =
        [patience.idle, patience.keep_alive, patience.head, patience.body, patience.write_stall].map(|span| span.0);
    Span(other.into_iter().fold(answer, u64::max) + SLACK.0)
}

fn patience(court: &mut Court<'_>, saw: &Saw) {
    let allowed = longest(court.plan).0 + saw.idled.0;
    let waited = saw.longest_wait.0.max(saw.ended.map_or(0, |(at, _)| at.since(saw.last).0));
    if waited > allowed {
        court.breach(rule::PATIENCE, format!("{} ms; {} are allowed", Span(waited).as_ms(), Span(allowed).as_ms()));
    }
}

/// Once a client has left, what upstreams still do for it ends at once.
fn gone(court: &mut Court<'_>, visit: &Visit, saw: &Saw, left: Mono) {
    let Some(fate) = court.seen.fates.get(saw.connection as usize) else { return };
    let Some(heard) = fate.heard[1] else {
        // Requests that wait behind the one that is served stand before the end of the connection.
        let is_hidden = visit.pipelines && saw.sent > 0;
        if !is_hidden && fate.let_go[1].is_none_or(|at| at > left.after(delay(visit))) {
            court.breach(rule::GONE, format!("a client left at {} ms, and nobody took notice", left.0 / 1_000_000));
        }
        return;
    };
    for asked in &visit.asks {
        for attempt in court.attempts(asked.id).filter(|attempt| !is_whole(attempt, asked)) {
            let let_go = court.seen.fates.get(attempt.connection as usize).and_then(|fate| fate.let_go[0]);
            if let_go.is_none_or(|at| at > heard.after(AT_ONCE)) {
                let detail = format!(
                    "request {}: left at {} ms, known at {}, the upstream was held until {:?}",
                    asked.id,
                    left.0 / 1_000_000,
                    heard.0 / 1_000_000,
                    let_go.map(|at| at.0 / 1_000_000)
                );
                court.breach(rule::GONE, detail);
            }
        }
    }
}

/// The answer had been sent whole, so that the connection may live on.
fn is_whole(attempt: &Attempt, asked: &Asked) -> bool {
    attempt.was_stale || attempt.sent_at.is_some() && asked.scripts[attempt.script].at_best().1
}

/// How long the news of a client's leave may take to reach forebay: what is on its way comes first.
fn delay(visit: &Visit) -> Span {
    let pieces = if visit.manner.cut == Cut::Bytes { 700 } else { 60 };
    Span::from_ms(100 + pieces * visit.manner.delay_ms_max)
}
