//! What a client is in the middle of when it leaves, and what it takes to be there.

use std::time::Duration;

/// What an exchange is in the middle of when its client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    /// The request is at the provider, which has not answered.
    FirstByte,
    /// Events come every few milliseconds.
    MidStream,
    /// The answer has begun, and nothing more comes.
    Silent,
    /// The client has stopped to read, and every buffer on the way is full.
    Stalled,
    /// The proxy is sending the request, and the provider takes it slowly.
    Uploading,
    /// The client has sent half of its request; there is no provider yet, so what counts is its own connection.
    HalfSent,
}

impl State {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            State::FirstByte => "before the first byte",
            State::MidStream => "in the middle of a stream",
            State::Silent => "silent provider",
            State::Stalled => "stalled reader",
            State::Uploading => "while the request goes up",
            State::HalfSent => "half a request sent",
        }
    }

    pub(super) fn body_bytes(self) -> usize {
        match self {
            // More than the kernel takes off the proxy's hands.
            State::Uploading => 8_000_000,
            State::HalfSent => 100_000,
            _ => 4_000,
        }
    }

    /// How long the state must have lasted before the client leaves.
    pub(super) fn rest(self) -> Duration {
        Duration::from_millis(if matches!(self, State::Stalled | State::Uploading) { 150 } else { 20 })
    }

    /// Exchanges at once.
    pub(super) fn crowd(self) -> usize {
        if matches!(self, State::Stalled | State::Uploading) { 4 } else { 64 }
    }
}
