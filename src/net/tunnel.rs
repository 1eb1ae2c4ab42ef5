//! The way through an HTTP proxy: `CONNECT`, and what its answer means (RFC 9110 section 9.3.6). Behind a good answer the
//! connection is the target's, so TLS goes through it end to end; what the proxy does not like is told as the proxy's.

use super::{DialError, egress::Via};
use crate::{
    base::{Kind, bounds::INTERIM_ANSWERS_MAX},
    rt::{Outbox, Read, Segment, Socket},
    wire::ResponseHead,
};

/// Asks the proxy at the other end of `socket` for its target. Bytes that came behind the answer's head are given back to
/// the inbox. Dropped in the middle, the connection is lost, as it is on failure.
///
/// # Errors
/// `ProxyRefused` when it does not want to, `ProxyFailed` when it cannot or is no proxy.
pub async fn open<O: Outbox>(mut socket: Socket<O>, via: &Via) -> Result<Socket<O>, DialError> {
    // A proxy that refuses early may have closed its side; its answer says more than the failed write.
    let _ = socket.outbox.write(Segment::copy_of(via.request())).await;
    let (mut head, mut held, mut interim) = (ResponseHead::new(), Vec::new(), 0);
    loop {
        match socket.inbox.next().await {
            Read::Data(more) => held.extend_from_slice(more.live()),
            Read::End | Read::Failed(_) => {
                return Err(failed(via, Kind::ProxyFailed, "closed the connection instead of answering CONNECT"));
            }
        }
        loop {
            // As to a HEAD request: the answer to a CONNECT that succeeds has no body, whatever its fields say.
            match head.parse(&held, true) {
                Ok(Some(length)) if head.status < 200 && interim < INTERIM_ANSWERS_MAX => {
                    interim += 1;
                    held.drain(..length);
                    head.reset();
                }
                Ok(Some(length)) => {
                    judge(via, head.status)?;
                    let rest = held.get(length..).unwrap_or_default();
                    if !rest.is_empty() {
                        socket.inbox.give_back(Segment::copy_of(rest));
                    }
                    return Ok(socket);
                }
                Ok(None) => break,
                Err(error) => {
                    let what = format!("gave an answer to CONNECT that is not HTTP/1.1: {error}");
                    return Err(failed(via, Kind::ProxyFailed, &what));
                }
            }
        }
    }
}

/// What the proxy's final status means.
///
/// # Errors
/// For all but 2xx.
pub fn judge(via: &Via, status: u16) -> Result<(), DialError> {
    let target = via.target();
    let (kind, what) = match status {
        200..300 => return Ok(()),
        407 if via.has_credentials() => {
            (Kind::ProxyRefused, "refused the credentials that forebay has for it (407)".to_owned())
        }
        407 => (Kind::ProxyRefused, "wants credentials, and forebay has none for it (407)".to_owned()),
        500.. => (Kind::ProxyFailed, format!("could not connect to {target} (status {status})")),
        _ => (Kind::ProxyRefused, format!("does not let forebay through to {target} (status {status})")),
    };
    Err(failed(via, kind, &what))
}

/// A failure that names the proxy as its cause.
pub fn failed(via: &Via, kind: Kind, what: &str) -> DialError {
    DialError { kind, detail: format!("the proxy {} {what}", via.name()) }
}
