//! The events of one stream on its way: what can be sent is whole events, and how far they have come decides how a break
//! is told. No I/O.

use crate::{
    base::{
        Mono, Span,
        bounds::{EVENT_BYTES_MAX, STREAM_READ_BYTES_MAX},
    },
    dialect::{
        anthropic::{Fault, LATE, Progress},
        late::{Moment, Telling, telling},
    },
    meter::Tap,
    rt::Segment,
    wire::EventScanner,
};

/// The events of a stream, as far as they have come.
#[derive(Default)]
pub struct Events {
    scanner: EventScanner,
    progress: Progress,
    /// The beginning of an event whose end has not come.
    pub partial: Option<Segment>,
    /// A part of an event has been sent: the output does not stand at a border.
    split: bool,
    /// How many have come.
    pub count: u64,
    /// Of them, those that are no `ping`.
    telling: u64,
}

impl Events {
    /// Content has come: the answer can no longer be another's.
    pub fn are_committed(&self) -> bool {
        self.progress.committed || self.split
    }

    /// What an error event told that came before any content.
    pub fn early_fault(&self) -> Option<Fault> {
        self.progress.fault.filter(|_| !self.are_committed())
    }

    /// Whether an event of forebay's own can go out now: the output stands at a border, and more is to come.
    pub fn can_ping(&self) -> bool {
        !self.split && !self.progress.ended
    }

    /// Whether the client can be told of a break inside the stream, and whether it has to be.
    pub fn told(&self) -> Telling {
        let moment = match (self.split, self.progress) {
            (_, Progress { ended: true, .. }) => Moment::Ended,
            (true, _) => Moment::MidEvent,
            (false, Progress { stop_told: true, .. }) => Moment::AfterStop,
            (false, Progress { block_finished: true, .. }) => Moment::AfterBlock,
            (false, _) => Moment::BeforeBlock,
        };
        telling(LATE, moment)
    }

    /// At the end of the upstream's bytes: whether they were a whole stream.
    pub fn are_whole(&mut self) -> bool {
        let mut partial = self.partial.is_some() || self.split;
        if self.scanner.finish() {
            let event = self.partial.as_ref().map_or(&[][..], Segment::live);
            self.progress.saw(self.scanner.name(), event);
            self.count += 1;
            partial = false;
        }
        !partial && self.progress.ended
    }

    /// Takes payload in, lets `tap` read along, and gives out what can be sent: whole events, or what is too long to wait
    /// for.
    pub fn take(&mut self, segment: Segment, mut tap: Option<&mut Tap>) -> Option<Segment> {
        let held = self.partial.as_ref().map_or(0, Segment::len);
        let mut all = match self.partial.take() {
            None => segment,
            Some(partial) => append(partial, &segment),
        };
        let (mut at, mut border) = (held, 0);
        while let Some(end) = self.scanner.next(all.live(), at) {
            // Of an event that went out in parts there is only the end here, which tells nothing.
            let event =
                if self.split && border == 0 { &[][..] } else { all.live().get(border..end).unwrap_or_default() };
            self.progress.saw(self.scanner.name(), event);
            if let Some(tap) = &mut tap {
                tap.event(self.scanner.name(), event);
            }
            self.count += 1;
            self.telling += u64::from(self.scanner.name() != b"ping");
            (at, border) = (end, end);
        }
        if border == 0 && all.len() <= EVENT_BYTES_MAX {
            self.partial = Some(all);
            return None;
        }
        if border == 0 {
            if let Some(tap) = &mut tap {
                tap.part(self.scanner.name(), all.live());
            }
            self.split = true;
            return Some(all);
        }
        self.split = false;
        if border < all.len() {
            self.partial = Some(Segment::copy_of(all.live().get(border..).unwrap_or_default()));
            all.truncate(border);
        }
        Some(all)
    }
}

/// Whether a stream keeps the pace that the operator asks for.
pub struct Pace {
    /// Events a minute; zero asks for nothing.
    least: u32,
    /// When the minute began, and how many events had come then.
    since: Option<(Mono, u64)>,
}

impl Pace {
    /// At least `least` events a minute.
    pub fn new(least: u32) -> Pace {
        Pace { least, since: None }
    }

    /// Whether a minute has gone by with fewer. The first one begins with the first content.
    pub fn is_too_slow(&mut self, events: Option<&Events>, now: Mono) -> bool {
        let Some(events) = events.filter(|events| self.least > 0 && events.are_committed()) else { return false };
        let (since, had) = *self.since.get_or_insert((now, events.telling));
        if now.since(since) < Span::from_secs(60) {
            return false;
        }
        self.since = Some((now, events.telling));
        events.telling - had < u64::from(self.least)
    }
}

/// `more` behind `held`, in a buffer that has room for nearly every event.
pub fn append(mut held: Segment, more: &Segment) -> Segment {
    if held.room() < more.len() {
        let mut larger = Segment::with_room((held.len() + more.len()).max(STREAM_READ_BYTES_MAX));
        larger.extend(held.live());
        held = larger;
    }
    held.extend(more.live());
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(events: &mut Events, bytes: &[u8]) -> Option<Vec<u8>> {
        events.take(Segment::copy_of(bytes), None).map(|segment| segment.live().to_vec())
    }

    #[test]
    fn only_whole_events_go_out() {
        let mut events = Events::default();
        assert_eq!(taken(&mut events, b"event: a\ndata: 1\n\nevent: b\nda").unwrap(), b"event: a\ndata: 1\n\n");
        assert_eq!(taken(&mut events, b"ta: "), None);
        assert_eq!(taken(&mut events, b"2\n\n").unwrap(), b"event: b\ndata: 2\n\n");
        assert_eq!((events.count, events.partial.is_none()), (2, true));
    }

    #[test]
    fn what_is_too_long_to_wait_for_goes_in_parts_and_then_a_break_cannot_be_told() {
        let mut events = Events::default();
        assert_eq!(taken(&mut events, b"event: message_start\n\n").unwrap().len(), 22);
        assert_eq!(events.told(), Telling::Event);
        assert_eq!(taken(&mut events, &[b'x'; EVENT_BYTES_MAX]), None);
        assert_eq!(taken(&mut events, b"y").unwrap().len(), EVENT_BYTES_MAX + 1);
        assert_eq!(events.told(), Telling::Silence, "in the middle of an event");
        assert_eq!(taken(&mut events, b"\n\n").unwrap(), b"\n\n");
        assert_eq!(events.told(), Telling::Event);
    }

    #[test]
    fn a_stream_that_only_drips_is_too_slow() {
        let at = |secs| Mono::default().after(Span::from_secs(secs));
        let (mut events, mut pace) = (Events::default(), Pace::new(2));
        assert!(!pace.is_too_slow(Some(&events), at(0)));
        assert!(!pace.is_too_slow(Some(&events), at(500)), "nothing has come, which is the idle limit's business");
        events.take(Segment::copy_of(b"event: content_block_delta\n\n"), None);
        assert!(!pace.is_too_slow(Some(&events), at(500)));
        events.take(Segment::copy_of(b"event: a\n\nevent: b\n\n"), None);
        assert!(!pace.is_too_slow(Some(&events), at(560)));
        events.take(Segment::copy_of(b"event: a\n\nevent: ping\n\nevent: ping\n\n"), None);
        assert!(!pace.is_too_slow(Some(&events), at(600)), "the minute is not over");
        assert!(pace.is_too_slow(Some(&events), at(620)), "pings do not count");
        assert!(!Pace::new(0).is_too_slow(Some(&events), at(9_999)));
    }

    #[test]
    fn how_a_break_is_told_depends_on_how_far_it_came() {
        let mut events = Events::default();
        events.take(Segment::copy_of(b"event: content_block_stop\n\n"), None);
        assert_eq!(events.told(), Telling::Silence);
        events.take(Segment::copy_of(b"event: message_delta\n\n"), None);
        assert_eq!(events.told(), Telling::Stop);
        events.take(Segment::copy_of(b"event: message_stop\n\n"), None);
        assert_eq!(events.told(), Telling::Complete);
        assert!(events.are_whole());
    }
}
