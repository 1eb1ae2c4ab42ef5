//! What lies at the edges of an exchange: what a connection carries over, what comes at odd moments, what must not pass.

use crate::support::*;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

fn ok(stream: &mut impl Write) -> bool {
    stream.write_all(answer("200 OK", "content-type: application/json\r\n", "{}").as_bytes()).is_ok()
}

fn with(
    script: impl Fn(&Got, &mut TcpStream) -> bool + Clone + Send + Sync + 'static,
    test: impl Fn(&mut Forebay, &Upstream),
) {
    for (_, driver) in DRIVERS {
        let upstream = Upstream::plain(script.clone());
        let more = "passthrough = [\"/v1/x\"]\n";
        let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), more), driver);
        test(&mut forebay, &upstream);
    }
}

/// An upstream that is given each connection with a request's head read and the body still to come.
fn bare(serve: impl Fn(TcpStream, String) + Send + Sync + 'static) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = std::sync::Arc::new(serve);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || match read_head(&mut stream) {
                Some(head) if head.starts_with("POST") => serve(stream, head),
                Some(_) => drop(stream.write_all(answer("200 OK", "", "{\"data\":[]}").as_bytes())),
                None => {}
            });
        }
    });
    address
}

#[test]
fn a_refused_head_has_nothing_of_the_one_before() {
    with(
        |_, stream| ok(stream),
        |forebay, _| {
            let mut client = forebay.connect();
            let agent = "z".repeat(200);
            client.send(
                format!("HEAD /v1/models HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\nuser-agent: {agent}\r\n\r\n")
                    .as_bytes(),
            );
            assert!(read_head(&mut client.0).unwrap().starts_with("HTTP/1.1 200"));
            client.send(format!("GET /{} HTTP/1.1\r\nbad header\r\n\r\n", "a".repeat(150)).as_bytes());
            let refused = client.read().unwrap();
            assert_eq!(refused.status(), 400);
            assert!(refused.message().contains("HTTP/1.1"), "the answer to a GET has a body");
            forebay.logged();
            let line = forebay.logged();
            assert!(!line.to_string().contains(KEY), "{line}");
        },
    );
}

#[test]
fn an_interim_answer_does_not_stop_an_upload() {
    for (_, driver) in DRIVERS {
        let address = bare(|mut stream, head| {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
            stream.read_exact(&mut vec![0; length]).unwrap();
            ok(&mut stream);
        });
        let forebay = Forebay::start(&config(&format!("http://{address}"), ""), driver);
        let body = format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(30 << 20));
        assert_eq!(forebay.ask(&post(&body)).status(), 200);
    }
}

#[test]
fn an_upstream_that_takes_the_request_too_slowly_is_left_within_the_patience() {
    for (_, driver) in DRIVERS {
        let address = bare(|mut stream, _| {
            // Each piece is in time, the whole is not.
            let mut piece = vec![0; 256 << 10];
            while stream.read(&mut piece).unwrap_or(0) > 0 {
                thread::park_timeout(Duration::from_millis(200));
            }
        });
        let more = "[timeouts]\nfirst_byte = \"1s\"\n";
        let forebay = Forebay::start(&config(&format!("http://{address}"), more), driver);
        let body = format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(60 << 20));
        let answer = forebay.ask(&post(&body));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (504, Some("send_timeout")));
    }
}

#[test]
fn a_stream_whose_end_is_the_close_is_not_taken_for_whole() {
    let cut = |_: &Got, stream: &mut TcpStream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let half = "event: content_block_delta\ndata: {\"typ";
        drop(stream.write_all((head.to_owned() + &event("message_start", "") + half).as_bytes()));
        false
    };
    with(cut, |forebay, _| {
        let text = forebay.ask(&post(BODY)).text();
        assert!(text.starts_with(&(event("message_start", "") + "event: error\n")), "{text}");
        assert_eq!(forebay.logged()["reason"], "answer_broken");
    });
    let whole = |_: &Got, stream: &mut TcpStream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        drop(stream.write_all((head.to_owned() + &event("message_stop", "")).as_bytes()));
        false
    };
    with(whole, |forebay, _| {
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.text(), answer.complete), (event("message_stop", ""), true));
    });
}

#[test]
fn a_client_that_leaves_is_noticed_behind_bytes_that_nobody_read() {
    for (_, driver) in DRIVERS {
        let (gone, seen) = mpsc::channel();
        let gone = Mutex::new(gone);
        let upstream = Upstream::plain(move |_, stream| {
            let read = stream.read(&mut [0; 1]);
            gone.lock().unwrap().send(matches!(read, Ok(0) | Err(_))).unwrap();
            false
        });
        // The patience is far longer than what counts as stuck: only the client's leaving can end this.
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        let mut client = forebay.connect();
        client.send(post(BODY).as_bytes());
        upstream.next();
        client.send(b"\r\n");
        client.send(post(BODY).as_bytes());
        drop(client);
        assert!(seen.recv_timeout(STUCK).unwrap());
    }
}

#[test]
fn a_redirect_is_the_operators_and_goes_nowhere() {
    let moved = |_: &Got, stream: &mut TcpStream| {
        let fields = "location: http://evil.example/v1/messages\r\n";
        stream.write_all(answer("307 Temporary Redirect", fields, "").as_bytes()).is_ok()
    };
    with(moved, |forebay, _| {
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (502, Some("upstream_moved")));
        assert_eq!(answer.header("location"), None);
    });
}

#[test]
fn who_asks_is_not_the_providers_business() {
    with(
        |_, stream| ok(stream),
        |forebay, upstream| {
            let fields = "api-key: azure-secret\r\nX-Forwarded-For: 10.1.2.3\r\nForwarded: for=10.1.2.3\r\nVia: 1.1 lb\r\nX-Real-IP: 10.1.2.3\r\n";
            assert_eq!(forebay.ask(&post_with(fields, BODY)).status(), 200);
            let head = upstream.next().head.to_lowercase();
            for word in ["azure", "10.1.2.3", "via"] {
                assert!(!head.contains(word), "{head}");
            }
        },
    );
}

#[test]
fn an_offer_of_h2c_is_passed_over_and_of_a_websocket_refused() {
    with(
        |_, stream| ok(stream),
        |forebay, upstream| {
            let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
            assert_eq!(forebay.ask(&post_with(h2c, BODY)).status(), 200);
            assert!(!upstream.next().head.to_lowercase().contains("upgrade"));
            let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
            assert_eq!(forebay.ask(&post_with(websocket, BODY)).status(), 426);
        },
    );
}

#[test]
fn an_http_1_0_client_is_told_that_the_connection_ends() {
    with(
        |_, stream| ok(stream),
        |forebay, _| {
            let request =
                format!("GET /v1/models HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\nx-api-key: {KEY}\r\n\r\n");
            assert_eq!(forebay.ask(&request).header("connection"), Some("close"));
        },
    );
}

#[test]
fn compressed_events_are_not_read_as_events() {
    for (_, driver) in DRIVERS {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let upstream = Upstream::plain(move |_, stream| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all((head.to_owned() + &chunk("\u{1f}opaque")).as_bytes()).unwrap();
            let _ = released.lock().unwrap().recv_timeout(STUCK);
            stream.write_all(b"0\r\n\r\n").is_ok()
        });
        let more = "passthrough = [\"/v1/x\"]\n";
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), more), driver);
        let mut client = forebay.connect();
        client.send(
            format!("GET /v1/x HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\nx-api-key: {KEY}\r\n\r\n").as_bytes(),
        );
        read_head(&mut client.0).unwrap();
        assert_eq!(client.read_chunk().unwrap(), b"\x1fopaque");
        release.send(()).unwrap();
        assert_eq!(client.read_chunk(), None);
    }
}

#[test]
fn an_upstream_without_a_credential_gets_none() {
    for (_, driver) in DRIVERS {
        let upstream = Upstream::plain(|_, stream| ok(stream));
        let config = config(&format!("http://{}", upstream.address), "")
            .replace("credentials = [{ name = \"org\", env = \"PROVIDER_KEY\" }]", "auth = \"none\"")
            .replace("provider = \"anthropic\"", "provider = \"anthropic-compatible\"");
        let forebay = Forebay::start(&config, driver);
        assert_eq!(forebay.ask(&post(BODY)).status(), 200);
        let got = upstream.next();
        assert_eq!((got.header("x-api-key"), got.header("authorization")), (None, None));
    }
}

#[test]
fn without_a_config_it_answers_to_the_address_that_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_forebay"));
    command
        .args(["serve", "--listen", "127.0.0.2:0", "--upstream", "http://127.0.0.1:9"])
        .env("ANTHROPIC_API_KEY", "k");
    let forebay = Forebay::spawn(command, "0", folder);
    let answer = forebay.ask(&format!("GET /api/hello HTTP/1.1\r\nhost: {}\r\n\r\n", forebay.address));
    assert_eq!(answer.status(), 200);
}
