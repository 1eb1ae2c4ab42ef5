use super::*;
use proptest::prelude::*;

/// Ends and names of all events when `bytes` come cut at `cuts`, and whether one is unfinished.
fn scan_cut(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> (Vec<(usize, Vec<u8>)>, bool) {
    let mut scanner = EventScanner::new();
    let (mut events, mut start) = (Vec::new(), 0);
    for cut in cuts.into_iter().chain([bytes.len()]) {
        let (part, mut from) = (&bytes[start..cut], 0);
        while let Some(end) = scanner.next(part, from) {
            assert!(end >= from && end <= part.len());
            events.push((start + end, scanner.name().to_vec()));
            assert!(!scanner.is_partial());
            from = end;
        }
        start = cut;
    }
    (events, scanner.is_partial())
}

/// The same by the letter of the standard, with the whole stream at hand: one pass, a byte at a time.
fn by_the_letter(bytes: &[u8]) -> (Vec<(usize, Vec<u8>)>, bool) {
    let (mut events, mut name, mut line, mut last, mut at) = (Vec::new(), Vec::new(), Vec::new(), 0, 0);
    let mut first = true;
    while at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        if byte != b'\n' && byte != b'\r' {
            line.push(byte);
            continue;
        }
        if byte == b'\r' && at == bytes.len() {
            return (events, true); // it may want its LF
        }
        if byte == b'\r' && bytes[at] == b'\n' {
            at += 1;
        }
        if std::mem::take(&mut first) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            events.push((at, std::mem::take(&mut name)));
            last = at;
        } else {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            if &line[..colon] == b"event" {
                name = value.strip_prefix(b" ").unwrap_or(value).iter().copied().take(EVENT_NAME_BYTES_MAX).collect();
            }
        }
        line.clear();
    }
    (events, last < bytes.len())
}

fn scan(bytes: &[u8]) -> (Vec<(usize, Vec<u8>)>, bool) {
    let whole = scan_cut(bytes, []);
    assert_eq!(whole, scan_cut(bytes, 0..bytes.len()), "a byte at a time");
    for cut in 0..bytes.len() {
        assert_eq!(whole, scan_cut(bytes, [cut]), "cut at {cut}");
    }
    whole
}

/// Bytes, the ends and names of their events, whether one is unfinished, and the rule.
type Row = (&'static str, &'static [(usize, &'static str)], bool, &'static str);

#[test]
fn events_end_at_blank_lines() {
    let long = "e".repeat(EVENT_NAME_BYTES_MAX + 20);
    let rows: &[Row] = &[
        ("event: ping\ndata: {}\n\n", &[(22, "ping")], false, "LF"),
        ("event: ping\r\ndata: {}\r\n\r\n", &[(25, "ping")], false, "CRLF"),
        ("event: ping\rdata: {}\r\rx", &[(22, "ping")], true, "CR"),
        ("event: ping\rdata: {}\r\r", &[], true, "a last CR may want its LF"),
        ("event:x\r\n\nevent:y\n\r\n", &[(10, "x"), (20, "y")], false, "mixed line ends"),
        ("data: a\n\ndata: b\n\n", &[(9, ""), (18, "")], false, "no name"),
        (": keep-alive\n\n", &[(14, "")], false, "a comment is an event without content"),
        ("\n\n\n", &[(1, ""), (2, ""), (3, "")], false, "blank lines only"),
        ("event: a\nevent: b\n\nevent\n\n", &[(19, "b"), (26, "")], false, "the last name counts; no colon, no name"),
        ("event: a\n\ndata: b\n\n", &[(10, "a"), (19, "")], false, "a name belongs to one event"),
        ("event:  a \n\n", &[(12, " a ")], false, "one space goes"),
        ("Event: a\neventx: b\n event: c\n\n", &[(30, "")], false, "other names"),
        ("\u{feff}event: a\n\n", &[(13, "a")], false, "byte order mark"),
        ("\u{feff}\n", &[(4, "")], false, "byte order mark alone on a blank line"),
        ("data: x", &[], true, "unfinished"),
        ("", &[], false, "nothing"),
    ];
    for (text, events, partial, rule) in rows {
        let events: Vec<_> = events.iter().map(|(end, name)| (*end, name.as_bytes().to_vec())).collect();
        assert_eq!(scan(text.as_bytes()), (events.clone(), *partial), "{rule}");
        assert_eq!(by_the_letter(text.as_bytes()), (events, *partial), "the reference agrees: {rule}");
    }
    let (events, _) = scan(format!("event: {long}\n\n").as_bytes());
    assert_eq!(events[0].1.len(), EVENT_NAME_BYTES_MAX);
}

#[test]
fn data_is_taken_from_its_lines() {
    let lines: Vec<_> = data_lines(b"event: a\r\ndata: {\"a\": 1}\r\ndata:b\ndata\nxdata: c\n\n").collect();
    assert_eq!(lines, [&b"{\"a\": 1}"[..], b"b"]);
}

proptest! {
    #[test]
    fn every_cut_gives_what_the_standard_says(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "event: message_start", "event:x", "data: {\"a\":\"b\"}", "\n", "\n", "\r\n", "\r", "\n\n", "\r\n\r\n", ": c", "e", "even", "t:", " ", "\u{feff}",
            "event: 0123456789012345678901234567890123456789012345678901234567890123456789", "é",
        ]), 0..14),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = pieces.concat().into_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(scan_cut(&bytes, cuts), by_the_letter(&bytes));
        prop_assert_eq!(scan_cut(&bytes, 0..bytes.len()), by_the_letter(&bytes));
    }
}

#[test]
fn a_stream_that_ends_with_the_cr_of_a_blank_line_ended_with_an_event() {
    let mut scanner = EventScanner::new();
    assert_eq!(scanner.next(b"event: a\rdata: 1\r\r", 0), None);
    assert!(scanner.finish() && !scanner.is_partial());
    assert_eq!(scanner.name(), b"a");
    assert!(!scanner.finish(), "once");
    let mut cut = EventScanner::new();
    assert_eq!(cut.next(b"event: a\rdata: 1\r", 0), None);
    assert!(!cut.finish());
}
