//! Heads of HTTP/1.1 messages by offsets into the buffer that they arrived in: tokenised by `httparse`, held to
//! RFC 9112 by the rules beside it. Strict in both directions: what two readers could read in two ways is refused.
//!
//! Not here: bodies (`wire::body`), and which fields are passed on, which is `serve`'s table of edits.

mod answer;
mod fields;
mod request;
#[cfg(test)]
mod tests;

pub use answer::ResponseHead;
pub use fields::is_name_byte;
pub use request::RequestHead;

use crate::base::failure::Kind;

/// A range of a head's buffer, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Part {
    /// The range from `start` to `end`; heads are far shorter than 4 GiB (`HEAD_BYTES_MAX`).
    pub(super) const fn new(start: usize, end: usize) -> Part {
        Part { start: start as u32, end: end as u32 }
    }

    /// Where `inner` lies in `buf`; empty at 0 if it does not.
    pub(super) fn within(buf: &[u8], inner: &[u8]) -> Part {
        let start = (inner.as_ptr() as usize).wrapping_sub(buf.as_ptr() as usize);
        match start.checked_add(inner.len()) {
            Some(end) if end <= buf.len() => Part::new(start, end),
            _ => Part::default(),
        }
    }

    /// The bytes of `buf` that the part names; empty if it lies outside.
    pub fn of<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Whether it names no byte.
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The name as it was written.
    pub name: Part,
    /// The value, without the spaces and tabs around it.
    pub value: Part,
}

/// The HTTP version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// Where a message's body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// After so many bytes.
    Length(u64),
    /// At the last chunk and its trailers.
    Chunked,
    /// Where the connection ends; answers only.
    UntilClose,
}

/// Why a head was refused. Nothing behind it on the connection can be trusted: answer, and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A rule of the grammar is broken; the text names it and its section.
    #[error("{0}")]
    Malformed(&'static str),
    /// The request line is longer than `REQUEST_LINE_BYTES_MAX`.
    #[error("the request line is over {} bytes (RFC 9112 section 3)", crate::base::bounds::REQUEST_LINE_BYTES_MAX)]
    TargetTooLong,
    /// The head is longer than `HEAD_BYTES_MAX`.
    #[error("the head is over {} bytes (RFC 6585 section 5)", crate::base::bounds::HEAD_BYTES_MAX)]
    TooLarge,
    /// More fields than `FIELDS_MAX`, or more connection options than `CONNECTION_OPTIONS_MAX`.
    #[error("the head has too many fields (RFC 6585 section 5)")]
    TooManyFields,
    /// A well-formed version that is neither HTTP/1.0 nor HTTP/1.1.
    #[error("only HTTP/1.1 and HTTP/1.0 are spoken here (RFC 9110 section 15.6.6)")]
    Version,
    /// A method that is never served here, whatever the path: CONNECT and TRACE.
    #[error("CONNECT and TRACE are not served (RFC 9110 section 9.3)")]
    Method,
    /// A transfer coding beside `chunked`.
    #[error("the only transfer coding known here is chunked (RFC 9112 section 6.1)")]
    Coding,
    /// An expectation other than `100-continue`.
    #[error("the only expectation known here is 100-continue (RFC 9110 section 10.1.1)")]
    Expectation,
}

impl HeadError {
    /// The failure that a *request* with this head gets. An answer's is always `Kind::AnswerMalformed`.
    pub const fn kind(&self) -> Kind {
        match self {
            HeadError::Malformed(_) => Kind::Malformed,
            HeadError::TargetTooLong => Kind::TargetTooLong,
            HeadError::TooLarge | HeadError::TooManyFields => Kind::HeadTooLarge,
            HeadError::Version => Kind::VersionUnsupported,
            HeadError::Method => Kind::MethodNotAllowed,
            HeadError::Coding => Kind::CodingUnsupported,
            HeadError::Expectation => Kind::ExpectationFailed,
        }
    }
}

/// Reads `HTTP/1.0` or `HTTP/1.1`, case-sensitive and of exactly eight bytes (RFC 9112 section 2.3).
pub(super) fn version(bytes: &[u8]) -> Result<Version, HeadError> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(HeadError::Version)
        }
        _ => Err(HeadError::Malformed(
            "the first line does not carry an HTTP version where one belongs (RFC 9112 section 2.3)",
        )),
    }
}

/// The value of the first field of that name, compared without case.
fn first_named<'a>(fields: &[Field], buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields
        .iter()
        .find(|field| field.name.of(buf).eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.value.of(buf))
}
