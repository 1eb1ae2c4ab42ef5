//! `forebay-load`: how much CPU, time and memory a proxy costs, with bodies and streams like coding agents', beside
//! other proxies and beside no proxy. It talks to loopback only, and is bounded in connections and in time.
//!
//! `provider` is one process, a scenario is another; `side_by_side.sh` runs the whole comparison, and `table` sums its
//! rows up. How to read what comes out is in `docs/performance.md`. The scenarios of `resilience.sh` are judged instead of
//! compared: `docs/resilience.md`.

#![allow(clippy::print_stdout)] // a row is what a scenario prints
#![allow(clippy::disallowed_methods)] // it measures time, so it reads the clock and waits

mod cancel;
mod claims;
mod hostile;
mod http;
mod limits;
mod load;
mod memory;
mod passthrough;
mod process;
mod provider;
mod reactor;
mod reload;
mod resilience;
mod shapes;
mod streams;
mod swap;
mod table;

use clap::{Parser, Subcommand};
use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

#[derive(Parser)]
#[command(name = "forebay-load", version, about = "Measures a proxy in front of coding agents, on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be the provider: whole answers, and streams at exact times. Prints its address.
    Provider {
        /// Where to listen: a loopback address.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Whole exchanges; prints one row of JSON.
    Passthrough {
        #[command(flatten)]
        common: Common,
        /// Size of the request's body, in bytes.
        #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(0..=16_000_000))]
        body: u32,
        /// Connections.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4_096))]
        connections: u32,
        /// Requests a second, due at fixed times (open loop). Without it every connection asks as fast as it is
        /// answered (closed loop).
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200_000))]
        rate: Option<u32>,
    },
    /// Many streams at once; prints one row of JSON.
    Streams {
        #[command(flatten)]
        common: Common,
        /// Streams at once.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        streams: u32,
        /// Milliseconds between two events of a stream.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=60_000))]
        every: u32,
        /// Size of an event, in bytes.
        #[arg(long, default_value_t = 190, value_parser = clap::value_parser!(u32).range(143..=16_000))]
        event: u32,
    },
    /// Sums up rows: medians over the rounds, spreads, and which figures are void.
    Table {
        /// Rows of JSON, one a line.
        rows: PathBuf,
        /// Write what is printed as JSON too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    #[command(flatten)]
    Resilience(resilience::Resilience),
    /// Prints as many loopback ports as asked for that nobody listens on.
    FreePorts {
        /// How many.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=16))]
        count: u32,
    },
}

#[derive(clap::Args)]
struct Common {
    /// Where to send requests: a loopback address.
    #[arg(long)]
    to: SocketAddr,
    /// The key to show.
    #[arg(long, default_value = "load-test-key")]
    key: String,
    /// A process of the proxy at that address; may be repeated. None when there is no proxy.
    #[arg(long)]
    pid: Vec<u32>,
    /// The provider behind it, to ask for its own count.
    #[arg(long)]
    provider: Option<SocketAddr>,
    /// The provider's process.
    #[arg(long)]
    provider_pid: Option<u32>,
    /// Seconds before anything counts.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that count.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// What stands at the address, for the row.
    #[arg(long, default_value = "unnamed")]
    system: String,
    /// The round, for the row.
    #[arg(long, default_value_t = 1)]
    round: u32,
}

impl Common {
    fn target(&self) -> io::Result<load::Target> {
        for address in [Some(self.to), self.provider].into_iter().flatten() {
            loopback(address)?;
        }
        let duration = |seconds: f64, what: &str| match seconds {
            0.1..=600.0 => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(io::Error::other(format!("{what} must be from 0.1 to 600 seconds"))),
        };
        Ok(load::Target {
            to: self.to,
            key: self.key.clone(),
            pids: self.pid.clone(),
            provider: self.provider,
            provider_pid: self.provider_pid,
            warm_up: duration(self.warm_up, "--warm-up")?,
            window: duration(self.seconds, "--seconds")?,
        })
    }
}

/// Load is for this machine alone: nobody else's service is ever measured by accident.
fn loopback(address: SocketAddr) -> io::Result<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(io::Error::other(format!("{address} is not a loopback address; this program sends load to no other")))
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "forebay-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Provider { listen } => {
            loopback(listen)?;
            limits::raise_files()?;
            let listener = TcpListener::bind(listen)?;
            println!("listening on {}", listener.local_addr()?);
            provider::serve(listener)
        }
        Command::Passthrough { common, body, connections, rate } => {
            let plan = passthrough::Plan {
                body_bytes: body as usize,
                connections: connections as usize,
                rate: rate.map(f64::from),
                may_reopen: false,
            };
            let measured = passthrough::run(&common.target()?, &plan)?;
            let size = if body >= 1_000 { format!("{} KB", body / 1_000) } else { format!("{body} B") };
            let case = match rate {
                None => format!("{size}, {connections} connections, closed loop"),
                Some(rate) => format!("{size}, {rate}/s, open loop"),
            };
            print(&measured, &common, &case, "request")
        }
        Command::Streams { common, streams, every, event } => {
            let plan = streams::Plan {
                streams: streams as usize,
                every: Duration::from_millis(u64::from(every)),
                bytes: event as usize,
                body_bytes: 4_000,
            };
            let measured = streams::run(&common.target()?, &plan)?;
            print(&measured, &common, &format!("{streams} streams, {event} B every {every} ms"), "event")
        }
        Command::Resilience(command) => resilience::run(command),
        Command::Table { rows, json } => table::print(&rows, json.as_deref()),
        Command::FreePorts { count } => {
            let listeners: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
            for listener in listeners? {
                println!("{}", listener.local_addr()?.port());
            }
            Ok(())
        }
    }
}

fn print(measured: &load::Measured, common: &Common, case: &str, unit: &str) -> io::Result<()> {
    println!("{}", measured.row(common.round, &common.system, case, unit)?);
    match measured.faults.first() {
        None => Ok(()),
        Some(first) => Err(io::Error::other(format!("{} faults; the first: {first}", measured.faults.len()))),
    }
}
