//! `forebay env`: what a client needs to use this gateway, and the variables that make it work well behind one.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::url;

use super::{USAGE, complain, say};

/// `forebay env`.
#[derive(Args)]
pub struct EnvArgs {
    #[command(subcommand)]
    client: Client,
}

#[derive(Subcommand)]
enum Client {
    /// Claude Code.
    Claude(ClaudeArgs),
}

#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
struct ClaudeArgs {
    /// Where clients reach the gateway; without `/v1`.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The key of this person or machine; without one, a place holder is printed.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A CA certificate that the gateway's own is signed by, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Shell)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// `export` lines, each with a comment.
    Shell,
    /// For a person's or a project's `settings.json`.
    Settings,
    /// For `managed-settings.json`, which a machine's administrator installs: without a key, unless one is given.
    Managed,
}

/// A variable, its value, and why.
struct Line {
    name: &'static str,
    value: String,
    why: &'static str,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &EnvArgs) -> u8 {
    let Client::Claude(args) = &args.client;
    if let Err(fault) = url::parse(&args.url) {
        complain(&format!("forebay env: the URL `{}` {fault}\n", args.url));
        return USAGE;
    }
    let lines = claude(args);
    say(&match args.format {
        Format::Shell => shell(&lines),
        Format::Settings | Format::Managed => json(&lines),
    })
}

/// The variables of Claude Code (R12, R21, R50; the others are in its documentation of settings).
fn claude(args: &ClaudeArgs) -> Vec<Line> {
    let line = |name, value: &str, why| Line { name, value: value.to_owned(), why };
    let mut url = args.url.trim_end_matches('/');
    url = url.strip_suffix("/v1").unwrap_or(url);
    let mut lines = vec![line("ANTHROPIC_BASE_URL", url, "the gateway, without /v1")];
    // A managed file is the same on every machine: it gets a key only when one is asked for.
    if args.format != Format::Managed || args.key.is_some() {
        let key = args.key.as_deref().unwrap_or("<your fby_ key>");
        lines.push(line("ANTHROPIC_AUTH_TOKEN", key, "your key; a leftover ANTHROPIC_API_KEY beside it does no harm"));
    }
    lines.extend([
        line(
            "CLAUDE_CODE_GATEWAY_HINT_HEADERS",
            "1",
            "says which requests are background work, so that yours go first",
        ),
        line("CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "1", "/model lists what is open to you here"),
        line("ENABLE_TOOL_SEARCH", "true", "keeps MCP tools out of every prompt; off by default behind a gateway"),
        line(
            "CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING",
            "1",
            "large tool inputs arrive as they are written; off by default behind a gateway",
        ),
    ]);
    if let Some(ca) = &args.ca {
        lines.push(line("NODE_EXTRA_CA_CERTS", &ca.to_string_lossy(), "the CA of the gateway's certificate"));
    }
    lines
}

fn shell(lines: &[Line]) -> String {
    lines.iter().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "export {}={} # {}", line.name, shell_word(&line.value), line.why);
        out
    })
}

/// A value as one word of a POSIX shell.
fn shell_word(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "'\\''"))
    }
}

/// An `env` object, as `settings.json` and `managed-settings.json` have it.
fn json(lines: &[Line]) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let each: Vec<String> =
        lines.iter().map(|line| format!("    {}: {}", text(line.name), text(&line.value))).collect();
    format!("{{\n  \"env\": {{\n{}\n  }}\n}}\n", each.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(format: Format) -> ClaudeArgs {
        ClaudeArgs {
            url: "https://gw.example/v1/".into(),
            key: Some("fby_it's".into()),
            ca: Some("/etc/ca cert.pem".into()),
            format,
        }
    }

    #[test]
    fn shell_lines_are_words_with_a_comment_each() {
        let text = shell(&claude(&args(Format::Shell)));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "export ANTHROPIC_BASE_URL=https://gw.example # the gateway, without /v1");
        assert!(lines[1].starts_with("export ANTHROPIC_AUTH_TOKEN='fby_it'\\''s' # "), "{text}");
        assert!(lines.iter().all(|line| line.starts_with("export ") && line.contains(" # ")));
        assert!(text.contains("NODE_EXTRA_CA_CERTS='/etc/ca cert.pem'"));
    }

    #[test]
    fn json_is_an_env_object_and_a_managed_one_has_no_key() {
        let settings: serde_json::Value = serde_json::from_str(&json(&claude(&args(Format::Settings)))).expect("JSON");
        assert_eq!(settings["env"]["ANTHROPIC_AUTH_TOKEN"], "fby_it's");
        assert_eq!(settings["env"]["CLAUDE_CODE_GATEWAY_HINT_HEADERS"], "1");
        let managed: serde_json::Value =
            serde_json::from_str(&json(&claude(&ClaudeArgs { key: None, ..args(Format::Managed) }))).expect("JSON");
        assert_eq!(managed["env"].get("ANTHROPIC_AUTH_TOKEN"), None);
        assert_eq!(managed["env"]["ENABLE_TOOL_SEARCH"], "true");
    }
}
