//! Which models and upstreams a caller may use, and what a request for one resolves to. A team's and a key's lists both
//! bound: what is open is open in both. Choosing among candidates (weights, health, affinity) is not done here.

use std::fmt::Write;
use std::sync::Arc;

use crate::base::{CallerSlot, Failure, Kind, ModelSlot, UpstreamSlot};

use super::pattern::MODEL_BYTES_MAX;
use super::{Model, Pattern, TARGETS_MAX, Table, Target};

/// Names that a message lists at most.
const LISTED_MAX: usize = 12;

/// What a team or a key opens. `None` bounds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Model ids, as clients ask for them.
    pub models: Option<Vec<Pattern>>,
    /// Upstreams that requests may go to, in every path and every failure.
    pub upstreams: Option<Vec<UpstreamSlot>>,
    /// Path prefixes that are passed through, besides the ones that forebay knows.
    pub passthrough: Vec<Arc<str>>,
}

impl Access {
    fn model(&self, id: &str) -> bool {
        self.models.as_ref().is_none_or(|open| open.iter().any(|pattern| pattern.matches(id)))
    }

    fn upstream(&self, slot: UpstreamSlot) -> bool {
        self.upstreams.as_ref().is_none_or(|open| open.contains(&slot))
    }
}

/// Where a request may go: a model and the targets of it that are open to the caller, in the order to try them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The `[[model]]` that the id fell under.
    pub model: ModelSlot,
    /// Bit `i` stands for target `i` of the model; `TARGETS_MAX` fit.
    open: u16,
}

impl Plan {
    /// How many candidates there are; at least one in a plan that `resolve` returned.
    pub fn len(&self) -> usize {
        self.open.count_ones() as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The targets that are open, each with its place in the model's list; by tier, then in file order.
    pub fn numbered<'a>(&self, table: &'a Table) -> impl Iterator<Item = (&'a Target, usize)> + use<'a> {
        let open = self.open;
        let targets = table.model(self.model).map_or(&[][..], |model| &model.targets);
        targets.iter().take(TARGETS_MAX).zip(0..).filter(move |(_, at)| open & (1 << at) != 0)
    }

    /// The candidates, by tier, then in file order.
    pub fn candidates<'a>(&self, table: &'a Table) -> impl Iterator<Item = &'a Target> + use<'a> {
        self.numbered(table).map(|(target, _)| target)
    }
}

/// Why a model leads nowhere for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No `[[model]]` has the name.
    UnknownModel,
    /// It exists, but the team's or the key's `models` leave it out.
    ModelDenied,
    /// It may be used, but every upstream that has it is left out by the team's or the key's `upstreams`.
    UpstreamsDenied,
}

impl Table {
    /// What a request for the model id `model` resolves to. An exact name goes before globs; globs go in file order.
    pub fn resolve(&self, caller: CallerSlot, model: &str) -> Result<Plan, Refusal> {
        let (slot, rule) = self.rule(model).ok_or(Refusal::UnknownModel)?;
        if !self.allows(caller, |access| access.model(model)) {
            return Err(Refusal::ModelDenied);
        }
        match self.open_targets(caller, rule) {
            0 => Err(Refusal::UpstreamsDenied),
            open => Ok(Plan { model: slot, open }),
        }
    }

    /// Whether a list of models may name this id to the caller.
    pub fn may_list(&self, caller: CallerSlot, model_id: &str) -> bool {
        self.resolve(caller, model_id).is_ok()
    }

    /// Whether requests of the caller may go to the upstream at all.
    pub fn allows_upstream(&self, caller: CallerSlot, upstream: UpstreamSlot) -> bool {
        self.allows(caller, |access| access.upstream(upstream))
    }

    /// Where passed-through paths go: the first upstream of the file that is open to the caller.
    pub fn passthrough_upstream(&self, caller: CallerSlot) -> Option<UpstreamSlot> {
        self.upstream_slots().map(|(slot, _)| slot).find(|slot| self.allows_upstream(caller, *slot))
    }

    /// The exact model names and globs that are open to the caller, each as narrow as its lists make it.
    pub fn open_models(&self, caller: CallerSlot) -> Vec<Pattern> {
        let open = self.models.iter().filter(|rule| self.open_targets(caller, rule) != 0);
        let mut names: Vec<Pattern> = open.map(|rule| rule.name.clone()).collect();
        for bound in self.accesses(caller).into_iter().flatten().filter_map(|access| access.models.as_ref()) {
            let mut narrower: Vec<Pattern> = Vec::new();
            for met in names.iter().flat_map(|name| bound.iter().filter_map(|pattern| name.meet(pattern))) {
                if !narrower.contains(met) {
                    narrower.push(met.clone());
                }
            }
            names = narrower;
        }
        names
    }

    /// The failure that tells the caller why `model` is refused, and what is open instead.
    pub fn refuse(&self, caller: CallerSlot, model: &str, refusal: Refusal) -> Failure {
        let (kind, what) = match refusal {
            Refusal::UnknownModel => (Kind::ModelUnknown, "is not a model here"),
            Refusal::ModelDenied => (Kind::ModelDenied, "is not open to your key"),
            Refusal::UpstreamsDenied => {
                (Kind::UpstreamsDenied, "runs only on upstreams that are not open to your team or key")
            }
        };
        let open = self.open_models(caller);
        let mut message = format!("the model `{}` {what}. ", shown(model));
        if open.is_empty() {
            message.push_str("No model is open to you.");
        } else {
            message.push_str("Open to you: ");
            for (at, name) in open.iter().take(LISTED_MAX).enumerate() {
                let _ = write!(message, "{}{}", if at == 0 { "" } else { ", " }, name.text());
            }
            if open.len() > LISTED_MAX {
                let _ = write!(message, " and {} more", open.len() - LISTED_MAX);
            }
            message.push('.');
        }
        Failure::new(kind, message)
    }

    /// The rule that an id falls under.
    pub fn rule(&self, model: &str) -> Option<(ModelSlot, &Model)> {
        if model.len() > MODEL_BYTES_MAX {
            return None;
        }
        let find =
            |exact: bool| self.models.iter().position(|rule| rule.name.is_exact() == exact && rule.name.matches(model));
        let at = find(true).or_else(|| find(false))?;
        Some((self.model_slot(at), self.models.get(at)?))
    }

    /// Bit `i` for target `i` that both lists leave open.
    fn open_targets(&self, caller: CallerSlot, rule: &Model) -> u16 {
        let targets = rule.targets.iter().take(TARGETS_MAX).enumerate();
        targets.fold(0, |open, (at, t)| open | (u16::from(self.allows_upstream(caller, t.upstream)) << at))
    }

    /// The key's lists, and its team's. A caller of another table has none, and `allows` refuses it.
    fn accesses(&self, caller: CallerSlot) -> [Option<&Access>; 2] {
        [self.caller(caller).map(|c| &c.access), self.team_of(caller).map(|t| &t.access)]
    }

    fn allows(&self, caller: CallerSlot, open: impl Fn(&Access) -> bool) -> bool {
        let [key, team] = self.accesses(caller);
        key.is_some_and(&open) && team.is_none_or(&open)
    }

    /// The path prefixes that the key or its team opens.
    pub(super) fn prefixes(&self, caller: CallerSlot) -> impl Iterator<Item = &Arc<str>> {
        self.accesses(caller).into_iter().flatten().flat_map(|access| &access.passthrough)
    }
}

/// A client's text, fit to stand in a message: short, and without control characters.
fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() || c == '`' { '?' } else { c };
    let mut short: String = text.chars().take(80).map(clean).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}
