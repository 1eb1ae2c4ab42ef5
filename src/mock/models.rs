//! `GET /v1/models` and `GET /v1/models/{id}`: the list, by pages, in the API's shape.

use serde_json::{Value, json};

/// The list in the order of the API: newest first. `limit` 1..=1000 (20 unless said), `after_id`, `before_id`.
pub(super) fn list(models: &[String], query: &str) -> Value {
    let asked = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let limit = asked("limit").and_then(|limit| limit.parse::<usize>().ok()).unwrap_or(20).clamp(1, 1_000);
    let place = |id: Option<&str>| models.iter().position(|model| Some(model.as_str()) == id);
    let from = place(asked("after_id")).map_or(0, |at| at + 1);
    let to = place(asked("before_id")).unwrap_or(models.len()).max(from);
    let open = models.get(from..to).unwrap_or_default();
    let page = open.get(..limit).unwrap_or(open);
    json!({
        "data": page.iter().map(|id| one(id)).collect::<Vec<_>>(),
        "has_more": page.len() < open.len(),
        "first_id": page.first(),
        "last_id": page.last(),
    })
}

/// One model.
pub(super) fn one(id: &str) -> Value {
    let supported = json!({"supported": true});
    json!({
        "type": "model",
        "id": id,
        "display_name": format!("{id} (simulated)"),
        "created_at": "2026-11-01T00:00:00Z",
        "lifecycle": "active",
        "line": super::limits::Class::of(id).slug(),
        "max_input_tokens": 200_000,
        "max_tokens": 128_000,
        "capabilities": {"thinking": {"types": {"adaptive": supported, "enabled": supported, "disabled": supported}}},
        "deprecated_at": null,
        "retires_at": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole_list() {
        let models: Vec<String> = (0..25).map(|n| format!("claude-{n}")).collect();
        let first = list(&models, "limit=20");
        assert_eq!(
            (first["data"].as_array().unwrap().len(), &first["has_more"], &first["last_id"]),
            (20, &json!(true), &json!("claude-19"))
        );
        let second = list(&models, "limit=1000&after_id=claude-19");
        assert_eq!(
            (second["data"].as_array().unwrap().len(), &second["has_more"], &second["first_id"]),
            (5, &json!(false), &json!("claude-20"))
        );
        assert_eq!(list(&models, "before_id=claude-1")["data"].as_array().unwrap().len(), 1);
        assert_eq!(list(&[], "limit=abc")["first_id"], Value::Null);
    }
}
