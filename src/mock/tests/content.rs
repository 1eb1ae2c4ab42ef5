//! What answers say: tools, images, summaries, lists, and who may ask.

use super::*;
use crate::mock::Key;

fn tools() -> Value {
    let file = json!({"type": "object", "properties": {"file_path": {"type": "string"}}, "required": ["file_path"]});
    json!([
        {"name": "Agent", "input_schema": {"type": "object", "properties": {"prompt": {"type": "string"}}}},
        {"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}},
        {"name": "Read", "input_schema": file},
    ])
}

fn conversation(text: &str) -> Value {
    let mut body = prompt(text, true);
    body["tools"] = tools();
    body
}

/// The answer's tool calls, as (name, input).
fn calls(message: &Value) -> Vec<(String, Value)> {
    let blocks = message["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
    blocks.map(|block| (block["name"].as_str().unwrap().to_owned(), block["input"].clone())).collect()
}

/// Plays the client: appends the answer and a result for each of its calls.
fn answer_calls(body: &mut Value, message: &Value, result: &str) {
    let blocks = message["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
    let results: Vec<Value> =
        blocks.map(|block| json!({"type": "tool_result", "tool_use_id": block["id"], "content": result})).collect();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": message["content"]}));
    messages.push(json!({"role": "user", "content": results}));
}

#[test]
fn a_tool_round_trip_ends_with_the_tools_result() {
    let (mut world, mut body) = (World::default(), conversation("Read it [[sim:read=/w/s.txt]]"));
    let message = world.ask("", &body).message().unwrap();
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(calls(&message), [("Read".to_owned(), json!({"file_path": "/w/s.txt"}))]);
    assert!(message["content"][0]["id"].as_str().unwrap().starts_with("toolu_"));
    answer_calls(&mut body, &message, "secret-77");
    let end = world.ask("", &body);
    assert_eq!(end.text(), "SIM-OK secret-77");
    assert_eq!(end.message().unwrap()["stop_reason"], "end_turn");
}

#[test]
fn calls_can_be_parallel_nested_and_one_turn_after_the_other() {
    let (mut world, inner) = (World::default(), "say [[sim:text=done]]");
    let text = format!(
        "[[sim:call=Agent:{}]][[sim:call=Bash:{}]] [[sim:then]] [[sim:text=then]] [[sim:read=/b]]",
        json!({ "prompt": inner }),
        json!({"command": "ls"})
    );
    let mut body = conversation(&text);
    let first = world.ask("", &body).message().unwrap();
    let expected = [("Agent".to_owned(), json!({ "prompt": inner })), ("Bash".to_owned(), json!({"command": "ls"}))];
    assert_eq!(calls(&first), expected);
    answer_calls(&mut body, &first, "r");
    let second = world.ask("", &body).message().unwrap();
    assert_eq!((calls(&second).len(), &second["content"][0]["text"]), (1, &json!("then")));
    answer_calls(&mut body, &second, "s");
    assert_eq!(world.ask("", &body).text(), "SIM-OK r | r | s");
    assert_eq!(world.ask("", &conversation(inner)).text(), "done", "what the subagent is told");
}

#[test]
fn only_offered_tools_are_called() {
    let mut body = conversation("[[sim:call=WebFetch:{}]]");
    assert_eq!(World::default().ask("", &body).text(), "SIM-OK no tool WebFetch is offered");
    body = conversation("[[sim:read=/it's]]");
    body["tools"] = json!([tools()[1]]);
    let message = World::default().ask("", &body).message().unwrap();
    assert_eq!(calls(&message), [("Bash".to_owned(), json!({"command": r"cat '/it'\''s'"}))]);
    body["tools"] = json!([]);
    assert_eq!(calls(&World::default().ask("", &body).message().unwrap()), []);
}

#[test]
fn forced_tools_and_structured_output_get_what_they_ask_for() {
    let mut body = conversation("hi");
    body["tool_choice"] = json!({"type": "tool", "name": "Read"});
    let message = World::default().ask("", &body).message().unwrap();
    assert_eq!(calls(&message), [("Read".to_owned(), json!({"file_path": "sim"}))]);
    let mut body = prompt("hi", false);
    let schema = json!({"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}}});
    body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
    assert_eq!(World::default().ask("", &body).text(), r#"{"title":"sim"}"#);
}

#[test]
fn a_request_for_a_summary_gets_one() {
    let asked = prompt("Your task is to create a detailed summary of the conversation so far. [[sim:529]]x", true);
    let text = World::default().ask("ok", &asked).text();
    assert!(text.contains("<summary>") && text.contains("</summary>"), "{text}");
    let fields = [("x-api-key", "k"), ("x-claude-code-request-class", "compaction")];
    let played = World::default().send("POST", "/v1/messages", &fields, prompt("go on", true).to_string().as_bytes());
    assert!(played.text().contains("<summary>"));
}

#[test]
fn thinking_comes_first_and_is_signed() {
    let mut body = prompt("[[sim:thinking]] hi", true);
    let message = World::default().ask("", &body).message().unwrap();
    assert_eq!(message["content"][0]["type"], "thinking");
    assert!(!message["content"][0]["signature"].as_str().unwrap().is_empty());
    assert!(message["usage"]["output_tokens_details"]["thinking_tokens"].as_u64().unwrap() > 0);
    body["thinking"] = json!({"type": "adaptive", "display": "omitted"});
    let hidden = World::default().ask("", &body).message().unwrap();
    assert_eq!(hidden["content"][0]["thinking"], "");
    assert_eq!(hidden["usage"]["output_tokens"], message["usage"]["output_tokens"]);
}

#[test]
fn images_are_described() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "QUJD"}});
    let mut body = prompt("", true);
    body["messages"][0]["content"] = json!([image, {"type": "text", "text": "what is it [[sim:image]]"}]);
    assert_eq!(World::default().ask("", &body).text(), "SIM-OK image/webp 3 bytes");
}

#[test]
fn small_paths_answer_as_the_api_does() {
    let mut world = World::default();
    let key = [("authorization", "Bearer k")];
    let hello = world.send("HEAD", "/api/hello", &[], b"");
    assert_eq!((hello.head.status, hello.bytes.ends_with(b"\r\n\r\n")), (200, true));
    let list = world.send("GET", "/v1/models?limit=2", &key, b"").json();
    assert_eq!((list["data"].as_array().unwrap().len(), &list["has_more"]), (2, &json!(true)));
    let id = list["first_id"].as_str().unwrap();
    assert_eq!(world.send("GET", &format!("/v1/models/{id}"), &key, b"").json()["id"], id);
    for (method, target, status) in [
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/files", 404),
        ("GET", "http://h/v1/models?limit=1", 200),
        ("GET", "http://h", 404),
    ] {
        let played = world.send(method, target, &key, b"");
        assert_eq!(played.head.status, status, "{method} {target}");
        assert!(status == 200 || played.json()["request_id"] == played.field("request-id").unwrap());
    }
    let body = prompt("12345678901234567890", false).to_string();
    let count = world.send("POST", "/v1/messages/count_tokens?beta=true", &key, body.as_bytes()).json();
    assert_eq!(count, json!({"input_tokens": 5}));
    assert_eq!(world.ask("", &prompt("12345678901234567890", false)).json()["usage"]["input_tokens"], 5);
}

#[test]
fn requests_that_the_api_refuses_are_refused() {
    let mut world = World::default();
    let mut refused = |change: &dyn Fn(&mut Value), says: &str| {
        let mut body = prompt("hi", true);
        change(&mut body);
        let played = world.ask("", &body);
        assert_eq!(played.head.status, 400, "{says}");
        assert!(played.json()["error"]["message"].as_str().unwrap().contains(says), "{says}");
    };
    refused(&|body| *body = json!([]), "JSON object");
    refused(&|body| drop(body.as_object_mut().unwrap().remove("model")), "model");
    refused(&|body| drop(body.as_object_mut().unwrap().remove("max_tokens")), "max_tokens");
    refused(&|body| body["messages"] = json!([]), "messages");
    let mut strict = World::new(Options { strict: true, ..Options::default() });
    assert_eq!(strict.hi("").head.status, 400);
    let fields = [("x-api-key", "k"), ("anthropic-version", "2026-10-21")];
    let mut body = prompt("hi", true);
    assert_eq!(strict.send("POST", "/v1/messages", &fields, body.to_string().as_bytes()).head.status, 200);
    body["temperature"] = json!(1);
    assert_eq!(strict.send("POST", "/v1/messages", &fields, body.to_string().as_bytes()).head.status, 400);
}

#[test]
fn credentials_are_known_by_either_header_and_named_in_the_log() {
    let mut open = World::default();
    for (fields, status) in [
        (vec![], 401),
        (vec![("x-api-key", "")], 401),
        (vec![("authorization", "Basic k")], 401),
        (vec![("x-api-key", ""), ("authorization", "Bearer k")], 200),
        (vec![("x-api-key", "k")], 200),
    ] {
        let played = open.send("POST", "/v1/messages", &fields, prompt("hi", true).to_string().as_bytes());
        assert_eq!(played.head.status, status, "{fields:?}");
    }
    let keys = vec![Key::new("org-a", "s3cret"), Key::new("org-b", "other")];
    let mut closed = World::new(Options { keys, ..Options::default() });
    let body = prompt("hi", true).to_string();
    let mut status = |fields: &[(&str, &str)]| closed.send("POST", "/v1/messages", fields, body.as_bytes()).head.status;
    assert_eq!(status(&[("x-api-key", "unknown")]), 401);
    assert_eq!(status(&[("x-api-key", "unknown"), ("authorization", "Bearer other")]), 200);
    assert_eq!(status(&[("x-api-key", "s3cret")]), 200);
    let names: Vec<_> = closed.engine.rows().map(|row| (row.credential.as_str(), row.status)).collect();
    assert_eq!(names, [("", 401), ("org-b", 200), ("org-a", 200)]);
}
