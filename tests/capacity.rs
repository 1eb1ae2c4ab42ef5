//! Upstream truth, proved: while the credentials together have room, no client sees a refusal, and hardly ever does the
//! provider have to refuse. Four credentials of the enforcing provider, agents' requests in bursts at 85 to 90 % of all
//! they allow, virtual time; see `capacity/world.rs`.
//!
//! `FOREBAY_CAPACITY=100000 cargo test --test capacity -- --nocapture` runs more requests, `FOREBAY_SEEDS=20` more seeds.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "capacity/world.rs"]
mod world;

use world::{Outcome, Setting, World};

/// Requests of a run unless said otherwise.
const REQUESTS: u64 = 5_000;
/// Of a million requests to the provider, so many may be refused.
const REFUSED_MAX_PPM: u64 = 1_000;

const LIMITS: &str = "rpm=400,itpm=2000000,otpm=400000";
const SMALL: &str = "rpm=20,itpm=100000,otpm=20000";

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |value| value.parse().expect("a number"))
}

fn setting(seed: u64, limits: [&'static str; 4], load: f64, total_per_minute: f64) -> Setting {
    let requests = number("FOREBAY_CAPACITY", REQUESTS);
    Setting {
        seed,
        requests,
        limits,
        load,
        total_per_minute,
        others: None,
        skew_ms: 0,
        tells_nothing: false,
        rises_over_minutes: 0.0,
    }
}

fn run(name: &str, setting: &Setting) -> Outcome {
    let outcome = World::run(setting);
    let (asked, refused): (u64, u64) = (outcome.asked.iter().sum(), outcome.refused.iter().sum());
    eprintln!(
        "{name}, seed {}: {} requests in {} s, {} visible; asked {:?}, refused {:?} = {:.4} %, at most {} under way, {:.1} s behind; refusals {:?}",
        setting.seed,
        outcome.requests,
        outcome.seconds,
        outcome.visible,
        outcome.asked,
        outcome.refused,
        refused as f64 * 100.0 / asked as f64,
        outcome.in_flight_max,
        outcome.backlog_max_s,
        outcome.refusals,
    );
    assert_eq!(outcome.in_flight_end, 0, "{name}: something leaked");
    outcome
}

/// `hold_s`: what the buckets hold, in seconds of refill; what comes at once must be less.
fn holds(name: &str, hold_s: f64, make: impl Fn(u64) -> Setting) {
    for seed in 1..=number("FOREBAY_SEEDS", 2) {
        let setting = make(seed);
        let outcome = run(name, &setting);
        let (asked, refused): (u64, u64) = (outcome.asked.iter().sum(), outcome.refused.iter().sum());
        let premise = outcome.backlog_max_s < hold_s;
        assert!(premise, "{name}, seed {seed}: {} s came at once, so the room does not suffice", outcome.backlog_max_s);
        assert_eq!(outcome.visible, 0, "{name}, seed {seed}: a client saw a refusal while there was room");
        assert!(refused * 1_000_000 <= asked * REFUSED_MAX_PPM, "{name}, seed {seed}: {refused} of {asked}");
        assert!(asked - refused == outcome.requests, "{name}, seed {seed}: every request was answered once");
    }
}

#[test]
fn four_alike() {
    holds("four alike", 60.0, |seed| setting(seed, [LIMITS; 4], 0.87, 8_000_000.0));
}

#[test]
fn one_much_smaller() {
    holds("one much smaller", 60.0, |seed| setting(seed, [SMALL, LIMITS, LIMITS, LIMITS], 0.87, 6_100_000.0));
}

/// Buckets of ten seconds of refill are a sixth of what their limits say.
#[test]
fn buckets_smaller_than_their_limits() {
    const SHORT: &str = "rpm=1000,itpm=12000000,otpm=2400000,burst_s=10";
    holds("buckets of ten seconds", 10.0, |seed| setting(seed, [SHORT; 4], 0.77, 48_000_000.0));
}

/// The provider's clock is a minute and a half ahead, and so are the moments that it tells.
#[test]
fn clocks_that_differ() {
    holds("clocks that differ", 60.0, |seed| Setting {
        skew_ms: 90_000,
        ..setting(seed, [LIMITS; 4], 0.87, 8_000_000.0)
    });
}

/// A limit that is not told, and traffic that rises faster: the provider has to refuse, and so have we, since what it
/// allows does not suffice. It is not run into again and again.
#[test]
fn a_limit_on_rises_that_nobody_tells() {
    const RAMP: &str = "rpm=400,itpm=2000000,otpm=400000,ramp_itpm=300000";
    for seed in 1..=number("FOREBAY_SEEDS", 2) {
        let rising = Setting { rises_over_minutes: 4.0, ..setting(seed, [RAMP; 4], 0.7, 8_000_000.0) };
        let outcome = run("a limit on rises", &rising);
        assert!(outcome.visible * 20 <= outcome.requests, "{} of {}", outcome.visible, outcome.requests);
        let (asked, refused): (u64, u64) = (outcome.asked.iter().sum(), outcome.refused.iter().sum());
        assert!(refused * 50 <= asked, "{refused} of {asked}");
    }
}

/// Upstreams that tell nothing, one of them much smaller: what it refuses is all that is known of it.
#[test]
fn limits_that_nobody_tells() {
    for seed in 1..=number("FOREBAY_SEEDS", 2) {
        let limits = [SMALL, LIMITS, LIMITS, LIMITS];
        let outcome = run("untold", &Setting { tells_nothing: true, ..setting(seed, limits, 0.7, 6_100_000.0) });
        assert_eq!(outcome.visible, 0);
        let (asked, refused): (u64, u64) = (outcome.asked.iter().sum(), outcome.refused.iter().sum());
        assert!(refused * 20 <= asked, "{refused} of {asked}");
    }
}

#[test]
fn one_shared_with_others() {
    holds("one shared with others", 60.0, |seed| Setting {
        others: Some((40, 2_000_000)),
        ..setting(seed, [LIMITS; 4], 0.85, 7_200_000.0)
    });
}
