//! The tap against serde_json's reading of the same bytes, and against what providers are known to get wrong.

use super::*;
use crate::dialect::usage::{Aside, Counts, Geo, Speed, Tier};
use proptest::prelude::*;
use serde_json::{Value, json};

fn event(name: &str, data: &Value) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

fn start(usage: &Value) -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
        "model": "claude-opus-5", "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage}})
}

fn delta(usage: &Value) -> Value {
    json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage})
}

fn text(text: &str) -> Value {
    json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
}

/// A tap that has seen these events.
fn tapped(events: &[Value]) -> Tap {
    let mut tap = Tap::new();
    for data in events {
        let name = data["type"].as_str().unwrap();
        tap.event(name.as_bytes(), &event(name, data));
    }
    tap
}

fn metered(events: &[Value], ending: Ending) -> Metered {
    tapped(events).finish(ending, &Ratios::new())
}

fn document(body: &[u8], ending: Ending) -> Metered {
    let mut tap = Tap::new();
    tap.body(body);
    tap.finish(ending, &Ratios::new())
}

/// The reference's stream: the start has what the end lacks.
#[test]
fn a_stream_is_its_last_values_and_the_start_fills_the_gaps() {
    let events = [
        start(&json!({"input_tokens": 25, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 4000,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 1, "service_tier": "priority", "speed": "fast", "inference_geo": "us"})),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
        text("twelve bytes"),
        json!({"type": "content_block_stop", "index": 0}),
        delta(&json!({"output_tokens": 10, "cache_read_input_tokens": null})),
        delta(
            &json!({"output_tokens": 15, "input_tokens": 26, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
            "output_tokens_details": {"thinking_tokens": 9}}),
        ),
        json!({"type": "message_stop"}),
    ];
    let metered = metered(&events, Ending::Complete);
    let counts = Counts { input: 26, output: 15, cache_read: 4000, cache_write_5m: 100, cache_write_1h: 200 };
    let expected = Usage {
        counts,
        thinking: 9,
        web_searches: 2,
        web_fetches: 1,
        tier: Tier::Priority,
        speed: Speed::Fast,
        geo: Geo::Us,
        asides: Default::default(),
    };
    assert_eq!(metered.usage, expected);
    assert_eq!((metered.model.as_str(), metered.stop), ("claude-opus-5", Stop::ToolUse));
    assert_eq!((metered.flags, metered.content_bytes), (Flags::default(), 12));
}

#[test]
fn a_document_is_read_without_its_content() {
    let trap = r#"{"usage":{"input_tokens":9999,"output_tokens":9999},"model":"other"} \" [{"#;
    let body = json!({"id": "msg_1", "model": "claude-opus-5", "role": "assistant", "type": "message",
        "content": [{"type": "text", "text": trap}, {"type": "tool_use", "input": {"usage": {"input_tokens": 7}, "model": "x"}}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 6, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 8}});
    let metered = document(body.to_string().as_bytes(), Ending::Complete);
    let counts = Counts { input: 5, output: 6, cache_read: 8, cache_write_5m: 7, cache_write_1h: 0 };
    assert_eq!((metered.usage.counts, metered.stop), (counts, Stop::EndTurn));
    assert_eq!(metered.flags, Flags::SPLIT_GUESSED);
    assert_eq!(metered.model.as_str(), "claude-opus-5");
}

#[test]
fn what_a_stream_repeats_without_its_split_keeps_the_split() {
    let split = |start_usage: Value, end: Value| {
        let metered = metered(&[start(&start_usage), delta(&end)], Ending::Complete);
        let counts = metered.usage.counts;
        (counts.cache_write_5m, counts.cache_write_1h, metered.flags)
    };
    let both = json!({"input_tokens": 1, "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}});
    let end = |writes: u64| json!({"output_tokens": 1, "cache_creation_input_tokens": writes});
    assert_eq!(split(both.clone(), end(30)), (10, 20, Flags::default()));
    assert_eq!(split(both.clone(), end(35)), (15, 20, Flags::SPLIT_GUESSED));
    assert_eq!(split(both, end(12)), (10, 20, Flags::WRONG), "never less than the parts");
    let hour = json!({"input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 20}});
    assert_eq!(split(hour, end(25)), (0, 25, Flags::SPLIT_GUESSED));
}

#[test]
fn the_tolerant_reading_of_streams_that_others_write() {
    // No space behind `data:`, two data lines, CRLF, white space.
    let mut tap = Tap::new();
    tap.event(b"message_start", b"event:message_start\r\ndata:{\"message\":\r\ndata:{\"usage\" : {\"input_tokens\" :\t4 ,\"output_tokens\":0} } }\r\n\r\n");
    tap.event(b"message_delta", b"data:{\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":12.0,\"output_t\\u006fkens\":3}}\n\n");
    let metered = tap.finish(Ending::Complete, &Ratios::new());
    assert_eq!((metered.usage.counts.input, metered.usage.counts.output), (12, 3));
    assert!(metered.flags.is_empty(), "{:?}", metered.flags.slugs().collect::<Vec<_>>());
}

#[test]
fn zeros_at_the_end_do_not_undo_what_was_told() {
    let events = [
        start(&json!({"input_tokens": 25, "output_tokens": 1})),
        delta(&json!({"input_tokens": 0, "output_tokens": 7, "cache_read_input_tokens": 0})),
    ];
    let metered = metered(&events, Ending::Complete);
    assert_eq!((metered.usage.counts.input, metered.usage.counts.output), (25, 7));
    assert_eq!(metered.flags, Flags::WRONG);
}

#[test]
fn what_is_missing_or_wrong_is_flagged() {
    let flags = |events: &[Value]| metered(events, Ending::Complete).flags.slugs().collect::<Vec<_>>();
    let usage = json!({"input_tokens": 5, "output_tokens": 1});
    assert_eq!(flags(&[start(&usage), text("four")]), ["estimated", "no_output"]);
    assert_eq!(
        flags(&[start(&json!({"input_tokens": 0, "output_tokens": 0})), delta(&json!({"output_tokens": 1}))]),
        ["no_input"]
    );
    assert_eq!(flags(&[start(&usage), delta(&json!({}))]), ["estimated", "no_output"], "an end that tells nothing");
    for wrong in [json!(-1), json!("5"), json!(1.5), json!([5]), json!(u64::MAX), json!(true), json!({"n": 1})] {
        let told = json!({"output_tokens": 3, "cache_read_input_tokens": wrong});
        assert_eq!(flags(&[start(&usage), delta(&told)]), ["wrong"], "{wrong}");
    }
    assert_eq!(flags(&[start(&usage), delta(&json!([1]))]), ["estimated", "no_output", "wrong"]);
    assert_eq!(
        document(b"", Ending::Complete).flags.slugs().collect::<Vec<_>>(),
        ["estimated", "no_input", "no_output", "unreadable"]
    );
    assert!(
        document(br#"{"usage":{"input_tokens":1,"output_tokens":1}"#, Ending::Complete).flags.has(Flags::UNREADABLE)
    );
    let mut tap = tapped(&[start(&usage)]);
    tap.event(b"message_delta", b"event: message_delta\ndata: {\"usage\":{\"output_tokens\":2]\n\n");
    assert!(tap.finish(Ending::Complete, &Ratios::new()).flags.has(Flags::UNREADABLE));
}

#[test]
fn a_stream_that_broke_off_is_estimated_by_what_its_model_taught() {
    let ratios = Ratios::new();
    let usage = json!({"input_tokens": 25, "output_tokens": 2});
    let whole =
        [start(&usage), text(&"x".repeat(300)), delta(&json!({"output_tokens": 100})), json!({"type": "message_stop"})];
    assert_eq!(tapped(&whole).finish(Ending::Complete, &ratios).usage.counts.output, 100);
    for ending in [Ending::ClientGone, Ending::Broken] {
        let metered = tapped(&whole[..2]).finish(ending, &ratios);
        assert_eq!((metered.usage.counts.input, metered.usage.counts.output), (25, 100));
        assert_eq!(metered.flags, Flags::ESTIMATED);
        let first = tapped(&whole[..1]).finish(ending, &ratios);
        assert_eq!((first.usage.counts.output, first.flags), (2, Flags::ESTIMATED), "what the start told is the least");
        let all = tapped(&whole[..3]).finish(ending, &ratios);
        assert_eq!((all.usage.counts.output, all.flags), (100, Flags::default()), "all was told before it broke");
    }
    // A running total, then more.
    let mut tap = tapped(&[start(&usage), text(&"x".repeat(300))]);
    let running = json!({"type": "message_delta", "delta": {"stop_reason": null}, "usage": {"output_tokens": 90}});
    tap.event(b"message_delta", &event("message_delta", &running));
    tap.event(b"content_block_delta", &event("content_block_delta", &text(&"x".repeat(30))));
    assert_eq!(tap.finish(Ending::ClientGone, &ratios).usage.counts.output, 100);
}

#[test]
fn an_error_inside_a_stream_is_no_end() {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}});
    let metered =
        metered(&[start(&json!({"input_tokens": 5, "output_tokens": 1})), text("12345678"), error], Ending::Complete);
    assert_eq!(
        (metered.usage.counts.output, metered.flags.slugs().collect::<Vec<_>>()),
        (2, vec!["estimated", "failed"])
    );
}

#[test]
fn signatures_are_no_output_and_long_events_are_counted() {
    let signature = json!({"type": "content_block_delta", "index": 10, "delta": {"type": "signature_delta", "signature": "A".repeat(900)}});
    assert_eq!(tapped(&[signature]).content_bytes, 0);
    let long = text(&"the words \"signature\": and \"signature_delta\" in a text ".repeat(40));
    assert!(tapped(&[long]).content_bytes > 1_900);
    let mut tap = Tap::new();
    tap.part(b"content_block_delta", &vec![b'x'; 20_000]);
    tap.part(b"message_start", &vec![b'x'; 20_000]);
    assert_eq!(tap.content_bytes, 20_000);
}

fn round(kind: &str, model: Option<&str>, input: u64, output: u64) -> Value {
    let mut round = json!({"type": kind, "input_tokens": input, "output_tokens": output, "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}});
    if let Some(model) = model {
        round["model"] = json!(model);
    }
    round
}

fn with_rounds(input: u64, output: u64, rounds: &[Value]) -> Metered {
    let usage = json!({"input_tokens": input, "output_tokens": output, "iterations": rounds});
    // The start's list is another; the last one counts.
    let first = json!({"input_tokens": 1, "output_tokens": 1, "iterations": [round("compaction", None, 9, 9)]});
    metered(&[start(&first), delta(&usage)], Ending::Complete)
}

fn aside(model: &str, input: u64, output: u64) -> Aside {
    Aside { model: model.into(), counts: Counts { input, output, ..Counts::default() } }
}

#[test]
fn what_is_billed_beside_the_answer_is_told_apart() {
    let plain = with_rounds(30, 3, &[round("message", None, 10, 1), round("message", Some("claude-opus-5"), 20, 2)]);
    assert_eq!(
        (plain.usage.counts.input, plain.usage.asides, plain.flags),
        (30, [Aside::default(); 2], Flags::default())
    );

    let compacted = with_rounds(
        30,
        3,
        &[round("compaction", None, 500, 50), round("message", None, 30, 3), round("compaction", None, 5, 5)],
    );
    assert_eq!(compacted.usage.asides[0], aside("", 505, 55));
    assert_eq!((compacted.usage.counts.input, compacted.flags), (30, Flags::MIXED));

    let advised =
        with_rounds(30, 3, &[round("advisor_message", Some("claude-fable-5"), 7, 8), round("message", None, 30, 3)]);
    assert_eq!((advised.usage.asides[0], advised.usage.counts.input), (aside("claude-fable-5", 7, 8), 30));

    // One model declined, another answered; whether the sums have both is told by the sums.
    let rounds =
        [round("message", Some("claude-opus-5"), 40, 4), round("fallback_message", Some("claude-sonnet-5"), 41, 5)];
    for sum in [(81, 9), (41, 5)] {
        let metered = with_rounds(sum.0, sum.1, &rounds);
        assert_eq!(metered.model.as_str(), "claude-sonnet-5");
        assert_eq!((metered.usage.counts.input, metered.usage.counts.output), (41, 5), "{sum:?}");
        assert_eq!(metered.usage.asides[0], aside("claude-opus-5", 40, 4));
        assert_eq!(metered.flags, Flags::MIXED);
    }

    let many: Vec<Value> = (0..9).map(|n| round("advisor_message", Some(&format!("m{n}")), 1, 0)).collect();
    let many = with_rounds(30, 3, &many);
    assert_eq!(many.usage.asides.iter().map(|aside| aside.counts.input).sum::<u64>(), 9, "nothing is lost");
    assert!(many.flags.has(Flags::WRONG));
}

/// The same by serde_json, for what it takes as it is.
fn by_serde(usage: &Value) -> (u64, u64, u64, u64) {
    let of = |key: &str| usage[key].as_u64().unwrap_or_default();
    (of("input_tokens"), of("output_tokens"), of("cache_read_input_tokens"), of("cache_creation_input_tokens"))
}

fn by_tap(metered: &Metered) -> (u64, u64, u64, u64) {
    let counts = metered.usage.counts;
    (counts.input, counts.output, counts.cache_read, counts.cache_write_5m + counts.cache_write_1h)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[\\PC\"\\\\\u{0}-\u{1f}]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("(usage|model|message|delta|[a-z\"\\\\é]{0,6})", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_usage() -> impl Strategy<Value = Value> {
    let count = || prop_oneof![Just(Value::Null), (0..1_u64 << 40).prop_map(Value::from)];
    (count(), count(), count(), count(), any_json()).prop_map(|(input, output, read, write, other)| {
        json!({"input_tokens": input, "new_key": other, "output_tokens": output, "cache_read_input_tokens": read,
            "cache_creation_input_tokens": write})
    })
}

fn any_document() -> impl Strategy<Value = (Value, String)> {
    let documents = (any_json(), any_usage(), any_json(), "(claude-[a-z]{0,9}|ünï\\\\\"/)", any::<bool>());
    documents.prop_map(|(content, usage, before, model, pretty)| {
        let body =
            json!({"a": before, "content": content, "model": model, "stop_reason": "end_turn", "usage": usage, "z": 1});
        let text = if pretty { serde_json::to_string_pretty(&body).unwrap() } else { body.to_string() };
        (body, text)
    })
}

proptest! {
    #[test]
    fn documents_are_read_as_serde_json_reads_them((value, text) in any_document()) {
        let metered = document(text.as_bytes(), Ending::Complete);
        prop_assert_eq!(by_tap(&metered), {
            let mut expected = by_serde(&value["usage"]);
            if value["usage"]["output_tokens"].is_null() {
                expected.1 = metered.usage.counts.output;
                prop_assert!(metered.flags.has(Flags::NO_OUTPUT));
            }
            expected
        });
        prop_assert_eq!(metered.model.as_str(), value["model"].as_str().unwrap());
        prop_assert!(!metered.flags.has(Flags::WRONG) && !metered.flags.has(Flags::UNREADABLE));
    }

    #[test]
    fn no_way_of_cutting_a_document_changes_its_reading((_, text) in any_document(), cuts in prop::collection::vec(1_usize..9, 1..200)) {
        let whole = document(text.as_bytes(), Ending::Complete);
        let (mut tap, mut rest) = (Tap::new(), text.as_bytes());
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            tap.body(piece);
            rest = after;
        }
        tap.body(rest);
        prop_assert_eq!(tap.finish(Ending::Complete, &Ratios::new()), whole);
    }

    #[test]
    fn streams_are_read_as_serde_json_reads_them(first in any_usage(), last in any_usage()) {
        let metered = metered(&[start(&first), delta(&last)], Ending::Complete);
        let (first, last) = (by_serde(&first), by_serde(&last));
        let pick = |first: u64, last: u64| if last == 0 { first } else { last };
        let expected = (pick(first.0, last.0), pick(first.1, last.1), pick(first.2, last.2), pick(first.3, last.3));
        prop_assert_eq!(by_tap(&metered), expected);
    }

    #[test]
    fn no_bytes_make_it_panic(pieces in prop::collection::vec(("[{}\\[\\]:,\"\\\\ \n0-9a-z.eu-]{0,40}|\"usage\":\\{|\"iterations\":\\[\\{|\"input_tokens\":9", any::<bool>()), 0..30)) {
        let mut tap = Tap::new();
        for (piece, as_event) in &pieces {
            if *as_event {
                tap.event(b"message_delta", piece.as_bytes());
            } else {
                tap.body(piece.as_bytes());
            }
        }
        let metered = tap.finish(Ending::Broken, &Ratios::new());
        prop_assert!(metered.usage.counts.output < 1 << 41);
    }
}

#[test]
fn a_tap_stays_small() {
    assert!(size_of::<Tap>() <= 640, "{} bytes", size_of::<Tap>());
    assert!(size_of::<Metered>() <= 400, "{} bytes", size_of::<Metered>());
}
