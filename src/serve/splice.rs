//! Replacing one span of a body that lies in segments. Everything else keeps its bytes, and all but one segment their
//! place.

use super::body::Body;
use crate::{base::bounds::READ_BYTES_MAX, dialect::anthropic::thinking::cut_thinking, rt::Segment, wire::FieldScan};
use std::ops::Range;

/// Puts `id` in the place of the model's name in the body; `None` puts back what the client wrote. `wrote` keeps that.
pub fn name_model(body: &mut Body, id: Option<&str>, wrote: &mut Option<Vec<u8>>) {
    let Some(model) = body.peeked.as_mut().and_then(|peeked| peeked.model.as_mut()) else { return };
    let new = match (id, &*wrote) {
        (None, None) => return,
        (None, Some(wrote)) => wrote.clone(),
        (Some(id), _) => format!("\"{id}\"").into_bytes(),
    };
    if wrote.is_none() {
        *wrote = Some(copied(&body.segments, &model.at));
    }
    let grew = splice(&mut body.segments, model.at.clone(), &new);
    model.at.end = model.at.start + new.len() as u64;
    body.bytes = body.bytes.saturating_add_signed(grew);
}

/// Takes the blocks of thinking out of a conversation: their signatures are another provider's, and would be refused.
/// Says how many. This copies the body, which happens once, when a conversation crosses over.
pub fn drop_thinking(body: &mut Body) -> u16 {
    let whole: Vec<u8> = body.segments.iter().flat_map(crate::rt::Segment::live).copied().collect();
    let Some(cuts) = cut_thinking(&whole).filter(|cuts| !cuts.is_empty()) else { return 0 };
    let kept = cuts.apply(&whole);
    let mut scan = FieldScan::new();
    if scan.feed(&kept).is_err() {
        return 0;
    }
    let Ok(mut peeked) = scan.finish() else { return 0 };
    // What the client asked for stays what it asked for, whatever stands in the body now.
    let asked = body.peeked.take().and_then(|peeked| peeked.model);
    if let (Some(model), Some(asked)) = (&mut peeked.model, asked) {
        model.text = asked.text;
    }
    body.segments = kept.chunks(READ_BYTES_MAX).map(Segment::copy_of).collect();
    (body.bytes, body.peeked) = (kept.len() as u64, Some(peeked));
    cuts.blocks.try_into().unwrap_or(u16::MAX)
}

/// The bytes at `range`.
fn copied(segments: &[Segment], range: &Range<u64>) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0_u64);
    for segment in segments {
        let len = segment.len() as u64;
        let (from, to) = (range.start.clamp(at, at + len) - at, range.end.clamp(at, at + len) - at);
        out.extend_from_slice(segment.live().get(from as usize..to as usize).unwrap_or_default());
        at += len;
    }
    out
}

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

    /// A body read whole, its model peeked.
    fn body(pieces: &[&[u8]]) -> Body {
        let mut scan = crate::wire::FieldScan::new();
        for piece in pieces {
            scan.feed(piece).unwrap();
        }
        let segments = pieces.iter().map(|piece| Segment::copy_of(piece)).collect();
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Body { segments, bytes, peeked: Some(scan.finish().unwrap()), ..Body::default() }
    }

    fn text(body: &Body) -> String {
        assert_eq!(body.bytes, body.segments.iter().map(|segment| segment.len() as u64).sum::<u64>());
        body.segments.iter().map(|segment| String::from_utf8_lossy(segment.live()).into_owned()).collect()
    }

    #[test]
    fn each_candidate_is_asked_for_its_own_name_and_the_last_for_the_clients() {
        let (mut body, mut wrote) = (body(&[b"{\"max_tokens\":1,\"model\": \"so", b"n\\u006eet\", \"x\":[]}"]), None);
        name_model(&mut body, None, &mut wrote);
        assert_eq!(text(&body), r#"{"max_tokens":1,"model": "son\u006eet", "x":[]}"#);
        name_model(&mut body, Some("a-much-longer-name"), &mut wrote);
        assert_eq!(text(&body), r#"{"max_tokens":1,"model": "a-much-longer-name", "x":[]}"#);
        name_model(&mut body, Some("b"), &mut wrote);
        assert_eq!(text(&body), r#"{"max_tokens":1,"model": "b", "x":[]}"#);
        name_model(&mut body, None, &mut wrote);
        assert_eq!(text(&body), r#"{"max_tokens":1,"model": "son\u006eet", "x":[]}"#, "as the client wrote it");
    }

    #[test]
    fn thinking_is_taken_out_and_the_model_is_found_again() {
        let history = r#"{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"a","signature":"s"},{"type":"text","text":"b"}]}],"model":"m1"}"#;
        let (mut body, mut wrote) = (body(&[history.as_bytes()]), None);
        name_model(&mut body, Some("other"), &mut wrote);
        assert_eq!(drop_thinking(&mut body), 1);
        name_model(&mut body, Some("third"), &mut wrote);
        let left = r#"{"messages":[{"role":"assistant","content":[{"type":"text","text":"b"}]}],"model":"third"}"#;
        assert_eq!(text(&body), left);
        assert_eq!(&*body.peeked.as_ref().unwrap().model.as_ref().unwrap().text, "m1");
        name_model(&mut body, None, &mut wrote);
        assert_eq!(text(&body), left.replace("third", "m1"));
        assert_eq!(drop_thinking(&mut body), 0, "once");
    }

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
