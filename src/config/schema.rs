//! The keys of every section. What later versions will read is named here too, so that it is refused, not ignored.

use super::reader::{Key, Schema, Shape};

/// Why a key that is planned is refused.
const LATER: &str = "is not in this version, and would have no effect";
/// Why a section is refused in an included file.
const MAIN_ONLY: &str = "belongs in the main file";

const fn key(name: &'static str, shape: Shape, example: &'static str) -> Key {
    Key { name, shape, example }
}

const UPSTREAM_EXAMPLE: &str = "{ name = \"anthropic\", provider = \"anthropic\" }";

const PRICE_EXAMPLE: &str = "{ model = \"house-1\", input = 3, output = 15 }";

/// The main file.
pub const ROOT: Schema = Schema {
    title: "the top level",
    keys: &[
        key("include", Shape::TextOrTexts, "[\"keys.d/*.toml\"]"),
        key("org", Shape::Section, "{ contact = \"#ai-platform\" }"),
        key("listen", Shape::Sections, "{ address = \"127.0.0.1:8080\" }"),
        key("admin", Shape::Section, "{ address = \"127.0.0.1:9090\" }"),
        key("health", Shape::Section, "{ address = \"127.0.0.1:9091\" }"),
        key("upstream", Shape::Sections, UPSTREAM_EXAMPLE),
        key("model", Shape::Sections, "{ name = \"claude-*\" }"),
        key("price", Shape::Sections, PRICE_EXAMPLE),
        key("team", Shape::Sections, "{ name = \"payments\" }"),
        key("key", Shape::Sections, "{ name = \"alice\" }"),
        key("timeouts", Shape::Section, "{ connect = \"5s\" }"),
        key("bounds", Shape::Section, "{ body_max = \"64MiB\" }"),
        key("runtime", Shape::Section, "{ driver = \"auto\" }"),
        key("log", Shape::Section, "{ format = \"auto\" }"),
    ],
    refused: &[
        ("route", LATER),
        ("tls", LATER),
        ("limits", LATER),
        ("prices", "is not a key: write a [[price]] for each model"),
        ("ledger", LATER),
        ("fleet", LATER),
        ("redis", LATER),
        ("postgres", LATER),
        ("otlp", LATER),
        ("sso", LATER),
    ],
};

/// An included file.
pub const INCLUDED: Schema = Schema {
    title: "an included file",
    keys: &[
        key("upstream", Shape::Sections, UPSTREAM_EXAMPLE),
        key("model", Shape::Sections, "{ name = \"claude-*\" }"),
        key("price", Shape::Sections, PRICE_EXAMPLE),
        key("team", Shape::Sections, "{ name = \"payments\" }"),
        key("key", Shape::Sections, "{ name = \"alice\" }"),
    ],
    refused: &[
        ("include", MAIN_ONLY),
        ("org", MAIN_ONLY),
        ("listen", MAIN_ONLY),
        ("admin", MAIN_ONLY),
        ("health", MAIN_ONLY),
        ("timeouts", MAIN_ONLY),
        ("bounds", MAIN_ONLY),
        ("runtime", MAIN_ONLY),
        ("log", MAIN_ONLY),
        ("route", LATER),
    ],
};

/// `[org]`.
pub const ORG: Schema = Schema {
    title: "[org]",
    keys: &[
        key("contact", Shape::Text, "\"#ai-platform on Slack\""),
        key("timezone", Shape::Text, "\"Europe/Berlin\""),
    ],
    refused: &[("limits", LATER)],
};

/// `[[listen]]`.
pub const LISTEN: Schema = Schema {
    title: "[listen]",
    keys: &[
        key("address", Shape::Text, "\"127.0.0.1:8080\""),
        key("plaintext", Shape::Flag, "true"),
        key("tls", Shape::Section, "{ cert = \"tls.crt\", key = \"tls.key\" }"),
        key("hosts", Shape::TextOrTexts, "[\"forebay.example.com\"]"),
        key("refuse_cross_site", Shape::Flag, "true"),
    ],
    refused: &[],
};

/// `tls` of `[[listen]]`.
pub const LISTEN_TLS: Schema = Schema {
    title: "`tls`",
    keys: &[key("cert", Shape::Text, "\"tls.crt\""), key("key", Shape::Text, "\"tls.key\"")],
    refused: &[("client_ca", LATER), ("min_version", "is not a key: TLS 1.3 and 1.2 are spoken")],
};

/// `[admin]`.
pub const ADMIN: Schema = Schema {
    title: "[admin]",
    keys: &[key("address", Shape::Text, "\"127.0.0.1:9090\"")],
    refused: &[("tls", LATER), ("plaintext", "is not needed: the address is a loopback one")],
};

/// `[health]`.
pub const HEALTH: Schema = Schema {
    title: "[health]",
    keys: &[key("address", Shape::Text, "\"127.0.0.1:9091\"")],
    refused: &[("tls", LATER), ("plaintext", "is not needed: nothing secret is shown there")],
};

/// `[[upstream]]`.
pub const UPSTREAM: Schema = Schema {
    title: "[[upstream]]",
    keys: &[
        key("name", Shape::Text, "\"anthropic\""),
        key("provider", Shape::Text, "\"anthropic\""),
        key("base_url", Shape::Text, "\"https://api.anthropic.com\""),
        key("auth", Shape::Text, "\"x-api-key\""),
        key("ca_file", Shape::Text, "\"ca.pem\""),
        key("plaintext", Shape::Flag, "true"),
        key("allow_private", Shape::Flag, "true"),
        key("proxy", Shape::TextOrSection, "\"http://proxy.example:3128\""),
        key("first_byte", Shape::Text, "\"30s\""),
        key("price", Shape::Section, "{ factor = 1.055 }"),
        key("credentials", Shape::Sections, "[{ name = \"main\", env = \"ANTHROPIC_API_KEY\" }]"),
        key("verdicts", Shape::Sections, "[{ status = 400, body = \"no capacity\", verdict = \"next\" }]"),
    ],
    refused: &[
        ("region", LATER),
        ("project", LATER),
        ("limits", "is not a key: limits belong to each of its `credentials`"),
        ("headers", LATER),
        ("tls", LATER),
        ("api_key", "is not how a credential is given: use `credentials`"),
    ],
};

/// An entry of `credentials`.
pub const CREDENTIAL: Schema = Schema {
    title: "a credential",
    keys: &[
        key("name", Shape::Text, "\"main\""),
        key("env", Shape::Text, "\"ANTHROPIC_API_KEY\""),
        key("file", Shape::Text, "\"/run/secrets/anthropic\""),
        key("limits", Shape::Section, "{ rpm = 20 }"),
        key("value", Shape::Text, ""), /* known, so that it is refused with a reason; offered nowhere */
    ],
    refused: &[("weight", LATER)],
};

/// `limits` of a credential.
pub const CREDENTIAL_LIMITS: Schema = Schema {
    title: "`limits` of a credential",
    keys: &[
        key("rpm", Shape::Number, "20"),
        key("requests_per_day", Shape::Number, "1000"),
        key("input_tpm", Shape::Number, "400_000"),
        key("output_tpm", Shape::Number, "80_000"),
    ],
    refused: &[
        ("tpm", "is not a key: input and output are bounded apart, by `input_tpm` and `output_tpm`"),
        ("in_flight", LATER),
        ("usd_per_day", LATER),
        ("usd_per_month", LATER),
    ],
};

/// An entry of `verdicts`.
pub const VERDICT: Schema = Schema {
    title: "a verdict",
    keys: &[
        key("status", Shape::Number, "400"),
        key("body", Shape::Text, "\"no capacity\""),
        key("verdict", Shape::Text, "\"next\""),
    ],
    refused: &[],
};

/// `proxy` of an upstream, written as a section.
pub const PROXY: Schema = Schema {
    title: "a proxy",
    keys: &[
        key("url", Shape::Text, "\"http://proxy.example:3128\""),
        key("username_env", Shape::Text, "\"PROXY_USER\""),
        key("password_env", Shape::Text, "\"PROXY_PASSWORD\""),
    ],
    refused: &[
        ("username", "is not a key: write the name of a variable as `username_env`"),
        ("password", "would hold a secret: write the name of a variable as `password_env`"),
        ("no_proxy", "is not a key: write `proxy = \"none\"` in each upstream that goes straight"),
    ],
};

/// `[[model]]`.
pub const MODEL: Schema = Schema {
    title: "[[model]]",
    keys: &[
        key("name", Shape::Text, "\"claude-*\""),
        key("aliases", Shape::Texts, "[\"sonnet\"]"),
        key("targets", Shape::Sections, "[{ upstream = \"anthropic\" }]"),
        key("fallback", Shape::Flag, "false"),
    ],
    refused: &[("limits", LATER), ("price", LATER)],
};

/// An entry of `targets`.
pub const TARGET: Schema = Schema {
    title: "a target",
    keys: &[
        key("upstream", Shape::Text, "\"anthropic\""),
        key("model", Shape::Text, "\"claude-opus-4-6\""),
        key("tier", Shape::Number, "1"),
        key("weight", Shape::Number, "1"),
        key("window", Shape::Number, "200_000"),
        key("images", Shape::Flag, "false"),
        key("tools", Shape::Flag, "false"),
        key("thinking", Shape::Flag, "false"),
    ],
    refused: &[("fallback", "belongs to the [[model]], or to a [[key]]")],
};

/// `[[team]]`.
pub const TEAM: Schema = Schema {
    title: "[[team]]",
    keys: &[
        key("name", Shape::Text, "\"payments\""),
        key("models", Shape::Texts, "[\"claude-*\"]"),
        key("upstreams", Shape::Texts, "[\"anthropic\"]"),
        key("passthrough", Shape::Texts, "[\"/v1/files\"]"),
    ],
    refused: &[
        ("limits", LATER),
        ("per_key", LATER),
        ("class", "belongs on each [[key]]"),
        ("fallback", "belongs on each [[key]], or to a [[model]]"),
    ],
};

/// `[[key]]`.
pub const KEY: Schema = Schema {
    title: "[[key]]",
    keys: &[
        key("name", Shape::Text, "\"alice\""),
        key("owner", Shape::Text, "\"alice@example.com\""),
        key("team", Shape::Text, "\"payments\""),
        key("hash", Shape::TextOrTexts, "\"sha256:<64 hex digits>\""),
        key("models", Shape::Texts, "[\"claude-*\"]"),
        key("upstreams", Shape::Texts, "[\"anthropic\"]"),
        key("passthrough", Shape::Texts, "[\"/v1/files\"]"),
        key("expires", Shape::Date, "2026-12-31"),
        key("disabled", Shape::Flag, "true"),
        key("class", Shape::Text, "\"interactive\""),
        key("fallback", Shape::Flag, "false"),
    ],
    refused: &[("limits", LATER), ("key", "would hold a secret: write the key's `hash` instead")],
};

/// `[timeouts]`.
pub const TIMEOUTS: Schema = Schema {
    title: "[timeouts]",
    keys: &[
        key("connect", Shape::Text, "\"5s\""),
        key("tls", Shape::Text, "\"5s\""),
        key("head", Shape::Text, "\"15s\""),
        key("body", Shape::Text, "\"300s\""),
        key("send", Shape::Text, "\"60s\""),
        key("first_byte", Shape::Text, "\"340s\""),
        key("idle", Shape::Text, "\"240s\""),
        key("ping", Shape::Text, "\"15s\""),
        key("write_stall", Shape::Text, "\"60s\""),
        key("keep_alive", Shape::Text, "\"75s\""),
        key("drain_grace", Shape::Text, "\"5s\""),
        key("drain", Shape::Text, "\"300s\""),
    ],
    refused: &[],
};

/// `[bounds]`.
pub const BOUNDS: Schema = Schema {
    title: "[bounds]",
    keys: &[
        key("body_max", Shape::Text, "\"64MiB\""),
        key("bodies_max", Shape::Text, "\"1GiB\""),
        key("connections_max", Shape::Number, "16384"),
        key("pool_idle_max", Shape::Number, "256"),
        key("event_rate_min", Shape::Number, "0"),
    ],
    refused: &[],
};

/// `[runtime]`.
pub const RUNTIME: Schema = Schema {
    title: "[runtime]",
    keys: &[key("driver", Shape::Text, "\"auto\""), key("workers", Shape::Number, "2")],
    refused: &[],
};

/// `[log]`.
pub const LOG: Schema = Schema {
    title: "[log]",
    keys: &[key("format", Shape::Text, "\"auto\"")],
    refused: &[("level", LATER), ("file", LATER)],
};

/// `[[price]]`. Rates are in dollars for a million tokens.
pub const PRICE: Schema = Schema {
    title: "[[price]]",
    keys: &[
        key("model", Shape::Text, "\"claude-opus-5\""),
        key("from", Shape::Date, "2026-12-31"),
        key("input", Shape::Amount, "5"),
        key("output", Shape::Amount, "25"),
        key("cache_read", Shape::Amount, "0.5"),
        key("cache_write_5m", Shape::Amount, "6.25"),
        key("cache_write_1h", Shape::Amount, "10"),
        key("above", Shape::Sections, "[{ tokens = 200000, input = 10, output = 37.5 }]"),
        key("fast", Shape::Amount, "2"),
        key("priority", Shape::Amount, "2"),
        key("batch", Shape::Amount, "0.5"),
        key("flex", Shape::Amount, "0.5"),
        key("us", Shape::Amount, "1.1"),
        key("regional", Shape::Amount, "1.1"),
        key("web_search", Shape::Amount, "0.01"),
        key("guess", Shape::Flag, "true"),
    ],
    refused: &[
        ("cache_write", "is not a key: write `cache_write_5m` and `cache_write_1h`"),
        ("reasoning", "is not a key: thinking is output"),
    ],
};

/// An entry of `above`.
pub const PRICE_ABOVE: Schema = Schema {
    title: "an entry of `above`",
    keys: &[
        key("tokens", Shape::Number, "200000"),
        key("input", Shape::Amount, "10"),
        key("output", Shape::Amount, "37.5"),
        key("cache_read", Shape::Amount, "1"),
        key("cache_write_5m", Shape::Amount, "12.5"),
        key("cache_write_1h", Shape::Amount, "20"),
    ],
    refused: &[],
};

/// `price` of an upstream.
pub const CHARGE: Schema = Schema {
    title: "`price` of an upstream",
    keys: &[key("factor", Shape::Amount, "1.055"), key("fee", Shape::Amount, "0.001")],
    refused: &[("discount", "is not a key: a tenth less is `factor = 0.9`")],
};

/// The price list that comes with forebay.
pub const SHIPPED_PRICES: Schema = Schema {
    title: "the shipped price list",
    keys: &[key("snapshot", Shape::Text, "\"2026-11-22\""), key("price", Shape::Sections, PRICE_EXAMPLE)],
    refused: &[],
};
