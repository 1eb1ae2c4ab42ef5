//! Every invariant can fail: runs that went well are altered afterwards, each in one way, and the judge must say which.

use forebay::telemetry::Record;
use forebay::{
    base::{Mono, Span},
    sim::{
        self, Observed,
        judge::{faithful, judge, rule},
        message::Message,
        plan::{Plan, Times},
        provider::{Attempt, Fragment},
        request::{Asked, Expect},
    },
};
use std::rc::Rc;

/// Alters a run; false where the run has nothing of the kind.
type Alter = fn(&Plan, &mut Observed) -> bool;

/// An answer that a faithful client got from an upstream and that `suits`.
fn relayed<'a>(plan: &Plan, seen: &'a mut Observed, suits: impl Fn(&Message) -> bool) -> Option<&'a mut Message> {
    let at = faithful(plan, seen);
    let mut saws = seen.clients.iter_mut().enumerate().filter(|(n, _)| at.contains(n));
    saws.find_map(|(_, saw)| saw.reader.messages.iter_mut().find(|m| m.field("x-sim-id").is_some() && suits(m)))
}

fn alter(
    plan: &Plan,
    seen: &mut Observed,
    suits: impl Fn(&Message) -> bool,
    change: impl FnOnce(&mut Message),
) -> bool {
    relayed(plan, seen, suits).map(change).is_some()
}

fn is_stream(message: &Message) -> bool {
    message.field("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Its framing lets forebay say something.
fn has_room(message: &Message) -> bool {
    message.field("content-length").is_none()
}

fn tell(text: &str) -> impl Fn(&Message) -> bool {
    move |message| String::from_utf8_lossy(&message.body).contains(text)
}

/// Asks somebody else, too, for the first request that `suits` and that went to one candidate only, at `began`.
fn ask_again(p: &Plan, o: &mut Observed, suits: impl Fn(&Asked) -> bool, began: Option<Mono>) -> bool {
    let asks = p.visits.iter().flat_map(|visit| &visit.asks).filter(|asked| suits(asked));
    let of = |o: &Observed, id: u32| o.upstreams.attempts.iter().filter(|a| a.id == Some(id)).count();
    let Some(id) = asks.map(|asked| asked.id).find(|id| of(o, *id) == 1) else { return false };
    let one = o.upstreams.attempts.iter().find(|attempt| attempt.id == Some(id)).unwrap().clone();
    let other = (0..p.sites.len()).find(|site| *site != one.site);
    let Some(site) = other else { return false };
    let again = at(p, one.clone(), site);
    o.upstreams.attempts.push(Attempt { began: began.unwrap_or(one.began), ..again });
    true
}

/// The same request as another upstream would have got it.
fn at(p: &Plan, mut attempt: Attempt, site: usize) -> Attempt {
    let own = p.sites[attempt.site].credentials.clone();
    attempt.request.fields.retain(|field| !own.contains(field));
    attempt.request.fields.push(p.sites[site].credentials[0].clone());
    attempt.site = site;
    attempt
}

fn replace(text: &mut Vec<u8>, what: &str, with: &str) {
    *text = String::from_utf8_lossy(text).replacen(what, with, 1).into_bytes();
}

const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const TOLD: &str =
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"forebay: no\"}}\n\n";

/// What is done to the run, and which invariant must notice.
const ALTERATIONS: &[(&str, &str, Alter)] = &[
    ("a byte of an answer", rule::ANSWER_BYTES, |p, o| {
        alter(p, o, |m| m.is_complete && m.body.len() > 9, |m| m.body[5] ^= 1)
    }),
    ("a field of an answer", rule::ANSWER_BYTES, |p, o| {
        alter(p, o, |m| m.field("x-twice").is_some(), |m| m.fields.retain(|(name, _)| name != "x-twice"))
    }),
    ("an upstream's limit passed on", rule::ANSWER_BYTES, |p, o| {
        alter(p, o, |_| true, |m| m.fields.insert(0, ("anthropic-ratelimit-x".into(), "1".into())))
    }),
    ("a broken document that ends cleanly", rule::BROKEN, |p, o| {
        alter(p, o, |m| !m.is_complete && !is_stream(m), |m| m.is_complete = true)
    }),
    ("a broken stream that ends cleanly", rule::BROKEN, |p, o| {
        let unfinished =
            |m: &Message| !m.is_complete && is_stream(m) && !tell("message_stop")(m) && !tell("event: error")(m);
        alter(p, o, unfinished, |m| m.is_complete = true)
    }),
    ("a broken stream that ends inside an event", rule::BROKEN, |p, o| {
        let in_chunks = |m: &Message| {
            !m.is_complete
                && is_stream(m)
                && m.field("transfer-encoding").is_some()
                && (9..16_000).contains(&m.body.len())
        };
        alter(p, o, in_chunks, |m| m.body.truncate(m.body.len() - 2))
    }),
    ("an error event inside an event", rule::ANSWER_BYTES, |p, o| {
        alter(
            p,
            o,
            |m| is_stream(m) && tell("forebay: the upstream")(m) && m.body.len() > 600,
            |m| {
                let text = String::from_utf8_lossy(&m.body).into_owned();
                let told = text.find("event: error").unwrap();
                m.body.drain(told - 2..told);
            },
        )
    }),
    ("a stream that is completed twice", rule::BROKEN, |p, o| {
        let whole = |m: &Message| m.is_complete && is_stream(m) && tell("message_stop")(m) && has_room(m);
        alter(p, o, whole, |m| m.body.extend(STOP.bytes()))
    }),
    ("a stream that is completed too early", rule::BROKEN, |p, o| {
        let whole = |m: &Message| m.is_complete && is_stream(m) && tell("event: message_delta\n")(m) && has_room(m);
        alter(p, o, whole, |m| {
            let cut = String::from_utf8_lossy(&m.body).find("event: message_delta").unwrap();
            m.body.truncate(cut);
            m.body.extend(STOP.bytes());
        })
    }),
    ("an error event after a finished block", rule::BROKEN, |p, o| {
        let whole = |m: &Message| m.is_complete && is_stream(m) && tell("event: message_delta\n")(m) && has_room(m);
        alter(p, o, whole, |m| {
            let cut = String::from_utf8_lossy(&m.body).find("event: message_delta").unwrap();
            m.body.truncate(cut);
            m.body.extend(TOLD.bytes());
        })
    }),
    ("a ping that nobody wants", rule::READABLE, |p, o| {
        let whole = |m: &Message| m.is_complete && is_stream(m) && tell("event: message_delta\n")(m) && has_room(m);
        p.patience.ping == Span::ZERO && alter(p, o, whole, |m| m.body.splice(0..0, PING.bytes()).for_each(drop))
    }),
    ("a ping inside an event", rule::ANSWER_BYTES, |p, o| {
        let whole = |m: &Message| m.is_complete && is_stream(m) && m.body.len() > 90 && has_room(m);
        alter(p, o, whole, |m| m.body.splice(9..9, PING.bytes()).for_each(drop))
    }),
    ("a failure that does not say who speaks", rule::READABLE, |_, o| {
        let mut messages = o.clients.iter_mut().flat_map(|saw| &mut saw.reader.messages);
        let own = messages.find(|m| m.is_complete && m.field("x-sim-id").is_none() && tell("\"forebay: ")(m));
        own.map(|m| replace(&mut m.body, "\"forebay: ", "\"gateway: ")).is_some()
    }),
    ("an error event that cannot be read", rule::READABLE, |p, o| {
        let told = |m: &Message| m.is_complete && is_stream(m) && tell("\"message\":\"forebay: ")(m) && has_room(m);
        alter(p, o, told, |m| replace(&mut m.body, "\"}\n\n", "\"\n\n"))
    }),
    ("a refused credential that is passed on", rule::READABLE, |p, o| {
        let Some(message) = relayed(p, o, |m| m.is_complete && m.status() == 400) else { return false };
        message.first = "HTTP/1.1 401 Said".into();
        let (id, tried) = (message.field("x-sim-id").map(String::from), message.field("x-sim-try").map(String::from));
        let name = |attempt: &&mut Attempt| {
            attempt.script.field("x-sim-id") == id.as_deref() && attempt.script.field("x-sim-try") == tried.as_deref()
        };
        o.upstreams.attempts.iter_mut().find(name).map(|a| Rc::make_mut(&mut a.script).status = 401).is_some()
    }),
    ("an answer of another upstream than is told", rule::LOG, |p, o| {
        alter(
            p,
            o,
            |_| true,
            |m| {
                m.fields.iter_mut().filter(|f| f.0 == "x-forebay-upstream").for_each(|f| f.1 = "elsewhere".into());
            },
        )
    }),
    ("an attempt that is not in the log", rule::LOG, |p, o| {
        let name = relayed(p, o, |_| true).and_then(|m| m.field("x-forebay-request-id").map(String::from));
        let record = o.records.iter_mut().find(|record| Some(record.request_id.to_string()) == name);
        record.map(|record| record.tried = [None; 3]).is_some()
    }),
    ("an attempt in the log that nobody saw", rule::LOG, |p, o| {
        let name = relayed(p, o, |_| true).and_then(|m| m.field("x-forebay-request-id").map(String::from));
        let record = o.records.iter_mut().find(|record| Some(record.request_id.to_string()) == name);
        record.is_some_and(|record| {
            let first = record.tried[0].filter(|first| first.verdict == "delivered");
            first.is_some() && record.tried[1].is_none() && std::mem::replace(&mut record.tried[1], first).is_none()
        })
    }),
    ("somebody asked after an answer", rule::COMMIT, |p, o| ask_again(p, o, |_| true, None)),
    ("somebody asked while the client reads", rule::COMMIT, |p, o| ask_again(p, o, |_| true, Some(Mono(u64::MAX)))),
    ("somebody asked twice", rule::TRIES, |p, o| {
        let before = o.upstreams.attempts.len();
        ask_again(p, o, |_| true, None) && {
            let id = o.upstreams.attempts[before].id;
            let first = o.upstreams.attempts.iter().find(|attempt| attempt.id == id).cloned();
            o.upstreams.attempts.extend(first);
            true
        }
    }),
    ("another asked where fallback is off", rule::ALONE, |p, o| ask_again(p, o, |asked| asked.is_off, None)),
    ("somebody asked who is drained", rule::DRAINED, |p, o| {
        let Some(drained) = p.drained.iter().find(|drained| drained.credential.is_none()) else { return false };
        let (from, to) = (drained.at_ms + 60, drained.at_ms + drained.for_ms);
        let began = |id: Option<u32>| {
            let mut asks =
                p.visits.iter().zip(&o.clients).flat_map(|(visit, saw)| visit.asks.iter().zip(&saw.began_at));
            asks.find(|(asked, _)| Some(asked.id) == id && asked.peeks).map(|(_, began)| began.0 / 1_000_000)
        };
        let in_time =
            |attempt: &&Attempt| began(attempt.id).is_some_and(|ms| ms > from) && attempt.began.0 / 1_000_000 < to;
        let Some(found) = o.upstreams.attempts.iter().position(|attempt| in_time(&attempt)) else { return false };
        o.upstreams.attempts[found] = at(p, o.upstreams.attempts[found].clone(), drained.site);
        true
    }),
    ("a request's fault that is held against somebody", rule::COOLS, |p, o| {
        p.times == Times::Calm && ask_again(p, o, |_| true, None)
    }),
    ("an outage that is answered by a multiple of the load", rule::OUTAGE, |p, o| {
        // Only what clients have heard of is counted, and of what cannot be reached the log is taken at its word.
        let faithful = faithful(p, o);
        let told: Vec<String> = faithful
            .iter()
            .flat_map(|at| &o.clients[*at].reader.messages)
            .filter_map(|m| m.field("x-forebay-request-id").map(String::from))
            .collect();
        let is_told = |record: &&mut Record| told.contains(&record.request_id.to_string());
        let mut records: Vec<_> = o.records.iter_mut().filter(is_told).collect();
        let seen = |record: &&mut Record| record.tried[0].is_some_and(|one| one.verdict == "upstream_failed");
        let count = records.iter().filter(|record| seen(record)).count();
        for record in &mut *records {
            record.tried = [record.tried[0]; 3];
        }
        p.times == Times::Outage && count > 2
    }),
    ("the beginning of a request at an upstream that is closed to its caller", rule::BOUNDARY, |p, o| {
        let mut asks = p.visits.iter().flat_map(|visit| &visit.asks);
        let refused = asks.find(|asked| matches!(asked.expect, Expect::Own(_)) && !asked.fields.is_empty());
        let bytes = refused.map(|asked| format!("POST / HTTP/1.1\r\nX-Sim-Id: {}\r\nho", asked.id).into_bytes());
        bytes.map(|bytes| o.upstreams.fragments.push(Fragment { site: 0, bytes })).is_some()
    }),
    ("two credentials of one pool", rule::SECRETS, |p, o| {
        let mut attempts = o.upstreams.attempts.iter_mut();
        attempts.find(|attempt| p.sites[attempt.site].credentials.len() > 1).is_some_and(|attempt| {
            let pool = p.sites[attempt.site].credentials.iter();
            pool.for_each(|field| attempt.head.extend(field.1.replace("Bearer ", "").into_bytes()));
            true
        })
    }),
    ("a whole answer cut short", rule::WHOLE, |p, o| {
        alter(p, o, |m| m.is_complete && !m.until_close && m.status() == 429, |m| m.is_complete = false)
    }),
    ("a whole answer that lacks a byte", rule::WHOLE, |p, o| {
        alter(p, o, |m| m.is_complete && m.status() == 429 && !m.body.is_empty(), |m| m.body.truncate(m.body.len() - 1))
    }),
    ("another request's answer", rule::ORDER, |p, o| {
        alter(p, o, |_| true, |m| m.fields.iter_mut().filter(|f| f.0 == "x-sim-id").for_each(|f| f.1 = "0".into()))
    }),
    ("an answer behind the last one", rule::AFTER, |_, o| {
        let saws = o.clients.iter_mut();
        let mut messages = saws.map(|saw| &mut saw.reader.messages).filter(|messages| messages.len() > 1);
        messages.next().map(|messages| messages[0].fields.push(("connection".into(), "close".into()))).is_some()
    }),
    ("a request that is not answered", rule::ANSWERED, |p, o| {
        let faithful = faithful(p, o);
        let mut saws = o.clients.iter_mut().enumerate().filter(|(at, _)| faithful.contains(at));
        let one = saws.find(|(_, saw)| {
            saw.reader.messages.last().is_some_and(|m| m.is_complete && m.field("connection").is_none())
        });
        one.is_some_and(|(_, saw)| {
            saw.reader.messages.pop().is_some() && saw.reader.messages.iter().all(|m| m.is_complete)
        })
    }),
    ("a refusal without a cause", rule::CAUSE, |_, o| {
        let mut messages = o.clients.iter_mut().flat_map(|saw| &mut saw.reader.messages);
        let own = messages.find(|m| m.field("x-forebay-origin") == Some("client"));
        own.map(|m| m.fields.iter_mut().filter(|f| f.0 == "x-forebay-reason").for_each(|f| f.1 = "host_refused".into()))
            .is_some()
    }),
    ("bytes that are no answer", rule::FRAMING, |_, o| {
        o.clients[0].reader.feed(b"\r\n\r\n\r\n\r\nHTP\r\n\r\n", Mono(1));
        o.clients[0].reader.fault.is_some()
    }),
    ("a record that is missing", rule::RECORDS, |_, o| o.records.pop().is_some()),
    ("a record twice", rule::RECORDS, |_, o| {
        let first = o.records.first().cloned();
        o.records.extend(first);
        !o.records.is_empty()
    }),
    ("a record of another status", rule::LOG, |p, o| {
        let complete = faithful(p, o).into_iter().find(|at| !o.clients[*at].reader.messages.is_empty());
        let name =
            complete.and_then(|at| o.clients[at].reader.messages[0].field("x-forebay-request-id").map(String::from));
        let record = o.records.iter_mut().find(|record| Some(record.request_id.to_string()) == name);
        record.map(|record| record.status = 599).is_some()
    }),
    ("an exchange in flight for ever", rule::LEVELS, |_, o| {
        o.gauges[1].1 += 1;
        true
    }),
    ("a task that waits for ever", rule::REST, |_, o| {
        o.quiet.stuck += 1;
        true
    }),
    ("a panic", rule::PANIC, |_, o| {
        o.panics += 2;
        true
    }),
    ("a full pool", rule::POOL, |_, o| {
        o.pool_max = 1_000;
        true
    }),
    ("an upstream's credential at a client", rule::SECRETS, |p, o| {
        let secret = p.sites[0].credentials[0].1.replace("Bearer ", "");
        o.clients[0].raw.extend(secret.into_bytes());
        true
    }),
    ("a client's key at an upstream", rule::SECRETS, |p, o| {
        let key = p.people[0].key.clone();
        o.upstreams.attempts.first_mut().map(|attempt| attempt.head.extend(key.into_bytes())).is_some()
    }),
    ("a credential at another upstream", rule::SECRETS, |p, o| {
        let other = p.sites.len().checked_sub(1).filter(|other| *other > 0);
        let secret = other.map(|other| p.sites[other].credentials[0].1.replace("Bearer ", ""));
        let attempt = o.upstreams.attempts.iter_mut().find(|attempt| Some(attempt.site) != other);
        secret.zip(attempt).map(|(secret, attempt)| attempt.head.extend(secret.into_bytes())).is_some()
    }),
    ("a request at an upstream that is closed to its caller", rule::BOUNDARY, |p, o| {
        let (sites, attempts) = (p.sites.len(), &mut o.upstreams.attempts);
        sites > 1 && attempts.first_mut().map(|attempt| attempt.site = (attempt.site + 1) % sites).is_some()
    }),
    ("a refused request at an upstream", rule::BOUNDARY, |p, o| {
        let mut asks = p.visits.iter().flat_map(|visit| &visit.asks);
        let refused = asks.find(|asked| matches!(asked.expect, Expect::Own(_))).map(|asked| asked.id);
        let attempt = o.upstreams.attempts.first_mut();
        refused.zip(attempt).map(|(id, attempt)| attempt.id = Some(id)).is_some()
    }),
    ("a byte of a request", rule::REQUEST_BYTES, |_, o| {
        let mut attempts = o.upstreams.attempts.iter_mut();
        attempts.find(|attempt| attempt.request.body.len() > 9).map(|attempt| attempt.request.body[3] ^= 1).is_some()
    }),
    ("a field of a request", rule::REQUEST_BYTES, |_, o| {
        let attempt = o.upstreams.attempts.first_mut();
        attempt.map(|attempt| attempt.request.fields.push(("via".into(), "1.1 forebay".into()))).is_some()
    }),
    ("a request sent twice", rule::REPLAY, |_, o| {
        let first = o.upstreams.attempts.first().cloned();
        o.upstreams.attempts.extend(first);
        !o.upstreams.attempts.is_empty()
    }),
    ("an upstream that is held for a client that has left", rule::GONE, |p, o| {
        let left = o.clients.iter().position(|saw| saw.left.is_some_and(|(at, _)| at.0 > 0));
        let Some(at) = left else { return false };
        let ids: Vec<u32> = p.visits[at].asks.iter().map(|asked| asked.id).collect();
        let unfinished = |attempt: &&sim::provider::Attempt| {
            attempt.id.is_some_and(|id| ids.contains(&id)) && attempt.sent_at.is_none() && !attempt.was_stale
        };
        let Some(attempt) = o.upstreams.attempts.iter().find(unfinished) else { return false };
        let connection = attempt.connection as usize;
        o.fates[o.clients[at].connection as usize].heard[1].is_some_and(|heard| {
            o.fates[connection].let_go[0] = Some(heard.after(Span::from_ms(50)));
            true
        })
    }),
    ("a wait beyond its timeout", rule::PATIENCE, |_, o| {
        o.clients[0].longest_wait = Span::from_secs(500);
        true
    }),
];

#[test]
fn every_invariant_fails_when_it_should() {
    let mut left: Vec<&(&str, &str, Alter)> = ALTERATIONS.iter().collect();
    for seed in 0..400 {
        if left.is_empty() {
            break;
        }
        let outcome = sim::run(seed, false);
        assert!(outcome.breaches().is_empty(), "seed {seed} went wrong by itself");
        left.retain(|(what, rule, alter)| {
            let mut seen = outcome.observed.clone();
            if !alter(&outcome.plan, &mut seen) {
                return true;
            }
            let breaches = judge(&outcome.plan, &seen);
            assert!(!breaches.is_empty(), "seed {seed}: {what}: passed unseen");
            // Some are seen by a neighbour first; each must be seen by its own rule in some run.
            !breaches.iter().any(|(broken, _)| broken == rule)
        });
    }
    assert!(left.is_empty(), "never seen by their rule: {:?}", left.iter().map(|(what, ..)| what).collect::<Vec<_>>());
}
