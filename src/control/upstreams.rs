//! How the upstreams and their credentials stand, as the operator sees it: `GET /upstreams`, and the lines of
//! `forebay upstreams`. Pure; moments are arguments.

use super::{
    drains::{Drain, Drains},
    line::rfc3339,
    names::Names,
    recent::{Failure, Recent},
};
use crate::{
    base::{CredentialSlot, Mono, UpstreamSlot, Wall},
    table::{CredentialLimits, Table, Upstream, live::Live},
    upstream::{CredentialState, Health, ModelClass, Need, Room, Standing, UpstreamState, capacity::Left},
};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

/// What is looked at, at one moment.
pub struct Scene<'a> {
    /// The configuration.
    pub table: &'a Table,
    /// What is known of upstreams.
    pub health: &'a Health,
    /// Where they are.
    pub live: &'a Live,
    /// What is taken out.
    pub drains: &'a Drains,
    /// What failed last.
    pub recent: &'a Recent,
    /// The names of slots.
    pub names: &'a Names,
    /// Now.
    pub now: Mono,
    /// The same on the clock of the wall.
    pub wall: Wall,
}

/// The document of a scene.
pub fn document(scene: &Scene<'_>) -> Value {
    let upstreams = scene.table.upstream_slots().map(|(slot, upstream)| scene.upstream(slot, upstream));
    json!({
        "at": rfc3339(scene.wall),
        "generation": scene.table.generation,
        "upstreams": upstreams.collect::<Vec<_>>(),
    })
}

impl Scene<'_> {
    fn upstream(&self, slot: UpstreamSlot, upstream: &Upstream) -> Value {
        let state = self.health.upstream(slot);
        let credentials = (0..upstream.pool_len()).filter_map(|place| {
            let name = upstream.credentials.get(place).map(|credential| &*credential.name);
            let limits = self.table.credential_limits(slot, place);
            let credential = self.table.credential_slot(slot, place)?;
            let room = self.health.credential(credential).map(|state| self.room(slot, state, &limits));
            Some(self.credential(credential, upstream, name, &json!(room)))
        });
        json!({
            "name": &*upstream.name,
            "provider": upstream.provider.name(),
            "standing": state.map(|state| self.standing(state)),
            "drained": self.drained(&upstream.name, None),
            "address_error": self.live.address_error(slot),
            "credentials": credentials.collect::<Vec<_>>(),
        })
    }

    fn credential(&self, slot: CredentialSlot, upstream: &Upstream, name: Option<&str>, room: &Value) -> Value {
        let state = self.health.credential(slot);
        // A rotated secret has a slot of its own; that the one before was refused is still worth knowing.
        let slots = || self.names.credential_slots(&upstream.name, name.unwrap_or_default());
        let failures = slots().filter_map(|slot| self.recent.failure(slot));
        json!({
            "name": name,
            "refused_until": state.and_then(|state| state.refused.until(self.now)).map(|until| self.at(until)),
            "drained": name.and_then(|name| self.drained(&upstream.name, Some(name))),
            "in_flight": state.map(|state| state.in_flight.load(Relaxed)),
            "room": room,
            "cache_share": self.recent.used.cache_share(slots(), self.wall),
            "last_failure": failures.max_by_key(|failure| failure.at).map(|failure| told(&failure)),
        })
    }

    /// What is known of the room for each class of models, and whether a request of the least size would have to wait.
    fn room(&self, slot: UpstreamSlot, state: &CredentialState, limits: &CredentialLimits) -> Vec<Value> {
        let mut rooms = Vec::new();
        for class in self.classes(slot) {
            let shown = state.class(class).shown(self.now);
            let until = match state.room(class, Need::default(), limits, self.now) {
                Room::Now | Room::Paced(_) => None,
                Room::At(until) | Room::Refused(until) => Some(self.at(until)),
            };
            let of = |left: Option<Left>| left.map(|Left { left, of }| json!({ "left": left, "of": of }));
            let known = [shown.requests, shown.both, shown.input, shown.output];
            if until.is_none() && known.iter().all(Option::is_none) {
                continue;
            }
            rooms.push(json!({
                "class": class.name(),
                "none_until": until,
                "requests": of(shown.requests),
                "llm_tokens": of(shown.both),
                "input": of(shown.input),
                "output": of(shown.output),
            }));
        }
        rooms
    }

    /// The classes of models that an upstream may be asked for: the families, and those of the ids that lead there.
    fn classes(&self, slot: UpstreamSlot) -> Vec<ModelClass> {
        let mut classes: Vec<ModelClass> = ["opus", "sonnet", "haiku"].map(ModelClass::of).into();
        for model in &self.table.models {
            let name = model.name.is_exact().then_some(&**model.name.text());
            let here = model.targets.iter().filter(|target| target.upstream == slot);
            for class in here.filter_map(|target| target.model.as_deref().or(name)).map(ModelClass::of) {
                if !classes.contains(&class) {
                    classes.push(class);
                }
            }
        }
        classes
    }

    fn standing(&self, state: &UpstreamState) -> Value {
        let shown = state.breaker.shown(self.now);
        let mut standing = match shown.standing {
            Standing::Closed => json!({ "is": "closed" }),
            Standing::Slow(percent) => json!({ "is": "slow", "percent": percent }),
            Standing::Open { until } => json!({ "is": "open", "until": self.at(until) }),
            Standing::Probe => json!({ "is": "probe" }),
        };
        standing["ejections"] = shown.ejections_total.into();
        standing["failures_in_row"] = shown.failures_in_row.into();
        standing
    }

    fn drained(&self, upstream: &str, credential: Option<&str>) -> Option<Value> {
        self.drains.of(upstream, credential, self.now).map(|drain| self.drain(&drain))
    }

    /// One drain.
    pub fn drain(&self, drain: &Drain) -> Value {
        json!({ "name": drain.name(), "until": self.at(drain.until), "since": rfc3339(drain.since), "by": drain.by.as_str() })
    }

    /// A moment to come, as text.
    pub fn at(&self, moment: Mono) -> String {
        rfc3339(wall_at(moment, self.now, self.wall))
    }
}

/// A moment to come on the clock of the wall.
pub fn wall_at(moment: Mono, now: Mono, wall: Wall) -> Wall {
    Wall(wall.0.saturating_add(moment.since(now).as_ms()))
}

fn told(failure: &Failure) -> Value {
    let status = (failure.status > 0).then_some(failure.status);
    json!({
        "at": rfc3339(failure.at),
        "status": status,
        "verdict": failure.verdict,
        "request_id": failure.request_id.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Span,
        control::{
            resolve,
            tests::{table, upstream},
        },
        table::{Credential, SecretLine},
        telemetry::{Attempt, Record, RequestId, Text},
    };

    const S: u64 = 1_000_000_000;

    #[test]
    fn every_state_is_told_with_its_end() {
        let mut a = upstream("a", "127.0.0.1", 1);
        a.credentials = ["one", "two"].map(|name| Credential::new(name, SecretLine::bearer("canary"))).into();
        let table = table(vec![a, upstream("b", "127.0.0.1", 1)]);
        let health = Health::default().grown_for(&table);
        let one = health.credential(CredentialSlot(0)).unwrap();
        one.refused.set(Mono(70 * S));
        one.in_flight.store(3, Relaxed);
        let class = ModelClass::of("claude-opus-4");
        health.credential(CredentialSlot(1)).unwrap().classes[class.index()].refused(Mono(20 * S));
        let breaker = &health.upstream(UpstreamSlot(1)).unwrap().breaker;
        for _ in 0..100 {
            breaker.failed(Mono(9 * S));
        }
        let drains = Drains::default();
        let until = Mono(10 * S).after(Span::from_secs(3600));
        let by = Text::from("olaf");
        let (upstream, credential) = ("a".into(), Some("two".into()));
        drains.put(vec![Drain { upstream, credential, until, since: Wall(1), by }]);
        let names = Names::default().and(&table);
        let mut recent = Recent::default();
        let mut record = Record::new(Wall(5_000), RequestId::new(Wall(5_000), 1), 0);
        let attempt = Attempt {
            upstream: UpstreamSlot(1),
            credential: CredentialSlot(2),
            status: 0,
            verdict: "connect_failed",
            at_us: 0,
            took_us: 1_000,
        };
        record.tried[0] = Some(attempt);
        recent.keep(&record, &names);
        let live = resolve::literals(&table, Wall(0));
        let (now, wall) = (Mono(10 * S), Wall(10_000));
        let scene = Scene {
            table: &table,
            health: &health,
            live: &live,
            drains: &drains,
            recent: &recent,
            names: &names,
            now,
            wall,
        };
        let document = document(&scene);
        let [a, b] = [0, 1].map(|at| &document["upstreams"][at]);
        assert_eq!((&a["name"], &a["standing"]["is"], &a["drained"]), (&"a".into(), &"closed".into(), &Value::Null));
        assert_eq!(a["credentials"][0]["refused_until"], "1970-01-01T00:01:10.000Z");
        assert_eq!(a["credentials"][0]["in_flight"], 3);
        let room = &a["credentials"][1]["room"][0];
        assert_eq!((&room["class"], &room["requests"]), (&"opus".into(), &Value::Null));
        assert!(room["none_until"].as_str() >= Some("1970-01-01T00:00:20.000Z"), "{room}");
        assert_eq!(a["credentials"][1]["drained"]["until"], "1970-01-01T01:00:10.000Z");
        assert_eq!(a["credentials"][1]["drained"]["by"], "olaf");
        assert_eq!(b["standing"]["is"], "open");
        assert_eq!((&b["credentials"][0]["name"], &b["credentials"][0]["drained"]), (&Value::Null, &Value::Null));
        assert_eq!(b["credentials"][0]["last_failure"]["verdict"], "connect_failed");
        assert_eq!(b["credentials"][0]["last_failure"]["at"], "1970-01-01T00:00:05.001Z");
        assert!(!document.to_string().contains("canary"));
    }
}
