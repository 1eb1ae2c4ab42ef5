//! The difference between two meanings, as sentences: what callers lose, what they gain, what is otherwise new, and
//! what only a restart would bring into force. What says the same in another order differs in nothing.

use super::{CredentialMeaning, KeyMeaning, ListenerMeaning, Meaning, UpstreamMeaning, access, models};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Changes that are told; above it their number only.
const CHANGES_MAX: usize = 1_000;
/// Names that one sentence lists.
const LISTED_MAX: usize = 12;

/// What a change does to those who use the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Something that worked does not, or less of it.
    Less,
    /// Something works that did not, or more of it.
    More,
    /// Neither more nor less.
    Other,
    /// Nothing, until forebay is restarted.
    Restart,
}

impl Effect {
    /// What stands before the sentence.
    pub const fn mark(self) -> char {
        match self {
            Effect::Less => '-',
            Effect::More => '+',
            Effect::Other => '~',
            Effect::Restart => '!',
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it does.
    pub effect: Effect,
    /// A sentence without a full stop. Never a secret.
    pub what: String,
}

/// Collects up to `CHANGES_MAX` changes, and counts the rest.
#[derive(Default)]
pub(super) struct Changes {
    list: Vec<Change>,
    left_out: usize,
}

impl Changes {
    pub(super) fn push(&mut self, effect: Effect, what: String) {
        if self.list.len() < CHANGES_MAX {
            self.list.push(Change { effect, what });
        } else {
            self.left_out += 1;
        }
    }
}

/// What it means to go from `old` to `new`.
pub fn differences(old: &Meaning, new: &Meaning) -> Vec<Change> {
    // All fields are named here, so that a new one does not compile before it is compared.
    let Meaning { org, listeners, process, upstreams, models: rules, teams, keys, prices, timeouts_ms, bounds } = new;
    let mut out = Changes::default();
    compare_upstreams(&mut out, old, upstreams, new.passes_through());
    models::changes(&mut out, &old.models, rules);
    compare_teams(&mut out, old, teams);
    compare_keys(&mut out, old, keys);
    for (name, value) in org.iter().filter(|(name, value)| old.org.get(*name) != Some(value)) {
        let before = old.org.get(name).and_then(Option::as_deref);
        out.push(Effect::Other, format!("[org] {name} is {}; it was {}", shown(value.as_deref()), shown(before)));
    }
    compare_prices(&mut out, &old.prices, prices);
    numbers(&mut out, "[timeouts]", " ms", &old.timeouts_ms, timeouts_ms);
    numbers(&mut out, "[bounds]", "", &old.bounds, bounds);
    compare_listeners(&mut out, &old.listeners, listeners);
    for (name, value) in process.iter().filter(|(name, value)| old.process.get(*name) != Some(value)) {
        let before = old.process.get(name).and_then(Option::as_deref);
        let (value, before) = (shown(value.as_deref()), shown(before));
        out.push(Effect::Restart, format!("{name} is {value}, and {before} until a restart"));
    }
    if out.left_out > 0 {
        out.list.push(Change { effect: Effect::Other, what: format!("{} changes more", out.left_out) });
    }
    out.list
}

fn compare_upstreams(out: &mut Changes, old: &Meaning, new: &[UpstreamMeaning], passes_through: bool) {
    let find = |list: &'_ [UpstreamMeaning], name: &str| list.iter().position(|upstream| upstream.name == name);
    for gone in old.upstreams.iter().filter(|upstream| find(new, &upstream.name).is_none()) {
        out.push(Effect::Less, format!("upstream `{}` is removed ({})", gone.name, gone.url));
    }
    for upstream in new {
        match find(&old.upstreams, &upstream.name).and_then(|at| old.upstreams.get(at)) {
            None => {
                let names: Vec<&str> = upstream.credentials.iter().map(|c| c.name.as_str()).collect();
                let with = if names.is_empty() { String::new() } else { format!(", credentials {}", list(&names)) };
                out.push(Effect::More, format!("upstream `{}` is added: {}{with}", upstream.name, upstream.url));
            }
            Some(before) => compare_upstream(out, before, upstream),
        }
    }
    let order = |list: &[UpstreamMeaning], other: &[UpstreamMeaning]| -> Vec<String> {
        let both = list.iter().filter(|upstream| find(other, &upstream.name).is_some());
        both.map(|upstream| upstream.name.clone()).collect()
    };
    let (before, after) = (order(&old.upstreams, new), order(new, &old.upstreams));
    if before != after && passes_through {
        let after: Vec<&str> = after.iter().map(String::as_str).collect();
        let what = format!("passed-through paths go to the first of {} that is open to the key", list(&after));
        out.push(Effect::Other, what);
    }
}

fn compare_upstream(out: &mut Changes, old: &UpstreamMeaning, new: &UpstreamMeaning) {
    let UpstreamMeaning {
        name,
        provider,
        url,
        host_header,
        credentials,
        extra_ca,
        proxy,
        reaches_inside,
        charge,
        first_byte_ms,
        verdicts,
    } = new;
    let mut say = |effect, what: String| out.push(effect, format!("upstream `{name}` {what}"));
    if *url != old.url || *host_header != old.host_header {
        say(Effect::Other, format!("is at {url}; it was at {}", old.url));
    }
    if *provider != old.provider {
        say(Effect::Other, format!("is of the provider {provider}; it was of {}", old.provider));
    }
    let way = |proxy: &Option<(String, String)>| {
        proxy.as_ref().map_or("straight to it".to_owned(), |(name, _)| format!("by the proxy {name}"))
    };
    match (way(&old.proxy), way(proxy)) {
        (before, now) if before != now => say(Effect::Other, format!("is reached {now}; it was {before}")),
        (_, now) if *proxy != old.proxy => {
            say(Effect::Other, format!("is reached {now} with another user or password for that"));
        }
        _ => {}
    }
    if *charge != old.charge {
        say(Effect::Other, format!("takes {charge}; it took {}", old.charge));
    }
    match (old.reaches_inside, *reaches_inside) {
        (true, false) => say(Effect::Less, "may not be at a private address any more".into()),
        (false, true) => say(Effect::More, "may be at a private address".into()),
        _ => {}
    }
    if *first_byte_ms != old.first_byte_ms {
        let span = |ms: Option<u64>| ms.map_or("all of the client's patience".to_owned(), |ms| format!("{ms} ms"));
        let what =
            format!("has {} for the head of an answer; it had {}", span(*first_byte_ms), span(old.first_byte_ms));
        say(Effect::Other, what);
    }
    if *verdicts != old.verdicts {
        let all = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        let what = format!("has verdicts of its own: {}; they were {}", all(verdicts), all(&old.verdicts));
        say(Effect::Other, what);
    }
    for (effect, what) in pools(&old.credentials, credentials) {
        say(effect, what);
    }
    let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
    if set(extra_ca) != set(&old.extra_ca) {
        say(Effect::Other, format!("trusts {} roots from its `ca_file`; other ones than before", extra_ca.len()));
    }
}

/// How a pool has changed, each as a clause about its upstream.
fn pools(old: &[CredentialMeaning], new: &[CredentialMeaning]) -> Vec<(Effect, String)> {
    let mut out = Vec::new();
    let mut say = |effect, what: String| out.push((effect, what));
    let find = |list: &[CredentialMeaning], name: &str| list.iter().position(|c| c.name == name);
    for gone in old.iter().filter(|c| find(new, &c.name).is_none()) {
        say(Effect::Less, format!("has no credential `{}` any more", gone.name));
    }
    for credential in new {
        match find(old, &credential.name).and_then(|at| old.get(at)) {
            None => say(Effect::More, format!("has the credential `{}`, too", credential.name)),
            Some(before) => {
                if before.fingerprint != credential.fingerprint {
                    say(Effect::Other, format!("has another value for its credential `{}`", credential.name));
                }
                for (effect, what) in limits(&before.limits, &credential.limits) {
                    say(effect, format!("credential `{}`: {what}", credential.name));
                }
            }
        }
    }
    let names = |list: &[CredentialMeaning]| list.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let (mut before, mut after) = (names(old), names(new));
    if before != after {
        before.retain(|name| after.contains(name));
        after.retain(|name| before.contains(name));
        if before != after {
            say(Effect::Other, format!("takes its credentials in the order {}", after.join(", ")));
        }
    }
    out
}

/// How limits have changed; what is not named is not bounded.
fn limits(old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>) -> Vec<(Effect, String)> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| match (old.get(name), new.get(name)) {
        (None, Some(now)) => Some((Effect::Less, format!("{name} is limited to {now}"))),
        (Some(before), None) => Some((Effect::More, format!("{name} is limited no more; it was to {before}"))),
        (Some(before), Some(now)) if now < before => {
            Some((Effect::Less, format!("{name} is lowered to {now}, from {before}")))
        }
        (Some(before), Some(now)) if now > before => {
            Some((Effect::More, format!("{name} is raised to {now}, from {before}")))
        }
        _ => None,
    };
    names.into_iter().filter_map(change).collect()
}

fn compare_teams(out: &mut Changes, old: &Meaning, new: &BTreeMap<String, super::AccessMeaning>) {
    for name in old.teams.keys().filter(|name| !new.contains_key(*name)) {
        out.push(Effect::Less, format!("team `{name}` is removed"));
    }
    for (name, opens) in new {
        match old.teams.get(name) {
            None => out.push(Effect::More, format!("team `{name}` is added")),
            Some(before) => {
                for (effect, what) in access::changes(before, opens) {
                    out.push(effect, format!("team `{name}`: {what}"));
                }
            }
        }
    }
}

fn compare_keys(out: &mut Changes, old: &Meaning, new: &BTreeMap<String, KeyMeaning>) {
    for name in old.keys.keys().filter(|name| !new.contains_key(*name)) {
        out.push(Effect::Less, format!("key `{name}` is removed"));
    }
    for (name, key) in new {
        let Some(before) = old.keys.get(name) else {
            let team = key.team.as_ref().map_or(String::new(), |team| format!(" to team `{team}`"));
            let off = if key.disabled { ", disabled" } else { "" };
            out.push(Effect::More, format!("key `{name}` is added{team}{off}"));
            continue;
        };
        compare_key(out, name, before, key);
    }
}

fn compare_key(out: &mut Changes, name: &str, old: &KeyMeaning, new: &KeyMeaning) {
    let KeyMeaning { owner, team, class, expires, disabled, secrets, access: opens, fallback } = new;
    let mut say = |effect, what: String| out.push(effect, format!("key `{name}` {what}"));
    match (old.disabled, *disabled) {
        (false, true) => say(Effect::Less, "is disabled".into()),
        (true, false) => say(Effect::More, "is enabled again".into()),
        _ => {}
    }
    let end = |key: &KeyMeaning| key.expires.as_ref().map_or(u64::MAX, |(at, _)| *at);
    let day = |key: &KeyMeaning| key.expires.as_ref().map_or("never".to_owned(), |(_, day)| format!("after {day}"));
    if *expires != old.expires {
        let effect = match end(new).cmp(&end(old)) {
            std::cmp::Ordering::Less => Effect::Less,
            std::cmp::Ordering::Greater => Effect::More,
            std::cmp::Ordering::Equal => Effect::Other,
        };
        let when = if effect == Effect::Less { "earlier" } else { "later" };
        say(effect, format!("expires {when}: {}; it was {}", day(new), day(old)));
    }
    let missing = |from: &[String], within: &[String]| from.iter().filter(|one| !within.contains(one)).count();
    match (missing(&old.secrets, secrets), missing(secrets, &old.secrets)) {
        (0, 0) => {}
        (0, more) => say(Effect::More, format!("is opened by {more} further secret{}", plural(more))),
        (gone, 0) => say(Effect::Less, format!("is opened by {gone} secret{} less", plural(gone))),
        (gone, more) => {
            say(Effect::Less, format!("is opened by {more} new secret{}, and by {gone} no more", plural(more)));
        }
    }
    if *team != old.team {
        let what = format!("is of {}; it was of {}", of_team(team.as_deref()), of_team(old.team.as_deref()));
        say(Effect::Other, what);
    }
    for (effect, what) in access::changes(&old.access, opens) {
        say(effect, format!("itself: {what}"));
    }
    if *class != old.class {
        let effect = if *class > old.class { Effect::Less } else { Effect::More };
        let word = |class| format!("{class:?}").to_lowercase();
        say(effect, format!("goes in the class {}; it went in {}", word(*class), word(old.class)));
    }
    if let Some((effect, what)) = models::fails_over(old.fallback, *fallback) {
        say(effect, what.into());
    }
    if *owner != old.owner {
        say(Effect::Other, format!("is {}'s; it was {}'s", owned(owner.as_deref()), owned(old.owner.as_deref())));
    }
}

fn compare_listeners(out: &mut Changes, old: &[ListenerMeaning], new: &[ListenerMeaning]) {
    let find = |list: &'_ [ListenerMeaning], address: &str| list.iter().position(|l| l.address == address);
    for gone in old.iter().filter(|listener| find(new, &listener.address).is_none()) {
        out.push(Effect::Restart, format!("[listen] on {} is removed, and stays until a restart", gone.address));
    }
    for listener in new {
        let ListenerMeaning { address, plaintext, tls, hosts, refuse_cross_site } = listener;
        let Some(before) = find(old, address).and_then(|at| old.get(at)) else {
            out.push(Effect::Restart, format!("[listen] on {address} is new, and comes with a restart"));
            continue;
        };
        if *tls != before.tls {
            let now =
                tls.as_ref().map_or("speaks plain HTTP".to_owned(), |files| format!("shows the certificate {files}"));
            out.push(Effect::Other, format!("[listen] on {address}: {now}"));
        }
        if *plaintext != before.plaintext {
            out.push(Effect::Other, format!("[listen] on {address}: plaintext is {plaintext}"));
        }
        if *hosts != before.hosts {
            let names = |hosts: &Option<Vec<String>>| hosts.as_ref().map_or("every Host".into(), |h| h.join(", "));
            let what = format!("[listen] on {address} answers to {}; it did to {}", names(hosts), names(&before.hosts));
            out.push(if hosts.is_none() { Effect::More } else { Effect::Other }, what);
        }
        if *refuse_cross_site != before.refuse_cross_site {
            let (effect, word) = if *refuse_cross_site { (Effect::Less, "refuses") } else { (Effect::More, "lets in") };
            out.push(effect, format!("[listen] on {address} {word} what web pages of other sites send"));
        }
    }
}

fn compare_prices(out: &mut Changes, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let what = match (old.get(name), new.get(name)) {
            (before, now) if before == now => continue,
            (_, None) => format!("price of `{name}` is the shipped one, or none"),
            (_, Some(_)) => format!("price of `{name}` is another one"),
        };
        out.push(Effect::Other, what);
    }
}

fn numbers(out: &mut Changes, section: &str, unit: &str, old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>) {
    for (name, value) in new {
        let Some(before) = old.get(name).filter(|before| *before != value) else { continue };
        let (effect, word) = if value < before { (Effect::Less, "lowered") } else { (Effect::More, "raised") };
        out.push(effect, format!("{section} {name} is {word} to {value}{unit}, from {before}{unit}"));
    }
}

impl Meaning {
    /// Whether any path is passed through for anybody.
    fn passes_through(&self) -> bool {
        let opens = self.teams.values().chain(self.keys.values().map(|key| &key.access));
        opens.into_iter().any(|access| !access.passthrough.is_empty())
    }
}

/// A few names, and how many more.
pub(super) fn list(names: &[&str]) -> String {
    let text = names.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(LISTED_MAX);
    if more == 0 { text } else { format!("{text} and {more} more") }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn shown(value: Option<&str>) -> String {
    value.map_or("not set".to_owned(), |value| format!("`{value}`"))
}

fn of_team(team: Option<&str>) -> String {
    team.map_or("no team".to_owned(), |team| format!("team `{team}`"))
}

fn owned(owner: Option<&str>) -> &str {
    owner.unwrap_or("nobody")
}
