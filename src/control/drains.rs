//! What the operator has taken out of service for a while: upstreams and single credentials, by name. A drain ends by
//! itself. It belongs to the name and not to the slot, so that a reload which moves an upstream, or brings a new secret,
//! does not end it. A restart does. Pure: moments are arguments.

use super::names::joined;
use crate::{
    base::{Mono, Span, Wall},
    table::{Credential, Table, Target},
    telemetry::Text,
    upstream::{Health, Rest},
};
use arc_swap::ArcSwap;
use std::{collections::BTreeSet, sync::Arc};

/// A drain is no longer than this: what is to be out for longer belongs into the configuration.
pub const DRAIN_MAX: Span = Span::from_secs(7 * 24 * 3600);
/// Drains at once.
const DRAINS_MAX: usize = 1024;
/// Names of teams and keys that one warning lists.
const LISTED_MAX: usize = 8;

/// One drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The upstream.
    pub upstream: Arc<str>,
    /// One of its credentials; `None` for the whole upstream.
    pub credential: Option<Arc<str>>,
    /// When it ends.
    pub until: Mono,
    /// When it was asked for.
    pub since: Wall,
    /// By whom, as they say; empty if they do not.
    pub by: Text<64>,
}

impl Drain {
    /// As the operator writes it.
    pub fn name(&self) -> String {
        joined(&self.upstream, self.credential.as_deref().unwrap_or_default())
    }

    fn is_of(&self, upstream: &str, credential: Option<&str>) -> bool {
        *self.upstream == *upstream && self.credential.as_deref() == credential
    }
}

/// All drains. Only the control thread writes.
#[derive(Default)]
pub struct Drains(ArcSwap<Vec<Drain>>);

impl Drains {
    /// All of them, those that have ended by `now` left out.
    pub fn now(&self, now: Mono) -> Vec<Drain> {
        self.0.load().iter().filter(|drain| drain.until > now).cloned().collect()
    }

    /// The drain of exactly this.
    pub fn of(&self, upstream: &str, credential: Option<&str>, now: Mono) -> Option<Drain> {
        self.0.load().iter().find(|drain| drain.until > now && drain.is_of(upstream, credential)).cloned()
    }

    /// All of them together with `drain`, which takes the place of one of the same name; `None` when there are too many.
    pub fn with(&self, drain: Drain) -> Option<Vec<Drain>> {
        let mut drains = Vec::clone(&self.0.load());
        drains.retain(|other| !other.is_of(&drain.upstream, drain.credential.as_deref()));
        drains.push(drain);
        (drains.len() <= DRAINS_MAX).then_some(drains)
    }

    /// Makes `drains` all that there are.
    pub fn put(&self, drains: Vec<Drain>) {
        self.0.store(Arc::new(drains));
    }

    /// Ends a drain; `None` when there is none.
    pub fn end(&self, upstream: &str, credential: Option<&str>) -> Option<Drain> {
        let mut drains = Vec::clone(&self.0.load());
        let at = drains.iter().position(|drain| drain.is_of(upstream, credential))?;
        let ended = drains.remove(at);
        self.0.store(Arc::new(drains));
        Some(ended)
    }

    /// Takes out those that have ended by themselves.
    pub fn ended(&self, now: Mono) -> Vec<Drain> {
        let all = self.0.load();
        if all.iter().all(|drain| drain.until > now) {
            return Vec::new();
        }
        let (ended, going): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|drain| drain.until <= now);
        self.0.store(Arc::new(going));
        ended
    }

    /// Makes `health` say what is drained, for every name of `table`: also that a name is not drained any more.
    pub fn apply(&self, table: &Table, health: &Health) {
        let drains = self.0.load();
        let put = |rest: &Rest, upstream: &str, credential: Option<&str>| match drains
            .iter()
            .find(|drain| drain.is_of(upstream, credential))
        {
            Some(drain) => rest.set(drain.until),
            None => rest.clear(),
        };
        for (_, upstream) in table.upstream_slots() {
            // Requests that began before a reload still go to the place that it had then.
            for state in table.upstream_slots_named(&upstream.name).into_iter().filter_map(|slot| health.upstream(slot))
            {
                put(&state.drained, &upstream.name, None);
            }
        }
        for (slot, upstream, place) in table.credential_slots() {
            let credential = table.upstream(upstream).and_then(|of| Some((of, of.credentials.get(place)?)));
            if let (Some((upstream, credential)), Some(state)) = (credential, health.credential(slot)) {
                put(&state.drained, &upstream.name, Some(&credential.name));
            }
        }
    }
}

/// What has no way left because of `drains`: a line for each model, and who is concerned.
pub fn without_way(table: &Table, drains: &[Drain], now: Mono) -> Vec<String> {
    let is_drained = |upstream: &str, credential: Option<&str>| {
        drains.iter().any(|d| d.until > now && d.is_of(upstream, credential))
    };
    let has_way = |target: &Target| {
        table.upstream(target.upstream).is_some_and(|upstream| {
            let rests = |credential: &Credential| is_drained(&upstream.name, Some(&credential.name));
            let all_rest = !upstream.credentials.is_empty() && upstream.credentials.iter().all(rests);
            !is_drained(&upstream.name, None) && !all_rest
        })
    };
    let mut lines = Vec::new();
    for model in &table.models {
        let what = format!("model `{}` has no upstream left", model.name.text());
        if !model.targets.iter().any(has_way) {
            lines.push(what);
            continue;
        }
        let mut cut_off = BTreeSet::new();
        for (slot, caller) in table.caller_slots() {
            let mut open = model.targets.iter().filter(|t| table.allows_upstream(slot, t.upstream)).peekable();
            if open.peek().is_some() && !open.any(has_way) {
                let team = table.team_of(slot).map(|team| format!("team `{}`", team.name));
                cut_off.insert(team.unwrap_or_else(|| format!("key `{}`", caller.name)));
            }
        }
        if !cut_off.is_empty() {
            let more = cut_off.len().saturating_sub(LISTED_MAX);
            let mut names: Vec<String> = cut_off.into_iter().take(LISTED_MAX).collect();
            names.extend((more > 0).then(|| format!("{more} more")));
            lines.push(format!("{what} for {}", names.join(", ")));
        }
    }
    lines
}

/// A length of time as an operator writes it: a whole number and `s`, `m`, `h` or `d`; at most `DRAIN_MAX`.
///
/// # Errors
/// What is wrong with it.
pub fn length(text: &str) -> Result<Span, String> {
    let wrong = || format!("`{text}` is not a length of time such as 30m, 2h or 1d");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match Span::from_secs(number.saturating_mul(seconds)) {
        Span::ZERO => Err(format!("`{text}` is no time at all")),
        long if long > DRAIN_MAX => {
            Err(format!("`{text}` is longer than 7d; take out of the configuration what is to be out for longer"))
        }
        length => Ok(length),
    }
}

/// An upstream, or one credential of it, of `table`.
pub type Named = (Arc<str>, Option<Arc<str>>);

/// What `NAME` or `NAME/CREDENTIAL` means in `table`.
///
/// # Errors
/// That there is no such thing, and what there is.
pub fn find(table: &Table, text: &str) -> Result<Named, String> {
    let (name, credential) = text.split_once('/').map_or((text, None), |(name, credential)| (name, Some(credential)));
    let Some(upstream) = table.upstreams.iter().find(|upstream| *upstream.name == *name) else {
        let all: Vec<&str> = table.upstreams.iter().map(|upstream| &*upstream.name).collect();
        return Err(format!("there is no upstream of that name; there is {}", all.join(", ")));
    };
    let Some(credential) = credential else { return Ok((Arc::clone(&upstream.name), None)) };
    match upstream.credentials.iter().find(|known| *known.name == *credential) {
        Some(known) => Ok((Arc::clone(&upstream.name), Some(Arc::clone(&known.name)))),
        None if upstream.credentials.is_empty() => Err(format!("upstream `{name}` has no credentials")),
        None => {
            let all: Vec<&str> = upstream.credentials.iter().map(|known| &*known.name).collect();
            Err(format!("upstream `{name}` has no credential of that name; it has {}", all.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{CredentialSlot, TeamSlot, UpstreamSlot},
        control::tests::{table, upstream},
        table::{Access, Caller, Class, Credential, Model, Pattern, SecretLine, Team, Upstream},
    };

    fn with(name: &str, port: u16, credentials: &[&str]) -> Upstream {
        let mut made = upstream(name, "127.0.0.1", port);
        made.credentials = credentials.iter().map(|name| Credential::new(name, SecretLine::x_api_key(name))).collect();
        made
    }

    fn add(drains: &Drains, drain: Drain) {
        drains.put(drains.with(drain).unwrap());
    }

    fn drain(upstream: &str, credential: Option<&str>, until: u64) -> Drain {
        let credential = credential.map(Arc::from);
        Drain { upstream: upstream.into(), credential, until: Mono(until), since: Wall(0), by: Text::EMPTY }
    }

    #[test]
    fn a_drain_follows_its_name_to_another_slot_and_ends_by_itself() {
        let drains = Drains::default();
        add(&drains, drain("a", None, 10));
        add(&drains, drain("b", Some("one"), 20));
        let first = table(vec![with("a", 1, &[]), with("b", 1, &["one", "two"])]);
        let health = Health::default().grown_for(&first);
        drains.apply(&first, &health);
        let upstream =
            |health: &Health, slot, now| health.upstream(UpstreamSlot(slot)).unwrap().drained.until(Mono(now));
        let credential =
            |health: &Health, slot, now| health.credential(CredentialSlot(slot)).unwrap().drained.until(Mono(now));
        assert_eq!((upstream(&health, 0, 5), upstream(&health, 1, 5)), (Some(Mono(10)), None));
        assert_eq!([0, 1, 2].map(|slot| credential(&health, slot, 5)), [None, Some(Mono(20)), None]);
        let mut moved = table(vec![with("b", 1, &["two", "one"]), with("a", 2, &[])]);
        moved.follow(&first);
        let health = health.grown_for(&moved);
        assert_eq!(upstream(&health, 2, 5), None, "a slot that nobody has spoken of");
        drains.apply(&moved, &health);
        assert_eq!((upstream(&health, 2, 5), upstream(&health, 2, 10)), (Some(Mono(10)), None));
        assert_eq!((upstream(&health, 0, 5), credential(&health, 1, 5)), (Some(Mono(10)), Some(Mono(20))));
        assert_eq!(drains.ended(Mono(10)).iter().map(Drain::name).collect::<Vec<_>>(), ["a"]);
        assert_eq!(drains.now(Mono(10)).len(), 1);
        assert_eq!(drains.end("b", None), None);
        assert_eq!(drains.end("b", Some("one")).map(|ended| ended.name()).as_deref(), Some("b/one"));
        drains.apply(&moved, &health);
        assert_eq!((upstream(&health, 2, 5), credential(&health, 1, 5)), (None, None));
    }

    #[test]
    fn models_without_a_way_are_told_with_those_concerned() {
        let mut table = table(vec![with("a", 1, &["one", "two"]), with("b", 1, &[])]);
        let [a, b] = [0, 1].map(|slot| Target::to(UpstreamSlot(slot)));
        table.models = vec![Model::new(Pattern::new("x"), vec![a.clone(), b]), Model::new(Pattern::new("y"), vec![a])];
        let access = Access { upstreams: Some(vec![UpstreamSlot(0)]), ..Access::default() };
        table.teams = vec![Team { name: "narrow".into(), access }];
        let caller = |name: &str, team| Caller {
            name: name.into(),
            owner: None,
            team,
            access: Access::default(),
            expires: None,
            disabled: false,
            class: Class::Interactive,
            fallback: true,
        };
        table.callers = vec![caller("free", None), caller("n1", Some(TeamSlot(0))), caller("n2", Some(TeamSlot(0)))];
        let drains = Drains::default();
        add(&drains, drain("a", Some("one"), 10));
        assert_eq!(without_way(&table, &drains.now(Mono(5)), Mono(5)), Vec::<String>::new());
        add(&drains, drain("a", Some("two"), 10));
        let told = ["model `x` has no upstream left for team `narrow`", "model `y` has no upstream left"];
        assert_eq!(without_way(&table, &drains.now(Mono(5)), Mono(5)), told);
        assert_eq!(without_way(&table, &drains.now(Mono(5)), Mono(10)), Vec::<String>::new());
        add(&drains, drain("b", None, 10));
        assert_eq!(without_way(&table, &drains.now(Mono(5)), Mono(5))[0], "model `x` has no upstream left");
    }

    #[test]
    fn names_and_lengths() {
        let table = table(vec![with("a", 1, &["one"]), with("b", 1, &[])]);
        assert_eq!(find(&table, "a"), Ok(("a".into(), None)));
        assert_eq!(find(&table, "a/one"), Ok(("a".into(), Some("one".into()))));
        for (text, part) in
            [("c", "there is a, b"), ("a/two", "it has one"), ("b/one", "has no credentials"), ("a/", "it has")]
        {
            assert!(find(&table, text).is_err_and(|error| error.contains(part)), "{text}");
        }
        assert_eq!(
            ["90s", "30m", "2h", "7d"].map(|text| length(text).unwrap().0 / 1_000_000_000),
            [90, 1800, 7200, 604_800]
        );
        for text in ["", "2", "h", "0h", "8d", "-1h", "1.5h", "2 h", "99999999999999999999h", "2é"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
