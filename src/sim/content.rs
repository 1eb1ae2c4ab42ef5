//! What simulated upstreams say in their bodies: documents, refusals, streams as a model makes them, and what some
//! services answer instead.

use super::dice::Dice;
use std::fmt::Write;

/// How a stream can be announced.
pub const STREAMS: [&str; 2] = ["text/event-stream", "Text/Event-Stream; charset=utf-8"];
/// What an error can be.
const ERRORS: [&str; 7] = [
    "overloaded_error",
    "api_error",
    "rate_limit_error",
    "authentication_error",
    "permission_error",
    "billing_error",
    "invalid_request_error",
];

/// An error as a document.
pub fn envelope(kind: &str, id: u32) -> Vec<u8> {
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"it is so"}},"of":{id}}}"#).into_bytes()
}

/// The document of an error answer; now and then something else.
pub fn refusal(dice: &mut Dice, id: u32, status: u16) -> Vec<u8> {
    let usual = match status {
        400 | 413 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => *dice.pick(&["rate_limit_error", "rate_limit_error", "billing_error"]),
        529 => "overloaded_error",
        _ => "api_error",
    };
    match dice.below(8) {
        0 => answer(dice, id),
        1 if status == 400 => {
            let text = "Your credit balance is too low to access the API.";
            format!(r#"{{"type":"error","error":{{"type":"invalid_request_error","message":"{text}"}}}}"#).into_bytes()
        }
        2 => Vec::new(),
        _ => envelope(usual, id),
    }
}

/// The document of a success; now and then an error in its place.
pub fn document(dice: &mut Dice, id: u32) -> Vec<u8> {
    match dice.below(12) {
        0 | 1 => Vec::new(),
        2 => envelope(dice.pick::<&str>(&ERRORS), id),
        3 => format!(r#" {{ "error" : {{"type":"{}"}}, "of":{id} }}"#, dice.pick::<&str>(&ERRORS)).into_bytes(),
        _ => answer(dice, id),
    }
}

/// A document without an error.
pub fn answer(dice: &mut Dice, id: u32) -> Vec<u8> {
    let pad = dice.size(120_000);
    format!("{{\"id\": {id}, \"pad\":\"{}\" }}", dice.text(pad)).into_bytes()
}

/// A stream as a model makes it; now and then with an error, and with oddities that the standard allows.
pub fn stream(dice: &mut Dice, id: u32) -> Vec<u8> {
    let mut writing = Writing { out: String::new(), end: dice.pick::<&str>(&["\n", "\n", "\n", "\r\n", "\r"]), id };
    let fails_at = dice.chance(6).then(|| dice.below(5));
    if fails_at == Some(0) {
        return writing.error(dice);
    }
    writing.event(dice, "message_start", 20);
    if fails_at == Some(1) {
        return writing.error(dice);
    }
    for _ in 0..dice.between(0, 3) {
        writing.starts(dice);
        if fails_at == Some(2) {
            return writing.error(dice);
        }
        for _ in 0..dice.below(8) {
            let bytes = if dice.chance(30) { 14_000 + dice.below(20_000) } else { dice.size(3_000) };
            writing.event(dice, "content_block_delta", bytes);
            if fails_at == Some(3) {
                return writing.error(dice);
            }
            if dice.chance(6) {
                writing.event(dice, "ping", 0);
            }
        }
        writing.event(dice, "content_block_stop", 0);
    }
    if fails_at == Some(4) || dice.chance(12) {
        return writing.error(dice);
    }
    writing.stops(dice);
    if dice.chance(20) {
        writing.out.push_str(": no blank line follows");
    }
    writing.out.into_bytes()
}

/// A stream without anything wrong or odd.
pub fn whole_stream(dice: &mut Dice, id: u32) -> Vec<u8> {
    let mut writing = Writing { out: String::new(), end: "\n", id };
    writing.event(dice, "message_start", 20);
    for _ in 0..dice.between(1, 3) {
        writing.starts(dice);
        let bytes = dice.size(3_000);
        writing.event(dice, "content_block_delta", bytes);
        writing.event(dice, "content_block_stop", 0);
    }
    writing.stops(dice);
    writing.out.into_bytes()
}

struct Writing {
    out: String,
    end: &'static str,
    id: u32,
}

impl Writing {
    fn write(&mut self, name: &str, data: &str) {
        let end = self.end;
        let _ = write!(self.out, "event: {name}{end}data: {data}{end}{end}");
    }

    fn event(&mut self, dice: &mut Dice, name: &str, bytes: usize) {
        let data = format!(r#"{{"type":"{name}","of":{},"text":"{}"}}"#, self.id, dice.text(bytes));
        self.write(name, &data);
    }

    /// A block begins: empty as a rule, or with content.
    fn starts(&mut self, dice: &mut Dice) {
        let block = *dice.pick(&[
            r#"{"type":"text","text":""}"#,
            r#"{"type": "text", "text": ""}"#,
            r#"{"type":"thinking","thinking":"","signature":""}"#,
            r#"{"type":"tool_use","id":"toolu_1","name":"Bash","input":{}}"#,
            r#"{"type":"redacted_thinking","data":"x"}"#,
        ]);
        let data = format!(r#"{{"type":"content_block_start","of":{},"content_block":{block}}}"#, self.id);
        self.write("content_block_start", &data);
    }

    fn stops(&mut self, dice: &mut Dice) {
        self.event(dice, "message_delta", 10);
        self.event(dice, "message_stop", 0);
    }

    /// An error, and the end.
    fn error(mut self, dice: &mut Dice) -> Vec<u8> {
        let data = String::from_utf8_lossy(&envelope(dice.pick::<&str>(&ERRORS), self.id)).into_owned();
        self.write("error", &data);
        self.out.into_bytes()
    }
}

/// Where the events of a stream end.
pub fn borders(stream: &[u8]) -> Vec<usize> {
    let (mut borders, mut line_len, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = stream.get(at) {
        at += 1;
        match byte {
            b'\r' | b'\n' => {
                at += usize::from(*byte == b'\r' && stream.get(at) == Some(&b'\n'));
                if line_len == 0 {
                    borders.push(at);
                }
                line_len = 0;
            }
            _ => line_len += 1,
        }
    }
    borders
}
