//! Bytes of HTTP/1.1, server-sent events and JSON: where a thing begins and ends, and whether it may be there at all.
//!
//! Pure: no socket, no clock, nothing async; what a field means to forebay is decided above. Every reader here takes
//! its input in pieces of any size and gives the same result for every way of cutting it; after warm-up none of them
//! allocates per message.

pub mod body;
pub mod head;
pub mod json;
pub mod sse;

pub use body::{BodyDecoder, BodyError, CHUNK_END, ChunkHead, LAST_CHUNK, Stripped, chunk_head};
pub use head::{Field, Framing, HeadError, Part, RequestHead, ResponseHead, Version};
pub use json::{FieldScan, ModelAt, ModelText, Peeked, ScanError};
pub use sse::EventScanner;
