//! One record as one line of the access log: aligned for a terminal, JSON for machines. Pure; no prompt, credential or
//! query can be in a line, because none is in a record.

use super::{
    names::{Names, joined},
    sink::Outputs,
};
use crate::{
    base::{Counts, Wall},
    meter::Flags,
    table::LogFormat,
    telemetry::{Attempt, Ending, Record, Text},
};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use std::io::Write;

/// What a line looks like.
#[derive(Clone, Debug)]
pub enum Format {
    /// For people: columns, in the time zone given, in colour or not.
    Pretty {
        /// Whether the terminal understands colours.
        colour: bool,
        /// The zone of the time column.
        zone: TimeZone,
    },
    /// One JSON object a line, times in UTC.
    Json,
    /// No access log.
    Off,
}

impl Format {
    /// The format that a configuration asks for; `Auto` looks whether standard output is a terminal.
    pub fn of(setting: LogFormat) -> Format {
        let (terminal, colour) = Outputs::terminal();
        match setting {
            LogFormat::Json => Format::Json,
            LogFormat::Auto if !terminal => Format::Json,
            LogFormat::Auto | LogFormat::Pretty => Format::Pretty { colour, zone: TimeZone::system() },
        }
    }

    /// Appends `record`'s line. `names` are those of its slots.
    pub fn append(&self, record: &Record, names: &Names, to: &mut Vec<u8>) {
        match self {
            Format::Pretty { colour, zone } => pretty(record, names, (*colour, zone), to),
            Format::Json => json(record, names, to),
            Format::Off => {}
        }
    }
}

/// A moment as RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(at: Wall) -> String {
    format!("{:.3}", timestamp(at))
}

fn timestamp(at: Wall) -> Timestamp {
    i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default()
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    request_id: String,
    worker: u16,
    client: &'static str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    attempts: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tried: Vec<Tried<'a>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    conversation: String,
    #[serde(skip_serializing_if = "is_zero")]
    thinking_dropped: u64,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    llm_tokens: Option<LlmTokens>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    llm_tokens_flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    model_served: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    ending: &'static str,
    stream: bool,
    bytes_in: u64,
    bytes_out: u64,
    events: u64,
    body_us: u64,
    connect_us: u64,
    first_byte_us: u64,
    #[serde(skip_serializing_if = "is_zero")]
    commit_us: u64,
    duration_us: u64,
    overhead_us: u64,
    generation: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    upstream_request_id: &'a str,
}

/// What an answer used, by the rate at which it is billed.
#[derive(Serialize)]
struct LlmTokens {
    input: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    output: u64,
}

fn llm_tokens(counts: &Counts) -> Option<LlmTokens> {
    let Counts { input, output, cache_read, cache_write_5m, cache_write_1h } = *counts;
    (counts.total() > 0).then_some(LlmTokens { input, cache_read, cache_write_5m, cache_write_1h, output })
}

/// How far that can be believed, by the bits of `meter::Flags`.
fn flags(bits: u8) -> Vec<&'static str> {
    Flags::SLUGS.iter().zip(0..).filter(|(_, bit)| bits >> bit & 1 == 1).map(|(slug, _)| *slug).collect()
}

/// One candidate that was asked.
#[derive(Serialize)]
struct Tried<'a> {
    upstream: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    credential: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    status: u64,
    verdict: &'static str,
    at_us: u32,
    took_us: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's way of asking
fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn tried<'a>(record: &Record, names: &'a Names) -> Vec<Tried<'a>> {
    let tried = record.tried.iter().flatten().map(|attempt| Tried {
        upstream: names.upstream(attempt.upstream),
        credential: names.credential(attempt.credential),
        status: u64::from(attempt.status),
        verdict: attempt.verdict,
        at_us: attempt.at_us,
        took_us: attempt.took_us,
    });
    tried.collect()
}

/// A conversation as it is shown: enough digits to tell those of a day apart.
fn conversation(number: u64) -> String {
    if number == 0 { String::new() } else { format!("{:010x}", number >> 24) }
}

/// Appends `record` as a JSON object and a line end.
pub fn json(record: &Record, names: &Names, to: &mut Vec<u8>) {
    let line = Line {
        at: rfc3339(record.at),
        request_id: record.request_id.to_string(),
        worker: record.worker,
        client: record.client.slug(),
        method: record.method.as_str(),
        path: record.path.as_str(),
        caller: record.caller.as_deref(),
        team: record.team.as_deref(),
        model: record.model.as_str(),
        upstream: record.upstream.as_deref(),
        credential: record.credential.as_deref(),
        attempts: record.attempts,
        tried: tried(record, names),
        conversation: conversation(record.conversation),
        thinking_dropped: u64::from(record.dropped),
        status: record.status,
        llm_tokens: llm_tokens(&record.counts),
        llm_tokens_flags: flags(record.counts_flags),
        model_served: if record.model_served == record.model { "" } else { record.model_served.as_str() },
        origin: record.origin.map(crate::base::Origin::slug),
        reason: record.reason,
        ending: record.ending.slug(),
        stream: record.stream,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        events: record.events,
        body_us: record.body_us,
        connect_us: record.connect_us,
        first_byte_us: record.first_byte_us,
        commit_us: record.commit_us,
        duration_us: record.duration_us,
        overhead_us: record.overhead_us,
        generation: record.generation,
        upstream_request_id: record.upstream_request_id.as_str(),
    };
    let start = to.len();
    match serde_json::to_writer(&mut *to, &line) {
        Ok(()) => to.push(b'\n'),
        Err(_) => to.truncate(start), // cannot be: plain fields into memory
    }
}

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// `14:03:07.120 200 POST /v1/messages  claude-x  alice/payments  anthropic  1240 ms  first 310 ms  own 67 us  ...`
fn pretty(record: &Record, names: &Names, (colour, zone): (bool, &TimeZone), to: &mut Vec<u8>) {
    let paint = |code: &'static str| if colour { code } else { "" };
    let tint = match record.status {
        _ if matches!(record.ending, Ending::Broken) => RED,
        500.. => RED,
        400.. => YELLOW,
        _ => GREEN,
    };
    let (dim, tint, reset) = (paint(DIM), paint(tint), paint(RESET));
    // Names come from a file; `Text` keeps them from moving the cursor.
    let who = match (&record.caller, &record.team) {
        (Some(caller), Some(team)) => Text::<48>::from(format!("{caller}/{team}").as_str()),
        (Some(caller), None) => Text::from(&**caller),
        _ => Text::from("-"),
    };
    let upstream = record.upstream.as_deref().map_or(Text::<24>::from("-"), Text::from);
    let model = if record.model.is_empty() { "-" } else { record.model.as_str() };
    let (clock, status, method, path) = (clock(record.at, zone), record.status, record.method, record.path);
    let _ = write!(to, "{dim}{clock}{reset} {tint}{status:>3}{reset} {method:<4} {path:<13} {model:<18} {who:<14} ");
    let _ = write!(to, "{upstream:<10} {:>8} ", time(record.duration_us));
    let (first, own) = (time(record.first_byte_us), time(record.overhead_us));
    let (bytes_in, bytes_out) = (size(record.bytes_in), size(record.bytes_out));
    let _ = write!(to, "{dim}first {first:>8} own {own:>7} in {bytes_in:>7} out {bytes_out:>7}");
    if record.events > 0 {
        let _ = write!(to, " {} events", record.events);
    }
    if record.attempts > 1 {
        let _ = write!(to, " {} attempts", record.attempts);
    }
    for (at, attempt) in passed_over(record).enumerate() {
        let name = joined(names.upstream(attempt.upstream), names.credential(attempt.credential));
        let _ = write!(to, "{}{name} {}", if at == 0 { " after " } else { ", " }, attempt.verdict);
    }
    let _ = write!(to, "{reset}");
    if let Some(origin) = record.origin {
        let _ = write!(to, " {tint}{}: {}{reset}", origin.slug(), record.reason);
    }
    if record.ending != Ending::Complete || record.status >= 400 {
        let _ = write!(to, " {dim}{} {}{reset}", record.ending.slug(), record.request_id);
    }
    to.push(b'\n');
}

/// The candidates that were asked before the last one.
fn passed_over(record: &Record) -> impl Iterator<Item = &Attempt> {
    let count = record.tried.iter().flatten().count();
    record.tried.iter().flatten().take(count.saturating_sub(1))
}

fn clock(at: Wall, zone: &TimeZone) -> String {
    zone.to_datetime(timestamp(at)).strftime("%H:%M:%S%.3f").to_string()
}

/// A length of time in the unit that gives it two to four digits; `-` for none.
fn time(us: u64) -> String {
    match us {
        0 => "-".into(),
        1..=9_999 => format!("{us} us"),
        10_000..=9_999_999 => format!("{} ms", us / 1_000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// A number of bytes, to the base 1000.
fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{} kB", bytes / 1_000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{CredentialSlot, Origin, UpstreamSlot},
        control::tests::{table, upstream},
        telemetry::{Client, RequestId},
    };

    fn record() -> Record {
        let at = Wall(1_764_066_187_120);
        let mut record = Record::new(at, RequestId::new(at, 5), 1);
        record.client = Client::ClaudeCode;
        record.method = "POST".into();
        record.path = "/v1/messages".into();
        record.caller = Some("alice".into());
        record.model = "claude-sonnet-4-5".into();
        record.status = 200;
        record.duration_us = 1_240_000;
        record
    }

    fn lines(format: &Format, record: &Record) -> String {
        let mut bytes = Vec::new();
        format.append(record, &Names::default(), &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_are_whole_objects_without_empty_fields() {
        let line = lines(&Format::Json, &record());
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["at"], "2025-11-25T10:23:07.120Z");
        assert_eq!(value["caller"], "alice");
        assert_eq!(value["client"], "claude-code");
        assert_eq!(value["ending"], "complete");
        assert!(value.get("team").is_none() && value.get("reason").is_none(), "{line}");
    }

    #[test]
    fn a_failure_says_who_and_why() {
        let mut failed = record();
        failed.status = 502;
        failed.origin = Some(Origin::Upstream);
        failed.reason = "connect_failed";
        let value: serde_json::Value = serde_json::from_str(&lines(&Format::Json, &failed)).unwrap();
        assert_eq!((&value["origin"], &value["reason"]), (&"upstream".into(), &"connect_failed".into()));
        let plain = Format::Pretty { colour: false, zone: TimeZone::UTC };
        let line = lines(&plain, &failed);
        assert!(line.contains("upstream: connect_failed") && line.contains(&failed.request_id.to_string()), "{line}");
    }

    #[test]
    fn what_was_used_is_told_with_its_doubts() {
        let mut used = record();
        used.counts = Counts { input: 3, cache_read: 900, output: 40, ..Counts::default() };
        used.counts_flags = Flags::ESTIMATED.bits() | Flags::FAILED.bits();
        used.model_served = "claude-sonnet-4-5".into();
        let value: serde_json::Value = serde_json::from_str(&lines(&Format::Json, &used)).unwrap();
        assert_eq!((&value["llm_tokens"]["cache_read"], &value["llm_tokens"]["output"]), (&900.into(), &40.into()));
        assert_eq!(value["llm_tokens_flags"], serde_json::json!(["estimated", "failed"]));
        assert!(value.get("model_served").is_none(), "it is the one that was asked for");
        used.model_served = "claude-other".into();
        assert!(lines(&Format::Json, &used).contains(r#""model_served":"claude-other""#));
    }

    #[test]
    fn every_candidate_that_was_asked_is_told() {
        let mut moved = record();
        let attempt = |slot, status, verdict| {
            let (upstream, credential) = (UpstreamSlot(slot), CredentialSlot(slot));
            Some(Attempt { upstream, credential, status, verdict, at_us: 5, took_us: 7 })
        };
        moved.tried = [attempt(0, 0, "connect_failed"), attempt(1, 200, "delivered"), None];
        (moved.attempts, moved.commit_us, moved.conversation) = (2, 9, u64::MAX);
        let names = Names::default().and(&table(vec![upstream("one", "::1", 1), upstream("two", "::1", 1)]));
        let line = |format: Format| {
            let mut bytes = Vec::new();
            format.append(&moved, &names, &mut bytes);
            String::from_utf8(bytes).unwrap()
        };
        let value: serde_json::Value = serde_json::from_str(&line(Format::Json)).unwrap();
        let first = serde_json::json!({ "upstream": "one", "verdict": "connect_failed", "at_us": 5, "took_us": 7 });
        assert_eq!(value["tried"][0], first);
        assert_eq!((&value["tried"][1]["status"], &value["commit_us"]), (&200.into(), &9.into()));
        assert_eq!(value["conversation"], "ffffffffff");
        let pretty = line(Format::Pretty { colour: false, zone: TimeZone::UTC });
        assert!(pretty.contains(" 2 attempts after one connect_failed\n"), "{pretty}");
    }

    #[test]
    fn a_line_for_people_fits_a_wide_terminal() {
        let line = lines(&Format::Pretty { colour: false, zone: TimeZone::UTC }, &record());
        assert!(line.starts_with("10:23:07.120 200 POST /v1/messages  claude-sonnet-4-5  alice "), "{line}");
        assert!(line.contains(" 1240 ms ") && line.len() <= 140, "{} in {line}", line.len());
    }

    #[test]
    fn what_a_client_or_a_file_says_cannot_forge_a_line() {
        let mut forged = record();
        forged.model = Text::new(b"m\n10:00:00 200 POST\x1b[2J");
        forged.caller = Some("eve\n\x1b[31m".into());
        let pretty = lines(&Format::Pretty { colour: false, zone: TimeZone::UTC }, &forged);
        assert_eq!(pretty.matches('\n').count(), 1, "{pretty}");
        assert!(!pretty.contains('\x1b'), "{pretty}");
        assert_eq!(lines(&Format::Json, &forged).matches('\n').count(), 1);
    }

    #[test]
    fn colour_only_where_asked() {
        let coloured = lines(&Format::Pretty { colour: true, zone: TimeZone::UTC }, &record());
        assert!(coloured.contains(GREEN) && coloured.trim_end().ends_with(RESET));
        assert_eq!(lines(&Format::Off, &record()), "");
    }

    #[test]
    fn figures_stay_readable() {
        assert_eq!([0, 950, 40_000, 12_000_000].map(time), ["-", "950 us", "40 ms", "12.0 s"]);
        assert_eq!([0, 40_000, 12_000_000].map(size), ["0 B", "40 kB", "12.0 MB"]);
    }
}
