//! Connections in memory, as bad as real ones: bytes come in pieces of any size and late, buffers are bounded, either
//! side can finish, leave with bytes unread (which resets), or reset.
//!
//! A side is an `Inbox`, fed by a reader task as on the real machine, and a `PipeOutbox`.

use super::world::World;
use crate::{
    base::Span,
    rt::{
        Outbox, Read, Runtime, Segment, Socket,
        inbox::{Feeder, inbox},
    },
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// How many pieces of one byte a connection gives each way before it takes larger ones, so that a run ends.
const FINE_PIECES_MAX: u64 = 700;

/// How a connection's bytes travel.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How they are cut.
    pub cut: Cut,
    /// Longest delay of a piece.
    pub delay_ms_max: u64,
    /// What the buffers of one direction hold.
    pub buffer_bytes: usize,
    /// The writing of the near side (0) or the far side (1) panics at so many writes; once.
    pub panic: Option<(usize, u64)>,
}

/// How bytes are cut into reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As much as there is.
    Whole,
    /// Anywhere.
    Anywhere,
    /// Byte by byte.
    Bytes,
}

impl Manner {
    /// A fast and faithful connection.
    pub const PLAIN: Manner = Manner { cut: Cut::Whole, delay_ms_max: 0, buffer_bytes: 64 * 1024, panic: None };
}

/// One direction.
#[derive(Default)]
struct Half {
    bytes: RefCell<VecDeque<u8>>,
    /// The writer has finished.
    fin: Cell<bool>,
    /// The reader has said that it wants no more (its own side has shut down).
    shut: Cell<bool>,
    /// The reader's side is closed: what comes now is answered by a reset.
    deaf: Cell<bool>,
    pieces: Cell<u64>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

impl Half {
    fn wake(&self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Both directions; side 0 is the one that connected. Side `s` writes into `halves[s]` and reads from the other.
struct Link {
    world: World,
    number: u64,
    manner: Manner,
    halves: [Half; 2],
    reset: Cell<bool>,
    /// Of each side: its reader task has ended, its outbox is gone.
    ended: [[Cell<bool>; 2]; 2],
    writes: Cell<u64>,
}

const READER: usize = 0;
const WRITER: usize = 1;

impl Link {
    fn incoming(&self, side: usize) -> &Half {
        &self.halves[1 - side]
    }

    fn outgoing(&self, side: usize) -> &Half {
        &self.halves[side]
    }

    /// A reset passes: what has not been read may be lost.
    fn break_off(&self) {
        if self.reset.replace(true) {
            return;
        }
        self.world.note("reset on connection", self.number, 0);
        for half in &self.halves {
            let mut bytes = half.bytes.borrow_mut();
            let kept =
                if self.world.chance(2) { bytes.len() } else { self.world.roll(bytes.len() as u64 + 1) as usize };
            bytes.truncate(kept);
        }
        self.halves.iter().for_each(Half::wake);
    }

    /// One end of a side is gone. When both are, the side is closed, and bytes that it has not read reset the other.
    fn end(&self, side: usize, which: usize) {
        self.ended[side][which].set(true);
        if self.ended[side].iter().all(Cell::get) {
            let incoming = self.incoming(side);
            incoming.deaf.set(true);
            if incoming.bytes.borrow().is_empty() {
                incoming.wake();
            } else {
                self.break_off();
            }
        }
    }

    fn piece(&self, half: &Half, available: usize) -> usize {
        half.pieces.set(half.pieces.get() + 1);
        match self.manner.cut {
            Cut::Whole => available,
            Cut::Bytes if half.pieces.get() <= FINE_PIECES_MAX => 1,
            Cut::Bytes | Cut::Anywhere => 1 + self.world.roll(available as u64) as usize,
        }
    }
}

/// A connection from the side that connects, first, to the one that listens at `to`.
pub fn pair(world: &World, to: SocketAddr, manner: Manner) -> (Socket<PipeOutbox>, Socket<PipeOutbox>) {
    let link = Rc::new(Link {
        world: world.clone(),
        number: world.next_connection(),
        manner,
        halves: Default::default(),
        reset: Cell::new(false),
        ended: Default::default(),
        writes: Cell::new(0),
    });
    let near = side(&link, 0, to);
    (near, side(&link, 1, SocketAddr::from(([127, 0, 0, 1], 40_000))))
}

fn side(link: &Rc<Link>, side: usize, peer: SocketAddr) -> Socket<PipeOutbox> {
    let (inbox, feeder) = inbox();
    let reader = Reader { link: Rc::clone(link), side };
    link.world.spawn(reader.feed(feeder));
    let outbox = PipeOutbox { link: Rc::clone(link), side, is_torn: false, held: None, is_aborted: false };
    Socket { inbox, outbox, peer }
}

/// The reading side's own end. Gone when its task is, however that ends.
struct Reader {
    link: Rc<Link>,
    side: usize,
}

impl Reader {
    async fn feed(self, feeder: Feeder) {
        let (link, half) = (&*self.link, self.link.incoming(self.side));
        while feeder.vacancy().await {
            poll_fn(|cx| self.poll_readable(cx)).await;
            if link.manner.delay_ms_max > 0 && link.world.chance(4) {
                let delay = Span::from_ms(link.world.roll(link.manner.delay_ms_max + 1));
                link.world.sleep_until(link.world.now().after(delay)).await;
            }
            let mut segment = feeder.segment();
            let available = half.bytes.borrow().len().min(segment.room());
            let wanted = if available == 0 { 0 } else { link.piece(half, available) };
            segment.fill_with(|room| {
                let mut bytes = half.bytes.borrow_mut();
                room.iter_mut().zip(bytes.drain(..wanted)).map(|(place, byte)| *place = byte).count()
            });
            if let Some(writer) = half.writer.take() {
                writer.wake();
            }
            let more = match () {
                () if !segment.is_empty() => feeder.deliver(Read::Data(segment)),
                () if link.reset.get() => feeder.deliver(Read::Failed(io::ErrorKind::ConnectionReset)),
                () => feeder.deliver(Read::End),
            };
            if !more {
                link.world.fated(link.number, |fate, now| fate.heard[self.side] = Some(now));
                return;
            }
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let half = self.link.incoming(self.side);
        if half.bytes.borrow().is_empty() && !half.fin.get() && !half.shut.get() && !self.link.reset.get() {
            half.reader.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.link.end(self.side, READER);
    }
}

/// The writing side of a simulated connection.
pub struct PipeOutbox {
    link: Rc<Link>,
    side: usize,
    is_torn: bool,
    /// What is being written and may be needed again, or was when it was given up.
    held: Option<Rc<Segment>>,
    is_aborted: bool,
}

impl PipeOutbox {
    /// The connection's number in this world.
    pub fn number(&self) -> u64 {
        self.link.number
    }

    /// Whether the other side can still be reached.
    pub fn is_broken(&self) -> bool {
        self.link.reset.get()
    }

    /// Puts what fits of `bytes` on its way.
    fn poll_push(&self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (link, half) = (&*self.link, self.link.outgoing(self.side));
        if link.reset.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if half.deaf.get() {
            // The first write after the other side has closed succeeds, and is answered by a reset.
            link.break_off();
            return Poll::Ready(Ok(bytes.len()));
        }
        let room = link.manner.buffer_bytes.saturating_sub(half.bytes.borrow().len());
        if room == 0 || link.world.chance(8) {
            half.writer.set(Some(cx.waker().clone()));
            if room > 0 {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let taken = room.min(bytes.len());
        half.bytes.borrow_mut().extend(bytes.iter().take(taken));
        if let Some(reader) = half.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(taken))
    }

    fn say_end(&self) {
        let half = self.link.outgoing(self.side);
        half.fin.set(true);
        half.wake();
    }

    /// Panics when it is time to, without the hook: the fault is injected, and its backtrace is of no use.
    fn trip(&self) {
        if let Some((side, at)) = self.link.manner.panic
            && side == self.side
        {
            self.link.writes.set(self.link.writes.get() + 1);
            if self.link.writes.get() == at {
                self.link.world.note("panic on connection", self.link.number, at);
                std::panic::resume_unwind(Box::new("injected"));
            }
        }
    }
}

impl Outbox for PipeOutbox {
    async fn write(&mut self, segment: Segment) -> (io::Result<()>, Segment) {
        (self.push(segment.live()).await, segment)
    }

    async fn write_kept(&mut self, kept: &Rc<Segment>) -> io::Result<()> {
        // As a ring does with what it has been given: it holds its share longer than who gave it up.
        self.held = Some(Rc::clone(kept));
        let result = self.push(kept.live()).await;
        self.held = None;
        result
    }

    fn finish(&mut self) {
        self.say_end();
    }

    fn abort(&mut self) {
        self.is_aborted = true;
        self.link.break_off();
    }
}

impl PipeOutbox {
    async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_torn {
            let detail = format!("connection {}: a write after one that was given up", self.link.number);
            self.link.world.breach("a torn connection is not written to", detail);
        }
        self.trip();
        self.is_torn = true;
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            match poll_fn(|cx| self.poll_push(rest, cx)).await {
                Ok(taken) => at += taken,
                Err(error) => {
                    self.is_torn = false;
                    return Err(error);
                }
            }
        }
        self.is_torn = false;
        Ok(())
    }
}

impl Drop for PipeOutbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        }
        if !self.is_aborted {
            self.say_end();
        }
        let incoming = self.link.incoming(self.side);
        incoming.shut.set(true);
        incoming.wake();
        self.link.end(self.side, WRITER);
        self.link.world.fated(self.link.number, |fate, now| fate.let_go[self.side] = Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(
        manner: Manner,
        near: impl AsyncFnOnce(Socket<PipeOutbox>) + 'static,
        far: impl AsyncFnOnce(Socket<PipeOutbox>) + 'static,
    ) {
        let world = World::new(3);
        let (a, b) = pair(&world, SocketAddr::from(([10, 0, 0, 1], 1)), manner);
        world.spawn(async move { near(a).await });
        world.spawn(async move { far(b).await });
        let quiet = world.run(1_000_000);
        assert_eq!((quiet.stuck, quiet.endless, world.panics()), (0, false, 0));
    }

    #[test]
    fn bytes_arrive_in_order_however_they_are_cut() {
        for cut in [Cut::Whole, Cut::Anywhere, Cut::Bytes] {
            let manner = Manner { cut, delay_ms_max: 3, buffer_bytes: 100, panic: None };
            talk(
                manner,
                async |mut socket| {
                    let bytes: Vec<u8> = (0..2_000).map(|n| n as u8).collect();
                    assert!(socket.outbox.write(Segment::copy_of(&bytes)).await.0.is_ok());
                    socket.outbox.finish();
                    assert!(matches!(socket.inbox.next().await, Read::End));
                },
                async |mut socket| {
                    let mut got = Vec::new();
                    while let Read::Data(segment) = socket.inbox.next().await {
                        got.extend_from_slice(segment.live());
                    }
                    assert_eq!(got, (0..2_000).map(|n| n as u8).collect::<Vec<_>>());
                },
            );
        }
    }

    #[test]
    fn an_abort_and_a_close_with_bytes_unread_are_resets() {
        talk(
            Manner::PLAIN,
            async |mut socket| socket.outbox.abort(),
            async |mut socket| assert!(matches!(socket.inbox.next().await, Read::Failed(_))),
        );
        talk(
            Manner::PLAIN,
            async |mut socket| {
                let _ = socket.outbox.write(Segment::copy_of(&vec![0; 20_000])).await;
                let ending = loop {
                    match socket.inbox.next().await {
                        Read::Data(_) => {}
                        ending => break ending,
                    }
                };
                assert!(matches!(ending, Read::Failed(_)));
            },
            async |mut socket| {
                socket.inbox.next().await;
            },
        );
    }

    #[test]
    fn a_peer_that_does_not_read_holds_the_writer_up() {
        let world = World::new(3);
        let (mut a, b) =
            pair(&world, SocketAddr::from(([10, 0, 0, 1], 1)), Manner { buffer_bytes: 10, ..Manner::PLAIN });
        world.spawn(async move {
            let _ = a.outbox.write(Segment::copy_of(&vec![0; 100_000])).await;
        });
        assert_eq!(world.run(10_000).stuck, 3, "the writer, and both readers");
        drop(b);
        assert_eq!(world.run(10_000).stuck, 0);
    }
}
