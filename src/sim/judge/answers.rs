//! What clients got, held against what upstreams sent, and against what the requests deserved.

use super::{Court, reading, reading::Own, rule};
use crate::{
    base::{
        Mono, Span,
        bounds::{BODIES_BYTES_MAX, EVENT_BYTES_MAX},
        failure::TABLE,
    },
    serve::edits::{self, Direction},
    sim::{
        client::Saw,
        content::borders,
        message::{Fields, Message},
        plan::Visit,
        provider::Attempt,
        request::{ASKED_MAX, Asked, Expect},
        script::{Reads, Script, Then},
    },
};
use memchr::memmem;

/// How long a request can be on its way.
const IN_FLIGHT: Span = Span::from_secs(10);

pub fn judge(court: &mut Court<'_>) {
    let (plan, seen) = (court.plan, court.seen);
    for (visit, saw) in plan.visits.iter().zip(&seen.clients) {
        if let Some(fault) = &saw.reader.fault {
            court.breach(rule::FRAMING, fault.clone());
        }
        secrets(court, saw);
        for (at, (asked, message)) in visit.asks.iter().zip(&saw.reader.messages).enumerate() {
            let began = saw.began_at.get(at).copied().unwrap_or_default();
            let case = Case { visit, saw, asked, message, began, last: at + 1 == saw.reader.messages.len() };
            one(court, &case);
        }
        unanswered(court, visit, saw);
    }
}

/// One answer.
struct Case<'a> {
    visit: &'a Visit,
    saw: &'a Saw,
    asked: &'a Asked,
    message: &'a Message,
    /// When the client began to ask.
    began: Mono,
    last: bool,
}

impl Case<'_> {
    /// Its framing leaves no room for anything of forebay's own.
    fn has_length(&self) -> bool {
        self.message.field("content-length").is_some()
    }

    fn told(&self) -> String {
        format!("request {}: {} {:?}", self.asked.id, self.message.first, self.message.field("x-forebay-reason"))
    }
}

/// Nothing is owed to a client that left, that stopped reading or sending for a while, whose task had the injected
/// panic, that still streamed when a drain came to its end, or whose connection had to be reset: that is how an answer
/// without framing is seen to be broken, and it takes with it what is still on its way.
pub fn is_excused(court: &Court<'_>, visit: &Visit, saw: &Saw) -> bool {
    let breaks = |asked: &Asked| {
        let mut attempts = court.attempts(asked.id);
        (asked.is_old || visit.pipelines) && attempts.any(|attempt| !is_benign(court, &attempt.script))
    };
    let drained = |(last, [_, ends]): (&Message, [Mono; 2])| saw.last.max(last.head_at) >= ends;
    let was_drained = saw.reader.messages.last().zip(court.plan.drain()).is_some_and(drained);
    let was_reset = saw.ended.is_some_and(|(_, clean)| !clean) && visit.asks.iter().any(breaks);
    saw.left.is_some() || saw.was_idle || visit.manner.panic.is_some() || was_reset || was_drained
}

/// Whether forebay must have got the whole answer.
fn is_benign(court: &Court<'_>, script: &Script) -> bool {
    let patience = court.plan.patience;
    script.is_benign(patience.first_byte.as_ms().min(patience.idle.as_ms()))
}

fn secrets(court: &mut Court<'_>, saw: &Saw) {
    for (_, secret) in court.secrets() {
        if memmem::find(&saw.raw, secret.as_bytes()).is_some() {
            court.breach(rule::SECRETS, "a client got an upstream's credential".into());
        }
    }
    if memmem::find(&saw.raw, b"upstream-cookie").is_some() {
        court.breach(rule::SECRETS, "a client got an upstream's cookie".into());
    }
}

fn one(court: &mut Court<'_>, case: &Case<'_>) {
    let closes = case.message.field("connection") == Some("close");
    if !case.last && (closes || !case.message.is_complete) {
        court.breach(rule::AFTER, case.told());
    }
    if court.plan.drains_at_ms.is_some_and(|ms| case.began.0 > (ms + 2) * 1_000_000) && !closes {
        court.breach(rule::DRAIN, case.told());
    }
    let reason = case.message.field("x-forebay-reason").unwrap_or_default();
    generation(court, case, reason);
    if case.message.field("x-forebay-origin") == Some("upstream") && matches!(reason, "" | "upstream_answer") {
        return relayed(court, case);
    }
    if !case.message.is_complete && !is_excused(court, case.visit, case.saw) && !is_cut_short(case) {
        court.breach(rule::WHOLE, format!("an answer of forebay's own is incomplete: {}", case.told()));
    }
    let allowed = allowed(court, case.visit, case.saw, case.asked);
    if !allowed.contains(&reason) {
        court.breach(rule::CAUSE, format!("{}; the causes there were: {allowed:?}", case.told()));
    }
    readable(court, case, reason);
    let status = TABLE.iter().find(|row| row.reason == reason).map_or(200, |row| row.status[0]);
    if status != case.message.status() {
        court.breach(rule::CAUSE, format!("{} is a {status}", case.told()));
    }
}

/// A failure of forebay's own is an envelope that says who speaks.
fn readable(court: &mut Court<'_>, case: &Case<'_>, reason: &str) {
    if reason.is_empty() || case.asked.is_head() || !case.message.is_complete {
        return;
    }
    let name = case.message.field("x-forebay-request-id").unwrap_or_default();
    if let Some(fault) = reading::envelope_fault(&case.message.body, name) {
        court.breach(rule::READABLE, format!("{}: {fault}", case.told()));
    }
}

/// Which configuration was in force.
fn generation(court: &mut Court<'_>, case: &Case<'_>, reason: &str) {
    let generation = case.message.field("x-forebay-generation").and_then(|value| value.parse().ok()).unwrap_or(0);
    let name = case.message.field("x-forebay-request-id").unwrap_or_default();
    if court.records.get(name).is_some_and(|record| record.generation != generation) {
        court.breach(rule::LOG, format!("{}: generation {generation} is not the log's", case.told()));
    }
    let Some(reload) = court.plan.reload else { return };
    let is_behind = case.began.0 > (reload.at_ms + 2) * 1_000_000;
    let is_switched_off = case.asked.person == Some(reload.switched_off) && case.asked.target != "/api/hello";
    if is_behind && (generation != 2 || is_switched_off && case.message.field("x-sim-id").is_some()) {
        court.breach(rule::RELOAD, format!("{} of generation {generation} {reason}", case.told()));
    }
}

/// The client was still sending when the connection was closed on it, so that a reset could overtake the answer.
fn is_cut_short(case: &Case<'_>) -> bool {
    let asked: usize = case.visit.asks.iter().map(|asked| asked.wire.len()).sum();
    case.saw.ended.is_some_and(|(_, clean)| !clean) && case.saw.sent < asked
}

/// An upstream's answer.
fn relayed(court: &mut Court<'_>, case: &Case<'_>) {
    if case.message.field("x-sim-id") != Some(case.asked.id.to_string().as_str()) {
        return court.breach(rule::ORDER, format!("{} is of {:?}", case.told(), case.message.field("x-sim-id")));
    }
    let name = case.message.field("x-sim-try");
    let Some(attempt) = court.attempts(case.asked.id).find(|attempt| attempt.script.field("x-sim-try") == name) else {
        return court.breach(rule::ORDER, format!("an answer that no upstream gave: {}", case.told()));
    };
    let script = &*attempt.script;
    head(court, case, script);
    source(court, case, attempt);
    if case.asked.is_head() {
        return;
    }
    let (best, is_whole) = script.at_best();
    let payload = best.map(|message| message.body).unwrap_or_default();
    let got = Got::of(case, script, &payload);
    if !payload.starts_with(&got.passed) {
        let at = payload.iter().zip(&got.passed).position(|(a, b)| a != b).unwrap_or(payload.len());
        let here = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes.get(at..).unwrap_or_default()).chars().take(90).collect::<String>()
        };
        let (got, due) = (here(&got.passed), here(&payload));
        let detail = format!("{} differs at {at} of {}: {got:?} for {due:?}", case.told(), payload.len());
        court.breach(rule::ANSWER_BYTES, detail);
    }
    // What comes behind a stream's last event may be lost with the connection.
    let is_loose = script.until_close || !is_benign(court, script);
    let is_enough = is_loose && script.is_stream && has_ended(&got.passed);
    let lengths = format!("{} of {} bytes", got.passed.len(), payload.len());
    if is_whole && case.message.is_complete && got.own == Own::Nothing && got.passed != payload && !is_enough {
        court.breach(rule::WHOLE, format!("{}: {lengths}, and complete", case.told()));
    }
    if is_benign(court, script)
        && (!case.message.is_complete || got.own != Own::Nothing)
        && !is_excused(court, case.visit, case.saw)
    {
        court.breach(rule::WHOLE, format!("{}: {lengths}", case.told()));
    }
    broken(court, case, script, &got, is_whole);
    told(court, case, script, &got);
    log(court, case, &got);
}

/// What a client got of an upstream's answer.
struct Got {
    /// The upstream's bytes.
    passed: Vec<u8>,
    /// What forebay put behind them.
    own: Own,
    /// Signs of life between them.
    pings: usize,
    /// Where forebay's own event begins.
    at: Option<usize>,
}

impl Got {
    fn of(case: &Case<'_>, script: &Script, payload: &[u8]) -> Got {
        let got = &case.message.body;
        if !script.is_stream || case.has_length() {
            return Got { passed: got.clone(), own: Own::Nothing, pings: 0, at: None };
        }
        let parts = reading::parts(got, payload);
        let at = if let Own::Event(at) = parts.own { Some(at) } else { None };
        Got { passed: parts.passed, own: parts.own, pings: parts.pings, at }
    }
}

/// Whose answer it is is told, and is no secret refusal of the developer (R16) and no way to somewhere else (R8).
fn source(court: &mut Court<'_>, case: &Case<'_>, attempt: &Attempt) {
    let site = &court.plan.sites[attempt.site];
    if case.message.field("x-forebay-upstream") != Some(site.name.as_str()) {
        let told = case.message.field("x-forebay-upstream");
        court.breach(rule::LOG, format!("{}: it is of {}, and {told:?} is told", case.told(), site.name));
    }
    if matches!(attempt.script.status, 300..=303 | 305..=399 | 401..=403) {
        court.breach(rule::READABLE, format!("{} was passed on", case.told()));
    }
    if (200..300).contains(&attempt.script.status) && case.asked.peeks && !reading::is_of_the_api(&attempt.script) {
        court.breach(rule::READABLE, format!("{}: what is no answer of the API was passed on", case.told()));
    }
}

/// What forebay says inside a stream: at borders only, and in the form that the moment asks for.
fn told(court: &mut Court<'_>, case: &Case<'_>, script: &Script, got: &Got) {
    let course = reading::course(&got.passed);
    if got.pings > 0 && court.plan.patience.ping == Span::ZERO {
        court.breach(rule::READABLE, format!("{}: {} pings, and none were wanted", case.told(), got.pings));
    }
    match got.own {
        Own::Nothing => {}
        Own::Stop if course.delta.is_some() && course.ended.is_none() => {}
        Own::Event(_) if course.finished.is_none() && course.delta.is_none() && course.ended.is_none() => {}
        own => court.breach(rule::BROKEN, format!("{}: {own:?} where the stream had come to {course:?}", case.told())),
    }
    if let Some(at) = got.at.filter(|_| case.message.is_complete) {
        let event = String::from_utf8_lossy(&case.message.body[at..]).into_owned();
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
        let name = case.message.field("x-forebay-request-id").unwrap_or_default();
        if let Some(fault) = reading::envelope_fault(data.as_bytes(), name).filter(|_| script.is_stream) {
            court.breach(rule::READABLE, format!("{}: its error event: {fault}", case.told()));
        }
    }
}

/// A broken answer: seen to be broken, and cut between events.
fn broken(court: &mut Court<'_>, case: &Case<'_>, script: &Script, got: &Got, is_whole: bool) {
    // Where only a close ends a stream, its last event must have come for it to be whole.
    let needs_last = script.is_stream && script.until_close;
    let (passed, told) = (got.passed.as_slice(), got.own != Own::Nothing);
    let may_end = told || is_whole && !needs_last || script.is_stream && has_ended(passed);
    if case.message.is_complete && !may_end {
        court.breach(rule::BROKEN, format!("{}: {} bytes, and it looks complete", case.told(), passed.len()));
    }
    let is_cut = told || !case.message.is_complete;
    if script.is_stream && !case.has_length() && is_cut && !is_excused(court, case.visit, case.saw) {
        let border = borders(passed).last().copied().unwrap_or(0);
        let is_split = passed.len() - border > EVENT_BYTES_MAX;
        if border != passed.len() && (told || !is_split) {
            court.breach(rule::BROKEN, format!("{}: cut at {} , {border} is a border", case.told(), passed.len()));
        }
    }
}

/// The client needs no more: the stream's last event, or an error event, has come.
fn has_ended(passed: &[u8]) -> bool {
    [b"event: message_stop".as_slice(), b"event: error"].iter().any(|name| memmem::find(passed, name).is_some())
        && borders(passed).last() == Some(&passed.len())
}

fn head(court: &mut Court<'_>, case: &Case<'_>, script: &Script) {
    if case.message.first != format!("HTTP/1.1 {} Said", script.status) {
        court.breach(rule::ANSWER_BYTES, format!("{}: the status was {}", case.told(), script.status));
    }
    let due = kept(&script.fields, Direction::Answer);
    let own = |name: &str| {
        name.starts_with("x-forebay-") || ["content-length", "transfer-encoding", "connection"].contains(&name)
    };
    let got: Fields = case.message.fields.iter().filter(|(name, _)| !own(name)).cloned().collect();
    if due != got {
        court.breach(rule::ANSWER_BYTES, format!("{}: fields {got:?} for {due:?}", case.told()));
    }
    let length = |fields: &Fields| fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length")).cloned();
    if let Some((_, due)) = length(&script.fields)
        && length(&case.message.fields).is_none_or(|(_, got)| got != due)
        && !case.asked.is_head()
    {
        court.breach(rule::ANSWER_BYTES, format!("{}: the length was {due}", case.told()));
    }
}

/// The fields that go on, by the table of edits and RFC 9110 section 7.6.1.
pub fn kept(fields: &Fields, direction: Direction) -> Fields {
    let mut ends: Vec<String> =
        ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"].map(String::from).into();
    for (_, value) in fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        ends.extend(value.split(',').map(|option| option.trim().to_ascii_lowercase()));
    }
    let goes_on =
        |name: &str| !ends.contains(&name.to_ascii_lowercase()) && edits::find(direction, name.as_bytes()).is_none();
    fields.iter().filter(|(name, _)| goes_on(name)).cloned().collect()
}

/// The log, of an answer that was relayed to a client that stayed.
fn log(court: &mut Court<'_>, case: &Case<'_>, got: &Got) {
    let told = got.own != Own::Nothing;
    let name = case.message.field("x-forebay-request-id").unwrap_or_default();
    let Some(record) = court.records.get(name).copied() else { return };
    let ending = record.ending.slug();
    let sent = court.attempts(case.asked.id).count();
    let tried = case.message.field("x-forebay-attempts").unwrap_or_default();
    if tried != record.attempts.to_string()
        || usize::from(record.attempts) < sent
        || usize::from(record.attempts) > ASKED_MAX
    {
        court.breach(rule::LOG, format!("{}: {tried} attempts told, {sent} seen", case.told()));
    }
    let events = if case.has_length() { 0 } else { borders(&got.passed).len() };
    let is_plain = case.message.is_complete && !told && ending == "complete";
    let is_stream = is_plain && record.stream;
    let body = (got.passed.len() as u64, case.asked.body_bytes as u64);
    if is_plain && (record.bytes_out, record.bytes_in) != body {
        court.breach(rule::LOG, format!("{}: {body:?} bytes, the log says {record:?}", case.told()));
    }
    if is_stream && events.abs_diff(record.events as usize) > 1 {
        court.breach(rule::LOG, format!("{}: {events} events, the log says {}", case.told(), record.events));
    }
    let is_clean = case.message.is_complete && !told;
    if (ending == "complete") != is_clean && !is_excused(court, case.visit, case.saw) && !has_ended(&case.message.body)
    {
        court.breach(rule::LOG, format!("{}: the log says {ending}, complete: {is_clean}", case.told()));
    }
}

/// The reasons for which forebay may answer this request itself.
fn allowed(court: &Court<'_>, visit: &Visit, saw: &Saw, asked: &Asked) -> Vec<&'static str> {
    let mut allowed = Vec::new();
    let bounds = &court.plan.bounds;
    if bounds.bodies_bytes_max < BODIES_BYTES_MAX && asked.method == "POST" {
        allowed.push("bodies_full");
    }
    if bounds.connections_max < court.plan.visits.len() {
        allowed.push("connections_full");
    }
    if saw.was_idle || visit.manner.delay_ms_max > 0 && asked.wire.len() > 60_000 {
        allowed.push("request_timeout");
    }
    if court.plan.drain().is_some() {
        allowed.push("draining");
    }
    for due in court.due(asked) {
        match due {
            Expect::Own(reasons) => allowed.extend_from_slice(reasons),
            _ => upstreams(court, asked, &due.sites(), &mut allowed),
        }
    }
    allowed
}

/// What can come of asking one of these sites.
fn upstreams(court: &Court<'_>, asked: &Asked, sites: &[usize], allowed: &mut Vec<&'static str>) {
    for site in sites {
        if court.plan.sites[*site].is_flaky() {
            allowed.extend(["connect_failed", "connect_timeout"]);
        }
        if court.seen.upstreams.lines.iter().any(|line| line.site == *site && line.had_surplus) {
            // It can come so late that it looks like the answer to the next request.
            allowed.push("answer_malformed");
        }
    }
    for attempt in court.attempts(asked.id) {
        faults(court, attempt, &attempt.script, allowed);
    }
    if court.plan.drained.iter().any(|drained| sites.contains(&drained.site)) {
        allowed.push("upstreams_out");
    }
    let mut asked_of = court.attempts(asked.id).filter(|attempt| !attempt.was_stale).peekable();
    let was_busy = |site: &usize| {
        let mut attempts = court.seen.upstreams.attempts.iter();
        attempts.any(|attempt| attempt.site == *site && reading::is_busy(&attempt.script))
    };
    let is_busy = if asked_of.peek().is_some() {
        asked_of.all(|attempt| reading::is_busy(&attempt.script))
    } else {
        sites.iter().any(was_busy)
    };
    if is_busy {
        allowed.push("upstreams_busy");
    }
}

/// What an attempt can have come to, besides its answer.
fn faults(court: &Court<'_>, attempt: &Attempt, script: &Script, allowed: &mut Vec<&'static str>) {
    if attempt.was_stale {
        return;
    }
    if script.is_malformed || script.interim > 8 {
        allowed.push("answer_malformed");
    }
    let is_poor = reading::is_poor(script);
    let has_spent = script.status == 429 && memmem::find(&script.body, b"billing_error").is_some();
    if matches!(script.status, 401..=403) || is_poor || has_spent {
        allowed.push("credential_refused");
    }
    if matches!(script.status, 300..=399) {
        allowed.push("upstream_moved");
    }
    if (200..300).contains(&script.status) && !reading::is_of_the_api(script) || reading::early_error(script).is_some()
    {
        allowed.push("answer_unusable");
    }
    let before_head = script.written < script.head_end;
    let loses = script.then == Then::Reset || script.reads != Reads::Whole && script.then != Then::Next;
    let is_broken = !is_benign(court, script);
    if is_broken && script.written >= script.head_end {
        // It broke before anything of it had been passed on.
        allowed.extend(["answer_broken", "answer_idle"]);
    }
    if before_head && matches!(script.then, Then::Close | Then::Reset) || loses {
        allowed.push("upstream_closed");
    }
    let site = &court.plan.sites[attempt.site];
    let first_byte =
        site.first_byte.map_or(court.plan.patience.first_byte, |own| own.min(court.plan.patience.first_byte));
    let is_slow = script.pause.is_some_and(|(at, ms)| at <= script.head_end && ms + 3_000 >= first_byte.as_ms());
    // The pieces of a slow connection can outlast a short patience.
    let may_be_slow = site.first_byte.is_some() && court.plan.manner.delay_ms_max > 0;
    if before_head && script.then == Then::Silence || is_slow || may_be_slow {
        allowed.push("first_byte_timeout");
    }
    if may_be_slow {
        // That patience begins with the sending (seed 3127: 1,440 bytes in pieces of one took two seconds).
        allowed.push("send_timeout");
    }
    if script.reads == Reads::HeadOnly {
        allowed.extend(["send_timeout", "upstream_closed", "first_byte_timeout"]);
    }
}

/// A request that came whole gets an answer, unless an earlier one ended the connection.
fn unanswered(court: &mut Court<'_>, visit: &Visit, saw: &Saw) {
    let answers = &saw.reader.messages;
    let is_over = answers.last().is_some_and(|last| !last.is_complete || last.field("connection") == Some("close"));
    let Some(asked) = visit.asks.get(answers.len()) else { return };
    // An idle connection is closed by a drain, whatever is on its way to it.
    let is_over = is_over || court.plan.drain().is_some_and(|[closes, _]| saw.last.after(IN_FLIGHT) >= closes);
    if is_over || is_excused(court, visit, saw) || saw.asked_at.len() <= answers.len() || saw.reader.fault.is_some() {
        return;
    }
    court.breach(rule::ANSWERED, format!("request {} ({} {})", asked.id, asked.method, asked.target));
}
