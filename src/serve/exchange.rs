//! **The story of one exchange**, from a request's head to the end of its answer:
//! table, door, caller, gate, body, peek, route, course, settle, record.
//!
//! Every phase and its outcome is matched here; each phase decides in a function of its own.

use super::{
    answer::{self, Reply},
    attempt::Answered,
    body::{self, Body, Reading, Unread},
    client::Client,
    course::{Route, course},
    gate::{self, Door},
    models,
    relay::{self, Outcome, Relayed},
    shard::Shard,
    watch::watched,
};
use crate::{
    auth,
    base::{CallerSlot, Dialect, Failure, Kind, Mono, Origin, Span, UpstreamSlot},
    meter::Metered,
    rt::{Outbox, Runtime},
    table::Table,
    telemetry::{Client as ClientName, Core, Ending, Late, Record, RequestId, Text},
    upstream::{Demand, affinity::conversation, fit::BYTES_USUAL},
    wire::{RequestHead, Version},
};
use std::{future::pending, sync::Arc};

/// How long a client may take in what it was sent, before the connection's end shows it that no more comes. A body that
/// fails takes with it what its reader has not fetched yet: Claude Code lost a finished block so, on a busy machine.
const TAKE_IN_MAX: Span = Span::from_ms(250);

/// What becomes of the client's connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    Next,
    /// It ends, once the client has read what it was sent.
    Close,
    /// It ends at once: the client has left, or must see that the answer is broken.
    Drop,
    /// It is reset: only so can a client see that an answer without framing is broken.
    Abort,
}

/// Why an exchange ends without an upstream's answer.
pub enum Stop {
    /// It failed; the client is told.
    Failed(Failure),
    /// The client left first.
    ClientGone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

/// What is known of an exchange while it runs.
pub struct Story {
    /// The configuration it began under.
    pub table: Arc<Table>,
    /// When its head was complete.
    pub started: Mono,
    /// When the client's patience ends: by then it must have the head of an answer.
    pub until: Mono,
    /// What the log will tell.
    pub record: Record,
    /// Where the record goes; `None` once it has gone there.
    core: Option<Arc<Core>>,
}

/// One exchange. Its record is finished on every way out.
pub async fn exchange<R: Runtime>(shard: &Shard<R>, client: &mut Client<R::Outbox>, listener: usize) -> After {
    let mut story = Story::begin(shard, client);
    let in_flight = shard.core.counters.exchanges.hold();
    let after = match tell(shard, client, listener, &mut story).await {
        Ok(after) => after,
        Err(Stop::ClientGone) => {
            story.client_left();
            After::Drop
        }
        Err(Stop::Failed(failure)) => {
            story.fails(failure.kind);
            // A body that was not read to its end is in the way of the next request.
            let close = client.owes_body || !story.may_go_on(shard, client);
            match answer::fail(&shard.rt, client, &mut story, &failure, close).await {
                true if close => After::Close,
                true => After::Next,
                false => After::Drop,
            }
        }
    };
    drop(in_flight);
    story.end(shard);
    after
}

async fn tell<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    listener: usize,
    story: &mut Story,
) -> Result<After, Stop> {
    let table = Arc::clone(&story.table);
    let door = gate::door(&client.head, client.head_bytes.live(), table.listeners.get(listener))?;
    if door == Door::Hello {
        return reply(shard, client, story, "").await;
    }
    let fields = answer::fields(&client.head, client.head_bytes.live());
    let caller = auth::identify(&table, fields, shard.rt.wall())?;
    story.called_by(&table, caller);
    match door {
        Door::Hello | Door::Messages | Door::CountTokens => {}
        Door::Other => gate::pass_through(&table, caller, client.head.path(client.head_bytes.live()))?,
        Door::Models | Door::Model => {
            let list = models::answer(&table, &shard.live(), caller, &client.head, client.head_bytes.live())?;
            return reply(shard, client, story, &list).await;
        }
    }
    let announced = gate::body_size(&client.head, table.bounds.body_bytes_max)?;
    let claim = shard.claim(announced, table.bounds.bodies_bytes_max).ok_or_else(body::bodies_full)?;
    let reading = Reading {
        peek: door.peeks(),
        bytes_max: table.bounds.body_bytes_max,
        until: shard.rt.now().after(table.patience.body),
    };
    let mut body = match body::read(&shard.rt, client, claim, &reading).await {
        Ok(body) => body,
        Err(Unread::ClientGone) => return Err(Stop::ClientGone),
        Err(Unread::Refused(failure)) => return Err(Stop::Failed(failure)),
    };
    story.has_body(&body, shard.rt.now());
    story.until = shard.rt.now().after(patience(&table, &client.head, client.head_bytes.live()));
    let request = (&*client.head, client.head_bytes.live());
    let route = route(&table, caller, door, request, &body, story)?;
    let relayed = course(shard, client, (door, route), &mut body, story).await?;
    settle(shard, client, &relayed, story).await
}

/// What the log says of the relay, and what becomes of the client's connection.
async fn settle<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    relayed: &Relayed,
    story: &mut Story,
) -> Result<After, Stop> {
    let goes_on = if relayed.closes { After::Close } else { After::Next };
    // Who would take the close for the end must see a reset.
    let breaks = if relayed.ends_by_close { After::Abort } else { After::Drop };
    match relayed.outcome {
        Outcome::Complete => {
            story.record.ending = Ending::Complete;
            Ok(goes_on)
        }
        Outcome::Untold(kind) => Err(Stop::Failed(relay::broke(kind, story))),
        Outcome::Early(_) => Err(Stop::Failed(relay::broke(Kind::AnswerUnusable, story))),
        Outcome::Told(kind) => {
            story.fails(kind);
            Ok(goes_on)
        }
        Outcome::Cut(kind) => {
            story.fails(kind);
            shard.core.counters.late(Late::Cut).add(1);
            let until = shard.rt.now().after(TAKE_IN_MAX);
            let _ = watched(&shard.rt, &mut client.inbound, until, pending::<()>()).await;
            Ok(breaks)
        }
        Outcome::ClientGone => {
            story.client_left();
            Ok(breaks)
        }
        Outcome::ClientStalled => {
            story.fails(Kind::ClientStalled);
            Ok(After::Abort)
        }
    }
}

/// How long the client waits for the head of an answer: as the configuration has it, or less if the client says so.
fn patience(table: &Table, head: &RequestHead, bytes: &[u8]) -> Span {
    let said =
        head.field(bytes, "x-stainless-timeout").and_then(|seconds| std::str::from_utf8(seconds).ok()?.parse().ok());
    let said = said.filter(|seconds| *seconds > 0).map_or(Span(u64::MAX), Span::from_secs);
    table.patience.first_byte.min(said)
}

/// Where the request may go.
fn route(
    table: &Table,
    caller: CallerSlot,
    door: Door,
    request: (&RequestHead, &[u8]),
    body: &Body,
    story: &mut Story,
) -> Result<Route, Failure> {
    if !door.peeks() {
        let closed = || {
            Failure::new(
                Kind::UpstreamsDenied,
                "no upstream is open to your key. Ask the operator which ones your team may use.",
            )
        };
        return table.passthrough_upstream(caller).map(Route::Fixed).ok_or_else(closed);
    }
    let peeked = body.peeked.as_ref();
    let Some(model) = peeked.and_then(|peeked| peeked.model.as_ref()) else {
        return Err(Failure::new(
            Kind::BodyUnreadable,
            "the request's body names no `model`. Add one, for example `claude-sonnet-5`.",
        ));
    };
    story.record.model = Text::new(model.text.as_bytes());
    let plan = table.resolve(caller, &model.text).map_err(|refusal| table.refuse(caller, &model.text, refusal))?;
    let demand = Demand {
        input: body.bytes / BYTES_USUAL,
        output_max: peeked.and_then(|peeked| peeked.max_tokens).unwrap_or_default(),
        tools: peeked.is_some_and(|peeked| peeked.has_tools),
        thinking: peeked.is_some_and(|peeked| peeked.has_thinking),
        ..Demand::default()
    };
    let (head, bytes) = request;
    let session = head.field(bytes, "x-claude-code-session-id");
    let user_id = peeked.and_then(|peeked| peeked.metadata_user_id.as_deref());
    let conversation = conversation(caller, session, user_id);
    story.record.conversation = conversation.map_or(0, |conversation| conversation.0);
    let off = head.field(bytes, "x-forebay-fallback").is_some_and(|word| word.eq_ignore_ascii_case(b"off"));
    let allowed = table.caller(caller).is_some_and(|caller| caller.fallback);
    let fallback = allowed && !off && table.model(plan.model).is_some_and(|model| model.fallback);
    Ok(Route::Model { plan, demand, conversation, fallback })
}

/// Sends an answer of forebay's own.
async fn reply<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    story: &mut Story,
    json: &str,
) -> Result<After, Stop> {
    let close = client.owes_body || !story.may_go_on(shard, client);
    let reply = Reply {
        status: 200,
        should_retry: None,
        retry_after_s: None,
        reason: "",
        origin: Origin::Gateway,
        allow: "",
        json,
        close,
    };
    match answer::send(&shard.rt, client, story, &reply).await {
        true if close => Ok(After::Close),
        true => Ok(After::Next),
        false => Err(Stop::ClientGone),
    }
}

impl Story {
    /// The beginning: a request's head has come, or something that should have been one.
    pub fn begin<R: Runtime>(shard: &Shard<R>, client: &Client<R::Outbox>) -> Story {
        let table = shard.table();
        let (started, at) = (shard.rt.now(), shard.rt.wall());
        let mut record = Record::new(at, RequestId::new(at, shard.rng.borrow_mut().draw()), shard.worker);
        let bytes = client.head_bytes.live();
        record.generation = table.generation;
        record.method = Text::new(client.head.method.of(bytes));
        record.path = Text::new(client.head.path(bytes));
        record.client = ClientName::of(client.head.field(bytes, "user-agent").unwrap_or_default());
        Story { until: started, table, started, record, core: Some(Arc::clone(&shard.core)) }
    }

    /// Whether the connection may carry another exchange after this one.
    pub fn may_go_on<R: Runtime>(&self, shard: &Shard<R>, client: &Client<R::Outbox>) -> bool {
        // An HTTP/1.0 client would have to be told that the connection stays; it is simpler to let it come again.
        client.head.keep_alive && client.head.version == Version::Http11 && !shard.is_draining()
    }

    /// The exchange fails.
    pub fn fails(&mut self, kind: Kind) {
        let row = kind.row();
        self.record.origin = Some(row.origin);
        self.record.reason = row.reason;
        self.record.ending = match row.origin {
            Origin::Upstream => Ending::Broken,
            Origin::Client | Origin::Gateway => Ending::Refused,
        };
    }

    /// The answer is that of an upstream that was asked before others: what is told of it, and the log, name it.
    pub fn answered_by(&mut self, slot: UpstreamSlot) {
        let Some(upstream) = self.table.upstream(slot) else { return };
        let tried = self.record.tried.iter().flatten().find(|attempt| attempt.upstream == slot);
        let place = tried.and_then(|attempt| {
            (0..upstream.pool_len()).find(|at| self.table.credential_slot(slot, *at) == Some(attempt.credential))
        });
        let credential = place.and_then(|at| upstream.credentials.get(at));
        self.record.credential = credential.map(|credential| Arc::clone(&credential.name));
        self.record.upstream = Some(Arc::clone(&upstream.name));
        self.record.upstream_slot = Some(slot);
    }

    /// The client left before the end.
    pub fn client_left(&mut self) {
        let row = Kind::ClientGone.row();
        self.record.origin = Some(row.origin);
        self.record.reason = row.reason;
        self.record.ending = Ending::ClientGone;
        if self.record.status == 0 {
            self.record.status = 499;
        }
    }

    /// The end: the record goes to the counters and to the log.
    pub fn end<R: Runtime>(mut self, shard: &Shard<R>) {
        self.record.duration_us = shard.rt.now().since(self.started).as_us();
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(core) = self.core.take() {
            core.finish(self.record.clone());
        }
    }

    /// The head of an answer has come. True when its body is to be read as events.
    pub fn note_answer<O: Outbox>(&mut self, answered: &Answered<O>, now: Mono) -> bool {
        let field = |name| answered.head.field(answered.bytes.live(), name);
        let record = &mut self.record;
        record.status = answered.head.status;
        record.overhead_us += now.since(answered.arrived).as_us();
        record.first_byte_us = now.since(self.started).as_us();
        if answered.head.status >= 400 {
            record.origin = Some(Origin::Upstream);
            record.reason = "upstream_answer";
        }
        let events = field("content-type").and_then(|kind| kind.get(..17));
        record.stream = events.is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
        record.stream && field("content-encoding").is_none_or(|coding| coding == b"identity")
    }

    /// What the answer used.
    pub fn used(&mut self, metered: &Metered) {
        self.record.counts = metered.usage.counts;
        self.record.counts_flags = metered.flags.bits();
        self.record.model_served = metered.model;
    }

    fn called_by(&mut self, table: &Table, caller: CallerSlot) {
        self.record.caller = table.caller(caller).map(|caller| Arc::clone(&caller.name));
        self.record.team = table.team_of(caller).map(|team| Arc::clone(&team.name));
    }

    fn has_body(&mut self, body: &Body, now: Mono) {
        self.record.bytes_in = body.bytes;
        self.record.body_us = now.since(self.started).as_us();
    }
}

impl Drop for Story {
    /// Without an end there was a panic; the log tells of that exchange too.
    fn drop(&mut self) {
        if self.core.is_some() {
            self.fails(Kind::Internal);
            if self.record.status == 0 {
                self.record.status = Kind::Internal.status(Dialect::Anthropic);
            }
            self.finish();
        }
    }
}
