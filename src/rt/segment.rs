//! A buffer that the kernel fills and that is then sent as it is. It keeps room before and after its live bytes, so
//! that chunk framing can be written in place, and returns to its core's free list when dropped.

use crate::base::bounds::{READ_BYTES_MAX, READ_BYTES_MIN};
use std::{cell::RefCell, ops::Range};

/// Room kept before the live bytes of a read: a chunk-size line of up to 8 hex digits.
pub const HEADROOM: usize = 16;
/// Room kept after them: the CRLF that ends a chunk, and a last chunk.
pub const TAILROOM: usize = 8;
/// Both.
pub const AROUND: usize = HEADROOM + TAILROOM;

/// Sizes that are pooled: payload room, in bytes. With what is around it each fills what the allocator gives.
const CLASSES: [usize; 6] = [READ_BYTES_MIN, within(4), within(8), within(16), within(32), READ_BYTES_MAX];
const _: () = assert!(READ_BYTES_MIN == within(2) && READ_BYTES_MAX == within(64));
/// Buffers that one core keeps in each class.
const KEPT_MAX: [usize; 6] = [1024, 256, 256, 256, 64, 128];

/// What is left for the payload of so many KiB.
const fn within(kib: usize) -> usize {
    kib * 1024 - AROUND
}

thread_local! {
    static FREE: RefCell<[Vec<Box<[u8]>>; 6]> = const { RefCell::new([const { Vec::new() }; 6]) };
}

/// A buffer of at least the asked size, with `HEADROOM` and `TAILROOM` around it. The default one has no buffer at all.
#[derive(Default)]
pub struct Segment {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Segment {
    /// An empty segment with room for `room` payload bytes. Sizes up to `READ_BYTES_MAX` come from the core's free
    /// list, larger ones from the allocator.
    pub fn with_room(room: usize) -> Segment {
        let pooled = CLASSES.iter().position(|class| *class >= room);
        let bytes = match pooled {
            Some(class) => FREE
                .with_borrow_mut(|free| free[class].pop())
                .unwrap_or_else(|| vec![0; HEADROOM + CLASSES[class] + TAILROOM].into_boxed_slice()),
            None => vec![0; HEADROOM + room + TAILROOM].into_boxed_slice(),
        };
        Segment { bytes, start: HEADROOM, end: HEADROOM }
    }

    /// A segment without a buffer, for where one was or will be: nothing is in it, and nothing fits.
    pub fn none() -> Segment {
        Segment::default()
    }

    /// A segment that holds a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Segment {
        let mut segment = Segment::with_room(bytes.len());
        segment.extend(bytes);
        segment
    }

    /// The live bytes.
    pub fn live(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The live bytes, to be changed in place.
    pub fn live_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How many bytes are live.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is live.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many more bytes `extend` takes without touching the tail room.
    pub fn room(&self) -> usize {
        self.bytes.len().saturating_sub(TAILROOM).saturating_sub(self.end)
    }

    /// Appends `bytes`; panics past the buffer's end, tail room included, so callers ask `room` first.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Puts `bytes` before the live ones, into the head room; false (and unchanged) when they do not fit.
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        self.bytes[start..self.start].copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// Drops the first `n` live bytes (all of them if there are fewer).
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Keeps only the first `n` live bytes.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n);
    }

    /// Keeps only `range` of the live bytes.
    pub fn narrow(&mut self, range: Range<usize>) {
        self.truncate(range.end);
        self.consume(range.start);
    }

    /// Forgets the live bytes; the room is whole again.
    pub fn clear(&mut self) {
        self.start = HEADROOM.min(self.bytes.len());
        self.end = self.start;
    }

    /// Payload bytes that the buffer can hold in all.
    pub fn capacity(&self) -> usize {
        self.bytes.len().saturating_sub(HEADROOM + TAILROOM)
    }

    /// Lets `fill` write behind the live bytes, tail room left out; it answers how many bytes it wrote.
    pub fn fill_with(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let written = fill(self.spare_mut());
        self.grew(written);
        written
    }

    /// Where a read may put its bytes: everything behind the live ones but the tail room.
    pub(super) fn spare_mut(&mut self) -> &mut [u8] {
        let to = self.end + self.room();
        &mut self.bytes[self.end..to]
    }

    /// `n` bytes were put into `spare_mut`.
    pub(super) fn grew(&mut self, n: usize) {
        self.end += n.min(self.room());
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let payload = self.capacity();
        let Some(class) = CLASSES.iter().position(|class| *class == payload) else { return };
        let bytes = std::mem::take(&mut self.bytes);
        // At thread exit the list may be gone; then the allocator takes the buffer.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free[class].len() < KEPT_MAX[class]
            {
                free[class].push(bytes);
            }
        });
    }
}

impl std::fmt::Debug for Segment {
    /// Sizes only: the bytes may be somebody's prompt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({} of {})", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_fits_around_a_full_read() {
        let mut segment = Segment::with_room(READ_BYTES_MIN);
        let room = segment.spare_mut().len();
        assert_eq!(room, READ_BYTES_MIN);
        segment.grew(room);
        assert!(segment.prepend(b"ffffffff\r\n"));
        segment.extend(b"\r\n0\r\n\r\n");
        assert_eq!(segment.len(), READ_BYTES_MIN + 17);
    }

    #[test]
    fn narrow_keeps_the_middle_and_clear_restores_the_room() {
        let mut segment = Segment::copy_of(b"0123456789");
        segment.narrow(2..5);
        assert_eq!(segment.live(), b"234");
        segment.clear();
        assert_eq!(segment.room(), segment.capacity());
    }

    #[test]
    fn no_buffer_takes_nothing() {
        let mut none = Segment::none();
        assert_eq!((none.room(), none.capacity(), none.spare_mut().len(), none.live()), (0, 0, 0, &b""[..]));
        none.clear();
        none.grew(5);
        none.extend(b"");
        assert!(none.is_empty() && !none.prepend(b"a"));
    }

    #[test]
    fn buffers_are_reused() {
        let first = Segment::with_room(READ_BYTES_MIN).bytes.as_ptr();
        assert_eq!(Segment::with_room(READ_BYTES_MIN).bytes.as_ptr(), first);
    }
}
