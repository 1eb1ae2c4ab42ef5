//! The loopback tests, one binary: forebay as its users run it.
#![allow(
    missing_docs,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod doctor;
mod exchange;
mod requests;
mod support;
