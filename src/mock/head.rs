//! The heads of answers and the error envelope. Bytes only; who gets them and when is decided elsewhere.

use super::{
    behave::{Behaviour, Framing},
    events::write_string,
    limits::Told,
};
use crate::base::Wall;
use std::io::Write;

/// What every answer to one request has in common.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) request_id: String,
    pub(super) wall: Wall,
    /// The connection can be used again.
    pub(super) keep_alive: bool,
    pub(super) http10: bool,
    /// `HEAD`: the head, and no body.
    pub(super) no_body: bool,
    /// Requests, input, output, as the limits stand.
    pub(super) told: [Option<Told>; 3],
}

/// What is particular to one answer's head.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Head {
    pub(super) fn new(status: u16, content_type: &'static str) -> Head {
        Head { status, content_type, fields: Vec::new() }
    }

    pub(super) fn json(status: u16) -> Head {
        Head::new(status, "application/json")
    }
}

/// How a body of `length` bytes (`None`: not known) is framed.
pub(super) fn framing(reach: &Reach, behaviour: &Behaviour, length: Option<u64>) -> Framing {
    let natural = if length.is_some() { Framing::Length } else { Framing::Chunked };
    match behaviour.framing.unwrap_or(natural) {
        Framing::Chunked if reach.http10 => Framing::Close,
        Framing::Length if length.is_none() => Framing::Chunked,
        chosen => chosen,
    }
}

/// Appends the head, interim answers first.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    reach: &Reach,
    behaviour: &Behaviour,
    head: &Head,
    framing: Framing,
    length: Option<u64>,
) {
    if !reach.http10 {
        for _ in 0..behaviour.interim {
            out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </simulated>; rel=preload\r\n\r\n");
        }
    }
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", head.status, reason(head.status));
    let _ = write!(out, "date: {}\r\ncontent-type: {}\r\n", http_date(reach.wall), head.content_type);
    let _ = write!(out, "request-id: {}\r\n", reach.request_id);
    out.extend_from_slice(
        b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\nserver: simulated-provider\r\n",
    );
    write_limits(out, reach, behaviour);
    for (name, value) in &head.fields {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    if behaviour.hop {
        out.extend_from_slice(
            b"keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nx-sim-hop: 1\r\nset-cookie: sim=1\r\n",
        );
    }
    let close = framing == Framing::Close || !reach.keep_alive;
    match (close, behaviour.hop) {
        (true, true) => out.extend_from_slice(b"connection: close, x-sim-hop\r\n"),
        (true, false) => out.extend_from_slice(b"connection: close\r\n"),
        (false, true) => out.extend_from_slice(b"connection: keep-alive, x-sim-hop\r\n"),
        (false, false) => {}
    }
    match (framing, length) {
        (Framing::Chunked, _) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        (Framing::Length, Some(length)) => {
            let _ = write!(out, "content-length: {length}\r\n");
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// The twelve `anthropic-ratelimit-*` fields, as far as there are limits (R71). `tokens` is the tighter of the two.
fn write_limits(out: &mut Vec<u8>, reach: &Reach, behaviour: &Behaviour) {
    let told = match behaviour.headroom_percent {
        Some(percent) => pretended(percent),
        None => reach.told,
    };
    let [requests, input, output] = told;
    let left = |told: &Told| u128::from(told.remaining) * 1_000_000 / u128::from(told.limit.max(1));
    let tighter = [input, output].into_iter().flatten().min_by_key(left);
    let named = [("requests", requests), ("tokens", tighter), ("input-tokens", input), ("output-tokens", output)];
    for (name, told) in named.into_iter().filter_map(|(name, told)| Some((name, told?))) {
        let reset = rfc3339(Wall(reach.wall.0.saturating_add(told.full_in.0.div_ceil(1_000_000))));
        let _ = write!(
            out,
            "anthropic-ratelimit-{name}-limit: {}\r\nanthropic-ratelimit-{name}-remaining: {}\r\n\
             anthropic-ratelimit-{name}-reset: {reset}\r\n",
            told.limit, told.remaining
        );
    }
}

/// Limits for `limits=PERCENT`: a first-tier account with so much left.
fn pretended(percent: u64) -> [Option<Told>; 3] {
    [50, 30_000, 8_000].map(|limit| {
        let remaining = limit * percent / 100;
        Some(Told { limit, remaining, full_in: crate::base::Span::from_ms(60_000 * (100 - percent) / 100) })
    })
}

/// The error envelope (R34), with `details.error_code` where there is a code.
pub(super) fn envelope(error_type: &str, message: &str, code: Option<&str>, request_id: &str) -> Vec<u8> {
    let mut out = Vec::from(&br#"{"type":"error","error":{"type":"#[..]);
    write_string(&mut out, error_type);
    out.extend_from_slice(b",\"message\":");
    write_string(&mut out, message);
    if let Some(code) = code {
        out.extend_from_slice(b",\"details\":{\"error_code\":");
        write_string(&mut out, code);
        out.push(b'}');
    }
    out.extend_from_slice(b"},\"request_id\":");
    write_string(&mut out, request_id);
    out.push(b'}');
    out
}

/// `error.type` of a status (R35).
pub(super) fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        529 => "Overloaded",
        _ => "Other",
    }
}

/// Year, month, day of the day `days` after 1970-01-01 (proleptic Gregorian; Hinnant's civil_from_days).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `2026-11-25T10:00:00Z`, rounded up to the second.
pub(super) fn rfc3339(wall: Wall) -> String {
    let seconds = wall.0.div_ceil(1_000);
    let ((year, month, day), of_day) = (civil(seconds / 86_400), seconds % 86_400);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// `Wed, 25 Nov 2026 10:00:00 GMT` (RFC 9110 section 5.6.7).
fn http_date(wall: Wall) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = wall.0 / 1_000;
    let ((year, month, day), of_day) = (civil(seconds / 86_400), seconds % 86_400);
    let weekday = DAYS.get((seconds / 86_400 % 7) as usize).copied().unwrap_or_default();
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let (h, m, s) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{weekday}, {day:02} {month} {year:04} {h:02}:{m:02}:{s:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_on_their_hard_days() {
        assert_eq!(rfc3339(Wall(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Wall(1_709_164_799_001)), "2024-02-29T00:00:00Z");
        assert_eq!(rfc3339(Wall(4_107_542_399_000)), "2100-02-28T23:59:59Z");
        assert_eq!(rfc3339(Wall(4_107_542_400_000)), "2100-03-01T00:00:00Z");
        assert_eq!(http_date(Wall(784_111_777_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
