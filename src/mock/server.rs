//! The simulator on a socket: requests in over the wire codec, scripts out step by step. One connection at a time per
//! task; the engine is shared by all connections of the thread. When the client leaves, its answer stops.

use super::{
    engine::{Engine, Request},
    head::{envelope, error_type},
    script::{Script, Step},
};
use crate::{
    base::{
        Dialect, Mono, Span,
        bounds::{BODY_BYTES_MAX, HEAD_BYTES_MAX, LINGER_BYTES_MAX},
    },
    rt::{Inbox, Outbox, Read, Runtime, Segment, Socket, deadline},
    wire::{BodyDecoder, Framing, RequestHead, Version},
};
use std::{cell::RefCell, fmt::Write, future::poll_fn, rc::Rc};

/// How long a connection may be idle between requests.
const IDLE_MAX: Span = Span::from_secs(600);
/// How long a request may pause while it arrives, or the client while it takes an answer.
const PAUSE_MAX: Span = Span::from_secs(120);
/// How long a refused client may go on sending.
const LINGER_MAX: Span = Span::from_secs(1);
/// Before a reset, what was sent gets the time to be read: a reset may overtake it.
const BEFORE_RESET: Span = Span::from_ms(10);
/// The largest write; an event is smaller unless it was asked to be larger.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Serves one connection to its end.
pub async fn serve<R: Runtime>(rt: R, socket: Socket<R::Outbox>, engine: Rc<RefCell<Engine>>) {
    let mut connection = Connection {
        loopback: socket.peer.ip().to_canonical().is_loopback(),
        rt,
        inbox: socket.inbox,
        outbox: socket.outbox,
        engine,
        head: RequestHead::new(),
        unread: Vec::new(),
        body: Vec::new(),
        claimed: 0,
        out: Vec::new(),
        spare: None,
    };
    while connection.exchange().await {}
}

struct Connection<R: Runtime> {
    rt: R,
    inbox: Inbox,
    outbox: R::Outbox,
    engine: Rc<RefCell<Engine>>,
    loopback: bool,
    head: RequestHead,
    /// Received and not yet used; begins with the head while a request is served.
    unread: Vec<u8>,
    body: Vec<u8>,
    /// Body memory claimed from the engine.
    claimed: u64,
    out: Vec<u8>,
    spare: Option<Segment>,
}

/// Why a request is not answered by the engine.
enum Refused {
    /// The client has gone, or was silent for too long.
    Gone,
    /// It gets this status, and the connection ends.
    With(u16, String),
}

impl<R: Runtime> Connection<R> {
    /// One request and its answer; whether another may follow.
    async fn exchange(&mut self) -> bool {
        let received = match self.read_head().await {
            Ok(head_bytes) => self.read_body(head_bytes).await.map(|()| head_bytes),
            Err(refused) => Err(refused),
        };
        let goes_on = match received {
            Ok(head_bytes) => {
                let script = self.ask(head_bytes);
                self.unread.drain(..head_bytes);
                self.play(script).await
            }
            Err(Refused::Gone) => false,
            Err(Refused::With(status, why)) => {
                self.refuse(status, &why).await;
                false
            }
        };
        self.body = Vec::new();
        self.release();
        goes_on
    }

    /// Reads until a whole head is in `unread`; its length.
    async fn read_head(&mut self) -> Result<usize, Refused> {
        self.head.reset();
        loop {
            match self.head.parse(&self.unread) {
                Ok(Some(head_bytes)) => return Ok(head_bytes),
                Ok(None) if self.unread.len() > HEAD_BYTES_MAX => return Err(Refused::Gone),
                Ok(None) => {}
                Err(error) => return Err(Refused::With(error.kind().status(Dialect::Anthropic), error.to_string())),
            }
            let patience = if self.unread.is_empty() { IDLE_MAX } else { PAUSE_MAX };
            let more = self.read(patience).await?;
            self.unread.extend_from_slice(more.live());
        }
    }

    async fn read(&mut self, patience: Span) -> Result<Segment, Refused> {
        match deadline(&self.rt, self.rt.now().after(patience), self.inbox.next()).await {
            Some(Read::Data(segment)) => Ok(segment),
            Some(Read::End | Read::Failed(_)) | None => Err(Refused::Gone),
        }
    }

    /// Reads the whole body into `body`; what follows it stays behind the head in `unread`.
    async fn read_body(&mut self, head_bytes: usize) -> Result<(), Refused> {
        if let Framing::Length(bytes) = self.head.framing {
            self.claim(bytes)?;
            self.inbox.expect(bytes as usize);
        }
        if self.head.expect_continue && self.unread.len() == head_bytes {
            let written = self.outbox.write(Segment::copy_of(b"HTTP/1.1 100 Continue\r\n\r\n")).await.0;
            written.map_err(|_| Refused::Gone)?;
        }
        let mut decoder = BodyDecoder::new(self.head.framing);
        let mut first = self.unread.split_off(head_bytes);
        self.strip(&mut decoder, &mut first)?;
        while !decoder.is_done() {
            let mut more = self.read(PAUSE_MAX).await?;
            self.strip(&mut decoder, more.live_mut())?;
        }
        Ok(())
    }

    fn strip(&mut self, decoder: &mut BodyDecoder, bytes: &mut [u8]) -> Result<(), Refused> {
        let stripped = decoder.strip(bytes).map_err(|error| Refused::With(400, error.to_string()))?;
        let payload = bytes.get(stripped.payload).unwrap_or_default();
        let held = (self.body.len() + payload.len()) as u64;
        self.claim(held.saturating_sub(self.claimed))?;
        self.body.extend_from_slice(payload);
        self.unread.extend_from_slice(bytes.get(stripped.consumed..).unwrap_or_default());
        Ok(())
    }

    fn claim(&mut self, bytes: u64) -> Result<(), Refused> {
        if self.claimed + bytes > BODY_BYTES_MAX {
            return Err(Refused::With(413, format!("the body is over {BODY_BYTES_MAX} bytes")));
        }
        if !self.engine.borrow_mut().claim(bytes) {
            return Err(Refused::With(503, "the simulated provider holds as many bodies as it may".to_owned()));
        }
        self.claimed += bytes;
        Ok(())
    }

    fn release(&mut self) {
        self.engine.borrow_mut().release(std::mem::take(&mut self.claimed));
    }

    /// The engine's answer to the request that was read.
    fn ask(&self, head_bytes: usize) -> Script {
        let head = self.unread.get(..head_bytes).unwrap_or_default();
        let text = |part: crate::wire::head::Part| std::str::from_utf8(part.of(head)).unwrap_or_default();
        let fields: Vec<(&str, &[u8])> =
            self.head.fields.iter().map(|field| (text(field.name), field.value.of(head))).collect();
        let request = Request {
            method: text(self.head.method),
            target: text(self.head.target),
            fields: &fields,
            body: &self.body,
            http10: self.head.version == Version::Http10,
            keep_alive: self.head.keep_alive,
            loopback: self.loopback,
        };
        self.engine.borrow_mut().answer(self.rt.now(), self.rt.wall(), &request)
    }

    /// Plays a script to its end, or until the client leaves; whether the connection can be used again.
    async fn play(&mut self, mut script: Script) -> bool {
        let (mut sent, mut out) = (false, std::mem::take(&mut self.out));
        let goes_on = loop {
            let now = self.rt.now();
            let step = self.engine.borrow_mut().step(&mut script, now, &mut out);
            let stays = match step {
                Step::Wait(span) => self.stays_until(now.after(span)).await,
                Step::Send => {
                    sent = true;
                    self.send(&out).await
                }
                Step::Finish => break true,
                Step::Close => {
                    self.outbox.finish();
                    break false;
                }
                Step::Reset => {
                    if sent {
                        self.stays_until(self.rt.now().after(BEFORE_RESET)).await;
                    }
                    self.outbox.abort();
                    break false;
                }
            };
            if !stays {
                self.engine.borrow_mut().abort(&mut script, self.rt.now());
                break false;
            }
        };
        self.out = out;
        goes_on
    }

    /// Waits until `at`; false as soon as the client has gone.
    async fn stays_until(&mut self, at: Mono) -> bool {
        let inbox = &mut self.inbox;
        deadline(&self.rt, at, poll_fn(|cx| inbox.poll_gone(cx))).await.is_none()
    }

    /// Writes `bytes`; false when the client has gone, or takes nothing for too long.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        for part in bytes.chunks(WRITE_BYTES_MAX) {
            let mut segment = match self.spare.take() {
                Some(mut spare) => {
                    spare.clear();
                    spare
                }
                None => Segment::with_room(part.len()),
            };
            if segment.room() < part.len() {
                segment = Segment::with_room(part.len());
            }
            segment.extend(part);
            let until = self.rt.now().after(PAUSE_MAX);
            match deadline(&self.rt, until, self.outbox.write(segment)).await {
                Some((Ok(()), segment)) => self.spare = Some(segment),
                Some((Err(_), _)) | None => return false,
            }
        }
        true
    }

    /// A refusal that the engine has no part in; then takes in what the client still sends, so that it reads it.
    async fn refuse(&mut self, status: u16, why: &str) {
        let body = envelope(error_type(status), why, None, "req_unread");
        let mut head = String::new();
        let _ = write!(
            head,
            "HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let answer = [head.as_bytes(), &body].concat();
        if !self.send(&answer).await {
            return;
        }
        self.outbox.finish();
        let (until, mut taken) = (self.rt.now().after(LINGER_MAX), 0);
        while taken < LINGER_BYTES_MAX {
            match deadline(&self.rt, until, self.inbox.next()).await {
                Some(Read::Data(segment)) => taken += segment.len() as u64,
                Some(Read::End | Read::Failed(_)) | None => return,
            }
        }
    }
}

impl<R: Runtime> Drop for Connection<R> {
    /// A connection whose task ends early, by a panic say, gives its claim back as well.
    fn drop(&mut self) {
        let claimed = std::mem::take(&mut self.claimed);
        if let Ok(mut engine) = self.engine.try_borrow_mut() {
            engine.release(claimed);
        }
    }
}
