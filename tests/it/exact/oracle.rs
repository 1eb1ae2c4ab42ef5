//! What must come of an exchange, by the published table of edits and docs/edits.md alone: no line of what renders heads
//! in forebay is used for it.

use super::made::{Exchange, Fields, Framed};
use crate::support::PROVIDER_KEY;
use forebay::serve::edits::{Direction, EDITS};
use std::net::SocketAddr;

/// Fields that end at every hop.
const HOP: [&str; 8] =
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "proxy"];
/// Fields that `Connection` cannot take away.
const FOR_EVERYONE: [&str; 14] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "anthropic-version",
    "anthropic-beta",
    "accept-encoding",
    "cache-control",
    "expect",
    "date",
];

/// How an upstream is configured.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    pub name: &'static str,
    pub address: SocketAddr,
    pub base_path: &'static str,
    pub takes_bearer: bool,
}

/// An answer as the client must get it. The head is without forebay's own `x-forebay-*`.
pub struct Due {
    pub head: Vec<u8>,
    pub framed: Framed,
}

/// The names of the fields of forebay's own that an answer of this upstream carries.
pub fn own_fields(exchange: &Exchange, site: &Site) -> Vec<(&'static str, String)> {
    let mut own = vec![("origin", "upstream".to_owned()), ("upstream", site.name.to_owned())];
    if exchange.answer.status >= 400 {
        own.push(("reason", "upstream_answer".to_owned()));
    }
    own.push(("generation", "1".to_owned()));
    own
}

/// Every byte that the upstream must get. Row `without` of the table is left out of account.
pub fn request_due(exchange: &Exchange, site: &Site, without: Option<usize>) -> Vec<u8> {
    let request = &exchange.request;
    let mut due =
        format!("{} {}{} HTTP/1.1\r\nhost: {}\r\n", request.method, site.base_path, request.target, site.address)
            .into_bytes();
    kept(&request.fields, Direction::Request, without, &mut due, |field| match field {
        "content-encoding" => request.is_zipped,
        "accept-encoding" => request.is_read,
        _ => true,
    });
    if request.is_read {
        due.extend_from_slice(b"accept-encoding: identity\r\n");
    }
    let credential = if site.takes_bearer { "authorization: Bearer" } else { "x-api-key:" };
    due.extend_from_slice(format!("{credential} {PROVIDER_KEY}\r\n").as_bytes());
    if request.has_body {
        due.extend_from_slice(format!("content-length: {}\r\n", request.body.len()).as_bytes());
    }
    due.extend_from_slice(b"\r\n");
    due.extend_from_slice(&request.body);
    due
}

/// What the client must get.
pub fn answer_due(exchange: &Exchange, without: Option<usize>) -> Due {
    let Exchange { request, answer, .. } = exchange;
    let mut due = format!("HTTP/1.1 {} ", answer.status).into_bytes();
    due.extend_from_slice(&answer.reason);
    due.extend_from_slice(b"\r\n");
    kept(&answer.fields, Direction::Answer, without, &mut due, |_| true);
    let framed = match answer.framed {
        Framed::Chunked | Framed::UntilClose if request.is_old => Framed::UntilClose,
        Framed::UntilClose => Framed::Chunked,
        framed => framed,
    };
    // The length is the upstream's own, of a body that was not asked for as well.
    let told = answer.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    match (framed, told) {
        (Framed::Length | Framed::Nothing, Some((_, length))) => {
            due.extend_from_slice(&[b"content-length: ", &length[..], b"\r\n"].concat());
        }
        (Framed::Chunked, _) => due.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    if request.is_old || request.closes {
        due.extend_from_slice(b"connection: close\r\n");
    }
    due.extend_from_slice(b"\r\n");
    Due { head: due, framed }
}

/// The fields that go on, as `name: value`; a row of the table takes hold where `applies` says so.
fn kept(
    fields: &Fields,
    direction: Direction,
    without: Option<usize>,
    out: &mut Vec<u8>,
    applies: impl Fn(&str) -> bool,
) {
    let named: Vec<Vec<u8>> = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
        .flat_map(|(_, value)| value.split(|byte| *byte == b',').map(|option| option.trim_ascii().to_ascii_lowercase()))
        .collect();
    for (name, value) in fields {
        let lower = name.to_ascii_lowercase();
        let is = |other: &&str| other.as_bytes() == lower;
        let ends = HOP.iter().any(is)
            || lower.starts_with(b"proxy-")
            || named.contains(&lower) && !FOR_EVERYONE.iter().any(is);
        let row = |(at, edit): &(usize, &forebay::serve::edits::Edit)| {
            edit.direction == direction
                && without != Some(*at)
                && match edit.field.split_once('*') {
                    Some((stem, _)) => lower.starts_with(stem.as_bytes()),
                    None => lower == edit.field.as_bytes(),
                }
        };
        let edited = EDITS.iter().enumerate().find(row).is_some_and(|(_, edit)| applies(edit.field));
        if !ends && !edited {
            out.extend_from_slice(&[&name[..], b": ", &value[..], b"\r\n"].concat());
        }
    }
}

/// Where two byte strings part, for whoever looks for the reason.
pub fn same(what: &str, want: &[u8], got: &[u8]) -> Result<(), String> {
    if want == got {
        return Ok(());
    }
    let at = want.iter().zip(got).position(|(a, b)| a != b).unwrap_or(want.len().min(got.len()));
    let around = |bytes: &[u8]| {
        let from = at.saturating_sub(60);
        bytes.get(from..(at + 60).min(bytes.len())).unwrap_or_default().escape_ascii().to_string()
    };
    Err(format!(
        "{what} differs at byte {at}: {} bytes are due, {} came\n  due: {}\n  got: {}",
        want.len(),
        got.len(),
        around(want),
        around(got)
    ))
}
