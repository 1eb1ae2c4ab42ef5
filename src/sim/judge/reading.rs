//! What upstreams' answers mean, by a reading that shares nothing with `upstream` and `dialect`: whether an answer is the
//! client's whatever else could be asked, how far a stream has come, and which bytes of it are forebay's own.

use crate::{
    sim::{
        content::borders,
        plan::{Plan, Site},
        provider::Attempt,
        script::{Reads, Script, Then},
    },
    table::Verdict,
};
use serde_json::Value;

/// A sign of life of forebay's own.
const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";
/// The last event, where forebay completes a stream.
const STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
/// How an error event of forebay's own begins.
const TOLD: &[u8] = b"event: error\ndata: {\"type\":\"error\",\"error\":{";

/// How far a stream has come; each is where in the payload it was so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Content: nobody else may answer any more.
    pub committed: Option<usize>,
    /// The first block that a client may act on has ended.
    pub finished: Option<usize>,
    /// Why it stops has been told.
    pub delta: Option<usize>,
    /// The last event, or an error.
    pub ended: Option<usize>,
    /// What kind of error came before any content.
    pub early: Option<String>,
}

/// Reads a stream.
pub fn course(payload: &[u8]) -> Course {
    let (mut course, mut start, mut in_thinking) = (Course::default(), 0, false);
    for end in borders(payload) {
        let text = String::from_utf8_lossy(&payload[start..end]).into_owned();
        start = end;
        let line = |name: &str| text.split(['\r', '\n']).find_map(|line| line.strip_prefix(name)).map(str::trim);
        let data: Value = line("data:").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
        let commits = match line("event:") {
            None | Some("message_start" | "ping") => false,
            Some("error") => {
                if course.committed.is_none() {
                    course.early = data["error"]["type"].as_str().map(str::to_owned);
                }
                course.ended.get_or_insert(end);
                false
            }
            Some("content_block_start") => {
                let block = &data["content_block"];
                in_thinking = matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking"));
                let is_empty =
                    block["text"] == "" || block["thinking"] == "" || block["input"] == serde_json::json!({});
                !is_empty
            }
            Some("content_block_stop") => {
                if !in_thinking {
                    course.finished.get_or_insert(end);
                }
                true
            }
            Some("message_delta") => {
                course.delta.get_or_insert(end);
                true
            }
            Some("message_stop") => {
                course.ended.get_or_insert(end);
                true
            }
            Some(_) => true,
        };
        if commits && course.early.is_none() {
            course.committed.get_or_insert(end);
        }
    }
    course
}

/// What kind of error a document is, if it is one.
pub fn error_document(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let is_error = value["type"] == "error" || value.get("error").is_some();
    is_error.then(|| value["error"]["type"].as_str().unwrap_or_default().to_owned())
}

/// What the head of an answer means for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is the client's.
    Final,
    /// Somebody else may be asked.
    Leaves,
    /// As much of the body as could be read decides.
    Either,
}

/// What an answer's status means: the operator's word first.
#[allow(clippy::match_same_arms)] // the operator's word stands apart from the table
pub fn word(site: &Site, script: &Script) -> Word {
    let told = site.verdicts.iter().find(|(status, _)| *status == script.status);
    match (told, script.status) {
        (Some((_, Verdict::Deliver)), _) => Word::Final,
        (Some(_), _) => Word::Leaves,
        (None, 400) if is_poor(script) => Word::Either,
        (None, 401 | 402 | 403 | 404 | 408 | 429 | 500..=599) => Word::Leaves,
        (None, 304) => Word::Final,
        (None, 300..=399) => Word::Leaves,
        (None, _) => Word::Final,
    }
}

/// Whether the answer says that the account behind the credential is out of money.
pub fn is_poor(script: &Script) -> bool {
    script.status == 400 && memchr::memmem::find(&script.body, b"credit balance is too low").is_some()
}

/// Whether a success is what the API answers with.
pub fn is_of_the_api(script: &Script) -> bool {
    let kind = script.field("content-type").unwrap_or("application/json").to_ascii_lowercase();
    ["application/json", "text/event-stream"].iter().any(|known| kind.starts_with(known))
}

/// The error that a success turned out to be before it had content.
pub fn early_error(script: &Script) -> Option<String> {
    let is_success = (200..300).contains(&script.status);
    let read =
        |script: &Script| if script.is_stream { course(&script.body).early } else { error_document(&script.body) };
    is_success.then(|| read(script)).flatten()
}

/// Whether the answer says that there is no room, or too much to do.
pub fn is_busy(script: &Script) -> bool {
    matches!(script.status, 429 | 503 | 529) || early_error(script).is_some()
}

/// As much of an answer that is not read as events may be held back.
const UNREAD_HELD_MAX: usize = 4 * 1024;

/// Whether forebay must have taken this answer for the client's, so that nobody else may be asked any more.
pub fn is_settled(plan: &Plan, attempt: &Attempt) -> bool {
    let (script, site) = (&attempt.script, &plan.sites[attempt.site]);
    let patience = plan.patience;
    let least =
        [patience.first_byte, patience.idle].into_iter().chain(site.first_byte).map(crate::base::Span::as_ms).min();
    // The pieces of a slow connection can outlast a short patience.
    let is_slow = site.first_byte.is_some() && plan.manner.delay_ms_max > 0;
    let is_late = is_slow || script.pause.is_some_and(|(_, ms)| ms + 3_000 >= least.unwrap_or(0));
    let is_lost =
        script.is_malformed || script.interim > 8 || script.reads != Reads::Whole || script.then == Then::Reset;
    if attempt.was_stale || is_late || is_lost || attempt.sent < script.head_end || word(site, script) != Word::Final {
        return false;
    }
    match script.status {
        400.. => true,
        _ if !is_of_the_api(script) => false,
        _ if script.is_stream => {
            let (got, _) = script.at_best();
            let payload = got.map(|message| message.body).unwrap_or_default();
            // A stream with a length is passed on unread: it is held back like a document, by bytes and time.
            if script.field("content-length").is_some() && payload.len() <= UNREAD_HELD_MAX {
                return false;
            }
            // After a CR a LF may follow, so that an event that ends with the bytes may not have ended.
            let is_over = |at: usize| at < payload.len() || payload.ends_with(b"\n");
            attempt.sent >= script.written.min(script.body_end) && course(&payload).committed.is_some_and(is_over)
        }
        _ => attempt.sent >= script.body_end && script.at_best().1 && early_error(script).is_none(),
    }
}

/// What forebay put behind the last byte of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Nothing.
    Nothing,
    /// An error event, from this place of what was got.
    Event(usize),
    /// The missing last event.
    Stop,
}

/// A stream as a client got it: what is the upstream's, and what is forebay's.
pub struct Parts {
    /// The upstream's bytes.
    pub passed: Vec<u8>,
    /// What stands behind them.
    pub own: Own,
    /// Signs of life between them.
    pub pings: usize,
}

/// Tells the upstream's bytes, of which `payload` is all, from forebay's own.
pub fn parts(got: &[u8], payload: &[u8]) -> Parts {
    let mut parts = Parts { passed: Vec::new(), own: Own::Nothing, pings: 0 };
    let mut start = 0;
    for end in borders(got).into_iter().chain([got.len()]) {
        let event = &got[start..end];
        let goes_on = payload.get(parts.passed.len()..).is_some_and(|rest| rest.starts_with(event));
        // What the connection's end cut off can be the beginning of an event of forebay's own.
        let begins = |own: &[u8]| event.starts_with(own) || own.starts_with(event);
        let is_last = end == got.len();
        match () {
            () if event.is_empty() => {}
            () if event == PING || is_last && !goes_on && PING.starts_with(event) => parts.pings += 1,
            () if is_last && event == STOP || is_last && !goes_on && STOP.starts_with(event) => parts.own = Own::Stop,
            () if is_last && !goes_on && begins(TOLD) => parts.own = Own::Event(start),
            () => parts.passed.extend_from_slice(event),
        }
        start = end;
    }
    parts
}

/// What is wrong with an error that forebay tells, as a document or as the data of an event.
pub fn envelope_fault(json: &[u8], name: &str) -> Option<&'static str> {
    let Ok(value) = serde_json::from_slice::<Value>(json) else { return Some("no JSON") };
    let text = value["error"]["message"].as_str().unwrap_or_default();
    match () {
        () if value["type"] != "error" => Some("no error"),
        () if value["error"]["type"].as_str().is_none_or(str::is_empty) => Some("no type"),
        () if !text.starts_with("forebay: ") => Some("it does not say who speaks"),
        () if value["request_id"] != name || !text.ends_with(&format!("[{name}]")) => Some("it does not say its name"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
    const EMPTY: &str = "event: content_block_start\ndata: {\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    const DELTA: &str = "event: content_block_delta\ndata: {}\n\n";

    #[test]
    fn a_stream_is_read_to_its_first_content() {
        let early = format!("{START}{EMPTY}event: error\ndata: {{\"error\":{{\"type\":\"api_error\"}}}}\n\n");
        assert_eq!(course(early.as_bytes()).early.as_deref(), Some("api_error"));
        assert_eq!(course(early.as_bytes()).committed, None);
        let text = format!("{START}{EMPTY}{DELTA}event: content_block_stop\ndata: {{}}\n\n");
        let course = course(text.as_bytes());
        assert_eq!(course.committed, Some(START.len() + EMPTY.len() + DELTA.len()));
        assert_eq!((course.finished, course.delta, course.ended), (Some(text.len()), None, None));
    }

    #[test]
    fn what_is_forebays_own_is_told_from_the_rest() {
        let payload = format!("{START}{DELTA}event: message_delta\ndata: {{}}\n\n");
        let ping = String::from_utf8_lossy(PING).into_owned();
        let got = format!("{START}{ping}{DELTA}event: message_delta\ndata: {{}}\n\n{}", String::from_utf8_lossy(STOP));
        let parts = parts(got.as_bytes(), payload.as_bytes());
        assert_eq!((parts.passed.as_slice(), parts.own, parts.pings), (payload.as_bytes(), Own::Stop, 1));
        let told = format!("{START}{}\"message\":\"forebay: x\"", String::from_utf8_lossy(TOLD));
        assert_eq!(super::parts(told.as_bytes(), payload.as_bytes()).own, Own::Event(START.len()));
        let cut = super::parts(&payload.as_bytes()[..START.len() + 9], payload.as_bytes());
        assert_eq!((cut.own, cut.passed.len()), (Own::Nothing, START.len() + 9));
    }
}
