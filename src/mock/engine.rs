//! The simulated provider without a socket: a request in, a script out. Deterministic: the same seed, requests and
//! times give the same bytes.

use super::{
    behave::Behaviour,
    compose, content,
    estimate::PromptCache,
    generation::Case,
    head::{Head, Reach, envelope, error_type},
    limits::Limits,
    log::{Ending, Row, UsageLog, row},
    models,
    options::{Options, hex, sha256},
    rules::Rules,
    script::{Script, Step},
};
use crate::base::{Mono, Rng, Wall, bounds::BODIES_BYTES_MAX};

/// A request as the engine wants it: parsed, and its body whole.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target.
    pub target: &'a str,
    /// The fields in order.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// The body, without transfer coding.
    pub body: &'a [u8],
    /// HTTP/1.0: no chunked answer.
    pub http10: bool,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// The peer's address is a loopback address.
    pub loopback: bool,
}

impl<'a> Request<'a> {
    /// The first field of that name, without white space around it.
    pub(super) fn field(&self, name: &str) -> Option<&'a str> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok()).map(str::trim)
    }

    /// Path and query, of an absolute-form target too.
    pub(super) fn path_and_query(&self) -> (&'a str, &'a str) {
        let origin = match self.target.split_once("://") {
            Some((_, rest)) if !self.target.starts_with('/') => rest.find('/').map_or("/", |at| rest.split_at(at).1),
            _ => self.target,
        };
        origin.split_once('?').unwrap_or((origin, ""))
    }
}

/// The simulated provider.
pub struct Engine {
    pub(super) options: Options,
    pub(super) rng: Rng,
    pub(super) rules: Rules,
    pub(super) limits: Limits,
    pub(super) cache: PromptCache,
    pub(super) log: UsageLog,
    pub(super) epoch: u64,
    bodies_bytes: u64,
}

/// Who sent a request.
pub(super) struct Credential {
    pub(super) name: String,
    pub(super) digest_hex: String,
    pub(super) hash: u64,
}

impl Engine {
    /// An engine; the error names the first rule that makes no sense.
    pub fn new(options: Options) -> Result<Engine, String> {
        Ok(Engine {
            rng: Rng(options.seed),
            rules: Rules::new(options.rules.clone())?,
            limits: Limits::new(options.enforce.clone()),
            cache: PromptCache::default(),
            log: UsageLog::new(options.log_rows_max),
            epoch: 0,
            bodies_bytes: 0,
            options,
        })
    }

    /// Answers a request: the script's steps are the answer. Drive it with `step`, and `abort` it when the client goes.
    pub fn answer(&mut self, now: Mono, wall: Wall, request: &Request<'_>) -> Script {
        let (path, query) = request.path_and_query();
        let reach = Reach {
            request_id: compose::id("req", &mut self.rng),
            wall,
            keep_alive: request.keep_alive,
            http10: request.http10,
            no_body: request.method == "HEAD",
            told: [None; 3],
        };
        let get = matches!(request.method, "GET" | "HEAD");
        match path {
            "/v1/messages" | "/v1/messages/count_tokens" if request.method == "POST" => {
                let counting = path != "/v1/messages";
                let row = Row { path: path.to_owned(), ..row(now, wall, &reach.request_id) };
                let behaviour = Behaviour::default();
                self.generation(Case { request, reach, behaviour, row, counting, set: None, now })
            }
            "/api/hello" if get => plain(&reach, 200, b"{\"message\":\"hello\"}".to_vec()),
            _ if path.starts_with("/sim/") => self.control(&reach, request, path, query),
            "/v1/models" if get => match self.credential(request) {
                Some(_) => plain(&reach, 200, models::list(&self.options.models, query).to_string().into()),
                None => error(&reach, 401, "x-api-key or authorization: Bearer is needed, with an accepted key"),
            },
            _ if get && path.starts_with("/v1/models/") => {
                self.model(&reach, request, path.trim_start_matches("/v1/models/"))
            }
            "/v1/messages" | "/v1/messages/count_tokens" | "/v1/models" | "/api/hello" => {
                error(&reach, 405, &format!("{} is not for {path}", request.method))
            }
            _ => error(&reach, 404, &format!("{} {path}: the simulated provider has no such path", request.method)),
        }
    }

    /// The next step of an answer; the bytes of a `Send` are in `out`. Books what it produced, and how it ended.
    pub fn step(&mut self, script: &mut Script, now: Mono, out: &mut Vec<u8>) -> Step {
        let step = script.next(now, out);
        let Some(ticket) = script.ticket.filter(|ticket| ticket.epoch == self.epoch) else { return step };
        let output = script.produced.saturating_sub(script.booked);
        if output > 0 && step == Step::Send {
            script.booked = script.produced;
            self.log.produced(ticket.row, output);
            if let Some(set) = ticket.set {
                self.limits.produced(set, output, now);
            }
        }
        if script.ending != Ending::Open {
            script.ticket = None;
            self.log.close(ticket.row, script.ending, now);
        }
        step
    }

    /// Books that the client left before the answer's end. Nothing after the end.
    pub fn abort(&mut self, script: &mut Script, now: Mono) {
        if let Some(ticket) = script.ticket.take().filter(|ticket| ticket.epoch == self.epoch) {
            self.log.close(ticket.row, Ending::Aborted, now);
        }
    }

    /// Claims memory for a body; false when all bodies together would be over the bound.
    pub fn claim(&mut self, bytes: u64) -> bool {
        let fits = self.bodies_bytes.saturating_add(bytes) <= BODIES_BYTES_MAX;
        self.bodies_bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Gives claimed memory back.
    pub fn release(&mut self, bytes: u64) {
        self.bodies_bytes = self.bodies_bytes.saturating_sub(bytes);
    }

    /// The rows of the usage log that are kept.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.log.rows(0, usize::MAX)
    }

    fn model(&mut self, reach: &Reach, request: &Request<'_>, id: &str) -> Script {
        if self.credential(request).is_none() {
            return error(reach, 401, "invalid x-api-key");
        }
        match self.options.models.iter().find(|model| *model == id) {
            Some(id) => plain(reach, 200, models::one(id).to_string().into()),
            None => error(reach, 404, &format!("model: {id}")),
        }
    }

    /// The caller: any credential that is not empty, or one of the configured ones.
    pub(super) fn credential(&self, request: &Request<'_>) -> Option<Credential> {
        let bearer = request.field("authorization").and_then(|value| value.split_once(' '));
        let bearer =
            bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, secret)| secret.trim());
        let offered = [request.field("x-api-key"), bearer].into_iter().flatten().filter(|secret| !secret.is_empty());
        for digest in offered.map(|secret| sha256(secret.as_bytes())) {
            let named = self.options.keys.iter().find(|key| key.digest == digest).map(|key| key.name.clone());
            if named.is_none() && !self.options.keys.is_empty() {
                continue;
            }
            let digest_hex = hex(&digest);
            let name = named.unwrap_or_else(|| content::quote(&digest_hex, 8).to_owned());
            let hash = digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte));
            return Some(Credential { name, digest_hex, hash });
        }
        None
    }
}

/// An answer without behaviours.
pub(super) fn plain(reach: &Reach, status: u16, body: Vec<u8>) -> Script {
    Script::whole(reach, &Behaviour::default(), &Head::json(status), body.into(), 0)
}

/// An error answer without behaviours.
pub(super) fn error(reach: &Reach, status: u16, message: &str) -> Script {
    plain(reach, status, envelope(error_type(status), message, None, &reach.request_id))
}
