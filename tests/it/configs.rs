//! Configurations as files. Every wrong one under `tests/configs/wrong` has its report beside it, and passes once the
//! report's hints are applied; every one under `configs` passes as it is. `BLESS=1` writes the reports anew.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{fs, io};

use crate::support::{Forebay, KEY, post};
use forebay::auth::{self, key::digest};
use forebay::base::Wall;
use forebay::config::host::Host;
use forebay::config::{self, Remedy, Report};
use forebay::mock::{Options, spawn_on_thread};
use forebay::table::Table;

/// The files of a directory, with changes on top; and variables.
struct Disk {
    root: PathBuf,
    changed: RefCell<BTreeMap<PathBuf, String>>,
    variables: RefCell<BTreeMap<String, String>>,
}

impl Disk {
    fn new(root: PathBuf, variables: &[(&str, &str)]) -> Disk {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let changed = pairs().iter().map(|(name, text)| (PathBuf::from(name), text.clone())).collect();
        Disk { root, changed: RefCell::new(changed), variables: RefCell::new(variables) }
    }

    /// Does what the hints say.
    fn mend(&self, report: &Report) {
        for (file, source) in report.sources().iter().enumerate() {
            self.changed.borrow_mut().insert(source.path.clone(), report.mended(file as u32));
        }
        for problem in report.problems() {
            match &problem.remedy {
                Remedy::Edits(_) => {}
                Remedy::Variable(name) => {
                    self.variables.borrow_mut().insert(name.clone(), "sk-mended".into());
                }
                Remedy::File(path) => {
                    let text = match path.extension().and_then(|extension| extension.to_str()) {
                        Some("pem" | "crt") => pairs()["tls.crt"].clone(),
                        Some("key") => pairs()["tls.key"].clone(),
                        _ => "sk-mended".into(),
                    };
                    self.changed.borrow_mut().insert(path.clone(), text);
                }
            }
        }
    }

    fn load(&self, path: &Path) -> Result<Table, Report> {
        config::load_from(path, self)
    }
}

impl Host for Disk {
    fn var(&self, name: &str) -> Option<String> {
        self.variables.borrow().get(name).cloned()
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        match self.changed.borrow().get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => fs::read(self.root.join(path)),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(self.root.join(directory))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    fn is_open_to_all(&self, _: &Path) -> bool {
        false
    }

    fn now(&self) -> Wall {
        Wall(1_767_225_600_000) // 2026-01-01
    }
}

/// Certificates and keys as files: no private key stands in the repository.
fn pairs() -> &'static BTreeMap<&'static str, String> {
    static PAIRS: OnceLock<BTreeMap<&'static str, String>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = |from, until| {
            let mut params = rcgen::CertificateParams::new(["gw.example".to_owned()]).expect("names");
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            params.self_signed(&key).expect("a certificate").pem()
        };
        let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        BTreeMap::from([
            ("tls.crt", certificate(2020, 2090)),
            ("ended.crt", certificate(2020, 2025)),
            ("early.crt", certificate(2030, 2090)),
            ("key-in-it.crt", key.serialize_pem()),
            ("tls.key", key.serialize_pem()),
            ("other.key", other),
            ("locked.key", locked.to_owned()),
            ("certificate-in-it.key", certificate(2020, 2090)),
        ])
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn configs_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory");
    let names = entries.map(|entry| PathBuf::from(entry.expect("an entry").file_name()));
    let mut names: Vec<PathBuf> = names.filter(|name| name.extension().is_some_and(|e| e == "toml")).collect();
    names.sort();
    names
}

/// Those that serve somebody; the price list is compiled in.
fn shipped_configs() -> Vec<PathBuf> {
    let mut names = configs_in(&root().join("configs"));
    names.retain(|name| name != Path::new("prices.toml"));
    names
}

#[test]
fn wrong_configurations_are_told_and_their_hints_mend_them() {
    let directory = root().join("tests/configs/wrong");
    let bless = std::env::var_os("BLESS").is_some();
    let names = configs_in(&directory);
    assert!(names.len() >= 40, "{} wrong configurations", names.len());
    let mut faults = Vec::new();
    for name in &names {
        let shown = name.display();
        let variables = [("ANTHROPIC_API_KEY", "sk-a"), ("OTHER", "sk-b"), ("EMPTY", " "), ("SPACED", "sk a")];
        let disk = Disk::new(directory.clone(), &variables);
        let Err(report) = disk.load(name) else {
            faults.push(format!("{shown} passes"));
            continue;
        };
        let golden = directory.join(name).with_extension("expected");
        let text = report.to_string();
        if bless {
            fs::write(&golden, &text).expect("written");
        }
        if fs::read_to_string(&golden).unwrap_or_default() != text {
            faults.push(format!("{shown}: the report is another one (BLESS=1 takes it):\n{text}"));
        }
        assert!(!text.contains("not-a-real-key"), "{shown} shows a secret:\n{text}");
        disk.mend(&report);
        if let Err(left) = disk.load(name) {
            faults
                .push(format!("{shown} is still wrong after its hints:\n{text}\nthen:\n{left}\n{}", report.mended(0)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_report_belongs_to_a_configuration() {
    let directory = root().join("tests/configs/wrong");
    for entry in fs::read_dir(&directory).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "expected") {
            assert!(path.with_extension("toml").exists(), "{} is left over", path.display());
        }
    }
}

#[test]
fn every_shipped_configuration_passes() {
    let names = shipped_configs();
    assert!(names.len() >= 2);
    for name in names {
        let variables = ["ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_A", "ANTHROPIC_API_KEY_B", "INTERNAL_LLM_KEY"]
            .map(|n| (n, "sk-x"));
        let disk = Disk::new(root().join("configs"), &variables);
        if let Err(report) = disk.load(&name) {
            panic!("{}:\n{report}", name.display());
        }
    }
}

/// A shipped configuration on this machine: listeners on free ports, all upstreams at `provider`, `KEY` for the first key.
fn at_home(text: &str, provider: &str) -> String {
    let mut root: toml::Table = text.parse().expect("TOML");
    root.remove("include");
    for section in ["listen", "admin", "health"] {
        root.insert(section.into(), toml::toml! { address = "127.0.0.1:0" }.into());
    }
    root.insert("log".into(), toml::toml! { format = "json" }.into());
    root.insert("runtime".into(), toml::toml! { workers = 1 }.into());
    for upstream in root.get_mut("upstream").and_then(toml::Value::as_array_mut).expect("upstreams") {
        upstream.as_table_mut().expect("a section").insert("base_url".into(), provider.into());
        for credential in upstream["credentials"].as_array_mut().expect("a pool") {
            credential.as_table_mut().expect("a section").insert("env".into(), "PROVIDER_KEY".into());
        }
    }
    let hex = digest(KEY.as_bytes()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let hash = toml::Value::from(format!("sha256:{hex}"));
    let keys = root.entry("key").or_insert_with(|| vec![toml::toml! { name = "someone" }].into());
    keys[0].as_table_mut().expect("a section").insert("hash".into(), hash);
    root.to_string()
}

#[test]
fn every_shipped_configuration_answers() {
    let provider = spawn_on_thread(Options::default()).expect("the simulated provider");
    let ask = |forebay: &Forebay, model: &str| {
        let body = format!(r#"{{"model":"{model}","max_tokens":8,"messages":[{{"role":"user","content":"Hi"}}]}}"#);
        let answer = forebay.ask(&post(&body));
        assert_eq!(answer.status(), 200, "{model}: {}", answer.text());
        let message: serde_json::Value = serde_json::from_slice(&answer.body).expect("a message");
        assert!(message["usage"]["output_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{message}");
        message["model"].as_str().expect("a model").to_owned()
    };
    for name in shipped_configs() {
        let text = fs::read_to_string(root().join("configs").join(&name)).expect("there");
        let text = at_home(&text, &format!("http://{}", provider.address));
        let forebay = Forebay::start(&text, "0");
        assert_eq!(ask(&forebay, "claude-haiku-5-5"), "claude-haiku-5-5", "{}", name.display());
        if name == Path::new("team.toml") {
            let open = text.replace("team = \"payments\"", "team = \"research\"");
            let forebay = Forebay::start(&open, "0");
            assert_eq!(ask(&forebay, "house"), "house-model-3", "an alias is its model upstream");
            let list =
                forebay.ask(&format!("GET /v1/models?limit=1000 HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\n\r\n"));
            assert!(list.text().contains(r#""id":"house""#), "{}", list.text());
        }
    }
}

fn forebay(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).env_clear().env("ANTHROPIC_API_KEY", "sk-x").current_dir(root());
    command.output().expect("the program runs")
}

#[test]
fn check_tells_by_its_exit_code() {
    let good = forebay(&["check", "configs/forebay.toml"]);
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("configs/forebay.toml: OK\n"));
    assert!(forebay(&["check", "--quiet", "configs/forebay.toml"]).stdout.is_empty());
    let wrong = forebay(&["check", "configs/team.toml"]);
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1));
    for name in ["ANTHROPIC_API_KEY_A", "ANTHROPIC_API_KEY_B", "INTERNAL_LLM_KEY"] {
        assert!(told.contains(&format!("error: the variable {name} is not set")), "{told}");
    }
    assert_eq!(forebay(&["check", "configs/none.toml"]).status.code(), Some(1));
    assert_eq!(forebay(&["check"]).status.code(), Some(2));
}

#[test]
fn keys_for_three_hundred_people_are_good_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let list: Vec<String> = (0..300).map(|n| format!("p{n}@example.com,team-{}", n % 3)).collect();
    fs::write(at("people.csv"), format!("email,team\n{}\n", list.join("\n"))).expect("written");
    let out = directory.path().display().to_string();
    let from = at("people.csv").display().to_string();
    let made = forebay(&["keys", "new", "--from", &from, "--out-dir", &out, "--expires", "90d"]);
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    let teams = "[[team]]\nname = \"team-0\"\n[[team]]\nname = \"team-1\"\n[[team]]\nname = \"team-2\"\n";
    let main = "include = [\"keys.d/*.toml\"]\n[listen]\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"a\"\n\
                provider = \"anthropic\"\ncredentials = [{ env = \"A\" }]\n";
    fs::write(at("forebay.toml"), format!("{main}{teams}")).expect("written");
    let table = config::load(&at("forebay.toml"), &|_| Some("sk-x".into())).expect("a good configuration");
    assert_eq!((table.callers.len(), table.digests.len()), (300, 300));
    let secret = at("secrets/p7@example.com.key");
    assert_eq!(fs::metadata(&secret).expect("there").permissions().mode() & 0o777, 0o600);
    let bearer = format!("Bearer {}", fs::read_to_string(&secret).expect("a key").trim());
    let fields = [(&b"authorization"[..], bearer.as_bytes())];
    let caller = auth::identify(&table, fields.into_iter(), Wall(0)).expect("known");
    assert_eq!(&*table.caller(caller).expect("there").name, "p7@example.com");
    assert_eq!(&*table.team_of(caller).expect("a team").name, "team-1");
    let again = forebay(&["keys", "new", "--from", &from, "--out-dir", &out]);
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");
}

#[test]
fn the_seccomp_profile_denies_what_it_does_not_name_and_names_the_ring() {
    let text = fs::read_to_string(root().join("configs/seccomp-io_uring.json")).expect("there");
    let profile: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (profile["defaultAction"].as_str(), profile["defaultErrnoRet"].as_i64()),
        (Some("SCMP_ACT_ERRNO"), Some(1))
    );
    let rules = profile["syscalls"].as_array().expect("rules");
    let names: Vec<&str> = rules
        .iter()
        .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW")
        .flat_map(|rule| rule["names"].as_array().expect("names").iter().filter_map(|name| name.as_str()))
        .collect();
    for wanted in
        ["io_uring_setup", "io_uring_enter", "io_uring_register", "epoll_pwait", "inotify_add_watch", "execve"]
    {
        assert!(names.contains(&wanted), "{wanted} is missing");
    }
    for other in ["ptrace", "mount", "bpf", "unshare", "setns", "keyctl", "userfaultfd", "process_vm_readv", "clone3"] {
        assert!(!names.contains(&other), "{other} is open");
    }
}
