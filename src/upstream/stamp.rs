//! Moments and lengths of time as answers' heads write them: RFC 3339, HTTP dates, and durations such as `6m0s`. Only
//! as much as limits need; not a calendar. No allocation, no panic.

use crate::base::{Span, Wall};

const DAY_MS: u64 = 86_400_000;

/// `2026-11-25T10:00:06Z`, with a fraction or an offset if it has one (RFC 3339 section 5.6).
pub(super) fn rfc3339(text: &[u8]) -> Option<Wall> {
    let number = |from: usize, to: usize| digits(text.get(from..to)?);
    let mark = |at: usize, any: &[u8]| text.get(at).is_some_and(|byte| any.contains(byte));
    let right = mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":");
    if !right {
        return None;
    }
    let day = days(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let of_day = of_day(number(11, 13)?, number(14, 16)?, number(17, 19)?)?;
    let mut rest = text.get(19..)?;
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (part, after) = fraction.split_at(len);
        ms = part.iter().chain(b"000").take(3).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'));
        rest = after;
    }
    let utc = day * DAY_MS + of_day + ms;
    match rest {
        b"Z" | b"z" => Some(Wall(utc)),
        [sign, offset @ ..] if offset.len() == 5 && offset.get(2) == Some(&b':') => {
            let minutes = digits(offset.get(..2)?)? * 60 + digits(offset.get(3..)?)?;
            let shift = minutes * 60_000;
            match sign {
                b'+' => Some(Wall(utc.saturating_sub(shift))),
                b'-' => Some(Wall(utc + shift)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// An HTTP date in any of its three forms (RFC 9110 section 5.6.7).
pub(super) fn http_date(text: &[u8]) -> Option<Wall> {
    let mut parts: [&[u8]; 8] = [b""; 8];
    let found = text.split(|byte| b" ,-:".contains(byte)).filter(|part| !part.is_empty());
    for (at, part) in found.enumerate() {
        *parts.get_mut(at)? = part;
    }
    // `Sun Nov  6 08:49:37 1994` has seven parts; `Sun, 06 Nov 1994 08:49:37 GMT` and `Sunday, 06-Nov-94 08:49:37 GMT` eight.
    if parts[7].is_empty() {
        let [_, month, day, hour, minute, second, year, _] = parts;
        parts = [b"", day, month, year, hour, minute, second, b""];
    }
    let [_, day, month, year, hour, minute, second, _] = parts;
    let year = digits(year)?;
    let year = match year {
        0..70 => year + 2_000,
        70..100 => year + 1_900,
        _ => year,
    };
    let day = days(year, month_of(month)?, digits(day)?)?;
    Some(Wall(day * DAY_MS + of_day(digits(hour)?, digits(minute)?, digits(second)?)?))
}

/// A duration as Go prints it (`1s`, `6m0s`, `120ms`, `1h2m`, `1.5s`); a bare number is seconds.
pub(super) fn span_of_text(text: &[u8]) -> Option<Span> {
    let (mut rest, mut sum) = (text, 0_u64);
    if rest.is_empty() || rest.len() > 40 {
        return None;
    }
    while !rest.is_empty() {
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (whole, mut after) = rest.split_at(len);
        let mut fraction: &[u8] = b"";
        if let Some(behind) = after.strip_prefix(b".") {
            (fraction, after) = behind.split_at(behind.iter().take_while(|byte| byte.is_ascii_digit()).count());
        }
        let units = after.iter().take_while(|byte| !byte.is_ascii_digit() && **byte != b'.').count();
        let (unit, next) = after.split_at(units);
        let unit_ns: u64 = match unit {
            b"d" => DAY_MS * 1_000_000,
            b"h" => 3_600_000_000_000,
            b"m" => 60_000_000_000,
            b"s" | b"" => 1_000_000_000,
            b"ms" => 1_000_000,
            b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
            b"ns" => 1,
            _ => return None,
        };
        let millionths =
            fraction.iter().chain(b"000000").take(6).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'));
        let part = u128::from(unit_ns) * u128::from(millionths) / 1_000_000;
        let whole = digits(whole)?.saturating_mul(unit_ns).saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
        sum = sum.saturating_add(whole);
        rest = next;
    }
    Some(Span(sum))
}

/// One to nine digits and nothing else.
fn digits(text: &[u8]) -> Option<u64> {
    let fits = (1..=9).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    fits.then(|| text.iter().fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0')))
}

fn month_of(name: &[u8]) -> Option<u64> {
    const NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    NAMES.chunks_exact(3).position(|month| month.eq_ignore_ascii_case(name)).map(|at| at as u64 + 1)
}

/// Milliseconds since midnight; a leap second is the second after.
fn of_day(hour: u64, minute: u64, second: u64) -> Option<u64> {
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 3_600 + minute * 60 + second) * 1_000)
}

/// Days since 1970-01-01 (proleptic Gregorian; Hinnant's days_from_civil).
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_are_read_in_every_form() {
        let hard = Wall(1_709_164_800_000);
        for text in [
            "2024-02-29T00:00:00Z",
            "2024-02-29t00:00:00.000z",
            "2024-02-29T02:30:00+02:30",
            "2024-02-28T19:00:00-05:00",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), Some(hard), "{text}");
        }
        assert_eq!(rfc3339(b"2024-02-29T00:00:00.1239Z"), Some(Wall(hard.0 + 123)));
        for text in [
            "",
            "2024-02-29",
            "2024-13-29T00:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T00:00:00",
            "1969-12-31T23:59:59Z",
            "2024-02-29T00:00:00+0100",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
        let rfc = Some(Wall(784_111_777_000));
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(http_date(text.as_bytes()), rfc, "{text}");
        }
        for text in ["", "soon", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT", "1 2 3 4 5 6 7 8 9"] {
            assert_eq!(http_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_written() {
        for (text, ms) in [
            ("1s", 1_000),
            ("6m0s", 360_000),
            ("120ms", 120),
            ("1h2m", 3_720_000),
            ("1.5s", 1_500),
            ("7", 7_000),
            ("0s", 0),
            ("1d", DAY_MS),
            ("59.961s", 59_961),
        ] {
            assert_eq!(span_of_text(text.as_bytes()), Some(Span::from_ms(ms)), "{text}");
        }
        assert_eq!(span_of_text(b"12us"), Some(Span(12_000)));
        for text in ["", "s", "-1s", "1w", "1s x", "1..2s", "12345678901s"] {
            assert_eq!(span_of_text(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            let _ = (rfc3339(&bytes), http_date(&bytes), span_of_text(&bytes));
        }

        #[test]
        fn nothing_that_looks_like_a_time_brings_it_down(text in "[0-9TZhms:., +-]{0,32}") {
            let _ = (rfc3339(text.as_bytes()), http_date(text.as_bytes()), span_of_text(text.as_bytes()));
        }
    }
}
