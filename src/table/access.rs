//! Which models and upstreams a caller may use, and what a request for one resolves to. A team's and a key's lists both
//! bound: what is open is open in both. Choosing among candidates (weights, health, affinity) is not done here.

use std::fmt::Write;
use std::sync::Arc;

use crate::base::{CallerSlot, Failure, Kind, ModelSlot, UpstreamSlot};

use super::pattern::MODEL_BYTES_MAX;
use super::{Can, Model, Pattern, TARGETS_MAX, Table, Target, catalogue};

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
    /// How the id fell under it.
    by: By,
}

/// How an id fell under a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its name or glob stands for it.
    Name,
    /// It is one of its aliases.
    Alias,
    /// Under this id, which is another spelling of it.
    Spelling(&'static str),
    /// Under this id, which is its successor's.
    Successor(&'static str),
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
        let (slot, rule, by) = self.rule(model).ok_or(Refusal::UnknownModel)?;
        if !self.allows(caller, |access| is_open(access, model, rule, by)) {
            return Err(Refusal::ModelDenied);
        }
        match self.open_targets(caller, rule) {
            0 => Err(Refusal::UpstreamsDenied),
            open => Ok(Plan { model: slot, open, by }),
        }
    }

    /// The id that a target's upstream is asked for, when the client asked for `asked` and that was resolved to `plan`.
    pub fn id_there<'a>(&'a self, plan: &Plan, target: &'a Target, asked: &'a str) -> &'a str {
        if let Some(id) = &target.model {
            return id;
        }
        let rule = self.model(plan.model).filter(|rule| rule.name.is_exact());
        match (plan.by, rule) {
            (By::Name, _) | (By::Alias, None) => asked,
            (_, Some(rule)) => rule.name.text(),
            (By::Spelling(id) | By::Successor(id), None) => id,
        }
    }

    /// What is to stand in the body instead of `asked`; `None` when the body stays as it is.
    pub fn sent_id<'a>(&'a self, plan: &Plan, target: &'a Target, asked: &'a str) -> Option<&'a str> {
        Some(self.id_there(plan, target, asked)).filter(|id| *id != asked)
    }

    /// What a target can take of a request for `asked` that was resolved to `plan`.
    pub fn can(&self, plan: &Plan, target: &Target, asked: &str) -> Can {
        let is_told = target.model.is_some() || self.model(plan.model).is_some_and(|rule| rule.name.is_exact());
        if is_told { target.can } else { target.said.over(Some(self.id_there(plan, target, asked))) }
    }

    /// The ids that the configuration itself names: exact names and aliases.
    pub fn own_ids(&self) -> impl Iterator<Item = &str> {
        self.models.iter().flat_map(|rule| {
            let exact = rule.name.is_exact().then_some(rule.name.text());
            exact.into_iter().chain(&rule.aliases).map(|id| &**id)
        })
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
        let names = |rule: &Model| {
            let aliases: Vec<Pattern> = rule.aliases.iter().map(|alias| Pattern::new(Arc::clone(alias))).collect();
            std::iter::once(rule.name.clone()).chain(aliases)
        };
        let mut names: Vec<Pattern> = open.flat_map(names).collect();
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

    /// The rule that an id falls under, and how. Where none has it as it is, the catalogue says what else it is called,
    /// and what has come after it.
    pub fn rule(&self, model: &str) -> Option<(ModelSlot, &Model, By)> {
        if model.len() > MODEL_BYTES_MAX {
            return None;
        }
        let spelled = |id: &str| {
            let other = catalogue::other_spelling(id)?;
            Some((self.named(other)?.0, other))
        };
        let after = |id: &str| {
            let next = catalogue::retirement(id)?.successor;
            self.named(next).map(|(at, _)| (at, next)).or_else(|| spelled(next))
        };
        let (at, by) = self
            .named(model)
            .or_else(|| spelled(model).map(|(at, id)| (at, By::Spelling(id))))
            .or_else(|| after(model).map(|(at, id)| (at, By::Successor(id))))?;
        Some((self.model_slot(at), self.models.get(at)?, by))
    }

    /// The rule that has an id as its name, as an alias, or under its glob, in this order.
    fn named(&self, model: &str) -> Option<(usize, By)> {
        let find =
            |exact: bool| self.models.iter().position(|rule| rule.name.is_exact() == exact && rule.name.matches(model));
        let alias = || self.models.iter().position(|rule| rule.aliases.iter().any(|alias| **alias == *model));
        let name = |at| (at, By::Name);
        find(true).map(name).or_else(|| alias().map(|at| (at, By::Alias))).or_else(|| find(false).map(name))
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

/// Whether a list of models opens `asked`, which fell under `rule`. An alias and another spelling are open where the model
/// itself is, and the other way round; a retired id is open only where its successor is, because that is what is used.
fn is_open(access: &Access, asked: &str, rule: &Model, by: By) -> bool {
    let spelled = |id: &str| access.model(id) || catalogue::other_spelling(id).is_some_and(|other| access.model(other));
    match by {
        By::Name => spelled(asked),
        // A glob is matched like a name: only what holds all of it opens it.
        By::Alias | By::Spelling(_) => spelled(asked) || spelled(rule.name.text()),
        By::Successor(id) => spelled(id) || spelled(rule.name.text()),
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
