//! The simulated provider: the Anthropic Messages API as a pure engine (`Engine`: no socket, no clock, one seed is one
//! run) and a small server around it. For `forebay demo`, the load test and tests; its enforcing mode and its usage
//! log judge what forebay promises. It is not a model, not a proxy, and not meant to be reached from other machines.
//!
//! `docs/simulated-provider.md` is the reference of directives, behaviours, rules and limits.

mod behave;
mod compose;
mod content;
mod control;
mod directive;
mod engine;
mod estimate;
mod events;
mod generation;
mod head;
mod limits;
mod log;
mod models;
mod options;
mod rules;
mod sample;
mod script;
mod server;
mod stream;
mod thread;

pub use behave::Behaviour;
pub use engine::{Engine, Request};
pub use limits::LimitSet;
pub use log::{Ending, Row};
pub use options::{Key, Options};
pub use rules::Rule;
pub use script::{Script, Step};
pub use server::serve;
pub use thread::{Handle, spawn_on_thread};

#[cfg(test)]
mod tests;
