//! Asking the admin listener of a forebay that runs on this machine. One question, one connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long to wait for the connection, and for each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is no larger than this, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The document at `path`, by GET.
///
/// # Errors
/// Why there is none, as a sentence.
pub(super) fn ask(admin: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("no forebay answers on the admin address {admin}: {error}");
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(failed)?;
    document(&answer)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| format!("what answers on {admin} is not a forebay of this version"))
}

/// The body of an answer that is a success and came whole.
fn document(answer: &[u8]) -> Option<&[u8]> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    let bytes: usize = std::str::from_utf8(field.value).ok()?.parse().ok()?;
    let body = answer.get(length..)?;
    (head.code == Some(200) && body.len() == bytes).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_success_is_a_document() {
        assert_eq!(document(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Some(&b"{}"[..]));
        for bad in [
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "nonsense",
            "",
        ] {
            assert_eq!(document(bad.as_bytes()), None, "{bad}");
        }
    }
}
