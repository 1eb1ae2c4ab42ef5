//! `forebay demo`.

use super::{DemoArgs, USAGE, complain};

/// Runs the command; returns its exit code.
pub(super) fn run(_: &DemoArgs) -> u8 {
    complain("forebay demo: not available in this build\n");
    USAGE
}
