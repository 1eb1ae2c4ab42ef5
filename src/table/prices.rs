//! What usage costs: rates by model, day and length of prompt, as whole numbers, and one rounding at the end.
//!
//! The rule. A row is looked for under the model's id, then under its plainer spellings (`spellings`), exact names
//! before globs, longer globs before shorter ones, the operator's rows before the shipped ones; of rows with one name,
//! the last that has begun counts. Rows marked as a guess stand for what nobody knows, and flag what they price. The
//! whole prompt, cached parts included, chooses the step, and the step's rates hold for all of the request. Tokens and
//! searches are summed, multiplied by the factors of speed, tier, place and upstream, and rounded to the nearest
//! millionth of a dollar, halves up; each model's part by itself. The upstream's fee is added last.
//!
//! Not here: where usage comes from (`meter`), and where costs go.

mod amount;
mod price;

#[cfg(test)]
mod tests;

pub use amount::{Factor, Rate};
pub use price::{Factors, Fault, Price, Rates, STEPS_MAX, Step, WEB_SEARCH};

use crate::{
    base::{MicroUsd, Wall},
    dialect::usage::{Counts, Geo, Speed, Tier, Usage},
};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

/// Picodollars in a microdollar.
const PICO: u128 = 1_000_000;
/// What Bedrock adds for a regional id, unless the row says otherwise.
const REGIONAL: Factor = Factor::ELEVEN_TENTHS;

/// What an upstream takes besides its models' prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// What every price is multiplied by: a contract's discount, a reseller's share; zero for what is not paid for.
    pub factor: Factor,
    /// For each answer that used anything.
    pub fee: MicroUsd,
}

impl Default for Charge {
    fn default() -> Charge {
        Charge { factor: Factor::ONE, fee: MicroUsd(0) }
    }
}

/// What usage costs, and how sure that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How much.
    pub amount: MicroUsd,
    /// The model's own price is not known; a row for such models was taken, or nothing.
    pub guessed: bool,
    /// Fast was given, and it is not known what that costs at this model; the plain price was taken.
    pub plain: bool,
}

/// One list of rows.
#[derive(Clone, Debug, Default)]
struct List {
    /// By name; the last to begin comes first.
    exact: HashMap<Arc<str>, Vec<Price>>,
    /// The longest first; likewise.
    globs: Vec<Price>,
}

impl List {
    fn new(rows: Vec<Price>) -> List {
        let mut list = List::default();
        for row in rows {
            if row.model.is_exact() {
                list.exact.entry(row.model.text().clone()).or_default().push(row);
            } else {
                list.globs.push(row);
            }
        }
        for rows in list.exact.values_mut() {
            rows.sort_by_key(|row| std::cmp::Reverse(row.from));
        }
        list.globs.sort_by_key(|row| std::cmp::Reverse((row.model.text().len(), row.from)));
        list
    }

    fn find(&self, spellings: &[Cow<'_, str>], at: Wall) -> Option<&Price> {
        let exact = spellings.iter().filter_map(|id| self.exact.get(id.as_ref()));
        exact.flatten().find(|row| begun(row, at)).or_else(|| {
            let fits = |row: &&Price| begun(row, at) && spellings.iter().any(|id| row.model.matches(id));
            self.globs.iter().find(fits)
        })
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }
}

fn begun(row: &Price, at: Wall) -> bool {
    row.from.is_none_or(|from| from <= at)
}

/// The price list in force.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    own: List,
    shipped: List,
    /// Which shipped list it is: goes with every figure.
    pub snapshot: Arc<str>,
}

impl Prices {
    /// The operator's rows, and the shipped ones below them.
    pub fn new(own: Vec<Price>, shipped: Vec<Price>, snapshot: &str) -> Prices {
        Prices { own: List::new(own), shipped: List::new(shipped), snapshot: snapshot.into() }
    }

    /// The row for a model at a moment.
    pub fn of(&self, model: &str, at: Wall) -> Option<&Price> {
        // The usual case: no rows of the operator's, and a model by its plain id.
        if self.own.is_empty()
            && let Some(row) = self.shipped.exact.get(model).and_then(|rows| rows.iter().find(|row| begun(row, at)))
        {
            return Some(row);
        }
        let spellings = spellings(model);
        self.own.find(&spellings, at).or_else(|| self.shipped.find(&spellings, at))
    }

    /// The names that have a price of their own, in no order.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        let rows = self.own.exact.iter().chain(&self.shipped.exact);
        rows.filter(|(_, rows)| rows.iter().any(|row| !row.guess)).map(|(name, _)| name.as_ref())
    }

    /// The operator's rows, in no order.
    pub fn own(&self) -> impl Iterator<Item = &Price> {
        self.own.exact.values().flatten().chain(&self.own.globs)
    }

    /// What `usage` of `model` at an upstream costs. The model is the one that answered, by the id that the upstream
    /// knows it under; what others did for the answer (`Usage::asides`) is priced by their own rows.
    pub fn cost(&self, usage: &Usage, model: &str, charge: &Charge, at: Wall) -> Cost {
        let mut cost = Cost::default();
        let searches = usage.web_searches;
        let mut part = |counts: &Counts, model: &str, searches: u64| {
            let part = self.part(usage, counts, model, searches, charge, at);
            cost.amount = MicroUsd(cost.amount.0.saturating_add(part.amount.0));
            cost.guessed |= part.guessed;
            cost.plain |= part.plain;
        };
        part(&usage.counts, model, searches);
        for aside in usage.asides.iter().filter(|aside| aside.counts != Counts::default()) {
            let other = aside.model.as_str();
            part(&aside.counts, if other.is_empty() { model } else { other }, 0);
        }
        if usage.counts.total() > 0 {
            cost.amount = MicroUsd(cost.amount.0.saturating_add(charge.fee.0));
        }
        cost
    }

    fn part(&self, usage: &Usage, counts: &Counts, model: &str, searches: u64, charge: &Charge, at: Wall) -> Cost {
        let Some(price) = self.of(model, at) else {
            return Cost { guessed: true, ..Cost::default() };
        };
        let rates = price.rates_for(counts.prompt());
        let of = |count: u64, rate: Rate| u128::from(count) * u128::from(rate.0);
        let each = u128::from(price.web_search.0.max(0).unsigned_abs()) * PICO;
        let terms = [
            of(counts.input, rates.input),
            of(counts.output, rates.output),
            of(counts.cache_read, rates.cache_read),
            of(counts.cache_write_5m, rates.cache_write_5m),
            of(counts.cache_write_1h, rates.cache_write_1h),
            u128::from(searches) * each,
        ];
        let sum = terms.into_iter().fold(0_u128, u128::saturating_add);
        let factors =
            [factor_of_tier(price, usage.tier), speed(price, usage), place(price, usage, model), charge.factor];
        let scaled = factors.into_iter().try_fold((sum, PICO), |amount, factor| factor.apply(amount));
        let amount = scaled.and_then(|(numerator, denominator)| {
            i64::try_from(numerator.checked_add(denominator / 2)? / denominator).ok()
        });
        Cost {
            amount: MicroUsd(amount.unwrap_or(i64::MAX)),
            guessed: price.guess,
            plain: usage.speed == Speed::Fast && price.factors.fast.is_none(),
        }
    }
}

/// Where a row does not say it: batches and flex are half the price everywhere, priority is paid beforehand.
fn factor_of_tier(price: &Price, tier: Tier) -> Factor {
    match tier {
        Tier::Standard => Factor::ONE,
        Tier::Priority => price.factors.priority.unwrap_or(Factor::ONE),
        Tier::Batch => price.factors.batch.unwrap_or(Factor::HALF),
        Tier::Flex => price.factors.flex.unwrap_or(Factor::HALF),
    }
}

fn speed(price: &Price, usage: &Usage) -> Factor {
    match usage.speed {
        Speed::Fast => price.factors.fast.unwrap_or(Factor::ONE),
        Speed::Standard => Factor::ONE,
    }
}

/// A regional id and `inference_geo` are two ways to ask for one thing; it is paid once.
fn place(price: &Price, usage: &Usage, model: &str) -> Factor {
    let factors = &price.factors;
    match usage.geo {
        Geo::Us if factors.us.is_some() => factors.us,
        _ if is_regional(model) => factors.regional.or(Some(REGIONAL)),
        _ => None,
    }
    .unwrap_or(Factor::ONE)
}

/// Whether a Bedrock id names a region: `us.anthropic.claude-...`, but not `global.` and not the bare `anthropic.`.
fn is_regional(model: &str) -> bool {
    let id = model.rsplit('/').next().unwrap_or(model);
    id.split_once(".anthropic.").is_some_and(|(region, _)| region != "global" && !region.is_empty())
}

/// The ids under which a model's row is looked for: as it is; without what follows `@` or `[`, a Bedrock version, a date
/// or `-latest`; that without the vendor before `/` and a region; and a Claude version written with a point.
fn spellings(model: &str) -> Vec<Cow<'_, str>> {
    let mut all = vec![Cow::Borrowed(model)];
    let mut add = |id: Cow<'static, str>| {
        if !id.is_empty() && !all.contains(&id) {
            all.push(id);
        }
    };
    let vendorless = model.rsplit('/').next().unwrap_or(model);
    let bare = vendorless.rsplit_once("anthropic.").map_or(vendorless, |(_, id)| id);
    for id in [model, vendorless, bare] {
        add(Cow::Owned(id.to_owned()));
        add(Cow::Owned(undated(id).to_owned()));
    }
    let plain = undated(bare);
    if plain.starts_with("claude") && plain.contains('.') {
        add(Cow::Owned(plain.replace('.', "-")));
    }
    all
}

fn undated(id: &str) -> &str {
    let id = id.split(['@', '[']).next().unwrap_or(id);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Bedrock: `-v1:0`, or `-v1`.
    let id = match id.rsplit_once("-v") {
        Some((name, version)) if version.split(':').all(digits) => name,
        _ => id,
    };
    let id = id.strip_suffix("-latest").unwrap_or(id);
    match id.rsplit_once('-') {
        Some((name, date)) if date.len() == 8 && digits(date) => name,
        _ => iso_date(id).unwrap_or(id),
    }
}

/// What stands before a date such as `-2026-03-05`.
fn iso_date(id: &str) -> Option<&str> {
    let (name, date) = id.split_at_checked(id.len().checked_sub(11)?)?;
    let shape =
        date.bytes().zip(b"-0000-00-00").all(|(b, form)| if *form == b'0' { b.is_ascii_digit() } else { b == b'-' });
    shape.then_some(name)
}
