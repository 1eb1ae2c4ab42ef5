//! What an answer's head tells of its credential's limits: Anthropic's `anthropic-ratelimit-*` (R71), OpenAI's and
//! OpenRouter's `x-ratelimit-*`, and `retry-after` (RFC 9110 section 10.2.3). Nothing is believed blindly: what cannot be
//! read is passed over, and what is beyond reason is clamped. What follows from it is `capacity`'s business.

use super::stamp::{http_date, rfc3339, span_of_text};
use crate::base::{Span, Wall};

/// The longest that an upstream can make us wait: one was seen to say `retry-after: 124633`, and a credential that is
/// left alone for a day and a half because of one answer is a loss.
pub const RETRY_AFTER_MAX: Span = Span::from_secs(30 * 60);
/// The longest time to a full bucket that is believed: a limit by the month.
const FULL_IN_MAX: Span = Span::from_secs(31 * 86_400);
/// The largest limit that is believed, in requests or tokens as a model counts them.
const UNITS_MAX: u64 = 1_000_000_000_000;

/// One limit, as an answer tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// What the full bucket holds.
    pub limit: Option<u64>,
    /// What it holds now.
    pub remaining: Option<u64>,
    /// How long until it is full.
    pub full_in: Option<Span>,
    /// The limit is what refills in a minute, as Anthropic's are; otherwise that must be reckoned from the others.
    pub per_minute: bool,
}

/// All that one head tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests.
    pub requests: Level,
    /// Input and output together, in tokens as a model counts them; Anthropic says here which limit is the tightest.
    pub both: Level,
    /// Uncached input.
    pub input: Level,
    /// Output.
    pub output: Level,
    /// How long to wait before asking again; at most `RETRY_AFTER_MAX`.
    pub retry_after: Option<Span>,
}

/// Moments of one head, until all of its fields have been seen: they are measured from its `date`.
#[derive(Default)]
struct Moments {
    date: Option<Wall>,
    retry_at: Option<Wall>,
    retry_ms: Option<Span>,
    /// By the order of `Told::levels`.
    full_at: [Option<Wall>; 4],
    /// OpenRouter's reset, which also says when to come back.
    reset_at: Option<Wall>,
}

impl Told {
    /// Reads the fields of a head. What cannot be read is passed over.
    pub fn read<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, wall: Wall) -> Told {
        let (mut told, mut moments) = (Told::default(), Moments::default());
        for (name, value) in fields {
            let value = value.trim_ascii();
            // Most fields are none of ours, and most of those are told apart by their first letter.
            match name.first().map(u8::to_ascii_lowercase) {
                Some(b'a') => told.anthropic(name, value, &mut moments),
                Some(b'x') => told.openai(name, value, &mut moments),
                Some(b'd') if name.eq_ignore_ascii_case(b"date") => moments.date = http_date(value),
                Some(b'r') => told.retry(name, value, &mut moments),
                _ => {}
            }
        }
        told.settle(&moments, wall);
        told
    }

    /// The limits in a fixed order: requests, both, input, output.
    pub(super) fn levels(&self) -> [&Level; 4] {
        [&self.requests, &self.both, &self.input, &self.output]
    }

    fn level(&mut self, at: usize) -> &mut Level {
        match at {
            0 => &mut self.requests,
            1 => &mut self.both,
            2 => &mut self.input,
            _ => &mut self.output,
        }
    }

    /// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`.
    fn anthropic(&mut self, name: &[u8], value: &[u8], moments: &mut Moments) {
        let Some(rest) = without(name, b"anthropic-ratelimit-") else { return };
        let Some(dash) = rest.iter().rposition(|byte| *byte == b'-') else { return };
        let (Some(of), Some(what)) = (rest.get(..dash), rest.get(dash + 1..)) else { return };
        let names: [&[u8]; 4] = [b"requests", b"tokens", b"input-tokens", b"output-tokens"];
        let Some(at) = names.iter().position(|name| of.eq_ignore_ascii_case(name)) else { return };
        let level = self.level(at);
        level.per_minute = true;
        if what.eq_ignore_ascii_case(b"limit") {
            level.limit = number(value);
        } else if what.eq_ignore_ascii_case(b"remaining") {
            level.remaining = number(value);
        } else if what.eq_ignore_ascii_case(b"reset")
            && let Some(place) = moments.full_at.get_mut(at)
        {
            *place = rfc3339(value);
        }
    }

    /// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, and OpenRouter's without the last part.
    fn openai(&mut self, name: &[u8], value: &[u8], moments: &mut Moments) {
        let Some(rest) = without(name, b"x-ratelimit-") else { return };
        let dash = rest.iter().position(|byte| *byte == b'-').unwrap_or(rest.len());
        let (what, of) = rest.split_at(dash);
        let at = match of {
            b"" => 0,
            _ if of.eq_ignore_ascii_case(b"-requests") => 0,
            _ if of.eq_ignore_ascii_case(b"-tokens") => 1,
            _ => return,
        };
        let level = self.level(at);
        if what.eq_ignore_ascii_case(b"limit") {
            level.limit = number(value);
        } else if what.eq_ignore_ascii_case(b"remaining") {
            level.remaining = number(value);
        } else if what.eq_ignore_ascii_case(b"reset") {
            // 13 digits are milliseconds since 1970; no duration is that long.
            match number(value).filter(|_| value.len() >= 12) {
                Some(_) => moments.reset_at = millis(value),
                None => level.full_in = span_of_text(value).map(|span| span.min(FULL_IN_MAX)),
            }
        }
    }

    fn retry(&mut self, name: &[u8], value: &[u8], moments: &mut Moments) {
        if name.eq_ignore_ascii_case(b"retry-after-ms") {
            moments.retry_ms = decimal_ms(value, 1);
        } else if name.eq_ignore_ascii_case(b"retry-after") {
            match decimal_ms(value, 1_000) {
                Some(span) => self.retry_after = Some(span),
                None => moments.retry_at = http_date(value),
            }
        }
    }

    /// Turns moments into spans, and leaves out what is no limit.
    fn settle(&mut self, moments: &Moments, wall: Wall) {
        // By the upstream's own clock if it says so: that is up to a second late, and never wrong by minutes.
        let clock = moments.date.unwrap_or(wall);
        let until = |moment: Wall| Span::from_ms(moment.0.saturating_sub(clock.0));
        for (at, moment) in moments.full_at.iter().enumerate() {
            if let Some(moment) = moment {
                self.level(at).full_in = Some(until(*moment).min(FULL_IN_MAX));
            }
        }
        if let Some(moment) = moments.reset_at {
            self.requests.full_in = Some(until(moment).min(FULL_IN_MAX));
        }
        let later = moments.retry_at.or(moments.reset_at.filter(|_| self.requests.remaining == Some(0))).map(until);
        // The finer one goes first, as in the vendors' SDKs.
        self.retry_after = moments.retry_ms.or(self.retry_after).or(later).map(|span| span.min(RETRY_AFTER_MAX));
        for at in 0..4 {
            let level = self.level(at);
            // Azure says -1 or 0 where it does not know.
            if level.limit.is_none_or(|limit| limit == 0) {
                *level = Level::default();
            }
        }
    }
}

/// What follows `prefix`, in whatever case it is written.
fn without<'a>(name: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Digits and nothing else; at most `UNITS_MAX`.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 30 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |sum: u64, byte: &u8| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    Some(text.iter().fold(0, digit).min(UNITS_MAX))
}

/// Milliseconds since 1970.
fn millis(text: &[u8]) -> Option<Wall> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().map(Wall)
}

/// A decimal number of units of `unit_ms` each, to the millisecond.
fn decimal_ms(text: &[u8], unit_ms: u64) -> Option<Span> {
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, rest) = text.split_at(dot);
    let part = rest.get(1..).unwrap_or_default();
    if !part.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths = part.iter().chain(b"000").take(3).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'));
    let whole = number(whole)?;
    Some(Span::from_ms(whole.saturating_mul(unit_ms).saturating_add(thousandths * unit_ms / 1_000)))
}

#[cfg(test)]
mod tests;
