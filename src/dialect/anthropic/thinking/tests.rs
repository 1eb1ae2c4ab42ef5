use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The same by a parser: the document without those blocks, and how many they are.
fn without(body: &[u8]) -> (Value, usize) {
    let mut document: Value = serde_json::from_slice(body).unwrap();
    let mut blocks = 0;
    let thinks = |block: &Value| ["thinking", "redacted_thinking"].iter().any(|kind| block["type"] == *kind);
    if let Some(messages) = document.get_mut("messages").and_then(Value::as_array_mut) {
        messages.retain_mut(|message| {
            if message.get("role") != Some(&json!("assistant")) {
                return true;
            }
            let Some(content) = message.get_mut("content").and_then(Value::as_array_mut) else { return true };
            let before = content.len();
            content.retain(|block| !thinks(block));
            blocks += before - content.len();
            content.len() == before || !content.is_empty()
        });
    }
    (document, blocks)
}

fn cut(body: &str) -> (String, Cuts) {
    let cuts = cut_thinking(body.as_bytes()).unwrap();
    (String::from_utf8(cuts.apply(body.as_bytes())).unwrap(), cuts)
}

#[test]
fn blocks_go_and_every_other_byte_stays() {
    let body = r#"{"model":"m", "messages": [
  {"role":"user","content":"think: {\"type\":\"thinking\"}"},
  {"role":"assistant","content":[ {"type":"thinking","thinking":"a ] } \" \\","signature":"s="} , {"type":"tool_use","id":"t","name":"n","input":{"type":"thinking"}} ]},
  {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"1.0e+2"}]}]},
  {"content":[{"type":"text","text":"x"}, {"type":"redacted_thinking","data":"d"},{"th\u0069nking":"","signature":"","typ\u0065":"thin\u006bing"} ,{"type":"text","text":"y"}, {"type":"thinking","thinking":""} ],"role":"assistant"}
],"max_tokens":1.50e3 }"#;
    let want = r#"{"model":"m", "messages": [
  {"role":"user","content":"think: {\"type\":\"thinking\"}"},
  {"role":"assistant","content":[ {"type":"tool_use","id":"t","name":"n","input":{"type":"thinking"}} ]},
  {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"1.0e+2"}]}]},
  {"content":[{"type":"text","text":"x"} ,{"type":"text","text":"y"} ],"role":"assistant"}
],"max_tokens":1.50e3 }"#;
    let (left, cuts) = cut(body);
    assert_eq!(left, want);
    assert_eq!((cuts.blocks, cuts.messages, cuts.in_last_turn), (4, 0, true));
    assert_eq!(cuts.bytes(), body.len() - want.len());
}

#[test]
fn a_message_of_thinking_alone_goes_whole() {
    let thought = r#"{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"s"}]}"#;
    let user = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
    for (messages, want, gone) in [
        (format!("[{}, {thought} , {}]", user("a"), user("b")), format!("[{} , {}]", user("a"), user("b")), 1),
        (format!("[ {thought} , {thought},{} ]", user("a")), format!("[ {} ]", user("a")), 2),
        (format!("[{} ,{thought}, {thought}]", user("a")), format!("[{}]", user("a")), 2),
        (format!("[ {thought} ]"), "[  ]".to_owned(), 1),
    ] {
        let (left, cuts) = cut(&format!(r#"{{"messages":{messages}}}"#));
        assert_eq!(left, format!(r#"{{"messages":{want}}}"#));
        assert_eq!((cuts.messages, cuts.blocks), (gone, gone));
    }
}

#[test]
fn a_first_message_that_stays_may_lose_blocks_behind_messages_that_go() {
    let body = r#"{"messages":[{"role":"assistant","content":[{"type":"thinking"}]},{"role":"assistant","content":[{"type":"thinking"},{"type":"text","text":"x"}]}]}"#;
    let (left, cuts) = cut(body);
    assert_eq!(left, r#"{"messages":[{"role":"assistant","content":[{"type":"text","text":"x"}]}]}"#);
    assert_eq!((cuts.blocks, cuts.messages), (2, 1));
}

#[test]
fn only_the_last_turn_counts_as_the_last() {
    let of = |last: &str| {
        let body = format!(
            r#"{{"messages":[{{"role":"assistant","content":[{{"type":"thinking"}},{{"type":"text"}}]}},{{"role":"user","content":"u"}},{{"role":"assistant","content":{last}}}]}}"#
        );
        cut(&body).1.in_last_turn
    };
    assert!(!of(r#""text""#));
    assert!(!of(r#"[{"type":"text"}]"#));
    assert!(of(r#"[{"type":"redacted_thinking"},{"type":"text"}]"#));
}

#[test]
fn what_is_not_history_is_left_alone() {
    for body in [
        r"{}",
        r#"{"messages":[]}"#,
        r#"{"messages":null}"#,
        r#"{"messages":[1,"a",[{"type":"thinking"}],{"role":"assistant"},{"role":"assistant","content":[]}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"thinking"}]}]}"#,
        r#"{"messages":[{"role":"assistant","content":{"type":"thinking"}}]}"#,
        r#"{"system":[{"role":"assistant","content":[{"type":"thinking"}]}],"x":{"messages":[{"role":"assistant","content":[{"type":"thinking"}]}]}}"#,
        r#"{"thinking":{"type":"thinking"},"messages":[{"role":"assistant","content":["thinking",{"type":{"type":"thinking"}}]}]}"#,
    ] {
        let (left, cuts) = cut(body);
        assert_eq!(left, body);
        assert!(cuts.is_empty() && cuts.blocks == 0 && cuts.messages == 0, "{body}");
    }
}

#[test]
fn the_last_of_two_fields_counts() {
    let body = r#"{"messages":[{"role":"assistant","content":[{"type":"thinking","type":"text"},{"type":"text","type":"thinking"}],"role":"assistant"}]}"#;
    assert_eq!(
        cut(body).0,
        r#"{"messages":[{"role":"assistant","content":[{"type":"thinking","type":"text"}],"role":"assistant"}]}"#
    );
}

#[test]
fn what_cannot_be_followed_is_left_to_the_upstream() {
    let deep = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(cut_thinking(deep(128).as_bytes()).is_some());
    assert!(cut_thinking(deep(129).as_bytes()).is_none());
    for body in [
        "",
        "[]",
        "{",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}x"#,
        r#"{"a":[}]}"#,
        r#"{"a":1} {}"#,
        r#"{"messages":[{"role":"assistant" "content":[]}]}"#,
        r#"{"messages":[{} {}]}"#,
        r#"{"messages":["a"#,
        r#"{"a":"\"#,
    ] {
        assert!(cut_thinking(body.as_bytes()).is_none(), "{body}");
    }
}

fn block() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec!["thinking", "redacted_thinking", "text", "tool_use", "thinking "]);
    let text = ".*";
    prop_oneof![
        8 => (kind, text).prop_map(|(kind, text)| json!({"thinking": text, "type": kind, "signature": "s=="})),
        1 => text.prop_map(Value::from),
        1 => text.prop_map(|text| json!({"type": "tool_result", "content": [{"type": "thinking", "thinking": text}]})),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec!["assistant", "user", "system"]);
    let content = prop_oneof![
        4 => prop::collection::vec(block(), 0..5).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
    ];
    (role, content).prop_map(|(role, content)| json!({"role": role, "content": content}))
}

/// Puts spaces around what is between values.
fn spaced(compact: &str, spaces: &[u8]) -> String {
    let (mut out, mut in_string, mut escaped, mut turn) = (String::new(), false, false, 0);
    for c in compact.chars() {
        let mut space = || {
            turn += 1;
            " \n\t\r".chars().cycle().skip(turn).take(spaces[turn % spaces.len()] as usize % 3).collect::<String>()
        };
        if !in_string && "{}[]:,".contains(c) {
            out.push_str(&space());
            out.push(c);
            out.push_str(&space());
        } else {
            out.push(c);
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
    }
    out
}

proptest! {
    #[test]
    fn the_document_is_the_same_but_for_those_blocks(
        messages in prop::collection::vec(message(), 0..6), more in any::<String>(),
        spaces in prop::collection::vec(any::<u8>(), 1..16), pretty: bool,
    ) {
        let document = json!({"model": "m", "messages": messages, "tools": [{"name": more}], "stream": true});
        let body = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
        let body = spaced(&body.unwrap(), &spaces);
        let (want, blocks) = without(body.as_bytes());
        let (left, cuts) = cut(&body);
        prop_assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), want, "{}", body);
        prop_assert_eq!(cuts.blocks, blocks);
        prop_assert_eq!(cuts.messages, messages.len() - serde_json::from_str::<Value>(&left).unwrap()["messages"].as_array().unwrap().len());
        prop_assert_eq!(blocks == 0, cuts.is_empty());
        prop_assert!(cuts.ranges.iter().all(|range| range.start < range.end));
        prop_assert!(cuts.ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", cuts);
        prop_assert!(cut(&left).1.is_empty(), "what is left has none");
    }

    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(cuts) = cut_thinking(&bytes) {
            prop_assert!(cuts.apply(&bytes).len() + cuts.bytes() == bytes.len());
        }
    }

    #[test]
    fn no_broken_document_breaks_it(
        messages in prop::collection::vec(message(), 1..4), at in any::<prop::sample::Index>(), with in any::<u8>(),
        cut_short: bool,
    ) {
        let mut body = serde_json::to_vec(&json!({"messages": messages})).unwrap();
        let at = at.index(body.len());
        if cut_short { body.truncate(at) } else { body[at] = with }
        if let Some(cuts) = cut_thinking(&body) {
            prop_assert!(cuts.ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert_eq!(cuts.apply(&body).len() + cuts.bytes(), body.len());
            if let Ok(document) = serde_json::from_slice::<Value>(&body) {
                prop_assert!(serde_json::from_slice::<Value>(&cuts.apply(&body)).is_ok(), "{}", document);
            }
        }
    }
}
