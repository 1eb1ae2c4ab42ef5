//! **The story of one exchange**, from a request's head to the end of its answer:
//! table, door, caller, gate, body, peek, plan, attempt, verdict, relay, record.
//!
//! Every phase and its outcome is matched here; each phase decides in a function of its own.

use super::{
    answer::{self, Reply},
    attempt::{self, Order},
    body::{self, Body, Reading, Unread},
    client::Client,
    gate::{self, Door},
    models, relay,
    shard::Shard,
    splice::splice,
};
use crate::{
    auth,
    base::{CallerSlot, Failure, Kind, Mono, Origin, UpstreamSlot},
    rt::{Outbox, Runtime},
    table::Table,
    telemetry::{Client as ClientName, Ending, Record, RequestId, Text},
    wire::Framing,
};
use std::sync::Arc;

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
    /// What the log will tell.
    pub record: Record,
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
            story.refuse(&failure);
            // A body that was not read to its end is in the way of the next request.
            let close = client.owes_body() || !story.may_go_on(shard, client);
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
    client.body_was_read();
    story.has_body(&body, shard.rt.now());
    let upstream = plan(&table, caller, door, &mut body, story)?;
    let order = Order::new(&table, upstream, door, &client.head, client.head_bytes.live(), &body)?;
    let answered = attempt::attempt(shard, client, &order, &mut body, story).await?;
    drop(body);
    verdict(answered.head.status, story)?;
    relay::relay(shard, client, answered, story).await
}

/// Where the request goes. An alias is put into the body here, and nowhere else is a body touched.
fn plan(
    table: &Table,
    caller: CallerSlot,
    door: Door,
    body: &mut Body,
    story: &mut Story,
) -> Result<UpstreamSlot, Failure> {
    if !door.peeks() {
        let closed = || {
            Failure::new(
                Kind::UpstreamsDenied,
                "no upstream is open to your key. Ask the operator which ones your team may use.",
            )
        };
        return table.passthrough_upstream(caller).ok_or_else(closed);
    }
    let Some(model) = body.peeked.as_ref().and_then(|peeked| peeked.model.as_ref()) else {
        return Err(Failure::new(
            Kind::BodyUnreadable,
            "the request's body names no `model`. Add one, for example `claude-sonnet-5`.",
        ));
    };
    story.record.model = Text::new(model.text.as_bytes());
    let plan = table.resolve(caller, &model.text).map_err(|refusal| table.refuse(caller, &model.text, refusal))?;
    let target = plan
        .candidates(table)
        .next()
        .ok_or_else(|| Failure::new(Kind::Internal, "a plan without a candidate. Report this."))?;
    let (upstream, at) = (target.upstream, model.at.clone());
    if let Some(id) = &target.model {
        let replaced = splice(&mut body.segments, at, format!("\"{id}\"").as_bytes());
        body.bytes = body.bytes.saturating_add_signed(replaced);
    }
    Ok(upstream)
}

/// What an answer's status means before the client sees it.
fn verdict(status: u16, story: &Story) -> Result<(), Failure> {
    match status {
        // The developer's own key was good, so this must not look like its refusal (R16).
        401 | 403 => {
            let upstream = story.record.upstream.as_deref().unwrap_or("the upstream");
            Err(Failure::new(
                Kind::CredentialRefused,
                format!(
                    "{upstream} refused (HTTP {status}) the credential that forebay holds for it; your own key is fine. The operator has to look at that credential."
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Sends an answer of forebay's own.
async fn reply<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    story: &mut Story,
    json: &str,
) -> Result<After, Stop> {
    let close = client.owes_body() || !story.may_go_on(shard, client);
    let reply = Reply {
        status: 200,
        should_retry: None,
        retry_after_s: None,
        reason: "",
        origin: Origin::Gateway,
        json,
        close,
    };
    match answer::send(&shard.rt, client, story, &reply).await {
        true if close => Ok(After::Close),
        true => Ok(After::Next),
        false => Err(Stop::ClientGone),
    }
}

impl<O: Outbox> Client<O> {
    /// Whether part of the request's body has not been read.
    fn owes_body(&self) -> bool {
        !matches!(self.head.framing, Framing::None | Framing::Length(0))
    }

    /// The body has been read to its end.
    fn body_was_read(&mut self) {
        self.head.framing = Framing::None;
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
        Story { table, started, record }
    }

    /// Whether the connection may carry another exchange after this one.
    pub fn may_go_on<R: Runtime>(&self, shard: &Shard<R>, client: &Client<R::Outbox>) -> bool {
        client.head.keep_alive && !shard.is_draining()
    }

    /// The exchange fails.
    pub fn refuse(&mut self, failure: &Failure) {
        let row = failure.kind.row();
        self.record.origin = Some(row.origin);
        self.record.reason = row.reason;
        self.record.ending = match row.origin {
            Origin::Upstream => Ending::Broken,
            Origin::Client | Origin::Gateway => Ending::Refused,
        };
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
        shard.core.finish(self.record);
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
