//! The operator's listener: health, metrics, the table without secrets, how the upstreams stand; and what changes
//! something: a reload, and taking an upstream out for a while. A web page cannot read it by a DNS name of its own that it points at this machine:
//! only addresses of this machine and `localhost` are answered.
//!
//! The health listener serves the first three of these paths for kubelet and Prometheus, which come by a name of the
//! cluster's; it answers to every name unless it listens on loopback.

use super::{Control, health, levers, metrics, reload::pages, view};
use crate::{
    base::{Kind, Span},
    rt::ring::{mono, wall},
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::TcpListener, net::TcpStream, sync::Semaphore, time::timeout};

/// Connections at once, per listener.
const CONNECTIONS_MAX: usize = 64;
/// A request's head; also how long a connection may idle.
const HEAD_MAX: Span = Span::from_secs(5);
/// A connection's life; the request that is being answered then has `HEAD_MAX` more.
const LIFE_MAX: Span = Span::from_secs(60);
/// The pause after a failed accept: there is no descriptor left, and no use in asking again at once.
const ACCEPT_RETRY: Span = Span::from_ms(100);

/// A request's body, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Health and metrics only.
    Health,
}

/// Serves `listener`; never ends.
pub async fn run(control: Arc<Control>, listener: Arc<TcpListener>, scope: Scope) {
    let Ok(own) = listener.local_addr() else { return };
    let router = router(control, scope, own);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve(stream, router).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY.to_std()).await,
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX.to_std())
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // What ends a connection early is the client's business, and not worth a line.
    if timeout(LIFE_MAX.to_std(), connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEAD_MAX.to_std(), connection).await;
    }
}

fn router(control: Arc<Control>, scope: Scope, own: SocketAddr) -> Router {
    let mut router = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route(
        "/metrics",
        get(move |State(control): State<Arc<Control>>| async move { metrics_page(&control, scope) }),
    );
    if scope == Scope::Admin {
        router = router
            .route("/table", get(table))
            .route("/table/history", get(pages::history))
            .route("/table/meaning", get(pages::meaning))
            .route("/upstreams", get(levers::standing))
            .route("/upstreams/drain", post(levers::drain))
            .route("/upstreams/resume", post(levers::resume))
            .route("/explain", post(levers::explain))
            .route("/requests/{id}", get(levers::request))
            .route("/reload", post(pages::reload))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    }
    let guard = Guard { scope, own: own.ip() };
    router
        .fallback(move || async move { not_found(scope) })
        .layer(middleware::from_fn_with_state(guard, guard_request))
        .with_state(control)
}

/// The paths of the admin listener alone, as a refusal lists them.
const ADMIN_PATHS: &str = ", /table, /table/history, /upstreams, /requests/ID, POST /reload, POST /upstreams/drain, \
                           POST /upstreams/resume, POST /explain";

fn not_found(scope: Scope) -> Response {
    let table = if scope == Scope::Admin { ADMIN_PATHS } else { "" };
    refusal(Kind::NoSuchPath, &format!("no such path here. There are /healthz, /readyz, /metrics{table}."))
}

async fn healthz(State(control): State<Arc<Control>>) -> Response {
    let stuck = health::not_alive(&control.telemetry, &control.pulses, mono());
    let status = if stuck.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &json!({ "alive": stuck.is_empty(), "reasons": stuck }))
}

async fn readyz(State(control): State<Arc<Control>>) -> Response {
    let health::Readiness { reasons, warnings } = control.readiness();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &json!({ "ready": reasons.is_empty(), "reasons": reasons, "warnings": warnings }))
}

fn metrics_page(control: &Control, scope: Scope) -> Response {
    let (table, live) = (control.table.load_full(), control.live.load_full());
    let (health, names) = (control.upstreams.load_full(), control.names.load_full());
    let page = control.with_recent(|recent| {
        let scene = metrics::Scene {
            telemetry: &control.telemetry,
            table: &table,
            live: &live,
            health: &health,
            names: &names,
            used: (scope == Scope::Admin).then_some(&recent.used),
            now: wall(),
            mono: mono(),
            ready: control.readiness().reasons.is_empty(),
            config_ok: control.reloads.status().failing.is_none(),
            resident_bytes: metrics::resident_bytes(),
        };
        scene.render()
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn table(State(control): State<Arc<Control>>) -> Response {
    let mut shown = view::view(&control.table.load(), &control.live.load());
    shown["configuration"] = pages::standing(&control.reloads);
    answer(StatusCode::OK, &shown)
}

/// What a request is checked against before anything else.
#[derive(Clone, Copy)]
struct Guard {
    scope: Scope,
    own: IpAddr,
}

async fn guard_request(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    let mut response = match guard.refusal(request.headers(), request.uri(), changes) {
        None => next.run(request).await,
        Some(refusal) => refusal,
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

impl Guard {
    /// The answer to a request that is not let in.
    fn refusal(self, headers: &HeaderMap, uri: &Uri, changes: bool) -> Option<Response> {
        // A page of another port of this machine is of the same site, and may ask for nothing that changes something.
        if changes && headers.contains_key(header::ORIGIN) {
            return Some(refusal(Kind::CrossSite, "web pages may not do that; use a command-line client."));
        }
        if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
            return Some(refusal(Kind::CrossSite, "web pages of other sites are not answered."));
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            _ => "",
        };
        // An absolute target names the host a second time (RFC 9112 section 3.2.2), and must name the same.
        let agrees = uri.authority().is_none_or(|authority| authority.as_str() == host);
        if agrees && self.answers(host) {
            return None;
        }
        Some(refusal(Kind::HostRefused, "this listener answers to localhost and to its own address only."))
    }

    fn answers(self, host: &str) -> bool {
        if self.scope == Scope::Health && !self.own.is_loopback() {
            return true;
        }
        let Some(name) = host_name(host) else { return false };
        match name.parse::<IpAddr>() {
            // An address in `Host` is one that the client typed; only names can be pointed elsewhere.
            Ok(ip) => self.own.is_unspecified() || ip.is_loopback() || ip == self.own,
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// The name in a `Host` value, without its port; an IPv6 address without brackets.
fn host_name(host: &str) -> Option<&str> {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if let Some(rest) = host.strip_prefix('[') {
        let (name, after) = rest.split_once(']')?;
        let fits = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return (fits && name.contains(':')).then_some(name);
    }
    match host.split_once(':') {
        None => Some(host),
        Some((name, port)) => is_port(port).then_some(name),
    }
}

fn refusal(kind: Kind, message: &str) -> Response {
    let row = kind.row();
    let status = StatusCode::from_u16(row.status[0]).unwrap_or(StatusCode::BAD_REQUEST);
    failure(status, row.error_type, message)
}

/// A refusal that is not of the failure table: it concerns no client of the gateway.
pub(super) fn refuse(status: StatusCode, message: &str) -> Response {
    failure(status, "invalid_request_error", message)
}

fn failure(status: StatusCode, kind: &str, message: &str) -> Response {
    let message = format!("forebay: {message}");
    answer(status, &json!({ "type": "error", "error": { "type": kind, "message": message } }))
}

/// A document.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(scope: Scope, own: &str, host: &str) -> bool {
        Guard { scope, own: own.parse().unwrap() }.answers(host)
    }

    #[test]
    fn a_name_that_points_here_is_not_enough() {
        for host in ["localhost", "LocalHost:9", "127.0.0.1:9901", "[::1]:9901", "127.0.0.1"] {
            assert!(answers(Scope::Admin, "127.0.0.1", host), "{host}");
        }
        for host in [
            "",
            "rebound.example",
            "rebound.example:9901",
            "localhost.example",
            "10.0.0.9",
            "[::1",
            "[a]",
            "localhost:x",
        ] {
            assert!(!answers(Scope::Admin, "127.0.0.1", host), "{host}");
        }
    }

    #[test]
    fn its_own_address_is_answered() {
        assert!(answers(Scope::Admin, "10.0.0.9", "10.0.0.9:9901"));
        assert!(!answers(Scope::Admin, "10.0.0.9", "10.0.0.8:9901"));
        assert!(answers(Scope::Admin, "0.0.0.0", "10.0.0.8:9901"), "any address can be its own");
        assert!(!answers(Scope::Admin, "0.0.0.0", "rebound.example"));
    }

    #[test]
    fn the_health_listener_is_known_by_many_names_unless_on_loopback() {
        assert!(answers(Scope::Health, "0.0.0.0", "forebay.monitoring.svc:9902"));
        assert!(!answers(Scope::Health, "127.0.0.1", "rebound.example"));
    }
}
