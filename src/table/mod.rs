//! The configuration as meant: compiled, immutable, cheap to read. An exchange pins one `Table` and keeps it until it
//! ends; names are `Arc<str>`, so that a record can outlive the table. Nothing here changes, waits or does I/O; live
//! state (addresses, buckets, breakers) is elsewhere.

mod access;
pub mod catalogue;
mod fixed;
pub mod listener;
pub mod live;
pub mod meaning;
pub mod passthrough;
pub mod pattern;
pub mod prices;
mod slots;
pub mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::base::bounds;
use crate::base::{CallerSlot, ModelSlot, Span, TeamSlot, UpstreamSlot, Wall};

pub use access::{Access, By, Plan, Refusal};
pub use listener::{Hosts, Listener, ListenerTls};
pub use pattern::Pattern;
pub use slots::Slots;
pub use upstream::{Credential, CredentialLimits, Family, Provider, SecretLine, Upstream, Verdict, VerdictRule};

/// Targets of one model at most; what a `Plan` has room for.
pub const TARGETS_MAX: usize = 16;

/// One whole configuration. Its lists are in file order; which slot each item has, `slots` says.
pub struct Table {
    /// Counts the configurations that this process has had in force; the first is 1.
    pub generation: u64,
    /// What holds for everyone.
    pub org: Org,
    /// Where clients connect; never empty.
    pub listeners: Vec<Listener>,
    /// The operator's listener: health, metrics, the table without secrets. Loopback.
    pub admin: Option<SocketAddr>,
    /// A listener with health and metrics only, for kubelet and Prometheus.
    pub health: Option<SocketAddr>,
    /// In file order; never empty.
    pub upstreams: Vec<Upstream>,
    /// In file order. Without any `[[model]]` there is one, `*`, that leads to the only upstream.
    pub models: Vec<Model>,
    /// In file order.
    pub teams: Vec<Team>,
    /// In file order.
    pub callers: Vec<Caller>,
    /// Which caller a presented key belongs to.
    pub digests: Digests,
    /// Sizes and counts that an operator may set.
    pub bounds: Bounds,
    /// How long each step may take.
    pub patience: Patience,
    /// How the process runs.
    pub runtime: RuntimeSettings,
    /// How the access log looks.
    pub log: LogFormat,
    /// What usage costs.
    pub prices: prices::Prices,
    /// Which slot each name has.
    pub slots: Slots,
}

/// What holds for everyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    /// Ends every refusal that a developer sees.
    pub contact: Option<Arc<str>>,
    /// IANA name; says when a day begins.
    pub timezone: Arc<str>,
}

/// One `[[model]]`: the names it stands for, and where they lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The ids that clients ask for.
    pub name: Pattern,
    /// Further ids that clients may ask for instead of `name`; each of them is `name` for the upstream.
    pub aliases: Vec<Arc<str>>,
    /// By tier, then in file order; 1..=`TARGETS_MAX`.
    pub targets: Vec<Target>,
    /// Whether a failure of one target may lead to the next.
    pub fallback: bool,
}

impl Model {
    /// The model with its targets in the order in which they are tried, each with what is known of the model there.
    pub fn new(name: Pattern, mut targets: Vec<Target>) -> Model {
        targets.sort_by_key(|target| target.tier);
        targets.truncate(TARGETS_MAX);
        for target in &mut targets {
            let exact = name.is_exact().then_some(&**name.text());
            target.can = target.said.over(target.model.as_deref().or(exact));
        }
        Model { name, aliases: Vec::new(), targets, fallback: true }
    }
}

/// One place where a model can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub upstream: UpstreamSlot,
    /// Its id there; `None` leaves the id that the client asked for.
    pub model: Option<Arc<str>>,
    /// Lower tiers are tried first; 1 unless said.
    pub tier: u8,
    /// Share inside its tier; 1 unless said.
    pub weight: u32,
    /// What the configuration says that it can take.
    pub said: SaidCan,
    /// What it can take, as said or as known of its id there; behind a glob `Table::can` knows more.
    pub can: Can,
}

impl Target {
    /// The whole of `upstream`'s offer: any id as it is, in the first tier, nothing known that it cannot do.
    pub fn to(upstream: UpstreamSlot) -> Target {
        Target { upstream, model: None, tier: 1, weight: 1, said: SaidCan::default(), can: Can::default() }
    }
}

/// What a model can take in one request. What is not known is taken to be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Can {
    /// Input and output together, in tokens as it counts them; `None` if that is not known.
    pub window_max: Option<u64>,
    /// Images in the prompt.
    pub images: bool,
    /// Tools to call.
    pub tools: bool,
    /// The `thinking` field.
    pub thinking: bool,
}

impl Default for Can {
    fn default() -> Can {
        Can { window_max: None, images: true, tools: true, thinking: true }
    }
}

/// What an operator says of a target; `None` leaves a thing to what is known of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaidCan {
    /// Input and output together, in tokens as a model counts them.
    pub window_max: Option<u64>,
    /// Images in the prompt.
    pub images: Option<bool>,
    /// Tools to call.
    pub tools: Option<bool>,
    /// The `thinking` field.
    pub thinking: Option<bool>,
}

impl SaidCan {
    /// What is said, over what is known of the model `id`, over what is assumed of any.
    pub fn over(&self, id: Option<&str>) -> Can {
        let known = id.and_then(catalogue::find).map_or_else(Can::default, |known| known.can);
        Can {
            window_max: self.window_max.or(known.window_max),
            images: self.images.unwrap_or(known.images),
            tools: self.tools.unwrap_or(known.tools),
            thinking: self.thinking.unwrap_or(known.thinking),
        }
    }
}

/// One `[[team]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Unique in the table.
    pub name: Arc<str>,
    /// Bounds every key of the team.
    pub access: Access,
}

/// One `[[key]]`, whichever of its secrets is presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Unique in the table.
    pub name: Arc<str>,
    /// The person or system behind it.
    pub owner: Option<Arc<str>>,
    /// The team that bounds it and pays for it.
    pub team: Option<TeamSlot>,
    /// Bounds this key, together with its team's.
    pub access: Access,
    /// When it ends by itself.
    pub expires: Option<Expiry>,
    /// Switched off.
    pub disabled: bool,
    /// Who goes first when not all can.
    pub class: Class,
    /// Whether a failure of one upstream may lead to the next.
    pub fallback: bool,
}

/// The end of a key's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first moment at which it is refused.
    pub at: Wall,
    /// The last day, as text, in the org's time zone.
    pub day: Arc<str>,
}

/// The class of a key is a ceiling: a request may ask for a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A person waits for the answer.
    #[default]
    Interactive,
    /// A person's agents, unattended.
    Background,
    /// Machines.
    Ci,
}

/// Sizes and counts that an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// One request body, in bytes.
    pub body_bytes_max: u64,
    /// All request bodies that the process holds at once, in bytes.
    pub bodies_bytes_max: u64,
    /// Client connections per worker.
    pub connections_max: usize,
    /// Idle upstream connections kept per worker and upstream.
    pub pool_idle_max: usize,
    /// Events a minute that a stream has at least, over any whole minute after its first content and not counting
    /// `ping`; a slower one ends as one that fell silent. Zero bounds nothing.
    pub event_rate_min: u32,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            body_bytes_max: bounds::BODY_BYTES_MAX,
            bodies_bytes_max: bounds::BODIES_BYTES_MAX,
            connections_max: bounds::CONNECTIONS_MAX,
            pool_idle_max: bounds::POOL_IDLE_MAX,
            event_rate_min: 0,
        }
    }
}

/// How long each step may take. What counts is the client's own patience: Claude Code gives up 360 s after a request
/// without an answer's head (R11), and 300 s into a silent stream (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// TCP connect to an upstream.
    pub connect: Span,
    /// TLS handshake, with an upstream or a client.
    pub tls: Span,
    /// A request's whole head, from its first byte.
    pub head: Span,
    /// A request's whole body.
    pub body: Span,
    /// An upstream that takes no more of the request.
    pub send: Span,
    /// From the last byte of the request to the head of the answer.
    pub first_byte: Span,
    /// Silence of the upstream inside an answer. What forebay says to the client meanwhile does not count, and it is less
    /// than what clients endure, so that own pings never hide a dead upstream.
    pub idle: Span,
    /// After so much silence in a stream of events the client gets a `ping` of forebay's own, at an event border, and
    /// again after as much; zero for never.
    pub ping: Span,
    /// A client that takes no more of the answer.
    pub write_stall: Span,
    /// A client connection without a request.
    pub keep_alive: Span,
    /// After the word to stop: how long new connections are still taken, so that a load balancer can look elsewhere.
    pub drain_grace: Span,
    /// After that: how long exchanges in flight may go on.
    pub drain: Span,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Span::from_secs(5),
            tls: Span::from_secs(5),
            head: Span::from_secs(15),
            body: Span::from_secs(300),
            send: Span::from_secs(60),
            first_byte: Span::from_secs(340),
            idle: Span::from_secs(240),
            ping: Span::from_secs(15),
            write_stall: Span::from_secs(60),
            keep_alive: Span::from_secs(75),
            drain_grace: Span::ZERO,
            drain: Span::from_secs(300),
        }
    }
}

/// How the process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// The event loop.
    pub driver: Driver,
    /// Cores to use; `None` takes what affinity and the cgroup's quota leave.
    pub workers: Option<usize>,
}

/// The kernel interface of the event loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// `io_uring` where it is allowed, else epoll.
    #[default]
    Auto,
    /// Always epoll.
    Epoll,
}

/// How the access log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, else `Json`.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One object a line.
    Json,
}

/// SHA-256 of every key, and whose it is. A table of hashes leaks nothing by the time a look-up takes that would help
/// to find a preimage; the comparison is constant-time all the same, so that no reader has to trust that argument.
#[derive(Default)]
pub struct Digests(HashMap<[u8; 32], CallerSlot>);

impl Digests {
    /// Adds a digest; returns the caller that has it already, if any, and leaves that one.
    pub fn add(&mut self, digest: [u8; 32], caller: CallerSlot) -> Option<CallerSlot> {
        match self.0.entry(digest) {
            std::collections::hash_map::Entry::Occupied(taken) => Some(*taken.get()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(caller);
                None
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Table {
    /// Whose key has this SHA-256.
    pub fn caller_by_digest(&self, digest: &[u8; 32]) -> Option<CallerSlot> {
        let (known, slot) = self.digests.0.get_key_value(digest)?;
        bool::from(known.ct_eq(digest)).then_some(*slot)
    }

    /// The caller in `slot`; `None` only for a slot of another table.
    pub fn caller(&self, slot: CallerSlot) -> Option<&Caller> {
        self.callers.get(self.caller_place(slot)?)
    }

    /// The team in `slot`; `None` only for a slot of another table.
    pub fn team(&self, slot: TeamSlot) -> Option<&Team> {
        self.teams.get(self.team_place(slot)?)
    }

    /// The model rule in `slot`; `None` only for a slot of another table.
    pub fn model(&self, slot: ModelSlot) -> Option<&Model> {
        self.models.get(self.model_place(slot)?)
    }

    /// The team of a caller, if it has one.
    pub fn team_of(&self, slot: CallerSlot) -> Option<&Team> {
        self.team(self.caller(slot)?.team?)
    }

    /// What the operator knows of the limits of the credential at `at` of an upstream's pool.
    pub fn credential_limits(&self, upstream: UpstreamSlot, at: usize) -> CredentialLimits {
        let credential = self.upstream(upstream).and_then(|upstream| upstream.credentials.get(at));
        credential.map_or_else(CredentialLimits::default, |credential| credential.limits)
    }

    /// The upstream in `slot`; `None` only for a slot of another table.
    pub fn upstream(&self, slot: UpstreamSlot) -> Option<&Upstream> {
        self.upstreams.get(self.upstream_place(slot)?)
    }
}

#[cfg(test)]
mod tests;
