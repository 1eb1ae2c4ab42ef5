//! Heads: the same however they are cut and whatever follows; with one reading, which two other readers share; and what
//! forebay writes on from them is again a head of one reading.

use super::cuts;
use forebay::{
    base::bounds::FIELDS_MAX,
    rt::Segment,
    serve::edits::{self, Forward},
    wire::{Field, Framing, HeadError, RequestHead, ResponseHead, Version},
};

/// Name and value of each field, in order.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Nothing that a client sends may look like this.
const CREDENTIAL: &[u8] = b"x-api-key: canary-7d3f\r\n";

/// Fields that forebay adds to a request.
const OURS_MAX: usize = 4;

/// What a request's head says, apart from where it lies.
#[derive(Debug, PartialEq)]
struct Request {
    method: Vec<u8>,
    target: Vec<u8>,
    path_and_query: Vec<u8>,
    host: Vec<u8>,
    version: Version,
    fields: Fields,
    framing: Framing,
    flags: [bool; 3],
}

fn listed(fields: &[Field], bytes: &[u8]) -> Fields {
    fields.iter().map(|field| (field.name.of(bytes).to_vec(), field.value.of(bytes).to_vec())).collect()
}

fn request_said(head: &RequestHead, bytes: &[u8]) -> Request {
    Request {
        method: head.method.of(bytes).to_vec(),
        target: head.target.of(bytes).to_vec(),
        path_and_query: head.path_and_query(bytes).to_vec(),
        host: head.host(bytes).to_vec(),
        version: head.version,
        fields: listed(&head.fields, bytes),
        framing: head.framing,
        flags: [head.keep_alive, head.expect_continue, head.upgrade],
    }
}

fn read_request(bytes: &[u8], ends: &[usize]) -> Result<Option<(usize, Request)>, HeadError> {
    let mut head = RequestHead::new();
    for end in ends {
        if let Some(length) = head.parse(&bytes[..*end])? {
            return Ok(Some((length, request_said(&head, bytes))));
        }
    }
    Ok(None)
}

/// The property of a request's head.
pub fn request(bytes: &[u8]) {
    let whole = read_request(bytes, &[bytes.len()]);
    for ends in cuts(bytes) {
        assert_eq!(read_request(bytes, &ends), whole, "cut at {ends:?}");
    }
    let Ok(Some((length, said))) = whole else { return };
    let head = &bytes[..length];
    for follows in [b"\n".as_slice(), b"\r\n\r\n", b"GET / HTTP/1.1\r\nhost: b\r\n\r\n"] {
        let followed = [head, follows].concat();
        assert_eq!(read_request(&followed, &[followed.len()]), Ok(Some((length, request_said_of(head)))));
    }
    one_reading(head, &said.fields, said.version);
    assert_eq!(said.framing, framing_by_the_letter(&said.fields).unwrap_or(Framing::None));
    assert!(said.path_and_query.starts_with(b"/"), "{said:?}");
    let hosts = said.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"host")).count();
    assert_eq!(hosts, usize::from(said.version == Version::Http11).max(hosts.min(1)), "one Host, or none on 1.0");
    httparse_agrees(head, &said);
    let line = [said.method.as_slice(), b" ", &said.target, b" ", written(said.version)].concat();
    let again = rendered(&line, &said.fields);
    assert_eq!(read_request(&again, &[again.len()]), Ok(Some((again.len(), said))));
    forwarded(head);
}

fn request_said_of(head: &[u8]) -> Request {
    let mut parsed = RequestHead::new();
    parsed.parse(head).expect("accepted before").expect("complete before");
    request_said(&parsed, head)
}

/// What goes upstream is a head with one reading, whatever came: our host, our credential, our framing, each once.
fn forwarded(head: &[u8]) {
    let mut parsed = RequestHead::new();
    parsed.parse(head).expect("accepted before").expect("complete before");
    if parsed.fields.len() + OURS_MAX > FIELDS_MAX {
        return; // ours come on top; what is over the bound here need not be so for an upstream
    }
    for (body_bytes, identity, decoded) in [(None, false, false), (Some(5), true, true)] {
        let forward = Forward {
            target: parsed.path_and_query(head),
            base_path: "/base",
            host: "upstream.example",
            credential: CREDENTIAL,
            body_bytes,
            decoded,
            identity,
        };
        let out = edits::request_head(&parsed, head, &forward);
        let mut again = RequestHead::new();
        assert_eq!(again.parse(out.live()), Ok(Some(out.len())), "{}", out.live().escape_ascii());
        let said = request_said(&again, out.live());
        assert_eq!((said.host.as_slice(), said.version), (b"upstream.example".as_slice(), Version::Http11));
        assert_eq!(said.framing, body_bytes.map_or(Framing::None, Framing::Length));
        assert_eq!(said.flags, [true, false, false], "nothing of the client's connection goes on");
        let named = |wanted: &[u8]| said.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).count();
        assert_eq!(named(b"x-api-key"), 1);
        let absent: [&[u8]; 6] =
            [b"authorization", b"cookie", b"connection", b"transfer-encoding", b"te", b"proxy-authorization"];
        assert!(absent.iter().all(|name| named(name) == 0), "{said:?}");
        assert!(!identity || named(b"accept-encoding") == 1);
    }
}

/// httparse reads the same out of the same bytes.
fn httparse_agrees(head: &[u8], said: &Request) {
    let mut room = [httparse::EMPTY_HEADER; 128];
    let mut other = httparse::Request::new(&mut room);
    assert_eq!(other.parse(head), Ok(httparse::Status::Complete(head.len())));
    assert_eq!(other.method.map(str::as_bytes), Some(said.method.as_slice()));
    assert_eq!(other.path.map(str::as_bytes), Some(said.target.as_slice()));
    assert_eq!(other.version, Some(u8::from(said.version == Version::Http11)));
    let theirs: Fields =
        other.headers.iter().map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec())).collect();
    assert_eq!(theirs, said.fields);
}

/// What an answer's head says, apart from where it lies.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    reason: Vec<u8>,
    version: Version,
    fields: Fields,
    framing: Framing,
    keep_alive: bool,
}

fn read_answer(bytes: &[u8], to_head: bool, ends: &[usize]) -> Result<Option<(usize, Answer)>, HeadError> {
    let mut head = ResponseHead::new();
    for end in ends {
        if let Some(length) = head.parse(&bytes[..*end], to_head)? {
            let said = Answer {
                status: head.status,
                reason: head.reason.of(bytes).to_vec(),
                version: head.version,
                fields: listed(&head.fields, bytes),
                framing: head.framing,
                keep_alive: head.keep_alive,
            };
            return Ok(Some((length, said)));
        }
    }
    Ok(None)
}

/// The property of an answer's head, to `HEAD` and to other methods.
pub fn answer(bytes: &[u8]) {
    for to_head in [false, true] {
        let whole = read_answer(bytes, to_head, &[bytes.len()]);
        for ends in cuts(bytes) {
            assert_eq!(read_answer(bytes, to_head, &ends), whole, "cut at {ends:?}");
        }
        let Ok(Some((length, said))) = whole else { continue };
        let head = &bytes[..length];
        one_reading(head, &said.fields, said.version);
        let bodiless = to_head || said.status < 200 || matches!(said.status, 204 | 304);
        let framing = if bodiless { Some(Framing::None) } else { framing_by_the_letter(&said.fields) };
        assert_eq!(said.framing, framing.unwrap_or(Framing::UntilClose));
        assert!((100..600).contains(&said.status) && said.status != 101);
        let line = [written(said.version), format!(" {} ", said.status).as_bytes(), &said.reason].concat();
        let again = rendered(&line, &said.fields);
        assert_eq!(read_answer(&again, to_head, &[again.len()]), Ok(Some((again.len(), said))));
        passed_on(head, to_head);
    }
}

/// The fields that go on to the client bring no framing, no connection option and no cookie of the upstream's.
fn passed_on(head: &[u8], to_head: bool) {
    let mut parsed = ResponseHead::new();
    parsed.parse(head, to_head).expect("accepted before").expect("complete before");
    let mut out = Segment::with_room(head.len() + 512);
    out.extend(b"HTTP/1.1 200 OK\r\n");
    edits::answer_fields(&mut out, &parsed, head);
    out.extend(b"content-length: 5\r\n\r\n");
    let Ok(Some((length, said))) = read_answer(out.live(), false, &[out.len()]) else {
        // One field may have been at the bound, and ours comes on top.
        assert!(parsed.fields.len() >= FIELDS_MAX, "{}", out.live().escape_ascii());
        return;
    };
    assert_eq!((length, said.framing, said.keep_alive), (out.len(), Framing::Length(5), true));
}

/// The head by the letter of RFC 9112, with all of it at hand: lines by CRLF alone, a name up to the first colon, a
/// value without the blanks around it.
fn one_reading(head: &[u8], fields: &Fields, version: Version) {
    let text = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines: Vec<&[u8]> = split_crlf(text);
    let [_, section @ .., last, nothing] = lines.as_slice() else { panic!("a head has lines") };
    assert!(last.is_empty() && nothing.is_empty(), "it ends at its first empty line");
    assert!(lines.iter().all(|line| !line.contains(&b'\r') && !line.contains(&b'\n')), "every CR has its LF");
    let read: Fields = section
        .iter()
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
            let value = &line[colon + 1..];
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
            let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
            let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
            (line[..colon].to_vec(), value[start..end].to_vec())
        })
        .collect();
    assert_eq!(&read, fields);
    let dashed = |name: &[u8]| name.iter().map(|b| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() }).collect();
    let names: Vec<Vec<u8>> = fields.iter().map(|(name, _)| dashed(name)).collect();
    let framing = names.iter().filter(|name| matches!(name.as_slice(), b"content-length" | b"transfer-encoding"));
    assert!(framing.count() <= 1, "framed once: {fields:?}");
    assert!(version == Version::Http11 || !names.iter().any(|name| name == b"transfer-encoding"));
}

fn split_crlf(text: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

fn framing_by_the_letter(fields: &Fields) -> Option<Framing> {
    fields.iter().find_map(|(name, value)| match name.to_ascii_lowercase().as_slice() {
        b"transfer-encoding" => Some(Framing::Chunked),
        b"content-length" => Some(Framing::Length(str::from_utf8(value).ok()?.parse().ok()?)),
        _ => None,
    })
}

fn rendered(line: &[u8], fields: &Fields) -> Vec<u8> {
    let mut out = [line, b"\r\n"].concat();
    for (name, value) in fields {
        out.extend([name, b": ".as_slice(), value, b"\r\n"].concat());
    }
    out.extend(b"\r\n");
    out
}

/// A version as it stands in a head.
fn written(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
    }
}
