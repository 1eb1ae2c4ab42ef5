//! Many streams at once. Each event carries its number and its time of sending, so that its delay, and whether one is
//! lost, doubled, out of order or changed, is seen for every one of them.

use super::{
    http::AnswerReader,
    load::{Fleet, Measured, Target, Window, histogram},
    provider::StreamOrder,
    reactor::{self, Reactor, Ready},
    shapes::{self, Delta, STREAM_BEGIN, STREAM_END, wall_ns},
};
use hdrhistogram::Histogram;
use memchr::memmem;
use std::{
    io,
    net::TcpStream,
    time::{Duration, Instant},
};

/// How long streams may still take to end after the window.
const GRACE: Duration = Duration::from_secs(10);
/// An event that is not complete may hold this much.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// What to do.
pub struct Plan {
    /// Streams at once.
    pub streams: usize,
    /// The time between two events of one.
    pub every: Duration,
    /// The size of an event.
    pub bytes: usize,
    /// Size of the request's body.
    pub body_bytes: usize,
}

struct Client {
    stream: TcpStream,
    reader: AnswerReader,
    check: Check,
    started: Option<Instant>,
    over: bool,
}

/// What one stream has shown so far.
struct Check {
    held: Vec<u8>,
    /// Events that stand around the deltas, as many as have come.
    frame: usize,
    number: u64,
}

struct Run {
    reactor: Reactor,
    clients: Vec<Client>,
    delta: Delta,
    events: u64,
    window: Window,
    delay: Histogram<u64>,
    first: Histogram<u64>,
    seen: u64,
    over: usize,
    faults: Vec<String>,
    fresh: Vec<u64>,
}

/// Runs the plan.
///
/// # Errors
/// When connections cannot be had, or the target is so broken that nothing is measured.
pub fn run(target: &Target, plan: &Plan) -> io::Result<Measured> {
    let reactor = Reactor::new()?;
    let mut clients = Vec::new();
    for stream in Fleet::connect(target.to, plan.streams)? {
        reactor.add(&stream, clients.len() as u64)?;
        let check = Check { held: Vec::new(), frame: 0, number: 0 };
        clients.push(Client { stream, reader: AnswerReader::default(), check, started: None, over: false });
    }
    let window = Window::new(target);
    // Streams begin during the warm-up, and go on a little longer than the window.
    let lasting = window.whole() + Duration::from_millis(200);
    let events = (lasting.as_nanos() / plan.every.as_nanos().max(1)) as u64;
    let mut run = Run {
        reactor,
        clients,
        delta: Delta::new(plan.bytes),
        events,
        window,
        delay: histogram()?,
        first: histogram()?,
        seen: 0,
        over: 0,
        faults: Vec::new(),
        fresh: Vec::new(),
    };
    run.drive(plan, &target.key)?;
    run.check_all_ended();
    let Run { window, delay, first, seen, faults, .. } = run;
    let mut measured = window.measured(seen, faults);
    measured.delay = Some(delay);
    measured.first = Some(first);
    Ok(measured)
}

impl Run {
    fn drive(&mut self, plan: &Plan, key: &str) -> io::Result<()> {
        let body = shapes::request_body(plan.body_bytes);
        let (count, mut started) = (self.clients.len(), 0_usize);
        // Evenly over half the warm-up, so that the starts are over when the window opens; each stream then keeps a
        // phase of its own, for the gap between two starts is no multiple of the gap between two events.
        let gap = self.window.warm_up() / 2 / count.max(1) as u32;
        let until = self.window.began + self.window.whole() + GRACE;
        let mut ready = Vec::new();
        while self.over < count && Instant::now() < until {
            let next_start = self.window.began + gap * started as u32;
            let next = self.window.next().min(until);
            self.reactor.wait(if started < count { next.min(next_start) } else { next }, &mut ready)?;
            for one in &ready {
                self.turn(*one)?;
            }
            let now = Instant::now();
            while started < count && self.window.began + gap * started as u32 <= now {
                let phase = plan.every.mul_f64((started as f64 * 0.618_033_988_749_895).fract());
                let order = StreamOrder { events: self.events, every: plan.every, first: phase, bytes: plan.bytes };
                self.start(started, &shapes::request(key, Some(&order.render()), &body))?;
                started += 1;
            }
            self.window.look(now);
        }
        self.window.look(Instant::now());
        Ok(())
    }

    fn start(&mut self, key: usize, request: &[u8]) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        client.started = Some(Instant::now());
        // The request is small and the connection idle: it fits.
        if reactor::write(&client.stream, request)? < request.len() {
            return Err(io::Error::other("the socket does not take a whole request; use a smaller body"));
        }
        Ok(())
    }

    fn turn(&mut self, ready: Ready) -> io::Result<()> {
        let key = ready.key as usize;
        let Some(client) = self.clients.get_mut(key).filter(|client| !client.over) else { return Ok(()) };
        let mut buffer = [0; 16 * 1024];
        let (check, delta, fresh) = (&mut client.check, &self.delta, &mut self.fresh);
        let mut wrong = None;
        let fault = match reactor::read(&client.stream, &mut buffer) {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => Some("a stream was closed before its end".to_owned()),
            Err(error) => Some(error.to_string()),
            Ok(Some(count)) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                let fed = client.reader.feed(bytes, |payload| {
                    wrong = wrong.take().or_else(|| check.take(payload, delta, fresh));
                });
                match fed {
                    Ok(true) => {
                        client.over = true;
                        self.over += 1;
                        let status = client.reader.status;
                        wrong.or_else(|| (status != 200).then(|| format!("status {status}")))
                    }
                    Ok(false) => wrong,
                    Err(fault) => Some(fault.to_string()),
                }
            }
        };
        self.book(key, fault)
    }

    /// Counts the events that the last read has brought.
    fn book(&mut self, key: usize, fault: Option<String>) -> io::Result<()> {
        let (now, at) = (Instant::now(), wall_ns());
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        if client.check.frame > 0
            && let Some(started) = client.started.take()
        {
            self.first.saturating_record((now - started).as_nanos() as u64);
        }
        if self.window.is_open() {
            self.seen += self.fresh.len() as u64;
            for sent in &self.fresh {
                self.delay.saturating_record(at.saturating_sub(*sent));
            }
        }
        self.fresh.clear();
        let Some(fault) = fault else { return Ok(()) };
        self.faults.push(fault);
        if !client.over {
            client.over = true;
            self.over += 1;
        }
        if self.faults.len() > Fleet::FAULTS_MAX {
            return Err(io::Error::other(format!("too many faults, the last one: {:?}", self.faults.last())));
        }
        Ok(())
    }

    fn check_all_ended(&mut self) {
        let whole = STREAM_BEGIN.len() + STREAM_END.len();
        for client in &self.clients {
            if !client.over {
                self.faults.push("a stream did not end in time".to_owned());
            } else if client.check.frame != whole || client.check.number != self.events || !client.check.held.is_empty()
            {
                let (number, events) = (client.check.number, self.events);
                self.faults.push(format!("a stream ended after {number} of {events} events"));
            }
        }
    }
}

impl Check {
    /// Takes payload in; puts the times of whole deltas into `fresh`. What is wrong, if anything is.
    fn take(&mut self, payload: &[u8], delta: &Delta, fresh: &mut Vec<u64>) -> Option<String> {
        if self.held.len() > HELD_BYTES_MAX {
            return Some("an event without an end".to_owned());
        }
        if self.held.is_empty() {
            let (left, wrong) = self.events(payload, delta, fresh);
            self.held.extend_from_slice(left);
            return wrong;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(payload);
        let (left, wrong) = self.events(&held, delta, fresh);
        self.held.extend_from_slice(left);
        wrong
    }

    fn events<'a>(&mut self, mut bytes: &'a [u8], delta: &Delta, fresh: &mut Vec<u64>) -> (&'a [u8], Option<String>) {
        while let Some(end) = memmem::find(bytes, b"\n\n") {
            let (event, rest) = bytes.split_at(end + 2);
            bytes = rest;
            if let Some(wrong) = self.event(event, delta, fresh) {
                return (bytes, Some(wrong));
            }
        }
        (bytes, None)
    }

    fn event(&mut self, event: &[u8], delta: &Delta, fresh: &mut Vec<u64>) -> Option<String> {
        if let Some((number, at)) = delta.read(event) {
            let wanted = self.number + 1;
            self.number = number;
            fresh.push(at);
            return match number {
                _ if self.frame != STREAM_BEGIN.len() => Some("a delta outside its block".to_owned()),
                _ if number == wanted => None,
                _ if number > wanted => Some(format!("events {wanted} to {} were lost", number - 1)),
                _ => Some(format!("event {number} came again, or out of order")),
            };
        }
        let frame = STREAM_BEGIN.iter().chain(&STREAM_END).nth(self.frame);
        self.frame += 1;
        (frame.is_none_or(|wanted| wanted.as_bytes() != event)).then(|| "an event that was not sent".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(events: &[Vec<u8>], piece: usize) -> (Check, Vec<u64>, Option<String>) {
        let (mut check, mut fresh) = (Check { held: Vec::new(), frame: 0, number: 0 }, Vec::new());
        let mut wrong = None;
        for payload in events.concat().chunks(piece) {
            wrong = wrong.or(check.take(payload, &Delta::new(190), &mut fresh));
        }
        (check, fresh, wrong)
    }

    fn stream(numbers: &[u64]) -> Vec<Vec<u8>> {
        let mut delta = Delta::new(190);
        let mut events: Vec<_> = STREAM_BEGIN.iter().map(|event| event.as_bytes().to_vec()).collect();
        events.extend(numbers.iter().map(|number| delta.stamp(*number, 1000 + number).to_vec()));
        events.extend(STREAM_END.iter().map(|event| event.as_bytes().to_vec()));
        events
    }

    #[test]
    fn a_whole_stream_is_right_however_it_is_cut() {
        for piece in [1, 7, 190, 191, 5000] {
            let (check, fresh, wrong) = check(&stream(&[1, 2, 3]), piece);
            assert_eq!((wrong, fresh), (None, vec![1001, 1002, 1003]));
            assert_eq!((check.frame, check.number, check.held.len()), (5, 3, 0));
        }
    }

    #[test]
    fn loss_order_doubling_and_change_are_seen() {
        for (numbers, what) in [(&[1, 3][..], "lost"), (&[1, 1], "again"), (&[2, 1], "lost"), (&[1, 2, 1], "again")] {
            let (_, _, wrong) = check(&stream(numbers), 5000);
            assert!(wrong.is_some_and(|wrong| wrong.contains(what)), "{numbers:?}");
        }
        let mut changed = stream(&[1]);
        changed[2][180] = b'?';
        assert!(check(&changed, 5000).2.is_some());
        let mut early = stream(&[1]);
        early.swap(1, 2);
        assert!(check(&early, 5000).2.is_some());
    }
}
