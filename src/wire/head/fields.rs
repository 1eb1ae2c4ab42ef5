//! The field section that requests and answers share: its lines, its names and values, and the fields that frame the
//! message and govern the connection.

use super::{Field, Framing, HeadError, Part, Version};
use crate::base::bounds::FIELDS_MAX;
use memchr::{memchr_iter, memchr2};

/// Options that all `Connection` fields of one head may list, so that `is_hop_by_hop` stays cheap.
const CONNECTION_OPTIONS_MAX: usize = 32;
/// Digits of a Content-Length: more than any body here may have, and far from overflow.
const LENGTH_DIGITS_MAX: usize = 18;

const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether `byte` may stand in a method, a field name or a connection option (`tchar`, RFC 9110 section 5.6.2).
pub const fn is_name_byte(byte: u8) -> bool {
    NAME_BYTES[byte as usize]
}

/// Finds line ends in a buffer that grows, looking at every byte once. Only CRLF ends a line; RFC 9112 section 2.2
/// would let a server take a bare LF, but then two servers in a row may disagree on where the head ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    looked: usize,
    start: usize,
}

impl Lines {
    /// The next whole line without its CRLF, or `None` until more bytes are there.
    pub(super) fn next(&mut self, buf: &[u8]) -> Result<Option<Part>, HeadError> {
        let Some(found) = buf.get(self.looked..).and_then(|new| memchr2(b'\r', b'\n', new)) else {
            self.looked = self.looked.max(buf.len());
            return Ok(None);
        };
        let at = self.looked + found;
        if buf.get(at) == Some(&b'\n') {
            return Err(HeadError::Malformed("a line ends with LF alone (RFC 9112 section 2.2)"));
        }
        match buf.get(at + 1) {
            Some(b'\n') => {
                let line = Part::new(self.start, at);
                self.start = at + 2;
                self.looked = at + 2;
                Ok(Some(line))
            }
            Some(_) => Err(HeadError::Malformed("a CR stands without its LF (RFC 9112 section 2.2)")),
            None => {
                self.looked = at;
                Ok(None)
            }
        }
    }

    /// Offset behind the last line that `next` gave.
    pub(super) fn consumed(&self) -> usize {
        self.start
    }
}

/// Puts the fields of `buf[from..to]`, a section of `count` lines and its empty last line, into `out`.
pub(super) fn tokenise(
    buf: &[u8],
    from: usize,
    to: usize,
    count: usize,
    out: &mut Vec<Field>,
) -> Result<(), HeadError> {
    // httparse wants its headers initialised; most heads are content with the small array.
    if count <= 32 {
        tokenise_up_to::<32>(buf, from, to, count, out)
    } else {
        tokenise_up_to::<FIELDS_MAX>(buf, from, to, count, out)
    }
}

fn tokenise_up_to<const N: usize>(
    buf: &[u8],
    from: usize,
    to: usize,
    count: usize,
    out: &mut Vec<Field>,
) -> Result<(), HeadError> {
    let mut room = [httparse::EMPTY_HEADER; N];
    let section = buf.get(from..to).unwrap_or_default();
    let fields = match httparse::parse_headers(section, &mut room) {
        // Both readings of the section, ours by lines and this one, must be the same.
        Ok(httparse::Status::Complete((n, fields))) if n == section.len() && fields.len() == count => fields,
        Ok(_) => return Err(HeadError::Malformed("the head does not end where its lines end (RFC 9112 section 2.1)")),
        Err(httparse::Error::HeaderValue) => {
            return Err(HeadError::Malformed("a field value has a control byte (RFC 9110 section 5.5)"));
        }
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
        Err(_) => {
            return Err(HeadError::Malformed(
                "a field name is empty, has a space or another byte that no name has, lacks its colon, or is a folded line (RFC 9112 sections 5.1, 5.2)",
            ));
        }
    };
    out.clear();
    out.extend(
        fields.iter().map(|field| Field {
            name: Part::within(buf, field.name.as_bytes()),
            value: Part::within(buf, field.value),
        }),
    );
    Ok(())
}

/// What the fields say about framing and the connection.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub(super) struct Facts {
    pub length: Option<u64>,
    pub chunked: bool,
    pub host: Option<Part>,
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade_option: bool,
    pub upgrade_field: bool,
    pub expect_continue: bool,
    /// What the `Connection` fields name, but for `close` and `keep-alive`.
    named: Vec<Part>,
}

impl Facts {
    pub fn reset(&mut self) {
        let mut named = std::mem::take(&mut self.named);
        named.clear();
        *self = Facts { named, ..Facts::default() };
    }

    /// Takes in every field; refuses what would frame the message in two ways.
    pub fn gather(&mut self, buf: &[u8], fields: &[Field], version: Version) -> Result<(), HeadError> {
        for field in fields {
            let (name, value) = (field.name.of(buf), field.value.of(buf));
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => self.take_host(field.value)?,
                6 if name.eq_ignore_ascii_case(b"expect") => self.take_expect(value)?,
                7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade_field |= !value.is_empty(),
                10 if name.eq_ignore_ascii_case(b"connection") => self.take_connection(buf, value)?,
                14 if is_named(name, b"content-length") => self.take_length(name, value)?,
                17 if is_named(name, b"transfer-encoding") => self.take_coding(name, value)?,
                _ => {}
            }
        }
        if self.chunked && self.length.is_some() {
            return Err(HeadError::Malformed(
                "Transfer-Encoding and Content-Length came together (RFC 9112 section 6.1)",
            ));
        }
        if self.chunked && version == Version::Http10 {
            return Err(HeadError::Malformed("Transfer-Encoding came with HTTP/1.0 (RFC 9112 section 6.1)"));
        }
        Ok(())
    }

    /// The framing that the fields ask for, if they do.
    pub fn framing(&self) -> Option<Framing> {
        if self.chunked { Some(Framing::Chunked) } else { self.length.map(Framing::Length) }
    }

    /// Whether the connection outlives the message (RFC 9112 section 9.3).
    pub fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    fn take_host(&mut self, value: Part) -> Result<(), HeadError> {
        match self.host.replace(value) {
            None => Ok(()),
            Some(_) => Err(HeadError::Malformed("more than one Host (RFC 9112 section 3.2)")),
        }
    }

    fn take_expect(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.expect_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HeadError::Expectation);
        }
        self.expect_continue = true;
        Ok(())
    }

    fn take_length(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        refuse_underscore(name)?;
        if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || !value.iter().all(u8::is_ascii_digit) {
            return Err(HeadError::Malformed(
                "Content-Length is not one number of 1 to 18 digits (RFC 9110 section 8.6)",
            ));
        }
        let length = value.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(HeadError::Malformed("more than one Content-Length (RFC 9112 section 6.3)")),
        }
    }

    fn take_coding(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        refuse_underscore(name)?;
        if self.chunked {
            return Err(HeadError::Malformed("more than one Transfer-Encoding (RFC 9112 section 6.1)"));
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            self.chunked = true;
            return Ok(());
        }
        // A list that ends in `chunked` frames the body, but in a coding that is not known here: 501 (section 6.1).
        // Any other value leaves the body without an end: 400 (section 6.3, rule 4).
        let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).rev();
        let framed = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        let known = |coding: &[u8]| {
            !coding.is_empty() && coding.iter().copied().all(is_name_byte) && !coding.eq_ignore_ascii_case(b"chunked")
        };
        if framed && codings.all(known) {
            return Err(HeadError::Coding);
        }
        Err(HeadError::Malformed("Transfer-Encoding is not exactly `chunked` (RFC 9112 sections 6.1, 6.3)"))
    }

    fn take_connection(&mut self, buf: &[u8], value: &[u8]) -> Result<(), HeadError> {
        if memchr_iter(b',', value).count() > CONNECTION_OPTIONS_MAX {
            return Err(HeadError::TooManyFields);
        }
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if option.is_empty() {
                continue; // RFC 9110 section 5.6.1.2: empty members of a list are passed over
            }
            if !option.iter().copied().all(is_name_byte) {
                return Err(HeadError::Malformed(
                    "Connection lists something that is no option (RFC 9110 section 7.6.1)",
                ));
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                self.upgrade_option |= option.eq_ignore_ascii_case(b"upgrade");
                if self.named.len() == CONNECTION_OPTIONS_MAX {
                    return Err(HeadError::TooManyFields);
                }
                self.named.push(Part::within(buf, option));
            }
        }
        Ok(())
    }

    /// Whether the field of this name ends at this hop.
    pub fn is_hop_by_hop(&self, buf: &[u8], name: &[u8]) -> bool {
        always_ends_here(name)
            || (!self.named.is_empty()
                && !never_ends_here(name)
                && self.named.iter().any(|named| named.of(buf).eq_ignore_ascii_case(name)))
    }
}

/// Compares a name with a lower-case one, taking `_` for `-`.
fn is_named(name: &[u8], lower: &[u8]) -> bool {
    name.len() == lower.len()
        && name
            .iter()
            .zip(lower)
            .all(|(byte, want)| byte.to_ascii_lowercase() == *want || (*byte == b'_' && *want == b'-'))
}

/// `Content_Length` is a field that means nothing, until a server that maps names to variables takes it for the real
/// one. Nobody sends it in good faith.
fn refuse_underscore(name: &[u8]) -> Result<(), HeadError> {
    if name.contains(&b'_') {
        return Err(HeadError::Malformed("a framing field is spelled with an underscore (RFC 9112 section 11.2)"));
    }
    Ok(())
}

/// Fields that concern one connection only, whether or not `Connection` names them (RFC 9110 section 7.6.1).
fn always_ends_here(name: &[u8]) -> bool {
    const FIXED: [&[u8]; 7] =
        [b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"];
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"proxy")) && matches!(name.get(5), None | Some(b'-'))
        || FIXED.iter().any(|fixed| fixed.eq_ignore_ascii_case(name))
}

/// Fields that `Connection` cannot take away. They are meant for every recipient, so naming them breaks RFC 9110
/// section 7.6.1, and it is how an attacker has a proxy drop the credential or the framing that it has just set. The
/// option is passed over, the request is served.
fn never_ends_here(name: &[u8]) -> bool {
    const KEPT: [&[u8]; 14] = [
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"anthropic-version",
        b"anthropic-beta",
        b"accept-encoding",
        b"cache-control",
        b"expect",
        b"date",
    ];
    KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name))
}
