//! Reading a request's body: framing off, gzip off where the body is read, the routing fields found on the way. The
//! bytes stay in the segments that the kernel filled, for sending and for one replay.

use super::{
    client::Client,
    gate::too_large,
    shard::Claim,
    watch::{Watched, watched, yield_now},
};
use crate::{
    base::{
        Failure, Kind, Mono,
        bounds::{READ_BYTES_MAX, READ_BYTES_MIN},
    },
    rt::{Outbox, Read, Runtime, Segment, deadline},
    wire::{BodyDecoder, FieldScan, Framing, Peeked},
};
use flate2::write::GzDecoder;
use std::io::{self, Write};

/// A whole body.
#[derive(Default)]
pub struct Body {
    /// The payload, in order. Empty where there is no body.
    pub segments: Vec<Segment>,
    /// Its length.
    pub bytes: u64,
    /// The fields that route, where they were looked for.
    pub peeked: Option<Peeked>,
    /// The body came compressed and is plain now.
    pub decoded: bool,
    /// The memory it takes, for as long as it is held.
    pub claim: Option<Claim>,
}

/// How to read.
pub struct Reading {
    /// Look for the routing fields; decode if need be.
    pub peek: bool,
    /// The bound, in payload bytes.
    pub bytes_max: u64,
    /// By when it must be complete.
    pub until: Mono,
}

/// Why there is no body.
pub enum Unread {
    /// The request is refused.
    Refused(Failure),
    /// The client has left, or takes in nothing any more.
    ClientGone,
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Unread {
        Unread::Refused(failure)
    }
}

/// Reads the body that `client.head` announces.
///
/// # Errors
/// See `Unread`; the connection cannot go on after one.
pub async fn read<R: Runtime>(
    rt: &R,
    client: &mut Client<R::Outbox>,
    claim: Claim,
    reading: &Reading,
) -> Result<Body, Unread> {
    let mut sink = Sink::new(claim, reading);
    let mut gzip = coding(client, reading.peek)?.then(|| GzDecoder::new(Unzipped::default()));
    if client.head.framing != Framing::None {
        invite(rt, client, reading.until).await?;
    }
    let mut decoder = BodyDecoder::new(client.head.framing);
    while !decoder.is_done() {
        let mut segment = arrival(rt, client, reading.until).await?;
        let stripped = decoder.strip(segment.live_mut()).map_err(|error| {
            Failure::new(Kind::BodyBroken, format!("the request's body is not framed as its head says: {error}. Check the client, or the proxy in front of it."))
        })?;
        if stripped.consumed < segment.len() {
            client.unread = Some(Segment::copy_of(&segment.live()[stripped.consumed..]));
        }
        segment.narrow(stripped.payload);
        match &mut gzip {
            None => sink.take(segment)?,
            Some(gzip) => inflate(gzip, segment.live(), &mut sink).await?,
        }
    }
    // From here on the standing read is the watch for a client that leaves, for as long as the answer takes.
    client.inbound.expect(READ_BYTES_MIN);
    client.owes_body = false;
    if let Some(mut gzip) = gzip {
        gzip.try_finish().map_err(|_| broken_gzip())?;
        sink.push(&gzip.get_ref().0)?;
        sink.body.decoded = true;
    }
    sink.finish().map_err(Unread::from)
}

/// Whether the body is gzip that has to be decoded.
fn coding<O: Outbox>(client: &Client<O>, peek: bool) -> Result<bool, Failure> {
    match client.head.field(client.head_bytes.live(), "content-encoding") {
        Some(coding) if peek => match coding.to_ascii_lowercase().as_slice() {
            b"identity" | b"" => Ok(false),
            b"gzip" | b"x-gzip" => Ok(true),
            _ => Err(Failure::new(
                Kind::EncodingUnsupported,
                "the body's content-encoding is not read here. Send it plain or with gzip.",
            )),
        },
        _ => Ok(false),
    }
}

/// Answers `Expect: 100-continue` (RFC 9110 section 10.1.1).
///
/// A client that does not read what it was sent before may have no room for it; nothing can be told to such a one.
async fn invite<R: Runtime>(rt: &R, client: &mut Client<R::Outbox>, until: Mono) -> Result<(), Unread> {
    if client.head.expect_continue && client.unread.is_none() {
        let write = client.outbound.write(Segment::copy_of(b"HTTP/1.1 100 Continue\r\n\r\n"));
        match watched(rt, &mut client.inbound, until, write).await {
            Watched::Done((Ok(()), _)) => {}
            Watched::Done((Err(_), _)) | Watched::ClientGone | Watched::TimeUp => return Err(Unread::ClientGone),
        }
    }
    Ok(())
}

/// The next bytes of the body, as large as they come.
async fn arrival<R: Runtime>(rt: &R, client: &mut Client<R::Outbox>, until: Mono) -> Result<Segment, Unread> {
    if let Some(segment) = client.unread.take() {
        return Ok(segment);
    }
    client.inbound.expect(READ_BYTES_MAX);
    match deadline(rt, until, client.inbound.next()).await {
        Some(Read::Data(segment)) => Ok(segment),
        Some(Read::End | Read::Failed(_)) => Err(Unread::ClientGone),
        None => {
            Err(Failure::new(Kind::RequestTimeout, "the request's body did not arrive in time. Send it again.").into())
        }
    }
}

/// Decodes a piece at a time and lets others run in between: a small body can unfold to a large one.
async fn inflate(gzip: &mut GzDecoder<Unzipped>, mut compressed: &[u8], sink: &mut Sink<'_>) -> Result<(), Failure> {
    let mut since_yield = 0;
    while !compressed.is_empty() {
        let piece = compressed.len().min(1024);
        gzip.write_all(&compressed[..piece]).map_err(|_| broken_gzip())?;
        compressed = &compressed[piece..];
        let plain = std::mem::take(&mut gzip.get_mut().0);
        since_yield += plain.len();
        sink.push(&plain)?;
        if since_yield >= 256 * 1024 {
            since_yield = 0;
            yield_now().await;
        }
    }
    Ok(())
}

fn broken_gzip() -> Failure {
    Failure::new(
        Kind::BodyBroken,
        "the request's body is not the gzip that its content-encoding says. Send it again, or plain.",
    )
}

/// What a gzip decoder has put out and nobody has taken yet. One KiB of input is at most about one MiB here.
#[derive(Default)]
struct Unzipped(Vec<u8>);

impl Write for Unzipped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where payload goes: counted, claimed, scanned, kept.
struct Sink<'a> {
    body: Body,
    claim: Claim,
    scan: Option<FieldScan>,
    reading: &'a Reading,
}

impl<'a> Sink<'a> {
    fn new(claim: Claim, reading: &'a Reading) -> Sink<'a> {
        Sink { body: Body::default(), claim, scan: reading.peek.then(FieldScan::new), reading }
    }

    fn admit(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.body.bytes += payload.len() as u64;
        if self.body.bytes > self.reading.bytes_max {
            return Err(too_large(self.reading.bytes_max));
        }
        if !self.claim.grow_to(self.body.bytes) {
            return Err(bodies_full());
        }
        match &mut self.scan {
            Some(scan) => scan.feed(payload).map_err(|error| unreadable(&error.to_string())),
            None => Ok(()),
        }
    }

    /// Takes a segment of payload. One that is not full is copied behind the one before it where it fits, so that a
    /// client that sends byte by byte cannot make each byte cost a buffer.
    fn take(&mut self, segment: Segment) -> Result<(), Failure> {
        self.admit(segment.live())?;
        if segment.is_empty() {
            return Ok(());
        }
        if let Some(last) = self.body.segments.last_mut()
            && segment.len() < segment.capacity()
            && last.room() >= segment.len()
        {
            last.extend(segment.live());
            return Ok(());
        }
        self.body.segments.push(segment);
        Ok(())
    }

    /// Takes payload that lies elsewhere, by copying it.
    fn push(&mut self, mut payload: &[u8]) -> Result<(), Failure> {
        self.admit(payload)?;
        while !payload.is_empty() {
            if self.body.segments.last().is_none_or(|last| last.room() == 0) {
                self.body.segments.push(Segment::with_room(READ_BYTES_MAX));
            }
            if let Some(last) = self.body.segments.last_mut() {
                let (now, later) = payload.split_at(payload.len().min(last.room()));
                last.extend(now);
                payload = later;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Body, Failure> {
        if let Some(mut scan) = self.scan {
            self.body.peeked = Some(scan.finish().map_err(|error| unreadable(&error.to_string()))?);
        }
        self.body.claim = Some(self.claim);
        Ok(self.body)
    }
}

/// The refusal when the process holds as many bodies as it may.
pub fn bodies_full() -> Failure {
    Failure::new(Kind::BodiesFull, "forebay holds as many requests as its memory bound allows. Try again in a moment.")
        .retry_after(5)
}

fn unreadable(why: &str) -> Failure {
    Failure::new(
        Kind::BodyUnreadable,
        format!("the request's body cannot be routed: {why}. Check the client that made it."),
    )
}
