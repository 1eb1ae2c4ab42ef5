//! The configuration of a made-up story, as `table` has it.

use super::plan::{Person, Plan, Rule, Site};
use crate::{
    auth::key,
    base::{CallerSlot, TeamSlot, UpstreamSlot, Wall},
    table::{
        Access, Caller, Class, Credential, Digests, Expiry, Hosts, Listener, LogFormat, Model, Org, Pattern, Provider,
        RuntimeSettings, SecretLine, Slots, Table, Target, Team, Upstream, VerdictRule,
    },
};
use std::net::SocketAddr;

/// The configuration that says all this: the first one, or the one that takes its place.
pub fn table(plan: &Plan, is_reloaded: bool) -> Table {
    let switched_off = plan.reload.filter(|_| is_reloaded).map(|reload| reload.switched_off);
    let mut digests = Digests::default();
    for (at, person) in plan.people.iter().enumerate() {
        digests.add(key::digest(person.key.as_bytes()), CallerSlot(at as u32));
    }
    let people = plan.people.iter().enumerate();
    Table {
        generation: 1 + u64::from(is_reloaded),
        org: Org { contact: Some("#ops".into()), timezone: "UTC".into() },
        listeners: vec![Listener {
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            plaintext: true,
            tls: None,
            hosts: Hosts::Any,
            refuse_cross_site: false,
        }],
        admin: None,
        health: None,
        upstreams: plan.sites.iter().map(upstream).collect(),
        models: plan.rules.iter().map(model).collect(),
        teams: people.clone().map(|(at, person)| team(at, person, &plan.sites_of(at, is_reloaded))).collect(),
        callers: people.map(|(at, person)| caller(at, person, switched_off == Some(at))).collect(),
        digests,
        bounds: plan.bounds,
        patience: plan.patience,
        runtime: RuntimeSettings::default(),
        log: LogFormat::Json,
        prices: crate::table::prices::Prices::default(),
        slots: Slots::default(),
    }
}

fn upstream(site: &Site) -> Upstream {
    let credential = |(at, (name, value)): (usize, &(String, String))| {
        let header = match value.strip_prefix("Bearer ") {
            Some(secret) if name == "authorization" => SecretLine::bearer(secret),
            _ => SecretLine::x_api_key(value),
        };
        Credential::new(format!("credential-{at}").as_str(), header)
    };
    let verdict = |(status, verdict): &_| VerdictRule { status: *status, body: None, verdict: *verdict };
    Upstream {
        name: site.name.as_str().into(),
        provider: Provider::AnthropicCompatible,
        tls: false,
        host: format!("{}.example", site.name).into(),
        port: 80,
        base_path: site.base_path.clone(),
        host_header: format!("{}.example", site.name),
        credentials: site.credentials.iter().enumerate().map(credential).collect(),
        extra_ca: Vec::new(),
        via: None,
        guard: crate::net::Guard::Inside,
        first_byte: site.first_byte,
        charge: crate::table::prices::Charge::default(),
        verdicts: site.verdicts.iter().map(verdict).collect(),
    }
}

fn model(rule: &Rule) -> Model {
    let targets = rule.targets.iter().map(|aim| Target {
        model: aim.model.as_deref().map(Into::into),
        tier: aim.tier,
        weight: aim.weight,
        ..Target::to(UpstreamSlot(aim.site as u32))
    });
    Model { fallback: rule.fallback, ..Model::new(Pattern::new(rule.name.as_str()), targets.collect()) }
}

/// A team of one, which holds the bounds of its only member; the member itself has none.
fn team(at: usize, person: &Person, sites: &[usize]) -> Team {
    let access = Access {
        models: person.models.as_ref().map(|open| open.iter().map(|name| Pattern::new(name.as_str())).collect()),
        upstreams: Some(sites.iter().map(|site| UpstreamSlot(*site as u32)).collect()),
        passthrough: if person.files { vec!["/v1/files".into()] } else { Vec::new() },
    };
    Team { name: format!("team-{at}").into(), access }
}

fn caller(at: usize, person: &Person, is_switched_off: bool) -> Caller {
    Caller {
        name: format!("caller-{at}").into(),
        owner: None,
        team: Some(TeamSlot(at as u32)),
        access: Access::default(),
        expires: Some(Expiry { at: Wall(u64::MAX), day: "never".into() }),
        disabled: is_switched_off || person.refused.is_some(),
        class: Class::default(),
        fallback: person.fallback,
    }
}
