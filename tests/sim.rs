//! The data path in a seeded world: thousands of made-up stories, each judged by the same invariants.
//! `FOREBAY_SEEDS=20000` runs more of them, `FOREBAY_SEED=123 ... one_seed` one of them, with its trace.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use forebay::sim;

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
    let (from, count) = (number("FOREBAY_FROM").unwrap_or(0), number("FOREBAY_SEEDS").unwrap_or(300));
    let mut failed = Vec::new();
    for seed in from..from + count {
        let outcome = sim::run(seed, false);
        let breaches = outcome.breaches();
        if !breaches.is_empty() {
            if failed.len() < 5 {
                eprintln!("{}\n", outcome.report(&breaches));
            } else {
                eprintln!("seed {seed}: [{}] {}", breaches[0].0, breaches[0].1);
            }
            failed.push((seed, breaches[0].0));
        }
    }
    assert!(failed.is_empty(), "{} of {count} seeds failed: {:?}", failed.len(), &failed[..failed.len().min(40)]);
}
