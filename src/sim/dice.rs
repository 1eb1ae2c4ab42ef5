//! A seed's choices, where a story is made up. (What happens while it runs is chosen by the world.)

use crate::base::Rng;

/// The seed's hand.
pub struct Dice(Rng);

impl Dice {
    /// The hand of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(Rng(seed ^ 0x5eed_0f0a_u64.rotate_left(17)))
    }

    /// A number in `0..n`; zero when `n` is zero.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    /// A number in `from..=to`.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// One chance in `n`.
    pub fn chance(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `all`, which must not be empty.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.draw()
    }

    /// A size that is small as a rule, and now and then up to `max`.
    pub fn size(&mut self, max: usize) -> usize {
        match self.below(12) {
            0 => self.below(max + 1),
            1..=3 => self.below((max / 10).max(1)),
            _ => self.below((max / 200).max(60)),
        }
    }

    /// `len` letters.
    pub fn text(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }
}
