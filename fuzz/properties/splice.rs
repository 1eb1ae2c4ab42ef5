//! Putting a model's name into a body that lies in segments: the same as on one buffer.

use super::dice;
use forebay::{rt::Segment, serve::splice};

/// The property of an edit, whose place, pieces and replacement the bytes decide.
pub fn splice(bytes: &[u8]) {
    let mut dice = dice(bytes);
    let replacement_at = dice.below(bytes.len() as u64 + 1) as usize;
    let (body, replacement) = bytes.split_at(replacement_at);
    let (mut segments, mut rest) = (Vec::new(), body);
    while !rest.is_empty() && segments.len() < 9 {
        let (piece, after) = rest.split_at(dice.below(rest.len() as u64 + 1) as usize);
        segments.push(Segment::copy_of(piece));
        rest = after;
    }
    segments.push(Segment::copy_of(rest));
    let ends = [0; 2].map(|_| dice.below(body.len() as u64 + 1) as usize);
    let range = ends[0].min(ends[1])..ends[0].max(ends[1]);
    let grew = splice::splice(&mut segments, range.start as u64..range.end as u64, replacement);
    let mut whole = body.to_vec();
    whole.splice(range, replacement.iter().copied());
    let joined: Vec<u8> = segments.iter().flat_map(|segment| segment.live().iter().copied()).collect();
    assert_eq!(joined, whole);
    assert_eq!(body.len() as i64 + grew, whole.len() as i64);
    assert!(segments.iter().all(|segment| !segment.is_empty()), "an empty segment would be an empty write");
}
