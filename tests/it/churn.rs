//! Clients of every bad kind come and go by the hundred. Those that behave are served meanwhile, and what the others held
//! is given back: connections, exchanges, bodies, descriptors.

use crate::{
    secure::{count, soon},
    support::*,
};
use std::{io::Write, net::Shutdown, time::Duration};

const ROUNDS: usize = 3;
const EACH: usize = 40;

/// Every kind leaves something undone. What is given back is kept until the end of the round.
type Kind = (&'static str, fn(Client) -> Client);

const KINDS: [Kind; 8] = [
    ("says nothing", |client| client),
    ("begins a head", |mut client| {
        client.send(b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-slow");
        client
    }),
    ("begins a body", |mut client| {
        let request = post(&BODY.repeat(20));
        client.send(&request.as_bytes()[..request.len() - 9]);
        client
    }),
    ("asks and says no more", |mut client| {
        client.send(post(BODY).as_bytes());
        client.0.shutdown(Shutdown::Write).unwrap();
        client
    }),
    ("reads nothing", |mut client| {
        client.send(post(BODY).as_bytes());
        client
    }),
    ("resets its stream", |mut client| {
        client.send(post(BODY).as_bytes());
        read_head(&mut client.0).unwrap();
        socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
        client
    }),
    ("pipelines and goes", |mut client| {
        client.send(post(BODY).repeat(5).as_bytes());
        client
    }),
    ("speaks something else", |mut client| {
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        client
    }),
];

fn descriptors(forebay: &Forebay) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", forebay.id())).unwrap().count()
}

#[test]
fn what_bad_clients_held_is_given_back() {
    many_files();
    for (driver, force_epoll) in DRIVERS {
        let upstream = Upstream::plain(|got, stream| {
            if got.header("x-quick").is_some() {
                return stream.write_all(answer("200 OK", "", "{}").as_bytes()).is_ok();
            }
            stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
            // More than the client's buffers take, and no end: it ends with its client.
            let events = chunk(&event("content_block_delta", &format!(",\"t\":\"{}\"", "x".repeat(9_000)))).repeat(10);
            while stream.write_all(events.as_bytes()).is_ok() {}
            false
        });
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), force_epoll);
        let good = || forebay.ask(&post_with("x-quick: 1\r\nconnection: close\r\n", BODY)).status();
        assert_eq!(good(), 200);
        let idle = |forebay: &Forebay| count(forebay, "forebay_idle_upstream_connections ") as usize;
        soon("rest", || (count(&forebay, "forebay_connections ") == 0 && idle(&forebay) == 1).then_some(()));
        // Looking is a connection, too, which may not have gone yet.
        let base = (0..20).map(|_| descriptors(&forebay) - idle(&forebay)).min().unwrap();
        for _ in 0..ROUNDS {
            let mut clients = Vec::new();
            for (_, spoil) in KINDS {
                clients.extend((0..EACH).map(|_| spoil(forebay.connect())));
                assert_eq!(good(), 200, "others are served meanwhile");
            }
            assert!(descriptors(&forebay) > base + EACH, "they do hold something");
            drop(clients);
        }
        soon("the end of all", || {
            let levels = ["forebay_connections ", "forebay_exchanges_in_flight ", "forebay_bodies_held_bytes "];
            levels.iter().all(|level| count(&forebay, level) == 0).then_some(())
        });
        soon("every descriptor", || (descriptors(&forebay) <= base + idle(&forebay)).then_some(()));
        assert_eq!((good(), count(&forebay, "forebay_panics_total ")), (200, 0));
        eprintln!("{driver}: {} bad clients, {base} descriptors before and after", ROUNDS * EACH * KINDS.len());
    }
}
