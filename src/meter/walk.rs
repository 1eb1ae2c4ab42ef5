//! A walk through the JSON of an answer, in pieces of any size, that stops only where usage can stand. Everything else
//! is skipped: strings by a search for quote and backslash, brackets by counting. It holds one short key or value, never
//! a part of the answer, and allocates nothing.
//!
//! Not a JSON parser: whether what is skipped is valid is the client's to find out.

use super::reading::Reading;
use crate::wire::json::{decimal, is_space, string_end, unescaped};

/// A key or value of more bytes, as written, is none that is looked for: the longest key has 27, a model's name 64.
const RAW_BYTES_MAX: usize = 192;
/// Objects within objects that can hold usage: the event, its message, `usage`, `iterations`, one of them, its split.
const PLACES_MAX: usize = 6;

/// Which object the walk is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// An answer that is one document, or `message` of `message_start`.
    #[default]
    Message,
    /// The data of an event.
    Event,
    /// `delta` of `message_delta`.
    Delta,
    /// `usage`.
    Usage,
    /// `cache_creation`.
    Split,
    /// `server_tool_use`.
    Tools,
    /// `output_tokens_details`.
    Details,
    /// `iterations`, an array.
    Iterations,
    /// One of them.
    Iteration,
    /// Its `cache_creation`.
    IterationSplit,
}

/// What the key before a value makes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    Nothing,
    Inside(Place),
    Number(Number),
    Word(Word),
}

/// A number that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Input,
    Output,
    CacheRead,
    CacheWrite,
    CacheWrite5m,
    CacheWrite1h,
    Thinking,
    WebSearches,
    WebFetches,
}

/// A text that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Model,
    Stop,
    Tier,
    Speed,
    Geo,
    Kind,
}

/// What stands at `key` in `place`.
fn wanted(place: Place, key: &[u8]) -> Wanted {
    use Place::{Delta, Details, Event, Iteration, IterationSplit, Iterations, Message, Split, Tools, Usage};
    match (place, key) {
        (Event, b"message") => Wanted::Inside(Message),
        (Event, b"delta") => Wanted::Inside(Delta),
        (Event | Message, b"usage") => Wanted::Inside(Usage),
        (Message | Iteration, b"model") => Wanted::Word(Word::Model),
        (Message | Delta, b"stop_reason") => Wanted::Word(Word::Stop),
        (Usage | Iteration, b"input_tokens") => Wanted::Number(Number::Input),
        (Usage | Iteration, b"output_tokens") => Wanted::Number(Number::Output),
        (Usage | Iteration, b"cache_read_input_tokens") => Wanted::Number(Number::CacheRead),
        (Usage | Iteration, b"cache_creation_input_tokens") => Wanted::Number(Number::CacheWrite),
        (Usage, b"cache_creation") => Wanted::Inside(Split),
        (Iteration, b"cache_creation") => Wanted::Inside(IterationSplit),
        (Split | IterationSplit, b"ephemeral_5m_input_tokens") => Wanted::Number(Number::CacheWrite5m),
        (Split | IterationSplit, b"ephemeral_1h_input_tokens") => Wanted::Number(Number::CacheWrite1h),
        (Usage, b"output_tokens_details") => Wanted::Inside(Details),
        (Details, b"thinking_tokens") => Wanted::Number(Number::Thinking),
        (Usage, b"server_tool_use") => Wanted::Inside(Tools),
        (Tools, b"web_search_requests") => Wanted::Number(Number::WebSearches),
        (Tools, b"web_fetch_requests") => Wanted::Number(Number::WebFetches),
        (Usage, b"service_tier") => Wanted::Word(Word::Tier),
        (Usage, b"speed") => Wanted::Word(Word::Speed),
        (Usage, b"inference_geo") => Wanted::Word(Word::Geo),
        (Usage, b"iterations") => Wanted::Inside(Iterations),
        (Iteration, b"type") => Wanted::Word(Word::Kind),
        _ => Wanted::Nothing,
    }
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    FirstKey,
    NextKey,
    InKey,
    Colon,
    FirstElement,
    Value,
    Kept,
    Skipped,
    Scalar,
    Nested,
    NestedString,
    AfterValue,
    End,
    Lost,
}

/// The walk through one document, or through the data of one event.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    at: At,
    places: [Place; PLACES_MAX],
    /// How many of `places` are open; one at least.
    level: usize,
    wanted: Wanted,
    /// Open brackets of a skipped value.
    depth: u32,
    escaped: bool,
    raw: [u8; RAW_BYTES_MAX],
    raw_len: usize,
    raw_over: bool,
}

impl Walk {
    /// Before the first byte of what `place` says.
    pub(super) const fn new(place: Place) -> Walk {
        Walk {
            at: At::Start,
            places: [place; PLACES_MAX],
            level: 1,
            wanted: Wanted::Nothing,
            depth: 0,
            escaped: false,
            raw: [0; RAW_BYTES_MAX],
            raw_len: 0,
            raw_over: false,
        }
    }

    /// The same for the next event: nothing of the last one is left, its room is.
    pub(super) fn restart(&mut self, place: Place) {
        self.at = At::Start;
        self.places = [place; PLACES_MAX];
        self.level = 1;
        self.escaped = false;
    }

    /// Whether the outermost object has been closed.
    pub(super) fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], to: &mut Reading) {
        let mut at = 0;
        while at < bytes.len() {
            at = match self.at {
                At::InKey | At::Kept => self.keep_string(bytes, at, to),
                At::Skipped => self.skip_string(bytes, at, At::AfterValue),
                At::NestedString => self.skip_string(bytes, at, At::Nested),
                At::Nested => self.skip_nested(bytes, at),
                At::Scalar => self.keep_scalar(bytes, at, to),
                At::End | At::Lost => return,
                _ => {
                    let byte = bytes.get(at).copied().unwrap_or(b' ');
                    // A value's first byte belongs to it when it is a number or a word.
                    if is_space(byte) || self.between(byte, to) { at + 1 } else { at }
                }
            };
        }
    }

    fn place(&self) -> Place {
        self.places.get(self.level.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// A byte of the grammar; whether it has been used up.
    fn between(&mut self, byte: u8, to: &mut Reading) -> bool {
        let array = self.place() == Place::Iterations;
        self.at = match (self.at, byte) {
            (At::Start, b'{') => At::FirstKey,
            (At::FirstKey | At::NextKey, b'"') => {
                self.raw_len = 0;
                self.raw_over = false;
                At::InKey
            }
            (At::FirstKey | At::AfterValue, b'}') if !array => self.close(to),
            (At::FirstElement | At::AfterValue, b']') if array => self.close(to),
            (At::Colon, b':') => At::Value,
            (At::Value | At::FirstElement, _) => return self.begin_value(byte, to),
            (At::AfterValue, b',') if array => {
                self.wanted = Wanted::Inside(Place::Iteration);
                At::Value
            }
            (At::AfterValue, b',') => At::NextKey,
            _ => At::Lost,
        };
        true
    }

    fn begin_value(&mut self, byte: u8, to: &mut Reading) -> bool {
        self.raw_len = 0;
        self.raw_over = false;
        if let (Wanted::Inside(place), b'{' | b'[') = (self.wanted, byte)
            && (byte == b'[') == (place == Place::Iterations)
            && let Some(free) = self.places.get_mut(self.level)
        {
            *free = place;
            self.level += 1;
            to.open(place);
            self.at = if byte == b'[' { At::FirstElement } else { At::FirstKey };
            if byte == b'[' {
                self.wanted = Wanted::Inside(Place::Iteration);
            }
            return true;
        }
        let fits = match (self.wanted, byte) {
            (Wanted::Nothing, _) | (Wanted::Word(_), b'"') | (_, b'n') => true,
            (Wanted::Number(_), byte) => byte.is_ascii_digit(),
            _ => false,
        };
        if !fits {
            to.wrong();
            self.wanted = Wanted::Nothing;
        }
        self.at = match byte {
            b'"' if self.wanted == Wanted::Nothing => At::Skipped,
            b'"' => At::Kept,
            b'{' | b'[' => {
                self.depth = 1;
                At::Nested
            }
            b'}' | b']' | b',' | b':' => At::Lost,
            _ => {
                self.at = At::Scalar;
                return false;
            }
        };
        true
    }

    fn close(&mut self, to: &mut Reading) -> At {
        to.close(self.place());
        self.level = self.level.saturating_sub(1);
        if self.level == 0 { At::End } else { At::AfterValue }
    }

    /// A key, or a string that is wanted.
    fn keep_string(&mut self, bytes: &[u8], at: usize, to: &mut Reading) -> usize {
        let end = string_end(bytes, at, &mut self.escaped);
        self.keep(bytes.get(at..end.unwrap_or(bytes.len())).unwrap_or_default());
        let Some(end) = end else { return bytes.len() };
        let mut plain = [0; RAW_BYTES_MAX];
        let raw = self.raw.get(..self.raw_len).unwrap_or_default();
        let text = if self.raw_over { None } else { unescaped(raw, &mut plain) };
        if self.at == At::InKey {
            self.wanted = text.map_or(Wanted::Nothing, |key| wanted(self.place(), key));
            self.at = At::Colon;
        } else {
            match (self.wanted, text) {
                (Wanted::Word(word), Some(text)) => to.word(self.place(), word, text),
                _ => to.wrong(),
            }
            self.at = At::AfterValue;
        }
        end + 1
    }

    fn keep(&mut self, part: &[u8]) {
        match self.raw.get_mut(self.raw_len..self.raw_len + part.len()) {
            Some(room) if !self.raw_over => {
                room.copy_from_slice(part);
                self.raw_len += part.len();
            }
            _ => self.raw_over = true,
        }
    }

    /// A number, `true`, `false` or `null`.
    fn keep_scalar(&mut self, bytes: &[u8], at: usize, to: &mut Reading) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        let end =
            rest.iter().position(|byte| is_space(*byte) || matches!(byte, b',' | b'}' | b']' | b'"' | b'{' | b'['));
        self.keep(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
        let Some(end) = end else { return bytes.len() };
        let raw = self.raw.get(..self.raw_len).unwrap_or_default();
        match self.wanted {
            _ if raw == b"null" => {}
            Wanted::Number(number) => match whole(raw).filter(|_| !self.raw_over) {
                Some(value) => to.number(self.place(), number, value),
                None => to.wrong(),
            },
            _ => {}
        }
        self.at = At::AfterValue;
        at + end
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
    fn skip_nested(&mut self, bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => {
                    let Some(end) = string_end(bytes, at, &mut self.escaped) else {
                        self.at = At::NestedString;
                        return bytes.len();
                    };
                    at = end + 1;
                }
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.at = At::AfterValue;
                        return at;
                    }
                }
                _ => {}
            }
        }
        at
    }
}

/// A whole number; some servers write `12.0`.
fn whole(raw: &[u8]) -> Option<u64> {
    let point = raw.iter().position(|byte| *byte == b'.').unwrap_or(raw.len());
    let (digits, fraction) = raw.split_at_checked(point)?;
    if digits.is_empty() || fraction.len() == 1 || fraction.iter().skip(1).any(|byte| *byte != b'0') {
        return None;
    }
    decimal(digits)
}
