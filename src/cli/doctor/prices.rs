//! List prices, for estimates only: nothing is billed or limited by them.

use crate::base::{LlmTokens, MicroUsd};

/// Where the prices come from and of which day they are.
pub const SNAPSHOT: &str = "list prices of 2026-11-22";

/// The price of a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// The model, without a date.
    pub model: &'static str,
    /// Input that is neither written to the cache nor read from it.
    pub input: MicroUsd,
    /// Output, thinking included.
    pub output: MicroUsd,
    /// A cache entry of five minutes.
    pub cache_write: MicroUsd,
    /// A cache hit.
    pub cache_read: MicroUsd,
    /// What an estimate has to add, with a space before it; empty when there is nothing.
    pub note: &'static str,
}

/// In thousandths of a dollar, as the columns of a price list: input, output, cache write, cache read.
const fn price(model: &'static str, [input, output, write, read]: [i64; 4]) -> Price {
    Price {
        model,
        input: MicroUsd(input * 1_000),
        output: MicroUsd(output * 1_000),
        cache_write: MicroUsd(write * 1_000),
        cache_read: MicroUsd(read * 1_000),
        note: "",
    }
}

/// LiteLLM 1.109.1's price file (MIT), with the Anthropic API's own page as a check.
pub const PRICES: &[Price] = &[
    price("claude-fable-5-1", [10_000, 50_000, 12_500, 250]),
    price("claude-fable-5", [10_000, 50_000, 12_500, 1_000]),
    price("claude-mythos-5-1", [10_000, 50_000, 12_500, 250]),
    price("claude-opus-5-5", [4_000, 20_000, 5_000, 200]),
    price("claude-opus-5", [5_000, 25_000, 6_250, 500]),
    price("claude-opus-4-8", [5_000, 25_000, 6_250, 500]),
    price("claude-opus-4-7", [5_000, 25_000, 6_250, 500]),
    price("claude-opus-4-6", [5_000, 25_000, 6_250, 500]),
    price("claude-opus-4-5", [5_000, 25_000, 6_250, 500]),
    price("claude-sonnet-5-5", [2_000, 10_000, 2_500, 100]),
    price("claude-sonnet-5", [2_000, 10_000, 2_500, 200]),
    price("claude-sonnet-4-6", [3_000, 15_000, 3_750, 300]),
    price("claude-sonnet-4-5", [3_000, 15_000, 3_750, 300]),
    Price {
        note: " (five times that for requests over 100k tokens)",
        ..price("claude-haiku-5-5", [100, 500, 125, 10])
    },
    price("claude-haiku-4-5", [1_000, 5_000, 1_250, 100]),
];

/// The price of a model by its id; a date, `@` version or vendor in the id does not matter.
pub fn of(id: &str) -> Option<&'static Price> {
    let id = id.rsplit('/').next().unwrap_or(id);
    let id = id.split(['@', '[']).next().unwrap_or(id);
    let name = match id.rsplit_once('-') {
        Some((name, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => name,
        Some((name, "latest")) => name,
        _ => id,
    };
    PRICES.iter().find(|price| price.model == name)
}

/// What a number of people do in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Input that is neither written to the cache nor read from it.
    pub input: LlmTokens,
    /// Written to the cache.
    pub cache_write: LlmTokens,
    /// Read from the cache.
    pub cache_read: LlmTokens,
    /// Output.
    pub output: LlmTokens,
}

/// What a usage costs; saturates.
pub fn cost(price: &Price, usage: &Usage) -> MicroUsd {
    let part = |rate: MicroUsd, tokens: LlmTokens| i128::from(rate.0) * i128::from(tokens.0) / 1_000_000;
    let total = part(price.input, usage.input)
        + part(price.cache_write, usage.cache_write)
        + part(price.cache_read, usage.cache_read)
        + part(price.output, usage.output);
    MicroUsd(i64::try_from(total).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_all_spellings_have_a_price() {
        for id in [
            "claude-haiku-4-5",
            "claude-haiku-4-5-20251001",
            "claude-haiku-4-5@20251001",
            "anthropic/claude-haiku-4-5",
            "claude-haiku-4-5-latest",
            "claude-haiku-4-5[1m]",
        ] {
            assert_eq!(of(id).map(|price| price.model), Some("claude-haiku-4-5"), "{id}");
        }
        for id in ["claude-haiku-4", "claude-opus-9", "", "claude", "gpt-6-sol"] {
            assert_eq!(of(id), None, "{id}");
        }
    }

    #[test]
    fn rates_are_of_a_million_tokens() {
        let million = LlmTokens(1_000_000);
        let usage = Usage { input: million, cache_write: million, cache_read: million, output: million };
        let price = of("claude-opus-5").unwrap();
        assert_eq!(cost(price, &usage), MicroUsd(36_750_000));
        assert_eq!(cost(price, &Usage { input: LlmTokens(u64::MAX), ..usage }), MicroUsd(i64::MAX));
    }

    #[test]
    fn the_table_is_plausible() {
        for price in PRICES {
            assert!(price.cache_read < price.input && price.input < price.cache_write, "{}", price.model);
            assert!(price.cache_write < price.output, "{}", price.model);
        }
    }
}
