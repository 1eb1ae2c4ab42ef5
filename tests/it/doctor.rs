//! `forebay doctor` through the real binary, against an upstream that a test scripts: what it asks, what it finds, and
//! how it ends.

use crate::support::*;
use rustls::{ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::Value;
use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

const MODELS: &str = r#"{"data":[{"type":"model","id":"claude-opus-5-5"},{"type":"model","id":"claude-haiku-4-5-20251001"},{"type":"model","id":"claude-sonnet-5-5"}],"has_more":false}"#;
const MESSAGE: &str = r#"{"type":"message","role":"assistant","content":[{"type":"text","text":"H"}],"usage":{"input_tokens":8,"output_tokens":1}}"#;
const HIGH: &str = "anthropic-ratelimit-requests-limit: 4000\r\nanthropic-ratelimit-input-tokens-limit: 4000000\r\nanthropic-ratelimit-output-tokens-limit: 800000\r\n";
const LOW: &str = "anthropic-ratelimit-requests-limit: 50\r\nanthropic-ratelimit-input-tokens-limit: 30000\r\nanthropic-ratelimit-output-tokens-limit: 8000\r\n";
const ALIAS: &str = "[[model]]\nname = \"claude-haiku-4-5\"\ntargets = [{ upstream = \"main\" }]\n";

/// Like the Anthropic API: it knows one credential, three models and one alias, and grants `limits`.
fn play(got: &Got, limits: &str) -> String {
    let target = got.head.split(' ').nth(1).unwrap_or_default();
    let json = "content-type: application/json\r\n";
    let error =
        |kind: &str, text: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{text}"}}}}"#);
    match target {
        _ if got.header("x-api-key") != Some(PROVIDER_KEY) => {
            let sent = got.header("x-api-key").unwrap_or_default();
            answer("401 Unauthorized", json, &error("authentication_error", &format!("invalid x-api-key {sent}")))
        }
        "/v1/models?limit=1000" => answer("200 OK", json, MODELS),
        "/v1/models/claude-haiku-4-5" => answer("200 OK", json, r#"{"id":"claude-haiku-4-5-20251001"}"#),
        "/v1/messages" => answer("200 OK", &format!("{json}{limits}"), MESSAGE),
        _ => answer("404 Not Found", json, &error("not_found_error", target)),
    }
}

fn provider(limits: &'static str) -> Upstream {
    let script = move |got: &Got, stream: &mut TcpStream| stream.write_all(play(got, limits).as_bytes()).is_ok();
    Upstream::scripted(|stream| stream, script, true)
}

struct Doctor {
    output: Output,
}

impl Doctor {
    /// Runs it on `config`, with what `arguments` adds, and `key` as the credential.
    fn run(config: &str, arguments: &[&str], key: &str) -> Doctor {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.toml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("doctor").arg("--config").arg(&path).args(arguments).env("PROVIDER_KEY", key);
        Doctor { output: command.output().unwrap() }
    }

    fn code(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    fn said(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    fn complained(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    /// The line of a check; there must be one that holds `words`.
    fn line(&self, level: &str, check: &str, words: &str) -> String {
        let said = self.said();
        let fits = |line: &&str| {
            let mut start = line.split_whitespace();
            start.next() == Some(level) && start.next() == Some(check) && line.contains(words)
        };
        said.lines().find(fits).unwrap_or_else(|| panic!("no {level} {check} `{words}` in:\n{said}")).to_owned()
    }
}

fn url(upstream: &Upstream) -> String {
    format!("http://{}", upstream.address)
}

#[test]
fn a_good_provider_is_proven_by_the_smallest_questions() {
    let upstream = provider(HIGH);
    let doctor = Doctor::run(&config(&url(&upstream), ALIAS), &["--team-size", "20"], PROVIDER_KEY);
    assert_eq!(doctor.code(), 0, "{}", doctor.said());
    doctor.line("OK", "upstream", "main: 127.0.0.1:");
    doctor.line("OK", "credential", "main/org: works: claude-haiku-4-5 answered (8 input, 1 output tokens)");
    doctor.line("OK", "models", "1 id and 0 globs are known");
    doctor.line("OK", "limits", "4000 RPM, 4M ITPM, 800k OTPM for claude-haiku-4-5");
    doctor.line("OK", "capacity", "a team of 20 with a normal workload wants about 60 RPM, 2.5M ITPM, 500k OTPM");
    doctor.line("OK", "cost", "20 developers");
    doctor.line("OK", "contact", "#ai-platform");
    doctor.line("OK", "timeouts", "");
    doctor.line("WARN", "fallback", "`claude-haiku-4-5` can be had in one way only");
    doctor.line("WARN", "keys", "1 key is without an owner: alice");
    assert!(!doctor.said().contains("FAIL  "));

    let asked: Vec<Got> = (0..3).map(|_| upstream.next()).collect();
    let lines: Vec<&str> = asked.iter().filter_map(|got| got.head.lines().next()).collect();
    let want = [
        "GET /v1/models?limit=1000 HTTP/1.1",
        "POST /v1/messages HTTP/1.1",
        "GET /v1/models/claude-haiku-4-5 HTTP/1.1",
    ];
    assert_eq!(lines, want);
    let body: Value = serde_json::from_slice(&asked[1].body).unwrap();
    assert_eq!((&body["model"], &body["max_tokens"]), (&"claude-haiku-4-5".into(), &1.into()));
    assert!(upstream.got.recv_timeout(Duration::from_millis(50)).is_err(), "nothing else was asked");
}

#[test]
fn a_refused_credential_fails_by_its_name_and_costs_nothing() {
    let upstream = provider(HIGH);
    let doctor = Doctor::run(&config(&url(&upstream), ""), &[], "sk-ant-api03-wrong-credential");
    assert_eq!(doctor.code(), 1);
    let line = doctor.line(
        "FAIL",
        "credential",
        "main/org: the provider refuses it: 401 (authentication_error: invalid x-api-key …)",
    );
    assert!(line.contains("-> put a valid key in its place"), "{line}");
    let all = doctor.said() + &doctor.complained();
    assert!(!all.contains("wrong-credential"), "{all}");
    assert!(upstream.next().head.starts_with("GET "));
    assert!(upstream.got.recv_timeout(Duration::from_millis(50)).is_err(), "no message after a refusal");
}

#[test]
fn a_wrong_model_id_fails_with_what_was_meant() {
    let upstream = provider(HIGH);
    let models = "[[model]]\nname = \"best\"\ntargets = [{ upstream = \"main\", model = \"claude-opus-55\" }]\n\
                  [[model]]\nname = \"claude-*\"\ntargets = [{ upstream = \"main\" }]\n\
                  [[model]]\nname = \"gpt-*\"\ntargets = [{ upstream = \"main\" }]\n";
    let doctor = Doctor::run(&config(&url(&upstream), models), &[], PROVIDER_KEY);
    assert_eq!(doctor.code(), 1);
    doctor.line(
        "FAIL",
        "models",
        "main: the upstream has no model `claude-opus-55`. -> did you mean `claude-opus-5-5`.",
    );
    doctor.line("WARN", "models", "main: no model of the upstream matches `gpt-*`");
    doctor.line("OK", "models", "0 ids and 1 glob is known");
    doctor.line("OK", "credential", "works: claude-haiku-4-5-20251001 answered");
}

#[test]
fn low_and_unknown_limits_are_told_in_numbers() {
    let doctor = Doctor::run(&config(&url(&provider(LOW)), ALIAS), &["--team-size", "20"], PROVIDER_KEY);
    assert_eq!(doctor.code(), 0);
    doctor.line("OK", "limits", "50 RPM, 30k ITPM, 8000 OTPM");
    doctor.line(
        "WARN",
        "capacity",
        "granted for claude-haiku-4-5 are only 50 of 60 RPM, 30k of 2.5M ITPM, 8000 of 500k OTPM",
    );
    let doctor = Doctor::run(&config(&url(&provider("")), ALIAS), &["--workload", "heavy"], PROVIDER_KEY);
    assert_eq!(doctor.code(), 0);
    doctor.line("WARN", "limits", "no anthropic-ratelimit-* fields");
    doctor.line("WARN", "capacity", "a team of 1 with a heavy workload wants about 7 RPM, 300k ITPM");
}

#[test]
fn json_has_the_same_findings() {
    let upstream = provider(LOW);
    let doctor = Doctor::run(&config(&url(&upstream), ALIAS), &["--json", "--team-size", "7"], PROVIDER_KEY);
    let all: Value = serde_json::from_str(&doctor.said()).unwrap();
    assert_eq!((&all["team_size"], &all["workload"], &all["offline"]), (&7.into(), &"normal".into(), &false.into()));
    assert_eq!(all["forebay"], env!("CARGO_PKG_VERSION"));
    assert!(all["config"].as_str().unwrap().ends_with("forebay.toml"));
    let findings = all["findings"].as_array().unwrap();
    for level in ["ok", "warn", "fail"] {
        assert_eq!(
            findings.iter().filter(|finding| finding["level"] == level).count() as u64,
            all[level].as_u64().unwrap()
        );
    }
    let credential = findings.iter().find(|finding| finding["check"] == "credential").unwrap();
    assert_eq!(
        (&credential["subject"], &credential["level"], &credential["advice"]),
        (&"main/org".into(), &"ok".into(), &Value::Null)
    );
    let capacity = findings.iter().find(|finding| finding["check"] == "capacity").unwrap();
    assert!(
        capacity["level"] == "warn" && capacity["advice"].is_string() && capacity["found"].is_string(),
        "{capacity}"
    );
    assert_eq!(doctor.complained(), "");
}

#[test]
fn offline_sends_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let doctor = Doctor::run(
        &config(&at, "[[model]]\nname = \"claude-*\"\ntargets = [{ upstream = \"main\" }]\n"),
        &["--offline"],
        "k",
    );
    assert_eq!(doctor.code(), 0, "{}", doctor.said());
    doctor.line("WARN", "network", "nothing was sent");
    doctor.line("OK", "cost", "claude-opus-5-5 $");
    assert!(listener.accept().is_err(), "no connection was made");
    for check in ["credential", "upstream", "limits", "clock"] {
        assert!(!doctor.said().lines().any(|line| line.split_whitespace().nth(1) == Some(check)), "{}", doctor.said());
    }
}

#[test]
fn a_wrong_configuration_is_told_as_check_tells_it_and_nothing_else_is_looked_at() {
    let wrong = "[listen]\naddress = \"127.0.0.1:0\"\nplain = true\n[[upstream]]\nname = \"a\"\n";
    let doctor = Doctor::run(wrong, &[], "k");
    assert_eq!(doctor.code(), 1);
    assert!(doctor.complained().contains("forebay.toml:3:1: error: "), "{}", doctor.complained());
    assert_eq!(doctor.said().lines().count(), 2, "{}", doctor.said());
    doctor.line("FAIL", "config", "errors, above");
    let all: Value = serde_json::from_str(&Doctor::run(wrong, &["--json"], "k").said()).unwrap();
    assert!(all["findings"][0]["subject"].as_str().unwrap().ends_with("forebay.toml:3"), "{all}");
}

#[test]
fn an_upstream_that_is_not_there_fails_at_its_barrier() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let doctor = Doctor::run(&config(&format!("http://{closed}"), ""), &[], "k");
    assert_eq!(doctor.code(), 1);
    doctor.line("FAIL", "upstream", &format!("{closed} takes no connection"));
    assert!(!doctor.said().contains("models  "), "nothing is said of what was not asked: {}", doctor.said());
}

#[test]
fn tls_is_proven_before_anything_is_asked() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = Arc::new(server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap());
    let upstream = Upstream::scripted(
        move |stream| StreamOwned::new(ServerConnection::new(Arc::clone(&server)).unwrap(), stream),
        |got, stream| stream.write_all(play(got, HIGH).as_bytes()).is_ok(),
        true,
    );
    let at = format!("https://localhost:{}", upstream.address.port());
    let stranger = Doctor::run(&config(&at, ALIAS), &[], PROVIDER_KEY);
    assert_eq!(stranger.code(), 1);
    stranger.line("FAIL", "upstream", "TLS fails: invalid peer certificate");
    assert!(upstream.got.recv_timeout(Duration::from_millis(50)).is_err(), "no credential went there");

    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let trusted = config(&at, ALIAS).replace("credentials =", &format!("ca_file = {ca:?}\ncredentials ="));
    let friend = Doctor::run(&trusted, &[], PROVIDER_KEY);
    assert_eq!(friend.code(), 0, "{}", friend.said());
    friend.line("OK", "upstream", "TLS 1.3 in ");
    friend.line("OK", "credential", "main/org: works");
}

#[test]
fn without_a_configuration_the_environment_is_examined() {
    let doctor = |key: Option<&str>, upstream: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["doctor", "--upstream", upstream]).env_remove("ANTHROPIC_API_KEY");
        if let Some(key) = key {
            command.env("ANTHROPIC_API_KEY", key);
        }
        Doctor { output: command.output().unwrap() }
    };
    let upstream = provider(HIGH);
    let good = doctor(Some(PROVIDER_KEY), &url(&upstream));
    assert_eq!(good.code(), 0, "{}", good.said());
    good.line("WARN", "config", "there is none");
    good.line("OK", "credential", "anthropic/environment: works: claude-haiku-4-5-20251001");
    let none = doctor(None, &url(&upstream));
    assert_eq!((none.code(), none.said().as_str()), (2, ""));
    assert!(none.complained().contains("ANTHROPIC_API_KEY"));
}
