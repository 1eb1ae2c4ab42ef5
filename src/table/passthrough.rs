//! Paths that are closed unless a team or a key opens them: what they reach (files, batches) is shared by everyone
//! behind one provider credential.

use crate::base::CallerSlot;

use super::Table;

/// Never open: it reads and changes the provider account itself.
const CLOSED: &str = "/v1/organizations";

impl Table {
    /// Whether `path`, without its query, is under a prefix that the caller's key or team opens. Whole segments are
    /// compared; a path that could be read in two ways is refused.
    pub fn passthrough_allows(&self, caller: CallerSlot, path: &[u8]) -> bool {
        is_plain(path) && !under_ignoring_case(path, CLOSED) && self.prefixes(caller).any(|open| under(path, open))
    }
}

/// Why a prefix cannot be opened; `None` when it can.
pub fn prefix_fault(prefix: &str) -> Option<&'static str> {
    let bytes = prefix.as_bytes();
    match () {
        () if !bytes.starts_with(b"/v1/") || bytes.len() == 4 => Some("is not a path below `/v1/`"),
        () if bytes.ends_with(b"/") => Some("ends with `/`"),
        () if !is_plain(bytes) => Some("is not a plain path: no `*`, `%`, `?`, `..` or empty segment"),
        () if under_ignoring_case(bytes, CLOSED) => Some("manages the provider account and is never passed through"),
        () if prefix == "/v1/messages" || prefix == "/v1/models" => {
            Some("is served by forebay already; name the path below it")
        }
        () => None,
    }
}

/// A path that everyone reads alike: unreserved characters and a few more (RFC 3986 section 3.3), no escape, no empty
/// or dotted segment. A final `/` is allowed.
fn is_plain(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    rest.split(|b| *b == b'/').all(|segment| {
        !segment.is_empty()
            && segment != b"."
            && segment != b".."
            && segment.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:@!$&'()+,=".contains(b))
    })
}

fn under(path: &[u8], prefix: &str) -> bool {
    path.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn under_ignoring_case(path: &[u8], prefix: &str) -> bool {
    path.split_at_checked(prefix.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(prefix.as_bytes()) && (rest.is_empty() || rest.starts_with(b"/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_below_v1_and_plain() {
        for good in ["/v1/files", "/v1/messages/batches", "/v1/skills"] {
            assert_eq!(prefix_fault(good), None, "{good}");
        }
        for bad in ["", "/", "/v1", "/v1/", "/v1/files/", "/v1/*", "/v2/files", "/v1/a/../b", "/v1//a", "/v1/%66iles"] {
            assert!(prefix_fault(bad).is_some(), "{bad}");
        }
        assert!(prefix_fault("/v1/organizations").is_some());
        assert!(prefix_fault("/v1/Organizations/users").is_some());
        assert!(prefix_fault("/v1/messages").is_some());
        assert_eq!(prefix_fault("/v1/organizations2"), None);
    }
}
