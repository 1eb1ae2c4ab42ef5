//! The inside of a JSON string, without its escapes (RFC 8259 section 7).

use super::MODEL_BYTES_MAX;
use std::fmt;

/// Why a string could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not fit.
    TooLong,
    /// A broken escape, half a surrogate pair, or a control byte.
    Invalid,
}

/// A model's name, held in place: at most `MODEL_BYTES_MAX` bytes of UTF-8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ModelText {
    bytes: [u8; MODEL_BYTES_MAX],
    len: u16,
}

impl ModelText {
    pub(super) fn unescaped(raw: &[u8]) -> Result<ModelText, Fault> {
        let mut bytes = [0; MODEL_BYTES_MAX];
        let text = unescape(raw, &mut bytes)?;
        let len = str::from_utf8(text).map_err(|_| Fault::Invalid)?.len();
        Ok(ModelText { bytes, len: len as u16 })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        // Checked when it was made; an empty name would be refused like any that no model has.
        self.bytes.get(..self.len as usize).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl std::ops::Deref for ModelText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for ModelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for ModelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text of `raw`, a JSON string as written, without its quotes. `out` is used only if there are escapes in it. `None`
/// if it is not valid, or longer than `out`.
pub fn unescaped<'a>(raw: &'a [u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
    if !raw.iter().any(|byte| *byte == b'\\' || *byte < b' ') {
        return Some(raw);
    }
    unescape(raw, out).ok()
}

/// Writes `raw` (a JSON string as written, without its quotes) into `out` without escapes. Bytes above 0x7f pass
/// unchecked.
pub(super) fn unescape<'a>(raw: &[u8], out: &'a mut [u8]) -> Result<&'a [u8], Fault> {
    let mut len = 0;
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte < b' ' {
            return Err(Fault::Invalid);
        }
        let mut utf8 = [*byte, 0, 0, 0];
        let mut piece: &[u8] = &utf8[..1];
        if *byte == b'\\' {
            let (character, after) = escape(rest)?;
            rest = after;
            piece = character.encode_utf8(&mut utf8).as_bytes();
        }
        out.get_mut(len..len + piece.len()).ok_or(Fault::TooLong)?.copy_from_slice(piece);
        len += piece.len();
    }
    Ok(out.get(..len).unwrap_or_default())
}

/// The character of the escape whose backslash has been read, and what follows it.
fn escape(rest: &[u8]) -> Result<(char, &[u8]), Fault> {
    let (kind, rest) = rest.split_first().ok_or(Fault::Invalid)?;
    let character = match kind {
        b'"' | b'\\' | b'/' => *kind as char,
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(rest),
        _ => return Err(Fault::Invalid),
    };
    Ok((character, rest))
}

/// `\uXXXX`, or the two that make a surrogate pair.
fn unicode(rest: &[u8]) -> Result<(char, &[u8]), Fault> {
    let (high, rest) = four_digits(rest).ok_or(Fault::Invalid)?;
    if let Some(character) = char::from_u32(high) {
        return Ok((character, rest));
    }
    let (low, rest) = rest.strip_prefix(b"\\u").and_then(four_digits).ok_or(Fault::Invalid)?;
    char::decode_utf16([high as u16, low as u16]).next().and_then(Result::ok).map(|c| (c, rest)).ok_or(Fault::Invalid)
}

fn four_digits(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = rest.split_at_checked(4)?;
    let value = digits.iter().try_fold(0, |sum, byte| Some((sum << 4) | (*byte as char).to_digit(16)?))?;
    Some((value, rest))
}
