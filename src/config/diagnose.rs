//! Errors of a configuration: collected all at once, each with its place, its cause, a hint, and the hint as a change
//! that can be made by a machine. The text of a report is stable; secrets in the shown lines are starred.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in one of the files: byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Index into the report's files.
    pub file: u32,
    /// First byte.
    pub start: usize,
    /// After the last byte.
    pub end: usize,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// What.
    pub value: T,
    /// Where.
    pub at: Spot,
}

/// Replaces the text at `at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What goes.
    pub at: Spot,
    /// What comes.
    pub text: String,
}

/// The hint as a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Changes to the files.
    Edits(Vec<Edit>),
    /// An environment variable to be set.
    Variable(String),
    /// A file to be written.
    File(PathBuf),
}

impl Remedy {
    /// One replacement.
    pub fn replace(at: Spot, text: impl Into<String>) -> Remedy {
        Remedy::Edits(vec![Edit { at, text: text.into() }])
    }
}

/// One error.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where.
    pub at: Spot,
    /// What is wrong, as a clause without a full stop. Never a secret.
    pub cause: String,
    /// What to do, as a clause without a full stop.
    pub hint: String,
    /// The hint as a change.
    pub remedy: Remedy,
}

/// A file that was read.
#[derive(Clone)]
pub struct Source {
    /// As the user named it.
    pub path: PathBuf,
    /// Its text.
    pub text: Arc<str>,
}

/// All that is wrong, by file and place.
pub struct Report {
    sources: Vec<Source>,
    problems: Vec<Problem>,
}

/// Collects sources and problems while a configuration is read.
#[derive(Default)]
pub struct Problems {
    sources: Vec<Source>,
    list: Vec<Problem>,
    broken: Vec<(u32, usize)>,
}

impl Problems {
    /// Takes a file in; its number goes into spots.
    pub fn source(&mut self, path: &Path, text: Arc<str>) -> u32 {
        self.sources.push(Source { path: path.to_owned(), text });
        self.sources.len() as u32 - 1
    }

    /// The text of a file.
    pub fn text(&self, file: u32) -> Arc<str> {
        self.sources.get(file as usize).map_or_else(|| Arc::from(""), |source| source.text.clone())
    }

    /// The path of a file.
    pub fn path(&self, file: u32) -> &Path {
        self.sources.get(file as usize).map_or(Path::new(""), |source| &source.path)
    }

    /// The end of a file: where new sections go.
    pub fn end_of(&self, file: u32) -> Spot {
        let end = self.text(file).len();
        Spot { file, start: end, end }
    }

    /// A remedy that writes a new section at the end of a file.
    pub fn append(&self, file: u32, section: &str) -> Remedy {
        let text = self.text(file);
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        Remedy::replace(self.end_of(file), format!("{gap}\n{section}\n"))
    }

    /// Notes an error.
    pub fn add(&mut self, at: Spot, cause: impl Into<String>, hint: impl Into<String>, remedy: Remedy) {
        if !self.broken.contains(&(at.file, at.start)) {
            self.list.push(Problem { at, cause: cause.into(), hint: hint.into(), remedy });
        }
    }

    /// Notes that a value is no TOML value: what follows from it is not told again.
    pub fn broken(&mut self, at: Spot) {
        self.broken.push((at.file, at.start));
    }

    /// Drops what was noted inside a section that is to go as a whole.
    pub fn forget(&mut self, extent: Spot) {
        self.list
            .retain(|Problem { at, .. }| at.file != extent.file || !(extent.start..extent.end).contains(&at.start));
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The report, in file and line order.
    pub fn report(mut self) -> Report {
        self.list.sort_by_key(|problem| problem.at);
        Report { sources: self.sources, problems: self.list }
    }
}

impl Report {
    /// By file and place; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The files that were read, in the order of `Spot::file`.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// A file's text with all hints that change it applied. Where two changes overlap, the first stands.
    pub fn mended(&self, file: u32) -> String {
        let edits = self.problems.iter().filter_map(|problem| match &problem.remedy {
            Remedy::Edits(edits) => Some(edits),
            _ => None,
        });
        let mut edits: Vec<&Edit> = edits.flatten().filter(|edit| edit.at.file == file).collect();
        edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
        edits.dedup();
        let text: &str = self.sources.get(file as usize).map_or("", |source| &source.text);
        let (mut out, mut done) = (String::with_capacity(text.len()), 0);
        for edit in edits {
            if edit.at.start >= done {
                out.push_str(text.get(done..edit.at.start).unwrap_or_default());
                out.push_str(&edit.text);
                done = edit.at.end;
            }
        }
        out.push_str(text.get(done..).unwrap_or_default());
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            let Some(source) = self.sources.get(problem.at.file as usize) else { continue };
            let place = Place::of(&source.text, problem.at);
            let (path, line) = (source.path.display(), place.line);
            writeln!(out, "{path}:{line}:{}: error: {}", place.column, redacted(&problem.cause))?;
            if !place.text.is_empty() {
                let (shown, before, width) = place.underlined();
                writeln!(out, "{line:>5} | {shown}")?;
                writeln!(out, "      | {}{}", " ".repeat(before), "^".repeat(width))?;
            }
            writeln!(out, "  hint: {}", redacted(&problem.hint))?;
        }
        let count = self.problems.len();
        writeln!(out, "{count} error{}", if count == 1 { "" } else { "s" })
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl std::error::Error for Report {}

/// Line and column, from 1, in characters; and the line.
struct Place<'a> {
    line: usize,
    column: usize,
    width: usize,
    text: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, at: Spot) -> Place<'a> {
        let start = floor(text, at.start);
        let before = text.get(..start).unwrap_or_default();
        let from = before.rfind('\n').map_or(0, |n| n + 1);
        let line = text.get(from..).unwrap_or_default().lines().next().unwrap_or_default();
        let until = floor(text, at.end.clamp(start, (from + line.len()).max(start)));
        let count = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().chars().count();
        Place {
            line: before.matches('\n').count() + 1,
            column: count(from..start) + 1,
            width: count(start..until).max(1),
            text: line,
        }
    }

    /// The line as shown, and how far in and how wide the mark is.
    fn underlined(&self) -> (String, usize, usize) {
        const SHOWN_MAX: usize = 200;
        let shown: String = masked(&self.text.replace('\t', " ")).chars().take(SHOWN_MAX).collect();
        let before = (self.column - 1).min(SHOWN_MAX);
        (shown, before, self.width.clamp(1, SHOWN_MAX))
    }
}

/// The nearest character border at or below `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// What common secrets begin with; more than a few characters after it are not shown.
const SECRET_STARTS: &[&str] = &["sk-", "fby_", "AIza", "eyJ", "ABSK", "ghp_"];

/// Of these, the ones that no name has in its middle: `task-runner` is no secret.
const SECRET_INSIDE: &[&str] = &["sk-ant-", "fby_", "AIza", "ghp_"];

/// Where in a word a secret begins, if one does.
fn secret_at(word: &str) -> Option<usize> {
    let inside = SECRET_INSIDE.iter().filter_map(|start| word.find(start)).min();
    let at = if looks_secret(word) { 0 } else { inside? };
    (word.len() - at >= 12).then_some(at)
}

/// Whether a text looks like a secret rather than like the name of one.
pub fn looks_secret(text: &str) -> bool {
    SECRET_STARTS.iter().any(|start| text.starts_with(start)) && text.len() >= 12
}

/// The text with every word that looks like a secret starred after its beginning; as long as before.
pub fn redacted(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
        out.push_str(before);
        let kept = secret_at(word).map_or(word.len(), |at| at + 6);
        out.extend(word.chars().enumerate().map(|(at, c)| if at < kept { c } else { '*' }));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Keys whose values are taken for secrets wherever they stand.
const SECRET_KEYS: &[&str] = &["value", "key", "api_key", "apikey", "secret", "password"];

/// A line of a file as it may be shown: `redacted`, and without the values of keys that hold secrets and without the
/// user part of URLs; as long as before.
fn masked(line: &str) -> String {
    let mut out: Vec<char> = redacted(line).chars().collect();
    let mut star = |from: usize, until: usize| {
        let (from, until) = (line.get(..from).map(|s| s.chars().count()), line.get(..until).map(|s| s.chars().count()));
        if let Some(range) = from.zip(until).and_then(|(from, until)| out.get_mut(from..until)) {
            range.fill('*');
        }
    };
    for (at, _) in line.match_indices('=') {
        let key = line.get(..at).unwrap_or_default().trim_end();
        let key = key.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let value = line.get(at + 1..).unwrap_or_default();
        let start = at + 1 + value.len() - value.trim_start().len();
        let text = line.get(start..).unwrap_or_default();
        if let Some(quote) = text.chars().next().filter(|c| SECRET_KEYS.contains(&key) && (*c == '"' || *c == '\'')) {
            let end = text.get(1..).and_then(|rest| rest.find(quote)).map_or(text.len(), |n| n + 1);
            star(start + 1, start + end);
        }
    }
    // A proxy's password may hold what ends an authority elsewhere, and its scheme may be missing.
    for (at, quote) in line.match_indices(['"', '\'']) {
        let before = line.get(..at).unwrap_or_default().trim_end().strip_suffix('=').unwrap_or_default().trim_end();
        let text = line.get(at + 1..).and_then(|text| text.split(quote).next()).unwrap_or_default();
        if let (Some(user), true) = (text.rfind('@'), before.ends_with("proxy") || before.ends_with("url")) {
            let start = text.get(..user).and_then(|text| text.find("://")).map_or(0, |at| at + 3);
            star(at + 1 + start, at + 1 + user);
        }
    }
    for (at, _) in line.match_indices("://") {
        let authority = line.get(at + 3..).unwrap_or_default();
        let authority = authority.split(['/', '"', '\'', ' ']).next().unwrap_or_default();
        if let Some(user) = authority.rfind('@') {
            star(at + 3, at + 3 + user);
        }
    }
    out.into_iter().collect()
}

/// The one of `known` that was probably meant, if any is near enough: a third of the letters may be wrong.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    let scored = known.into_iter().map(|name| (apart(&typed, &name.to_ascii_lowercase()), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.chars().count().max(typed.chars().count()) / 3).max(1)).then_some(name)
}

/// How far two names are apart; one with a few letters more at its end (`logging` for `log`) is near.
fn apart(a: &str, b: &str) -> usize {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let ending = short.len() >= 3 && long.starts_with(short) && (1..=4).contains(&(long.len() - short.len()));
    if ending { 1 } else { distance(a, b) }
}

/// Edits between two texts, a swap of neighbours counting one (optimal string alignment). Texts over 64 characters are
/// cut: names are shorter.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let cell = |up: usize, left: usize| -> usize {
                rows.get((i + 1).wrapping_sub(up))
                    .and_then(|r| r.get((j + 1).wrapping_sub(left)))
                    .copied()
                    .unwrap_or(usize::MAX / 2)
            };
            let left = row.last().copied().unwrap_or(0);
            let mut best = (cell(1, 0) + 1).min(left + 1).min(cell(1, 1) + usize::from(ca != cb));
            if i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca) {
                best = best.min(cell(2, 2) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(distance("upstrems", "upstreams"), 1);
        assert_eq!(distance("modles", "models"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("antropic", ["bedrock", "anthropic"]), Some("anthropic"));
        assert_eq!(nearest("Names", ["name"]), Some("name"));
        assert_eq!(nearest("logging", ["model", "log"]), Some("log"));
        assert_eq!(nearest("xyz", ["name", "targets"]), None);
    }

    #[test]
    fn secrets_are_starred() {
        assert_eq!(redacted("env = \"sk-ant-api03-ab\" # x"), "env = \"sk-ant*********\" # x");
        assert_eq!(redacted("fby_0123456789"), "fby_01********");
        assert_eq!(redacted("000sk-ant-api03-ab"), "000sk-ant*********", "pasted into another word");
        assert_eq!(redacted("task-runner-of-payments"), "task-runner-of-payments");
        assert_eq!(redacted("sk-short, café"), "sk-short, café");
        assert_eq!(masked("{ é, value = \"abc\", key='d' }"), "{ é, value = \"***\", key='*' }");
        assert_eq!(masked("api_key = \"abc"), "api_key = \"***");
        assert_eq!(masked("u = \"https://me:pw@host/a@b\""), "u = \"https://*****@host/a@b\"");
        assert_eq!(masked("proxy = \"me:p/w@host:1\""), "proxy = \"******@host:1\"");
        assert_eq!(masked("{ url='http://me:p@w/@h' }"), "{ url='http://*******@h' }");
        assert_eq!(masked("name = \"abc\" # key = none"), "name = \"abc\" # key = none");
    }

    #[test]
    fn places_count_characters_and_stay_in_the_text() {
        let text = "a = 1\n\u{fc}b = \"x\"\n";
        let at = |start, end| Place::of(text, Spot { file: 0, start, end });
        assert_eq!((at(9, 10).line, at(9, 10).column), (2, 3));
        assert_eq!((at(999, 1000).line, at(999, 1000).column), (3, 1));
        assert_eq!(at(7, 9).column, 1, "inside a character");
        assert_eq!(at(2, 400).width, 3, "to the end of the line");
    }
}
