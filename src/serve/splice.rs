//! Replacing one span of a body that lies in segments. Everything else keeps its bytes, and all but one segment their
//! place.

use crate::rt::Segment;
use std::ops::Range;

/// Puts `replacement` in the place of the bytes at `range` (offsets into the whole body); says by how much the body
/// grew.
pub fn splice(segments: &mut Vec<Segment>, range: Range<u64>, replacement: &[u8]) -> i64 {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut at = 0_u64;
    for mut segment in segments.drain(..) {
        let (start, end) = (at, at + segment.len() as u64);
        at = end;
        let keep_left = range.start.clamp(start, end) - start;
        let keep_right = end - range.end.clamp(start, end);
        match (keep_left as usize, keep_right as usize) {
            (left, 0) => {
                segment.truncate(left);
                before.push(segment);
            }
            (0, right) => {
                segment.consume(segment.len() - right);
                after.push(segment);
            }
            (left, right) => {
                // The model's name stands near the beginning, so the left part is the small one.
                before.push(Segment::copy_of(&segment.live()[..left]));
                segment.consume(segment.len() - right);
                after.push(segment);
            }
        }
    }
    before.push(Segment::copy_of(replacement));
    before.append(&mut after);
    before.retain(|segment| !segment.is_empty());
    *segments = before;
    replacement.len() as i64 - range.end.saturating_sub(range.start) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_same_edit_on_one_buffer(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8),
            a in 0_usize..100, b in 0_usize..100,
            replacement in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut whole: Vec<u8> = pieces.concat();
            let (a, b) = (a.min(whole.len()), b.min(whole.len()));
            let range = a.min(b)..a.max(b);
            let mut segments: Vec<_> = pieces.iter().map(|piece| Segment::copy_of(piece)).collect();
            let before = whole.len() as i64;
            let grew = splice(&mut segments, range.start as u64..range.end as u64, &replacement);
            whole.splice(range, replacement);
            let got: Vec<u8> = segments.iter().flat_map(|segment| segment.live().to_vec()).collect();
            prop_assert_eq!(&got, &whole);
            prop_assert_eq!(before + grew, whole.len() as i64);
        }
    }
}
