//! What a day may cost: an estimate from the team's size and the kind of work, with its assumptions said aloud. What was
//! really spent is not known here.

use super::{
    Workload,
    finding::{Finding, counted, listed},
    models::Listing,
};
use crate::{
    base::{MicroUsd, Wall},
    dialect::usage::Counts,
    table::{
        Pattern, Table,
        prices::{Price, Prices},
    },
};

/// Models in one line.
const SHOWN_MAX: usize = 6;

/// A developer's day at a normal workload: a long conversation is read from the cache again with every request.
const DAY: Counts =
    Counts { input: 100_000, cache_write_5m: 1_500_000, cache_write_1h: 0, cache_read: 20_000_000, output: 150_000 };

/// The moment whose prices count.
pub fn today() -> Wall {
    Wall(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

fn day_of(people: u64, workload: Workload) -> Counts {
    let scaled = |count: u64| {
        let all = count.saturating_mul(people);
        match workload {
            Workload::Light => all / 3,
            Workload::Normal => all,
            Workload::Heavy => all.saturating_mul(3),
        }
    };
    Counts {
        input: scaled(DAY.input),
        cache_write_5m: scaled(DAY.cache_write_5m),
        cache_write_1h: 0,
        cache_read: scaled(DAY.cache_read),
        output: scaled(DAY.output),
    }
}

/// The models that clients can get, as their upstreams name them. A glob stands for what the upstream lists, or, where
/// no list is known, for what has a price.
pub fn models(table: &Table, listings: &[Listing]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (name, target) in table.models.iter().flat_map(|model| model.targets.iter().map(|t| (&model.name, t))) {
        let listed = listings.get(target.upstream.index()).and_then(|listing| listing.ids.as_deref());
        let ids: Vec<String> = match (&target.model, listed) {
            (Some(id), _) => vec![id.to_string()],
            (None, _) if name.is_exact() => vec![name.text().to_string()],
            (None, Some(listed)) => matching(name, listed.iter().map(String::as_str)),
            (None, None) => priced_names(&table.prices, name),
        };
        for id in ids {
            if !found.contains(&id) {
                found.push(id);
            }
        }
    }
    found
}

/// The newest of a family first, as their names sort.
fn priced_names(prices: &Prices, glob: &Pattern) -> Vec<String> {
    let mut names = matching(glob, prices.models());
    names.sort_unstable_by(|a, b| b.cmp(a));
    names
}

fn matching<'a>(glob: &Pattern, ids: impl Iterator<Item = &'a str>) -> Vec<String> {
    ids.filter(|id| glob.matches(id)).map(str::to_owned).collect()
}

/// What a day costs if everybody works with one of `models`.
pub fn daily(prices: &Prices, models: &[String], people: u64, workload: Workload) -> Finding {
    let (mut priced, mut unknown): (Vec<&Price>, Vec<&String>) = (Vec::new(), Vec::new());
    for id in models {
        match prices.of(id, today()).filter(|price| !price.guess) {
            Some(price) if priced.contains(&price) => {}
            Some(price) => priced.push(price),
            None => unknown.push(id),
        }
    }
    let no_price = format!("no price is known here for {}", listed(&unknown));
    if priced.is_empty() {
        let found = if unknown.is_empty() { "no model is known that could be priced".into() } else { no_price };
        return Finding::warn("cost", found, "estimate the daily cost from the provider's own price list");
    }
    let day = day_of(people, workload);
    let each: Vec<String> = representatives(priced).into_iter().map(|price| line(price, &day)).collect();
    let found = format!(
        "a day of {} with a {} workload costs about (low/mid/high), if all is done with one model: {}; assumed for \
         each of them: {}, and half and double of it for low and high; list prices of {}",
        counted(people as usize, "developer", "developers"),
        workload.name(),
        each.join(", "),
        assumed(&day_of(1, workload)),
        prices.snapshot,
    );
    if unknown.is_empty() {
        return Finding::ok("cost", found);
    }
    Finding::ok("cost", format!("{found}; {no_price}"))
}

fn assumed(day: &Counts) -> String {
    let short = super::limits::short;
    format!(
        "{} input, {} cache write, {} cache read, {} output tokens",
        short(day.input),
        short(day.cache_write_5m),
        short(day.cache_read),
        short(day.output)
    )
}

/// All when they fit in a line, else the first of each family, which is the newest one.
fn representatives(priced: Vec<&Price>) -> Vec<&Price> {
    if priced.len() <= SHOWN_MAX {
        return priced;
    }
    let family = |price: &Price| price.model.text().split('-').nth(1).unwrap_or_default().to_owned();
    let mut firsts: Vec<&Price> = Vec::new();
    for price in priced {
        if firsts.len() < SHOWN_MAX && firsts.iter().all(|first| family(first) != family(price)) {
            firsts.push(price);
        }
    }
    firsts
}

/// What a day's requests cost, none of which is long enough for another step.
fn cost(price: &Price, day: &Counts) -> MicroUsd {
    let rates = &price.rates;
    let terms = [
        (day.input, rates.input),
        (day.output, rates.output),
        (day.cache_read, rates.cache_read),
        (day.cache_write_5m, rates.cache_write_5m),
    ];
    let sum = terms.iter().map(|(count, rate)| u128::from(*count) * u128::from(rate.0)).fold(0, u128::saturating_add);
    MicroUsd(i64::try_from(sum / 1_000_000).unwrap_or(i64::MAX))
}

fn line(price: &Price, day: &Counts) -> String {
    let mid = cost(price, day);
    let longer = price.steps.first().map_or_else(String::new, |step| {
        format!(" (more for requests over {} tokens)", super::limits::short(step.above))
    });
    let figures = [MicroUsd(mid.0 / 2), mid, MicroUsd(mid.0.saturating_mul(2))].map(dollars);
    format!("{} {}{longer}", price.model.text(), figures.join("/"))
}

/// Whole dollars from ten on, cents below.
fn dollars(amount: MicroUsd) -> String {
    let cents = amount.0.saturating_add(5_000) / 10_000;
    if cents >= 1_000 {
        format!("${}", cents.saturating_add(50) / 100)
    } else {
        format!("${}.{:02}", cents / 100, cents % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, super::sample, *};
    use crate::config::prices::shipped;

    fn listing(ids: &[&str]) -> Listing {
        Listing { ids: Some(ids.iter().map(|id| (*id).to_owned()).collect()), ..Listing::default() }
    }

    #[test]
    fn figures_come_from_people_workload_and_price() {
        // 0.1 x $5 + 1.5 x $6.25 + 20 x $0.5 + 0.15 x $25 = $23.625
        let ids = ["claude-opus-5-20260101".to_owned(), "claude-opus-5".to_owned()];
        let prices = shipped();
        let one = daily(&prices, &ids, 1, Workload::Normal);
        assert_eq!(one.level, Level::Ok);
        assert!(one.found.contains(": claude-opus-5 $12/$24/$47; assumed for"), "{}", one.found);
        assert!(
            daily(&prices, &ids, 10, Workload::Heavy).found.contains("$354/$709/$1418;"),
            "{:?}",
            daily(&prices, &ids, 10, Workload::Heavy)
        );
        let light = daily(&prices, &["claude-haiku-4-5".to_owned()], 1, Workload::Light);
        assert!(light.found.contains("$0.79/$1.57/$3.15"), "{}", light.found);
        assert!(
            light.found.contains("33.33k input, 500k cache write, 6.66M cache read, 50k output"),
            "{}",
            light.found
        );
    }

    #[test]
    fn what_has_no_price_is_said() {
        let finding = daily(&shipped(), &["claude-opus-5".to_owned(), "house-3".to_owned()], 1, Workload::Normal);
        assert!(finding.found.ends_with("no price is known here for house-3"), "{}", finding.found);
        assert_eq!(daily(&shipped(), &["house-3".to_owned()], 1, Workload::Normal).level, Level::Warn);
        assert_eq!(daily(&shipped(), &[], 1, Workload::Normal).level, Level::Warn);
    }

    #[test]
    fn long_lists_show_one_of_each_family() {
        let ids = priced_names(&shipped(), &Pattern::new("claude-*"));
        let found = daily(&shipped(), &ids, 1, Workload::Normal).found;
        for (model, shown) in [("fable-5-1", true), ("fable-5 ", false), ("opus-5-5", true), ("sonnet-4-6", false)] {
            assert_eq!(found.contains(model), shown, "{model}: {found}");
        }
    }

    #[test]
    fn globs_stand_for_what_is_listed() {
        let models_text = sample::model("claude-*", &["a"], None) + &sample::model("fast", &["a"], Some("x-1"));
        let table = sample::table(&models_text);
        assert_eq!(models(&table, &[listing(&["claude-b", "gpt"])]), ["claude-b", "x-1"]);
        let unlisted = models(&table, &[Listing::default()]);
        assert!(unlisted.contains(&"claude-opus-5".to_owned()) && unlisted.len() > 15, "{unlisted:?}");
    }
}
