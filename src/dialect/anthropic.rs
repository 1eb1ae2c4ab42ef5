//! The Anthropic Messages dialect: its error envelope, the events of its streams, its model list.

pub mod thinking;

use super::late::{Late, Moment, Telling};
use std::fmt::Write as _;

/// The body of an error answer (R34).
pub fn error_body(error_type: &str, message: &str, request_id: &str) -> String {
    let mut body = String::with_capacity(message.len() + 128);
    let _ = write!(body, r#"{{"type":"error","error":{{"type":"{error_type}","message":"#);
    push_json_string(&mut body, message);
    let _ = write!(body, r#"}},"request_id":"{request_id}"}}"#);
    body
}

/// A failure inside a stream that has begun (R40).
pub fn error_event(error_type: &str, message: &str, request_id: &str) -> String {
    format!("event: error\ndata: {}\n\n", error_body(error_type, message, request_id))
}

/// `text` as a JSON string (RFC 8259 section 7).
fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// An event that says nothing but that the stream lives.
pub const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";
/// The end of a stream.
pub const MESSAGE_STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// How a broken stream is told. Measured with Claude Code 2.1.330 and the SDKs: docs/clients.md.
pub const LATE: &[Late] = &[
    Late {
        moment: Moment::BeforeBlock,
        telling: Telling::Event,
        reason: "Claude Code asks again at once, not streamed; the SDKs raise the error",
    },
    Late {
        moment: Moment::AfterBlock,
        telling: Telling::Silence,
        reason: "Claude Code keeps what it has and goes on from there; an error event would make it start over and repeat what it has acted on (R44)",
    },
    Late {
        moment: Moment::AfterStop,
        telling: Telling::Stop,
        reason: "nothing is missing: the answer is whole, and asking again would cost it a second time",
    },
    Late { moment: Moment::Ended, telling: Telling::Complete, reason: "nothing is missing" },
    Late { moment: Moment::MidEvent, telling: Telling::Silence, reason: "an event inside an event cannot be read" },
];

/// Whose fault an error is, as its `type` says (R35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request's.
    Request,
    /// The credential's.
    Credential,
    /// The credential has no room for more.
    Room,
    /// The service's.
    Service,
}

/// Whose fault an error document or error event tells of. What is not known is the service's.
pub fn fault(error: &[u8]) -> Fault {
    let says = |kind: &str| memchr::memmem::find(error, kind.as_bytes()).is_some();
    match () {
        () if says("\"rate_limit_error\"") => Fault::Room,
        () if ["\"authentication_error\"", "\"permission_error\"", "\"billing_error\""].into_iter().any(says) => {
            Fault::Credential
        }
        () if ["\"invalid_request_error\"", "\"request_too_large\"", "\"not_found_error\""].into_iter().any(says) => {
            Fault::Request
        }
        () => Fault::Service,
    }
}

/// Whether a document that came as a success is an error: some services answer so.
pub fn is_error(beginning: &[u8]) -> bool {
    let bare: Vec<u8> = beginning.iter().take(64).filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    bare.starts_with(b"{\"type\":\"error\"") || bare.starts_with(b"{\"error\":")
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a milestone of its own
pub struct Progress {
    /// Content has come, or an event of an unknown kind: from here on the answer is this one and no other.
    pub committed: bool,
    /// A block of text or a tool call has ended: the client may have acted on it.
    pub block_finished: bool,
    /// A `message_delta` has come, which tells why the answer ends: only `message_stop` is missing.
    pub stop_told: bool,
    /// `message_stop`, or an error event of the upstream's own: nothing more is owed to the client.
    pub ended: bool,
    /// What the error event told, if one came.
    pub fault: Option<Fault>,
    in_thinking: bool,
}

impl Progress {
    /// Takes note of an event of this name; `event` is all of it, or nothing if it was too long to be held.
    pub fn saw(&mut self, name: &[u8], event: &[u8]) {
        match name {
            b"message_start" | b"ping" => {}
            b"content_block_start" => {
                let kinds = ["\"thinking\"", "\"redacted_thinking\""];
                self.in_thinking = kinds.into_iter().any(|kind| holds(event, "\"type\"", kind));
                self.committed |= !is_empty_block(event);
            }
            b"content_block_stop" => {
                self.committed = true;
                // Thinking is shown and not acted on: Claude Code asks again after it (R44).
                self.block_finished |= !std::mem::take(&mut self.in_thinking);
            }
            b"message_delta" => (self.committed, self.stop_told) = (true, true),
            b"message_stop" => (self.committed, self.ended) = (true, true),
            b"error" => (self.fault, self.ended) = (Some(fault(event)), true),
            // Comments have no name, no data, and no meaning.
            b"" if event.starts_with(b":") && memchr::memmem::find(event, b"\ndata").is_none() => {}
            // A delta, or something of tomorrow.
            _ => self.committed = true,
        }
    }
}

/// Whether a block only begins: its content is still to come.
fn is_empty_block(event: &[u8]) -> bool {
    [("\"text\"", "\"\""), ("\"thinking\"", "\"\""), ("\"input\"", "{}")]
        .into_iter()
        .any(|(key, empty)| holds(event, key, empty))
}

/// Whether JSON holds this member; spaces before the value are looked past.
fn holds(event: &[u8], key: &str, value: &str) -> bool {
    memchr::memmem::find_iter(event, key.as_bytes()).any(|at| {
        let rest = event.get(at + key.len()..).unwrap_or_default().trim_ascii_start();
        rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(value.as_bytes()))
    })
}

/// One entry of `GET /v1/models`, when only its id is known.
pub fn model_object(id: &str) -> String {
    let mut out = String::from(r#"{"type":"model","id":"#);
    push_json_string(&mut out, id);
    out.push_str(r#","display_name":"#);
    push_json_string(&mut out, id);
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        let body = error_body("api_error", "say \"hi\"\\\n\u{1}é", "fb_1");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["error"]["message"], "say \"hi\"\\\n\u{1}é");
        assert_eq!(value["type"], "error");
        assert_eq!(value["request_id"], "fb_1");
        assert_eq!(error_event("api_error", "x", "y").matches("\n\n").count(), 1);
    }

    #[test]
    fn progress_is_read_from_names() {
        let mut progress = Progress::default();
        let start = |block: &str| format!("event: content_block_start\ndata: {{\"content_block\":{block}}}\n\n");
        progress.saw(b"message_start", b"");
        progress.saw(b"ping", PING);
        progress.saw(b"", b": a comment\n\n");
        for block in [r#"{"type":"text","text":""}"#, r#"{"type": "tool_use", "id": "a", "input": {}}"#] {
            progress.saw(b"content_block_start", start(block).as_bytes());
        }
        assert_eq!(progress, Progress::default(), "nothing that a client could act on has come");
        progress.saw(b"content_block_delta", b"");
        assert!(progress.committed && !progress.block_finished);
        progress.saw(b"content_block_stop", b"");
        assert!(progress.block_finished && !progress.stop_told && !progress.ended);
        progress.saw(b"message_delta", b"");
        assert!(progress.stop_told && !progress.ended);
        progress.saw(b"message_stop", b"");
        assert!(progress.ended && progress.fault.is_none());
    }

    #[test]
    fn a_block_with_content_and_an_unknown_event_commit() {
        for (name, event) in [
            ("content_block_start", r#"data: {"content_block":{"type":"redacted_thinking","data":"x"}}"#),
            ("content_block_start", r#"data: {"content_block":{"type":"text","text":"hi"}}"#),
            ("something_new", ""),
            ("", "data: x\n\n"),
        ] {
            let mut progress = Progress::default();
            progress.saw(name.as_bytes(), event.as_bytes());
            assert!(progress.committed, "{name} {event}");
        }
    }

    #[test]
    fn thinking_that_has_ended_is_no_finished_block() {
        let mut progress = Progress::default();
        progress.saw(b"content_block_start", br#"data: {"content_block":{"type":"thinking","thinking":""}}"#);
        progress.saw(b"content_block_stop", b"");
        assert!(!progress.block_finished);
        progress.saw(b"content_block_start", br#"data: {"content_block":{"type":"text","text":""}}"#);
        progress.saw(b"content_block_stop", b"");
        assert!(progress.block_finished);
    }

    #[test]
    fn errors_are_told_apart() {
        let of = |kind: &str| fault(error_event(kind, "x", "y").as_bytes());
        assert_eq!(of("overloaded_error"), Fault::Service);
        assert_eq!(of("api_error"), Fault::Service);
        assert_eq!(of("rate_limit_error"), Fault::Room);
        assert_eq!(of("authentication_error"), Fault::Credential);
        assert_eq!(of("invalid_request_error"), Fault::Request);
        assert!(is_error(error_body("api_error", "x", "y").as_bytes()));
        assert!(is_error(b" { \"error\": 1"));
        assert!(!is_error(br#"{"type":"message","content":[{"type":"error"#));
    }
}
