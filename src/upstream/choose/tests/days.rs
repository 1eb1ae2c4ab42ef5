//! Hours of conversations in virtual time: how many turns find their cache, and how even the load is.

use super::*;
use crate::base::Rng;
use std::{cmp::Reverse, collections::BinaryHeap};

const CREDENTIALS: usize = 4;
const CONVERSATIONS: u64 = 200;
const TURNS: u32 = 30;
/// While the conversations begin, one after the other.
const MORNING_S: u64 = 900;
/// One credential is refused from then until then.
const LOST: u32 = 1;
const OUTAGE_S: (u64, u64) = (1_000, 1_400);
/// Time after the outage until loads are looked at again: two times the life of a cache.
const RECOVERY_S: u64 = 600;

#[derive(Default, Debug)]
struct Tally {
    /// Turns that began within five minutes of their conversation's last one.
    had_cache: u32,
    /// Of these, turns that were asked at the credential which has it.
    found: u32,
    /// Time in flight by credential, in milliseconds, before the outage and long enough after it.
    busy_ms: [u64; CREDENTIALS],
    asked: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin { conversation: u64, turn: u32 },
    End { conversation: u64, turn: u32, credential: u32 },
}

/// How long an agent's turn takes: 3 to 20 s.
fn busy(rng: &mut Rng) -> Span {
    Span::from_ms(3_000 + rng.below(17_000))
}

/// How long until the next: mostly the tools' time, sometimes a person's thinking, now and then a break that is longer
/// than a cache lives.
fn pause(rng: &mut Rng) -> Span {
    Span::from_ms(match rng.below(100) {
        0..=79 => 500 + rng.below(10_000),
        80..=91 => 15_000 + rng.below(150_000),
        _ => 310_000 + rng.below(600_000),
    })
}

fn run(seed: u64, world: &World, lose: impl Fn(&World, bool)) -> Tally {
    let mut rng = Rng(seed);
    let mut tally = Tally::default();
    let mut holders: Vec<Option<(u32, Mono)>> = vec![None; CONVERSATIONS as usize];
    let names: Vec<u64> = (0..CONVERSATIONS).map(|_| rng.draw()).collect();
    let mut events = BinaryHeap::new();
    for conversation in 0..CONVERSATIONS {
        let begin = Mono(Span::from_ms(rng.below(MORNING_S * 1_000)).0);
        events.push(Reverse((begin, Event::Begin { conversation, turn: 0 })));
    }
    let (from, until) = (Mono(Span::from_secs(OUTAGE_S.0).0), Mono(Span::from_secs(OUTAGE_S.1).0));
    while let Some(Reverse((now, event))) = events.pop() {
        lose(world, (from..until).contains(&now));
        match event {
            Event::Begin { conversation, turn } => {
                let at = conversation as usize;
                let bytes = 40_000 + 10_000 * u64::from(turn);
                let view = View { bytes, ..world.view(Some(names[at])) };
                let candidate = asked(choose(&view, &UNTRIED, now, rng.draw()));
                let credential = candidate.credential.0;
                if let Some((holder, last)) = holders[at].filter(|(_, last)| now.since(*last) < Span::from_secs(300)) {
                    tally.had_cache += 1;
                    tally.found += u32::from(holder == credential);
                    assert_eq!(candidate.warm, holder == credential, "{now:?} after {last:?}");
                }
                tally.asked += 1;
                holders[at] = Some((credential, now));
                remember(&view, &candidate, false, false, now);
                world.credential(credential).in_flight.fetch_add(1, Relaxed);
                let span = busy(&mut rng);
                let calm = now < from || now > until.after(Span::from_secs(RECOVERY_S));
                tally.busy_ms[credential as usize] += if calm { span.as_ms() } else { 0 };
                events.push(Reverse((now.after(span), Event::End { conversation, turn, credential })));
            }
            Event::End { conversation, turn, credential } => {
                world.credential(credential).in_flight.fetch_sub(1, Relaxed);
                if turn + 1 < TURNS {
                    let next = Event::Begin { conversation, turn: turn + 1 };
                    events.push(Reverse((now.after(pause(&mut rng)), next)));
                }
            }
        }
    }
    tally
}

fn judge(tally: &Tally) {
    assert_eq!(u64::from(tally.asked), CONVERSATIONS * u64::from(TURNS));
    assert!(tally.had_cache > tally.asked * 8 / 10, "a test of caches has caches: {tally:?}");
    assert!(tally.found * 100 >= tally.had_cache * 97, "turns at the credential that holds their cache: {tally:?}");
    let mean = tally.busy_ms.iter().sum::<u64>() / CREDENTIALS as u64;
    let most = tally.busy_ms.iter().max().copied().unwrap_or_default();
    assert!(most * 4 <= mean * 5, "1.25 times the mean: {tally:?}");
}

#[test]
fn caches_are_kept_and_load_is_even_with_a_credential_lost_and_back() {
    for seed in 0..8 {
        let world = World::pool(CREDENTIALS);
        let tally = run(seed, &world, |world, out| {
            let refused = &world.credential(LOST).refused;
            if out { refused.set(Mono(u64::MAX)) } else { refused.clear() }
        });
        judge(&tally);
    }
}

#[test]
fn the_same_with_four_upstreams_of_which_one_fails() {
    for seed in 0..4 {
        let world = World::new(&[1; CREDENTIALS], (0..CREDENTIALS as u32).map(|at| to(at, 1)).collect());
        let drained = |world: &World, out: bool| {
            let upstream = world.health.upstream(UpstreamSlot(LOST)).unwrap();
            if out { upstream.drained.set(Mono(u64::MAX)) } else { upstream.drained.clear() }
        };
        judge(&run(seed, &world, drained));
    }
}
