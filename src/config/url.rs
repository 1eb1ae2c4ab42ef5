//! The base URL of an upstream, taken apart. Only what an API's base URL needs of RFC 3986: `http` or `https`, a host, a
//! port, a path; no user, no query, no fragment.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A base URL in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseUrl {
    /// `https`.
    pub tls: bool,
    /// Lower case, IPv6 without brackets.
    pub host: String,
    /// The scheme's own unless written.
    pub port: u16,
    /// Without the final `/`; empty for the root.
    pub path: String,
    /// What `Host` says.
    pub host_header: String,
}

impl BaseUrl {
    /// Whether it leads to this machine, a private network or a name that only exists inside one, so that a credential
    /// may go there without TLS.
    pub fn is_inside(&self) -> bool {
        const INSIDE: &[&str] = &[".localhost", ".local", ".internal", ".lan", ".svc", ".cluster.local", ".test"];
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified(),
            Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
            Err(_) => !self.host.contains('.') || INSIDE.iter().any(|end| self.host.ends_with(end)),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}{}", if self.tls { "https" } else { "http" }, self.host_header, self.path)
    }
}

/// Takes a base URL apart; the error is a clause that follows "it".
pub fn parse(text: &str) -> Result<BaseUrl, &'static str> {
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err("does not begin with https:// or http://"),
    };
    if rest.contains(['?', '#']) {
        return Err("has a query or a fragment");
    }
    if !rest.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("holds a space or a non-ASCII character");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("holds a user or password, which belongs in `credentials`");
    }
    let (host, port) = split_port(authority)?;
    let default = if tls { 443 } else { 80 };
    let port_number = port.map_or(Ok(default), parse_port)?;
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let host_header = if port_number == default { bracketed } else { format!("{bracketed}:{port_number}") };
    let path = path.trim_end_matches('/').to_owned();
    Ok(BaseUrl { tls, host: host.to_owned(), port: port_number, path, host_header }.lower_case())
}

impl BaseUrl {
    fn lower_case(mut self) -> BaseUrl {
        self.host.make_ascii_lowercase();
        self.host_header.make_ascii_lowercase();
        self
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("has a `[` without `]`")?;
        host.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address between its brackets")?;
        return match (after, after.strip_prefix(':')) {
            ("", _) => Ok((host, None)),
            (_, Some(port)) => Ok((host, Some(port))),
            _ => Err("has something other than a port after its `]`"),
        };
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    if is_host_name(host) { Ok((host, port)) } else { Err("has no valid host name") }
}

fn parse_port(port: &str) -> Result<u16, &'static str> {
    port.parse().ok().filter(|n| *n != 0).ok_or("has a port that is not in 1..=65535")
}

/// Letters, digits, `-`, `_` in labels of 1..=63 (RFC 1123 section 2.1, and underscores as Docker names have them).
fn is_host_name(host: &str) -> bool {
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let url = parse("https://API.Example.com/v2/claude//").expect("good");
        assert_eq!((url.tls, url.port, url.path.as_str()), (true, 443, "/v2/claude"));
        assert_eq!((url.host.as_str(), url.host_header.as_str()), ("api.example.com", "api.example.com"));
        let url = parse("http://[::1]:8080").expect("good");
        assert_eq!((url.host.as_str(), url.host_header.as_str(), url.port), ("::1", "[::1]:8080", 8080));
        assert_eq!(parse("http://a:80/").expect("good").host_header, "a");
        assert_eq!(parse("https://a:80").expect("good").host_header, "a:80");
    }

    #[test]
    fn faults() {
        let bad = [
            "",
            "api.example.com",
            "ftp://a",
            "https://",
            "https:///v1",
            "https://u:p@a",
            "https://a?x",
            "https://a#x",
            "https://a:0",
            "https://a:99999",
            "https://a:",
            "https://[::1",
            "https://[x]",
            "https://a b",
            "https://a..b",
            "https://[::1]x",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn inside_is_told_from_outside() {
        for yes in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "[::1]", "[fd00::1]", "litellm", "a.ns.svc.cluster.local"] {
            assert!(parse(&format!("http://{yes}")).expect("good").is_inside(), "{yes}");
        }
        for no in ["8.8.8.8", "api.anthropic.com", "[2001:db8::1]", "local.example"] {
            assert!(!parse(&format!("http://{no}")).expect("good").is_inside(), "{no}");
        }
    }
}
