//! A simulated client at work: it asks what its plan says, reads with its own eyes, and writes down what it got.

use super::{
    message::{Reader, Side},
    pipe::PipeOutbox,
    plan::{How, Visit, When},
    world::World,
};
use crate::{
    base::{Mono, Span},
    rt::{Inbox, Outbox, Read, Runtime, Segment, Socket, deadline},
};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// A pause that outlasts every timeout: it stands for one without an end.
pub const LASTING_MS: u64 = 400_000;
/// How long a client waits for an invitation to send its body.
const INVITATION: Span = Span::from_secs(1);

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Saw {
    /// Its connection.
    pub connection: u64,
    /// What it read.
    pub reader: Reader,
    /// All of it, raw.
    pub raw: Vec<u8>,
    /// Bytes of its requests that it has sent.
    pub sent: usize,
    /// For each request, when its first byte could be handed over.
    pub began_at: Vec<Mono>,
    /// For each request, when its last byte was handed over.
    pub asked_at: Vec<Mono>,
    /// When and how it went before its time.
    pub left: Option<(Mono, How)>,
    /// When the connection ended, and whether cleanly; `None` when the client ended it.
    pub ended: Option<(Mono, bool)>,
    /// The last moment at which it did something or something came.
    pub last: Mono,
    /// The longest time in which neither it did anything, nor something came.
    pub longest_wait: Span,
    /// How long it paused and stalled in all, but for a pause that lasts.
    pub idled: Span,
    /// It paused or stalled.
    pub was_idle: bool,
    /// When it stopped reading for good.
    pub deaf_at: Option<Mono>,
    /// How many answers were complete when the first of its framing errors came, in bytes of `raw`.
    pub gone_at: Option<Mono>,
}

/// A client, shared by its reading and its writing half.
pub struct Client {
    world: World,
    visit: Visit,
    saw: RefCell<Saw>,
    /// It will do nothing more.
    is_over: Cell<bool>,
    leaves: Cell<Option<How>>,
    wakers: RefCell<Vec<Waker>>,
}

impl Client {
    /// A client that will do what `visit` says.
    pub fn new(world: &World, visit: &Visit) -> Rc<Client> {
        let heads = visit.asks.iter().map(super::request::Asked::is_head).collect();
        let saw = Saw {
            connection: u64::MAX,
            reader: Reader::new(Side::Answers(heads)),
            raw: Vec::new(),
            sent: 0,
            began_at: Vec::new(),
            asked_at: Vec::new(),
            left: None,
            ended: None,
            last: Mono(0),
            longest_wait: Span::ZERO,
            idled: Span::ZERO,
            was_idle: false,
            deaf_at: None,
            gone_at: None,
        };
        Rc::new(Client {
            world: world.clone(),
            visit: visit.clone(),
            saw: RefCell::new(saw),
            is_over: Cell::new(false),
            leaves: Cell::new(None),
            wakers: RefCell::default(),
        })
    }

    /// What it saw.
    pub fn saw(&self) -> Saw {
        self.saw.borrow().clone()
    }

    /// Whether it has come and gone.
    pub fn is_done(&self) -> bool {
        self.saw.borrow().gone_at.is_some()
    }

    /// Comes, asks, and goes.
    pub async fn run(self: Rc<Client>, to: SocketAddr) {
        self.sleep(self.visit.at_ms).await;
        let Ok(socket) = self.world.connect_in(to, Some(self.visit.manner)).await else { return };
        self.note("client: connection", socket.outbox.number());
        {
            let mut saw = self.saw.borrow_mut();
            (saw.last, saw.connection) = (self.world.now(), socket.outbox.number());
        }
        let Socket { inbox, outbox, .. } = socket;
        self.world.spawn(Rc::clone(&self).write(outbox));
        if let Some((When::After(ms), how)) = self.visit.leaves {
            let client = Rc::clone(&self);
            self.world.spawn(async move {
                client.sleep(ms).await;
                client.leave(how);
            });
        }
        self.read(inbox).await;
        self.over();
    }

    /// A line of the trace; a client is named by the first of its requests.
    fn note(&self, what: &'static str, number: u64) {
        let name = self.visit.asks.first().map_or(0, |asked| asked.id);
        self.world.note(what, u64::from(name), number);
    }

    async fn sleep(&self, ms: u64) {
        self.world.sleep_until(self.world.now().after(Span::from_ms(ms))).await;
    }

    /// Does nothing for a while.
    async fn idle(&self, ms: u64) {
        {
            let mut saw = self.saw.borrow_mut();
            saw.was_idle = true;
            if ms != LASTING_MS {
                saw.idled.0 += Span::from_ms(ms).0;
            }
        }
        let _ = self.unless_stopped(self.sleep(ms)).await;
    }

    fn progress(&self) {
        let mut saw = self.saw.borrow_mut();
        let now = self.world.now();
        saw.longest_wait = saw.longest_wait.max(now.since(saw.last));
        saw.last = now;
    }

    fn tell(&self) {
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    /// `cx` is woken when something has changed.
    fn watch(&self, cx: &Context<'_>) {
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
    }

    fn over(&self) {
        self.is_over.set(true);
        self.tell();
    }

    fn leave(&self, how: How) {
        if self.is_over.get() || self.leaves.get().is_some() {
            return;
        }
        self.note("client: leaves", how as u64);
        self.saw.borrow_mut().left = Some((self.world.now(), how));
        self.leaves.set(Some(how));
        if how != How::HalfClose {
            self.is_over.set(true);
        }
        self.tell();
    }

    /// Ready when the client must look up from what it does.
    fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over.get() || self.leaves.get().is_some() {
            return Poll::Ready(());
        }
        self.watch(cx);
        Poll::Pending
    }

    /// Runs `work` unless the client stops first.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => self.poll_stop(cx).map(|()| None),
        })
        .await
    }

    async fn read(&self, mut inbox: Inbox) {
        let (mut stall, mut until) = (self.visit.stall, None);
        while !self.is_over.get() {
            let read = poll_fn(|cx| match inbox.poll_next(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending if self.is_over.get() => Poll::Ready(None),
                Poll::Pending => {
                    self.watch(cx);
                    Poll::Pending
                }
            });
            let read = match until {
                None => read.await,
                Some(until) => deadline(&self.world, until, read).await.flatten(),
            };
            let Some(read) = read else { return };
            self.progress();
            match read {
                Read::Data(segment) => self.take(segment.live()),
                end => return self.end(matches!(end, Read::End)),
            }
            let got = self.saw.borrow().raw.len();
            if let Some((_, ms)) = stall.take_if(|(at, _)| got >= *at) {
                if ms == LASTING_MS {
                    self.saw.borrow_mut().deaf_at = Some(self.world.now());
                }
                self.idle(ms).await;
            }
            if let Some((When::Got(at), how)) = self.visit.leaves
                && got >= at
            {
                self.leave(how);
            }
            if self.is_satisfied() {
                // A little longer, for what must not come.
                let patience = if self.visit.waits { Span::from_secs(3_600) } else { Span::from_ms(300) };
                until = Some(self.world.now().after(patience));
            }
        }
    }

    /// Whether every answer that can come has come.
    fn is_satisfied(&self) -> bool {
        let saw = self.saw.borrow();
        let complete = saw.reader.complete();
        complete == self.visit.asks.len()
            || saw.reader.messages.last().is_some_and(|last| last.is_complete && closes(last))
    }

    fn take(&self, bytes: &[u8]) {
        let mut saw = self.saw.borrow_mut();
        let before = saw.reader.complete();
        saw.raw.extend_from_slice(bytes);
        saw.reader.feed(bytes, self.world.now());
        let after = saw.reader.complete();
        drop(saw);
        if after > before {
            self.note("client: answers complete", after as u64);
        }
        self.tell();
    }

    fn end(&self, clean: bool) {
        let mut saw = self.saw.borrow_mut();
        // The end that it made itself is not the other side's word.
        let clean = clean && !matches!(self.leaves.get(), Some(How::Close | How::Reset));
        saw.reader.end(clean, self.world.now());
        saw.ended = Some((self.world.now(), clean));
        drop(saw);
        self.note("client: connection ends", u64::from(clean));
    }

    async fn write(self: Rc<Client>, mut outbox: PipeOutbox) {
        for (number, asked) in self.visit.asks.iter().enumerate() {
            if !self.turn(number).await
                || !self.send(&mut outbox, &asked.wire, asked.fields.iter().any(|(name, _)| name == "Expect")).await
            {
                break;
            }
            let now = self.world.now();
            self.saw.borrow_mut().asked_at.push(now);
        }
        let _ = self.unless_stopped(poll_fn(|_| Poll::<()>::Pending)).await;
        match self.leaves.get() {
            Some(How::Reset) => outbox.abort(),
            Some(How::HalfClose) if !self.is_over.get() => {
                outbox.finish();
                poll_fn(|cx| {
                    if self.is_over.get() {
                        return Poll::Ready(());
                    }
                    self.watch(cx);
                    Poll::Pending
                })
                .await;
            }
            _ => {}
        }
        drop(outbox);
        self.saw.borrow_mut().gone_at = Some(self.world.now());
    }

    /// Waits until request `number` may be sent; false when it never may.
    async fn turn(&self, number: usize) -> bool {
        poll_fn(|cx| {
            if self.poll_stop(cx).is_ready() {
                return Poll::Ready(false);
            }
            let saw = self.saw.borrow();
            if saw.reader.messages.iter().any(|message| message.is_complete && closes(message)) {
                return Poll::Ready(false);
            }
            if self.visit.pipelines || saw.reader.complete() >= number { Poll::Ready(true) } else { Poll::Pending }
        })
        .await
    }

    /// Sends one request in pieces; false when the client stops first or the connection is gone.
    async fn send(&self, outbox: &mut PipeOutbox, wire: &[u8], waits: bool) -> bool {
        let head = wire.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
        let (start, now) = (self.saw.borrow().sent, self.world.now());
        self.saw.borrow_mut().began_at.push(now);
        let mut from = 0;
        while from < wire.len() {
            let mut to = if self.world.chance(2) {
                wire.len()
            } else {
                from + 1 + self.world.roll((wire.len() - from) as u64) as usize
            };
            let mut pause = None;
            if let Some((at, ms)) = self.visit.pause
                && (start + from..start + to).contains(&at)
            {
                to = at - start + 1;
                pause = Some(ms);
            }
            if let Some((When::Sent(at), how)) = self.visit.leaves
                && start + from >= at
            {
                self.leave(how);
            }
            if waits && from < head {
                to = to.min(head);
            }
            let segment = Segment::copy_of(wire.get(from..to).unwrap_or_default());
            match self.unless_stopped(outbox.write(segment)).await {
                Some((Ok(()), _)) => {}
                _ => return false,
            }
            self.progress();
            self.note("client: has sent", to as u64);
            from = to;
            self.saw.borrow_mut().sent = start + from;
            if let Some(ms) = pause {
                self.idle(ms).await;
            }
            if waits && from == head {
                self.invited().await;
            }
        }
        true
    }

    /// Waits for a 100, or an answer, or until it has been long enough.
    async fn invited(&self) {
        let begun = |saw: &Saw| saw.reader.interim + saw.reader.messages.len();
        let before = begun(&self.saw.borrow());
        let came = poll_fn(|cx| {
            if begun(&self.saw.borrow()) > before {
                return Poll::Ready(());
            }
            self.poll_stop(cx)
        });
        let _ = deadline(&self.world, self.world.now().after(INVITATION), came).await;
    }
}

fn closes(message: &super::message::Message) -> bool {
    message.field("connection").is_some_and(|value| value == "close")
}
