//! How long things took, in virtual time.

use super::{Court, rule};
use crate::{
    base::{Mono, Span},
    sim::{
        client::Saw,
        plan::{Plan, Visit},
        provider::Attempt,
    },
};

/// How late a relay may notice that time is up (its ticks are two seconds apart), and what the world's own delays add.
const SLACK: Span = Span::from_ms(3_500);

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
    let other = [patience.idle, patience.keep_alive, patience.head, patience.body, patience.write_stall].map(|span| span.0);
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
    let mut end = 0;
    for asked in &visit.asks {
        end += asked.wire.len();
        // Requests that wait behind this one stand before the end of the connection, and are not read yet.
        let is_hidden = saw.sent > end;
        for attempt in court.attempts(asked.id) {
            let Some(line) = court.lines.get(&attempt.connection) else { continue };
            let due = left.max(attempt.began).after(delay(court, visit));
            let is_late = line.ended.is_none_or(|ended| ended > due);
            if is_late && !is_hidden && !is_whole(attempt, asked) {
                let ended = line.ended.unwrap_or(Mono(u64::MAX));
                let detail = format!(
                    "request {}: left at {} ms, the upstream was held until {} ms",
                    asked.id,
                    left.0 / 1_000_000,
                    ended.0 / 1_000_000
                );
                court.breach(rule::GONE, detail);
            }
        }
    }
}

/// The answer had been sent whole, so that the connection may live on.
fn is_whole(attempt: &Attempt, asked: &crate::sim::request::Asked) -> bool {
    attempt.was_stale || attempt.sent_at.is_some() && asked.scripts[attempt.script].at_best().1
}

/// How long the news may take: a few delays each way.
fn delay(court: &Court<'_>, visit: &Visit) -> Span {
    Span::from_ms(100 + 3 * (visit.manner.delay_ms_max + court.plan.manner.delay_ms_max))
}
