//! How the ways of models have changed: which names lead elsewhere, to whom they fall, and which have lost the second
//! target that a failure would fall over to.

use super::diff::{Changes, Effect};
use super::{ModelMeaning, TargetMeaning};
use crate::table::Pattern;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

pub(super) fn changes(out: &mut Changes, old: &[ModelMeaning], new: &[ModelMeaning]) {
    let by_name = |models| -> BTreeMap<&str, &ModelMeaning> { named(models).collect() };
    let (before, after) = (by_name(old), by_name(new));
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        match (before.get(name), after.get(name)) {
            (Some(ModelMeaning { targets, .. }), None) => {
                let falls = taker(new, name).map_or_else(
                    || "; its names are refused".to_owned(),
                    |other| format!("; its names go by `{}` now: {}", other.name, way(&other.targets)),
                );
                out.push(Effect::Less, format!("model `{name}` is removed (it led to {}){falls}", way(targets)));
            }
            (None, Some(ModelMeaning { targets, .. })) => {
                let taken = taker(old, name).map_or_else(String::new, |other| {
                    format!("; its names went by `{}` before: {}", other.name, way(&other.targets))
                });
                out.push(Effect::More, format!("model `{name}` is added: {}{taken}{}", way(targets), alone(targets)));
            }
            (Some(from), Some(to)) => model(out, from, to),
            (None, None) => {}
        }
    }
    order(out, old, new);
}

fn named(models: &[ModelMeaning]) -> impl Iterator<Item = (&str, &ModelMeaning)> {
    models.iter().map(|model| (model.name.as_str(), model))
}

fn model(out: &mut Changes, from: &ModelMeaning, to: &ModelMeaning) {
    // All fields are named here, so that a new one does not compile before it is compared.
    let ModelMeaning { name, aliases, targets: ways, fallback } = to;
    targets(out, name, &from.targets, ways);
    for gone in from.aliases.iter().filter(|alias| !aliases.contains(alias)) {
        out.push(Effect::Less, format!("model `{name}` is not called `{gone}` any more"));
    }
    for more in aliases.iter().filter(|alias| !from.aliases.contains(alias)) {
        out.push(Effect::More, format!("model `{name}` is called `{more}`, too"));
    }
    if let Some((effect, what)) = fails_over(from.fallback, *fallback) {
        out.push(effect, format!("model `{name}` {what}"));
    }
}

/// What it means when a model or a key may fail over, or not, and did not before, or did.
pub(super) fn fails_over(old: bool, new: bool) -> Option<(Effect, &'static str)> {
    match (old, new) {
        (true, false) => Some((Effect::Less, "does not fail over any more: a failure is shown as it is")),
        (false, true) => Some((Effect::More, "fails over where there is another target")),
        _ => None,
    }
}

fn targets(out: &mut Changes, name: &str, from: &[TargetMeaning], to: &[TargetMeaning]) {
    if from == to {
        return;
    }
    let lost = from.len() > 1 && to.len() == 1;
    let effect = if to.len() < from.len() { Effect::Less } else { Effect::Other };
    let second = if lost { alone(to) } else { "" };
    out.push(effect, format!("model `{name}` leads to {}; it led to {}{second}", way(to), way(from)));
}

/// What a model with one target only is told.
fn alone(targets: &[TargetMeaning]) -> &'static str {
    if targets.len() == 1 { "; it has no second target to fall over to" } else { "" }
}

/// The rule among `models` that all names of `name` fall under, if one takes them all.
fn taker<'a>(models: &'a [ModelMeaning], name: &str) -> Option<&'a ModelMeaning> {
    models.iter().find(|model| Pattern::new(model.name.as_str()).covers(&Pattern::new(name)))
}

/// Of two globs that share names the first takes them, so that their order counts.
fn order(out: &mut Changes, old: &[ModelMeaning], new: &[ModelMeaning]) {
    let places: BTreeMap<&str, usize> = old.iter().map(|model| model.name.as_str()).zip(0..).collect();
    let globs: Vec<(Pattern, usize)> = new
        .iter()
        .filter_map(|model| Some((Pattern::new(model.name.as_str()), *places.get(model.name.as_str())?)))
        .filter(|(pattern, _)| !pattern.is_exact())
        .collect();
    for (at, (first, place)) in globs.iter().enumerate() {
        for (second, _) in globs.iter().skip(at + 1).filter(|(_, other)| other < place) {
            if first.meet(second).is_some() {
                let (first, second) = (first.text(), second.text());
                out.push(Effect::Other, format!("model `{first}` goes before `{second}` now, where both fit"));
            }
        }
    }
}

/// The targets as a person reads them: tiers one after the other, weights where they count.
pub(super) fn way(targets: &[TargetMeaning]) -> String {
    let mut text = String::new();
    let mut last: Option<&TargetMeaning> = None;
    for target in targets {
        text.push_str(match last {
            None => "",
            Some(before) if before.tier == target.tier => " or ",
            Some(_) => ", then ",
        });
        text.push_str(&target.upstream);
        if let Some(model) = &target.model {
            let _ = write!(text, " as {model}");
        }
        if !target.can.is_empty() {
            let _ = write!(text, " ({})", target.can.join(", "));
        }
        let shares = targets.iter().any(|other| other.tier == target.tier && other.weight != target.weight);
        if shares {
            let _ = write!(text, " (weight {})", target.weight);
        }
        last = Some(target);
    }
    text
}
