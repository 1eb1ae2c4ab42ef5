//! `forebay explain`: where a request would go and why, from a configuration or from a forebay that runs; and what became
//! of a request that a running one has had.

use super::{
    EXIT_CODES, USAGE, WRONG, complain, running, say,
    upstreams::{aligned, clock},
    variable,
};
use crate::{
    config,
    control::explain::{Question, explain},
    rt::ring::wall,
    upstream::fit::BYTES_USUAL,
};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::{fmt::Write, fs, net::SocketAddr, path::PathBuf};

/// A request's body is no larger than this, in bytes.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// `forebay explain`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Args {
    /// Tell what became of this request: `fb_` and 23 characters, as in `x-forebay-request-id` and at the end of a refusal.
    #[arg(value_name = "REQUEST_ID", conflicts_with_all = ["key", "model", "header", "body", "config"])]
    id: Option<String>,
    /// The name of the key that asks.
    #[arg(long, value_name = "NAME", required_unless_present = "id")]
    key: Option<String>,
    /// The model that it asks for; the one in --body, unless said.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// A header field of the request, `name: value`; some decide where it goes.
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// The request's body: what it demands of a model is read from it. It stays on this machine.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Explain from this configuration, without what is only known while forebay runs.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// The admin listener of the running forebay.
    #[arg(long, value_name = "ADDR", default_value_t = running::ADMIN)]
    admin: SocketAddr,
    /// Print the document instead of lines.
    #[arg(long)]
    json: bool,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let zone = TimeZone::system();
    if let Some(id) = &args.id {
        return match running::wish(args.admin, &format!("/requests/{}", id_of(id)), None) {
            Ok(document) => show(args, &document, &past(&document, &zone)),
            Err(denied) => wrong(&denied.message),
        };
    }
    let question = match question(args) {
        Ok(question) => question,
        Err(fault) => {
            complain(&format!("forebay explain: {fault}\n"));
            return USAGE;
        }
    };
    let explained = match &args.config {
        Some(path) => match config::load(path, &variable) {
            Ok(table) => explain(&table, None, &question, wall()),
            Err(report) => {
                complain(&report.to_string());
                return WRONG;
            }
        },
        None => running::wish(args.admin, "/explain", Some(&json!(question))).map_err(|denied| denied.message),
    };
    match explained {
        Ok(document) => show(args, &document, &plan(&document)),
        Err(fault) => wrong(&fault),
    }
}

fn show(args: &Args, document: &Value, text: &str) -> u8 {
    if args.json { say(&format!("{document:#}\n")) } else { say(text) }
}

fn wrong(message: &str) -> u8 {
    complain(&format!("forebay explain: {}\n", message.trim_end_matches('.')));
    WRONG
}

/// A request's id, fit for a path: what is no letter or digit is none of an id's.
fn id_of(text: &str) -> String {
    text.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect()
}

/// What is asked, from the command line and the body.
fn question(args: &Args) -> Result<Question, String> {
    let mut question = Question { key: args.key.clone().unwrap_or_default(), ..Question::default() };
    if let Some(path) = &args.body {
        let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
        if fs::metadata(path).map_err(failed)?.len() > BODY_BYTES_MAX {
            return Err(format!("{} is larger than {} MiB", path.display(), BODY_BYTES_MAX >> 20));
        }
        let body = fs::read(path).map_err(failed)?;
        let document: Value = serde_json::from_slice(&body).map_err(|error| format!("{}: {error}", path.display()))?;
        demands(&mut question, &document, body.len() as u64);
    }
    question.model = args.model.clone().unwrap_or(question.model);
    if question.model.is_empty() {
        return Err("say --model, or --body with a `model` in it".into());
    }
    for field in &args.header {
        let (name, value) = field.split_once(':').ok_or_else(|| format!("`{field}` is not `name: value`"))?;
        heed(&mut question, name.trim(), value.trim());
    }
    Ok(question)
}

/// Takes in what a body demands of the model.
fn demands(question: &mut Question, document: &Value, bytes: u64) {
    document["model"].as_str().unwrap_or_default().clone_into(&mut question.model);
    question.user_id = document["metadata"]["user_id"].as_str().map(str::to_owned);
    question.bytes = bytes;
    question.input = bytes / BYTES_USUAL;
    question.output_max = document["max_tokens"].as_u64().unwrap_or_default();
    question.tools = document["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    question.thinking = document["thinking"]["type"].as_str().is_some_and(|kind| kind != "disabled");
    question.images = has_image(document);
}

fn has_image(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.iter().any(has_image),
        Value::Object(fields) => {
            fields.get("type").is_some_and(|kind| kind == "image") || fields.values().any(has_image)
        }
        _ => false,
    }
}

/// Takes in what a header field decides.
fn heed(question: &mut Question, name: &str, value: &str) {
    if name.eq_ignore_ascii_case("x-forebay-fallback") {
        question.fallback_off = value.eq_ignore_ascii_case("off");
    } else if name.eq_ignore_ascii_case("x-claude-code-session-id") {
        question.session = Some(value.to_owned());
    }
}

/// A plan as lines for people.
fn plan(document: &Value) -> String {
    let mut out = String::new();
    let (key, asked) = (&document["key"], text(&document["asked"]["model"]));
    let team = key["team"].as_str().map_or_else(String::new, |team| format!(" of team {team}"));
    let _ = writeln!(out, "key      {}{team}", text(&key["name"]));
    if let Some(why) = key["refused"].as_str() {
        let _ = writeln!(out, "         REFUSED before anything else: {why}");
    }
    let (rule, id) = (text(&document["model"]["rule"]), text(&document["model"]["taken_for"]));
    let how = match document["model"]["how"].as_str() {
        Some("name") => "by its name".to_owned(),
        Some("glob") => "the first glob that fits".to_owned(),
        Some("alias") => "by one of its aliases".to_owned(),
        Some("spelling") => format!("by {id}, which is another spelling"),
        Some("successor") => format!("by {id}, which has come after it"),
        _ => "none has that name".to_owned(),
    };
    let _ = writeln!(out, "model    {asked}: [[model]] {rule}, {how}");
    let fallback = &document["fallback"];
    let _ = match fallback["why"].as_str() {
        None => writeln!(out, "failover on"),
        Some(why) => writeln!(out, "failover off: {why}; one candidate is asked, and its answer delivered"),
    };
    let targets: Vec<&Value> = document["targets"].as_array().into_iter().flatten().collect();
    if !targets.is_empty() {
        out.push_str("\ntargets, as configured\n");
        out.push_str(&indented(&aligned(&targets.iter().map(|target| configured(target)).collect::<Vec<_>>())));
    }
    if let Some(message) = document["refused"]["message"].as_str() {
        let _ = writeln!(out, "\nREFUSED: {message}");
    }
    let Some(candidates) = document["candidates"].as_array() else { return out };
    out.push_str("\ncandidates now, in the order in which they would be asked\n");
    out.push_str(&indented(&aligned(&candidates.iter().map(candidate).collect::<Vec<_>>())));
    if !candidates.iter().any(|candidate| candidate["asked_now"] == true) {
        out.push_str("\nNobody would be asked now.\n");
    }
    out
}

/// The line of a target.
fn configured(target: &Value) -> Vec<String> {
    let why = target["closed"].as_str().map(|why| format!("CLOSED: {why}"));
    let why = why.or_else(|| target["unfit"].as_str().map(|why| format!("passed over: {why}")));
    vec![
        text(&target["upstream"]).to_owned(),
        format!("tier {}", target["tier"]),
        format!("weight {}", target["weight"]),
        target["model"].as_str().map_or("the id as asked".into(), |id| format!("as {id}")),
        why.unwrap_or_else(|| "open".into()),
    ]
}

/// The line of a candidate.
fn candidate(candidate: &Value) -> Vec<String> {
    let name = match candidate["credential"].as_str().filter(|name| !name.is_empty()) {
        Some(credential) => format!("{}/{credential}", text(&candidate["upstream"])),
        None => text(&candidate["upstream"]).to_owned(),
    };
    let mark = if candidate["asked_now"] == true { "->" } else { "" };
    vec![mark.into(), name, text(&candidate["state"]).to_owned()]
}

/// A request as lines for people.
fn past(request: &Value, zone: &TimeZone) -> String {
    let mut out = String::new();
    let line = |out: &mut String, head: &str, text: &str| {
        let _ = writeln!(out, "{head:<9}{text}");
    };
    line(&mut out, "request", text(&request["request_id"]));
    let at = clock(text(&request["at"]), zone);
    line(&mut out, "at", &format!("{at}, on worker {}, generation {}", request["worker"], request["generation"]));
    let team = request["team"].as_str().map_or_else(String::new, |team| format!(" of team {team}"));
    line(&mut out, "by", &format!("{}{team}, {}", text(&request["caller"]), text(&request["client"])));
    let model = request["model"].as_str().map_or_else(String::new, |model| format!(", model {model}"));
    let what = format!("{} {}{model}, {} bytes", text(&request["method"]), text(&request["path"]), request["bytes_in"]);
    line(&mut out, "asked", &what);
    if let Some(conversation) = request["conversation"].as_str() {
        line(&mut out, "in", &format!("conversation {conversation}"));
    }
    line(&mut out, "read", &format!("its body was there after {}", ms(&request["body_us"])));
    let tried: Vec<&Value> = request["tried"].as_array().into_iter().flatten().collect();
    if tried.is_empty() {
        line(&mut out, "attempts", "none: forebay answered by itself");
    } else {
        out.push_str("\nattempts\n");
        out.push_str(&indented(&aligned(&tried.iter().map(|attempt| attempted(attempt)).collect::<Vec<_>>())));
    }
    out.push('\n');
    if let Some(count) = request["thinking_dropped"].as_u64() {
        line(&mut out, "without", &format!("{count} blocks of thinking that another family of providers had signed"));
    }
    if request["commit_us"].as_u64().is_some_and(|us| us > 0) {
        line(
            &mut out,
            "commit",
            &format!("after {}: from then on the answer was the client's", ms(&request["commit_us"])),
        );
    }
    let reason = request["reason"]
        .as_str()
        .map_or_else(String::new, |reason| format!(", because of the {}: {reason}", text(&request["origin"])));
    let ending = format!("{}, status {}{reason}", text(&request["ending"]), request["status"]);
    line(&mut out, "ended", &format!("{ending}, after {}", ms(&request["duration_us"])));
    let events = request["events"].as_u64().filter(|events| *events > 0);
    let events = events.map_or_else(String::new, |events| format!(" in {events} events"));
    line(
        &mut out,
        "answer",
        &format!("{} bytes{events}; forebay's own part {}", request["bytes_out"], ms(&request["overhead_us"])),
    );
    if let Some(used) = request["llm_tokens"].as_object() {
        let of = |kind: &str| used.get(kind).and_then(Value::as_u64).unwrap_or_default();
        let writes = of("cache_write_5m").saturating_add(of("cache_write_1h"));
        let doubts: Vec<&str> = request["llm_tokens_flags"].as_array().into_iter().flatten().map(text).collect();
        let doubts = if doubts.is_empty() { String::new() } else { format!(" ({})", doubts.join(", ")) };
        let [input, read, output] = ["input", "cache_read", "output"].map(of);
        let used = format!("{input} in, {read} from the cache, {writes} written to it, {output} out{doubts}");
        line(&mut out, "used", &format!("{used}, in tokens of the model's"));
    }
    if let Some(id) = request["upstream_request_id"].as_str() {
        line(&mut out, "there", &format!("the upstream calls it {id}"));
    }
    out
}

/// The line of an attempt.
fn attempted(attempt: &Value) -> Vec<String> {
    let name = match attempt["credential"].as_str() {
        Some(credential) => format!("{}/{credential}", text(&attempt["upstream"])),
        None => text(&attempt["upstream"]).to_owned(),
    };
    let status = attempt["status"].as_u64().map_or("no answer".to_owned(), |status| status.to_string());
    let (at, took) = (ms(&attempt["at_us"]), ms(&attempt["took_us"]));
    vec![name, status, text(&attempt["verdict"]).to_owned(), format!("began after {at}"), format!("took {took}")]
}

/// Microseconds in the unit that suits them.
fn ms(us: &Value) -> String {
    match us.as_u64().unwrap_or_default() {
        us @ 0..1_000 => format!("{us} us"),
        us @ 1_000..10_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        us => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "  {line}");
        out
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
