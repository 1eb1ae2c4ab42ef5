//! The simulated provider without a socket: a request in, a script out. Deterministic: the same seed, requests and
//! times give the same bytes.

use super::{
    behave::{Behaviour, Fault},
    compose::{self, Ask},
    content::{self, Turn},
    directive::Directive,
    estimate::{Input, PromptCache, boundaries, tokens_of_bytes, total},
    events::{Events, message},
    head::{Head, Reach, envelope, error_type},
    limits::{Class, Limit, Limits, Refused, SetId},
    log::{Ending, Row, UsageLog, row},
    models,
    options::{Options, hex, sha256},
    rules::{Rules, Seen},
    script::{Script, Step, Ticket, Whole},
};
use crate::base::{Mono, Rng, Span, Wall, bounds::BODIES_BYTES_MAX};
use serde_json::Value;
use std::rc::Rc;

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
    fn field(&self, name: &str) -> Option<&'a str> {
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
struct Credential {
    name: String,
    digest_hex: String,
    hash: u64,
}

/// One generation or count on its way through the engine.
struct Case<'a> {
    request: &'a Request<'a>,
    reach: Reach,
    behaviour: Behaviour,
    row: Row,
    counting: bool,
    set: Option<SetId>,
    now: Mono,
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
    pub fn abort(&mut self, script: Script, now: Mono) {
        if let Some(ticket) = script.ticket.filter(|ticket| ticket.epoch == self.epoch) {
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
    fn credential(&self, request: &Request<'_>) -> Option<Credential> {
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

    fn generation(&mut self, mut case: Case<'_>) -> Script {
        case.row.body_bytes = case.request.body.len() as u64;
        case.row.session = case.request.field("x-claude-code-session-id").map(|id| content::quote(id, 64).to_owned());
        if self.options.hash_bodies {
            case.row.body_sha256 = Some(hex(&sha256(case.request.body)));
        }
        let Some(credential) = self.credential(case.request) else {
            return self.refuse(case, 401, None, "invalid x-api-key");
        };
        case.row.credential.clone_from(&credential.name);
        let asked = case.request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-sim"));
        let asked: Vec<_> = asked.filter_map(|(_, value)| std::str::from_utf8(value).ok()).collect();
        let asked = asked.join(",");
        let mut header = Behaviour::default();
        if let Err(error) = header.apply(&asked) {
            return self.refuse(case, 400, None, &format!("x-sim: {error}"));
        }
        let body = match header.blind {
            true => Ok(blind_body(case.request.body, header.blind_stream)),
            false => serde_json::from_slice(case.request.body),
        };
        let body: Value = match body {
            Ok(body) => body,
            Err(error) => return self.refuse(case, 400, None, &format!("the body is not JSON: {error}")),
        };
        let mut turn = if header.blind { Turn::default() } else { content::read(&body) };
        turn.compaction |= case.request.field("x-claude-code-request-class") == Some("compaction");
        self.classify(&mut case, &credential, &body, header.blind);
        self.layer(&mut case, &credential, &turn, &asked);
        case.reach.told = case.set.map_or([None; 3], |set| self.limits.tell(set, case.now));
        if let Some(script) = self.fail_early(&mut case) {
            return script;
        }
        if let Some(wrong) = invalid(&case, &body, self.options.strict) {
            return self.refuse(case, 400, None, &wrong);
        }
        self.admit_and_say(case, &credential, &body, &turn)
    }

    fn classify(&mut self, case: &mut Case<'_>, credential: &Credential, body: &Value, blind: bool) {
        let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
        let class = Class::of(model);
        content::quote(model, 200).clone_into(&mut case.row.model);
        case.row.class = class.slug();
        case.row.stream = body.get("stream").and_then(Value::as_bool).unwrap_or(false) && !case.counting;
        case.set = Some(self.limits.id(credential.hash, class, case.now));
        case.behaviour.blind = blind;
    }

    /// Lays the behaviours over each other: model name, rule, directives, header. The later one wins.
    fn layer(&mut self, case: &mut Case<'_>, credential: &Credential, turn: &Turn, header: &str) {
        case.behaviour.apply_model(&case.row.model);
        let (path, _) = case.request.path_and_query();
        let seen = Seen {
            credential: &credential.name,
            digest_hex: &credential.digest_hex,
            model: &case.row.model,
            path,
            stream: case.row.stream,
        };
        // All three have been checked: a directive that is no behaviour is left out.
        if let Some(rule) = self.rules.pick(&seen) {
            let _ = case.behaviour.apply(rule);
        }
        for directive in &turn.directives {
            let mut tried = case.behaviour.clone();
            if let Directive::Behaviour(list) = directive
                && tried.apply(list).is_ok()
                && !case.counting
            {
                case.behaviour = tried;
            }
        }
        let _ = case.behaviour.apply(header);
    }

    /// Failures that come before any admission.
    fn fail_early(&mut self, case: &mut Case<'_>) -> Option<Script> {
        let fault = match case.behaviour.fault {
            // A request that is not streamed cannot fail inside the stream.
            Fault::ErrorFirst | Fault::ErrorAfter if !case.row.stream => {
                let kind = case.behaviour.error_type.as_deref();
                Fault::Status(if kind.is_none_or(|kind| kind == "overloaded_error") { 529 } else { 500 })
            }
            fault => fault,
        };
        let (status, kind, body) = match fault {
            Fault::Reset => return Some(self.break_early(case, Step::Reset)),
            Fault::Close => return Some(self.break_early(case, Step::Close)),
            Fault::Status(status) => (status, "application/json", self.refusal_body(case, status)),
            Fault::Redirect => (307, "text/html", Vec::new()),
            Fault::Html => (200, "text/html", b"<!doctype html><title>Sign in</title><p>Please sign in.</p>".to_vec()),
            _ => return None,
        };
        let mut head = Head::new(status, if case.behaviour.html { "text/html" } else { kind });
        let settings = &case.behaviour;
        let fields = [
            ("retry-after", settings.retry_after.clone()),
            ("retry-after-ms", settings.retry_after_ms.map(|ms| ms.to_string())),
            ("x-should-retry", settings.should_retry.map(|retry| retry.to_string())),
            ("location", (fault == Fault::Redirect).then(|| "/elsewhere".to_owned())),
        ];
        head.fields.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
        case.row.status = status;
        let script = Script::whole(&case.reach, &case.behaviour, &head, body.into(), 0);
        Some(self.book(case, script))
    }

    fn refusal_body(&self, case: &Case<'_>, status: u16) -> Vec<u8> {
        let settings = &case.behaviour;
        if settings.empty {
            return Vec::new();
        }
        if settings.html {
            return format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>").into();
        }
        let kind = settings.error_type.as_deref().unwrap_or(error_type(status));
        let message = settings.message.as_deref().unwrap_or("simulated failure");
        envelope(kind, message, None, &case.reach.request_id)
    }

    fn break_early(&mut self, case: &Case<'_>, step: Step) -> Script {
        let script = Script::nothing(&case.behaviour, step);
        self.book(case, script)
    }

    /// A refusal of our own, in the envelope.
    fn refuse(&mut self, mut case: Case<'_>, status: u16, code: Option<&str>, message: &str) -> Script {
        case.row.status = status;
        let head = Head::json(status);
        self.refuse_with(&case, &head, code, message)
    }

    fn refuse_with(&mut self, case: &Case<'_>, head: &Head, code: Option<&str>, message: &str) -> Script {
        let body = envelope(error_type(head.status), message, code, &case.reach.request_id);
        let script = Script::whole(&case.reach, &Behaviour::default(), head, body.into(), 0);
        self.book(case, script)
    }

    fn book(&mut self, case: &Case<'_>, mut script: Script) -> Script {
        let row = self.log.open(case.row.clone());
        script.ticket = Some(Ticket { epoch: self.epoch, row, set: case.set.filter(|_| case.row.admitted) });
        script
    }

    fn admit_and_say(&mut self, mut case: Case<'_>, credential: &Credential, body: &Value, turn: &Turn) -> Script {
        let prompt = if case.behaviour.blind { Vec::new() } else { boundaries(body) };
        let whole = if case.behaviour.blind { tokens_of_bytes(case.row.body_bytes) } else { total(&prompt) };
        let Some(set) = case.set else { return self.refuse(case, 500, None, "no limits") };
        if case.counting {
            if let Err(refused) = self.limits.admit_count(set, case.now) {
                return self.throttle(case, refused);
            }
            (case.row.status, case.row.admitted) = (200, true);
            let answer = format!("{{\"input_tokens\":{whole}}}").into_bytes();
            let script = Script::whole(&case.reach, &case.behaviour, &Head::json(200), answer.into(), 0);
            return self.book(&case, script);
        }
        let owner = credential.hash ^ u64::from_be_bytes(first_eight(&sha256(case.row.model.as_bytes())));
        let tokens_min = self.options.cache_tokens_min;
        // Looked up first, written only if admitted: a refused request warms no cache.
        let input = match case.behaviour.blind {
            true => Input { fresh: whole, ..Input::default() },
            false => self.cache.look(owner, &prompt, tokens_min, case.now),
        };
        if let Err(refused) = self.limits.admit(set, input.fresh + input.write, case.now) {
            return self.throttle(case, refused);
        }
        self.cache.keep(owner, &prompt, tokens_min, case.now);
        case.reach.told = self.limits.tell(set, case.now);
        (case.row.status, case.row.admitted) = (200, true);
        (case.row.input_tokens, case.row.cache_write_tokens, case.row.cache_read_tokens) =
            (input.fresh, input.write, input.read);
        let ask = Ask { body, turn, behaviour: &case.behaviour, model: &case.row.model, input };
        let reply = Rc::new(compose::reply(&ask, &mut self.rng));
        let script = match case.row.stream {
            true => {
                let mut head = Head::new(200, "text/event-stream; charset=utf-8");
                head.fields.push(("cache-control", "no-cache".to_owned()));
                Script::stream(&case.reach, &case.behaviour, &head, Events::new(reply, &case.behaviour))
            }
            false => {
                let (before, filler, after) = message(&reply);
                let whole = Whole { before, filler, after };
                Script::whole(&case.reach, &case.behaviour, &Head::json(200), whole, reply.output)
            }
        };
        self.book(&case, script)
    }

    /// The 429 of the enforcing mode: what it ran into, and when it would fit.
    fn throttle(&mut self, mut case: Case<'_>, refused: Refused) -> Script {
        let what = match refused.limit {
            Limit::Requests => "requests",
            Limit::Input => "input tokens",
            Limit::Output => "output tokens",
            Limit::Ramp => "input tokens while traffic grows this fast",
        };
        let seconds = refused.wait.0.div_ceil(Span::from_secs(1).0).max(1);
        let message = format!(
            "This request would exceed the simulated rate limit of {} {what} per minute (model class {}). Try again in {seconds} s.",
            refused.per_minute, case.row.class
        );
        case.row.status = 429;
        case.reach.told = case.set.map_or([None; 3], |set| self.limits.tell(set, case.now));
        let mut head = Head::json(429);
        head.fields.push(("retry-after", seconds.to_string()));
        let code = (refused.limit == Limit::Ramp).then_some("ramp_limit_exceeded");
        self.refuse_with(&case, &head, code, &message)
    }
}

/// What the API would refuse; only what clients get wrong.
fn invalid(case: &Case<'_>, body: &Value, strict: bool) -> Option<String> {
    if !body.is_object() {
        return Some("the body is not a JSON object".to_owned());
    }
    if case.row.model.is_empty() {
        return Some("model: Field required".to_owned());
    }
    if !case.behaviour.blind {
        if body.get("messages").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Some("messages: at least one message is required".to_owned());
        }
        if !case.counting && body.get("max_tokens").and_then(Value::as_u64).is_none() {
            return Some("max_tokens: Field required".to_owned());
        }
    }
    let version = case.request.field("anthropic-version");
    if strict && version.is_none() {
        return Some("anthropic-version: header is required".to_owned());
    }
    let sampling = ["temperature", "top_p", "top_k"].into_iter().find(|name| body.get(name).is_some());
    if let (true, Some("2026-10-21"), Some(name)) = (strict, version, sampling) {
        return Some(format!("{name}: not accepted by this version"));
    }
    None
}

/// What is known about a body that is not read: the model's name, if it stands where clients put it.
fn blind_body(body: &[u8], stream: bool) -> Value {
    let start = body.get(..body.len().min(256)).unwrap_or_default();
    let start = String::from_utf8_lossy(start);
    let model = start.split_once("\"model\":").and_then(|(_, rest)| rest.split('"').nth(1)).unwrap_or("claude-sim");
    serde_json::json!({"model": model, "stream": stream})
}

fn first_eight(digest: &[u8; 32]) -> [u8; 8] {
    let mut out = [0; 8];
    out.iter_mut().zip(digest).for_each(|(out, byte)| *out = *byte);
    out
}

/// An answer without behaviours.
pub(super) fn plain(reach: &Reach, status: u16, body: Vec<u8>) -> Script {
    Script::whole(reach, &Behaviour::default(), &Head::json(status), body.into(), 0)
}

/// An error answer without behaviours.
pub(super) fn error(reach: &Reach, status: u16, message: &str) -> Script {
    plain(reach, status, envelope(error_type(status), message, None, &reach.request_id))
}
