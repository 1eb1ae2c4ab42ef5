//! Which models each upstream lists: `GET /v1/models`, now and then, so that a client's own question (R50: it waits
//! three seconds) is answered from memory. Nothing waits for this; an upstream without a list has none.

use super::Control;
use crate::{
    base::{Span, Wall},
    rt::ring::wall,
    table::{
        Upstream,
        live::{Live, Model, ModelList},
    },
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Uri,
    body::Bytes,
    header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{error::Error, sync::Arc};
use tokio::task::JoinSet;

const REFRESH: Span = Span::from_secs(300);
/// The first pause after a failure; doubles up to `RETRY_MAX`. Short, because both may just be starting.
const RETRY: Span = Span::from_secs(1);
const RETRY_MAX: Span = Span::from_secs(30);
const FETCH_MAX: Span = Span::from_secs(3);
const BODY_BYTES_MAX: usize = 4 << 20;
const MODELS_MAX: usize = 2_000;
const ID_BYTES_MAX: usize = 256;
/// An error's text, which may quote the upstream.
const ERROR_CHARS_MAX: usize = 300;

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
    for slot in (0..table.upstreams.len()).filter(|slot| !is_fresh(&live, *slot, wall())) {
        let table = Arc::clone(&table);
        asked.spawn(async move {
            let fetched = match table.upstreams.get(slot) {
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
        control.change_live(table.upstreams.len(), |live| {
            let (models, error) = (live.models.get_mut(slot)?, live.model_errors.get_mut(slot)?);
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

/// Asks one upstream for its list. No redirect is followed: the credential goes nowhere else.
async fn fetch(upstream: &Upstream, now: Wall) -> Result<ModelList, String> {
    match tokio::time::timeout(FETCH_MAX.to_std(), ask(upstream)).await {
        Ok(answer) => parse(&answer?, now),
        Err(_) => Err(format!("no answer within {} s", FETCH_MAX.as_ms() / 1_000)),
    }
}

async fn ask(upstream: &Upstream) -> Result<Bytes, String> {
    let tls = tls_config(upstream)?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let answer = client.request(request(upstream)?).await.map_err(|e| cause(&e))?;
    if !answer.status().is_success() {
        return Err(format!("GET /v1/models was answered with status {}", answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await.map_err(|e| cause(&*e))?;
    Ok(body.to_bytes())
}

fn request(upstream: &Upstream) -> Result<Request<Empty<Bytes>>, String> {
    let scheme = if upstream.tls { "https" } else { "http" };
    let host = if upstream.host.contains(':') { format!("[{}]", upstream.host) } else { upstream.host.to_string() };
    let uri = format!("{scheme}://{host}:{}{}/v1/models?limit=1000", upstream.port, upstream.base_path);
    let uri: Uri = uri.parse().map_err(|_| "its base URL is not one that can be asked".to_owned())?;
    let mut request = Request::get(uri)
        .header(HOST, upstream.host_header.as_str())
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .header("anthropic-version", "2023-06-01")
        .body(Empty::new())
        .map_err(|e| cause(&e))?;
    if let Some(credential) = upstream.credentials.first() {
        let (name, value) = field(credential.header.as_bytes()).ok_or("its credential is not a header field")?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// A rendered header line as hyper wants it; marked, so that hyper's own `Debug` leaves it out.
fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let line = line.strip_suffix(b"\r\n")?;
    let colon = line.iter().position(|b| *b == b':')?;
    let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
    let mut value = HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn tls_config(upstream: &Upstream) -> Result<ClientConfig, String> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    for der in &upstream.extra_ca {
        roots.add(CertificateDer::from(der.as_slice()).into_owned()).map_err(|e| cause(&e))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| cause(&e))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// An error and what lies under it, as one short line.
fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        text = format!("{text}: {error}");
        under = error.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS_MAX).collect()
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
fn parse(body: &[u8], now: Wall) -> Result<ModelList, String> {
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

    #[test]
    fn a_credential_line_becomes_a_hidden_header() {
        let (name, value) = field(b"authorization: Bearer abc\r\n").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("authorization", &b"Bearer abc"[..]));
        assert!(!format!("{value:?}").contains("abc"));
        assert!(field(b"no colon\r\n").is_none());
    }
}
