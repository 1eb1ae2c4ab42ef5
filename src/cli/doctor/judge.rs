//! What the upstreams' answers mean for the way there, the credentials and the clock.

use super::{
    answer::Answer,
    finding::{Finding, counted},
    limits::Granted,
    network::{Told, Tried},
    settings,
};
use crate::{
    base::{Span, UpstreamSlot},
    control::probe::Barrier,
    table::{Table, Upstream},
};

/// A clock that is off by more makes keys end early or late, in milliseconds.
const CLOCK_OFF_MS_MAX: u64 = 60_000;

/// Whether an upstream can be reached.
pub fn way(upstream: &Upstream, told: &Told) -> Finding {
    let place = format!("{}:{}", upstream.host, upstream.port);
    let finding = match &told.way {
        Ok(way) => {
            let tls =
                way.tls.map_or_else(|| "no TLS".to_owned(), |(took, version)| format!("{version} in {}", ms(took)));
            let addresses = counted(way.addresses.len(), "address", "addresses");
            Finding::ok("upstream", format!("{place}: {addresses}, TCP in {}, {tls}", ms(way.tcp)))
        }
        Err(Barrier::Name(error)) => {
            Finding::fail("upstream", error, "correct base_url, or this host's name servers (/etc/resolv.conf)")
        }
        Err(Barrier::Connect(error)) => Finding::fail(
            "upstream",
            format!("{place} takes no connection: {error}"),
            format!("open the way out to port {} in firewalls, or correct base_url", upstream.port),
        ),
        Err(Barrier::Tls(error)) => Finding::fail(
            "upstream",
            format!("{place} takes connections, but TLS fails: {error}"),
            "if a proxy on the way has a CA of its own, name it with ca_file",
        ),
    };
    finding.about(&upstream.name)
}

/// With a tenth.
fn ms(span: Span) -> String {
    format!("{}.{} ms", span.as_us() / 1_000, span.as_us() / 100 % 10)
}

/// Whether a credential works.
pub fn credential(tried: &Tried) -> Finding {
    let refused = tried.list.as_ref().ok().filter(|answer| answer.refuses());
    let finding = match (refused, &tried.message) {
        (Some(answer), _) => refusal(answer),
        (None, Some((model, Ok(answer)))) => message(model, answer, &tried.list),
        (None, Some((_, Err(error)))) => no_answer(error),
        (None, None) => match &tried.list {
            Err(error) => no_answer(error),
            Ok(list) if list.status == 200 => Finding::warn(
                "credential",
                "it lists models, but none of them is configured, so no message was tried",
                "name one with --model",
            ),
            Ok(list) => Finding::warn(
                "credential",
                format!("not tried: there is no list of models ({}), and no exact id is configured", list.told()),
                "name a model with --model",
            ),
        },
    };
    finding.about(&tried.subject)
}

fn refusal(answer: &Answer) -> Finding {
    Finding::fail(
        "credential",
        format!("the provider refuses it: {}", answer.told()),
        "put a valid key in its place, and look at its workspace and permissions at the provider",
    )
}

fn no_answer(error: &str) -> Finding {
    Finding::fail("credential", format!("no answer: {error}"), "look at the network and at base_url")
}

/// What the answer to the smallest message means.
fn message(model: &str, answer: &Answer, list: &Result<Answer, String>) -> Finding {
    let told = answer.told();
    let is_about_money = answer.status == 402
        || answer.status == 400 && answer.error.as_ref().is_some_and(|error| error.contains("credit balance"));
    match (answer.status, answer.usage) {
        (200, Some((input, output))) => {
            Finding::ok("credential", format!("works: {model} answered ({input} input, {output} output tokens)"))
        }
        (200, None) => Finding::fail(
            "credential",
            "the answer is not a message of the Anthropic API",
            "correct base_url: what is there is something else",
        ),
        (401 | 403, _) => refusal(answer),
        _ if is_about_money => {
            Finding::fail("credential", format!("the account cannot pay: {told}"), "add credit at the provider")
        }
        (404, _) if list.as_ref().is_ok_and(|list| list.status == 200) => Finding::warn(
            "credential",
            format!("it is accepted, but {model} is not known there: {told}"),
            "correct the model's id, or try another with --model",
        ),
        (429, _) => {
            let after = answer.retry_after.as_ref().map_or("", |_| "; it may be asked again in ");
            let seconds = answer.retry_after.as_ref().map_or_else(String::new, |seconds| format!("{seconds} s"));
            Finding::warn(
                "credential",
                format!("it is accepted, but throttled now: {told}{after}{seconds}"),
                "if this stays, raise the limits or the spend limit at the provider",
            )
        }
        (500.., _) => Finding::warn(
            "credential",
            format!("not proven: the provider fails or is overloaded now: {told}"),
            "run this again in a minute",
        ),
        (300..=399, _) => {
            let leads = answer.location.as_ref().map_or_else(String::new, |place| format!(" to {place}"));
            Finding::fail(
                "credential",
                format!("a redirect ({}){leads}, which is not followed", answer.status),
                "correct base_url",
            )
        }
        _ => Finding::fail(
            "credential",
            format!("the smallest message to {model} is refused: {told}"),
            "correct base_url or the model's id; --model tries another",
        ),
    }
}

/// The credentials whose message was answered, with what their limits are known by.
pub fn granted<'a>(table: &Table, told: &'a [Told]) -> Vec<Granted<'a>> {
    let in_use = settings::in_use(table);
    let mut granted = Vec::new();
    for (slot, told) in told.iter().enumerate() {
        for (number, tried) in told.credentials.iter().enumerate() {
            let Some((model, Ok(answer))) = &tried.message else { continue };
            // Those who are throttled say their limits too.
            if answer.status == 200 && answer.usage.is_some() || answer.status == 429 {
                let slot = UpstreamSlot(slot as u32);
                let (in_use, declared) = (in_use.contains(&slot), table.credential_limits(slot, number));
                granted.push(Granted { subject: tried.subject.clone(), model, answer, declared, in_use });
            }
        }
    }
    granted
}

/// Whether this host's clock agrees with the upstreams'; `None` when none of them told its time.
pub fn clock(told: &[Told]) -> Option<Finding> {
    let answers = told.iter().flat_map(|told| &told.credentials).flat_map(|tried| {
        let message = tried.message.as_ref().and_then(|(_, asked)| asked.as_ref().ok());
        [tried.list.as_ref().ok(), message].into_iter().flatten().map(move |answer| (&tried.subject, answer))
    });
    // A single odd clock may be the upstream's own fault: the nearest one counts.
    let (off, ahead, subject) = answers
        .filter_map(|(subject, answer)| {
            answer.clocks.map(|(theirs, ours)| (ours.0.abs_diff(theirs.0), ours > theirs, subject))
        })
        .min_by_key(|(off, ..)| *off)?;
    let upstream = subject.split('/').next().unwrap_or(subject);
    Some(if off > CLOCK_OFF_MS_MAX {
        let direction = if ahead { "ahead of" } else { "behind" };
        Finding::warn(
            "clock",
            format!("this host's clock is {} s {direction} {upstream}'s", off / 1_000),
            "set it by NTP: keys end and logs are dated by it",
        )
    } else {
        Finding::ok("clock", format!("agrees with {upstream}'s within {} s", off.div_ceil(1_000).max(1)))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, super::models::Listing, *};
    use crate::{base::Wall, config};

    fn answer(status: u16, error: Option<&str>) -> Answer {
        let usage = (status == 200).then_some((8, 1));
        Answer { status, error: error.map(str::to_owned), usage, ..Answer::default() }
    }

    fn tried(list: u16, message: Option<Answer>) -> Tried {
        Tried {
            subject: "main/org".into(),
            list: Ok(answer(list, None)),
            message: message.map(|answer| ("claude-x".into(), Ok(answer))),
        }
    }

    fn told(credentials: Vec<Tried>) -> Told {
        Told { way: Err(Barrier::Name("x".into())), credentials, listing: Listing::default() }
    }

    #[test]
    fn every_answer_has_a_verdict() {
        let cases = [
            (tried(200, Some(answer(200, None))), Level::Ok, "works: claude-x answered (8 input, 1 output tokens)"),
            (tried(404, Some(answer(200, None))), Level::Ok, "works"),
            (tried(401, None), Level::Fail, "refuses it: 401"),
            (tried(200, Some(answer(403, Some("permission_error: no")))), Level::Fail, "403 (permission_error: no)"),
            (tried(200, Some(answer(402, None))), Level::Fail, "cannot pay"),
            (tried(200, Some(answer(400, Some("Your credit balance is too low")))), Level::Fail, "cannot pay"),
            (
                tried(200, Some(answer(400, Some("odd")))),
                Level::Fail,
                "smallest message to claude-x is refused: 400 (odd)",
            ),
            (tried(200, Some(answer(404, None))), Level::Warn, "accepted, but claude-x is not known"),
            (tried(404, Some(answer(404, None))), Level::Fail, "refused: 404"),
            (tried(200, Some(answer(429, None))), Level::Warn, "throttled"),
            (tried(200, Some(answer(529, None))), Level::Warn, "overloaded now: 529"),
            (tried(200, Some(answer(302, None))), Level::Fail, "redirect"),
            (tried(200, Some(Answer { usage: None, ..answer(200, None) })), Level::Fail, "not a message"),
            (tried(200, None), Level::Warn, "lists models"),
            (tried(404, None), Level::Warn, "no list of models (404)"),
            (Tried { list: Err("timed out".into()), ..tried(0, None) }, Level::Fail, "no answer: timed out"),
        ];
        for (tried, level, words) in cases {
            let finding = credential(&tried);
            assert!(finding.level == level && finding.found.contains(words), "{words}: {finding:?}");
            assert_eq!(finding.subject.as_deref(), Some("main/org"));
        }
    }

    #[test]
    fn the_nearest_clock_counts() {
        let at = |theirs| Tried {
            list: Ok(Answer { clocks: Some((Wall(theirs), Wall(1_000_000))), ..answer(200, None) }),
            ..tried(200, None)
        };
        assert_eq!(clock(&[told(vec![tried(200, None)])]), None);
        assert_eq!(clock(&[told(vec![at(0), at(999_500)])]).unwrap().level, Level::Ok);
        let ahead = clock(&[told(vec![at(900_000)])]).unwrap();
        assert_eq!((ahead.level, ahead.found.as_str()), (Level::Warn, "this host's clock is 100 s ahead of main's"));
        assert!(clock(&[told(vec![at(1_100_000)])]).unwrap().found.contains("behind"));
    }

    #[test]
    fn every_credential_of_an_upstream_that_a_model_leads_to_is_in_use() {
        let table = config::quickstart("sk".into(), None, [0; 32], "127.0.0.1:1".parse().unwrap(), &|_| None).unwrap();
        let ok = || tried(200, Some(answer(200, None)));
        let all = [told(vec![ok(), tried(401, None), ok()]), told(vec![ok()])];
        let in_use: Vec<bool> = granted(&table, &all).iter().map(|granted| granted.in_use).collect();
        assert_eq!(in_use, [true, true, false]);
    }
}
