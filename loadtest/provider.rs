//! The provider of a load test: answers at once, or streams events at their exact times, on one thread.
//!
//! Not a simulation of a provider: it knows no models, no limits and no failures, and costs a few microseconds per
//! request. It checks the CRC of every request body, so that a proxy that garbles one is found.

use super::{
    http::{HeadReader, field, number},
    reactor::{self, Reactor, Ready},
    shapes::{ANSWER, ANSWER_FIELDS, CRC_FIELD, Delta, ORDER_FIELD, STREAM_BEGIN, STREAM_END, wall_ns},
};
use hdrhistogram::Histogram;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

const LISTENER: u64 = u64::MAX;
/// Connections at once; more are closed.
const PEERS_MAX: usize = 20_000;
/// What may wait for a client that does not read.
const PENDING_BYTES_MAX: usize = 1 << 20;
/// Beyond it no more events are made: a client that does not read gets no more than it takes.
const PENDING_BYTES_FEW: usize = 64 * 1024;
/// Events of one stream.
const EVENTS_MAX: u64 = 10_000_000;
/// How long a stream waits whose reader does not read.
const RETRY: Duration = Duration::from_millis(50);
/// Nothing waits longer than this without a look around.
const TURN_MAX: Duration = Duration::from_secs(1);

/// What the generator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOrder {
    /// How many deltas.
    pub events: u64,
    /// The time between two of them.
    pub every: Duration,
    /// The time to the first.
    pub first: Duration,
    /// The size of each.
    pub bytes: usize,
}

impl StreamOrder {
    /// As the field's value.
    pub fn render(&self) -> String {
        let (every, first) = (self.every.as_micros(), self.first.as_micros());
        format!("events={} every_us={every} first_us={first} bytes={}", self.events, self.bytes)
    }

    fn parse(text: &str) -> Option<StreamOrder> {
        let mut numbers = text.split(' ').map(|part| part.split_once('=')?.1.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (events, every, first, bytes) = (next()?, next()?, next()?, next()?);
        Some(StreamOrder {
            events: events.min(EVENTS_MAX),
            every: Duration::from_micros(every),
            first: Duration::from_micros(first),
            bytes: (bytes as usize).min(16 * 1024),
        })
    }
}

/// A request, as far as its head says.
#[derive(Default)]
struct Request {
    left: u64,
    crc_wanted: Option<u32>,
    order: Option<StreamOrder>,
    asks_for_stats: bool,
}

impl Request {
    fn of(head: &[u8]) -> Request {
        Request {
            left: number(head, "content-length").unwrap_or_default(),
            crc_wanted: field(head, CRC_FIELD).and_then(|crc| u32::from_str_radix(crc, 16).ok()),
            order: field(head, ORDER_FIELD).and_then(StreamOrder::parse),
            asks_for_stats: head.starts_with(b"GET /load/stats "),
        }
    }
}

struct Streaming {
    number: u64,
    order: StreamOrder,
    began: Instant,
    delta: Delta,
}

struct Peer {
    stream: TcpStream,
    head: HeadReader,
    request: Option<Request>,
    crc: crc32fast::Hasher,
    streaming: Option<Streaming>,
    pending: Vec<u8>,
    /// Which connection on this key it is: a timer of an earlier one is void.
    birth: u64,
}

/// What has happened since the last look.
struct Stats {
    requests: u64,
    corrupt: u64,
    events: u64,
    stalled: u64,
    late_us: Histogram<u64>,
}

impl Stats {
    fn new() -> Option<Stats> {
        let late_us = Histogram::new_with_bounds(1, 60_000_000, 3).ok()?;
        Some(Stats { requests: 0, corrupt: 0, events: 0, stalled: 0, late_us })
    }

    /// Renders them and begins anew.
    fn take(&mut self) -> String {
        let late = |quantile| self.late_us.value_at_quantile(quantile);
        let text = format!(
            r#"{{"requests":{},"corrupt":{},"events":{},"stalled":{},"late_us_p50":{},"late_us_p99":{}}}"#,
            self.requests,
            self.corrupt,
            self.events,
            self.stalled,
            late(0.5),
            late(0.99)
        );
        (self.requests, self.corrupt, self.events, self.stalled) = (0, 0, 0, 0);
        self.late_us.reset();
        text
    }
}

/// Serves `listener` until the process ends.
///
/// # Errors
/// When the event loop fails.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    let mut provider = Provider::new(listener)?;
    let mut ready = Vec::new();
    loop {
        let now = Instant::now();
        let due = provider.timers.peek().map_or(now + TURN_MAX, |Reverse((due, ..))| *due);
        provider.reactor.wait(due.min(now + TURN_MAX), &mut ready)?;
        for one in &ready {
            provider.turn(*one);
        }
        provider.fire();
    }
}

struct Provider {
    reactor: Reactor,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    births: u64,
    buffer: Vec<u8>,
    whole: Vec<u8>,
    begin: Vec<u8>,
    end: Vec<u8>,
    stats: Stats,
}

impl Provider {
    fn new(listener: TcpListener) -> io::Result<Provider> {
        let reactor = Reactor::new()?;
        listener.set_nonblocking(true)?;
        reactor.add(&listener, LISTENER)?;
        let length = ANSWER.len();
        let whole = format!(
            "HTTP/1.1 200 OK\r\n{ANSWER_FIELDS}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{ANSWER}"
        );
        let mut begin = format!(
            "HTTP/1.1 200 OK\r\n{ANSWER_FIELDS}content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        begin.extend(STREAM_BEGIN.map(chunk));
        let mut end: String = STREAM_END.map(chunk).concat();
        end.push_str("0\r\n\r\n");
        Ok(Provider {
            reactor,
            listener,
            peers: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            births: 0,
            buffer: vec![0; 256 * 1024],
            whole: whole.into_bytes(),
            begin: begin.into_bytes(),
            end: end.into_bytes(),
            stats: Stats::new().ok_or_else(|| io::Error::other("a histogram of these bounds cannot be made"))?,
        })
    }

    fn turn(&mut self, ready: Ready) {
        if ready.key == LISTENER {
            while let Ok((stream, _)) = self.listener.accept() {
                let _ = self.welcome(stream);
            }
            return;
        }
        let key = ready.key as usize;
        let Some(mut peer) = self.peers.get_mut(key).and_then(Option::take) else { return };
        let stays = (!ready.writable || self.flush(key, &mut peer).is_ok())
            && (!ready.readable || self.read(key, &mut peer).is_some());
        self.put_back(key, peer, stays);
    }

    fn put_back(&mut self, key: usize, peer: Peer, stays: bool) {
        match self.peers.get_mut(key) {
            Some(place) if stays => *place = Some(peer),
            _ => self.free.push(key),
        }
    }

    fn welcome(&mut self, stream: TcpStream) -> io::Result<()> {
        if self.peers.len() - self.free.len() >= PEERS_MAX {
            return Ok(());
        }
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let key = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        self.reactor.add(&stream, key as u64)?;
        self.births += 1;
        let peer = Peer {
            stream,
            head: HeadReader::default(),
            request: None,
            crc: crc32fast::Hasher::new(),
            streaming: None,
            pending: Vec::new(),
            birth: self.births,
        };
        self.put_back(key, peer, true);
        Ok(())
    }

    /// Reads once; `None` when the connection is over.
    fn read(&mut self, key: usize, peer: &mut Peer) -> Option<()> {
        let Some(count) = reactor::read(&peer.stream, &mut self.buffer).ok()? else { return Some(()) };
        // An end, or a request before the answer to the last one is complete: the generator does neither while it counts.
        if count == 0 || peer.streaming.is_some() {
            return None;
        }
        let mut bytes = self.buffer.get(..count)?;
        if peer.request.is_none() {
            let mut request = None;
            let Some(rest) = peer.head.feed(bytes, |head| request = Some(Request::of(head))).ok()? else {
                return Some(());
            };
            peer.request = request;
            bytes = rest;
        }
        let request = peer.request.as_mut()?;
        peer.crc.update(bytes);
        request.left = request.left.checked_sub(bytes.len() as u64)?;
        if request.left > 0 {
            return Some(());
        }
        let request = peer.request.take()?;
        let crc = std::mem::replace(&mut peer.crc, crc32fast::Hasher::new()).finalize();
        self.answer(key, peer, &request, crc)
    }

    fn answer(&mut self, key: usize, peer: &mut Peer, request: &Request, crc: u32) -> Option<()> {
        if request.asks_for_stats {
            let stats = self.stats.take();
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{stats}", stats.len());
            return self.send(key, peer, text.as_bytes());
        }
        self.stats.requests += 1;
        if request.crc_wanted.is_some_and(|wanted| wanted != crc) {
            self.stats.corrupt += 1;
            return self.send(key, peer, b"HTTP/1.1 400 Corrupt\r\ncontent-length: 0\r\n\r\n");
        }
        let Some(order) = request.order else {
            let whole = std::mem::take(&mut self.whole);
            let sent = self.send(key, peer, &whole);
            self.whole = whole;
            return sent;
        };
        let began = Instant::now();
        peer.streaming = Some(Streaming { number: 0, order, began, delta: Delta::new(order.bytes) });
        self.timers.push(Reverse((began + order.first, key, peer.birth)));
        let begin = std::mem::take(&mut self.begin);
        let sent = self.send(key, peer, &begin);
        self.begin = begin;
        sent
    }

    /// Sends the events that are due.
    fn fire(&mut self) {
        while let Some(Reverse((due, key, birth))) = self.timers.peek().copied() {
            let now = Instant::now();
            if due > now {
                return;
            }
            self.timers.pop();
            let Some(mut peer) = self.peers.get_mut(key).and_then(Option::take) else { continue };
            let stays = peer.birth != birth || self.event(key, &mut peer, now - due).is_some();
            self.put_back(key, peer, stays);
        }
    }

    fn event(&mut self, key: usize, peer: &mut Peer, late: Duration) -> Option<()> {
        let Some(mut streaming) = peer.streaming.take() else { return Some(()) };
        if streaming.number == streaming.order.events {
            let end = std::mem::take(&mut self.end);
            let sent = self.send(key, peer, &end);
            self.end = end;
            return sent;
        }
        if peer.pending.len() > PENDING_BYTES_FEW {
            self.timers.push(Reverse((Instant::now() + RETRY, key, peer.birth)));
            peer.streaming = Some(streaming);
            return Some(());
        }
        streaming.number += 1;
        self.stats.events += 1;
        self.stats.late_us.saturating_record(late.as_micros() as u64);
        let mut out = std::mem::take(&mut self.buffer);
        let event = streaming.delta.stamp(streaming.number, wall_ns());
        let head = format!("{:x}\r\n", event.len());
        let mut length = 0;
        for part in [head.as_bytes(), event, b"\r\n"] {
            out.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        let sent = self.send(key, peer, out.get(..length)?);
        self.buffer = out;
        let order = streaming.order;
        let due = streaming.began + order.first + order.every * u32::try_from(streaming.number).ok()?;
        // A stream that has waited for its reader does not make up for it in one go.
        let due = Instant::now().checked_sub(RETRY).map_or(due, |least| due.max(least));
        self.timers.push(Reverse((due, key, peer.birth)));
        peer.streaming = Some(streaming);
        sent
    }

    /// Sends, or keeps what the socket does not take.
    fn send(&mut self, key: usize, peer: &mut Peer, bytes: &[u8]) -> Option<()> {
        if !peer.pending.is_empty() {
            peer.pending.extend_from_slice(bytes);
            return (peer.pending.len() <= PENDING_BYTES_MAX).then_some(());
        }
        let done = reactor::write(&peer.stream, bytes).ok()?;
        if done < bytes.len() {
            self.stats.stalled += 1;
            peer.pending.extend_from_slice(bytes.get(done..)?);
            self.reactor.want_room(&peer.stream, key as u64, true).ok()?;
        }
        Some(())
    }

    fn flush(&mut self, key: usize, peer: &mut Peer) -> io::Result<()> {
        let done = reactor::write(&peer.stream, &peer.pending)?;
        peer.pending.drain(..done);
        if peer.pending.is_empty() {
            self.reactor.want_room(&peer.stream, key as u64, false)?;
        }
        Ok(())
    }
}

fn chunk(payload: &str) -> String {
    format!("{:x}\r\n{payload}\r\n", payload.len())
}
