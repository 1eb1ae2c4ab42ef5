//! What a configuration was read from, so that it can be told whether that has changed: every file and directory that
//! was asked for, and one hash over all answers, failures among them. The hash is over secrets too: it is compared in
//! this process, and shown to nobody.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::diagnose::Report;
use super::host::{Host, Machine};
use crate::base::Wall;
use crate::table::Table;

/// Where a running process's configuration comes from, to be read as often as it takes.
#[derive(Clone)]
pub struct Source {
    /// The main file.
    pub path: PathBuf,
    /// Where variables come from.
    pub env: fn(&str) -> Option<String>,
    /// Stands in for the address of the only `[listen]`, if there is one only.
    pub listen: Option<SocketAddr>,
}

/// One reading.
pub struct Reading {
    /// What it came to.
    pub table: Result<Table, Report>,
    /// What it was read from.
    pub trace: Trace,
}

/// What was read, and a hash of what was found.
#[derive(Clone, Default)]
pub struct Trace {
    steps: Vec<Step>,
    hash: [u8; 32],
}

#[derive(Clone)]
enum Step {
    File(PathBuf, u64),
    Directory(PathBuf),
}

impl Source {
    /// Reads and compiles it.
    pub fn read(&self) -> Reading {
        let machine = Machine { env: &self.env };
        let recorder = Recorder::new(&machine);
        let mut table = super::load_from(&self.path, &recorder);
        if let (Some(address), Ok(table)) = (self.listen, &mut table)
            && let [listener] = table.listeners.as_mut_slice()
        {
            listener.address = address;
        }
        Reading { table, trace: recorder.trace() }
    }

    /// What is found now where `trace` was read from.
    pub fn again(&self, trace: &Trace) -> Trace {
        trace.again(&Machine { env: &self.env })
    }
}

impl Trace {
    /// The files that were asked for, as they were named, whether or not they were there.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.steps.iter().filter_map(|step| match step {
            Step::File(path, _) => Some(path.as_path()),
            Step::Directory(_) => None,
        })
    }

    /// The directories that were listed.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.steps.iter().filter_map(|step| match step {
            Step::File(..) => None,
            Step::Directory(path) => Some(path.as_path()),
        })
    }

    /// Whether both found the same in the same places.
    pub fn found_the_same(&self, other: &Trace) -> bool {
        self.hash == other.hash
    }

    /// Asks for the same things once more.
    fn again(&self, host: &dyn Host) -> Trace {
        let recorder = Recorder::new(host);
        for step in &self.steps {
            match step {
                Step::File(path, bytes_max) => drop(recorder.read(path, *bytes_max).map(Zeroizing::new)),
                Step::Directory(path) => drop(recorder.list(path)),
            }
        }
        recorder.trace()
    }
}

/// Passes every question on, and keeps book.
struct Recorder<'h> {
    host: &'h dyn Host,
    book: RefCell<(Vec<Step>, Context)>,
}

impl<'h> Recorder<'h> {
    fn new(host: &'h dyn Host) -> Recorder<'h> {
        Recorder { host, book: RefCell::new((Vec::new(), Context::new(&SHA256))) }
    }

    fn note(&self, step: Step, found: Result<&[&[u8]], io::ErrorKind>) {
        let mut book = self.book.borrow_mut();
        let (steps, hash) = &mut *book;
        match found {
            Ok(parts) => {
                // With lengths, so that no two findings run together alike.
                hash.update(&(parts.len() as u64).to_le_bytes());
                for part in parts {
                    hash.update(&(part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
            }
            Err(kind) => hash.update(format!("\u{0}{kind:?}").as_bytes()),
        }
        steps.push(step);
    }

    fn trace(self) -> Trace {
        let (steps, hash) = self.book.into_inner();
        let mut trace = Trace { steps, hash: [0; 32] };
        trace.hash.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        trace
    }
}

impl Host for Recorder<'_> {
    fn var(&self, name: &str) -> Option<String> {
        self.host.var(name)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let read = self.host.read(path, bytes_max);
        let step = Step::File(path.to_owned(), bytes_max);
        match &read {
            Ok(bytes) => self.note(step, Ok(&[bytes])),
            Err(error) => self.note(step, Err(error.kind())),
        }
        read
    }

    fn read_apart(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.host.read_apart(path, bytes_max)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let list = self.host.list(directory);
        let step = Step::Directory(directory.to_owned());
        match &list {
            Ok(names) => self.note(step, Ok(&names.iter().map(String::as_bytes).collect::<Vec<_>>())),
            Err(error) => self.note(step, Err(error.kind())),
        }
        list
    }

    fn is_open_to_all(&self, path: &Path) -> bool {
        self.host.is_open_to_all(path)
    }

    fn now(&self) -> Wall {
        self.host.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GOOD: &str = "include = [\"keys.d/*.toml\"]\n[listen]\naddress = \"127.0.0.1:1\"\n[[upstream]]\nname = \"a\"\n\
                        provider = \"anthropic\"\ncredentials = [{ file = \"secret\" }]\n";

    #[test]
    fn every_file_that_counts_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("keys.d")).unwrap();
        fs::write(at("main.toml"), GOOD).unwrap();
        fs::write(at("secret"), "sk-1").unwrap();
        let source = Source { path: at("main.toml"), env: |_| None, listen: Some(([127, 0, 0, 1], 7).into()) };
        let is_as_before = |trace: &Trace| source.again(trace).found_the_same(trace);
        let first = source.read();
        assert_eq!(first.table.as_ref().map(|table| table.listeners[0].address.port()).ok(), Some(7));
        assert!(is_as_before(&first.trace));
        assert_eq!(first.trace.files().collect::<Vec<_>>(), [at("main.toml"), at("secret")]);
        assert_eq!(first.trace.directories().collect::<Vec<_>>(), [at("keys.d")]);
        let changes: [(&str, &str); 4] =
            [("secret", "sk-2"), ("keys.d/new.toml", ""), ("keys.d/new.toml", "# x"), ("main.toml", "[listen")];
        let mut last = first.trace;
        for (name, text) in changes {
            fs::write(at(name), text).unwrap();
            assert!(!is_as_before(&last), "{name} {text}");
            last = source.read().trace;
            assert!(is_as_before(&last));
        }
        assert!(source.read().table.is_err());
        fs::remove_file(at("main.toml")).unwrap();
        assert!(!is_as_before(&last), "a missing file is a change too");
    }
}
