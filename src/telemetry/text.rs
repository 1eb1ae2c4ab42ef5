//! A short text kept inline, so that a record needs no allocation and a log line cannot be forged by what it quotes.

use std::fmt;

/// What takes the place of a character that is not kept.
const SUBSTITUTE: u8 = b'?';

/// At most `N` bytes of UTF-8 (`N` <= 255). Longer input is cut at a character's border. Control characters, line and
/// direction marks, and bytes that are not UTF-8 become `?`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    const FITS: () = assert!(N <= u8::MAX as usize, "the length is one byte");

    /// Nothing.
    pub const EMPTY: Text<N> = Text { len: 0, bytes: [0; N] };

    /// What of `bytes` can be kept.
    pub fn new(bytes: &[u8]) -> Text<N> {
        let () = Self::FITS;
        let mut text = Self::EMPTY;
        // A few bytes more than can be kept, so that a character cut by this line is not taken for a broken one.
        let near = &bytes[..bytes.len().min(N + 4)];
        for chunk in near.utf8_chunks() {
            for char in chunk.valid().chars() {
                let mut utf8 = [0; 4];
                let kept = if is_kept(char) { char.encode_utf8(&mut utf8).as_bytes() } else { &[SUBSTITUTE] };
                if !text.append(kept) {
                    return text;
                }
            }
            if !chunk.invalid().is_empty() && !text.append(&[SUBSTITUTE]) {
                return text;
            }
        }
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let live = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(live).unwrap_or_default()
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends all of `piece`, or nothing and says `false`.
    fn append(&mut self, piece: &[u8]) -> bool {
        let at = usize::from(self.len);
        let Some(room) = self.bytes.get_mut(at..at + piece.len()) else { return false };
        room.copy_from_slice(piece);
        self.len += piece.len() as u8;
        true
    }
}

/// Neither a control character (they move cursors and end lines) nor one that ends a line or turns the writing
/// direction (they make a line read as another).
fn is_kept(char: char) -> bool {
    !char.is_control() && !matches!(char, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Text<N> {
        Text::EMPTY
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Text<N> {
        Text::new(text.as_bytes())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cuts_at_a_character() {
        assert_eq!(Text::<4>::new(b"abcdef").as_str(), "abcd");
        assert_eq!(Text::<4>::from("abcé").as_str(), "abc");
        assert_eq!(Text::<5>::from("abcé").as_str(), "abcé");
        assert!(Text::<0>::new(b"x").is_empty());
    }

    #[test]
    fn cannot_forge_a_line() {
        assert_eq!(Text::<32>::new(b"a\r\nb\x1b[31m\x00\x7f").as_str(), "a??b?[31m??");
        assert_eq!(Text::<32>::from("c\u{85}d\u{2028}e\u{202e}f").as_str(), "c?d?e?f");
        assert_eq!(Text::<32>::new(b"g\xff\xc3h").as_str(), "g??h");
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_printable_text_within_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = Text::<16>::new(&bytes);
            prop_assert!(text.as_str().len() <= 16);
            prop_assert_eq!(text.as_str().len(), usize::from(text.len), "the kept bytes are UTF-8");
            prop_assert!(!text.as_str().chars().any(char::is_control));
        }

        #[test]
        fn plain_text_that_fits_is_kept_whole(plain in "[ -~]{0,16}") {
            let text = Text::<16>::from(plain.as_str());
            prop_assert_eq!(text.as_str(), plain);
        }
    }
}
