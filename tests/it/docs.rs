//! The documents that are printed from tables in the code. `BLESS=1 cargo test --test it docs` writes them anew.

use forebay::{
    base::failure::TABLE,
    dialect::{
        anthropic::LATE,
        late::{Moment, Telling},
    },
    serve::edits::{Action, Direction, EDITS},
    table::Verdict,
    table::catalogue::{KNOWN, RETIRED},
    upstream::verdict::{self, Effect},
};
use std::{fmt::Write, path::Path};

fn same_as_file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, text, "docs/{name} is not what the code says: BLESS=1 cargo test --test it docs");
}

#[test]
fn edits() {
    let mut text = String::from(
        "# What forebay changes\n\n\
         In the same dialect forebay changes what this table lists, and nothing else: all other fields keep their order, their\n\
         case and their duplicates, and a body keeps every byte but an aliased model's name. Fields that end at each hop\n\
         (`Connection` and what it names, `Keep-Alive`, `Proxy`, `Proxy-*`, `TE`, `Trailer`, `Upgrade`, `HTTP2-Settings`; RFC 9110\n\
         section 7.6.1) end here too, and trailers and interim answers (1xx) are dropped. Chunk borders are forebay's own.\n\n\
         - Fields that are meant for every recipient (`Host`, `Date`, `Content-Length`, `Content-Type`, `Content-Encoding`,\n  \
           `Cache-Control`, `Expect`, `Accept-Encoding`, `anthropic-version`, `anthropic-beta`, credentials) are left as this page\n  \
           says, whatever `Connection` names.\n\
         - A field is written as `name: value`: white space around a value is no part of it (RFC 9110 section 5.5).\n\
         - The first line says HTTP/1.1. A request's target becomes path and query, behind the upstream's base path; an answer's\n  \
           status and phrase stay, an empty phrase too.\n\
         - `accept-encoding` and a `content-encoding` of gzip are touched on the paths only whose body forebay reads: `/v1/messages`\n  \
           and `/v1/messages/count_tokens`.\n\n\
         `tests/it/exact` proves it: thousands of exchanges that seeds make up, through the real binary, every byte compared at\n\
         both ends with what this page says is due.\n",
    );
    for (direction, title) in [(Direction::Request, "Requests"), (Direction::Answer, "Answers")] {
        write!(text, "\n## {title}\n\n| field | what is done | why |\n|---|---|---|\n").unwrap();
        for edit in EDITS.iter().filter(|edit| edit.direction == direction) {
            let action = match edit.action {
                Action::Drop => "left out",
                Action::Replace => "replaced",
                Action::Add => "written by forebay",
            };
            writeln!(text, "| `{}` | {action} | {} |", edit.field, edit.reason).unwrap();
        }
    }
    same_as_file("edits.md", &text);
}

#[test]
fn configuration() {
    let mut text = String::from(
        "# Configuration\n\n\
         One TOML file. `forebay check FILE` tells every error at once, each with its place and a hint; `forebay check NEW\n\
         --against OLD` tells what a change means. A quantity carries its unit in its text: `\"5s\"`, `\"64MiB\"`. A key that is not\n\
         listed here is an error, never ignored. [configs/team.toml](../configs/team.toml) has every key at work; how a change comes\n\
         into force is in [reload.md](reload.md). `forebay check --settings` prints the tables below.\n",
    );
    text.push_str(&forebay::config::reference());
    text.push_str(
        "\n## What is known of models\n\
         As of the end of November 2026; `window`, `images`, `tools` and `thinking` of a target go before it, and a service in\n\
         front of a model may take less than the model does. An id that is not here is passed on as it is.\n\n\
         | model | id | dated id | window | takes | assumed |\n|---|---|---|---|---|---|\n",
    );
    for known in KNOWN {
        let takes = [(known.can.images, "images"), (known.can.tools, "tools"), (known.can.thinking, "thinking")];
        let takes: Vec<&str> = takes.iter().filter(|(can, _)| *can).map(|(_, what)| *what).collect();
        let dated = known.dated.map_or(String::new(), |id| format!("`{id}`"));
        let (name, id, window) = (known.name, known.id, known.can.window_max.unwrap_or_default());
        let (takes, assumed) = (takes.join(", "), known.assumed);
        writeln!(text, "| {name} | `{id}` | {dated} | {window} | {takes} | {assumed} |").unwrap();
    }
    text.push_str(
        "\n### Retired ids\n\
         Where no `[[model]]` takes such an id, its successor is asked for instead: the one that its provider recommends. A bound on\n\
         models has to leave the successor open.\n\n\
         | ids | retired on | successor |\n|---|---|---|\n",
    );
    for row in RETIRED {
        let ids: Vec<String> = row.ids.iter().map(|id| format!("`{id}`")).collect();
        writeln!(text, "| {} | {} | `{}` |", ids.join(", "), row.day, row.successor).unwrap();
    }
    same_as_file("configuration.md", &text);
}

#[test]
fn failures() {
    let mut text = String::from(
        "# Failures\n\n\
         Every answer says who made it: `x-forebay-origin` is `client`, `gateway` or `upstream`. One that forebay itself made\n\
         says why in `x-forebay-reason`; the same words stand in the access log and in the metrics. Its body is the error\n\
         envelope of the client's dialect, with a text of the form\n\n    \
         forebay: what happened. What to do. Contact: whom to ask. [request id]\n\n\
         An upstream's own error passes unmodified, body and status, with the reason `upstream_answer`; only its 401 and 403\n\
         do not, since they are about a credential that the developer does not hold (`credential_refused`).\n\n\
         | reason | origin | Anthropic | OpenAI chat | OpenAI Responses | Gemini | error type | `x-should-retry` |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let [anthropic, chat, responses, gemini] = row.status;
        let retry = row.retry.map_or("", |retry| if retry { "true" } else { "false" });
        let (reason, origin, ty) = (row.reason, row.origin.slug(), row.error_type);
        writeln!(text, "| `{reason}` | {origin} | {anthropic} | {chat} | {responses} | {gemini} | `{ty}` | {retry} |")
            .unwrap();
    }
    text.push_str("\n`client_gone` and `client_stalled` are logged and counted, never sent.\n");
    same_as_file("failures.md", &text);
}

#[test]
fn verdicts() {
    let mut text = String::from(
        "# Verdicts\n\n\
         What an upstream's answer means, as long as nothing of it has been sent to the client. The first row that fits holds;\n\
         an upstream's own `verdicts` go before it. What is done besides: docs/failover.md.\n\n\
         | status | body holds | the request | is held against | why |\n|---|---|---|---|---|\n",
    );
    for row in verdict::TABLE {
        let (from, to) = row.statuses;
        let status = if from == to { from.to_string() } else { format!("{from}-{to}") };
        let body = if row.body.is_empty() { String::new() } else { format!("`{}`", row.body) };
        let request = match row.verdict {
            Verdict::Deliver => "is answered by it",
            Verdict::Next | Verdict::CoolAndNext => "goes to the next candidate",
        };
        let against = match row.effect {
            Effect::Works | Effect::Nothing => "nobody",
            Effect::Credential => "the credential",
            Effect::Class => "the credential, for this class of models",
            Effect::Upstream => "the upstream",
        };
        writeln!(text, "| {status} | {body} | {request} | {against} | {} |", row.reason).unwrap();
    }
    text.push_str(
        "\nNo answer at all (no address, refused, timed out, TLS, closed, not HTTP) is held against the upstream, and the\n\
         request goes to the next candidate. So does a success that is no answer of the API: a web page, an error document, an error\n\
         event before any content, a stream or document that breaks before the commit point.\n\n\
         ## Later than that\n\n\
         Once something was sent, nobody else is asked, and the client is told in the form that makes it do the right thing.\n\n\
         | the stream broke | it ends | why |\n|---|---|---|\n",
    );
    for row in LATE {
        let moment = match row.moment {
            Moment::BeforeBlock => "before a block of text or a tool call had ended",
            Moment::AfterBlock => "after one had",
            Moment::AfterStop => "after `message_delta`, before `message_stop`",
            Moment::Ended => "after `message_stop`",
            Moment::MidEvent => "inside an event of more than 16 KiB",
        };
        let telling = match row.telling {
            Telling::Event => "with an error event",
            Telling::Silence => "without an end: the connection breaks",
            Telling::Stop => "with a `message_stop` of forebay's",
            Telling::Complete => "well",
        };
        writeln!(text, "| {moment} | {telling} | {} |", row.reason).unwrap();
    }
    same_as_file("verdicts.md", &text);
}
