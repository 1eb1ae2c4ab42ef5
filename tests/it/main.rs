//! The loopback tests, one binary: forebay as its users run it.
#![allow(
    missing_docs,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "a test is nobody's library and may block"
)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod configs;
mod docs;
mod drain;
mod exchange;
mod requests;
mod support;
