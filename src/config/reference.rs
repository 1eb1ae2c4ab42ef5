//! Every setting with its meaning, as text for people: `docs/configuration.md` and `forebay check --settings` are printed
//! from it. Which settings there are, the schema says; a test holds the two together.

use std::fmt::Write;

use super::reader::{Schema, Shape};
use super::schema;

/// The sections in the order in which people read them: each with what it is, and its keys, one a line.
const SECTIONS: &[(&Schema, &str, &str)] = &[
    (
        &schema::ROOT,
        "Lists may stand in files of their own, too, which `include` brings in; all else belongs in the main file.",
        "include: files with further `[[upstream]]`, `[[model]]`, `[[price]]`, `[[team]]` and `[[key]]`; a `*` in a file's name stands for any
org: what holds for everyone
listen: where clients connect; several as `[[listen]]`
admin: the operator's listener
health: a listener for kubelet and Prometheus
upstream: where requests can be sent
model: which names clients may ask for, and where they lead
price: what a model costs, where it is not what the shipped list says
team: what bounds a group of keys
key: who may ask
timeouts: how long each step may take
bounds: sizes and counts
runtime: how the process runs
log: the access log",
    ),
    (
        &schema::ORG,
        "What holds for everyone.",
        "contact: ends every refusal that a developer sees
timezone: IANA name; says when a day begins and a key's last day ends. `UTC` unless said",
    ),
    (
        &schema::LISTEN,
        "Where clients connect.",
        "address: IP address and port
plaintext: needed off loopback without `tls`: something in front speaks TLS
tls: its certificate; read again when the files change
hosts: the Host names that are answered; all unless said
refuse_cross_site: no web page of another site may send requests; `true` on loopback unless said",
    ),
    (&schema::LISTEN_TLS, "", "cert: the chain, PEM\nkey: the key, PEM; for forebay's user only"),
    (&schema::ADMIN, "Health, metrics, the table without secrets, and drains. It asks for no key.", "address: a loopback address and port"),
    (&schema::HEALTH, "Health and metrics, and nothing else.", "address: an IP address and port"),
    (
        &schema::UPSTREAM,
        "One account or deployment of a provider.",
        "name: unique; stands in logs, metrics and `x-forebay-upstream`
provider: a preset of base URL and credential header: `anthropic`, or `anthropic-compatible`, which needs a `base_url`
base_url: where it is, without `/v1`
auth: how the credential travels: `x-api-key` unless said, `bearer`, or `none`
ca_file: further roots that its certificate may come from, PEM
plaintext: allows a public host without TLS
allow_private: allows a public name to lead to private addresses
proxy: the proxy on the way, or `none`; what the environment says unless said
first_byte: from the last byte of a request to the head of its answer, and for each part of a large request to be taken; then another candidate is asked, where there is one. `120s` for streams; answers that come in one piece may take their time unless this is said
price: what it takes besides its models' prices
credentials: the pool; each has its own limits and its own health
verdicts: what some of its answers mean, before the general table is asked; the first that fits",
    ),
    (
        &schema::CREDENTIAL,
        "One of `env` and `file` is there.",
        "name: unique in the upstream; stands in logs and metrics in the secret's place
env: the environment variable that holds the secret
file: the file that holds it
limits: what may be asked with it, where its answers do not say so",
    ),
    (
        &schema::CREDENTIAL_LIMITS,
        "A candidate without room is passed over. What an upstream says in its answers counts besides; the lower one holds.",
        "rpm: requests a minute
requests_per_day: requests a day; the day begins at midnight UTC
input_tpm: input tokens a minute, without cache reads
output_tpm: output tokens a minute",
    ),
    (
        &schema::VERDICT,
        "An operator's word on some answers of one upstream.",
        "status: the HTTP status, 400 to 599
body: what the beginning of the body holds; case counts. Every body unless said
verdict: `deliver`: the client gets it; `next`: the next candidate is asked; `cool-and-next`: and this one is left alone for a while",
    ),
    (
        &schema::PROXY,
        "`proxy` of an upstream with a user; without one, the URL alone will do.",
        "url: `http://host:port`\nusername_env: the variable that holds the user\npassword_env: the variable that holds the password",
    ),
    (
        &schema::MODEL,
        "Without any, every id goes to the only upstream, unchanged. An exact name goes before aliases, these before globs, \
         globs in file order. An id that nothing takes is looked for under its dated or undated spelling, and a retired one \
         under its successor's.",
        "name: the id that clients ask for, or a glob in which `*` stands for anything
aliases: further ids that mean the same; an upstream is asked for `name`
targets: where it is to be had
fallback: whether a failure of one target may lead to the next; `true` unless said",
    ),
    (
        &schema::TARGET,
        "A target that cannot hold a request is passed over. What is not said of one is taken from what is known of the model, \
         and what is not known is taken to be possible.",
        "upstream: its name
model: the id there; what the client asked for unless said
tier: lower tiers go first; 1 unless said
weight: share inside the tier; 1 unless said
window: tokens that fit into it, input and output together
images: whether it takes images
tools: whether it takes tools
thinking: whether it takes `thinking`",
    ),
    (
        &schema::CHARGE,
        "A contract, a reseller's share, or `{ factor = 0 }` for what costs nothing.",
        "factor: every price times this; 1 unless said\nfee: dollars for each answer that used anything; nothing unless said",
    ),
    (
        &schema::PRICE,
        "Dollars for a million tokens. [prices.md](prices.md) has the rule by which a row is found and a cost is made.",
        "model: the id that answers, or a glob; exact names go before globs, long globs before short ones
from: the first day, in UTC; of several rows the last that has begun
input: neither written to the cache nor read from it
output: thinking included
cache_read: as `input` unless said
cache_write_5m: as `input` unless said
cache_write_1h: as `cache_write_5m` unless said
above: other rates for the whole of a request with a longer prompt
fast: the factor of `speed: fast`; 1, and flagged, unless said
priority: the factor of the priority tier; 1 unless said
batch: the factor of a batch; 0.5 unless said
flex: the factor of the flex tier; 0.5 unless said
us: the factor of `inference_geo: us`; 1 unless said
regional: the factor of a Bedrock id of a region; 1.1 unless said
web_search: one search of the provider's, in dollars; 0.01 unless said
guess: the row stands for models whose prices are not known, and flags what it prices",
    ),
    (
        &schema::PRICE_ABOVE,
        "What is not said rises as `input` does.",
        "tokens: the prompt is longer than this, cached parts included
input: as of a price
output: as of a price
cache_read: as of a price
cache_write_5m: as of a price
cache_write_1h: as of a price",
    ),
    (
        &schema::TEAM,
        "What is open to its keys; what a list is missing for is open.",
        "name: unique
models: ids and globs that may be asked for
upstreams: where its requests may go, in every path and every failure
passthrough: path prefixes that are passed through, such as `/v1/files`; closed unless opened",
    ),
    (
        &schema::KEY,
        "One caller. `forebay keys new` writes such blocks.",
        "name: unique; stands in logs and metrics
owner: the person or system behind it
team: bounds it, besides its own lists
hash: `sha256:` and 64 hex digits; a list during a rotation
models: as of a team
upstreams: as of a team
passthrough: as of a team
expires: the last day, or a moment
disabled: switched off
class: who goes first when not all can: `interactive` unless said, `background`, `ci`
fallback: whether a failure of one target may lead to the next; `true` unless said",
    ),
    (
        &schema::TIMEOUTS,
        "A whole number with `ms`, `s`, `m` or `h`; at most an hour.",
        "connect: TCP, to an upstream. `5s` unless said
tls: a TLS handshake. `5s`
head: a request's head, from its first byte. `15s`
body: a request's body. `300s`
send: an upstream that takes no more of the request. `60s`
first_byte: from the last byte of a request to the head of its answer, over all candidates. `340s`; Claude Code gives up at 360 s
idle: silence of the upstream inside an answer. `240s`; Claude Code leaves at 300 s
ping: after so much silence in a stream, a ping of forebay's own; `0s` for never. `15s`
write_stall: a client that takes no more of the answer. `60s`
keep_alive: a client connection without a request. `75s`
drain_grace: after the word to stop, how long new connections are still taken. none
drain: after that, how long exchanges in flight may go on. `300s`",
    ),
    (
        &schema::BOUNDS,
        "Sizes are whole numbers with `B`, `KiB`, `MiB` or `GiB`.",
        "body_max: one request body. `64MiB` unless said
bodies_max: all request bodies that are held at once. `1GiB`
connections_max: client connections, per worker. `16384`
pool_idle_max: idle connections kept, per worker and upstream. `256`
event_rate_min: events a minute that a stream has at least, pings not counted; a slower one ends as a silent one does. `0`, off",
    ),
    (
        &schema::RUNTIME,
        "Changes come into force with a restart.",
        "driver: `auto`: io_uring where it is allowed, else epoll; or `epoll`\nworkers: cores to use; what affinity and the cgroup's quota leave unless said",
    ),
    (&schema::LOG, "", "format: `auto`: pretty on a terminal, else json; `pretty`; `json`"),
];

/// The reference, as Markdown: a table a section.
pub fn reference() -> String {
    let mut out = String::new();
    for (schema, about, meanings) in SECTIONS {
        let _ = write!(out, "\n## {}\n", schema.title);
        if !about.is_empty() {
            let _ = write!(out, "{about}\n\n");
        }
        out.push_str("| key | value | for example | meaning |\n|---|---|---|---|\n");
        for (name, meaning) in pairs(meanings) {
            let Some(key) = schema.keys.iter().find(|key| key.name == name) else { continue };
            let _ = writeln!(out, "| `{name}` | {} | `{}` | {meaning} |", noun(key.shape), key.example);
        }
    }
    out
}

fn pairs(meanings: &str) -> impl Iterator<Item = (&str, &str)> {
    meanings.lines().filter_map(|line| line.split_once(": "))
}

fn noun(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "text",
        Shape::Flag => "true or false",
        Shape::Number => "number",
        Shape::Amount => "number, with a point if need be",
        Shape::Texts => "list of texts",
        Shape::TextOrTexts => "text or list",
        Shape::Date => "date",
        Shape::TextOrSection => "text or section",
        Shape::Section => "section",
        Shape::Sections => "list of sections",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No key without a meaning, none with two, and no meaning without a key.
    #[test]
    fn every_key_has_its_meaning() {
        for (schema, _, meanings) in SECTIONS {
            let told: Vec<&str> = pairs(meanings).map(|(name, _)| name).collect();
            let offered = schema.keys.iter().filter(|key| !key.example.is_empty());
            let keys: Vec<&str> = offered.map(|key| key.name).collect();
            assert_eq!(told, keys, "{}", schema.title);
            assert_eq!(told.len(), meanings.lines().count(), "{}", schema.title);
        }
    }

    /// What the commented configuration calls every key is every key.
    #[test]
    fn the_commented_configuration_has_every_key() {
        let text = include_str!("../../configs/team.toml");
        for (schema, _, meanings) in SECTIONS {
            for (name, _) in pairs(meanings) {
                let is_there = [format!("{name} "), format!("[{name}]")].iter().any(|start| {
                    text.match_indices(start.as_str()).any(|(at, _)| {
                        let before = text.get(..at).unwrap_or_default().chars().last();
                        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-')
                    })
                });
                assert!(is_there, "{} {name}", schema.title);
            }
        }
    }
}
