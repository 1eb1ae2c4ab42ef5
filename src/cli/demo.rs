//! `forebay demo`: the router in front of a simulated provider, for a first look without a key or a bill.

use super::{EXIT_CODES, WRONG, complain, serve};
use crate::mock;
use std::net::SocketAddr;

/// `forebay demo`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// Listen here.
    #[arg(long, value_name = "ADDR", default_value_t = serve::LISTEN)]
    pub listen: SocketAddr,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    let provider = match mock::spawn_on_thread(mock::Options::default()) {
        Ok(provider) => provider,
        Err(error) => {
            complain(&format!("forebay demo: the simulated provider cannot start: {error}\n"));
            return WRONG;
        }
    };
    let url = format!("http://{}", provider.address);
    match serve::local_table("simulated".into(), Some(&url), args.listen) {
        Ok((table, secret)) => serve::serve(table, None, |running| {
            complain(
                "\n  *** SIMULATED PROVIDER: no model is behind this. Answers are made up, nothing is sent anywhere, \
                 nothing costs money. ***\n",
            );
            serve::invite(running, &secret);
        }),
        Err(fault) => {
            complain(&format!("forebay demo: {fault}\n"));
            WRONG
        }
    }
}
