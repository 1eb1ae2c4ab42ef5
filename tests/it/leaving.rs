//! A client that leaves takes its upstream with it, whatever state the exchange is in and however it leaves. Every
//! patience here is far longer than what counts as stuck: only the leaving can end these exchanges.
#![allow(clippy::disallowed_methods, reason = "measures what another process does")]

use crate::{secure::soon, support::*};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

const PATIENCE: &str =
    "[timeouts]\nfirst_byte = \"300s\"\nidle = \"300s\"\nwrite_stall = \"300s\"\nsend = \"300s\"\nbody = \"300s\"\n";
/// No more fits into the buffers of the sockets when a write has waited for so long.
const FULL: Duration = Duration::from_millis(300);
/// More than the buffers of the sockets take.
const LARGE: usize = 16 << 20;

/// What the upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has the request and says nothing.
    BeforeTheFirstByte,
    /// It sends event after event.
    MidStream,
    /// It has begun a stream and says nothing more.
    SilentUpstream,
    /// It sends all it can, and the client reads nothing.
    StalledReader,
    /// It does not read the request's body.
    WhileSending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Close,
    Reset,
    HalfClose,
}

/// What the upstream tells of an exchange.
enum Told {
    /// It has come to its state.
    There,
    /// forebay has left.
    Left(usize, Instant),
}

/// Opened once the clients have left.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

fn upstream(state: State, gate: Arc<Gate>) -> (SocketAddr, Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, told) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (sender, gate) = (sender.clone(), Arc::clone(&gate));
            thread::spawn(move || match read_head(&mut stream) {
                Some(head) if head.starts_with("POST") => serve(stream, &head, state, &sender, &gate),
                Some(_) => drop(stream.write_all(answer("200 OK", "", "{\"data\":[]}").as_bytes())),
                None => {}
            });
        }
    });
    (address, told)
}

fn serve(mut stream: TcpStream, head: &str, state: State, told: &Sender<Told>, gate: &Gate) {
    let number = header(head, "x-number").unwrap().parse().unwrap();
    let there = || told.send(Told::There).unwrap();
    let length: usize = header(head, "content-length").unwrap().parse().unwrap();
    if state == State::WhileSending {
        there();
        gate.wait();
        let taken = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0);
        assert!(taken < length as u64, "the rest of the request must not come any more");
        return told.send(Told::Left(number, Instant::now())).unwrap();
    }
    stream.read_exact(&mut vec![0; length]).unwrap();
    if state != State::BeforeTheFirstByte {
        stream.write_all((STREAM_HEAD.to_owned() + &chunk(&event("message_start", ""))).as_bytes()).unwrap();
    }
    match state {
        State::BeforeTheFirstByte | State::SilentUpstream => {
            there();
            while matches!(stream.read(&mut [0; 16]), Ok(count) if count > 0) {}
        }
        State::MidStream => {
            there();
            while stream.write_all(chunk(&event("ping", "")).as_bytes()).is_ok() {
                thread::park_timeout(Duration::from_millis(2));
            }
        }
        State::StalledReader => stall(&mut stream, there),
        State::WhileSending => {}
    }
    told.send(Told::Left(number, Instant::now())).unwrap();
}

/// Sends until nothing goes any more, tells that, and goes on until forebay leaves.
fn stall(stream: &mut TcpStream, there: impl Fn()) {
    stream.set_write_timeout(Some(FULL)).unwrap();
    let events = chunk(&event("content_block_delta", &format!(",\"text\":\"{}\"", "x".repeat(8_000)))).repeat(8);
    let (mut at, mut is_full) = (0, false);
    loop {
        match stream.write(&events.as_bytes()[at..]) {
            Ok(count) => at = (at + count) % events.len(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if !std::mem::replace(&mut is_full, true) {
                    there();
                }
            }
            Err(_) => return,
        }
    }
}

fn arrive(forebay: &Forebay, state: State, number: usize) -> Client {
    let mut client = forebay.connect();
    let body = match state {
        State::WhileSending => format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(LARGE)),
        _ => BODY.to_owned(),
    };
    client.send(post_with(&format!("x-number: {number}\r\n"), &body).as_bytes());
    if matches!(state, State::MidStream | State::SilentUpstream) {
        read_head(&mut client.0).unwrap();
        client.read_chunk().unwrap();
    }
    client
}

/// Leaves; what must be kept for that.
fn leave(client: Client, way: Way) -> Option<TcpStream> {
    match way {
        Way::Close => None,
        Way::Reset => {
            socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
            None
        }
        Way::HalfClose => {
            client.0.shutdown(Shutdown::Write).unwrap();
            Some(client.0)
        }
    }
}

/// How long it took, in each of `count` exchanges at a time, until the upstream was left.
fn left_within(state: State, way: Way, driver: &str, count: usize) -> Vec<Duration> {
    let gate = Arc::new(Gate::default());
    let (address, told) = upstream(state, Arc::clone(&gate));
    let mut forebay = Forebay::start(&config(&format!("http://{address}"), PATIENCE), driver);
    let clients: Vec<_> = (0..count).map(|number| arrive(&forebay, state, number)).collect();
    let next = || told.recv_timeout(STUCK).unwrap_or_else(|_| panic!("{state:?}, {way:?}: nothing happens"));
    for _ in 0..count {
        assert!(matches!(next(), Told::There), "{state:?}, {way:?}: it was left before its client went");
    }
    let mut went = Vec::new();
    let kept: Vec<_> = clients
        .into_iter()
        .map(|client| {
            went.push(Instant::now());
            leave(client, way)
        })
        .collect();
    let mut took = Vec::new();
    if state == State::WhileSending {
        // This upstream looks only when the clients have been missed: whoever read on would let forebay send on.
        for _ in 0..count {
            assert_eq!(forebay.logged()["reason"], "client_gone", "{state:?}, {way:?}");
            took.push(went[0].elapsed());
        }
    }
    gate.open();
    for _ in 0..count {
        let Told::Left(number, at) = next() else { panic!("{state:?}, {way:?}: asked twice") };
        if state != State::WhileSending {
            took.push(at.saturating_duration_since(went[number]));
            assert_eq!(forebay.logged()["reason"], "client_gone", "{state:?}, {way:?}");
        }
    }
    drop(kept);
    took
}

fn in_every_way(state: State, count: usize) {
    for (name, driver) in DRIVERS {
        let mut took: Vec<_> = [Way::Close, Way::Reset, Way::HalfClose]
            .iter()
            .flat_map(|way| left_within(state, *way, driver, count))
            .collect();
        took.sort();
        eprintln!(
            "{state:?} on {name}: median {:?}, most {:?} of {}",
            took[took.len() / 2],
            took[took.len() - 1],
            took.len()
        );
    }
}

#[test]
fn before_the_first_byte() {
    in_every_way(State::BeforeTheFirstByte, 40);
}

#[test]
fn in_mid_stream() {
    in_every_way(State::MidStream, 40);
}

#[test]
fn behind_a_silent_upstream() {
    in_every_way(State::SilentUpstream, 40);
}

#[test]
fn when_it_had_stopped_reading() {
    in_every_way(State::StalledReader, 8);
}

#[test]
fn while_its_request_is_sent_on() {
    in_every_way(State::WhileSending, 4);
}

/// An upstream hears of a request only when forebay has all of it, so that there is none to be left here; what was held
/// of it is given back.
#[test]
fn while_it_uploads() {
    for (_, driver) in DRIVERS {
        for way in [Way::Close, Way::Reset, Way::HalfClose] {
            let upstream = Upstream::plain(|_, _| false);
            let mut forebay = Forebay::start(&config(&format!("http://{}", upstream.address), PATIENCE), driver);
            let mut client = forebay.connect();
            let whole = post(&format!("{{\"model\":\"m\",\"pad\":\"{}\"}}", "x".repeat(LARGE)));
            client.send(&whole.as_bytes()[..LARGE / 2]);
            let metrics = |line: &str| forebay.admin("/metrics").text().contains(&format!("\n{line}\n"));
            soon("the exchange", || metrics("forebay_exchanges_in_flight 1").then_some(()));
            assert!(!metrics("forebay_bodies_held_bytes 0"));
            let kept = leave(client, way);
            soon("the end of it", || {
                (metrics("forebay_exchanges_in_flight 0") && metrics("forebay_bodies_held_bytes 0")).then_some(())
            });
            assert_eq!(forebay.logged()["reason"], "client_gone", "{way:?}");
            assert!(upstream.got.try_recv().is_err(), "half a request goes nowhere");
            drop(kept);
        }
    }
}
