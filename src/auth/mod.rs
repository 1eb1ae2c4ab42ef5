//! The credential in a request's head -> a caller, or a refusal that says which *kind* of credential came (never its
//! value) and what to do. Not here: what the caller may use (`table`), and sign-in.
//!
//! Claude Code sends `authorization: Bearer` for `ANTHROPIC_AUTH_TOKEN`, `x-api-key` for `ANTHROPIC_API_KEY`, and both
//! when both are set (R12). A leftover of another service next to a good key must not hurt.

pub mod key;

#[cfg(test)]
mod tests;

use crate::base::{CallerSlot, Failure, Kind, Wall};
use crate::table::{Caller, Table};

use key::KeyKind;

/// A longer credential is nobody's; it is not hashed.
const CREDENTIAL_BYTES_MAX: usize = 4096;

const SET_KEY: &str = "Set ANTHROPIC_AUTH_TOKEN to the fby_ key you were given";

/// Where a credential came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Authorization,
    XApiKey,
}

/// A credential that is no caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// Told by its form.
    Kind(KeyKind),
    /// An `authorization` of another scheme than `Bearer`.
    Scheme,
}

/// What the head held.
#[derive(Default)]
struct Seen {
    /// The caller of a good key.
    caller: Option<CallerSlot>,
    /// A second good key was another caller's.
    conflict: bool,
    /// The caller of a key that has expired or is switched off.
    ended: Option<CallerSlot>,
    /// The first two others.
    strangers: [Option<(Place, Stranger)>; 2],
    /// `anthropic-beta` says that a claude.ai login is used (R17).
    oauth: bool,
}

/// Who sent a request with these header fields. An empty value counts as absent; a good key wins over whatever else
/// came, and two good keys of two callers are a conflict.
///
/// # Errors
/// One of the `Credential...` and `Key...` kinds; its message names what came by its kind only.
pub fn identify<'a>(
    table: &Table,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    now: Wall,
) -> Result<CallerSlot, Failure> {
    let mut seen = Seen::default();
    for (name, value) in fields {
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"authorization") {
            match bearer(value) {
                Some(credential) => seen.look(table, Place::Authorization, credential, now),
                None => seen.stranger(Place::Authorization, Stranger::Scheme),
            }
        } else if name.eq_ignore_ascii_case(b"x-api-key") {
            seen.look(table, Place::XApiKey, value, now);
        } else if name.eq_ignore_ascii_case(b"anthropic-beta") {
            seen.oauth |= value.split(|b| *b == b',').any(|beta| beta.trim_ascii().starts_with(b"oauth-"));
        }
    }
    seen.verdict(table)
}

/// What follows `Bearer` (RFC 6750 section 2.1; the scheme's case does not count). Empty for an empty value; `None` for
/// another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    if value.is_empty() {
        return Some(value);
    }
    let (_, rest) = value.split_at_checked(6).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer"))?;
    (rest.is_empty() || rest.starts_with(b" ")).then(|| rest.trim_ascii())
}

impl Seen {
    fn look(&mut self, table: &Table, place: Place, credential: &[u8], now: Wall) {
        if credential.is_empty() {
            return;
        }
        let known = (credential.len() <= CREDENTIAL_BYTES_MAX).then(|| key::digest(credential));
        match known.and_then(|digest| table.caller_by_digest(&digest)) {
            Some(slot) if !table.caller(slot).is_some_and(|caller| is_usable(caller, now)) => self.ended = Some(slot),
            Some(slot) => {
                self.conflict |= self.caller.is_some_and(|other| other != slot);
                self.caller = Some(slot);
            }
            None => self.stranger(place, Stranger::Kind(key::classify(credential))),
        }
    }

    fn stranger(&mut self, place: Place, stranger: Stranger) {
        if let Some(free) = self.strangers.iter_mut().find(|slot| slot.is_none()) {
            *free = Some((place, stranger));
        }
    }

    fn verdict(self, table: &Table) -> Result<CallerSlot, Failure> {
        match (self.caller, self.ended.and_then(|slot| table.caller(slot))) {
            (Some(_), _) if self.conflict => Err(conflict()),
            (Some(slot), _) => Ok(slot),
            (None, Some(caller)) => Err(ended(caller)),
            (None, None) => Err(self.unknown()),
        }
    }

    /// No known key came.
    fn unknown(&self) -> Failure {
        let came = |at: usize| self.strangers.get(at).copied().flatten().map(|(place, what)| (place, self.read(what)));
        match (came(0), came(1)) {
            (None, _) => Failure::new(Kind::CredentialMissing, format!("no key came with the request. {SET_KEY}.")),
            (Some((place, what)), None) => one(place, what),
            // Of two, the one that was meant for us is the one to talk about.
            (Some(a), Some(b)) => match [a, b].into_iter().find(|(_, what)| is_ours(*what)) {
                Some((place, what)) => one(place, what),
                None => two(a, b),
            },
        }
    }

    /// Claude Code says in `anthropic-beta` that its bearer is a login, whatever that looks like.
    fn read(&self, stranger: Stranger) -> Stranger {
        match stranger {
            Stranger::Kind(KeyKind::Other | KeyKind::Jwt) if self.oauth => Stranger::Kind(KeyKind::ClaudeLogin),
            other => other,
        }
    }
}

fn is_usable(caller: &Caller, now: Wall) -> bool {
    !caller.disabled && caller.expires.as_ref().is_none_or(|expiry| now < expiry.at)
}

fn is_ours(what: Stranger) -> bool {
    matches!(what, Stranger::Kind(KeyKind::Forebay | KeyKind::ForebayMistyped))
}

fn conflict() -> Failure {
    Failure::new(
        Kind::CredentialsConflict,
        "two keys came that belong to two callers, one in `authorization` and one in the API key header. Keep one: run `unset \
         ANTHROPIC_API_KEY`, and leave ANTHROPIC_AUTH_TOKEN.",
    )
}

fn ended(caller: &Caller) -> Failure {
    let name = &caller.name;
    match &caller.expires {
        _ if caller.disabled => Failure::new(
            Kind::KeyDisabled,
            format!("the key `{name}` is switched off. Ask for it to be switched on, or for a new one."),
        ),
        Some(expiry) => Failure::new(
            Kind::KeyExpired,
            format!("the key `{name}` has expired; its last day was {}. Ask for a new one.", expiry.day),
        ),
        None => Failure::new(Kind::KeyExpired, format!("the key `{name}` is not usable now. Ask for a new one.")),
    }
}

fn one(place: Place, what: Stranger) -> Failure {
    let header = header(place);
    let (kind, message) = match what {
        Stranger::Kind(KeyKind::Forebay) => (
            Kind::CredentialUnknown,
            format!(
                "the forebay key in {header} is not known here: it was revoked or replaced, or it belongs to another \
                 gateway. {SET_KEY} last, or ask for a new one."
            ),
        ),
        Stranger::Kind(KeyKind::ForebayMistyped) => (
            Kind::CredentialMistyped,
            format!(
                "the forebay key in {header} has a typing error or is cut off: its checksum does not fit. Copy it \
                 again, all {} characters.",
                key::KEY_BYTES
            ),
        ),
        Stranger::Scheme => (
            Kind::CredentialUnknown,
            format!("`authorization` came without the scheme `Bearer`. {SET_KEY}; Claude Code adds the scheme."),
        ),
        Stranger::Kind(_) => {
            let kind = kind_of(what);
            let leftover = if place == Place::XApiKey { " Run `unset ANTHROPIC_API_KEY`." } else { "" };
            let (what, header) = (noun(what), header);
            let message = format!("{what} came in {header}, which is not a key of this gateway.{leftover} {SET_KEY}.");
            (kind, message)
        }
    };
    Failure::new(kind, message)
}

fn two(a: (Place, Stranger), b: (Place, Stranger)) -> Failure {
    let told = |(place, what): (Place, Stranger)| format!("{} in {}", noun(what), header(place));
    let is_login = |(_, what)| kind_of(what) == Kind::LoginMisdirected;
    Failure::new(
        if is_login(a) || is_login(b) { Kind::LoginMisdirected } else { Kind::CredentialUnknown },
        format!(
            "{} and {} came; neither is a key of this gateway. Run `unset ANTHROPIC_API_KEY`. {SET_KEY}.",
            told(a),
            told(b)
        ),
    )
}

fn kind_of(what: Stranger) -> Kind {
    match what {
        Stranger::Kind(KeyKind::ClaudeLogin) => Kind::LoginMisdirected,
        Stranger::Kind(_) | Stranger::Scheme => Kind::CredentialUnknown,
    }
}

/// How a text names the header. Never by `x-api-key`: a message with that word in it makes Claude Code show a text of
/// its own instead (seen with 2.1.330).
fn header(place: Place) -> &'static str {
    match place {
        Place::Authorization => "`authorization`",
        Place::XApiKey => "the API key header",
    }
}

fn noun(what: Stranger) -> &'static str {
    match what {
        Stranger::Scheme => "a credential of another scheme than `Bearer`",
        Stranger::Kind(kind) => match kind {
            KeyKind::Forebay | KeyKind::ForebayMistyped => "a forebay key",
            KeyKind::ClaudeLogin => "a claude.ai login",
            KeyKind::AnthropicApi => "an Anthropic API key",
            KeyKind::AnthropicOther => "an Anthropic secret that is not an API key",
            KeyKind::OpenRouter => "an OpenRouter key",
            KeyKind::OpenAi => "an OpenAI key",
            KeyKind::Google => "a Google API key",
            KeyKind::Jwt => "a signed login of another service",
            KeyKind::Other => "a credential of unknown form",
        },
    }
}
