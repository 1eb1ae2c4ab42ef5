//! Serving: one client's connection, and on it one exchange after the other. Read `exchange` first.
//!
//! Everything here is generic over one `Runtime` and runs on one core; what the core owns is in `shard`.

pub mod answer;
pub mod attempt;
pub mod body;
pub mod client;
pub mod connection;
pub mod course;
pub mod drain;
pub mod edits;
mod events;
pub mod exchange;
pub mod gate;
mod hold;
pub mod models;
mod outcome;
pub mod relay;
pub mod shard;
#[cfg(test)]
mod sizes;
pub mod splice;
mod watch;

pub use connection::connection;
pub use shard::Shard;
