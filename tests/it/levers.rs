//! What an operator may do and ask while forebay runs: `forebay upstreams`, and `forebay explain`.

use crate::support::*;
use serde_json::Value;
use std::{
    io::Write,
    net::TcpStream,
    process::{Command, Output},
};

/// An upstream that answers everything, under a name of its own.
fn named(name: &'static str) -> Upstream {
    Upstream::plain(move |_, stream| {
        let body = format!("{{\"from\":\"{name}\"}}");
        stream.write_all(answer("200 OK", "content-type: application/json\r\n", &body).as_bytes()).is_ok()
    })
}

/// One that is always overloaded.
fn overloaded() -> Upstream {
    Upstream::plain(|_, stream| {
        let body = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        stream.write_all(answer("529 Overloaded", "content-type: application/json\r\n", body).as_bytes()).is_ok()
    })
}

/// `main` first, `spare` when that fails; `only` is one that `main` alone has, and `bob` may not use `spare`.
fn configured(main: &Upstream, spare: &Upstream) -> String {
    let more = format!(
        "[[upstream]]\nname = \"spare\"\nprovider = \"anthropic\"\nbase_url = \"http://{}\"\n\
         credentials = [{{ name = \"spare-key\", env = \"PROVIDER_KEY\" }}]\n\
         [[model]]\nname = \"claude-*\"\ntargets = [{{ upstream = \"main\" }}, {{ upstream = \"spare\", tier = 2 }}]\n\
         [[team]]\nname = \"narrow\"\nupstreams = [\"main\"]\n\
         [[key]]\nname = \"bob\"\nteam = \"narrow\"\nhash = \"sha256:{}\"\n",
        spare.address,
        "ab".repeat(32)
    );
    config(&format!("http://{}", main.address), &more)
}

fn run(forebay: &Forebay, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(line.split(' ')).args(["--admin", &forebay.admin.to_string()]).env("TZ", "UTC").env("USER", "olaf");
    command.env_remove("SUDO_USER").output().expect("the program runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Which upstream answers now.
fn who(forebay: &Forebay) -> String {
    let answer = forebay.ask(&post(BODY));
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice::<Value>(&answer.body).unwrap()["from"].as_str().unwrap().to_owned()
}

/// Waits for a notice that has `part` in it.
fn noticed(forebay: &Forebay, part: &str) {
    while !forebay.notices.recv_timeout(STUCK).expect("a notice").contains(part) {}
}

#[test]
fn a_drain_takes_effect_at_once_and_ends_by_word_or_by_time() {
    for (_, driver) in DRIVERS {
        let (main, spare) = (named("main"), named("spare"));
        let forebay = Forebay::start(&configured(&main, &spare), driver);
        assert_eq!(who(&forebay), "main");
        let refused = run(&forebay, "upstreams drain main --for 2h");
        assert_eq!(refused.status.code(), Some(1));
        let why = complained(&refused);
        assert!(why.contains("NOT drained") && why.contains("has no upstream left for team `narrow`"), "{why}");
        assert_eq!(who(&forebay), "main", "nothing has changed");
        let drained = run(&forebay, "upstreams drain main --for 2h --yes");
        assert_eq!(drained.status.code(), Some(0), "{drained:?}");
        assert!(complained(&drained).contains("WARNING: model `claude-*` has no upstream left for team `narrow`"));
        noticed(&forebay, "upstream `main` is drained until");
        assert_eq!(who(&forebay), "spare");
        let table = said(&run(&forebay, "upstreams"));
        assert!(table.contains("drained until") && table.contains("by olaf"), "{table}");
        assert!(forebay.admin("/readyz").text().contains("upstream `main` is drained until"));
        let metrics = forebay.admin("/metrics").text();
        assert!(metrics.contains("forebay_upstream_drained{upstream=\"main\"} 1\n"), "{metrics}");
        let resumed = run(&forebay, "upstreams resume main");
        assert_eq!((resumed.status.code(), said(&resumed).as_str()), (Some(0), "main is asked again\n"));
        noticed(&forebay, "its drain is ended, by olaf");
        assert_eq!(who(&forebay), "main");
        // By time, and one credential.
        assert_eq!(run(&forebay, "upstreams drain main/org --for 1s --yes").status.code(), Some(0));
        assert_eq!(who(&forebay), "spare");
        noticed(&forebay, "upstream `main/org` is back: the time of its drain is over");
        assert_eq!(who(&forebay), "main");
    }
}

#[test]
fn what_cannot_be_drained_is_told() {
    let (main, spare) = (named("main"), named("spare"));
    let forebay = Forebay::start(&configured(&main, &spare), "0");
    for (line, code, part) in [
        ("upstreams drain mian --for 2h", 1, "there is main, spare"),
        ("upstreams drain main/x --for 2h", 1, "it has org"),
        ("upstreams drain spare --for 2", 2, "not a length of time such as"),
        ("upstreams drain spare --for 8d", 2, "longer than 7d"),
        ("upstreams resume spare", 1, "`spare` is not drained; nothing is"),
    ] {
        let output = run(&forebay, line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(complained(&output).contains(part), "{line}: {}", complained(&output));
    }
    let page = post_to(&forebay, "/upstreams/drain", "origin: http://localhost:3000\r\n");
    assert_eq!(page.status(), 403, "a web page may not");
}

fn post_to(forebay: &Forebay, path: &str, fields: &str) -> Answer {
    let mut stream = TcpStream::connect(forebay.admin).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: localhost\r\n{fields}connection: close\r\n\r\n").unwrap();
    Client(stream).read().unwrap()
}

#[test]
fn a_drain_goes_with_its_name_to_another_place() {
    let (main, spare, elsewhere) = (named("main"), named("spare"), named("elsewhere"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.toml");
    std::fs::write(&path, configured(&main, &spare)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("serve").arg("--config").arg(&path);
    let forebay = Forebay::spawn(command, "0", tempfile::tempdir().unwrap());
    assert!(run(&forebay, "upstreams drain main --for 1h --yes").status.success());
    std::fs::write(&path, configured(&elsewhere, &spare)).unwrap();
    assert_eq!(post_to(&forebay, "/reload", "").status(), 200);
    let table: Value = serde_json::from_slice(&forebay.admin("/table").body).unwrap();
    assert_eq!(table["generation"], 2, "the upstream has moved");
    assert_eq!(who(&forebay), "spare");
    assert!(run(&forebay, "upstreams resume main").status.success());
    assert_eq!(who(&forebay), "elsewhere");
}

#[test]
fn a_request_is_explained_afterwards() {
    let (main, spare) = (overloaded(), named("spare"));
    let forebay = Forebay::start(&configured(&main, &spare), "0");
    let answer = forebay.ask(&post(BODY));
    let id = answer.header("x-forebay-request-id").unwrap().to_owned();
    let told = (0..500).find_map(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(10)); // until the record has come to the log
        Some(run(&forebay, &format!("explain {id}"))).filter(|told| told.status.success()).map(|told| said(&told))
    });
    let told = told.expect("the request is remembered");
    for part in ["main/org", "529", "upstream_failed", "spare/spare-key", "200", "delivered", "alice", "claude-x"] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert!(told.contains("complete, status 200"), "{told}");
    let table = said(&run(&forebay, "upstreams"));
    assert!(table.contains(&format!("529 upstream_failed ({id})")), "{table}");
    let unknown = run(&forebay, "explain fb_00000000000000000000000");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(complained(&unknown).contains("is not remembered. Requests that went well are remembered since"));
    let metrics = forebay.admin("/metrics").text();
    for line in [
        "forebay_attempts_total{upstream=\"main\",credential=\"org\",verdict=\"upstream_failed\"} 1",
        "forebay_attempts_total{upstream=\"spare\",credential=\"spare-key\",verdict=\"delivered\"} 1",
        "forebay_failovers_total{outcome=\"saved\"} 1",
        "forebay_commits_total 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is missing in\n{metrics}");
    }
}

#[test]
fn a_plan_is_explained_by_a_running_one_and_from_a_file() {
    let (main, spare) = (named("main"), named("spare"));
    let text = configured(&main, &spare);
    let forebay = Forebay::start(&text, "0");
    let ask = "explain --key alice --model claude-x";
    let now = said(&run(&forebay, ask));
    assert!(now.contains("[[model]] claude-*, the first glob that fits") && now.contains("->  main/org"), "{now}");
    assert!(run(&forebay, "upstreams drain main --for 1h --yes").status.success());
    let now = said(&run(&forebay, ask));
    assert!(now.contains("->  spare/spare-key") && now.contains("drained"), "{now}");
    let bob = said(&run(&forebay, "explain --key bob --model claude-x --header x-forebay-fallback:off"));
    assert!(bob.contains("CLOSED: team `narrow` may use only main") && bob.contains("Nobody would be asked"), "{bob}");
    assert!(bob.contains("failover off: the request says x-forebay-fallback: off"), "{bob}");
    // From a file, and without a forebay; with what a body demands.
    let folder = tempfile::tempdir().unwrap();
    let (path, body) = (folder.path().join("forebay.toml"), folder.path().join("body.json"));
    std::fs::write(&path, &text).unwrap();
    std::fs::write(&body, BODY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["explain", "--key", "alice", "--json", "--config"]).arg(&path).arg("--body").arg(&body);
    let output = command.env("PROVIDER_KEY", PROVIDER_KEY).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(document["asked"]["model"], "claude-x");
    assert_eq!(document["targets"][1]["upstream"], "spare");
    assert!(document.get("candidates").is_none(), "a file knows nothing of how they stand");
    assert!(!said(&output).contains(PROVIDER_KEY));
    let unknown = run(&forebay, "explain --key carol --model claude-x");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(complained(&unknown).contains("no key named `carol`"), "{}", complained(&unknown));
}

#[test]
fn what_becomes_of_an_answer_that_breaks_late_is_counted() {
    let start = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"hi\"}}\n\n";
    let main = Upstream::plain(move |got, stream| {
        let stop = if got.number == 0 { String::new() } else { chunk(&event("content_block_stop", "")) };
        let _ = stream.write_all(format!("{STREAM_HEAD}{}{stop}", chunk(start)).as_bytes());
        false
    });
    let spare = named("spare");
    let forebay = Forebay::start(&configured(&main, &spare), "0");
    let first = forebay.ask(&post(BODY));
    assert!(first.complete && first.text().contains("event: error"), "{first:?}");
    assert!(!forebay.ask(&post(BODY)).complete, "after a finished block the client sees a break");
    // The second one's record comes when its connection has ended.
    let is_done = |page: &String| page.contains("forebay_commits_total 2\n");
    let metrics = (0..500).map(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
        forebay.admin("/metrics").text()
    });
    let metrics = metrics.into_iter().find(is_done).expect("both are counted");
    for line in [
        "forebay_late_failures_total{told=\"error_event\"} 1",
        "forebay_late_failures_total{told=\"cut\"} 1",
        "forebay_held_seconds_count 2",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is missing in\n{metrics}");
    }
}
