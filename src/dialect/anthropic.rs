//! The Anthropic Messages dialect: its error envelope, the events of its streams, its model list.

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

/// How far a stream has come, told from the names of its events alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// A content block has ended: the client may have acted on it, a tool call above all.
    pub block_finished: bool,
    /// `message_stop`, or an error event of the upstream's own: nothing more is owed to the client.
    pub ended: bool,
}

impl Progress {
    /// Takes note of an event.
    pub fn saw(&mut self, event: &[u8]) {
        match event {
            b"content_block_stop" => self.block_finished = true,
            b"message_stop" | b"error" => self.ended = true,
            _ => {}
        }
    }
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
        for name in ["message_start", "content_block_start", "content_block_delta", "ping"] {
            progress.saw(name.as_bytes());
        }
        assert_eq!(progress, Progress::default());
        progress.saw(b"content_block_stop");
        assert!(progress.block_finished && !progress.ended);
        progress.saw(b"message_stop");
        assert!(progress.ended);
    }
}
