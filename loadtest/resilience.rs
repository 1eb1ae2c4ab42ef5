//! The scenarios that are judged: what a proxy does when clients leave, mean harm or are many, and when its
//! configuration changes. Each prints one row of claims; `verdict` says which of them hold.

use super::{
    Common, cancel,
    claims::{self, Claim, Row},
    hostile, loopback, memory, reload, swap,
};
use clap::Subcommand;
use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

/// Faults that a row tells in words.
const FAULTS_TOLD: usize = 4;

/// The scenarios.
#[derive(Subcommand)]
pub enum Resilience {
    /// Clients leave: how long until the provider's connection is closed. Is the provider itself.
    Cancel {
        #[command(flatten)]
        common: Common,
        /// What they are in the middle of.
        #[arg(long, value_enum)]
        state: cancel::State,
        /// How many leave.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
        /// Be the provider at this loopback address, the one that the proxy sends to.
        #[arg(long)]
        be: SocketAddr,
    },
    /// An attack, with an honest open-loop client beside it.
    Hostile {
        #[command(flatten)]
        common: Common,
        /// Which one.
        #[arg(long, value_enum)]
        attack: hostile::Attack,
        /// Requests a second of the honest client.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
    },
    /// Resident memory per connection, by slope. The proxy should be fresh.
    Memory {
        #[command(flatten)]
        common: Common,
        /// What the connections do.
        #[arg(long, value_enum)]
        kind: memory::Kind,
        /// Connections at the first look.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        few: u32,
        /// Connections at the second.
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
        many: u32,
    },
    /// Reloads, bad ones among them, under streams and requests.
    Reload {
        #[command(flatten)]
        common: Common,
        /// Streams that live through it.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=4_000))]
        streams: u32,
        /// Requests a second.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        /// How many reloads.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        reloads: u32,
        /// Milliseconds between two.
        #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(10..=10_000))]
        every: u32,
        /// The proxy's configuration.
        #[arg(long)]
        file: PathBuf,
        /// What is put behind it to make another good one; `{n}` becomes a number.
        #[arg(long)]
        good: String,
        /// What is put behind it to make a bad one.
        #[arg(long)]
        bad: String,
        /// `POST /reload` here.
        #[arg(long, required_unless_present = "hang_up", conflicts_with = "hang_up")]
        admin: Option<SocketAddr>,
        /// SIGHUP to this process.
        #[arg(long)]
        hang_up: Option<u32>,
    },
    /// Certificates change places under load, over TLS.
    Swap {
        #[command(flatten)]
        common: Common,
        /// The CA's certificate.
        #[arg(long)]
        ca: PathBuf,
        /// Certificate and key as the proxy reads them.
        #[arg(long, num_args = 2)]
        live: Vec<PathBuf>,
        /// The two pairs that take turns: certificate, key, certificate, key.
        #[arg(long, num_args = 4)]
        pairs: Vec<PathBuf>,
        /// How many exchanges.
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        swaps: u32,
        /// Milliseconds between two.
        #[arg(long, default_value_t = 2_500, value_parser = clap::value_parser!(u32).range(500..=60_000))]
        every: u32,
        /// SIGHUP to this process after each.
        #[arg(long)]
        hang_up: Option<u32>,
    },
    /// Sums rows up: PASS, FAIL or VOID for every claim. Fails when one does.
    Verdict {
        /// Rows of JSON, one a line.
        rows: PathBuf,
        /// Write the verdicts as JSON too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
}

/// Runs one.
///
/// # Errors
/// When it cannot be run, or its verdict is FAIL.
pub fn run(command: Resilience) -> io::Result<()> {
    match command {
        Resilience::Cancel { common, state, count, be } => cancel(&common, state, count as usize, be),
        Resilience::Hostile { common, attack, rate } => hostile(&common, attack, f64::from(rate)),
        Resilience::Memory { common, kind, few, many } => memory(&common, kind, [few as usize, many as usize]),
        Resilience::Reload { common, streams, rate, reloads, every, file, good, bad, admin, hang_up } => {
            admin.map_or(Ok(()), loopback)?;
            let word = match (admin, hang_up) {
                (Some(admin), _) => reload::Word::Post(admin),
                (None, Some(pid)) => reload::Word::Hangup(pid),
                (None, None) => return Err(io::Error::other("either --admin or --hang-up")),
            };
            let (streams, reloads) = (streams as usize, reloads as usize);
            let (rate, every) = (f64::from(rate), Duration::from_millis(every.into()));
            reload(&common, &reload::Plan { streams, rate, reloads, every, file, good, bad, word })
        }
        Resilience::Swap { common, ca, live, pairs, swaps, every, hang_up } => {
            let target = common.target()?;
            let wrong = |_| io::Error::other("--live takes two files, --pairs four");
            let (live, pairs) = (live.try_into().map_err(wrong)?, pairs.try_into().map_err(wrong)?);
            let (swaps, every) = (swaps as usize, Duration::from_millis(every.into()));
            swap(&common, &swap::Plan { to: target.to, key: target.key, ca, live, pairs, swaps, every, hang_up })
        }
        Resilience::Verdict { rows, json } => match claims::print(&rows, json.as_deref())? {
            true => Ok(()),
            false => Err(io::Error::other("a claim does not hold")),
        },
    }
}

fn cancel(common: &Common, state: cancel::State, count: usize, be: SocketAddr) -> io::Result<()> {
    loopback(be)?;
    let left = cancel::run(&common.target()?, &cancel::Plan { state, count, provider: be })?;
    let ms = |quantile| left.delay.value_at_quantile(quantile) as f64 / 1e6;
    let mut claims = vec![
        Claim::told("p50 ms", ms(0.5)),
        Claim::bounded("p99 ms", ms(0.99), 100.0),
        Claim::never("open after 5 s", left.open),
        Claim::never("went wrong", left.faults.len() - left.open),
    ];
    if state == cancel::State::Uploading {
        claims.push(Claim::told("sent whole all the same", left.whole as f64));
    }
    print(common, format!("client leaves: {}", state.name()), claims, left.faults)
}

fn hostile(common: &Common, attack: hostile::Attack, rate: f64) -> io::Result<()> {
    let out = hostile::run(&common.target()?, &hostile::Plan { attack, rate })?;
    let height = out.height;
    let claims = vec![
        Claim::told("healthy p50 ms", out.healthy.delay_ms(0.5)),
        Claim::bounded("healthy p99 ms", out.healthy.delay_ms(0.99), 50.0).or_of_control(1.5),
        Claim::never("healthy requests failed", out.healthy.faults.len()),
        Claim::never("descriptors missing", out.missing),
        Claim::told("descriptors at its height", (height.clients + height.upstreams + height.other) as f64),
        Claim::told("connections opened", out.opened as f64),
        Claim::told("ended by the proxy", out.ended as f64),
    ];
    print(common, attack.name().to_owned(), claims, out.healthy.faults)
}

fn memory(common: &Common, kind: memory::Kind, counts: [usize; 2]) -> io::Result<()> {
    let bound = match kind {
        memory::Kind::Idle => 12.0,
        memory::Kind::IdleStream => 16.0,
        memory::Kind::Stalled => 128.0,
    };
    let sizes = memory::run(&common.target()?, &memory::Plan { kind, counts })?;
    let mb = |kb: u64| kb as f64 / 1024.0;
    let claims =
        vec![Claim::sized("KiB each", sizes.each_kb, bound), Claim::told("MiB at the end", mb(sizes.rss_kb[2]))];
    let [few, many] = counts;
    print(common, format!("memory of {}, between {few} and {many}", kind.name()), claims, vec![])
}

fn reload(common: &Common, plan: &reload::Plan) -> io::Result<()> {
    let out = reload::run(&common.target()?, plan)?;
    let mut claims = vec![
        Claim::never("streams broken", out.streams.faults.len()),
        Claim::never("requests failed", out.requests.faults.len()),
        Claim::told("request p50 ms", out.requests.delay_ms(0.5)),
        Claim::bounded("request p99 ms", out.requests.delay_ms(0.99), 50.0).or_of_control(1.5),
        Claim::told("event p99 ms", out.streams.delay_ms(0.99)),
        Claim::told("idle connections closed", out.requests.reopened as f64),
    ];
    if matches!(plan.word, reload::Word::Post(_)) {
        claims.push(Claim::never("reloads that went wrong", out.faults.len()));
        claims.push(Claim::told("new generations served", out.in_force as f64));
        claims.push(Claim::told("bad files refused", out.refused as f64));
    }
    let faults = [out.streams.faults, out.requests.faults, out.faults].concat();
    print(common, format!("{} streams, {} reloads", plan.streams, plan.reloads), claims, faults)
}

fn swap(common: &Common, plan: &swap::Plan) -> io::Result<()> {
    let out = swap::run(plan)?;
    let claims = vec![
        Claim::never("requests and handshakes failed", out.faults.len()),
        Claim::never("certificates not seen", out.unseen),
        Claim::told("requests", out.requests as f64),
        Claim::told("handshakes", out.handshakes as f64),
        Claim::told("idle connections closed", out.reopened as f64),
    ];
    print(common, format!("TLS, {} certificate swaps", plan.swaps), claims, out.faults)
}

#[allow(clippy::print_stdout)] // a row is what a scenario prints
fn print(common: &Common, case: String, claims: Vec<Claim>, mut faults: Vec<String>) -> io::Result<()> {
    faults.truncate(FAULTS_TOLD);
    let row = Row { round: common.round, system: common.system.clone(), case, claims, faults };
    println!("{}", serde_json::to_string(&row)?);
    Ok(())
}
