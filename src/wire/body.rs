//! Bodies of HTTP/1.1 messages: where they end, and their payload without the framing (RFC 9112 sections 6 and 7).
//!
//! Nothing is buffered here. Payload stays in the buffer that the kernel filled; extensions and trailers are checked,
//! bounded and dropped.

use super::head::{Framing, is_name_byte};
use crate::base::{
    bounds::{CHUNK_LINE_BYTES_MAX, FIELDS_MAX, TRAILER_BYTES_MAX},
    failure::Kind,
};
use std::ops::Range;

/// The end of every chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk, without trailers: the end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Digits of a chunk size, leading zeros included.
const SIZE_DIGITS_MAX: u32 = 16;
/// A single chunk above this is refused: nobody means it, and it would overflow somebody.
const CHUNK_BYTES_MAX: u64 = u32::MAX as u64;
/// Extensions of one body may be so many bytes more than its payload (RFC 9112 section 7.1.1 asks for a bound).
const EXTENSION_BYTES_MAX: u64 = 16 * 1024;

/// Why a body was refused. Nothing behind it on the connection can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A rule of the chunked coding is broken; the text names it and its section.
    #[error("{0}")]
    Malformed(&'static str),
    /// A part of the framing is over its bound; the text names which.
    #[error("{0}")]
    TooLong(&'static str),
    /// The connection ended before the body did.
    #[error("the connection ended before the body did (RFC 9112 section 8)")]
    Truncated,
}

impl BodyError {
    /// The failure that a *request* with this body gets. An answer's is `Kind::AnswerBroken`.
    pub const fn kind(&self) -> Kind {
        Kind::BodyBroken
    }
}

/// What one call of `BodyDecoder::strip` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stripped {
    /// Where in the given bytes the payload lies now; may be empty.
    pub payload: Range<usize>,
    /// How many of the given bytes belong to this body. What follows belongs to the next message.
    pub consumed: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Chunked(Chunk),
    Broken(BodyError),
}

/// Which byte a chunked body is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size,
    SizeGap,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Takes the framing off one body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    payload_bytes: u64,
    /// Bytes that the current chunk still lacks; while its size is read, that size.
    chunk_left: u64,
    size_digits: u32,
    line_bytes: usize,
    extension_bytes: u64,
    trailer_bytes: usize,
    trailers: usize,
}

impl BodyDecoder {
    /// A body of this framing, of which no byte has been seen.
    pub fn new(framing: Framing) -> BodyDecoder {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(bytes) => State::Length(bytes),
            Framing::Chunked => State::Chunked(Chunk::Size),
            Framing::UntilClose => State::UntilClose,
        };
        BodyDecoder {
            state,
            payload_bytes: 0,
            chunk_left: 0,
            size_digits: 0,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailers: 0,
        }
    }

    /// Takes the framing off the next bytes of the body, in place: afterwards `bytes[payload]` is payload and nothing
    /// else. Payload moves only when several chunks lie in `bytes`, and then only down. Calls may cut the body
    /// anywhere. After an error every call gives the same error; payload of the failing call is lost.
    pub fn strip(&mut self, bytes: &mut [u8]) -> Result<Stripped, BodyError> {
        let stripped = match self.state {
            State::Done => Stripped::default(),
            State::Broken(error) => return Err(error),
            State::UntilClose => Stripped { payload: 0..bytes.len(), consumed: bytes.len() },
            State::Length(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - taken as u64;
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Stripped { payload: 0..taken, consumed: taken }
            }
            State::Chunked(chunk) => match self.strip_chunks(chunk, bytes) {
                Ok(stripped) => stripped,
                Err(error) => {
                    self.state = State::Broken(error);
                    return Err(error);
                }
            },
        };
        self.payload_bytes += stripped.payload.len() as u64;
        Ok(stripped)
    }

    /// Whether the whole body has been seen.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The peer has closed: right only if the body is complete, or is the kind that ends so.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Broken(error) => Err(error),
            State::Length(_) | State::Chunked(_) => {
                self.state = State::Broken(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    /// Payload bytes given so far.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Payload bytes that are announced and still to come: the rest of the body, or of the current chunk. With
    /// `payload_bytes` it tells that a body will be too large before it is.
    pub fn announced_bytes(&self) -> u64 {
        match self.state {
            State::Length(left) => left,
            State::Chunked(Chunk::Data) => self.chunk_left,
            _ => 0,
        }
    }

    fn strip_chunks(&mut self, mut chunk: Chunk, bytes: &mut [u8]) -> Result<Stripped, BodyError> {
        let mut payload = 0..0;
        let mut at = 0;
        while chunk != Chunk::Done {
            if chunk == Chunk::Data {
                let taken = usize::try_from(self.chunk_left).unwrap_or(usize::MAX).min(bytes.len() - at);
                if payload.is_empty() {
                    payload = at..at + taken;
                } else {
                    bytes.copy_within(at..at + taken, payload.end);
                    payload.end += taken;
                }
                at += taken;
                self.chunk_left -= taken as u64;
                if self.chunk_left > 0 {
                    break;
                }
                chunk = Chunk::DataCr;
            }
            let Some(byte) = bytes.get(at) else { break };
            chunk = self.step(chunk, *byte)?;
            at += 1;
            if chunk == Chunk::SizeLf || chunk == Chunk::Data {
                let ahead = self.payload_bytes + payload.len() as u64 + EXTENSION_BYTES_MAX;
                if self.extension_bytes > ahead {
                    return Err(BodyError::TooLong(
                        "the chunk extensions are longer than the body (RFC 9112 section 7.1.1)",
                    ));
                }
            }
        }
        self.state = if chunk == Chunk::Done { State::Done } else { State::Chunked(chunk) };
        Ok(Stripped { payload, consumed: at })
    }

    /// One byte of framing.
    fn step(&mut self, chunk: Chunk, byte: u8) -> Result<Chunk, BodyError> {
        match chunk {
            Chunk::Size | Chunk::SizeGap | Chunk::Extension | Chunk::SizeLf => self.size_line(chunk, byte),
            Chunk::DataCr if byte == b'\r' => Ok(Chunk::DataLf),
            Chunk::DataLf if byte == b'\n' => Ok(Chunk::Size),
            Chunk::Data | Chunk::DataCr | Chunk::DataLf => {
                Err(BodyError::Malformed("a chunk's data is not followed by CRLF (RFC 9112 section 7.1)"))
            }
            _ => self.trailer(chunk, byte),
        }
    }

    /// `chunk-size [ chunk-ext ] CRLF` (RFC 9112 section 7.1). White space is taken only before a semicolon, where the
    /// grammar has it.
    fn size_line(&mut self, chunk: Chunk, byte: u8) -> Result<Chunk, BodyError> {
        const SIZE: BodyError =
            BodyError::Malformed("a chunk size is not 1 to 16 hexadecimal digits (RFC 9112 section 7.1)");
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(BodyError::TooLong("a chunk-size line is over its bound (RFC 9112 section 7.1.1)"));
        }
        match (chunk, byte) {
            (Chunk::Size, b'\r') if self.size_digits > 0 => Ok(Chunk::SizeLf),
            (Chunk::Size | Chunk::SizeGap, b';') if self.size_digits > 0 => Ok(Chunk::Extension),
            (Chunk::Size | Chunk::SizeGap, b' ' | b'\t') if self.size_digits > 0 => Ok(Chunk::SizeGap),
            (Chunk::Size, _) => {
                let digit = (byte as char).to_digit(16).ok_or(SIZE)?;
                self.size_digits += 1;
                self.chunk_left = (self.chunk_left << 4) | u64::from(digit);
                if self.size_digits > SIZE_DIGITS_MAX || self.chunk_left > CHUNK_BYTES_MAX {
                    return Err(SIZE);
                }
                Ok(Chunk::Size)
            }
            (Chunk::Extension, b'\r') => Ok(Chunk::SizeLf),
            (Chunk::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_bytes += 1;
                Ok(Chunk::Extension)
            }
            (Chunk::SizeLf, b'\n') => {
                self.size_digits = 0;
                self.line_bytes = 0;
                Ok(if self.chunk_left == 0 { Chunk::TrailerStart } else { Chunk::Data })
            }
            (Chunk::SizeGap, _) => Err(SIZE),
            (Chunk::Extension, _) => {
                Err(BodyError::Malformed("a chunk extension has a control byte (RFC 9112 section 7.1.1)"))
            }
            _ => Err(BodyError::Malformed("a chunk-size line does not end with CRLF (RFC 9112 section 7.1)")),
        }
    }

    /// The trailer section (RFC 9112 section 7.1.2), by the same rules as fields in a head.
    fn trailer(&mut self, chunk: Chunk, byte: u8) -> Result<Chunk, BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX || self.trailers > FIELDS_MAX {
            return Err(BodyError::TooLong("the trailer section is over its bound (RFC 9112 section 7.1.2)"));
        }
        match (chunk, byte) {
            (Chunk::TrailerStart, b'\r') => Ok(Chunk::EndLf),
            (Chunk::TrailerStart, _) if is_name_byte(byte) => {
                self.trailers += 1;
                Ok(Chunk::TrailerName)
            }
            (Chunk::TrailerName, _) if is_name_byte(byte) => Ok(Chunk::TrailerName),
            (Chunk::TrailerName, b':') | (Chunk::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(Chunk::TrailerValue),
            (Chunk::TrailerValue, b'\r') => Ok(Chunk::TrailerLf),
            (Chunk::TrailerLf, b'\n') => Ok(Chunk::TrailerStart),
            (Chunk::EndLf, b'\n') => Ok(Chunk::Done),
            _ => Err(BodyError::Malformed("the trailer section is not a list of field lines (RFC 9112 section 7.1.2)")),
        }
    }
}

/// A chunk-size line: hexadecimal digits and CRLF, to be put before a chunk's data.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkHead {
    /// The line, at most 18 bytes; 10 for what fits in a segment.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start as usize..).unwrap_or_default()
    }
}

/// The size line of a chunk of `len` bytes. A chunk of no bytes would end the body, so its line is empty: write
/// nothing for it, and `LAST_CHUNK` at the end.
pub fn chunk_head(len: usize) -> ChunkHead {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut head = ChunkHead { bytes: [b'\r'; 18], start: 18 };
    if len == 0 {
        return head;
    }
    head.bytes[17] = b'\n';
    head.start = 16;
    let mut rest = len as u64;
    while rest > 0 {
        head.start -= 1;
        head.bytes[head.start as usize] = DIGITS[(rest & 15) as usize];
        rest >>= 4;
    }
    head
}

#[cfg(test)]
mod tests;
