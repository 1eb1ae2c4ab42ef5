//! What an operator may do and ask while forebay runs, as requests to the admin listener: how the upstreams stand, taking
//! one out for a while and back, why a request goes where it goes, and what became of one.

use super::{
    Control,
    admin::{answer, refuse},
    drains::{self, Drain},
    explain::{self, Question},
    line::rfc3339,
    upstreams::{self, wall_at},
};
use crate::{
    base::{Mono, Span, Wall},
    rt::ring::{mono, wall},
    telemetry::Text,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// How often it is looked whether a drain has ended; the data path does not wait for that.
const TICK: Span = Span::from_secs(1);

/// A wish of the operator's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// `NAME` or `NAME/CREDENTIAL`.
    name: String,
    /// For how long.
    #[serde(default, rename = "for")]
    length: Option<String>,
    /// Who wishes it; for the log.
    #[serde(default)]
    by: String,
    /// Also when a model has no way left then.
    #[serde(default)]
    yes: bool,
}

/// `GET /upstreams`.
pub async fn standing(State(control): State<Arc<Control>>) -> Response {
    answer(StatusCode::OK, &control.with_scene(upstreams::document))
}

/// `POST /upstreams/drain`, with `{"name": "NAME[/CREDENTIAL]", "for": "2h"}`: 409 when a model would have no way left,
/// unless `"yes": true` says that this is meant.
pub async fn drain(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let wish = match wish(&body) {
        Ok(wish) => wish,
        Err(fault) => return refuse(StatusCode::BAD_REQUEST, &fault),
    };
    let table = control.table.load_full();
    let (upstream, credential) = match drains::find(&table, &wish.name) {
        Ok(found) => found,
        Err(fault) => return refuse(StatusCode::NOT_FOUND, &format!("{fault}.")),
    };
    let length = match drains::length(wish.length.as_deref().unwrap_or_default()) {
        Ok(length) => length,
        Err(fault) => return refuse(StatusCode::BAD_REQUEST, &format!("`for`: {fault}.")),
    };
    let (now, since) = (mono(), wall());
    let made = Drain { upstream, credential, until: now.after(length), since, by: Text::new(wish.by.as_bytes()) };
    let Some(drains) = control.drains.with(made.clone()) else {
        return refuse(StatusCode::CONFLICT, "there are too many drains. Resume some.");
    };
    let before = drains::without_way(&table, &control.drains.now(now), now);
    let mut lost = drains::without_way(&table, &drains, now);
    lost.retain(|line| !before.contains(line));
    if !lost.is_empty() && !wish.yes {
        let message = format!("forebay: draining `{}` leaves nothing to ask: {}.", made.name(), lost.join("; "));
        let error = json!({ "type": "invalid_request_error", "message": message });
        return answer(StatusCode::CONFLICT, &json!({ "type": "error", "error": error, "without_way": lost }));
    }
    control.drains.put(drains);
    control.apply_drains();
    let until = rfc3339(wall_at(made.until, now, since));
    control.sink.notice(&format!("upstream `{}` is drained until {until}{}", made.name(), by_whom(&made.by)));
    for line in &lost {
        control.sink.notice(&format!("WARNING: {line} until {until}"));
    }
    answer(StatusCode::OK, &json!({ "name": made.name(), "until": until, "without_way": lost }))
}

/// `POST /upstreams/resume`, with `{"name": "NAME[/CREDENTIAL]"}`.
pub async fn resume(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let wish = match wish(&body) {
        Ok(wish) => wish,
        Err(fault) => return refuse(StatusCode::BAD_REQUEST, &fault),
    };
    let (upstream, credential) = wish.name.split_once('/').map_or((&*wish.name, None), |(n, c)| (n, Some(c)));
    let Some(ended) = control.drains.end(upstream, credential) else {
        let all: Vec<String> = control.drains.now(mono()).iter().map(Drain::name).collect();
        let drained = if all.is_empty() { "nothing is".to_owned() } else { format!("drained is {}", all.join(", ")) };
        return refuse(
            StatusCode::NOT_FOUND,
            &format!("`{}` is not drained; {drained}.", Text::<80>::from(&*wish.name)),
        );
    };
    control.apply_drains();
    let by = Text::new(wish.by.as_bytes());
    control.sink.notice(&format!("upstream `{}` is back: its drain is ended{}", ended.name(), by_whom(&by)));
    answer(StatusCode::OK, &json!({ "name": ended.name() }))
}

/// `POST /explain`, with a `Question`: where a request would go and why.
pub async fn explain(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("that is not a question: {error}.")),
    };
    let explained = control.with_scene(|scene| explain::explain(scene.table, Some(scene), &question, scene.wall));
    match explained {
        Ok(document) => answer(StatusCode::OK, &document),
        Err(fault) => refuse(StatusCode::NOT_FOUND, &format!("{fault}.")),
    }
}

/// `GET /requests/ID`: what became of a request; 404 when it is too long ago, or was never here.
pub async fn request(State(control): State<Arc<Control>>, Path(id): Path<String>) -> Response {
    let (found, reach) = control.with_recent(|recent| (recent.find(&id), recent.reach()));
    match found.and_then(|line| serde_json::from_str::<Value>(&line).ok()) {
        Some(document) => answer(StatusCode::OK, &document),
        None => refuse(StatusCode::NOT_FOUND, &unknown(&id, reach)),
    }
}

/// What is said of a request that is not remembered.
fn unknown(id: &str, (plain, notable): (Option<Wall>, Option<Wall>)) -> String {
    let since = |wall: Option<Wall>| wall.map_or("forebay began".to_owned(), rfc3339);
    format!(
        "the request `{}` is not remembered. Requests that went well are remembered since {}, others since {}; the access \
         log has what is older.",
        Text::<40>::from(id),
        since(plain),
        since(notable),
    )
}

/// Tells the operator of drains that have ended by themselves; never ends.
pub async fn run(control: Arc<Control>) {
    loop {
        for ended in control.drains.ended(mono()) {
            control.sink.notice(&format!("upstream `{}` is back: the time of its drain is over", ended.name()));
        }
        tokio::time::sleep(TICK.to_std()).await;
    }
}

fn wish(body: &[u8]) -> Result<Wish, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("the body is not a wish such as {{\"name\": \"a\", \"for\": \"2h\"}}: {error}."))
}

fn by_whom(by: &Text<64>) -> String {
    if by.is_empty() { String::new() } else { format!(", by {by}") }
}

/// What is drained, for `/readyz`.
pub fn warnings(drains: &drains::Drains, now: Mono, wall: Wall) -> Vec<String> {
    let told = |drain: &Drain| {
        format!("upstream `{}` is drained until {}", drain.name(), rfc3339(wall_at(drain.until, now, wall)))
    };
    drains.now(now).iter().map(told).collect()
}
