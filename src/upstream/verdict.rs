//! What an answer means: for the request that it answers, and for the one who gave it. One table, printed to
//! docs/verdicts.md; an upstream's own `verdicts` go before it.

use crate::table::{Verdict, VerdictRule};

/// What is held against whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The upstream works.
    Works,
    /// It tells nothing of the upstream.
    Nothing,
    /// The credential is left alone: it is refused, or out of money.
    Credential,
    /// The credential has no room for this class of models until its limits refill.
    Class,
    /// It counts against the upstream.
    Upstream,
}

impl Effect {
    /// As it stands in logs and metrics.
    pub const fn slug(self) -> &'static str {
        match self {
            Effect::Works => "passed_over",
            Effect::Nothing => "nothing",
            Effect::Credential => "credential_refused",
            Effect::Class => "no_room",
            Effect::Upstream => "upstream_failed",
        }
    }
}

/// One row: the statuses that it is for, what the body must hold, and what follows.
#[derive(Debug)]
pub struct Row {
    /// The first and the last status.
    pub statuses: (u16, u16),
    /// A part of the body's beginning; empty if it does not matter.
    pub body: &'static str,
    /// What the request does.
    pub verdict: Verdict,
    /// What is held against whom.
    pub effect: Effect,
    /// Why, in the docs.
    pub reason: &'static str,
}

const fn row(statuses: (u16, u16), body: &'static str, verdict: Verdict, effect: Effect, reason: &'static str) -> Row {
    Row { statuses, body, verdict, effect, reason }
}

use Verdict::{CoolAndNext, Deliver, Next};

/// The table; the first row that fits holds.
pub const TABLE: &[Row] = &[
    row((200, 299), "", Deliver, Effect::Works, "an answer"),
    row((304, 304), "", Deliver, Effect::Works, "an answer"),
    row((300, 399), "", Next, Effect::Upstream, "a redirect: its base URL is not where it is (R8)"),
    row(
        (400, 400),
        "credit balance is too low",
        CoolAndNext,
        Effect::Credential,
        "the account behind the credential is out of money",
    ),
    row(
        (401, 401),
        "",
        CoolAndNext,
        Effect::Credential,
        "the organisation's credential is refused; never the developer's fault (R16)",
    ),
    row((402, 402), "", CoolAndNext, Effect::Credential, "the account behind the credential is out of money"),
    row((403, 403), "", CoolAndNext, Effect::Credential, "the organisation's credential may not do that (R16)"),
    row((404, 404), "", Next, Effect::Works, "the model is not to be had there; perhaps elsewhere"),
    row((408, 408), "", Next, Effect::Upstream, "it did not read the request in time"),
    row(
        (429, 429),
        "billing_error",
        CoolAndNext,
        Effect::Credential,
        "a spending limit; it keeps failing until somebody raises it (R70)",
    ),
    row((429, 429), "", CoolAndNext, Effect::Class, "the credential's rate limit for this class of models (R70)"),
    row(
        (400, 499),
        "",
        Deliver,
        Effect::Works,
        "the request's own fault; clients heal themselves by its wording (R32)",
    ),
    row((501, 501), "", Next, Effect::Works, "not offered there; perhaps elsewhere"),
    row((500, 599), "", CoolAndNext, Effect::Upstream, "it fails or is overloaded"),
];

/// What one answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// For the request.
    pub verdict: Verdict,
    /// For the one who gave it.
    pub effect: Effect,
}

/// Rules on an answer with this status and this beginning of a body. `rules` are the upstream's own.
pub fn rule(rules: &[VerdictRule], status: u16, body: &[u8]) -> Ruling {
    let holds = |part: &str| part.is_empty() || memchr::memmem::find(body, part.as_bytes()).is_some();
    let row = TABLE.iter().find(|row| (row.statuses.0..=row.statuses.1).contains(&status) && holds(row.body));
    let (verdict, effect) = row.map_or((Next, Effect::Upstream), |row| (row.verdict, row.effect));
    let own = rules.iter().find(|rule| rule.status == status && rule.body.as_deref().is_none_or(holds));
    match own.map(|rule| rule.verdict) {
        None => Ruling { verdict, effect },
        Some(Deliver) => Ruling { verdict: Deliver, effect: Effect::Works },
        Some(Next) => Ruling { verdict: Next, effect: Effect::Nothing },
        // What the table would hold against somebody stays; what it would not is the upstream's.
        Some(CoolAndNext) => match effect {
            Effect::Works | Effect::Nothing => Ruling { verdict: CoolAndNext, effect: Effect::Upstream },
            effect => Ruling { verdict: CoolAndNext, effect },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> (Verdict, Effect) {
        let ruling = rule(&[], status, body.as_bytes());
        (ruling.verdict, ruling.effect)
    }

    #[test]
    fn a_fault_of_the_request_is_delivered_and_cools_nothing() {
        for status in [400, 405, 409, 411, 413, 414, 415, 422, 431] {
            assert_eq!(
                of(status, r#"{"error":{"type":"invalid_request_error"}}"#),
                (Deliver, Effect::Works),
                "{status}"
            );
        }
    }

    #[test]
    fn what_cools_what() {
        assert_eq!(of(429, "{}"), (CoolAndNext, Effect::Class));
        assert_eq!(of(429, r#"{"error":{"type":"billing_error"}}"#), (CoolAndNext, Effect::Credential));
        assert_eq!(of(400, "Your credit balance is too low to access"), (CoolAndNext, Effect::Credential));
        for status in [401, 402, 403] {
            assert_eq!(of(status, ""), (CoolAndNext, Effect::Credential), "{status}");
        }
        for status in [500, 502, 503, 504, 520, 529] {
            assert_eq!(of(status, ""), (CoolAndNext, Effect::Upstream), "{status}");
        }
    }

    #[test]
    fn every_status_has_a_row() {
        for status in 200..600 {
            assert!(
                TABLE.iter().any(|row| (row.statuses.0..=row.statuses.1).contains(&status) && row.body.is_empty()),
                "{status}"
            );
        }
    }

    #[test]
    fn an_upstreams_own_rules_go_first() {
        let rules = [
            VerdictRule { status: 400, body: Some("no capacity".into()), verdict: CoolAndNext },
            VerdictRule { status: 500, body: None, verdict: Deliver },
        ];
        assert_eq!(rule(&rules, 400, b"no capacity left"), Ruling { verdict: CoolAndNext, effect: Effect::Upstream });
        assert_eq!(rule(&rules, 400, b"bad"), Ruling { verdict: Deliver, effect: Effect::Works });
        assert_eq!(rule(&rules, 500, b""), Ruling { verdict: Deliver, effect: Effect::Works });
    }
}
