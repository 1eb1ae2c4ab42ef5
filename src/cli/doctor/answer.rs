//! What an upstream's answer says to the doctor: status, error, limits, clock. Read once, without the credential that a
//! careless upstream may have quoted.

use super::limits::Limits;
use crate::{base::Wall, config::diagnose::redacted, control::probe::Reply, table::Credential};
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;

/// An upstream's own words in a finding, in characters.
const QUOTED_CHARS_MAX: usize = 200;

/// A question's outcome: an answer, or why there is none.
pub type Asked = Result<Answer, String>;

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The type and message of an error envelope, or the beginning of what came in its place; not for a 2xx.
    pub error: Option<String>,
    /// A message of the Anthropic API: input and output tokens that it used.
    pub usage: Option<(u64, u64)>,
    /// Whose limits these are.
    pub organization: Option<String>,
    /// What the rate-limit headers say.
    pub limits: Limits,
    /// As sent.
    pub retry_after: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// The upstream's clock, and ours at that moment.
    pub clocks: Option<(Wall, Wall)>,
}

#[derive(Deserialize)]
struct Message {
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    input_tokens: u64,
    output_tokens: u64,
}

#[derive(Deserialize)]
struct Envelope {
    error: Inner,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    r#type: String,
    message: String,
}

impl Answer {
    /// What `reply` says; `credential` is what it was asked with.
    pub fn read(reply: &Reply, credential: Option<&Credential>) -> Answer {
        let field = |name: &str| {
            let value = reply.headers.get(name)?.to_str().ok()?;
            Some(quoted(value, credential))
        };
        let date = field("date").and_then(|date| http_date(&date));
        let is_error = !(200..300).contains(&reply.status);
        Answer {
            status: reply.status,
            error: is_error.then(|| error(&reply.body, credential)).filter(|text| !text.is_empty()),
            usage: serde_json::from_slice::<Message>(&reply.body)
                .ok()
                .map(|message| (message.usage.input_tokens, message.usage.output_tokens)),
            organization: field("anthropic-organization-id"),
            limits: Limits::read(&|name| field(name)?.parse().ok()),
            retry_after: field("retry-after"),
            location: field("location"),
            clocks: date.map(|date| (date, reply.at)),
        }
    }

    /// The credential was read and turned away.
    pub fn refuses(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// `429 (rate_limit_error: too many)`.
    pub fn told(&self) -> String {
        match &self.error {
            Some(error) => format!("{} ({error})", self.status),
            None => self.status.to_string(),
        }
    }
}

/// An error's words: of the envelope, or of what came in its place.
fn error(body: &[u8], credential: Option<&Credential>) -> String {
    match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { error }) if error.r#type.is_empty() => quoted(&error.message, credential),
        Ok(Envelope { error }) => quoted(&format!("{}: {}", error.r#type, error.message), credential),
        Err(_) => {
            let start = body.get(..body.len().min(4 * QUOTED_CHARS_MAX)).unwrap_or_default();
            quoted(&String::from_utf8_lossy(start), credential)
        }
    }
}

/// An upstream's words, short, without the credential and without what looks like one.
fn quoted(text: &str, credential: Option<&Credential>) -> String {
    let line = credential.map(|credential| String::from_utf8_lossy(credential.header.as_bytes()));
    let secret =
        line.as_deref().and_then(|line| line.trim_end().rsplit(' ').next()).filter(|secret| !secret.is_empty());
    let text = secret.map_or_else(|| text.to_owned(), |secret| text.replace(secret, "…"));
    redacted(&text).trim().chars().take(QUOTED_CHARS_MAX).collect()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7; the obsolete forms are not read).
fn http_date(text: &str) -> Option<Wall> {
    let at = DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::SecretLine;
    use hyper::{HeaderMap, body::Bytes, header::HeaderValue};

    fn reply(status: u16, fields: &[(&'static str, &'static str)], body: &'static str) -> Reply {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        Reply { status, headers, body: Bytes::from_static(body.as_bytes()), at: Wall(784_111_777_500) }
    }

    #[test]
    fn a_message_is_read_with_its_headers() {
        let fields = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("anthropic-organization-id", "org-1"),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-output-tokens-limit", "many"),
        ];
        let answer = Answer::read(&reply(200, &fields, r#"{"usage":{"input_tokens":9,"output_tokens":1}}"#), None);
        assert_eq!(answer.usage, Some((9, 1)));
        assert_eq!(answer.error, None);
        assert_eq!(answer.organization.as_deref(), Some("org-1"));
        assert_eq!((answer.limits.rpm, answer.limits.itpm, answer.limits.otpm), (Some(50), None, None));
        assert_eq!(answer.clocks, Some((Wall(784_111_777_000), Wall(784_111_777_500))));
    }

    #[test]
    fn errors_are_told_without_the_credential() {
        let credential = Credential::new("org", SecretLine::bearer("hunter2"));
        let body = r#"{"type":"error","error":{"type":"authentication_error","message":"no hunter2, no sk-ant-api03-abcdefghi"}}"#;
        let answer = Answer::read(&reply(401, &[], body), Some(&credential));
        assert_eq!(answer.told(), "401 (authentication_error: no …, no sk-ant****************)");
        assert!(answer.refuses());
        let answer = Answer::read(&reply(502, &[("location", "/hunter2")], "<html>hunter2"), Some(&credential));
        assert_eq!((answer.told().as_str(), answer.location.as_deref()), ("502 (<html>…)", Some("/…")));
        assert_eq!(Answer::read(&reply(500, &[], ""), None).told(), "500");
    }

    #[test]
    fn dates_of_other_forms_are_no_dates() {
        assert_eq!(http_date("yesterday"), None);
        assert_eq!(http_date("Sun, 06 Nov 1902 08:49:37 GMT"), None, "before 1970");
    }
}
