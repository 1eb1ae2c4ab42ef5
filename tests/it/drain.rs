//! Going down: what is in flight ends well, what would last for ever ends visibly.

use crate::support::*;
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Mutex, mpsc},
};

/// An upstream that begins a stream, and ends it when the test says so.
fn held() -> (Upstream, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let upstream = Upstream::plain(move |_, stream| {
        stream.write_all((STREAM_HEAD.to_owned() + &chunk(&event("message_start", ""))).as_bytes()).unwrap();
        let _ = released.lock().unwrap().recv_timeout(STUCK);
        stream.write_all((chunk(&event("message_stop", "")) + "0\r\n\r\n").as_bytes()).is_ok()
    });
    (upstream, release)
}

fn begin_stream(forebay: &Forebay) -> Client {
    let mut client = forebay.connect();
    client.send(post(BODY).as_bytes());
    read_head(&mut client.0).unwrap();
    client.read_chunk().unwrap();
    client
}

/// Waits until `done`; each look is a request, so this yields to the process that it waits for.
fn until(done: impl Fn() -> bool) {
    let begun = forebay::rt::ring::mono();
    while !done() {
        assert!(forebay::rt::ring::mono().since(begun).to_std() < STUCK, "stuck");
    }
}

#[test]
fn streams_go_on_to_their_end_and_nothing_else_does() {
    for (_, driver) in DRIVERS {
        let (upstream, release) = held();
        let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), driver);
        let mut stream = begin_stream(&forebay);
        let mut idle = forebay.connect();
        idle.send(b"HEAD /api/hello HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(read_head(&mut idle.0).unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(forebay.admin("/readyz").status(), 200);
        forebay.signal("TERM");
        assert_eq!(idle.0.read(&mut [0; 1]).unwrap(), 0, "a connection without a request ends");
        until(|| TcpStream::connect(forebay.address).is_err());
        assert_eq!(forebay.admin("/readyz").status(), 503);
        release.send(()).unwrap();
        assert_eq!(stream.read_chunk().unwrap(), event("message_stop", "").as_bytes());
        assert_eq!(stream.read_chunk(), None);
        assert_eq!(forebay.wait(), Some(0));
        assert_eq!(forebay.logged()["path"], "/api/hello");
        assert_eq!(forebay.logged()["ending"], "complete", "the log is written to its end");
    }
}

#[test]
fn a_stream_that_does_not_end_is_broken_visibly() {
    for (_, driver) in DRIVERS {
        let (upstream, _release) = held();
        let more = "[timeouts]\ndrain = \"100ms\"\n";
        let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), more), driver);
        let mut stream = begin_stream(&forebay);
        forebay.signal("TERM");
        let told = String::from_utf8(stream.read_chunk().unwrap()).unwrap();
        assert!(told.starts_with("event: error") && told.contains("going down"), "{told}");
        assert_eq!(forebay.wait(), Some(0));
        assert_eq!(forebay.logged()["reason"], "draining");
    }
}

#[test]
fn in_the_grace_new_requests_are_served_and_told_to_go() {
    for (_, driver) in DRIVERS {
        let (upstream, release) = held();
        drop(release);
        let more = "[timeouts]\ndrain_grace = \"60s\"\n";
        let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), more), driver);
        forebay.signal("TERM");
        until(|| forebay.admin("/readyz").status() == 503);
        let answer = forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
        forebay.signal("TERM");
        assert_eq!(forebay.wait(), Some(1), "who asks twice does not wait");
    }
}
