//! What a connection costs in memory: the resident memory of the proxy with a few of them and with many, and the slope
//! in between, which knows nothing of what the program itself takes. The proxy should be fresh: memory that another run
//! has left is used again and not seen.

use super::{
    http::AnswerReader,
    limits,
    load::Target,
    process,
    provider::StreamOrder,
    reactor,
    shapes::{self, STREAM_BEGIN},
};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Nothing, after one exchange each.
    Idle,
    /// They carry a stream that has begun and says nothing more.
    IdleStream,
    /// They carry a stream that pours, and do not read it.
    Stalled,
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Idle => "an idle connection",
            Kind::IdleStream => "an idle stream",
            Kind::Stalled => "a stalled stream",
        }
    }
}

/// What to do.
pub struct Plan {
    /// What the connections do.
    pub kind: Kind,
    /// How many at the first look, and at the second.
    pub counts: [usize; 2],
}

/// What came out.
pub struct Sizes {
    /// Resident memory at the start and at each look, in KiB.
    pub rss_kb: [u64; 3],
    /// KiB that a connection adds.
    pub each_kb: f64,
}

/// An exchange takes no longer, or something is broken.
const PATIENCE: Duration = Duration::from_secs(10);
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// The request's body: as a conversation has it, so that reads have been large once.
const BODY_BYTES: usize = 100_000;

/// Runs the plan.
///
/// # Errors
/// When there are not enough descriptors, or an exchange goes wrong.
pub fn run(target: &Target, plan: &Plan) -> io::Result<Sizes> {
    let [few, many] = plan.counts;
    limits::need_files(many as u64 + 64)?;
    let order = match plan.kind {
        Kind::Idle => None,
        Kind::IdleStream => {
            let hour = Duration::from_secs(3600);
            Some(StreamOrder { events: 1, every: hour, first: hour, bytes: 190 })
        }
        Kind::Stalled => {
            let gap = Duration::from_millis(5);
            Some(StreamOrder { events: 1_000_000, every: gap, first: gap, bytes: 16_000 })
        }
    };
    let order = order.map(|order| order.render());
    let request = shapes::request(&target.key, order.as_deref(), &shapes::request_body(BODY_BYTES));
    // What the program needs for one exchange at all is no connection's.
    let first = open(target, plan.kind, &request, 0)?;
    drop(first);
    process::settle(&target.pids, SETTLE_MAX);
    let (mut held, mut rss_kb) = (Vec::new(), [process::rss_kb(&target.pids), 0, 0]);
    for (place, count) in [(1, few), (2, many)] {
        while held.len() < count {
            held.push(open(target, plan.kind, &request, held.len())?);
        }
        process::settle(&target.pids, SETTLE_MAX);
        if let Some(rss_kb) = rss_kb.get_mut(place) {
            *rss_kb = process::rss_kb(&target.pids);
        }
    }
    for stream in held {
        // A proxy may keep a silent stream alive with a word of its own.
        if plan.kind != Kind::Stalled && !matches!(reactor::read(&stream, &mut [0; 1024]), Ok(None | Some(1..))) {
            return Err(io::Error::other("a connection was closed while it was held"));
        }
        limits::reset(stream);
    }
    let each_kb = rss_kb[2].saturating_sub(rss_kb[1]) as f64 / (many - few).max(1) as f64;
    Ok(Sizes { rss_kb, each_kb })
}

/// A connection in its state.
fn open(target: &Target, kind: Kind, request: &[u8], number: usize) -> io::Result<TcpStream> {
    let mut stream = limits::connect(target.to, number, (kind == Kind::Stalled).then_some(16 * 1024))?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let begin = STREAM_BEGIN.concat().len();
    let (mut reader, mut got, mut buffer) = (AnswerReader::default(), 0, [0; 4096]);
    loop {
        let count = stream.read(&mut buffer)?;
        let bytes = buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let done = reader.feed(bytes, |payload| got += payload.len()).map_err(io::Error::other)?;
        if reader.status != 200 && reader.status != 0 {
            return Err(io::Error::other(format!("status {}", reader.status)));
        }
        if done || kind != Kind::Idle && got >= begin {
            stream.set_nonblocking(true)?;
            return Ok(stream);
        }
    }
}
