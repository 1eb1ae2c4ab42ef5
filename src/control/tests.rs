//! The control thread as boot uses it: real listeners on loopback, real look-ups, an upstream that answers.

use super::sink::tests::Kept;
use super::*;
use crate::{
    base::{Span, UpstreamSlot, Wall},
    net::Guard,
    table::{
        Bounds, Credential, Digests, LogFormat, Org, Patience, Provider, RuntimeSettings, SecretLine, Slots, Upstream,
    },
    telemetry::{Record, RequestId},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// An upstream in plain HTTP.
pub fn upstream(name: &str, host: &str, port: u16) -> Upstream {
    Upstream {
        name: name.into(),
        provider: Provider::Anthropic,
        tls: false,
        host: host.into(),
        port,
        base_path: String::new(),
        host_header: format!("{host}:{port}"),
        credentials: Vec::new(),
        extra_ca: Vec::new(),
        via: None,
        guard: Guard::Inside,
        first_byte: None,
        charge: crate::table::prices::Charge::default(),
        verdicts: Vec::new(),
    }
}

/// A table with these upstreams and nothing else.
pub fn table(upstreams: Vec<Upstream>) -> Table {
    Table {
        generation: 1,
        org: Org { contact: None, timezone: "UTC".into() },
        listeners: Vec::new(),
        admin: None,
        health: None,
        upstreams,
        models: Vec::new(),
        teams: Vec::new(),
        callers: Vec::new(),
        digests: Digests::default(),
        bounds: Bounds::default(),
        patience: Patience::default(),
        runtime: RuntimeSettings::default(),
        log: LogFormat::Auto,
        prices: crate::table::prices::Prices::default(),
        slots: Slots::default(),
    }
}

struct Running {
    handle: ControlHandle,
    live: Arc<ArcSwap<Live>>,
    telemetry: Arc<Telemetry>,
    draining: Arc<AtomicBool>,
    log: Kept,
    notices: Kept,
    admin: SocketAddr,
    health: SocketAddr,
}

fn run(upstreams: Vec<Upstream>) -> Running {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (admin, health) = (bind(), bind());
    let addresses = (admin.local_addr().unwrap(), health.local_addr().unwrap());
    let live = Arc::new(ArcSwap::from_pointee(Live::default()));
    let telemetry = Arc::new(Telemetry::new(1, Wall(0), "test"));
    let draining = Arc::new(AtomicBool::new(false));
    let (log, notices) = (Kept::default(), Kept::default());
    let handle = start(Options {
        table: Arc::new(ArcSwap::from_pointee(table(upstreams))),
        configuration: None,
        tls: Arc::default(),
        upstreams: Arc::default(),
        live: Arc::clone(&live),
        telemetry: Arc::clone(&telemetry),
        draining: Arc::clone(&draining),
        format: Format::Json,
        outputs: Outputs { log: Box::new(log.clone()), notices: Box::new(notices.clone()) },
        admin: Some(admin),
        health: Some(health),
    })
    .unwrap();
    Running { handle, live, telemetry, draining, log, notices, admin: addresses.0, health: addresses.1 }
}

/// Asks with the `Host` given; the whole answer.
fn ask(at: SocketAddr, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(at: SocketAddr, path: &str) -> String {
    ask(at, path, &at.to_string())
}

/// Waits until the control thread has got there; a bound on the wait, not a delay.
#[allow(clippy::disallowed_methods)] // another thread's progress cannot be had by virtual time
fn until(what: &str, done: impl Fn() -> bool) {
    let last = mono().after(Span::from_secs(20));
    while !done() {
        assert!(mono() < last, "{what} did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An upstream that answers `requests` requests with `answer`; gives back what it was asked.
fn fake(requests: usize, answer: String) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        let serve_one = |_| {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut head, mut piece) = (Vec::new(), [0; 1024]);
            while !head.ends_with(b"\r\n\r\n") {
                let n = stream.read(&mut piece).unwrap();
                head.extend_from_slice(&piece[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        };
        (0..requests).map(serve_one).collect()
    };
    (port, thread::spawn(serve))
}

#[test]
fn ready_only_while_workers_listen_and_nothing_drains() {
    let running = run(vec![upstream("near", "127.0.0.1", 9)]);
    let Running { admin, health, .. } = running;
    let waiting = get(admin, "/readyz");
    assert!(waiting.starts_with("HTTP/1.1 503") && waiting.contains("worker 0 does not listen yet"), "{waiting}");
    running.telemetry.cores[0].set_listening(true);
    for listener in [admin, health] {
        assert!(get(listener, "/readyz").starts_with("HTTP/1.1 200"));
        assert!(get(listener, "/healthz").starts_with("HTTP/1.1 200"));
        assert!(get(listener, "/metrics").contains("forebay_ready 1\n"));
    }
    running.draining.store(true, Ordering::Release);
    let draining = get(admin, "/readyz");
    assert!(draining.starts_with("HTTP/1.1 503") && draining.contains("going down"), "{draining}");
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200"), "a process that drains is alive");
    running.handle.shutdown();
}

#[test]
fn the_table_is_the_admin_listeners_alone() {
    let mut with_secret = upstream("near", "127.0.0.1", 9);
    with_secret.credentials.push(Credential::new("org", SecretLine::bearer("canary")));
    let running = run(vec![with_secret]);
    let shown = get(running.admin, "/table");
    assert!(shown.contains(r#""name":"near""#) && shown.contains(r#""org""#), "{shown}");
    assert!(!shown.contains("canary"));
    let missing = get(running.health, "/table");
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("/healthz"), "{missing}");
    running.handle.shutdown();
}

#[test]
fn without_a_configuration_there_is_nothing_to_reload() {
    let running = run(vec![upstream("near", "127.0.0.1", 9)]);
    let history = get(running.admin, "/table/history");
    assert!(history.contains(r#""origin":"start""#) && history.contains(r#""generation":1"#), "{history}");
    let mut stream = TcpStream::connect(running.admin).unwrap();
    write!(stream, "POST /reload HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("without a configuration file"), "{answer}");
    running.handle.shutdown();
}

/// A POST of `body`; the status, and the rest of the answer.
fn tell(at: SocketAddr, path: &str, fields: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{fields}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[test]
fn an_upstream_is_drained_and_resumed_by_its_name() {
    let running = run(vec![upstream("near", "127.0.0.1", 9), upstream("far", "127.0.0.1", 9)]);
    let drain = |body: &str| tell(running.admin, "/upstreams/drain", "", body);
    let (status, answer) = drain(r#"{"name":"near","for":"2h","by":"olaf\n"}"#);
    assert_eq!(status, 200, "{answer}");
    let shown = get(running.admin, "/upstreams");
    assert!(shown.contains(r#""by":"olaf?""#) && shown.contains(r#""name":"near""#), "{shown}");
    assert!(get(running.admin, "/readyz").contains("upstream `near` is drained until"));
    for (body, wanted, part) in [
        ("", 400, "the body is not a wish such as"),
        (r#"{"name":"near","for":"2h","until":"x"}"#, 400, "unknown field"),
        (r#"{"name":"near"}"#, 400, "not a length of time"),
        (r#"{"name":"other","for":"2h"}"#, 404, "there is near, far"),
    ] {
        let (status, answer) = drain(body);
        assert!(status == wanted && answer.contains(part), "{body}: {answer}");
    }
    let resume = || tell(running.admin, "/upstreams/resume", "", r#"{"name":"near"}"#);
    assert_eq!(resume().0, 200);
    let (status, answer) = resume();
    assert!(status == 404 && answer.contains("`near` is not drained; nothing is."), "{answer}");
    running.handle.shutdown();
    let notices = running.notices.take();
    assert!(notices.contains("upstream `near` is drained until") && notices.contains(", by olaf?\n"), "{notices}");
    assert_eq!(notices.matches("upstream `near` is back").count(), 1, "{notices}");
}

#[test]
fn levers_are_for_the_operator_alone() {
    let running = run(vec![upstream("near", "127.0.0.1", 9)]);
    let wish = r#"{"name":"near","for":"2h"}"#;
    let page = tell(running.admin, "/upstreams/drain", "origin: http://localhost:1\r\n", wish);
    assert!(page.0 == 403 && page.1.contains("web pages may not do that"), "{}", page.1);
    assert_eq!(tell(running.health, "/upstreams/drain", "", wish).0, 404, "the health listener has no levers");
    assert!(get(running.health, "/upstreams").starts_with("HTTP/1.1 404"));
    let long = format!(r#"{{"name":"{}","for":"2h"}}"#, "x".repeat(70_000));
    assert_eq!(tell(running.admin, "/upstreams/drain", "", &long).0, 413);
    assert!(get(running.admin, "/upstreams").contains(r#""drained":null"#));
    running.handle.shutdown();
}

#[test]
fn a_request_is_remembered() {
    let running = run(vec![upstream("near", "127.0.0.1", 9)]);
    let id = RequestId::new(Wall(1), 7);
    let mut record = Record::new(Wall(1), id, 0);
    record.status = 200;
    running.telemetry.cores[0].finish(record);
    until("the line", || running.log.take().contains("\"status\":200"));
    let found = get(running.admin, &format!("/requests/{id}"));
    assert!(found.starts_with("HTTP/1.1 200") && found.contains(&format!("\"request_id\":\"{id}\"")), "{found}");
    let unknown = get(running.admin, "/requests/fb_0");
    assert!(unknown.starts_with("HTTP/1.1 404") && unknown.contains("since forebay began"), "{unknown}");
    running.handle.shutdown();
}

#[test]
fn other_hosts_and_other_sites_are_refused() {
    let running = run(vec![upstream("near", "127.0.0.1", 9)]);
    let rebound = ask(running.admin, "/table", "rebound.example");
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
    assert!(ask(running.admin, "/table", "x\r\nhost: localhost").starts_with("HTTP/1.1 421"), "two hosts");
    assert!(ask(running.admin, "http://rebound.example/table", "localhost").starts_with("HTTP/1.1 421"));
    let page = ask(running.admin, "/table", "localhost\r\nsec-fetch-site: cross-site");
    assert!(page.starts_with("HTTP/1.1 403"), "{page}");
    assert!(ask(running.admin, "/table", "localhost").starts_with("HTTP/1.1 200"));
    running.handle.shutdown();
}

#[test]
fn addresses_are_known_at_once_and_names_soon() {
    let running = run(vec![upstream("near", "127.0.0.1", 9), upstream("named", "localhost", 9)]);
    let addresses = |slot| running.live.load().addresses_of(UpstreamSlot(slot)).to_vec();
    assert_eq!(addresses(0), ["127.0.0.1:9".parse().unwrap()], "without waiting");
    until("the address of localhost", || !addresses(1).is_empty());
    running.handle.shutdown();
}

#[test]
fn a_name_without_address_is_told_and_kept_apart() {
    let running = run(vec![upstream("lost", "forebay-test.invalid", 9)]);
    until("the error", || running.live.load().address_error(UpstreamSlot(0)).is_some());
    let ready = get(running.admin, "/readyz");
    assert!(ready.contains("forebay-test.invalid") && ready.starts_with("HTTP/1.1 503"), "{ready}");
    running.handle.shutdown();
    assert!(running.notices.take().contains("upstream `lost`: the name `forebay-test.invalid` was not resolved"));
}

#[test]
fn model_lists_are_fetched_with_the_credential() {
    let list = r#"{"data":[{"id":"claude-a","max":1.50}],"x":1}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len());
    let (port, asked) = fake(1, answer);
    let mut source = upstream("near", "127.0.0.1", port);
    source.base_path = "/base".into();
    source.credentials.push(Credential::new("org", SecretLine::x_api_key("k-1")));
    let running = run(vec![source]);
    until("the list", || running.live.load().models_of(UpstreamSlot(0)).is_some());
    let list = running.live.load().models_of(UpstreamSlot(0)).cloned().unwrap();
    assert_eq!(&*list.models[0].json, r#"{"id":"claude-a","max":1.50}"#);
    let asked = asked.join().unwrap().remove(0);
    assert!(asked.starts_with("GET /base/v1/models?limit=1000 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-api-key: k-1\r\n") && asked.contains("anthropic-version: 2023-06-01\r\n"), "{asked}");
    assert_eq!(asked.to_lowercase().matches("\r\nhost:").count(), 1, "{asked}");
    running.handle.shutdown();
}

#[test]
fn a_redirect_is_not_followed() {
    let (elsewhere, never) = fake(0, String::new());
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/v1/models\r\ncontent-length: 0\r\n\r\n";
    let (port, asked) = fake(1, answer.to_owned());
    let running = run(vec![upstream("near", "127.0.0.1", port), upstream("other", "127.0.0.1", elsewhere)]);
    until("the error", || running.live.load().model_errors.first().is_some_and(Option::is_some));
    let error = running.live.load().model_errors[0].clone().unwrap();
    assert!(error.contains("302"), "{error}");
    assert_eq!(running.live.load().models_of(UpstreamSlot(0)), None);
    asked.join().unwrap();
    never.join().unwrap();
    running.handle.shutdown();
}

#[test]
fn records_become_lines_and_the_end_loses_none() {
    let running = run(vec![upstream("near", "127.0.0.1", 9)]);
    let core = &running.telemetry.cores[0];
    let record = |n: u64| {
        let mut record = Record::new(Wall(n), RequestId::new(Wall(n), n), 0);
        record.status = 200;
        record
    };
    core.finish(record(1));
    until("the first line", || running.log.take().contains(r#""status":200"#));
    for n in 0..1_000 {
        core.finish(record(n));
    }
    running.handle.shutdown();
    assert_eq!(running.log.take().lines().count(), 1_000);
    assert_eq!(core.counters.records_lost.get() + running.telemetry.lines_lost.get(), 0);
}

#[tokio::test]
async fn a_task_that_panics_begins_anew() {
    let (sink, _end) = Sink::open(Outputs { log: Box::new(io::sink()), notices: Box::new(io::sink()) }).unwrap();
    let control = Arc::new(Control {
        table: Arc::new(ArcSwap::from_pointee(table(Vec::new()))),
        live: Arc::default(),
        tls: Arc::default(),
        upstreams: Arc::default(),
        drains: Drains::default(),
        names: ArcSwap::default(),
        recent: Mutex::default(),
        reloads: Reloads::new(None, &table(Vec::new())),
        telemetry: Arc::new(Telemetry::new(0, Wall(0), "")),
        draining: Arc::default(),
        format: Format::Off,
        sink,
        pulses: Vec::new(),
    });
    keep("test", Span::ZERO, Arc::clone(&control), |control| async move {
        assert!(control.telemetry.panics.get() >= 2, "a panic that this test makes");
    })
    .await;
    assert_eq!(control.telemetry.panics.get(), 2);
}
