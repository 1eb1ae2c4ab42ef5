//! Answers that forebay gives itself: refusals, failures, the model list, the hello; and the fields of its own that
//! every answer carries.

use super::{client::Client, edits::push_number, exchange::Story, gate, watch::Watched, watch::watched};
use crate::{
    base::{Dialect, Failure, Origin},
    dialect::anthropic,
    rt::{Runtime, Segment},
    telemetry::RequestId,
    wire::{Field, RequestHead},
};
use std::fmt::Write;

/// Room for the fields that `stamp` writes, with names of upstreams as long as a config allows.
pub const STAMP_BYTES_MAX: usize = 1024;

/// An answer of forebay's own.
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Its `x-should-retry`, if any (R36).
    pub should_retry: Option<bool>,
    /// Its `retry-after`, in whole seconds (R37).
    pub retry_after_s: Option<u8>,
    /// The reason's slug, for `x-forebay-reason`; empty in a success.
    pub reason: &'static str,
    /// Who says so, for `x-forebay-origin`.
    pub origin: Origin,
    /// The methods that the path takes; told in a 405 (RFC 9110 section 15.5.6).
    pub allow: &'static str,
    /// A JSON document; empty for none.
    pub json: &'a str,
    /// The connection ends after this answer.
    pub close: bool,
}

/// The reply that tells `failure`, and the text of its body.
pub fn failure_body(failure: &Failure, contact: Option<&str>, id: RequestId) -> String {
    anthropic::error_body(failure.kind.row().error_type, &failure_text(failure, contact, id), &id.to_string())
}

/// `forebay: what happened. What to do. Contact. [id]`.
pub fn failure_text(failure: &Failure, contact: Option<&str>, id: RequestId) -> String {
    let mut text = format!("forebay: {}", failure.message);
    if let Some(contact) = contact {
        text.push_str(" Contact: ");
        text.push_str(contact);
        text.push('.');
    }
    let _ = write!(text, " [{id}]");
    text
}

/// Sends the failure as a whole answer. False when the client did not take it.
pub async fn fail<R: Runtime>(
    rt: &R,
    client: &mut Client<R::Outbox>,
    story: &mut Story,
    failure: &Failure,
    close: bool,
) -> bool {
    let row = failure.kind.row();
    let json = failure_body(failure, story.table.org.contact.as_deref(), story.record.request_id);
    let reply = Reply {
        status: failure.kind.status(Dialect::Anthropic),
        should_retry: row.retry,
        retry_after_s: failure.retry_after_s,
        reason: row.reason,
        origin: row.origin,
        allow: gate::known(client.head.path(client.head_bytes.live())).map_or("", |(_, methods)| methods),
        json: &json,
        close,
    };
    send(rt, client, story, &reply).await
}

/// Sends a reply. False when the client did not take it.
pub async fn send<R: Runtime>(rt: &R, client: &mut Client<R::Outbox>, story: &mut Story, reply: &Reply<'_>) -> bool {
    let head_only = client.head.method.of(client.head_bytes.live()) == b"HEAD";
    let bytes = render(reply, story, head_only);
    story.record.status = reply.status;
    story.record.bytes_out = if head_only { 0 } else { reply.json.len() as u64 };
    story.record.first_byte_us = rt.now().since(story.started).as_us();
    let until = rt.now().after(story.table.patience.write_stall);
    let write = client.outbound.write(bytes);
    matches!(watched(rt, &mut client.inbound, until, write).await, Watched::Done((Ok(()), _)))
}

fn render(reply: &Reply<'_>, story: &Story, head_only: bool) -> Segment {
    let mut out = Segment::with_room(STAMP_BYTES_MAX + 512 + reply.json.len());
    status_line(&mut out, reply.status, usual_phrase(reply.status).as_bytes());
    if !reply.json.is_empty() {
        out.extend(b"content-type: application/json\r\n");
    }
    if reply.status == 405 {
        out.extend(b"allow: ");
        out.extend(reply.allow.as_bytes());
        out.extend(b"\r\n");
    }
    if reply.status == 426 {
        out.extend(b"upgrade: HTTP/1.1\r\n");
        // It ends with `close` below; both options belong to it (RFC 9110 section 15.5.22).
        out.extend(b"connection: upgrade\r\n");
    }
    if let Some(retry) = reply.should_retry {
        out.extend(if retry { b"x-should-retry: true\r\n" } else { b"x-should-retry: false\r\n" });
    }
    if let Some(seconds) = reply.retry_after_s {
        push_number(&mut out, b"retry-after: ", u64::from(seconds));
    }
    out.extend(b"request-id: ");
    out.extend(&story.record.request_id.ascii());
    out.extend(b"\r\n");
    stamp(&mut out, story, reply.origin.slug(), reply.reason);
    if reply.close {
        out.extend(b"connection: close\r\n");
    }
    push_number(&mut out, b"content-length: ", reply.json.len() as u64);
    out.extend(b"\r\n");
    if !head_only {
        out.extend(reply.json.as_bytes());
    }
    out
}

/// Writes the fields that every answer of forebay's carries: who answered, for which request, and what it cost.
pub fn stamp(out: &mut Segment, story: &Story, origin: &str, reason: &str) {
    let record = &story.record;
    out.extend(b"x-forebay-request-id: ");
    out.extend(&record.request_id.ascii());
    out.extend(b"\r\nx-forebay-origin: ");
    out.extend(origin.as_bytes());
    if let Some(upstream) = &record.upstream {
        out.extend(b"\r\nx-forebay-upstream: ");
        out.extend(upstream.as_bytes());
    }
    if !reason.is_empty() {
        out.extend(b"\r\nx-forebay-reason: ");
        out.extend(reason.as_bytes());
    }
    if record.dropped > 0 {
        out.extend(b"\r\nx-forebay-dropped: thinking");
    }
    out.extend(b"\r\n");
    push_number(out, b"x-forebay-attempts: ", u64::from(record.attempts));
    push_number(out, b"x-forebay-generation: ", record.generation);
    push_number(out, b"x-forebay-overhead-us: ", record.overhead_us);
}

/// Writes a status line. The phrase may be empty; its space stands all the same (RFC 9112 section 4).
pub fn status_line(out: &mut Segment, status: u16, phrase: &[u8]) {
    let digits = [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
    out.extend(b"HTTP/1.1 ");
    out.extend(&digits);
    out.extend(b" ");
    out.extend(phrase);
    out.extend(b"\r\n");
}

fn usual_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Answer",
    }
}

/// The fields of a head as `auth` reads them.
pub fn fields<'a>(head: &'a RequestHead, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    head.fields.iter().map(|field: &Field| (field.name.of(bytes), field.value.of(bytes)))
}
