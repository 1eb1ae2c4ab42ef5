//! House rules that the compiler cannot state: who may import whom, what is pure, how long things may grow. They run
//! with every `cargo test`. To see what each rule wants, read `tidy/rules.rs`; to see it fire, the samples below.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // this is a test

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use rules::{FLOORS, RULES};
use source::Source;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Breaches that stay, each with its rule, its file, how many there are, and why. This list may only shrink: an entry
/// that no longer fits exactly fails too.
const EXCEPTIONS: &[(&str, &str, usize, &str)] = &[];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        Source::new(&path, &fs::read_to_string(file).unwrap())
    };
    files.iter().map(read).collect()
}

#[test]
fn the_house_is_tidy() {
    let mut wrong = Vec::new();
    for source in tree() {
        for (rule, check) in RULES {
            let breaches = check(&source);
            let allowed = EXCEPTIONS.iter().find(|(r, path, ..)| r == rule && *path == source.path).map(|e| e.2);
            match allowed {
                Some(count) if breaches.len() == count => {}
                Some(count) => wrong.push(format!(
                    "src/{} [{rule}]: {} breaches, {count} excepted: correct EXCEPTIONS",
                    source.path,
                    breaches.len()
                )),
                None => wrong.extend(breaches.into_iter().map(|b| format!("src/{}:{b} [{rule}]", source.path))),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn exceptions_name_files_and_reasons() {
    let files: Vec<String> = tree().into_iter().map(|source| source.path).collect();
    for (rule, path, count, reason) in EXCEPTIONS {
        assert!(RULES.iter().any(|(name, _)| name == rule), "no rule `{rule}`");
        assert!(files.iter().any(|file| file == path), "no file src/{path}");
        assert!(*count > 0 && reason.len() > 20, "src/{path} [{rule}] needs a count and a reason");
    }
}

#[test]
fn every_module_has_a_floor() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lib = Source::new("lib.rs", &lib);
    let declared: Vec<&str> = lib.find("mod").map(|at| source::word_at(&lib.code, at + 3)).collect();
    assert!(declared.len() > 5, "{declared:?}");
    for module in &declared {
        assert!(FLOORS.iter().any(|(name, _)| name == module), "`{module}` has no floor");
    }
    for (module, _) in FLOORS {
        assert!(declared.contains(module), "FLOORS names `{module}`, which does not exist");
    }
}

const DOC: &str = "//! A sample that says in its first lines what it is, and what not.\n";

/// Rule, path, code, and whether it is a breach.
const SAMPLES: &[(&str, &str, &str, bool)] = &[
    ("floors", "wire/head.rs", "use crate::serve::exchange;", true),
    ("floors", "wire/head.rs", "use crate::rt::Segment;", true),
    ("floors", "config/mod.rs", "use crate::{base::{Span, Wall}, auth::Key};", true),
    ("floors", "config/mod.rs", "fn f() { crate::auth::key::new() }", true),
    ("floors", "config/url.rs", "use super::super::auth;", true),
    ("floors", "base/mod.rs", "use super::wire;", true),
    ("floors", "unknown/mod.rs", "", true),
    ("floors", "wire/head.rs", "use crate::{base::{failure::Kind, Span}, wire::body};", false),
    ("floors", "wire/head.rs", "use super::body; // not crate::serve\nconst S: &str = \"crate::serve\";", false),
    ("floors", "config/url.rs", "#[cfg(test)] mod tests { use super::super::url; }", false),
    ("floors", "control/mod.rs", "use crate::worker::Assignment;", false),
    ("purity", "auth/mod.rs", "pub async fn look_up() {}", true),
    ("purity", "table/mod.rs", "fn now() { std::time::Instant::now(); }", true),
    ("purity", "table/live.rs", "use std::net::{SocketAddr, TcpStream};", true),
    ("purity", "wire/head.rs", "fn f() { std::fs::read(\"x\"); }", true),
    ("purity", "config/mod.rs", "fn f() { std::thread::yield_now(); }", true),
    ("purity", "config/mod.rs", "use std::{fs, env, net::{Ipv4Addr, SocketAddr}};", false),
    ("purity", "table/live.rs", "use std::net::SocketAddr; // an Instant\nstruct S { fs: u8 }", false),
    ("purity", "serve/relay.rs", "async fn relay() {}", false),
    ("purity", "auth/mod.rs", "#[cfg(test)] mod tests { use std::time::Instant; }", false),
    ("monoio", "net/dial.rs", "use monoio::net::TcpStream;", true),
    ("monoio", "rt/ring.rs", "use monoio::net::TcpStream;", false),
    ("monoio", "net/dial.rs", "// monoio would panic here", false),
    ("crates", "serve/exchange.rs", "use tokio::time::sleep;", true),
    ("crates", "net/tls.rs", "fn f() -> hyper::Uri {}", true),
    ("crates", "serve/exchange.rs", "use arc_swap::Cache; fn f() { config::toml::parse() }", false),
    ("crates", "control/mod.rs", "use tokio::time::sleep;", false),
    ("unsafe", "serve/relay.rs", "// SAFETY: none\nfn f() { unsafe { g() } }", true),
    ("unsafe", "rt/segment.rs", "fn f() { unsafe { g() } }", true),
    (
        "unsafe",
        "rt/segment.rs",
        "fn f() {\n    // SAFETY: the pointer is live,\n    // and aligned.\n    unsafe { g() }\n}",
        false,
    ),
    ("unsafe", "serve/relay.rs", "// unsafe is a word", false),
    ("names", "auth/mod.rs", "fn f(token: &str) {}", true),
    ("names", "serve/utils.rs", "", true),
    ("names", "auth/mod.rs", "struct LlmTokens; fn f(max_tokens: u64, r#type: u8) {} // a token", false),
    ("unsafe", "rt/ring.rs", "unsafe impl Send for S {}", true),
    ("unsafe", "rt/ring.rs", "unsafe fn set_init() {}", false),
    ("docs", "auth/mod.rs", "", false),
    ("unfinished", "auth/mod.rs", "// TODO later", true),
    ("unfinished", "auth/mod.rs", "fn f() { todo!() }", true),
    ("unfinished", "auth/mod.rs", "// `\\uXXXX` is an escape", false),
];

#[test]
fn every_rule_fires_on_a_breach_and_on_nothing_else() {
    for (rule, path, code, is_breach) in SAMPLES {
        let check = RULES.iter().find(|(name, _)| name == rule).unwrap().1;
        let breaches = check(&Source::new(path, &format!("{DOC}{code}\n")));
        assert_eq!(!breaches.is_empty(), *is_breach, "[{rule}] src/{path}: {code}\nfound {breaches:?}");
    }
    for (rule, _) in RULES.iter().filter(|(rule, _)| !["length", "docs"].contains(rule)) {
        assert!(SAMPLES.iter().any(|(name, _, _, breach)| name == rule && *breach), "no sample breaks `{rule}`");
    }
}

#[test]
fn lengths_and_openings_are_measured() {
    let check = |name: &str, text: &str| {
        let rule = RULES.iter().find(|(rule, _)| *rule == name).unwrap().1;
        rule(&Source::new("auth/mod.rs", text)).len()
    };
    let function =
        |lines: usize| format!("{DOC}fn f(x: [u8; {{ 1 }}]) -> fn(u8) {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    assert_eq!(check("length", &function(70)), 0);
    assert_eq!(check("length", &function(71)), 1);
    assert_eq!(check("length", &format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(90))), 0, "tests may be long");
    assert_eq!(check("length", &"\n".repeat(500)), 0);
    assert_eq!(check("length", &"\n".repeat(501)), 1);
    assert_eq!(check("docs", "use std::io;\n"), 1);
    assert_eq!(check("docs", "//! auth\n"), 1);
}

#[test]
fn prose_is_not_code() {
    let text = r##"let a = 'a'; let b = '\''; fn f<'a>(x: &'a str) { "s\"{" ; r#"raw " } "# ; b'{' ; /* { /* { */ } */ } // {"##;
    let code = Source::new("auth/mod.rs", text).code;
    assert_eq!(code.len(), text.len());
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert_eq!(code.matches('}').count(), 1, "{code}");
    assert!(code.contains("fn f<'a>(x: &'a str)"), "{code}");
}
