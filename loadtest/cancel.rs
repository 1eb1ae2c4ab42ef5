//! The client leaves: how long until the proxy has closed the connection to the provider? Client and provider are both
//! in this process, so that one clock sees the leaving and the closing.
//!
//! Many exchanges run at once, each on connections of its own, and leave at moments of their own; those that leave must
//! not disturb those that stay.

mod state;
#[cfg(test)]
mod tests;

pub use state::State;

use super::{
    http::{AnswerReader, HeadReader, field, number},
    limits,
    load::{Target, histogram},
    reactor::{self, Reactor, Ready},
    shapes::{self, Delta, ORDER_FIELD, STREAM_BEGIN, wall_ns},
};
use hdrhistogram::Histogram;
use socket2::SockRef;
use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// What to do.
pub struct Plan {
    /// The state.
    pub state: State,
    /// How many clients leave.
    pub count: usize,
    /// Where the proxy takes its provider to be.
    pub provider: SocketAddr,
}

/// What came out.
pub struct Left {
    /// From leaving to the close, in nanoseconds.
    pub delay: Histogram<u64>,
    /// Exchanges that did not go as they should.
    pub faults: Vec<String>,
    /// Connections that were still open when this was given up.
    pub open: usize,
    /// Requests that went up whole after their client had left, because the provider took them so fast.
    pub whole: usize,
}

const LISTENER: u64 = u64::MAX;
/// Keys of clients; below them are the provider's connections.
const CLIENTS: u64 = 1 << 32;
/// The time between two beginnings.
const GAP: Duration = Duration::from_millis(4);
const TURN: Duration = Duration::from_millis(1);
const EVENT_GAP: Duration = Duration::from_millis(5);
/// An exchange that has not come into its state by then, or is not closed by then, is a fault.
const STATE_MAX: Duration = Duration::from_secs(10);
/// See `STATE_MAX`.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// What the provider takes of a large request before it stops to read.
const HOLD_BYTES: u64 = 256 * 1024;
/// What is poured into a connection in one turn: whoever waits for another one must not wait for this.
const POUR_BYTES_MAX: usize = 128 * 1024;
const FAULTS_MAX: usize = 20;

struct Exchange {
    client: Option<TcpStream>,
    born: Instant,
    sent: usize,
    reader: AnswerReader,
    /// Of the answer's body.
    got: usize,
    peer: Option<usize>,
    in_state_since: Option<Instant>,
    left: Option<Instant>,
    over: bool,
}

/// A connection of the provider's.
struct Peer {
    stream: TcpStream,
    head: HeadReader,
    /// Of the request's body.
    left: u64,
    taken: u64,
    exchange: Option<usize>,
    paused: bool,
    /// What is to be sent, and how far it is sent; `pour` sends it over and over.
    out: Vec<u8>,
    out_at: usize,
    pour: bool,
    moved: Instant,
    next_event: Option<Instant>,
}

struct Run {
    reactor: Reactor,
    listener: TcpListener,
    state: State,
    request: Vec<u8>,
    order_at: usize,
    exchanges: Vec<Exchange>,
    peers: Vec<Option<Peer>>,
    delta: Delta,
    delay: Histogram<u64>,
    faults: Vec<String>,
    open: usize,
    whole: usize,
    buffer: Vec<u8>,
}

/// Runs the plan.
///
/// # Errors
/// When sockets cannot be had, or nothing goes as it should.
pub fn run(target: &Target, plan: &Plan) -> io::Result<Left> {
    limits::need_files(1024)?;
    let listener = TcpListener::bind(plan.provider)?;
    // Accepted sockets inherit it: a provider that does not read must soon be felt.
    SockRef::from(&listener).set_recv_buffer_size(512 * 1024)?;
    listener.set_nonblocking(true)?;
    let reactor = Reactor::new()?;
    reactor.add(&listener, LISTENER)?;
    let request = shapes::request(&target.key, Some(NO_NUMBER), &shapes::request_body(plan.state.body_bytes()));
    let order_at = memchr::memmem::find(&request, NO_NUMBER.as_bytes()).ok_or(io::ErrorKind::InvalidData)?;
    let mut run = Run {
        reactor,
        listener,
        state: plan.state,
        request,
        order_at,
        exchanges: Vec::new(),
        peers: Vec::new(),
        delta: Delta::new(190),
        delay: histogram()?,
        faults: Vec::new(),
        open: 0,
        whole: 0,
        buffer: vec![0; 256 * 1024],
    };
    run.drive(target.to, plan.count)?;
    Ok(Left { delay: run.delay, faults: run.faults, open: run.open, whole: run.whole })
}

/// Stands for an exchange's number in the template of a request.
const NO_NUMBER: &str = "exchange=00000000";

impl Run {
    fn drive(&mut self, to: SocketAddr, count: usize) -> io::Result<()> {
        let (mut ready, mut next_start) = (Vec::new(), Instant::now());
        loop {
            let now = Instant::now();
            let (first, busy) = self.busy();
            if self.exchanges.len() == count && busy == 0 {
                return Ok(());
            }
            if self.faults.len() > FAULTS_MAX {
                return Err(io::Error::other(format!("too many faults, the last one: {:?}", self.faults.last())));
            }
            if self.exchanges.len() < count && busy < self.state.crowd() && now >= next_start {
                self.start(to)?;
                next_start = now + GAP;
            }
            for number in first..self.exchanges.len() {
                self.look(number, now)?;
            }
            for key in 0..self.peers.len() {
                self.send(key, now);
            }
            self.reactor.wait(now + TURN, &mut ready)?;
            for one in ready.drain(..) {
                self.turn(one)?;
            }
        }
    }

    /// The first exchange that is not over, and how many are not.
    fn busy(&self) -> (usize, usize) {
        let first = self.exchanges.iter().position(|exchange| !exchange.over).unwrap_or(self.exchanges.len());
        (first, self.exchanges.iter().skip(first).filter(|exchange| !exchange.over).count())
    }

    fn start(&mut self, to: SocketAddr) -> io::Result<()> {
        let number = self.exchanges.len();
        let stalls = self.state == State::Stalled;
        let stream = limits::connect(to, number, stalls.then_some(16 * 1024))?;
        self.reactor.add(&stream, CLIENTS + number as u64)?;
        if stalls {
            self.reactor.pause(&stream, CLIENTS + number as u64, true)?;
        }
        self.exchanges.push(Exchange {
            client: Some(stream),
            born: Instant::now(),
            sent: 0,
            reader: AnswerReader::default(),
            got: 0,
            peer: None,
            in_state_since: None,
            left: None,
            over: false,
        });
        self.write_request(number)
    }

    fn write_request(&mut self, number: usize) -> io::Result<()> {
        let digits = format!("{number:08}");
        let from = self.order_at + NO_NUMBER.len() - digits.len();
        if let Some(place) = self.request.get_mut(from..from + digits.len()) {
            place.copy_from_slice(digits.as_bytes());
        }
        let until = if self.state == State::HalfSent { self.request.len() / 2 } else { self.request.len() };
        let Some(exchange) = self.exchanges.get_mut(number) else { return Ok(()) };
        let Some(client) = &exchange.client else { return Ok(()) };
        if exchange.sent == until {
            return Ok(());
        }
        match reactor::write(client, self.request.get(exchange.sent..until).unwrap_or_default()) {
            Ok(count) => exchange.sent += count,
            Err(error) => self.faults.push(format!("sending a request: {error}")),
        }
        if self.state != State::Stalled {
            self.reactor.want_room(client, CLIENTS + number as u64, exchange.sent < until)?;
        }
        Ok(())
    }

    /// Looks whether an exchange is where it should be, and lets its client leave.
    fn look(&mut self, number: usize, now: Instant) -> io::Result<()> {
        let (state, whole) = (self.state, self.request.len());
        let Some(exchange) = self.exchanges.get_mut(number).filter(|exchange| !exchange.over) else { return Ok(()) };
        let peer = exchange.peer.and_then(|key| self.peers.get(key)?.as_ref());
        if let Some(left) = exchange.left {
            if now - left > CLOSE_MAX {
                self.open += 1;
                self.end(number, Some("was still open 5 s after its client had left".into()));
            }
            return Ok(());
        }
        let is_in_state = match (state, peer) {
            (State::HalfSent, None) => exchange.sent == whole / 2,
            (State::FirstByte, Some(peer)) => peer.left == 0,
            (State::MidStream, Some(_)) => exchange.got > STREAM_BEGIN.concat().len() + 400,
            (State::Silent, Some(_)) => exchange.got >= STREAM_BEGIN.concat().len(),
            (State::Stalled, Some(peer)) => peer.pour && now - peer.moved > Duration::from_millis(50),
            (State::Uploading, Some(peer)) => peer.paused,
            _ => false,
        };
        if !is_in_state {
            exchange.in_state_since = None;
            if now - exchange.born > STATE_MAX {
                let (sent, got) = (exchange.sent, exchange.got);
                let fault = format!("did not come into its state: {sent} bytes sent, {got} received");
                self.end(number, Some(fault));
            }
            return Ok(());
        }
        let since = *exchange.in_state_since.get_or_insert(now);
        // Each at a moment of its own.
        if now < since + state.rest() + Duration::from_millis(number as u64 * 7 % 11) {
            return Ok(());
        }
        exchange.left = Some(Instant::now());
        if state == State::HalfSent {
            // It stays to see its own connection's end.
            return exchange.client.as_ref().map_or(Ok(()), |client| client.shutdown(Shutdown::Write));
        }
        exchange.client = None;
        if state == State::Uploading
            && let Some((key, peer)) = exchange.peer.and_then(|key| Some((key, self.peers.get_mut(key)?.as_mut()?)))
        {
            // The end is behind what the kernel has already taken: the time to read that counts too.
            peer.paused = false;
            self.reactor.pause(&peer.stream, key as u64, false)?;
        }
        Ok(())
    }

    fn end(&mut self, number: usize, fault: Option<String>) {
        if let Some(exchange) = self.exchanges.get_mut(number) {
            exchange.over = true;
            exchange.client = None;
            if let Some(place) = exchange.peer.and_then(|key| self.peers.get_mut(key)) {
                *place = None;
            }
        }
        self.faults.extend(fault.map(|fault| format!("exchange {number} {fault}")));
    }

    fn turn(&mut self, ready: Ready) -> io::Result<()> {
        if ready.key == LISTENER {
            while let Ok((stream, _)) = self.listener.accept() {
                self.welcome(stream)?;
            }
            return Ok(());
        }
        if ready.key < CLIENTS {
            return if ready.readable { self.read_peer(ready.key as usize) } else { Ok(()) };
        }
        let number = (ready.key - CLIENTS) as usize;
        if ready.writable {
            self.write_request(number)?;
        }
        if ready.readable {
            self.read_client(number);
        }
        Ok(())
    }

    fn read_client(&mut self, number: usize) {
        let Some(exchange) = self.exchanges.get_mut(number).filter(|exchange| !exchange.over) else { return };
        let Some(client) = &exchange.client else { return };
        let fault = match (reactor::read(client, &mut self.buffer), exchange.left) {
            // Only a client with half a request stays after it has left: to see the end. It may be told why first.
            (Ok(None), _) | (Ok(Some(1..)), Some(_)) => return,
            (Ok(Some(0)) | Err(_), Some(left)) => {
                self.delay.saturating_record(left.elapsed().as_nanos() as u64);
                None
            }
            (Ok(Some(0)) | Err(_), None) => Some("was closed before its client left".into()),
            (Ok(Some(count)), None) => {
                let got = &mut exchange.got;
                let bytes = self.buffer.get(..count).unwrap_or_default();
                match exchange.reader.feed(bytes, |payload| *got += payload.len()) {
                    Ok(false) if exchange.reader.status == 200 => return,
                    Ok(_) => Some(format!("was answered with {} before its client left", exchange.reader.status)),
                    Err(fault) => Some(fault.to_string()),
                }
            }
        };
        self.end(number, fault);
    }

    fn welcome(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let key = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
        self.reactor.add(&stream, key as u64)?;
        let peer = Peer {
            stream,
            head: HeadReader::default(),
            left: 0,
            taken: 0,
            exchange: None,
            paused: false,
            out: Vec::new(),
            out_at: 0,
            pour: false,
            moved: Instant::now(),
            next_event: None,
        };
        match self.peers.get_mut(key) {
            Some(place) => *place = Some(peer),
            None => self.peers.push(Some(peer)),
        }
        Ok(())
    }

    fn read_peer(&mut self, key: usize) -> io::Result<()> {
        let Some(Some(peer)) = self.peers.get_mut(key) else { return Ok(()) };
        let count = match reactor::read(&peer.stream, &mut self.buffer) {
            Ok(None) => return Ok(()),
            Ok(Some(count @ 1..)) => count,
            Ok(Some(0)) | Err(_) => {
                self.closed(key);
                return Ok(());
            }
        };
        let mut bytes = self.buffer.get(..count).unwrap_or_default();
        if peer.exchange.is_none() {
            let mut seen = None;
            let fed = peer.head.feed(bytes, |head| seen = Some((order(head), number(head, "content-length"))));
            let Some(rest) = fed.map_err(io::Error::other)? else { return Ok(()) };
            bytes = rest;
            match seen {
                Some((Some(number), Some(length))) => {
                    (peer.exchange, peer.left) = (Some(number), length);
                    if let Some(exchange) = self.exchanges.get_mut(number) {
                        exchange.peer = Some(key);
                    }
                }
                // A question of the proxy's own, for its list of models.
                _ => peer.out = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
            }
        }
        let before = peer.left;
        peer.left = peer.left.saturating_sub(bytes.len() as u64);
        peer.taken += bytes.len() as u64;
        let left_by_client = peer.exchange.and_then(|number| self.exchanges.get(number)?.left);
        if self.state == State::Uploading && peer.taken > HOLD_BYTES && !peer.paused && left_by_client.is_none() {
            peer.paused = true;
            self.reactor.pause(&peer.stream, key as u64, true)?;
        }
        if peer.exchange.is_some() && peer.left == 0 && before > 0 {
            peer.answer(self.state);
        }
        Ok(())
    }

    /// The proxy has closed a connection to the provider.
    fn closed(&mut self, key: usize) {
        let Some(peer) = self.peers.get_mut(key).and_then(Option::take) else { return };
        let Some(number) = peer.exchange else { return };
        let Some(exchange) = self.exchanges.get(number).filter(|exchange| !exchange.over) else { return };
        let Some(left) = exchange.left else {
            return self.end(number, Some("lost its provider before its client left".into()));
        };
        self.delay.saturating_record(left.elapsed().as_nanos() as u64);
        self.whole += usize::from(self.state == State::Uploading && peer.left == 0);
        self.end(number, None);
    }

    /// Sends what is due on a connection of the provider's.
    fn send(&mut self, key: usize, now: Instant) {
        let Some(Some(peer)) = self.peers.get_mut(key) else { return };
        if let Some(due) = peer.next_event
            && due <= now
            && peer.out_at == peer.out.len()
        {
            peer.next_event = Some(due + EVENT_GAP);
            let event = self.delta.stamp(1, wall_ns());
            peer.out = [format!("{:x}\r\n", event.len()).as_bytes(), event, b"\r\n"].concat();
            peer.out_at = 0;
        }
        let mut left = POUR_BYTES_MAX;
        while peer.out_at < peer.out.len() && left > 0 {
            // That the connection is over is seen where it is read.
            let Ok(count @ 1..) = reactor::write(&peer.stream, peer.out.get(peer.out_at..).unwrap_or_default()) else {
                return;
            };
            peer.out_at += count;
            left = left.saturating_sub(count);
            peer.moved = now;
            if peer.pour && peer.out_at == peer.out.len() {
                let event = Delta::new(15_000).stamp(1, wall_ns()).to_vec();
                peer.out = [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat();
                peer.out_at = 0;
            }
        }
    }
}

impl Peer {
    /// The request is there.
    fn answer(&mut self, state: State) {
        if matches!(state, State::FirstByte | State::Uploading | State::HalfSent) {
            return;
        }
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
        let begin = STREAM_BEGIN.map(|event| format!("{:x}\r\n{event}\r\n", event.len())).concat();
        (self.out, self.out_at, self.moved) = ([head, &begin].concat().into_bytes(), 0, Instant::now());
        self.pour = state == State::Stalled;
        self.next_event = (state == State::MidStream).then(Instant::now);
    }
}

fn order(head: &[u8]) -> Option<usize> {
    field(head, ORDER_FIELD)?.strip_prefix("exchange=")?.parse().ok()
}
