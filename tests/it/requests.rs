//! What is let in, what is refused and with which words, and how bodies are read.

use crate::support::*;
use std::io::Write;

/// An upstream that answers with the body it got.
fn echo() -> Upstream {
    Upstream::plain(|got, stream| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-seen-length: {}\r\ncontent-length: {}\r\n\r\n",
            got.body.len(),
            got.body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&got.body)).is_ok()
    })
}

fn with_echo(more: &str, test: impl Fn(&Forebay, &Upstream)) {
    for (_, driver) in DRIVERS {
        let upstream = echo();
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), more), driver);
        test(&forebay, &upstream);
    }
}

fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: forebay\r\n{fields}\r\n")
}

#[test]
fn refusals_say_what_came_and_what_to_do_and_stop_the_client() {
    let rows = [
        ("", "no key came"),
        ("x-api-key: \r\nauthorization: Bearer \r\n", "no key came"),
        ("authorization: Bearer sk-ant-oat01-hello\r\n", "claude.ai"),
        ("x-api-key: sk-ant-api03-hello\r\n", "Anthropic"),
        ("x-api-key: sk-or-v1-hello\r\n", "OpenRouter"),
        ("x-api-key: fby_0000000000000000000000000000000000000000000000000\r\n", "key"),
    ];
    with_echo("", |forebay, upstream| {
        for (fields, word) in rows {
            let answer = forebay.ask(&request("POST /v1/messages", &format!("{fields}content-length: 0\r\n")));
            // A login would be renewed and sent again on a 401.
            let status = if word == "claude.ai" { 421 } else { 401 };
            assert_eq!((answer.status(), answer.header("x-should-retry")), (status, Some("false")), "{fields}");
            let message = answer.message();
            assert!(message.contains(word), "{fields}: {message}");
            assert!(message.contains("#ai-platform") && !message.contains("hello"), "{message}");
            assert_eq!(answer.header("request-id"), answer.header("x-forebay-request-id"));
            assert!(message.contains(answer.header("request-id").unwrap()));
        }
        assert!(upstream.got.try_recv().is_err());
    });
}

#[test]
fn a_good_key_wins_over_what_lies_around() {
    with_echo("", |forebay, upstream| {
        for fields in [
            format!("authorization: Bearer {KEY}\r\nx-api-key: sk-ant-api03-old\r\n"),
            format!("authorization: Bearer {KEY}\r\nx-api-key: \r\n"),
            format!("authorization: Bearer {KEY}\r\nx-api-key: {KEY}\r\n"),
        ] {
            let answer = forebay
                .ask(&(request("POST /v1/messages", &format!("{fields}content-length: {}\r\n", BODY.len())) + BODY));
            assert_eq!(answer.status(), 200, "{fields}");
            let got = upstream.next();
            assert!(!got.head.contains(KEY) && !got.head.contains("sk-ant-api03-old"), "{}", got.head);
            assert_eq!(got.header("x-api-key"), Some(PROVIDER_KEY));
        }
    });
}

#[test]
fn a_refusal_in_the_middle_of_an_upload_can_be_read() {
    with_echo("[bounds]\nbody_max = \"1MiB\"\n", |forebay, _| {
        for fields in
            ["content-length: 20000000\r\n".to_owned(), format!("x-api-key: {KEY}\r\ncontent-length: 20000000\r\n")]
        {
            let mut client = forebay.connect();
            client.send(request("POST /v1/messages", &fields).as_bytes());
            let mut writer = client.0.try_clone().unwrap();
            // The client goes on sending, as clients do, and must not be met by a reset.
            let sending =
                std::thread::spawn(move || (0..200).try_for_each(|_| writer.write_all(&b"x".repeat(100_000))));
            let answer = client.read().unwrap();
            assert!(matches!(answer.status(), 401 | 413), "{}", answer.head);
            assert_eq!(answer.header("connection"), Some("close"));
            let _ = sending.join();
        }
    });
}

#[test]
fn bodies_come_in_chunks_in_pieces_and_after_an_invitation() {
    with_echo("", |forebay, _| {
        let mut client = forebay.connect();
        client.send(
            request("POST /v1/messages", &format!("x-api-key: {KEY}\r\ntransfer-encoding: chunked\r\n")).as_bytes(),
        );
        for piece in BODY.as_bytes().chunks(7) {
            client.send(chunk(std::str::from_utf8(piece).unwrap()).as_bytes());
        }
        client.send(b"0\r\nx-trailer: 1\r\n\r\n");
        assert_eq!(client.read().unwrap().text(), BODY);
        // The same connection goes on.
        let fields = format!("x-api-key: {KEY}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n", BODY.len());
        client.send(request("POST /v1/messages", &fields).as_bytes());
        assert_eq!(read_head(&mut client.0).unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(BODY.as_bytes());
        assert_eq!(client.read().unwrap().text(), BODY);
    });
}

#[test]
fn gzip_is_decoded_within_the_bound_and_other_codings_are_refused() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    with_echo("[bounds]\nbody_max = \"1MiB\"\n", |forebay, upstream| {
        let send = |coding: &str, body: &[u8]| {
            let mut client = forebay.connect();
            let fields =
                format!("x-api-key: {KEY}\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n", body.len());
            client.send(request("POST /v1/messages", &fields).as_bytes());
            client.send(body);
            client.read().unwrap()
        };
        let body = format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "xy".repeat(300_000));
        assert_eq!(send("gzip", &gzip(body.as_bytes())).text(), body);
        assert_eq!(upstream.next().header("content-encoding"), None);
        let bomb = gzip(format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(50 << 20)).as_bytes());
        assert!(bomb.len() < 1 << 20);
        assert_eq!(send("gzip", &bomb).status(), 413);
        assert_eq!(send("br", b"x").status(), 415);
        assert_eq!(send("gzip", b"not gzip at all").status(), 400);
        assert_eq!(send("gzip", &gzip(BODY.as_bytes())[..30]).status(), 400);
    });
}

#[test]
fn bodies_that_cannot_be_routed_are_refused() {
    with_echo("", |forebay, upstream| {
        for body in [
            "",
            "[]",
            "{",
            "{\"messages\":[]}",
            "{\"model\":1}",
            "{\"model\":\"a\",\"mod\\u0065l\":\"b\"}",
            "{\"model\":\"a\"}x",
        ] {
            let answer = forebay.ask(&post(body));
            assert_eq!((answer.status(), answer.header("x-forebay-reason")), (400, Some("body_unreadable")), "{body}");
        }
        assert!(upstream.got.try_recv().is_err());
    });
}

#[test]
fn models_are_bound_aliased_and_told() {
    let more = "models = [\"fast\", \"claude-*\"]\n\
                [[model]]\nname = \"fast\"\ntargets = [{ upstream = \"main\", model = \"claude-haiku-4-5\" }]\n\
                [[model]]\nname = \"claude-*\"\ntargets = [{ upstream = \"main\" }]\n\
                [[model]]\nname = \"gpt-5\"\ntargets = [{ upstream = \"main\" }]\n";
    with_echo(more, |forebay, upstream| {
        let body = r#"{"max_tokens":1, "model" : "fast" ,"stream":false}"#;
        assert_eq!(forebay.ask(&post(body)).status(), 200);
        assert_eq!(String::from_utf8(upstream.next().body).unwrap(), body.replace("\"fast\"", "\"claude-haiku-4-5\""));
        let denied = forebay.ask(&post(r#"{"model":"gpt-5"}"#));
        assert_eq!((denied.status(), denied.header("x-forebay-reason")), (403, Some("model_denied")));
        assert!(denied.message().contains("claude-*"), "{}", denied.message());
        let unknown = forebay.ask(&post(r#"{"model":"nope"}"#));
        assert_eq!((unknown.status(), unknown.header("x-forebay-reason")), (404, Some("model_unknown")));
        let listed = forebay.ask(&request("GET /v1/models?limit=1000", &format!("x-api-key: {KEY}\r\n")));
        let value: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
        assert_eq!(value["data"][0]["id"], "fast");
        assert!(!listed.text().contains("gpt-5"), "{}", listed.text());
    });
}

#[test]
fn other_paths_are_closed_until_a_key_opens_them() {
    with_echo("", |forebay, upstream| {
        let answer = forebay.ask(&request("GET /v1/files", &format!("x-api-key: {KEY}\r\n")));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (403, Some("path_closed")));
        assert_eq!(forebay.ask(&request("GET /v1/files", "")).status(), 401);
        assert_eq!(forebay.ask(&request("GET /nowhere", "")).status(), 404);
        assert_eq!(forebay.ask(&request("GET /v1/messages", "")).status(), 405);
        assert_eq!(forebay.ask(&request("HEAD /api/hello", "")).status(), 200);
        assert!(upstream.got.try_recv().is_err());
    });
    with_echo("passthrough = [\"/v1/files\"]\n", |forebay, upstream| {
        let answer =
            forebay.ask(&request("GET /v1/files/abc?x=1", &format!("x-api-key: {KEY}\r\naccept-encoding: gzip\r\n")));
        assert_eq!(answer.status(), 200);
        let got = upstream.next();
        assert!(got.head.starts_with("GET /v1/files/abc?x=1 HTTP/1.1\r\n"), "{}", got.head);
        assert_eq!((got.header("accept-encoding"), got.header("content-length")), (Some("gzip"), None));
        for path in ["/v1/organizations/me", "/v1/filesystem", "/v1/files/../organizations"] {
            let answer = forebay.ask(&request(&format!("GET {path}"), &format!("x-api-key: {KEY}\r\n")));
            assert_eq!(answer.status(), 403, "{path}");
        }
    });
}

#[test]
fn the_process_holds_no_more_body_bytes_than_it_may() {
    with_echo("[bounds]\nbody_max = \"1700KiB\"\nbodies_max = \"2MiB\"\n", |forebay, _| {
        let mut first = forebay.connect();
        first.send(
            request(
                "POST /v1/messages",
                &format!("x-api-key: {KEY}\r\nexpect: 100-continue\r\ncontent-length: 1600000\r\n"),
            )
            .as_bytes(),
        );
        // The invitation shows that the first has claimed its share.
        read_head(&mut first.0).unwrap();
        let answer =
            forebay.ask(&request("POST /v1/messages", &format!("x-api-key: {KEY}\r\ncontent-length: 1600000\r\n")));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (503, Some("bodies_full")));
        assert!(answer.header("retry-after").is_some());
        drop(first);
        let metric = || forebay.admin("/metrics").text();
        while !metric().lines().any(|line| line.starts_with("forebay_bodies_held_bytes") && line.ends_with(" 0")) {
            assert!(metric().contains("forebay_bodies_held_bytes"), "{}", metric());
        }
        let body = format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(1_500_000));
        assert_eq!(forebay.ask(&post(&body)).status(), 200);
    });
}

#[test]
fn an_http_1_0_client_gets_what_it_understands() {
    for (_, driver) in DRIVERS {
        let upstream = Upstream::plain(|got, stream| {
            let (name, end) = [("ping", "0\r\n\r\n"), ("ping", ""), ("content_block_stop", "")][got.number];
            stream.write_all((STREAM_HEAD.to_owned() + &chunk(&event(name, "")) + end).as_bytes()).is_ok()
                && got.number == 0
        });
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        let request = format!(
            "POST /v1/messages HTTP/1.0\r\nhost: a\r\nx-api-key: {KEY}\r\ncontent-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        let answer = forebay.ask(&request);
        assert_eq!((answer.text(), answer.complete), (event("ping", ""), true));
        let told = forebay.ask(&request);
        assert!(told.text().starts_with(&(event("ping", "") + "event: error\n")) && told.complete, "{told:?}");
        assert!(!forebay.ask(&request).complete, "where no event may tell, a break is a reset: the close is the end");
    }
}

#[test]
fn without_a_config_only_this_machine_and_no_web_page_gets_in() {
    for (_, driver) in DRIVERS {
        let upstream = echo();
        let folder = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("ANTHROPIC_API_KEY", PROVIDER_KEY);
        command.env("ANTHROPIC_BASE_URL", format!("http://{}", upstream.address));
        let forebay = Forebay::spawn(command, driver, folder);
        let local = format!("host: {}\r\ncontent-length: 0\r\n", forebay.address);
        let ask = |fields: &str| forebay.ask(&format!("POST /v1/messages HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(ask(&local).status(), 401, "it has a key of its own");
        assert_eq!(ask("host: evil.example\r\ncontent-length: 0\r\n").status(), 421);
        assert_eq!(ask(&format!("{local}origin: https://evil.example\r\n")).status(), 403);
        assert_eq!(ask(&format!("{local}sec-fetch-site: cross-site\r\n")).status(), 403);
    }
}
