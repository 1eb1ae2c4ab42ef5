//! Configurations that come into force, and bad ones that must not, while streams run and requests go on. The streams
//! live through all of it; each event of each of them is checked.

use super::{
    http::{AnswerReader, field},
    limits,
    load::{Measured, Target},
    passthrough, process, shapes, streams,
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How the proxy is told.
#[derive(Clone, Debug)]
pub enum Word {
    /// `POST /reload` at this address, which says what came of it.
    Post(SocketAddr),
    /// SIGHUP to this process, which says nothing.
    Hangup(u32),
}

/// What to do.
pub struct Plan {
    /// Streams that live through it.
    pub streams: usize,
    /// Requests a second.
    pub rate: f64,
    /// How many reloads; every fifth is of a bad file.
    pub reloads: usize,
    /// The time between two.
    pub every: Duration,
    /// The file that the proxy reads, and what is put behind it: `{n}` is the reload's number.
    pub file: PathBuf,
    /// See `file`.
    pub good: String,
    /// What is put behind it to make it bad.
    pub bad: String,
    /// How the proxy is told.
    pub word: Word,
}

/// What came out.
pub struct Reloaded {
    /// What the streams saw.
    pub streams: Measured,
    /// What the requests saw.
    pub requests: Measured,
    /// Good ones that came into force, and bad ones that were refused.
    pub in_force: usize,
    /// See `in_force`.
    pub refused: usize,
    /// Reloads that did not do what they should have.
    pub faults: Vec<String>,
}

/// Streams and requests begin before the first reload, and end after the last.
const MARGIN: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(10);
const BAD_EVERY: usize = 5;

/// Runs the plan.
///
/// # Errors
/// When the file cannot be written, or the proxy no longer talks.
pub fn run(target: &Target, plan: &Plan) -> io::Result<Reloaded> {
    limits::need_files(plan.streams as u64 + 256)?;
    let lasting = plan.every * plan.reloads as u32;
    let target = Target { warm_up: MARGIN, window: lasting + MARGIN, ..target.clone() };
    // One of the two asks the provider for its count.
    let alone = Target { provider: None, ..target.clone() };
    let stream_plan =
        streams::Plan { streams: plan.streams, every: Duration::from_millis(100), bytes: 190, body_bytes: 4_000 };
    let request_plan =
        passthrough::Plan { body_bytes: 4_000, connections: 32, rate: Some(plan.rate), may_reopen: true };
    let broke = |_| io::Error::other("a thread broke off");
    let original = fs::read_to_string(&plan.file)?;
    let result = thread::scope(|scope| {
        let streams = scope.spawn(|| streams::run(&alone, &stream_plan));
        let requests = scope.spawn(|| passthrough::run(&target, &request_plan));
        thread::sleep(MARGIN + MARGIN / 2);
        let made = reload_all(&target, plan, &original);
        let (streams, requests) = (streams.join().map_err(broke)??, requests.join().map_err(broke)??);
        let (in_force, refused, faults) = made?;
        Ok(Reloaded { streams, requests, in_force, refused, faults })
    });
    put(&plan.file, &original)?;
    result
}

fn reload_all(target: &Target, plan: &Plan, original: &str) -> io::Result<(usize, usize, Vec<String>)> {
    let began = Instant::now();
    let (mut in_force, mut refused, mut faults) = (0, 0, Vec::new());
    let mut generation = None;
    for number in 0..plan.reloads {
        thread::sleep((began + plan.every * number as u32).saturating_duration_since(Instant::now()));
        let is_bad = number % BAD_EVERY == BAD_EVERY - 1;
        let behind = if is_bad { &plan.bad } else { &plan.good };
        put(&plan.file, &format!("{original}{}", behind.replace("{n}", &number.to_string())))?;
        match plan.word {
            Word::Hangup(pid) => process::hang_up(pid)?,
            Word::Post(admin) => match check(target, admin, is_bad, &mut generation) {
                Ok(()) if is_bad => refused += 1,
                Ok(()) => in_force += 1,
                Err(error) => faults.push(format!("reload {number}: {error}")),
            },
        }
    }
    Ok((in_force, refused, faults))
}

/// Asks for a reload, and looks at the generation by which the next request is served.
fn check(target: &Target, admin: SocketAddr, is_bad: bool, generation: &mut Option<u64>) -> io::Result<()> {
    let (head, body) = ask(admin, b"POST /reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")?;
    let wanted = if is_bad { b"HTTP/1.1 422 " } else { b"HTTP/1.1 200 " };
    if !head.starts_with(wanted) {
        let told = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default()).into_owned();
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(io::Error::other(format!("{} {told}", String::from_utf8_lossy(line))));
    }
    let request = shapes::request(&target.key, None, &shapes::request_body(4_000));
    let (head, _) = ask(target.to, &request)?;
    let seen: Option<u64> = field(&head, "x-forebay-generation").and_then(|text| text.parse().ok());
    let seen = seen.ok_or_else(|| io::Error::other("an answer without x-forebay-generation"))?;
    let before = generation.replace(seen);
    match before {
        Some(before) if is_bad && seen != before => Err(io::Error::other("a bad file made a new generation")),
        Some(before) if !is_bad && seen <= before => {
            Err(io::Error::other(format!("a request was served by generation {seen} after {before}")))
        }
        _ => Ok(()),
    }
}

/// One request on a connection of its own; head and body of the answer.
fn ask(to: SocketAddr, request: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let (mut reader, mut all, mut body, mut buffer) = (AnswerReader::default(), Vec::new(), Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer)?;
        let bytes = buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
        all.extend_from_slice(bytes);
        if reader.feed(bytes, |payload| body.extend_from_slice(payload)).map_err(io::Error::other)? {
            let end = memchr::memmem::find(&all, b"\r\n\r\n").map_or(all.len(), |at| at + 4);
            all.truncate(end);
            return Ok((all, body));
        }
    }
}

/// Puts a file in another's place, as editors do.
pub fn put(file: &Path, text: &str) -> io::Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, file)
}
