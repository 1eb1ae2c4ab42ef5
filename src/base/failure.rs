//! The one table of failures: for every kind who caused it, its slug, its status in each dialect, and whether the
//! client should try again. An upstream's HTTP answer is not a failure; it passes unmodified (R32).
//!
//! Statuses are chosen by what real clients do on them: Claude Code sends a 401 again ten times unless
//! `x-should-retry: false` comes with it (R14), stops at once on 403 (R15), and waits out a 503 (R43).

/// The API family that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Anthropic Messages.
    #[default]
    Anthropic,
    /// OpenAI Chat Completions.
    OpenAiChat,
    /// OpenAI Responses.
    OpenAiResponses,
    /// Gemini generateContent.
    Gemini,
}

/// Who caused a failure: the first question of everyone who sees one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The request, or the one who sent it.
    Client,
    /// forebay itself, or its configuration.
    Gateway,
    /// The upstream, or the way to it.
    Upstream,
}

impl Origin {
    /// As it stands in `x-forebay-origin`, logs and metrics.
    pub const fn slug(self) -> &'static str {
        match self {
            Origin::Client => "client",
            Origin::Gateway => "gateway",
            Origin::Upstream => "upstream",
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The kind that the row describes.
    pub kind: Kind,
    /// Who caused it.
    pub origin: Origin,
    /// `x-forebay-reason`, and the label in logs and metrics.
    pub reason: &'static str,
    /// HTTP status by dialect: Anthropic, OpenAI chat, OpenAI Responses, Gemini.
    pub status: [u16; 4],
    /// `error.type` of the Anthropic envelope (R35).
    pub error_type: &'static str,
    /// What `x-should-retry` says; `None` leaves the client to its own rules.
    pub retry: Option<bool>,
}

macro_rules! failures {
    ($($(#[$doc:meta])* $kind:ident: $origin:ident $reason:literal [$a:literal $c:literal $r:literal $g:literal] $ty:literal $retry:expr;)*) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        /// The table, in the order of `Kind`.
        pub const TABLE: &[Row] = &[$(Row {
            kind: Kind::$kind, origin: Origin::$origin, reason: $reason, status: [$a, $c, $r, $g], error_type: $ty, retry: $retry,
        },)*];
    };
}

failures! {
    /// The bytes are not HTTP/1.1 as RFC 9112 has it.
    Malformed: Client "malformed_http" [400 400 400 400] "invalid_request_error" Some(false);
    /// The request line is over the bound.
    TargetTooLong: Client "target_too_long" [414 414 414 414] "invalid_request_error" Some(false);
    /// The head is over the bound, in bytes or in fields.
    HeadTooLarge: Client "head_too_large" [431 431 431 431] "invalid_request_error" Some(false);
    /// An HTTP version that is not 1.0 or 1.1.
    VersionUnsupported: Client "http_version" [505 505 505 505] "invalid_request_error" Some(false);
    /// A transfer coding other than `chunked`.
    CodingUnsupported: Client "transfer_coding" [501 501 501 501] "invalid_request_error" Some(false);
    /// An `Expect` other than `100-continue`.
    ExpectationFailed: Client "expectation" [417 417 417 417] "invalid_request_error" Some(false);
    /// An upgrade, a WebSocket above all, that is not offered.
    UpgradeRefused: Client "upgrade" [426 426 426 426] "invalid_request_error" Some(false);
    /// The head or the body did not arrive in time.
    RequestTimeout: Client "request_timeout" [408 408 408 408] "timeout_error" None;
    /// The `Host` is not one that this listener answers to.
    HostRefused: Client "host_refused" [421 421 421 421] "permission_error" Some(false);
    /// A web page of another site sent it.
    CrossSite: Client "cross_site" [403 403 403 403] "permission_error" Some(false);
    /// No such path here.
    NoSuchPath: Client "no_such_path" [404 404 404 404] "not_found_error" Some(false);
    /// A path that exists but that this caller may not use.
    PathClosed: Client "path_closed" [403 403 403 403] "permission_error" Some(false);
    /// The path exists, with other methods.
    MethodNotAllowed: Client "method_not_allowed" [405 405 405 405] "invalid_request_error" Some(false);
    /// The body is over the bound.
    BodyTooLarge: Client "body_too_large" [413 413 413 413] "request_too_large" Some(false);
    /// A content coding that is not read here.
    EncodingUnsupported: Client "content_encoding" [415 415 415 415] "invalid_request_error" Some(false);
    /// The body is not what its content coding or its framing says.
    BodyBroken: Client "body_broken" [400 400 400 400] "invalid_request_error" Some(false);
    /// The body is not a JSON object, is too deep, or a field that routes is missing, repeated or of the wrong type.
    BodyUnreadable: Client "body_unreadable" [400 400 400 400] "invalid_request_error" Some(false);
    /// No credential came.
    CredentialMissing: Client "credential_missing" [401 401 401 401] "authentication_error" Some(false);
    /// A credential came that is not one of ours: another service's, or unknown.
    CredentialUnknown: Client "credential_unknown" [401 401 401 401] "authentication_error" Some(false);
    /// A claude.ai login came where a key is due. Not a 401: Claude Code would renew the login and ask again, and
    /// tell its user to log in.
    LoginMisdirected: Client "login_misdirected" [421 421 421 421] "authentication_error" Some(false);
    /// One of our keys with a typing error: its checksum does not fit.
    CredentialMistyped: Client "credential_mistyped" [401 401 401 401] "authentication_error" Some(false);
    /// Two credentials came that name two callers.
    CredentialsConflict: Client "credentials_conflict" [401 401 401 401] "authentication_error" Some(false);
    /// The key's last day is over.
    KeyExpired: Client "key_expired" [401 401 401 401] "authentication_error" Some(false);
    /// The key is switched off.
    KeyDisabled: Client "key_disabled" [403 403 403 403] "permission_error" Some(false);
    /// The model exists, but this caller may not use it.
    ModelDenied: Client "model_denied" [403 403 403 403] "permission_error" Some(false);
    /// No model of that name.
    ModelUnknown: Client "model_unknown" [404 404 404 404] "not_found_error" Some(false);
    /// None of the model's upstreams is open to this caller.
    UpstreamsDenied: Client "upstreams_denied" [403 403 403 403] "permission_error" Some(false);
    /// The client closed the connection. Never sent; logged and counted.
    ClientGone: Client "client_gone" [499 499 499 499] "api_error" None;
    /// The client stopped reading.
    ClientStalled: Client "client_stalled" [499 499 499 499] "api_error" None;
    /// The process holds as many request bodies as it may.
    BodiesFull: Gateway "bodies_full" [503 503 503 503] "overloaded_error" Some(true);
    /// The worker holds as many connections as it may.
    ConnectionsFull: Gateway "connections_full" [503 503 503 503] "overloaded_error" Some(true);
    /// The process is going down.
    Draining: Gateway "draining" [503 503 503 503] "api_error" Some(true);
    /// A fault of forebay's own.
    Internal: Gateway "internal" [500 500 500 500] "api_error" None;
    /// Every upstream of the model is taken out of service by the operator.
    UpstreamsOut: Gateway "upstreams_out" [503 503 503 503] "api_error" Some(true);
    /// Every upstream that may answer is at its limits, or overloaded.
    UpstreamsBusy: Upstream "upstreams_busy" [429 429 429 429] "rate_limit_error" Some(true);
    /// The upstream's host name has no address (yet).
    NameUnresolved: Upstream "name_unresolved" [502 502 502 502] "api_error" None;
    /// The upstream's host name leads only to addresses that are not connected to: private ones of a public name, a
    /// cloud's metadata service.
    AddressRefused: Upstream "address_refused" [502 502 502 502] "api_error" Some(false);
    /// The proxy on the way refused to connect to the upstream.
    ProxyRefused: Upstream "proxy_refused" [502 502 502 502] "api_error" Some(false);
    /// The proxy on the way cannot be reached, closed the connection, or did not reach the upstream.
    ProxyFailed: Upstream "proxy_failed" [502 502 502 502] "api_error" None;
    /// The upstream did not accept the connection.
    ConnectFailed: Upstream "connect_failed" [502 502 502 502] "api_error" None;
    /// The upstream did not accept the connection in time.
    ConnectTimeout: Upstream "connect_timeout" [504 504 504 504] "timeout_error" None;
    /// The TLS handshake with the upstream failed.
    TlsFailed: Upstream "tls_failed" [502 502 502 502] "api_error" None;
    /// The upstream closed or reset the connection before it answered.
    UpstreamClosed: Upstream "upstream_closed" [502 502 502 502] "api_error" None;
    /// The upstream took no more of the request for too long.
    SendTimeout: Upstream "send_timeout" [504 504 504 504] "timeout_error" None;
    /// No answer from the upstream in time.
    HeadTimeout: Upstream "first_byte_timeout" [504 504 504 504] "timeout_error" None;
    /// The upstream's answer is not HTTP/1.1 as RFC 9112 has it.
    AnswerMalformed: Upstream "answer_malformed" [502 502 502 502] "api_error" None;
    /// The upstream answered with a redirect: its base URL is not where it is. Never passed on: a client that follows
    /// would take its key to a stranger (R8).
    UpstreamMoved: Upstream "upstream_moved" [502 502 502 502] "api_error" Some(false);
    /// The upstream refused the credential that forebay holds; never the developer's fault (R16).
    CredentialRefused: Upstream "credential_refused" [502 502 502 502] "api_error" Some(false);
    /// The upstream answered with an error in a success's clothes, or with what is no answer of its API at all.
    AnswerUnusable: Upstream "answer_unusable" [502 502 502 502] "api_error" None;
    /// The answer broke off. The client is told by an error event or an aborted body.
    AnswerBroken: Upstream "answer_broken" [502 502 502 502] "api_error" None;
    /// The answer fell silent for too long.
    AnswerIdle: Upstream "answer_idle" [504 504 504 504] "timeout_error" None;
}

impl Kind {
    /// The kind's row.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The HTTP status that a client of `dialect` gets.
    pub fn status(self, dialect: Dialect) -> u16 {
        self.row().status[dialect as usize]
    }
}

/// A failure on its way to the client: its kind, and what to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which row of the table.
    pub kind: Kind,
    /// What happened and what to do, in sentences that end with a full stop. Never a secret, never a body.
    pub message: String,
    /// Whole seconds for `retry-after`, 1..=59: Claude Code gives up above 60 (R37).
    pub retry_after_s: Option<u8>,
}

impl Failure {
    /// A failure of `kind`, told as `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retry_after_s: None }
    }

    /// The same failure, to be tried again after `seconds`, clamped to 1..=59.
    #[must_use]
    pub fn retry_after(mut self, seconds: u8) -> Failure {
        self.retry_after_s = Some(seconds.clamp(1, 59));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_finds_its_own_row_and_reasons_are_unique() {
        let mut reasons = HashSet::new();
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind as usize, at);
            assert_eq!(row.kind.row().reason, row.reason);
            assert!(reasons.insert(row.reason), "{} twice", row.reason);
            assert!(row.status.iter().all(|s| (400..600).contains(s)));
        }
    }

    #[test]
    fn refused_credentials_are_not_tried_again() {
        for row in TABLE.iter().filter(|row| row.status[0] == 401) {
            assert_eq!(row.retry, Some(false), "{}: R14", row.reason);
        }
    }
}
