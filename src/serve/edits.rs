//! What forebay changes in a request or an answer of the same dialect: this table, and nothing else. All other fields
//! keep their order, their case and their duplicates, and bodies keep every byte but an aliased model's name.
//!
//! `docs/edits.md` is printed from the table, and the proof of byte-exactness uses it.

use crate::{
    rt::Segment,
    wire::{Field, RequestHead, ResponseHead},
};

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client's request, on its way to the upstream.
    Request,
    /// The upstream's answer, on its way to the client.
    Answer,
}

/// What is done to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Left out.
    Drop,
    /// Left out, and written anew by forebay.
    Replace,
    /// Written by forebay; what came under the name is left out.
    Add,
}

/// One row.
#[derive(Debug)]
pub struct Edit {
    /// Which way.
    pub direction: Direction,
    /// The field's name in lower case; a `*` at the end stands for any rest.
    pub field: &'static str,
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: &'static str,
}

const fn edit(direction: Direction, field: &'static str, action: Action, reason: &'static str) -> Edit {
    Edit { direction, field, action, reason }
}

use Action::{Add, Drop, Replace};
use Direction::{Answer, Request};

/// The table. Besides it, the fields that RFC 9110 section 7.6.1 ends at each hop, and those that `Connection` names.
pub const EDITS: &[Edit] = &[
    edit(Request, "host", Replace, "the upstream's own name"),
    edit(Request, "content-length", Replace, "framing is per hop"),
    edit(Request, "transfer-encoding", Drop, "framing is per hop; the body goes on with its length"),
    edit(
        Request,
        "authorization",
        Replace,
        "the developer's key ends here; the upstream gets the organisation's (R13)",
    ),
    edit(Request, "x-api-key", Replace, "the developer's key ends here; the upstream gets the organisation's (R13)"),
    edit(Request, "x-goog-api-key", Drop, "a credential of the developer's"),
    edit(Request, "api-key", Drop, "a credential of the developer's"),
    edit(Request, "cookie", Drop, "a credential of the developer's (R13)"),
    edit(Request, "accept-encoding", Replace, "streams are read event by event, so they must come uncompressed"),
    edit(Request, "content-encoding", Drop, "only where forebay has decoded the body to read it"),
    edit(Request, "expect", Drop, "answered here"),
    edit(Request, "forwarded", Drop, "who sits where in the organisation is not the provider's business"),
    edit(Request, "x-forwarded-*", Drop, "likewise"),
    edit(Request, "x-real-ip", Drop, "likewise"),
    edit(Request, "via", Drop, "likewise"),
    edit(Request, "x-forebay-*", Drop, "addressed to forebay"),
    edit(Answer, "content-length", Replace, "framing is per hop; the same length where the upstream gave one"),
    edit(Answer, "transfer-encoding", Replace, "framing is per hop"),
    edit(Answer, "set-cookie", Drop, "cookies of the upstream's belong to the organisation, not to the developer"),
    edit(Answer, "anthropic-organization-id", Drop, "names the organisation's account"),
    edit(Answer, "anthropic-ratelimit-*", Drop, "the organisation's limits, shared by everyone (R39)"),
    edit(Answer, "alt-svc", Drop, "would lead the client past forebay"),
    edit(Answer, "x-forebay-*", Add, "who answered, for which request, after how long"),
];

/// The row for a field, if it has one.
pub fn find(direction: Direction, name: &[u8]) -> Option<&'static Edit> {
    EDITS.iter().find(|edit| {
        edit.direction == direction
            && match edit.field.strip_suffix('*') {
                Some(stem) => name.get(..stem.len()).is_some_and(|start| start.eq_ignore_ascii_case(stem.as_bytes())),
                None => name.eq_ignore_ascii_case(edit.field.as_bytes()),
            }
    })
}

/// What the request's new head needs to know.
pub struct Forward<'a> {
    /// Path and query as they go upstream, the upstream's base path left out.
    pub target: &'a [u8],
    /// The upstream's base path, without a slash at its end.
    pub base_path: &'a str,
    /// The upstream's `Host`.
    pub host: &'a str,
    /// The upstream's credential: a whole header line with its CRLF.
    pub credential: &'a [u8],
    /// The body's length; `None` when the request has no body.
    pub body_bytes: Option<u64>,
    /// The body was decoded, so its `content-encoding` no longer holds.
    pub decoded: bool,
    /// The answer will be read event by event, so it must not be compressed.
    pub identity: bool,
}

/// Renders the head that goes to the upstream.
pub fn request_head(head: &RequestHead, bytes: &[u8], forward: &Forward<'_>) -> Segment {
    let room = bytes.len() + forward.base_path.len() + forward.host.len() + forward.credential.len() + 256;
    let mut out = Segment::with_room(room);
    for part in [head.method.of(bytes), b" ", forward.base_path.as_bytes(), forward.target, b" HTTP/1.1\r\nhost: "] {
        out.extend(part);
    }
    out.extend(forward.host.as_bytes());
    out.extend(b"\r\n");
    for field in &head.fields {
        let name = field.name.of(bytes);
        let dropped = head.is_hop_by_hop(bytes, field)
            || match find(Request, name) {
                Some(edit) if edit.field == "content-encoding" => forward.decoded,
                Some(edit) if edit.field == "accept-encoding" => forward.identity,
                Some(_) => true,
                None => false,
            };
        if !dropped {
            push_field(&mut out, field, bytes);
        }
    }
    if forward.identity {
        out.extend(b"accept-encoding: identity\r\n");
    }
    out.extend(forward.credential);
    if let Some(length) = forward.body_bytes {
        push_number(&mut out, b"content-length: ", length);
    }
    out.extend(b"\r\n");
    out
}

/// Appends the answer's fields that go on to the client.
pub fn answer_fields(out: &mut Segment, head: &ResponseHead, bytes: &[u8]) {
    for field in &head.fields {
        if !head.is_hop_by_hop(bytes, field) && find(Answer, field.name.of(bytes)).is_none() {
            push_field(out, field, bytes);
        }
    }
}

fn push_field(out: &mut Segment, field: &Field, bytes: &[u8]) {
    out.extend(field.name.of(bytes));
    out.extend(b": ");
    out.extend(field.value.of(bytes));
    out.extend(b"\r\n");
}

/// Appends `name`, `number` in decimal and CRLF, without an allocation.
pub fn push_number(out: &mut Segment, name: &[u8], mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(name);
    out.extend(&digits[at..]);
    out.extend(b"\r\n");
}
