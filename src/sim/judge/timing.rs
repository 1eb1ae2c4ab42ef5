//! How long things took, in virtual time.

use super::{Court, rule};
use crate::{
    base::{Mono, Span},
    sim::{
        client::Saw,
        pipe::Cut,
        plan::{Plan, Visit},
        provider::Attempt,
    },
};

/// How late a relay may notice that time is up (its ticks are two seconds apart), and what the world's own delays add.
const SLACK: Span = Span::from_ms(3_500);

/// So many bytes are read ahead to see whether a client has left.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// How soon an upstream is left once it is known that the client has left.
const AT_ONCE: Span = Span::from_ms(5);

pub fn judge(court: &mut Court<'_>) {
    early(court);
    let (plan, seen) = (court.plan, court.seen);
    for (visit, saw) in plan.visits.iter().zip(&seen.clients) {
        patience(court, saw);
        deaf(court, saw);
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
    if saw.deaf_at.is_some() {
        return; // its own waits are as long as it likes
    }
    let waited = saw.longest_wait.0.max(saw.ended.map_or(0, |(at, _)| at.since(saw.last).0));
    if waited > allowed {
        court.breach(rule::PATIENCE, format!("{} ms; {} are allowed", Span(waited).as_ms(), Span(allowed).as_ms()));
    }
}

/// A client that does not read any more is let go.
fn deaf(court: &mut Court<'_>, saw: &Saw) {
    let Some(since) = saw.deaf_at else { return };
    let let_go = court.seen.fates.get(saw.connection as usize).and_then(|fate| fate.let_go[1]);
    // First the answer is waited for, then it trickles, and only then the client is in the way.
    let due = since.after(longest(court.plan)).after(longest(court.plan)).after(saw.idled).after(Span::from_secs(30));
    if let_go.is_none_or(|at| at > due) {
        let at = let_go.map(|at| at.0 / 1_000_000);
        court.breach(rule::PATIENCE, format!("no reader since {} ms, let go at {at:?}", since.0 / 1_000_000));
    }
}

/// Nothing is given up before its time.
fn early(court: &mut Court<'_>) {
    let patience = court.plan.patience;
    let own = court.plan.sites.iter().filter_map(|site| site.first_byte);
    let first_byte = own.fold(patience.first_byte, Span::min);
    for record in &court.seen.records {
        let least = match record.reason {
            "first_byte_timeout" => first_byte,
            "answer_idle" => patience.idle,
            // The end of a drain cuts short what is being written, too.
            "client_stalled" if court.plan.drains_at_ms.is_none() => patience.write_stall,
            "connect_timeout" => patience.connect.min(first_byte),
            "send_timeout" => patience.send.min(first_byte),
            _ => continue,
        };
        if record.duration_us + 1_000 < least.as_us() {
            let detail = format!("{} after {} us, {} ms are due", record.reason, record.duration_us, least.as_ms());
            court.breach(rule::PATIENCE, detail);
        }
    }
}

/// Once a client has left, what upstreams still do for it ends at once.
fn gone(court: &mut Court<'_>, visit: &Visit, saw: &Saw, left: Mono) {
    let Some(fate) = court.seen.fates.get(saw.connection as usize) else { return };
    let Some(heard) = fate.heard[1] else {
        // Requests that wait behind the one that is served stand before the end of the connection; so many bytes of
        // them are read ahead, to see it.
        let asked: usize = visit.asks.iter().map(|asked| asked.wire.len()).sum();
        let is_hidden = visit.pipelines && asked > HELD_BYTES_MAX;
        if !is_hidden && fate.let_go[1].is_none_or(|at| at > left.after(delay(visit))) {
            let let_go = fate.let_go[1].map(|at| at.0 / 1_000_000);
            let detail = format!("a client left at {} ms, was let go at {let_go:?}", left.0 / 1_000_000);
            court.breach(rule::GONE, detail);
        }
        return;
    };
    for asked in &visit.asks {
        for attempt in court.attempts(asked.id).filter(|attempt| !is_whole(attempt)) {
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
fn is_whole(attempt: &Attempt) -> bool {
    let script = &attempt.script;
    let is_sent = attempt.sent_at.is_some() || attempt.sent >= script.body_end && !script.until_close;
    attempt.was_stale || is_sent && script.at_best().1
}

/// How long the news of a client's leave may take to reach forebay: what is on its way comes first. Each piece of it costs
/// turns of the one core that everybody in this world shares (seed 7451: 700 pieces among twenty clients took 131 ms).
fn delay(visit: &Visit) -> Span {
    let (pieces, turns_ms) = if visit.manner.cut == Cut::Bytes { (700, 500) } else { (60, 100) };
    Span::from_ms(turns_ms + pieces * visit.manner.delay_ms_max)
}
