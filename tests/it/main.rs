//! The loopback tests, one binary: forebay as its users run it.
#![allow(
    missing_docs,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "a test is nobody's library and may block"
)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod balance;
mod churn;
mod configs;
mod cuts;
mod docs;
mod doctor;
mod drain;
mod edges;
mod egress;
mod exact;
mod exchange;
mod failover;
mod files;
mod health;
mod leaving;
mod levers;
mod panic;
mod reload;
mod requests;
mod rotation;
mod secure;
mod support;
mod tls;
