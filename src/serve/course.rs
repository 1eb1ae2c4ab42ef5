//! The course of one request over its candidates: who is asked, what each answer means, and who is asked next, until an
//! answer is the client's. Once a byte of an answer has left for the client, nobody else is asked (R44).
//!
//! Choosing and judging are `upstream`'s; asking is `attempt`'s; passing on is `relay`'s.

use super::{
    attempt::{self, Answered, Order, Waits},
    body::Body,
    client::Client,
    exchange::{Stop, Story},
    gate::Door,
    outcome::{self, Failures},
    relay::{self, Outcome, Relayed, Terms},
    shard::Shard,
    splice::{drop_thinking, name_model},
    watch::{Watched, watched},
};
use crate::{
    base::{Kind, Mono, Span, UpstreamSlot, Wall},
    rt::{Outbox, Runtime},
    table::{Plan, Table, Upstream, Verdict},
    telemetry::Attempt,
    upstream::{
        self, Candidate, Choice, Conversation, Demand, Effect, Health, Ruling, Sent, Spent, Told, Tried, View, choose,
        fit::{has_hour_cache, has_images},
    },
};
use std::{future::pending, sync::Arc};

/// How long a stream's head may take, from the last byte of the request, while another candidate could be asked instead.
const HANG_MAX: Span = Span::from_secs(120);
/// How often the last room of a credential may go to another core before it is asked without.
const CLAIMS_MAX: u8 = 3;

/// Where a request may go.
pub enum Route {
    /// Where its model is to be had.
    Model {
        /// The targets.
        plan: Plan,
        /// What it demands of a target.
        demand: Demand,
        /// The conversation that it belongs to, if it says so.
        conversation: Option<Conversation>,
        /// A failure of one candidate may lead to the next.
        fallback: bool,
    },
    /// One upstream and its first credential, to which what lies behind a passed-through path belongs.
    Fixed(UpstreamSlot),
}

/// The course of one request.
struct Course<'a, O: Outbox> {
    door: Door,
    route: Route,
    body: &'a mut Body,
    health: Arc<Health>,
    tried: Tried,
    failures: Failures,
    /// Chance, where nothing else decides; the same for the whole course.
    draw: u64,
    /// The time spent in waiting for room.
    waited: Span,
    /// The request under way, as the limits of its credential see it.
    sent: Option<Sent>,
    /// The request asks for a prompt cache of an hour.
    long: bool,
    /// The model's name as the client wrote it, once another one stands in its place.
    wrote: Option<Vec<u8>>,
    /// The answer at hand.
    answer: Option<Answered<O>>,
    /// What its head told of limits.
    told: Told,
    /// The best of the answers that are not the client's, in case nobody has one that is.
    kept: Option<Box<Answered<O>>>,
}

/// Asks one candidate after the other, and passes the answer on.
///
/// # Errors
/// `Stop`, with the failure that the client is told when no candidate's answer is its.
pub async fn course<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    (door, route): (Door, Route),
    body: &mut Body,
    story: &mut Story,
) -> Result<Relayed, Stop> {
    let mut course = Course {
        door,
        route,
        body,
        health: shard.upstreams(),
        tried: Tried::default(),
        failures: Failures::default(),
        draw: shard.rng.borrow_mut().draw(),
        waited: Span::ZERO,
        sent: None,
        long: false,
        wrote: None,
        answer: None,
        told: Told::default(),
        kept: None,
    };
    course.health.budget.note_request(shard.rt.now());
    course.look_closer(story);
    let mut claims = 0;
    loop {
        let now = shard.rt.now();
        let candidate = match course.next(story, now) {
            Choice::Ask(candidate) => candidate,
            Choice::Wait(until) => {
                wait(shard, client, until.min(story.until)).await?;
                course.waited.0 += shard.rt.now().since(now).0;
                continue;
            }
            Choice::Nobody { room_at } => return Box::pin(course.give_up(shard, client, room_at, story)).await,
        };
        claims += 1;
        if !course.claim(&candidate, claims > CLAIMS_MAX, story, now, shard.rt.wall()) {
            continue;
        }
        let asking = course.asking(candidate, story, now);
        if let Some(relayed) = course.ask(shard, client, &asking, story).await? {
            return Ok(relayed);
        }
    }
}

/// One candidate, and the circumstances in which it is asked.
struct Asking {
    candidate: Candidate,
    /// Somebody else could be asked if it fails.
    more: bool,
    /// The conversation's thinking is signed by another family of providers.
    crossed: bool,
    /// The conversation's cache is elsewhere: about so much of it is lost, as a model counts it.
    leaves: Option<u64>,
    began: Mono,
}

impl<O: Outbox> Course<'_, O> {
    fn view<'v>(&'v self, story: &'v Story) -> Option<View<'v>> {
        self.view_as(story, &self.body.peeked.as_ref()?.model.as_ref()?.text)
    }

    /// The same where the body has gone.
    fn view_as<'v>(&'v self, story: &'v Story, model: &'v str) -> Option<View<'v>> {
        let Route::Model { plan, demand, conversation, fallback } = &self.route else { return None };
        Some(View {
            table: &story.table,
            health: &self.health,
            plan: *plan,
            model,
            demand: *demand,
            bytes: self.body.bytes,
            conversation: *conversation,
            fallback: *fallback,
            bound: false,
            counts_only: self.door == Door::CountTokens,
            waited: self.waited,
        })
    }

    /// Looks into the body for what only matters where there is a choice.
    fn look_closer(&mut self, story: &Story) {
        let Route::Model { plan, demand, conversation, .. } = &mut self.route else { return };
        let pools = plan.numbered(&story.table).filter_map(|(target, _)| story.table.upstream(target.upstream));
        if pools.map(Upstream::pool_len).sum::<usize>() < 2 {
            *conversation = None;
            return;
        }
        let segments = || self.body.segments.iter().map(crate::rt::Segment::live);
        let Some(model) = self.body.peeked.as_ref().and_then(|peeked| peeked.model.as_ref()) else { return };
        let table = &story.table;
        let is_blind = plan.numbered(table).any(|(target, _)| !table.can(plan, target, &model.text).images);
        demand.images = is_blind && has_images(segments());
        self.long = conversation.is_some() && has_hour_cache(segments());
    }

    fn next(&self, story: &Story, now: Mono) -> Choice {
        let out_of_time = !self.tried.is_empty() && now >= story.until;
        match (&self.route, self.view(story)) {
            _ if out_of_time => Choice::Nobody { room_at: None },
            (Route::Fixed(slot), _) => fixed(story, *slot, &self.tried),
            (_, Some(view)) => choose(&view, &self.tried, now, self.draw),
            (Route::Model { .. }, None) => Choice::Nobody { room_at: None },
        }
    }

    /// Takes what the request needs from the credential's limits; false when its last room went to somebody else, unless
    /// it is to be asked `anyway`.
    fn claim(&mut self, candidate: &Candidate, anyway: bool, story: &Story, now: Mono, wall: Wall) -> bool {
        let Some(state) = self.health.credential(candidate.credential).map(Arc::clone) else { return true };
        let limits = story.table.credential_limits(candidate.upstream, candidate.place);
        let (class, need) = (candidate.class, candidate.need);
        self.sent = if anyway || candidate.suspect {
            Some(Sent::begin(state, class, need, limits, now, wall))
        } else {
            Sent::claim(state, class, need, limits, now, wall).ok()
        };
        self.sent.is_some()
    }

    fn asking(&self, candidate: Candidate, story: &Story, began: Mono) -> Asking {
        let mut tried = self.tried;
        tried.note(&candidate, Spent::Candidate);
        let more = self.view(story).is_some_and(|view| upstream::choose::left(&view, &tried, began));
        let crossed = self.view(story).is_some_and(|view| upstream::choose::crossed(&view, &candidate, began));
        let leaving = self.view(story).and_then(|view| upstream::choose::leaving(&view, &candidate, began));
        Asking { candidate, more, crossed, leaves: leaving.map(|leaving| leaving.llm_tokens), began }
    }

    /// Asks one candidate; `None` when nothing of what it said is the client's, so that another may be asked.
    async fn ask<R: Runtime<Outbox = O>>(
        &mut self,
        shard: &Shard<R>,
        client: &mut Client<O>,
        asking: &Asking,
        story: &mut Story,
    ) -> Result<Option<Relayed>, Stop> {
        match self.send(shard, client, asking, story).await {
            Ok(answered) => self.answer = Some(answered),
            Err(Stop::ClientGone) => {
                self.hold_against(asking, Effect::Nothing, shard.rt.now());
                return Err(Stop::ClientGone);
            }
            Err(Stop::Failed(failure)) => {
                self.told = Told::default();
                self.leave(asking, (0, failure.kind.row().reason), Effect::Upstream, story, shard.rt.now());
                self.failures.failed(failure);
                return Ok(None);
            }
        }
        let Ok(ruling) = self.judge(shard, client, asking, story).await else {
            self.hold_against(asking, Effect::Nothing, shard.rt.now());
            return Err(Stop::ClientGone);
        };
        if ruling.verdict == Verdict::Deliver {
            return Ok(self.deliver(shard, client, asking, story).await);
        }
        let status = self.answer.as_ref().map_or(0, |answered| answered.head.status);
        self.leave(asking, (status, ruling.effect.slug()), ruling.effect, story, shard.rt.now());
        self.failures.answered(status, ruling.effect, self.told.retry_after);
        outcome::keep_better(&mut self.kept, self.answer.take());
        Ok(None)
    }

    /// Sends the request, under the name that the model has there.
    async fn send<R: Runtime<Outbox = O>>(
        &mut self,
        shard: &Shard<R>,
        client: &mut Client<O>,
        asking: &Asking,
        story: &mut Story,
    ) -> Result<Answered<O>, Stop> {
        let (table, candidate) = (Arc::clone(&story.table), &asking.candidate);
        if let Route::Model { plan, .. } = &self.route {
            let target = plan.numbered(&table).find(|(_, at)| *at == candidate.target).map(|(target, _)| target);
            let asked = self.body.peeked.as_ref().and_then(|peeked| peeked.model.as_ref()).map(|model| model.text);
            let id = target.zip(asked.as_ref()).and_then(|(target, asked)| table.sent_id(plan, target, asked));
            name_model(self.body, id, &mut self.wrote);
        }
        if asking.crossed {
            story.record.dropped = story.record.dropped.saturating_add(drop_thinking(self.body));
        }
        if candidate.suspect {
            shard.core.counters.upstream(candidate.upstream).probes.add(1);
        }
        let waits = Waits { until: story.until, head: self.head_wait(asking, &table) };
        let (head, place) = ((&*client.head, client.head_bytes.live()), (candidate.upstream, candidate.place));
        let order = Order::new(&table, place, self.door, head, self.body, waits)?;
        attempt::attempt(shard, client, &order, self.body, story).await
    }

    /// How long the head of the answer may take; `None` where there is nobody else to ask, and for an answer that comes in
    /// one piece, which may take its time, unless the operator says so.
    fn head_wait(&self, asking: &Asking, table: &Table) -> Option<Span> {
        let told = table.upstream(asking.candidate.upstream).and_then(|upstream| upstream.first_byte);
        let streams = self.body.peeked.as_ref().is_some_and(|peeked| peeked.stream == Some(true));
        told.or(streams.then_some(HANG_MAX)).filter(|_| asking.more)
    }

    /// What the head of the answer means, and the beginning of its body where that matters.
    async fn judge<R: Runtime<Outbox = O>>(
        &mut self,
        shard: &Shard<R>,
        client: &mut Client<O>,
        asking: &Asking,
        story: &Story,
    ) -> Result<Ruling, Stop> {
        let unusable = Ruling { verdict: Verdict::CoolAndNext, effect: Effect::Upstream };
        let Some(answered) = &mut self.answer else { return Ok(unusable) };
        let status = answered.head.status;
        if status >= 400 {
            outcome::collect(shard, client, answered).await?;
        }
        self.told = Told::read(outcome::fields(answered), shard.rt.wall());
        if let Some(sent) = &mut self.sent {
            sent.heard(&self.told, shard.rt.now());
        }
        let beginning = answered.rest.as_ref().map_or(&[][..], |rest| rest.live());
        let rules = story.table.upstream(asking.candidate.upstream).map_or(&[][..], |upstream| &upstream.verdicts);
        if (200..300).contains(&status) && self.door.peeks() && !outcome::speaks_the_dialect(answered) {
            return Ok(unusable);
        }
        Ok(upstream::verdict::rule(rules, status, beginning))
    }

    /// Passes the answer on; `None` when it turned out to be none before anything of it was sent.
    async fn deliver<R: Runtime<Outbox = O>>(
        &mut self,
        shard: &Shard<R>,
        client: &mut Client<O>,
        asking: &Asking,
        story: &mut Story,
    ) -> Option<Relayed> {
        let answered = self.answer.as_mut()?;
        let status = answered.head.status;
        let (good, bytes) = ((200..300).contains(&status), self.body.bytes);
        let may_leave = asking.more && good && self.door.peeks();
        let terms = Terms { may_leave, metered: good && self.door == Door::Messages };
        let relayed = relay::relay(shard, client, answered, self.body, terms, story).await;
        let (effect, verdict) = match relayed.outcome {
            Outcome::Untold(Kind::Draining) | Outcome::Told(Kind::Draining) | Outcome::Cut(Kind::Draining) => {
                (Effect::Nothing, Kind::Draining.row().reason)
            }
            Outcome::Untold(kind) | Outcome::Told(kind) | Outcome::Cut(kind) => (Effect::Upstream, kind.row().reason),
            Outcome::Early(fault) => (outcome::effect_of(fault), "early_error"),
            Outcome::Complete => (Effect::Works, "delivered"),
            Outcome::ClientGone | Outcome::ClientStalled => (Effect::Works, "client_gone"),
        };
        if let Some(answered) = self.answer.take().filter(|_| relayed.reusable) {
            answered.shelve(shard, story.table.bounds.pool_idle_max);
        }
        let now = shard.rt.now();
        if let Some(sent) = self.sent.as_mut().filter(|_| terms.metered) {
            sent.finished(story.record.counts.output, now);
        }
        if good && !matches!(relayed.outcome, Outcome::Untold(_) | Outcome::Early(_)) {
            self.remember(asking, bytes, story);
            if let Some(llm_tokens) = asking.leaves {
                shard.core.counters.moved.add(1);
                shard.core.counters.moved_llm_tokens.add(llm_tokens);
            }
        }
        self.leave(asking, (status, verdict), effect, story, now);
        match relayed.outcome {
            Outcome::Untold(kind) if may_leave && kind != Kind::Draining => {
                self.failures.failed(relay::broke(kind, story));
            }
            Outcome::Early(fault) => self.failures.early(fault, story),
            _ => return Some(relayed),
        }
        None
    }

    /// Writes down how an attempt came out, and what follows from it.
    fn leave(
        &mut self,
        asking: &Asking,
        (status, verdict): (u16, &'static str),
        effect: Effect,
        story: &mut Story,
        now: Mono,
    ) {
        self.hold_against(asking, effect, now);
        let spent = match effect {
            Effect::Upstream => Spent::Upstream,
            Effect::Credential => Spent::Credential,
            Effect::Works | Effect::Nothing | Effect::Class => Spent::Candidate,
        };
        self.tried.note(&asking.candidate, spent);
        tell(story, asking, status, verdict, now);
    }

    /// What follows for the upstream and the credential.
    fn hold_against(&mut self, asking: &Asking, effect: Effect, now: Mono) {
        let sent = self.sent.take();
        outcome::apply(&self.health, &asking.candidate, effect, (sent, &self.told), (asking.began, now));
    }

    /// The conversation is warm where it was answered.
    fn remember(&self, asking: &Asking, bytes: u64, story: &Story) {
        let Route::Model { conversation: Some(_), .. } = &self.route else { return };
        if let Some(view) = self.view_as(story, "") {
            let view = View { bytes, ..view };
            upstream::choose::remember(&view, &asking.candidate, self.long, asking.crossed, asking.began);
        }
    }

    /// Nobody is left to ask: the client is told what is most use to it.
    async fn give_up<R: Runtime<Outbox = O>>(
        &mut self,
        shard: &Shard<R>,
        client: &mut Client<O>,
        room_at: Option<Mono>,
        story: &mut Story,
    ) -> Result<Relayed, Stop> {
        let kept = self.kept.take();
        let wait = room_at.map(|at| at.since(shard.rt.now()));
        if let Some(failure) = self.failures.own_answer(kept.as_ref().map(|kept| kept.head.status), wait, story) {
            return Err(Stop::Failed(failure));
        }
        match kept {
            Some(mut answered) => {
                story.answered_by(answered.slot);
                let terms = Terms { may_leave: false, metered: false };
                let relayed = relay::relay(shard, client, &mut answered, self.body, terms, story).await;
                if relayed.reusable {
                    answered.shelve(shard, story.table.bounds.pool_idle_max);
                }
                Ok(relayed)
            }
            None => Err(Stop::Failed(outcome::nobody(story))),
        }
    }
}

/// Waits for a warm credential's room, and watches the client.
async fn wait<R: Runtime>(shard: &Shard<R>, client: &mut Client<R::Outbox>, until: Mono) -> Result<(), Stop> {
    match watched(&shard.rt, &mut client.inbound, until, pending::<()>()).await {
        Watched::ClientGone => Err(Stop::ClientGone),
        Watched::Done(()) | Watched::TimeUp => Ok(()),
    }
}

/// The one candidate of a passed-through path.
fn fixed(story: &Story, slot: UpstreamSlot, tried: &Tried) -> Choice {
    match story.table.credential_slot(slot, 0) {
        Some(credential) if tried.is_empty() => Choice::Ask(Candidate {
            target: 0,
            upstream: slot,
            place: 0,
            credential,
            class: upstream::ModelClass::of(""),
            need: upstream::Need::default(),
            warm: false,
            suspect: false,
        }),
        _ => Choice::Nobody { room_at: None },
    }
}

/// Writes an attempt down in the exchange's record.
fn tell(story: &mut Story, asking: &Asking, status: u16, verdict: &'static str, now: Mono) {
    let (candidate, began) = (&asking.candidate, asking.began);
    let us = |span: Span| u32::try_from(span.as_us()).unwrap_or(u32::MAX);
    let attempt = Attempt {
        upstream: candidate.upstream,
        credential: candidate.credential,
        status,
        verdict,
        at_us: us(began.since(story.started)),
        took_us: us(now.since(began)),
    };
    if let Some(free) = story.record.tried.iter_mut().find(|place| place.is_none()) {
        *free = Some(attempt);
    }
}
