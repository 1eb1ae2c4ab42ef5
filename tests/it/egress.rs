//! The way out, on both drivers: through a proxy by `CONNECT`, past one that `NO_PROXY` exempts from, and to no address
//! that a name should not lead to.

use crate::support::{
    Answer, BODY, DRIVERS, Forebay, Got, PROVIDER_KEY, STUCK, Upstream, answer, config, header, post, read_head,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, mpsc},
    thread,
};

/// A name that only the proxy knows.
const HOST: &str = "upstream.test";
/// What `HTTPS_PROXY` holds for a proxy that wants credentials, and the same as it travels.
const USER: &str = "me:pass-canary";
const BASIC: &str = "Basic bWU6cGFzcy1jYW5hcnk=";

/// What a proxy does when it is asked.
#[derive(Clone)]
enum Manner {
    /// Answers this and passes bytes to and from the target.
    Through(&'static str, SocketAddr),
    /// Answers this and closes.
    Says(&'static str),
}

struct Proxy {
    address: SocketAddr,
    heads: mpsc::Receiver<String>,
}

impl Proxy {
    fn start(manner: Manner) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heads) = mpsc::channel();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let (manner, sender) = (manner.clone(), sender.clone());
                thread::spawn(move || {
                    let Some(head) = read_head(&mut client) else { return };
                    let _ = sender.send(head);
                    match manner {
                        Manner::Says(answer) => client.write_all(answer.as_bytes()).unwrap_or_default(),
                        Manner::Through(answer, target) => {
                            let target = TcpStream::connect(target).unwrap();
                            client.write_all(answer.as_bytes()).unwrap();
                            let (from, to) = (client.try_clone().unwrap(), target.try_clone().unwrap());
                            thread::spawn(move || pass(from, to));
                            pass(target, client);
                        }
                    }
                });
            }
        });
        Proxy { address, heads }
    }

    fn next(&self) -> String {
        self.heads.recv_timeout(STUCK).expect("the proxy should have been asked")
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// An upstream that speaks TLS as `HOST`, and its certificate as PEM.
fn tls_upstream(script: fn(&Got) -> String) -> (Upstream, String) {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let settings = Arc::new(settings);
    let wrap = move |stream: TcpStream| StreamOwned::new(ServerConnection::new(Arc::clone(&settings)).unwrap(), stream);
    let upstream = Upstream::start(wrap, move |got, stream| stream.write_all(script(got).as_bytes()).is_ok());
    (upstream, made.cert.pem())
}

/// forebay in front of `base_url` with `more` in its upstream, these variables, and no proxy's but those.
fn start(driver: &str, base_url: &str, more: &str, ca: &str, vars: &[(&str, &str)]) -> Forebay {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("ca.pem"), ca).unwrap();
    let text = config(base_url, "").replacen("credentials =", &format!("{more}\ncredentials ="), 1);
    std::fs::write(path("forebay.toml"), text).unwrap();
    let mut command = forebay(vars);
    command.arg("serve").arg("--config").arg(path("forebay.toml"));
    Forebay::spawn(command, driver, folder)
}

fn forebay(vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    command.envs(vars.iter().copied());
    command
}

fn assert_failed(got: &Answer, status: u16, reason: &str, retry: Option<&str>) -> String {
    assert_eq!(got.status(), status, "{got:?}");
    assert_eq!(got.header("x-forebay-reason"), Some(reason));
    assert_eq!(got.header("x-forebay-origin"), Some("upstream"));
    assert_eq!(got.header("x-should-retry"), retry);
    got.message()
}

#[test]
fn tls_goes_through_a_proxy_that_learns_the_target_and_nothing_else() {
    for (_, driver) in DRIVERS {
        let (upstream, ca) = tls_upstream(|_| answer("200 OK", "", "{\"ok\":1}"));
        let proxy = Proxy::start(Manner::Through("HTTP/1.1 200 Connection established\r\n\r\n", upstream.address));
        let url = format!("http://{USER}@{}", proxy.address);
        let vars = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "other.test")];
        let forebay = start(driver, &format!("https://{HOST}:8443"), "ca_file = \"ca.pem\"", &ca, &vars);
        // The first to ask is forebay itself, for the list of models: the same way out.
        let lists = proxy.next();
        let mut client = forebay.connect();
        for _ in 0..2 {
            client.send(post(BODY).as_bytes());
            let got = client.read().unwrap();
            assert_eq!((got.status(), got.text().as_str()), (200, "{\"ok\":1}"), "{got:?}");
        }
        for head in [lists, proxy.next()] {
            assert!(head.starts_with(&format!("CONNECT {HOST}:8443 HTTP/1.1\r\n")), "{head}");
            assert_eq!(header(&head, "host"), Some("upstream.test:8443"));
            assert_eq!(header(&head, "proxy-authorization"), Some(BASIC));
            assert_eq!(head.lines().count(), 4, "nothing of the request: {head}");
        }
        for _ in 0..2 {
            let got = upstream.next();
            assert_eq!(got.header("x-api-key"), Some(PROVIDER_KEY));
            assert_eq!(got.header("proxy-authorization"), None);
            assert_eq!(got.body, BODY.as_bytes());
        }
        assert!(proxy.heads.try_recv().is_err(), "the second request reuses the connection");
        let table = forebay.admin("/table").text();
        assert!(table.contains(&proxy.address.to_string()) && !table.contains("canary"), "{table}");
    }
}

#[test]
fn what_the_proxy_refuses_is_told_as_the_proxys() {
    for (_, driver) in DRIVERS {
        for (says, reason, retry, what) in [
            ("HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n\r\n", "proxy_refused", Some("false"), "credentials"),
            ("HTTP/1.1 403 No\r\ncontent-length: 3\r\n\r\nno!", "proxy_refused", Some("false"), "upstream.test:443"),
            ("HTTP/1.1 503 Busy\r\n\r\n", "proxy_failed", None, "could not connect to upstream.test:443"),
            ("", "proxy_failed", None, "closed the connection"),
        ] {
            let proxy = Proxy::start(Manner::Says(says));
            let more = format!("proxy = \"http://{USER}@{}\"", proxy.address);
            let mut forebay = start(driver, &format!("https://{HOST}"), &more, "", &[]);
            let told = assert_failed(&forebay.ask(&post(BODY)), 502, reason, retry);
            assert!(told.contains(&format!("the proxy {}", proxy.address)) && told.contains(what), "{told}");
            let logged = forebay.logged().to_string();
            assert!(logged.contains(reason), "{logged}");
            for secret in ["canary", "cGFzcy1jYW5hcnk", PROVIDER_KEY] {
                assert!(!told.contains(secret) && !logged.contains(secret), "{told} {logged}");
            }
        }
    }
}

#[test]
fn no_proxy_exempts_from_the_environments_proxy() {
    let (_, driver) = DRIVERS[1];
    let proxy = Proxy::start(Manner::Says("HTTP/1.1 403 No\r\n\r\n"));
    let url = format!("http://{}", proxy.address);
    let ask =
        |more: &str, vars: &[(&str, &str)]| start(driver, &format!("https://{HOST}"), more, "", vars).ask(&post(BODY));
    let with = ask("", &[("https_proxy", &url), ("no_proxy", ".example")]);
    assert_failed(&with, 502, "proxy_refused", Some("false"));
    let asked = std::iter::from_fn(|| proxy.heads.try_recv().ok()).count();
    assert!(asked > 0);
    // Nobody but the proxy knows the name: who does not go through it does not get far.
    let exempt = ask("", &[("https_proxy", &url), ("no_proxy", "other.example, .test")]);
    assert_failed(&exempt, 502, "name_unresolved", None);
    let told_not_to = ask("proxy = \"none\"", &[("https_proxy", &url)]);
    assert_failed(&told_not_to, 502, "name_unresolved", None);
    assert!(proxy.heads.try_recv().is_err(), "the proxy was asked all the same");
}

#[test]
fn a_public_looking_name_does_not_lead_inside() {
    for (_, driver) in DRIVERS {
        let upstream = Upstream::plain(|_, stream| stream.write_all(answer("200 OK", "", "{}").as_bytes()).is_ok());
        // A name by its looks, and this machine by the resolver's.
        let url = format!("http://127.1:{}", upstream.address.port());
        let mut forebay = start(driver, &url, "plaintext = true", "", &[]);
        let told = assert_failed(&forebay.ask(&post(BODY)), 502, "address_refused", Some("false"));
        for part in ["127.0.0.1, which is a loopback address", "`allow_private = true`", "Tell the operator"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(forebay.logged()["reason"], "address_refused");
        assert!(upstream.got.try_recv().is_err(), "no byte went there");
        drop(forebay);
        let allowed = start(driver, &url, "plaintext = true\nallow_private = true", "", &[]);
        assert_eq!(allowed.ask(&post(BODY)).status(), 200);
    }
}

#[test]
fn check_names_the_proxy_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.toml");
    std::fs::write(&path, config("https://upstream.test", "")).unwrap();
    let run = |vars: &[(&str, &str)]| {
        let mut command = forebay(vars);
        command.arg("check").arg(&path).env("PROVIDER_KEY", PROVIDER_KEY);
        let output = command.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).unwrap())
    };
    let (good, told) = run(&[("HTTPS_PROXY", "http://me:pass-canary@proxy.example:3128")]);
    assert!(good && told.contains("through the proxy proxy.example:3128\n"), "{told}");
    assert!(!told.contains("canary"), "{told}");
    let (good, told) = run(&[("HTTPS_PROXY", "https://me:pass-canary@proxy.example:3128")]);
    assert!(!good && told.contains("the variable HTTPS_PROXY") && !told.contains("canary"), "{told}");
}
