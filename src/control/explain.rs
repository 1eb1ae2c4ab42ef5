//! Why a request goes where it goes: what its model's name resolves to, which targets its key may use and which not and
//! why, and, for a forebay that runs, how each candidate stands and which one would be asked now. Pure, and without any
//! effect: nothing is claimed, counted or sent.

use super::upstreams::Scene;
use crate::{
    base::{CallerSlot, Span, Wall},
    table::{By, Caller, Can, Model, Plan, Refusal, Table, Target},
    upstream::{self, Demand, Misfit, Tried, View, fit::Reach, weigh},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A request, as far as it matters for where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Question {
    /// The name of the key that asks.
    pub key: String,
    /// The model that it asks for.
    pub model: String,
    /// The size of its body, in bytes.
    pub bytes: u64,
    /// The prompt, in tokens as a model counts them.
    pub input: u64,
    /// `max_tokens`.
    pub output_max: u64,
    /// There are images in it.
    pub images: bool,
    /// There are tools in it.
    pub tools: bool,
    /// It asks for thinking.
    pub thinking: bool,
    /// The header `x-claude-code-session-id`.
    pub session: Option<String>,
    /// The body's `metadata.user_id`.
    pub user_id: Option<String>,
    /// It says `x-forebay-fallback: off`.
    pub fallback_off: bool,
}

impl Question {
    fn demand(&self) -> Demand {
        Demand {
            input: self.input,
            output_max: self.output_max,
            images: self.images,
            tools: self.tools,
            thinking: self.thinking,
        }
    }
}

/// The answer. `scene` is that of a forebay that runs; without it, what `table` says is all there is.
///
/// # Errors
/// That there is no such key.
pub fn explain(table: &Table, scene: Option<&Scene<'_>>, question: &Question, wall: Wall) -> Result<Value, String> {
    let Some((slot, caller)) = table.caller_slots().find(|(_, caller)| *caller.name == *question.key) else {
        return Err(format!("there is no key named `{}`", question.key.escape_debug()));
    };
    let mut document = json!({
        "generation": scene.map(|_| table.generation),
        "key": key(table, caller, wall),
        "asked": { "model": question.model, "bytes": question.bytes, "input": question.input, "output_max": question.output_max },
        "fallback": fallback(table, caller, question),
    });
    let resolved = table.resolve(slot, &question.model);
    if let Some((_, model, by)) = table.rule(&question.model) {
        let (how, taken_for) = match by {
            By::Name if model.name.is_exact() => ("name", None),
            By::Name => ("glob", None),
            By::Alias => ("alias", None),
            By::Spelling(id) => ("spelling", Some(id)),
            By::Successor(id) => ("successor", Some(id)),
        };
        document["model"] = json!({ "rule": &**model.name.text(), "how": how, "taken_for": taken_for });
        let described = |target| described(table, (slot, resolved.as_ref().ok()), question, target);
        document["targets"] = model.targets.iter().map(described).collect();
    }
    match resolved {
        Err(refusal) => {
            let slug = match refusal {
                Refusal::UnknownModel => "unknown_model",
                Refusal::ModelDenied => "model_denied",
                Refusal::UpstreamsDenied => "upstreams_denied",
            };
            let message = table.refuse(slot, &question.model, refusal).message;
            document["refused"] = json!({ "why": slug, "message": message });
        }
        Ok(plan) => {
            if let Some(scene) = scene {
                let fallback = document["fallback"]["on"] == true;
                document["candidates"] = candidates(scene, slot, plan, question, fallback);
            }
        }
    }
    Ok(document)
}

fn key(table: &Table, caller: &Caller, wall: Wall) -> Value {
    let team = caller.team.and_then(|slot| table.team(slot)).map(|team| &*team.name);
    let expired =
        caller.expires.as_ref().filter(|end| end.at <= wall).map(|end| format!("its last day was {}", end.day));
    let refused = caller.disabled.then(|| "it is disabled".to_owned()).or(expired);
    json!({ "name": &*caller.name, "team": team, "refused": refused })
}

/// Whether a failure may lead to another candidate, and if not, who says so.
fn fallback(table: &Table, caller: &Caller, question: &Question) -> Value {
    let model = table.rule(&question.model).map(|(_, model, _)| model);
    let why = match () {
        () if question.fallback_off => Some("the request says x-forebay-fallback: off"),
        () if !caller.fallback => Some("the key has fallback = false"),
        () if model.is_some_and(|model: &Model| !model.fallback) => Some("the model has fallback = false"),
        () => None,
    };
    json!({ "on": why.is_none(), "why": why })
}

/// One target: whether it is open and fits, and why not.
fn described(table: &Table, (slot, plan): (CallerSlot, Option<&Plan>), question: &Question, target: &Target) -> Value {
    let upstream = table.upstream(target.upstream);
    let credentials = upstream.map(|upstream| upstream.credentials.iter().map(|c| &*c.name).collect::<Vec<_>>());
    let there = plan.and_then(|plan| table.sent_id(plan, target, &question.model));
    let reach = plan.map_or(Reach::Unknown, |plan| reach(table, plan, &question.model));
    let can = plan.map_or(target.can, |plan| table.can(plan, target, &question.model));
    json!({
        "upstream": upstream.map(|upstream| &*upstream.name),
        "model": there,
        "tier": target.tier,
        "weight": target.weight,
        "credentials": credentials,
        "closed": closed(table, slot, target),
        "unfit": unfit(&can, &question.demand(), reach),
    })
}

/// Who keeps the caller from a target.
fn closed(table: &Table, slot: CallerSlot, target: &Target) -> Option<String> {
    let leaves_out = |open: &Option<Vec<_>>| open.as_ref().is_some_and(|open| !open.contains(&target.upstream));
    let caller = table.caller(slot)?;
    let team = table.team_of(slot).filter(|team| leaves_out(&team.access.upstreams));
    let named = |list: &Option<Vec<_>>| {
        let names = list.iter().flatten().filter_map(|slot| table.upstream(*slot)).map(|upstream| &*upstream.name);
        names.collect::<Vec<_>>().join(", ")
    };
    match team {
        Some(team) => Some(format!("team `{}` may use only {}", team.name, named(&team.access.upstreams))),
        None if leaves_out(&caller.access.upstreams) => {
            Some(format!("key `{}` may use only {}", caller.name, named(&caller.access.upstreams)))
        }
        None => None,
    }
}

/// What a target cannot take of the request, when `reach` is what the first choices can.
fn unfit(can: &Can, demand: &Demand, reach: Reach) -> Option<String> {
    Some(match demand.misfit(can, reach)? {
        Misfit::Images => "it takes no images".to_owned(),
        Misfit::Tools => "it calls no tools".to_owned(),
        Misfit::Thinking => "it does not know `thinking`".to_owned(),
        Misfit::Window { holds, needs } => format!("its window of {holds} is less than about {needs}"),
    })
}

/// What the targets of the first tier that is open can take.
fn reach(table: &Table, plan: &Plan, asked: &str) -> Reach {
    let tier = plan.candidates(table).map(|target| target.tier).min();
    let first = plan.candidates(table).filter(|target| Some(target.tier) == tier);
    Reach::of(first.map(|target| table.can(plan, target, asked)))
}

/// Every candidate in the order in which they would be asked, how it stands, and whether it would be asked now.
fn candidates(scene: &Scene<'_>, slot: CallerSlot, plan: Plan, question: &Question, fallback: bool) -> Value {
    let said = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
    let (session, user_id) = (said(&question.session), said(&question.user_id));
    let view = View {
        table: scene.table,
        health: scene.health,
        plan,
        model: &question.model,
        demand: question.demand(),
        bytes: question.bytes,
        conversation: upstream::conversation(slot, session.as_deref(), user_id.as_deref()),
        fallback,
        bound: false,
        counts_only: false,
        waited: Span::ZERO,
    };
    let weighed = weigh(&view, &Tried::default(), scene.now);
    let shown = weighed.iter().filter_map(|weighed| {
        let candidate = weighed.candidate?;
        Some(json!({
            "upstream": scene.names.upstream(candidate.upstream),
            "credential": scene.names.credential(candidate.credential),
            "tier": weighed.tier,
            "warm": candidate.warm,
            "good": weighed.good,
            "state": weighed.state,
            "asked_now": weighed.chosen,
        }))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{CredentialSlot, Mono, Span, TeamSlot, UpstreamSlot},
        control::{
            drains::{Drain, Drains},
            names::Names,
            recent::Recent,
            resolve,
            tests::{table, upstream},
        },
        table::{Access, Class, Credential, Pattern, SaidCan, SecretLine, Team},
        telemetry::Text,
        upstream::Health,
    };

    fn world() -> Table {
        let mut a = upstream("a", "127.0.0.1", 1);
        a.credentials = ["one", "two"].map(|name| Credential::new(name, SecretLine::bearer("canary"))).into();
        let mut table = table(vec![a, upstream("b", "127.0.0.1", 1), upstream("c", "127.0.0.1", 1)]);
        let [a, mut b, c] = [0, 1, 2].map(|slot| Target::to(UpstreamSlot(slot)));
        b.said = SaidCan { images: Some(false), window_max: Some(1_000), ..SaidCan::default() };
        (b.tier, b.model) = (2, Some("m-at-b".into()));
        table.models = vec![Model::new(Pattern::new("m-*"), vec![a, b, c])];
        let access = Access { upstreams: Some(vec![UpstreamSlot(0), UpstreamSlot(1)]), ..Access::default() };
        table.teams = vec![Team { name: "narrow".into(), access }];
        table.callers = vec![Caller {
            name: "alice".into(),
            owner: None,
            team: Some(TeamSlot(0)),
            access: Access::default(),
            expires: None,
            disabled: false,
            class: Class::Interactive,
            fallback: false,
        }];
        table
    }

    fn ask(model: &str) -> Question {
        Question { key: "alice".into(), model: model.into(), ..Question::default() }
    }

    #[test]
    fn a_configuration_alone_tells_the_ways_and_who_closed_them() {
        let table = world();
        let explain = |question: &Question| explain(&table, None, question, Wall(0)).unwrap();
        let told = explain(&Question { images: true, ..ask("m-1") });
        assert_eq!(told["model"], json!({ "rule": "m-*", "how": "glob", "taken_for": null }));
        assert_eq!(told["fallback"], json!({ "on": false, "why": "the key has fallback = false" }));
        let [a, c, b] = [0, 1, 2].map(|at| &told["targets"][at]);
        assert_eq!(
            (&a["closed"], &a["unfit"], &a["credentials"]),
            (&Value::Null, &Value::Null, &json!(["one", "two"]))
        );
        assert_eq!(c["closed"], "team `narrow` may use only a, b");
        assert_eq!((&b["unfit"], &b["model"], &b["tier"]), (&"it takes no images".into(), &"m-at-b".into(), &2.into()));
        assert!(told.get("candidates").is_none() && !told.to_string().contains("canary"));
        let large = explain(&Question { input: 1_002, ..ask("m-1") });
        assert_eq!(large["targets"][2]["unfit"], "its window of 1000 is less than about 1336");
        let unknown = explain(&ask("x"));
        assert_eq!(unknown["refused"]["why"], "unknown_model");
        assert!(unknown["refused"]["message"].as_str().unwrap().contains("Open to you: m-*"));
        let nobody = Question { key: "bob".into(), ..ask("m-1") };
        assert_eq!(super::explain(&table, None, &nobody, Wall(0)).unwrap_err(), "there is no key named `bob`");
    }

    #[test]
    fn a_running_one_tells_how_each_candidate_stands_and_who_is_asked() {
        let mut table = world();
        table.callers.iter_mut().for_each(|caller| caller.fallback = true);
        let health = Health::default().grown_for(&table);
        let (drains, recent, names) = (Drains::default(), Recent::default(), Names::default().and(&table));
        let live = resolve::literals(&table, Wall(0));
        let (now, wall) = (Mono(0), Wall(0));
        let told = || {
            let scene = Scene {
                table: &table,
                health: &health,
                live: &live,
                drains: &drains,
                recent: &recent,
                names: &names,
                now,
                wall,
            };
            explain(&table, Some(&scene), &ask("m-1"), wall).unwrap()["candidates"].clone()
        };
        // Each candidate, the word of its state that matters, and whether it would be asked.
        let states = |told: &Value| {
            let list = told.as_array().unwrap().iter();
            let line = |c: &Value| {
                let [upstream, credential, state] = ["upstream", "credential", "state"].map(|k| c[k].as_str().unwrap());
                let word = ["drained", "refused", "failing", "good"].into_iter().find(|word| state.contains(word));
                let mark = if c["asked_now"] == true { " <" } else { "" };
                format!("{upstream}/{credential} {}{mark}", word.unwrap_or(state))
            };
            list.map(line).collect::<Vec<_>>()
        };
        let asked = |told: &Value| told.as_array().unwrap().iter().filter(|c| c["asked_now"] == true).count();
        // Of two that are alike, chance decides.
        let first = told();
        assert!(asked(&first) == 1 && first[0]["asked_now"] == true && first[0]["upstream"] == "a", "{first}");
        let until = now.after(Span::from_secs(60));
        let (upstream, credential) = ("a".into(), Some("one".into()));
        drains.put(vec![Drain { upstream, credential, until, since: wall, by: Text::EMPTY }]);
        drains.apply(&table, &health);
        health.credential(CredentialSlot(1)).unwrap().refused.set(until);
        let after = told();
        assert_eq!(states(&after), ["a/one drained", "a/two refused", "b/ good <"]);
        for _ in 0..100 {
            health.upstream(UpstreamSlot(1)).unwrap().breaker.failed(now);
        }
        let (last, wanted) = (told(), "b/ failing <");
        assert!(
            states(&last).contains(&wanted.to_owned()),
            "the last one standing, likelier than a refused one: {last}"
        );
    }
}
