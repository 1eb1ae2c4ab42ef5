//! Which models each upstream lists: `GET /v1/models`, now and then, so that a client's own question (R50: it waits
//! three seconds) is answered from memory. Nothing waits for this; an upstream without a list has none.

use super::{
    Control,
    probe::{self, Question},
};
use crate::{
    base::{Span, Wall},
    rt::ring::wall,
    table::{
        Upstream,
        live::{Live, Model, ModelList},
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Where the list is, with room for all of it.
pub const PATH: &str = "/v1/models?limit=1000";
const REFRESH: Span = Span::from_secs(300);
/// The first pause after a failure; doubles up to `RETRY_MAX`. Short, because both may just be starting.
const RETRY: Span = Span::from_secs(1);
const RETRY_MAX: Span = Span::from_secs(30);
const FETCH_MAX: Span = Span::from_secs(3);
const MODELS_MAX: usize = 2_000;
const ID_BYTES_MAX: usize = 256;

/// Keeps the lists of all upstreams fresh; never ends.
pub async fn run(control: Arc<Control>) {
    let mut retry = RETRY;
    loop {
        let (generation, all_fetched) = round(&control).await;
        let pause = if all_fetched { REFRESH } else { retry };
        retry = if all_fetched { RETRY } else { Span(retry.0.saturating_mul(2)).min(RETRY_MAX) };
        control.pause(pause, generation).await;
    }
}

/// Asks every upstream whose list is not fresh, each beside the others; says for which table, and whether all have
/// answered.
async fn round(control: &Arc<Control>) -> (u64, bool) {
    let (table, live) = (control.table.load_full(), control.live.load_full());
    let mut asked = JoinSet::new();
    let slots = table.upstream_slots().map(|(slot, _)| slot);
    for slot in slots.filter(|slot| !is_fresh(&live, slot.index(), wall())) {
        let table = Arc::clone(&table);
        asked.spawn(async move {
            let fetched = match table.upstream(slot) {
                Some(upstream) => fetch(upstream, wall()).await,
                None => Err("no such upstream".into()),
            };
            (slot, fetched)
        });
    }
    let mut all_fetched = true;
    while let Some(joined) = asked.join_next().await {
        let Ok((slot, fetched)) = joined else {
            all_fetched = false;
            continue;
        };
        all_fetched &= fetched.is_ok();
        if control.table.load().upstream(slot).is_none() {
            continue; // a reload has removed it while it was asked
        }
        control.change_live(table.upstream_slots_len(), |live| {
            let at = slot.index();
            let (models, error) = (live.models.get_mut(at)?, live.model_errors.get_mut(at)?);
            match fetched {
                Ok(list) => (*models, *error) = (Some(Arc::new(list)), None),
                Err(text) if error.as_deref() == Some(&*text) => return None,
                Err(text) => *error = Some(text.into()),
            }
            Some(())
        });
    }
    (table.generation, all_fetched)
}

/// Whether the list came in the last `REFRESH`, but for the pause's own length of a second.
fn is_fresh(live: &Live, slot: usize, now: Wall) -> bool {
    let failed = live.model_errors.get(slot).is_none_or(Option::is_some);
    let list = live.models.get(slot).and_then(Option::as_ref);
    !failed && list.is_some_and(|list| now.0.saturating_sub(list.fetched_at.0) + 1_000 < REFRESH.as_ms())
}

/// Asks one upstream for its list.
async fn fetch(upstream: &Upstream, now: Wall) -> Result<ModelList, String> {
    let question = Question::Get(PATH.into());
    let reply = probe::ask(upstream, upstream.credentials.first(), question, FETCH_MAX).await?;
    if !(200..300).contains(&reply.status) {
        return Err(format!("GET /v1/models was answered with status {}", reply.status));
    }
    parse(&reply.body, now)
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Entry {
    id: Box<str>,
    #[serde(default)]
    display_name: Option<Box<str>>,
}

/// The list in an answer. Entries without an id, and what is over the bounds, are left out.
///
/// # Errors
/// When the answer is not a list of models.
pub fn parse(body: &[u8], now: Wall) -> Result<ModelList, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|e| format!("its list of models is not readable: {e}"))?;
    let mut models: Vec<Model> = Vec::new();
    for raw in answer.data.into_iter().take(MODELS_MAX) {
        match serde_json::from_str::<Entry>(raw.get()) {
            Ok(entry) if (1..=ID_BYTES_MAX).contains(&entry.id.len()) => {
                models.push(Model { id: entry.id, display_name: entry.display_name, json: raw.get().into() });
            }
            _ => {}
        }
    }
    Ok(ModelList { models, fetched_at: now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_as_they_came() {
        let body = br#"{"data":[{"type":"model","id":"claude-a","display_name":"A", "new_field": 1.50},{"id":""},{"x":1},7],"has_more":false}"#;
        let list = parse(body, Wall(9)).unwrap();
        assert_eq!(list.models.len(), 1);
        assert_eq!(&*list.models[0].id, "claude-a");
        assert_eq!(list.models[0].display_name.as_deref(), Some("A"));
        assert_eq!(&*list.models[0].json, r#"{"type":"model","id":"claude-a","display_name":"A", "new_field": 1.50}"#);
        assert_eq!(list.fetched_at, Wall(9));
    }

    #[test]
    fn a_list_is_asked_for_again_when_it_failed_or_has_aged() {
        let mut live = Live::unknown(1);
        let fresh = |live: &Live, ms| is_fresh(live, 0, Wall(ms));
        assert!(!fresh(&live, 0), "never asked");
        live.models[0] = Some(Arc::new(ModelList { models: Vec::new(), fetched_at: Wall(1_000) }));
        assert!(fresh(&live, 299_000) && !fresh(&live, 300_001));
        live.model_errors[0] = Some("no answer".into());
        assert!(!fresh(&live, 2_000));
        assert!(!is_fresh(&live, 1, Wall(0)), "a slot that is new");
    }

    #[test]
    fn what_is_not_a_list_is_an_error() {
        for body in [&b"<html>"[..], b"{}", b"[]", br#"{"data":{}}"#, b""] {
            assert!(parse(body, Wall(0)).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
