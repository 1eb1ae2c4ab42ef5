//! An address that clients connect to, and which requests it takes at all.

use crate::net::Identity;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// One `[[listen]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Other machines may reach it without TLS.
    pub plaintext: bool,
    /// Its certificate; without one it is spoken to in plain HTTP.
    pub tls: Option<ListenerTls>,
    /// The host names that it answers to.
    pub hosts: Hosts,
    /// Whether a request that a web page of another site sent is refused.
    pub refuse_cross_site: bool,
}

/// `tls` of a `[[listen]]`, as it was when the configuration was read. What is shown to clients now is in `Live`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// The chain of certificates, PEM.
    pub cert: PathBuf,
    /// Their key, PEM.
    pub key: PathBuf,
    /// Everyone on this machine may read the key.
    pub key_is_open: bool,
    /// The two files' contents.
    pub identity: Identity,
}

/// Which `Host` values a listener answers to. A restricted list is what keeps a web page from reaching a loopback
/// listener by a DNS name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Every name.
    Any,
    /// These names or addresses, lower case, without port; IPv6 without brackets.
    Only(Vec<Box<str>>),
}

impl Hosts {
    /// The names of this machine for itself, and the address that it listens on.
    pub fn local(address: IpAddr) -> Hosts {
        let mut names = ["localhost", "127.0.0.1", "::1"].map(Box::from).to_vec();
        names.push(address.to_string().into());
        Hosts::Only(names)
    }

    /// Whether a request with this `Host` value is answered. The port is not looked at: forwarded ports differ.
    pub fn answers(&self, host: &[u8]) -> bool {
        match self {
            Hosts::Any => true,
            Hosts::Only(names) => {
                let name = host_name(host);
                names.iter().any(|known| name.is_some_and(|n| n.eq_ignore_ascii_case(known.as_bytes())))
            }
        }
    }
}

/// The name in a `Host` value (RFC 9110 section 7.2), without port and brackets; `None` when it is not of that form.
fn host_name(host: &[u8]) -> Option<&[u8]> {
    let digits = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if let Some(rest) = host.strip_prefix(b"[") {
        let end = rest.iter().position(|b| *b == b']')?;
        let (name, after) = rest.split_at_checked(end)?;
        return match after.get(1..)? {
            [] => Some(name),
            [b':', port @ ..] if digits(port) => Some(name),
            _ => None,
        };
    }
    match host.iter().position(|b| *b == b':') {
        None => Some(host),
        Some(colon) => {
            let (name, port) = host.split_at_checked(colon)?;
            digits(port.get(1..)?).then_some(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_to_its_own_names_only() {
        let hosts = Hosts::local(IpAddr::from([127, 0, 0, 2]));
        for yes in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:443"] {
            assert!(hosts.answers(yes.as_bytes()), "{yes}");
        }
        for no in
            ["evil.example", "localhost.evil.example", "", "localhost:x", "[::1", "[::1]x", "::1", "127.0.0.1.nip.io"]
        {
            assert!(!hosts.answers(no.as_bytes()), "{no}");
        }
        assert!(Hosts::Any.answers(b"anything"));
    }
}
