//! `forebay check`: a configuration's errors, all at once, or what it amounts to, on one screen.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use crate::config;
use crate::table::{Hosts, Table};

use super::{OK, WRONG, complain, say, variable};

/// Lines of one kind that a summary shows.
const SHOWN_MAX: usize = 8;

/// `forebay check`.
#[derive(Args)]
#[command(after_help = "Secrets are read as `serve` would read them, so their variables must be set here too.\n\
                        Exit codes: 0 the configuration is good; 1 it is not; 2 wrong usage.")]
pub struct CheckArgs {
    /// The configuration.
    file: PathBuf,
    /// Print nothing when all is well.
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &CheckArgs) -> u8 {
    match config::load(&args.file, &variable) {
        Ok(_) if args.quiet => OK,
        Ok(table) => say(&format!("{}: OK\n{}", args.file.display(), summary(&table))),
        Err(report) => {
            complain(&report.to_string());
            WRONG
        }
    }
}

/// What a table amounts to.
fn summary(table: &Table) -> String {
    let mut out = String::new();
    for listener in &table.listeners {
        let hosts = match &listener.hosts {
            Hosts::Any => "any Host".to_owned(),
            Hosts::Only(names) => format!("Host {}", names.join(", ")),
        };
        let _ = writeln!(out, "  listen    {}, plaintext, {hosts}", listener.address);
    }
    for (name, address) in [("admin", table.admin), ("health", table.health)] {
        if let Some(address) = address {
            let _ = writeln!(out, "  {name:<9} {address}");
        }
    }
    lines(
        &mut out,
        "upstream",
        table.upstreams.len(),
        table.upstreams.iter().map(|upstream| {
            let scheme = if upstream.tls { "https" } else { "http" };
            let credentials = counted(upstream.credentials.len(), "credential");
            format!("{} -> {scheme}://{}{}, {credentials}", upstream.name, upstream.host_header, upstream.base_path)
        }),
    );
    lines(
        &mut out,
        "model",
        table.models.len(),
        table.models.iter().map(|model| {
            let targets = model.targets.iter().filter_map(|target| {
                let upstream = table.upstream(target.upstream)?;
                let id = target.model.as_ref().map_or(String::new(), |id| format!(" as {id}"));
                Some(format!("{}{id}", upstream.name))
            });
            format!("{} -> {}", model.name.text(), targets.collect::<Vec<_>>().join(", then "))
        }),
    );
    let (teams, keys) = (counted(table.teams.len(), "team"), counted(table.callers.len(), "key"));
    let disabled = table.callers.iter().filter(|caller| caller.disabled).count();
    let off = if disabled == 0 { String::new() } else { format!(" ({disabled} disabled)") };
    let _ = writeln!(out, "  callers   {teams}, {keys}{off}");
    if table.callers.is_empty() {
        let _ = writeln!(
            out,
            "  note      without a [[key]] every request is refused; `forebay keys new --name NAME` makes one"
        );
    }
    out
}

fn lines(out: &mut String, name: &str, count: usize, each: impl Iterator<Item = String>) {
    for line in each.take(SHOWN_MAX) {
        let _ = writeln!(out, "  {name:<9} {line}");
    }
    if count > SHOWN_MAX {
        let _ = writeln!(out, "  {name:<9} and {} more", count - SHOWN_MAX);
    }
}

/// `1 key`, `2 keys`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_fits_a_screen_and_shows_no_secret() {
        let table = config::quickstart("sk-secret".into(), None, [0; 32], "127.0.0.1:1".parse().expect("address"));
        let text = summary(&table.expect("good"));
        assert!(text.contains("anthropic -> https://api.anthropic.com, 1 credential\n"), "{text}");
        assert!(text.contains("model     * -> anthropic\n") && text.contains("0 teams, 1 key\n"), "{text}");
        assert!(!text.contains("secret") && text.lines().count() <= 24);
    }
}
