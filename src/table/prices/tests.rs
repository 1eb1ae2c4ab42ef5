//! Costs against a calculation in whole numbers by hand, and the order in which rows are looked for.

use super::*;
use crate::dialect::usage::Aside;
use crate::table::Pattern;
use proptest::prelude::*;

const DAY: u64 = 86_400_000;

fn rates(input: &str, output: &str, read: &str, short: &str, hour: &str) -> Rates {
    let rate = |text| Rate::per_million(text).unwrap();
    Rates {
        input: rate(input),
        output: rate(output),
        cache_read: rate(read),
        cache_write_5m: rate(short),
        cache_write_1h: rate(hour),
    }
}

fn opus(model: &str) -> Price {
    Price::new(Pattern::new(model), rates("5", "25", "0.5", "6.25", "10"))
}

fn priced(rows: Vec<Price>) -> Prices {
    Prices::new(Vec::new(), rows, "test")
}

fn usage(input: u64, output: u64, cache_read: u64, cache_write_5m: u64, cache_write_1h: u64) -> Usage {
    Usage { counts: Counts { input, output, cache_read, cache_write_5m, cache_write_1h }, ..Usage::default() }
}

fn micro(prices: &Prices, usage: &Usage, model: &str) -> i64 {
    prices.cost(usage, model, &Charge::default(), Wall(0)).amount.0
}

#[test]
fn each_kind_has_its_rate() {
    let prices = priced(vec![opus("m")]);
    let million = 1_000_000;
    assert_eq!(micro(&prices, &usage(million, 0, 0, 0, 0), "m"), 5_000_000);
    assert_eq!(micro(&prices, &usage(0, million, 0, 0, 0), "m"), 25_000_000);
    assert_eq!(micro(&prices, &usage(0, 0, million, 0, 0), "m"), 500_000);
    assert_eq!(micro(&prices, &usage(0, 0, 0, million, 0), "m"), 6_250_000);
    assert_eq!(micro(&prices, &usage(0, 0, 0, 0, million), "m"), 10_000_000);
    let searched = Usage { web_searches: 3, ..usage(0, 0, 0, 0, 0) };
    assert_eq!(micro(&prices, &searched, "m"), 30_000);
}

#[test]
fn one_rounding_to_the_nearest_halves_up() {
    let prices = priced(vec![Price::new(Pattern::new("m"), rates("0.25", "0.5", "0.1", "0.25", "0.25"))]);
    for (input, output, amount) in [(1, 0, 0), (2, 0, 1), (3, 0, 1), (5, 0, 1), (6, 0, 2), (1, 1, 1), (0, 1, 1)] {
        assert_eq!(micro(&prices, &usage(input, output, 0, 0, 0), "m"), amount, "{input} {output}");
    }
}

#[test]
fn the_whole_prompt_chooses_the_step_and_all_of_it_is_at_its_rates() {
    let mut row = opus("m");
    row.steps = vec![
        Step { above: 100, rates: rates("10", "50", "1", "12.5", "20") },
        Step { above: 200, rates: rates("20", "100", "2", "25", "40") },
    ];
    let prices = priced(vec![row]);
    assert_eq!(micro(&prices, &usage(50, 1_000, 30, 10, 10), "m"), 250 + 25_000 + 15 + 63 + 100, "62.5 is rounded up");
    assert_eq!(micro(&prices, &usage(51, 0, 30, 10, 10), "m"), 510 + 30 + 125 + 200);
    assert_eq!(micro(&prices, &usage(0, 1_000, 0, 0, 0), "m"), 25_000, "output is no part of the prompt");
    assert_eq!(micro(&prices, &usage(201, 0, 0, 0, 0), "m"), 4_020);
}

#[test]
fn factors_multiply_and_the_fee_comes_last() {
    let factor = |text| Factor::of(text);
    let mut row = opus("m");
    row.factors = Factors { fast: factor("2"), us: factor("1.1"), ..Factors::default() };
    let prices = priced(vec![row]);
    let plain = usage(1_000_000, 0, 0, 0, 0);
    let fast = Usage { speed: Speed::Fast, ..plain };
    let all = Usage { geo: Geo::Us, tier: Tier::Batch, ..fast };
    assert_eq!(micro(&prices, &fast, "m"), 10_000_000);
    assert_eq!(micro(&prices, &all, "m"), 5_500_000);
    assert_eq!(micro(&prices, &Usage { tier: Tier::Priority, ..plain }, "m"), 5_000_000);
    let charge = Charge { factor: factor("1.055").unwrap(), fee: MicroUsd(7) };
    assert_eq!(prices.cost(&all, "m", &charge, Wall(0)).amount, MicroUsd(5_802_507));
    assert_eq!(prices.cost(&Usage::default(), "m", &charge, Wall(0)).amount, MicroUsd(0), "nothing was used");
    let free = Charge { factor: factor("0").unwrap(), fee: MicroUsd(0) };
    assert_eq!(prices.cost(&all, "m", &free, Wall(0)).amount, MicroUsd(0));
}

#[test]
fn a_speed_without_a_known_price_is_flagged() {
    let prices = priced(vec![opus("m")]);
    let fast = Usage { speed: Speed::Fast, ..usage(10, 0, 0, 0, 0) };
    let cost = prices.cost(&fast, "m", &Charge::default(), Wall(0));
    assert_eq!((cost.amount, cost.plain, cost.guessed), (MicroUsd(50), true, false));
}

#[test]
fn a_price_counts_from_its_day() {
    let later = Price { from: Some(Wall(DAY * 2)), ..Price::new(Pattern::new("m"), rates("1", "2", "0.1", "1", "1")) };
    let latest = Price { from: Some(Wall(DAY * 3)), ..Price::new(Pattern::new("m"), rates("2", "3", "0.1", "2", "2")) };
    let prices = priced(vec![later, opus("m"), latest]);
    for (at, amount) in [(0, 5_000), (DAY * 2 - 1, 5_000), (DAY * 2, 1_000), (DAY * 3 - 1, 1_000), (DAY * 3, 2_000)] {
        let cost = prices.cost(&usage(1_000, 0, 0, 0, 0), "m", &Charge::default(), Wall(at));
        assert_eq!(cost.amount, MicroUsd(amount), "{at}");
    }
    let only_later = priced(vec![Price { from: Some(Wall(DAY)), ..opus("n") }]);
    assert!(only_later.of("n", Wall(0)).is_none() && only_later.of("n", Wall(DAY)).is_some());
}

#[test]
fn the_operators_rows_go_before_and_narrow_ones_before_wide() {
    let row = |model: &str, input: &str| Price::new(Pattern::new(model), rates(input, "90", "0", "0", "0"));
    let shipped = vec![row("claude-opus-5", "5"), row("claude-*", "9"), row("claude-opus-*", "8"), row("*", "7")];
    let of = |prices: &Prices, model: &str| prices.of(model, Wall(0)).map(|row| row.rates.input.to_string());
    let prices = Prices::new(Vec::new(), shipped.clone(), "");
    for (model, input) in [("claude-opus-5", "5"), ("claude-opus-6", "8"), ("claude-x", "9"), ("x", "7")] {
        assert_eq!(of(&prices, model).as_deref(), Some(input), "{model}");
    }
    let prices = Prices::new(vec![row("claude-*", "1"), row("claude-opus-6", "2")], shipped, "");
    for (model, input) in [("claude-opus-5", "1"), ("claude-opus-6", "2"), ("x", "7")] {
        assert_eq!(of(&prices, model).as_deref(), Some(input), "{model}");
    }
}

#[test]
fn ids_of_all_spellings_have_a_price() {
    let prices = priced(vec![opus("claude-opus-4-5"), opus("gpt-5.5"), opus("glm-5.3")]);
    for id in [
        "claude-opus-4-5",
        "claude-opus-4-5-20251101",
        "claude-opus-4-5@20251101",
        "claude-opus-4-5-latest",
        "claude-opus-4-5[1m]",
        "anthropic/claude-opus-4-5",
        "anthropic/claude-opus-4.5",
        "global.anthropic.claude-opus-4-5-20251101-v1:0",
        "anthropic.claude-opus-4-5-v1",
        "gpt-5.5-2026-04-23",
        "openai/gpt-5.5",
        "zai/glm-5.3",
    ] {
        assert!(prices.of(id, Wall(0)).is_some(), "{id}");
    }
    for id in ["", "/", "claude-opus-4", "claude-opus-4-5-1", "gpt-5", "é", "-2026-04-23", "@", "a-v"] {
        assert!(prices.of(id, Wall(0)).is_none(), "{id}");
    }
}

#[test]
fn regional_ids_cost_a_tenth_more_once() {
    let mut row = opus("claude-opus-5");
    row.factors.us = Factor::of("1.1");
    let prices = priced(vec![row]);
    let plain = usage(1_000, 0, 0, 0, 0);
    for (id, amount) in [
        ("us.anthropic.claude-opus-5", 5_500),
        ("bedrock/eu.anthropic.claude-opus-5", 5_500),
        ("global.anthropic.claude-opus-5", 5_000),
        ("anthropic.claude-opus-5", 5_000),
    ] {
        assert_eq!(micro(&prices, &plain, id), amount, "{id}");
    }
    assert_eq!(micro(&prices, &Usage { geo: Geo::Us, ..plain }, "us.anthropic.claude-opus-5"), 5_500);
}

#[test]
fn what_has_no_row_costs_nothing_and_says_so() {
    let cost = priced(vec![opus("m")]).cost(&usage(1, 1, 1, 1, 1), "other", &Charge::default(), Wall(0));
    assert_eq!((cost.amount, cost.guessed), (MicroUsd(0), true));
    let guess = priced(vec![Price { guess: true, ..opus("*") }]);
    let cost = guess.cost(&usage(1_000, 0, 0, 0, 0), "other", &Charge::default(), Wall(0));
    assert_eq!((cost.amount, cost.guessed), (MicroUsd(5_000), true));
}

#[test]
fn others_work_is_priced_by_their_own_rows() {
    let cheap = Price::new(Pattern::new("cheap"), rates("1", "2", "0", "0", "0"));
    let prices = priced(vec![opus("m"), cheap]);
    let counts = Counts { input: 1_000, output: 1_000, ..Counts::default() };
    let mut usage = usage(1_000, 0, 0, 0, 0);
    usage.asides = [Aside { model: "cheap".into(), counts }, Aside { counts, ..Aside::default() }];
    assert_eq!(micro(&prices, &usage, "m"), 5_000 + 3_000 + 30_000);
}

#[test]
fn nothing_overflows() {
    let mut row = Price::new(Pattern::new("m"), rates("100000", "100000", "100000", "100000", "100000"));
    row.factors.fast = Factor::of("99.999999");
    let prices = priced(vec![row]);
    let all =
        Usage { speed: Speed::Fast, web_searches: u64::MAX, ..usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX) };
    let charge = Charge { factor: Factor::of("99.999999").unwrap(), fee: MicroUsd(i64::MAX) };
    assert_eq!(prices.cost(&all, "m", &charge, Wall(0)).amount, MicroUsd(i64::MAX));
}

#[test]
fn implausible_rates_are_faults() {
    assert_eq!(opus("m").rates.fault(), None);
    assert_eq!(Rates::default().fault(), None, "free is plausible");
    for (wrong, column) in [
        (rates("5", "4", "0.5", "6", "10"), "output"),
        (rates("5", "25", "6", "6", "10"), "cache_read"),
        (rates("5", "25", "0.5", "6", "5"), "cache_write_1h"),
        (rates("5", "25", "0.5", "62.5", "100"), "cache_write_5m"),
        (rates("5", "25", "0.5", "6.25", "100"), "cache_write_1h"),
    ] {
        assert_eq!(wrong.fault().map(|fault| fault.column), Some(column));
    }
}

proptest! {
    /// The same sum, each term by itself in 128 bits over one common denominator.
    #[test]
    fn costs_are_exact(
        counts in prop::array::uniform5(0_u64..1 << 40),
        rates in prop::array::uniform5(0_u64..100_000_000),
        searches in 0_u64..1_000,
        millionths in 0_u32..3_000_000,
        batch in any::<bool>(),
    ) {
        let [input, output, cache_read, cache_write_5m, cache_write_1h] = rates.map(Rate);
        let row = Price::new(Pattern::new("m"), Rates { input, output, cache_read, cache_write_5m, cache_write_1h });
        let mut used = usage(counts[0], counts[1], counts[2], counts[3], counts[4]);
        (used.web_searches, used.tier) = (searches, if batch { Tier::Batch } else { Tier::Standard });
        let factor = Factor::of(&format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)).unwrap();
        let charge = Charge { factor, fee: MicroUsd(3) };
        let pico: u128 = counts.iter().zip(rates).map(|(n, rate)| u128::from(*n) * u128::from(rate)).sum::<u128>()
            + u128::from(searches) * 10_000_000_000;
        let scaled = pico * u128::from(millionths);
        let divisor = 1_000_000_000_000 * if batch { 2 } else { 1 };
        let expected = (scaled * 2 + divisor) / (divisor * 2) + if counts.iter().any(|n| *n > 0) { 3 } else { 0 };
        prop_assert_eq!(priced(vec![row]).cost(&used, "m", &charge, Wall(0)).amount.0 as u128, expected);
    }

    #[test]
    fn no_id_makes_the_search_panic(id in "\\PC{0,40}|[a-z0-9./@\\[\\]:-]{0,40}") {
        let prices = priced(vec![opus("*")]);
        prop_assert!(prices.of(&id, Wall(0)).is_some());
    }
}
