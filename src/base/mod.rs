//! What every floor may use: time, units, bounds, and the one table of failures. Pure: nothing here reads a clock,
//! a socket or a file.

pub mod bounds;
pub mod counts;
pub mod failure;
pub mod rng;
pub mod slots;
pub mod time;
pub mod units;

pub use counts::Counts;
pub use failure::{Dialect, Failure, Kind, Origin};
pub use rng::Rng;
pub use slots::{CallerSlot, CredentialSlot, ModelSlot, TeamSlot, UpstreamSlot};
pub use time::{Mono, Span, Wall};
pub use units::{LlmTokens, MicroUsd};
