//! `[[team]]` and `[[key]]`.

use std::collections::HashMap;
use std::fmt::Write;

use jiff::tz::TimeZone;

use crate::base::{CallerSlot, TeamSlot};
use crate::table::{Access, Caller, Class, Digests, Expiry, Team};

use super::super::diagnose::{At, Problems, Remedy, looks_secret};
use super::super::file::{self, File};
use super::super::reader::{entry_removal, extent, item_removal};
use super::super::value;
use super::access::{self, Scope};
use super::{Names, nearest, quoted, word};

pub(super) fn compile(
    problems: &mut Problems,
    file: &File,
    scope: &Scope<'_>,
    zone: &TimeZone,
) -> (Vec<Team>, Vec<Caller>, Digests) {
    let team_names = Names::of(problems, "team", file.teams.iter().map(|team| team.name.as_ref()));
    let mut teams = Vec::new();
    for (written, name) in file.teams.iter().zip(&team_names.list) {
        let access = access::compile(problems, &written.access, scope);
        access::no_way_around(problems, access.models.is_some(), &written.access.passthrough);
        teams.push(Team { name: name.clone(), access });
    }
    let names = Names::of(problems, "key", file.keys.iter().map(|key| key.name.as_ref()));
    let mut keys = Keys { scope, zone, teams: &teams, team_names: &team_names, digests: Digests::default() };
    let mut places: HashMap<CallerSlot, String> = HashMap::new();
    let mut callers = Vec::new();
    for (at, written) in file.keys.iter().enumerate() {
        let slot = CallerSlot(at as u32);
        places.insert(slot, names.name(slot.0).to_string());
        keys.hashes(problems, written, slot, &places);
        callers.push(keys.caller(problems, written, file, names.name(slot.0)));
    }
    let digests = keys.digests;
    (teams, callers, digests)
}

struct Keys<'a> {
    scope: &'a Scope<'a>,
    zone: &'a TimeZone,
    teams: &'a [Team],
    team_names: &'a Names,
    digests: Digests,
}

impl Keys<'_> {
    fn caller(&self, problems: &mut Problems, written: &file::Key, file: &File, name: std::sync::Arc<str>) -> Caller {
        let team = written.team.as_ref().and_then(|team| self.team(problems, team));
        let access = access::compile(problems, &written.access, self.scope);
        let bounds = team.and_then(|slot| self.teams.get(slot.index())).map(|team| &team.access);
        within_team(problems, written, &access, bounds);
        let team_written = team.and_then(|slot| file.teams.get(slot.index())).map(|team| &team.access);
        let bounded = access.models.is_some() || bounds.is_some_and(|bounds| bounds.models.is_some());
        access::no_way_around(problems, bounded, &written.access.passthrough);
        if let Some(team_written) = team_written.filter(|_| bounds.is_some_and(|bounds| bounds.models.is_none())) {
            access::no_way_around(problems, access.models.is_some(), &team_written.passthrough);
        }
        let classes = [("interactive", Class::Interactive), ("background", Class::Background), ("ci", Class::Ci)];
        Caller {
            name,
            owner: written.owner.as_ref().map(|owner| owner.value.as_str().into()),
            team,
            access,
            expires: written.expires.as_ref().and_then(|text| self.expiry(problems, text)),
            disabled: written.disabled.as_ref().is_some_and(|flag| flag.value),
            class: written.class.as_ref().and_then(|c| word(problems, "class", c, &classes)).unwrap_or_default(),
            fallback: written.fallback.as_ref().is_none_or(|flag| flag.value),
        }
    }

    /// A key that names a team which is nowhere near any other's name wants a team of that name.
    fn team(&self, problems: &mut Problems, wanted: &At<String>) -> Option<TeamSlot> {
        let known = self.team_names.slots.contains_key(wanted.value.as_str());
        let near = nearest(&wanted.value, self.team_names.list.iter().map(|name| &**name));
        if !known && near.is_none_or(str::is_empty) {
            let remedy = problems.append(0, &format!("[[team]]\nname = {}", quoted(&wanted.value)));
            let cause = format!("there is no team named `{}`", wanted.value);
            problems.add(wanted.at, cause, "add the [[team]], or remove `team`", remedy);
            return None;
        }
        self.team_names.find(problems, wanted, wanted.at).map(TeamSlot)
    }

    fn expiry(&self, problems: &mut Problems, written: &At<String>) -> Option<Expiry> {
        match value::expiry(&written.value, self.zone) {
            Ok((at, day)) => Some(Expiry { at, day: day.into() }),
            Err(fault) => {
                problems.add(
                    written.at,
                    format!("`expires` is `{}`, which {}", written.value, fault.cause),
                    format!("write {}", fault.instead),
                    Remedy::replace(written.at, fault.instead),
                );
                None
            }
        }
    }

    fn hashes(
        &mut self,
        problems: &mut Problems,
        written: &file::Key,
        slot: CallerSlot,
        names: &HashMap<CallerSlot, String>,
    ) {
        let name = written.name.as_ref().map_or("NAME", |name| name.value.as_str());
        let make = format!("run `forebay keys new --name {name}` and put its block here");
        let hashes = written.hashes.as_deref().unwrap_or_default();
        if hashes.is_empty() && !written.hash_told {
            let remedy = Remedy::replace(extent(problems, written.at), "");
            problems.add(written.at, "[[key]] has no `hash`", make.clone(), remedy);
        }
        for hash in hashes {
            let digest = match value::hash(&hash.value) {
                Ok(digest) => digest,
                Err(fault) => {
                    bad_hash(problems, written, hash, &fault, &make);
                    continue;
                }
            };
            let Some(other) = self.digests.add(digest, slot) else { continue };
            let (cause, remedy) = if other == slot {
                ("the same hash stands here twice".to_owned(), item_removal(problems, hash.at))
            } else {
                let other = names.get(&other).map_or("", String::as_str);
                let cause = format!("the key `{other}` has this hash already: one secret would be two callers");
                (cause, Remedy::replace(extent(problems, written.at), ""))
            };
            problems.add(hash.at, cause, format!("remove it, or {make}"), remedy);
        }
    }
}

/// Lists that leave nothing open together.
fn within_team(problems: &mut Problems, written: &file::Key, access: &Access, team: Option<&Access>) {
    let Some(team) = team else { return };
    if let (Some(own), Some(open), Some(at)) = (&access.upstreams, &team.upstreams, written.access.upstreams_at)
        && !own.is_empty()
        && !open.is_empty()
        && !own.iter().any(|slot| open.contains(slot))
    {
        let remedy = entry_removal(problems, at);
        problems.add(at, "none of these `upstreams` is open to the key's team", "remove `upstreams`", remedy);
    }
    if let (Some(own), Some(open), Some(at)) = (&access.models, &team.models, written.access.models_at)
        && !own.is_empty()
        && !open.is_empty()
        && !own.iter().any(|a| open.iter().any(|b| a.meet(b).is_some()))
    {
        let remedy = entry_removal(problems, at);
        problems.add(at, "none of these `models` is open to the key's team", "remove `models`", remedy);
    }
}

fn bad_hash(problems: &mut Problems, key: &file::Key, hash: &At<String>, fault: &value::Fault, make: &str) {
    if looks_secret(&hash.value) {
        let hex = sha256(hash.value.trim());
        problems.add(
            hash.at,
            "`hash` holds a key in clear; only its SHA-256 belongs here",
            format!("write {}; better, make a new key, because this one has been written down", quoted(&hex)),
            Remedy::replace(hash.at, quoted(&hex)),
        );
    } else if fault.instead.is_empty() {
        let remedy = Remedy::replace(extent(problems, key.at), "");
        problems.add(hash.at, format!("`hash` {}", fault.cause), make, remedy);
    } else {
        let good = quoted(&fault.instead);
        problems.add(
            hash.at,
            format!("`hash` {}", fault.cause),
            format!("write {good}"),
            Remedy::replace(hash.at, good),
        );
    }
}

fn sha256(key: &str) -> String {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    sum.as_ref().iter().fold("sha256:".to_owned(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
