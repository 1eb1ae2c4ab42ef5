//! Differences of small configurations, and that slots and meanings stand still where nothing is meant to move.

use super::*;
use crate::base::{CallerSlot, TeamSlot, UpstreamSlot, Wall};
use crate::net::Via;
use crate::table::{
    Access, Class, Credential, Driver, Expiry, LogFormat, Org, Pattern, Provider, RuntimeSettings, Slots, Team,
};
use proptest::prelude::*;

const KEY: FingerprintKey = [7; 32];

fn upstream(name: &str, port: u16) -> Upstream {
    Upstream {
        name: name.into(),
        provider: Provider::Anthropic,
        tls: false,
        host: "10.0.0.1".into(),
        port,
        base_path: String::new(),
        host_header: format!("10.0.0.1:{port}"),
        credentials: vec![Credential::new("org", SecretLine::x_api_key("sk-canary-1"))],
        extra_ca: Vec::new(),
        via: None,
        guard: Guard::Inside,
        first_byte: None,
        charge: crate::table::prices::Charge::default(),
        verdicts: Vec::new(),
    }
}

fn to(upstream: u32, tier: u8) -> Target {
    Target { tier, ..Target::to(UpstreamSlot(upstream)) }
}

fn caller(name: &str, team: Option<u32>) -> Caller {
    Caller {
        name: name.into(),
        owner: None,
        team: team.map(TeamSlot),
        access: Access::default(),
        expires: None,
        disabled: false,
        class: Class::Interactive,
        fallback: true,
    }
}

/// Two upstreams, two models, one team, two keys, nothing else.
fn table() -> Table {
    let mut digests = Digests::default();
    digests.add([1; 32], CallerSlot(0));
    digests.add([2; 32], CallerSlot(1));
    Table {
        generation: 1,
        org: Org { contact: None, timezone: "UTC".into() },
        listeners: vec![Listener {
            address: ([127, 0, 0, 1], 8080).into(),
            plaintext: true,
            tls: None,
            hosts: Hosts::Any,
            refuse_cross_site: true,
        }],
        admin: None,
        health: None,
        upstreams: vec![upstream("one", 1), upstream("two", 2)],
        models: vec![
            Model::new(Pattern::new("claude-x"), vec![to(1, 1)]),
            Model::new(Pattern::new("claude-*"), vec![to(0, 1), to(1, 2)]),
        ],
        teams: vec![Team { name: "pay".into(), access: Access::default() }],
        callers: vec![caller("alice", Some(0)), caller("bob", None)],
        digests,
        bounds: Bounds::default(),
        patience: Patience::default(),
        runtime: RuntimeSettings::default(),
        log: LogFormat::Auto,
        prices: crate::table::prices::Prices::default(),
        slots: Slots::default(),
    }
}

/// What a change of the table above makes for sentences, each with its mark.
fn said(change: impl FnOnce(&mut Table)) -> Vec<String> {
    let mut new = table();
    change(&mut new);
    let changes = differences(&table().meaning(&KEY), &new.meaning(&KEY));
    changes.into_iter().map(|change| format!("{} {}", change.effect.mark(), change.what)).collect()
}

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::new(*name)).collect()
}

#[test]
fn keys() {
    let expiry = |at, day: &str| Some(Expiry { at: Wall(at), day: day.into() });
    assert_eq!(said(|_| {}), [""; 0]);
    assert_eq!(said(|t| drop(t.callers.pop())), ["- key `bob` is removed"]);
    assert_eq!(said(|t| t.callers.push(caller("eve", Some(0)))), ["+ key `eve` is added to team `pay`"]);
    assert_eq!(said(|t| t.callers[0].disabled = true), ["- key `alice` is disabled"]);
    let ends = said(|t| t.callers[0].expires = expiry(5, "2026-01-01"));
    assert_eq!(ends, ["- key `alice` expires earlier: after 2026-01-01; it was never"]);
    assert_eq!(said(|t| t.callers[0].team = None), ["~ key `alice` is of no team; it was of team `pay`"]);
    assert_eq!(
        said(|t| t.callers[0].class = Class::Ci),
        ["- key `alice` goes in the class ci; it went in interactive"]
    );
    let rotated = said(|t| {
        t.digests = Digests::default();
        t.digests.add([9; 32], CallerSlot(0));
        t.digests.add([2; 32], CallerSlot(1));
    });
    assert_eq!(rotated, ["- key `alice` is opened by 1 new secret, and by 1 no more"]);
}

#[test]
fn access_is_narrowed_and_widened() {
    let narrowed = said(|t| t.teams[0].access.models = Some(patterns(&["claude-x"])));
    assert_eq!(narrowed, ["- team `pay`: of all models, only claude-x stay open"]);
    let with = |old: Access, new: Access| {
        let (mut before, mut after) = (table(), table());
        (before.callers[0].access, after.callers[0].access) = (old, new);
        let changes = differences(&before.meaning(&KEY), &after.meaning(&KEY));
        changes.into_iter().map(|c| format!("{} {}", c.effect.mark(), c.what)).collect::<Vec<_>>()
    };
    let models = |names: &[&str]| Access { models: Some(patterns(names)), ..Access::default() };
    assert_eq!(
        with(models(&["a", "claude-*"]), models(&["claude-*", "b"])),
        ["- key `alice` itself: the models a are closed", "+ key `alice` itself: the models b are open, too"]
    );
    assert_eq!(with(models(&["claude-*"]), models(&["claude-*", "claude-x"])), [""; 0], "the glob holds it already");
    let upstreams = |slots: &[u32]| Access {
        upstreams: Some(slots.iter().map(|slot| UpstreamSlot(*slot)).collect()),
        ..Access::default()
    };
    assert_eq!(with(upstreams(&[0, 1]), upstreams(&[1, 0])), [""; 0]);
    assert_eq!(
        with(upstreams(&[0]), Access::default()),
        ["+ key `alice` itself: all upstreams are open, not only one"]
    );
    let paths = |paths: &[&str]| Access {
        passthrough: paths.iter().map(|path| Arc::from(*path)).collect(),
        ..Access::default()
    };
    assert_eq!(
        with(paths(&["/v1/files/x"]), paths(&["/v1/files"])),
        ["+ key `alice` itself: the paths /v1/files are open, too"]
    );
}

#[test]
fn models() {
    let second = said(|t| drop(t.models[1].targets.pop()));
    assert_eq!(
        second,
        ["- model `claude-*` leads to one; it led to one, then two; it has no second target to fall over to"]
    );
    let gone = said(|t| drop(t.models.remove(0)));
    assert_eq!(gone, ["- model `claude-x` is removed (it led to two); its names go by `claude-*` now: one, then two"]);
    let new = said(|t| t.models.push(Model::new(Pattern::new("claude-y"), vec![to(1, 1)])));
    assert_eq!(
        new,
        ["+ model `claude-y` is added: two; its names went by `claude-*` before: one, then two; \
          it has no second target to fall over to"]
    );
    let other = said(|t| t.models[0].targets[0].model = Some("house".into()));
    assert_eq!(other, ["~ model `claude-x` leads to two as house; it led to two"]);
    let weights = said(|t| t.models[1].targets[1].tier = 1);
    assert_eq!(weights, ["~ model `claude-*` leads to one or two; it led to one, then two"]);
    let (mut named, mut renamed) = (table(), table());
    named.models[0].aliases = vec!["x".into(), "y".into()];
    renamed.models[0].aliases = vec!["z".into(), "y".into()];
    let changes = differences(&named.meaning(&KEY), &renamed.meaning(&KEY));
    let told = ["model `claude-x` is not called `x` any more", "model `claude-x` is called `z`, too"];
    assert_eq!(changes.iter().map(|change| change.what.as_str()).collect::<Vec<_>>(), told);
    let can = SaidCan { window_max: Some(32_000), images: Some(false), tools: Some(true), thinking: None };
    assert_eq!(
        said(|t| t.models[0].targets[0].said = can),
        ["~ model `claude-x` leads to two (window 32000, no images, tools); it led to two"]
    );
    let known = said(|t| t.models[0].targets[0].can.images = false);
    assert_eq!(known, [""; 0], "what follows from the rest is no difference of its own");
}

#[test]
fn failing_over() {
    let off = "does not fail over any more: a failure is shown as it is";
    assert_eq!(said(|t| t.models[1].fallback = false), [format!("- model `claude-*` {off}")]);
    assert_eq!(said(|t| t.callers[1].fallback = false), [format!("- key `bob` {off}")]);
    let (mut off, on) = (table(), table());
    (off.models[0].fallback, off.callers[0].fallback) = (false, false);
    let changes = differences(&off.meaning(&KEY), &on.meaning(&KEY));
    let told = ["model `claude-x`", "key `alice`"].map(|who| format!("{who} fails over where there is another target"));
    assert_eq!(changes.iter().map(|change| change.what.clone()).collect::<Vec<_>>(), told);
    assert!(changes.iter().all(|change| change.effect == Effect::More));
    let hasty = said(|t| t.upstreams[0].first_byte = Some(Span::from_secs(30)));
    assert_eq!(hasty, ["~ upstream `one` has 30000 ms for the head of an answer; it had all of the client's patience"]);
    let rule = |status, body: Option<&str>, verdict| VerdictRule { status, body: body.map(Into::into), verdict };
    let rules = [rule(400, Some("no capacity"), Verdict::CoolAndNext), rule(409, None, Verdict::Deliver)];
    assert_eq!(
        said(|t| t.upstreams[1].verdicts = rules.to_vec()),
        [
            "~ upstream `two` has verdicts of its own: 400 with `no capacity`: cool-and-next, 409: deliver; they were none"
        ]
    );
}

#[test]
fn limits_of_credentials() {
    let with = |old: CredentialLimits, new: CredentialLimits| {
        let (mut before, mut after) = (table(), table());
        (before.upstreams[0].credentials[0].limits, after.upstreams[0].credentials[0].limits) = (old, new);
        let changes = differences(&before.meaning(&KEY), &after.meaning(&KEY));
        let about = "upstream `one` credential `org`: ";
        let told = |c: &Change| format!("{} {}", c.effect.mark(), c.what.strip_prefix(about).expect("about it"));
        changes.iter().map(told).collect::<Vec<_>>()
    };
    let none = CredentialLimits::default();
    let rpm = |rpm| CredentialLimits { rpm: Some(rpm), ..none };
    assert_eq!(with(none, rpm(20)), ["- rpm is limited to 20"]);
    assert_eq!(with(rpm(20), none), ["+ rpm is limited no more; it was to 20"]);
    let day = CredentialLimits { requests_per_day: Some(1_000), output_tpm: Some(5), ..rpm(10) };
    let more = CredentialLimits { requests_per_day: Some(2_000), output_tpm: Some(5), ..rpm(9) };
    assert_eq!(with(day, more), ["+ requests_per_day is raised to 2000, from 1000", "- rpm is lowered to 9, from 10"]);
}

#[test]
fn globs_that_share_names_go_by_order() {
    let (mut old, mut new) = (table(), table());
    let globs = |names: [&str; 3]| names.map(|n| Model::new(Pattern::new(n), vec![to(0, 1), to(1, 2)])).to_vec();
    old.models = globs(["a*", "*b", "c*"]);
    new.models = globs(["c*", "*b", "a*"]);
    let changes = differences(&old.meaning(&KEY), &new.meaning(&KEY));
    let said: Vec<_> = changes.iter().map(|c| c.what.as_str()).collect();
    assert_eq!(
        said,
        ["model `c*` goes before `*b` now, where both fit", "model `*b` goes before `a*` now, where both fit",]
    );
}

#[test]
fn upstreams() {
    let moved = said(|t| t.upstreams[0] = upstream("one", 9));
    assert_eq!(moved, ["~ upstream `one` is at http://10.0.0.1:9; it was at http://10.0.0.1:1"]);
    let rotated = said(|t| t.upstreams[0].credentials[0].header = SecretLine::x_api_key("sk-canary-2"));
    assert_eq!(rotated, ["~ upstream `one` has another value for its credential `org`"]);
    let renamed = said(|t| t.upstreams[0].credentials[0].name = "new".into());
    assert_eq!(
        renamed,
        ["- upstream `one` has no credential `org` any more", "+ upstream `one` has the credential `new`, too"]
    );
    let via = |password: &str| {
        let via = Via::new(("proxy", 3128), ("10.0.0.1", 1), Some(("user", password)));
        Some(Arc::new(via))
    };
    let proxied = said(|t| t.upstreams[0].via = via("canary"));
    assert_eq!(proxied, ["~ upstream `one` is reached by the proxy proxy:3128; it was straight to it"]);
    let (mut old, mut new) = (table(), table());
    (old.upstreams[0].via, new.upstreams[0].via) = (via("canary-1"), via("canary-2"));
    let changes = differences(&old.meaning(&KEY), &new.meaning(&KEY));
    let told = "upstream `one` is reached by the proxy proxy:3128 with another user or password for that";
    assert_eq!(changes.iter().map(|c| c.what.as_str()).collect::<Vec<_>>(), [told]);
    let guarded = said(|t| t.upstreams[0].guard = Guard::Public);
    assert_eq!(guarded, ["- upstream `one` may not be at a private address any more"]);
    let roots = said(|t| t.upstreams[0].extra_ca.push(vec![1, 2, 3]));
    assert_eq!(roots, ["~ upstream `one` trusts 1 roots from its `ca_file`; other ones than before"]);
}

#[test]
fn settings_and_what_needs_a_restart() {
    let slower = said(|t| t.patience.idle = crate::base::Span::from_secs(20));
    assert_eq!(slower, ["- [timeouts] idle is lowered to 20000 ms, from 240000 ms"]);
    assert_eq!(said(|t| t.bounds.pool_idle_max = 300), ["+ [bounds] pool_idle_max is raised to 300, from 256"]);
    let contact = said(|t| t.org.contact = Some("#help".into()));
    assert_eq!(contact, ["~ [org] contact is `#help`; it was not set"]);
    let restart = said(|t| {
        t.runtime = RuntimeSettings { driver: Driver::Epoll, workers: Some(3) };
        t.listeners[0].address.set_port(9);
    });
    assert_eq!(
        restart,
        [
            "! [listen] on 127.0.0.1:8080 is removed, and stays until a restart",
            "! [listen] on 127.0.0.1:9 is new, and comes with a restart",
            "! [runtime] driver is `epoll`, and `auto` until a restart",
            "! [runtime] workers is `3`, and not set until a restart",
        ]
    );
}

#[test]
fn what_only_a_restart_changes_is_held() {
    let (running, mut new) = (table(), table());
    new.runtime.workers = Some(3);
    new.listeners[0].hosts = Hosts::Only(vec!["forebay.example".into()]);
    new.listeners.insert(0, Listener { address: ([127, 0, 0, 1], 9).into(), ..new.listeners[0].clone() });
    new.hold(&running);
    assert_eq!(new.runtime.workers, None);
    assert_eq!(new.listeners.len(), 1);
    assert_eq!(new.listeners[0].address.port(), 8080);
    assert_ne!(new.listeners[0].hosts, running.listeners[0].hosts, "which names it answers to can change");
    new.listeners.clear();
    new.hold(&running);
    assert_eq!(new.listeners, running.listeners, "what listens stays");
}

#[test]
fn no_secret_is_in_a_meaning_and_other_keys_make_other_fingerprints() {
    let text = serde_json::to_string(&table().meaning(&KEY)).unwrap();
    let digest = "01".repeat(32);
    for secret in ["canary", "x-api-key", &digest] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_ne!(table().meaning(&KEY), table().meaning(&[8; 32]));
    let back: Meaning = serde_json::from_str(&text).unwrap();
    assert_eq!(back, table().meaning(&KEY));
}

#[test]
fn an_upstream_that_moves_gets_a_slot_of_its_own_and_keeps_its_name() {
    let first = table();
    let mut moved = table();
    moved.upstreams[0] = upstream("one", 9);
    moved.follow(&first);
    assert_eq!(moved.generation, 2);
    let slots: Vec<u32> = moved.upstream_slots().map(|(slot, _)| slot.0).collect();
    assert_eq!((slots, moved.upstream_slots_len()), (vec![2, 1], 3));
    assert!(moved.upstream(UpstreamSlot(0)).is_none(), "the old place is nobody's");
    assert_eq!(moved.models[1].targets[0].upstream, UpstreamSlot(2));
    let mut back = table();
    back.follow(&moved);
    assert_eq!(back.upstream_slots().map(|(slot, _)| slot.0).collect::<Vec<_>>(), [0, 1], "a place that comes back");
    assert_eq!(back.upstream_slots_named("one"), [UpstreamSlot(0), UpstreamSlot(2)]);
    let mut guarded = table();
    guarded.upstreams[0].guard = Guard::Public;
    guarded.follow(&moved);
    assert_eq!(
        guarded.upstream_slots().next().map(|(slot, _)| slot.0),
        Some(3),
        "what is known was let through before"
    );
    let mut rotated = table();
    rotated.upstreams[0].credentials[0].header = SecretLine::x_api_key("sk-canary-2");
    rotated.follow(&back);
    assert_eq!(rotated.upstream_slots().next().map(|(slot, _)| slot.0), Some(0), "a new credential moves nothing");
}

#[test]
fn all_lists_may_empty_and_fill_again() {
    let first = table();
    let mut empty = table();
    (empty.teams, empty.callers, empty.digests) = (Vec::new(), Vec::new(), Digests::default());
    empty.follow(&first);
    assert!(empty.caller(CallerSlot(0)).is_none() && empty.team(TeamSlot(0)).is_none());
    let mut full = table();
    full.callers.insert(0, caller("eve", None));
    full.digests = Digests::default();
    full.digests.add([3; 32], CallerSlot(0));
    full.follow(&empty);
    assert_eq!(full.caller_by_digest(&[3; 32]), Some(CallerSlot(2)));
    assert_eq!(full.caller(CallerSlot(2)).map(|caller| &*caller.name), Some("eve"));
    assert_eq!(full.caller(CallerSlot(0)).map(|caller| &*caller.name), Some("alice"));
}

/// A table with these upstreams and keys, in this order; every key may use the upstream that its number says.
fn drawn(upstreams: &[u8], keys: &[u8]) -> Table {
    let mut new = table();
    new.upstreams = upstreams.iter().map(|n| upstream(&format!("u{n}"), u16::from(*n) + 1)).collect();
    new.models = vec![Model::new(Pattern::new("*"), (0..upstreams.len() as u32).map(|at| to(at, 1)).collect())];
    new.teams.clear();
    new.digests = Digests::default();
    new.callers = keys.iter().map(|n| caller(&format!("k{n}"), None)).collect();
    for (at, key) in new.callers.iter_mut().enumerate() {
        let number = keys.get(at).copied().unwrap_or_default();
        let place = usize::from(number) % upstreams.len();
        key.access.upstreams = Some(vec![UpstreamSlot(place as u32)]);
        new.digests.add([number; 32], CallerSlot(at as u32));
    }
    new
}

fn shuffled() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let some = |n: usize| proptest::sample::subsequence((0..8_u8).collect::<Vec<_>>(), n..=8).prop_shuffle();
    (some(1), some(0))
}

#[test]
fn prices_are_compared() {
    use crate::table::prices::{Charge, Factor, Price, Prices, Rate, Rates};
    let row = |input| {
        let rates = Rates { input: Rate(input), output: Rate(9), ..Rates::default() };
        Price { from: Some(crate::base::Wall(1_798_675_200_000)), ..Price::new(Pattern::new("m"), rates) }
    };
    let with = |rows: Vec<Price>, factor: &str| {
        let mut table = drawn(&[1], &[1]);
        table.prices = Prices::new(rows, Vec::new(), "");
        table.upstreams[0].charge = Charge { factor: Factor::of(factor).unwrap(), ..Charge::default() };
        table.meaning(&KEY)
    };
    let whats = |old: &Meaning, new: &Meaning| differences(old, new).into_iter().map(|c| c.what).collect::<Vec<_>>();
    let (none, one, other) = (with(vec![], "1"), with(vec![row(1)], "1"), with(vec![row(2)], "0.9"));
    assert_eq!(whats(&none, &one), ["price of `m from 2026-12-31` is another one"]);
    assert_eq!(
        whats(&one, &other),
        [
            "upstream `u1` takes 0.9 times the price and $0 an answer; it took 1 times the price and $0 an answer",
            "price of `m from 2026-12-31` is another one",
        ]
    );
    assert_eq!(whats(&one, &none), ["price of `m from 2026-12-31` is the shipped one, or none"]);
}

proptest! {
    /// Whatever comes and goes over many reloads: a name has one slot, a slot has one name, every reference leads
    /// where it led when it was compiled, and old tables are not touched.
    #[test]
    fn slots_are_names(rounds in proptest::collection::vec(shuffled(), 1..8)) {
        let mut owners: BTreeMap<(char, u32), String> = BTreeMap::new();
        let mut last = table();
        for (upstreams, keys) in rounds {
            let mut next = drawn(&upstreams, &keys);
            let meant = next.meaning(&KEY);
            next.follow(&last);
            prop_assert_eq!(&next.meaning(&KEY), &meant, "renumbering changes no meaning");
            prop_assert_eq!(next.generation, last.generation + 1);
            for (slot, upstream) in next.upstream_slots() {
                let owner = owners.entry(('u', slot.0)).or_insert_with(|| upstream.name.to_string());
                prop_assert_eq!(&**owner, &*upstream.name);
                prop_assert!(next.upstream(slot).is_some_and(|found| found.name == upstream.name));
                prop_assert!(slot.index() < next.upstream_slots_len());
            }
            for number in &keys {
                let slot = next.caller_by_digest(&[*number; 32]).unwrap();
                let name = format!("k{number}");
                prop_assert_eq!(owners.entry(('k', slot.0)).or_insert_with(|| name.clone()), &name);
                prop_assert_eq!(&*next.caller(slot).unwrap().name, &*name);
                let plan = next.resolve(slot, "any").unwrap();
                let open: Vec<_> = plan.candidates(&next).map(|t| next.upstream(t.upstream).unwrap().name.to_string()).collect();
                prop_assert_eq!(open, [format!("u{}", upstreams[usize::from(*number) % upstreams.len()])]);
            }
            last = next;
        }
    }

    /// Two tables that mean the same, in another order, differ in nothing; and what differs is told both ways.
    #[test]
    fn the_same_meaning_is_no_difference((upstreams, keys) in shuffled()) {
        let (mut ups, mut kys) = (upstreams.clone(), keys.clone());
        ups.sort_unstable();
        kys.reverse();
        let mut old = drawn(&upstreams, &keys);
        let mut new = drawn(&ups, &kys);
        // One target and no bound, so that no order counts.
        for table in [&mut old, &mut new] {
            let first = table.upstreams.iter().position(|u| *u.name == *format!("u{}", ups[0])).unwrap();
            table.models = vec![Model::new(Pattern::new("*"), vec![to(first as u32, 1)])];
            table.callers.iter_mut().for_each(|caller| caller.access = Access::default());
        }
        new.follow(&old);
        let (a, b) = (old.meaning(&KEY), new.meaning(&KEY));
        prop_assert_eq!(differences(&a, &b), Vec::new());
        new.callers.push(caller("another", None));
        let c = new.meaning(&KEY);
        prop_assert_eq!(differences(&b, &c).len(), 1);
        prop_assert_eq!(differences(&c, &b).len(), 1);
    }
}
