//! `forebay doctor`: a production checklist as a command. Facts are gathered in `network` and `host`; every check is a
//! pure function from facts to findings. It changes nothing, and says nothing that was not found.

mod answer;
mod cost;
mod finding;
mod host;
mod judge;
mod limits;
mod models;
mod network;
mod people;
mod settings;

use super::{OK, USAGE, WRONG, complain, say, serve, variable};
use crate::{
    config::{self, Report, diagnose::redacted},
    net::x509::day,
    rt::ring::wall,
    table::Table,
};
use finding::{Finding, count, counted};
use host::Host;
use network::Told;
use serde::Serialize;
use std::{path::PathBuf, sync::Arc};

/// What the help ends with.
const AFTER_HELP: &str = "It asks each upstream for its models and sends one message of a word with each credential: \
a fraction of a cent. --offline sends nothing.\n\
Exit codes: 0 all is OK or WARN; 1 something is FAIL; 2 wrong usage.";

/// The arguments of `forebay doctor`.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The configuration; without one, ANTHROPIC_API_KEY is looked at as `serve` would.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Look at this Anthropic-compatible API instead; only without a configuration.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub upstream: Option<String>,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
    /// How many people work through forebay; the enabled keys of the configuration, unless said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub team_size: Option<u32>,
    /// How hard each of them works with agents.
    #[arg(long, value_enum, default_value_t)]
    pub workload: Workload,
    /// Ask this model instead of the cheapest one; rate limits are per model class.
    #[arg(long, value_name = "ID", conflicts_with = "offline")]
    pub model: Option<String>,
    /// Send nothing to anybody; names, credentials, models and rate limits stay unproven.
    #[arg(long)]
    pub offline: bool,
}

/// How hard people work with agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// A question now and then.
    Light,
    /// An agent for a good part of the day.
    #[default]
    Normal,
    /// Several agents all day.
    Heavy,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Workload::Light => "light",
            Workload::Normal => "normal",
            Workload::Heavy => "heavy",
        }
    }
}

/// The whole answer, as `--json` prints it.
#[derive(Serialize)]
struct Checklist<'a> {
    forebay: &'static str,
    config: Option<String>,
    offline: bool,
    team_size: Option<u64>,
    workload: Workload,
    ok: usize,
    warn: usize,
    fail: usize,
    findings: &'a [Finding],
}

/// Goes through the checklist; returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let table = match load(args) {
        Ok(table) => Arc::new(table),
        Err(Unusable::Usage(text)) => {
            complain(&text);
            return USAGE;
        }
        Err(Unusable::Report(report)) => {
            if !args.json {
                complain(&report.to_string());
            }
            return finish(args, None, &unreadable(args, &report));
        }
    };
    let enabled = table.callers.iter().filter(|caller| !caller.disabled).count() as u64;
    let people = args.team_size.map_or(enabled.max(1), u64::from);
    // Before anything else has threads or sockets: the event loop is what a worker would get.
    let host = Host::look(table.runtime.driver);
    let told = if args.offline { Ok(None) } else { network::ask_all(&table, args.model.as_deref()).map(Some) };
    let mut findings = vec![configuration(args, &table)];
    match told {
        Ok(told) => findings.extend(examine(args, &table, told.as_deref(), &host, people)),
        Err(error) => {
            findings.push(Finding::fail(
                "network",
                format!("nothing can be asked: {error}"),
                "raise this process's limits",
            ));
        }
    }
    finish(args, Some(people), &findings)
}

/// Why there is nothing to examine.
enum Unusable {
    Usage(String),
    Report(Report),
}

fn load(args: &Args) -> Result<Table, Unusable> {
    if let Some(path) = &args.config {
        return config::load(path, &variable).map_err(Unusable::Report);
    }
    let usage = |fault: &str| Unusable::Usage(format!("forebay doctor: {fault}\n"));
    let nothing = || usage("there is neither --config FILE nor ANTHROPIC_API_KEY, so there is nothing to examine");
    let api_key = variable("ANTHROPIC_API_KEY").filter(|key| !key.is_empty()).ok_or_else(nothing)?;
    let local = serve::local_table(api_key, args.upstream.as_deref(), serve::LISTEN);
    local.map(|(table, _)| table).map_err(|fault| usage(&fault))
}

/// The errors of a configuration, one finding each; lines for people are printed as `check` prints them.
fn unreadable(args: &Args, report: &Report) -> Vec<Finding> {
    let problems = report.problems();
    if !args.json {
        let found = format!("{}, above", counted(problems.len(), "error", "errors"));
        return vec![Finding::fail("config", found, "mend them; nothing else was looked at")];
    }
    let finding = |problem: &config::Problem| {
        let source = report.sources().get(problem.at.file as usize);
        let before = source.and_then(|source| source.text.get(..problem.at.start)).unwrap_or_default();
        let path = source.map_or_else(String::new, |source| source.path.display().to_string());
        Finding::fail("config", redacted(&problem.cause), redacted(&problem.hint))
            .about(format!("{path}:{}", before.matches('\n').count() + 1))
    };
    problems.iter().map(finding).collect()
}

fn configuration(args: &Args, table: &Table) -> Finding {
    let counts = format!(
        "{}, {}, {}",
        counted(table.upstreams.len(), "upstream", "upstreams"),
        counted(table.models.len(), "model", "models"),
        counted(table.callers.len(), "key", "keys")
    );
    match &args.config {
        Some(path) => Finding::ok("config", format!("{}: {counts}", path.display())),
        None => Finding::warn(
            "config",
            "there is none: ANTHROPIC_API_KEY is fronted for one person on this machine",
            "write a configuration for a team; configs/forebay.toml is a start",
        ),
    }
}

/// All checks, in the order in which they are printed. `told` is `None` offline.
fn examine(args: &Args, table: &Table, told: Option<&[Told]>, host: &Host, people: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut listings = Vec::new();
    if let Some(told) = told {
        for (upstream, told) in table.upstreams.iter().zip(told) {
            findings.push(judge::way(upstream, told));
            findings.extend(told.credentials.iter().map(judge::credential));
            listings.push(told.listing.clone());
        }
        findings.extend(models::right(table, &listings));
        let granted = judge::granted(table, told);
        findings.extend(granted.iter().map(limits::known));
        findings.push(limits::capacity(&granted, people, args.workload));
        findings.extend(judge::clock(told));
    } else {
        findings.push(Finding::warn(
            "network",
            "nothing was sent (--offline): upstreams, credentials, model ids, rate limits and the clock are not proven",
            "run it once without --offline",
        ));
        findings.push(limits::capacity(&[], people, args.workload));
    }
    findings.extend(models::retired(table, &day(wall())));
    findings.push(cost::daily(&table.prices, &cost::models(table, &listings), people, args.workload));
    findings.extend(settings::fallback(table));
    findings.extend(settings::shared_quota(table));
    findings.extend(settings::monitoring(table, &host.addresses));
    findings.extend(settings::timeouts(table));
    if args.config.is_some() {
        findings.push(people::contact(table));
        findings.extend(people::keys(table, wall()));
    }
    findings.extend(host::findings(host, table));
    findings
}

/// Prints the findings.
fn finish(args: &Args, people: Option<u64>, findings: &[Finding]) -> u8 {
    let [ok, warn, fail] = count(findings);
    let text = if args.json {
        let checklist = Checklist {
            forebay: env!("CARGO_PKG_VERSION"),
            config: args.config.as_ref().map(|path| path.display().to_string()),
            offline: args.offline,
            team_size: people,
            workload: args.workload,
            ok,
            warn,
            fail,
            findings,
        };
        // Strings, numbers and lists: there is nothing that could not be written.
        serde_json::to_string_pretty(&checklist).unwrap_or_default()
    } else {
        let lines: Vec<String> = findings.iter().map(Finding::line).collect();
        format!("{}\n{ok} OK, {warn} WARN, {fail} FAIL", lines.join("\n"))
    };
    match say(&format!("{text}\n")) {
        OK if fail == 0 => OK,
        _ => WRONG,
    }
}

#[cfg(test)]
mod sample {
    use crate::{
        config::{self, host::Machine},
        table::Table,
    };
    use std::path::Path;

    /// The upstream `a`, with one credential.
    pub const UPSTREAM: &str =
        "[[upstream]]\nname = \"a\"\nprovider = \"anthropic\"\ncredentials = [{ name = \"one\", env = \"K\" }]\n";

    /// What `text` compiles to, with a listener, and with `UPSTREAM` unless it brings its own.
    pub fn table(text: &str) -> Table {
        let upstream = if text.contains("[[upstream]]") { "" } else { UPSTREAM };
        let text = format!("[listen]\naddress = \"127.0.0.1:1\"\n{upstream}{text}");
        let env = |name: &str| Some(format!("sk-ant-{name}"));
        config::parse(Path::new("f.toml"), &text, &Machine { env: &env }).unwrap()
    }

    /// A model with a target for each upstream, each under the id `id` there.
    pub fn model(name: &str, upstreams: &[&str], id: Option<&str>) -> String {
        let id = id.map_or_else(String::new, |id| format!(", model = \"{id}\""));
        let targets: Vec<String> = upstreams.iter().map(|name| format!("{{ upstream = \"{name}\"{id} }}")).collect();
        format!("[[model]]\nname = \"{name}\"\ntargets = [{}]\n", targets.join(", "))
    }

    /// A key, with more lines.
    pub fn key(number: usize, more: &str) -> String {
        format!("[[key]]\nname = \"k{number}\"\nhash = \"sha256:{number:064x}\"\n{more}\n")
    }
}
