//! Bodies: the same payload however they are cut; what is encoded comes back; nothing behind the end is touched.

use super::{cuts, dice, pieces};
use forebay::wire::{BodyDecoder, BodyError, CHUNK_END, Framing, LAST_CHUNK, chunk_head};

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
    if let Ok((payload, consumed, ended)) = strip_all(Framing::Chunked, bytes) {
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
