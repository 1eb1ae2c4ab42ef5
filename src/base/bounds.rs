//! Every fixed bound in one place, unit last. Bounds that an operator may set have their default here.

use super::time::Span;

/// A whole message head; above it a request gets 431 (RFC 6585 section 5).
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A request line; above it 414 (RFC 9112 section 3 asks for at least 8000).
pub const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;
/// Fields in a head.
pub const FIELDS_MAX: usize = 100;
/// A chunk-size line with its extensions.
pub const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
/// A whole trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Interim (1xx) answers that an upstream may send before the real one.
pub const INTERIM_ANSWERS_MAX: usize = 8;
/// Nesting of a request's JSON.
pub const JSON_DEPTH_MAX: u32 = 128;
/// Default for a request body; the Anthropic API itself stops at 32 MB (R9).
pub const BODY_BYTES_MAX: u64 = 64 << 20;
/// Default for all request bodies held at once by the process.
pub const BODIES_BYTES_MAX: u64 = 1 << 30;
/// An SSE event longer than this is passed on in parts.
pub const EVENT_BYTES_MAX: usize = 16 * 1024;
/// The least and the most that one read asks for. With the room for framing around them they are powers of two: 24 bytes
/// more, and the allocator gives a quarter more.
pub const READ_BYTES_MIN: usize = 2 * 1024 - 24;
/// See `READ_BYTES_MIN`.
pub const READ_BYTES_MAX: usize = 64 * 1024 - 24;
/// The most that one read of a stream asks for: a client that stalls makes us hold one that is being written, the next,
/// and the beginning of an event.
pub const STREAM_READ_BYTES_MAX: usize = 16 * 1024 - 24;
/// What a lingering close reads and throws away at most.
pub const LINGER_BYTES_MAX: u64 = 64 << 20;
/// How long a lingering close waits at most.
pub const LINGER_MAX: Span = Span::from_secs(5);
/// Client connections per worker.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Idle upstream connections kept per worker and upstream.
pub const POOL_IDLE_MAX: usize = 256;
