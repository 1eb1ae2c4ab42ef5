//! What follows from what is told.

use super::*;
use crate::base::Wall;

const NEED: Need = Need { input: 1_000, output: 500 };

fn at(ms: u64) -> Mono {
    Mono(Span::from_ms(10_000_000 + ms).0)
}

fn level(limit: u64, remaining: u64, full_in_ms: u64, per_minute: bool) -> Level {
    Level { limit: Some(limit), remaining: Some(remaining), full_in: Some(Span::from_ms(full_in_ms)), per_minute }
}

/// One request whose answer tells that.
fn tell(capacity: &Capacity, told: &Told, now: Mono) {
    let taken = capacity.begin(NEED, now);
    capacity.learn(&taken, told, now, now);
    capacity.headed(&taken);
    capacity.ended(&taken);
}

fn input(level: Level) -> Told {
    Told { input: level, ..Told::default() }
}

fn left(capacity: &Capacity, now: Mono) -> i64 {
    capacity.shown(now).input.unwrap().left
}

#[test]
fn what_was_told_refills_by_the_minute() {
    let capacity = Capacity::default();
    tell(&capacity, &input(level(60_000, 10_000, 50_000, true)), at(0));
    assert_eq!(left(&capacity, at(0)), 10_000);
    assert_eq!(left(&capacity, at(10_000)), 20_000);
    assert_eq!(left(&capacity, at(600_000)), 60_000);
    let large = Need { input: 16_000, output: 0 };
    assert_eq!(capacity.room(large, at(0)), Room::At(Mono(at(8_000).0 + 1)), "an eighth more than the estimate");
    assert_eq!(capacity.room(large, at(8_001)), Room::Now);
}

#[test]
fn a_limit_by_the_day_fills_as_slowly_as_it_says() {
    let capacity = Capacity::default();
    let told = Told { requests: level(200, 0, 86_400_000, false), ..Told::default() };
    tell(&capacity, &told, at(0));
    let Room::At(later) = capacity.room(NEED, at(0)) else { panic!("there is none") };
    assert_eq!(later.since(at(0)).as_ms(), 432_000);
}

#[test]
fn a_bucket_smaller_than_its_limit_is_found_out() {
    let capacity = Capacity::default();
    // Ten seconds of refill: it holds 10,000 of 60,000 a minute.
    tell(&capacity, &input(level(60_000, 4_000, 6_000, true)), at(0));
    assert_eq!(left(&capacity, at(600_000)), 10_000);
}

#[test]
fn debt_shows_in_the_time_to_full() {
    let capacity = Capacity::default();
    let told = Told { output: level(60_000, 0, 90_000, true), ..Told::default() };
    tell(&capacity, &told, at(0));
    assert_eq!(capacity.shown(at(0)).output.unwrap().left, -30_000);
    let Room::At(later) = capacity.room(NEED, at(0)) else { panic!("there is none") };
    assert!(later > at(30_000) && later < at(30_100), "{later:?}");
}

#[test]
fn output_under_way_counts_as_far_as_it_does_not_refill() {
    let capacity = Capacity::default();
    let told = Told { output: level(6_000, 3_000, 30_000, true), ..Told::default() };
    let takens: Vec<Taken> = (0..9).map(|_| capacity.begin(Need { input: 1, output: 400 }, at(0))).collect();
    tell(&capacity, &told, at(0));
    // 3600 are under way, 1000 refill in ten seconds, and 3000 are there.
    assert_eq!(capacity.room(Need { input: 1, output: 399 }, at(0)), Room::Now);
    assert!(matches!(capacity.room(Need { input: 1, output: 401 }, at(0)), Room::At(_)));
    for taken in &takens {
        capacity.headed(taken);
        capacity.ended(taken);
    }
    assert_eq!(capacity.room(Need { input: 1, output: 3_000 }, at(0)), Room::Now);
}

#[test]
fn what_to_expect_of_an_answer_is_learned() {
    let capacity = Capacity::default();
    let need = |output| Need { input: 1, output };
    assert_eq!(capacity.output_expected(need(128_000)), 1_024);
    assert_eq!(capacity.output_expected(need(20)), 20);
    (0..100).for_each(|_| capacity.produced(300));
    assert_eq!(capacity.output_expected(need(128_000)), 300);
}

#[test]
fn anthropics_tightest_limit_counts_once_and_a_workspaces_counts() {
    let capacity = Capacity::default();
    let tight = level(8_000, 500, 56_000, true);
    tell(
        &capacity,
        &Told { input: level(50_000, 40_000, 12_000, true), output: tight, both: tight, ..Told::default() },
        at(0),
    );
    assert_eq!(capacity.shown(at(0)).both, None);
    assert_eq!(capacity.room(NEED, at(0)), Room::Now);
    let workspace = level(20_000, 1_200, 56_400, true);
    tell(&capacity, &Told { input: level(50_000, 40_000, 12_000, true), both: workspace, ..Told::default() }, at(0));
    assert!(matches!(capacity.room(NEED, at(0)), Room::At(_)), "1000 and 500 are more than 1200");
}

#[test]
fn what_others_spend_is_taken_off_what_should_refill() {
    let capacity = Capacity::default();
    let mut remaining = 30_000.0_f64;
    for s in 0..120 {
        // A request of 1000 each second; others take 300 a second of the thousand that refill.
        remaining = (remaining + 1_000.0 - 1_000.0 - 300.0).max(1_000.0);
        let there = remaining as u64;
        tell(&capacity, &input(level(60_000, there, (60_000 - there).div_ceil(1_000) * 1_000, true)), at(s * 1_000));
    }
    let last = at(119_000);
    let gained = left(&capacity, last.after(Span::from_secs(10))) - left(&capacity, last);
    assert!((6_000..9_900).contains(&gained), "{gained}");
}

#[test]
fn a_refusal_empties_it_until_its_time() {
    let capacity = Capacity::default();
    let taken = capacity.begin(NEED, at(0));
    let told = Told { retry_after: Some(Span::from_secs(7)), ..Told::default() };
    assert_eq!(capacity.refuse(&taken, &told, at(0)), at(7_000));
    capacity.headed(&taken);
    assert_eq!(capacity.room(NEED, at(6_999)), Room::Refused(at(7_000)));
    assert_eq!(capacity.room(NEED, at(7_000)), Room::Now);
    capacity.begin(NEED, at(7_000));
    assert!(matches!(capacity.room(NEED, at(7_000)), Room::At(_)), "one by one");
}

#[test]
fn refusals_without_a_time_are_longer_each_time_and_a_told_limit_has_its_own() {
    let capacity = Capacity::default();
    let taken = capacity.begin(NEED, at(0));
    let spans: Vec<u64> =
        (0..9).map(|_| capacity.refuse(&taken, &Told::default(), at(0)).since(at(0)).as_ms() / 1_000).collect();
    assert_eq!(spans, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    capacity.accepted();
    assert_eq!(capacity.refuse(&taken, &Told::default(), at(0)), at(1_000));
    let capacity = Capacity::default();
    let taken = capacity.begin(NEED, at(0));
    let told = input(level(60_000, 0, 60_000, true));
    capacity.learn(&taken, &told, at(0), at(0));
    let until = capacity.refuse(&taken, &told, at(0)).since(at(0)).as_ms();
    assert!((1_000..3_000).contains(&until), "{until}");
    assert_eq!(capacity.pace.wait(at(until)), None, "the told limit paces it");
}

#[test]
fn before_anything_is_known_a_herd_is_not_preferred() {
    let capacity = Capacity::default();
    let _taken: Vec<Taken> = (0..8).map(|_| capacity.begin(NEED, at(0))).collect();
    assert!(matches!(capacity.room(NEED, at(0)), Room::Paced(_)));
    let taken = capacity.begin(NEED, at(0));
    let told = Told::read(std::iter::empty(), Wall(0));
    capacity.learn(&taken, &told, at(0), at(50));
    assert_eq!(capacity.room(NEED, at(50)), Room::Now, "an upstream that tells nothing is not held back for ever");
}
