//! What an upstream answers to a request that was made up.

use super::{
    bodies,
    made::{
        Answer, BODY_MAX, Framed, Request, chunked, hop_fields, mangled, odd_fields, pieces, shuffle, usual_fields,
        write_fields,
    },
};
use forebay::{serve::edits::Direction, sim::dice::Dice};

/// Statuses that are delivered and held against nobody (docs/verdicts.md); of 429 the configuration says so.
const DELIVERED: [u16; 13] = [200, 200, 200, 200, 201, 202, 204, 206, 304, 400, 409, 413, 429];
/// Statuses that are delivered where there is nobody else to ask, and held against their upstream: so few that it stays
/// in service. A 401, a 403 and a redirect are the operator's.
const FAULTS: [u16; 4] = [404, 500, 503, 529];

const ANSWER_FIELDS: &[(&str, &str)] = &[
    ("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
    ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
    ("server", "cloudflare"),
    ("cf-ray", "98a-FRA"),
    ("retry-after", "7"),
    ("x-should-retry", "true"),
    ("via", "1.1 google"),
    ("vary", "accept-encoding"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-envoy-upstream-service-time", "1203"),
    ("cache-control", "no-store"),
    ("www-authenticate", "Bearer"),
];

/// The answer to `request`.
pub fn answer(dice: &mut Dice, request: &Request) -> Answer {
    let is_stream = request.is_read && dice.chance(2);
    let status = match dice.below(25) {
        _ if is_stream => 200,
        0 if !request.is_one_of_two => *dice.pick(&FAULTS),
        _ => *dice.pick(&DELIVERED),
    };
    let has_none = request.method == "HEAD" || matches!(status, 204 | 304);
    let is_old = dice.chance(20);
    let mut made = Answer {
        status,
        reason: dice.pick::<&[u8]>(&[b"OK", b"Fine", b"", b"It is  so\t!", b"na\xefve"]).to_vec(),
        fields: odd_fields(dice, Direction::Answer),
        body: Vec::new(),
        framed: Framed::Nothing,
        wire: Vec::new(),
        write_bytes: 0,
        closes: false,
        kind: "",
    };
    made.fields.extend(usual_fields(dice, ANSWER_FIELDS));
    let framings: &[Framed] = match () {
        () if has_none => &[Framed::Nothing],
        () if is_old => &[Framed::Length, Framed::UntilClose],
        () => &[Framed::Length, Framed::Length, Framed::Chunked, Framed::Chunked, Framed::Chunked, Framed::UntilClose],
    };
    made.framed = *dice.pick(framings);
    content(dice, &mut made, is_stream, request.is_read);
    let framed = frame(dice, &mut made, request, is_old);
    shuffle(dice, &mut made.fields);
    hop_fields(dice, &mut made.fields);
    made.closes = is_old || made.framed == Framed::UntilClose || dice.chance(10);
    // One that closes without a word leaves forebay with a connection that is none any more.
    if made.closes && !dice.chance(3) {
        made.fields.push((mangled(dice, "connection"), mangled(dice, "close")));
    }
    for _ in 0..if dice.chance(6) { dice.between(1, 3) } else { 0 } {
        let early = ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"];
        made.wire.extend_from_slice(dice.pick(&early).as_bytes());
    }
    let space = if made.reason.is_empty() && dice.chance(2) { "" } else { " " };
    let line = format!("HTTP/1.{} {status}{space}", u8::from(!is_old));
    made.wire.extend_from_slice(line.as_bytes());
    made.wire.extend_from_slice(&made.reason);
    made.wire.extend_from_slice(b"\r\n");
    write_fields(dice, &made.fields, &mut made.wire);
    made.wire.extend_from_slice(&framed);
    made.write_bytes = pieces(dice, made.wire.len());
    made
}

/// The body, and what its fields say that it is.
fn content(dice: &mut Dice, made: &mut Answer, is_stream: bool, is_read: bool) {
    let bytes = dice.size(BODY_MAX);
    let (kind, media) = match dice.below(8) {
        // Nothing here looks into it; it may be anything.
        0 if is_stream && made.framed != Framed::UntilClose => ("no events in a stream", "text/event-stream"),
        1 if is_stream => {
            let coding = *dice.pick(&["gzip", "br"]);
            made.fields.push((mangled(dice, "content-encoding"), coding.into()));
            ("a compressed stream", "text/event-stream")
        }
        2 if is_stream => ("a stream", "Text/Event-Stream; charset=utf-8"),
        _ if is_stream => ("a stream", "text/event-stream"),
        // Where forebay reads the request, a success of another type is none of the API's.
        3 if !is_read || made.status >= 300 => ("a document", "application/octet-stream"),
        _ => ("a document", "application/json"),
    };
    made.kind = kind;
    made.fields.push((mangled(dice, "content-type"), media.into()));
    if made.framed == Framed::Nothing {
        made.kind = "no body";
        return;
    }
    made.body = match kind {
        // Where only the close ends it, its last event tells whether it is whole.
        "a stream" => bodies::stream(dice, made.framed == Framed::UntilClose),
        _ if dice.chance(10) => Vec::new(),
        _ => bodies::any(dice, bytes),
    };
}

/// Puts the framing into the fields and around the body.
fn frame(dice: &mut Dice, made: &mut Answer, request: &Request, is_old: bool) -> Vec<u8> {
    let length = |made: &mut Answer, dice: &mut Dice, bytes: usize| {
        made.fields.push((mangled(dice, "content-length"), bytes.to_string().into_bytes()));
    };
    match made.framed {
        Framed::UntilClose => made.body.clone(),
        Framed::Length => {
            length(made, dice, made.body.len());
            made.body.clone()
        }
        Framed::Chunked => {
            made.fields.push((mangled(dice, "transfer-encoding"), mangled(dice, "chunked")));
            chunked(dice, &made.body.clone())
        }
        // What the body would have been, had it been asked for.
        Framed::Nothing => {
            match dice.below(3) {
                0 if made.status != 204 => length(made, dice, 12_345),
                1 if request.method == "HEAD" && made.status == 200 && !is_old => {
                    made.fields.push((mangled(dice, "transfer-encoding"), b"chunked".to_vec()));
                }
                _ => {}
            }
            Vec::new()
        }
    }
}
