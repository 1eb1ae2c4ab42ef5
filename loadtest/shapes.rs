//! What goes over the wire, shaped like a coding agent's traffic: request bodies with the fields in Claude Code's order
//! (`model` first, `stream` last) and text full of escapes, small whole answers, and events that carry their number and
//! the time at which they were sent.

use std::time::{SystemTime, UNIX_EPOCH};

/// The path that is asked for.
pub const PATH: &str = "/v1/messages?beta=true";
/// The field in which the generator tells the provider what to do; absent for a whole answer.
pub const ORDER_FIELD: &str = "x-load";
/// The field with the CRC-32 of the request's body, in hex.
pub const CRC_FIELD: &str = "x-load-crc";

/// A whole answer of about twenty words.
pub const ANSWER: &str = concat!(
    r#"{"id":"msg_01LoadTestLoadTestLoadTest","type":"message","role":"assistant","model":"claude-sonnet-5","#,
    r#""content":[{"type":"text","text":"The function returns early when the list is empty, so the loop below never sees it."}],"#,
    r#""stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"#,
    r#""cache_read_input_tokens":20480,"output_tokens":20,"service_tier":"standard"}}"#
);

/// Fields that a provider's answers carry besides framing and type.
pub const ANSWER_FIELDS: &str = "date: Mon, 02 Nov 2026 10:00:00 GMT\r\n\
    request-id: req_011LoadTestLoadTestLoadTe\r\n\
    anthropic-organization-id: 00000000-0000-0000-0000-000000000000\r\n\
    anthropic-ratelimit-requests-limit: 4000\r\n\
    anthropic-ratelimit-requests-remaining: 3999\r\n\
    anthropic-ratelimit-requests-reset: 2026-11-02T10:00:00Z\r\n\
    strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
    server: load\r\n\
    x-robots-tag: none\r\n";

/// A turn of a conversation: the model reads a file, and here is what was in it.
const TURN_BEGIN: &str = concat!(
    r#"{"role":"assistant","content":[{"type":"text","text":"I'll read that file."},{"type":"tool_use","id":"toolu_01A","#,
    r#""name":"Read","input":{"file_path":"src/a.rs"}}]},"#,
    r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01A","content":""#
);
const TURN_END: &str = r#""}]},"#;
/// Lines of a file as they stand in a tool's result: a number, a tab, code, and an escape at every quote and line end.
const LINES: [&str; 8] = [
    r"     1\tuse std::{fmt, io, path::PathBuf};\n",
    r"     2\t\n",
    r"     3\t/// Reads the list of keys; a line that is empty or begins with `#` is passed over.\n",
    r"     4\tpub fn read(path: &Path) -> io::Result<Vec<Key>> {\n     5\t    let text = fs::read_to_string(path)?;\n",
    r#"     6\t    let sample = \"a \\\"quoted\\\" word, a back\\\\slash and a \u00e9\";\n"#,
    r"     7\t    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Key::parse).collect()\n",
    r#"     8\t        .inspect(|key| println!(\"{key:?} {}\", sample.len()))\n"#,
    r"     9\t}\n",
];
/// Lines in one tool's result.
const LINES_MAX: usize = 64;

/// A request body of exactly `bytes` bytes, or of the least that a body takes.
pub fn request_body(bytes: usize) -> Vec<u8> {
    let begin = r#"{"model":"claude-sonnet-5","messages":["#;
    let middle = r#"{"role":"user","content":[{"type":"text","text":"Why does this fail?"#;
    let end = concat!(
        r#""}]}],"system":[{"type":"text","text":"You are a coding agent.","cache_control":{"type":"ephemeral"}}],"#,
        r#""tools":[{"name":"Read","description":"Reads a file.","input_schema":{"type":"object","properties":{"file_path":{"type":"string"}}}}],"#,
        r#""metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"00000000-0000-0000-0000-000000000000\"}"},"#,
        r#""max_tokens":32000,"thinking":{"type":"adaptive"},"stream":true}"#
    );
    let mut body = begin.as_bytes().to_vec();
    let conversation_end = bytes.saturating_sub(middle.len() + end.len());
    let fits = |body: &[u8], text: &str| body.len() + text.len() + TURN_END.len() <= conversation_end;
    while fits(&body, &[TURN_BEGIN, LINES[0]].concat()) {
        body.extend_from_slice(TURN_BEGIN.as_bytes());
        for line in LINES.iter().cycle().take(LINES_MAX) {
            if fits(&body, line) {
                body.extend_from_slice(line.as_bytes());
            }
        }
        body.extend_from_slice(TURN_END.as_bytes());
    }
    body.extend_from_slice(middle.as_bytes());
    body.resize(body.len().max(bytes.saturating_sub(end.len())), b'.');
    body.extend_from_slice(end.as_bytes());
    body
}

/// A whole request, head and body.
pub fn request(key: &str, order: Option<&str>, body: &[u8]) -> Vec<u8> {
    let order = order.map_or_else(String::new, |order| format!("{ORDER_FIELD}: {order}\r\n"));
    let mut crc = crc32fast::Hasher::new();
    crc.update(body);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\n\
         accept: application/json\r\n\
         content-type: application/json\r\n\
         user-agent: claude-cli/2.1.330 (external, cli)\r\n\
         anthropic-version: 2023-06-01\r\n\
         anthropic-beta: interleaved-thinking-2025-05-14,context-management-2025-06-27\r\n\
         x-app: cli\r\n\
         x-stainless-lang: js\r\n\
         x-stainless-retry-count: 0\r\n\
         x-stainless-timeout: 600\r\n\
         x-claude-code-session-id: 00000000-0000-0000-0000-000000000000\r\n\
         accept-encoding: gzip, deflate, br, zstd\r\n\
         x-api-key: {key}\r\n\
         {order}{CRC_FIELD}: {:08x}\r\n\
         host: 127.0.0.1\r\n\
         content-length: {}\r\n\r\n",
        crc.finalize(),
        body.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Events before the first delta, each with its blank line.
pub const STREAM_BEGIN: [&str; 2] = [
    concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01LoadTest\",\"type\":\"message\",",
        "\"role\":\"assistant\",\"model\":\"claude-sonnet-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,",
        "\"usage\":{\"input_tokens\":12,\"cache_read_input_tokens\":20480,\"output_tokens\":1}}}\n\n"
    ),
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
];

/// Events behind the last delta.
pub const STREAM_END: [&str; 3] = [
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":500}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

const DELTA_BEGIN: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"";
const DELTA_END: &str = "\"}}\n\n";
const NUMBER_DIGITS: usize = 8;
const TIME_DIGITS: usize = 19;
/// The bytes of the smallest delta.
pub const DELTA_BYTES_MIN: usize = DELTA_BEGIN.len() + NUMBER_DIGITS + 1 + TIME_DIGITS + 1 + DELTA_END.len();

/// A delta event of a fixed size, in which only the number and the time change.
#[derive(Clone)]
pub struct Delta {
    bytes: Vec<u8>,
}

impl Delta {
    /// One of `bytes` bytes, or of the fewest that it takes.
    pub fn new(bytes: usize) -> Delta {
        let mut text = DELTA_BEGIN.as_bytes().to_vec();
        text.resize(text.len() + NUMBER_DIGITS, b'0');
        text.push(b' ');
        text.resize(text.len() + TIME_DIGITS, b'0');
        text.push(b' ');
        let filling = b"and so the answer goes on ".iter().cycle();
        text.extend(filling.take(bytes.saturating_sub(DELTA_BYTES_MIN)));
        text.extend_from_slice(DELTA_END.as_bytes());
        Delta { bytes: text }
    }

    /// The event with `number` and `at_ns` in it.
    pub fn stamp(&mut self, number: u64, at_ns: u64) -> &[u8] {
        let from = DELTA_BEGIN.len();
        write_digits(self.bytes.get_mut(from..from + NUMBER_DIGITS), number);
        let from = from + NUMBER_DIGITS + 1;
        write_digits(self.bytes.get_mut(from..from + TIME_DIGITS), at_ns);
        &self.bytes
    }

    /// The number and the time of an event; `None` when it is not one of these, byte for byte.
    pub fn read(&self, event: &[u8]) -> Option<(u64, u64)> {
        let (begin, rest) = event.split_at_checked(DELTA_BEGIN.len())?;
        let (number, rest) = rest.split_at_checked(NUMBER_DIGITS)?;
        let (space, rest) = rest.split_at_checked(1)?;
        let (time, rest) = rest.split_at_checked(TIME_DIGITS)?;
        let same = begin == DELTA_BEGIN.as_bytes() && space == b" " && Some(rest) == self.rest();
        if !same {
            return None;
        }
        Some((read_digits(number)?, read_digits(time)?))
    }

    fn rest(&self) -> Option<&[u8]> {
        self.bytes.get(DELTA_BEGIN.len() + NUMBER_DIGITS + 1 + TIME_DIGITS..)
    }
}

fn write_digits(places: Option<&mut [u8]>, mut number: u64) {
    for place in places.into_iter().flatten().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn read_digits(places: &[u8]) -> Option<u64> {
    places.iter().try_fold(0_u64, |number, place| {
        let digit = char::from(*place).to_digit(10)?;
        Some(number * 10 + u64::from(digit))
    })
}

/// Wall time: the provider and the generator are two processes, and this clock is the one that they share.
pub fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_the_size_asked_for_in_the_clients_order() {
        for bytes in [4_000, 20_000, 100_000, 700_000] {
            let body = request_body(bytes);
            assert_eq!(body.len(), bytes);
            let text = std::str::from_utf8(&body).unwrap();
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(value["stream"], true);
            assert!(text.starts_with("{\"model\":"));
            assert!(text.ends_with("\"stream\":true}"));
        }
    }

    #[test]
    fn a_delta_reads_as_it_was_stamped_and_nothing_else_does() {
        let mut delta = Delta::new(190);
        let same = delta.clone();
        let event = delta.stamp(17, 1_800_000_000_123_456_789).to_vec();
        assert_eq!(event.len(), 190);
        assert_eq!(same.read(&event), Some((17, 1_800_000_000_123_456_789)));
        for at in [0, DELTA_BEGIN.len(), DELTA_BEGIN.len() + 8, 189] {
            let mut wrong = event.clone();
            wrong[at] = b'?';
            assert_eq!(same.read(&wrong), None, "{at}");
        }
        assert_eq!(same.read(&event[..189]), None);
        let data = std::str::from_utf8(&event).unwrap().split_once("data: ").unwrap().1;
        assert!(serde_json::from_str::<serde_json::Value>(data).is_ok());
    }
}
