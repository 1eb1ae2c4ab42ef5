//! `forebay prices import`: makes `[[price]]` rows of the price list that the LiteLLM project keeps. Numbers are taken as
//! they are written, never as binary fractions; what cannot be right is left out, and said.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::value::RawValue;

use crate::base::MicroUsd;
use crate::table::Pattern;
use crate::table::prices::{Factor, Factors, Price, Rate, Rates, STEPS_MAX, Step};

use super::{OK, USAGE, WRONG, complain, say};

/// A list is no larger than this, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Entries that were left out and are named.
const TOLD_MAX: usize = 20;

/// `forebay prices`.
#[derive(Args)]
pub struct PricesArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the rows of a price list in LiteLLM's format.
    Import(ImportArgs),
}

#[derive(Args)]
#[command(after_help = "\
Redirect the rows into a file and name it in `include` of the configuration; they go before the shipped ones. Look at
them first: the list is made by many hands. Regional Bedrock ids are left out, for they follow from the model's row.
Exit codes: 0 printed; 1 some entries cannot be right and are left out; 2 wrong usage, or no such list.")]
struct ImportArgs {
    /// The list: model_prices_and_context_window.json.
    file: PathBuf,
    /// Only models of this name or glob; can be given several times.
    #[arg(long, value_name = "MODEL")]
    only: Vec<String>,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &PricesArgs) -> u8 {
    let Command::Import(args) = &args.command;
    let path = args.file.display();
    let text = match fs::metadata(&args.file) {
        Ok(about) if about.len() > LIST_BYTES_MAX => {
            complain(&format!("forebay: {path} is over {} MiB; that is no price list\n", LIST_BYTES_MAX >> 20));
            return USAGE;
        }
        _ => fs::read_to_string(&args.file),
    };
    let imported = text.map_err(|error| error.to_string()).and_then(|text| import(&text, &args.only));
    let imported = match imported {
        Ok(imported) => imported,
        Err(fault) => {
            complain(&format!("forebay: {path} cannot be read as a price list: {fault}\n"));
            return USAGE;
        }
    };
    let mut out = String::new();
    for row in &imported.rows {
        let _ = write!(out, "{row}\n\n");
    }
    let code = say(&out);
    let (rows, left) = (imported.rows.len(), imported.wrong.len());
    let mut told = format!("{rows} rows; left out: {left} that cannot be right\n");
    for fault in imported.wrong.iter().take(TOLD_MAX) {
        let _ = writeln!(told, "  {fault}");
    }
    complain(&told);
    if code != OK || left > 0 { WRONG } else { OK }
}

/// What came of a list.
struct Imported {
    rows: Vec<Price>,
    /// Entries that are left out because they cannot be right: the name, and why.
    wrong: Vec<String>,
}

type Entry = BTreeMap<String, Box<RawValue>>;

fn import(text: &str, only: &[String]) -> Result<Imported, String> {
    let list: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let only: Vec<Pattern> = only.iter().map(|glob| Pattern::new(glob.as_str())).collect();
    let mut out = Imported { rows: Vec::new(), wrong: Vec::new() };
    for (key, raw) in &list {
        let Ok(entry) = serde_json::from_str::<Entry>(raw.get()) else { continue };
        let provider = word(&entry, "litellm_provider").unwrap_or_default();
        let bare = key.strip_prefix(&provider).and_then(|rest| rest.strip_prefix('/'));
        let name = match bare {
            Some(bare) if list.contains_key(bare) => continue, // its maker's own entry is there
            Some(bare) => bare,
            None => key,
        };
        let talks = matches!(word(&entry, "mode").as_deref(), Some("chat" | "responses" | "completion"));
        let wanted = only.is_empty() || only.iter().any(|glob| glob.matches(name));
        if key == "sample_spec" || key.contains(".anthropic.") || !talks || !wanted {
            continue;
        }
        match row(name, &entry) {
            Ok(Some(row)) => out.rows.push(row),
            Ok(None) => {}
            Err(fault) => out.wrong.push(format!("{key}: {fault}")),
        }
    }
    Ok(out)
}

fn word(entry: &Entry, key: &str) -> Option<String> {
    serde_json::from_str(entry.get(key)?.get()).ok()
}

/// One entry as a row; `None` if it has no price by the token.
fn row(name: &str, entry: &Entry) -> Result<Option<Price>, String> {
    let (rates, steps) = if let Some(tiers) = entry.get("tiered_pricing") {
        tiered(tiers)?
    } else {
        let Some(rates) = plain_rates(entry, "", None)? else { return Ok(None) };
        (rates, steps(entry, &rates)?)
    };
    for rates in std::iter::once(&rates).chain(steps.iter().map(|step| &step.rates)) {
        if let Some(fault) = rates.fault() {
            return Err(format!("{} {}", fault.column, fault.cause));
        }
    }
    let mut price = Price { steps, factors: factors(entry, rates.input)?, ..Price::new(Pattern::new(name), rates) };
    let searches: Option<Entry> = entry.get("search_context_cost_per_query").and_then(|raw| nested(raw));
    if let Some(each) = searches.as_ref().and_then(|searches| searches.get("search_context_size_medium")) {
        let each = Rate::per_million(each.get()).ok_or("the price of a search is no price")?;
        price.web_search = MicroUsd(i64::try_from(each.0).unwrap_or(i64::MAX));
    }
    Ok(Some(price))
}

fn nested(raw: &RawValue) -> Option<Entry> {
    serde_json::from_str(raw.get()).ok()
}

/// A price of one token; a key that is not there, or null, has none.
fn rate(entry: &Entry, key: &str) -> Result<Option<Rate>, String> {
    match entry.get(key).map(|raw| raw.get()) {
        None | Some("null") => Ok(None),
        Some(text) => Rate::per_one(text).map(Some).ok_or_else(|| format!("{key} is {text}, which is no price")),
    }
}

/// The rates whose keys end with `suffix`; what is not written is plain input, or rises with it from `base`.
fn plain_rates(entry: &Entry, suffix: &str, base: Option<&Rates>) -> Result<Option<Rates>, String> {
    let of = |key: &str| rate(entry, &format!("{key}{suffix}"));
    let (Some(input), Some(output)) = (of("input_cost_per_token")?, of("output_cost_per_token")?) else {
        return Ok(None);
    };
    let rises = |column: fn(&Rates) -> Rate| base.map(|base| column(base).scaled(base.input, input));
    let short = of("cache_creation_input_token_cost")?.or(rises(|base| base.cache_write_5m)).unwrap_or(input);
    let hour = match of("cache_creation_input_token_cost_above_1hr")? {
        None => of("cache_creation_input_token_cost_above_12hr")?,
        hour => hour,
    };
    Ok(Some(Rates {
        input,
        output,
        cache_read: of("cache_read_input_token_cost")?.or(rises(|base| base.cache_read)).unwrap_or(input),
        cache_write_5m: short,
        cache_write_1h: hour.or(rises(|base| base.cache_write_1h)).unwrap_or(short).max(short),
    }))
}

/// `..._above_200k_tokens`.
fn steps(entry: &Entry, base: &Rates) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for key in entry.keys() {
        let Some(thousands) = key.strip_prefix("input_cost_per_token_above_").and_then(|k| k.strip_suffix("k_tokens"))
        else {
            continue;
        };
        let Ok(above) = thousands.parse::<u64>() else { continue };
        if let Some(rates) = plain_rates(entry, &format!("_above_{thousands}k_tokens"), Some(base))? {
            steps.push(Step { above: above.saturating_mul(1_000), rates });
        }
    }
    ordered(steps)
}

/// `tiered_pricing`: a list of ranges, each with its rates.
fn tiered(raw: &RawValue) -> Result<(Rates, Vec<Step>), String> {
    let tiers: Vec<Entry> = serde_json::from_str(raw.get()).map_err(|_| "tiered_pricing is no list")?;
    let (mut base, mut steps) = (None, Vec::new());
    for tier in &tiers {
        let range = tier.get("range").and_then(|range| serde_json::from_str::<[f64; 2]>(range.get()).ok());
        let above = range.ok_or("a range of tiered_pricing is none")?[0] as u64;
        let rates = plain_rates(tier, "", base.as_ref())?.ok_or("a range of tiered_pricing has no rates")?;
        match base {
            None if above == 0 => base = Some(rates),
            None => return Err("tiered_pricing does not begin at zero".into()),
            Some(_) => steps.push(Step { above, rates }),
        }
    }
    Ok((base.ok_or("tiered_pricing is empty")?, ordered(steps)?))
}

fn ordered(mut steps: Vec<Step>) -> Result<Vec<Step>, String> {
    steps.sort_by_key(|step| step.above);
    let rises = steps.windows(2).all(|pair| matches!(pair, [a, b] if a.above < b.above));
    if steps.len() > STEPS_MAX || !rises { Err("its steps are too many, or do not rise".into()) } else { Ok(steps) }
}

fn factors(entry: &Entry, input: Rate) -> Result<Factors, String> {
    let tier = |suffix: &str| -> Result<Option<Factor>, String> {
        let rate = rate(entry, &format!("input_cost_per_token_{suffix}"))?;
        Ok(rate.and_then(|rate| Factor::between(input, rate)))
    };
    let usual = |factor: Option<Factor>| factor.filter(|factor| *factor != Factor::HALF);
    let special = entry.get("provider_specific_entry").and_then(|raw| nested(raw)).unwrap_or_default();
    let named = |key: &str| special.get(key).and_then(|raw| Factor::of(raw.get()));
    Ok(Factors {
        fast: named("fast"),
        priority: tier("priority")?,
        batch: usual(tier("batches")?),
        flex: usual(tier("flex")?),
        us: named("us"),
        regional: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Wall;
    use crate::dialect::usage::{Counts, Tier, Usage};
    use crate::table::prices::{Charge, Cost};

    const EXTRACT: &str = include_str!("../../tests/prices/litellm.json");

    #[test]
    fn the_shipped_rows_are_those_of_the_extract() {
        let imported = import(EXTRACT, &[]).unwrap();
        assert!(imported.wrong.is_empty(), "{:?}", imported.wrong);
        let shipped = crate::config::prices::shipped();
        for row in &imported.rows {
            let found = shipped.of(row.model.text(), Wall(u64::MAX)).unwrap();
            assert_eq!(Price { from: None, ..found.clone() }, *row);
        }
        let own: Vec<&str> = shipped.models().collect();
        assert_eq!(own.len(), imported.rows.len(), "{own:?}");
    }

    /// Each line was calculated in fractions by `tests/prices/costs.py`, from the extract and not from our rows.
    #[test]
    fn costs_are_those_of_an_independent_calculation() {
        let prices = crate::config::prices::shipped();
        let (mut lines, mut models) = (0, std::collections::BTreeSet::new());
        for line in include_str!("../../tests/prices/costs.csv").lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |at: usize| fields[at].parse::<u64>().unwrap();
            let counts = Counts {
                input: number(1),
                output: number(2),
                cache_read: number(3),
                cache_write_5m: number(4),
                cache_write_1h: number(5),
            };
            let tier = Tier::of(fields[7].as_bytes());
            let usage = Usage { counts, web_searches: number(6), tier, ..Usage::default() };
            let cost = prices.cost(&usage, fields[0], &Charge::default(), Wall(u64::MAX));
            assert_eq!(cost, Cost { amount: MicroUsd(number(8) as i64), ..Cost::default() }, "{line}");
            lines += 1;
            models.insert(fields[0]);
        }
        assert!(models.len() >= 30 && lines > 100, "{} models, {lines} lines", models.len());
    }

    #[test]
    fn rows_are_read_back_as_they_were() {
        let imported = import(EXTRACT, &["claude-haiku-5-5".into(), "qwen*".into(), "gpt-6.1-sol".into()]).unwrap();
        assert_eq!(imported.rows.len(), 4);
        let haiku = imported.rows.iter().find(|row| &**row.model.text() == "claude-haiku-5-5").unwrap();
        assert_eq!(
            haiku.to_string(),
            "[[price]]\nmodel = \"claude-haiku-5-5\"\ninput = 0.1\noutput = 0.5\ncache_read = 0.01\ncache_write_5m = 0.125\ncache_write_1h = 0.2\nabove = [{ tokens = 100000, input = 0.5, output = 2.5, cache_read = 0.05, cache_write_5m = 0.625, cache_write_1h = 1 }]\nus = 1.1"
        );
    }

    #[test]
    fn what_cannot_be_right_is_left_out() {
        let list = r#"{
            "sample_spec": {"mode": "chat", "input_cost_per_token": "0.0"},
            "a": {"mode": "chat", "litellm_provider": "x", "input_cost_per_token": -1e-06, "output_cost_per_token": 1e-06},
            "b": {"mode": "chat", "litellm_provider": "x", "input_cost_per_token": 3e-06, "output_cost_per_token": 1e-06},
            "c": {"mode": "chat", "litellm_provider": "x", "input_cost_per_token": 1e-06, "output_cost_per_token": 5e-06, "cache_read_input_token_cost": 1.2e-05},
            "d": {"mode": "embedding", "litellm_provider": "x", "input_cost_per_token": 1e-06, "output_cost_per_token": 0},
            "e": {"mode": "chat", "litellm_provider": "x"},
            "x/f": {"mode": "chat", "litellm_provider": "x", "input_cost_per_token": 1e-06, "output_cost_per_token": 5e-06},
            "us.anthropic.f": {"mode": "chat", "litellm_provider": "y", "input_cost_per_token": 1e-06, "output_cost_per_token": 5e-06},
            "g": {"mode": "chat", "litellm_provider": "x", "tiered_pricing": [{"range": [5, 9]}]}
        }"#;
        let imported = import(list, &[]).unwrap();
        let names: Vec<&str> = imported.rows.iter().map(|row| row.model.text().as_ref()).collect();
        assert_eq!(names, ["f"]);
        let wrong: Vec<&str> = imported.wrong.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        assert_eq!(wrong, ["a", "b", "c", "g"], "{:?}", imported.wrong);
        assert!(import("[]", &[]).is_err());
    }
}
