//! The data path in a seeded world: hundreds of made-up stories, each judged by the same invariants; and the judge
//! itself, shown what must not pass. `docs/simulation.md` tells more.
//!
//! `FOREBAY_SEEDS=20000` sweeps more seeds, `FOREBAY_FROM=5000` others; `FOREBAY_SEED=123 cargo test --test sim one_seed
//! -- --nocapture` replays one, with its story and its trace.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "sim/judge.rs"]
mod judge;

use forebay::sim::{
    self, Outcome,
    client::LASTING_MS,
    message::Message,
    pipe::Manner,
    plan::{Plan, Times},
    request::{Asked, Expect},
};
use forebay::telemetry::Ending;
use std::collections::BTreeMap;

/// Seeds of a sweep unless said otherwise.
const SEEDS: u64 = 600;
/// Reports that are printed in full.
const REPORTS_MAX: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn one_seed() {
    let Some(seed) = number("FOREBAY_SEED") else { return };
    let outcome = sim::run(seed, true);
    let breaches = outcome.breaches();
    assert!(breaches.is_empty(), "{}", outcome.report(&breaches));
}

#[test]
fn sweep() {
    let (from, count) = (number("FOREBAY_FROM").unwrap_or(0), number("FOREBAY_SEEDS").unwrap_or(SEEDS));
    let (mut failed, mut met) = (Vec::new(), BTreeMap::new());
    for seed in from..from + count {
        let outcome = sim::run(seed, false);
        let breaches = outcome.breaches();
        count_what_was_met(&outcome, &mut met);
        if let Some((invariant, detail)) = breaches.first() {
            match failed.len() {
                n if n < REPORTS_MAX => eprintln!("{}\n", outcome.report(&breaches)),
                _ => eprintln!("seed {seed}: [{invariant}] {detail}"),
            }
            failed.push(seed);
        }
    }
    eprintln!("{count} seeds: {met:?}");
    assert!(failed.is_empty(), "{} of {count} seeds failed: {:?}", failed.len(), &failed[..failed.len().min(40)]);
    if count >= SEEDS {
        let missed: Vec<_> = MUST_BE_MET.iter().filter(|what| !met.contains_key(**what)).collect();
        assert!(missed.is_empty(), "no story had {missed:?}: the sweep has lost its reach");
    }
}

/// What a sweep is worth: endings and failures that it must have come across.
const MUST_BE_MET: &[&str] = &[
    "answer complete",
    "answer broken",
    "answer told by an event",
    "answer of an HTTP/1.0 client",
    "stream",
    "replay",
    "failover",
    "a kept answer",
    "own ping",
    "a completed stream",
    "outage",
    "calm",
    "reload",
    "drained",
    "fallback off",
    "client left",
    "panic",
    "client_gone",
    "client_stalled",
    "request_timeout",
    "malformed_http",
    "head_too_large",
    "http_version",
    "body_broken",
    "body_unreadable",
    "body_too_large",
    "bodies_full",
    "connections_full",
    "content_encoding",
    "credential_missing",
    "credential_unknown",
    "credential_mistyped",
    "credentials_conflict",
    "key_disabled",
    "model_unknown",
    "model_denied",
    "upstreams_denied",
    "path_closed",
    "no_such_path",
    "method_not_allowed",
    "connect_failed",
    "connect_timeout",
    "upstream_closed",
    "first_byte_timeout",
    "answer_malformed",
    "answer_broken",
    "answer_idle",
    "credential_refused",
    "upstream_moved",
    "answer_unusable",
    "upstreams_busy",
    "upstreams_out",
    "internal",
];

fn count_what_was_met(outcome: &Outcome, met: &mut BTreeMap<&'static str, usize>) {
    let mut count = |what: &'static str, n: usize| {
        if n > 0 {
            *met.entry(what).or_default() += n;
        }
    };
    let seen = &outcome.observed;
    for record in &seen.records {
        count(record.reason, usize::from(!record.reason.is_empty()));
        count("stream", usize::from(record.stream));
        count("failover", usize::from(record.tried[1].is_some() && record.ending == Ending::Complete));
    }
    for saw in &seen.clients {
        let told = |body: &[u8]| String::from_utf8_lossy(body).contains("forebay: the upstream");
        let messages = &saw.reader.messages;
        let says = |body: &[u8], what: &str| String::from_utf8_lossy(body).contains(what);
        count("own ping", messages.iter().filter(|message| says(&message.body, "{\"type\": \"ping\"}")).count());
        let completed = |message: &&Message| says(&message.body, "data: {\"type\":\"message_stop\"}");
        count("a completed stream", messages.iter().filter(completed).count());
        let is_kept = |message: &&Message| {
            let tried = message.field("x-sim-try").and_then(|at| at.parse().ok()).unwrap_or(usize::MAX / 2);
            let id = message.field("x-sim-id").and_then(|id| id.parse().ok());
            tried + 1 < seen.upstreams.attempts.iter().filter(|attempt| attempt.id == id).count()
        };
        count("a kept answer", messages.iter().filter(is_kept).count());
        count("answer complete", messages.iter().filter(|message| message.is_complete).count());
        count("answer broken", messages.iter().filter(|message| !message.is_complete).count());
        let streams = messages.iter().filter(|message| message.status() == 200);
        count("answer told by an event", streams.filter(|message| told(&message.body)).count());
        count("answer of an HTTP/1.0 client", messages.iter().filter(|message| message.until_close).count());
        count("client left", usize::from(saw.left.is_some()));
    }
    count("panic", seen.panics as usize);
    count("replay", seen.upstreams.attempts.iter().filter(|attempt| attempt.was_stale).count());
    let plan = &outcome.plan;
    let is_refused =
        |one: &forebay::telemetry::Attempt| one.verdict == "upstream_failed" || one.verdict == "connect_failed";
    let failed = seen.records.iter().filter(|record| record.tried[0].as_ref().is_some_and(is_refused)).count();
    // As many as it takes for an upstream to be known to be out.
    count("outage", usize::from(plan.times == Times::Outage && failed >= 5));
    count("calm", usize::from(plan.times == Times::Calm));
    count("reload", usize::from(plan.reload.is_some_and(|reload| reload.shut.is_some())));
    count("drained", plan.drained.len());
    count("fallback off", plan.visits.iter().flat_map(|visit| &visit.asks).filter(|asked| asked.is_off).count());
}

/// A request as a client writes it by hand.
fn by_hand(like: &Asked, wire: String, reasons: &'static [&'static str]) -> Asked {
    Asked { wire: wire.into_bytes(), expect: Expect::Own(reasons), method: "GET", fields: Vec::new(), ..like.clone() }
}

#[test]
fn a_client_that_does_not_take_its_invitation_is_let_go() {
    // Its buffers are full of answers that it does not read, so that the 100 finds no room.
    for buffer_bytes in (200..700).step_by(6) {
        let mut plan = Plan::of(1);
        (plan.drains_at_ms, plan.reload, plan.panics) = (None, None, false);
        plan.people[0].refused = None;
        let like = plan.visits[0].asks[0].clone();
        let hello = by_hand(&like, "GET /api/hello HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[""]);
        let key = &plan.people[0].key;
        let fields = format!("host: a\r\nx-api-key: {key}\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n");
        let invited = by_hand(&like, format!("POST /v1/messages HTTP/1.1\r\n{fields}"), &[]);
        let mut visit = plan.visits[0].clone();
        visit.asks = vec![hello; 4];
        visit.asks.push(invited);
        visit.manner = Manner { buffer_bytes, ..Manner::PLAIN };
        (visit.pipelines, visit.leaves, visit.pause) = (true, None, None);
        visit.stall = Some((0, LASTING_MS));
        plan.visits = vec![visit];
        let outcome = sim::play(plan, false);
        let breaches = outcome.breaches();
        assert!(breaches.is_empty(), "{buffer_bytes}: {}", outcome.report(&breaches));
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 17, 88, 1_234] {
        let (one, other) = (sim::run(seed, false), sim::run(seed, false));
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
        assert_eq!(one.observed.records.len(), other.observed.records.len());
        assert_ne!(one.trace_hash, sim::run(seed + 1, false).trace_hash);
    }
}
