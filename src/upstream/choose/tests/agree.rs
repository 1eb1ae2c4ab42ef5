//! `weigh` and `choose` say the same, and no choice breaks a bound.

use super::*;
use proptest::prelude::*;

/// What may be so with one credential and its upstream.
#[derive(Clone, Debug)]
struct Fate {
    upstream: u32,
    tier: u8,
    weight: u32,
    window: Option<u64>,
    failing: bool,
    refused: bool,
    full_s: Option<u64>,
    drained: bool,
    in_flight: u64,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (
        (0_u32..5, 1_u8..4, 0_u32..4, prop::option::of(500_u64..3_000)),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::option::weighted(0.3, 1_u64..100)),
        (prop::bool::weighted(0.1), 0_u64..30),
    );
    let fate = fate.prop_map(|((upstream, tier, weight, window), (failing, refused, full_s), (drained, in_flight))| {
        Fate { upstream, tier, weight, window, failing, refused, full_s, drained, in_flight }
    });
    prop::collection::vec(fate, 1..7)
}

/// Five upstreams with three credentials each; the fate of target `i` is that of credential `i` too.
fn world(fates: &[Fate], closed: &[u32]) -> Option<World> {
    let target = |fate: &Fate| Target {
        weight: fate.weight,
        said: SaidCan { window_max: fate.window, ..SaidCan::default() },
        ..to(fate.upstream, fate.tier)
    };
    let targets: Vec<Target> = fates.iter().map(target).collect();
    if targets.iter().all(|target| closed.contains(&target.upstream.0)) {
        return None;
    }
    let world = World::closed(&[3; 5], targets, closed);
    for (at, fate) in fates.iter().enumerate() {
        let slot = fate.upstream * 3 + at as u32 % 3;
        if fate.failing {
            world.fail(fate.upstream, NOW);
        }
        if fate.refused {
            world.credential(slot).refused.set(secs(50));
        }
        if let Some(seconds) = fate.full_s {
            world.fill(slot, secs(seconds));
        }
        if fate.drained {
            world.credential(slot).drained.set(secs(50));
        }
        world.credential(slot).in_flight.store(fate.in_flight, Relaxed);
    }
    Some(world)
}

proptest! {
    #[test]
    fn what_is_explained_is_what_is_done(
        fates in fates(), conversation in prop::option::of(any::<u64>()), warm_at in prop::option::of(0_u32..15),
        input in 0_u64..5_000, bytes in 0_u64..200_000, fallback in prop::bool::weighted(0.8),
        closed in prop::collection::vec(0_u32..5, 0..3),
    ) {
        let Some(world) = world(&fates, &closed) else { return Ok(()) };
        let view = View {
            demand: Demand { input, ..Demand::default() }, bytes, fallback, ..world.view(conversation)
        };
        if let Some(slot) = warm_at {
            let candidate = Candidate {
                target: 0, upstream: UpstreamSlot(slot / 3), place: 0, credential: CredentialSlot(slot),
                class: ModelClass::of(""), need: super::super::Need::default(), warm: false, suspect: false,
            };
            remember(&view, &candidate, false, false, NOW);
        }
        let mut tried = Tried::default();
        for attempt in 0..=TRIES_MAX {
            let weighed = weigh(&view, &tried, secs(1));
            let choice = choose(&view, &tried, secs(1), 0);
            let chosen: Vec<&Weighed> = weighed.iter().filter(|row| row.chosen).collect();
            let tiers: Vec<u8> = weighed.iter().filter(|row| row.candidate.is_some()).map(|row| row.tier).collect();
            prop_assert!(tiers.is_sorted());
            let Choice::Ask(candidate) = choice else {
                // A doubtful one may be chosen and yet not be allowed by the budget.
                prop_assert!(chosen.iter().all(|row| !row.good), "{:?} but {:?}", choice, chosen);
                break;
            };
            prop_assert!(attempt < TRIES_MAX);
            prop_assert_eq!(chosen.len(), 1);
            prop_assert_eq!(chosen[0].candidate.map(|row| (row.target, row.credential)), Some((candidate.target, candidate.credential)));
            let honest = super::super::decide::Ground::of(&view, secs(1), 0, 0).is_honest(&view);
            if !honest && weighed.iter().any(|row| row.good) {
                let first = weighed.iter().find(|row| row.good).and_then(|row| row.candidate);
                prop_assert_eq!(first.map(|row| (row.target, row.credential)), Some((candidate.target, candidate.credential)));
                prop_assert!(!candidate.suspect);
            }
            prop_assert!(!closed.contains(&candidate.upstream.0), "outside the caller's upstreams");
            prop_assert!(!tried.has(&candidate));
            prop_assert!(world.credential(candidate.credential.0).drained.until(secs(1)).is_none());
            tried.note(&candidate, Spent::Candidate);
        }
        prop_assert!(fallback || tried.len() <= 1, "one attempt");
    }
}

#[test]
fn states_are_told_in_words() {
    let mut targets: Vec<Target> = (0..7).map(|at| to(at, at as u8 + 1)).collect();
    targets[6].said.window_max = Some(10_000);
    let world = World::closed(&[1; 8], [targets, vec![to(7, 9)]].concat(), &[7]);
    let view = View { demand: Demand { input: 20_000, ..Demand::default() }, bytes: 80_000, ..world.view(Some(1)) };
    let first = ask(&view, NOW);
    remember(&view, &first, false, false, NOW);
    world.fill(0, secs(3));
    world.fail(1, NOW);
    world.credential(2).refused.set(secs(60));
    world.health.upstream(UpstreamSlot(3)).unwrap().drained.set(secs(7_200));
    let mut tried = Tried::default();
    tried.note(
        &Candidate { target: 4, upstream: UpstreamSlot(4), credential: CredentialSlot(4), ..first },
        Spent::Candidate,
    );
    let weighed = weigh(&view, &tried, NOW);
    let words: Vec<&str> = weighed.iter().map(|row| row.state.as_str()).collect();
    let failing = words[1];
    assert!(failing.starts_with("failing, left alone for "), "{failing}");
    assert_eq!(
        words,
        [
            "full, it refuses for 3.0 s; the conversation is warm here, and worth waiting 3.0 s for",
            failing,
            "its credential is refused, left alone for 60.0 s",
            "drained for 7200.0 s",
            "was asked already",
            "good",
            "does not fit: window 10000 < about 26666",
            "outside the upstreams that your team or key may use",
        ]
    );
    assert_eq!(choose(&view, &tried, NOW, 0), Choice::Wait(secs(3)));
    assert!(weighed.iter().all(|row| !row.chosen));
    assert_eq!(weighed.iter().filter(|row| row.good).map(|row| row.upstream.0).collect::<Vec<_>>(), [5]);
}
