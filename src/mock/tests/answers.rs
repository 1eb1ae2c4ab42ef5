//! Answers that should be whole: their order, their numbers, their framing.

use super::*;
use crate::mock::Ending;

/// Every behaviour after which a client has its whole answer.
const HEALTHY: &[&str] = &[
    "",
    "events=40",
    "events=7,event_bytes=100",
    "bytes=5000",
    "bytes=5000,event_bytes=512",
    "events=1",
    "events=0",
    "event_bytes=1",
    "gap_ms=5,events=9",
    "first_byte_ms=30,first_event_ms=40",
    "batch=4,events=10",
    "drip=7,drip_ms=2",
    "ping=0",
    "ping_every=2,events=9",
    "crlf",
    "comments",
    "thinking",
    "stamp,events=5",
    "stamp",
    "framing=length",
    "framing=close",
    "framing=length,stamp,events=6,crlf,ping_every=2",
    "framing=length,stall=2,stall_ms=50,ping_ms=10",
    "interim=3",
    "trailing",
    "hop",
    "trailers",
    "limits=40",
    "stall=1,stall_ms=500",
    "stall=1,stall_ms=500,ping_ms=100",
    "stall=99,stall_ms=20",
    "ok",
];

#[test]
fn healthy_behaviours_give_whole_answers_whose_numbers_agree() {
    for sim in HEALTHY {
        let mut world = World::default();
        for stream in [true, false] {
            let played = world.ask(sim, &prompt("hi there", stream));
            assert!(played.whole && played.head.status == 200, "{sim}: {:?}", played.end);
            let message =
                if stream { played.message().unwrap_or_else(|e| panic!("{sim}: {e}")) } else { played.json() };
            assert_eq!(message["stop_reason"], "end_turn", "{sim}");
            let row = world.engine.rows().last().unwrap().clone();
            assert_eq!((row.ending, row.stream, row.admitted), (Ending::Finished, stream, true), "{sim}");
            assert_eq!(message["usage"]["output_tokens"], row.output_tokens, "{sim}");
            assert_eq!(message["usage"]["input_tokens"], row.input_tokens, "{sim}");
            let close = sim.contains("framing=close");
            assert_eq!(played.end, if close { Step::Close } else { Step::Finish }, "{sim}");
        }
    }
}

#[test]
fn a_stream_and_a_message_say_the_same() {
    for sim in ["", "bytes=3000", "events=12", "thinking", "event_bytes=3"] {
        let both =
            [true, false].map(|stream| World::default().ask(sim, &prompt("grüße [[sim:then]] an alle", stream)).text());
        assert_eq!(both[0], both[1], "{sim}");
        assert!(both[0].starts_with("SIM-OK grüße"), "{}", both[0]);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = |seed| World::new(Options { seed, ..Options::default() }).hi("thinking,events=5").bytes;
    assert_eq!(bytes(5), bytes(5));
    assert_ne!(bytes(5), bytes(6));
}

#[test]
fn pacing_takes_the_time_that_was_asked_for() {
    let mut world = World::default();
    assert_eq!(world.hi("first_byte_ms=30,first_event_ms=40,events=5,gap_ms=10").waited, Span::from_ms(110));
    assert_eq!(world.hi("events=4,stall=2,stall_ms=700,ping_ms=100").waited, Span::from_ms(700));
    assert_eq!(world.hi("stall=1,stall_ms=300").waited, Span::from_ms(300));
    let bytes = world.hi("").bytes.len();
    let drip = world.hi("drip=10,drip_ms=3");
    assert!(drip.sends >= bytes / 10 && drip.waited >= Span::from_ms(3 * (bytes as u64 / 10 - 1)));
}

#[test]
fn events_leave_one_by_one_unless_batched() {
    let mut world = World::default();
    // Head, message_start, block start, ping, 6 deltas, block stop, message_delta, message_stop, last chunk.
    assert_eq!(world.hi("events=6").sends, 14);
    assert_eq!(world.hi("events=6,batch=100").sends, 3);
    assert_eq!(world.hi("events=6,framing=close").sends, 13);
}

#[test]
fn pings_come_while_an_answer_stalls() {
    let pings = |sim: &str| {
        let events = World::default().hi(sim).events().unwrap();
        events.iter().filter(|event| event["type"] == "ping").count()
    };
    assert_eq!(pings("events=4"), 1);
    assert_eq!(pings("events=4,ping=0"), 0);
    assert_eq!(pings("events=4,ping=0,ping_every=2"), 2);
    assert_eq!(pings("events=4,ping=0,stall=2,stall_ms=1000,ping_ms=300"), 3);
}

#[test]
fn stamps_are_in_order_and_tell_when_a_delta_was_made() {
    let mut world = World::default();
    let start = world.now;
    let events = world.hi("stamp,events=20,gap_ms=4").events().unwrap();
    let texts = events.iter().filter_map(|event| event["delta"]["text"].as_str());
    let mut seen = 0;
    for (number, text) in texts.enumerate() {
        let (sequence, at) = text.strip_prefix('#').unwrap().split_once('@').unwrap();
        let at: u64 = at.split_once(';').unwrap().0.parse().unwrap();
        assert_eq!(sequence.parse::<usize>().unwrap(), number);
        assert_eq!(Mono(at), start.after(Span::from_ms(4 * number as u64)));
        assert_eq!(text.len(), 48);
        seen += 1;
    }
    assert_eq!(seen, 20);
}

#[test]
fn max_tokens_cuts_and_says_so() {
    for stream in [true, false] {
        let mut body = prompt("hi", stream);
        body["max_tokens"] = json!(10);
        let mut world = World::default();
        let played = world.ask("events=1000", &body);
        let message = if stream { played.message().unwrap() } else { played.json() };
        assert_eq!((&message["stop_reason"], &message["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(10)));
        assert_eq!(played.text().len(), 40);
        body["max_tokens"] = json!(0);
        let played = world.ask("", &body);
        let message = if stream { played.message().unwrap() } else { played.json() };
        assert_eq!((&message["content"], &message["usage"]["output_tokens"]), (&json!([]), &json!(0)));
    }
}

#[test]
fn a_long_answer_is_made_as_it_leaves() {
    let mut world = World::default();
    let fields: [(&str, &[u8]); 2] = [("x-api-key", b"k"), ("x-sim", b"bytes=4000000000,event_bytes=100000")];
    for stream in [true, false] {
        let body = prompt("hi", stream).to_string();
        let body = body.replace("128000", "2000000000");
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
        for _ in 0..100 {
            assert_eq!(world.engine.step(&mut script, world.now, &mut out), Step::Send);
            assert!(out.len() < 110_000 && out.capacity() < 400_000);
        }
        world.engine.abort(&mut script, world.now);
    }
}

#[test]
fn a_blind_answer_does_not_look_at_the_body() {
    let mut world = World::default();
    let fields = [("x-api-key", "k"), ("x-sim", "blind,events=3")];
    let played = world.send("POST", "/v1/messages", &fields, br#"{"model":"claude-opus-9", not json"#);
    assert_eq!(played.message().unwrap()["usage"]["input_tokens"], 9);
    assert_eq!(world.engine.rows().last().unwrap().model, "claude-opus-9");
    assert_eq!(world.send("POST", "/v1/messages", &[("x-api-key", "k")], b"{not json").head.status, 400);
}

#[test]
fn hop_by_hop_fields_and_interim_answers_are_there_to_be_dropped() {
    let played = World::default().hi("hop,interim=2,trailers,trailing");
    let text = String::from_utf8_lossy(&played.bytes);
    assert_eq!(text.matches("HTTP/1.1 103").count(), 3);
    assert!(text.ends_with("0\r\nx-sim-trailer: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"));
    assert_eq!(played.field("connection"), Some("keep-alive, x-sim-hop"));
    assert_eq!(played.field("x-sim-hop"), Some("1"));
}

#[test]
fn old_clients_get_a_body_that_ends_with_the_connection() {
    let mut world = World::default();
    let body = prompt("hi", true).to_string();
    let fields: [(&str, &[u8]); 1] = [("authorization", b"bearer k")];
    let mut request = Request {
        method: "POST",
        target: "/v1/messages",
        fields: &fields,
        body: body.as_bytes(),
        http10: true,
        keep_alive: false,
        loopback: true,
    };
    for http10 in [true, false] {
        request.http10 = http10;
        let (mut script, mut out, mut all) = (world.engine.answer(world.now, WALL, &request), Vec::new(), Vec::new());
        while world.engine.step(&mut script, world.now, &mut out) == Step::Send {
            all.extend_from_slice(&out);
        }
        let text = String::from_utf8(all).unwrap();
        assert_eq!(text.contains("transfer-encoding"), !http10);
        assert!(text.contains("connection: close") && text.contains("message_stop"));
        assert_eq!(world.engine.step(&mut script, world.now, &mut out), Step::Close);
    }
}
