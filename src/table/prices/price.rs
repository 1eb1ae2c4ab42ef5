//! One row of the price list, and what makes it implausible.

use super::amount::{Factor, Rate};
use crate::{
    base::{MicroUsd, Wall},
    net::x509::day,
    table::Pattern,
};
use std::fmt;

/// A web search of the provider's, unless its row says otherwise: $10 a thousand.
pub const WEB_SEARCH: MicroUsd = MicroUsd(10_000);
/// A cache write costs at most so many times the input: the dearest known is 2.5.
const WRITE_TIMES_MAX: u64 = 4;
/// Steps of one row at most.
pub const STEPS_MAX: usize = 8;

/// What tokens cost, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Input that is neither written to the cache nor read from it.
    pub input: Rate,
    /// Output, thinking included.
    pub output: Rate,
    /// Read from the cache.
    pub cache_read: Rate,
    /// Written to the cache for five minutes.
    pub cache_write_5m: Rate,
    /// Written to the cache for an hour.
    pub cache_write_1h: Rate,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The column.
    pub column: &'static str,
    /// A clause that follows the column's name.
    pub cause: &'static str,
    /// What would be plausible.
    pub instead: Rate,
}

impl Rates {
    /// What cannot be right: the checks that would have caught the price lists that were once copied wrongly.
    pub fn fault(&self) -> Option<Fault> {
        let times = |rate: Rate, n: u64| Rate(rate.0.saturating_mul(n));
        let checks = [
            (
                self.output < self.input,
                "output",
                "is less than `input`; no model's output is cheaper than its input",
                times(self.input, 5),
            ),
            (
                self.cache_read > self.input,
                "cache_read",
                "is more than `input`; reading from the cache saves money",
                Rate(self.input.0 / 10),
            ),
            (
                self.cache_write_1h < self.cache_write_5m,
                "cache_write_1h",
                "is less than `cache_write_5m`; what is kept longer is not cheaper",
                self.cache_write_5m,
            ),
            (
                self.cache_write_5m > times(self.input, WRITE_TIMES_MAX),
                "cache_write_5m",
                "is more than four times `input`",
                Rate(self.input.0.saturating_mul(5) / 4),
            ),
            (
                self.cache_write_1h > times(self.input, WRITE_TIMES_MAX),
                "cache_write_1h",
                "is more than four times `input`",
                times(self.input, 2),
            ),
        ];
        let (_, column, cause, instead) = checks.into_iter().find(|(is_wrong, ..)| *is_wrong)?;
        Some(Fault { column, cause, instead })
    }
}

/// Other rates for the whole of a request whose prompt is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The prompt has more tokens than this, cached ones included.
    pub above: u64,
    /// What they all cost then.
    pub rates: Rates,
}

/// What a row's rates are multiplied by. `None` where it does not say: then `Prices::cost` has a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Factors {
    /// `speed: fast`.
    pub fast: Option<Factor>,
    /// The priority tier.
    pub priority: Option<Factor>,
    /// A batch.
    pub batch: Option<Factor>,
    /// The flex tier.
    pub flex: Option<Factor>,
    /// Computed in the United States only.
    pub us: Option<Factor>,
    /// Asked for under a regional id (Bedrock's `us.`, `eu.`, `jp.`, ...).
    pub regional: Option<Factor>,
}

/// One row: what a model, or every model of a pattern, costs from some day on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The model's id, or a glob.
    pub model: Pattern,
    /// From when on; `None` since ever.
    pub from: Option<Wall>,
    /// What tokens cost.
    pub rates: Rates,
    /// By rising threshold.
    pub steps: Vec<Step>,
    /// What they are multiplied by.
    pub factors: Factors,
    /// One web search of the provider's.
    pub web_search: MicroUsd,
    /// It stands for models whose prices are not known, and what it gives is flagged.
    pub guess: bool,
}

impl Price {
    /// A row with one set of rates.
    pub fn new(model: Pattern, rates: Rates) -> Price {
        Price {
            model,
            from: None,
            rates,
            steps: Vec::new(),
            factors: Factors::default(),
            web_search: WEB_SEARCH,
            guess: false,
        }
    }

    /// The rates for a prompt of so many tokens.
    pub fn rates_for(&self, prompt: u64) -> &Rates {
        let step = self.steps.iter().rev().find(|step| prompt > step.above);
        step.map_or(&self.rates, |step| &step.rates)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rates { input, output, cache_read, cache_write_5m, cache_write_1h } = self;
        write!(f, "input = {input}, output = {output}, cache_read = {cache_read}, ")?;
        write!(f, "cache_write_5m = {cache_write_5m}, cache_write_1h = {cache_write_1h}")
    }
}

/// As a `[[price]]` of a configuration, without a line end behind it.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Price { model, from, rates, steps, factors, web_search, guess } = self;
        write!(f, "[[price]]\nmodel = \"{}\"", model.text())?;
        if let Some(from) = from {
            write!(f, "\nfrom = {}", day(*from))?;
        }
        for pair in rates.to_string().split(", ") {
            write!(f, "\n{pair}")?;
        }
        if !steps.is_empty() {
            let each: Vec<_> =
                steps.iter().map(|step| format!("{{ tokens = {}, {} }}", step.above, step.rates)).collect();
            write!(f, "\nabove = [{}]", each.join(", "))?;
        }
        let Factors { fast, priority, batch, flex, us, regional } = factors;
        let named = [
            ("fast", fast),
            ("priority", priority),
            ("batch", batch),
            ("flex", flex),
            ("us", us),
            ("regional", regional),
        ];
        for (name, factor) in named {
            if let Some(factor) = factor {
                write!(f, "\n{name} = {factor}")?;
            }
        }
        if *web_search != WEB_SEARCH {
            write!(f, "\nweb_search = {}", Rate(web_search.0.max(0).unsigned_abs()))?;
        }
        if *guess { write!(f, "\nguess = true") } else { Ok(()) }
    }
}

impl fmt::Display for super::Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times the price and ${} an answer", self.factor, Rate(self.fee.0.max(0).unsigned_abs()))
    }
}
