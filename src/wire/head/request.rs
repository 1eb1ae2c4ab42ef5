//! The head of a request.

use super::fields::{Facts, Lines, is_name_byte, tokenise};
use super::{Field, Framing, HeadError, Part, Version, version};
use crate::base::bounds::{FIELDS_MAX, HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX};
use memchr::{memchr, memchr2_iter};

/// No method that anybody serves is longer.
const METHOD_BYTES_MAX: usize = 32;

/// A request's head, found in the bytes of a connection. One value serves a whole connection: `reset` keeps its room.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub struct RequestHead {
    /// The method as it was written; methods are case-sensitive.
    pub method: Part,
    /// The target as it was written; `path` and `query` read it.
    pub target: Part,
    /// The version of the request line.
    pub version: Version,
    /// The fields, in order, with duplicates.
    pub fields: Vec<Field>,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the client means to send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub expect_continue: bool,
    /// Whether the client asks for another protocol. It may be refused, or passed over (RFC 9110 section 7.8).
    pub upgrade: bool,
    path: Part,
    query: Option<Part>,
    authority: Part,
    lines: Lines,
    skipped: bool,
    fields_at: usize,
    count: usize,
    facts: Facts,
}

impl RequestHead {
    /// A head that has seen no byte.
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// Forgets the request, keeps the room: to be called before the next head's bytes.
    pub fn reset(&mut self) {
        let (mut fields, mut facts) = (std::mem::take(&mut self.fields), std::mem::take(&mut self.facts));
        fields.clear();
        facts.reset();
        *self = RequestHead { fields, facts, ..RequestHead::default() };
    }

    /// Looks for the head in `buf`, which holds every byte received of it so far; only new bytes are looked at.
    /// `Some(n)`: complete, and `n` bytes long; what follows is body, or the next request.
    ///
    /// One empty line before the request line is passed over (RFC 9112 section 2.2); a second one is refused.
    pub fn parse(&mut self, buf: &[u8]) -> Result<Option<usize>, HeadError> {
        let window = buf.get(..HEAD_BYTES_MAX).unwrap_or(buf);
        if self.fields_at == 0 && !self.find_request_line(window)? {
            return Ok(None);
        }
        while let Some(line) = self.lines.next(window)? {
            if line.is_empty() {
                let end = self.lines.consumed();
                self.complete(window, end)?;
                return Ok(Some(end));
            }
            self.count += 1;
            if self.count > FIELDS_MAX {
                return Err(HeadError::TooManyFields);
            }
        }
        if buf.len() >= HEAD_BYTES_MAX { Err(HeadError::TooLarge) } else { Ok(None) }
    }

    /// True once the request line is there and well-formed. What cannot become one is refused as soon as it shows, so
    /// that a stranger's TLS or HTTP/2 gets its answer at once.
    fn find_request_line(&mut self, buf: &[u8]) -> Result<bool, HeadError> {
        if !self.skipped {
            match buf {
                [] | [b'\r'] => return Ok(false),
                [b'\r', b'\n', ..] => {
                    self.lines.next(buf)?;
                }
                _ => {}
            }
            self.skipped = true;
        }
        let start = self.lines.consumed();
        let line_max = buf.get(..start + REQUEST_LINE_BYTES_MAX).unwrap_or(buf);
        check_method(line_max.get(start..).unwrap_or_default())?;
        match self.lines.next(line_max)? {
            Some(line) => {
                self.read_request_line(buf, line)?;
                self.fields_at = self.lines.consumed();
                Ok(true)
            }
            None if line_max.len() - start >= REQUEST_LINE_BYTES_MAX => Err(HeadError::TargetTooLong),
            None => Ok(false),
        }
    }

    fn read_request_line(&mut self, buf: &[u8], line: Part) -> Result<(), HeadError> {
        const SHAPE: HeadError = HeadError::Malformed(
            "the request line is not `METHOD target HTTP/1.1` with single spaces (RFC 9112 section 3)",
        );
        let bytes = line.of(buf);
        let mut parts = bytes.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(last), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SHAPE);
        };
        if method.is_empty() || target.is_empty() || last.is_empty() {
            return Err(SHAPE);
        }
        self.version = version(last)?;
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(HeadError::Method);
        }
        self.method = Part::within(buf, method);
        self.target = Part::within(buf, target);
        self.read_target(buf)
    }

    /// Splits the target into authority, path and query (RFC 9112 section 3.2). Origin form and absolute form only.
    fn read_target(&mut self, buf: &[u8]) -> Result<(), HeadError> {
        let target = self.target.of(buf);
        if !target.iter().all(u8::is_ascii_graphic) || memchr(b'#', target).is_some() {
            return Err(HeadError::Malformed(
                "the target has a fragment or a byte that is not visible ASCII (RFC 9112 section 3.2)",
            ));
        }
        let rest = match absolute(target) {
            Some(after_scheme) => {
                let end = memchr2_iter(b'/', b'?', after_scheme).next().unwrap_or(after_scheme.len());
                let (authority, rest) = after_scheme.split_at(end);
                if !is_authority(authority) {
                    return Err(HeadError::Malformed("the target names no valid host (RFC 9110 section 4.2)"));
                }
                self.authority = Part::within(buf, authority);
                rest
            }
            None => target,
        };
        let (path, query) = match memchr(b'?', rest) {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
            None => (rest, None),
        };
        let bare_authority = rest.is_empty() && !self.authority.is_empty();
        if path.first() != Some(&b'/') && !bare_authority {
            return Err(HeadError::Malformed(
                "the target is neither a path nor an http or https URI with one (RFC 9112 section 3.2)",
            ));
        }
        if !is_path(path) || query.is_some_and(|query| query.iter().any(|byte| matches!(byte, b'"' | b'<' | b'>'))) {
            return Err(HeadError::Malformed(
                "the target has a byte that no URI has, or a broken percent-encoding (RFC 3986 section 2)",
            ));
        }
        self.path = Part::within(buf, path);
        self.query = query.map(|query| Part::within(buf, query));
        Ok(())
    }

    fn complete(&mut self, buf: &[u8], end: usize) -> Result<(), HeadError> {
        tokenise(buf, self.fields_at, end, self.count, &mut self.fields)?;
        self.facts.gather(buf, &self.fields, self.version)?;
        match self.facts.host {
            Some(host) if !is_authority(host.of(buf)) => {
                return Err(HeadError::Malformed("Host is not a host with an optional port (RFC 9112 section 3.2)"));
            }
            None if self.version == Version::Http11 => {
                return Err(HeadError::Malformed("Host is missing (RFC 9112 section 3.2)"));
            }
            _ => {}
        }
        self.framing = self.facts.framing().unwrap_or(Framing::None);
        self.keep_alive = self.facts.persists(self.version);
        // Both are passed over on HTTP/1.0 (RFC 9110 sections 10.1.1, 7.8).
        let modern = self.version == Version::Http11;
        self.expect_continue =
            modern && self.facts.expect_continue && !matches!(self.framing, Framing::None | Framing::Length(0));
        self.upgrade = modern && self.facts.upgrade_field && self.facts.upgrade_option;
        Ok(())
    }

    /// The path, with its leading slash and without the query. Of an absolute target (`http://host/path`) it is the
    /// path alone; `/` if that is empty. Percent-encoding is left as it is.
    pub fn path<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        match self.path.of(buf) {
            [] => b"/",
            path => path,
        }
    }

    /// What follows the first `?`, if there is one.
    pub fn query<'a>(&self, buf: &'a [u8]) -> Option<&'a [u8]> {
        self.query.map(|query| query.of(buf))
    }

    /// Path and query as one, as they stand in the target.
    pub fn path_and_query<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        match (self.path.is_empty(), self.query) {
            (true, _) => b"/",
            (false, None) => self.path.of(buf),
            (false, Some(query)) => Part { start: self.path.start, end: query.end }.of(buf),
        }
    }

    /// Host and port that the request is meant for: the absolute target's own, which overrides `Host` (RFC 9112
    /// section 3.2.2), else `Host`. Empty only on HTTP/1.0.
    pub fn host<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        if self.authority.is_empty() { self.facts.host.unwrap_or_default().of(buf) } else { self.authority.of(buf) }
    }

    /// The first field of that name, compared without case.
    pub fn field<'a>(&self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        super::first_named(&self.fields, buf, name)
    }

    /// Whether the field ends at this hop: one of the fixed set (`Connection`, `Keep-Alive`, `Proxy-*`, `TE`,
    /// `Trailer`, `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings`), or named by `Connection`. Fields that are meant
    /// for every recipient, such as `Host`, `Content-Length` and credentials, are never reported, whoever names them.
    pub fn is_hop_by_hop(&self, buf: &[u8], field: &Field) -> bool {
        self.facts.is_hop_by_hop(buf, field.name.of(buf))
    }
}

/// Refuses bytes that do not begin with a method and a space, as soon as that shows.
fn check_method(line: &[u8]) -> Result<(), HeadError> {
    let start = line.get(..METHOD_BYTES_MAX + 1).unwrap_or(line);
    match start.iter().position(|byte| !is_name_byte(*byte)) {
        Some(0) => Err(HeadError::Malformed("the request does not begin with a method (RFC 9112 section 3.1)")),
        Some(at) if start.get(at) != Some(&b' ') => {
            Err(HeadError::Malformed("the method has a byte that no method has (RFC 9110 section 9.1)"))
        }
        None if start.len() > METHOD_BYTES_MAX => {
            Err(HeadError::Malformed("the method is over 32 bytes (RFC 9112 section 3)"))
        }
        _ => Ok(()),
    }
}

/// What follows `http://` or `https://`, in any case.
fn absolute(target: &[u8]) -> Option<&[u8]> {
    [b"http://".as_slice(), b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// `uri-host [ ":" port ]` with a host that is not empty (RFC 9110 section 7.2; user information is refused, 4.2.4).
fn is_authority(bytes: &[u8]) -> bool {
    let (host_ok, port) = if let Some(rest) = bytes.strip_prefix(b"[") {
        let Some(end) = memchr(b']', rest) else { return false };
        let (inner, after) = rest.split_at(end);
        let literal = str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        (literal, after.get(1..).unwrap_or_default())
    } else {
        let (host, port) = bytes.split_at(memchr(b':', bytes).unwrap_or(bytes.len()));
        (!host.is_empty() && is_uri_text(host, b""), port)
    };
    host_ok
        && match port {
            [] | [b':'] => true,
            [b':', digits @ ..] => {
                digits.len() <= 5
                    && digits.iter().all(u8::is_ascii_digit)
                    && digits.iter().fold(0, |sum: u32, digit| sum * 10 + u32::from(digit - b'0')) <= 65_535
            }
            _ => false,
        }
}

/// `*( "/" / pchar )` (RFC 3986 section 3.3).
fn is_path(bytes: &[u8]) -> bool {
    is_uri_text(bytes, b"/:@")
}

/// Unreserved bytes, sub-delimiters, whole percent-encodings, and `more`.
fn is_uri_text(bytes: &[u8], more: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            [byte, after @ ..]
                if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) || more.contains(byte) =>
            {
                after
            }
            _ => return false,
        };
    }
}
