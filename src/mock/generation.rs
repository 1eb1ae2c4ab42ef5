//! `POST /v1/messages` and `/v1/messages/count_tokens`: who asks, how the answer is to be, whether the limits let it in,
//! and then the answer. The steps of `Engine::generation`, in order.

use super::{
    behave::{Behaviour, Fault},
    compose::{self, Ask},
    content::{self, Turn},
    directive::Directive,
    engine::{Credential, Engine, Request},
    estimate::{Input, boundaries, tokens_of_bytes, total},
    events::{Events, message},
    head::{Head, Reach, envelope, error_type},
    limits::{Class, Limit, Refused, SetId},
    log::Row,
    options::{hex, sha256},
    rules::Seen,
    script::{Script, Step, Ticket, Whole},
};
use crate::base::{Mono, Span};
use serde_json::Value;
use std::rc::Rc;

/// One generation or count on its way through the engine.
pub(super) struct Case<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) reach: Reach,
    pub(super) behaviour: Behaviour,
    pub(super) row: Row,
    pub(super) counting: bool,
    pub(super) set: Option<SetId>,
    pub(super) now: Mono,
}

impl Case<'_> {
    /// The body of a simulated error answer.
    fn refusal_body(&self, status: u16) -> Vec<u8> {
        let settings = &self.behaviour;
        if settings.empty {
            return Vec::new();
        }
        if settings.html {
            return format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>").into();
        }
        let kind = settings.error_type.as_deref().unwrap_or(error_type(status));
        let message = settings.message.as_deref().unwrap_or("simulated failure");
        envelope(kind, message, None, &self.reach.request_id)
    }
}

impl Engine {
    pub(super) fn generation(&mut self, mut case: Case<'_>) -> Script {
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
        let bytes = case.request.body;
        let body =
            if header.blind { Ok(blind_body(bytes, header.blind_stream)) } else { serde_json::from_slice(bytes) };
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
            Fault::Status(status) => (status, "application/json", case.refusal_body(status)),
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
        let mut input = Input { fresh: whole, ..Input::default() };
        if !case.behaviour.blind {
            input = self.cache.look(owner, &prompt, tokens_min, case.now);
        }
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
        let script = if case.row.stream {
            let mut head = Head::new(200, "text/event-stream; charset=utf-8");
            head.fields.push(("cache-control", "no-cache".to_owned()));
            Script::stream(&case.reach, &case.behaviour, &head, Events::new(reply, &case.behaviour))
        } else {
            let (before, filler, after) = message(&reply);
            let whole = Whole { before, filler, after };
            Script::whole(&case.reach, &case.behaviour, &Head::json(200), whole, reply.output)
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
