//! Candidates that are not well: who is asked instead, and who all the same.

use super::*;

#[test]
fn full_ones_are_passed_over_and_all_full_says_when() {
    let world = World::pool(2);
    let view = world.view(Some(1));
    let first = slot(&view, NOW);
    world.fill(first, secs(40));
    assert_eq!(slot(&view, NOW), 1 - first);
    world.fill(1 - first, secs(20));
    assert_eq!(choose(&view, &UNTRIED, NOW, 0), Choice::Nobody { room_at: Some(secs(20)) });
    assert_eq!(slot(&view, secs(20)), 1 - first);
}

#[test]
fn the_last_ones_standing_are_asked_once_and_then_by_the_budget() {
    let world = World::new(&[1, 1, 1], vec![to(0, 1), to(1, 1), to(2, 2)]);
    let view = world.view(Some(1));
    world.fail(0, secs(3));
    world.fail(1, secs(2));
    world.credential(2).refused.set(secs(4));
    let first = ask(&view, secs(3));
    assert_eq!((first.upstream, first.suspect), (UpstreamSlot(1), true), "soonest back, open before refused");
    let mut tried = Tried::default();
    tried.note(&first, Spent::Upstream);
    let next = asked(choose(&view, &tried, secs(3), 0));
    assert_eq!((next.upstream, next.suspect), (UpstreamSlot(0), true));
    tried.note(&next, Spent::Upstream);
    assert_eq!(asked(choose(&view, &tried, secs(3), 0)).upstream, UpstreamSlot(2), "refused, but the budget allows it");
}

#[test]
fn a_budget_that_is_spent_ends_further_attempts_at_doubtful_ones() {
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 2)]);
    let view = world.view(Some(1));
    (0..2).for_each(|upstream| world.fail(upstream, NOW));
    let mut second = 0;
    for _ in 0..100 {
        let mut tried = Tried::default();
        tried.note(&ask(&view, NOW), Spent::Upstream);
        second += u32::from(choose(&view, &tried, NOW, 0) != Choice::Nobody { room_at: None });
    }
    assert_eq!(second, 3, "what the budget has in store, and each first attempt");
}

#[test]
fn a_known_time_goes_before_a_doubtful_upstream_if_it_is_soon() {
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 2)]);
    let view = world.view(Some(1));
    world.fail(1, NOW);
    world.fill(0, secs(30));
    assert_eq!(choose(&view, &UNTRIED, NOW, 0), Choice::Nobody { room_at: Some(secs(30)) });
    world.fill(0, secs(3_600));
    assert_eq!(ask(&view, NOW).upstream, UpstreamSlot(1), "an hour is no answer");
}

/// The first conversation whose home among two upstreams of one tier is this one.
fn at_home(world: &World, upstream: u32, not: u64) -> u64 {
    (0..100).find(|name| *name != not && slot(&world.view(Some(*name)), NOW) == upstream).unwrap()
}

#[test]
fn a_probe_is_taken_by_one_who_would_have_gone_there_and_by_nobody_else() {
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 1)]);
    let (one, other) = (at_home(&world, 0, 1_000), at_home(&world, 1, 1_000));
    let another = at_home(&world, 0, one);
    world.fail(0, NOW);
    let back = world.probed_at(0, NOW);
    assert_eq!(slot(&world.view(Some(other)), back), 1);
    assert_eq!(weigh(&world.view(Some(one)), &UNTRIED, back).iter().filter(|row| row.chosen).count(), 1);
    assert_eq!(world.standing(0, back), Standing::Probe, "neither looking elsewhere nor explaining takes it");
    let probe = ask(&world.view(Some(one)), back);
    assert_eq!((probe.upstream, probe.suspect), (UpstreamSlot(0), true));
    assert_eq!(slot(&world.view(Some(another)), back), 1, "it is taken");
}

#[test]
fn two_targets_at_one_upstream_do_not_fight_for_its_probe() {
    let sonnet = Target { model: Some("claude-sonnet-5".into()), ..to(0, 2) };
    let world = World::new(&[1, 1], vec![to(0, 1), sonnet, to(1, 3)]);
    world.fail(0, NOW);
    let back = world.probed_at(0, NOW);
    assert!(ask(&world.view(Some(1)), back).suspect);
    assert_eq!(ask(&world.view(Some(2)), back).upstream, UpstreamSlot(1));
}

#[test]
fn a_slow_start_takes_conversations_over_one_by_one_and_once_each() {
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 2)]);
    world.fail(0, NOW);
    let back = world.probed_at(0, NOW);
    assert!(ask(&world.view(Some(0)), back).suspect);
    world.health.upstream(UpstreamSlot(0)).unwrap().breaker.succeeded(back);
    let moved = |after_s: u64| -> Vec<u64> {
        let now = back.after(Span::from_secs(after_s));
        (0..1_000).filter(|name| slot(&world.view(Some(*name)), now) == 0).collect()
    };
    let parts = [moved(0), moved(10), moved(20), moved(60)];
    assert!((50..200).contains(&parts[0].len()), "{}", parts[0].len());
    assert_eq!(parts[3].len(), 1_000);
    for pair in parts.windows(2) {
        assert!(pair[0].len() < pair[1].len());
        assert!(pair[0].iter().all(|name| pair[1].contains(name)), "who has gone over stays");
    }
    let alone = World::new(&[1], vec![to(0, 1)]);
    alone.fail(0, NOW);
    let back = alone.probed_at(0, NOW);
    ask(&alone.view(Some(0)), back);
    alone.health.upstream(UpstreamSlot(0)).unwrap().breaker.succeeded(back);
    for name in 0..100 {
        let candidate = ask(&alone.view(Some(name)), back);
        assert!(!candidate.suspect, "it works, and there is no other");
    }
}

#[test]
fn one_that_is_paced_comes_after_others_of_its_tier_and_before_the_next() {
    let world = World::new(&[2, 1], vec![to(0, 1), to(1, 2)]);
    let (view, warm) = warmed(&world, 1, 10_000);
    let first = warm.credential.0;
    let under_way = world.burden(first, 20);
    assert_eq!(slot(&view, NOW), first, "a cache is worth more");
    let cold = View { conversation: None, ..view };
    for draw in 0..50 {
        assert_eq!(asked(choose(&cold, &UNTRIED, NOW, draw)).credential.0, 1 - first);
    }
    let more = world.burden(1 - first, 20);
    for draw in 0..50 {
        assert_eq!(asked(choose(&cold, &UNTRIED, NOW, draw)).upstream, UpstreamSlot(0));
    }
    drop((under_way, more));
}

#[test]
fn whether_somebody_is_left_is_told_and_nothing_taken() {
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 2)]);
    let view = world.view(Some(1));
    let mut tried = Tried::default();
    tried.note(&ask(&view, NOW), Spent::Candidate);
    assert!(super::super::left(&view, &tried, NOW));
    world.fail(1, NOW);
    assert!(!super::super::left(&view, &tried, NOW), "a doubtful one is no prospect");
    let back = world.probed_at(1, NOW);
    assert!(super::super::left(&view, &tried, back));
    assert_eq!(world.standing(1, back), Standing::Probe);
    assert!(!super::super::left(&View { fallback: false, ..view }, &tried, back));
}

#[test]
fn the_drained_are_never_asked() {
    let world = World::new(&[2, 1], vec![to(0, 1), to(1, 2)]);
    let view = world.view(Some(1));
    world.health.upstream(UpstreamSlot(1)).unwrap().drained.set(secs(1_000));
    world.credential(0).drained.set(secs(1_000));
    assert_eq!(slot(&view, NOW), 1);
    world.credential(1).drained.set(secs(500));
    for view in [view, View { fallback: false, ..world.view(Some(1)) }] {
        assert_eq!(choose(&view, &UNTRIED, NOW, 0), Choice::Nobody { room_at: None });
    }
    assert_eq!(slot(&world.view(Some(1)), secs(500)), 1);
}

#[test]
fn without_fallback_the_first_choice_is_asked_once_whatever_its_state() {
    let world = World::new(&[1, 1], vec![windowed(0, 1, 10), to(1, 2)]);
    let view = View { fallback: false, ..world.view(Some(1)) };
    world.fail(0, NOW);
    world.fill(0, secs(9));
    world.credential(0).refused.set(secs(9));
    let first = ask(&view, NOW);
    assert_eq!(first.upstream, UpstreamSlot(0));
    let mut tried = Tried::default();
    tried.note(&first, Spent::Candidate);
    assert_eq!(choose(&view, &tried, NOW, 0), Choice::Nobody { room_at: None });
}

#[test]
fn a_bound_conversation_goes_where_it_was_however_long_ago() {
    let world = World::new(&[1, 3], vec![to(0, 1), to(1, 2)]);
    let view = View { bound: true, ..world.view(Some(1)) };
    let at = Candidate { credential: CredentialSlot(2), upstream: UpstreamSlot(1), ..ask(&view, NOW) };
    remember(&view, &at, false, false, NOW);
    world.fail(1, secs(80_000));
    let again = ask(&view, secs(80_001));
    assert_eq!((again.credential, again.suspect), (CredentialSlot(2), true));
    let mut tried = Tried::default();
    tried.note(&again, Spent::Candidate);
    assert_eq!(choose(&view, &tried, secs(80_001), 0), Choice::Nobody { room_at: None });
    assert_eq!(slot(&View { bound: true, ..world.view(Some(2)) }, NOW), 0, "nobody knows: the first choice says so");
}

#[test]
fn a_probe_that_follows_a_failure_comes_out_of_the_budget() {
    let (mut second, mut first) = (0, 0);
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 2)]);
    let view = world.view(Some(1));
    // So long after it failed, the second one has a probe to give.
    let later = secs(3_600);
    for _ in 0..100 {
        world.fail(1, NOW);
        assert_eq!(world.standing(1, later), Standing::Probe);
        let mut tried = Tried::default();
        tried.note(&ask(&view, later), Spent::Upstream);
        first += 1;
        assert_eq!(left(&view, &tried, later), second < 3, "what is foretold is what comes");
        second += u32::from(matches!(choose(&view, &tried, later, 0), Choice::Ask(_)));
        world.health.upstream(UpstreamSlot(1)).unwrap().breaker.abandoned(later);
    }
    assert_eq!((first, second), (100, 3), "no request was noted, so there is only what is in store");
}

#[test]
fn a_refused_credential_is_not_asked_again_under_another_model() {
    let sonnet = Target { model: Some("claude-sonnet-5".into()), ..to(0, 2) };
    let world = World::new(&[1], vec![to(0, 1), sonnet]);
    let view = world.view(Some(1));
    let opus = ask(&view, NOW);
    let mut tried = Tried::default();
    tried.note(&opus, Spent::Credential);
    world.credential(0).refused.set(secs(300));
    assert_eq!(choose(&view, &tried, NOW, 0), Choice::Nobody { room_at: None });
    let mut tried = Tried::default();
    tried.note(&opus, Spent::Candidate);
    assert_eq!(asked(choose(&view, &tried, NOW, 0)).target, 1, "what was not refused may be");
}

#[test]
fn a_question_of_length_has_limits_of_its_own() {
    let world = World::pool(1);
    let view = world.view(Some(1));
    world.fill(0, secs(30));
    assert_eq!(choose(&view, &UNTRIED, NOW, 0), Choice::Nobody { room_at: Some(secs(30)) });
    let counting = View { counts_only: true, ..world.view(Some(1)) };
    let candidate = asked(choose(&counting, &UNTRIED, NOW, 0));
    assert_eq!((candidate.class, candidate.need), (ModelClass::COUNTING, Need::default()));
}
