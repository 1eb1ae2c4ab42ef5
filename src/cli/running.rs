//! Asking the admin listener of a forebay that runs on this machine. One question, one connection.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

/// Where the admin listener is unless somebody says otherwise.
pub(super) const ADMIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));
/// How long to wait for the connection, and for each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is no larger than this, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The document at `path`, by GET.
///
/// # Errors
/// Why there is none, as a sentence.
pub(super) fn ask(admin: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    match exchange(admin, path, None)? {
        (200, document) => Ok(document),
        _ => Err(another(admin)),
    }
}

/// The document that answers a GET, or a POST of `body`.
///
/// # Errors
/// What forebay says against it, or why nothing answers.
pub(super) fn wish(admin: SocketAddr, path: &str, body: Option<&Value>) -> Result<Value, Denied> {
    let text = body.map(ToString::to_string);
    let (status, document) = exchange(admin, path, text.as_deref()).map_err(Denied::silent)?;
    let document: Value = serde_json::from_slice(&document).map_err(|_| Denied::silent(another(admin)))?;
    if status == 200 {
        return Ok(document);
    }
    let message = document["error"]["message"].as_str();
    let message = message.map_or_else(|| another(admin), |text| text.trim_start_matches("forebay: ").to_owned());
    Err(Denied { status, message, document })
}

/// Why a wish was not granted.
pub(super) struct Denied {
    /// The status of the answer; zero when there was none.
    pub status: u16,
    /// In a sentence.
    pub message: String,
    /// The whole answer.
    pub document: Value,
}

impl Denied {
    fn silent(message: String) -> Denied {
        Denied { status: 0, message, document: Value::Null }
    }
}

fn another(admin: SocketAddr) -> String {
    format!("what answers on {admin} is not a forebay of this version")
}

/// Status and body.
fn exchange(admin: SocketAddr, path: &str, body: Option<&str>) -> Result<(u16, Vec<u8>), String> {
    let failed = |error: std::io::Error| format!("no forebay answers on the admin address {admin}: {error}");
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let common = format!("{path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n");
    let request = match body {
        None => format!("GET {common}\r\n"),
        Some(body) => {
            let length = body.len();
            format!("POST {common}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        }
    };
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(failed)?;
    document(&answer).map(|(status, body)| (status, body.to_vec())).ok_or_else(|| another(admin))
}

/// The status and the body of an answer that came whole.
fn document(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    let bytes: usize = std::str::from_utf8(field.value).ok()?.parse().ok()?;
    let body = answer.get(length..)?;
    (body.len() == bytes).then_some((head.code?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_a_document() {
        assert_eq!(document(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Some((200, &b"{}"[..])));
        assert_eq!(document(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"), Some((404, &b"{}"[..])));
        for bad in ["HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n{}", "nonsense", ""] {
            assert_eq!(document(bad.as_bytes()), None, "{bad}");
        }
    }
}
