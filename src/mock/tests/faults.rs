//! Answers that should be broken: each in its own way, and visibly.

use super::*;
use crate::mock::{Ending, Rule};

fn kinds(played: &Played) -> Vec<String> {
    let events = played.events().unwrap();
    events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

fn deltas(played: &Played) -> usize {
    kinds(played).iter().filter(|kind| *kind == "content_block_delta").count()
}

/// The request is a stream of 8 deltas; the ending is booked as broken.
fn broken(sim: &str) -> Played {
    let mut world = World::default();
    let played = world.hi(&format!("events=8,{sim}"));
    let row = world.engine.rows().last().unwrap();
    assert_eq!((row.ending, row.ended_mono_ns.is_some()), (Ending::Broken, true), "{sim}");
    assert!(played.message().is_err(), "{sim}: a client would take it for whole");
    played
}

#[test]
fn nothing_comes_before_a_reset_or_a_close() {
    for (sim, end) in [("reset", Step::Reset), ("close", Step::Close)] {
        let played = broken(sim);
        assert_eq!((played.bytes.len(), played.end), (0, end), "{sim}");
    }
}

#[test]
fn a_cut_ends_inside_an_event_and_inside_a_chunk() {
    for (sim, end) in [("cut=3", Step::Reset), ("cut=3,fin", Step::Close), ("cut=3,cut_bytes=5", Step::Reset)] {
        let played = broken(sim);
        assert_eq!((played.end, played.whole, deltas(&played)), (end, false, 3), "{sim}");
        assert!(!played.body.ends_with(b"\n\n"), "{sim}");
    }
    let tail = broken("cut=3,cut_bytes=5").body;
    assert!(tail.ends_with(b"\n\nevent"), "{}", String::from_utf8_lossy(&tail));
    let border = broken("cut=3,cut_bytes=0");
    assert!(border.body.ends_with(b"\n\n") && !border.whole && deltas(&border) == 3);
    assert!(!broken("cut=3,framing=length").whole);
    assert!(broken("cut=3,framing=close,fin").whole, "only the missing events tell");
    assert_eq!(deltas(&broken("cut=100")), 8, "an answer that is too short is cut at its end");
}

#[test]
fn a_cut_after_a_block_leaves_the_block_whole() {
    let played = broken("cut_block");
    assert_eq!((played.end, played.whole), (Step::Reset, false));
    assert_eq!(kinds(&played).last().unwrap(), "content_block_stop");
    let two = World::default().ask("cut_block=1", &prompt("[[sim:text=one]][[sim:text=two]]", true));
    assert_eq!(kinds(&two).iter().filter(|kind| *kind == "content_block_start").count(), 1);
}

#[test]
fn clean_ends_are_clean_for_http_only() {
    let played = broken("clean_cut=3");
    assert_eq!((played.end, played.whole, deltas(&played)), (Step::Finish, true, 3));
    assert!(broken("clean_cut=3,framing=length").whole);
    let played = broken("no_stop");
    assert_eq!((played.end, played.whole), (Step::Finish, true));
    assert_eq!(kinds(&played).last().unwrap(), "message_delta");
}

#[test]
fn error_events_come_first_or_after_deltas_and_end_the_stream() {
    let first = broken("error=first");
    assert_eq!((kinds(&first), first.head.status, first.whole), (vec!["error".to_owned()], 200, true));
    let after = broken("error=3,type=api_error,message=out of water");
    assert_eq!(deltas(&after), 3);
    let events = after.events().unwrap();
    let error = events.last().unwrap();
    assert_eq!(error["error"], json!({"type": "api_error", "message": "out of water"}));
    assert_eq!(error["request_id"], after.field("request-id").unwrap());
    assert!(broken("error=3,framing=length").whole);
}

#[test]
fn what_is_not_streamed_breaks_in_its_own_way() {
    let ask = |sim: &str| World::default().ask(sim, &prompt("hi", false));
    for sim in ["cut", "cut_block", "cut,framing=chunked", "cut,bytes=100000"] {
        let played = ask(sim);
        assert_eq!((played.end, played.whole), (Step::Reset, false), "{sim}");
        assert!(!played.body.is_empty(), "{sim}");
    }
    let clean = ask("clean_cut");
    assert!(clean.whole && serde_json::from_slice::<Value>(&clean.body).is_err());
    assert_eq!(ask("error=first").head.status, 529);
    assert_eq!(ask("error=1,type=api_error").head.status, 500);
    assert_eq!(ask("no_stop").json()["stop_reason"], "end_turn");
}

#[test]
fn statuses_come_with_their_envelope_and_the_fields_asked_for() {
    let mut world = World::default();
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ] {
        let played = world.hi(&status.to_string());
        assert_eq!((played.head.status, played.whole, played.end), (status, true, Step::Finish));
        let body = played.json();
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
        assert_eq!(body["request_id"], played.field("request-id").unwrap());
        assert_eq!((played.field("retry-after"), played.field("anthropic-ratelimit-requests-limit")), (None, None));
    }
    let full = world.hi("429,retry_after=7,retry_after_ms=6500,should_retry=false,limits=0");
    assert_eq!((full.field("retry-after"), full.field("retry-after-ms")), (Some("7"), Some("6500")));
    assert_eq!(full.field("x-should-retry"), Some("false"));
    assert_eq!(full.field("anthropic-ratelimit-input-tokens-remaining"), Some("0"));
    assert_eq!(full.field("anthropic-ratelimit-output-tokens-reset"), Some("2026-11-25T10:01:00Z"));
    assert_eq!(world.hi("502,html").field("content-type"), Some("text/html"));
    assert_eq!(world.hi("500,empty").field("content-length"), Some("0"));
}

#[test]
fn redirects_and_web_pages_are_no_messages() {
    let mut world = World::default();
    let redirect = world.hi("redirect");
    assert_eq!((redirect.head.status, redirect.field("location")), (307, Some("/elsewhere")));
    let page = world.hi("junk");
    assert_eq!((page.head.status, page.field("content-type")), (200, Some("text/html")));
    assert!(page.whole && page.body.starts_with(b"<!doctype html>"));
}

#[test]
fn header_directive_rule_and_model_lie_over_each_other() {
    let rule = Rule { what: "500,retry_after=1".into(), times: 1, ..Rule::default() };
    let mut world = World::new(Options { rules: vec![rule], ..Options::default() });
    let mut body = prompt("[[sim:529]]", true);
    body["model"] = json!("claude-sim-401");
    let first = world.ask("retry_after=9", &body);
    assert_eq!(
        (first.head.status, first.field("retry-after")),
        (529, Some("9")),
        "directive over rule, header over both"
    );
    body["messages"][0]["content"] = json!("hi");
    assert_eq!(world.ask("", &body).head.status, 401, "the rule is used up, the model's name is not");
    assert_eq!(world.ask("ok", &body).head.status, 200);
    let unknown = world.ask("speed=3", &body);
    assert_eq!(unknown.head.status, 400);
    assert!(unknown.json()["error"]["message"].as_str().unwrap().contains("speed=3"));
}

#[test]
fn a_client_that_leaves_is_booked_with_what_it_got() {
    let mut world = World::default();
    let body = prompt("hi", true).to_string();
    let fields: [(&str, &[u8]); 2] = [("x-api-key", b"k"), ("x-sim", b"events=100,event_bytes=40")];
    let request = Request {
        method: "POST",
        target: "/v1/messages",
        fields: &fields,
        body: body.as_bytes(),
        http10: false,
        keep_alive: true,
        loopback: true,
    };
    let (mut script, mut out) = (world.engine.answer(world.now, WALL, &request), Vec::new());
    // Head, message_start, block start, ping, and five deltas of ten tokens.
    for _ in 0..9 {
        assert_eq!(world.engine.step(&mut script, world.now, &mut out), Step::Send);
    }
    assert_eq!(world.engine.rows().last().unwrap().ending, Ending::Open);
    world.engine.abort(&mut script, world.now);
    let row = world.engine.rows().last().unwrap();
    assert_eq!((row.ending, row.output_tokens, row.admitted), (Ending::Aborted, 50, true));
}
