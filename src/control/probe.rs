//! Asking an upstream something on forebay's own account: a way there, and one question with one credential. Only for
//! threads that may wait. No redirect is followed: a credential goes nowhere else. What the answers mean is for those
//! who ask.

use super::{resolve, way};
use crate::{
    base::{Span, Wall},
    rt::ring::{mono, wall},
    table::{Credential, Patience, Upstream},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Uri,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::ProtocolVersion;
use std::{error::Error, net::SocketAddr};
use tokio::task::JoinSet;

/// The body of an answer; a longer one is an error.
const BODY_BYTES_MAX: usize = 4 << 20;
/// An error's text, which may quote the upstream.
const ERROR_CHARS_MAX: usize = 300;

/// What is asked: a path below the upstream's base path, with its query.
#[derive(Clone)]
pub enum Question {
    /// `GET`.
    Get(String),
    /// `POST` of a JSON document.
    Post(String, Bytes),
}

/// A whole answer, whatever its status.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The fields.
    pub headers: HeaderMap,
    /// At most 4 MiB.
    pub body: Bytes,
    /// When the head was there.
    pub at: Wall,
}

/// Asks one upstream, on a connection of its own, with `credential` if there is one.
///
/// # Errors
/// A line that says why there is no whole answer `within` that time.
pub async fn ask(
    upstream: &Upstream,
    credential: Option<&Credential>,
    question: Question,
    within: Span,
) -> Result<Reply, String> {
    let answered = async {
        let question = request(upstream, credential, question)?;
        let stream = TokioIo::new(way::open(upstream).await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(|e| cause(&e))?;
        // It ends with the sender, or with the task that waits for the answer.
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let answer = sender.send_request(question).await.map_err(|e| cause(&e))?;
        let (at, (head, body)) = (wall(), answer.into_parts());
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|e| cause(&*e))?;
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), at })
    };
    match tokio::time::timeout(within.to_std(), answered).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {} s", within.as_ms() / 1_000)),
    }
}

fn request(
    upstream: &Upstream,
    credential: Option<&Credential>,
    question: Question,
) -> Result<Request<Full<Bytes>>, String> {
    let (method, path, body) = match question {
        Question::Get(path) => (Method::GET, path, None),
        Question::Post(path, body) => (Method::POST, path, Some(body)),
    };
    let uri = format!("{}{path}", upstream.base_path);
    let uri: Uri = uri.parse().map_err(|_| "its base URL is not one that can be asked".to_owned())?;
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header(HOST, upstream.host_header.as_str())
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .header("anthropic-version", "2023-06-01");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let mut request = request.body(Full::new(body.unwrap_or_default())).map_err(|e| cause(&e))?;
    if let Some(credential) = credential {
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

/// The way to an upstream, walked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What its name stands for.
    pub addresses: Vec<SocketAddr>,
    /// The first of them that took a connection.
    pub address: SocketAddr,
    /// How long TCP took.
    pub tcp: Span,
    /// How long TLS took, and its version; `None` without TLS.
    pub tls: Option<(Span, &'static str)>,
}

/// Where the way to an upstream ended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Its name has no address.
    Name(String),
    /// No address took a connection.
    Connect(String),
    /// TLS was not agreed on.
    Tls(String),
}

/// Walks the way to an upstream: name, TCP (past the proxy, if one is on the way), TLS. Sends no request.
///
/// # Errors
/// The first barrier.
pub async fn reach(upstream: &Upstream, patience: &Patience) -> Result<Way, Barrier> {
    let found = resolve::addresses(upstream).await;
    let addresses = found.map_err(|error| Barrier::Name(error.text.to_string()))?;
    let started = mono();
    let connecting = async { way::through(upstream, way::connect(&addresses).await?).await };
    let stream = bounded(patience.connect, connecting).await.map_err(Barrier::Connect)?;
    let address = stream.peer_addr().map_err(|e| Barrier::Connect(cause(&e)))?;
    let tcp = mono().since(started);
    let tls = if upstream.tls {
        let started = mono();
        let stream = bounded(patience.tls, way::secured(upstream, stream)).await.map_err(Barrier::Tls)?;
        let version = match stream.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        };
        Some((mono().since(started), version))
    } else {
        None
    };
    Ok(Way { addresses, address, tcp, tls })
}

/// `work`, given up after `within`.
async fn bounded<T>(within: Span, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(within.to_std(), work).await {
        Ok(done) => done,
        Err(_) => Err(format!("not done within {} ms", within.as_ms())),
    }
}

/// An error and what lies under it, as one short line.
pub fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        text = format!("{text}: {error}");
        under = error.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::Guard,
        table::{Provider, SecretLine},
    };
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    fn upstream(address: SocketAddr, tls: bool) -> Upstream {
        Upstream {
            name: "main".into(),
            provider: Provider::AnthropicCompatible,
            tls,
            host: address.ip().to_string().into(),
            port: address.port(),
            base_path: "/base".into(),
            host_header: "api.example".into(),
            credentials: vec![Credential::new("org", SecretLine::x_api_key("secret"))],
            extra_ca: Vec::new(),
            via: None,
            guard: Guard::Inside,
            first_byte: None,
            charge: crate::table::prices::Charge::default(),
            verdicts: Vec::new(),
        }
    }

    /// Answers one connection with `answer`; hands over what it read.
    fn once(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = [0; 4096];
            let n = stream.read(&mut read).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&read[..n]).into_owned()
        });
        (address, thread)
    }

    #[test]
    fn a_credential_line_becomes_a_hidden_header() {
        let (name, value) = field(b"authorization: Bearer abc\r\n").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("authorization", &b"Bearer abc"[..]));
        assert!(!format!("{value:?}").contains("abc"));
        assert!(field(b"no colon\r\n").is_none());
    }

    #[tokio::test]
    async fn any_status_is_an_answer_and_a_redirect_is_not_followed() {
        let (address, thread) =
            once("HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\nx-odd: 1\r\ncontent-length: 2\r\n\r\nno");
        let upstream = upstream(address, false);
        let question = Question::Post("/v1/messages".into(), Bytes::from_static(b"{}"));
        let reply = ask(&upstream, upstream.credentials.first(), question, Span::from_secs(5)).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (307, &b"no"[..]));
        assert_eq!(reply.headers.get("x-odd").unwrap(), "1");
        let got = thread.join().unwrap().to_ascii_lowercase();
        assert!(got.starts_with("post /base/v1/messages http/1.1\r\n"), "{got}");
        assert!(got.contains("host: api.example\r\n") && got.contains("x-api-key: secret\r\n"), "{got}");
        assert!(got.contains("content-length: 2\r\n") && got.ends_with("\r\n\r\n{}"), "{got}");
    }

    #[tokio::test]
    async fn the_way_ends_at_the_barrier() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let patience = Patience::default();
        let refused = reach(&upstream(closed, false), &patience).await;
        assert!(matches!(&refused, Err(Barrier::Connect(text)) if text.contains("refused")), "{refused:?}");
        let mut nameless = upstream(closed, false);
        nameless.host = "forebay-test.invalid".into();
        assert!(matches!(reach(&nameless, &patience).await, Err(Barrier::Name(_))));
        let (address, thread) = once("HTTP/1.1 400 Bad Request\r\n\r\n");
        let plain = reach(&upstream(address, true), &patience).await;
        assert!(matches!(plain, Err(Barrier::Tls(_))), "{plain:?}");
        thread.join().unwrap();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = reach(&upstream(open.local_addr().unwrap(), false), &patience).await.unwrap();
        assert_eq!((way.address, way.tls), (open.local_addr().unwrap(), None));
    }
}
