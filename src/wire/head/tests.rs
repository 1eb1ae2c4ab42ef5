//! Each row names the rule that it holds the parser to. Every row runs whole, a byte at a time, and with a second
//! message behind it.

use super::HeadError::{Coding, Expectation, Malformed, Method, TargetTooLong, TooLarge, TooManyFields};
use super::*;
use crate::base::bounds::{FIELDS_MAX, HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX};
use proptest::prelude::*;
use std::mem::discriminant;

const ANY: HeadError = Malformed("");

type Seen<H> = Result<Option<(usize, H)>, HeadError>;

/// Feeds `bytes` up to each of `cuts` in turn, as a connection would.
fn request_cut(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Seen<RequestHead> {
    let mut head = RequestHead::new();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        if let Some(n) = head.parse(&bytes[..cut])? {
            return Ok(Some((n, head)));
        }
    }
    Ok(None)
}

fn answer_cut(bytes: &[u8], to_head: bool, cuts: impl IntoIterator<Item = usize>) -> Seen<ResponseHead> {
    let mut head = ResponseHead::new();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        if let Some(n) = head.parse(&bytes[..cut], to_head)? {
            return Ok(Some((n, head)));
        }
    }
    Ok(None)
}

fn same<H: std::fmt::Debug>(whole: &Seen<H>, cut: &Seen<H>, bytes: &[u8]) {
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"), "cut differently: {:?}", bytes.escape_ascii().to_string());
}

fn request(bytes: &[u8]) -> Result<RequestHead, HeadError> {
    let whole = request_cut(bytes, []);
    same(&whole, &request_cut(bytes, 0..bytes.len()), bytes);
    let (n, head) = whole?.expect("complete");
    assert_eq!(n, bytes.len());
    let followed = [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat();
    same(&Ok(Some((n, head.clone()))), &request_cut(&followed, []), &followed);
    Ok(head)
}

fn answer(bytes: &[u8]) -> Result<ResponseHead, HeadError> {
    let whole = answer_cut(bytes, false, []);
    same(&whole, &answer_cut(bytes, false, 0..bytes.len()), bytes);
    let (n, head) = whole?.expect("complete");
    assert_eq!(n, bytes.len());
    Ok(head)
}

fn with_fields(fields: &[u8]) -> Vec<u8> {
    [b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n".as_slice(), fields, b"\r\n\r\n"].concat()
}

fn with_line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a\r\n\r\n"].concat()
}

/// The error's variant; the text of `Malformed` is for people.
fn refused<H: std::fmt::Debug>(result: Result<H, HeadError>, want: HeadError, row: &[u8]) {
    let error = result.expect_err(&row.escape_ascii().to_string());
    assert_eq!(discriminant(&error), discriminant(&want), "{error:?} for {}", row.escape_ascii());
}

#[test]
fn a_request_is_read_by_offsets() {
    let bytes = b"\r\nPOST http://h.example:8443/v1/messages?beta=true HTTP/1.1\r\nHost:  h \r\nContent-Length: 12\r\nX-A:\r\nConnection: keep-alive, X-a, authorization\r\nAuthorization: b\r\n\r\n";
    let head = request(bytes).unwrap();
    assert_eq!(head.method.of(bytes), b"POST");
    assert_eq!(head.path(bytes), b"/v1/messages");
    assert_eq!(head.query(bytes), Some(&b"beta=true"[..]));
    assert_eq!(head.path_and_query(bytes), b"/v1/messages?beta=true");
    assert_eq!(head.host(bytes), b"h.example:8443", "RFC 9112 3.2.2");
    assert_eq!(head.field(bytes, "host"), Some(&b"h"[..]));
    assert_eq!(head.framing, Framing::Length(12));
    assert!(head.keep_alive && !head.expect_continue && !head.upgrade);
}

#[test]
fn broken_fields_are_refused() {
    let rows: &[(&[u8], HeadError, &str)] = &[
        (b"X-A: a\nX-B: b", ANY, "RFC 9112 2.2, a bare LF is no line end here"),
        (b"X-A: a\rX-B: b", ANY, "RFC 9112 2.2, bare CR"),
        (b"X-A: a\r\r", ANY, "RFC 9112 2.2, CR CR LF"),
        (b"X-A: a\r\n b", ANY, "RFC 9112 5.2, obs-fold"),
        (b"X-A: a\r\n\tb", ANY, "RFC 9112 5.2, obs-fold"),
        (b" X-A: a", ANY, "RFC 9112 2.2, white space before the first field"),
        (b"X-A : b", ANY, "RFC 9112 5.1, space before the colon"),
        (b"X-A\t: b", ANY, "RFC 9112 5.1, tab before the colon"),
        (b"X-A", ANY, "RFC 9112 5, no colon"),
        (b": b", ANY, "RFC 9110 5.1, empty name"),
        (b"X A: b", ANY, "RFC 9110 5.6.2"),
        (b"X\x00A: b", ANY, "RFC 9110 5.6.2"),
        (b"X-\xe9: b", ANY, "RFC 9110 5.6.2"),
        (b"X(A): b", ANY, "RFC 9110 5.6.2"),
        (b"X,A: b", ANY, "RFC 9110 5.6.2"),
        (b"X\"A\": b", ANY, "RFC 9110 5.6.2"),
        (b"X-A: a\x00b", ANY, "RFC 9110 5.5, NUL"),
        (b"X-A: \x08", ANY, "RFC 9110 5.5, control byte"),
        (b"X-A: \x1b[31m", ANY, "RFC 9110 5.5, control byte"),
        (b"X-A: \x7f", ANY, "RFC 9110 5.5, control byte"),
        (b"Content-Length: 1\r\nContent-Length: 1", ANY, "RFC 9112 6.3, equal ones too"),
        (b"Content-Length: 1\r\ncontent-length: 0", ANY, "RFC 9112 6.3"),
        (b"Content-Length: 1, 1", ANY, "RFC 9110 8.6, a list"),
        (b"Content-Length: +1", ANY, "RFC 9110 8.6"),
        (b"Content-Length: -0", ANY, "RFC 9110 8.6"),
        (b"Content-Length: 0x1", ANY, "RFC 9110 8.6"),
        (b"Content-Length: 8_7", ANY, "RFC 9110 8.6"),
        (b"Content-Length: 8 7", ANY, "RFC 9110 8.6"),
        (b"Content-Length: 1;", ANY, "RFC 9110 8.6"),
        (b"Content-Length:", ANY, "RFC 9110 8.6, empty"),
        (b"Content-Length: \xd9\xa8", ANY, "RFC 9110 8.6, a digit of another script"),
        (b"Content-Length: 1234567890123456789", ANY, "RFC 9110 8.6, 19 digits"),
        (b"Content_Length: 1", ANY, "ours: a name that some servers take for Content-Length"),
        (b"Transfer_Encoding: chunked", ANY, "ours: a name that some servers take for Transfer-Encoding"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 1", ANY, "RFC 9112 6.1"),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked", ANY, "RFC 9112 6.1"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", ANY, "RFC 9112 6.1, chunked twice"),
        (b"Transfer-Encoding: chunked, chunked", ANY, "RFC 9112 6.1, chunked twice"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", ANY, "RFC 9112 6.3, rule 4"),
        (b"Transfer-Encoding: identity", ANY, "RFC 9112 6.3, rule 4: chunked is not last"),
        (b"Transfer-Encoding: chunked, gzip", ANY, "RFC 9112 6.3, rule 4"),
        (b"Transfer-Encoding: gzip, chunked", Coding, "RFC 9112 6.1, a coding not understood"),
        (b"Transfer-Encoding: ,chunked", ANY, "ours: an empty member of the list"),
        (b"Transfer-Encoding: chunked,", ANY, "ours: an empty member of the list"),
        (b"Transfer-Encoding: \"chunked\"", ANY, "RFC 9112 7, no transfer coding"),
        (b"Transfer-Encoding: chunked;a=b", ANY, "RFC 9112 7.1, chunked has no parameters"),
        (b"Transfer-Encoding: xchunked", ANY, "RFC 9112 6.3, rule 4"),
        (b"Transfer-Encoding: \x0bchunked", ANY, "RFC 9110 5.5"),
        (b"Transfer-Encoding: \xffchunked", ANY, "RFC 9112 7"),
        (b"Transfer-Encoding:", ANY, "RFC 9112 6.1"),
        (b"Host: a", ANY, "RFC 9112 3.2, two Hosts"),
        (b"Expect: 200-ok", Expectation, "RFC 9110 10.1.1"),
        (b"Expect: 100-continue\r\nExpect: 100-continue", Expectation, "RFC 9110 10.1.1"),
        (b"Connection: a b", ANY, "RFC 9110 7.6.1"),
    ];
    for (fields, want, rule) in rows {
        let bytes = with_fields(fields);
        refused(request(&bytes), *want, &[rule.as_bytes(), b": ", fields].concat());
    }
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(request(old), ANY, b"RFC 9112 6.1, Transfer-Encoding with HTTP/1.0");
}

#[test]
fn good_fields_are_taken() {
    let rows: &[(&[u8], Framing, &str)] = &[
        (b"X-A:", Framing::None, "RFC 9112 6.3, rule 7"),
        (b"X-A: \xe9\xff", Framing::None, "RFC 9110 5.5, obs-text"),
        (b"X!#$%&'*+-.^_`|~9: v", Framing::None, "RFC 9110 5.6.2"),
        (b"Content-Length:7", Framing::Length(7), "RFC 9112 5"),
        (b"cONTENT-lENGTH: \t 7 \t", Framing::Length(7), "RFC 9112 5, optional white space"),
        (b"Content-Length: 000000000000000007", Framing::Length(7), "RFC 9110 8.6"),
        (b"Content-Length: 999999999999999999", Framing::Length(999_999_999_999_999_999), "RFC 9110 8.6"),
        (b"transfer-ENCODING: \t ChUnKeD \t", Framing::Chunked, "RFC 9112 7, names are case-insensitive"),
    ];
    for (fields, framing, rule) in rows {
        assert_eq!(request(&with_fields(fields)).map(|head| head.framing), Ok(*framing), "{rule}");
    }
}

#[test]
fn request_lines_are_held_to_one_shape() {
    let rows: &[(&[u8], HeadError, &str)] = &[
        (b"POST  / HTTP/1.1", ANY, "RFC 9112 3, single spaces"),
        (b"POST /  HTTP/1.1", ANY, "RFC 9112 3, single spaces"),
        (b"POST / HTTP/1.1 ", ANY, "RFC 9112 3"),
        (b"POST\t/\tHTTP/1.1", ANY, "RFC 9112 3"),
        (b"POST / x HTTP/1.1", ANY, "RFC 9112 3.2, white space in the target"),
        (b" / HTTP/1.1", ANY, "RFC 9112 3.1"),
        (b"POST /", ANY, "RFC 9112 3, HTTP/0.9"),
        (b"P\xd6ST / HTTP/1.1", ANY, "RFC 9110 9.1"),
        (b"P(ST / HTTP/1.1", ANY, "RFC 9110 9.1"),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", ANY, "RFC 9112 3, a method of 33 bytes"),
        (b"POST v1 HTTP/1.1", ANY, "RFC 9112 3.2, no form of target"),
        (b"POST a:443 HTTP/1.1", ANY, "RFC 9112 3.2.3, authority form is for CONNECT"),
        (b"OPTIONS * HTTP/1.1", ANY, "RFC 9112 3.2.4, not offered"),
        (b"POST /#f HTTP/1.1", ANY, "RFC 9112 3.2, fragment"),
        (b"POST /\xc3\xa9 HTTP/1.1", ANY, "RFC 3986 2"),
        (b"POST /?\xc3\xa9 HTTP/1.1", ANY, "RFC 3986 2"),
        (b"POST /\x00 HTTP/1.1", ANY, "RFC 3986 2"),
        (b"POST /\x7f HTTP/1.1", ANY, "RFC 3986 2"),
        (b"POST /a\\b HTTP/1.1", ANY, "RFC 3986 3.3"),
        (b"POST /%2 HTTP/1.1", ANY, "RFC 3986 2.1"),
        (b"POST /?a=<b> HTTP/1.1", ANY, "RFC 3986 3.4"),
        (b"POST ftp://a/ HTTP/1.1", ANY, "RFC 9110 4.2"),
        (b"POST http:///v1 HTTP/1.1", ANY, "RFC 9110 4.2.1, empty host"),
        (b"POST http://u@a/ HTTP/1.1", ANY, "RFC 9110 4.2.4, user information"),
        (b"POST http://a?b HTTP/1.1", ANY, "ours: a query without a path"),
        (b"POST / http/1.1", ANY, "RFC 9112 2.3, case-sensitive"),
        (b"POST / HTTP/1", ANY, "RFC 9112 2.3"),
        (b"POST / HTTP/1.10", ANY, "RFC 9112 2.3"),
        (b"POST / XTP/1.1", ANY, "RFC 9112 2.3"),
        (b"POST / HTTP/1.2", HeadError::Version, "RFC 9110 15.6.6"),
        (b"POST / HTTP/0.9", HeadError::Version, "RFC 9110 15.6.6"),
        (b"PRI * HTTP/2.0", HeadError::Version, "RFC 9113 3.4, the preface of HTTP/2"),
        (b"CONNECT a:443 HTTP/1.1", Method, "RFC 9110 9.3.6, not offered"),
        (b"TRACE / HTTP/1.1", Method, "RFC 9110 9.3.8, not offered"),
        (b"\x16\x03\x01\x02\x00\x01\x00", ANY, "RFC 9112 3.1, a TLS hello"),
        (b"\r\n\r\nPOST / HTTP/1.1", ANY, "RFC 9112 2.2, more than one empty line"),
        (b"\nPOST / HTTP/1.1", ANY, "RFC 9112 2.2, a bare LF"),
    ];
    for (line, want, rule) in rows {
        refused(request(&with_line(line)), *want, &[rule.as_bytes(), b": ", line].concat());
    }
}

#[test]
fn what_cannot_become_a_request_is_refused_at_once() {
    for start in [&b"\x16"[..], b"\r\n\r", b"\n", b" ", b"GE\tT"] {
        refused(request_cut(start, []), ANY, start);
    }
    refused(answer_cut(b"<html", false, []), ANY, b"HTTP/0.9");
    refused(answer_cut(b"\r", false, []), ANY, b"RFC 9112 2.2 is about requests");
}

#[test]
fn targets_are_split() {
    let rows: &[(&str, &str, Option<&str>, &str, &str)] = &[
        ("/", "/", None, "/", "a"),
        ("/v1/a:b@c;d=%41?x={}|^?y", "/v1/a:b@c;d=%41", Some("x={}|^?y"), "/v1/a:b@c;d=%41?x={}|^?y", "a"),
        ("/?", "/", Some(""), "/?", "a"),
        ("//evil/v1", "//evil/v1", None, "//evil/v1", "a"),
        ("HTTP://b", "/", None, "/", "b"),
        ("https://[::1]:8080/x?y", "/x", Some("y"), "/x?y", "[::1]:8080"),
    ];
    for (target, path, query, both, host) in rows {
        let bytes = with_line(format!("GET {target} HTTP/1.1").as_bytes());
        let head = request(&bytes).expect(target);
        assert_eq!(head.target.of(&bytes), target.as_bytes());
        assert_eq!(head.path(&bytes), path.as_bytes());
        assert_eq!(head.query(&bytes), query.map(str::as_bytes));
        assert_eq!(head.path_and_query(&bytes), both.as_bytes());
        assert_eq!(head.host(&bytes), host.as_bytes());
    }
}

#[test]
fn hosts_are_valid() {
    for host in ["a", "a.example:8443", "A_b-c~1", "[::1]", "[2001:db8::1]:443", "127.0.0.1:80", "a:", "%41"] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        assert_eq!(request(&bytes).expect(host).host(&bytes), host.as_bytes());
    }
    for host in
        ["", ":80", "a, b", "a b", "u@a", "a/b", "a:b", "a:99999", "a:1:2", "[::1", "[::g]", "[::1]x", "a%4", "a?b"]
    {
        refused(request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()), ANY, host.as_bytes());
    }
    refused(request(b"GET / HTTP/1.1\r\nX: a\r\n\r\n"), ANY, b"RFC 9112 3.2, no Host");
    assert_eq!(request(b"GET / HTTP/1.0\r\n\r\n").map(|head| head.version), Ok(Version::Http10));
}

#[test]
fn connections_persist_by_version_and_option() {
    let rows: &[(&str, &str, bool)] = &[
        ("1.1", "X: a", true),
        ("1.1", "Connection: Close", false),
        ("1.1", "Connection: keep-alive, ,close", false),
        ("1.1", "Connection: a\r\nConnection: close", false),
        ("1.0", "X: a", false),
        ("1.0", "Connection: keep-alive", true),
        ("1.0", "Connection: keep-alive, close", false),
    ];
    for (version, field, keep_alive) in rows {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n\r\n");
        assert_eq!(request(bytes.as_bytes()).map(|head| head.keep_alive), Ok(*keep_alive), "RFC 9112 9.3: {bytes}");
    }
}

#[test]
fn expect_and_upgrade_are_told() {
    let rows: &[(&str, &str, bool, bool)] = &[
        ("1.1", "Expect: 100-Continue\r\nContent-Length: 3", true, false),
        ("1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked", true, false),
        ("1.1", "Expect: 100-continue", false, false),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 3", false, false),
        ("1.1", "Upgrade: websocket\r\nConnection: keep-alive, Upgrade", false, true),
        ("1.1", "Upgrade: websocket", false, false),
        ("1.0", "Upgrade: h2c\r\nConnection: Upgrade", false, false),
    ];
    for (version, fields, expects, upgrades) in rows {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
        let head = request(bytes.as_bytes()).expect(&bytes);
        assert_eq!((head.expect_continue, head.upgrade), (*expects, *upgrades), "RFC 9110 10.1.1, 7.8: {bytes}");
    }
}

#[test]
fn connection_takes_away_only_what_may_go() {
    let bytes = with_fields(
        b"Connection: X-Hop, keep-alive, AUTHORIZATION, x-api-key, host, content-length\r\nx-hop: 1\r\nx-hop2: 1\r\nAuthorization: b\r\n\
          X-Api-Key: k\r\nContent-Length: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nTrailer: a\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n\
          Proxy-Authorization: c\r\nProxy-Connection: d\r\nProxy: e\r\nProxying: f",
    );
    let head = request(&bytes).unwrap();
    let gone: Vec<_> = head
        .fields
        .iter()
        .filter(|field| head.is_hop_by_hop(&bytes, field))
        .map(|field| String::from_utf8_lossy(field.name.of(&bytes)).to_lowercase())
        .collect();
    assert_eq!(
        gone,
        [
            "connection",
            "x-hop",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "http2-settings",
            "proxy-authorization",
            "proxy-connection",
            "proxy"
        ],
        "RFC 9110 7.6.1"
    );
    let many = format!("Connection: {}", "x, ".repeat(40));
    refused(request(&with_fields(many.as_bytes())), TooManyFields, b"options are bounded");
}

#[test]
fn bounds_hold_to_the_byte() {
    let line = |target: usize| with_line(format!("GET /{} HTTP/1.1", "a".repeat(target)).as_bytes());
    let fits = REQUEST_LINE_BYTES_MAX - "GET / HTTP/1.1\r\n".len();
    assert!(request(&line(fits)).is_ok());
    refused(request(&line(fits + 1)), TargetTooLong, b"RFC 9112 3");

    let base = with_fields(b"X-A: ").len();
    let value = |len: usize| with_fields(format!("X-A: {}", "a".repeat(len)).as_bytes());
    assert!(request_cut(&value(HEAD_BYTES_MAX - base), []).unwrap().is_some());
    refused(request_cut(&value(HEAD_BYTES_MAX - base + 1), []), TooLarge, b"RFC 6585 5");
    refused(
        request_cut(&value(HEAD_BYTES_MAX - base + 1)[..HEAD_BYTES_MAX], []),
        TooLarge,
        b"a full buffer never waits",
    );
    refused(
        answer_cut(&[b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'a'; HEAD_BYTES_MAX]].concat(), false, []),
        TooLarge,
        b"answers too",
    );

    let fields = |count: usize| with_fields("X-A: b\r\n".repeat(count).trim_end().as_bytes());
    assert_eq!(request(&fields(FIELDS_MAX - 1)).map(|head| head.fields.len()), Ok(FIELDS_MAX));
    refused(request(&fields(FIELDS_MAX)), TooManyFields, b"RFC 6585 5");
}

#[test]
fn answers_are_framed() {
    use Framing::{Chunked, Length, None as Nothing, UntilClose};
    let rows: &[(&str, bool, Framing, bool, &str)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 2", false, Length(2), true, "RFC 9112 6.3, rule 6"),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: chunked", false, Chunked, true, "RFC 9112 6.3, rule 4"),
        ("HTTP/1.1 200\r\nContent-Length: 0", false, Length(0), true, "RFC 9112 4, no reason"),
        ("HTTP/1.1 200 OK\r\nX: a", false, UntilClose, false, "RFC 9112 6.3, rule 8"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2", false, Length(2), false, "RFC 9112 9.3"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive", false, Length(2), true, "RFC 9112 9.3"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close", false, Length(2), false, "RFC 9112 9.3"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2", true, Nothing, true, "RFC 9112 6.3, rule 1, HEAD"),
        ("HTTP/1.1 200 OK\r\nX: a", true, Nothing, true, "RFC 9112 6.3, rule 1, HEAD"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 2", false, Nothing, true, "RFC 9112 6.3, rule 1"),
        ("HTTP/1.1 204 No Content\r\nX: a", false, Nothing, true, "RFC 9112 6.3, rule 1"),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 2",
            false,
            Nothing,
            false,
            "RFC 9110 8.6, and not trusted further",
        ),
        ("HTTP/1.1 100 Continue\r\nX: a", false, Nothing, true, "RFC 9110 15.2"),
        ("HTTP/1.1 529 \u{e9}\tx\r\nContent-Length: 2", false, Length(2), true, "RFC 9112 4, obs-text in a reason"),
    ];
    for (text, to_head, framing, keep_alive, rule) in rows {
        let bytes = format!("{text}\r\n\r\n").into_bytes();
        let (n, head) = answer_cut(&bytes, *to_head, []).expect(rule).expect(rule);
        assert_eq!((n, head.framing, head.keep_alive), (bytes.len(), *framing, *keep_alive), "{rule}");
        assert_eq!(head.status, text[9..12].parse::<u16>().unwrap());
    }
}

#[test]
fn broken_answers_are_refused() {
    let rows: &[(&[u8], HeadError, &str)] = &[
        (b"HTTP/1.1 2000 OK\r\nX: a", ANY, "RFC 9112 4, three digits"),
        (b"HTTP/1.1 -20 OK\r\nX: a", ANY, "RFC 9112 4"),
        (b"HTTP/1.1 000 OK\r\nX: a", ANY, "RFC 9110 15"),
        (b"HTTP/1.1 600 OK\r\nX: a", ANY, "RFC 9110 15"),
        (b"HTTP/1.1  200 OK\r\nX: a", ANY, "RFC 9112 4, single spaces"),
        (b"HTTP/1.1 200 O\x00K\r\nX: a", ANY, "RFC 9112 4"),
        (b"HTTP/1.1 200 OK\nX: a", ANY, "RFC 9112 2.2"),
        (b"HTTP/1.1 200 OK\rX: a", ANY, "RFC 9112 2.2"),
        (b"HTTP/9.9 200 OK\r\nX: a", HeadError::Version, "RFC 9110 6.2"),
        (b"\r\nHTTP/1.1 200 OK\r\nX: a", ANY, "RFC 9112 2.2 lets only servers pass over empty lines"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x", ANY, "RFC 9110 7.8, unasked"),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 2", ANY, "RFC 9110 8.6"),
        (b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked", ANY, "RFC 9112 6.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2", ANY, "RFC 9112 6.3"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked", ANY, "RFC 9112 6.3, rule 3"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", Coding, "RFC 9112 6.1"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", ANY, "RFC 9112 6.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2", ANY, "RFC 9112 5.1"),
        (b"HTTP/1.1 200 OK\r\nX-A: a\r\n b", ANY, "RFC 9112 5.2"),
        (b"HTTP/1.1 200 OK\r\ngarbage line", ANY, "RFC 9112 5"),
    ];
    for (text, want, rule) in rows {
        refused(answer(&[text, b"\r\n\r\n".as_slice()].concat()), *want, rule.as_bytes());
    }
}

#[test]
fn a_head_is_reused_without_a_trace() {
    let mut head = RequestHead::new();
    let first = with_fields(b"Connection: x-a, close\r\nTransfer-Encoding: chunked\r\nX-A: 1");
    head.parse(&first).unwrap().unwrap();
    head.reset();
    let second = with_fields(b"X-A: 1");
    head.parse(&second).unwrap().unwrap();
    assert_eq!(format!("{head:?}"), format!("{:?}", request(&second).unwrap()));
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"POST / HTTP/1.1\r\n"[..],
        b"GET http://a:1/b?c HTTP/1.0\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204 \r\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: x, close\r\n",
        b"X: a\r\n",
        b"x:\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b" ",
        b":",
        b"a",
        b"\x00",
        b"\xff",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"?",
        b"%",
        b"Host: [::1]:1\r\n",
        b",",
    ]);
    prop::collection::vec(
        prop_oneof![8 => piece.prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..4)],
        0..12,
    )
    .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cutting_changes_nothing(bytes in pieces(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6), to_head: bool) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        same(&request_cut(&bytes, []), &request_cut(&bytes, cuts.clone()), &bytes);
        same(&answer_cut(&bytes, to_head, []), &answer_cut(&bytes, to_head, cuts), &bytes);
    }

    #[test]
    fn an_accepted_head_has_one_reading(middle in pieces()) {
        let bytes = [b"POST / HTTP/1.1\r\nHost: a\r\n".as_slice(), &middle, b"\r\n\r\n"].concat();
        if let Ok(Some((n, head))) = request_cut(&bytes, []) {
            let text = &bytes[..n];
            prop_assert!(text.ends_with(b"\r\n\r\n"));
            let breaks = text.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
            let pairs = text.windows(2).filter(|pair| pair == b"\r\n").count();
            prop_assert_eq!(breaks, 2 * pairs, "every CR and LF is half of a line end");
            let lengths = head.fields.iter().filter(|field| field.name.of(&bytes).eq_ignore_ascii_case(b"content-length")).count();
            let codings = head.fields.iter().filter(|field| field.name.of(&bytes).eq_ignore_ascii_case(b"transfer-encoding")).count();
            prop_assert!(lengths + codings <= 1);
            prop_assert!(head.path(&bytes).starts_with(b"/"));
        }
    }
}
