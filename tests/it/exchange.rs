//! One exchange after the other through the real binary, on both drivers: what reaches the upstream, what reaches the
//! client, and what each sees when the other goes wrong.

use crate::support::*;
use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{Mutex, mpsc},
};

fn on_both_drivers(test: impl Fn(&str)) {
    for (name, force_epoll) in DRIVERS {
        eprintln!("-- {name}");
        test(force_epoll);
    }
}

fn ok(stream: &mut impl Write) -> bool {
    stream.write_all(answer("200 OK", "content-type: application/json\r\n", "{}").as_bytes()).is_ok()
}

#[test]
fn request_and_answer_change_only_by_the_edits_table() {
    on_both_drivers(|driver| {
        let upstream = Upstream::plain(|_, stream| {
            let fields = "Content-Type: application/json\r\nRequest-Id: req_1\r\nX-Odd-CASE: a  b\r\nx-dup: 1\r\nx-dup: 2\r\n\
                          set-cookie: a=b\r\nanthropic-ratelimit-requests-remaining: 7\r\nConnection: x-hop\r\nx-hop: secret\r\nretry-after: 7\r\n";
            stream.write_all(answer("200 Fine", fields, "{\"a\": 1.0e2 }").as_bytes()).is_ok()
        });
        let mut forebay = Forebay::start(&config(&format!("http://{}/base", upstream.address), ""), driver);
        let body = "{\"model\":\"claude-x\", \"messages\":[ {\"role\":\"user\",\"content\":\"\\u00e9 \u{e9}\"} ],\"n\":1.50,\"stream\":false}";
        let fields = "Anthropic-Beta: a,b\r\nX-Odd-CASE: a  b\r\ncookie: c\r\nConnection: keep-alive, x-mine\r\nx-mine: 1\r\n\
                      Accept-Encoding: gzip, br\r\nAuthorization: Bearer sk-ant-api03-left-over\r\nx-forebay-fallback: off\r\nanthropic-beta: c\r\n";
        let answer = forebay.ask(&post_with(fields, body));
        let got = upstream.next();
        let want = format!(
            "POST /base/v1/messages?beta=true HTTP/1.1\r\nhost: {}\r\nAnthropic-Beta: a,b\r\nX-Odd-CASE: a  b\r\nanthropic-beta: c\r\n\
             accept-encoding: identity\r\nx-api-key: {PROVIDER_KEY}\r\ncontent-length: {}\r\n\r\n",
            upstream.address,
            body.len()
        );
        assert_eq!(got.head, want);
        assert_eq!(got.body, body.as_bytes());
        assert_eq!(answer.text(), "{\"a\": 1.0e2 }");
        assert!(
            answer.head.starts_with("HTTP/1.1 200 Fine\r\nContent-Type: application/json\r\nRequest-Id: req_1\r\nX-Odd-CASE: a  b\r\nx-dup: 1\r\nx-dup: 2\r\nretry-after: 7\r\nx-forebay-"),
            "{}",
            answer.head
        );
        for absent in ["cookie", "ratelimit", "hop", "secret"] {
            assert!(!answer.head.contains(absent), "{absent}: {}", answer.head);
        }
        assert_eq!(answer.header("x-forebay-origin"), Some("upstream"));
        assert_eq!(answer.header("x-forebay-upstream"), Some("main"));
        let line = forebay.logged();
        assert_eq!(line["caller"], "alice");
        assert_eq!(line["model"], "claude-x");
        assert_eq!(line["status"], 200);
        assert_eq!(line["upstream_request_id"], "req_1");
        assert!(!line.to_string().contains(PROVIDER_KEY) && !line.to_string().contains(KEY), "{line}");
    });
}

#[test]
fn events_pass_as_they_come_each_whole() {
    on_both_drivers(|driver| {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let upstream = Upstream::plain(move |_, stream| {
            stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
            stream.write_all(chunk(&event("message_start", "")).as_bytes()).unwrap();
            released.lock().unwrap().recv_timeout(STUCK).unwrap();
            // Two events and a half in one chunk, then the rest: the half waits.
            let third = event("content_block_stop", "");
            let two = event("ping", "") + &event("content_block_delta", "");
            stream.write_all(chunk(&(two + &third[..20])).as_bytes()).unwrap();
            released.lock().unwrap().recv_timeout(STUCK).unwrap();
            stream.write_all(chunk(&third[20..]).as_bytes()).unwrap();
            stream.write_all(chunk(&event("message_stop", "")).as_bytes()).unwrap();
            stream.write_all(b"0\r\n\r\n").is_ok()
        });
        let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        let mut client = forebay.connect();
        client.send(post(BODY).as_bytes());
        read_head(&mut client.0).unwrap();
        assert_eq!(client.read_chunk().unwrap(), event("message_start", "").as_bytes());
        release.send(()).unwrap();
        assert_eq!(client.read_chunk().unwrap(), (event("ping", "") + &event("content_block_delta", "")).as_bytes());
        release.send(()).unwrap();
        let mut rest = Vec::new();
        while let Some(chunk) = client.read_chunk() {
            assert!(chunk.ends_with(b"\n\n"), "chunks end at event borders");
            rest.extend(chunk);
        }
        assert_eq!(rest, (event("content_block_stop", "") + &event("message_stop", "")).as_bytes());
        let line = forebay.logged();
        assert_eq!((&line["events"], &line["stream"], &line["ending"]), (&5.into(), &true.into(), &"complete".into()));
    });
}

#[test]
fn the_upstream_is_left_when_the_client_leaves() {
    for (phase, half_close) in [("before the head", false), ("in the stream", false), ("in the stream", true)] {
        on_both_drivers(|driver| {
            let (gone, seen) = mpsc::channel();
            let gone = Mutex::new(gone);
            let upstream = Upstream::plain(move |_, stream| {
                if phase == "in the stream" {
                    stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
                    stream.write_all(chunk(&event("message_start", "")).as_bytes()).unwrap();
                }
                let read = stream.read(&mut [0; 1]);
                gone.lock().unwrap().send(matches!(read, Ok(0) | Err(_))).unwrap();
                false
            });
            let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
            let mut client = forebay.connect();
            client.send(post(BODY).as_bytes());
            upstream.next();
            if phase == "in the stream" {
                read_head(&mut client.0).unwrap();
                client.read_chunk().unwrap();
            }
            if half_close {
                client.0.shutdown(Shutdown::Write).unwrap();
            } else {
                drop(client);
            }
            assert!(seen.recv_timeout(STUCK).unwrap(), "the upstream saw the connection end");
            assert_eq!(forebay.logged()["reason"], "client_gone");
        });
    }
}

#[test]
fn a_broken_stream_never_ends_cleanly() {
    let started = event("message_start", "") + &event("content_block_start", "") + &event("content_block_delta", "");
    let finished = started.clone() + &event("content_block_stop", "");
    let cut = |sent: &str| sent.to_owned() + "event: content_block_delta\ndata: {\"typ";
    // What the upstream sends before it breaks off; whether an error event tells of it.
    for (sent, told) in
        [(started.clone(), true), (cut(&started), true), (finished.clone(), false), (cut(&finished), false)]
    {
        on_both_drivers(|driver| {
            let sent = sent.clone();
            let expected = if sent.contains("content_block_stop") { finished.clone() } else { started.clone() };
            let upstream = Upstream::plain(move |_, stream| {
                stream.write_all((STREAM_HEAD.to_owned() + &chunk(&sent)).as_bytes()).unwrap();
                false
            });
            let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
            let answer = forebay.ask(&post(BODY));
            let text = answer.text();
            if told {
                let error = text.strip_prefix(&expected).unwrap();
                assert!(error.starts_with("event: error\ndata: {\"type\":\"error\""), "{error}");
                assert!(error.contains("forebay: the upstream main broke its answer off"), "{error}");
                assert!(answer.complete);
            } else {
                assert_eq!(text, expected, "only whole events go on");
                assert!(!answer.complete, "the body must not end");
            }
            assert_eq!(forebay.logged()["reason"], "answer_broken");
        });
    }
}

#[test]
fn a_broken_document_never_ends_cleanly() {
    for head in [
        "content-length: 50\r\n\r\n{}",
        "transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\n{}XX",
    ] {
        on_both_drivers(|driver| {
            let upstream = Upstream::plain(move |_, stream| {
                write!(stream, "HTTP/1.1 200 OK\r\n{head}").unwrap();
                false
            });
            let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
            // Where nothing has been sent yet, an honest 502; else a body without its end.
            let answer = forebay.ask(&post(BODY));
            assert!(answer.status() == 502 || !answer.complete, "{head}: {answer:?}");
        });
    }
}

#[test]
fn an_idle_connection_that_the_upstream_closed_costs_nobody_a_request() {
    on_both_drivers(|driver| {
        // The first request on a connection is answered; the second closes it without a byte, as an upstream does
        // that had closed it already while the request was on its way.
        let served = Mutex::new(std::collections::HashSet::new());
        let upstream = Upstream::plain(move |got, stream| served.lock().unwrap().insert(got.connection) && ok(stream));
        let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        for _ in 0..3 {
            assert_eq!(forebay.ask(&post(BODY)).status(), 200);
        }
        let attempts: Vec<_> = (0..3).map(|_| forebay.logged()["attempts"].clone()).collect();
        assert_eq!(attempts, [1, 2, 2], "one replay, on a new connection, with the whole body");
        let bodies: Vec<_> = (0..5).map(|_| upstream.next().body).collect();
        assert!(bodies.iter().all(|body| body == BODY.as_bytes()));
    });
}

#[test]
fn a_new_connection_that_is_closed_is_not_tried_again() {
    on_both_drivers(|driver| {
        let upstream = Upstream::plain(|_, _| false);
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (502, Some("upstream_closed")));
        assert_eq!(answer.header("x-forebay-origin"), Some("upstream"));
        upstream.next();
        assert!(upstream.got.try_recv().is_err(), "sent once");
    });
}

#[test]
fn errors_of_the_upstream_pass_unmodified_but_its_401_is_the_operators() {
    on_both_drivers(|driver| {
        let upstream = Upstream::plain(|got, stream| {
            let (status, body) = match got.number {
                0 => (
                    "400 Bad Request",
                    r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}}"#,
                ),
                1 => ("529 Overloaded", r#"{"overloaded":1}"#),
                _ => (
                    "401 Unauthorized",
                    r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
                ),
            };
            stream.write_all(answer(status, "x-should-retry: true\r\n", body).as_bytes()).is_ok()
        });
        let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-should-retry")), (400, Some("true")));
        assert!(answer.text().contains("prompt is too long"));
        assert_eq!(forebay.ask(&post(BODY)).text(), r#"{"overloaded":1}"#);
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (502, Some("credential_refused")));
        assert!(
            answer.message().contains("your own key is fine") && answer.message().contains("#ai-platform"),
            "{}",
            answer.text()
        );
        assert_eq!(forebay.logged()["reason"], "upstream_answer");
    });
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    on_both_drivers(|driver| {
        let upstream = Upstream::plain(|got, stream| {
            let body = String::from_utf8(got.body.clone()).unwrap();
            stream.write_all(answer("200 OK", "", &body).as_bytes()).is_ok()
        });
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        let mut client = forebay.connect();
        let bodies: Vec<_> = (0..20).map(|n| format!("{{\"model\":\"m\",\"n\":{n}}}")).collect();
        client.send(bodies.iter().map(|body| post(body)).collect::<String>().as_bytes());
        for body in &bodies {
            assert_eq!(&client.read().unwrap().text(), body);
        }
    });
}

#[test]
fn an_answer_that_comes_before_the_request_is_sent_reaches_the_client() {
    on_both_drivers(|driver| {
        // Reads the head only, answers, and closes: what an edge does with a request that is too large for it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut posts = listener.incoming().map(|stream| stream.unwrap());
            let mut stream =
                posts.find_map(|mut s| read_head(&mut s).unwrap().starts_with("POST").then_some(s)).unwrap();
            stream.write_all(answer("413 Content Too Large", "", "{\"edge\":true}").as_bytes()).unwrap();
            // Keeps the connection: it is the answer that must end the sending.
            let _ = stream.read(&mut [0; 1]);
            std::thread::park_timeout(std::time::Duration::from_millis(1));
            stream
        });
        let forebay = Forebay::start(&config(&format!("http://{address}"), ""), driver);
        let body = format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(30 << 20));
        let answer = forebay.ask(&post(&body));
        assert_eq!((answer.status(), answer.text().as_str()), (413, "{\"edge\":true}"));
        thread.join().unwrap();
    });
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_left() {
    on_both_drivers(|driver| {
        let upstream = Upstream::plain(|got, stream| {
            if got.number == 1 {
                stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
            }
            let _ = stream.read(&mut [0; 1]);
            false
        });
        let more = "[timeouts]\nfirst_byte = \"200ms\"\nidle = \"200ms\"\n";
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), more), driver);
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (504, Some("first_byte_timeout")));
        let answer = forebay.ask(&post(BODY));
        assert_eq!(answer.status(), 200);
        assert!(answer.text().contains("fell silent"), "{}", answer.text());
    });
}
