//! The breaker under virtual time, under many threads, and under every sequence of events that proptest thinks of.

use super::*;
use proptest::prelude::*;
use std::thread;

const T0: Mono = Mono(1_000_000_000_000);

fn at(s: u64) -> Mono {
    T0.after(Span::from_secs(s))
}

fn fail(breaker: &Breaker, times: u32, now: Mono) {
    (0..times).for_each(|_| breaker.failed(now));
}

fn open_until(breaker: &Breaker, now: Mono) -> Option<Mono> {
    match breaker.standing(now) {
        Standing::Open { until } => Some(until),
        _ => None,
    }
}

/// The time is kept in units of 1024 ns, rounded up.
fn is_about(found: Option<Mono>, wanted: Mono) -> bool {
    found.is_some_and(|found| found.since(wanted).0 < 1_024 && wanted.since(found) == Span::ZERO)
}

#[test]
fn five_failures_in_a_row_open_it_and_a_success_between_does_not_let_them() {
    let breaker = Breaker::default();
    for _ in 0..4 {
        fail(&breaker, 4, at(0));
        breaker.succeeded(at(0));
    }
    assert_eq!(breaker.standing(at(0)), Standing::Closed);
    // The share of failures is above half, but so far of fewer than twenty... and here it is of twenty.
    breaker.succeeded(at(0));
    let counted = breaker.shown(at(0)).failures_of;
    assert_eq!(counted, (16, 21));
    let breaker = Breaker::default();
    fail(&breaker, 5, at(0));
    assert!(is_about(open_until(&breaker, at(0)), at(5)), "{:?}", breaker.standing(at(0)));
    assert_eq!(breaker.shown(at(0)).ejections_total, 1);
}

#[test]
fn half_of_twenty_within_ten_seconds_open_it() {
    let breaker = Breaker::default();
    let mixed = |pairs: u32, now| {
        for _ in 0..pairs {
            breaker.failed(now);
            breaker.succeeded(now);
        }
    };
    mixed(6, at(0));
    mixed(3, at(6));
    assert_eq!(breaker.standing(at(6)), Standing::Closed, "18 answers");
    mixed(9, at(20));
    assert_eq!(breaker.standing(at(20)), Standing::Closed, "the old ones are forgotten");
    breaker.failed(at(20));
    breaker.failed(at(20));
    assert!(open_until(&breaker, at(20)).is_some(), "11 of 20");
}

#[test]
fn each_ejection_is_twice_as_long_up_to_five_minutes() {
    let breaker = Breaker::default();
    let mut now = at(0);
    fail(&breaker, 5, now);
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300, 300] {
        let until = now.after(Span::from_secs(seconds));
        assert!(is_about(open_until(&breaker, now), until), "{seconds}: {:?}", breaker.standing(now));
        now = until.after(Span(1_024));
        assert_eq!(breaker.standing(now), Standing::Probe);
        assert!(breaker.claim_probe(now));
        breaker.failed_since(now, now);
    }
    assert_eq!(breaker.shown(now).ejections_total, 10);
}

#[test]
fn a_minute_of_health_takes_one_doubling_back() {
    let breaker = Breaker::default();
    fail(&breaker, 5, at(0));
    assert!(breaker.claim_probe(at(6)));
    breaker.failed_since(at(6), at(6));
    assert!(breaker.claim_probe(at(17)));
    breaker.succeeded_since(at(17), at(18));
    assert_eq!(breaker.shown(at(18)).ejections, 2);
    assert_eq!(breaker.shown(at(80)).ejections, 1);
    fail(&breaker, 5, at(80));
    assert!(is_about(open_until(&breaker, at(80)), at(90)), "the second one again");
    assert!(breaker.claim_probe(at(91)));
    breaker.succeeded_since(at(91), at(91));
    breaker.succeeded(at(1_000));
    breaker.succeeded(at(1_000));
    assert_eq!(breaker.inner.word.load(Relaxed), 0, "as if nothing had been");
}

#[test]
fn the_probe_decides_and_a_lost_one_does_not_wedge_it() {
    let breaker = Breaker::default();
    fail(&breaker, 5, at(0));
    assert!(!breaker.claim_probe(at(1)), "too early");
    assert!(breaker.claim_probe(at(6)));
    assert!(!breaker.claim_probe(at(6)), "one");
    assert!(is_about(open_until(&breaker, at(6)), at(66)));
    breaker.abandoned_since(at(1), at(7));
    assert!(!breaker.claim_probe(at(7)), "somebody else's client left");
    breaker.abandoned_since(at(6), at(7));
    assert!(breaker.claim_probe(at(8)), "given back");
    assert!(breaker.claim_probe(at(69)), "lost");
    breaker.succeeded_since(at(69), at(70));
    assert_eq!(breaker.standing(at(70)), Standing::Slow(10));
    assert_eq!(breaker.standing(at(85)), Standing::Slow(55));
    assert_eq!(breaker.standing(at(100)), Standing::Closed);
    breaker.abandoned(at(101));
    assert_eq!(breaker.standing(at(101)), Standing::Closed, "nothing to give back");
}

#[test]
fn two_failures_in_a_row_end_a_slow_start() {
    let breaker = Breaker::default();
    fail(&breaker, 5, at(0));
    assert!(breaker.claim_probe(at(6)));
    breaker.succeeded_since(at(6), at(7));
    breaker.failed_since(at(8), at(8));
    assert!(matches!(breaker.standing(at(8)), Standing::Slow(_)));
    breaker.failed_since(at(8), at(9));
    assert!(is_about(open_until(&breaker, at(9)), at(19)));
}

#[test]
fn stragglers_tell_nothing() {
    let breaker = Breaker::default();
    fail(&breaker, 5, at(10));
    breaker.succeeded_since(at(9), at(11));
    breaker.succeeded(at(11));
    fail(&breaker, 50, at(11));
    assert!(is_about(open_until(&breaker, at(11)), at(15)), "neither closed nor prolonged");
    assert!(breaker.claim_probe(at(16)));
    breaker.failed_since(at(9), at(17));
    assert!(is_about(open_until(&breaker, at(17)), at(76)), "the probe is still out");
    breaker.succeeded_since(at(16), at(18));
    (0..50).for_each(|_| breaker.failed_since(at(9), at(19)));
    assert!(matches!(breaker.standing(at(19)), Standing::Slow(_)), "they hung since before");
    (0..50).for_each(|_| breaker.failed_since(at(9), at(60)));
    assert_eq!(breaker.standing(at(60)), Standing::Closed);
}

#[test]
fn the_last_one_standing_comes_back_when_it_answers_what_was_sent_since() {
    let breaker = Breaker::default();
    fail(&breaker, 5, at(10));
    breaker.succeeded_since(at(11), at(12));
    assert_eq!(breaker.standing(at(12)), Standing::Slow(10));
}

#[test]
fn of_many_cores_one_gets_the_probe_and_one_ejection_follows_from_many_failures() {
    for round in 0..200 {
        let breaker = Breaker::default();
        thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| fail(&breaker, 5, at(0)))));
        });
        let shown = breaker.shown(at(0));
        assert_eq!((shown.ejections_total, shown.ejections), (1, 1), "{round}");
        let claimed: usize = thread::scope(|scope| {
            let cores: Vec<_> = (0..4).map(|_| scope.spawn(|| usize::from(breaker.claim_probe(at(6))))).collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert_eq!(claimed, 1, "{round}");
    }
}

#[test]
fn a_healthy_upstream_writes_nothing() {
    let breaker = Breaker::default();
    let words = |breaker: &Breaker| {
        let inner = &breaker.inner;
        let halves = [0, 1].map(|at| inner.halves[at].load(Relaxed));
        (inner.word.load(Relaxed), inner.consecutive.load(Relaxed), halves)
    };
    for s in 0..100 {
        breaker.succeeded_since(at(s), at(s));
    }
    assert_eq!(words(&breaker), (0, 0, [0, 0]));
}

#[derive(Clone, Debug)]
enum Event {
    Succeeded { age_ms: u64 },
    Failed { age_ms: u64 },
    Claim,
    Abandoned,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0_u64..90_000).prop_map(|age_ms| Event::Succeeded { age_ms }),
        4 => (0_u64..90_000).prop_map(|age_ms| Event::Failed { age_ms }),
        2 => Just(Event::Claim),
        1 => Just(Event::Abandoned),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_it_comes_back(events in proptest::collection::vec((0_u64..20_000, event()), 0..120)) {
        let (breaker, mut now, mut claimed_until) = (Breaker::default(), at(0), Mono(0));
        for (ms, event) in events {
            now = now.after(Span::from_ms(ms));
            let began = |age_ms| Mono(now.0 - Span::from_ms(age_ms).0);
            match event {
                Event::Succeeded { age_ms } => breaker.succeeded_since(began(age_ms), now),
                Event::Failed { age_ms } => breaker.failed_since(began(age_ms), now),
                Event::Abandoned => {
                    breaker.abandoned(now);
                    claimed_until = Mono(0);
                }
                Event::Claim => {
                    let offered = breaker.standing(now) == Standing::Probe;
                    prop_assert_eq!(breaker.claim_probe(now), offered);
                    if offered {
                        claimed_until = now.after(CLAIM);
                        prop_assert!(!breaker.claim_probe(now), "the same probe twice");
                    }
                }
            }
            let shown = breaker.shown(now);
            if let Standing::Open { until } = shown.standing {
                prop_assert!(until.since(now).0 <= EJECTION_MAX.0 + 1_024);
                prop_assert!(shown.ejections >= 1);
            }
            if let Standing::Slow(percent) = shown.standing {
                prop_assert!((10..100).contains(&percent));
            }
            prop_assert!(u64::from(shown.ejections) <= EJECTIONS_MAX);
        }
        let _ = claimed_until;
        // Left in peace, it offers a probe after its longest time, and is as new after a time of health.
        now = now.after(Span(EJECTION_MAX.0 + CLAIM.0));
        let standing = breaker.standing(now);
        prop_assert!(matches!(standing, Standing::Closed | Standing::Probe), "{:?}", standing);
        if breaker.claim_probe(now) {
            breaker.succeeded_since(now, now);
            prop_assert_eq!(breaker.standing(now), Standing::Slow(10));
        }
        now = now.after(Span::from_secs(600));
        prop_assert_eq!(breaker.standing(now), Standing::Closed);
        prop_assert_eq!(breaker.shown(now).ejections, 0);
    }

    #[test]
    fn successes_alone_never_open_it(gaps in proptest::collection::vec((0_u64..10_000, 0_u64..90_000), 0..200)) {
        let (breaker, mut now) = (Breaker::default(), at(100));
        for (ms, age_ms) in gaps {
            now = now.after(Span::from_ms(ms));
            breaker.succeeded_since(Mono(now.0 - Span::from_ms(age_ms).0), now);
            prop_assert_eq!(breaker.standing(now), Standing::Closed);
        }
    }

    #[test]
    fn a_word_survives_its_packing(phase in 0_u64..4, ejections in 0_u64..64, time in 0_u64..u64::MAX - 2_048) {
        let word = Word::unpack((phase << 62) | (ejections << 56) | (time / 1_024));
        prop_assert_eq!(Word::unpack(word.pack()), word);
    }
}
