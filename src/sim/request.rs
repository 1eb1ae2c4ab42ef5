//! What a simulated client asks, byte by byte, and what that should lead to.

use super::{
    dice::Dice,
    message::Fields,
    plan::{Aim, Person, Plan, Times},
    script::{Script, chunked},
};
use flate2::{Compression, write::GzEncoder};
use std::{fmt::Write as _, io::Write, ops::Range, rc::Rc};

/// How often upstreams can be asked the same: on a warm and on a new connection of each of three candidates.
pub const ASKED_MAX: usize = 6;

/// What a request should lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The answer of one of these targets.
    Aims(Vec<Aim>),
    /// The answer of this site, asked once with its first credential.
    Fixed(usize),
    /// An answer of forebay's own with one of these reasons; the empty one is a success.
    Own(&'static [&'static str]),
}

impl Expect {
    /// The targets that may be asked.
    pub fn aims(&self) -> &[Aim] {
        if let Expect::Aims(aims) = self { aims } else { &[] }
    }

    /// Whether a site may be asked.
    pub fn allows(&self, site: usize) -> bool {
        *self == Expect::Fixed(site) || self.aims().iter().any(|aim| aim.site == site)
    }

    /// The sites that may be asked.
    pub fn sites(&self) -> Vec<usize> {
        match self {
            Expect::Fixed(site) => vec![*site],
            _ => self.aims().iter().map(|aim| aim.site).collect(),
        }
    }
}

/// A request as made up.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
#[derive(Clone, Debug)]
pub struct Asked {
    /// Unique in the world; stands in `x-sim-id`.
    pub id: u32,
    /// All of it, as the client sends it.
    pub wire: Vec<u8>,
    /// Its method.
    pub method: &'static str,
    /// Its target.
    pub target: String,
    /// Its fields.
    pub fields: Fields,
    /// The body as the client means it, without a coding.
    pub body: Vec<u8>,
    /// Where in `body` the model's name is, without its quotation marks.
    pub name_at: Range<usize>,
    /// Bytes of the body as they are sent, without a coding.
    pub body_bytes: usize,
    /// The body is read for its model.
    pub peeks: bool,
    /// The body is sent compressed.
    pub gzip: bool,
    /// Who asks, if that is anybody.
    pub person: Option<usize>,
    /// What should come of it.
    pub expect: Expect,
    /// The same once the reloaded configuration is in force.
    pub later: Expect,
    /// It forbids that a failure of one upstream leads to the next.
    pub is_off: bool,
    /// What upstreams answer, by how often they have seen this request.
    pub scripts: Vec<Rc<Script>>,
    /// It speaks HTTP/1.0, so that an answer may have no framing but the connection's end.
    pub is_old: bool,
}

impl Asked {
    /// Whether the answer has no body whatever its head says.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The body that an upstream must get, under the name that the model has there.
    pub fn body_for(&self, model: Option<&str>) -> Vec<u8> {
        let mut body = self.body.clone();
        if let Some(model) = model {
            body.splice(self.name_at.clone(), model.bytes());
        }
        body
    }
}

/// What goes wrong with a request, on the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    NoKey,
    StrangeKey,
    TypedKey,
    TwoKeys,
    NoModel,
    BadJson,
    BadGzip,
    BadChunks,
    Coding,
}

const FAULTS: [Fault; 9] = [
    Fault::NoKey,
    Fault::StrangeKey,
    Fault::TypedKey,
    Fault::TwoKeys,
    Fault::NoModel,
    Fault::BadJson,
    Fault::BadGzip,
    Fault::BadChunks,
    Fault::Coding,
];

/// Makes up request `id`.
pub fn make(dice: &mut Dice, plan: &Plan, id: u32) -> Asked {
    let patience_ms = plan.patience.first_byte.as_ms().min(plan.patience.idle.as_ms());
    let script = |at| match plan.times {
        Times::Calm => Rc::new(Script::calm(dice, id, at)),
        _ => Rc::new(Script::make(dice, id, at, patience_ms)),
    };
    let scripts = (0..ASKED_MAX).map(script).collect();
    let mut draft = Draft {
        person: dice.below(plan.people.len()),
        fault: if dice.chance(5) { *dice.pick(&FAULTS) } else { Fault::None },
        asked: Asked {
            id,
            wire: Vec::new(),
            method: "POST",
            target: "/v1/messages?beta=true".into(),
            fields: vec![("Host".into(), "localhost:8080".into()), ("X-Sim-Id".into(), id.to_string())],
            body: Vec::new(),
            name_at: 0..0,
            body_bytes: 0,
            peeks: true,
            gzip: false,
            person: None,
            expect: Expect::Own(&[]),
            later: Expect::Own(&[]),
            is_off: false,
            scripts,
            is_old: false,
        },
        model: "",
        version: "1.1",
    };
    match dice.below(24) {
        0 => draft.plain("HEAD", "/api/hello", &[""]),
        1 => {
            let target: &str = dice.pick::<&str>(&["/v1/models", "/v1/models?limit=2"]);
            draft.plain("GET", target, &[""]);
        }
        2 => draft.plain("GET", "/nowhere", &["no_such_path"]),
        3 => draft.plain("PUT", "/v1/messages", &["method_not_allowed"]),
        4 => return draft.junk(dice),
        5 => draft.files(dice, plan),
        6 => {
            draft.asked.target = "/v1/messages/count_tokens".into();
            draft.message(dice, plan);
        }
        _ => draft.message(dice, plan),
    }
    draft.finish(dice, plan)
}

struct Draft {
    person: usize,
    fault: Fault,
    asked: Asked,
    model: &'static str,
    version: &'static str,
}

impl Draft {
    fn plain(&mut self, method: &'static str, target: &str, reasons: &'static [&'static str]) {
        self.asked.method = method;
        target.clone_into(&mut self.asked.target);
        self.asked.expect = Expect::Own(reasons);
        self.asked.peeks = false;
        // What is decided before the key is looked at does not depend on it.
        if !matches!(self.fault, Fault::NoKey | Fault::StrangeKey | Fault::TypedKey | Fault::TwoKeys) {
            self.fault = Fault::None;
        }
    }

    /// A path that only some may use, and whose body nobody reads.
    fn files(&mut self, dice: &mut Dice, plan: &Plan) {
        let person = &plan.people[self.person];
        let method = dice.pick::<&str>(&["GET", "POST", "DELETE", "HEAD"]);
        self.plain(method, "/v1/files/file_1?limit=2", &[]);
        self.asked.expect =
            if person.files { fixed(&plan.sites_of(self.person, false)) } else { Expect::Own(&["path_closed"]) };
        if self.asked.is_head() {
            self.asked.scripts.iter_mut().for_each(|script| Rc::make_mut(script).for_head());
        }
        if self.asked.method == "POST" {
            let bytes = dice.size(50_000);
            self.asked.body = dice.text(bytes).into_bytes();
        }
    }

    /// A message as an agent sends it.
    fn message(&mut self, dice: &mut Dice, plan: &Plan) {
        let names = ["claude-sonnet-5", "claude-opus-4-8", "fast", "claude-haiku-4-5", "gpt-5"];
        let model = *dice.pick(&names);
        self.model = model;
        self.asked.expect = aims(plan, self.person, model, false);
        let space = if dice.chance(3) { " " } else { "" };
        let bytes = dice.size(150_000);
        let text = dice.text(bytes);
        let said = format!("\"messages\":{space}[{{\"role\":\"user\",\"content\":\"\\u00e9 \\\"{text}\\\"\"}}]");
        let rest = format!(
            "\"max_tokens\":{space}1024,\"id\":{},\"metadata\":{{\"model\":\"x\"}},\"stream\":true",
            self.asked.id
        );
        let named = match self.fault {
            Fault::NoModel => "\"mode\":1".to_owned(),
            _ => format!("\"model\":{space}\"{model}\""),
        };
        let (body, before) = match dice.below(2) {
            0 => (format!("{{{named},{said},{rest}}}"), 1),
            _ => (format!("{{{said},{rest},{named}{space}}}"), said.len() + rest.len() + 3),
        };
        let start = before + named.len() - model.len().min(named.len()) - 1;
        self.asked.name_at = start..start + model.len();
        self.asked.wire.clone_from(&body.clone().into_bytes());
        self.asked.body = body.into_bytes();
        match self.fault {
            Fault::NoModel => self.asked.expect = Expect::Own(&["body_unreadable"]),
            Fault::BadJson => {
                self.asked.wire.truncate(self.asked.wire.len() - 1);
                self.asked.expect = Expect::Own(&["body_unreadable"]);
            }
            _ => {}
        }
        let max = plan.bounds.body_bytes_max;
        if self.asked.wire.len() as u64 > max {
            self.asked.expect = Expect::Own(&["body_too_large", "body_unreadable"]);
        }
    }

    /// Bytes that are no request, or one that cannot be read in one way only.
    fn junk(mut self, dice: &mut Dice) -> Asked {
        let id = self.asked.id;
        let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "y".repeat(70_000));
        let rows: [(&str, &'static [&'static str]); 9] = [
            ("POST /v1/messages HTTP/1.1\r\nhost: a\r\nno field\r\n\r\n", &["malformed_http"]),
            ("HEAD /api/hello HTTP/1.1\r\nhost: a\r\nno field\r\n\r\n", &["malformed_http"]),
            (
                "POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
                &["malformed_http"],
            ),
            (
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                &["malformed_http"],
            ),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["http_version"]),
            ("\x16\x03\x01\x02\x00\x01\x00\x01", &["malformed_http"]),
            ("GET / HTTP/1.1\r\n\r\n", &["malformed_http"]),
            ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", &["method_not_allowed"]),
            (&long, &["head_too_large"]),
        ];
        let (text, reasons) = *dice.pick(&rows);
        self.asked.method = if text.starts_with("HEAD") { "HEAD" } else { "POST" };
        self.asked = Asked { id, wire: text.into(), expect: Expect::Own(reasons), peeks: false, ..self.asked };
        self.asked.later = self.asked.expect.clone();
        self.asked.fields.clear();
        self.asked
    }

    fn finish(mut self, dice: &mut Dice, plan: &Plan) -> Asked {
        self.keys(dice, plan);
        let extra: [(&str, &str); 8] = [
            ("anthropic-version", "2023-06-01"),
            ("Anthropic-Beta", "a,b"),
            ("anthropic-beta", "c"),
            ("User-Agent", "claude-cli/2.1.0"),
            ("cookie", "mine=1"),
            ("x-forebay-odd", "1"),
            ("accept-encoding", "gzip, br"),
            ("TE", "trailers"),
        ];
        let fields = extra.iter().filter(|_| dice.chance(2)).map(|(name, value)| ((*name).into(), (*value).into()));
        self.asked.fields.extend(fields);
        match dice.below(10) {
            0 => {
                self.asked.fields.push(("Connection".into(), "close".into()));
            }
            1 => {
                self.version = "1.0";
            }
            2 => {
                self.version = "1.0";
                self.asked.fields.push(("connection".into(), "keep-alive".into()));
            }
            3 => self
                .asked
                .fields
                .extend([("Connection".into(), "x-mine, keep-alive".into()), ("x-mine".into(), "1".into())]),
            _ => {}
        }
        if self.asked.peeks && dice.chance(8) {
            self.asked.fields.push(("X-Forebay-Fallback".into(), "off".into()));
            self.asked.is_off = true;
        }
        if dice.chance(2) {
            let session = format!("session-{}-{}", self.person, dice.below(2));
            self.asked.fields.push(("x-claude-code-session-id".into(), session));
        }
        self.asked.is_old = self.version == "1.0";
        let body = self.framed(dice, plan);
        self.reloaded(plan);
        let mut wire = format!("{} {} HTTP/{}\r\n", self.asked.method, self.asked.target, self.version);
        for (name, value) in &self.asked.fields {
            let _ = write!(wire, "{name}: {value}\r\n");
        }
        wire.push_str("\r\n");
        self.asked.wire = wire.into_bytes();
        self.asked.wire.extend_from_slice(&body);
        self.asked
    }

    /// The body as it is sent; its framing goes into the fields.
    fn framed(&mut self, dice: &mut Dice, plan: &Plan) -> Vec<u8> {
        let asked = &mut self.asked;
        if asked.method != "POST" {
            return Vec::new();
        }
        let mut sent = std::mem::take(&mut asked.wire);
        if !asked.peeks {
            sent.clone_from(&asked.body);
            if sent.len() as u64 > plan.bounds.body_bytes_max
                && (!matches!(asked.expect, Expect::Own(_)) || asked.expect == Expect::Own(&["upstreams_denied"]))
            {
                asked.expect = Expect::Own(&["body_too_large"]);
            }
        }
        asked.body_bytes = sent.len();
        let known = asked.person.is_some_and(|person| plan.people[person].refused.is_none());
        let wrong = |expect: &mut Expect, reasons| {
            if known && *expect != Expect::Own(&["path_closed"]) {
                *expect = Expect::Own(reasons);
            }
        };
        if asked.peeks && (self.fault == Fault::BadGzip || dice.chance(6)) {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            let _ = gzip.write_all(&sent);
            sent = gzip.finish().unwrap_or_default();
            asked.gzip = true;
            asked.fields.push(("content-encoding".into(), "gzip".into()));
            if self.fault == Fault::BadGzip {
                sent.truncate(dice.below(sent.len()));
                wrong(&mut asked.expect, &["body_broken", "body_too_large", "body_unreadable"]);
            }
        } else if self.fault == Fault::Coding && asked.peeks {
            asked.fields.push(("content-encoding".into(), "br".into()));
            wrong(&mut asked.expect, &["content_encoding", "body_too_large"]);
        }
        if self.version == "1.1" && (self.fault == Fault::BadChunks || dice.chance(4)) {
            asked.fields.push(("transfer-encoding".into(), "chunked".into()));
            let mut framed = Vec::new();
            chunked(dice, &sent, &mut framed);
            if self.fault == Fault::BadChunks {
                framed.splice(0..1, *b"X");
                wrong(&mut asked.expect, &["body_broken"]);
            }
            sent = framed;
        } else {
            asked.fields.push(("Content-Length".into(), sent.len().to_string()));
            if sent.len() as u64 > plan.bounds.body_bytes_max {
                wrong(&mut asked.expect, &["body_too_large"]);
            }
        }
        if self.version == "1.1" && !sent.is_empty() && dice.chance(8) {
            asked.fields.push(("Expect".into(), "100-continue".into()));
        }
        sent
    }

    /// What comes of it under the reloaded configuration.
    fn reloaded(&mut self, plan: &Plan) {
        let asked = &mut self.asked;
        asked.later = match &asked.expect {
            Expect::Aims(_) => aims(plan, self.person, self.model, true),
            Expect::Fixed(_) => fixed(&plan.sites_of(self.person, true)),
            own @ Expect::Own(_) => own.clone(),
        };
        let is_open = asked.person.is_none()
            || asked.target == "/api/hello"
            || matches!(asked.expect, Expect::Own(&["no_such_path" | "method_not_allowed"]));
        if plan.reload.is_some_and(|reload| asked.person == Some(reload.switched_off)) && !is_open {
            asked.later = Expect::Own(&["key_disabled"]);
        }
    }

    /// Puts the credentials in, and says what comes of wrong ones.
    fn keys(&mut self, dice: &mut Dice, plan: &Plan) {
        let person: &Person = &plan.people[self.person];
        let open = matches!(self.asked.expect, Expect::Own(&["no_such_path" | "method_not_allowed"]))
            || self.asked.target == "/api/hello";
        let bearer = |key: &str| ("Authorization".to_owned(), format!("Bearer {key}"));
        let mut refused = person.refused.map(one);
        match self.fault {
            Fault::NoKey => refused = Some(&["credential_missing"]),
            Fault::StrangeKey => {
                self.asked.fields.push(bearer("sk-ant-api03-somebody"));
                refused = Some(&["credential_unknown"]);
            }
            Fault::TypedKey => {
                self.asked.fields.push(("x-api-key".into(), person.key.replace("fby_", "fby_0")));
                refused = Some(&["credential_mistyped"]);
            }
            Fault::TwoKeys => {
                let other = plan.people.iter().find(|other| other.key != person.key && other.refused.is_none());
                self.asked.fields.push(bearer(&person.key));
                // With a key switched off, the other's owner asks: a story of its own, told in auth's tests.
                if let Some(other) = other.filter(|_| plan.reload.is_none()) {
                    self.asked.fields.push(("x-api-key".into(), other.key.clone()));
                    refused = Some(if person.refused.is_some() { &[] } else { &["credentials_conflict"] });
                }
            }
            _ => {
                let field = if dice.chance(3) { ("X-Api-Key".into(), person.key.clone()) } else { bearer(&person.key) };
                if dice.chance(6) && field.0 == "X-Api-Key" {
                    self.asked.fields.push(bearer("sk-ant-api03-left-over"));
                }
                self.asked.fields.push(field);
            }
        }
        match refused {
            None => self.asked.person = Some(self.person),
            Some([]) => {
                // A switched-off key beside a good one: the good one's owner asks, whoever that is.
                self.asked.fields.retain(|(name, _)| name != "x-api-key");
                if !open {
                    self.asked.expect = Expect::Own(&["key_disabled"]);
                }
            }
            Some(reasons) if !open => self.asked.expect = Expect::Own(reasons),
            Some(_) => {}
        }
    }
}

/// Where a message for `model` goes.
fn aims(plan: &Plan, person: usize, model: &str, is_reloaded: bool) -> Expect {
    plan.resolve(person, model, is_reloaded).map_or_else(|reason| Expect::Own(one(reason)), Expect::Aims)
}

/// Where a passed-through path goes.
fn fixed(sites: &[usize]) -> Expect {
    sites.first().map_or(Expect::Own(&["upstreams_denied"]), |site| Expect::Fixed(*site))
}

/// A reason as a list of one.
fn one(reason: &str) -> &'static [&'static str] {
    match reason {
        "model_unknown" => &["model_unknown"],
        "model_denied" => &["model_denied"],
        "upstreams_denied" => &["upstreams_denied"],
        _ => &["key_disabled"],
    }
}
