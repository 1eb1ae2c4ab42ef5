//! As written -> as meant. Every part goes on after an error, so that one run tells them all; a `Table` comes out only
//! when there was none.

mod access;
mod answers;
mod callers;
pub(super) mod egress;
mod models;
mod places;
mod settings;
mod upstreams;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::table::{Org, Slots, Table};

pub(super) use upstreams::plain;

use super::diagnose::{At, Problems, Remedy, Spot, nearest};
use super::file::File;
use super::host::Host;
use super::prices;

/// Longest name of anything, in bytes: names go into headers and metrics.
const NAME_BYTES_MAX: usize = 64;

/// Compiles; problems are added to `problems`, and then there is no table.
pub fn compile(problems: &mut Problems, host: &dyn Host, file: &mut File) -> Option<Table> {
    let later = upstreams::take_later(problems, &mut file.upstreams);
    let zone = settings::zone(problems, file.org.timezone.as_ref());
    let places = places::compile(problems, host, file);
    let upstreams = upstreams::compile(problems, host, &file.upstreams);
    let mut names = Names::of(problems, "upstream", file.upstreams.iter().map(|upstream| upstream.name.as_ref()));
    names.later = later;
    let models = models::compile(problems, file, &names);
    let scope = access::Scope { upstreams: &names, models: &models };
    let (teams, callers, digests) = callers::compile(problems, file, &scope, &zone);
    let (bounds, patience) = (settings::bounds(problems, &file.bounds), settings::patience(problems, &file.timeouts));
    upstreams::within_patience(problems, &file.upstreams, &upstreams, &patience);
    let (runtime, log) = (settings::runtime(problems, file), settings::log(problems, file.log_format.as_ref()));
    let prices = prices::compile(problems, &file.prices);
    let contact = settings::contact(problems, file.org.contact.as_ref());
    if !problems.is_empty() {
        return None;
    }
    Some(Table {
        generation: 1,
        org: Org {
            contact,
            timezone: file.org.timezone.as_ref().map_or("UTC".into(), |zone| zone.value.as_str().into()),
        },
        listeners: places.listeners,
        admin: places.admin,
        health: places.health,
        upstreams,
        models,
        teams,
        callers,
        digests,
        bounds,
        patience,
        runtime,
        log,
        prices,
        slots: Slots::default(),
    })
}

/// The names of one kind of thing, in file order, and their slots.
struct Names {
    noun: &'static str,
    list: Vec<Arc<str>>,
    slots: HashMap<Arc<str>, u32>,
    /// Names of things that this version does not have.
    later: Vec<String>,
}

impl Names {
    /// Checks that names are well-formed and unique. A missing one has been told and gets an empty name.
    fn of<'a>(
        problems: &mut Problems,
        noun: &'static str,
        written: impl Iterator<Item = Option<&'a At<String>>>,
    ) -> Names {
        let mut names = Names { noun, list: Vec::new(), slots: HashMap::new(), later: Vec::new() };
        for written in written {
            let slot = names.list.len() as u32;
            let Some(At { value, at }) = written else {
                names.list.push("".into());
                continue;
            };
            check_name(problems, noun, value, *at);
            let name: Arc<str> = value.as_str().into();
            if names.slots.contains_key(&name) {
                let other = format!("{value}-{}", slot + 1);
                problems.add(
                    *at,
                    format!("a second {noun} is named `{value}`"),
                    format!("name it `{other}`, or remove it"),
                    Remedy::replace(*at, quoted(&other)),
                );
            } else {
                names.slots.insert(name.clone(), slot);
            }
            names.list.push(name);
        }
        names
    }

    /// The slot of a name that is referred to by the item at `item` of a list. An unknown one is told, and what was
    /// probably meant is returned.
    fn find(&self, problems: &mut Problems, wanted: &At<String>, item: Spot) -> Option<u32> {
        if let Some(slot) = self.slots.get(wanted.value.as_str()) {
            return Some(*slot);
        }
        if self.later.contains(&wanted.value) {
            let remedy = super::reader::item_removal(problems, item);
            problems.add(
                wanted.at,
                format!("the {} `{}` is not in this version", self.noun, wanted.value),
                "remove it",
                remedy,
            );
            return None;
        }
        let known = || self.list.iter().map(|name| &**name).filter(|name| !name.is_empty());
        let meant = nearest(&wanted.value, known()).or_else(|| known().next())?;
        let all: Vec<&str> = known().take(12).collect();
        problems.add(
            wanted.at,
            format!("there is no {} named `{}`", self.noun, wanted.value),
            format!("write {}; there is {}", quoted(meant), all.join(", ")),
            Remedy::replace(wanted.at, quoted(meant)),
        );
        self.slots.get(meant).copied()
    }

    fn name(&self, slot: u32) -> Arc<str> {
        self.list.get(slot as usize).cloned().unwrap_or_default()
    }
}

/// Names go into headers, logs and metrics.
fn check_name(problems: &mut Problems, noun: &str, name: &str, at: Spot) {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_@+".contains(c);
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(good) {
        return;
    }
    let clean: String = name.trim().chars().map(|c| if good(c) { c } else { '-' }).take(NAME_BYTES_MAX).collect();
    let clean = if clean.is_empty() { format!("{noun}-1") } else { clean };
    problems.add(
        at,
        format!("`{name}` is not a name: letters, digits and `. - _ @ +`, at most {NAME_BYTES_MAX}"),
        format!("write {}", quoted(&clean)),
        Remedy::replace(at, quoted(&clean)),
    );
}

/// A text as a TOML string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A path as written, seen from the file that it is written in.
fn beside(problems: &Problems, written: &At<String>) -> PathBuf {
    problems.path(written.at.file).parent().unwrap_or(Path::new("")).join(&written.value)
}

/// One of a few words. An unknown one is told, and what was probably meant is returned.
fn word<T: Copy>(problems: &mut Problems, key: &str, written: &At<String>, words: &[(&str, T)]) -> Option<T> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == written.value) {
        return Some(*meaning);
    }
    let near = nearest(&written.value, words.iter().map(|(word, _)| *word));
    let (meant, meaning) = words.iter().find(|(word, _)| Some(*word) == near).or(words.first())?;
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    problems.add(
        written.at,
        format!("`{key}` is `{}`, and must be one of {}", written.value, all.join(", ")),
        format!("write {}", quoted(meant)),
        Remedy::replace(written.at, quoted(meant)),
    );
    Some(*meaning)
}

/// A number within bounds. One outside is told and clamped.
fn within(problems: &mut Problems, key: &str, written: &At<i64>, least: i64, most: i64) -> i64 {
    let good = written.value.clamp(least, most);
    if good != written.value {
        problems.add(
            written.at,
            format!("`{key}` is not in {least}..={most}"),
            format!("write {good}"),
            Remedy::replace(written.at, good.to_string()),
        );
    }
    good
}
