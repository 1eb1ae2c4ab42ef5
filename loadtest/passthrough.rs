//! Whole exchanges: a request with a body, a small whole answer. Closed loop (each connection asks again as soon as it
//! is answered) or open loop (requests are due at times fixed beforehand, and their delay counts from then, however
//! late they could be sent).

use super::{
    http::AnswerReader,
    load::{Fleet, Measured, Target, Window, histogram},
    reactor::{self, Reactor, Ready},
    shapes::{self, ANSWER},
};
use hdrhistogram::Histogram;
use std::{
    collections::VecDeque,
    io,
    net::TcpStream,
    time::{Duration, Instant},
};

/// Requests that may be due and not sent: beyond it the target is far too slow for the rate.
const BACKLOG_MAX: usize = 100_000;

/// What to do.
pub struct Plan {
    /// Size of the request's body.
    pub body_bytes: usize,
    /// Connections, all opened beforehand.
    pub connections: usize,
    /// Requests a second; `None` for a closed loop.
    pub rate: Option<f64>,
    /// A connection may be closed between two requests, as after a reload; it is opened again, and that is counted.
    pub may_reopen: bool,
}

struct Client {
    stream: TcpStream,
    reader: AnswerReader,
    /// Bytes of the request that have been sent.
    sent: usize,
    /// Bytes of the answer's body, and whether all were as they should be.
    got: usize,
    same: bool,
    /// When the request that is under way was due; `None` between requests.
    due: Option<Instant>,
}

struct Run<'a> {
    reactor: Reactor,
    clients: Vec<Client>,
    idle: Vec<usize>,
    backlog: VecDeque<Instant>,
    request: &'a [u8],
    closed: bool,
    window: Window,
    delay: Histogram<u64>,
    late: Histogram<u64>,
    done: u64,
    may_reopen: bool,
    reopened: usize,
    faults: Vec<String>,
}

/// Runs the plan.
///
/// # Errors
/// When connections cannot be had, or the target is so broken that nothing is measured.
pub fn run(target: &Target, plan: &Plan) -> io::Result<Measured> {
    let request = shapes::request(&target.key, None, &shapes::request_body(plan.body_bytes));
    let reactor = Reactor::new()?;
    let mut clients = Vec::new();
    for stream in Fleet::connect(target.to, plan.connections)? {
        reactor.add(&stream, clients.len() as u64)?;
        let reader = AnswerReader::default();
        clients.push(Client { stream, reader, sent: 0, got: 0, same: true, due: None });
    }
    let mut run = Run {
        reactor,
        idle: (0..clients.len()).collect(),
        clients,
        backlog: VecDeque::new(),
        request: &request,
        closed: plan.rate.is_none(),
        window: Window::new(target),
        delay: histogram()?,
        late: histogram()?,
        done: 0,
        may_reopen: plan.may_reopen,
        reopened: 0,
        faults: Vec::new(),
    };
    run.drive(plan)?;
    let Run { window, delay, late, done, reopened, faults, .. } = run;
    let mut measured = window.measured(done, faults);
    measured.reopened = reopened;
    measured.delay = Some(delay);
    measured.late = plan.rate.map(|_| late);
    Ok(measured)
}

impl Run<'_> {
    fn drive(&mut self, plan: &Plan) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut arrivals = plan.rate.map(|rate| Arrivals::new(rate, self.window.began));
        if arrivals.is_none() {
            self.backlog.extend(std::iter::repeat_n(self.window.began, self.clients.len()));
            self.start_due(self.window.began)?;
        }
        while !self.window.is_over() {
            let next = arrivals.as_ref().map_or(self.window.next(), |arrivals| arrivals.due.min(self.window.next()));
            self.reactor.wait(next, &mut ready)?;
            for one in &ready {
                self.turn(*one)?;
            }
            let now = Instant::now();
            if let Some(arrivals) = &mut arrivals {
                while arrivals.due <= now {
                    self.backlog.push_back(arrivals.due);
                    arrivals.advance();
                }
                self.start_due(now)?;
            }
            if self.backlog.len() > BACKLOG_MAX {
                return Err(io::Error::other("the target is too slow for this rate"));
            }
            self.window.look(now);
        }
        Ok(())
    }

    /// Sends what is due, as far as connections are free.
    fn start_due(&mut self, now: Instant) -> io::Result<()> {
        while let Some(due) = self.backlog.front().copied() {
            let Some(key) = self.idle.pop() else { return Ok(()) };
            self.backlog.pop_front();
            if self.window.is_open() {
                self.late.saturating_record((now - due).as_nanos() as u64);
            }
            self.start(key, due)?;
        }
        Ok(())
    }

    fn start(&mut self, key: usize, due: Instant) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        client.due = Some(due);
        (client.got, client.same) = (0, true);
        client.sent = match reactor::write(&client.stream, self.request) {
            // Whoever may close between two requests may do so while the next one is on its way.
            Err(error) if self.may_reopen => return self.finish(key, Some(error.to_string())),
            written => written?,
        };
        if client.sent < self.request.len() {
            self.reactor.want_room(&client.stream, key as u64, true)?;
        }
        Ok(())
    }

    fn turn(&mut self, ready: Ready) -> io::Result<()> {
        let key = ready.key as usize;
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        if ready.writable {
            client.sent += reactor::write(&client.stream, self.request.get(client.sent..).unwrap_or_default())?;
            if client.sent == self.request.len() {
                self.reactor.want_room(&client.stream, ready.key, false)?;
            }
        }
        if !ready.readable {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        let fault = match reactor::read(&client.stream, &mut buffer) {
            Ok(None) => return Ok(()),
            Ok(Some(0)) | Err(_) if self.may_reopen && client.due.is_none() => return self.reopen(key),
            Ok(Some(0)) => Some("the connection was closed".to_owned()),
            Err(error) => Some(error.to_string()),
            Ok(Some(count)) => match client.take(buffer.get(..count).unwrap_or_default()) {
                Ok(false) => return Ok(()),
                Ok(true) => client.verdict(),
                Err(fault) => Some(fault.to_string()),
            },
        };
        self.finish(key, fault)
    }

    fn finish(&mut self, key: usize, fault: Option<String>) -> io::Result<()> {
        let now = Instant::now();
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        let due = client.due.take();
        if let Some(fault) = fault {
            self.faults.push(fault);
            if self.faults.len() > Fleet::FAULTS_MAX {
                return Err(io::Error::other(format!("too many faults, the last one: {:?}", self.faults.last())));
            }
            self.reopen(key)?;
        } else if let Some(due) = due
            && self.window.is_open()
        {
            self.done += 1;
            self.delay.saturating_record((now - due).as_nanos() as u64);
        }
        if self.closed {
            return self.start(key, now);
        }
        self.idle.push(key);
        self.start_due(now)
    }

    fn reopen(&mut self, key: usize) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(key) else { return Ok(()) };
        let stream = Fleet::connect(self.window.to(), 1)?.pop().ok_or(io::ErrorKind::NotConnected)?;
        self.reactor.add(&stream, key as u64)?;
        (client.stream, client.reader) = (stream, AnswerReader::default());
        self.reopened += 1;
        Ok(())
    }
}

impl Client {
    fn take(&mut self, bytes: &[u8]) -> Result<bool, super::http::Fault> {
        let (got, same) = (&mut self.got, &mut self.same);
        self.reader.feed(bytes, |payload| {
            *same &= ANSWER.as_bytes().get(*got..*got + payload.len()) == Some(payload);
            *got += payload.len();
        })
    }

    /// What was wrong with an answer that is complete.
    fn verdict(&self) -> Option<String> {
        if self.reader.status != 200 {
            return Some(format!("status {}", self.reader.status));
        }
        if !self.same || self.got != ANSWER.len() {
            return Some("the answer's body is not the provider's".to_owned());
        }
        self.due.is_none().then(|| "an answer that nobody asked for".to_owned())
    }
}

/// The times at which requests are due: a Poisson process from a fixed seed, so that every target meets the same one.
struct Arrivals {
    mean_ns: f64,
    seed: u64,
    due: Instant,
}

impl Arrivals {
    fn new(rate: f64, began: Instant) -> Arrivals {
        Arrivals { mean_ns: 1e9 / rate, seed: 0x9e37_79b9_7f4a_7c15, due: began }
    }

    fn advance(&mut self) {
        // xorshift64: enough for gaps.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let uniform = ((self.seed >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        self.due += Duration::from_nanos((-uniform.ln() * self.mean_ns) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate() {
        let began = Instant::now();
        let mut arrivals = Arrivals::new(500.0, began);
        for _ in 0..50_000 {
            arrivals.advance();
        }
        let seconds = (arrivals.due - began).as_secs_f64();
        assert!((98.0..102.0).contains(&seconds), "{seconds}");
    }
}
