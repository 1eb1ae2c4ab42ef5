//! `forebay check`: a configuration's errors, all at once, or what it amounts to, on one screen; or what would change if
//! it came into force.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config;
use crate::net::x509;
use crate::table::meaning::{Change, FingerprintKey, Meaning, differences};
use crate::table::{CredentialLimits, Hosts, Listener, Model, Table};

use super::{OK, USAGE, WRONG, complain, running, say, serve::open_key, variable};

/// Lines of one kind that a summary shows.
const SHOWN_MAX: usize = 8;

/// `forebay check`.
#[derive(Args)]
#[command(after_help = "Secrets are read as `serve` would read them, so their variables must be set here too.\n\
                        With --against, each line begins with what it does: `-` less works than before, `+` more,\n\
                        `~` something else, `!` nothing until a restart.\n\
                        Exit codes: 0 the configuration is good; 1 it is not; 2 wrong usage.")]
pub struct CheckArgs {
    /// The configuration.
    #[arg(required_unless_present = "settings")]
    file: Option<PathBuf>,
    /// Print every setting that there is, with its meaning, instead.
    #[arg(long, exclusive = true)]
    settings: bool,
    /// Print nothing when all is well.
    #[arg(short, long)]
    quiet: bool,
    /// Tell what changes in meaning from the configuration OLD, or from the one that a running forebay has.
    #[arg(long, value_name = "OLD|RUNNING")]
    against: Option<PathBuf>,
    /// The admin address of the running forebay; without it, the one in FILE.
    #[arg(long, value_name = "ADDR", requires = "against")]
    admin: Option<SocketAddr>,
}

/// What `--against` may say instead of a file's name.
const RUNNING: &str = "RUNNING";

/// Runs the command; returns its exit code.
pub(super) fn run(args: &CheckArgs) -> u8 {
    let Some(file) = &args.file else { return say(&config::reference()) };
    match config::load(file, &variable) {
        Ok(table) if args.against.is_some() => against(args, &table),
        Ok(_) if args.quiet => OK,
        Ok(table) => say(&format!("{}: OK\n{}", file.display(), summary(&table))),
        Err(report) => {
            complain(&report.to_string());
            WRONG
        }
    }
}

/// Tells the difference that `table` would make.
fn against(args: &CheckArgs, table: &Table) -> u8 {
    let Some(old) = &args.against else { return USAGE };
    let mut key = FingerprintKey::default();
    if aws_lc_rs::rand::fill(&mut key).is_err() {
        complain("forebay check: the system gives no random numbers\n");
        return USAGE;
    }
    let before = if old == Path::new(RUNNING) {
        running_meaning(args.admin.or(table.admin), &key)
    } else {
        config::load(old, &variable).map(|old| old.meaning(&key)).map_err(|report| report.to_string())
    };
    match before {
        Ok(before) => {
            let changes = differences(&before, &table.meaning(&key));
            if args.quiet && changes.is_empty() { OK } else { say(&told(&changes)) }
        }
        Err(fault) => {
            complain(&format!("forebay check: {} cannot be compared with: {fault}\n", old.display()));
            WRONG
        }
    }
}

/// What the forebay that runs on this machine has in force.
fn running_meaning(admin: Option<SocketAddr>, key: &FingerprintKey) -> Result<Meaning, String> {
    let admin = admin.filter(|admin| admin.port() != 0);
    let admin = admin.ok_or("the file names no [admin] address to ask; give --admin ADDR")?;
    let hex = key.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let document = running::ask(admin, &format!("/table/meaning?key={hex}"))?;
    serde_json::from_slice(&document).map_err(|_| format!("the forebay on {admin} is of another version"))
}

fn told(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "nothing changes in meaning\n".to_owned();
    }
    changes.iter().fold(String::new(), |mut text, Change { effect, what }| {
        let _ = writeln!(text, "{} {what}", effect.mark());
        text
    })
}

/// What a table amounts to.
fn summary(table: &Table) -> String {
    let mut out = String::new();
    for listener in &table.listeners {
        let hosts = match &listener.hosts {
            Hosts::Any => "any Host".to_owned(),
            Hosts::Only(names) => format!("Host {}", names.join(", ")),
        };
        let _ = writeln!(out, "  listen    {}, {}, {hosts}", listener.address, security(listener));
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
            let limited = upstream.credentials.iter().filter(|c| c.limits != CredentialLimits::default()).count();
            let limited = if limited == 0 { String::new() } else { format!(" ({limited} with limits)") };
            let credentials = format!("{}{limited}", counted(upstream.credentials.len(), "credential"));
            let way =
                upstream.via.as_ref().map_or_else(String::new, |via| format!(", through the proxy {}", via.name()));
            format!(
                "{} -> {scheme}://{}{}, {credentials}{way}",
                upstream.name, upstream.host_header, upstream.base_path
            )
        }),
    );
    lines(&mut out, "model", table.models.len(), table.models.iter().map(|model| way(table, model)));
    let (teams, keys) = (counted(table.teams.len(), "team"), counted(table.callers.len(), "key"));
    let disabled = table.callers.iter().filter(|caller| caller.disabled).count();
    let off = if disabled == 0 { String::new() } else { format!(" ({disabled} disabled)") };
    let _ = writeln!(out, "  callers   {teams}, {keys}{off}");
    for tls in table.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        if tls.key_is_open {
            let _ = writeln!(out, "  note      {}", open_key(&tls.key));
        }
        if tls.identity.certificate.names.is_empty() {
            let _ = writeln!(out, "  note      {} has no subjectAltName; clients refuse it", tls.cert.display());
        }
    }
    if table.callers.is_empty() {
        let _ = writeln!(
            out,
            "  note      without a [[key]] every request is refused; `forebay keys new --name NAME` makes one"
        );
    }
    out
}

/// A model's names, where it leads, tier by tier, and whether a failure may lead on.
fn way(table: &Table, model: &Model) -> String {
    let names = std::iter::once(model.name.text()).chain(&model.aliases);
    let names: Vec<&str> = names.map(|name| &**name).collect();
    let more = match (&model.targets[..], model.fallback) {
        ([_, _, ..], true) => "",
        ([_, _, ..], false) => "; never fails over",
        _ => "; no second target to fall over to",
    };
    format!("{} -> {}{more}", names.join(", "), table.way(model))
}

/// How a listener is spoken to.
fn security(listener: &Listener) -> String {
    let Some(tls) = &listener.tls else { return "plaintext".to_owned() };
    let certificate = &tls.identity.certificate;
    format!("TLS for {} until {}", certificate.names.join(", "), x509::day(certificate.ends))
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
        let table =
            config::quickstart("sk-secret".into(), None, [0; 32], "127.0.0.1:1".parse().expect("address"), &|_| None);
        let text = summary(&table.expect("good"));
        assert!(text.contains("anthropic -> https://api.anthropic.com, 1 credential\n"), "{text}");
        assert!(
            text.contains("model     * -> anthropic; no second target to fall over to\n")
                && text.contains("0 teams, 1 key\n"),
            "{text}"
        );
        assert!(!text.contains("secret") && text.lines().count() <= 24);
    }

    #[test]
    fn the_way_of_a_model_is_told_tier_by_tier() {
        let text = "[listen]\naddress = \"127.0.0.1:1\"\n\
            [[upstream]]\nname = \"a\"\nprovider = \"anthropic\"\n\
            credentials = [{ name = \"x\", env = \"X\", limits = { rpm = 20 } }, { name = \"y\", env = \"Y\" }]\n\
            [[upstream]]\nname = \"b\"\nbase_url = \"https://b.example\"\nauth = \"none\"\n\
            [[model]]\nname = \"claude-opus-5-5\"\naliases = [\"best\"]\ntargets = [{ upstream = \"b\", tier = 2, \
            model = \"big\", window = 32_000, images = false }, { upstream = \"a\" }]\n\
            [[model]]\nname = \"*\"\ntargets = [{ upstream = \"a\", weight = 3 }, { upstream = \"b\" }]\nfallback = false\n";
        let env = |name: &str| (name.len() == 1).then(|| name.to_owned());
        let table = config::parse(Path::new("f.toml"), text, &config::host::Machine { env: &env }).expect("good");
        let text = summary(&table);
        for line in [
            "upstream  a -> https://api.anthropic.com, 2 credentials (1 with limits)\n",
            "model     claude-opus-5-5, best -> a, then b as big (window 32000, no images)\n",
            "model     * -> a (weight 3) or b (weight 1); never fails over\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
