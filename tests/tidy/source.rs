//! A source file as the rules see it: its text, and its code with comments, strings and characters blanked, so that a
//! rule about names does not stumble over prose. Not a parser; it knows as much Rust as telling these apart takes.

use std::ops::Range;

/// One file.
pub struct Source {
    /// Relative to `src/`, with `/`.
    pub path: String,
    /// As written.
    pub text: String,
    /// The same length and lines, with all but code blanked.
    pub code: String,
    /// What is compiled for tests only.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub fn new(path: &str, text: &str) -> Source {
        let code = blanked(text);
        let whole = path.ends_with("/tests.rs") || path.contains("/tests/");
        let tests = if whole { std::iter::once(0..code.len()).collect() } else { test_modules(&code) };
        Source { path: path.to_owned(), text: text.to_owned(), code, tests }
    }

    /// The top-level module that the file belongs to.
    pub fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// How many modules down from the crate's root the code at `at` is.
    pub fn depth(&self, at: usize) -> usize {
        let folders = self.path.matches('/').count();
        let file = usize::from(!self.path.ends_with("/mod.rs"));
        folders + file + usize::from(self.is_test(at) && !self.path.ends_with("tests.rs"))
    }

    /// Whether the code at `at` is compiled for tests only.
    pub fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// The line of `at`, counted from 1.
    pub fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// Every identifier and keyword in the code, with its place.
    pub fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        words(&self.code)
    }

    /// Where `needle` stands in the code as whole words.
    pub fn find<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(needle).map(|(at, _)| at).filter(move |at| {
            let before = self.code[..*at].chars().next_back();
            let after = self.code[at + needle.len()..].chars().next();
            !(before.is_some_and(is_word) || needle.ends_with(is_word) && after.is_some_and(is_word))
        })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every identifier, keyword and number in `code`, with its place.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].find(is_word)?;
        let start = at;
        at += code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at);
        Some((start, &code[start..at]))
    })
}

/// The first word at or after `at`.
pub fn word_at(code: &str, at: usize) -> &str {
    words(&code[at..]).next().map_or("", |(_, word)| word)
}

/// The place of the bracket that closes the one at `open`.
pub fn close(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// The bodies of `#[cfg(test)] mod name { ... }`, and single items behind `#[cfg(test)]` with a body.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let ends = code[at..].find(['{', ';']).map(|n| at + n);
        if let Some(open) = ends.filter(|open| code.as_bytes()[*open] == b'{') {
            found.push(at..close(code, open) + 1);
        }
    }
    found
}

/// `text` with comments, strings and characters replaced by blanks, line breaks kept.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(text, at);
        match end {
            Some(end) => {
                for byte in &mut out[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
            }
            None if is_word(bytes[at] as char) => {
                while at < bytes.len() && is_word(bytes[at] as char) {
                    at += 1;
                }
            }
            None => at += 1,
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The end of the comment, string or character that begins at `at`, if one does.
fn literal_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text.as_bytes()[at..];
    let until = |needle: &str, from: usize| text[at + from..].find(needle).map_or(text.len(), |n| at + from + n);
    match rest {
        [b'/', b'/', ..] => Some(until("\n", 0)),
        [b'/', b'*', ..] => Some(block_end(text, at)),
        [b'"', ..] => Some(quoted_end(text, at, b'"')),
        [b'b' | b'c', b'"', ..] => Some(quoted_end(text, at + 1, b'"')),
        [b'b', b'\'', ..] => Some(quoted_end(text, at + 1, b'\'')),
        [b'\'', b'\\', ..] => Some(quoted_end(text, at, b'\'')),
        [b'\'', ..] => {
            // A character is closed right after it; a lifetime is not.
            let width = text[at + 1..].chars().next()?.len_utf8();
            (rest.get(1 + width) == Some(&b'\'')).then_some(at + width + 2)
        }
        [b'r', b'"' | b'#', ..] | [b'b' | b'c', b'r', b'"' | b'#', ..] => {
            let from = if rest[0] == b'r' { 1 } else { 2 };
            let hashes = rest[from..].iter().take_while(|b| **b == b'#').count();
            let open = from + hashes;
            if rest.get(open) != Some(&b'"') {
                return None; // a raw identifier
            }
            let closing = format!("\"{}", "#".repeat(hashes));
            Some((until(&closing, open + 1) + closing.len()).min(text.len()))
        }
        _ => None,
    }
}

fn quoted_end(text: &str, open: usize, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(open + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b if b == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn block_end(text: &str, at: usize) -> usize {
    let (mut depth, mut here) = (0, at);
    while here < text.len() {
        match &text.as_bytes()[here..] {
            [b'/', b'*', ..] => (depth, here) = (depth + 1, here + 2),
            [b'*', b'/', ..] => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            return here;
        }
    }
    text.len()
}
