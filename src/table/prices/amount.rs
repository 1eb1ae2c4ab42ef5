//! Rates and factors as whole numbers, read from decimal texts: money is never a binary fraction here.

use std::fmt;

/// The highest rate that is taken for one: $100,000 for a million tokens.
const RATE_MAX: u64 = 100_000_000_000;
/// The highest factor: a hundred times.
const FACTOR_MAX: u64 = 100_000_000;
const MILLION: u32 = 1_000_000;

/// What tokens cost, in millionths of a dollar for a million of them; which is the same as 10^-12 dollars for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

impl Rate {
    /// A rate in dollars for a million tokens, such as `2.5`. `None` if it is no number, negative, or beyond all reason.
    pub fn per_million(text: &str) -> Option<Rate> {
        decimal(text, 6).filter(|rate| *rate <= RATE_MAX).map(Rate)
    }

    /// A rate in dollars for one token, such as `2.5e-06`; likewise.
    pub fn per_one(text: &str) -> Option<Rate> {
        decimal(text, 12).filter(|rate| *rate <= RATE_MAX).map(Rate)
    }

    /// This rate as often as `to` is more than `from`, rounded down; itself when `from` is nothing.
    #[must_use]
    pub fn scaled(self, from: Rate, to: Rate) -> Rate {
        match u128::from(self.0) * u128::from(to.0) / u128::from(from.0.max(1)) {
            _ if from.0 == 0 => self,
            scaled => Rate(u64::try_from(scaled).unwrap_or(u64::MAX)),
        }
    }
}

/// In dollars for a million tokens, as `Rate::per_million` reads it.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / u64::from(MILLION), self.0 % u64::from(MILLION));
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a price is multiplied by; a fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    numerator: u32,
    denominator: u32,
}

impl Factor {
    /// Once.
    pub const ONE: Factor = Factor { numerator: 1, denominator: 1 };
    /// A half.
    pub const HALF: Factor = Factor { numerator: 1, denominator: 2 };

    /// A tenth more.
    pub const ELEVEN_TENTHS: Factor = Factor { numerator: 11, denominator: 10 };

    /// A factor such as `1.055`, to a millionth. `None` if it is no number, negative, or over a hundred.
    pub fn of(text: &str) -> Option<Factor> {
        let millionths = decimal(text, 6).filter(|factor| *factor <= FACTOR_MAX)?;
        let common = common_divisor(millionths, u64::from(MILLION)).max(1);
        Some(Factor {
            numerator: u32::try_from(millionths / common).ok()?,
            denominator: u32::try_from(u64::from(MILLION) / common).ok()?,
        })
    }

    /// What makes `to` of `from`, if that is a factor.
    pub fn between(from: Rate, to: Rate) -> Option<Factor> {
        let common = common_divisor(from.0, to.0).max(1);
        let factor = Factor {
            numerator: u32::try_from(to.0 / common).ok()?,
            denominator: u32::try_from(from.0 / common).ok().filter(|n| *n > 0)?,
        };
        (u64::from(factor.numerator) <= u64::from(factor.denominator) * 100).then_some(factor)
    }

    /// Multiplies numerator and denominator of an amount; `None` when that is too much for 128 bits.
    pub(super) fn apply(self, (numerator, denominator): (u128, u128)) -> Option<(u128, u128)> {
        Some((
            numerator.checked_mul(u128::from(self.numerator))?,
            denominator.checked_mul(u128::from(self.denominator))?,
        ))
    }
}

/// As `Factor::of` reads it, to a millionth.
impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millionths = u64::from(self.numerator) * u64::from(MILLION) / u64::from(self.denominator.max(1));
        Rate(millionths).fmt(f)
    }
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// `text` times `10^places`, rounded to the nearest. Takes digits, `_`, one point and an exponent; nothing negative.
fn decimal(text: &str, places: i32) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|e| (-40..=40).contains(e))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut value, mut scale) = (0_u128, exponent + places);
    for (at, byte) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if byte == b'_' {
            continue;
        }
        let digit = byte.is_ascii_digit().then(|| u128::from(byte - b'0'))?;
        value = value.checked_mul(10)?.checked_add(digit)?;
        scale -= i32::from(at >= whole.len());
    }
    while scale > 0 && value > 0 {
        value = value.checked_mul(10)?;
        scale -= 1;
    }
    let divisor = 10_u128.checked_pow(scale.min(0).unsigned_abs());
    let rounded = divisor.map_or(0, |divisor| (value + divisor / 2) / divisor);
    u64::try_from(rounded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly() {
        for (text, millionths) in [
            ("10", 10_000_000),
            ("0.025", 25_000),
            ("2.5", 2_500_000),
            (".5", 500_000),
            ("5.", 5_000_000),
            ("1_000", 1_000_000_000),
            ("1e1", 10_000_000),
            ("0.0000005", 1),
            ("0.00000049", 0),
            ("0", 0),
        ] {
            assert_eq!(Rate::per_million(text), Some(Rate(millionths)), "{text}");
        }
        for text in ["", ".", "-1", "nan", "inf", "1.2.3", "0x10", "1e99", "1e5x", "100001", "$2"] {
            assert_eq!(Rate::per_million(text), None, "{text}");
        }
        assert_eq!(Rate::per_one("2.5e-08"), Rate::per_million("0.025"));
        assert_eq!(Rate::per_one("1.5000000000000002e-06"), Rate::per_million("1.5"));
        assert_eq!(Rate::per_one("0.00015"), Rate::per_million("150"));
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for rate in [0, 1, 25_000, 2_500_000, 10_000_000, 123_456_789] {
            assert_eq!(Rate::per_million(&Rate(rate).to_string()), Some(Rate(rate)));
        }
        assert_eq!(Rate(2_500_000).to_string(), "2.5");
        for factor in ["1.055", "0", "2", "0.5", "100", "0.000001"] {
            assert_eq!(Factor::of(factor).unwrap().to_string(), factor);
        }
    }

    #[test]
    fn factors_are_fractions() {
        assert_eq!(Factor::of("0.5"), Some(Factor::HALF));
        assert_eq!(Factor::of("1.055").unwrap().apply((200, 1)), Some((200 * 211, 200)));
        assert_eq!(Factor::of("101"), None);
        assert_eq!(Factor::between(Rate(4_000_000), Rate(8_000_000)), Factor::of("2"));
        assert_eq!(Factor::between(Rate(0), Rate(1)), None);
        assert_eq!(Factor::between(Rate(1), Rate(101)), None);
        assert_eq!(Factor::of("2").unwrap().apply((u128::MAX, 1)), None);
        assert_eq!(Rate(3).scaled(Rate(0), Rate(9)), Rate(3));
        assert_eq!(Rate(200_000).scaled(Rate(2_000_000), Rate(4_000_000)), Rate(400_000));
    }
}
