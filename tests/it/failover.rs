//! What an upstream's failure costs the client: nothing, as long as another target can answer and nothing has been sent.

use crate::support::*;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

/// A script that answers one request.
type Script = fn(&Got, &mut TcpStream) -> bool;

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n";
const BLOCK: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n";
const OVERLOADED: &str =
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

/// Two upstreams, the second one for when the first fails; there the model has another name.
fn two(first: &str, second: &Upstream) -> String {
    let more = format!(
        "[[upstream]]\nname = \"spare\"\nprovider = \"anthropic\"\nbase_url = \"http://{}\"\n\
         credentials = [{{ name = \"spare-key\", env = \"PROVIDER_KEY\" }}]\n\
         [[model]]\nname = \"claude-*\"\ntargets = [{{ upstream = \"main\" }}, {{ upstream = \"spare\", model = \"spare-x\", tier = 2 }}]\n",
        second.address
    );
    config(first, &more)
}

fn stream(stream: &mut TcpStream, events: &[&str], ends: bool) -> bool {
    let mut text = STREAM_HEAD.to_owned();
    for event in events {
        text.push_str(&chunk(event));
    }
    text.push_str(if ends { "0\r\n\r\n" } else { "" });
    stream.write_all(text.as_bytes()).is_ok() && ends
}

fn whole(out: &mut TcpStream) -> bool {
    let stop = event("content_block_stop", "");
    let (delta, end) = (event("message_delta", ""), event("message_stop", ""));
    stream(out, &[START, BLOCK, DELTA, &stop, &delta, &end], true)
}

fn error(stream: &mut TcpStream, status: &str, fields: &str, kind: &str) -> bool {
    let body = format!("{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"no\"}}}}");
    stream.write_all(answer(status, &format!("content-type: application/json\r\n{fields}"), &body).as_bytes()).is_ok()
}

/// Runs `test` on both drivers, with `first` and `second` behind forebay.
fn with(first: Script, second: Script, test: impl Fn(&mut Forebay, &Upstream, &Upstream)) {
    for (_, driver) in DRIVERS {
        let (main, spare) = (Upstream::plain(first), Upstream::plain(second));
        let mut forebay = Forebay::start(&two(&format!("http://{}", main.address), &spare), driver);
        test(&mut forebay, &main, &spare);
    }
}

#[test]
fn what_fails_before_content_is_answered_by_the_second_target() {
    let failures: [(&str, Script, &str); 12] = [
        ("500", |_, s| error(s, "500 Internal Server Error", "", "api_error"), "upstream_failed"),
        ("529", |_, s| error(s, "529 Overloaded", "", "overloaded_error"), "upstream_failed"),
        ("429", |_, s| error(s, "429 Too Many Requests", "retry-after: 9\r\n", "rate_limit_error"), "no_room"),
        ("401", |_, s| error(s, "401 Unauthorized", "", "authentication_error"), "credential_refused"),
        ("404", |_, s| error(s, "404 Not Found", "", "not_found_error"), "passed_over"),
        ("302", |_, s| s.write_all(answer("302 Found", "location: /x\r\n", "").as_bytes()).is_ok(), "upstream_failed"),
        ("close", |_, _| false, "upstream_closed"),
        ("error first", |_, s| stream(s, &[OVERLOADED], true), "early_error"),
        ("error before content", |_, s| stream(s, &[START, BLOCK, OVERLOADED], true), "early_error"),
        ("cut before content", |_, s| stream(s, &[START, BLOCK], false), "answer_broken"),
        (
            "a web page",
            |_, s| s.write_all(answer("200 OK", "content-type: text/html\r\n", "<html>").as_bytes()).is_ok(),
            "upstream_failed",
        ),
        ("an error as a success", |_, s| error(s, "200 OK", "", "api_error"), "early_error"),
    ];
    for (name, fails, verdict) in failures {
        with(
            fails,
            |_, s| whole(s),
            |forebay, main, spare| {
                let answer = forebay.ask(&post(BODY));
                assert_eq!((answer.status(), answer.complete), (200, true), "{name}: {}", answer.text());
                assert!(answer.text().contains("message_stop") && !answer.text().contains("error"), "{name}");
                assert_eq!(answer.header("x-forebay-upstream"), Some("spare"), "{name}");
                let (asked, again) = (main.next(), spare.next());
                assert_eq!(asked.body, BODY.as_bytes(), "{name}");
                let renamed = BODY.replace("claude-x", "spare-x");
                assert_eq!(
                    String::from_utf8_lossy(&again.body),
                    renamed,
                    "{name}: the same request under its name there"
                );
                let line = forebay.logged();
                assert_eq!(line["upstream"], "spare", "{name}: {line}");
                assert!(line.to_string().contains(verdict) || line["attempts"].as_u64() >= Some(2), "{name}: {line}");
            },
        );
    }
}

#[test]
fn an_upstream_that_is_not_there_costs_nothing() {
    for (_, driver) in DRIVERS {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let spare = Upstream::plain(|_, s| whole(s));
        let forebay = Forebay::start(&two(&format!("http://{address}"), &spare), driver);
        for _ in 0..20 {
            assert_eq!(forebay.ask(&post(BODY)).status(), 200);
            spare.next();
        }
    }
}

/// It reads a request's head and nothing more, and says that it has too much to do; or says nothing.
#[allow(clippy::disallowed_methods, reason = "buffers fill; there is no event to wait for")]
fn reads_no_body(says: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            // By now the sender's buffers are full.
            std::thread::sleep(std::time::Duration::from_millis(300));
            if head.starts_with(b"GET ") {
                let _ = stream.write_all(answer("200 OK", "", "{\"data\":[]}").as_bytes());
            } else if says {
                let _ = error(&mut stream, "529 Overloaded", "", "overloaded_error");
            }
            held.push(stream);
        }
    });
    address
}

#[test]
fn a_body_whose_sending_was_given_up_goes_whole_to_the_next() {
    let text = "0123456789abcdef".repeat(1 << 20);
    let body = format!(r#"{{"model":"claude-x","max_tokens":1,"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    for (_, driver) in DRIVERS {
        for says in [true, false] {
            let (address, spare) = (reads_no_body(says), Upstream::plain(|_, s| whole(s)));
            // Who says nothing is left after two seconds.
            let config = two(&format!("http://{address}\"\nfirst_byte = \"2s"), &spare);
            let forebay = Forebay::start(&config, driver);
            let answer = forebay.ask(&post(&body));
            assert_eq!((answer.status(), answer.complete), (200, true), "{says}: {}", answer.text());
            let got = spare.next();
            let due = body.replace("claude-x", "spare-x");
            let differs = got.body.iter().zip(due.as_bytes()).position(|(got, due)| got != due);
            assert_eq!((got.body.len(), differs), (due.len(), None), "{says}");
        }
    }
}

#[test]
fn once_content_has_come_nobody_else_is_asked() {
    let late: [(&str, Script); 2] = [
        ("error", |_, s| stream(s, &[START, BLOCK, DELTA, OVERLOADED], true)),
        ("cut", |_, s| stream(s, &[START, BLOCK, DELTA], false)),
    ];
    for (name, fails) in late {
        with(
            fails,
            |_, s| whole(s),
            |forebay, _, spare| {
                let answer = forebay.ask(&post(BODY));
                assert_eq!(answer.status(), 200, "{name}");
                assert!(answer.text().contains("\"hi\"") && answer.text().contains("event: error"), "{name}");
                assert_eq!(answer.header("x-forebay-upstream"), Some("main"), "{name}");
                forebay.logged();
                assert!(spare.got.try_recv().is_err(), "{name}: the spare one was asked");
            },
        );
    }
}

#[test]
fn a_fault_of_the_requests_own_is_delivered_untouched() {
    with(
        |_, s| error(s, "400 Bad Request", "request-id: r\r\n", "invalid_request_error"),
        |_, s| whole(s),
        |forebay, _, spare| {
            let answer = forebay.ask(&post(BODY));
            assert_eq!((answer.status(), answer.header("request-id")), (400, Some("r")));
            assert_eq!(answer.header("x-forebay-attempts"), Some("1"));
            forebay.logged();
            assert!(spare.got.try_recv().is_err());
        },
    );
}

#[test]
fn when_all_are_busy_the_client_waits_for_the_first_to_have_room() {
    with(
        |_, s| error(s, "429 Too Many Requests", "retry-after: 30\r\n", "rate_limit_error"),
        |_, s| error(s, "529 Overloaded", "retry-after: 7\r\n", "overloaded_error"),
        |forebay, _, _| {
            let answer = forebay.ask(&post(BODY));
            assert_eq!((answer.status(), answer.header("retry-after")), (429, Some("7")), "{}", answer.text());
            assert_eq!(answer.header("x-forebay-reason"), Some("upstreams_busy"));
        },
    );
}

#[test]
fn when_all_refuse_the_organisations_credential_the_operator_is_named() {
    let refuse: Script = |_, s| error(s, "401 Unauthorized", "", "authentication_error");
    with(refuse, refuse, |forebay, _, _| {
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (502, Some("credential_refused")));
        assert!(answer.message().contains("The operator"), "{}", answer.message());
    });
}

#[test]
fn a_stream_whose_end_alone_is_missing_is_completed_once() {
    let cut: Script = |_, s| {
        let stop = event("content_block_stop", "");
        let delta = event("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"}");
        stream(s, &[START, BLOCK, DELTA, &stop, &delta], false)
    };
    with(cut, cut, |forebay, _, _| {
        let answer = forebay.ask(&post(BODY));
        assert!(answer.complete, "the body ends well");
        assert_eq!(answer.text().matches("event: message_stop").count(), 1);
        assert!(!answer.text().contains("event: error"));
    });
}

#[test]
fn an_error_as_a_success_is_known_in_however_small_pieces_it_comes() {
    let drips: Script = |_, s| {
        let body = r#"{"type":"error","error":{"type":"api_error","message":"no"}}"#;
        let whole = answer("200 OK", "content-type: application/json\r\n", body);
        s.set_nodelay(true).unwrap();
        whole.as_bytes().iter().all(|byte| s.write_all(std::slice::from_ref(byte)).is_ok())
    };
    with(
        drips,
        |_, s| whole(s),
        |forebay, _, _| {
            let answer = forebay.ask(&post(BODY));
            assert_eq!(answer.header("x-forebay-upstream"), Some("spare"), "{}", answer.text());
        },
    );
}

#[test]
fn a_limit_on_questions_of_length_does_not_stop_messages() {
    let script: Script = |got, s| match got.head.contains("count_tokens") {
        true => error(s, "429 Too Many Requests", "retry-after: 30\r\n", "rate_limit_error"),
        false => whole(s),
    };
    with(script, script, |forebay, _, _| {
        let count = post(BODY).replacen("/v1/messages", "/v1/messages/count_tokens", 1);
        assert_eq!(forebay.ask(&count).status(), 429);
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-upstream")), (200, Some("main")), "{}", answer.text());
    });
}
