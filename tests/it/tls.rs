//! TLS on both sides, with certificates that the tests make: sessions, tickets, rotation, ends and cuts.
#![allow(clippy::disallowed_methods, reason = "measures what another process does")]

use crate::{secure::*, support::*};
use rcgen::KeyPair;
use rustls::HandshakeKind;
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    process::Command,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

fn on_both_drivers(test: impl Fn(&str)) {
    for (name, force_epoll) in DRIVERS {
        eprintln!("-- {name}");
        test(force_epoll);
    }
}

/// An upstream in plain HTTP that sends back what it got.
fn echo() -> Upstream {
    Upstream::plain(|got, stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", got.body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&got.body)).is_ok()
    })
}

fn large_body() -> String {
    let text = "0123456789abcdef".repeat(64 * 1024);
    format!("{{\"model\":\"claude-x\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}")
}

#[test]
fn an_upstream_over_tls_streams_and_keeps_its_connection() {
    on_both_drivers(|driver| {
        let files = Files::new();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let upstream = secure_upstream(&files.ca, move |_, stream| {
            stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
            stream.write_all(chunk(&event("message_start", "")).as_bytes()).unwrap();
            stream.flush().unwrap();
            released.lock().unwrap().recv_timeout(STUCK).unwrap();
            stream.write_all(chunk(&event("message_stop", "")).as_bytes()).unwrap();
            stream.write_all(b"0\r\n\r\n").and_then(|()| stream.flush()).is_ok()
        });
        let forebay = Forebay::start(&config_with_ca(&upstream, &files.at("ca.pem")), driver);
        let mut client = forebay.connect();
        let mut first = None;
        for _ in 0..2 {
            client.send(post(BODY).as_bytes());
            read_head(&mut client.0).unwrap();
            assert_eq!(client.read_chunk().unwrap(), event("message_start", "").as_bytes());
            release.send(()).unwrap();
            assert_eq!(client.read_chunk().unwrap(), event("message_stop", "").as_bytes());
            assert_eq!(client.read_chunk(), None);
            let got = upstream.next();
            assert_eq!(got.header("x-api-key"), Some(PROVIDER_KEY));
            assert_eq!(got.connection, *first.get_or_insert(got.connection), "one connection for both");
        }
    });
}

#[test]
fn large_bodies_pass_tls_on_both_sides_unchanged() {
    on_both_drivers(|driver| {
        let files = Files::new();
        let upstream = secure_upstream(&files.ca, |got, stream| {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", got.body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&got.body)).is_ok()
        });
        let tls = format!("tls = {{ cert = \"{0}/tls.crt\", key = \"{0}/tls.key\" }}\n", files.folder.path().display());
        let text = config_with_ca(&upstream, &files.at("ca.pem"));
        let text = text.replacen("address = \"127.0.0.1:0\"\n", &format!("address = \"127.0.0.1:0\"\n{tls}"), 1);
        let forebay = Forebay::start(&text, driver);
        let mut client = connect(forebay.address, &files.ca.client(BOTH, &[]));
        let body = large_body();
        for _ in 0..2 {
            client.send(post(&body).as_bytes());
            let answer = client.read().unwrap();
            assert!(answer.status() == 200 && answer.body == body.as_bytes(), "{}", answer.head);
        }
    });
}

#[test]
fn a_wrong_ca_is_told_with_its_reason() {
    on_both_drivers(|driver| {
        let files = Files::new();
        let upstream = secure_upstream(&Ca::new("Another CA"), |_, _| false);
        let forebay = Forebay::start(&config_with_ca(&upstream, &files.at("ca.pem")), driver);
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (502, Some("tls_failed")), "{answer:?}");
        let message = answer.message();
        assert!(message.contains("of a CA that is not known here") && message.contains("`ca_file`"), "{message}");
        assert!(upstream.got.try_recv().is_err(), "no request to whom nobody vouches for");
    });
}

#[test]
fn an_upstream_that_closes_without_a_word_has_not_finished() {
    for orderly in [true, false] {
        on_both_drivers(|driver| {
            let files = Files::new();
            let upstream = secure_upstream(&files.ca, move |_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":1}").unwrap();
                if orderly {
                    stream.conn.send_close_notify();
                }
                stream.flush().unwrap();
                false
            });
            let mut forebay = Forebay::start(&config_with_ca(&upstream, &files.at("ca.pem")), driver);
            let answer = forebay.ask(&post(&BODY.replace(",\"stream\":true", "")));
            assert_eq!((answer.text().as_str(), answer.complete), ("{\"a\":1}", orderly), "{answer:?}");
            let line = forebay.logged();
            assert_eq!(line["ending"] == "complete", orderly, "{line}");
        });
    }
}

#[test]
fn clients_over_tls_get_events_as_they_come_and_an_end_that_is_one() {
    for versions in [&BOTH[..1], &BOTH[1..]] {
        on_both_drivers(|driver| {
            let files = Files::new();
            let (release, released) = mpsc::channel::<()>();
            let released = Mutex::new(released);
            let upstream = Upstream::plain(move |_, stream| {
                stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
                for name in ["message_start", "ping", "message_stop"] {
                    stream.write_all(chunk(&event(name, "")).as_bytes()).unwrap();
                    released.lock().unwrap().recv_timeout(STUCK).unwrap();
                }
                stream.write_all(b"0\r\n\r\n").is_ok()
            });
            let forebay = Forebay::start(&files.config(upstream.address, ""), driver);
            let mut client = connect(forebay.address, &files.ca.client(versions, &[b"h2", b"http/1.1"]));
            for request in [post(BODY), post_with("connection: close\r\n", BODY)] {
                client.send(request.as_bytes());
                let head = read_head(&mut client.0).unwrap();
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                for name in ["message_start", "ping", "message_stop"] {
                    assert_eq!(client.read_chunk().unwrap(), event(name, "").as_bytes());
                    release.send(()).unwrap();
                }
                assert_eq!(client.read_chunk(), None);
            }
            assert_eq!(client.0.read(&mut [0]).unwrap(), 0, "close_notify: rustls takes a bare end for a cut");
            assert_eq!(client.0.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            assert_eq!(client.0.conn.protocol_version(), Some(versions[0].version));
        });
    }
}

#[test]
fn an_idle_connection_is_ended_in_order() {
    on_both_drivers(|driver| {
        let (files, upstream) = (Files::new(), echo());
        let forebay = Forebay::start(&files.config(upstream.address, "[timeouts]\nkeep_alive = \"1s\"\n"), driver);
        let mut client = connect(forebay.address, &files.ca.client(BOTH, &[]));
        client.send(post(BODY).as_bytes());
        assert_eq!(client.read().unwrap().body, BODY.as_bytes());
        assert_eq!(client.0.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn sessions_resume_on_every_worker() {
    for versions in [&BOTH[..1], &BOTH[1..]] {
        on_both_drivers(|driver| {
            let (files, upstream) = (Files::new(), echo());
            let text = files.config(upstream.address, "").replace("workers = 1", "workers = 2");
            let forebay = Forebay::start(&text, driver);
            let config = files.ca.client(versions, &[b"http/1.1"]);
            let mut kinds = Vec::new();
            for _ in 0..12 {
                let mut client = connect(forebay.address, &config);
                client.send(post(BODY).as_bytes());
                assert_eq!(client.read().unwrap().body, BODY.as_bytes());
                kinds.push(client.0.conn.handshake_kind().unwrap());
            }
            assert_eq!(kinds[0], HandshakeKind::Full);
            assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
            assert_eq!((handshakes(&forebay, "full"), handshakes(&forebay, "resumed")), (1, 11));
        });
    }
}

#[test]
fn certificates_are_swapped_under_a_stream_and_bad_ones_are_not_taken() {
    on_both_drivers(|driver| {
        let files = Files::new();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let upstream = Upstream::plain(move |got, stream| {
            if got.number > 0 {
                return stream.write_all(answer("200 OK", "", "{}").as_bytes()).is_ok();
            }
            stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
            stream.write_all(chunk(&event("message_start", "")).as_bytes()).unwrap();
            released.lock().unwrap().recv_timeout(STUCK).unwrap();
            stream.write_all(chunk(&event("message_stop", "")).as_bytes()).unwrap();
            stream.write_all(b"0\r\n\r\n").is_ok()
        });
        let forebay = Forebay::start(&files.config(upstream.address, ""), driver);
        // One set of tickets: a ticket of the old certificate must not hide the new one.
        let config = files.ca.client(BOTH, &[]);
        let mut old = connect(forebay.address, &config);
        old.send(post(BODY).as_bytes());
        read_head(&mut old.0).unwrap();
        assert_eq!(old.read_chunk().unwrap(), event("message_start", "").as_bytes());
        let ask = || {
            let mut client = connect(forebay.address, &config);
            client.send(post(BODY).as_bytes());
            assert_eq!(client.read().unwrap().status(), 200);
            shown(&client)
        };
        assert_eq!(ask(), "CN=first");

        files.issue("second");
        soon("the second certificate", || (ask() == "CN=second").then_some(()));
        let told = forebay.notices.recv_timeout(STUCK).unwrap();
        assert!(told.contains("shows a new certificate, for localhost, 127.0.0.1 until"), "{told}");
        assert_eq!(count(&forebay, "forebay_tls_certificate_stale"), 0);

        files.put("tls.key", &KeyPair::generate().unwrap().serialize_pem());
        let told = forebay.notices.recv_timeout(STUCK).unwrap();
        assert!(told.contains("does not belong to the certificate") && told.contains("STAYS"), "{told}");
        assert_eq!((ask().as_str(), count(&forebay, "forebay_tls_certificate_stale")), ("CN=second", 1));
        assert!(forebay.admin("/readyz").text().contains("does not belong"));

        files.issue("third");
        soon("the third certificate", || (ask() == "CN=third").then_some(()));
        assert_eq!(count(&forebay, "forebay_tls_certificate_stale"), 0);
        let days = metric(&forebay, "forebay_tls_certificate_days_left");
        assert!(days > 365.0, "{days}");
        let table = forebay.admin("/table").text();
        assert!(table.contains("CN=third") && !table.contains("PRIVATE"), "{table}");

        release.send(()).unwrap();
        assert_eq!(old.read_chunk().unwrap(), event("message_stop", "").as_bytes(), "the old stream went on");
        assert_eq!(old.read_chunk(), None);
        assert_eq!(shown(&old), "CN=first");
    });
}

#[test]
fn a_slow_handshake_ends_in_time_and_stands_in_nobodys_way() {
    on_both_drivers(|driver| {
        let (files, upstream) = (Files::new(), echo());
        let forebay = Forebay::start(&files.config(upstream.address, "[timeouts]\ntls = \"1s\"\n"), driver);
        // A record's head that promises 512 bytes; and nothing at all.
        let mut slow: Vec<TcpStream> = (0..32).map(|_| TcpStream::connect(forebay.address).unwrap()).collect();
        slow.iter_mut().skip(1).for_each(|stream| stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).unwrap());
        let mut client = connect(forebay.address, &files.ca.client(BOTH, &[]));
        client.send(post(BODY).as_bytes());
        assert_eq!(client.read().unwrap().body, BODY.as_bytes());
        assert_eq!(handshakes(&forebay, "timeout"), 0, "it was served beside them");
        assert_eq!(count(&forebay, "forebay_connections "), 33);
        for stream in &mut slow {
            stream.set_read_timeout(Some(STUCK)).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
        assert_eq!(soon("the counts", || Some(handshakes(&forebay, "timeout")).filter(|n| *n == 32)), 32);
        assert_eq!(count(&forebay, "forebay_connections "), 1);
    });
}

#[test]
fn what_does_not_fit_is_refused_and_counted() {
    on_both_drivers(|driver| {
        let (files, upstream) = (Files::new(), echo());
        let forebay = Forebay::start(&files.config(upstream.address, ""), driver);
        let plain = forebay.ask(&post(BODY));
        assert_eq!((plain.status(), plain.header("connection")), (400, Some("close")), "{plain:?}");
        assert!(plain.message().contains("https://"), "{plain:?}");
        assert_eq!(plain.header("x-should-retry"), Some("false"));

        let mut only_h2 = connect(forebay.address, &files.ca.client(BOTH, &[b"h2"]));
        let error = only_h2.0.write_all(b"x").and_then(|()| only_h2.0.read(&mut [0])).unwrap_err();
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");

        let mut stranger = connect(forebay.address, &Ca::new("Another CA").client(BOTH, &[]));
        let error = stranger.0.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");

        let mut garbage = forebay.connect();
        garbage.send(&[0; 64]);
        let mut answer = Vec::new();
        let _ = garbage.0.read_to_end(&mut answer);
        assert_eq!(answer.first(), Some(&21), "an alert");

        drop(forebay.connect());
        for (outcome, count) in [("plain_http", 1), ("refused", 2), ("distrusted", 1), ("closed", 1)] {
            soon(outcome, || (handshakes(&forebay, outcome) == count).then_some(()));
        }
        assert!(upstream.got.try_recv().is_err());
        soon("the end of all", || (count(&forebay, "forebay_connections ") == 0).then_some(()));
    });
}

#[test]
fn listeners_with_and_without_tls_stand_side_by_side() {
    on_both_drivers(|driver| {
        let (files, upstream) = (Files::new(), echo());
        let text = files.config(upstream.address, "[[listen]]\naddress = \"127.0.0.1:0\"\n");
        let forebay = Forebay::start(&text.replace("[listen]\n", "[[listen]]\n"), driver);
        let mut plain = Client(TcpStream::connect(forebay.addresses[1]).unwrap());
        plain.0.set_read_timeout(Some(STUCK)).unwrap();
        plain.send(post(BODY).as_bytes());
        assert_eq!(plain.read().unwrap().body, BODY.as_bytes());
        let mut secured = connect(forebay.addresses[0], &files.ca.client(BOTH, &[]));
        secured.send(post(BODY).as_bytes());
        assert_eq!(secured.read().unwrap().body, BODY.as_bytes());
        // A hello on the plain port is no HTTP.
        let mut lost = connect(forebay.addresses[1], &files.ca.client(BOTH, &[]));
        assert!(lost.0.write_all(b"x").is_err());
    });
}

#[test]
fn the_upstream_is_left_when_a_client_over_tls_leaves() {
    for orderly in [true, false] {
        on_both_drivers(|driver| {
            let files = Files::new();
            let (gone, seen) = mpsc::channel();
            let gone = Mutex::new(gone);
            let upstream = Upstream::plain(move |_, stream| {
                stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
                stream.write_all(chunk(&event("message_start", "")).as_bytes()).unwrap();
                let read = stream.read(&mut [0; 1]);
                gone.lock().unwrap().send(matches!(read, Ok(0) | Err(_))).unwrap();
                false
            });
            let mut forebay = Forebay::start(&files.config(upstream.address, ""), driver);
            let mut client = connect(forebay.address, &files.ca.client(BOTH, &[]));
            client.send(post(BODY).as_bytes());
            read_head(&mut client.0).unwrap();
            client.read_chunk().unwrap();
            if orderly {
                client.0.conn.send_close_notify();
                client.0.flush().unwrap();
            }
            let left = Instant::now();
            drop(client);
            assert!(seen.recv_timeout(STUCK).unwrap());
            assert!(left.elapsed() < Duration::from_secs(2), "{:?}", left.elapsed());
            assert_eq!(forebay.logged()["reason"], "client_gone");
        });
    }
}

#[test]
fn curl_is_served() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("there is no curl here");
        return;
    }
    on_both_drivers(|driver| {
        let (files, upstream) = (Files::new(), echo());
        let forebay = Forebay::start(&files.config(upstream.address, ""), driver);
        let curl = |with: &[&str]| {
            let mut command = Command::new("curl");
            command.args(["-sS", "--max-time", "20", "-H", &format!("x-api-key: {KEY}"), "-d", BODY]).args(with);
            command.arg(format!("https://localhost:{}/v1/messages", forebay.address.port()));
            command.arg("--resolve").arg(format!("localhost:{}:127.0.0.1", forebay.address.port()));
            command.env_clear().output().unwrap()
        };
        let trusting = curl(&["--cacert", files.at("ca.pem").to_str().unwrap()]);
        assert_eq!(String::from_utf8_lossy(&trusting.stdout), BODY, "{trusting:?}");
        assert_eq!(curl(&[]).status.code(), Some(60), "it does not know the CA");
    });
}
