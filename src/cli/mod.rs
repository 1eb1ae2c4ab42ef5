//! The commands, one file each; this one only tells them apart.

pub mod doctor;
pub mod serve;

use clap::{Parser, Subcommand};
use std::{io::Write, process::ExitCode};

#[derive(Parser)]
#[command(name = "forebay", version, about = "The edge router for an organisation's coding agents")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients.
    Serve(serve::Args),
    /// Go through a production checklist: OK, WARN or FAIL for each point, and what to do.
    Doctor(doctor::Args),
}

/// Runs the command on the command line; its exit code is the process's.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Says something to whoever started the command, on standard error. A closed one is nobody's fault.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
