//! What must hold for any bytes, each as an ordinary function of them. A fuzz target calls one of these; `tests/fuzz.rs`
//! calls all of them over the corpora and over mutations of them, so that every `cargo test` holds them too.
//!
//! Not here: how bytes are found. A property says what is right for whatever it is given, and panics where it is not.

mod body;
mod config;
mod events;
mod fields;
mod head;
mod session;
mod splice;

use forebay::base::Rng;

/// What must hold for any bytes; it panics where it does not.
type Property = fn(&[u8]);

/// Every property, under the name of its fuzz target and of its corpus.
pub const PROPERTIES: [(&str, Property); 8] = [
    ("request", head::request),
    ("answer", head::answer),
    ("body", body::body),
    ("events", events::events),
    ("fields", fields::fields),
    ("config", config::config),
    ("session", session::session),
    ("splice", splice::splice),
];

/// Holds the property of that name to `bytes`.
pub fn hold(name: &str, bytes: &[u8]) {
    let (_, property) = PROPERTIES.iter().find(|(known, _)| *known == name).expect("a property of that name");
    property(bytes);
}

/// A generator that depends on the bytes alone, so that an input is its whole reproduction.
fn dice(bytes: &[u8]) -> Rng {
    Rng(bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Ways to cut `bytes` into reads: for each, where every read ends. A byte at a time where that is quick, in two at one
/// place, and in pieces of small and of mixed sizes.
fn cuts(bytes: &[u8]) -> Vec<Vec<usize>> {
    let mut dice = dice(bytes);
    let mut ways = vec![vec![dice.below(bytes.len() as u64 + 1) as usize, bytes.len()]];
    if bytes.len() <= 512 {
        ways.push((0..=bytes.len()).collect());
    }
    for piece_max in [7, 300] {
        let (mut way, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            at = (at + 1 + dice.below(piece_max) as usize).min(bytes.len());
            way.push(at);
        }
        ways.push(way);
    }
    ways
}

/// `bytes` in the pieces that end at `ends`.
fn pieces<'a>(bytes: &'a [u8], ends: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).map(|(start, end)| &bytes[start..end])
}
