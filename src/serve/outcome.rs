//! What came of the candidates of one request: what is held against whom, and what the client is told when nobody's
//! answer is its.

use super::{
    attempt::Answered,
    client::Client,
    exchange::{Stop, Story},
    shard::Shard,
    watch::{Watched, watched},
};
use crate::{
    base::{Failure, Kind, Mono, Span},
    dialect::anthropic::Fault,
    rt::{Outbox, Read, Runtime, Segment},
    upstream::{Candidate, Effect, Health, Sent, Told},
    wire::{BodyDecoder, Framing},
};

/// How much of an error's body is read before it is judged, and how long that may take.
const ERROR_BYTES_MAX: usize = 16 * 1024;
const ERROR_WAIT_MAX: Span = Span::from_secs(1);
/// How long a refused credential is left alone.
const CREDENTIAL_REST: Span = Span::from_secs(300);

/// What went wrong with the candidates that were asked.
#[derive(Default)]
pub struct Failures {
    count: usize,
    /// Of them, refused for want of room or overloaded.
    busy: usize,
    /// Of them, refused because of the organisation's credential.
    refused: usize,
    /// The first one without an answer that could be passed on.
    first: Option<Failure>,
    /// The least time after which one said to come back.
    least_wait: Option<Span>,
}

impl Failures {
    /// A candidate gave no answer.
    pub fn failed(&mut self, failure: Failure) {
        self.count += 1;
        self.first.get_or_insert(failure);
    }

    /// A candidate gave an answer that is not for the client.
    pub fn answered(&mut self, status: u16, effect: Effect, retry_after: Option<Span>) {
        self.count += 1;
        self.busy += usize::from(matches!(status, 429 | 503 | 529) && effect != Effect::Credential);
        self.refused += usize::from(effect == Effect::Credential);
        if let Some(wait) = retry_after {
            self.least_wait = Some(self.least_wait.map_or(wait, |least| least.min(wait)));
        }
    }

    /// A candidate's answer was an error before it had content.
    pub fn early(&mut self, fault: Fault, story: &Story) {
        self.count += 1;
        self.busy += usize::from(matches!(fault, Fault::Room | Fault::Service));
        self.refused += usize::from(fault == Fault::Credential);
        let upstream = name(story);
        let text = format!("the upstream {upstream} began its answer with an error. Try again.");
        self.first.get_or_insert(Failure::new(Kind::AnswerUnusable, text));
    }

    /// The failure that the client is told; `None` if the answer that was kept says it better. `kept` is its status.
    pub fn own_answer(&self, kept: Option<u16>, room_in: Option<Span>, story: &Story) -> Option<Failure> {
        let wait = self.least_wait.into_iter().chain(room_in).min();
        match kept {
            _ if self.count == 0 => Some(room_in.map_or_else(|| nobody(story), |wait| busy(Some(wait)))),
            // One was asked: its own words, unless they would read as a refusal of the developer's key (R16).
            Some(_) if self.refused == self.count => Some(credential_refused(kept, story)),
            Some(300..=399) => Some(moved(kept, story)),
            Some(200..=299) => Some(unusable(story)),
            Some(_) if self.count == 1 => None,
            _ if self.count > 1 && self.busy == self.count => Some(busy(wait)),
            Some(401..=403) => self.first.clone().or_else(|| Some(credential_refused(kept, story))),
            Some(_) => None,
            None => self.first.clone(),
        }
    }
}

/// When nobody can be asked at all.
pub fn nobody(story: &Story) -> Failure {
    let text = format!(
        "every upstream of the model `{}` that is open to you is out of service. Ask the operator.",
        story.record.model.as_str()
    );
    Failure::new(Kind::UpstreamsOut, text).retry_after(15)
}

fn busy(wait: Option<Span>) -> Failure {
    let seconds = wait.map_or(5, |wait| wait.as_ms().div_ceil(1000)).clamp(1, 59) as u8;
    let text = format!("every upstream that may answer this is at its limits or overloaded. Try again in {seconds} s.");
    Failure::new(Kind::UpstreamsBusy, text).retry_after(seconds)
}

fn credential_refused(status: Option<u16>, story: &Story) -> Failure {
    let (upstream, status) = (name(story), status.unwrap_or_default());
    let text = format!(
        "{upstream} refused (HTTP {status}) the credential that forebay holds for it; your own key is fine. The operator has to look at that credential."
    );
    Failure::new(Kind::CredentialRefused, text)
}

fn moved(status: Option<u16>, story: &Story) -> Failure {
    let (upstream, status) = (name(story), status.unwrap_or_default());
    let text =
        format!("{upstream} answered with a redirect (HTTP {status}). The operator has to correct its `base_url`.");
    Failure::new(Kind::UpstreamMoved, text)
}

fn unusable(story: &Story) -> Failure {
    let text = format!(
        "{} answered with something that is not of its API, such as a web page. The operator has to check its `base_url`.",
        name(story)
    );
    Failure::new(Kind::AnswerUnusable, text)
}

fn name(story: &Story) -> &str {
    story.record.upstream.as_deref().unwrap_or("the upstream")
}

/// Of two answers that nobody could be better than, keeps the one that tells more: what a client can wait out before
/// what it cannot.
pub fn keep_better<O: Outbox>(kept: &mut Option<Box<Answered<O>>>, answer: Option<Answered<O>>) {
    let rank = |answer: &Answered<O>| match answer.head.status {
        404 | 501 => 1,
        429 | 500..=599 => 2,
        _ => 0,
    };
    if let Some(answer) = answer
        && kept.as_ref().is_none_or(|kept| rank(&answer) > rank(kept))
    {
        *kept = Some(Box::new(answer));
    }
}

/// Reads the beginning of an error's body into `answered.rest`, for as long as that is quick.
///
/// # Errors
/// `ClientGone`. Whatever else happens is the relay's to find again.
pub async fn collect<R: Runtime>(
    shard: &Shard<R>,
    client: &mut Client<R::Outbox>,
    answered: &mut Answered<R::Outbox>,
) -> Result<(), Stop> {
    let until = shard.rt.now().after(ERROR_WAIT_MAX);
    while !is_whole(answered) {
        match watched(&shard.rt, &mut client.inbound, until, answered.conn.inbound.next()).await {
            Watched::Done(Read::Data(more)) => answered.rest = Some(super::client::joined(answered.rest.take(), more)),
            Watched::ClientGone => return Err(Stop::ClientGone),
            // An end is there to be seen again.
            Watched::Done(Read::End | Read::Failed(_)) | Watched::TimeUp => return Ok(()),
        }
    }
    Ok(())
}

/// Whether enough of the body is there.
fn is_whole<O: Outbox>(answered: &Answered<O>) -> bool {
    let held = answered.rest.as_ref().map_or(&[][..], Segment::live);
    held.len() >= ERROR_BYTES_MAX
        || match answered.head.framing {
            Framing::None => true,
            Framing::Length(bytes) => held.len() as u64 >= bytes,
            Framing::UntilClose => false,
            Framing::Chunked => {
                let mut copy = Segment::copy_of(held);
                let mut decoder = BodyDecoder::new(Framing::Chunked);
                decoder.strip(copy.live_mut()).is_err() || decoder.is_done()
            }
        }
}

/// Whether a success is what the API answers with: a document of JSON, or a stream of events.
pub fn speaks_the_dialect<O: Outbox>(answered: &Answered<O>) -> bool {
    let Some(kind) = answered.head.field(answered.bytes.live(), "content-type") else { return true };
    let is = |prefix: &[u8]| kind.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    is(b"application/json") || is(b"text/event-stream")
}

/// The fields of an answer's head.
pub fn fields<O: Outbox>(answered: &Answered<O>) -> impl Iterator<Item = (&[u8], &[u8])> {
    let bytes = answered.bytes.live();
    answered.head.fields.iter().map(move |field| (field.name.of(bytes), field.value.of(bytes)))
}

/// What an error inside an answer is held against.
pub fn effect_of(fault: Fault) -> Effect {
    match fault {
        Fault::Request => Effect::Works,
        Fault::Credential => Effect::Credential,
        Fault::Room => Effect::Class,
        Fault::Service => Effect::Upstream,
    }
}

/// Holds against an upstream and a credential what an answer, or its absence, showed.
pub fn apply(
    health: &Health,
    candidate: &Candidate,
    effect: Effect,
    (sent, told): (Option<Sent>, &Told),
    (began, now): (Mono, Mono),
) {
    let (Some(upstream), Some(credential)) =
        (health.upstream(candidate.upstream), health.credential(candidate.credential))
    else {
        return;
    };
    match effect {
        Effect::Upstream => upstream.breaker.failed_since(began, now),
        Effect::Nothing => upstream.breaker.abandoned_since(began, now),
        Effect::Works | Effect::Credential | Effect::Class => upstream.breaker.succeeded_since(began, now),
    }
    if let Some(mut sent) = sent {
        match effect {
            Effect::Class => drop(sent.refused(told, now)),
            Effect::Nothing => {}
            Effect::Works | Effect::Credential | Effect::Upstream => sent.answered(told, now),
        }
    }
    match effect {
        Effect::Credential => credential.refused.extend(now.after(CREDENTIAL_REST)),
        Effect::Works if credential.refused.until(now).is_some() => credential.refused.clear(),
        Effect::Works | Effect::Class | Effect::Upstream | Effect::Nothing => {}
    }
}
