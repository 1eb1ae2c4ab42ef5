//! What an operator wants to know of an X.509 certificate: whose it is, for which names, from when until when (RFC
//! 5280 section 4.1). Pure. It only reads: whether a certificate is to be trusted is decided by rustls.

use crate::base::Wall;
use aws_lc_rs::digest;
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Names that are kept of one certificate.
const NAMES_MAX: usize = 64;
/// Characters that are kept of a subject or an issuer.
const NAME_CHARS_MAX: usize = 200;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERAL_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17, subjectAltName.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// The parts of a name that are shown (2.5.4.x).
const ATTRIBUTES: [(&[u8], &str); 4] =
    [(&[0x55, 4, 3], "CN"), (&[0x55, 4, 11], "OU"), (&[0x55, 4, 10], "O"), (&[0x55, 4, 6], "C")];

/// One certificate. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, as `CN=..., O=...`; may be empty.
    pub subject: Box<str>,
    /// Who signed it.
    pub issuer: Box<str>,
    /// The host names and addresses that it is for; clients look at nothing else.
    pub names: Vec<Box<str>>,
    /// The first moment at which it is good.
    pub begins: Wall,
    /// The last moment at which it is good.
    pub ends: Wall,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
}

impl Certificate {
    /// Reads a certificate's DER; `None` when it is not one.
    pub fn read(der: &[u8]) -> Option<Certificate> {
        let mut whole = Der(Der(der).take(SEQUENCE)?);
        let mut body = Der(whole.take(SEQUENCE)?);
        body.skip(VERSION);
        body.take(INTEGER)?; // the serial number
        body.take(SEQUENCE)?; // the signature's algorithm
        let issuer = name(body.take(SEQUENCE)?)?;
        let mut validity = Der(body.take(SEQUENCE)?);
        let (begins, ends) = (validity.time()?, validity.time()?);
        let subject = name(body.take(SEQUENCE)?)?;
        body.take(SEQUENCE)?; // the public key
        let mut names = Vec::new();
        while let Some((tag, content)) = body.next() {
            if tag == EXTENSIONS {
                names = alternative_names(content)?;
            }
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Some(Certificate { subject, issuer, names, begins, ends, fingerprint })
    }

    /// The fingerprint as people compare it.
    pub fn fingerprint_hex(&self) -> String {
        self.fingerprint.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// Days from `now` until it ends; below zero when it has.
    pub fn days_left(&self, now: Wall) -> f64 {
        (self.ends.0 as f64 - now.0 as f64) / DAY_MS as f64
    }
}

/// The day of `moment` in UTC, as `2026-12-31`.
pub fn day(moment: Wall) -> String {
    // Civil from days: H. Hinnant, chrono-compatible low-level date algorithms.
    let z = (moment.0 / DAY_MS) as i64 + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A run of DER values (X.690 section 10).
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk::<2>()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.is_empty() || bytes.len() > 4 {
                return None;
            }
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content))
    }

    /// The content of the next value, which must have `tag`.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }

    /// Passes over the next value if it has `tag`.
    fn skip(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }

    fn time(&mut self) -> Option<Wall> {
        let (tag, text) = self.next()?;
        let digits = text.strip_suffix(b"Z")?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = digits.split_at_checked(2)?;
                let year = number(year)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERAL_TIME => {
                let (year, rest) = digits.split_at_checked(4)?;
                (number(year)?, rest)
            }
            _ => return None,
        };
        let mut parts = rest.chunks(2).map(number);
        let mut part = |least, most| parts.next()?.filter(|n| (least..=most).contains(n));
        let (month, day) = (part(1, 12)?, part(1, 31)?);
        let (hour, minute, second) = (part(0, 23)?, part(0, 59)?, part(0, 60)?);
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Wall(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)))
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A distinguished name as text.
fn name(content: &[u8]) -> Option<Box<str>> {
    let (mut sets, mut out) = (Der(content), String::new());
    while !sets.0.is_empty() {
        let mut set = Der(sets.take(SET)?);
        while !set.0.is_empty() {
            let mut pair = Der(set.take(SEQUENCE)?);
            let identifier = pair.take(IDENTIFIER)?;
            let (_, value) = pair.next()?;
            if let Some((_, short)) = ATTRIBUTES.iter().find(|(known, _)| *known == identifier) {
                let comma = if out.is_empty() { "" } else { ", " };
                let _ = write!(out, "{comma}{short}={}", String::from_utf8_lossy(value));
            }
        }
    }
    Some(clean(&out))
}

/// Text of a certificate goes into logs and onto terminals.
fn clean(text: &str) -> Box<str> {
    let chars = text.chars().map(|c| if c.is_control() { '?' } else { c });
    chars.take(NAME_CHARS_MAX).collect::<String>().into()
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<Box<str>>> {
    let mut list = Der(Der(extensions).take(SEQUENCE)?);
    while !list.0.is_empty() {
        let mut extension = Der(list.take(SEQUENCE)?);
        let identifier = extension.take(IDENTIFIER)?;
        extension.skip(BOOLEAN);
        if identifier != ALTERNATIVE_NAMES {
            continue;
        }
        let mut names = Der(Der(extension.take(OCTETS)?).take(SEQUENCE)?);
        let mut found = Vec::new();
        while let Some((tag, value)) = names.next() {
            let name = match tag {
                DNS_NAME => Some(clean(&String::from_utf8_lossy(value))),
                IP_ADDRESS => address(value).map(|address| address.to_string().into()),
                _ => None,
            };
            found.extend(name.filter(|_| found.len() < NAMES_MAX));
        }
        return Some(found);
    }
    Some(Vec::new())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|b| IpAddr::V4(Ipv4Addr::from(b)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| IpAddr::V6(Ipv6Addr::from(b)))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Vec<u8> {
        let names = ["gw.example".to_owned(), "10.0.0.7".to_owned(), "::1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "the\ngateway");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Exämple");
        params.not_before = rcgen::date_time_ymd(2026, 2, 28);
        params.not_after = rcgen::date_time_ymd(2051, 12, 31);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_tells_its_names_and_its_days() {
        let certificate = Certificate::read(&made()).unwrap();
        assert!(certificate.subject.contains("CN=the?gateway") && certificate.subject.contains("O=Exämple"));
        assert_eq!(certificate.subject, certificate.issuer);
        assert_eq!(certificate.names, ["gw.example", "10.0.0.7", "::1"].map(Box::from));
        assert_eq!((day(certificate.begins), day(certificate.ends)), ("2026-02-28".into(), "2051-12-31".into()));
        assert_eq!(certificate.begins, Wall(1_772_236_800_000), "UTCTime; the end is a GeneralizedTime");
        assert!((certificate.days_left(Wall(certificate.ends.0 + DAY_MS)) + 1.0).abs() < 1e-9);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (4_107_542_400_000, "2100-03-01"),
        ] {
            assert_eq!(day(Wall(ms)), text);
        }
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 951_782_400 / 86_400);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(cuts in proptest::collection::vec((0usize..600, proptest::num::u8::ANY), 1..8), end in 0usize..700) {
            let mut der = made();
            for (at, byte) in cuts {
                if let Some(place) = der.get_mut(at) {
                    *place = byte;
                }
            }
            der.truncate(end);
            let _ = Certificate::read(&der);
        }
    }
}
