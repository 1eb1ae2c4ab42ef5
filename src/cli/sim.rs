//! `forebay sim`: the simulated provider alone, for load tests and for trying a configuration without a provider.

use super::{USAGE, WRONG, complain};
use crate::mock::{Key, LimitSet, Options, Rule, spawn_on_thread};
use clap::Args;
use std::{net::SocketAddr, path::PathBuf};

/// What `forebay sim` takes.
#[derive(Args, Debug)]
pub struct SimArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A JSON file with rules: `[{"do": "529", "times": 2, "model": "opus"}]`.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Enforce rate limits: `rpm=50,itpm=30000,otpm=8000,burst_s=60,opus.rpm=20`.
    #[arg(long, value_name = "LIMITS")]
    enforce: Option<String>,
    /// Accept only this credential: its name, and the environment variable that holds it. May be repeated.
    #[arg(long = "key", value_name = "NAME=VARIABLE")]
    keys: Vec<String>,
    /// The seed of all ids.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prompts shorter than so many tokens are not cached.
    #[arg(long, value_name = "TOKENS")]
    cache_min: Option<u64>,
    /// Rows of the usage log that are kept.
    #[arg(long, value_name = "ROWS")]
    log_rows: Option<usize>,
    /// Log the SHA-256 of every request body.
    #[arg(long)]
    hash_bodies: bool,
    /// Refuse what the API refuses about `anthropic-version`.
    #[arg(long)]
    strict: bool,
}

/// Runs the simulator until the process is ended. Exit code 2: an argument makes no sense. 1: it cannot run.
pub(super) fn run(args: SimArgs) -> u8 {
    let say = |text: &str| complain(&format!("forebay sim: {text}\n"));
    let options = match options(args) {
        Ok(options) => options,
        Err(wrong) => {
            say(&wrong);
            return USAGE;
        }
    };
    match spawn_on_thread(options) {
        Ok(handle) => {
            say(&format!("the simulated provider listens on http://{}", handle.address));
            handle.wait();
            say("the simulated provider has ended unexpectedly");
            WRONG
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            say(&error.to_string());
            USAGE
        }
        Err(error) => {
            say(&format!("cannot start: {error}"));
            WRONG
        }
    }
}

fn options(args: SimArgs) -> Result<Options, String> {
    let mut options = Options { listen: args.listen, seed: args.seed, ..Options::default() };
    (options.hash_bodies, options.strict) = (args.hash_bodies, args.strict);
    options.cache_tokens_min = args.cache_min.unwrap_or(options.cache_tokens_min);
    options.log_rows_max = args.log_rows.unwrap_or(options.log_rows_max);
    if let Some(limits) = args.enforce {
        options.enforce = LimitSet::parse(&limits)?;
    }
    if let Some(file) = args.rules {
        let shown = file.display();
        let text = std::fs::read_to_string(&file).map_err(|error| format!("cannot read {shown}: {error}"))?;
        options.rules = serde_json::from_str::<Vec<Rule>>(&text).map_err(|error| format!("{shown}: {error}"))?;
    }
    for key in args.keys {
        let (name, variable) = key.split_once('=').ok_or_else(|| format!("--key {key}: write NAME=VARIABLE"))?;
        let secret = std::env::var(variable).map_err(|_| format!("--key {key}: {variable} is not set"))?;
        options.keys.push(Key::new(name, &zeroize::Zeroizing::new(secret)));
    }
    Ok(options)
}
