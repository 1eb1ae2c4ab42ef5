//! What the answer to a conversation says: tool calls as directed, the results of tools, a summary, or an echo. It
//! offers only tools that are in the request.

use super::{
    behave::Behaviour,
    content::{Turn, first_words},
    directive::Directive,
    estimate::{Input, bytes_of_tokens, tokens_of_bytes},
    events::{Block, Reply, Text},
    sample::sample,
};
use crate::base::Rng;
use serde_json::{Value, json};

const THOUGHT: &str = "The request is simulated, and so is this thought about it.";
const SUMMARY: &str = "<analysis>\nThis conversation ran against a simulated provider.\n</analysis>\n\n<summary>\n\
    1. Primary Request and Intent: exercise a client against a simulated provider.\n\
    2. Key Technical Concepts: simulated answers, tool round trips.\n3. Files and Code Sections: none.\n\
    4. Problem Solving: none.\n5. Pending Tasks: none.\n6. Current Work: the last prompt was answered.\n</summary>";

/// A request as far as it shapes what is said.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) body: &'a Value,
    pub(super) turn: &'a Turn,
    pub(super) behaviour: &'a Behaviour,
    pub(super) model: &'a str,
    pub(super) input: Input,
}

/// An id of the API's form: `prefix` and 24 characters.
pub(super) fn id(prefix: &str, rng: &mut Rng) -> String {
    format!("{prefix}_01{:016x}{:06x}", rng.draw(), rng.draw() & 0xff_ffff)
}

/// The whole answer, cut at `max_tokens` as the API cuts it.
pub(super) fn reply(ask: &Ask<'_>, rng: &mut Rng) -> Reply {
    let mut blocks = blocks(ask, rng);
    let limit = ask.body.get("max_tokens").and_then(Value::as_u64).map_or(u64::MAX, bytes_of_tokens);
    let cut = clip(&mut blocks, limit);
    let calls = blocks.iter().any(|block| matches!(block, Block::Tool { .. }));
    let thought = |block: &Block| matches!(block, Block::Thinking { .. });
    Reply {
        id: id("msg", rng),
        model: ask.model.to_owned(),
        stop: if cut {
            "max_tokens"
        } else if calls {
            "tool_use"
        } else {
            "end_turn"
        },
        output: tokens_of_bytes(blocks.iter().map(bytes).sum()),
        thinking: tokens_of_bytes(blocks.iter().filter(|block| thought(block)).map(bytes).sum()),
        input: ask.input,
        blocks,
    }
}

fn bytes(block: &Block) -> u64 {
    match block {
        Block::Thinking { text, .. } => text.len() as u64,
        Block::Text(text) => text.total,
        Block::Tool { input, .. } => input.len() as u64,
    }
}

/// Cuts the answer to `limit` bytes: text is shortened, and what follows is dropped. Whether anything was cut.
fn clip(blocks: &mut Vec<Block>, limit: u64) -> bool {
    let mut left = limit;
    for at in 0..blocks.len() {
        let Some(block) = blocks.get_mut(at) else { break };
        let size = bytes(block);
        if size <= left {
            left -= size;
            continue;
        }
        let keep = match block {
            Block::Text(text) if left > 0 => {
                text.clip(left);
                at + 1
            }
            _ => at,
        };
        blocks.truncate(keep);
        return true;
    }
    false
}

fn blocks(ask: &Ask<'_>, rng: &mut Rng) -> Vec<Block> {
    let said = said(ask);
    let behaviour = ask.behaviour;
    let mut made = Vec::new();
    if behaviour.thinking {
        let display = ask.body.get("thinking").and_then(|thinking| thinking.get("display"));
        made.push(Block::Thinking { text: THOUGHT, shown: display.and_then(Value::as_str) != Some("omitted") });
    }
    // The first text has the size that was asked for; the others are what they say.
    let sized = behaviour.piece_bytes().is_some();
    if sized && !said.iter().any(|part| matches!(part, Said::Text(_))) {
        made.push(Block::Text(Text::new("SIM-OK".to_owned(), behaviour)));
    }
    let plain = Behaviour { event_bytes: behaviour.event_bytes, ..Behaviour::default() };
    let mut first = true;
    for part in said {
        made.push(match part {
            Said::Text(text) if std::mem::take(&mut first) => Block::Text(Text::new(text, behaviour)),
            Said::Text(text) => Block::Text(Text::new(text, &plain)),
            Said::Call(name, input) => Block::Tool { id: id("toolu", rng), name, input },
        });
    }
    made
}

enum Said {
    Text(String),
    Call(String, String),
}

fn said(ask: &Ask<'_>) -> Vec<Said> {
    let (turn, body) = (ask.turn, ask.body);
    if turn.compaction {
        return vec![Said::Text(SUMMARY.to_owned())];
    }
    let directed = turn.directives.split(|one| *one == Directive::Then).nth(turn.answered).unwrap_or_default();
    let directed: Vec<Said> = directed.iter().filter_map(|one| direct(one, turn, body)).collect();
    if !directed.is_empty() {
        return directed;
    }
    if turn.answered > 0 {
        return vec![Said::Text(format!("SIM-OK {}", turn.results))];
    }
    let format =
        body.get("output_config").and_then(|config| config.get("format")).or_else(|| body.get("output_format"));
    if let Some(schema) = format.and_then(|format| format.get("schema")) {
        return vec![Said::Text(sample(schema).to_string())];
    }
    if let Some(tool) = forced(body) {
        let input = sample(tool.get("input_schema").unwrap_or(&Value::Null)).to_string();
        return vec![Said::Call(name_of(tool).to_owned(), input)];
    }
    vec![Said::Text(format!("SIM-OK {}", first_words(&turn.prompt)))]
}

/// What one directive makes the answer say; behaviours say nothing.
fn direct(directive: &Directive, turn: &Turn, body: &Value) -> Option<Said> {
    match directive {
        Directive::Call { name, input } if tools(body).any(|tool| name_of(tool) == name) => {
            Some(Said::Call(name.clone(), input.clone()))
        }
        Directive::Call { name, .. } => Some(Said::Text(format!("SIM-OK no tool {name} is offered"))),
        Directive::Read(path) => {
            let call = reader(body, path);
            Some(call.unwrap_or_else(|| Said::Text("SIM-OK no tool that reads files is offered".to_owned())))
        }
        Directive::Text(text) => Some(Said::Text(text.clone())),
        Directive::Image => Some(Said::Text(format!("SIM-OK {}", turn.image.as_deref().unwrap_or("no image")))),
        Directive::Then | Directive::Behaviour(_) => None,
    }
}

fn tools(body: &Value) -> impl Iterator<Item = &Value> {
    body.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice).iter()
}

fn name_of(tool: &Value) -> &str {
    tool.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The tool that `tool_choice` asks for.
fn forced(body: &Value) -> Option<&Value> {
    let choice = body.get("tool_choice")?;
    match choice.get("type").and_then(Value::as_str)? {
        "tool" => tools(body).find(|tool| choice.get("name").and_then(Value::as_str) == Some(name_of(tool))),
        "any" => tools(body).next(),
        _ => None,
    }
}

/// A call that reads `path`: of a tool that reads and takes a path, else of a shell.
fn reader(body: &Value, path: &str) -> Option<Said> {
    let takes = |tool: &Value, key: &str| {
        tool.get("input_schema").and_then(|schema| schema.get("properties")?.get(key)).is_some()
    };
    let reads = |tool: &&Value| ["read", "view"].iter().any(|word| name_of(tool).to_ascii_lowercase().contains(word));
    for tool in tools(body).filter(reads) {
        if let Some(key) = ["file_path", "absolute_path", "path"].into_iter().find(|key| takes(tool, key)) {
            return Some(Said::Call(name_of(tool).to_owned(), json!({ key: path }).to_string()));
        }
    }
    let shell = tools(body).find(|tool| takes(tool, "command"))?;
    let command = format!("cat '{}'", path.replace('\'', r"'\''"));
    Some(Said::Call(name_of(shell).to_owned(), json!({ "command": command }).to_string()))
}
