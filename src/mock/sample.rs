//! The smallest plausible value for a JSON Schema: what the simulator says when a request forces a tool or asks for
//! structured output. Not a validator; keywords beyond type, enum, const, properties, required, items and anyOf are
//! ignored.

use serde_json::{Map, Value, json};

/// Nesting that is followed.
const DEPTH_MAX: u32 = 16;

/// A value that `schema` describes.
pub(super) fn sample(schema: &Value) -> Value {
    value(schema, DEPTH_MAX)
}

fn value(schema: &Value, depth: u32) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(fixed) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return fixed.clone();
    }
    if let Some(first) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(|any| any.get(0)) {
        return value(first, depth - 1);
    }
    let named = match schema.get("type") {
        Some(Value::Array(several)) => several.first().and_then(Value::as_str),
        other => other.and_then(Value::as_str),
    };
    match named {
        Some("string") => json!("sim"),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        Some("null") => Value::Null,
        Some("array") => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0).min(8);
            let item = schema.get("items").map_or(Value::Null, |items| value(items, depth - 1));
            Value::Array((0..least).map(|_| item.clone()).collect())
        }
        _ => object(schema, depth),
    }
}

fn object(schema: &Value, depth: u32) -> Value {
    let mut made = Map::new();
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for name in required {
        let of = schema.get("properties").and_then(|properties| properties.get(name)).unwrap_or(&Value::Null);
        made.insert(name.to_owned(), value(of, depth - 1));
    }
    Value::Object(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_members_are_there_and_of_their_type() {
        let schema = json!({"type": "object", "required": ["title", "n", "kind", "list", "deep"], "properties": {
            "title": {"type": "string"}, "n": {"type": "integer", "minimum": 3}, "kind": {"enum": ["b", "c"]},
            "list": {"type": "array", "minItems": 2, "items": {"type": "boolean"}}, "other": {"type": "string"},
            "deep": {"anyOf": [{"type": "null"}, {"type": "string"}]}}});
        let expected = json!({"title": "sim", "n": 3, "kind": "b", "list": [false, false], "deep": null});
        assert_eq!(sample(&schema), expected);
    }

    #[test]
    fn endless_schemas_end() {
        let mut schema = json!({"type": "string"});
        for _ in 0..100 {
            schema = json!({"required": ["a"], "properties": {"a": schema}});
        }
        assert!(sample(&schema).to_string().len() < 200);
    }
}
