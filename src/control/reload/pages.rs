//! What the admin listener shows of reloads, as documents. Pure but for the reload that one of them asks for.

use super::{Asker, Entry, Outcome, Reloads, Status};
use crate::control::{
    Control,
    admin::{answer, refuse},
    line::rfc3339,
};
use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde_json::{Value, json};
use std::sync::{Arc, atomic::Ordering};

/// `POST /reload`: 200 with what has changed, 422 with what is wrong, 409 when there is nothing to reload.
pub async fn reload(State(control): State<Arc<Control>>) -> Response {
    // In a task of its own, so that an asker who leaves does not stop it half-way.
    let task = tokio::spawn(async move { control.reload(Asker::Admin).await });
    match task.await {
        Ok(Some(made)) => {
            let status = match made.outcome {
                Outcome::Published(_) | Outcome::Unchanged => StatusCode::OK,
                Outcome::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            };
            answer(status, &entry(&made))
        }
        Ok(None) => {
            refuse(StatusCode::CONFLICT, "this forebay runs without a configuration file; there is nothing to reload.")
        }
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the reload failed inside forebay. Report this."),
    }
}

/// `GET /table/history`.
pub async fn history(State(control): State<Arc<Control>>) -> Response {
    let status = control.reloads.status();
    let newest_first: Vec<Value> = status.history.iter().rev().map(|made| entry(made)).collect();
    answer(StatusCode::OK, &json!({ "reloads": newest_first }))
}

/// `GET /table/meaning?key=<64 hex digits>`: the table in the form that can be compared. The asker brings the key for
/// fingerprints, so that a document that is kept says nothing about secrets to those who do not have it.
pub async fn meaning(State(control): State<Arc<Control>>, RawQuery(query): RawQuery) -> Response {
    let Some(key) = query.as_deref().and_then(|query| query.strip_prefix("key=")).and_then(key) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "give `?key=` 64 hex digits of your own choice; fingerprints are made under it.",
        );
    };
    match serde_json::to_value(control.table.load().meaning(&key)) {
        Ok(meaning) => answer(StatusCode::OK, &meaning),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the table cannot be shown. Report this."),
    }
}

fn key(hex: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// One reload.
fn entry(entry: &Entry) -> Value {
    let mut shown = json!({
        "at": rfc3339(entry.at),
        "generation": entry.generation,
        "origin": entry.asker.slug(),
    });
    match &entry.outcome {
        Outcome::Published(changes) => {
            shown["outcome"] = "published".into();
            shown["changes"] =
                changes.iter().map(|change| json!({ "effect": change.effect, "what": change.what })).collect();
        }
        Outcome::Refused(report) => {
            shown["outcome"] = "refused".into();
            shown["report"] = (&**report).into();
        }
        Outcome::Unchanged => shown["outcome"] = "unchanged".into(),
    }
    shown
}

/// How the files stand, for `/table`.
pub fn standing(reloads: &Reloads) -> Value {
    let status = reloads.status();
    json!({
        "ok": status.failing.is_none(),
        "watched": reloads.is_watched.load(Ordering::Acquire),
        "since": status.failing.as_ref().map(|failing| rfc3339(failing.since)),
        "report": status.failing.as_ref().map(|failing| &*failing.report),
    })
}

/// How the files stand, for `/readyz`; `None` when all is well.
pub fn warning(status: &Status, generation: u64) -> Option<String> {
    let since = rfc3339(status.failing.as_ref()?.since);
    Some(format!("the configuration's files are wrong since {since}; generation {generation} stays in force"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hex_digits() {
        assert_eq!(key(&"0f".repeat(32)), Some([15; 32]));
        for bad in ["", "0f", &"0f".repeat(33), &"xx".repeat(32), &"é".repeat(32)] {
            assert_eq!(key(bad), None, "{bad}");
        }
    }
}
