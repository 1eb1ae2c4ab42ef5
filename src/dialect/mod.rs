//! What the bodies and events of each API family mean. Pure: bytes in, values and bytes out.

pub mod anthropic;
pub mod late;
pub mod usage;

pub use usage::{Aside, Counts, Usage};
