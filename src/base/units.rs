//! Quantities whose unit must not be mistaken.

/// Tokens as a language model counts them. (A credential is a `key`; what a bucket holds is `credit`.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LlmTokens(pub u64);

/// Money in millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroUsd(pub i64);
