use super::BodyError::{Malformed, TooLong, Truncated};
use super::*;
use proptest::prelude::*;
use std::mem::discriminant;

/// Payload and consumed bytes when `bytes` come cut at `cuts`.
fn strip_cut(
    framing: Framing,
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut body = BodyDecoder::new(framing);
    let (mut payload, mut consumed, mut from) = (Vec::new(), 0, 0);
    for cut in cuts.into_iter().chain([bytes.len()]) {
        let mut part = bytes[from..cut].to_vec();
        let stripped = body.strip(&mut part)?;
        payload.extend_from_slice(&part[stripped.payload]);
        consumed += stripped.consumed;
        assert!(stripped.consumed == part.len() || body.is_done(), "stops only at the body's end");
        from = cut;
    }
    assert_eq!(body.payload_bytes(), payload.len() as u64);
    Ok((payload, consumed, body.is_done()))
}

/// Whole, a byte at a time, and in two parts cut at every place.
fn strip(bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let whole = strip_cut(Framing::Chunked, bytes, []);
    assert_eq!(whole, strip_cut(Framing::Chunked, bytes, 0..bytes.len()));
    for cut in 0..bytes.len().min(200) {
        assert_eq!(whole, strip_cut(Framing::Chunked, bytes, [cut]), "cut at {cut}");
    }
    whole
}

#[test]
fn chunks_of_one_read_become_one_payload() {
    let mut bytes = *b"5\r\nhello\r\n6;a=\"b c\"\r\n world\r\n0\r\nX-T: 1\r\n\r\nGET";
    let mut body = BodyDecoder::new(Framing::Chunked);
    let stripped = body.strip(&mut bytes).unwrap();
    assert_eq!(&bytes[stripped.payload], b"hello world");
    assert_eq!(stripped.consumed, bytes.len() - 3);
    assert!(body.is_done());
}

#[test]
fn a_single_chunk_does_not_move() {
    let mut bytes = *b"5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(BodyDecoder::new(Framing::Chunked).strip(&mut bytes).unwrap().payload, 3..8);
}

#[test]
fn good_chunks_are_taken() {
    let rows: &[(&[u8], &str)] = &[
        (b"A\r\n0123456789\r\n0\r\n\r\n", "RFC 9112 7.1, upper case"),
        (b"0000000000000a\r\n0123456789\r\n000\r\n\r\n", "RFC 9112 7.1, leading zeros"),
        (b"a;b\r\n0123456789\r\n0;c=d\r\n\r\n", "RFC 9112 7.1.1"),
        (b"a \t;b=\"\xff ;\"\r\n0123456789\r\n0\r\n\r\n", "RFC 9112 7.1.1, white space before the semicolon"),
        (b"a\r\n0123456789\r\n0\r\nX-T: 1\r\nContent-Length:\r\n\r\n", "RFC 9112 7.1.2, dropped whatever they say"),
    ];
    for (bytes, rule) in rows {
        assert_eq!(strip(bytes), Ok((b"0123456789".to_vec(), bytes.len(), true)), "{rule}");
    }
}

#[test]
fn broken_chunks_are_refused() {
    let rows: &[(&[u8], BodyError, &str)] = &[
        (b"\r\n\r\n", Malformed(""), "RFC 9112 7.1, an empty size is not 0"),
        (b"0x1\r\na\r\n0\r\n\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"+1\r\na\r\n0\r\n\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"-1\r\na\r\n0\r\n\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"1_0\r\n", Malformed(""), "RFC 9112 7.1"),
        (b" 1\r\na\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"1 \r\na\r\n", Malformed(""), "RFC 9112 7.1, white space but no semicolon"),
        (b"1 1\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"\"1\"\r\na\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"\xef\xbc\x91\r\na\r\n", Malformed(""), "RFC 9112 7.1, a digit of another script"),
        (b"1\x00\r\na\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"00000000000000001\r\na\r\n", Malformed(""), "ours: 17 digits"),
        (b"100000000\r\n", Malformed(""), "ours: over 4 GiB"),
        (b"ffffffffffffffff\r\n", Malformed(""), "ours: over 4 GiB"),
        (b"1\na\r\n0\r\n\r\n", Malformed(""), "RFC 9112 2.2, a bare LF"),
        (b"1\ra\r\n0\r\n\r\n", Malformed(""), "RFC 9112 2.2, a bare CR"),
        (b"1\r\r\na\r\n", Malformed(""), "RFC 9112 2.2"),
        (b"1;a\nb\r\na\r\n", Malformed(""), "RFC 9112 7.1.1, a bare LF in an extension"),
        (b"1;a\rb\r\na\r\n", Malformed(""), "RFC 9112 7.1.1, a bare CR in an extension"),
        (b"1;\x00\r\na\r\n", Malformed(""), "RFC 9112 7.1.1"),
        (b"1;\x7f\r\na\r\n", Malformed(""), "RFC 9112 7.1.1"),
        (b"1\r\na\n0\r\n\r\n", Malformed(""), "RFC 9112 7.1, data not followed by CRLF"),
        (b"1\r\naXX0\r\n\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"1\r\na\rX0\r\n\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"1\r\na0\r\n\r\n", Malformed(""), "RFC 9112 7.1"),
        (b"0\n\n", Malformed(""), "RFC 9112 2.2"),
        (b"0\r\nXX\r\n", Malformed(""), "RFC 9112 7.1.2, no colon"),
        (b"0\r\n: 1\r\n\r\n", Malformed(""), "RFC 9112 7.1.2, no name"),
        (b"0\r\nX : 1\r\n\r\n", Malformed(""), "RFC 9112 5.1"),
        (b"0\r\nX: 1\n\r\n", Malformed(""), "RFC 9112 2.2"),
        (b"0\r\nX: \x00\r\n\r\n", Malformed(""), "RFC 9110 5.5"),
        (b"0\r\nX: 1\r\n y\r\n\r\n", Malformed(""), "RFC 9112 5.2, obs-fold"),
        (b"0\r\n\rX", Malformed(""), "RFC 9112 7.1"),
    ];
    for (bytes, want, rule) in rows {
        let error = strip(bytes).expect_err(rule);
        assert_eq!(discriminant(&error), discriminant(want), "{rule}: {error:?}");
    }
}

#[test]
fn framing_is_bounded() {
    let line = |len: usize| [b"1;".as_slice(), &vec![b'a'; len - 4], b"\r\na\r\n0\r\n\r\n"].concat();
    assert!(strip_cut(Framing::Chunked, &line(CHUNK_LINE_BYTES_MAX), []).is_ok());
    assert!(matches!(strip_cut(Framing::Chunked, &line(CHUNK_LINE_BYTES_MAX + 1), []), Err(TooLong(_))));

    let small = [[b"1;".as_slice(), &[b'a'; 200], b"\r\n{\r\n"].concat().repeat(3000), b"0\r\n\r\n".to_vec()].concat();
    assert!(matches!(strip_cut(Framing::Chunked, &small, []), Err(TooLong(_))), "more extensions than payload");
    let large = [
        [b"fff;".as_slice(), &[b'a'; 200], b"\r\n", &[b'x'; 0xfff], b"\r\n"].concat().repeat(300),
        b"0\r\n\r\n".to_vec(),
    ]
    .concat();
    assert!(strip_cut(Framing::Chunked, &large, []).is_ok());

    let trailers = |count: usize| [b"0\r\n".to_vec(), b"X: 1\r\n".repeat(count), b"\r\n".to_vec()].concat();
    assert!(strip_cut(Framing::Chunked, &trailers(FIELDS_MAX), []).is_ok());
    assert!(matches!(strip_cut(Framing::Chunked, &trailers(FIELDS_MAX + 1), []), Err(TooLong(_))));
    let long = [b"0\r\nX: ".as_slice(), &[b'a'; TRAILER_BYTES_MAX], b"\r\n\r\n"].concat();
    assert!(matches!(strip_cut(Framing::Chunked, &long, []), Err(TooLong(_))));
}

#[test]
fn every_framing_ends_where_it_says() {
    for framing in [Framing::None, Framing::Length(0)] {
        assert_eq!(strip_cut(framing, b"GET", []), Ok((Vec::new(), 0, true)), "RFC 9112 6.3");
    }
    assert_eq!(strip_cut(Framing::Length(3), b"abcGET", [1, 2]), Ok((b"abc".to_vec(), 3, true)));
    assert_eq!(strip_cut(Framing::UntilClose, b"abc", [1]), Ok((b"abc".to_vec(), 3, false)));
}

#[test]
fn a_close_is_an_end_only_where_it_may_be() {
    let ends = |framing, bytes: &[u8]| {
        let mut body = BodyDecoder::new(framing);
        body.strip(&mut bytes.to_vec()).unwrap();
        body.eof().map(|()| body.is_done())
    };
    assert_eq!(ends(Framing::UntilClose, b"abc"), Ok(true), "RFC 9112 6.3, rule 8");
    assert_eq!(ends(Framing::Length(3), b"abc"), Ok(true));
    assert_eq!(ends(Framing::Length(3), b"ab"), Err(Truncated), "RFC 9112 8");
    for cut in [&b""[..], b"1", b"1\r\na", b"1\r\na\r\n", b"1\r\na\r\n0", b"1\r\na\r\n0\r\n"] {
        assert_eq!(ends(Framing::Chunked, cut), Err(Truncated), "RFC 9112 8: {cut:?}");
    }
}

#[test]
fn an_error_stays() {
    let mut body = BodyDecoder::new(Framing::Chunked);
    let error = body.strip(&mut b"zz\r\n".to_vec()).unwrap_err();
    assert_eq!(body.strip(&mut b"0\r\n\r\n".to_vec()), Err(error));
    assert_eq!(body.eof(), Err(error));
    assert!(!body.is_done());
}

#[test]
fn what_is_announced_is_told_before_it_comes() {
    let mut body = BodyDecoder::new(Framing::Chunked);
    body.strip(&mut b"fffffff\r\nab".to_vec()).unwrap();
    assert_eq!((body.payload_bytes(), body.announced_bytes()), (2, 0x0fff_fffd));
    assert_eq!(BodyDecoder::new(Framing::Length(9)).announced_bytes(), 9);
}

#[test]
fn size_lines_are_written() {
    for (len, line) in
        [(1, "1\r\n"), (0x1f4, "1f4\r\n"), (65_536, "10000\r\n"), (0, ""), (usize::MAX, "ffffffffffffffff\r\n")]
    {
        assert_eq!(chunk_head(len).as_bytes(), line.as_bytes());
    }
}

proptest! {
    #[test]
    fn what_is_framed_comes_back(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            bytes.extend_from_slice(chunk_head(chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(CHUNK_END);
        }
        bytes.extend_from_slice(LAST_CHUNK);
        let end = bytes.len();
        bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(strip_cut(Framing::Chunked, &bytes, cuts), Ok((chunks.concat(), end, true)));
    }

    #[test]
    fn cutting_changes_nothing(pieces in prop::collection::vec(prop::sample::select(vec![
        &b"1\r\na\r\n"[..], b"3;x\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"X: 1\r\n", b"\r\n", b"\r", b"\n", b"2", b";", b"\x00", b"\xff", b"0",
    ]), 0..10)) {
        let _ = strip(&pieces.concat());
    }
}
