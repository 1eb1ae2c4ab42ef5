//! `forebay upstreams`: how the upstreams of a running forebay stand; and taking one out for a while, and back.

use super::{EXIT_CODES, USAGE, WRONG, complain, running, say, variable};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use std::{fmt::Write, net::SocketAddr};

/// `forebay upstreams`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The admin listener of the running forebay.
    #[arg(long, global = true, value_name = "ADDR", default_value_t = running::ADMIN)]
    admin: SocketAddr,
    /// Print the document instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Send nothing new there for a while. Requests in flight go on; a reload does not end it, a restart does.
    Drain {
        /// NAME, or NAME/CREDENTIAL for one of its credentials.
        name: String,
        /// For how long: such as 30m, 2h or 1d; at most 7d.
        #[arg(long = "for", value_name = "TIME")]
        length: String,
        /// Also when nothing is left then that some model could be asked of.
        #[arg(long)]
        yes: bool,
    },
    /// End a drain before its time.
    Resume {
        /// What was drained: NAME or NAME/CREDENTIAL.
        name: String,
    },
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    match &args.action {
        None => show(args),
        Some(Action::Drain { name, length, yes }) => drain(args.admin, name, length, *yes),
        Some(Action::Resume { name }) => {
            match running::wish(args.admin, "/upstreams/resume", Some(&json!({ "name": name, "by": me() }))) {
                Ok(_) => say(&format!("{name} is asked again\n")),
                Err(denied) => wrong(&denied.message),
            }
        }
    }
}

fn show(args: &Args) -> u8 {
    match running::wish(args.admin, "/upstreams", None) {
        Ok(document) if args.json => say(&format!("{document:#}\n")),
        Ok(document) => say(&table(&document, &TimeZone::system())),
        Err(denied) => wrong(&denied.message),
    }
}

fn drain(admin: SocketAddr, name: &str, length: &str, yes: bool) -> u8 {
    let wish = json!({ "name": name, "for": length, "yes": yes, "by": me() });
    match running::wish(admin, "/upstreams/drain", Some(&wish)) {
        Ok(made) => {
            for line in lines(&made["without_way"]) {
                complain(&format!("WARNING: {line}: its requests FAIL until this ends\n"));
            }
            let until = clock(made["until"].as_str().unwrap_or_default(), &TimeZone::system());
            say(&format!("{name} is drained until {until}; `forebay upstreams resume {name}` ends it sooner\n"))
        }
        Err(denied) if denied.status == 409 && !lines(&denied.document["without_way"]).is_empty() => {
            complain(&format!("forebay upstreams: NOT drained. Without {name}, nobody is left to ask:\n"));
            for line in lines(&denied.document["without_way"]) {
                complain(&format!("  {line}\n"));
            }
            complain("Say --yes if these requests shall fail meanwhile.\n");
            WRONG
        }
        Err(denied) if denied.status == 400 => {
            complain(&format!("forebay upstreams: {}\n", denied.message));
            USAGE
        }
        Err(denied) => wrong(&denied.message),
    }
}

fn wrong(message: &str) -> u8 {
    complain(&format!("forebay upstreams: {message}\n"));
    WRONG
}

/// Who asks, for the log of the running forebay.
fn me() -> String {
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| variable(name)).unwrap_or_default()
}

fn lines(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The document as lines for people, times in `zone`.
fn table(document: &Value, zone: &TimeZone) -> String {
    let heads = ["UPSTREAM", "STANDING", "CREDENTIAL", "STATE", "IN FLIGHT", "CACHED", "ROOM", "LAST FAILURE"];
    let mut rows: Vec<Vec<String>> = vec![heads.map(str::to_owned).into()];
    for upstream in document["upstreams"].as_array().into_iter().flatten() {
        let mut first = [text(&upstream["name"]).to_owned(), standing(upstream, zone)];
        for credential in upstream["credentials"].as_array().into_iter().flatten() {
            let [name, stands] = std::mem::take(&mut first);
            let own = credential["name"].as_str().unwrap_or("-").to_owned();
            let in_flight = credential["in_flight"].as_u64().map_or("-".to_owned(), |count| count.to_string());
            let cached = credential["cache_share"].as_f64();
            let cached = cached.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0));
            let rooms = credential["room"].as_array().into_iter().flatten();
            let rooms: Vec<String> = rooms.map(|class| room(class, zone)).collect();
            let room = if rooms.is_empty() { "-".to_owned() } else { rooms.join(", ") };
            rows.push(vec![
                name,
                stands,
                own,
                state(credential, zone),
                in_flight,
                cached,
                room,
                failure(credential, zone),
            ]);
        }
    }
    aligned(&rows)
}

/// How much of its limits a class of models has left there: of the one of which there is least.
fn room(class: &Value, zone: &TimeZone) -> String {
    let name = text(&class["class"]);
    if let Some(until) = class["none_until"].as_str() {
        return format!("{name} none until {}", clock(until, zone));
    }
    let limits = ["requests", "llm_tokens", "input", "output"].map(|limit| &class[limit]);
    let parts = limits.iter().filter_map(|limit| Some(limit["left"].as_f64()?.max(0.0) / limit["of"].as_f64()?));
    let least = parts.fold(f64::INFINITY, f64::min);
    if least.is_finite() { format!("{name} {:.0} %", least * 100.0) } else { name.to_owned() }
}

fn standing(upstream: &Value, zone: &TimeZone) -> String {
    if let Some(drained) = drained(&upstream["drained"], zone) {
        return drained;
    }
    if let Some(error) = upstream["address_error"].as_str() {
        return format!("no address: {error}");
    }
    let standing = &upstream["standing"];
    match standing["is"].as_str() {
        Some("closed") => "works".into(),
        Some("slow") => format!("comes back, at {} %", standing["percent"]),
        Some("open") => format!("fails, left alone until {}", time(&standing["until"], zone)),
        Some("probe") => "failed, probed next".into(),
        _ => "-".into(),
    }
}

fn state(credential: &Value, zone: &TimeZone) -> String {
    let refused = credential["refused_until"].as_str();
    let refused = refused.map(|until| format!("refused, left alone until {}", clock(until, zone)));
    drained(&credential["drained"], zone).or(refused).unwrap_or_else(|| "ok".into())
}

fn drained(drain: &Value, zone: &TimeZone) -> Option<String> {
    let until = drain["until"].as_str()?;
    let by = drain["by"].as_str().filter(|by| !by.is_empty()).map_or_else(String::new, |by| format!(" by {by}"));
    Some(format!("drained until {}{by}", clock(until, zone)))
}

fn failure(credential: &Value, zone: &TimeZone) -> String {
    let failure = &credential["last_failure"];
    if failure.is_null() {
        return "-".into();
    }
    let status = failure["status"].as_u64().map_or_else(String::new, |status| format!(" {status}"));
    format!("{}{status} {} ({})", time(&failure["at"], zone), text(&failure["verdict"]), text(&failure["request_id"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn time(value: &Value, zone: &TimeZone) -> String {
    clock(text(value), zone)
}

/// A moment in RFC 3339 as people read it: the time, and the day unless it is today.
pub(super) fn clock(moment: &str, zone: &TimeZone) -> String {
    let Ok(at) = moment.parse::<Timestamp>() else { return moment.to_owned() };
    let (at, today) = (zone.to_datetime(at), zone.to_datetime(Timestamp::now()).date());
    let pattern = if at.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(pattern).to_string()
}

/// Rows as columns.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_all_that_the_document_does() {
        let document = json!({ "upstreams": [
            { "name": "anthropic", "standing": { "is": "closed" }, "drained": null, "credentials": [
                { "name": "org-a", "in_flight": 12, "cache_share": 0.9712, "refused_until": null, "drained": null, "last_failure": null,
                  "room": [{ "class": "opus", "none_until": "2001-02-03T14:03:10.000Z" },
                           { "class": "haiku", "requests": { "left": 40, "of": 50 }, "input": { "left": 100, "of": 1000 } }] },
                { "name": "org-b", "in_flight": 0, "refused_until": "2001-02-03T14:05:00.000Z", "drained": null, "room": [],
                  "last_failure": { "at": "2001-02-03T14:00:00.000Z", "status": 401, "verdict": "credential", "request_id": "fb_1" } },
            ] },
            { "name": "b", "standing": { "is": "open", "until": "2001-02-03T14:00:20.000Z" },
              "drained": { "until": "2001-02-03T16:00:00.000Z", "by": "olaf" },
              "credentials": [{ "name": null, "in_flight": 1, "room": [] }] },
        ] });
        let wanted = "\
UPSTREAM   STANDING                                  CREDENTIAL  STATE                                         IN FLIGHT  CACHED  ROOM                            LAST FAILURE
anthropic  works                                     org-a       ok                                            12         97 %  opus none until 2001-02-03 14:03:10, haiku 10 %  -
                                                     org-b       refused, left alone until 2001-02-03 14:05:00  0          -  -                               2001-02-03 14:00:00 401 credential (fb_1)
b          drained until 2001-02-03 16:00:00 by olaf  -           ok                                            1          -  -                               -
";
        let words =
            |text: &str| text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(words(&table(&document, &TimeZone::UTC)), words(wanted));
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "bcd", "e"], ["fghi", "", "j"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "a     bcd  e\nfghi       j\n");
    }
}
