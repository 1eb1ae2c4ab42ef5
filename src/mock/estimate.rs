//! How many tokens a request is, and how many of them the prompt cache already knows.
//!
//! The estimate is ours and deterministic: a quarter of the bytes of all string values and keys, rounded up. `type`,
//! `cache_control` and a text block's own keys do not count, and an image counts as 1600 tokens. The cache remembers
//! prefix hashes in the order tools, system, messages (R72), as the API does: written at each `cache_control` mark,
//! found at a mark or up to 20 blocks before it, kept 5 minutes (or an hour, if asked) from its last use.

use crate::base::{Mono, Span};
use serde_json::Value;
use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

/// Blocks before a mark that are searched for a known prefix.
const LOOKBACK_BLOCKS: usize = 20;
/// Prefixes remembered in all; the oldest goes first.
const PREFIXES_MAX: usize = 65_536;
const BYTES_PER_TOKEN: u64 = 4;
const IMAGE_BYTES: u64 = 1_600 * BYTES_PER_TOKEN;

/// Where a prompt can be cut for the cache: behind one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boundary {
    hash: u64,
    tokens: u64,
    mark: Option<Span>,
}

/// The input side of a request's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    /// Uncached.
    pub(super) fresh: u64,
    /// Written to the cache.
    pub(super) write: u64,
    /// Of these, kept for an hour.
    pub(super) write_hour: u64,
    /// Read from the cache.
    pub(super) read: u64,
}

/// `bytes` of text as tokens.
pub(super) fn tokens_of_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// `tokens` as the most bytes of text that they are.
pub(super) fn bytes_of_tokens(tokens: u64) -> u64 {
    tokens.saturating_mul(BYTES_PER_TOKEN)
}

/// Every boundary of a Messages request, in prompt order. The last one's tokens are the whole input.
pub(super) fn boundaries(body: &Value) -> Vec<Boundary> {
    let mut scale = Scale { hasher: DefaultHasher::new(), bytes: 0, found: Vec::new() };
    for tool in array(body.get("tools")) {
        scale.block(tool);
    }
    let billing = |block: &Value| text_of(block).is_some_and(|text| text.starts_with("x-anthropic-billing-header:"));
    match body.get("system") {
        Some(Value::Array(blocks)) => {
            // The API strips the attribution block when it is first and unchanged; it would spoil every prefix.
            for block in blocks.iter().enumerate().filter(|(at, block)| *at > 0 || !billing(block)) {
                scale.block(block.1);
            }
        }
        Some(text) => scale.block(text),
        None => {}
    }
    for message in array(body.get("messages")) {
        message.get("role").and_then(Value::as_str).hash(&mut scale.hasher);
        match message.get("content") {
            Some(Value::Array(blocks)) => blocks.iter().for_each(|block| scale.block(block)),
            Some(text) => scale.block(text),
            None => {}
        }
    }
    if let (Some(mark), Some(last)) = (mark_of(body), scale.found.last_mut()) {
        last.mark.get_or_insert(mark);
    }
    scale.found
}

/// The whole input of a request.
pub(super) fn total(boundaries: &[Boundary]) -> u64 {
    boundaries.last().map_or(0, |last| last.tokens).max(1)
}

fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text_of(block: &Value) -> Option<&str> {
    block.get("text").and_then(Value::as_str)
}

fn mark_of(value: &Value) -> Option<Span> {
    let mark = value.get("cache_control").filter(|mark| mark.is_object())?;
    let hour = mark.get("ttl").and_then(Value::as_str) == Some("1h");
    Some(Span::from_secs(if hour { 3_600 } else { 300 }))
}

/// Weighs and hashes a prompt, block by block.
struct Scale {
    hasher: DefaultHasher,
    bytes: u64,
    found: Vec<Boundary>,
}

impl Scale {
    fn block(&mut self, block: &Value) {
        // A text block and a plain string are the same prompt.
        match text_of(block).filter(|_| block.get("type").and_then(Value::as_str) == Some("text")) {
            Some(text) => self.text(text),
            None => self.weigh(block),
        }
        let inner = array(block.get("content")).iter().rev().find_map(mark_of);
        self.found.push(Boundary {
            hash: self.hasher.finish(),
            tokens: tokens_of_bytes(self.bytes),
            mark: mark_of(block).or(inner),
        });
    }

    fn text(&mut self, text: &str) {
        text.hash(&mut self.hasher);
        self.bytes += text.len() as u64;
    }

    /// `serde_json` has bounded the depth.
    fn weigh(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                items.len().hash(&mut self.hasher);
                for item in items {
                    self.weigh(item);
                }
            }
            Value::Object(members) => {
                let before = self.bytes;
                for (key, member) in members.iter().filter(|(key, _)| *key != "cache_control") {
                    key.hash(&mut self.hasher);
                    let uncounted = self.bytes;
                    self.weigh(member);
                    self.bytes = if key == "type" { uncounted } else { self.bytes + key.len() as u64 };
                }
                if members.get("type").and_then(Value::as_str) == Some("image") {
                    self.bytes = before + IMAGE_BYTES;
                }
            }
            other => other.to_string().hash(&mut self.hasher),
        }
    }
}

/// The prefixes that each owner (a credential and a model) has in the cache.
#[derive(Default)]
pub(super) struct PromptCache {
    until: HashMap<(u64, u64), Mono>,
    order: VecDeque<(u64, u64)>,
}

impl PromptCache {
    /// Splits a request's input. Prefixes below `tokens_min` are never cached.
    pub(super) fn look(&self, owner: u64, prompt: &[Boundary], tokens_min: u64, now: Mono) -> Input {
        let whole = total(prompt);
        let Some(last) = marks(prompt, tokens_min).last() else {
            return Input { fresh: whole, ..Input::default() };
        };
        let known = marks(prompt, tokens_min).rev().find_map(|at| self.known(owner, prompt, at, now));
        let read = known.map_or(0, |boundary| boundary.tokens);
        let last = prompt[last];
        let write = last.tokens - read.min(last.tokens);
        let hour = last.mark == Some(Span::from_secs(3_600));
        Input { fresh: whole - last.tokens, write, write_hour: if hour { write } else { 0 }, read }
    }

    /// Remembers the marked prefixes of an admitted request, and keeps the one that it used.
    pub(super) fn keep(&mut self, owner: u64, prompt: &[Boundary], tokens_min: u64, now: Mono) {
        for at in marks(prompt, tokens_min).rev() {
            let until = now.after(prompt[at].mark.unwrap_or_default());
            if let Some(used) = self.known(owner, prompt, at, now) {
                self.remember((owner, used.hash), until);
            }
            self.remember((owner, prompt[at].hash), until);
        }
    }

    /// The longest known prefix that ends at boundary `at` or shortly before.
    fn known(&self, owner: u64, prompt: &[Boundary], at: usize, now: Mono) -> Option<Boundary> {
        let window = prompt.get(at.saturating_sub(LOOKBACK_BLOCKS)..=at)?;
        let fresh = |b: &&Boundary| self.until.get(&(owner, b.hash)).is_some_and(|until| now < *until);
        window.iter().rev().find(fresh).copied()
    }

    fn remember(&mut self, key: (u64, u64), until: Mono) {
        if let Some(known) = self.until.get_mut(&key) {
            *known = (*known).max(until);
            return;
        }
        if self.order.len() >= PREFIXES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
        self.until.insert(key, until);
        self.order.push_back(key);
    }
}

/// Where the marks are that are long enough to be cached.
fn marks(prompt: &[Boundary], tokens_min: u64) -> impl DoubleEndedIterator<Item = usize> {
    let marked = move |(at, b): (usize, &Boundary)| (b.mark.is_some() && b.tokens >= tokens_min).then_some(at);
    prompt.iter().enumerate().filter_map(marked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    impl PromptCache {
        fn split(&mut self, owner: u64, prompt: &[Boundary], tokens_min: u64, now: Mono) -> Input {
            let input = self.look(owner, prompt, tokens_min, now);
            self.keep(owner, prompt, tokens_min, now);
            input
        }
    }

    fn turn(blocks: &[&str], mark_at: usize) -> Value {
        let content: Vec<Value> = blocks
            .iter()
            .enumerate()
            .map(|(at, text)| {
                let mut block = json!({"type": "text", "text": text});
                if at == mark_at {
                    block["cache_control"] = json!({"type": "ephemeral"});
                }
                block
            })
            .collect();
        json!({"messages": [{"role": "user", "content": content}]})
    }

    #[test]
    fn the_estimate_is_a_quarter_of_the_bytes() {
        let prompt = boundaries(&turn(&["12345678", "abcd"], 9));
        assert_eq!(total(&prompt), 3);
        let image = json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {"data": "A".repeat(90_000)}}]}]});
        assert_eq!(total(&boundaries(&image)), 1_600);
    }

    #[test]
    fn a_string_and_a_text_block_are_the_same_prompt() {
        let string = json!({"messages": [{"role": "user", "content": "hello"}]});
        assert_eq!(boundaries(&string), boundaries(&turn(&["hello"], 9)));
    }

    #[test]
    fn a_conversation_reads_what_its_last_turn_wrote() {
        let mut cache = PromptCache::default();
        let (a, b) = ("a".repeat(400), "b".repeat(400));
        let first = cache.split(1, &boundaries(&turn(&[&a], 0)), 10, Mono(0));
        assert_eq!(first, Input { fresh: 0, write: 100, write_hour: 0, read: 0 });
        let second = boundaries(&turn(&[&a, &b, "tailtail"], 1));
        assert_eq!(cache.split(1, &second, 10, Mono(1)), Input { fresh: 2, write: 100, write_hour: 0, read: 100 });
        assert_eq!(cache.split(2, &second, 10, Mono(1)).read, 0, "another owner's cache is another cache");
    }

    #[test]
    fn a_prefix_is_forgotten_five_minutes_after_its_last_use() {
        let mut cache = PromptCache::default();
        let prompt = boundaries(&turn(&[&"a".repeat(400)], 0));
        let minutes = |n: u64| Mono(0).after(Span::from_secs(n * 60));
        cache.split(1, &prompt, 10, minutes(0));
        assert_eq!(cache.split(1, &prompt, 10, minutes(4)).read, 100);
        assert_eq!(cache.split(1, &prompt, 10, minutes(8)).read, 100);
        assert_eq!(cache.split(1, &prompt, 10, minutes(13)).read, 0);
        assert_eq!(cache.split(1, &prompt, 101, minutes(13)), Input { fresh: 100, ..Input::default() });
    }

    #[test]
    fn the_attribution_block_changes_nothing() {
        let with = |line: &str| {
            let system = json!([{"type": "text", "text": format!("x-anthropic-billing-header: {line}")}, {"type": "text", "text": "s"}]);
            boundaries(&json!({"system": system, "messages": []}))
        };
        assert_eq!(with("cc_version=1"), with("cc_version=2;"));
    }
}
