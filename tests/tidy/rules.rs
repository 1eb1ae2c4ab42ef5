//! The rules. Each takes one file and names what is wrong in it.

use super::source::{Source, close, word_at, words};

/// Module -> floor. A module may import only modules on lower floors, and itself.
pub const FLOORS: &[(&str, u8)] = &[
    ("base", 0),
    ("wire", 1),
    ("rt", 1),
    ("telemetry", 1),
    ("dialect", 2),
    ("net", 2),
    ("table", 3),
    ("auth", 4),
    ("config", 4),
    ("meter", 4),
    ("upstream", 4),
    ("serve", 5),
    ("mock", 5),
    ("worker", 6),
    ("control", 7),
    ("boot", 8),
    ("sim", 8),
    ("cli", 9),
];
/// Modules that hold no async, no socket, no clock and no file.
const PURE: &[&str] = &["base", "wire", "dialect", "table", "auth", "config", "meter", "upstream"];
/// What `config` may touch all the same: it reads files, and secrets from the environment.
const CONFIG_MAY: &[&str] = &["fs", "env"];
/// Words that mean I/O, time or waiting.
const IMPURE: &[&str] = &[
    "async",
    "await",
    "tokio",
    "monoio",
    "thread",
    "fs",
    "env",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "ToSocketAddrs",
    "stdin",
    "stdout",
    "stderr",
    "println",
    "eprintln",
];
/// Names that mean two things here (a credential is a `key`, what a model counts is `LlmTokens`), and drawers.
const BANNED_NAMES: &[&str] = &["token", "Token"];
const BANNED_MODULES: &[&str] = &["utils", "util", "common", "helpers", "helper", "types", "misc", "shared"];
/// Crates that floors 0 to 6, the data path, may name. What is not here is for control, boot and cli.
const DATA_PATH_CRATES: &[&str] = &[
    "arc_swap",
    "atomic_waker",
    "aws_lc_rs",
    "crc32fast",
    "crossbeam",
    "flate2",
    "httparse",
    "io_uring",
    "libc",
    "memchr",
    "monoio",
    "rustls",
    "serde",
    "serde_json",
    "socket2",
    "subtle",
    "thiserror",
    "webpki_roots",
    "zeroize",
];
/// What `config` may name besides: it runs before the data path does.
const CONFIG_CRATES: &[&str] = &["toml", "jiff", "csv"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// Less is the module's own name again.
const MODULE_DOC_CHARS_MIN: usize = 16;

/// A rule's name, and what finds its breaches. Each breach begins with a line number.
pub type Rule = (&'static str, fn(&Source) -> Vec<String>);

/// All of them.
pub const RULES: &[Rule] = &[
    ("floors", floors),
    ("purity", purity),
    ("monoio", monoio),
    ("crates", crates),
    ("unsafe", unsafe_places),
    ("length", lengths),
    ("names", names),
    ("docs", docs),
    ("unfinished", unfinished),
];

/// The floor of a module.
pub fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn is_root(source: &Source) -> bool {
    ["lib", "main"].contains(&source.module())
}

/// Imports point down, and never to the side.
fn floors(source: &Source) -> Vec<String> {
    if is_root(source) {
        return Vec::new();
    }
    let module = source.module();
    let Some(here) = floor(module) else {
        return vec![format!("1: `{module}` has no floor: add it to FLOORS and to ARCHITECTURE.md")];
    };
    let is_wrong = |target: &str| target != module && floor(target).is_none_or(|there| there >= here);
    imports(source)
        .into_iter()
        .filter(|(_, target)| is_wrong(target))
        .map(|(at, target)| format!("{}: `{target}` is not below `{module}`", source.line(at)))
        .collect()
}

/// Every top-level module that the code names: behind `crate::`, inside `crate::{...}`, and behind as many `super::`
/// as lead to the root.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for at in source.find("crate::") {
        first_names(code, at + "crate::".len(), &mut found);
    }
    for at in source.find("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let steps = code[at..].split("::").take_while(|part| *part == "super").count();
        if steps >= source.depth(at) {
            first_names(code, at + steps * "super::".len(), &mut found);
        }
    }
    found
}

/// The name at `at`, or the first names of the list in braces that begins there.
fn first_names(code: &str, at: usize, found: &mut Vec<(usize, String)>) {
    if code.as_bytes().get(at) != Some(&b'{') {
        let name = word_at(code, at);
        // `$crate::` in a macro and `crate::CONSTANT` name no module.
        if name.starts_with(|c: char| c.is_lowercase()) {
            found.push((at, name.to_owned()));
        }
        return;
    }
    let (mut depth, mut is_next) = (0, true);
    for (n, c) in code[at + 1..close(code, at)].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => is_next = true,
            c if is_next && depth == 0 && !c.is_whitespace() => {
                found.push((at + 1 + n, word_at(code, at + 1 + n).to_owned()));
                is_next = false;
            }
            _ => {}
        }
    }
}

/// Pure modules decide; others wait, read and look at the clock.
fn purity(source: &Source) -> Vec<String> {
    let module = source.module();
    if !PURE.contains(&module) {
        return Vec::new();
    }
    let is_impure = |word: &str| IMPURE.contains(&word) && !(module == "config" && CONFIG_MAY.contains(&word));
    source
        .words()
        .filter(|(at, word)| is_impure(word) && !source.is_test(*at))
        // A field or a local may have such a name; what counts is a path, a macro, a type or a keyword.
        .filter(|(at, word)| match *word {
            "thread" | "fs" | "env" | "stdin" | "stdout" | "stderr" => {
                source.code[at + word.len()..].trim_start().starts_with("::") || source.code[..*at].ends_with("::")
            }
            _ => true,
        })
        .map(|(at, word)| format!("{}: `{word}` in `{module}`, which is pure", source.line(at)))
        .collect()
}

/// One file knows the event loop, so that it can be replaced.
fn monoio(source: &Source) -> Vec<String> {
    if source.path == "rt/ring.rs" || source.path.starts_with("rt/ring/") {
        return Vec::new();
    }
    source.find("monoio").map(|at| format!("{}: monoio is named in rt/ring.rs only", source.line(at))).collect()
}

/// Every crate on the data path is a decision.
fn crates(source: &Source) -> Vec<String> {
    let module = source.module();
    if is_root(source) || floor(module).is_none_or(|floor| floor > 6) {
        return Vec::new();
    }
    let manifest = include_str!("../../Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let dependencies = dependencies.lines().take_while(|line| !line.starts_with('['));
    let names = dependencies.filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim().replace('-', "_"));
    let may = |name: &str| DATA_PATH_CRATES.contains(&name) || module == "config" && CONFIG_CRATES.contains(&name);
    let mut wrong = Vec::new();
    for name in names.filter(|name| !may(name)) {
        let path = format!("{name}::");
        // `toml::` as a crate, not as the end of `config::toml::`.
        let uses = source.find(&path).filter(|at| !source.code[..*at].ends_with("::") && !source.is_test(*at));
        wrong.extend(uses.map(|at| format!("{}: the crate `{name}` is not for the data path", source.line(at))));
    }
    wrong
}

/// Unsafe code is in two places, and says why it is sound.
fn unsafe_places(source: &Source) -> Vec<String> {
    let allowed = ["rt", "wire"].contains(&source.module());
    let lines: Vec<&str> = source.text.lines().collect();
    let mut wrong = Vec::new();
    for at in source.find("unsafe") {
        let line = source.line(at);
        let is_declaration = ["fn", "extern"].contains(&word_at(&source.code, at + "unsafe".len()))
            && !source.code[at + "unsafe".len()..].trim_start().starts_with('{');
        if !allowed {
            wrong.push(format!("{line}: `unsafe` is for rt and wire only"));
            continue;
        }
        let above = lines[..line - 1].iter().rev().map(|l| l.trim_start());
        let mut comment = above.take_while(|l| l.starts_with("//") || l.starts_with("#[") || l.ends_with('='));
        // What a declaration asks of its callers is clippy's business (`missing_safety_doc`).
        if !is_declaration && !comment.any(|l| l.starts_with("// SAFETY:")) {
            wrong.push(format!("{line}: `unsafe` without `// SAFETY:`"));
        }
    }
    wrong
}

/// Files that one can hold in mind, functions that fit on a screen.
fn lengths(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        wrong.push(format!("1: {lines} lines; {FILE_LINES_MAX} are the most"));
    }
    for at in source.find("fn").filter(|at| !source.is_test(*at)) {
        let name = word_at(&source.code, at + 2);
        let Some(open) = body(&source.code, at) else { continue };
        let (first, last) = (source.line(at), source.line(close(&source.code, open)));
        if last - first + 1 > FUNCTION_LINES_MAX {
            wrong.push(format!("{first}: `{name}` has {} lines; {FUNCTION_LINES_MAX} are the most", last - first + 1));
        }
    }
    wrong
}

/// The opening brace of the body of the `fn` at `at`; `None` for a declaration and for a type.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut here = at + 2;
    if code[here..].trim_start().starts_with('(') {
        return None; // `fn(u8) -> u8`, a type
    }
    while let Some(next) = code[here..].find(['{', ';', '(', '[']) {
        here += next;
        match code.as_bytes()[here] {
            b'{' => return Some(here),
            b';' => return None,
            _ => here = close(code, here) + 1,
        }
        if here >= code.len() {
            break;
        }
    }
    None
}

/// One meaning for each word, and no drawers.
fn names(source: &Source) -> Vec<String> {
    let bad = source.words().filter(|(_, word)| BANNED_NAMES.contains(word));
    let mut wrong: Vec<String> =
        bad.map(|(at, word)| format!("{}: `{word}` alone says nothing here", source.line(at))).collect();
    let parts = source.path.trim_end_matches(".rs").split('/');
    wrong.extend(parts.filter(|p| BANNED_MODULES.contains(p)).map(|p| format!("1: `{p}` is a drawer, not a noun")));
    wrong
}

/// Every file says first what it is; one with tests only is told by what it stands beside.
fn docs(source: &Source) -> Vec<String> {
    if source.is_test(0) {
        return Vec::new();
    }
    let doc: String = source.text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    if doc.trim().len() < MODULE_DOC_CHARS_MIN {
        return vec!["1: does not open with `//!` lines that say what it is and what it is not".into()];
    }
    Vec::new()
}

/// What is merged is done.
fn unfinished(source: &Source) -> Vec<String> {
    let marks = words(&source.text).filter(|(_, word)| ["TODO", "FIXME", "XXX"].contains(word));
    let mut wrong: Vec<String> =
        marks.map(|(at, mark)| format!("{}: {mark}: open an issue instead", source.line(at))).collect();
    for call in ["todo!", "unimplemented!"] {
        wrong.extend(source.find(call).map(|at| format!("{}: `{call}`", source.line(at))));
    }
    wrong
}
