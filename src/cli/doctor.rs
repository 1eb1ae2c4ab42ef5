//! `forebay doctor`.

use super::{DoctorArgs, USAGE, complain};

/// Runs the command; returns its exit code.
pub(super) fn run(_: &DoctorArgs) -> u8 {
    complain("forebay doctor: not available in this build\n");
    USAGE
}
