//! `[[price]]`, of the operator and of the list that comes with forebay: read, checked, and made rows of
//! `table::prices`. The shipped list is a file like any other, compiled in.

use std::path::Path;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use toml::de::DeTable;

use crate::base::{MicroUsd, Wall};
use crate::table::Pattern;
use crate::table::pattern::MODEL_BYTES_MAX;
use crate::table::prices::{Charge, Factor, Factors, Price, Prices, Rate, Rates, STEPS_MAX, Step};

use super::diagnose::{At, Problems, Remedy, Spot};
use super::reader::{Section, insertion, item_removal};
use super::{schema, syntax};

const SHIPPED: &str = include_str!("../../configs/prices.toml");
/// A price for one thing, a search or an answer, is at most so many millionths of a dollar: $1000.
const EACH_MAX: u64 = 1_000_000_000;

/// The shipped list alone.
pub fn shipped() -> Prices {
    let (rows, snapshot) = shipped_rows(&mut Problems::default());
    Prices::new(Vec::new(), rows, &snapshot)
}

/// The operator's rows above the shipped ones. Two rows for one model and day are told.
pub(super) fn compile(problems: &mut Problems, written: &[At<Price>]) -> Prices {
    for (n, At { value: row, at }) in written.iter().enumerate() {
        let same = |other: &At<Price>| other.value.model == row.model && other.value.from == row.from;
        if written.iter().take(n).any(same) {
            problems.add(
                *at,
                format!("a second [[price]] of the same day is for `{}`", row.model.text()),
                "remove it, or give it the day on which it begins as `from`",
                Remedy::replace(super::reader::extent(problems, *at), ""),
            );
        }
    }
    let (rows, snapshot) = shipped_rows(&mut Problems::default());
    Prices::new(written.iter().map(|row| row.value.clone()).collect(), rows, &snapshot)
}

fn shipped_rows(problems: &mut Problems) -> (Vec<Price>, String) {
    let file = problems.source(Path::new("prices.toml"), SHIPPED.into());
    let (root, _) = syntax::parse(problems, file, SHIPPED);
    let root = Section::open(problems, &schema::SHIPPED_PRICES, root.get_ref(), Spot { file, start: 0, end: 0 });
    let snapshot = root.required_text(problems, "snapshot").map_or_else(String::new, |text| text.value);
    let rows = root.sections("price").into_iter().filter_map(|(table, at)| read(problems, table, at));
    (rows.map(|row| row.value).collect(), snapshot)
}

/// One row. What is wrong with it is told, and then there is none.
pub(super) fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Option<At<Price>> {
    let section = Section::open(problems, &schema::PRICE, table, at);
    let model = section.required_text(problems, "model");
    let model = model.map(|text| model_of(problems, &text));
    let from = section.date("from").and_then(|text| day(problems, &text));
    let rates = rates(problems, &section, None);
    let steps = rates.as_ref().map(|rates| steps(problems, &section, rates)).unwrap_or_default();
    let mut factor = |key| section.amount(key).and_then(|text| factor_of(problems, key, &text));
    let factors = Factors {
        fast: factor("fast"),
        priority: factor("priority"),
        batch: factor("batch"),
        flex: factor("flex"),
        us: factor("us"),
        regional: factor("regional"),
    };
    let each = each(problems, &section, "web_search");
    let mut price = Price { from, steps, factors, ..Price::new(model?, rates?) };
    price.web_search = each.unwrap_or(price.web_search);
    price.guess = section.flag("guess").is_some_and(|flag| flag.value);
    Some(At { value: price, at })
}

/// `price` of an upstream.
pub(super) fn charge(problems: &mut Problems, upstream: &Section<'_>) -> Charge {
    let mut charge = Charge::default();
    for (table, at) in upstream.sections("price") {
        let section = Section::open(problems, &schema::CHARGE, table, at);
        let factor = section.amount("factor").and_then(|text| factor_of(problems, "factor", &text));
        charge.factor = factor.unwrap_or(charge.factor);
        charge.fee = each(problems, &section, "fee").unwrap_or(charge.fee);
    }
    charge
}

fn model_of(problems: &mut Problems, text: &At<String>) -> Pattern {
    let good = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if text.value.is_empty() || text.value.len() > MODEL_BYTES_MAX || !text.value.chars().all(good) {
        let clean: String = text.value.trim().chars().filter(|c| good(*c)).take(MODEL_BYTES_MAX).collect();
        let clean = if clean.is_empty() { "*".to_owned() } else { clean };
        problems.add(
            text.at,
            format!("`{}` is not a model id or a glob with `*`", text.value),
            format!("write \"{clean}\""),
            Remedy::replace(text.at, format!("\"{clean}\"")),
        );
    }
    Pattern::new(text.value.as_str())
}

/// The beginning of a day, in UTC: providers' days.
fn day(problems: &mut Problems, text: &At<String>) -> Option<Wall> {
    let begin = |date: Date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
    let stamp = text.value.parse::<Date>().ok().filter(|_| text.value.len() == 10).and_then(begin);
    let Some(stamp) = stamp else {
        problems.add(
            text.at,
            format!("`from` is `{}`, which is not a date such as 2026-12-31", text.value),
            "write the first day of the price, in UTC",
            Remedy::replace(text.at, "2026-12-31"),
        );
        return None;
    };
    Some(Wall(u64::try_from(stamp.as_millisecond()).unwrap_or(0)))
}

/// The rates of a row, or of one of its steps, whose unwritten ones rise like its input. A row's unwritten cache rates
/// are those of plain input.
fn rates(problems: &mut Problems, section: &Section<'_>, base: Option<&Rates>) -> Option<Rates> {
    let mut rate = |key| section.amount(key).and_then(|text| rate_of(problems, key, &text));
    let (input, output) = (rate("input"), rate("output"));
    let (read, short, hour) = (rate("cache_read"), rate("cache_write_5m"), rate("cache_write_1h"));
    for key in ["input", "output"] {
        section.missing(problems, key);
    }
    let (input, output) = (input?, output?);
    let unwritten = base.map_or(Rates { input, cache_read: input, ..Rates::default() }, |base| Rates {
        cache_read: base.cache_read.scaled(base.input, input),
        cache_write_5m: base.cache_write_5m.scaled(base.input, input),
        cache_write_1h: base.cache_write_1h.scaled(base.input, input),
        ..Rates::default()
    });
    let short = short.unwrap_or(if base.is_some() { unwritten.cache_write_5m } else { input });
    let hour = hour.unwrap_or(if base.is_some() { unwritten.cache_write_1h } else { short });
    let cache_read = read.unwrap_or(unwritten.cache_read);
    let rates = Rates { input, output, cache_read, cache_write_5m: short, cache_write_1h: hour };
    if let Some(fault) = rates.fault() {
        let good = fault.instead.to_string();
        let remedy = match section.place(fault.column) {
            Some(place) => Remedy::replace(place, good.clone()),
            None => insertion(problems, section.at, fault.column, &good),
        };
        problems.add(
            section.place(fault.column).unwrap_or(section.at),
            format!("`{}` {}", fault.column, fault.cause),
            format!("write what the provider charges for a million tokens, such as {good}"),
            remedy,
        );
    }
    Some(rates)
}

fn steps(problems: &mut Problems, price: &Section<'_>, base: &Rates) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (table, at) in price.sections("above") {
        let section = Section::open(problems, &schema::PRICE_ABOVE, table, at);
        section.missing(problems, "tokens");
        let rates = rates(problems, &section, Some(base));
        let (Some(tokens), Some(rates)) = (section.number("tokens"), rates) else { continue };
        let above = u64::try_from(tokens.value).unwrap_or(0);
        let last = steps.last();
        let cause = if last.is_some_and(|last| last.above >= above) || above == 0 {
            "the entries of `above` do not rise"
        } else if last.map_or(base, |last| &last.rates).input > rates.input {
            "a longer prompt is cheaper than a shorter one"
        } else if steps.len() == STEPS_MAX {
            "a price has at most 8 entries in `above`"
        } else {
            steps.push(Step { above, rates });
            continue;
        };
        let remedy = item_removal(problems, at);
        problems.add(at, cause, "remove it, or correct it", remedy);
    }
    steps
}

fn rate_of(problems: &mut Problems, key: &str, text: &At<String>) -> Option<Rate> {
    let rate = Rate::per_million(&text.value);
    if rate.is_none() {
        problems.add(
            text.at,
            format!("`{key}` is {}, which is no price of a million tokens in dollars", text.value),
            "write a number from 0 to 100000",
            Remedy::replace(text.at, text.value.trim_start_matches('-').parse::<u16>().unwrap_or(10).to_string()),
        );
    }
    rate
}

fn factor_of(problems: &mut Problems, key: &str, text: &At<String>) -> Option<Factor> {
    let factor = Factor::of(&text.value);
    if factor.is_none() {
        problems.add(
            text.at,
            format!("`{key}` is {}, which is no factor that a price can be multiplied by", text.value),
            "write a number from 0 to 100, such as 1.1",
            Remedy::replace(text.at, "1"),
        );
    }
    factor
}

/// What one thing costs, in dollars.
fn each(problems: &mut Problems, section: &Section<'_>, key: &'static str) -> Option<MicroUsd> {
    let text = section.amount(key)?;
    let amount = Rate::per_million(&text.value).filter(|amount| amount.0 <= EACH_MAX);
    if amount.is_none() {
        problems.add(
            text.at,
            format!("`{key}` is {}, which is no amount of dollars for one of them", text.value),
            "write a number from 0 to 1000, such as 0.01",
            Remedy::replace(text.at, "0.01"),
        );
    }
    amount.map(|amount| MicroUsd(i64::try_from(amount.0).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_list_is_good() {
        let mut problems = Problems::default();
        let (rows, snapshot) = shipped_rows(&mut problems);
        assert!(problems.is_empty(), "{}", problems.report());
        assert!(rows.len() > 40 && snapshot.contains("2026-11-22"), "{} {snapshot}", rows.len());
        for row in &rows {
            let twins = rows.iter().filter(|other| other.model == row.model && other.from == row.from);
            assert_eq!(twins.count(), 1, "{}", row.model.text());
            assert!(row.rates.output > row.rates.input, "{}", row.model.text());
        }
        let known = shipped();
        for model in crate::table::catalogue::KNOWN {
            assert!(known.of(model.id, Wall(1_795_600_800_000)).is_some_and(|row| !row.guess), "{}", model.id);
        }
    }
}
