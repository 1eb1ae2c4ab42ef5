//! `forebay serve`: the router itself, from a configuration or, without one, in front of the Anthropic API for this
//! machine.

use super::say;
use crate::{
    auth::key::{self, Secret},
    boot::{self, Running},
    config,
    control::Signals,
    table::Table,
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

/// Where `serve` without a configuration listens.
pub const LISTEN: &str = "127.0.0.1:8484";

/// The arguments of `forebay serve`.
#[derive(clap::Args)]
pub struct Args {
    /// The configuration; without one, ANTHROPIC_API_KEY is used and a key is made for this run.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here; only without a configuration.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    pub listen: Option<SocketAddr>,
    /// Front this Anthropic-compatible API instead; only without a configuration.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub upstream: Option<String>,
}

/// Serves until a signal. Exit code 0 after a drain, 1 when it cannot start, 2 for a usage error.
pub fn run(args: &Args) -> ExitCode {
    match &args.config {
        Some(path) => match config::load(path, &|name| std::env::var(name).ok()) {
            Ok(table) => serve(table, |_| {}),
            Err(report) => {
                say(&report.to_string());
                ExitCode::from(1)
            }
        },
        None => without_config(args),
    }
}

fn without_config(args: &Args) -> ExitCode {
    let Ok(api_key) = std::env::var("ANTHROPIC_API_KEY") else {
        say("forebay: there is neither --config FILE nor ANTHROPIC_API_KEY.\n\
             Try `forebay demo` for a run without a provider, or set ANTHROPIC_API_KEY to front the Anthropic API.");
        return ExitCode::from(2);
    };
    let secret = key_for_this_run();
    match local_table(api_key, args.upstream.as_deref(), &secret, args.listen) {
        Ok(table) => serve(table, |running| invite(running, &secret)),
        Err(fault) => {
            say(&format!("forebay: {fault}."));
            ExitCode::from(2)
        }
    }
}

/// A key that ends with the process.
pub fn key_for_this_run() -> Secret {
    let mut random = [0; 32];
    // The only failure is a system without randomness, on which no key may be made.
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        say("forebay: the system gives no random numbers.");
        std::process::exit(1);
    }
    key::mint(random)
}

/// The table of a run without a configuration.
pub fn local_table(
    api_key: String,
    upstream: Option<&str>,
    secret: &Secret,
    listen: Option<SocketAddr>,
) -> Result<Table, String> {
    let listen = listen.or_else(|| LISTEN.parse().ok()).ok_or("no address to listen on")?;
    let mut table = config::quickstart(api_key, upstream, key::digest(secret.expose().as_bytes()), listen)?;
    table.admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Ok(table)
}

/// Starts, says where it listens, and serves until a signal.
pub fn serve(table: Table, welcome: impl FnOnce(&Running)) -> ExitCode {
    let outcome = Signals::new().map_err(boot::BootError::from).and_then(|signals| Ok((signals, boot::start(table)?)));
    let (signals, running) = match outcome {
        Ok(started) => started,
        Err(error) => {
            say(&format!("forebay: {error}"));
            return ExitCode::from(1);
        }
    };
    announce(&running);
    welcome(&running);
    match running.until_signal(signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("forebay: {error}"));
            ExitCode::from(1)
        }
    }
}

/// The lines that scripts wait for.
fn announce(running: &Running) {
    let workers = running.telemetry.cores.len();
    let driver = running.telemetry.cores.first().and_then(|core| core.driver());
    let driver = driver.map_or_else(String::new, |driver| format!(", {} ({})", driver.kind, driver.reason));
    for address in &running.addresses {
        say(&format!(
            "forebay {}: listening on http://{address} with {workers} workers{driver}",
            env!("CARGO_PKG_VERSION")
        ));
    }
    if let Some(admin) = running.admin {
        say(&format!("forebay: admin on http://{admin}"));
    }
    if let Some(health) = running.health {
        say(&format!("forebay: health on http://{health}"));
    }
}

/// How to point Claude Code at it.
pub fn invite(running: &Running, secret: &Secret) {
    let Some(address) = running.addresses.first() else { return };
    say(&format!(
        "\nThis run's key is shown once. Point Claude Code at forebay with these lines:\n\n  \
         unset ANTHROPIC_API_KEY\n  \
         export ANTHROPIC_BASE_URL=http://{address}\n  \
         export ANTHROPIC_AUTH_TOKEN={}\n  \
         claude\n",
        secret.expose()
    ));
}
