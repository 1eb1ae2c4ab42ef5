//! How what a team or a key opens has changed: what it lost, and what it gained. A list that says the same in other
//! words (another order, a name that a glob beside it holds) has not changed.

use super::AccessMeaning;
use super::diff::{Effect, list};
use crate::table::Pattern;

/// The changes from `old` to `new`, each as a clause about what is open.
pub(super) fn changes(old: &AccessMeaning, new: &AccessMeaning) -> Vec<(Effect, String)> {
    let AccessMeaning { models, upstreams, passthrough } = new;
    let mut out = Vec::new();
    let holds = |wide: &str, narrow: &str| Pattern::new(wide).covers(&Pattern::new(narrow));
    bounded(&mut out, "models", (old.models.as_deref(), models.as_deref()), holds);
    bounded(&mut out, "upstreams", (old.upstreams.as_deref(), upstreams.as_deref()), |a, b| a == b);
    let below = |wide: &str, narrow: &str| {
        narrow.strip_prefix(wide).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let (lost, gained) = moved(&old.passthrough, passthrough, below);
    if !lost.is_empty() {
        out.push((Effect::Less, format!("the paths {} are closed", list(&lost))));
    }
    if !gained.is_empty() {
        out.push((Effect::More, format!("the paths {} are open, too", list(&gained))));
    }
    out
}

/// A list of which `None` bounds nothing.
fn bounded(
    out: &mut Vec<(Effect, String)>,
    what: &str,
    (old, new): (Option<&[String]>, Option<&[String]>),
    holds: impl Fn(&str, &str) -> bool,
) {
    let names = |names: &[String]| list(&names.iter().map(String::as_str).collect::<Vec<_>>());
    match (old, new) {
        (None, None) => {}
        (None, Some(new)) => out.push((Effect::Less, format!("of all {what}, only {} stay open", names(new)))),
        (Some(old), None) => out.push((Effect::More, format!("all {what} are open, not only {}", names(old)))),
        (Some(old), Some(new)) => {
            let (lost, gained) = moved(old, new, holds);
            if !lost.is_empty() {
                out.push((Effect::Less, format!("the {what} {} are closed", list(&lost))));
            }
            if !gained.is_empty() {
                out.push((Effect::More, format!("the {what} {} are open, too", list(&gained))));
            }
        }
    }
}

/// What nothing in `new` holds any more, and what nothing in `old` held before.
fn moved<'a>(old: &'a [String], new: &'a [String], holds: impl Fn(&str, &str) -> bool) -> (Vec<&'a str>, Vec<&'a str>) {
    let missing = |from: &'a [String], within: &[String]| {
        let mut missing: Vec<&str> = from.iter().map(String::as_str).collect();
        missing.retain(|name| !within.iter().any(|other| holds(other, name)));
        missing.sort_unstable();
        missing.dedup();
        missing
    };
    (missing(old, new), missing(new, old))
}
