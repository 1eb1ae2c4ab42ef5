//! The commands, one file each; this one only tells them apart. They speak to people, so this is the floor that writes
//! to standard output.

mod check;
mod demo;
mod doctor;
mod env;
mod explain;
mod health;
mod keys;
mod prices;
mod running;
mod serve;
mod sim;
mod upstreams;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code: done, and all is well.
pub const OK: u8 = 0;
/// Exit code: done, and something is wrong with what was looked at.
pub const WRONG: u8 = 1;
/// Exit code: could not be done as asked: wrong usage, or something missing.
pub const USAGE: u8 = 2;

/// What every command's help ends with.
const EXIT_CODES: &str = "Exit codes: 0 all is well; 1 something is wrong with what was looked at; 2 wrong usage.";

/// The edge router that an engineering org puts in front of its coding agents.
#[derive(Parser)]
#[command(name = "forebay", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the router.
    Serve(serve::Args),
    /// Run the router in front of a simulated provider, and say how to point `claude` at it.
    Demo(demo::Args),
    /// Read a configuration and tell all that is wrong with it, each with its place and a hint.
    Check(check::CheckArgs),
    /// Go through a production checklist: OK, WARN or FAIL for each point, and what to do.
    Doctor(doctor::Args),
    /// Ask a running forebay whether it should get requests: for health checks.
    Health(health::Args),
    /// Tell where a request would go and why; or what became of one.
    Explain(explain::Args),
    /// Tell how the upstreams of a running forebay stand; take one out for a while, or back.
    Upstreams(upstreams::Args),
    /// Print what a client needs to use this gateway.
    Env(env::EnvArgs),
    /// Make price rows of another list.
    Prices(prices::PricesArgs),
    /// Make keys.
    Keys(keys::KeysArgs),
    /// Run the simulated provider alone, for load tests and to try a configuration.
    Sim(sim::SimArgs),
}

/// Runs the command on the command line; its exit code is the process's.
pub fn run() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Upstreams(args) => upstreams::run(&args),
        Command::Env(args) => env::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Prices(args) => prices::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Sim(args) => sim::run(args),
    };
    ExitCode::from(code)
}

/// An environment variable as text.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Writes to standard output. A reader that went away (`| head`) is no fault of ours.
fn say(text: &str) -> u8 {
    write_all(&mut io::stdout().lock(), text)
}

/// Writes to standard error.
fn complain(text: &str) -> u8 {
    write_all(&mut io::stderr().lock(), text)
}

fn write_all(out: &mut dyn Write, text: &str) -> u8 {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => WRONG,
        _ => OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_that_people_script_against() {
        for line in [
            "forebay serve",
            "forebay serve --config a.toml --listen 127.0.0.1:1",
            "forebay demo",
            "forebay check a.toml",
            "forebay check a.toml --against b.toml",
            "forebay check a.toml --against RUNNING --admin 127.0.0.1:9090",
            "forebay doctor --json",
            "forebay health --admin 127.0.0.1:9090 --alive",
            "forebay doctor --config a.toml --team-size 40 --workload heavy --offline",
            "forebay upstreams",
            "forebay upstreams --json --admin 127.0.0.1:9090",
            "forebay upstreams drain anthropic/org-a --for 2h --yes --admin 127.0.0.1:9090",
            "forebay upstreams resume anthropic",
            "forebay explain --key alice --model claude-x --config a.toml",
            "forebay explain --key alice --body b.json --header x:y --header z:w --json",
            "forebay explain fb_01kawq6w2r4nkp6ny5bqvg2x7c --admin 127.0.0.1:9090",
            "forebay env claude --format managed",
            "forebay prices import list.json --only claude-* --only gpt-*",
            "forebay keys new --name a --team t --owner o --expires 90d",
            "forebay keys new --from p.csv --out-dir d",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "forebay",
            "forebay check",
            "forebay check a.toml --admin 127.0.0.1:1",
            "forebay keys new",
            "forebay keys new --from p.csv",
            "forebay env",
            "forebay upstreams drain anthropic",
            "forebay upstreams resume",
            "forebay explain",
            "forebay explain --model claude-x",
            "forebay explain fb_1 --key alice",
            "forebay explain --key a --model b --config c --admin 127.0.0.1:1",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).err().expect("refused");
            assert_eq!(error.exit_code(), i32::from(USAGE), "{line}");
        }
    }
}
