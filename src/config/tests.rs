//! What a good configuration means. Wrong ones are golden files under `tests/configs`.

use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::base::{CallerSlot, Span, Wall};
use crate::table::{Can, Class, CredentialLimits, Driver, Hosts, LogFormat, Provider, Verdict, VerdictRule};

/// A machine with these variables and files.
#[derive(Default)]
struct Picture {
    vars: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<PathBuf, String>,
}

impl Host for Picture {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        self.files.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let inside = self.files.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn is_open_to_all(&self, path: &Path) -> bool {
        path.ends_with("open.key")
    }

    fn now(&self) -> Wall {
        Wall(1_767_225_600_000) // 2026-01-01
    }
}

fn picture() -> Picture {
    let mut picture = Picture::default();
    picture.vars.insert("A", " sk-a\n");
    picture.vars.insert("B", "sk-b");
    picture.files.insert("etc/secret".into(), "sk-file\n".into());
    picture
}

const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn good(text: &str) -> Table {
    parse(Path::new("etc/forebay.toml"), text, &picture()).expect("a good configuration")
}

fn bad(text: &str) -> String {
    parse(Path::new("etc/forebay.toml"), text, &picture()).err().expect("a wrong configuration").to_string()
}

const SMALL: &str = r#"
[listen]
address = "127.0.0.1:8080"
[[upstream]]
name = "one"
provider = "anthropic"
credentials = [{ name = "a", env = "A" }, { name = "f", file = "secret" }]
"#;

const EVERYTHING: &str = r##"
[org]
contact = "#ai"
timezone = "Europe/Berlin"
[[listen]]
address = "0.0.0.0:8080"
plaintext = true
hosts = ["Forebay.Example"]
[[listen]]
address = "[::1]:8081"
refuse_cross_site = false
[admin]
address = "127.0.0.1:9090"
[health]
address = "0.0.0.0:9091"
[[upstream]]
name = "one"
provider = "anthropic"
credentials = [{ env = "A" }]
[[upstream]]
name = "two"
base_url = "http://proxy.internal:8000/anthropic/"
auth = "bearer"
credentials = [{ env = "A" }, { env = "B" }]
[[upstream]]
name = "three"
base_url = "http://127.0.0.1:1"
auth = "none"
[[model]]
name = "claude-opus"
targets = [{ upstream = "two", model = "opus-4", tier = 2, weight = 3 }, { upstream = "one" }]
[[model]]
name = "*"
targets = [{ upstream = "three" }]
[[team]]
name = "t"
models = ["claude-*"]
upstreams = ["two"]
passthrough = ["/v1/files"]
[[key]]
name = "k"
owner = "k@example.com"
team = "t"
hash = ["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
class = "ci"
expires = 2026-03-01
[[key]]
name = "off"
hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
disabled = true
[timeouts]
idle = "90s"
[bounds]
body_max = "1MiB"
[runtime]
driver = "epoll"
workers = 3
[log]
format = "json"
"##;

#[test]
fn the_smallest_file() {
    let table = good(SMALL);
    let upstream = &table.upstreams[0];
    assert_eq!((&*upstream.host, upstream.port, upstream.tls), ("api.anthropic.com", 443, true));
    assert_eq!((upstream.host_header.as_str(), upstream.provider), ("api.anthropic.com", Provider::Anthropic));
    let lines: Vec<_> = upstream.credentials.iter().map(|c| c.header.as_bytes()).collect();
    assert_eq!(lines, [b"x-api-key: sk-a\r\n".as_slice(), b"x-api-key: sk-file\r\n"]);
    assert_eq!(table.listeners.len(), 1);
    assert!(table.listeners[0].refuse_cross_site && table.listeners[0].hosts == Hosts::Any);
    assert_eq!(table.models.len(), 1, "every id goes to the only upstream");
    assert_eq!((table.generation, table.callers.len(), table.admin), (1, 0, None));
    assert_eq!(table.patience.first_byte, Span::from_secs(340));
}

#[test]
fn everything_at_once() {
    let table = good(EVERYTHING);
    let two = &table.upstreams[1];
    assert_eq!((two.tls, two.port, two.base_path.as_str()), (false, 8000, "/anthropic"));
    assert_eq!((two.host_header.as_str(), two.provider), ("proxy.internal:8000", Provider::AnthropicCompatible));
    assert_eq!(two.credentials[1].header.as_bytes(), b"authorization: Bearer sk-b\r\n");
    assert_eq!((&*table.upstreams[0].credentials[0].name, &*two.credentials[1].name), ("one", "two-2"));
    assert!(table.upstreams[2].credentials.is_empty());
    let slot = CallerSlot(0);
    let plan = table.resolve(slot, "claude-opus").expect("open");
    let targets: Vec<_> = plan.candidates(&table).collect();
    assert_eq!((targets.len(), targets[0].model.as_deref(), targets[0].tier), (1, Some("opus-4"), 2));
    assert!(table.resolve(slot, "gpt").is_err() && table.passthrough_allows(slot, b"/v1/files/x"));
    let key = &table.callers[0];
    assert_eq!((key.class, key.owner.as_deref()), (Class::Ci, Some("k@example.com")));
    let expiry = key.expires.as_ref().expect("an end");
    assert_eq!((expiry.at, &*expiry.day), (Wall(1_772_406_000_000), "2026-03-01"), "midnight in Berlin, 23:00Z");
    assert!(table.callers[1].disabled);
    assert_eq!(table.caller_by_digest(&[0; 32]), Some(CallerSlot(1)));
    assert_eq!((table.patience.idle, table.bounds.body_bytes_max), (Span::from_secs(90), 1 << 20));
    assert_eq!((table.runtime.driver, table.runtime.workers, table.log), (Driver::Epoll, Some(3), LogFormat::Json));
    let first = &table.listeners[0];
    assert!(first.hosts.answers(b"forebay.example:8080") && !first.hosts.answers(b"other") && !first.refuse_cross_site);
    assert!(!table.listeners[1].refuse_cross_site);
    assert_eq!(table.org.contact.as_deref(), Some("#ai"));
}

#[test]
fn what_failing_over_goes_by() {
    let table = good(
        r#"
[listen]
address = "127.0.0.1:8080"
[[upstream]]
name = "one"
provider = "anthropic"
first_byte = "30s"
credentials = [
  { name = "a", env = "A", limits = { rpm = 20, requests_per_day = 1_000 } },
  { name = "b", env = "B", limits = { input_tpm = 400_000, output_tpm = 80_000 } },
]
verdicts = [{ status = 400, body = "no capacity", verdict = "cool-and-next" }, { status = 400, verdict = "deliver" }]
[[upstream]]
name = "two"
base_url = "http://127.0.0.1:1"
auth = "none"
[[model]]
name = "claude-haiku-4-5"
aliases = ["haiku", "small"]
targets = [{ upstream = "one" }, { upstream = "two", tier = 2, window = 32_000, images = false }]
[[model]]
name = "*"
targets = [{ upstream = "one" }]
fallback = false
[[team]]
name = "t"
models = ["claude-haiku-4-5-20251001", "small"]
[[key]]
name = "k"
hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
team = "t"
fallback = false
[timeouts]
ping = "0s"
[bounds]
event_rate_min = 6
"#,
    );
    let one = &table.upstreams[0];
    assert_eq!((one.first_byte, table.upstreams[1].first_byte), (Some(Span::from_secs(30)), None));
    let limits = CredentialLimits { rpm: Some(20), requests_per_day: Some(1_000), ..CredentialLimits::default() };
    assert_eq!(one.credentials[0].limits, limits);
    let limits = CredentialLimits { input_tpm: Some(400_000), output_tpm: Some(80_000), ..CredentialLimits::default() };
    assert_eq!(one.credentials[1].limits, limits);
    let rule = |body: Option<&str>, verdict| VerdictRule { status: 400, body: body.map(Into::into), verdict };
    assert_eq!(one.verdicts, [rule(Some("no capacity"), Verdict::CoolAndNext), rule(None, Verdict::Deliver)]);
    let haiku = &table.models[0];
    assert_eq!((haiku.aliases.len(), haiku.fallback, table.models[1].fallback), (2, true, false));
    let cans: Vec<Can> = haiku.targets.iter().map(|target| target.can).collect();
    let known = Can { window_max: Some(200_000), ..Can::default() };
    assert_eq!(cans, [known, Can { window_max: Some(32_000), images: false, ..known }]);
    assert!(!table.callers[0].fallback && table.resolve(CallerSlot(0), "haiku").is_ok());
    assert_eq!((table.patience.ping, table.patience.idle), (Span::ZERO, Span::from_secs(240)));
    assert_eq!(table.bounds.event_rate_min, 6);
}

#[test]
fn listeners_with_and_without_tls_stand_side_by_side() {
    let made = rcgen::generate_simple_self_signed(["gw.example".to_owned()]).expect("a certificate");
    let mut host = picture();
    host.files.insert("etc/tls.crt".into(), made.cert.pem());
    host.files.insert("etc/open.key".into(), made.signing_key.serialize_pem());
    let text = SMALL.replace(
        "[listen]\naddress = \"127.0.0.1:8080\"",
        "[[listen]]\naddress = \"0.0.0.0:8443\"\ntls = { cert = \"tls.crt\", key = \"open.key\" }\n\
         [[listen]]\naddress = \"127.0.0.1:8080\"",
    );
    let table = parse(Path::new("etc/forebay.toml"), &text, &host).expect("good");
    let tls = table.listeners[0].tls.as_ref().expect("a certificate");
    assert_eq!((tls.cert.as_path(), tls.key_is_open), (Path::new("etc/tls.crt"), true));
    assert_eq!(*tls.identity.certificate.names, ["gw.example".into()]);
    assert!(table.listeners[1].tls.is_none() && !table.listeners[0].plaintext);
    let shown = format!("{:?}", table.listeners);
    assert!(!shown.contains("PRIVATE") && !shown.contains("SigningKey"), "{shown}");
}

#[test]
fn included_files_join() {
    let mut host = picture();
    host.files.insert("etc/keys.d/b.toml".into(), format!("[[key]]\nname = 'b'\nhash = '{HASH}'\nteam = 't'\n"));
    host.files.insert("etc/keys.d/a.toml".into(), "[[team]]\nname = 't'\n".into());
    host.files.insert("etc/keys.d/.hidden.toml".into(), "nonsense".into());
    host.files.insert("etc/keys.d/readme.md".into(), "nonsense".into());
    let text = format!("include = ['keys.d/*.toml', 'none.d/*.toml']\n{SMALL}");
    let table = parse(Path::new("etc/forebay.toml"), &text, &host).expect("good");
    assert_eq!((&*table.callers[0].name, &*table.teams[0].name), ("b", "t"));
    host.files.insert("etc/keys.d/c.toml".into(), "[[key]]\nname = 'c'\nhsah = 'sha256:1'\n[org]\n".into());
    let report = parse(Path::new("etc/forebay.toml"), &text, &host).err().expect("wrong").to_string();
    assert!(report.contains("etc/keys.d/c.toml:3:1: error: `hsah` is not a key of [[key]]"), "{report}");
    assert!(report.contains("`org` in an included file belongs in the main file"), "{report}");
}

#[test]
fn all_errors_are_told_in_one_run_and_one_error_once() {
    let report = bad(
        "[listne]\naddress = 8080\n[[upstream]]\nnmae = 'x'\nprovider = 'antropic'\ncredentials = [{ env = 'NO' }]\n\
         [[key]]\nname = 'k'\nteam = 'nobody'\nhash = 'sha256:zz'\nclass = 'cli'\n",
    );
    let lines: Vec<&str> = report.lines().filter(|line| line.contains(": error: ")).collect();
    let places: Vec<&str> = lines.iter().filter_map(|line| line.split(": error").next()).collect();
    let expected =
        ["1:2", "2:11", "4:1", "5:12", "6:24", "9:8", "10:8", "11:9"].map(|at| format!("etc/forebay.toml:{at}"));
    assert_eq!(places, expected, "{report}");
}

#[test]
fn a_report_never_shows_a_secret() {
    let key = "sk-ant-api03-abcdefghijklmnop";
    for text in [
        format!("{SMALL}\n[[key]]\nname='k'\nhash='{key}'\n"),
        SMALL.replace("env = \"A\"", &format!("env = \"{key}\"")),
        SMALL.replace("env = \"A\"", &format!("value = \"{key}\"")),
        SMALL.replace("env = \"A\"", &format!("vaule = {key}")),
        format!("{SMALL}\n[[key]]\nname='{key}'\nkey = '{key}'\n"),
    ] {
        let report = bad(&text);
        assert!(!report.contains("abcdefgh"), "{report}");
    }
}

#[test]
fn a_missing_file_is_told() {
    let report = load_from(Path::new("no.toml"), &picture()).err().expect("wrong").to_string();
    assert!(report.starts_with("no.toml:1:1: error: the file cannot be read: there is no such file\n"), "{report}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(cuts in proptest::collection::vec((0usize..2000, "[\\[\\]{}=\"'#., a-z0-9\\n\\\\é]{0,3}"), 0..6)) {
        let mut text = include_str!("../../configs/team.toml").to_owned();
        for (at, what) in cuts {
            let at = (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let end = (at + what.len()..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(at);
            text.replace_range(at..end.max(at), &what);
        }
        if let Err(report) = parse(Path::new("x.toml"), &text, &picture()) {
            let _ = report.to_string();
            for file in 0..report.sources().len() as u32 { let _ = report.mended(file); }
        }
    }
}
