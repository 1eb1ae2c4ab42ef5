//! Exchanges as a seed makes them up: what a client sends, byte for byte, what it means by it, and what an upstream
//! answers. Whatever is made here is well-formed, if odd: what is not has its own tests.

use super::{answers::answer, bodies};
use forebay::{
    serve::edits::{Direction, EDITS},
    sim::dice::Dice,
};

/// Names and values, in order, with duplicates.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The field by which an upstream knows which exchange it serves.
pub const MARK: &str = "x-exchange";
/// Exchanges of one visit at most.
pub const VISIT_MAX: u64 = 9;
/// Bytes of a body at most, about.
pub const BODY_MAX: usize = 300_000;
/// A model whose answers are kept back until their content comes, because somebody else could be asked instead.
pub const HELD: &str = "held";
/// A model that is asked for under another name first, where nobody is.
pub const MOVED_ON: &str = "moved-on";
/// What may be asked besides messages.
pub const OPEN: [&str; 2] = ["/v1/files", "/v1/messages/batches"];

/// One connection's worth.
pub struct Visit {
    /// All requests are sent without waiting for an answer.
    pub pipelines: bool,
    pub exchanges: Vec<Exchange>,
}

pub struct Exchange {
    pub id: u64,
    pub request: Request,
    pub answer: Answer,
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub struct Request {
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    pub fields: Fields,
    /// All of it, as it is sent, and how it is cut into writes.
    pub wire: Vec<u8>,
    pub head_bytes: usize,
    pub write_bytes: usize,
    /// HTTP/1.0.
    pub is_old: bool,
    /// The client says that this is its last.
    pub closes: bool,
    /// The body names a model, for forebay to read.
    pub is_read: bool,
    /// The body is sent compressed, for forebay to read.
    pub is_zipped: bool,
    /// The head tells of a body, be it empty.
    pub has_body: bool,
    /// What the upstream must get for a body.
    pub body: Vec<u8>,
    /// Which upstream must get it.
    pub site: usize,
    /// Two targets could be asked.
    pub is_one_of_two: bool,
    /// It asks for an invitation to send the body, and waits for that.
    pub expects: bool,
    pub waits: bool,
}

/// How the end of an answer's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// There is none, whatever the head says.
    Nothing,
    Length,
    Chunked,
    UntilClose,
}

pub struct Answer {
    pub status: u16,
    pub reason: Vec<u8>,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub framed: Framed,
    pub wire: Vec<u8>,
    pub write_bytes: usize,
    /// The upstream closes behind it.
    pub closes: bool,
    /// What it is, for the count of what was met.
    pub kind: &'static str,
}

/// The visit of `seed`.
pub fn visit(seed: u64) -> Visit {
    let dice = &mut Dice::new(seed);
    let count = dice.between(1, VISIT_MAX as usize);
    let pipelines = dice.chance(3);
    let mut exchange = |n: usize| {
        let id = seed * 16 + n as u64;
        let mut request = request(dice, id, n + 1 == count);
        request.waits = request.expects && !pipelines && dice.chance(2);
        let answer = answer(dice, &request);
        Exchange { id, request, answer }
    };
    let exchanges = (0..count).map(&mut exchange).collect();
    Visit { pipelines, exchanges }
}

/// How large the pieces are in which `len` bytes are written; not more than sixty of them.
pub fn pieces(dice: &mut Dice, len: usize) -> usize {
    (*dice.pick(&[1, 7, 100, 1_500, 20_000, usize::MAX])).max(len / 60)
}

fn request(dice: &mut Dice, id: u64, is_last: bool) -> Request {
    let mut made = Request {
        method: "POST",
        target: String::new(),
        fields: Vec::new(),
        wire: Vec::new(),
        head_bytes: 0,
        write_bytes: 0,
        is_old: is_last && dice.chance(6),
        closes: false,
        is_read: !dice.chance(4),
        is_zipped: false,
        has_body: true,
        body: Vec::new(),
        site: 0,
        is_one_of_two: false,
        expects: false,
        waits: false,
    };
    let sent = if made.is_read { message(dice, &mut made) } else { passed(dice, &mut made) };
    let mut fields = odd_fields(dice, Direction::Request);
    fields.push((b"Host".to_vec(), b"forebay.example:8443".to_vec()));
    fields.push((MARK.into(), id.to_string().into_bytes()));
    fields.extend(keys(dice));
    fields.extend(usual_fields(dice, REQUEST_FIELDS));
    if made.is_zipped {
        let coding: &str = dice.pick::<&str>(&["gzip", "x-gzip", "GZip"]);
        fields.push((mangled(dice, "content-encoding"), coding.into()));
    } else if dice.chance(6) {
        let coding = if made.is_read { "identity" } else { *dice.pick(&["gzip", "br", "identity", "odd"]) };
        fields.push((mangled(dice, "content-encoding"), coding.into()));
    }
    let framed = frame_request(dice, &mut made, &mut fields, sent);
    shuffle(dice, &mut fields);
    hop_fields(dice, &mut fields);
    made.closes = is_last && !made.is_old && dice.chance(2);
    if made.closes {
        fields.push((mangled(dice, "connection"), mangled(dice, "close")));
    }
    if !made.is_old && dice.chance(40) {
        made.wire.extend_from_slice(b"\r\n"); // RFC 9112 section 2.2
    }
    let scheme = ["", "", "", "", "http://forebay.example", "HTTPS://forebay.example:8443"];
    let version = if made.is_old { "1.0" } else { "1.1" };
    let line = format!("{} {}{} HTTP/{version}\r\n", made.method, dice.pick(&scheme), made.target);
    made.wire.extend_from_slice(line.as_bytes());
    write_fields(dice, &fields, &mut made.wire);
    made.head_bytes = made.wire.len();
    made.wire.extend_from_slice(&framed);
    made.write_bytes = pieces(dice, made.wire.len());
    made.fields = fields;
    made
}

/// A body that names a model; what is sent for it. Some models have another name at the upstream.
fn message(dice: &mut Dice, made: &mut Request) -> Vec<u8> {
    let path = *dice.pick(&["/v1/messages", "/v1/messages", "/v1/messages", "/v1/messages/count_tokens"]);
    made.target = path.to_owned() + &query(dice);
    let models = [
        ("claude-sonnet-5", None, 0),
        ("claude-\u{e9}", None, 0),
        ("fast", Some("claude-haiku-4-5-20251001"), 0),
        ("a-name-that-is-long", Some("m"), 1),
        ("far-x", None, 1),
        (HELD, None, 1),
        (MOVED_ON, None, 0),
    ];
    let (model, alias, site) = *dice.pick(&models);
    made.site = site;
    made.is_one_of_two = [HELD, MOVED_ON].contains(&model);
    let (before, after) = bodies::around_model(dice, BODY_MAX);
    let mut sent = before.clone();
    sent.extend_from_slice(&bodies::json_string(dice, model));
    sent.extend_from_slice(&after);
    made.body = match alias {
        Some(alias) => [&before[..], format!("\"{alias}\"").as_bytes(), &after].concat(),
        None => sent.clone(),
    };
    made.is_zipped = dice.chance(5);
    if made.is_zipped { bodies::zipped(dice, &sent) } else { sent }
}

/// A request that forebay does not read.
fn passed(dice: &mut Dice, made: &mut Request) -> Vec<u8> {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "m!x"];
    made.method = dice.pick::<&str>(&methods);
    made.target.push_str(dice.pick::<&str>(&OPEN));
    for _ in 0..dice.below(4) {
        made.target.push('/');
        made.target.push_str(&drawn(dice, 1, 20, "abcXYZ019-_~:@!$&'()+,="));
    }
    if dice.chance(5) {
        made.target.push('/');
    }
    made.target.push_str(&query(dice));
    made.has_body = !matches!(made.method, "GET" | "HEAD") || dice.chance(6);
    let bytes = dice.size(BODY_MAX);
    if made.has_body && !dice.chance(8) {
        made.body = bodies::any(dice, bytes);
    }
    made.body.clone()
}

fn query(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => String::new(),
        1 => format!("?{}", drawn(dice, 0, 300, "azAZ09%?/&=;+*|{}[]^`\\~.,!$'()-_:@")),
        _ => "?beta=true".into(),
    }
}

/// `from` to `to` of the characters in `of`.
pub fn drawn(dice: &mut Dice, from: usize, to: usize, of: &str) -> String {
    (0..dice.between(from, to)).map(|_| char::from(*dice.pick(of.as_bytes()))).collect()
}

/// The developer's key, and what lies around beside it.
fn keys(dice: &mut Dice) -> Fields {
    let key = crate::support::KEY;
    let bearer = |dice: &mut Dice, key: &str| {
        let value = format!("{} {key}", dice.pick(&["Bearer", "bearer", "BEARER"]));
        (mangled(dice, "authorization"), value.into_bytes())
    };
    match dice.below(4) {
        0 => vec![bearer(dice, key)],
        1 => vec![bearer(dice, "sk-ant-api03-left-over"), (mangled(dice, "x-api-key"), key.into())],
        2 => vec![bearer(dice, key), (mangled(dice, "x-api-key"), key.into())],
        _ => vec![(mangled(dice, "x-api-key"), key.into())],
    }
}

/// Puts the framing into the fields, and around what is sent.
fn frame_request(dice: &mut Dice, made: &mut Request, fields: &mut Fields, sent: Vec<u8>) -> Vec<u8> {
    if !made.has_body {
        return Vec::new();
    }
    if !made.is_old && !sent.is_empty() && dice.chance(10) {
        made.expects = true;
        fields.push((mangled(dice, "expect"), mangled(dice, "100-continue")));
    }
    if made.is_old || dice.chance(2) {
        fields.push((mangled(dice, "content-length"), sent.len().to_string().into_bytes()));
        return sent;
    }
    fields.push((mangled(dice, "transfer-encoding"), mangled(dice, "chunked")));
    chunked(dice, &sent)
}

/// The body in chunks, with all that the grammar allows around them.
pub fn chunked(dice: &mut Dice, mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let piece = pieces(dice, body.len());
    while !body.is_empty() {
        let (now, later) = body.split_at(dice.between(1, piece.min(body.len())).max(body.len() / 80));
        let extension = if dice.chance(12) { *dice.pick(&[";a", " ; a=b", ";q=\"x y\""]) } else { "" };
        let size = match dice.below(3) {
            0 => format!("{:X}", now.len()),
            1 => format!("00{:x}", now.len()),
            _ => format!("{:x}", now.len()),
        };
        out.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
        out.extend_from_slice(now);
        out.extend_from_slice(b"\r\n");
        body = later;
    }
    let trailer = if dice.chance(6) { "x-checksum: 1\r\nX-More:\r\n" } else { "" };
    out.extend_from_slice(format!("{}\r\n{trailer}\r\n", dice.pick(&["0", "000", "0;last"])).as_bytes());
    out
}

const REQUEST_FIELDS: &[(&str, &str)] = &[
    ("user-agent", "claude-cli/2.1.0 (external, cli)"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14"),
    ("anthropic-beta", "context-1m-2025-08-07"),
    ("content-type", "application/json; charset=utf-8"),
    ("accept", "text/event-stream, application/json"),
    ("x-app", "cli"),
    ("x-stainless-timeout", "600"),
    ("x-claude-code-session-id", "0f0e-41"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("cache-control", "no-cache"),
    ("date", "Tue, 15 Nov 1994 08:12:31 GMT"),
    ("priority", "u=1, i"),
];

pub fn usual_fields(dice: &mut Dice, all: &[(&str, &str)]) -> Fields {
    let mut some: Fields = Vec::new();
    for (name, value) in all {
        if dice.chance(3) {
            some.push((mangled(dice, name), value.as_bytes().to_vec()));
        }
    }
    some
}

/// Fields that nobody knows, and those that the table of edits names.
pub fn odd_fields(dice: &mut Dice, direction: Direction) -> Fields {
    let mut fields = Fields::new();
    let most = *dice.pick(&[2, 6, 30]);
    for _ in 0..dice.below(most) {
        let name = *dice.pick(&["x-", "X_", "q!", "~", "zz.", "Proxy", "conten", "5"]);
        let name = name.to_owned() + &drawn(dice, 1, 12, "abcdefgHIJKL0189-_.!#$%&'*+^`|~");
        fields.push((name.into_bytes(), odd_value(dice)));
        if dice.chance(4) {
            fields.push((fields[fields.len() - 1].0.clone(), odd_value(dice)));
        }
    }
    for edit in EDITS.iter().filter(|edit| edit.direction == direction) {
        if SPECIAL.contains(&edit.field) || !dice.chance(8) {
            continue;
        }
        let name = edit.field.strip_suffix('*').map_or_else(|| edit.field.to_owned(), |stem| stem.to_owned() + "some");
        for _ in 0..dice.between(1, 2) {
            fields.push((mangled(dice, &name), odd_value(dice)));
        }
    }
    fields
}

/// What is put in where it means something.
const SPECIAL: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "authorization", "x-api-key", "content-encoding", "expect"];

fn odd_value(dice: &mut Dice) -> Vec<u8> {
    let mut value: Vec<u8> = match dice.below(6) {
        0 => Vec::new(),
        1 => (0..dice.between(1, 30)).map(|_| 0x80 | dice.bits() as u8).collect(),
        2 => drawn(dice, 1, 3_000, "ab \t,;=\"").into_bytes(),
        _ => drawn(dice, 1, 60, "abcABC019 ,;=\"'()<>@:\\/[]?{}%|~^`!#$&*+-._").into_bytes(),
    };
    // White space around a value is no part of it (RFC 9110 section 5.5).
    while value.first().is_some_and(|byte| b" \t".contains(byte)) {
        value.remove(0);
    }
    while value.last().is_some_and(|byte| b" \t".contains(byte)) {
        value.pop();
    }
    value
}

/// A name as somebody may write it.
pub fn mangled(dice: &mut Dice, name: &str) -> Vec<u8> {
    let way = dice.below(4);
    let cased = |(at, byte): (usize, &u8)| match way {
        0 => byte.to_ascii_uppercase(),
        1 if at == 0 || name.as_bytes()[at - 1] == b'-' => byte.to_ascii_uppercase(),
        2 if dice.chance(2) => byte.to_ascii_uppercase(),
        _ => *byte,
    };
    name.as_bytes().iter().enumerate().map(cased).collect()
}

/// Fields that end at this hop, by their name or because `Connection` says so, and names that it cannot take away.
pub fn hop_fields(dice: &mut Dice, fields: &mut Fields) {
    let fixed: [(&str, &str); 8] = [
        ("Keep-Alive", "timeout=5, max=100"),
        ("TE", "trailers"),
        ("Trailer", "x-checksum"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Proxy-Connection", "keep-alive"),
        ("proxy-authorization", "Basic eDp5"),
        ("Proxy", "x"),
    ];
    for (name, value) in fixed {
        if dice.chance(8) {
            let at = dice.below(fields.len() + 1);
            fields.insert(at, (mangled(dice, name), value.into()));
        }
    }
    if !dice.chance(4) {
        return;
    }
    let kept = ["content-type", "x-api-key", "anthropic-version", "content-length", "Host", "cache-control", "date"];
    let mut options: Vec<Vec<u8>> = vec![mangled(dice, "keep-alive"), b"x-absent".to_vec(), Vec::new()];
    options.push({
        let name = *dice.pick(&kept);
        mangled(dice, name)
    });
    for (name, _) in fields.iter() {
        if dice.chance(6) && options.len() < 12 && !name.eq_ignore_ascii_case(MARK.as_bytes()) {
            options.push(mangled(dice, std::str::from_utf8(name).unwrap_or_default()));
        }
    }
    shuffle(dice, &mut options);
    let at = dice.below(fields.len() + 1);
    fields.insert(at, (mangled(dice, "connection"), options.join(&b", "[..]).trim_ascii().to_vec()));
}

pub fn shuffle<T>(dice: &mut Dice, all: &mut [T]) {
    for at in (1..all.len()).rev() {
        all.swap(at, dice.below(at + 1));
    }
}

pub fn write_fields(dice: &mut Dice, fields: &Fields, out: &mut Vec<u8>) {
    for (name, value) in fields {
        out.extend_from_slice(name);
        out.extend_from_slice(dice.pick(&[":", ": ", ": ", ": ", ":  \t"]).as_bytes());
        out.extend_from_slice(value);
        out.extend_from_slice(dice.pick(&["", "", "", " ", "\t "]).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
