//! The record of one exchange: what the access log tells and what the counters count. It holds no prompt, no
//! credential and no query string, and nothing in it was allocated for it.

use super::text::Text;
use crate::base::{Counts, CredentialSlot, Origin, UpstreamSlot, Wall};
use std::{fmt, sync::Arc};

/// The name of one exchange, in logs, in `x-forebay-request-id`, and in every refusal: `fb_` and 23 digits to the
/// base 32 (Crockford's, lower case). The first ten tell the time, so that names sort by it; the rest is random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    at_ms: u64,
    random: u64,
}

impl RequestId {
    /// The length of the name, in bytes.
    pub const LEN: usize = 26;
    const TIME_DIGITS: usize = 10;
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// The name of an exchange that began at `at`; two that share a millisecond differ by `random`.
    pub const fn new(at: Wall, random: u64) -> RequestId {
        RequestId { at_ms: at.0, random }
    }

    /// The name, to be written as it is.
    pub fn ascii(self) -> [u8; Self::LEN] {
        let mut name = *b"fb_00000000000000000000000";
        let (time, random) = name[3..].split_at_mut(Self::TIME_DIGITS);
        spell(time, self.at_ms);
        spell(random, self.random);
        name
    }
}

/// Writes the low five bits of `value` into the last place, the next five before it, and so on.
fn spell(places: &mut [u8], mut value: u64) {
    for place in places.iter_mut().rev() {
        *place = RequestId::DIGITS[(value & 31) as usize];
        value >>= 5;
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.ascii()).unwrap_or_default())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! clients {
    ($($(#[$doc:meta])* $client:ident $slug:literal [$($prefix:literal)*];)*) => {
        /// The program that asked, as far as its `User-Agent` says. A label for people; nothing is decided by it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        pub enum Client { $($(#[$doc])* $client,)* #[default] /** Something else, or it did not say. */ Other }

        impl Client {
            /// As it stands in logs.
            pub const fn slug(self) -> &'static str {
                match self { $(Client::$client => $slug,)* Client::Other => "other" }
            }

            /// The client that sends this `User-Agent`; told by how it begins.
            pub fn of(user_agent: &[u8]) -> Client {
                $(if [$($prefix.as_slice()),*].iter().any(|prefix| user_agent.starts_with(prefix)) { return Client::$client })*
                Client::Other
            }
        }
    };
}

clients! {
    /// Claude Code, at a terminal or in a script.
    ClaudeCode "claude-code" [b"claude-cli/" b"claude-code/"];
    /// Anthropic's SDK for Python, the asynchronous one too.
    SdkPython "sdk-python" [b"Anthropic/Python" b"AsyncAnthropic/Python"];
    /// Anthropic's SDK for JavaScript.
    SdkJs "sdk-js" [b"Anthropic/JS"];
    /// Anthropic's other SDKs.
    SdkOther "sdk-other" [b"Anthropic/" b"anthropic"];
    /// OpenAI's SDKs.
    OpenAi "openai-sdk" [b"OpenAI/" b"AsyncOpenAI/"];
    /// Codex CLI.
    Codex "codex" [b"codex"];
    /// Gemini CLI.
    GeminiCli "gemini-cli" [b"GeminiCLI"];
    /// opencode.
    OpenCode "opencode" [b"opencode"];
    /// curl.
    Curl "curl" [b"curl/"];
    /// A web browser.
    Browser "browser" [b"Mozilla/"];
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Ending {
    /// The client has the whole answer.
    #[default]
    Complete,
    /// The client left before that.
    ClientGone,
    /// The answer broke off after it had begun.
    Broken,
    /// forebay answered by itself, with a refusal or a failure.
    Refused,
}

impl Ending {
    /// As it stands in logs.
    pub const fn slug(self) -> &'static str {
        match self {
            Ending::Complete => "complete",
            Ending::ClientGone => "client_gone",
            Ending::Broken => "broken",
            Ending::Refused => "refused",
        }
    }
}

/// Attempts of one exchange that a record keeps.
pub const ATTEMPTS_KEPT: usize = 3;

/// One attempt at an upstream, as the log and `forebay explain` tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub upstream: UpstreamSlot,
    /// With which credential.
    pub credential: CredentialSlot,
    /// The answer's status; zero when there was none.
    pub status: u16,
    /// What came of it: a failure's reason, or what the answer was taken for.
    pub verdict: &'static str,
    /// When it began, in us after the exchange.
    pub at_us: u32,
    /// How long it took until its outcome was known, in us.
    pub took_us: u32,
}

/// One exchange, from its request line to its end.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the request's first byte came.
    pub at: Wall,
    /// The exchange's name.
    pub request_id: RequestId,
    /// The worker that served it.
    pub worker: u16,
    /// The program that asked.
    pub client: Client,
    /// The request's method.
    pub method: Text<8>,
    /// The request's path, without its query.
    pub path: Text<64>,
    /// The name of the key that asked; `None` when nobody was recognized.
    pub caller: Option<Arc<str>>,
    /// The caller's team.
    pub team: Option<Arc<str>>,
    /// The model that was asked for.
    pub model: Text<64>,
    /// The upstream that was tried last.
    pub upstream: Option<Arc<str>>,
    /// The same, as a slot, for the counters.
    pub upstream_slot: Option<UpstreamSlot>,
    /// The name of the credential that was used; never the credential.
    pub credential: Option<Arc<str>>,
    /// How many times the request was sent to an upstream.
    pub attempts: u8,
    /// The first of them, in order.
    pub tried: [Option<Attempt>; ATTEMPTS_KEPT],
    /// When the answer could no longer be another candidate's, in us after the beginning; zero if it never came so far.
    pub commit_us: u64,
    /// What the answer used, by its own word.
    pub counts: Counts,
    /// How far that can be believed: `meter::Flags`, one a bit.
    pub counts_flags: u8,
    /// Blocks of thinking that were taken out of the request, since their signatures would not have been accepted.
    pub dropped: u16,
    /// The model that answered, by its own word.
    pub model_served: Text<64>,
    /// The conversation that it belongs to, as a number; zero if it did not say.
    pub conversation: u64,
    /// The status that the client got; 499 when it left before one.
    pub status: u16,
    /// Who made it fail; `None` when nobody did.
    pub origin: Option<Origin>,
    /// The failure's reason, from the failure table; empty when there was none.
    pub reason: &'static str,
    /// Whether the answer was a stream of events.
    pub stream: bool,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Events of the answer.
    pub events: u64,
    /// Until the whole request was read.
    pub body_us: u64,
    /// For a new upstream connection, TLS included; zero when one was reused.
    pub connect_us: u64,
    /// Until the answer's first byte; zero when none came.
    pub first_byte_us: u64,
    /// Until the end.
    pub duration_us: u64,
    /// The part of the duration in which forebay waited neither for the client nor for the upstream.
    pub overhead_us: u64,
    /// The generation of the table that was in force.
    pub generation: u64,
    /// How it ended.
    pub ending: Ending,
    /// The upstream's own name for the exchange.
    pub upstream_request_id: Text<64>,
}

impl Record {
    /// A record in which nothing has happened yet.
    pub fn new(at: Wall, request_id: RequestId, worker: u16) -> Record {
        Record {
            at,
            request_id,
            worker,
            client: Client::Other,
            method: Text::EMPTY,
            path: Text::EMPTY,
            caller: None,
            team: None,
            model: Text::EMPTY,
            upstream: None,
            upstream_slot: None,
            credential: None,
            attempts: 0,
            tried: [None; ATTEMPTS_KEPT],
            commit_us: 0,
            counts: Counts::default(),
            counts_flags: 0,
            dropped: 0,
            model_served: Text::EMPTY,
            conversation: 0,
            status: 0,
            origin: None,
            reason: "",
            stream: false,
            bytes_in: 0,
            bytes_out: 0,
            events: 0,
            body_us: 0,
            connect_us: 0,
            first_byte_us: 0,
            duration_us: 0,
            overhead_us: 0,
            generation: 0,
            ending: Ending::Complete,
            upstream_request_id: Text::EMPTY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_and_differ_by_chance() {
        let early = RequestId::new(Wall(1_700_000_000_000), u64::MAX).to_string();
        let late = RequestId::new(Wall(1_700_000_000_001), 0).to_string();
        assert!(early < late, "{early} < {late}");
        assert_eq!(early.len(), RequestId::LEN);
        assert_ne!(RequestId::new(Wall(1), 1).ascii(), RequestId::new(Wall(1), 2).ascii());
        assert_eq!(RequestId::new(Wall(33), 31).to_string(), "fb_0000000011000000000000z");
    }

    #[test]
    fn every_random_bit_is_in_the_name() {
        let names: std::collections::HashSet<_> =
            (0..64).map(|bit| RequestId::new(Wall(0), 1 << bit).ascii()).collect();
        assert_eq!(names.len(), 64);
    }

    #[test]
    fn clients_are_told_by_their_user_agent() {
        for (user_agent, slug) in [
            ("claude-cli/2.1.330 (external, cli)", "claude-code"),
            ("Anthropic/Python 0.80.0", "sdk-python"),
            ("AsyncAnthropic/Python 0.80.0", "sdk-python"),
            ("Anthropic/JS 0.70.0", "sdk-js"),
            ("Anthropic/Go 1.0", "sdk-other"),
            ("codex_cli_rs/0.50", "codex"),
            ("python-requests/2.32 claude-cli/", "other"),
            ("", "other"),
        ] {
            assert_eq!(Client::of(user_agent.as_bytes()).slug(), slug, "{user_agent}");
        }
    }

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Record>() <= 768, "{} bytes", size_of::<Record>());
    }
}
