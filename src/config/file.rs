//! The configuration as written: every value with its place, nothing resolved yet. One struct a section.

use toml::de::DeTable;

use super::diagnose::{At, Problems, Remedy, Spot};
use super::reader::Section;
use super::{prices, schema};
use crate::table::prices::{Charge, Price};

/// One file, or several joined by `include`.
#[derive(Default)]
pub struct File {
    /// Globs of further files.
    pub include: Vec<At<String>>,
    /// `[org]`.
    pub org: Org,
    /// `[listen]` or `[[listen]]`.
    pub listen: Vec<Listen>,
    /// `[admin] address`.
    pub admin: Option<At<String>>,
    /// `[health] address`.
    pub health: Option<At<String>>,
    /// `[[upstream]]`.
    pub upstreams: Vec<Upstream>,
    /// `[[model]]`.
    pub models: Vec<Model>,
    /// `[[price]]`.
    pub prices: Vec<At<Price>>,
    /// `[[team]]`.
    pub teams: Vec<Team>,
    /// `[[key]]`.
    pub keys: Vec<Key>,
    /// `[timeouts]`: step and length.
    pub timeouts: Vec<(&'static str, At<String>)>,
    /// `[bounds]`.
    pub bounds: Bounds,
    /// `[runtime] driver`.
    pub driver: Option<At<String>>,
    /// `[runtime] workers`.
    pub workers: Option<At<i64>>,
    /// `[log] format`.
    pub log_format: Option<At<String>>,
}

/// `[org]`.
#[derive(Default)]
pub struct Org {
    /// Ends every refusal that a developer sees.
    pub contact: Option<At<String>>,
    /// IANA name.
    pub timezone: Option<At<String>>,
}

/// `[bounds]`.
#[derive(Default)]
pub struct Bounds {
    /// A size such as `64MiB`.
    pub body: Option<At<String>>,
    /// A size.
    pub bodies: Option<At<String>>,
    /// A count per worker.
    pub connections: Option<At<i64>>,
    /// A count per worker and upstream.
    pub pool_idle: Option<At<i64>>,
    /// Events a minute.
    pub event_rate: Option<At<i64>>,
}

/// `[[listen]]`.
pub struct Listen {
    /// Address and port.
    pub address: Option<At<String>>,
    /// Allows a non-loopback address without TLS.
    pub plaintext: Option<At<bool>>,
    /// Its certificate.
    pub tls: Option<ListenTls>,
    /// Host names that it answers to.
    pub hosts: Option<Vec<At<String>>>,
    /// Refuses what other sites' pages send.
    pub refuse_cross_site: Option<At<bool>>,
    /// How to add a key to this section.
    pub insert_plaintext: Remedy,
}

/// `tls` of `[[listen]]`.
pub struct ListenTls {
    /// The chain, PEM.
    pub cert: Option<At<String>>,
    /// The key, PEM.
    pub key: Option<At<String>>,
}

/// `[[upstream]]`.
pub struct Upstream {
    /// Its header.
    pub at: Spot,
    /// Unique.
    pub name: Option<At<String>>,
    /// A preset.
    pub provider: Option<At<String>>,
    /// Where it is.
    pub base_url: Option<At<String>>,
    /// How the credential travels.
    pub auth: Option<At<String>>,
    /// Further roots, PEM.
    pub ca_file: Option<At<String>>,
    /// Allows a public host without TLS.
    pub plaintext: Option<At<bool>>,
    /// Allows a public name to lead to private addresses.
    pub allow_private: Option<At<bool>>,
    /// How long the head of an answer may take.
    pub first_byte: Option<At<String>>,
    /// What it takes besides prices.
    pub charge: Charge,
    /// The proxy on the way.
    pub proxy: Option<Proxy>,
    /// The pool.
    pub credentials: Vec<Credential>,
    /// What some of its answers mean.
    pub verdicts: Vec<Verdict>,
    /// `credentials` was written in a shape that has been told.
    pub credentials_told: bool,
    /// How to add a provider.
    pub insert_provider: Remedy,
    /// How to add credentials.
    pub insert_credentials: Remedy,
}

/// `proxy`, as a text or as a section.
pub struct Proxy {
    /// The value.
    pub at: Spot,
    /// `http://user:password@host:port`, or `none`.
    pub url: Option<At<String>>,
    /// A variable.
    pub username_env: Option<At<String>>,
    /// A variable.
    pub password_env: Option<At<String>>,
}

/// An entry of `credentials`.
pub struct Credential {
    /// Unique in the upstream.
    pub name: Option<At<String>>,
    /// An environment variable.
    pub env: Option<At<String>>,
    /// A file.
    pub file: Option<At<String>>,
    /// A secret in clear, which is refused.
    pub value: Option<At<String>>,
    /// What may be asked with it.
    pub limits: CredentialLimits,
}

/// `limits` of a credential.
#[derive(Default)]
pub struct CredentialLimits {
    /// Requests a minute.
    pub rpm: Option<At<i64>>,
    /// Requests a day.
    pub requests_per_day: Option<At<i64>>,
    /// Uncached input a minute.
    pub input_tpm: Option<At<i64>>,
    /// Output a minute.
    pub output_tpm: Option<At<i64>>,
}

/// An entry of `verdicts`.
pub struct Verdict {
    /// The whole entry.
    pub at: Spot,
    /// The HTTP status.
    pub status: Option<At<i64>>,
    /// What its body holds.
    pub body: Option<At<String>>,
    /// What it means.
    pub means: Option<At<String>>,
}

/// `[[model]]`.
pub struct Model {
    /// Its header.
    pub at: Spot,
    /// Exact or glob.
    pub name: Option<At<String>>,
    /// What else it is called.
    pub aliases: Vec<At<String>>,
    /// Whether it may fail over.
    pub fallback: Option<At<bool>>,
    /// Where it leads.
    pub targets: Vec<Target>,
    /// `targets` was written in a shape that has been told.
    pub targets_told: bool,
    /// Where `targets` stands, if it does.
    pub targets_at: Option<Spot>,
}

/// An entry of `targets`.
pub struct Target {
    /// The whole entry.
    pub at: Spot,
    /// By name.
    pub upstream: Option<At<String>>,
    /// The id there.
    pub model: Option<At<String>>,
    /// 1 is tried first.
    pub tier: Option<At<i64>>,
    /// Share inside the tier.
    pub weight: Option<At<i64>>,
    /// What fits into it.
    pub window: Option<At<i64>>,
    /// Whether it takes images.
    pub images: Option<At<bool>>,
    /// Whether it takes tools.
    pub tools: Option<At<bool>>,
    /// Whether it takes `thinking`.
    pub thinking: Option<At<bool>>,
}

/// What a team or a key opens.
pub struct Access {
    /// Names and globs.
    pub models: Option<Vec<At<String>>>,
    /// By name.
    pub upstreams: Option<Vec<At<String>>>,
    /// Path prefixes.
    pub passthrough: Vec<At<String>>,
    /// Where `models` stands, if it does.
    pub models_at: Option<Spot>,
    /// Where `upstreams` stands, if it does.
    pub upstreams_at: Option<Spot>,
}

/// `[[team]]`.
pub struct Team {
    /// Unique.
    pub name: Option<At<String>>,
    /// What is open to it.
    pub access: Access,
}

/// `[[key]]`.
pub struct Key {
    /// Its header.
    pub at: Spot,
    /// Unique.
    pub name: Option<At<String>>,
    /// The person or system behind it.
    pub owner: Option<At<String>>,
    /// By name.
    pub team: Option<At<String>>,
    /// One or several digests.
    pub hashes: Option<Vec<At<String>>>,
    /// `hash` was written in a shape that has been told.
    pub hash_told: bool,
    /// What is open to it.
    pub access: Access,
    /// A date, or a date and time.
    pub expires: Option<At<String>>,
    /// Switched off.
    pub disabled: Option<At<bool>>,
    /// Who goes first.
    pub class: Option<At<String>>,
    /// Whether it may fail over.
    pub fallback: Option<At<bool>>,
}

impl File {
    /// Reads the main file.
    pub fn read<'d>(problems: &mut Problems, file: u32, table: &'d DeTable<'d>) -> File {
        let at = Spot { file, start: 0, end: 0 };
        let root = Section::open(problems, &schema::ROOT, table, at);
        let mut out = File { include: root.texts("include").unwrap_or_default(), ..File::default() };
        for (table, at) in root.sections("org") {
            let section = Section::open(problems, &schema::ORG, table, at);
            out.org = Org { contact: section.text("contact"), timezone: section.text("timezone") };
        }
        out.listen = root.sections("listen").into_iter().map(|(t, at)| Listen::read(problems, t, at)).collect();
        for (table, at) in root.sections("admin") {
            out.admin = Section::open(problems, &schema::ADMIN, table, at).required_text(problems, "address");
        }
        for (table, at) in root.sections("health") {
            out.health = Section::open(problems, &schema::HEALTH, table, at).required_text(problems, "address");
        }
        out.settings(problems, &root);
        out.lists(problems, &root);
        out
    }

    /// Reads an included file: only what stands many times.
    pub fn read_included<'d>(&mut self, problems: &mut Problems, file: u32, table: &'d DeTable<'d>) {
        let at = Spot { file, start: 0, end: 0 };
        let root = Section::open(problems, &schema::INCLUDED, table, at);
        self.lists(problems, &root);
    }

    fn settings(&mut self, problems: &mut Problems, root: &Section<'_>) {
        for (table, at) in root.sections("timeouts") {
            let section = Section::open(problems, &schema::TIMEOUTS, table, at);
            let steps = schema::TIMEOUTS.keys.iter();
            self.timeouts = steps.filter_map(|key| Some((key.name, section.text(key.name)?))).collect();
        }
        for (table, at) in root.sections("bounds") {
            let section = Section::open(problems, &schema::BOUNDS, table, at);
            self.bounds = Bounds {
                body: section.text("body_max"),
                bodies: section.text("bodies_max"),
                connections: section.number("connections_max"),
                pool_idle: section.number("pool_idle_max"),
                event_rate: section.number("event_rate_min"),
            };
        }
        for (table, at) in root.sections("runtime") {
            let section = Section::open(problems, &schema::RUNTIME, table, at);
            (self.driver, self.workers) = (section.text("driver"), section.number("workers"));
        }
        for (table, at) in root.sections("log") {
            self.log_format = Section::open(problems, &schema::LOG, table, at).text("format");
        }
    }

    fn lists(&mut self, problems: &mut Problems, root: &Section<'_>) {
        for (table, at) in root.sections("upstream") {
            self.upstreams.push(Upstream::read(problems, table, at));
        }
        for (table, at) in root.sections("model") {
            self.models.push(Model::read(problems, table, at));
        }
        for (table, at) in root.sections("price") {
            self.prices.extend(prices::read(problems, table, at));
        }
        for (table, at) in root.sections("team") {
            let section = Section::open(problems, &schema::TEAM, table, at);
            let name = section.required_text(problems, "name");
            self.teams.push(Team { name, access: Access::read(&section) });
        }
        for (table, at) in root.sections("key") {
            self.keys.push(Key::read(problems, table, at));
        }
    }
}

impl Listen {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Listen {
        let section = Section::open(problems, &schema::LISTEN, table, at);
        Listen {
            address: section.required_text(problems, "address"),
            plaintext: section.flag("plaintext"),
            tls: section.sections("tls").into_iter().next().map(|(t, at)| {
                let tls = Section::open(problems, &schema::LISTEN_TLS, t, at);
                ListenTls { cert: tls.required_text(problems, "cert"), key: tls.required_text(problems, "key") }
            }),
            hosts: section.texts("hosts"),
            refuse_cross_site: section.flag("refuse_cross_site"),
            insert_plaintext: section.insertion(problems, "plaintext", "true"),
        }
    }
}

impl Upstream {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Upstream {
        let section = Section::open(problems, &schema::UPSTREAM, table, at);
        let (credentials, verdicts) = (section.sections("credentials"), section.sections("verdicts"));
        Upstream {
            at,
            name: section.required_text(problems, "name"),
            provider: section.text("provider"),
            base_url: section.text("base_url"),
            auth: section.text("auth"),
            ca_file: section.text("ca_file"),
            plaintext: section.flag("plaintext"),
            allow_private: section.flag("allow_private"),
            first_byte: section.text("first_byte"),
            charge: prices::charge(problems, &section),
            proxy: Proxy::read(problems, &section),
            credentials: credentials.into_iter().map(|(t, at)| Credential::read(problems, t, at)).collect(),
            verdicts: verdicts.into_iter().map(|(t, at)| Verdict::read(problems, t, at)).collect(),
            credentials_told: section.is_told("credentials"),
            insert_provider: section.insertion(problems, "provider", "\"anthropic\""),
            insert_credentials: section.setting(problems, "credentials"),
        }
    }
}

impl Proxy {
    fn read(problems: &mut Problems, upstream: &Section<'_>) -> Option<Proxy> {
        let at = upstream.place("proxy")?;
        if let Some(url) = upstream.text("proxy") {
            return Some(Proxy { at, url: Some(url), username_env: None, password_env: None });
        }
        let (table, spot) = upstream.sections("proxy").into_iter().next()?;
        let section = Section::open(problems, &schema::PROXY, table, spot);
        let url = section.required_text(problems, "url");
        Some(Proxy { at, url, username_env: section.text("username_env"), password_env: section.text("password_env") })
    }
}

impl Credential {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Credential {
        let section = Section::open(problems, &schema::CREDENTIAL, table, at);
        let (name, env) = (section.text("name"), section.text("env"));
        let (file, value) = (section.text("file"), section.text("value"));
        if !["env", "file", "value"].iter().any(|key| section.has(key)) {
            section.missing(problems, "env");
        }
        let limits = section.sections("limits").into_iter().next();
        let limits = limits.map(|(table, at)| CredentialLimits::read(problems, table, at)).unwrap_or_default();
        Credential { name, env, file, value, limits }
    }
}

impl CredentialLimits {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> CredentialLimits {
        let section = Section::open(problems, &schema::CREDENTIAL_LIMITS, table, at);
        CredentialLimits {
            rpm: section.number("rpm"),
            requests_per_day: section.number("requests_per_day"),
            input_tpm: section.number("input_tpm"),
            output_tpm: section.number("output_tpm"),
        }
    }
}

impl Verdict {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Verdict {
        let section = Section::open(problems, &schema::VERDICT, table, at);
        let (status, body) = (section.number("status"), section.text("body"));
        if status.is_none() {
            section.missing(problems, "status");
        }
        Verdict { at, status, body, means: section.required_text(problems, "verdict") }
    }
}

impl Model {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Model {
        let section = Section::open(problems, &schema::MODEL, table, at);
        let name = section.required_text(problems, "name");
        let targets = section.sections("targets").into_iter().map(|(t, at)| Target::read(problems, t, at)).collect();
        let targets_at = section.place("targets");
        Model {
            at,
            name,
            aliases: section.texts("aliases").unwrap_or_default(),
            fallback: section.flag("fallback"),
            targets,
            targets_told: section.is_told("targets"),
            targets_at,
        }
    }
}

impl Target {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Target {
        let section = Section::open(problems, &schema::TARGET, table, at);
        Target {
            at,
            upstream: section.required_text(problems, "upstream"),
            model: section.text("model"),
            tier: section.number("tier"),
            weight: section.number("weight"),
            window: section.number("window"),
            images: section.flag("images"),
            tools: section.flag("tools"),
            thinking: section.flag("thinking"),
        }
    }
}

impl Access {
    fn read(section: &Section<'_>) -> Access {
        Access {
            models: section.texts("models"),
            upstreams: section.texts("upstreams"),
            passthrough: section.texts("passthrough").unwrap_or_default(),
            models_at: section.place("models"),
            upstreams_at: section.place("upstreams"),
        }
    }
}

impl Key {
    fn read<'d>(problems: &mut Problems, table: &'d DeTable<'d>, at: Spot) -> Key {
        let section = Section::open(problems, &schema::KEY, table, at);
        Key {
            at,
            name: section.required_text(problems, "name"),
            owner: section.text("owner"),
            team: section.text("team"),
            hashes: section.texts("hash"),
            hash_told: section.is_told("hash"),
            access: Access::read(&section),
            expires: section.date("expires"),
            disabled: section.flag("disabled"),
            class: section.text("class"),
            fallback: section.flag("fallback"),
        }
    }
}
