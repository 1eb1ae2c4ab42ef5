//! Reloads of a running forebay: every way in which files change, what a reload does to requests in flight and to warm
//! connections, and what the operator is told.

mod files;
mod streams;

use super::secure::{BOTH, Files, connect};
use super::support::{
    Answer, BODY, Client, DRIVERS, Forebay, KEY, PROVIDER_KEY, STREAM_HEAD, STUCK, Upstream, answer, chunk, config,
    event, many_files, post, post_with, read_head,
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

fn on_both_drivers(test: impl Fn(&str)) {
    for (name, force_epoll) in DRIVERS {
        eprintln!("on {name}");
        test(force_epoll);
    }
}

/// Runs forebay on a file that the test changes.
struct Scene {
    forebay: Forebay,
    folder: tempfile::TempDir,
}

impl Scene {
    fn start(config: &str, driver: &str) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.toml");
        fs::write(&path, config).unwrap();
        Scene { forebay: serve(&path, driver), folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("forebay.toml")
    }

    fn write(&self, config: &str) {
        fs::write(self.path(), config).unwrap();
    }

    /// Writes, and asks for the reload; its status and document.
    fn reload(&self, config: &str) -> (u16, Value) {
        // In one step, so that the watch sees no half of it and either of the two may be first.
        let new = self.folder.path().join("new");
        fs::write(&new, config).unwrap();
        fs::rename(&new, self.path()).unwrap();
        let answer = post_to(&self.forebay, "/reload", "");
        let made = json(&answer);
        (answer.status(), if made["outcome"] == "unchanged" { newest(&self.forebay) } else { made })
    }
}

fn serve(path: &Path, driver: &str) -> Forebay {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("serve").arg("--config").arg(path);
    let forebay = Forebay::spawn(command, driver, tempfile::tempdir().unwrap());
    until("the watch", || json(&forebay.admin("/table"))["configuration"]["watched"] == true);
    forebay
}

fn post_to(forebay: &Forebay, path: &str, fields: &str) -> Answer {
    let mut stream = TcpStream::connect(forebay.admin).unwrap();
    stream.set_read_timeout(Some(STUCK)).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: localhost\r\n{fields}connection: close\r\n\r\n").unwrap();
    Client(stream).read().unwrap()
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn generation(forebay: &Forebay) -> u64 {
    json(&forebay.admin("/table"))["generation"].as_u64().unwrap()
}

/// The newest of the history.
fn newest(forebay: &Forebay) -> Value {
    json(&forebay.admin("/table/history"))["reloads"][0].clone()
}

/// Waits until `done`; a bound on the wait, not a delay.
fn until(what: &str, done: impl Fn() -> bool) {
    let last = forebay::rt::ring::mono().after(STUCK.into());
    while !done() {
        assert!(forebay::rt::ring::mono() < last, "{what} did not come");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

/// Waits for the generation, and tells how it came.
fn reached(forebay: &Forebay, wanted: u64) -> Value {
    until(&format!("generation {wanted}"), || generation(forebay) >= wanted);
    until("its line in the history", || newest(forebay)["generation"] == wanted);
    assert_eq!(generation(forebay), wanted, "one change, one generation");
    newest(forebay)
}

fn echo() -> Upstream {
    Upstream::plain(|got, stream| {
        let key = got.header("x-api-key").unwrap().to_owned();
        stream.write_all(answer("200 OK", "", &format!("{{\"key\":\"{key}\"}}")).as_bytes()).is_ok()
    })
}

fn with(upstream: &Upstream, more: &str) -> String {
    config(&format!("http://{}", upstream.address), more)
}

#[test]
fn an_upstream_behind_tls_comes_by_a_reload_and_changes_its_certificate() {
    on_both_drivers(|driver| {
        let plain = echo();
        let scene = Scene::start(&with(&plain, ""), driver);
        let secured = |name: &str| {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(scene.folder.path().join(name), made.cert.pem()).unwrap();
            let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let server = server.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
            let server = Arc::new(server.unwrap());
            let accept = move |stream| {
                rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&server)).unwrap(), stream)
            };
            Upstream::start(accept, |_, stream| {
                let answer = answer("200 OK", "", "{\"secured\":true}");
                stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_ok()
            })
        };
        let config = |upstream: &Upstream, ca: &str| {
            let url = format!("https://localhost:{}\"\nca_file = \"{ca}", upstream.address.port());
            config(&url, "")
        };
        let (first, second) = (secured("first.pem"), secured("second.pem"));
        for (upstream, ca) in [(&first, "first.pem"), (&second, "second.pem"), (&first, "first.pem")] {
            let (status, made) = scene.reload(&config(upstream, ca));
            assert_eq!(status, 200, "{made}");
            let answer = scene.forebay.ask(&post(BODY));
            assert_eq!((answer.status(), answer.text().as_str()), (200, "{\"secured\":true}"), "{ca}");
        }
        // The right place with the wrong roots, at the same address: no connection and no session of before is used.
        scene.reload(&config(&first, "second.pem"));
        let answer = scene.forebay.ask(&post(BODY));
        assert_eq!((answer.status(), answer.header("x-forebay-reason")), (502, Some("tls_failed")), "{answer:?}");
        fs::write(
            scene.folder.path().join("bad.pem"),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let (status, made) = scene.reload(&config(&first, "bad.pem"));
        assert_eq!((status, &made["outcome"]), (422, &"refused".into()), "{made}");
        assert!(made["report"].as_str().unwrap().contains("upstream `main`"), "{made}");
    });
}

#[test]
fn a_wrong_file_keeps_the_old_table_and_says_so_everywhere() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let scene = Scene::start(&with(&upstream, ""), driver);
        scene.write(&with(&upstream, "[[key]]\nname = \"bob\"\nhash = \"sha256:12\"\n"));
        until("the refusal", || newest(&scene.forebay)["outcome"] == "refused");
        let made = newest(&scene.forebay);
        assert_eq!((&made["generation"], &made["origin"]), (&1.into(), &"watch".into()));
        assert!(made["report"].as_str().unwrap().contains("forebay.toml:"), "{made}");
        let ready = scene.forebay.admin("/readyz");
        assert_eq!(ready.status(), 200);
        assert!(json(&ready)["warnings"][0].as_str().unwrap().contains("generation 1 stays in force"), "{ready:?}");
        let table = json(&scene.forebay.admin("/table"));
        assert_eq!(table["configuration"]["ok"], false);
        assert!(table["configuration"]["since"].is_string() && table["configuration"]["report"].is_string());
        assert!(scene.forebay.admin("/metrics").text().contains("\nforebay_config_ok 0\n"));
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 200);
        let again = post_to(&scene.forebay, "/reload", "");
        assert_eq!((again.status(), json(&again)["report"].clone()), (422, made["report"].clone()));
        scene.write(&with(&upstream, "# mended\n"));
        let made = reached(&scene.forebay, 2);
        assert_eq!(made["changes"], Value::Array(Vec::new()), "it means what it meant");
        assert_eq!(json(&scene.forebay.admin("/table"))["configuration"]["ok"], true);
        assert!(scene.forebay.admin("/metrics").text().contains("\nforebay_config_ok 1\n"));
        assert_eq!(json(&scene.forebay.admin("/readyz"))["warnings"], Value::Array(Vec::new()));
    });
}

#[test]
fn a_removed_key_is_refused_on_its_open_connection() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let text = with(&upstream, "");
        let scene = Scene::start(&text, driver);
        let mut client = scene.forebay.connect();
        client.send(post(BODY).as_bytes());
        assert_eq!(client.read().unwrap().status(), 200);
        let (keys, _) = text.split_once("[[key]]").unwrap();
        let (_, made) = scene.reload(keys);
        assert_eq!(made["changes"], serde_json::json!([{ "effect": "less", "what": "key `alice` is removed" }]));
        client.send(post(BODY).as_bytes());
        assert_eq!(client.read().unwrap().status(), 401);
        let (_, made) = scene.reload(&text.replace("name = \"alice\"", "name = \"alice\"\ndisabled = true"));
        assert_eq!(made["changes"][0]["what"], "key `alice` is added, disabled");
        let (_, made) = scene.reload(&text);
        assert_eq!(made["changes"][0]["what"], "key `alice` is enabled again");
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 200);
    });
}

#[test]
fn an_upstream_that_moves_takes_nothing_of_the_old_place_along() {
    on_both_drivers(|driver| {
        let (old, new) = (echo(), echo());
        let more = "[[upstream]]\nname = \"first\"\nbase_url = \"http://127.0.0.1:9\"\nauth = \"none\"\n\
                    [[model]]\nname = \"*\"\ntargets = [{ upstream = \"main\" }]\n";
        let scene = Scene::start(&with(&old, ""), driver);
        for _ in 0..2 {
            assert_eq!(scene.forebay.ask(&post(BODY)).text(), format!("{{\"key\":\"{PROVIDER_KEY}\"}}"));
        }
        let warm = old.next().connection;
        assert_eq!(old.next().connection, warm);
        // An exchange that has begun: its table stays, with its address and its credential.
        let mut begun = scene.forebay.connect();
        let (head, body) =
            post(BODY).split_once("\r\n\r\n").map(|(h, b)| (format!("{h}\r\n\r\n"), b.to_owned())).unwrap();
        begun.send(format!("{head}{}", &body[..10]).as_bytes());
        until("the exchange", || scene.forebay.admin("/metrics").text().contains("\nforebay_exchanges_in_flight 1\n"));
        let idle = |count: &str| {
            let line = format!("\nforebay_idle_upstream_connections {count}\n");
            scene.forebay.admin("/metrics").text().contains(&line)
        };
        until("the warm connection", || idle("1"));
        fs::write(scene.folder.path().join("key"), "sk-new").unwrap();
        let moved = with(&new, more).replace("env = \"PROVIDER_KEY\"", "file = \"key\"");
        let (status, made) = scene.reload(&moved);
        assert_eq!(status, 200, "{made}");
        let changes = made["changes"].to_string();
        assert!(changes.contains(&format!("is at http://{}; it was at http://{}", new.address, old.address)), "{made}");
        assert!(changes.contains("upstream `first` is added") && !changes.contains("sk-new"), "{made}");
        until("the end of the old place's warm connection", || idle("0"));
        for _ in 0..3 {
            assert_eq!(scene.forebay.ask(&post(BODY)).text(), r#"{"key":"sk-new"}"#);
            assert_eq!(new.next().header("x-api-key"), Some("sk-new"));
        }
        assert!(old.got.try_recv().is_err(), "nothing more came to the old place");
        begun.send(&body.as_bytes()[10..]);
        assert_eq!(begun.read().unwrap().text(), format!("{{\"key\":\"{PROVIDER_KEY}\"}}"));
        let late = old.next();
        assert_eq!(late.header("x-api-key"), Some(PROVIDER_KEY), "the old credential, to the old place");
        assert_ne!(late.connection, warm, "on a connection of its own");
        // An exchange is counted when it ends, a moment after its answer.
        let counted = "forebay_upstream_answers_total{upstream=\"main\",class=\"2xx\"} 6\n";
        until("the count of the name, wherever it was", || scene.forebay.admin("/metrics").text().contains(counted));
    });
}

#[test]
fn a_rotated_credential_is_used_at_once_and_on_warm_connections() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, "sk-one\n").unwrap();
        let file = format!("file = \"{}\"", key.display());
        let scene = Scene::start(&with(&upstream, "").replace("env = \"PROVIDER_KEY\"", &file), driver);
        assert_eq!(scene.forebay.ask(&post(BODY)).text(), r#"{"key":"sk-one"}"#);
        let warm = upstream.next().connection;
        fs::write(&key, "sk-two\n").unwrap();
        let made = reached(&scene.forebay, 2);
        assert_eq!((&made["origin"], &made["outcome"]), (&"watch".into(), &"published".into()));
        assert_eq!(made["changes"][0]["what"], "upstream `main` has another value for its credential `org`");
        assert_eq!(scene.forebay.ask(&post(BODY)).text(), r#"{"key":"sk-two"}"#);
        assert_eq!(upstream.next().connection, warm);
        for path in ["/table", "/table/history", "/metrics"] {
            assert!(!scene.forebay.admin(path).text().contains("sk-"), "{path}");
        }
    });
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_is_done() {
    on_both_drivers(|driver| {
        let upstream = echo();
        let text = with(&upstream, "");
        let scene = Scene::start(&text, driver);
        let other = text.replace("workers = 1", "workers = 2").replace("#ai-platform", "#help").replacen(
            "[listen]\naddress = \"127.0.0.1:0\"",
            "[listen]\naddress = \"127.0.0.1:1\"",
            1,
        );
        for generation in 2..4 {
            let (status, made) = scene.reload(&format!("{other}# {generation}\n"));
            assert_eq!((status, &made["generation"]), (200, &generation.into()));
            let restarts = made["changes"].as_array().unwrap().iter().filter(|change| change["effect"] == "restart");
            assert_eq!(restarts.count(), 3, "{made}");
        }
        let refused = scene.forebay.ask(&post(BODY).replace(KEY, "nobody's"));
        assert!(refused.message().contains("#help"), "{refused:?}");
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 200, "it listens where it did");
    });
}

#[test]
fn check_tells_the_difference_to_what_runs() {
    let upstream = echo();
    let text = with(&upstream, "");
    let scene = Scene::start(&text, "0");
    let new = scene.folder.path().join("new.toml");
    fs::write(&new, text.replace("env = \"PROVIDER_KEY\"", "env = \"OTHER_KEY\"").replace("\"alice\"", "\"carol\""))
        .unwrap();
    let check = |against: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("check").arg(&new).args(["--against", against]).args(more);
        let done = command.env("PROVIDER_KEY", PROVIDER_KEY).env("OTHER_KEY", "sk-other").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let admin = scene.forebay.admin.to_string();
    let wanted = "~ upstream `main` has another value for its credential `org`\n\
                  - key `alice` is removed\n+ key `carol` is added\n";
    let (code, said, error) = check("RUNNING", &["--admin", &admin]);
    assert_eq!((code, said.as_str(), error.as_str()), (Some(0), wanted, ""));
    let (code, said, _) = check(scene.path().to_str().unwrap(), &[]);
    assert_eq!((code, said.as_str()), (Some(0), wanted));
    let (code, said, _) = check(new.to_str().unwrap(), &[]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing changes in meaning\n"));
    let (code, _, error) = check("RUNNING", &[]);
    assert!(code == Some(1) && error.contains("--admin"), "{error}");
    let (code, _, error) = check("RUNNING", &["--admin", &upstream.address.to_string()]);
    assert!(code == Some(1) && error.contains("not a forebay"), "{error}");
}

#[test]
fn a_web_page_cannot_ask_for_a_reload() {
    let upstream = echo();
    let scene = Scene::start(&with(&upstream, ""), "0");
    assert_eq!(post_to(&scene.forebay, "/reload", "origin: http://localhost:3000\r\n").status(), 403);
    assert_eq!(post_to(&scene.forebay, "/table", "").status(), 405);
    assert_eq!(scene.forebay.admin("/reload").status(), 405);
    assert_eq!(scene.forebay.admin("/table/meaning").status(), 400);
}

#[test]
fn a_listener_turns_to_tls_once_its_certificate_can_be_used() {
    on_both_drivers(|driver| {
        let (upstream, files) = (echo(), Files::new());
        let plain = with(&upstream, "");
        let scene = Scene::start(&plain, driver);
        let folder = files.folder.path().display();
        let tls = format!(
            "address = \"127.0.0.1:0\"\ntls = {{ cert = \"{folder}/late.crt\", key = \"{folder}/late.key\" }}\n"
        );
        let secured = plain.replacen("address = \"127.0.0.1:0\"\n", &tls, 1);
        let (status, made) = scene.reload(&secured);
        assert_eq!((status, &made["outcome"]), (422, &"refused".into()), "{made}");
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 200, "it goes on in plain HTTP");
        fs::copy(files.at("tls.crt"), files.at("late.crt")).unwrap();
        fs::copy(files.at("tls.key"), files.at("late.key")).unwrap();
        // Nothing that is watched has changed, and still it is good now.
        let made = post_to(&scene.forebay, "/reload", "");
        assert_eq!((made.status(), &json(&made)["outcome"]), (200, &"published".into()), "{made:?}");
        let mut client = connect(scene.forebay.address, &files.ca.client(BOTH, &[]));
        client.send(post(BODY).as_bytes());
        assert_eq!(client.read().unwrap().status(), 200, "from the first client on");
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 400, "and no more in the clear");
        assert_eq!(scene.reload(&plain).0, 200);
        assert_eq!(scene.forebay.ask(&post(BODY)).status(), 200);
    });
}
