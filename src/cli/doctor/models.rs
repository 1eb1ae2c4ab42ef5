//! Whether the model ids of the configuration are ids of the upstreams that they are sent to.

use super::cost;
use super::finding::{Finding, counted, listed};
use crate::{
    config::diagnose::nearest,
    table::{Model, Provider, Table, Target, Upstream, catalogue::retirement},
};

/// Ids that are asked for one by one.
pub const LOOKED_UP_MAX: usize = 20;

/// What an upstream said about its models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its list; `None` when it gave none.
    pub ids: Option<Vec<String>>,
    /// Why it gave none; empty when it was not asked.
    pub why_none: String,
    /// Ids that are not in the list but are known all the same: a list leaves aliases out.
    pub aliases: Vec<String>,
}

impl Listing {
    fn knows(&self, id: &str) -> bool {
        self.aliases.iter().any(|alias| alias == id) || self.ids.as_ref().is_some_and(|ids| ids.iter().any(|i| i == id))
    }
}

/// The id that requests for an exact model carry at a target; `None` for a glob, which leaves the client's.
fn exact_id<'a>(model: &'a Model, target: &'a Target) -> Option<&'a str> {
    target.model.as_deref().or_else(|| model.name.is_exact().then(|| &**model.name.text()))
}

/// Every model and target that leads to the upstream in `slot`.
fn targets(table: &Table, slot: usize) -> impl Iterator<Item = (&Model, &Target)> {
    let all = table.models.iter().flat_map(|model| model.targets.iter().map(move |target| (model, target)));
    all.filter(move |(_, target)| target.upstream.index() == slot)
}

/// The exact ids that are sent to the upstream in `slot`, each once.
pub fn exact_ids(table: &Table, slot: usize) -> Vec<&str> {
    let mut ids: Vec<&str> = Vec::new();
    for id in targets(table, slot).filter_map(|(model, target)| exact_id(model, target)) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// The ids that are sent to the upstream in `slot` and are not in its list, to be asked for one by one: those whose
/// name can stand in a path as it is.
pub fn to_look_up(table: &Table, slot: usize, listing: &Listing) -> Vec<String> {
    let is_plain = |id: &&str| id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if listing.ids.is_none() {
        return Vec::new();
    }
    let unlisted = exact_ids(table, slot).into_iter().filter(|id| !listing.knows(id)).filter(is_plain);
    unlisted.take(LOOKED_UP_MAX).map(str::to_owned).collect()
}

/// The model for the smallest question to the upstream in `slot`: the cheapest that is both configured and listed, else
/// the first that is configured.
pub fn to_ask(table: &Table, slot: usize, listing: &Listing) -> Option<String> {
    let exact = exact_ids(table, slot);
    let ids = listing.ids.as_deref().unwrap_or_default();
    let is_open = |id: &str| {
        exact.contains(&id)
            || targets(table, slot).any(|(model, target)| exact_id(model, target).is_none() && model.name.matches(id))
    };
    let listed = ids.iter().map(String::as_str).filter(|id| is_open(id));
    let price = |id: &str| table.prices.of(id, cost::today()).filter(|price| !price.guess);
    let cheapest = listed.min_by_key(|id| price(id).map_or(u64::MAX, |price| price.rates.input.0));
    cheapest.or_else(|| exact.first().copied()).map(str::to_owned)
}

/// A finding for each id and glob that is wrong, and one for all that are right.
pub fn right(table: &Table, listings: &[Listing]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut exact_right, mut globs_right) = (0, 0);
    for (slot, (upstream, listing)) in table.upstreams.iter().zip(listings).enumerate() {
        let Some(ids) = &listing.ids else {
            findings.extend(unlisted(table, slot, upstream, listing));
            continue;
        };
        for id in exact_ids(table, slot) {
            if listing.knows(id) {
                exact_right += 1;
            } else {
                findings.push(unknown(id, upstream, ids));
            }
        }
        for (model, _) in targets(table, slot).filter(|(model, target)| exact_id(model, target).is_none()) {
            if ids.iter().any(|id| model.name.matches(id)) {
                globs_right += 1;
            } else {
                findings.push(matches_nothing(model, upstream, ids));
            }
        }
    }
    if exact_right + globs_right > 0 {
        let found = format!(
            "{} and {} known to their upstreams",
            counted(exact_right, "id", "ids"),
            counted(globs_right, "glob is", "globs are")
        );
        findings.insert(0, Finding::ok("models", found));
    }
    findings
}

/// The ids that are sent to the provider's own API and that it ends, or has ended. `today` is `YYYY-MM-DD`.
pub fn retired(table: &Table, today: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = table.upstreams.iter().enumerate().filter(|(_, upstream)| upstream.provider == Provider::Anthropic);
    for (slot, upstream) in own {
        for (id, row) in exact_ids(table, slot).into_iter().filter_map(|id| Some((id, retirement(id)?))) {
            let is =
                if row.day <= today { "was retired by its provider on" } else { "will be retired by its provider on" };
            let advice = format!("move to `{}`, the provider's own recommendation", row.successor);
            findings.push(Finding::warn("models", format!("`{id}` {is} {}", row.day), advice).about(&upstream.name));
        }
    }
    findings
}

fn unlisted(table: &Table, slot: usize, upstream: &Upstream, listing: &Listing) -> Option<Finding> {
    let ids = exact_ids(table, slot);
    let unproven =
        if ids.is_empty() { String::new() } else { format!(", so nobody can tell whether {} exist", listed(&ids)) };
    let advice = "compare the ids with the provider's documentation";
    targets(table, slot).next()?;
    if listing.why_none.is_empty() {
        return None; // it was not reached, which is told elsewhere
    }
    Some(
        Finding::warn("models", format!("no list of models: {}{unproven}", listing.why_none), advice)
            .about(&upstream.name),
    )
}

fn unknown(id: &str, upstream: &Upstream, ids: &[String]) -> Finding {
    let meant = nearest(id, ids.iter().map(String::as_str));
    let advice = match meant {
        Some(meant) => format!("did you mean `{meant}`"),
        None if ids.is_empty() => "this account lists no model at all: look at its permissions".to_owned(),
        None => format!("write one of {}", listed(ids)),
    };
    Finding::fail("models", format!("the upstream has no model `{id}`"), advice).about(&upstream.name)
}

fn matches_nothing(model: &Model, upstream: &Upstream, ids: &[String]) -> Finding {
    let found = format!("no model of the upstream matches `{}`", model.name.text());
    let advice = if ids.is_empty() {
        "this account lists no model at all: look at its permissions".to_owned()
    } else {
        format!("its models are {}", listed(ids))
    };
    Finding::warn("models", found, advice).about(&upstream.name)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, super::sample, super::sample::table, *};

    const LISTED: &[&str] = &["claude-opus-5-5", "claude-haiku-4-5-20251001", "claude-haiku-5-5", "other-1"];

    fn model(name: &str, id: Option<&str>) -> String {
        sample::model(name, &["a"], id)
    }

    fn listing(ids: &[&str]) -> Listing {
        Listing { ids: Some(ids.iter().map(|id| (*id).to_owned()).collect()), ..Listing::default() }
    }

    #[test]
    fn wrong_ids_fail_with_what_was_meant() {
        let table = table(
            &(model("claude-opus-55", None) + &model("fast", Some("claude-haiku-5-5")) + &model("claude-*", None)),
        );
        let findings = right(&table, &[listing(LISTED)]);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert_eq!(findings[0].found, "1 id and 1 glob is known to their upstreams");
        assert_eq!((findings[1].level, findings[1].subject.as_deref()), (Level::Fail, Some("a")));
        assert_eq!(findings[1].advice.as_deref(), Some("did you mean `claude-opus-5-5`"));
    }

    #[test]
    fn aliases_are_asked_for_and_then_known() {
        let table =
            table(&(model("claude-haiku-4-5", None) + &model("x", Some("a/b")) + &model("claude-opus-5-5", None)));
        let mut listing = listing(LISTED);
        assert_eq!(to_look_up(&table, 0, &listing), ["claude-haiku-4-5"], "not `a/b`, which is no path segment");
        assert_eq!(
            to_look_up(&table, 0, &Listing::default()),
            [""; 0],
            "without a list nothing is known to be missing"
        );
        listing.aliases = vec!["claude-haiku-4-5".into()];
        let findings = right(&table, &[listing]);
        assert_eq!(findings.iter().filter(|f| f.level == Level::Fail).count(), 1, "{findings:?}");
        assert!(findings[1].found.contains("`a/b`"));
    }

    #[test]
    fn globs_must_match_something() {
        let table = table(&model("gpt-*", None));
        let findings = right(&table, &[listing(LISTED)]);
        assert_eq!((findings.len(), findings[0].level), (1, Level::Warn));
        assert!(findings[0].found.contains("`gpt-*`"));
        let none = Listing { why_none: "404".into(), ..Listing::default() };
        assert_eq!(right(&table, &[none])[0].found, "no list of models: 404");
    }

    #[test]
    fn retired_models_are_told_with_their_successors() {
        let table = table(&(model("claude-sonnet-4-5", None) + &model("x", Some("claude-3-opus-20240229"))));
        let findings = retired(&table, "2026-11-25");
        let told: Vec<_> = findings.iter().map(|f| (f.found.as_str(), f.advice.as_deref().unwrap())).collect();
        let move_to = |id: &str| format!("move to `{id}`, the provider's own recommendation");
        assert_eq!(
            told,
            [
                ("`claude-sonnet-4-5` will be retired by its provider on 2026-11-30", &*move_to("claude-sonnet-5-5")),
                ("`claude-3-opus-20240229` was retired by its provider on 2026-01-05", &*move_to("claude-opus-4-8")),
            ]
        );
        assert!(findings.iter().all(|finding| finding.level == Level::Warn));
    }

    #[test]
    fn the_cheapest_open_model_is_asked() {
        let ask = |models: &str, listing: &Listing| to_ask(&table(models), 0, listing);
        assert_eq!(ask("", &listing(LISTED)).as_deref(), Some("claude-haiku-5-5"));
        assert_eq!(ask(&model("claude-opus-*", None), &listing(LISTED)).as_deref(), Some("claude-opus-5-5"));
        assert_eq!(ask(&model("x", Some("other-1")), &listing(LISTED)).as_deref(), Some("other-1"));
        assert_eq!(ask(&model("x", Some("house")), &Listing::default()).as_deref(), Some("house"));
        assert_eq!(ask(&model("gpt-*", None), &listing(LISTED)), None);
        assert_eq!(ask("", &Listing::default()), None);
    }
}
