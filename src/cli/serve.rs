//! `forebay serve`: the router itself, from a configuration or, without one, in front of the Anthropic API for this
//! machine.

use super::{EXIT_CODES, OK, USAGE, WRONG, complain, variable};
use crate::{
    auth::key::{self, Secret},
    boot::{self, BootError, Files, Running},
    config::{self, Source, Trace},
    control::Signals,
    table::Table,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where `serve` without a configuration listens.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8484);

/// `forebay serve`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// The configuration; without one, ANTHROPIC_API_KEY is fronted on loopback for a key that is made for this run.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here instead of where the configuration's only `[listen]` says.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Without a configuration: front this Anthropic-compatible API instead of Anthropic's own.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub upstream: Option<String>,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let Some(path) = &args.config else { return without_config(args) };
    let source = Source { path: path.clone(), env: variable, listen: args.listen };
    let config::Reading { table, trace } = source.read();
    let table = match table {
        Ok(table) => table,
        Err(report) => {
            complain(&report.to_string());
            return WRONG;
        }
    };
    if let Some(address) = args.listen {
        let [listener] = table.listeners.as_slice() else {
            complain("forebay serve: --listen goes with a configuration that has one [listen]\n");
            return USAGE;
        };
        if !address.ip().is_loopback() && !listener.plaintext && listener.tls.is_none() {
            complain(
                "forebay serve: an address that other machines reach needs `tls`, or `plaintext = true`, in [listen]\n",
            );
            return USAGE;
        }
    }
    serve(table, Some((source, trace)), |_| {})
}

fn without_config(args: &Args) -> u8 {
    let Some(api_key) = variable("ANTHROPIC_API_KEY").filter(|key| !key.is_empty()) else {
        complain(
            "forebay serve: there is neither --config FILE nor ANTHROPIC_API_KEY.\n\
             Try `forebay demo` for a run without a provider, or set ANTHROPIC_API_KEY to front the Anthropic API.\n",
        );
        return USAGE;
    };
    let listen = args.listen.unwrap_or(LISTEN);
    if !listen.ip().is_loopback() {
        complain(
            "forebay serve: without a configuration only this machine is served: give --listen a loopback address\n",
        );
        return USAGE;
    }
    match local_table(api_key, args.upstream.as_deref(), listen) {
        Ok((table, secret)) => serve(table, None, |running| invite(running, &secret)),
        Err(fault) => {
            complain(&format!("forebay serve: {fault}\n"));
            USAGE
        }
    }
}

/// The table of a run without a configuration, and the key that is made for it.
pub(super) fn local_table(
    api_key: String,
    upstream: Option<&str>,
    listen: SocketAddr,
) -> Result<(Table, Secret), String> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no random numbers")?;
    let secret = key::mint(random);
    let mut table = config::quickstart(api_key, upstream, key::digest(secret.expose().as_bytes()), listen, &variable)?;
    table.admin = Some(SocketAddr::new(LISTEN.ip(), 0));
    Ok((table, secret))
}

/// Starts, says where it listens, and serves until a signal.
pub(super) fn serve(table: Table, configuration: Option<(Source, Trace)>, welcome: impl FnOnce(&Running)) -> u8 {
    for key in table.listeners.iter().filter_map(|listener| listener.tls.as_ref()).filter(|tls| tls.key_is_open) {
        complain(&format!("forebay: warning: {}\n", open_key(&key.key)));
    }
    let signals = Signals::new().map_err(BootError::from);
    let started = signals.and_then(|signals| Ok((signals, boot::start_from(table, configuration)?)));
    let ended = started.and_then(|(signals, running)| {
        announce(&running);
        welcome(&running);
        running.until_signal(signals).map_err(BootError::from)
    });
    match ended {
        Ok(()) => OK,
        Err(error) => {
            complain(&format!("forebay: {error}\n"));
            WRONG
        }
    }
}

/// What is said of a private key that others may read.
pub(super) fn open_key(path: &Path) -> String {
    format!("every user of this machine may read the private key {0}; run `chmod o-r {0}`", path.display())
}

/// The lines that scripts wait for.
fn announce(running: &Running) {
    let workers = running.telemetry.cores.len();
    let driver = running.telemetry.cores.first().and_then(|core| core.driver());
    let driver = driver.map_or_else(String::new, |driver| format!(", {} ({})", driver.kind, driver.reason));
    let version = env!("CARGO_PKG_VERSION");
    if let Some(notice) = files_notice(running.files, workers) {
        complain(&notice);
    }
    // The one that is waited for comes last: by then everything is there.
    for (what, address) in [("admin", running.admin), ("health", running.health)] {
        if let Some(address) = address {
            complain(&format!("forebay: {what} on http://{address}\n"));
        }
    }
    for (address, secure) in running.addresses.iter().zip(&running.secure) {
        let scheme = if *secure { "https" } else { "http" };
        complain(&format!("forebay {version}: listening on {scheme}://{address} with {workers} workers{driver}\n"));
    }
}

/// What there is to say of the limit of open files: that it was raised, and whether it suffices.
fn files_notice(files: Files, workers: usize) -> Option<String> {
    let Files { wanted, before, now } = files;
    let raised = if now > before { format!(" (raised from {before})") } else { String::new() };
    if now < wanted {
        let fits = Files::connections(now, workers);
        return Some(format!(
            "forebay: warning: {now} files may be open{raised}, and [bounds] connections_max may need {wanted}; raise the \
             hard limit (LimitNOFILE={wanted}), or set connections_max to {fits}\n"
        ));
    }
    (now > before).then(|| format!("forebay: {now} files may be open{raised}\n"))
}

/// How to point Claude Code at it.
pub(super) fn invite(running: &Running, secret: &Secret) {
    let Some(address) = running.addresses.first() else { return };
    complain(&format!(
        "\nThis run's key is shown once. Point Claude Code at forebay with these lines:\n\n  \
         unset ANTHROPIC_API_KEY\n  \
         export ANTHROPIC_BASE_URL=http://{address}\n  \
         export ANTHROPIC_AUTH_TOKEN={}\n  \
         claude\n\n",
        secret.expose()
    ));
}
