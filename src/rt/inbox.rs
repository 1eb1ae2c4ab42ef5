//! The one-slot inbox between a socket's reader task and whoever consumes its bytes.
//!
//! The reader task puts one read into the slot and starts the next only when the slot has been emptied: that is the
//! back pressure, one segment deep. `next` owns nothing while it waits, so it may be dropped at any time.

use super::{Segment, segment::AROUND};
use crate::base::bounds::{READ_BYTES_MAX, READ_BYTES_MIN};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// What may be held while a peer is only watched: less would blind the watch, more would let the peer fill memory.
const HELD_BYTES_MAX: usize = READ_BYTES_MAX;

/// What a read brought.
#[derive(Debug)]
pub enum Read {
    /// At least one byte.
    Data(Segment),
    /// The peer has finished (FIN). Said again on every further `next`.
    End,
    /// The connection is broken. Said again on every further `next`.
    Failed(io::ErrorKind),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    End,
    Failed(io::ErrorKind),
}

#[derive(Default)]
struct Slot {
    data: RefCell<Option<Segment>>,
    ending: Cell<Option<Ending>>,
    consumer: Cell<Option<Waker>>,
    reader: Cell<Option<Waker>>,
    read_bytes: Cell<usize>,
    abandoned: Cell<bool>,
}

/// The consumer's end.
pub struct Inbox {
    slot: Rc<Slot>,
    /// What was read and not used yet; comes first. At most `HELD_BYTES_MAX` and what was given back.
    held: VecDeque<Segment>,
}

/// The reader task's end.
pub struct Feeder(Rc<Slot>);

/// An inbox and the feeder that fills it.
pub fn inbox() -> (Inbox, Feeder) {
    let slot = Rc::new(Slot::default());
    slot.read_bytes.set(READ_BYTES_MIN);
    (Inbox { slot: Rc::clone(&slot), held: VecDeque::new() }, Feeder(slot))
}

impl Inbox {
    /// The next read. Cancel-safe.
    pub async fn next(&mut self) -> Read {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next read, for a hand-written `select`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        if let Some(segment) = self.held.pop_front() {
            return Poll::Ready(Read::Data(segment));
        }
        if let Some(segment) = self.take_slot() {
            return Poll::Ready(Read::Data(segment));
        }
        match self.slot.ending.get() {
            Some(Ending::End) => Poll::Ready(Read::End),
            Some(Ending::Failed(kind)) => Poll::Ready(Read::Failed(kind)),
            None => {
                self.slot.consumer.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Ready once the peer has finished or the connection is broken, whatever it sent before. To see that, reading must
    /// go on: what comes in the meantime (the next request, a stray line end) is held, up to a bound.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held.iter().map(Segment::len).sum::<usize>() < HELD_BYTES_MAX
            && let Some(segment) = self.take_slot()
        {
            self.hold(segment);
        }
        if self.slot.ending.get().is_some() {
            return Poll::Ready(());
        }
        self.slot.consumer.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Behind what is held already; copied where there is room, so that a peer that sends byte by byte cannot make each
    /// byte cost a buffer.
    fn hold(&mut self, segment: Segment) {
        match self.held.back_mut() {
            Some(last) if last.room() >= segment.len() => last.extend(segment.live()),
            _ => self.held.push_back(segment),
        }
    }

    /// Puts bytes back that `next` gave and that belong to whoever reads next.
    pub fn give_back(&mut self, segment: Segment) {
        self.held.push_front(segment);
    }

    /// What is in the slot; the reader may go on.
    fn take_slot(&mut self) -> Option<Segment> {
        let segment = self.slot.data.borrow_mut().take()?;
        if let Some(reader) = self.slot.reader.take() {
            reader.wake();
        }
        Some(segment)
    }

    /// Whether bytes, an end or a failure can be had without waiting.
    pub fn is_ready(&self) -> bool {
        !self.held.is_empty() || self.slot.data.borrow().is_some() || self.slot.ending.get().is_some()
    }

    /// Says that about `bytes` more are coming, so that the next reads are as large; a hint, clamped to the bounds.
    pub fn expect(&mut self, bytes: usize) {
        self.slot.read_bytes.set(bytes.clamp(READ_BYTES_MIN, READ_BYTES_MAX));
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.slot.abandoned.set(true);
        if let Some(reader) = self.slot.reader.take() {
            reader.wake();
        }
    }
}

impl Feeder {
    /// Waits until the slot is empty; false when nobody will take any more.
    pub async fn vacancy(&self) -> bool {
        poll_fn(|cx| {
            if self.0.abandoned.get() {
                return Poll::Ready(false);
            }
            if self.0.data.borrow().is_none() {
                return Poll::Ready(true);
            }
            self.0.reader.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// A segment as large as the consumer expects.
    pub fn segment(&self) -> Segment {
        Segment::with_room(self.0.read_bytes.get())
    }

    /// Delivers what a read brought; false when it was the last.
    pub fn deliver(&self, read: Read) -> bool {
        let more = match read {
            Read::Data(segment) => {
                self.adapt(&segment);
                *self.0.data.borrow_mut() = Some(segment);
                true
            }
            Read::End => {
                self.0.ending.set(Some(Ending::End));
                false
            }
            Read::Failed(kind) => {
                self.0.ending.set(Some(Ending::Failed(kind)));
                false
            }
        };
        if let Some(consumer) = self.0.consumer.take() {
            consumer.wake();
        }
        more
    }

    /// A full read doubles the next one, a sparse one halves it: small for a trickle of events, large for a body.
    fn adapt(&self, segment: &Segment) {
        let asked = segment.capacity();
        if segment.len() == asked {
            self.0.read_bytes.set((asked * 2).min(READ_BYTES_MAX));
        } else if segment.len() < asked / 4 {
            // The size below: what is around a payload does not halve.
            self.0.read_bytes.set((asked.saturating_sub(AROUND) / 2).max(READ_BYTES_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_dropped_next_loses_nothing() {
        let (mut inbox, feeder) = inbox();
        assert!(inbox.poll_next(&mut cx()).is_pending());
        assert!(feeder.deliver(Read::Data(Segment::copy_of(b"abc"))));
        let Poll::Ready(Read::Data(segment)) = inbox.poll_next(&mut cx()) else { panic!("data") };
        assert_eq!(segment.live(), b"abc");
    }

    #[test]
    fn what_is_given_back_comes_first() {
        let (mut inbox, feeder) = inbox();
        inbox.give_back(Segment::copy_of(b"abc"));
        feeder.deliver(Read::Data(Segment::copy_of(b"def")));
        assert!(inbox.is_ready());
        for expected in [b"abc", b"def"] {
            let Poll::Ready(Read::Data(segment)) = inbox.poll_next(&mut cx()) else { panic!("data") };
            assert_eq!(segment.live(), expected);
        }
        assert!(inbox.poll_next(&mut cx()).is_pending());
    }

    #[test]
    fn gone_is_seen_behind_waiting_bytes_and_the_bytes_come_first() {
        let (mut inbox, feeder) = inbox();
        feeder.deliver(Read::Data(Segment::copy_of(b"abc")));
        assert!(!feeder.deliver(Read::End));
        assert!(inbox.poll_gone(&mut cx()).is_ready());
        assert!(matches!(inbox.poll_next(&mut cx()), Poll::Ready(Read::Data(_))));
        assert!(matches!(inbox.poll_next(&mut cx()), Poll::Ready(Read::End)));
        assert!(matches!(inbox.poll_next(&mut cx()), Poll::Ready(Read::End)));
    }

    #[test]
    fn a_watch_sees_the_end_behind_bytes_that_nobody_takes() {
        let (mut inbox, feeder) = inbox();
        assert!(inbox.poll_gone(&mut cx()).is_pending());
        for _ in 0..HELD_BYTES_MAX {
            if inbox.slot.data.borrow().is_some() {
                break;
            }
            feeder.deliver(Read::Data(Segment::copy_of(&[b'x'; 1000])));
            assert!(inbox.poll_gone(&mut cx()).is_pending());
        }
        assert!(inbox.slot.data.borrow().is_some(), "a bound on what is held");
        let mut bytes = 0;
        while let Poll::Ready(Read::Data(segment)) = inbox.poll_next(&mut cx()) {
            bytes += segment.len();
        }
        assert!((HELD_BYTES_MAX..HELD_BYTES_MAX + 3000).contains(&bytes), "{bytes}");
        feeder.deliver(Read::Data(Segment::copy_of(b"\r\n")));
        assert!(inbox.poll_gone(&mut cx()).is_pending());
        feeder.deliver(Read::End);
        assert!(inbox.poll_gone(&mut cx()).is_ready());
    }

    #[test]
    fn what_is_held_takes_little_more_room_than_its_bytes() {
        let (mut inbox, feeder) = inbox();
        for n in 0..10_000_u32 {
            feeder.deliver(Read::Data(Segment::copy_of(&[n as u8])));
            assert!(inbox.poll_gone(&mut cx()).is_pending());
        }
        let room: usize = inbox.held.iter().map(Segment::capacity).sum();
        assert!(room < 10_000 + READ_BYTES_MIN, "{room} bytes of buffers for 10000");
        let mut bytes = Vec::new();
        while let Poll::Ready(Read::Data(segment)) = inbox.poll_next(&mut cx()) {
            bytes.extend_from_slice(segment.live());
        }
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8));
    }

    #[test]
    fn reads_grow_when_full_and_shrink_when_sparse() {
        let (mut inbox, feeder) = inbox();
        for _ in 0..5 {
            let mut segment = feeder.segment();
            let room = segment.spare_mut().len();
            segment.grew(room);
            feeder.deliver(Read::Data(segment));
            assert!(matches!(inbox.poll_next(&mut cx()), Poll::Ready(Read::Data(_))));
        }
        assert_eq!(feeder.segment().capacity(), READ_BYTES_MAX);
        for _ in 0..5 {
            let mut segment = feeder.segment();
            segment.grew(1);
            feeder.deliver(Read::Data(segment));
            assert!(matches!(inbox.poll_next(&mut cx()), Poll::Ready(Read::Data(_))));
        }
        assert_eq!(feeder.segment().capacity(), READ_BYTES_MIN);
    }
}
