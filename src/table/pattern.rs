//! A model name as a configuration writes it: exact, or a glob in which each `*` stands for any run of characters.
//! Not a path glob: no `?`, no classes, and `*` crosses every character.

use std::sync::Arc;

/// Longest pattern and longest model id that are compared, in bytes; keeps one match under 256 Ki steps.
pub const MODEL_BYTES_MAX: usize = 256;

/// An exact name or a glob.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Arc<str>,
    exact: bool,
}

impl Pattern {
    /// The pattern that `text` writes. Every text is one.
    pub fn new(text: impl Into<Arc<str>>) -> Pattern {
        let text = text.into();
        let exact = !text.contains('*');
        Pattern { text, exact }
    }

    /// As written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether it holds no `*`.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Whether `name` is, in full, one of the names that it stands for. Case counts.
    pub fn matches(&self, name: &str) -> bool {
        if self.exact { *self.text == *name } else { glob(self.text.as_bytes(), name.as_bytes()) }
    }

    /// Whether every name that `other` stands for is one of this one's too. A `*` of `other` can only be met by a `*`
    /// here, so that its text is matched like a name.
    pub fn covers(&self, other: &Pattern) -> bool {
        self.matches(&other.text)
    }

    /// What `self` and `other` both stand for, as one of the two; `None` when they surely share no name. When neither
    /// holds the other (`a*` and `*b`) it is `other`, which is then an upper bound: good for a message, not for a
    /// decision.
    pub fn meet<'a>(&'a self, other: &'a Pattern) -> Option<&'a Pattern> {
        match () {
            () if self.covers(other) => Some(other),
            () if other.covers(self) => Some(self),
            () if self.exact || other.exact => None,
            () if ends_apart(&self.text, &other.text) => None,
            () => Some(other),
        }
    }
}

/// Whether two globs differ in the literal text before their first or after their last `*`.
fn ends_apart(a: &str, b: &str) -> bool {
    let head = |s: &str| s.split('*').next().unwrap_or_default().to_owned();
    let tail = |s: &str| s.rsplit('*').next().unwrap_or_default().to_owned();
    let (ha, hb, ta, tb) = (head(a), head(b), tail(a), tail(b));
    !(ha.starts_with(&hb) || hb.starts_with(&ha)) || !(ta.ends_with(&tb) || tb.ends_with(&ta))
}

/// Greedy glob: on a mismatch the last `*` takes one byte more. At most `pattern * name` steps.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if name.get(n) == Some(byte) => {
                p += 1;
                n += 1;
            }
            _ => match back.as_mut() {
                Some((after, from)) => {
                    *from += 1;
                    (p, n) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text)
    }

    #[test]
    fn globs_match_whole_names() {
        let yes = [
            ("claude-*", "claude-"),
            ("claude-*", "claude-opus-4-6"),
            ("*", ""),
            ("*", "x"),
            ("*opus*", "claude-opus-4"),
            ("a*b*c", "aXbYbZc"),
            ("a**c", "ac"),
        ];
        for (glob, name) in yes {
            assert!(pattern(glob).matches(name), "{glob} {name}");
        }
        let no = [
            ("claude-*", "claude"),
            ("claude-*", "Claude-opus"),
            ("claude-opus", "claude-opus-4"),
            ("*opus", "opus-4"),
            ("a*b*c", "acb"),
        ];
        for (glob, name) in no {
            assert!(!pattern(glob).matches(name), "{glob} {name}");
        }
    }

    #[test]
    fn meeting_takes_the_narrower() {
        let meet = |a, b| pattern(a).meet(&pattern(b)).map(|p| p.text().to_string());
        assert_eq!(meet("claude-*", "claude-opus-*").as_deref(), Some("claude-opus-*"));
        assert_eq!(meet("claude-opus-4", "claude-*").as_deref(), Some("claude-opus-4"));
        assert_eq!(meet("claude-*", "gpt-*"), None);
        assert_eq!(meet("*-mini", "*-opus"), None);
        assert_eq!(meet("gpt-5", "claude-*"), None);
        assert_eq!(meet("claude-*", "*-opus").as_deref(), Some("*-opus"));
    }

    proptest! {
        #[test]
        fn agrees_with_a_recursive_definition(glob in "[ab*]{0,8}", name in "[ab]{0,10}") {
            fn slow(p: &[u8], n: &[u8]) -> bool {
                match (p.split_first(), n.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), None) => slow(rest, n),
                    (Some((b'*', rest)), Some((_, later))) => slow(rest, n) || slow(p, later),
                    (Some((a, rest)), Some((b, later))) => a == b && slow(rest, later),
                    _ => false,
                }
            }
            prop_assert_eq!(pattern(&glob).matches(&name), slow(glob.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn what_covers_a_pattern_matches_its_names(a in "[ab*]{0,6}", b in "[ab*]{0,6}", name in "[ab]{0,6}") {
            let (a, b) = (pattern(&a), pattern(&b));
            if a.covers(&b) && b.matches(&name) { prop_assert!(a.matches(&name)); }
            if a.matches(&name) && b.matches(&name) { prop_assert!(a.meet(&b).is_some()); }
        }
    }
}
