use super::*;
use std::thread;

fn target(to: SocketAddr) -> Target {
    Target {
        to,
        key: "k".into(),
        pids: vec![],
        provider: None,
        provider_pid: None,
        warm_up: Duration::ZERO,
        window: Duration::ZERO,
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn without_a_proxy_every_leaving_is_seen_at_once() {
    for state in [State::FirstByte, State::MidStream, State::Silent, State::Stalled, State::Uploading] {
        let provider = free();
        let left = run(&target(provider), &Plan { state, count: 12, provider }).unwrap();
        assert_eq!((left.delay.len(), left.open), (12, 0), "{state:?}: {:?}", left.faults);
        assert!(left.faults.is_empty(), "{state:?}: {:?}", left.faults);
        assert!(left.delay.max() < 1_000_000_000, "{state:?}: {}", left.delay.max());
    }
}

#[test]
fn a_proxy_that_does_not_notice_is_found_out() {
    let (provider, front) = (free(), TcpListener::bind("127.0.0.1:0").unwrap());
    let to = front.local_addr().unwrap();
    thread::spawn(move || {
        // Takes the request on, and then looks at its client no more.
        let (client, _) = front.accept().unwrap();
        let upstream = TcpStream::connect(provider).unwrap();
        let (mut from, mut to) = (client, upstream.try_clone().unwrap());
        let _ = io::copy(&mut from, &mut to);
        thread::park_timeout(Duration::from_secs(20));
        drop(upstream);
    });
    let left = run(&target(to), &Plan { state: State::FirstByte, count: 1, provider }).unwrap();
    assert_eq!((left.delay.len(), left.open), (0, 1));
    assert!(left.faults[0].contains("still open"), "{:?}", left.faults);
}
