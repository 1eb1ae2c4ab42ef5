//! The configuration: as written, its errors, and its compilation into a `Table`. Pure but for reading files.

pub mod quickstart;
pub mod url;

pub use quickstart::quickstart;
