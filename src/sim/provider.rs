//! A simulated upstream at work: it reads requests with its own eyes, answers by their scripts, and writes down what it
//! saw.

use super::{
    message::{Message, Reader, Side},
    pipe::PipeOutbox,
    plan::{Ill, Illness, Plan},
    request::Asked,
    script::{Reads, Script, Then},
    world::World,
};
use crate::{
    base::{Mono, Span},
    rt::{Inbox, Outbox, Read, Runtime, Segment, Socket},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

/// One request as an upstream saw it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Which upstream.
    pub site: usize,
    /// On which connection of the world.
    pub connection: u64,
    /// How many requests the connection had carried before.
    pub before: usize,
    /// Which request; `None` when it does not say, or says something unheard of.
    pub id: Option<u32>,
    /// What came; its body may be incomplete.
    pub request: Message,
    /// The raw bytes of the head.
    pub head: Vec<u8>,
    /// When its head was there.
    pub began: Mono,
    /// What it was answered.
    pub script: Rc<Script>,
    /// It was left without a byte, as if the connection had been closed before.
    pub was_stale: bool,
    /// Bytes of the script that were handed over.
    pub sent: usize,
    /// When everything was handed over; `None` if it never was.
    pub sent_at: Option<Mono>,
    /// The end of the answer and more than the answer were handed over as one piece.
    pub was_surplus: bool,
}

/// One connection as an upstream saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which upstream.
    pub site: usize,
    /// The connection of the world.
    pub connection: u64,
    /// When it came.
    pub opened: Mono,
    /// When its end was seen, or made.
    pub ended: Option<Mono>,
    /// More was sent on it than answers.
    pub had_surplus: bool,
}

/// Bytes of a request whose head never came to its end.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// Which upstream got them.
    pub site: usize,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What all upstreams saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// In the order in which they began.
    pub attempts: Vec<Attempt>,
    /// In the order in which they came.
    pub lines: Vec<Line>,
    /// What was left over when connections ended.
    pub fragments: Vec<Fragment>,
}

/// What upstreams share.
pub struct Providers {
    /// What they saw.
    pub seen: RefCell<Seen>,
    asks: HashMap<u32, Rc<Asked>>,
    ills: Vec<Option<Ill>>,
}

impl Providers {
    /// Upstreams that know how to answer what clients ask.
    pub fn new(plan: &Plan) -> Providers {
        let asks = plan.visits.iter().flat_map(|visit| &visit.asks);
        Providers {
            seen: RefCell::default(),
            asks: asks.map(|asked| (asked.id, Rc::new(asked.clone()))).collect(),
            ills: plan.sites.iter().map(|site| site.ill).collect(),
        }
    }

    /// What a request gets from a site that it comes to when it has been seen `before` times; `None` for a stranger.
    fn script(&self, id: Option<u32>, site: usize, before: usize, now: Mono) -> Option<Rc<Script>> {
        let (id, asked) = id.and_then(|id| Some((id, self.asks.get(&id)?)))?;
        let ill = self.ills.get(site).copied().flatten().filter(|ill| ill.is_now(now));
        let own = |status, then| {
            let mut script = Script::ill(id, before, status, then);
            if asked.is_head() {
                script.for_head();
            }
            Rc::new(script)
        };
        match ill.map(|ill| ill.how) {
            Some(Illness::Hangs) => Some(own(None, Then::Silence)),
            Some(Illness::Closes) => Some(own(None, Then::Close)),
            Some(Illness::Says(status)) => Some(own(Some(status), Then::Next)),
            Some(Illness::Refuses | Illness::Swallows) | None => {
                asked.scripts.get(before).or(asked.scripts.last()).cloned()
            }
        }
    }
}

/// Serves one connection to its end.
pub async fn serve(
    providers: Rc<Providers>,
    world: World,
    site: usize,
    idle_ms: Option<u64>,
    socket: Socket<PipeOutbox>,
) {
    let (connection, line) = {
        let mut seen = providers.seen.borrow_mut();
        let connection = socket.outbox.number();
        seen.lines.push(Line { site, connection, opened: world.now(), ended: None, had_surplus: false });
        (connection, seen.lines.len() - 1)
    };
    world.note("upstream: connection", site as u64, connection);
    let mut desk = Desk {
        world: world.clone(),
        inbox: socket.inbox,
        outbox: socket.outbox,
        reader: Reader::new(Side::Requests),
        raw: Vec::new(),
        is_over: false,
    };
    let mut number = 0;
    while desk.next_head(number, idle_ms).await {
        let next = answer(&providers, &mut desk, site, number, line).await;
        number += 1;
        match next {
            Then::Next => {}
            Then::Close => break,
            Then::Reset => {
                desk.outbox.abort();
                break;
            }
            Then::Silence => desk.wait_for_end().await,
        }
        if desk.is_over {
            break;
        }
    }
    world.note("upstream: connection ends", site as u64, connection);
    if desk.reader.messages.len() <= number && !desk.raw.is_empty() {
        let bytes = std::mem::take(&mut desk.raw);
        providers.seen.borrow_mut().fragments.push(Fragment { site, bytes });
    }
    if let Some(line) = providers.seen.borrow_mut().lines.get_mut(line) {
        line.ended = Some(world.now());
    }
}

/// One connection, and how far it has been read.
struct Desk {
    world: World,
    inbox: Inbox,
    outbox: PipeOutbox,
    reader: Reader,
    raw: Vec<u8>,
    is_over: bool,
}

impl Desk {
    /// Waits for the head of request `number`; false when the connection ends first, or has been idle for too long.
    async fn next_head(&mut self, number: usize, idle_ms: Option<u64>) -> bool {
        let until = idle_ms.filter(|_| number > 0).map(|ms| self.world.now().after(Span::from_ms(ms)));
        while self.reader.messages.len() <= number && !self.is_over {
            if !self.read(until).await {
                return false;
            }
        }
        !self.is_over
    }

    /// Takes in what comes; false when time is up first.
    async fn read(&mut self, until: Option<Mono>) -> bool {
        let read = match until {
            None => Some(self.inbox.next().await),
            Some(until) => crate::rt::deadline(&self.world, until, self.inbox.next()).await,
        };
        let is_in_time = read.is_some();
        if let Some(read) = read {
            self.take(read);
        }
        is_in_time
    }

    fn take(&mut self, read: Read) {
        match read {
            Read::Data(segment) => {
                self.raw.extend_from_slice(segment.live());
                self.reader.feed(segment.live(), self.world.now());
                if let Some(fault) = &self.reader.fault {
                    self.world.breach("upstreams get well-formed requests", fault.clone());
                    self.is_over = true;
                }
            }
            Read::End | Read::Failed(_) => self.is_over = true,
        }
    }

    async fn wait_for_end(&mut self) {
        while !self.is_over {
            self.read(None).await;
        }
    }

    /// Waits, but not beyond the connection's end.
    async fn pause(&mut self, ms: u64) {
        let until = self.world.now().after(Span::from_ms(ms));
        while !self.is_over && self.read(Some(until)).await {}
    }

    /// Writes, and takes in what comes meanwhile where `reads`; false when the connection has ended.
    async fn write(&mut self, bytes: &[u8], reads: bool) -> bool {
        let Desk { inbox, outbox, .. } = self;
        let (mut arrived, mut is_written) = (Vec::new(), None);
        {
            let mut write = pin!(outbox.write(Segment::copy_of(bytes)));
            poll_fn(|cx| {
                if let Poll::Ready((result, _)) = write.as_mut().poll(cx) {
                    is_written = Some(result.is_ok());
                    return Poll::Ready(());
                }
                if !reads {
                    return Poll::Pending;
                }
                loop {
                    match inbox.poll_next(cx) {
                        Poll::Ready(Read::Data(segment)) => arrived.push(Read::Data(segment)),
                        Poll::Ready(end) => {
                            arrived.push(end);
                            return Poll::Ready(());
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
        }
        for read in arrived {
            self.take(read);
        }
        is_written == Some(true) && !self.is_over
    }
}

/// Answers request `number` of the connection, and says what comes then.
async fn answer(providers: &Providers, desk: &mut Desk, site: usize, number: usize, line: usize) -> Then {
    let Some(request) = desk.reader.messages.get(number).cloned() else { return Then::Close };
    let id = request.field("x-sim-id").and_then(|id| id.parse().ok()).filter(|id| providers.asks.contains_key(id));
    let (at, script) = {
        let mut seen = providers.seen.borrow_mut();
        let before = seen.attempts.iter().filter(|attempt| attempt.id == id).count();
        let script = providers.script(id, site, before, desk.world.now());
        let was_stale = script.as_ref().is_some_and(|script| script.is_stale && number > 0);
        let played = script.clone().unwrap_or_else(|| Rc::new(Script::ill(0, 0, None, Then::Close)));
        seen.attempts.push(Attempt {
            site,
            connection: desk.outbox.number(),
            before: number,
            id,
            request,
            head: std::mem::take(&mut desk.raw),
            began: desk.world.now(),
            script: played,
            was_stale,
            sent: 0,
            sent_at: None,
            was_surplus: false,
        });
        (seen.attempts.len() - 1, script.filter(|_| !was_stale))
    };
    desk.world.note("upstream: request", u64::from(id.unwrap_or(0)), desk.outbox.number());
    let Some(script) = script else {
        return if desk.world.chance(2) { Then::Close } else { Then::Reset };
    };
    if script.reads == Reads::Whole {
        while !desk.reader.messages.get(number).is_some_and(|message| message.is_complete) && !desk.is_over {
            desk.read(None).await;
        }
    }
    if desk.is_over {
        return Then::Close;
    }
    play(providers, desk, &script, at, line).await;
    if script.reads == Reads::Head && script.then == Then::Next {
        while !desk.reader.messages.get(number).is_some_and(|message| message.is_complete) && !desk.is_over {
            desk.read(None).await;
        }
    }
    if let (Some(attempt), Some(now)) =
        (providers.seen.borrow_mut().attempts.get_mut(at), desk.reader.messages.get(number))
    {
        attempt.request = now.clone();
    }
    script.then
}

/// Writes what the script says.
async fn play(providers: &Providers, desk: &mut Desk, script: &Script, at: usize, line: usize) {
    let mut from = 0;
    let stops = [script.pause.map_or(0, |(at, _)| at.min(script.written)), script.written];
    for (turn, stop) in stops.into_iter().enumerate() {
        while from < stop && !desk.is_over {
            let to =
                if desk.world.chance(2) { stop } else { from + 1 + desk.world.roll((stop - from) as u64) as usize };
            let bytes = script.wire.get(from..to).unwrap_or_default();
            if !desk.write(bytes, script.reads != Reads::HeadOnly).await {
                desk.is_over = true;
                return;
            }
            from = to;
            if let Some(attempt) = providers.seen.borrow_mut().attempts.get_mut(at) {
                attempt.was_surplus |= attempt.sent < script.body_end && from > script.body_end;
                attempt.sent = from;
            }
        }
        if let (0, Some((_, ms))) = (turn, script.pause) {
            desk.pause(ms).await;
        }
    }
    if desk.is_over {
        return;
    }
    let mut seen = providers.seen.borrow_mut();
    if let Some(attempt) = seen.attempts.get_mut(at) {
        attempt.sent_at = Some(desk.world.now());
    }
    if script.written > script.body_end
        && let Some(line) = seen.lines.get_mut(line)
    {
        line.had_surplus = true;
    }
}
