//! What upstreams got, held against what clients asked.

use super::{Court, answers::kept, rule};
use crate::{
    serve::edits::Direction,
    sim::{
        message::Fields,
        pipe::Cut,
        provider::Attempt,
        request::{Asked, Expect},
        script::Then,
    },
};
use memchr::memmem;

pub fn judge(court: &mut Court<'_>) {
    let seen = court.seen;
    for attempt in &seen.upstreams.attempts {
        secrets(court, attempt);
        let Some((_, asked)) = attempt.id.and_then(|id| court.asks.get(&id)).copied() else {
            court.breach(rule::REQUEST_BYTES, format!("a request that nobody sent: {}", attempt.request.first));
            continue;
        };
        boundary(court, attempt, asked);
        bytes(court, attempt, asked);
    }
    replays(court);
    surplus(court);
}

/// Where more than the answer came in one piece with it, the connection has had its day.
fn surplus(court: &mut Court<'_>) {
    let manner = court.plan.manner;
    if manner.cut != Cut::Whole || manner.buffer_bytes < 60_000 {
        return; // the pieces that were written are not the pieces that were read
    }
    let attempts = &court.seen.upstreams.attempts;
    let used_again = |first: &&Attempt| {
        let later = |other: &Attempt| other.connection == first.connection && other.before > first.before;
        first.was_surplus && attempts.iter().any(later)
    };
    for attempt in attempts.iter().filter(used_again) {
        court.breach(rule::SURPLUS, format!("connection {} after request {:?}", attempt.connection, attempt.id));
    }
}

fn secrets(court: &mut Court<'_>, attempt: &Attempt) {
    let foreign = court.secrets().into_iter().filter(|(site, _)| *site != attempt.site).map(|(_, secret)| secret);
    let keys = court.plan.people.iter().map(|person| person.key.as_str());
    let more = ["sk-ant-api03-left-over", "mine=1"];
    let leaked = foreign.chain(keys).chain(more).any(|secret| memmem::find(&attempt.head, secret.as_bytes()).is_some());
    if leaked {
        court.breach(rule::SECRETS, format!("request {:?} took a secret to site {}", attempt.id, attempt.site));
    }
}

fn boundary(court: &mut Court<'_>, attempt: &Attempt, asked: &Asked) {
    let may = asked.person.is_some_and(|person| court.plan.people[person].sites.contains(&attempt.site));
    if !may || asked.expect != Expect::Site(attempt.site) {
        let detail = format!("request {} went to site {}, due: {:?}", asked.id, attempt.site, asked.expect);
        court.breach(rule::BOUNDARY, detail);
    }
}

fn bytes(court: &mut Court<'_>, attempt: &Attempt, asked: &Asked) {
    let site = &court.plan.sites[attempt.site];
    let line = format!("{} {}{} HTTP/1.1", asked.method, site.base_path, asked.target);
    let mut due: Fields = vec![("host".into(), format!("{}.example", site.name))];
    due.extend(kept(&asked.fields, Direction::Request));
    if asked.peeks {
        due.push(("accept-encoding".into(), "identity".into()));
    } else {
        // What forebay does not read keeps its coding, in its place.
        keep_coding(asked, &mut due);
    }
    due.push(site.credential.clone());
    if asked.method == "POST" {
        due.push(("content-length".into(), asked.body.len().to_string()));
    }
    let got = &attempt.request;
    if got.first != line || got.fields != due {
        court.breach(rule::REQUEST_BYTES, format!("request {}: {} {:?} for {due:?}", asked.id, got.first, got.fields));
    }
    let is_right = if got.is_complete { got.body == asked.body } else { asked.body.starts_with(&got.body) };
    if !is_right {
        let at = asked.body.iter().zip(&got.body).position(|(a, b)| a != b);
        court.breach(rule::REQUEST_BYTES, format!("request {}: the body differs at {at:?}", asked.id));
    }
}

/// `accept-encoding` is replaced only where the answer is read.
fn keep_coding(asked: &Asked, due: &mut Fields) {
    let Some(at) = asked.fields.iter().position(|(name, _)| name == "accept-encoding") else { return };
    let field = asked.fields[at].clone();
    let behind = kept(&asked.fields[at..].to_vec(), Direction::Request).len();
    due.insert(due.len().saturating_sub(behind), field);
}

fn replays(court: &mut Court<'_>) {
    let ids: Vec<u32> = court.asks.keys().copied().collect();
    for id in ids {
        let attempts: Vec<&Attempt> = court.attempts(id).collect();
        let [first, second, more @ ..] = attempts.as_slice() else { continue };
        // What a reset overtakes is not heard.
        let script = court.asks.get(&id).map(|(_, asked)| &asked.scripts[first.script]);
        let heard = first.sent > 0 && script.is_some_and(|script| script.then != Then::Reset);
        if !more.is_empty() || first.before == 0 || heard || second.before > 0 {
            let detail = format!(
                "request {id}: {} attempts; the first was number {} on its connection and got {} bytes",
                attempts.len(),
                first.before,
                first.sent
            );
            court.breach(rule::REPLAY, detail);
        }
    }
}
