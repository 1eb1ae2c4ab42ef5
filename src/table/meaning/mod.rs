//! What a table means, in a form that can be compared and sent: names instead of slots, and of each secret only a
//! fingerprint under a key that the asker chose, so that equal ones can be told and nothing else. Made field by field:
//! a field of tomorrow does not compile before someone has said what it means for a reload.

mod access;
mod diff;
mod models;

#[cfg(test)]
mod tests;

pub use diff::{Change, Effect, differences};

use super::prices::{Price, Prices};
use super::{
    Bounds, Caller, Credential, CredentialLimits, Digests, Hosts, Listener, Model, Patience, SaidCan, SecretLine,
    Table, Target, Upstream, Verdict, VerdictRule,
};
use crate::{
    base::Span,
    net::{Guard, x509::day},
};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write, sync::Arc};

/// The key that fingerprints are made under.
pub type FingerprintKey = [u8; 32];
/// Bytes of a fingerprint that are shown.
const FINGERPRINT_BYTES: usize = 16;

/// A table as meant. Two tables with equal meanings treat every request alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    /// What holds for everyone, by setting.
    org: BTreeMap<String, Option<String>>,
    /// Where clients connect, and what is answered there.
    listeners: Vec<ListenerMeaning>,
    /// What only a restart changes besides, by setting.
    process: BTreeMap<String, Option<String>>,
    /// In file order: the first one that is open to a caller takes passed-through paths.
    upstreams: Vec<UpstreamMeaning>,
    /// In file order: of two globs that stand for one name, the first takes it.
    models: Vec<ModelMeaning>,
    /// By name.
    teams: BTreeMap<String, AccessMeaning>,
    /// By name.
    keys: BTreeMap<String, KeyMeaning>,
    /// The operator's price rows, by model and first day.
    prices: BTreeMap<String, String>,
    /// Timeouts in milliseconds, by step.
    timeouts_ms: BTreeMap<String, u64>,
    /// Sizes in bytes and counts, by setting.
    bounds: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ListenerMeaning {
    address: String,
    plaintext: bool,
    /// Where its certificate is; what is in the files has a life of its own.
    tls: Option<String>,
    /// `None` answers to every name.
    hosts: Option<Vec<String>>,
    refuse_cross_site: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct UpstreamMeaning {
    name: String,
    provider: String,
    url: String,
    host_header: String,
    credentials: Vec<CredentialMeaning>,
    /// Fingerprints of further roots.
    extra_ca: Vec<String>,
    /// Where connections go first, and a fingerprint of what is said there.
    proxy: Option<(String, String)>,
    /// Private addresses are connected to.
    reaches_inside: bool,
    /// What it takes besides its models' prices.
    charge: String,
    /// How long the head of an answer may take before the next target is asked.
    first_byte_ms: Option<u64>,
    /// Verdicts of its own, as texts, the first that fits before others.
    verdicts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CredentialMeaning {
    name: String,
    fingerprint: String,
    /// What may be asked with it, by setting.
    limits: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ModelMeaning {
    name: String,
    /// Sorted.
    aliases: Vec<String>,
    targets: Vec<TargetMeaning>,
    fallback: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TargetMeaning {
    upstream: String,
    model: Option<String>,
    tier: u8,
    weight: u32,
    /// What the configuration says that it can take, as texts.
    can: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct AccessMeaning {
    models: Option<Vec<String>>,
    upstreams: Option<Vec<String>>,
    passthrough: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeyMeaning {
    owner: Option<String>,
    team: Option<String>,
    class: super::Class,
    /// The first moment at which it is refused, in milliseconds since 1970, and the last day as text.
    expires: Option<(u64, String)>,
    disabled: bool,
    /// Fingerprints of the digests of its secrets, sorted.
    secrets: Vec<String>,
    access: AccessMeaning,
    fallback: bool,
}

impl Table {
    /// What this table means; secrets appear as fingerprints under `key`.
    pub fn meaning(&self, key: &FingerprintKey) -> Meaning {
        let Table {
            generation: _,
            slots: _,
            org,
            listeners,
            admin,
            health,
            upstreams,
            models,
            teams,
            callers,
            digests,
            bounds,
            patience,
            runtime,
            log,
            prices,
        } = self;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let address = |address: &Option<std::net::SocketAddr>| address.map(|address| address.to_string());
        let mut keys: Vec<KeyMeaning> = callers.iter().map(|caller| self.key_meaning(caller)).collect();
        self.add_secrets(&mut keys, digests, &key);
        Meaning {
            org: named([
                ("contact", org.contact.as_deref().map(str::to_owned)),
                ("timezone", Some(org.timezone.to_string())),
            ]),
            listeners: listeners.iter().map(listener).collect(),
            process: named([
                ("[admin] address", address(admin)),
                ("[health] address", address(health)),
                ("[runtime] driver", Some(format!("{:?}", runtime.driver).to_lowercase())),
                ("[runtime] workers", runtime.workers.map(|workers| workers.to_string())),
                ("[log] format", Some(format!("{log:?}").to_lowercase())),
            ]),
            upstreams: upstreams.iter().map(|u| upstream(u, &key)).collect(),
            models: models.iter().map(|model| self.model_meaning(model)).collect(),
            teams: teams.iter().map(|team| (team.name.to_string(), self.access_meaning(&team.access))).collect(),
            keys: callers.iter().map(|caller| caller.name.to_string()).zip(keys).collect(),
            prices: own_prices(prices),
            timeouts_ms: timeouts(patience),
            bounds: sizes(bounds),
        }
    }

    /// Where a model leads, as a person reads it: tiers one after the other.
    pub fn way(&self, model: &Model) -> String {
        models::way(&self.model_meaning(model).targets)
    }

    fn model_meaning(&self, model: &Model) -> ModelMeaning {
        let Model { name, aliases, targets, fallback } = model;
        let target = |target: &Target| {
            // What it can take follows from what is said and from its id.
            let Target { upstream, model, tier, weight, said, can: _ } = target;
            TargetMeaning {
                upstream: self.upstream(*upstream).map_or_else(String::new, |upstream| upstream.name.to_string()),
                model: model.as_deref().map(str::to_owned),
                tier: *tier,
                weight: *weight,
                can: said_can(said),
            }
        };
        let mut aliases: Vec<String> = aliases.iter().map(ToString::to_string).collect();
        aliases.sort_unstable();
        ModelMeaning {
            name: name.text().to_string(),
            aliases,
            targets: targets.iter().map(target).collect(),
            fallback: *fallback,
        }
    }

    fn access_meaning(&self, access: &super::Access) -> AccessMeaning {
        let super::Access { models, upstreams, passthrough } = access;
        let texts = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        AccessMeaning {
            models: models.as_ref().map(|list| list.iter().map(|pattern| pattern.text().to_string()).collect()),
            upstreams: upstreams.as_ref().map(|list| {
                let names = list.iter().filter_map(|slot| self.upstream(*slot));
                names.map(|upstream| upstream.name.to_string()).collect()
            }),
            passthrough: texts(passthrough),
        }
    }

    fn key_meaning(&self, caller: &Caller) -> KeyMeaning {
        let Caller { name: _, owner, team, access, expires, disabled, class, fallback } = caller;
        KeyMeaning {
            owner: owner.as_deref().map(str::to_owned),
            team: team.and_then(|slot| self.team(slot)).map(|team| team.name.to_string()),
            class: *class,
            expires: expires.as_ref().map(|expiry| (expiry.at.0, expiry.day.to_string())),
            disabled: *disabled,
            secrets: Vec::new(),
            access: self.access_meaning(access),
            fallback: *fallback,
        }
    }

    fn add_secrets(&self, keys: &mut [KeyMeaning], digests: &Digests, key: &hmac::Key) {
        for (digest, caller) in &digests.0 {
            if let Some(owner) = self.caller_place(*caller).and_then(|place| keys.get_mut(place)) {
                owner.secrets.push(fingerprint(key, digest));
            }
        }
        for key in keys {
            key.secrets.sort_unstable();
        }
    }
}

fn named<const N: usize>(settings: [(&str, Option<String>); N]) -> BTreeMap<String, Option<String>> {
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn listener(listener: &Listener) -> ListenerMeaning {
    let Listener { address, plaintext, tls, hosts, refuse_cross_site } = listener;
    let hosts = match hosts {
        Hosts::Any => None,
        Hosts::Only(names) => Some(names.iter().map(ToString::to_string).collect()),
    };
    ListenerMeaning {
        address: address.to_string(),
        plaintext: *plaintext,
        tls: tls.as_ref().map(|tls| format!("{} with {}", tls.cert.display(), tls.key.display())),
        hosts,
        refuse_cross_site: *refuse_cross_site,
    }
}

fn upstream(upstream: &Upstream, key: &hmac::Key) -> UpstreamMeaning {
    let Upstream {
        name,
        provider,
        tls,
        host,
        port,
        base_path,
        host_header,
        credentials,
        extra_ca,
        via,
        guard,
        charge,
        first_byte,
        verdicts,
    } = upstream;
    let scheme = if *tls { "https" } else { "http" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let secret = |header: &SecretLine| fingerprint(key, header.as_bytes());
    UpstreamMeaning {
        name: name.to_string(),
        provider: provider.name().to_owned(),
        url: format!("{scheme}://{host}:{port}{base_path}"),
        host_header: host_header.clone(),
        credentials: credentials
            .iter()
            .map(|Credential { name, header, limits }| CredentialMeaning {
                name: name.to_string(),
                fingerprint: secret(header),
                limits: bounded(limits),
            })
            .collect(),
        extra_ca: extra_ca.iter().map(|der| fingerprint(key, der)).collect(),
        proxy: via.as_ref().map(|via| (via.name(), fingerprint(key, via.request()))),
        reaches_inside: *guard == Guard::Inside,
        charge: charge.to_string(),
        first_byte_ms: first_byte.map(Span::as_ms),
        verdicts: verdicts.iter().map(verdict).collect(),
    }
}

fn verdict(rule: &VerdictRule) -> String {
    let VerdictRule { status, body, verdict } = rule;
    let with = body.as_ref().map_or_else(String::new, |body| format!(" with `{body}`"));
    let means = match verdict {
        Verdict::Deliver => "deliver",
        Verdict::Next => "next",
        Verdict::CoolAndNext => "cool-and-next",
    };
    format!("{status}{with}: {means}")
}

fn bounded(limits: &CredentialLimits) -> BTreeMap<String, u64> {
    let CredentialLimits { rpm, requests_per_day, input_tpm, output_tpm } = *limits;
    let bounds = [
        ("rpm", rpm.map(u64::from)),
        ("requests_per_day", requests_per_day.map(u64::from)),
        ("input_tpm", input_tpm),
        ("output_tpm", output_tpm),
    ];
    bounds.into_iter().filter_map(|(name, bound)| Some((name.to_owned(), bound?))).collect()
}

fn said_can(said: &SaidCan) -> Vec<String> {
    let SaidCan { window_max, images, tools, thinking } = *said;
    let flags = [("images", images), ("tools", tools), ("thinking", thinking)];
    let flags = flags.into_iter().filter_map(|(what, can)| Some(if can? { what.into() } else { format!("no {what}") }));
    window_max.map(|window| format!("window {window}")).into_iter().chain(flags).collect()
}

/// The shipped rows come with the program, and are the same before and after a reload.
fn own_prices(prices: &Prices) -> BTreeMap<String, String> {
    let name = |row: &Price| match row.from {
        Some(from) => format!("{} from {}", row.model.text(), day(from)),
        None => row.model.text().to_string(),
    };
    prices.own().map(|row| (name(row), row.to_string())).collect()
}

fn timeouts(patience: &Patience) -> BTreeMap<String, u64> {
    let Patience {
        connect,
        tls,
        head,
        body,
        send,
        first_byte,
        idle,
        ping,
        write_stall,
        keep_alive,
        drain_grace,
        drain,
    } = *patience;
    let steps = [
        ("connect", connect),
        ("tls", tls),
        ("head", head),
        ("body", body),
        ("send", send),
        ("first_byte", first_byte),
        ("idle", idle),
        ("ping", ping),
        ("write_stall", write_stall),
        ("keep_alive", keep_alive),
        ("drain_grace", drain_grace),
        ("drain", drain),
    ];
    steps.into_iter().map(|(step, span)| (step.to_owned(), span.as_ms())).collect()
}

fn sizes(bounds: &Bounds) -> BTreeMap<String, u64> {
    let Bounds { body_bytes_max, bodies_bytes_max, connections_max, pool_idle_max, event_rate_min } = *bounds;
    let sizes = [
        ("body_max", body_bytes_max),
        ("bodies_max", bodies_bytes_max),
        ("connections_max", connections_max as u64),
        ("pool_idle_max", pool_idle_max as u64),
        ("event_rate_min", u64::from(event_rate_min)),
    ];
    sizes.into_iter().map(|(name, size)| (name.to_owned(), size)).collect()
}

/// Tells whether two secrets are equal to who holds the same key, and nothing about them to anybody else.
fn fingerprint(key: &hmac::Key, secret: &[u8]) -> String {
    let tag = hmac::sign(key, secret);
    tag.as_ref().iter().take(FINGERPRINT_BYTES).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
