//! Server-sent events: the borders and names that the standard gives, however the stream is cut; and the events, put one
//! behind the other, are the stream.

use super::cuts;
use forebay::wire::{EventScanner, sse};

/// Where each event ends, and its name; and whether one is unfinished.
type Seen = (Vec<(usize, Vec<u8>)>, bool);

fn scan(bytes: &[u8], ends: &[usize]) -> Seen {
    let mut scanner = EventScanner::new();
    let (mut events, mut start) = (Vec::new(), 0);
    for end in ends {
        let (piece, mut from) = (&bytes[start..*end], 0);
        while let Some(border) = scanner.next(piece, from) {
            assert!(border >= from && border <= piece.len() && !scanner.is_partial());
            events.push((start + border, scanner.name().to_vec()));
            from = border;
        }
        start = *end;
    }
    (events, scanner.is_partial())
}

/// WHATWG HTML section 9.2.6, with the whole stream at hand: a line at a time.
fn by_the_letter(bytes: &[u8]) -> Seen {
    let (mut events, mut name, mut at, mut last) = (Vec::new(), Vec::new(), 0, 0);
    while let Some(length) = bytes[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let mut line = &bytes[at..at + length];
        if at == 0 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let ending = &bytes[at + length..];
        if ending == b"\r" {
            return (events, true); // its LF may come yet
        }
        at += length + if ending.starts_with(b"\r\n") { 2 } else { 1 };
        if line.is_empty() {
            events.push((at, std::mem::take(&mut name)));
            last = at;
        } else if let Some(rest) = line.strip_prefix(b"event")
            && let Some(value) = rest.strip_prefix(b":").or(rest.is_empty().then_some(rest))
        {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            name = value[..value.len().min(sse::EVENT_NAME_BYTES_MAX)].to_vec();
        }
    }
    (events, last < bytes.len())
}

/// The property of a stream.
pub fn events(bytes: &[u8]) {
    let whole = scan(bytes, &[bytes.len()]);
    assert_eq!(whole, by_the_letter(bytes));
    for ends in cuts(bytes) {
        assert_eq!(scan(bytes, &ends), whole, "cut at {ends:?}");
    }
    let (mut joined, mut start) = (Vec::new(), 0);
    for (end, _) in &whole.0 {
        let event = &bytes[start..*end];
        assert!(event.ends_with(b"\n") || event.ends_with(b"\r"), "an event ends with its blank line");
        // One event read by itself is one event: nothing of it depends on what came before it.
        let alone = [event, b"\n"].concat();
        let found = scan(&alone, &[alone.len()]).0;
        assert!(start == 0 || event.starts_with(b"\xef\xbb\xbf") || found.len() == 2 || event.ends_with(b"\r"));
        joined.extend_from_slice(event);
        start = *end;
        assert!(sse::data_lines(event).map(<[u8]>::len).sum::<usize>() <= event.len());
    }
    joined.extend_from_slice(&bytes[start..]);
    assert_eq!(joined, bytes);
    assert_eq!(whole.1, start < bytes.len(), "unfinished exactly if something is left");
}
