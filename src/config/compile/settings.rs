//! Time zone, timeouts, bounds, and how the process runs.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::base::Span;
use crate::table::{Bounds, Driver, LogFormat, Patience, RuntimeSettings};

use super::super::diagnose::{At, Problems, Remedy, nearest};
use super::super::file::{self, File};
use super::super::{schema, value};
use super::{quoted, within, word};

/// Longest contact, in bytes: it stands in every refusal.
const CONTACT_BYTES_MAX: usize = 200;

pub(super) fn zone(problems: &mut Problems, written: Option<&At<String>>) -> TimeZone {
    let Some(written) = written.filter(|zone| zone.value != "UTC") else { return TimeZone::UTC };
    if let Ok(zone) = TimeZone::get(&written.value) {
        return zone;
    }
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
    let (cause, meant) = if names.is_empty() {
        ("cannot be looked up: this host has no time zone database", "UTC")
    } else {
        let meant = nearest(&written.value, names.iter().map(String::as_str)).unwrap_or("UTC");
        ("is not a time zone of the IANA database, such as `Europe/Berlin`", meant)
    };
    problems.add(
        written.at,
        format!("`{}` {cause}", written.value),
        format!("write {}", quoted(meant)),
        Remedy::replace(written.at, quoted(meant)),
    );
    TimeZone::UTC
}

pub(super) fn contact(problems: &mut Problems, written: Option<&At<String>>) -> Option<Arc<str>> {
    let At { value, at } = written?;
    if value.len() > CONTACT_BYTES_MAX || value.chars().any(char::is_control) {
        let clean: String =
            value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CONTACT_BYTES_MAX / 4).collect();
        problems.add(
            *at,
            format!("`contact` is longer than {CONTACT_BYTES_MAX} bytes or holds a line break; it ends every refusal"),
            format!("write {}", quoted(&clean)),
            Remedy::replace(*at, quoted(&clean)),
        );
    }
    Some(value.as_str().into())
}

pub(super) fn patience(problems: &mut Problems, written: &[(&'static str, At<String>)]) -> Patience {
    let mut patience = Patience::default();
    for (step, text) in written {
        let example = schema::TIMEOUTS.keys.iter().find(|key| key.name == *step).map_or("5s", |key| key.example);
        let read = if *step == "ping" { value::duration_or_never } else { value::duration };
        match read(&text.value, example.trim_matches('"')) {
            Ok(span) => {
                if let Some(slot) = slot(&mut patience, step) {
                    *slot = span;
                }
            }
            Err(fault) => problems.add(
                text.at,
                format!("`{step}` is `{}`, which {}", text.value, fault.cause),
                format!("write {}", quoted(&fault.instead)),
                Remedy::replace(text.at, quoted(&fault.instead)),
            ),
        }
    }
    if let Some((_, text)) = written.iter().find(|(step, _)| *step == "ping").filter(|_| patience.ping >= patience.idle)
    {
        let better = if Patience::default().ping < patience.idle { "15s" } else { "0s" };
        problems.add(
            text.at,
            "`ping` is not shorter than `idle`, after which a silent stream ends: no ping would ever be sent",
            format!("write {}", quoted(better)),
            Remedy::replace(text.at, quoted(better)),
        );
    }
    patience
}

fn slot<'p>(patience: &'p mut Patience, step: &str) -> Option<&'p mut Span> {
    Some(match step {
        "connect" => &mut patience.connect,
        "tls" => &mut patience.tls,
        "head" => &mut patience.head,
        "body" => &mut patience.body,
        "send" => &mut patience.send,
        "first_byte" => &mut patience.first_byte,
        "idle" => &mut patience.idle,
        "ping" => &mut patience.ping,
        "write_stall" => &mut patience.write_stall,
        "keep_alive" => &mut patience.keep_alive,
        "drain_grace" => &mut patience.drain_grace,
        "drain" => &mut patience.drain,
        _ => return None,
    })
}

pub(super) fn bounds(problems: &mut Problems, written: &file::Bounds) -> Bounds {
    let defaults = Bounds::default();
    let body = written.body.as_ref().and_then(|text| size(problems, "body_max", text, "64MiB"));
    let bodies = written.bodies.as_ref().and_then(|text| size(problems, "bodies_max", text, "1GiB"));
    let body_bytes_max = body.unwrap_or(defaults.body_bytes_max);
    let bodies_bytes_max = bodies.unwrap_or(defaults.bodies_bytes_max.max(body_bytes_max));
    if let Some(text) = written.bodies.as_ref().filter(|_| bodies_bytes_max < body_bytes_max) {
        let better = value::size_text(body_bytes_max.saturating_mul(16));
        problems.add(
            text.at,
            "`bodies_max`, for all bodies together, is below what one body may have (`body_max`)",
            format!("write {}", quoted(&better)),
            Remedy::replace(text.at, quoted(&better)),
        );
    }
    let mut count = |key: &str, written: Option<&At<i64>>, least: i64, most: i64, default: usize| {
        written.map_or(default, |number| within(problems, key, number, least, most) as usize)
    };
    Bounds {
        body_bytes_max,
        bodies_bytes_max,
        connections_max: count("connections_max", written.connections.as_ref(), 1, 1_000_000, defaults.connections_max),
        pool_idle_max: count("pool_idle_max", written.pool_idle.as_ref(), 0, 65_536, defaults.pool_idle_max),
        event_rate_min: count("event_rate_min", written.event_rate.as_ref(), 0, 60_000, 0) as u32,
    }
}

/// A length of time that belongs to one thing; an ill-formed one is told.
pub(super) fn span(problems: &mut Problems, key: &str, text: &At<String>, example: &str) -> Option<Span> {
    told(problems, key, text, value::duration(&text.value, example))
}

fn size(problems: &mut Problems, key: &str, text: &At<String>, example: &str) -> Option<u64> {
    told(problems, key, text, value::size(&text.value, example))
}

/// What was read from a text; a fault is told.
fn told<T>(problems: &mut Problems, key: &str, text: &At<String>, read: Result<T, value::Fault>) -> Option<T> {
    let fault = match read {
        Ok(value) => return Some(value),
        Err(fault) => fault,
    };
    problems.add(
        text.at,
        format!("`{key}` is `{}`, which {}", text.value, fault.cause),
        format!("write {}", quoted(&fault.instead)),
        Remedy::replace(text.at, quoted(&fault.instead)),
    );
    None
}

pub(super) fn runtime(problems: &mut Problems, file: &File) -> RuntimeSettings {
    let drivers = [("auto", Driver::Auto), ("epoll", Driver::Epoll)];
    let driver = file.driver.as_ref().and_then(|text| word(problems, "driver", text, &drivers)).unwrap_or_default();
    let workers = file.workers.as_ref().map(|number| within(problems, "workers", number, 1, 1024) as usize);
    RuntimeSettings { driver, workers }
}

pub(super) fn log(problems: &mut Problems, written: Option<&At<String>>) -> LogFormat {
    let formats = [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    written.and_then(|text| word(problems, "format", text, &formats)).unwrap_or_default()
}
