//! Quantities, addresses, digests and dates as texts. A quantity carries its unit in the text: `"5s"`, `"64MiB"`. Every
//! fault comes with a text that would be right.

use std::net::{IpAddr, SocketAddr};

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::base::{Span, Wall};

/// What is wrong with a value, and one that would do.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// A clause that follows the value.
    pub cause: &'static str,
    /// A good value, without quotes.
    pub instead: String,
}

fn fault<T>(cause: &'static str, instead: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { cause, instead: instead.into() })
}

/// A number and what follows it.
fn split(text: &str) -> (Option<u64>, &str) {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').len();
    let (number, unit) = text.split_at(digits);
    (number.replace('_', "").parse().ok(), unit)
}

/// A length of time: a whole number and `ms`, `s`, `m` or `h`. At least 1 ms, at most 1 h.
pub fn duration(text: &str, example: &str) -> Result<Span, Fault> {
    let (Some(number), unit) = split(text.trim()) else { return fault("is not a length of time", example) };
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hour" | "hours" => "h",
        _ => return fault("is not a number with one of the units ms, s, m, h", example),
    };
    let instead = format!("{number}{meant}");
    match unit {
        "" => return fault("has no unit", instead),
        unit if unit != meant => return fault("is not a number with one of the units ms, s, m, h", instead),
        _ => {}
    }
    let factor = match meant {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => 3_600_000,
    };
    match number.saturating_mul(factor) {
        0 => fault("would end everything at once", example),
        ms if ms > 3_600_000 => fault("is longer than an hour", "1h"),
        ms => Ok(Span::from_ms(ms)),
    }
}

/// The same, but zero is good, and means never.
pub fn duration_or_never(text: &str, example: &str) -> Result<Span, Fault> {
    match text.trim() {
        "0ms" | "0s" | "0m" | "0h" => Ok(Span::ZERO),
        "0" => fault("has no unit", "0s"),
        _ => duration(text, example),
    }
}

/// A size: a whole number and `B`, `KiB`, `MiB` or `GiB`.
pub fn size(text: &str, example: &str) -> Result<u64, Fault> {
    let (Some(number), unit) = split(text.trim()) else { return fault("is not a size", example) };
    let (meant, factor) = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" => ("B", 1),
        "k" | "kb" | "kib" => ("KiB", 1 << 10),
        "m" | "mb" | "mib" => ("MiB", 1 << 20),
        "g" | "gb" | "gib" => ("GiB", 1 << 30),
        _ => return fault("is not a number with one of the units B, KiB, MiB, GiB", example),
    };
    if unit != meant {
        return fault("is not a number with one of the units B, KiB, MiB, GiB", format!("{number}{meant}"));
    }
    match number.checked_mul(factor) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => fault("is not a size that can be used", example),
    }
}

/// A size in the largest unit that is exact.
pub fn size_text(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    let exact = units.into_iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    exact.map_or_else(String::new, |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// An IP address and a port.
pub fn address(text: &str) -> Result<SocketAddr, Fault> {
    const CAUSE: &str = "is not an IP address with a port";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text.trim().split("://").last().unwrap_or_default();
    let bare = bare.split('/').next().unwrap_or_default();
    if let Ok(address) = bare.parse::<SocketAddr>() {
        return fault(CAUSE, address.to_string());
    }
    if let Ok(ip) = bare.trim_matches(['[', ']']).parse::<IpAddr>() {
        return fault("has no port", SocketAddr::new(ip, 8080).to_string());
    }
    let (host, port) = bare.rsplit_once(':').unwrap_or(("", bare));
    let Ok(port) = port.parse::<u16>() else { return fault(CAUSE, "127.0.0.1:8080") };
    match host {
        "*" => fault(CAUSE, format!("0.0.0.0:{port}")),
        "" => fault("has no IP address", format!("127.0.0.1:{port}")),
        _ => fault("is a name; a listener has an IP address", format!("127.0.0.1:{port}")),
    }
}

/// `sha256:` and 64 hex digits. The good text in a fault is empty when there is none.
pub fn hash(text: &str) -> Result<[u8; 32], Fault> {
    let bare = text.trim();
    let hex = bare.strip_prefix("sha256:").unwrap_or(bare).trim();
    match parse_hex(hex) {
        Some(digest) if text.strip_prefix("sha256:") == Some(hex) => Ok(digest),
        Some(_) => fault("is not `sha256:` and 64 hex digits", format!("sha256:{hex}")),
        None => fault("is not `sha256:` and 64 hex digits", ""),
    }
}

fn parse_hex(hex: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (to, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let mut digits = pair.iter().map(|b| char::from(*b).to_digit(16));
        *to = (digits.next()?? * 16 + digits.next()??) as u8;
    }
    Some(out)
}

/// The end of a key's life: a date, which is the last day, or a moment with an offset or in the org's zone. Returns the
/// first moment after, and the last day as text.
pub fn expiry(text: &str, zone: &TimeZone) -> Result<(Wall, String), Fault> {
    let wall = |stamp: jiff::Timestamp| Wall(u64::try_from(stamp.as_millisecond()).unwrap_or(0));
    let text = text.trim();
    if let Ok(date) = text.parse::<Date>().and_then(|date| Ok((date, date.tomorrow()?)))
        && text.len() == 10
    {
        let (last, next) = date;
        return match zone.to_timestamp(next.at(0, 0, 0, 0)) {
            Ok(end) => Ok((wall(end), last.to_string())),
            Err(_) => fault("is not a date that can be used", "2099-12-31"),
        };
    }
    let day = |stamp: jiff::Timestamp| zone.to_datetime(stamp).date().to_string();
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Ok((wall(stamp), day(stamp)));
    }
    match text.parse::<DateTime>().ok().filter(|_| text.len() > 10).and_then(|local| zone.to_timestamp(local).ok()) {
        Some(stamp) => Ok((wall(stamp), day(stamp))),
        None => fault("is not a date such as 2026-12-31", turned(text).unwrap_or_else(|| "2099-12-31".into())),
    }
}

/// `31.12.2026`, `31/12/2026` and `2026/12/31` as `2026-12-31`.
fn turned(text: &str) -> Option<String> {
    let parts: Vec<u16> = text.split(['.', '/', '-']).map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    let &[a, month, b] = parts.as_slice() else { return None };
    let (year, day) = if a > 31 { (a, b) } else { (b, a) };
    let date = Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    (date.year() >= 1970).then(|| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        result.expect_err("a fault").instead
    }

    #[test]
    fn durations() {
        assert_eq!(duration("5s", "1s"), Ok(Span::from_secs(5)));
        assert_eq!(duration("250ms", "1s"), Ok(Span::from_ms(250)));
        assert_eq!(duration("2m", "1s"), Ok(Span::from_secs(120)));
        assert_eq!(duration("1h", "1s"), Ok(Span::from_secs(3600)));
        assert_eq!(instead(duration("5", "1s")), "5s");
        assert_eq!(instead(duration("5 sec", "1s")), "5s");
        assert_eq!(instead(duration("2h", "1s")), "1h");
        assert_eq!(duration_or_never("0s", "1s"), Ok(Span::ZERO));
        assert_eq!(instead(duration_or_never("0", "1s")), "0s");
        assert_eq!(duration_or_never("3s", "1s"), Ok(Span::from_secs(3)));
        for bad in ["", "s", "0s", "-5s", "5d", "1m30s", "99999999999999999999s"] {
            assert_eq!(instead(duration(bad, "1s")), "1s", "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64MiB", "1MiB"), Ok(64 << 20));
        assert_eq!(size("1GiB", "1MiB"), Ok(1 << 30));
        assert_eq!((size_text(3 << 20).as_str(), size_text(1025).as_str()), ("3MiB", "1025B"));
        assert_eq!(instead(size("64MB", "1MiB")), "64MiB");
        assert_eq!(instead(size("1000", "1MiB")), "1000B");
        assert_eq!(instead(size("99999999999GiB", "1MiB")), "1MiB");
    }

    #[test]
    fn addresses() {
        assert!(address("127.0.0.1:8080").is_ok() && address("[::]:1").is_ok());
        let pairs = [
            ("localhost:8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("8443", "127.0.0.1:8443"),
            ("*:8080", "0.0.0.0:8080"),
            ("0.0.0.0", "0.0.0.0:8080"),
            ("::1", "[::1]:8080"),
            ("http://127.0.0.1:80/x", "127.0.0.1:80"),
            ("127.0.0.1:99999", "127.0.0.1:8080"),
            ("", "127.0.0.1:8080"),
        ];
        for (bad, good) in pairs {
            assert_eq!(instead(address(bad)), good, "{bad}");
        }
    }

    #[test]
    fn hashes() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(&format!("sha256:{hex}")).expect("good")[..2], [0xba, 0x78]);
        assert_eq!(instead(hash(hex)), format!("sha256:{hex}"));
        assert_eq!(instead(hash("sha256:abc")), "");
        assert_eq!(instead(hash(&format!("sha256:{}", "é".repeat(32)))), "");
    }

    #[test]
    fn a_date_is_the_last_day_in_the_orgs_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let (end, day) = expiry("2026-03-01", &zone).expect("good");
        assert_eq!((end, day.as_str()), (Wall(1_772_402_400_000), "2026-03-01"), "2026-03-01T22:00Z");
        assert_eq!(expiry("2026-03-01T22:00:00Z", &zone).expect("good").0, end);
        assert_eq!(expiry("2026-03-02T00:00:00", &zone).expect("good").0, end);
        assert_eq!(instead(expiry("31.12.2026", &zone)), "2026-12-31");
        assert_eq!(instead(expiry("soon", &zone)), "2099-12-31");
    }
}
