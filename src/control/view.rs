//! The table as an operator may see it: everything but secrets. Written field by field, so that a field of tomorrow
//! is not shown before someone decided that it may be. Pure.

use crate::{
    base::UpstreamSlot,
    control::line::rfc3339,
    net::Guard,
    table::{
        Access, Caller, Hosts, Listener, Model, Table, Upstream,
        live::{Front, Live},
    },
};
use serde_json::{Value, json};

/// The table and what is known about its upstreams.
pub fn view(table: &Table, live: &Live) -> Value {
    json!({
        "generation": table.generation,
        "org": { "contact": table.org.contact.as_deref(), "timezone": &*table.org.timezone },
        "listeners": table.listeners.iter().enumerate().map(|(n, l)| listener(l, live.front(n))).collect::<Vec<_>>(),
        "admin": table.admin.map(|a| a.to_string()),
        "health": table.health.map(|a| a.to_string()),
        "upstreams": table.upstream_slots().map(|(slot, u)| upstream(u, slot, live)).collect::<Vec<_>>(),
        "models": table.models.iter().map(|m| model(table, m)).collect::<Vec<_>>(),
        "teams": table.teams.iter().map(|t| json!({
            "name": &*t.name,
            "access": access(table, &t.access),
        })).collect::<Vec<_>>(),
        "keys": table.callers.iter().map(|c| key(table, c)).collect::<Vec<_>>(),
        "bounds": {
            "body_bytes_max": table.bounds.body_bytes_max,
            "bodies_bytes_max": table.bounds.bodies_bytes_max,
            "connections_max": table.bounds.connections_max,
            "pool_idle_max": table.bounds.pool_idle_max,
        },
        "patience": patience(table),
        "runtime": { "driver": format!("{:?}", table.runtime.driver), "workers": table.runtime.workers },
    })
}

fn listener(listener: &Listener, front: Option<&Front>) -> Value {
    json!({
        "address": listener.address.to_string(),
        "plaintext": listener.tls.is_none(),
        "tls": listener.tls.as_ref().map(|tls| json!({
            "cert": tls.cert.display().to_string(),
            "key": tls.key.display().to_string(),
            "shown": front.map(shown),
            "fault": front.and_then(|front| front.fault.as_deref()),
        })),
        "refuse_cross_site": listener.refuse_cross_site,
        "hosts": match &listener.hosts {
            Hosts::Any => Value::from("any"),
            Hosts::Only(names) => names.iter().map(|n| Value::from(&**n)).collect(),
        },
    })
}

/// The certificate that clients see now.
fn shown(front: &Front) -> Value {
    let certificate = &front.identity.certificate;
    json!({
        "subject": &*certificate.subject,
        "issuer": &*certificate.issuer,
        "names": certificate.names.iter().map(|name| &**name).collect::<Vec<_>>(),
        "begins": rfc3339(certificate.begins),
        "ends": rfc3339(certificate.ends),
        "sha256": certificate.fingerprint_hex(),
    })
}

fn upstream(upstream: &Upstream, slot: UpstreamSlot, live: &Live) -> Value {
    let addresses = live.addresses.get(slot.index());
    let models = live.models_of(slot);
    json!({
        "name": &*upstream.name,
        "provider": upstream.provider.name(),
        "tls": upstream.tls,
        "host": &*upstream.host,
        "port": upstream.port,
        "base_path": upstream.base_path,
        "credentials": upstream.credentials.iter().map(|c| &*c.name).collect::<Vec<_>>(),
        "extra_ca": upstream.extra_ca.len(),
        "proxy": upstream.via.as_ref().map(|via| via.name()),
        "private_addresses": upstream.guard == Guard::Inside,
        "addresses": live.addresses_of(slot).iter().map(ToString::to_string).collect::<Vec<_>>(),
        "resolved_at": addresses.and_then(|a| a.resolved_at).map(rfc3339),
        "address_error": live.address_error(slot),
        "lists": models.map(|list| list.models.iter().map(|m| &*m.id).collect::<Vec<_>>()),
        "listed_at": models.map(|list| rfc3339(list.fetched_at)),
        "list_error": live.model_errors.get(slot.index()).and_then(|e| e.as_deref()),
    })
}

fn model(table: &Table, model: &Model) -> Value {
    json!({
        "name": &**model.name.text(),
        "targets": model.targets.iter().map(|t| json!({
            "upstream": table.upstream(t.upstream).map(|u| &*u.name),
            "model": t.model.as_deref(),
            "tier": t.tier,
            "weight": t.weight,
        })).collect::<Vec<_>>(),
    })
}

fn key(table: &Table, caller: &Caller) -> Value {
    let team = caller.team.and_then(|slot| table.team(slot));
    json!({
        "name": &*caller.name,
        "owner": caller.owner.as_deref(),
        "team": team.map(|t| &*t.name),
        "class": format!("{:?}", caller.class).to_lowercase(),
        "last_day": caller.expires.as_ref().map(|e| &*e.day),
        "refused_from": caller.expires.as_ref().map(|e| rfc3339(e.at)),
        "disabled": caller.disabled,
        "access": access(table, &caller.access),
    })
}

/// `null` where nothing is bounded.
fn access(table: &Table, access: &Access) -> Value {
    let names = |slots: &Vec<UpstreamSlot>| {
        slots.iter().filter_map(|slot| table.upstream(*slot)).map(|u| Value::from(&*u.name)).collect::<Value>()
    };
    json!({
        "models": access.models.as_ref().map(|m| m.iter().map(|p| Value::from(&**p.text())).collect::<Value>()),
        "upstreams": access.upstreams.as_ref().map(names),
        "passthrough": access.passthrough.iter().map(|p| &**p).collect::<Vec<_>>(),
    })
}

fn patience(table: &Table) -> Value {
    let patience = &table.patience;
    json!({
        "connect_ms": patience.connect.as_ms(),
        "tls_ms": patience.tls.as_ms(),
        "head_ms": patience.head.as_ms(),
        "body_ms": patience.body.as_ms(),
        "send_ms": patience.send.as_ms(),
        "first_byte_ms": patience.first_byte.as_ms(),
        "idle_ms": patience.idle.as_ms(),
        "write_stall_ms": patience.write_stall.as_ms(),
        "keep_alive_ms": patience.keep_alive.as_ms(),
        "drain_grace_ms": patience.drain_grace.as_ms(),
        "drain_ms": patience.drain.as_ms(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{CallerSlot, Wall},
        control::{
            resolve,
            tests::{table, upstream},
        },
        table::{Credential, SecretLine},
    };

    #[test]
    fn shows_names_and_never_a_secret() {
        let mut with_secret = upstream("anthropic", "127.0.0.1", 443);
        with_secret.credentials.push(Credential::new("org-a", SecretLine::x_api_key("sk-ant-canary")));
        let mut table = table(vec![with_secret]);
        table.digests.add([0xab; 32], CallerSlot(0));
        let live = resolve::literals(&table, Wall(0));
        let view = view(&table, &live);
        let text = view.to_string();
        assert_eq!(view["upstreams"][0]["credentials"][0], "org-a");
        assert_eq!(view["upstreams"][0]["addresses"][0], "127.0.0.1:443");
        assert_eq!(view["upstreams"][0]["resolved_at"], "1970-01-01T00:00:00.000Z");
        for secret in ["canary", "abab", "171,171", "x-api-key"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
