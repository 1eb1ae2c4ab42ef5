//! Bodies: the same payload however they are cut, and the one that the letter of the standard gives; what is encoded comes
//! back; nothing behind the end is touched.

use super::{cuts, dice, pieces};
use forebay::wire::{BodyDecoder, BodyError, CHUNK_END, Framing, LAST_CHUNK, chunk_head, head::is_name_byte};

/// Below this, no bound of the decoder's is in the way of a valid body.
const SMALL_BYTES: usize = 4096;

/// Payload, consumed bytes, and how the body stood when its bytes were over.
type Seen = Result<(Vec<u8>, usize, Result<(), BodyError>), BodyError>;

fn strip(framing: Framing, bytes: &[u8], ends: &[usize]) -> Seen {
    let mut decoder = BodyDecoder::new(framing);
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in pieces(bytes, ends) {
        let mut piece = piece.to_vec();
        let stripped = decoder.strip(&mut piece).inspect_err(|error| {
            assert_eq!(decoder.clone().strip(&mut []), Err(*error), "an error stays");
        })?;
        assert!(stripped.payload.end <= piece.len() && stripped.consumed <= piece.len());
        assert!(stripped.consumed == piece.len() || decoder.is_done(), "it stops only at the body's end");
        consumed += stripped.consumed;
        payload.extend_from_slice(&piece[stripped.payload]);
    }
    assert_eq!(decoder.payload_bytes(), payload.len() as u64);
    let done = decoder.is_done();
    let ended = decoder.eof();
    assert_eq!(ended.is_ok(), done || framing == Framing::UntilClose);
    Ok((payload, consumed, ended))
}

/// Whole, and in every way of cutting it.
fn strip_all(framing: Framing, bytes: &[u8]) -> Seen {
    let whole = strip(framing, bytes, &[bytes.len()]);
    for ends in cuts(bytes) {
        assert_eq!(strip(framing, bytes, &ends), whole, "{framing:?} cut at {ends:?}");
    }
    whole
}

/// The property of a body, the bytes taken for what was received and for what is to be sent.
pub fn body(bytes: &[u8]) {
    let chunked = strip_all(Framing::Chunked, bytes);
    let complete = match &chunked {
        Ok((payload, consumed, Ok(()))) => Some((payload.clone(), *consumed)),
        _ => None,
    };
    let by_the_letter = by_the_letter(bytes);
    if complete.is_some() || bytes.len() < SMALL_BYTES {
        assert_eq!(complete, by_the_letter);
    }
    if let Ok((payload, consumed, ended)) = chunked {
        assert!(payload.len() <= consumed && consumed <= bytes.len());
        if ended.is_ok() {
            let rest = [&bytes[..consumed], b"0\r\n\r\nGET / HTTP/1.1\r\n"].concat();
            assert_eq!(strip(Framing::Chunked, &rest, &[rest.len()]), Ok((payload.clone(), consumed, Ok(()))));
            come_back(&payload);
        }
    }
    come_back(bytes);
    let mut dice = dice(bytes);
    let length = dice.below(bytes.len() as u64 + 9);
    let taken = (length as usize).min(bytes.len());
    let ended = if taken as u64 == length { Ok(()) } else { Err(BodyError::Truncated) };
    assert_eq!(strip_all(Framing::Length(length), bytes), Ok((bytes[..taken].to_vec(), taken, ended)));
    assert_eq!(strip_all(Framing::UntilClose, bytes), Ok((bytes.to_vec(), bytes.len(), Ok(()))));
    assert_eq!(strip_all(Framing::None, bytes), Ok((Vec::new(), 0, Ok(()))));
}

/// RFC 9112 section 7.1 with all bytes at hand: the payload of a whole chunked body, and the body's length.
fn by_the_letter(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut payload, mut at) = (Vec::new(), 0);
    loop {
        let line = line_at(bytes, &mut at)?;
        let (size, extension) = match line.iter().position(|byte| *byte == b';') {
            Some(semicolon) => (without_blanks(&line[..semicolon]), &line[semicolon + 1..]),
            None => (line, &[][..]),
        };
        let digits = size.iter().all(u8::is_ascii_hexdigit) && (1..=16).contains(&size.len());
        let size = str::from_utf8(size).ok().filter(|_| digits)?;
        let size = u64::from_str_radix(size, 16).ok().filter(|size| u32::try_from(*size).is_ok())? as usize;
        if extension.iter().any(|byte| is_control(*byte)) {
            return None;
        }
        if size == 0 {
            break;
        }
        payload.extend_from_slice(bytes.get(at..at + size)?);
        at += size;
        (bytes.get(at..at + 2)? == CHUNK_END).then_some(())?;
        at += 2;
    }
    for _ in 0..=100 {
        let line = line_at(bytes, &mut at)?;
        if line.is_empty() {
            return Some((payload, at));
        }
        let colon = line.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0)?;
        let is_field = line[..colon].iter().copied().all(is_name_byte) && !line.iter().copied().any(is_control);
        is_field.then_some(())?;
    }
    None
}

/// The line at `at`, which moves behind its CRLF.
fn line_at<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..)?;
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    rest[end..].starts_with(b"\r\n").then_some(())?;
    *at += end + 2;
    Some(&rest[..end])
}

fn without_blanks(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |at| at + 1);
    &text[..end]
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// A payload comes back out of the chunks that it is sent in, with nothing missing and nothing behind it taken.
fn come_back(payload: &[u8]) {
    let (mut dice, mut sent, mut rest) = (dice(payload), Vec::new(), payload);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + dice.below(rest.len().min(700) as u64) as usize);
        sent.extend([chunk_head(chunk.len()).as_bytes(), chunk, CHUNK_END].concat());
        rest = after;
    }
    sent.extend(LAST_CHUNK);
    let length = sent.len();
    sent.extend(b"5\r\nhello\r\n");
    assert_eq!(strip_all(Framing::Chunked, &sent), Ok((payload.to_vec(), length, Ok(()))));
    assert!(chunk_head(0).as_bytes().is_empty(), "an empty chunk would end the body");
}
