//! What a team or a key opens.

use crate::base::UpstreamSlot;
use crate::table::{Access, Model, Pattern, catalogue::other_spelling, passthrough::prefix_fault};

use super::super::diagnose::{At, Problems, Remedy, nearest};
use super::super::file;
use super::super::reader::{entry_removal, item_removal};
use super::{Names, quoted};

/// What can be opened.
pub(super) struct Scope<'a> {
    pub upstreams: &'a Names,
    pub models: &'a [Model],
}

/// Batches name models of their own inside a file, where no bound on models can see them.
const BATCHES: &str = "/v1/messages/batches";

pub(super) fn compile(problems: &mut Problems, written: &file::Access, scope: &Scope<'_>) -> Access {
    let models = written.models.as_ref().map(|list| {
        not_empty(problems, "models", list, written.models_at);
        list.iter().map(|name| model(problems, name, scope.models)).collect()
    });
    let upstreams = written.upstreams.as_ref().map(|list| {
        not_empty(problems, "upstreams", list, written.upstreams_at);
        let slots = list.iter().filter_map(|name| scope.upstreams.find(problems, name, name.at));
        let mut slots: Vec<UpstreamSlot> = slots.map(UpstreamSlot).collect();
        slots.dedup();
        slots
    });
    let good = written.passthrough.iter().filter(|prefix| prefix_is_good(problems, prefix));
    let passthrough: Vec<_> = good.map(|prefix| prefix.value.as_str().into()).collect();
    Access { models, upstreams, passthrough }
}

/// An empty list would open nothing, which is rarely meant and said better by `disabled`.
fn not_empty(problems: &mut Problems, key: &str, list: &[At<String>], at: Option<super::Spot>) {
    if let Some(at) = at.filter(|_| list.is_empty()) {
        let remedy = entry_removal(problems, at);
        problems.add(
            at,
            format!("`{key}` is empty, and would open nothing"),
            format!("remove `{key}` to open all, or name some"),
            remedy,
        );
    }
}

/// A name or glob that no `[[model]]` shares a name with opens nothing.
fn model(problems: &mut Problems, written: &At<String>, models: &[Model]) -> Pattern {
    let pattern = Pattern::new(written.value.as_str());
    let named = models.iter().map(|model| &**model.name.text());
    let names = named.chain(models.iter().flat_map(|model| model.aliases.iter().map(|alias| &**alias)));
    let known = || names.clone().filter(|name| !name.is_empty());
    let opens = |model: &Model| {
        let dated = other_spelling(model.name.text()).is_some_and(|other| pattern.matches(other));
        let undated = other_spelling(pattern.text()).is_some_and(|other| model.name.matches(other));
        let alias = model.aliases.iter().any(|alias| pattern.matches(alias));
        dated || undated || alias || model.name.meet(&pattern).is_some()
    };
    if known().next().is_some() && !models.iter().any(opens) {
        let meant = nearest(&written.value, known()).or_else(|| known().next()).unwrap_or("*");
        let all: Vec<&str> = known().take(12).collect();
        problems.add(
            written.at,
            format!("no [[model]] has a name that `{}` stands for", written.value),
            format!("write {}; there is {}", quoted(meant), all.join(", ")),
            Remedy::replace(written.at, quoted(meant)),
        );
    }
    pattern
}

fn prefix_is_good(problems: &mut Problems, written: &At<String>) -> bool {
    let Some(fault) = prefix_fault(&written.value) else { return true };
    let trimmed = written.value.trim_end_matches(['/', '*']);
    let trimmed = if trimmed.starts_with('/') { trimmed.to_owned() } else { format!("/{trimmed}") };
    let better = [trimmed.clone(), format!("/v1{trimmed}")]
        .into_iter()
        .filter(|path| !path.starts_with("/v1/v1"))
        .find(|path| prefix_fault(path).is_none());
    let (hint, remedy) = match better {
        Some(path) => (format!("write {}", quoted(&path)), Remedy::replace(written.at, quoted(&path))),
        None => ("remove it".to_owned(), item_removal(problems, written.at)),
    };
    problems.add(written.at, format!("`{}` {fault}", written.value), hint, remedy);
    false
}

/// A bound on models must hold in every path: what it cannot see must stay closed.
pub(super) fn no_way_around(problems: &mut Problems, bounded: bool, passthrough: &[At<String>]) {
    for prefix in passthrough.iter().filter(|prefix| bounded && prefix.value == BATCHES) {
        let remedy = item_removal(problems, prefix.at);
        problems.add(
            prefix.at,
            format!("`{BATCHES}` would go around `models`: a batch names models where no bound sees them"),
            "remove it, or remove `models`",
            remedy,
        );
    }
}
