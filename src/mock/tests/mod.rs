//! The simulator judged from outside: its bytes are read with the product's codec, its events by an own state machine.

mod answers;
mod content;
mod enforcing;
mod faults;
mod metered;
mod server;

use super::{Engine, Options, Request, Step};
use crate::{
    base::{Mono, Span, Wall},
    wire::{BodyDecoder, ResponseHead},
};
use serde_json::{Value, json};

/// Wall time of every test: 2026-11-25T10:00:00Z.
const WALL: Wall = Wall(1_795_600_800_000);

/// A simulator under virtual time.
struct World {
    engine: Engine,
    now: Mono,
}

/// What came of one request.
struct Played {
    bytes: Vec<u8>,
    end: Step,
    sends: usize,
    waited: Span,
    head: ResponseHead,
    head_bytes: usize,
    body: Vec<u8>,
    /// The body is complete by its framing.
    whole: bool,
}

impl World {
    fn new(options: Options) -> World {
        World { engine: Engine::new(options).unwrap(), now: Mono(1_000_000_000) }
    }

    fn default() -> World {
        World::new(Options::default())
    }

    /// Sends a request and plays its answer to the end.
    fn send(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Played {
        let fields: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request =
            Request { method, target, fields: &fields, body, http10: false, keep_alive: true, loopback: true };
        let mut script = self.engine.answer(self.now, WALL, &request);
        let (mut bytes, mut out, mut sends, started) = (Vec::new(), Vec::new(), 0, self.now);
        let end = loop {
            match self.engine.step(&mut script, self.now, &mut out) {
                Step::Wait(span) => self.now = self.now.after(span),
                Step::Send => {
                    assert!(!out.is_empty(), "an empty write");
                    bytes.extend_from_slice(&out);
                    sends += 1;
                }
                end => break end,
            }
        };
        let mut played = Played {
            bytes,
            end,
            sends,
            waited: self.now.since(started),
            head: ResponseHead::new(),
            head_bytes: 0,
            body: Vec::new(),
            whole: false,
        };
        played.read(method == "HEAD");
        played
    }

    /// `POST /v1/messages` with a key.
    fn ask(&mut self, sim: &str, body: &Value) -> Played {
        let fields = [("X-Api-Key", "k"), ("x-sim", sim)];
        self.send("POST", "/v1/messages?beta=true", &fields, body.to_string().as_bytes())
    }

    /// A streamed `hi`.
    fn hi(&mut self, sim: &str) -> Played {
        self.ask(sim, &prompt("hi there", true))
    }
}

impl Played {
    /// Reads head and body from the bytes; interim answers are passed over.
    fn read(&mut self, to_head: bool) {
        let mut at = 0;
        while at < self.bytes.len() {
            self.head.reset();
            let Some(n) = self.head.parse(&self.bytes[at..], to_head).expect("a head by RFC 9112") else { return };
            (at, self.head_bytes) = (at + n, at);
            if self.head.status >= 200 {
                break;
            }
        }
        let mut decoder = BodyDecoder::new(self.head.framing);
        let mut rest = self.bytes[at..].to_vec();
        let Ok(stripped) = decoder.strip(&mut rest) else { return };
        self.body = rest[stripped.payload].to_vec();
        let closed = self.end == Step::Close && decoder.eof().is_ok();
        self.whole = !self.bytes.is_empty() && (decoder.is_done() || closed);
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.field(&self.bytes[self.head_bytes..], name).map(|value| std::str::from_utf8(value).unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The events, held to the API's order; the error tells the first violation.
    fn events(&self) -> Result<Vec<Value>, String> {
        let text = String::from_utf8_lossy(&self.body).replace("\r\n", "\n");
        let complete = text.rsplit_once("\n\n").map_or("", |(complete, _)| complete);
        let mut events = Vec::new();
        for block in complete.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')) {
            let (name, data) = block.split_once('\n').ok_or("no data line")?;
            let name = name.strip_prefix("event: ").ok_or("no event line")?;
            let data = data.strip_prefix("data: ").ok_or("no data")?;
            let event: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
            if event["type"] != name {
                return Err(format!("{name} says {}", event["type"]));
            }
            events.push(event);
        }
        Ok(events)
    }

    /// The content of a whole stream, put together as a client does it.
    fn message(&self) -> Result<Value, String> {
        let mut machine = Machine::default();
        for event in self.events()? {
            machine.take(&event)?;
        }
        if machine.state == State::End { Ok(machine.message) } else { Err(format!("ended in {:?}", machine.state)) }
    }

    fn text(&self) -> String {
        let message = if self.field("content-type").unwrap().starts_with("text/event-stream") {
            self.message().unwrap()
        } else {
            self.json()
        };
        let blocks = message["content"].as_array().unwrap().iter();
        blocks.filter_map(|block| block["text"].as_str()).collect()
    }
}

#[derive(Debug, PartialEq, Eq, Default, Clone, Copy)]
enum State {
    #[default]
    Fresh,
    Between,
    Inside,
    Closing,
    End,
}

/// The state machine of the stream (reference of the Messages API, section 5), and the message that it adds up to.
#[derive(Default)]
struct Machine {
    state: State,
    message: Value,
    input: String,
}

impl Machine {
    fn take(&mut self, event: &Value) -> Result<(), String> {
        let kind = event["type"].as_str().unwrap();
        let count = self.message["content"].as_array().map_or(0, Vec::len);
        let wrong = || Err(format!("{event} in {:?}", self.state));
        self.state = match (self.state, kind) {
            (state, "ping") if state != State::End => state,
            (State::Fresh, "message_start") if event["message"]["usage"]["output_tokens"].as_u64() <= Some(1) => {
                self.message = event["message"].clone();
                State::Between
            }
            (State::Between, "content_block_start") if event["index"] == count => {
                self.message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
                self.input.clear();
                State::Inside
            }
            (State::Inside, "content_block_delta") if event["index"] == count - 1 => {
                return self.delta(&event["delta"]);
            }
            (State::Inside, "content_block_stop") if event["index"] == count - 1 => {
                let block = &mut self.message["content"][count - 1];
                if block["type"] == "tool_use" {
                    block["input"] = serde_json::from_str(&self.input).map_err(|error| error.to_string())?;
                }
                State::Between
            }
            (State::Between, "message_delta") => {
                self.message["stop_reason"] = event["delta"]["stop_reason"].clone();
                for (key, value) in event["usage"].as_object().unwrap() {
                    self.message["usage"][key] = value.clone();
                }
                State::Closing
            }
            (State::Closing, "message_stop") => State::End,
            _ => return wrong(),
        };
        Ok(())
    }

    fn delta(&mut self, delta: &Value) -> Result<(), String> {
        let block = self.message["content"].as_array_mut().unwrap().last_mut().unwrap();
        let (of, member) = match delta["type"].as_str().unwrap() {
            "text_delta" => ("text", "text"),
            "thinking_delta" => ("thinking", "thinking"),
            "signature_delta" => ("thinking", "signature"),
            "input_json_delta" => {
                self.input.push_str(delta["partial_json"].as_str().unwrap());
                return if block["type"] == "tool_use" { Ok(()) } else { Err(format!("{delta} in {block}")) };
            }
            other => return Err(format!("an unknown delta {other}")),
        };
        if block["type"] != of {
            return Err(format!("{delta} in {block}"));
        }
        let said = format!("{}{}", block[member].as_str().unwrap(), delta[member].as_str().unwrap());
        block[member] = json!(said);
        Ok(())
    }
}

/// A request with one prompt.
fn prompt(text: &str, stream: bool) -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 128_000, "stream": stream, "messages": [{"role": "user", "content": text}]})
}
