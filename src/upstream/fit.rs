//! What a request demands of the model that answers it, and whether a target can give it.
//!
//! How long a prompt is, is not known before a model has counted it. So the estimate is doubted in favour of whoever is
//! looked at: the first choice is passed over only when the prompt is too long by any reckoning, and a smaller window
//! takes the place of a larger one only when the prompt fits by any reckoning. A failure of the first choice then never
//! turns into a "prompt is too long" that the first choice would not have had.

use crate::table::Can;
use memchr::memmem::Finder;

/// Bytes of a body for each unit that a model counts: what is reckoned with.
pub const BYTES_USUAL: u64 = 4;
/// The same, at the least and at the most: dense code or JSON, and long plain words.
const BYTES_LEAST: u64 = 3;
const BYTES_MOST: u64 = 6;

/// What a request demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The prompt, in tokens as a model counts them: an estimate from its bytes, `BYTES_USUAL` each. Of an image, its
    /// bytes do not count.
    pub input: u64,
    /// The most that the answer may have: `max_tokens`.
    pub output_max: u64,
    /// There are images in it.
    pub images: bool,
    /// There are tools in it.
    pub tools: bool,
    /// It asks for thinking.
    pub thinking: bool,
}

/// Why a target does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It takes no images.
    Images,
    /// It calls no tools.
    Tools,
    /// It does not know the `thinking` field.
    Thinking,
    /// The prompt is longer than its window, or may be.
    Window {
        /// What the target holds.
        holds: u64,
        /// What the prompt may have.
        needs: u64,
    },
}

/// How much the first choices of a plan hold: what those after them are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One of them has a window that nobody knows.
    Unknown,
    /// The largest of their windows.
    Window(u64),
}

impl Reach {
    /// The reach of several targets.
    pub fn of(first: impl Iterator<Item = Can>) -> Reach {
        first.fold(Reach::Window(0), |reach, can| match (reach, can.window_max) {
            (Reach::Window(most), Some(window)) => Reach::Window(most.max(window)),
            _ => Reach::Unknown,
        })
    }
}

impl Demand {
    /// Why `can` does not hold it, if it does not; `reach` is what the first choices hold. What is not known of a target
    /// is taken to fit. The answer's length is left out: who asks for too long an answer is told so in words that Claude
    /// Code heals itself by (R33).
    pub fn misfit(&self, can: &Can, reach: Reach) -> Option<Misfit> {
        if self.images && !can.images {
            return Some(Misfit::Images);
        }
        if self.tools && !can.tools {
            return Some(Misfit::Tools);
        }
        if self.thinking && !can.thinking {
            return Some(Misfit::Thinking);
        }
        let holds = can.window_max?;
        let reaches = match reach {
            Reach::Unknown => false,
            Reach::Window(most) => holds >= most,
        };
        let bytes_each = if reaches { BYTES_MOST } else { BYTES_LEAST };
        let needs = self.input.saturating_mul(BYTES_USUAL) / bytes_each;
        (needs > holds).then_some(Misfit::Window { holds, needs })
    }
}

/// Whether a body has an image in it: a `"type": "image"` anywhere. `segments` are its parts in order, cut wherever.
/// A tool's input with such a field counts as well, which only makes the choice more careful.
pub fn has_images<'a>(segments: impl Iterator<Item = &'a [u8]>) -> bool {
    has_pair(segments, b"\"type\"", b"\"image\"")
}

/// Whether a body asks for a prompt cache that lasts an hour, in any of its blocks.
pub fn has_hour_cache<'a>(segments: impl Iterator<Item = &'a [u8]>) -> bool {
    has_pair(segments, b"\"ttl\"", b"\"1h\"")
}

/// Bytes of a key, a colon, a value and the spaces between them that are looked at together.
const PAIR_BYTES_MAX: usize = 48;

/// Whether `key` followed by `value`, both with their quotes, is somewhere in a JSON text.
fn has_pair<'a>(segments: impl Iterator<Item = &'a [u8]>, key: &[u8], value: &[u8]) -> bool {
    let finder = Finder::new(value);
    let found = |text: &[u8]| {
        finder.find_iter(text).any(|at| {
            let before = text.get(..at).unwrap_or_default().trim_ascii_end();
            before.strip_suffix(b":").is_some_and(|before| before.trim_ascii_end().ends_with(key))
        })
    };
    // The end of what has been seen, and behind it the beginning of the next segment.
    let mut border = [0_u8; 2 * PAIR_BYTES_MAX];
    let mut kept = 0;
    for segment in segments {
        let head = segment.len().min(PAIR_BYTES_MAX);
        let len = kept + head;
        if let (Some(to), Some(from)) = (border.get_mut(kept..len), segment.get(..head)) {
            to.copy_from_slice(from);
        }
        if found(border.get(..len).unwrap_or_default()) || found(segment) {
            return true;
        }
        if segment.len() > PAIR_BYTES_MAX {
            let end = segment.get(segment.len() - PAIR_BYTES_MAX..).unwrap_or_default();
            border.iter_mut().zip(end).for_each(|(to, from)| *to = *from);
            kept = PAIR_BYTES_MAX;
        } else {
            kept = len.min(PAIR_BYTES_MAX);
            border.copy_within(len - kept..len, 0);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(tokens: u64) -> Can {
        Can { window_max: Some(tokens), ..Can::default() }
    }

    #[test]
    fn what_a_target_cannot_do() {
        let demand = Demand { images: true, tools: true, thinking: true, ..Demand::default() };
        let lacks = |can: Can| demand.misfit(&can, Reach::Unknown);
        assert_eq!(lacks(Can::default()), None, "what is not known fits");
        assert_eq!(lacks(Can { images: false, ..Can::default() }), Some(Misfit::Images));
        assert_eq!(lacks(Can { tools: false, ..Can::default() }), Some(Misfit::Tools));
        assert_eq!(lacks(Can { thinking: false, ..Can::default() }), Some(Misfit::Thinking));
        let none = Can { images: false, tools: false, thinking: false, window_max: None };
        assert_eq!(Demand::default().misfit(&none, Reach::Unknown), None);
    }

    #[test]
    fn the_first_choice_has_the_benefit_of_the_doubt_and_a_smaller_one_has_not() {
        let of =
            |input: u64, can: &Can, reach: Reach| Demand { input, ..Demand::default() }.misfit(can, reach).is_none();
        let large = Reach::Window(200_000);
        assert!(of(300_000, &window(200_000), large), "six bytes each would fit");
        assert!(!of(300_002, &window(200_000), large), "even so it would not");
        assert!(of(149_999, &window(199_999), large));
        assert!(!of(150_001, &window(199_999), large), "three bytes each would not fit where the first one has room");
        assert!(!of(150_001, &window(200_000), Reach::Unknown));
        assert!(of(u64::MAX, &Can::default(), large));
        assert!(!of(u64::MAX, &window(1 << 40), large));
    }

    #[test]
    fn the_reach_is_that_of_the_largest() {
        let reach = |cans: &[Can]| Reach::of(cans.iter().copied());
        assert_eq!(reach(&[window(1), window(3), window(2)]), Reach::Window(3));
        assert_eq!(reach(&[window(1), Can::default()]), Reach::Unknown);
    }

    fn whole(body: &str) -> bool {
        has_images(std::iter::once(body.as_bytes()))
    }

    #[test]
    fn images_are_seen_and_words_about_them_are_not() {
        assert!(whole(r#"{"content":[{"type":"image","source":{}}]}"#));
        assert!(whole("{\"type\" :\r\n\t \"image\"}"));
        for body in [
            "",
            r#"{"type":"text","text":"image"}"#,
            r#"{"text":"{\"type\":\"image\"}"}"#,
            r#"{"type":"image_url"}"#,
            r#"["type","image"]"#,
            r#"{"kind":"image"}"#,
            r#""image""#,
        ] {
            assert!(!whole(body), "{body}");
        }
        assert!(has_hour_cache(std::iter::once(&br#"{"cache_control":{"type":"ephemeral","ttl":"1h"}}"#[..])));
        assert!(!has_hour_cache(std::iter::once(&br#"{"cache_control":{"type":"ephemeral","ttl":"5m"}}"#[..])));
    }

    proptest! {
        #[test]
        fn borders_hide_nothing(
            before in "[a-z\"{:]{0,120}", spaces in "[ \n]{0,8}", after in "[a-z\"}]{0,120}",
            there: bool, cuts in prop::collection::vec(0_usize..280, 0..12), bytewise: bool,
        ) {
            let kind = if there { "image" } else { "imago" };
            let body = format!("{before}\"type\"{spaces}:{spaces}\"{kind}\"{after}");
            let body = body.as_bytes();
            let mut cuts: Vec<usize> = if bytewise { (0..body.len()).collect() } else { cuts };
            cuts.extend([0, body.len()]);
            for cut in &mut cuts {
                *cut = (*cut).min(body.len());
            }
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]);
            prop_assert_eq!(has_images(parts), there);
        }
    }
}
