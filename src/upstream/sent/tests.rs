//! What is counted is exact, whatever becomes of a request and however many cores there are.

use super::*;
use crate::{base::Span, upstream::told::Level};
use proptest::prelude::*;
use std::thread;

const NEED: Need = Need { input: 1_000, output: 500 };
/// 2026-11-25T10:00:00Z.
const WALL: Wall = Wall(1_795_600_800_000);

fn class() -> ModelClass {
    ModelClass::of("claude-opus-5-5")
}

fn at(ms: u64) -> Mono {
    Mono(Span::from_ms(1_000_000 + ms).0)
}

fn none() -> CredentialLimits {
    CredentialLimits::default()
}

fn begin(state: &Arc<CredentialState>, now: Mono) -> Sent {
    Sent::begin(Arc::clone(state), class(), NEED, none(), now, WALL)
}

fn claim(state: &Arc<CredentialState>, need: Need, now: Mono) -> Result<Sent, Room> {
    Sent::claim(Arc::clone(state), class(), need, none(), now, WALL)
}

/// Limits by the minute.
fn told(limit: u64, remaining: u64) -> Told {
    let full_in = Some(Span::from_ms((limit - remaining) * 60_000 / limit));
    let level = Level { limit: Some(limit), remaining: Some(remaining), full_in, per_minute: true };
    Told { requests: level, ..Told::default() }
}

/// Nothing is under way: all that could be read is as if nothing had been.
fn is_at_rest(state: &CredentialState, now: Mono) -> bool {
    let shown = state.class(class()).shown(now);
    let full = |left: Option<crate::upstream::capacity::Left>| {
        left.is_none_or(|left| left.left >= 0 && left.left as u64 == left.of)
    };
    state.in_flight.load(Relaxed) == 0 && full(shown.requests) && full(shown.input) && full(shown.output)
}

#[test]
fn however_it_ends_it_is_given_back_once() {
    let state = Arc::new(CredentialState::default());
    let mut first = begin(&state, at(0));
    first.answered(&told(100, 99), at(10));
    assert_eq!(state.in_flight.load(Relaxed), 1);
    let left = |now| state.class(class()).shown(now).requests.unwrap().left;
    assert_eq!(left(at(10)), 99);
    let second = begin(&state, at(10));
    assert_eq!((left(at(10)), state.in_flight.load(Relaxed)), (98, 2), "taken off before any answer says so");
    drop(second);
    assert_eq!((left(at(10)), state.in_flight.load(Relaxed)), (99, 1), "it ended without an answer");
    first.answered(&told(100, 99), at(20));
    assert_eq!(left(at(20)), 99, "a head that is told twice is one head");
    first.answered(&told(100, 3), at(40_000));
    assert_eq!(left(at(40_000)), 100, "what a head told is not news at the end of its answer");
    first.finished(700, at(40_000));
    drop(first);
    assert!(is_at_rest(&state, at(100_000)));
}

#[test]
fn refusals_after_heads_are_in_a_row_until_one_is_let_in() {
    let state = Arc::new(CredentialState::default());
    let refused = |now: Mono| {
        let mut sent = begin(&state, now);
        sent.heard(&Told::default(), now);
        sent.refused(&Told::default(), now).since(now).as_ms()
    };
    assert_eq!([refused(at(0)), refused(at(0)), refused(at(0))], [1_000, 2_000, 4_000]);
    begin(&state, at(0)).answered(&Told::default(), at(0));
    assert_eq!(refused(at(0)), 1_000);
}

#[test]
fn heads_that_overtake_each_other_forget_nothing() {
    let state = Arc::new(CredentialState::default());
    let mut sent: Vec<Sent> = (0..10).map(|n| begin(&state, at(n))).collect();
    let left = |now| state.class(class()).shown(now).requests.unwrap().left;
    // The provider let them in in order, and the last one's head comes first.
    for (n, sent) in sent.iter_mut().enumerate().rev() {
        sent.answered(&told(100, 99 - n as u64), at(100));
        assert!(left(at(100)) <= 90, "{n}: {}", left(at(100)));
    }
    assert_eq!(left(at(100)), 90);
}

#[test]
fn the_last_room_goes_to_one_of_many_cores() {
    for _ in 0..50 {
        let state = Arc::new(CredentialState::default());
        begin(&state, at(0)).answered(&told(1_000, 40), at(1));
        let claimed: Vec<Sent> = thread::scope(|scope| {
            let core = || (0..40).filter_map(|_| claim(&state, NEED, at(1)).ok()).collect::<Vec<_>>();
            let cores: Vec<_> = (0..4).map(|_| scope.spawn(core)).collect();
            cores.into_iter().flat_map(|core| core.join().unwrap()).collect()
        });
        assert!(claimed.len() <= 40 && claimed.len() >= 37, "{}", claimed.len());
        assert_eq!(state.in_flight.load(Relaxed), claimed.len() as u64);
        drop(claimed);
        assert!(is_at_rest(&state, at(120_000)));
    }
}

#[test]
fn a_need_larger_than_the_bucket_goes_when_the_bucket_is_nearly_full() {
    let state = Arc::new(CredentialState::default());
    let level =
        Level { limit: Some(50_000), remaining: Some(25_000), full_in: Some(Span::from_secs(30)), per_minute: true };
    begin(&state, at(0)).answered(&Told { input: level, ..Told::default() }, at(1));
    let large = Need { input: 180_000, output: 10 };
    let Err(Room::At(later)) = claim(&state, large, at(1)) else { panic!("there is no room") };
    assert!(later > at(20_000) && later < at(30_000), "{later:?}");
    assert!(claim(&state, large, later).is_ok());
}

#[test]
fn what_was_declared_holds_for_all_classes_together() {
    let state = Arc::new(CredentialState::default());
    let limits = CredentialLimits { rpm: Some(3), ..none() };
    let claim = |model| Sent::claim(Arc::clone(&state), ModelClass::of(model), NEED, limits, at(0), WALL);
    let sent: Vec<_> = ["claude-opus-5-5", "claude-haiku-5-5", "gpt-6"].map(claim).into_iter().collect();
    assert!(sent.iter().all(Result::is_ok));
    assert!(matches!(claim("claude-sonnet-5-5"), Err(Room::At(_))));
    let room = state.room(class(), NEED, &limits, at(0));
    assert!(matches!(room, Room::At(later) if later > at(60_000)), "{room:?}");
}

#[test]
fn a_claim_that_fails_takes_nothing() {
    let state = Arc::new(CredentialState::default());
    let limits = CredentialLimits { rpm: Some(10), requests_per_day: Some(10), ..none() };
    let sent: Vec<_> = thread::scope(|scope| {
        let core = || {
            let claim = |_| Sent::claim(Arc::clone(&state), class(), NEED, limits, at(0), WALL).ok();
            (0..10).filter_map(claim).collect::<Vec<_>>()
        };
        let cores: Vec<_> = (0..4).map(|_| scope.spawn(core)).collect();
        cores.into_iter().flat_map(|core| core.join().unwrap()).collect()
    });
    assert!(sent.len() <= 10, "{}", sent.len());
    assert_eq!(state.declared.today(at(0)), sent.len() as u64);
    assert_eq!(state.in_flight.load(Relaxed), sent.len() as u64);
}

#[derive(Clone, Debug)]
enum Event {
    Begin(u64),
    Claim(u64),
    Answered(usize, u64),
    Refused(usize, Option<u64>),
    Finished(usize, u64),
    End(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0_u64..200_000).prop_map(Event::Begin),
        3 => (0_u64..200_000).prop_map(Event::Claim),
        3 => (any::<usize>(), 0_u64..=100).prop_map(|(which, percent)| Event::Answered(which, percent)),
        1 => (any::<usize>(), proptest::option::of(0_u64..100)).prop_map(|(which, s)| Event::Refused(which, s)),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(which, output)| Event::Finished(which, output)),
        3 => any::<usize>().prop_map(Event::End),
    ]
}

proptest! {
    #[test]
    fn nothing_leaks_and_every_wait_ends(events in proptest::collection::vec((0_u64..5_000, event()), 0..150)) {
        let state = Arc::new(CredentialState::default());
        let limits = CredentialLimits { rpm: Some(50), output_tpm: Some(90_000), ..none() };
        let (mut ms, mut under_way) = (0, Vec::new());
        let levels = |percent: u64| {
            let level = |limit| Level { limit: Some(limit), remaining: Some(limit * percent / 100), full_in: Some(Span::from_ms(600 * (100 - percent))), per_minute: true };
            Told { requests: level(60), input: level(100_000), output: level(20_000), ..Told::default() }
        };
        for (gap, event) in events {
            ms += gap;
            let now = at(ms);
            let need = |input| Need { input, output: 32_000 };
            match event {
                Event::Begin(input) => under_way.push(Sent::begin(Arc::clone(&state), class(), need(input), limits, now, WALL)),
                Event::Claim(input) => match Sent::claim(Arc::clone(&state), class(), need(input), limits, now, WALL) {
                    Ok(sent) => under_way.push(sent),
                    Err(Room::At(later) | Room::Refused(later)) => prop_assert!(later > now),
                    Err(other) => prop_assert!(false, "{:?} is room", other),
                },
                Event::Answered(which, percent) if !under_way.is_empty() => {
                    let at = which % under_way.len();
                    under_way[at].answered(&levels(percent), now);
                }
                Event::Refused(which, s) if !under_way.is_empty() => {
                    let at = which % under_way.len();
                    let retry_after = s.map(Span::from_secs);
                    let until = under_way[at].refused(&Told { retry_after, ..Told::default() }, now);
                    prop_assert!(until > now && until.since(now) <= super::super::told::RETRY_AFTER_MAX);
                    prop_assert!(matches!(state.room(class(), NEED, &none(), now), Room::Refused(_)));
                }
                Event::Finished(which, output) if !under_way.is_empty() => {
                    let at = which % under_way.len();
                    under_way[at].finished(output, now);
                }
                Event::End(which) if !under_way.is_empty() => drop(under_way.swap_remove(which % under_way.len())),
                _ => {}
            }
            prop_assert_eq!(state.in_flight.load(Relaxed), under_way.len() as u64);
        }
        under_way.clear();
        // An hour later everything has refilled, and there is room for anything.
        let later = at(ms + 3_700_000);
        prop_assert!(is_at_rest(&state, later));
        prop_assert_eq!(state.room(class(), Need { input: 1 << 50, output: 1 << 50 }, &limits, later), Room::Now);
    }
}
