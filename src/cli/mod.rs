//! The commands, one file each; this one only tells them apart.

pub mod sim;

/// Runs the command on the command line; its exit code is the process's.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
