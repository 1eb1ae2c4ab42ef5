//! The properties of `fuzz/`, without a fuzzer: each holds for every file of its corpus, and for mutations of them that a
//! seed makes. Longer runs: `FUZZ_MUTATIONS=100000 cargo test --test fuzz`, or `fuzz/run` with cargo-fuzz.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // this is a test

#[path = "../fuzz/properties/mod.rs"]
mod properties;

use forebay::base::Rng;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Mutations per property in an ordinary run.
const MUTATIONS: u64 = 400;
/// All corpora together stay small enough to be read by people.
const CORPORA_BYTES_MAX: u64 = 200 * 1024;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The corpus of that name: file names and contents, sorted.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = corpora().join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Holds a property; where it breaks, the bytes are told, so that they can be put into the corpus.
fn hold(name: &str, origin: &str, bytes: &[u8]) {
    let held = catch_unwind(AssertUnwindSafe(|| properties::hold(name, bytes))).is_ok();
    assert!(held, "`{name}` does not hold for {origin}: {}", bytes.escape_ascii());
}

/// One of the changes that find most: bytes flipped, gone, doubled or taken from elsewhere.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Rng) {
    const TELLING: &[u8] = b"\r\n: ,;{}[]\"\\=#%0f\0\xff\t/?";
    let at = dice.below(bytes.len() as u64 + 1) as usize;
    let length = (dice.below(12) as usize).min(bytes.len() - at);
    match dice.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 => bytes.insert(at, TELLING[dice.below(TELLING.len() as u64) as usize]),
        2 => drop(bytes.drain(at..at + length)),
        3 => {
            let copy = bytes[at..at + length].to_vec();
            bytes.splice(at..at, copy);
        }
        4 if at < bytes.len() => bytes[at] = TELLING[dice.below(TELLING.len() as u64) as usize],
        _ => {
            let from = dice.below(other.len() as u64 + 1) as usize;
            let taken = &other[from..(from + 24).min(other.len())];
            bytes.splice(at..at + length, taken.iter().copied());
        }
    }
}

/// Holds one property over its corpus and its mutations.
fn run(name: &str) {
    let files = corpus(name);
    assert!(files.len() >= 5, "{} files are no corpus of `{name}`", files.len());
    for (file, bytes) in &files {
        hold(name, file, bytes);
    }
    let mutations = std::env::var("FUZZ_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    let mut dice = Rng(name.len() as u64);
    let pick = |dice: &mut Rng| &files[dice.below(files.len() as u64) as usize];
    for _ in 0..mutations {
        let (file, bytes) = pick(&mut dice);
        let (mut bytes, changes) = (bytes.clone(), 1 + dice.below(4));
        for _ in 0..changes {
            let other = &pick(&mut dice).1;
            mutate(&mut bytes, other, &mut dice);
        }
        hold(name, &format!("a mutation of {file}"), &bytes);
    }
}

#[test]
fn every_property_has_a_target_and_a_corpus() {
    let mut names: Vec<String> =
        fs::read_dir(corpora()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut known: Vec<&str> = properties::PROPERTIES.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(names, known);
    let manifest = include_str!("../fuzz/Cargo.toml");
    let bytes: u64 = known.iter().flat_map(|name| corpus(name)).map(|(_, bytes)| bytes.len() as u64).sum();
    assert!(bytes <= CORPORA_BYTES_MAX, "the corpora have {bytes} bytes");
    for name in known {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "`{name}` has no target");
    }
}

#[test]
fn requests() {
    run("request");
}

#[test]
fn answers() {
    run("answer");
}

#[test]
fn bodies() {
    run("body");
}

#[test]
fn events() {
    run("events");
}

#[test]
fn fields() {
    run("fields");
}

#[test]
fn configs() {
    run("config");
}

#[test]
fn sessions() {
    run("session");
}

#[test]
fn splices() {
    run("splice");
}
