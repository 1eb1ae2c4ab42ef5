//! What is decided from the head alone, before a byte of the body is read: whether this listener answers to it, which
//! door it knocks at, and whether that door is open. Pure decisions.

use crate::{
    base::{CallerSlot, Failure, Kind},
    table::{Listener, Table},
    wire::{Framing, RequestHead},
};

/// What exists here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `HEAD /api/hello`: Claude Code warms its connection up (R7).
    Hello,
    /// `GET /v1/models`.
    Models,
    /// `GET /v1/models/{id}`.
    Model,
    /// `POST /v1/messages`: the body says where it goes.
    Messages,
    /// `POST /v1/messages/count_tokens`: likewise.
    CountTokens,
    /// Any other path, open only to callers with a `passthrough` for it.
    Other,
}

impl Door {
    /// Whether the body is read for the fields that route.
    pub fn peeks(self) -> bool {
        matches!(self, Door::Messages | Door::CountTokens)
    }
}

const EXISTS: &str = "POST /v1/messages, POST /v1/messages/count_tokens and GET /v1/models exist here";

/// Checks the head against the listener, and tells the door.
///
/// # Errors
/// `Internal` without a listener; `UpgradeRefused`, `HostRefused`, `CrossSite`, `NoSuchPath`, `MethodNotAllowed`.
pub fn door(head: &RequestHead, bytes: &[u8], listener: Option<&Listener>) -> Result<Door, Failure> {
    // Other upgrades, h2c above all, may be passed over (RFC 9110 section 7.8); a WebSocket's client has no other way.
    if head.upgrade && head.field(bytes, "upgrade").is_some_and(|offer| offer.eq_ignore_ascii_case(b"websocket")) {
        return Err(Failure::new(
            Kind::UpgradeRefused,
            "this address speaks plain HTTP/1.1, without upgrades or WebSockets. Use ordinary requests.",
        ));
    }
    let listener = listener
        .ok_or_else(|| Failure::new(Kind::Internal, "this listener is not in the configuration. Report this."))?;
    check_browser(head, bytes, listener)?;
    let path = head.path(bytes);
    let Some((door, methods)) = known(path) else {
        if path.starts_with(b"/v1/") {
            return Ok(Door::Other);
        }
        let text = format!("there is no such path here. {EXISTS}; check the base URL.");
        return Err(Failure::new(Kind::NoSuchPath, text));
    };
    if methods.split(", ").any(|method| method.as_bytes() == head.method.of(bytes)) {
        return Ok(door);
    }
    Err(Failure::new(Kind::MethodNotAllowed, format!("this path takes {methods} only.")))
}

/// The paths that forebay knows: the door, and the methods that it takes, as `Allow` lists them.
pub fn known(path: &[u8]) -> Option<(Door, &'static str)> {
    match path {
        b"/api/hello" => Some((Door::Hello, "GET, HEAD")),
        b"/v1/models" => Some((Door::Models, "GET, HEAD")),
        b"/v1/messages" => Some((Door::Messages, "POST")),
        b"/v1/messages/count_tokens" => Some((Door::CountTokens, "POST")),
        _ => {
            let id = path.strip_prefix(b"/v1/models/")?;
            (!id.is_empty() && !id.contains(&b'/')).then_some((Door::Model, "GET, HEAD"))
        }
    }
}

/// A web page on the same machine, or one that has re-bound its own name to this address, must not spend the
/// organisation's money: it cannot choose `Host`, and it cannot hide where it comes from.
fn check_browser(head: &RequestHead, bytes: &[u8], listener: &Listener) -> Result<(), Failure> {
    if !listener.hosts.answers(head.host(bytes)) {
        let text =
            "this listener does not answer to that host name. Use the address that forebay printed when it started.";
        return Err(Failure::new(Kind::HostRefused, text));
    }
    let foreign_fetch =
        head.field(bytes, "sec-fetch-site").is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    if listener.refuse_cross_site && (foreign_fetch || head.field(bytes, "origin").is_some()) {
        return Err(Failure::new(
            Kind::CrossSite,
            "requests from web pages are refused here. Use a command-line client or an SDK.",
        ));
    }
    Ok(())
}

/// Whether `caller` may pass a door that is closed unless a key or team opens it.
///
/// # Errors
/// `PathClosed`: one provider credential's files and batches are shared by everyone behind it.
pub fn pass_through(table: &Table, caller: CallerSlot, path: &[u8]) -> Result<(), Failure> {
    if table.passthrough_allows(caller, path) {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(path.get(..path.len().min(80)).unwrap_or(path)).into_owned();
    Err(Failure::new(
        Kind::PathClosed,
        format!(
            "{shown} is closed: everyone behind forebay shares what lies there. {EXISTS}; the operator can open more with `passthrough` on your key or team."
        ),
    ))
}

/// Whether the body that the head announces is within `max` bytes.
///
/// # Errors
/// `BodyTooLarge`.
pub fn body_size(head: &RequestHead, max: u64) -> Result<u64, Failure> {
    match head.framing {
        Framing::Length(bytes) if bytes > max => Err(too_large(max)),
        Framing::Length(bytes) => Ok(bytes),
        Framing::None | Framing::Chunked | Framing::UntilClose => Ok(0),
    }
}

/// The refusal of a body over `max` bytes.
pub fn too_large(max: u64) -> Failure {
    let (size, unit) = if max >= 1 << 20 { (max >> 20, "MiB") } else { (max, "bytes") };
    let text = format!("the request is larger than {size} {unit}. Start a new conversation or compact this one.");
    Failure::new(Kind::BodyTooLarge, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knock(request: &str) -> Result<Door, Kind> {
        let address = "127.0.0.1:1".parse().unwrap();
        let listener =
            Listener { address, plaintext: true, tls: None, hosts: crate::table::Hosts::Any, refuse_cross_site: true };
        let mut head = RequestHead::new();
        head.parse(request.as_bytes()).unwrap().unwrap();
        door(&head, request.as_bytes(), Some(&listener)).map_err(|failure| failure.kind)
    }

    #[test]
    fn doors() {
        let rows = [
            ("POST /v1/messages?beta=true", Ok(Door::Messages)),
            ("POST /v1/messages/count_tokens?beta=true", Ok(Door::CountTokens)),
            ("GET /v1/models?limit=1000", Ok(Door::Models)),
            ("GET /v1/models/claude-x", Ok(Door::Model)),
            ("HEAD /api/hello", Ok(Door::Hello)),
            ("GET /v1/files", Ok(Door::Other)),
            ("GET /v1/models/", Ok(Door::Other)),
            ("GET /v1/messages", Err(Kind::MethodNotAllowed)),
            ("GET /", Err(Kind::NoSuchPath)),
            ("POST /V1/messages", Err(Kind::NoSuchPath)),
        ];
        for (line, want) in rows {
            assert_eq!(knock(&format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n")), want, "{line}");
        }
        let websocket = "GET /v1/messages HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(knock(websocket), Err(Kind::UpgradeRefused));
    }
}
