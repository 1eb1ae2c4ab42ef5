//! What only the upstreams can tell. Each is asked once: the way there, its models, and the smallest message with each
//! credential. Gathered here, all upstreams beside each other; `judge` says what it means.

use super::{
    answer::{Answer, Asked},
    models::{self, Listing},
};
use crate::{
    base::Span,
    control::{
        models::{PATH, parse},
        probe::{self, Barrier, Question, Reply, Way},
    },
    table::{Credential, Table, Upstream},
};
use std::{io, sync::Arc};
use tokio::task::JoinSet;

/// How long an answer may take.
const ANSWER_MAX: Span = Span::from_secs(30);

/// What one upstream told.
pub struct Told {
    /// The way to it.
    pub way: Result<Way, Barrier>,
    /// By credential, in file order; one without a name where the upstream wants none. Empty when there is no way.
    pub credentials: Vec<Tried>,
    /// Its models.
    pub listing: Listing,
}

/// What came of one credential.
pub struct Tried {
    /// `upstream/credential`.
    pub subject: String,
    /// The answer to the question for the models.
    pub list: Asked,
    /// The model of the smallest message, and the answer; `None` when it was not sent.
    pub message: Option<(String, Asked)>,
}

/// Asks every upstream of `table`; `model` is the one to ask for instead of the cheapest.
///
/// # Errors
/// When the system gives no event loop.
pub fn ask_all(table: &Arc<Table>, model: Option<&str>) -> io::Result<Vec<Told>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = runtime.block_on(async {
        let mut asked = JoinSet::new();
        for slot in 0..table.upstreams.len() {
            let (table, model) = (Arc::clone(table), model.map(str::to_owned));
            asked.spawn(async move { (slot, ask(&table, slot, model.as_deref()).await) });
        }
        let mut told = asked.join_all().await;
        told.sort_by_key(|(slot, _)| *slot);
        told
    });
    runtime.shutdown_background(); // a look-up may block for half a minute yet
    Ok(told.into_iter().filter_map(|(_, told)| told).collect())
}

async fn ask(table: &Table, slot: usize, model: Option<&str>) -> Option<Told> {
    let upstream = table.upstreams.get(slot)?;
    let way = probe::reach(upstream, &table.patience).await;
    let mut told = Told { way, credentials: Vec::new(), listing: Listing::default() };
    if told.way.is_err() {
        return Some(told);
    }
    let pool: Vec<Option<&Credential>> = match &upstream.credentials[..] {
        [] => vec![None],
        pool => pool.iter().map(Some).collect(),
    };
    for credential in &pool {
        let reply = probe::ask(upstream, *credential, Question::Get(PATH.into()), ANSWER_MAX).await;
        if told.listing.ids.is_none() {
            told.listing = listing(&reply);
        }
        let list = reply.map(|reply| Answer::read(&reply, *credential));
        let name = credential.map_or("no credential", |credential| &credential.name);
        told.credentials.push(Tried { subject: format!("{}/{name}", upstream.name), list, message: None });
    }
    let model = model.map(str::to_owned).or_else(|| models::to_ask(table, slot, &told.listing));
    for (credential, tried) in pool.iter().zip(&mut told.credentials) {
        let is_refused = tried.list.as_ref().is_ok_and(Answer::refuses);
        if let (Some(model), false) = (&model, is_refused) {
            tried.message = Some((model.clone(), message(upstream, *credential, model).await));
        }
    }
    let accepted =
        pool.iter().zip(&told.credentials).find(|(_, tried)| tried.list.as_ref().is_ok_and(|a| a.status == 200));
    if let Some((credential, _)) = accepted {
        told.listing.aliases = aliases(table, slot, upstream, *credential, &told.listing).await;
    }
    Some(told)
}

/// The list in an answer, or why there is none.
fn listing(reply: &Result<Reply, String>) -> Listing {
    let none = |why: String| Listing { why_none: why, ..Listing::default() };
    match reply {
        Ok(reply) if (200..300).contains(&reply.status) => match parse(&reply.body, reply.at) {
            Ok(list) => {
                let ids = list.models.into_iter().map(|model| model.id.into_string()).collect();
                Listing { ids: Some(ids), ..Listing::default() }
            }
            Err(error) => none(error),
        },
        Ok(reply) => none(format!("GET /v1/models was answered with status {}", reply.status)),
        Err(error) => none(error.clone()),
    }
}

/// The smallest message that is one: a word in, one token out.
async fn message(upstream: &Upstream, credential: Option<&Credential>, model: &str) -> Asked {
    let body = serde_json::json!({
        "model": model,
        "max_tokens": 1,
        "messages": [{ "role": "user", "content": "Hi" }],
    });
    let question = Question::Post("/v1/messages".into(), body.to_string().into());
    let reply = probe::ask(upstream, credential, question, ANSWER_MAX).await;
    reply.map(|reply| Answer::read(&reply, credential))
}

/// The ids that are in no list and are known all the same.
async fn aliases(
    table: &Table,
    slot: usize,
    upstream: &Upstream,
    credential: Option<&Credential>,
    listing: &Listing,
) -> Vec<String> {
    let mut known = Vec::new();
    for id in models::to_look_up(table, slot, listing) {
        let question = Question::Get(format!("/v1/models/{id}"));
        if probe::ask(upstream, credential, question, ANSWER_MAX).await.is_ok_and(|reply| reply.status == 200) {
            known.push(id);
        }
    }
    known
}
