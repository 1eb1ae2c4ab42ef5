//! `GET /v1/models` and `GET /v1/models/{id}`: the exact names and aliases of the configuration and what the upstreams list, as far
//! as the caller may use it. Served from memory: Claude Code waits 3 s for it (R50).

use crate::{
    base::{CallerSlot, Failure, Kind},
    dialect::anthropic::model_object,
    table::{Table, live::Live},
    wire::RequestHead,
};
use std::collections::HashSet;

/// Entries of one answer when the client asks for no number, and at most.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 1000;

/// The document that answers `head`.
///
/// # Errors
/// `ModelUnknown` when one model is asked for that the caller may not list.
pub fn answer(
    table: &Table,
    live: &Live,
    caller: CallerSlot,
    head: &RequestHead,
    bytes: &[u8],
) -> Result<String, Failure> {
    let models = listed(table, live, caller);
    let path = std::str::from_utf8(head.path(bytes)).unwrap_or_default();
    if let Some(id) = path.strip_prefix("/v1/models/") {
        let found = models.into_iter().find(|model| model.id == id);
        return found.map(|model| model.json).ok_or_else(|| {
            Failure::new(
                Kind::ModelUnknown,
                "no model of that name is listed for your key. GET /v1/models tells which are.",
            )
        });
    }
    let query = std::str::from_utf8(head.query(bytes).unwrap_or_default()).unwrap_or_default();
    Ok(page(&models, query))
}

struct Listed {
    id: String,
    json: String,
}

/// Everything that the caller may use, each id once, the configuration's own names first.
fn listed(table: &Table, live: &Live, caller: CallerSlot) -> Vec<Listed> {
    let mut seen = HashSet::new();
    let mut models = Vec::new();
    for id in table.own_ids().filter(|id| table.may_list(caller, id)) {
        if seen.insert(id.to_owned()) {
            let json = described(table, live, caller, id).unwrap_or_else(|| model_object(id));
            models.push(Listed { id: id.to_owned(), json });
        }
    }
    for (slot, _) in table.upstream_slots() {
        let Some(list) = live.models_of(slot) else { continue };
        for model in &list.models {
            let leads_here =
                table.resolve(caller, &model.id).is_ok_and(|plan| plan.candidates(table).any(|t| t.upstream == slot));
            if leads_here && seen.insert(model.id.to_string()) {
                models.push(Listed { id: model.id.to_string(), json: model.json.to_string() });
            }
        }
    }
    models
}

/// What an upstream says about a model that the configuration names, if it goes there under the same id.
fn described(table: &Table, live: &Live, caller: CallerSlot, id: &str) -> Option<String> {
    let plan = table.resolve(caller, id).ok()?;
    plan.candidates(table)
        .filter(|target| target.model.is_none())
        .filter_map(|target| live.models_of(target.upstream))
        .find_map(|list| list.models.iter().find(|model| &*model.id == id))
        .map(|model| model.json.to_string())
}

/// One page, by `limit`, `after_id` and `before_id` as the API has them.
fn page(models: &[Listed], query: &str) -> String {
    let parameter = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let limit = parameter("limit").and_then(|value| value.parse().ok()).unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let place = |id: &str| models.iter().position(|model| model.id == id);
    let (mut from, mut to) = (0, models.len());
    if let Some(after) = parameter("after_id").and_then(place) {
        from = after + 1;
    }
    if let Some(before) = parameter("before_id").and_then(place) {
        to = before;
        from = from.max(to.saturating_sub(limit));
    }
    let shown = models.get(from..to).unwrap_or_default();
    let has_more = shown.len() > limit;
    let shown = shown.get(..limit).unwrap_or(shown);
    let data: Vec<&str> = shown.iter().map(|model| model.json.as_str()).collect();
    let id = |model: Option<&Listed>| {
        model.map_or("null".to_owned(), |model| serde_json::Value::from(model.id.as_str()).to_string())
    };
    format!(
        r#"{{"data":[{}],"has_more":{has_more},"first_id":{},"last_id":{}}}"#,
        data.join(","),
        id(shown.first()),
        id(shown.last())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(count: usize) -> Vec<Listed> {
        (0..count).map(|n| Listed { id: format!("m{n}"), json: model_object(&format!("m{n}")) }).collect()
    }

    fn ids(page: &str) -> (Vec<String>, bool) {
        let value: serde_json::Value = serde_json::from_str(page).unwrap();
        let ids = value["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
        (ids, value["has_more"].as_bool().unwrap())
    }

    #[test]
    fn pages() {
        let all = models(30);
        assert_eq!(ids(&page(&all, "")).0.len(), 20);
        assert_eq!(ids(&page(&all, "limit=1000")), (all.iter().map(|m| m.id.clone()).collect(), false));
        assert_eq!(ids(&page(&all, "limit=2&after_id=m3")), (vec!["m4".into(), "m5".into()], true));
        assert_eq!(ids(&page(&all, "limit=2&before_id=m3")), (vec!["m1".into(), "m2".into()], false));
        assert_eq!(ids(&page(&[], "limit=5")), (vec![], false));
    }
}
