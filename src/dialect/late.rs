//! How a client is told of a stream that breaks after it has begun. What is right depends on what the client has seen,
//! and on what it does then: each dialect has a table.

/// How far a stream had come when it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// No block of text and no tool call has ended.
    BeforeBlock,
    /// One has: the client may have acted on it.
    AfterBlock,
    /// Why the answer ends has been told; only the last event is missing.
    AfterStop,
    /// The last event has come.
    Ended,
    /// A part of an event has been sent.
    MidEvent,
}

/// How a broken stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// By an error event.
    Event,
    /// By a body without its end.
    Silence,
    /// Cleanly, by the one event that is missing.
    Stop,
    /// Cleanly: the last event that the client waits for has come.
    Complete,
}

/// One row of a dialect's table.
#[derive(Debug)]
pub struct Late {
    /// When it broke.
    pub moment: Moment,
    /// How the client is told.
    pub telling: Telling,
    /// What its clients do then, and why the other ways are worse.
    pub reason: &'static str,
}

/// The row for `moment`; a body without its end where a table has none.
pub fn telling(table: &[Late], moment: Moment) -> Telling {
    table.iter().find(|row| row.moment == moment).map_or(Telling::Silence, |row| row.telling)
}
