//! What a conversation asks for next: its last prompt, the directives in it, the tool results since, and the last image.
//! Reads the request as `serde_json` values; it judges nothing.

use super::directive::{Directive, scan};
use serde_json::Value;

/// Text quoted back at most.
const QUOTE_BYTES_MAX: usize = 1_000;

/// A conversation at its last message.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// The last prompt, without directives and reminders.
    pub(super) prompt: String,
    /// Its directives.
    pub(super) directives: Vec<Directive>,
    /// Messages with tool results since that prompt.
    pub(super) answered: usize,
    /// What those results say.
    pub(super) results: String,
    /// Media type and bytes of the last image anywhere.
    pub(super) image: Option<String>,
    /// Whether this is Claude Code asking for a summary to go on with.
    pub(super) compaction: bool,
}

/// Reads the conversation in `body`.
pub(super) fn read(body: &Value) -> Turn {
    let mut turn = Turn::default();
    let messages = body.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let (mut results, mut noticed) = (Vec::new(), Vec::new());
    for message in messages.iter().filter(|message| message.get("role").and_then(Value::as_str) == Some("user")) {
        let content = message.get("content").unwrap_or(&Value::Null);
        let prompt = prompt_of(content);
        let answers: Vec<String> = blocks(content).filter(|block| is(block, "tool_result")).map(result_text).collect();
        let (directives, plain) = scan(&prompt);
        let notices = notices(content);
        if !directives.is_empty() || (answers.is_empty() && !plain.trim().is_empty()) {
            (turn.prompt, turn.directives, turn.answered) = (plain, directives, 0);
            results.clear();
            noticed.clear();
        } else if !answers.is_empty() || !notices.is_empty() {
            turn.answered += 1;
            results.extend(answers);
            noticed.extend(notices);
        }
        turn.image = images(content).last().or(turn.image.take());
    }
    // What came of a background task replaces the receipt that its start was answered with.
    let results = if noticed.is_empty() { results } else { noticed };
    quote(&results.join(" | "), QUOTE_BYTES_MAX).clone_into(&mut turn.results);
    turn.compaction = is_compaction(&turn.prompt);
    turn
}

/// The first words of the prompt.
pub(super) fn first_words(prompt: &str) -> String {
    prompt.split_whitespace().take(12).collect::<Vec<_>>().join(" ")
}

/// The start of `text`, `max` bytes at most, cut between characters.
pub(super) fn quote(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end).0
}

/// Claude Code's request for a summary says so in its last prompt.
fn is_compaction(prompt: &str) -> bool {
    prompt.contains("create a detailed summary of") || (prompt.contains("<summary>") && prompt.contains("</summary>"))
}

fn blocks(content: &Value) -> impl Iterator<Item = &Value> {
    content.as_array().map_or(&[][..], Vec::as_slice).iter()
}

fn is(block: &Value, kind: &str) -> bool {
    block.get("type").and_then(Value::as_str) == Some(kind)
}

fn text_of(block: &Value) -> Option<&str> {
    block.get("text").and_then(Value::as_str)
}

/// The text that a person wrote: all text blocks, without `<system-reminder>` parts (they may quote documents).
fn prompt_of(content: &Value) -> String {
    let texts: Vec<&str> = match content {
        Value::String(text) => vec![text],
        other => blocks(other).filter(|block| is(block, "text")).filter_map(text_of).collect(),
    };
    texts
        .iter()
        .map(|text| without_reminders(text))
        .filter(|text| !text.trim().is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

fn without_reminders(text: &str) -> String {
    const OPEN: &str = "<system-reminder>";
    const CLOSE: &str = "</system-reminder>";
    let (mut kept, mut rest) = (String::new(), text);
    while let Some((before, from)) = rest.split_once(OPEN) {
        kept.push_str(before);
        rest = from.split_once(CLOSE).map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

/// Results of background tasks (Claude Code's subagents): they come in reminders, as `<task-notification>`.
fn notices(content: &Value) -> Vec<String> {
    let texts = blocks(content).filter_map(text_of).chain(content.as_str());
    let each = texts.flat_map(|text| text.split("<task-notification>").skip(1));
    let result = |notice: &str| Some(notice.split_once("<result>")?.1.split_once("</result>")?.0.to_owned());
    each.filter_map(result).collect()
}

/// What one tool result says; images by media type and size.
fn result_text(result: &Value) -> String {
    let content = result.get("content").unwrap_or(&Value::Null);
    let mut parts: Vec<String> = content.as_str().map(str::to_owned).into_iter().collect();
    parts.extend(blocks(content).filter_map(text_of).map(str::to_owned));
    parts.extend(blocks(content).filter_map(image_text).map(|image| format!("[image {image}]")));
    parts.join(" ")
}

/// Every image in a message, tool results included.
fn images(content: &Value) -> impl Iterator<Item = String> {
    blocks(content).flat_map(|block| {
        let inner = block.get("content").unwrap_or(&Value::Null);
        image_text(block).into_iter().chain(blocks(inner).filter_map(image_text))
    })
}

/// `image/png 1234 bytes` for an image block.
fn image_text(block: &Value) -> Option<String> {
    let source = block.get("source").filter(|_| is(block, "image"))?;
    let member = |name: &str| source.get(name).and_then(Value::as_str);
    match member("data") {
        Some(data) => {
            let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
            let bytes = (data.len() * 3 / 4).saturating_sub(padding);
            Some(format!("{} {bytes} bytes", member("media_type").unwrap_or("image")))
        }
        None => member("url").or(member("file_id")).map(|place| format!("at {place}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_belong_to_the_last_prompt() {
        let body = json!({"messages": [
            {"role": "user", "content": "old [[sim:read=/old]]"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "old result"}]},
            {"role": "user", "content": [{"type": "text", "text": "<system-reminder>[[sim:529]]</system-reminder>new"}]},
            {"role": "system", "content": "[[sim:500]]"},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "u", "content": [{"type": "text", "text": "fresh [[sim:401]]"}]},
                {"type": "text", "text": "<system-reminder>more</system-reminder>"}]}]});
        let turn = read(&body);
        assert_eq!((turn.prompt.as_str(), turn.answered), ("new", 1));
        assert_eq!(turn.results, "fresh [[sim:401]]");
        assert!(turn.directives.is_empty(), "{:?}", turn.directives);
    }

    #[test]
    fn a_background_task_answers_in_a_reminder() {
        let notice = "<system-reminder><task-notification><task-id>1</task-id><result>found it</result></task-notification>\
                      </system-reminder>";
        let body = json!({"messages": [
            {"role": "user", "content": "ask one [[sim:call=Agent:{}]]"},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "launched"}]},
            {"role": "user", "content": [{"type": "text", "text": "<system-reminder>used: Read</system-reminder>"}]},
            {"role": "user", "content": [{"type": "text", "text": notice}]}]});
        let turn = read(&body);
        assert_eq!((turn.answered, turn.results.as_str(), turn.directives.len()), (2, "found it", 1));
    }

    #[test]
    fn the_last_image_is_told_by_type_and_size() {
        let source = json!({"type": "base64", "media_type": "image/png", "data": "QUJDRA=="});
        let body = json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image", "source": source}]}]}]});
        let turn = read(&body);
        assert_eq!(turn.image.as_deref(), Some("image/png 4 bytes"));
        assert_eq!(turn.results, "[image image/png 4 bytes]");
    }

    #[test]
    fn quotes_end_between_characters() {
        assert_eq!(quote("aé", 2), "a");
        assert_eq!(quote("aé", 9), "aé");
    }
}
