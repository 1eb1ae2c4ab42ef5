//! What upstreams got, held against what clients asked.

use super::{Court, answers::kept, rule, tries};
use crate::{
    serve::edits::Direction,
    sim::{message::Fields, pipe::Cut, provider::Attempt, request::Asked, script::Then},
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
    fragments(court);
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
    let own = court.secrets().into_iter().filter(|(site, _)| *site == attempt.site);
    let carried = own.filter(|(_, secret)| memmem::find(&attempt.head, secret.as_bytes()).is_some()).count();
    if carried != 1 {
        court.breach(
            rule::SECRETS,
            format!("request {:?} took {carried} credentials to site {}", attempt.id, attempt.site),
        );
    }
    let leaked = foreign.chain(keys).chain(more).any(|secret| memmem::find(&attempt.head, secret.as_bytes()).is_some());
    if leaked {
        court.breach(rule::SECRETS, format!("request {:?} took a secret to site {}", attempt.id, attempt.site));
    }
}

fn boundary(court: &mut Court<'_>, attempt: &Attempt, asked: &Asked) {
    let due = court.due(asked);
    if asked.person.is_none() || !due.iter().any(|due| due.allows(attempt.site)) {
        let detail = format!("request {} went to site {}, due: {due:?}", asked.id, attempt.site);
        court.breach(rule::BOUNDARY, detail);
    }
}

/// The beginning of a request, too, goes only where it may.
fn fragments(court: &mut Court<'_>) {
    let seen = court.seen;
    for fragment in &seen.upstreams.fragments {
        let text = String::from_utf8_lossy(&fragment.bytes).to_ascii_lowercase();
        let id = text.split_once("x-sim-id: ").and_then(|(_, rest)| rest.split_once('\r')?.0.parse::<u32>().ok());
        let asked = id.and_then(|id| court.asks.get(&id)).map(|(_, asked)| *asked);
        if asked.is_some_and(|asked| !court.due(asked).iter().any(|due| due.allows(fragment.site))) {
            court.breach(rule::BOUNDARY, format!("a part of request {id:?} went to site {}", fragment.site));
        }
    }
}

/// A request is as it was asked, but for the table of edits, under one of the names that the model has there.
fn bytes(court: &mut Court<'_>, attempt: &Attempt, asked: &Asked) {
    let aims = court.due(asked).into_iter().flat_map(super::super::request::Expect::aims);
    let mut names: Vec<Option<&str>> =
        aims.filter(|aim| aim.site == attempt.site).map(|aim| aim.model.as_deref()).collect();
    if names.is_empty() {
        names.push(None);
    }
    let count = names.len();
    let faults: Vec<String> = names.into_iter().filter_map(|name| fault(court, attempt, asked, name)).collect();
    if faults.len() == count {
        court.breach(rule::REQUEST_BYTES, format!("request {}: {}", asked.id, faults.join("; ")));
    }
}

/// What is wrong with a request, if its model has this name at the upstream.
fn fault(court: &Court<'_>, attempt: &Attempt, asked: &Asked, name: Option<&str>) -> Option<String> {
    let (site, body) = (&court.plan.sites[attempt.site], asked.body_for(name));
    let got = &attempt.request;
    let line = format!("{} {}{} HTTP/1.1", asked.method, site.base_path, asked.target);
    let mut due: Fields = vec![("host".into(), format!("{}.example", site.name))];
    due.extend(kept(&asked.fields, Direction::Request));
    if asked.peeks {
        due.push(("accept-encoding".into(), "identity".into()));
    } else {
        // What forebay does not read keeps its coding, in its place.
        keep_coding(asked, &mut due);
    }
    // Which credential of the pool is not the bytes' business.
    due.extend(site.credentials.iter().find(|field| got.fields.contains(field)).cloned());
    if asked.method == "POST" {
        due.push(("content-length".into(), body.len().to_string()));
    }
    if got.first != line || got.fields != due {
        return Some(format!("{} {:?} for {due:?}", got.first, got.fields));
    }
    let is_right = if got.is_complete { got.body == body } else { body.starts_with(&got.body) };
    (!is_right).then(|| format!("the body differs at {:?}", body.iter().zip(&got.body).position(|(a, b)| a != b)))
}

/// `accept-encoding` is replaced only where the answer is read.
fn keep_coding(asked: &Asked, due: &mut Fields) {
    let Some(at) = asked.fields.iter().position(|(name, _)| name == "accept-encoding") else { return };
    let field = asked.fields[at].clone();
    let behind = kept(&asked.fields[at..].to_vec(), Direction::Request).len();
    due.insert(due.len().saturating_sub(behind), field);
}

/// To the same candidate a request is sent again only if the first time was never heard.
fn replays(court: &mut Court<'_>) {
    let ids: Vec<u32> = court.asks.keys().copied().collect();
    for one in ids.into_iter().flat_map(|id| tries::tries(court, id)).collect::<Vec<_>>() {
        let [first, second, more @ ..] = one.attempts.as_slice() else { continue };
        // What a reset overtakes is not heard.
        let heard = first.sent > 0 && first.script.then != Then::Reset;
        if !more.is_empty() || first.before == 0 || heard || second.before > 0 {
            let detail = format!(
                "request {:?}: {} times to site {}; the first was number {} on its connection and got {} bytes",
                first.id,
                one.attempts.len(),
                one.site,
                first.before,
                first.sent
            );
            court.breach(rule::REPLAY, detail);
        }
    }
}
