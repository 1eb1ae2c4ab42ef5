//! A thousand streams that their upstream cuts at random points before a stop reason, and a thousand clients that see it.

use crate::support::*;
use forebay::sim::dice::Dice;
use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

const STREAMS: u64 = 1_000;
/// At a time; most of them wait for the connection of a broken answer to end.
const CLIENTS: usize = 64;

/// A stream as far as the event that would bring a stop reason, and its bytes on the wire in one of three framings.
struct Made {
    events: String,
    wire: Vec<u8>,
    is_old: bool,
    /// So many bytes are sent, and then the connection ends, by a reset or in order.
    cut: usize,
    resets: bool,
}

fn made(number: u64) -> Made {
    let dice = &mut Dice::new(number);
    let mut events = event("message_start", "");
    for _ in 0..dice.between(1, 3) {
        events += &event("content_block_start", "");
        for _ in 0..dice.below(12) {
            let times = dice.size(1_500);
            events += &event("content_block_delta", &format!(",\"text\":\"{}\"", dice.text(20).repeat(times)));
        }
        events += &event("content_block_stop", "");
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let mut wire = match dice.below(4) {
        0 => format!("{head}content-length: {}\r\n\r\n{events}", events.len() + 200),
        1 => format!("{head}\r\n{events}"),
        _ => {
            let mut chunks = format!("{head}transfer-encoding: chunked\r\n\r\n");
            let mut rest = events.as_str();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(dice.between(1, rest.len()));
                chunks += &chunk(now);
                rest = later;
            }
            chunks
        }
    }
    .into_bytes();
    // One in ten within the head.
    let head = wire.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let cut = if dice.chance(10) { dice.below(head) } else { dice.between(head, wire.len()) };
    wire.truncate(cut);
    Made { events, wire, is_old: dice.chance(8), cut, resets: dice.chance(2) }
}

/// How a client sees that it has not got everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// An honest 502.
    Refusal,
    /// An error event, after the last whole event, before any finished block.
    Event,
    /// A body without its end.
    NoEnd,
}

/// What the client saw; an `Err` where it would take what it got for an answer.
fn judge(made: &Made, answer: &Answer) -> Result<Seen, String> {
    let text = answer.text();
    if answer.status() == 502 && answer.header("x-forebay-reason").is_some() && answer.complete {
        return Ok(Seen::Refusal);
    }
    let told = text.find("event: error\n");
    let passed = &text[..told.unwrap_or(text.len())];
    if answer.status() != 200 || !made.events.starts_with(passed) {
        return Err(format!("{} that is not what was sent", answer.status()));
    }
    match (told, answer.complete) {
        (_, false) => Ok(Seen::NoEnd),
        (None, true) => Err(format!("it looks whole with {} of {} bytes", passed.len(), made.events.len())),
        (Some(_), true) if passed.contains("content_block_stop") => Err("a finished block is thrown away".into()),
        (Some(_), true) if !passed.is_empty() && !passed.ends_with("\n\n") => Err("told inside an event".into()),
        (Some(at), true) if !text[at..].contains("forebay: the upstream main broke its answer off") => {
            Err("by whom?".into())
        }
        (Some(_), true) => Ok(Seen::Event),
    }
}

fn cutting_upstream() -> Upstream {
    Upstream::plain(|got, stream| {
        let made = made(got.header("x-number").unwrap().parse().unwrap());
        let _ = stream.write_all(&made.wire);
        if made.resets {
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            let _ = stream.shutdown(Shutdown::Write);
        }
        false
    })
}

fn ask(address: SocketAddr, number: u64, is_old: bool) -> Answer {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    let request = post_with(&format!("x-number: {number}\r\n"), BODY);
    let request = if is_old { request.replacen("HTTP/1.1", "HTTP/1.0", 1) } else { request };
    let mut client = Client(stream);
    client.send(request.as_bytes());
    client.read().expect("an answer")
}

#[test]
fn a_thousand_cut_streams_are_a_thousand_broken_ones() {
    for (driver, force_epoll) in DRIVERS {
        let upstream = cutting_upstream();
        let forebay = Forebay::start(&config(&format!("http://{}", upstream.address), ""), force_epoll);
        let address = forebay.address;
        let (numbers, seen) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        let client = || {
            while let Some(number) = Some(numbers.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < STREAMS) {
                let made = made(number);
                let came = judge(&made, &ask(address, number, made.is_old));
                seen.lock().unwrap().push(came.map_err(|wrong| format!("{number}, cut at {}: {wrong}", made.cut)));
            }
        };
        thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(client))));
        let seen = seen.into_inner().unwrap();
        let wrong: Vec<_> = seen.iter().filter_map(|seen| seen.as_ref().err()).collect();
        assert!(wrong.is_empty(), "on {driver}: {wrong:#?}");
        let count = |wanted| seen.iter().filter(|seen| **seen == Ok(wanted)).count();
        let [refusals, events, no_ends] = [Seen::Refusal, Seen::Event, Seen::NoEnd].map(count);
        eprintln!(
            "{driver}: of {STREAMS} streams {refusals} refused, {events} told by an event, {no_ends} without end"
        );
        assert_eq!(refusals + events + no_ends, STREAMS as usize);
        assert!(refusals > 50 && events > 50 && no_ends > 50, "the cuts have lost their reach");
    }
}

/// What the judge must not let pass, it does not.
#[test]
fn a_stream_that_looks_whole_is_noticed() {
    let made = Made { events: event("message_start", ""), wire: Vec::new(), is_old: false, cut: 0, resets: false };
    let answer = |body: &str, complete| Answer { head: "HTTP/1.1 200 OK\r\n\r\n".into(), body: body.into(), complete };
    assert!(judge(&made, &answer(&made.events, true)).is_err(), "whole");
    assert!(judge(&made, &answer("", true)).is_err(), "nothing, and whole");
    assert!(judge(&made, &answer("event: x\n\n", false)).is_err(), "other bytes");
    assert!(judge(&made, &answer("event: mess", false)).is_ok());
    let told = "event: error\ndata: forebay: the upstream main broke its answer off";
    assert!(judge(&made, &answer(&format!("{}{told}", made.events), true)).is_ok());
    assert!(judge(&made, &answer(&format!("{}{told}", &made.events[..9]), true)).is_err(), "inside an event");
}
