//! Every kind of credential that a laptop may send, alone and beside a good one.

use super::key::{digest, mint};
use super::*;
use crate::table::{Access, Bounds, Class, Digests, Expiry, LogFormat, Org, Patience, RuntimeSettings, Slots, Table};

const NOW: Wall = Wall(1_000_000);

fn caller(name: &str) -> Caller {
    Caller {
        name: name.into(),
        owner: None,
        team: None,
        access: Access::default(),
        expires: None,
        disabled: false,
        class: Class::Interactive,
        fallback: true,
    }
}

/// Callers 0 `alice` (keys 0 and 9), 1 `bob`, 2 `late` (expired), 3 `off` (disabled).
fn table() -> Table {
    let mut digests = Digests::default();
    for (at, slot) in [(0, 0), (9, 0), (1, 1), (2, 2), (3, 3)] {
        assert_eq!(digests.add(digest(key_of(at).as_bytes()), CallerSlot(slot)), None);
    }
    let late = Caller { expires: Some(Expiry { at: NOW, day: "2026-03-01".into() }), ..caller("late") };
    let off = Caller { disabled: true, ..caller("off") };
    Table {
        generation: 1,
        org: Org { contact: None, timezone: "UTC".into() },
        listeners: Vec::new(),
        admin: None,
        health: None,
        upstreams: Vec::new(),
        models: Vec::new(),
        teams: Vec::new(),
        callers: vec![caller("alice"), caller("bob"), late, off],
        digests,
        bounds: Bounds::default(),
        patience: Patience::default(),
        runtime: RuntimeSettings::default(),
        log: LogFormat::Auto,
        prices: crate::table::prices::Prices::default(),
        slots: Slots::default(),
    }
}

fn key_of(at: u8) -> String {
    mint([at; 32]).expose().to_owned()
}

fn ask(fields: &[(&str, &str)]) -> Result<CallerSlot, Failure> {
    identify(&table(), fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), NOW)
}

fn refused(fields: &[(&str, &str)]) -> Failure {
    let failure = ask(fields).expect_err("refused");
    for (_, value) in fields {
        let bare = value.trim().rsplit(' ').next().unwrap_or_default();
        assert!(bare.len() < 12 || !failure.message.contains(bare), "the value leaked: {}", failure.message);
    }
    assert!(failure.message.ends_with('.'), "{}", failure.message);
    failure
}

#[test]
fn either_header_and_every_digest_of_a_caller_are_good() {
    let (first, second, bob) = (key_of(0), key_of(9), key_of(1));
    assert_eq!(ask(&[("Authorization", &format!("Bearer {first}"))]), Ok(CallerSlot(0)));
    assert_eq!(ask(&[("authorization", &format!("bearer  {first} "))]), Ok(CallerSlot(0)));
    assert_eq!(ask(&[("X-Api-Key", &second)]), Ok(CallerSlot(0)));
    assert_eq!(ask(&[("x-api-key", &bob)]), Ok(CallerSlot(1)));
    let both = [("x-api-key", second.as_str()), ("authorization", &format!("Bearer {first}"))];
    assert_eq!(ask(&both), Ok(CallerSlot(0)), "two keys of one caller");
}

#[test]
fn leftovers_beside_a_good_key_do_no_harm() {
    let good = format!("Bearer {}", key_of(0));
    let (late, off) = (key_of(2), key_of(3));
    let leftovers = ["", " ", "sk-ant-api03-leftover", "sk-or-v1-leftover", "fby_broken", late.as_str(), off.as_str()];
    for leftover in leftovers {
        assert_eq!(ask(&[("x-api-key", leftover), ("authorization", &good)]), Ok(CallerSlot(0)), "{leftover}");
    }
    let login = "Bearer sk-ant-oat01-abcdefgh";
    assert_eq!(ask(&[("authorization", login), ("x-api-key", &key_of(0))]), Ok(CallerSlot(0)));
    assert_eq!(ask(&[("authorization", "Basic YWJj"), ("x-api-key", &key_of(0))]), Ok(CallerSlot(0)));
}

#[test]
fn two_callers_are_a_conflict() {
    let fields = [("x-api-key", key_of(1)), ("authorization", format!("Bearer {}", key_of(0)))];
    let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(refused(&fields).kind, Kind::CredentialsConflict);
}

#[test]
fn nothing_and_empty_values_are_missing() {
    for fields in [&[][..], &[("authorization", "")], &[("authorization", "Bearer ")], &[("x-api-key", " ")]] {
        let failure = refused(fields);
        assert_eq!(failure.kind, Kind::CredentialMissing);
        assert_eq!(
            failure.message,
            "no key came with the request. Set ANTHROPIC_AUTH_TOKEN to the fby_ key you were given."
        );
    }
}

#[test]
fn refusals_name_the_kind_that_came() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("authorization", "Bearer sk-ant-oat01-secretsecret")], "a claude.ai login came in `authorization`"),
        (
            &[("authorization", "Bearer opaque-secret-x"), ("anthropic-beta", "a-1, oauth-2025-04-20")],
            "a claude.ai login came in `authorization`",
        ),
        (
            &[("x-api-key", "sk-ant-api03-secretsecret")],
            "an Anthropic API key came in the API key header, which is not a key of this gateway. Run `unset ANTHROPIC_API_KEY`. \
             Set ANTHROPIC_AUTH_TOKEN to the fby_ key",
        ),
        (&[("authorization", "Bearer sk-or-v1-secretsecret")], "an OpenRouter key came in `authorization`"),
        (&[("authorization", "Bearer sk-proj-secretsecret")], "an OpenAI key came"),
        (&[("authorization", "Bearer opaque-secret-x")], "a credential of unknown form came"),
        (&[("authorization", "Basic c2VjcmV0c2VjcmV0")], "`authorization` came without the scheme `Bearer`"),
        (
            &[("x-api-key", "sk-ant-api03-secretsecret"), ("authorization", "Bearer sk-ant-oat01-secretsecret")],
            "an Anthropic API key in the API key header and a claude.ai login in `authorization` came; neither",
        ),
    ];
    for (fields, start) in cases {
        let failure = refused(fields);
        // A login is told by a status of its own: a 401 would make Claude Code renew it and ask again.
        let login = start.contains("claude.ai");
        assert_eq!(failure.kind, if login { Kind::LoginMisdirected } else { Kind::CredentialUnknown });
        assert!(failure.message.starts_with(start), "{}", failure.message);
    }
}

#[test]
fn a_forebay_key_is_unknown_mistyped_expired_or_disabled() {
    let unknown = refused(&[("x-api-key", &key_of(77))]);
    assert_eq!(unknown.kind, Kind::CredentialUnknown);
    assert!(unknown.message.contains("is not known here"), "{}", unknown.message);
    let typo = key_of(0).replace("fby_", "fby_x");
    let mistyped = refused(&[("x-api-key", "sk-ant-api03-secretsecret"), ("authorization", &format!("Bearer {typo}"))]);
    assert_eq!(mistyped.kind, Kind::CredentialMistyped, "the key that was meant for us is the one to talk about");
    let late = refused(&[("x-api-key", &key_of(2))]);
    assert_eq!((late.kind, late.message.contains("its last day was 2026-03-01")), (Kind::KeyExpired, true));
    assert_eq!(refused(&[("x-api-key", &key_of(3))]).kind, Kind::KeyDisabled);
}

#[test]
fn a_key_is_good_until_its_last_moment() {
    let table = table();
    let key = key_of(2);
    let at = |now| identify(&table, [(&b"x-api-key"[..], key.as_bytes())].into_iter(), now);
    assert_eq!(at(Wall(NOW.0 - 1)), Ok(CallerSlot(2)));
    assert!(at(NOW).is_err());
}

#[test]
fn an_oversized_credential_is_nobodys() {
    assert_eq!(refused(&[("x-api-key", &"k".repeat(60_000))]).kind, Kind::CredentialUnknown);
}
