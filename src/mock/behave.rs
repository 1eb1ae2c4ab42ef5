//! How an answer is given: pacing, sizes, framing, and what goes wrong with it. One comma-separated grammar serves the
//! `x-sim` header, prompt directives, rules and model names. Pure data; `script` acts on it.

use crate::base::Span;

/// Bounds of what can be asked for, so that one request cannot hold the simulator for ever.
const EVENTS_MAX: u64 = 10_000_000;
const EVENT_BYTES_MAX: u64 = 1 << 20;
const ANSWER_BYTES_MAX: u64 = 4 << 30;
const WAIT_MS_MAX: u64 = 3_600_000;
/// A stamped delta holds its stamp and a little text.
const STAMPED_BYTES_MIN: u64 = 48;
/// Text bytes in a delta when a size is asked for without saying so.
const EVENT_BYTES_DEFAULT: u64 = 24;

/// How the length of the answer's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Chunked,
    Length,
    Close,
}

/// What goes wrong. Positions are counted in content deltas (`Behaviour::after`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Fault {
    #[default]
    None,
    /// RST before any byte of the answer.
    Reset,
    /// FIN before any byte of the answer.
    Close,
    /// An error answer.
    Status(u16),
    /// A 307 to elsewhere.
    Redirect,
    /// 200 with a web page.
    Html,
    /// An `error` event where the first event should be.
    ErrorFirst,
    /// An `error` event after `after` deltas.
    ErrorAfter,
    /// The connection dies inside the delta after `after` deltas.
    Cut,
    /// The connection dies after `after` finished content blocks.
    CutBlock,
    /// A well-formed end of the HTTP body after `after` deltas.
    CleanCut,
    /// All events but `message_stop`, and a well-formed end.
    NoStop,
    /// Silence after `after` deltas, then the rest.
    Stall,
}

/// How one answer is given. `Behaviour::default()` is a healthy provider that answers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is one independent switch of the grammar
pub struct Behaviour {
    pub(super) first_byte: Span,
    pub(super) first_event: Span,
    pub(super) gap: Span,
    pub(super) events: Option<u64>,
    pub(super) event_bytes: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) batch: u64,
    pub(super) drip_bytes: u64,
    pub(super) drip_every: Span,
    pub(super) ping: bool,
    pub(super) ping_every: u64,
    pub(super) stall_ping: Span,
    pub(super) crlf: bool,
    pub(super) comments: bool,
    pub(super) stamp: bool,
    pub(super) thinking: bool,
    pub(super) blind: bool,
    pub(super) blind_stream: bool,
    pub(super) framing: Option<Framing>,
    pub(super) interim: u64,
    pub(super) trailing: bool,
    pub(super) hop: bool,
    pub(super) trailers: bool,
    pub(super) headroom_percent: Option<u64>,
    pub(super) fault: Fault,
    pub(super) after: u64,
    pub(super) cut_bytes: Option<u64>,
    pub(super) fin: bool,
    pub(super) stall: Span,
    pub(super) retry_after: Option<String>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) should_retry: Option<bool>,
    pub(super) html: bool,
    pub(super) empty: bool,
    pub(super) error_type: Option<String>,
    pub(super) message: Option<String>,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            first_byte: Span::ZERO,
            first_event: Span::ZERO,
            gap: Span::ZERO,
            events: None,
            event_bytes: None,
            bytes: None,
            batch: 1,
            drip_bytes: 0,
            drip_every: Span::from_ms(10),
            ping: true,
            ping_every: 0,
            stall_ping: Span::ZERO,
            crlf: false,
            comments: false,
            stamp: false,
            thinking: false,
            blind: false,
            blind_stream: true,
            framing: None,
            interim: 0,
            trailing: false,
            hop: false,
            trailers: false,
            headroom_percent: None,
            fault: Fault::None,
            after: 2,
            cut_bytes: None,
            fin: false,
            stall: Span::from_ms(WAIT_MS_MAX),
            retry_after: None,
            retry_after_ms: None,
            should_retry: None,
            html: false,
            empty: false,
            error_type: None,
            message: None,
        }
    }
}

impl Behaviour {
    /// Applies a list such as `429,retry_after=3`; later settings win. Errors name the setting that is not known, or
    /// whose value does not fit; the ones before it have been applied.
    pub fn apply(&mut self, list: &str) -> Result<(), String> {
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (key, value) =
                item.split_once('=').map_or((item, None), |(key, value)| (key.trim(), Some(value.trim())));
            let known = self.set_pacing(key, value)
                || self.set_shape(key, value)
                || self.set_fault(key, value)
                || self.set_refusal(key, value);
            if !known {
                return Err(format!("`{item}` is not a behaviour of the simulated provider"));
            }
        }
        Ok(())
    }

    /// Applies what a model name says: `claude-sim-529`, `claude-sim-events=20+gap_ms=5`. An unknown suffix is a name.
    pub(super) fn apply_model(&mut self, model: &str) {
        if let Some((_, suffix)) = model.split_once("claude-sim-") {
            let mut tried = self.clone();
            if tried.apply(&suffix.replace('+', ",")).is_ok() {
                *self = tried;
            }
        }
    }

    fn set_pacing(&mut self, key: &str, value: Option<&str>) -> bool {
        match key {
            "first_byte_ms" => wait(&mut self.first_byte, value),
            "first_event_ms" => wait(&mut self.first_event, value),
            "gap_ms" => wait(&mut self.gap, value),
            "stall_ms" => wait(&mut self.stall, value),
            "ping_ms" => wait(&mut self.stall_ping, value),
            "drip_ms" => wait(&mut self.drip_every, value),
            "drip" => number(&mut self.drip_bytes, value.or(Some("1")), EVENT_BYTES_MAX),
            "gap_us" => {
                let mut us = 0;
                let set = number(&mut us, value, WAIT_MS_MAX * 1_000);
                self.gap = Span(us * 1_000);
                set
            }
            _ => false,
        }
    }

    fn set_shape(&mut self, key: &str, value: Option<&str>) -> bool {
        match key {
            "events" => optional(&mut self.events, value, EVENTS_MAX),
            "event_bytes" => optional(&mut self.event_bytes, value, EVENT_BYTES_MAX),
            "bytes" => optional(&mut self.bytes, value, ANSWER_BYTES_MAX),
            "batch" => number(&mut self.batch, value, 10_000),
            "ping" => flag(&mut self.ping, value),
            "ping_every" => number(&mut self.ping_every, value, EVENTS_MAX),
            "crlf" => flag(&mut self.crlf, value),
            "comments" => flag(&mut self.comments, value),
            "stamp" => flag(&mut self.stamp, value),
            "thinking" => flag(&mut self.thinking, value),
            "blind" => flag(&mut self.blind, value),
            "stream" => flag(&mut self.blind_stream, value),
            "interim" => number(&mut self.interim, value.or(Some("1")), 64),
            "trailing" => flag(&mut self.trailing, value),
            "hop" => flag(&mut self.hop, value),
            "trailers" => flag(&mut self.trailers, value),
            "limits" => optional(&mut self.headroom_percent, value.or(Some("0")), 100),
            "framing" => {
                let framing = match value {
                    Some("chunked") => Framing::Chunked,
                    Some("length") => Framing::Length,
                    Some("close") => Framing::Close,
                    _ => return false,
                };
                self.framing = Some(framing);
                true
            }
            _ => false,
        }
    }

    fn set_fault(&mut self, key: &str, value: Option<&str>) -> bool {
        let fault = match key {
            "ok" => Fault::None,
            "reset" => Fault::Reset,
            "close" => Fault::Close,
            "redirect" => Fault::Redirect,
            "junk" => Fault::Html,
            "error" if value == Some("first") => Fault::ErrorFirst,
            "error" => Fault::ErrorAfter,
            "cut" => Fault::Cut,
            "cut_block" => Fault::CutBlock,
            "clean_cut" => Fault::CleanCut,
            "no_stop" => Fault::NoStop,
            "stall" => Fault::Stall,
            "after" => return number(&mut self.after, value, EVENTS_MAX),
            "cut_bytes" => return optional(&mut self.cut_bytes, value, EVENT_BYTES_MAX),
            "fin" => return flag(&mut self.fin, value),
            _ => return false,
        };
        self.fault = fault;
        if fault == Fault::CutBlock {
            self.after = 1;
        }
        value.is_none() || fault == Fault::ErrorFirst || number(&mut self.after, value, EVENTS_MAX)
    }

    fn set_refusal(&mut self, key: &str, value: Option<&str>) -> bool {
        match key {
            "status" => {
                let mut status = 0;
                let set = number(&mut status, value, 599) && status >= 400;
                self.fault = Fault::Status(status as u16);
                set
            }
            "retry_after" => {
                self.retry_after = value.map(str::to_owned);
                value.is_some_and(is_field_value)
            }
            "retry_after_ms" => optional(&mut self.retry_after_ms, value, WAIT_MS_MAX),
            "should_retry" => {
                self.should_retry = Some(value != Some("false"));
                true
            }
            "html" => flag(&mut self.html, value),
            "empty" => flag(&mut self.empty, value),
            "type" => {
                self.error_type = value.map(str::to_owned);
                value.is_some()
            }
            "message" => {
                self.message = value.map(str::to_owned);
                value.is_some()
            }
            code => match code.parse::<u16>() {
                Ok(status) if (400..600).contains(&status) && value.is_none() => {
                    self.fault = Fault::Status(status);
                    true
                }
                _ => false,
            },
        }
    }

    /// Text bytes of one delta, when a size was asked for.
    pub(super) fn piece_bytes(&self) -> Option<u64> {
        let asked = match (self.events, self.bytes, self.event_bytes) {
            (_, _, Some(bytes)) => Some(bytes.max(1)),
            (Some(events), Some(bytes), None) => Some(bytes.div_ceil(events.max(1)).max(1)),
            (None, None, None) if !self.stamp => None,
            _ => Some(EVENT_BYTES_DEFAULT),
        };
        asked.map(|bytes| if self.stamp { bytes.max(STAMPED_BYTES_MIN) } else { bytes })
    }

    /// Text bytes of the whole answer, when a size was asked for. `literal` is what it has to say anyway.
    pub(super) fn text_bytes(&self, literal: u64) -> Option<u64> {
        let piece = self.piece_bytes()?;
        let total = match (self.bytes, self.events) {
            (Some(bytes), _) => bytes,
            (None, Some(events)) => events.saturating_mul(piece).min(ANSWER_BYTES_MAX),
            (None, None) => literal,
        };
        Some(if self.stamp { total.div_ceil(piece) * piece } else { total })
    }
}

fn number(into: &mut u64, value: Option<&str>, max: u64) -> bool {
    let parsed = value.and_then(|value| value.parse::<u64>().ok());
    if let Some(parsed) = parsed {
        *into = parsed.min(max);
    }
    parsed.is_some()
}

fn optional(into: &mut Option<u64>, value: Option<&str>, max: u64) -> bool {
    let mut parsed = 0;
    let set = number(&mut parsed, value, max);
    if set {
        *into = Some(parsed);
    }
    set
}

fn wait(into: &mut Span, value: Option<&str>) -> bool {
    let mut ms = 0;
    let set = number(&mut ms, value, WAIT_MS_MAX);
    if set {
        *into = Span::from_ms(ms);
    }
    set
}

fn flag(into: &mut bool, value: Option<&str>) -> bool {
    match value {
        None | Some("1" | "true" | "on") => *into = true,
        Some("0" | "false" | "off") => *into = false,
        Some(_) => return false,
    }
    true
}

/// What may stand in a field of the answer's head.
fn is_field_value(value: &str) -> bool {
    value.len() <= 64 && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_sets_what_it_says_and_nothing_else() {
        let mut behaviour = Behaviour::default();
        behaviour.apply("429, retry_after=3, limits=0, gap_ms=7").unwrap();
        let expected = Behaviour {
            fault: Fault::Status(429),
            retry_after: Some("3".into()),
            headroom_percent: Some(0),
            gap: Span::from_ms(7),
            ..Behaviour::default()
        };
        assert_eq!(behaviour, expected);
    }

    #[test]
    fn unknown_settings_and_bad_values_are_named() {
        for bad in
            ["speed=9", "gap_ms=fast", "status=200", "700", "framing=tape", "cut=x", "crlf=maybe", "retry_after=a\u{1}"]
        {
            let error = Behaviour::default().apply(bad).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_model_name_is_a_behaviour_only_when_all_of_it_is_known() {
        let mut behaviour = Behaviour::default();
        behaviour.apply_model("claude-sim-opus");
        assert_eq!(behaviour, Behaviour::default());
        behaviour.apply_model("claude-sim-cut=4+fin");
        assert_eq!((behaviour.fault, behaviour.after, behaviour.fin), (Fault::Cut, 4, true));
    }

    #[test]
    fn sizes_follow_from_each_other() {
        let with = |list: &str| {
            let mut behaviour = Behaviour::default();
            behaviour.apply(list).unwrap();
            (behaviour.piece_bytes(), behaviour.text_bytes(10))
        };
        assert_eq!(with(""), (None, None));
        assert_eq!(with("events=5"), (Some(24), Some(120)));
        assert_eq!(with("events=4,bytes=10"), (Some(3), Some(10)));
        assert_eq!(with("event_bytes=4"), (Some(4), Some(10)));
        assert_eq!(with("events=2,stamp"), (Some(48), Some(96)));
        assert_eq!(with("stamp"), (Some(48), Some(48)));
    }
}
