//! The few fields of a request body that routing needs, found while the body arrives and without changing it.
//!
//! Not a JSON parser: only the top-level object and `metadata` are read by the grammar. Every other value is skipped,
//! its strings by a search for quote and backslash, its brackets by matching; whether it is valid is the upstream's
//! to say (R23). But what decides the route must have one reading only, so a routing key that comes twice, or in
//! another case, is refused: parsers differ on which of them wins.

mod text;

#[cfg(test)]
mod tests;

pub use text::{ModelText, unescaped};

use crate::base::{bounds::JSON_DEPTH_MAX, failure::Kind};
use memchr::memchr2;
use std::ops::Range;

/// Bytes of a model's name, unescaped.
pub const MODEL_BYTES_MAX: usize = 256;
/// Bytes of `metadata.user_id`, unescaped; a longer one is passed over.
pub const USER_ID_BYTES_MAX: usize = 1024;

/// A key of more bytes, as written, is no routing key: the longest has ten, each at most six as `\u00xx`.
const KEY_RAW_BYTES_MAX: usize = 64;
/// A number or word of more bytes cannot be a right value of a routing key.
const SCALAR_BYTES_MAX: usize = 24;

/// Why a body cannot be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The first byte is not `{`.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// Brackets do not match.
    #[error("the body's brackets do not match")]
    Unbalanced,
    /// The top-level object breaks the grammar; the text says where.
    #[error("the body is not valid JSON: {0}")]
    Malformed(&'static str),
    /// Nesting is over `JSON_DEPTH_MAX`.
    #[error("the body is nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// A routing key comes twice.
    #[error("the body has `{0}` twice")]
    Duplicate(&'static str),
    /// A key differs from a routing key in case only.
    #[error("the body has `{0}` in another spelling; some servers take that for the real one")]
    Lookalike(&'static str),
    /// A routing key's value has the wrong type.
    #[error("`{0}` has a value of the wrong type")]
    WrongType(&'static str),
    /// A routing key's value is over its bound.
    #[error("`{0}` is too long")]
    TooLong(&'static str),
    /// The body ends before the object does.
    #[error("the body ends before its JSON object does")]
    Truncated,
    /// Something follows the object.
    #[error("something follows the body's JSON object")]
    TrailingBytes,
}

impl ScanError {
    /// The failure that the request gets.
    pub const fn kind(&self) -> Kind {
        Kind::BodyUnreadable
    }
}

/// The model, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelAt {
    /// Its name, unescaped.
    pub text: ModelText,
    /// Offsets in the body of the JSON string, its quotes included.
    pub at: Range<u64>,
}

/// What a body says about its own routing. `null` counts as absent, but for `model`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peeked {
    /// `model`.
    pub model: Option<ModelAt>,
    /// `stream`.
    pub stream: Option<bool>,
    /// `max_tokens`.
    pub max_tokens: Option<u64>,
    /// `metadata.user_id`, unescaped; absent as well if it is over `USER_ID_BYTES_MAX` or no valid string.
    pub metadata_user_id: Option<Vec<u8>>,
    /// `tools` is an array with something in it.
    pub has_tools: bool,
    /// `thinking` is there, whatever it says.
    pub has_thinking: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum At {
    #[default]
    Start,
    FirstKey,
    NextKey,
    InKey,
    Colon,
    Value,
    Captured,
    Skipped,
    Scalar,
    Nested,
    NestedString,
    AfterValue,
    End,
}

/// Keys that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Key {
    #[default]
    Other,
    Model,
    Stream,
    MaxTokens,
    Metadata,
    UserId,
    Tools,
    Thinking,
}

impl Key {
    /// It only says what the request demands of a target. Read twice or not at all it leads at worst to an error that
    /// the upstream tells, so it is not refused.
    fn is_hint(self) -> bool {
        matches!(self, Key::Tools | Key::Thinking)
    }
}

const ROOT_KEYS: [(&str, Key); 6] = [
    ("model", Key::Model),
    ("stream", Key::Stream),
    ("max_tokens", Key::MaxTokens),
    ("metadata", Key::Metadata),
    ("tools", Key::Tools),
    ("thinking", Key::Thinking),
];
const METADATA_KEYS: [(&str, Key); 1] = [("user_id", Key::UserId)];

/// The scan of one body. It keeps a few hundred bytes at most, and no part of the body but the values it looks for.
#[derive(Clone, Debug, Default)]
pub struct FieldScan {
    at: At,
    failed: Option<ScanError>,
    in_metadata: bool,
    key: Key,
    seen: u8,
    /// A backslash was the last byte, inside a string.
    escaped: bool,
    /// Open brackets of a skipped value; the bits of `kinds` tell objects from arrays, the innermost lowest.
    depth: u32,
    kinds: u128,
    /// The key, string or scalar that is being kept, as written.
    raw: Vec<u8>,
    raw_over: bool,
    /// Stream offset of the bytes that are being fed.
    base: u64,
    value_start: u64,
    found: Peeked,
}

impl FieldScan {
    /// A scan that has seen no byte. It allocates when the first key comes.
    pub fn new() -> FieldScan {
        FieldScan::default()
    }

    /// Forgets the body, keeps the room.
    pub fn reset(&mut self) {
        let mut raw = std::mem::take(&mut self.raw);
        raw.clear();
        *self = FieldScan { raw, ..FieldScan::default() };
    }

    /// Takes the next bytes of the body. After an error every call gives the same error.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut at = 0;
        while at < bytes.len() {
            at = self.scan(bytes, at).inspect_err(|error| self.failed = Some(*error))?;
        }
        self.base += bytes.len() as u64;
        Ok(())
    }

    /// What has been found up to here; a later byte may still make the body unreadable.
    pub fn so_far(&self) -> &Peeked {
        &self.found
    }

    /// The body is over: what it said. The scan is spent; `reset` makes it new.
    pub fn finish(&mut self) -> Result<Peeked, ScanError> {
        match (self.failed, self.at) {
            (Some(error), _) => Err(error),
            (None, At::End) => Ok(std::mem::take(&mut self.found)),
            (None, _) => {
                self.failed = Some(ScanError::Truncated);
                Err(ScanError::Truncated)
            }
        }
    }

    /// Reads on from `at`; gives the offset up to which it has read.
    fn scan(&mut self, bytes: &[u8], at: usize) -> Result<usize, ScanError> {
        match self.at {
            At::InKey | At::Captured => self.keep_string(bytes, at),
            At::Skipped => Ok(self.skip_string(bytes, at, At::AfterValue)),
            At::NestedString => Ok(self.skip_string(bytes, at, At::Nested)),
            At::Nested => self.skip_nested(bytes, at),
            At::Scalar => self.keep_scalar(bytes, at),
            _ => {
                let byte = bytes.get(at).copied().unwrap_or(b' ');
                if is_space(byte) { Ok(at + 1) } else { self.between(byte, at) }
            }
        }
    }

    /// A byte of the grammar, in the top-level object or in `metadata`.
    fn between(&mut self, byte: u8, at: usize) -> Result<usize, ScanError> {
        self.at = match (self.at, byte) {
            (At::Start, b'{') => At::FirstKey,
            (At::Start, _) => return Err(ScanError::NotAnObject),
            (At::FirstKey | At::NextKey, b'"') => {
                self.raw.clear();
                self.raw_over = false;
                At::InKey
            }
            (At::FirstKey | At::AfterValue, b'}') if self.in_metadata => {
                self.in_metadata = false;
                At::AfterValue
            }
            (At::FirstKey | At::AfterValue, b'}') => At::End,
            (At::Colon, b':') => At::Value,
            (At::Value, _) => return self.begin_value(byte, at),
            (At::AfterValue, b',') => At::NextKey,
            (At::AfterValue, b']') => return Err(ScanError::Unbalanced),
            (At::End, _) => return Err(ScanError::TrailingBytes),
            (At::FirstKey | At::NextKey, _) => return Err(ScanError::Malformed("a key is missing")),
            (At::Colon, _) => return Err(ScanError::Malformed("a colon is missing")),
            _ => return Err(ScanError::Malformed("a comma is missing")),
        };
        Ok(at + 1)
    }

    fn begin_value(&mut self, byte: u8, at: usize) -> Result<usize, ScanError> {
        self.raw.clear();
        self.raw_over = false;
        self.at = match (self.key, byte) {
            (Key::Model | Key::UserId, b'"') => {
                self.value_start = self.base + at as u64;
                At::Captured
            }
            (Key::Metadata, b'{') => {
                self.in_metadata = true;
                At::FirstKey
            }
            (Key::Model, _) => return Err(ScanError::WrongType("model")),
            (Key::Stream, b'"' | b'{' | b'[') => return Err(ScanError::WrongType("stream")),
            (Key::MaxTokens, b'"' | b'{' | b'[') => return Err(ScanError::WrongType("max_tokens")),
            (_, b'"') => At::Skipped,
            (key, b'{' | b'[') => {
                self.found.has_thinking |= key == Key::Thinking && byte == b'{';
                self.open(byte)?;
                At::Nested
            }
            (_, b'}' | b']' | b',' | b':') => return Err(ScanError::Malformed("a value is missing")),
            _ => {
                self.at = At::Scalar;
                return Ok(at);
            }
        };
        Ok(at + 1)
    }

    /// A string whose bytes are wanted.
    fn keep_string(&mut self, bytes: &[u8], at: usize) -> Result<usize, ScanError> {
        let end = string_end(bytes, at, &mut self.escaped);
        let part = bytes.get(at..end.unwrap_or(bytes.len())).unwrap_or_default();
        let room = match (self.at, self.key) {
            (At::InKey, _) => KEY_RAW_BYTES_MAX,
            (_, Key::Model) => MODEL_BYTES_MAX * 6,
            _ => USER_ID_BYTES_MAX * 6,
        };
        self.raw_over |= self.raw.len() + part.len() > room;
        if !self.raw_over {
            if self.raw.capacity() == 0 {
                self.raw.reserve(KEY_RAW_BYTES_MAX); // once, instead of growing towards it
            }
            self.raw.extend_from_slice(part);
        }
        let Some(end) = end else { return Ok(bytes.len()) };
        if self.at == At::InKey {
            self.key = self.read_key()?;
            self.at = At::Colon;
        } else {
            self.read_string(self.base + end as u64 + 1)?;
            self.at = At::AfterValue;
        }
        Ok(end + 1)
    }

    /// Which key has just been read; notes that it was there.
    fn read_key(&mut self) -> Result<Key, ScanError> {
        if self.raw_over {
            return Ok(Key::Other);
        }
        let mut plain = [0; KEY_RAW_BYTES_MAX];
        let name =
            text::unescape(&self.raw, &mut plain).map_err(|_| ScanError::Malformed("a key has a broken escape"))?;
        let keys: &[_] = if self.in_metadata { &METADATA_KEYS } else { &ROOT_KEYS };
        let Some((text, key)) = keys.iter().find(|(text, _)| text.as_bytes().eq_ignore_ascii_case(name)) else {
            return Ok(Key::Other);
        };
        if key.is_hint() {
            return Ok(if text.as_bytes() == name { *key } else { Key::Other });
        }
        if text.as_bytes() != name {
            return Err(ScanError::Lookalike(text));
        }
        let bit = 1 << *key as u8;
        if self.seen & bit != 0 {
            return Err(ScanError::Duplicate(text));
        }
        self.seen |= bit;
        Ok(*key)
    }

    /// The string that has just been read is the model or the user id.
    fn read_string(&mut self, end: u64) -> Result<(), ScanError> {
        if self.key == Key::Model {
            if self.raw_over {
                return Err(ScanError::TooLong("model"));
            }
            let text = ModelText::unescaped(&self.raw).map_err(|fault| match fault {
                text::Fault::TooLong => ScanError::TooLong("model"),
                text::Fault::Invalid => ScanError::WrongType("model"),
            })?;
            self.found.model = Some(ModelAt { text, at: self.value_start..end });
        } else if !self.raw_over {
            let mut plain = [0; USER_ID_BYTES_MAX];
            self.found.metadata_user_id = text::unescape(&self.raw, &mut plain).ok().map(<[u8]>::to_vec);
        }
        Ok(())
    }

    /// A number, `true`, `false` or `null`.
    fn keep_scalar(&mut self, bytes: &[u8], at: usize) -> Result<usize, ScanError> {
        let rest = bytes.get(at..).unwrap_or_default();
        let len = rest.iter().position(|byte| ends_scalar(*byte)).unwrap_or(rest.len());
        let part = rest.get(..len).unwrap_or_default();
        self.raw_over |= self.raw.len() + part.len() > SCALAR_BYTES_MAX;
        if !self.raw_over {
            self.raw.extend_from_slice(part);
        }
        match rest.get(len) {
            None => Ok(bytes.len()),
            Some(b'"' | b'{' | b'[' | b':') => Err(ScanError::Malformed("a comma is missing")),
            Some(_) => {
                self.read_scalar()?;
                self.at = At::AfterValue;
                Ok(at + len)
            }
        }
    }

    fn read_scalar(&mut self) -> Result<(), ScanError> {
        match (self.key, self.raw.as_slice()) {
            (Key::Stream, _) if self.raw_over => Err(ScanError::WrongType("stream")),
            (Key::MaxTokens, _) if self.raw_over => Err(ScanError::WrongType("max_tokens")),
            (Key::Stream, b"true") => {
                self.found.stream = Some(true);
                Ok(())
            }
            (Key::Stream, b"false") => {
                self.found.stream = Some(false);
                Ok(())
            }
            (Key::Stream | Key::MaxTokens, b"null") => Ok(()),
            (Key::Stream, _) => Err(ScanError::WrongType("stream")),
            (Key::MaxTokens, raw) => {
                self.found.max_tokens = Some(whole_number(raw).ok_or(ScanError::WrongType("max_tokens"))?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Skips the rest of a string; `then` follows it.
    fn skip_string(&mut self, bytes: &[u8], at: usize, then: At) -> usize {
        match string_end(bytes, at, &mut self.escaped) {
            Some(end) => {
                self.at = then;
                end + 1
            }
            None => bytes.len(),
        }
    }

    /// Skips an object or an array and all in it.
    fn skip_nested(&mut self, bytes: &[u8], from: usize) -> Result<usize, ScanError> {
        let mut at = from;
        let in_tools = self.key == Key::Tools && (self.depth, self.kinds & 1) == (1, 0);
        if in_tools && !self.found.has_tools {
            at += bytes.get(at..).unwrap_or_default().iter().take_while(|byte| is_space(**byte)).count();
            self.found.has_tools = bytes.get(at).is_some_and(|byte| *byte != b']');
        }
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => {
                    let Some(end) = string_end(bytes, at, &mut self.escaped) else {
                        self.at = At::NestedString;
                        return Ok(bytes.len());
                    };
                    at = end + 1;
                }
                b'{' | b'[' => self.open(*byte)?,
                b'}' | b']' => {
                    if (self.kinds & 1 == 1) != (*byte == b'}') {
                        return Err(ScanError::Unbalanced);
                    }
                    self.kinds >>= 1;
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.at = At::AfterValue;
                        return Ok(at);
                    }
                }
                _ => {}
            }
        }
        Ok(at)
    }

    fn open(&mut self, byte: u8) -> Result<(), ScanError> {
        let around = 1 + u32::from(self.in_metadata);
        if self.depth + around >= JSON_DEPTH_MAX {
            return Err(ScanError::TooDeep);
        }
        self.depth += 1;
        self.kinds = (self.kinds << 1) | u128::from(byte == b'{');
        Ok(())
    }
}

/// Offset of the quote that ends the string in which `from` lies. `escaped` carries a backslash at the end of `bytes`
/// over to the next call; a `\uXXXX` needs no more, for its digits are neither quote nor backslash.
pub fn string_end(bytes: &[u8], from: usize, escaped: &mut bool) -> Option<usize> {
    let mut at = from;
    if *escaped && at < bytes.len() {
        *escaped = false;
        at += 1;
    }
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
        if at > bytes.len() {
            *escaped = true;
            return None;
        }
    }
}

fn whole_number(raw: &[u8]) -> Option<u64> {
    if raw.is_empty() || (raw.len() > 1 && raw.first() == Some(&b'0')) {
        return None;
    }
    decimal(raw)
}

/// The number that these digits are; `None` for anything else, and for one that is too large.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// White space between the parts of a document (RFC 8259 section 2).
pub const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

const fn ends_scalar(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b'}' | b']' | b'"' | b'{' | b'[' | b':')
}
