//! `forebay serve`.

use super::{ServeArgs, USAGE, complain};

/// Runs the command; returns its exit code.
pub(super) fn run(_: &ServeArgs) -> u8 {
    complain("forebay serve: not available in this build\n");
    USAGE
}
