//! `[[model]]`: names, and where they lead.

use std::{collections::HashMap, sync::Arc};

use crate::base::UpstreamSlot;
use crate::table::pattern::MODEL_BYTES_MAX;
use crate::table::{Model, Pattern, SaidCan, TARGETS_MAX, Target};

use super::super::diagnose::{At, Edit, Problems, Remedy};
use super::super::file::{self, File};
use super::super::quickstart::every_model;
use super::super::reader::{entry_removal, extent, insertion, item_removal};
use super::super::syntax::line_at;
use super::{Names, quoted, within};

pub(super) fn compile(problems: &mut Problems, file: &File, upstreams: &Names) -> Vec<Model> {
    if file.models.is_empty() {
        return without_models(problems, file, upstreams);
    }
    let mut models: Vec<Model> = Vec::new();
    for (at, written) in file.models.iter().enumerate() {
        let name = name(problems, written, file.models.get(..at).unwrap_or_default());
        shadowed(problems, &name, written, &models, &file.models);
        let mut model = Model::new(name, targets(problems, written, upstreams));
        model.fallback = written.fallback.as_ref().is_none_or(|flag| flag.value);
        models.push(model);
    }
    aliases(problems, file, &mut models);
    models
}

/// Gives each model its aliases: other ids for the same thing, each of one model only.
fn aliases(problems: &mut Problems, file: &File, models: &mut [Model]) {
    let names = models.iter().map(|model| Arc::clone(model.name.text()));
    let mut owners: HashMap<Arc<str>, Arc<str>> = names.map(|name| (Arc::clone(&name), name)).collect();
    for (model, written) in models.iter_mut().zip(&file.models) {
        let name = Arc::clone(model.name.text());
        let means_nothing = !model.name.is_exact() && model.targets.iter().any(|target| target.model.is_none());
        for At { value, at } in &written.aliases {
            let (cause, hint) = match owners.get(value.as_str()) {
                _ if !is_one_id(value) => {
                    (format!("`{value}` is not one model id"), "remove it; globs belong into `name`")
                }
                Some(owner) if *owner == name => (format!("`{value}` is one of its names already"), "remove it"),
                Some(owner) => {
                    (format!("`{value}` stands for `{owner}` already, and an id has one meaning"), "remove it")
                }
                None if means_nothing => (
                    format!("`{value}` stands for every id of `{name}`, so that nobody knows which one to ask for"),
                    "give each target the `model` that is meant, or remove it",
                ),
                None => {
                    let alias: Arc<str> = value.as_str().into();
                    owners.insert(Arc::clone(&alias), Arc::clone(&name));
                    model.aliases.push(alias);
                    continue;
                }
            };
            let remedy = item_removal(problems, *at);
            problems.add(*at, cause, hint, remedy);
        }
    }
}

/// Whether a text can be asked for as a model.
fn is_one_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MODEL_BYTES_MAX && id.bytes().all(|b| b.is_ascii_graphic() && !b"*\"\\".contains(&b))
}

/// Every id goes to the only upstream. Of several, none is the obvious one.
fn without_models(problems: &mut Problems, file: &File, upstreams: &Names) -> Vec<Model> {
    if let Some(second) = file.upstreams.get(1) {
        let named = upstreams.list.iter().filter(|name| !name.is_empty()).enumerate();
        let targets: Vec<String> =
            named.map(|(at, name)| format!("{{ upstream = {}, tier = {} }}", quoted(name), at + 1)).collect();
        let section = format!("[[model]]\nname = \"*\"\ntargets = [{}]", targets.join(", "));
        let remedy = problems.append(0, &section);
        problems.add(
            second.at,
            "with several upstreams and no [[model]], nothing says where a model is to be had",
            "add a [[model]] with its targets",
            remedy,
        );
    }
    vec![every_model()]
}

fn name(problems: &mut Problems, written: &file::Model, before: &[file::Model]) -> Pattern {
    let Some(At { value, at }) = &written.name else { return Pattern::new("") };
    let good = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if value.is_empty() || value.len() > MODEL_BYTES_MAX || !value.chars().all(good) {
        let clean: String = value.trim().chars().map(|c| if good(c) { c } else { '-' }).take(MODEL_BYTES_MAX).collect();
        let clean = if clean.is_empty() { "*".to_owned() } else { clean };
        problems.add(
            *at,
            format!("`{value}` is not a model id or a glob with `*`"),
            format!("write {}", quoted(&clean)),
            Remedy::replace(*at, quoted(&clean)),
        );
    }
    if before.iter().any(|other| other.name.as_ref().is_some_and(|name| name.value == *value)) {
        problems.add(
            *at,
            format!("a second [[model]] is named `{value}`"),
            "remove it, and give the first all targets",
            Remedy::replace(extent(problems, written.at), ""),
        );
        return Pattern::new("");
    }
    Pattern::new(value.as_str())
}

/// A glob below a wider one is never reached.
fn shadowed(problems: &mut Problems, name: &Pattern, written: &file::Model, models: &[Model], all: &[file::Model]) {
    let Some(text) = &written.name else { return };
    let wider = models.iter().position(|model| !name.is_exact() && !model.name.is_exact() && model.name.covers(name));
    let Some(first) = wider.and_then(|at| all.get(at)) else { return };
    let (from, moved) = (extent(problems, written.at), problems.text(written.at.file));
    let moved = moved.get(from.start..from.end).unwrap_or_default().trim_end();
    let mut to = first.at;
    to.start = line_at(&problems.text(to.file), to.start).start;
    to.end = to.start;
    let edits = vec![Edit { at: to, text: format!("{moved}\n\n") }, Edit { at: from, text: String::new() }];
    let wider = first.name.as_ref().map_or("", |name| name.value.as_str());
    problems.add(
        text.at,
        format!("`{}` is never reached: `{wider}` stands above it and takes all its names", text.value),
        "put the narrower [[model]] first",
        Remedy::Edits(edits),
    );
}

fn targets(problems: &mut Problems, written: &file::Model, upstreams: &Names) -> Vec<Target> {
    if written.targets.is_empty() && !written.targets_told {
        let first = upstreams.list.iter().find(|name| !name.is_empty()).map_or("anthropic", |name| name);
        let value = format!("[{{ upstream = {} }}]", quoted(first));
        let remedy = match written.targets_at {
            Some(at) => Remedy::replace(at, value.clone()),
            None => insertion(problems, written.at, "targets", &value),
        };
        problems.add(
            written.targets_at.unwrap_or(written.at),
            "[[model]] has no `targets`",
            format!("add `targets = {value}`"),
            remedy,
        );
    }
    let mut targets: Vec<Target> = Vec::new();
    for (at, entry) in written.targets.iter().enumerate() {
        let Some(target) = target(problems, entry, upstreams) else { continue };
        let repeated = targets.iter().any(|other| other.upstream == target.upstream && other.model == target.model);
        if repeated || at >= TARGETS_MAX {
            let cause = if repeated {
                "the same target stands here twice".to_owned()
            } else {
                format!("a model has at most {TARGETS_MAX} targets")
            };
            let remedy = item_removal(problems, entry.at);
            problems.add(entry.at, cause, "remove it", remedy);
        } else {
            targets.push(target);
        }
    }
    targets
}

fn target(problems: &mut Problems, written: &file::Target, upstreams: &Names) -> Option<Target> {
    if let Some(At { value, at }) = &written.model
        && !is_one_id(value)
    {
        let remedy = entry_removal(problems, *at);
        problems.add(
            *at,
            format!("`{value}` is not one model id, which is what the upstream is asked for"),
            "write the id, or remove `model` to ask for what the client asked for",
            remedy,
        );
    }
    let tier = written.tier.as_ref().map_or(1, |number| within(problems, "tier", number, 1, 255));
    let weight = written.weight.as_ref().map_or(1, |number| within(problems, "weight", number, 1, 1_000_000));
    let upstream = UpstreamSlot(upstreams.find(problems, written.upstream.as_ref()?, written.at)?);
    let model = written.model.as_ref().map(|id| id.value.as_str().into());
    let flag = |written: &Option<At<bool>>| written.as_ref().map(|flag| flag.value);
    let said = SaidCan {
        window_max: written.window.as_ref().map(|n| within(problems, "window", n, 1_000, 100_000_000) as u64),
        images: flag(&written.images),
        tools: flag(&written.tools),
        thinking: flag(&written.thinking),
    };
    Some(Target { model, tier: tier as u8, weight: weight as u32, said, ..Target::to(upstream) })
}
