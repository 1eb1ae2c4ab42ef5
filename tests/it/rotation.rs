//! Certificates that are swapped under load: clients come, resume and ask all the time, and none of them fails.

use crate::{secure::*, support::*};
use rustls::HandshakeKind;
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

const CLIENTS: usize = 6;
const SWAPS: usize = 4;
/// Handshakes under each certificate before it is swapped again.
const EACH: usize = 40;

/// What clients saw: by certificate, how many handshakes, and how many of them were resumed.
type Seen = BTreeMap<String, [usize; 2]>;

#[test]
fn certificates_are_swapped_under_load_and_nobody_fails() {
    for (driver, force_epoll) in DRIVERS {
        let files = Files::new();
        let upstream = Upstream::plain(|got, stream| {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", got.body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&got.body)).is_ok()
        });
        let text = files.config(upstream.address, "").replace("workers = 1", "workers = 2");
        let forebay = Forebay::start(&text, force_epoll);
        let (address, seen, is_over) = (forebay.address, Mutex::new(Seen::new()), AtomicBool::new(false));
        let client = |number: usize| {
            // Half of them keep tickets over a swap; some speak TLS 1.2.
            let versions = if number.is_multiple_of(3) { &BOTH[1..] } else { BOTH };
            let mut config = files.ca.client(versions, &[b"http/1.1"]);
            let mut made = 0;
            while !is_over.load(Ordering::SeqCst) {
                let mut client = connect(address, &config);
                for _ in 0..3 {
                    client.send(post(BODY).as_bytes());
                    let answer = client.read().expect("an answer");
                    assert!(answer.status() == 200 && answer.body == BODY.as_bytes(), "{answer:?}");
                }
                let resumed = client.0.conn.handshake_kind() == Some(HandshakeKind::Resumed);
                let mut seen = seen.lock().unwrap();
                let [all, again] = seen.entry(shown(&client)).or_default();
                (*all, *again) = (*all + 1, *again + usize::from(resumed));
                made += 1;
                if number.is_multiple_of(2) && made % 10 == 0 {
                    config = files.ca.client(versions, &[b"http/1.1"]);
                }
            }
        };
        let many_of = |name: &str| {
            let enough = |seen: &Seen| seen.get(name).is_some_and(|[all, _]| *all >= EACH);
            soon(name, || enough(&seen.lock().unwrap()).then_some(()));
        };
        thread::scope(|scope| {
            (0..CLIENTS).for_each(|number| drop(scope.spawn(move || client(number))));
            let swapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                many_of("CN=first");
                for swap in 0..SWAPS {
                    files.issue(&format!("swap-{swap}"));
                    many_of(&format!("CN=swap-{swap}"));
                }
            }));
            is_over.store(true, Ordering::SeqCst);
            swapped.unwrap();
        });
        let seen = seen.into_inner().unwrap();
        let sum = |at: usize| seen.values().map(|counts| counts[at]).sum::<usize>();
        eprintln!("{driver}: {} handshakes, {} resumed, {} requests, 0 failed: {seen:?}", sum(0), sum(1), 3 * sum(0));
        assert!(sum(1) > SWAPS, "sessions resume in between");
        let told = |outcome| handshakes(&forebay, outcome);
        // A client that ends behind the last answer is none of these.
        assert_eq!((told("refused"), told("distrusted"), told("timeout")), (0, 0, 0));
        assert_eq!(told("full") + told("resumed"), sum(0) as u64);
    }
}
