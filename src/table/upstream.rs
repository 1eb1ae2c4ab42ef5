//! Where requests can be sent, and with which credential. Addresses are not here: names are resolved by `control`.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::prices::Charge;
use crate::{
    base::Span,
    net::{Guard, Via},
};

/// The kind of service behind an upstream; each is a preset of base URL, credential header and dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The Anthropic API itself.
    Anthropic,
    /// Another service that speaks Anthropic Messages; it has a base URL of its own.
    AnthropicCompatible,
}

impl Provider {
    /// Upstreams of one family accept each other's signatures of thinking blocks.
    pub const fn family(self) -> Family {
        match self {
            Provider::Anthropic => Family::Claude,
            Provider::AnthropicCompatible => Family::Other,
        }
    }

    /// As written in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Provider::Anthropic => "anthropic",
            Provider::AnthropicCompatible => "anthropic-compatible",
        }
    }
}

/// Whose signatures an upstream's thinking blocks carry, and which it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Claude, wherever it runs.
    Claude,
    /// Another model behind an API of the same form: each upstream knows only its own.
    Other,
}

/// One account or deployment of a provider.
pub struct Upstream {
    /// Unique in the table.
    pub name: Arc<str>,
    /// Which preset it came from.
    pub provider: Provider,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// DNS name or address, without brackets.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
    /// Put before every path; begins with `/` and does not end with one, or is empty.
    pub base_path: String,
    /// What `Host` says: with the port when it is not the scheme's own.
    pub host_header: String,
    /// The pool, in file order; empty when the upstream wants none.
    pub credentials: Vec<Credential>,
    /// Further roots that its certificate may come from, as DER, next to the public ones.
    pub extra_ca: Vec<Vec<u8>>,
    /// The proxy that connections go through; `None` when they go straight.
    pub via: Option<Arc<Via>>,
    /// Which addresses connections may go to: the proxy's where there is one, else the host's.
    pub guard: Guard,
    /// How long it may take from the last byte of a request to the head of its answer before the next candidate is asked,
    /// where there is one; `None` leaves streams two minutes, and other answers the whole patience of the client.
    pub first_byte: Option<Span>,
    /// What it takes besides its models' prices.
    pub charge: Charge,
    /// What some of its answers mean here, before the general table is asked; the first that fits.
    pub verdicts: Vec<VerdictRule>,
}

impl Upstream {
    /// How many credentials a request can go out with; one where none is wanted.
    pub fn pool_len(&self) -> usize {
        self.credentials.len().max(1)
    }

    /// What goes into a request's head with the credential at `at` of the pool; empty where none is wanted.
    pub fn credential_line(&self, at: usize) -> &[u8] {
        self.credentials.get(at).map_or(&[], |credential| credential.header.as_bytes())
    }

    /// The host name or address, and the port, that connections are opened to: the proxy's where there is one.
    pub fn first_hop(&self) -> (&Arc<str>, u16) {
        self.via.as_ref().map_or((&self.host, self.port), |via| (&via.host, via.port))
    }
}

/// One credential of an upstream.
pub struct Credential {
    /// Unique in the upstream; stands in logs and metrics in the secret's place.
    pub name: Arc<str>,
    /// What goes to the upstream.
    pub header: SecretLine,
    /// What may be asked with it, where its answers do not say so.
    pub limits: CredentialLimits,
}

impl Credential {
    /// A credential without limits that anyone knows of.
    pub fn new(name: &str, header: SecretLine) -> Credential {
        Credential { name: name.into(), header, limits: CredentialLimits::default() }
    }
}

/// Limits of a credential that the operator knows of. `None` where the upstream's answers tell, or nothing bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CredentialLimits {
    /// Requests a minute.
    pub rpm: Option<u32>,
    /// Requests a day; the day begins at midnight UTC.
    pub requests_per_day: Option<u32>,
    /// Uncached input a minute, in tokens as a model counts them.
    pub input_tpm: Option<u64>,
    /// Output a minute, likewise.
    pub output_tpm: Option<u64>,
}

/// What an answer means for the request that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Deliver,
    /// The next candidate is asked; nothing is held against this one.
    Next,
    /// The next candidate is asked, and this one is left alone for a while.
    CoolAndNext,
}

/// An operator's word on some answers of one upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictRule {
    /// The HTTP status.
    pub status: u16,
    /// What the beginning of the body has to hold, if it matters; case counts.
    pub body: Option<Arc<str>>,
    /// What it means.
    pub verdict: Verdict,
}

/// A rendered header field with its line end, such as `x-api-key: ...\r\n`. Has no `Debug`, no `Display` and no copy;
/// its memory is overwritten when it is dropped.
pub struct SecretLine(Zeroizing<Vec<u8>>);

impl SecretLine {
    /// `x-api-key: <secret>\r\n`.
    pub fn x_api_key(secret: &str) -> SecretLine {
        SecretLine::render("x-api-key: ", secret)
    }

    /// `authorization: Bearer <secret>\r\n`.
    pub fn bearer(secret: &str) -> SecretLine {
        SecretLine::render("authorization: Bearer ", secret)
    }

    fn render(before: &str, secret: &str) -> SecretLine {
        let mut line = Zeroizing::new(Vec::with_capacity(before.len() + secret.len() + 2));
        line.extend_from_slice(before.as_bytes());
        line.extend_from_slice(secret.as_bytes());
        line.extend_from_slice(b"\r\n");
        SecretLine(line)
    }

    /// The bytes to send, line end included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is wrong with a text as a credential: it must fit in a header field (RFC 9110 section 5.5), and none that a
/// provider hands out holds a space.
pub fn secret_fault(secret: &str) -> Option<&'static str> {
    match secret.as_bytes() {
        [] => Some("is empty"),
        bytes if bytes.iter().any(|b| !(0x21..=0x7e).contains(b)) => {
            Some("holds a space, a line break or a non-ASCII character")
        }
        bytes if bytes.len() > 4096 => Some("is longer than 4096 bytes"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_fields() {
        assert_eq!(SecretLine::x_api_key("k").as_bytes(), b"x-api-key: k\r\n");
        assert_eq!(SecretLine::bearer("k").as_bytes(), b"authorization: Bearer k\r\n");
    }

    #[test]
    fn a_secret_cannot_break_out_of_its_line() {
        assert!(secret_fault("k\r\nx: y").is_some());
        assert!(secret_fault("").is_some());
        assert_eq!(secret_fault("sk-ant-api03-_-AA"), None);
    }
}
