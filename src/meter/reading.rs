//! What has been read of an answer's usage so far, and what follows from it. The last value of each field wins: a stream
//! tells running totals, not parts. But nothing becomes zero that was more: a total does not shrink, and some servers
//! send zeros for what they do not know.

use super::{
    Flags,
    walk::{Number, Place, Word},
};
use crate::dialect::usage::{ASIDES_MAX, Aside, Counts, Geo, ModelName, Speed, Stop, Tier, Usage};

/// More tokens, or searches, than any answer has.
const COUNT_MAX: u64 = 1 << 40;
/// Kinds of rounds, by model, that are told apart; further ones are summed in the last.
const ROUNDS_MAX: usize = 4;

/// The numbers of one `usage` or of one of its iterations; `None` for what was not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
}

impl Told {
    /// Keeps a value; false if it cannot be right.
    fn set(&mut self, number: Number, value: u64) -> bool {
        let field = match number {
            Number::Input => &mut self.input,
            Number::Output => &mut self.output,
            Number::CacheRead => &mut self.cache_read,
            Number::CacheWrite => &mut self.cache_write,
            Number::CacheWrite5m => &mut self.cache_write_5m,
            Number::CacheWrite1h => &mut self.cache_write_1h,
            Number::Thinking | Number::WebSearches | Number::WebFetches => return false,
        };
        keep(field, value)
    }

    /// As they are billed. The end of a stream repeats the sum of the cache writes, but not how long they are kept.
    fn counts(&self, flags: &mut Flags) -> Counts {
        let (short, hour) = (self.cache_write_5m.unwrap_or_default(), self.cache_write_1h.unwrap_or_default());
        let mut counts = Counts {
            input: self.input.unwrap_or_default(),
            output: self.output.unwrap_or_default(),
            cache_read: self.cache_read.unwrap_or_default(),
            cache_write_5m: short,
            cache_write_1h: hour,
        };
        let Some(writes) = self.cache_write else { return counts };
        let split = short.saturating_add(hour);
        let rest = writes.saturating_sub(split);
        if rest > 0 {
            flags.add(Flags::SPLIT_GUESSED);
        } else if writes < split {
            flags.add(Flags::WRONG);
        }
        // What is not told apart is like what was, and five minutes if nothing was.
        if short == 0 && hour > 0 {
            counts.cache_write_1h += rest;
        } else {
            counts.cache_write_5m += rest;
        }
        counts
    }
}

fn keep(field: &mut Option<u64>, value: u64) -> bool {
    if value > COUNT_MAX || (value == 0 && field.is_some_and(|known| known > 0)) {
        return false;
    }
    *field = Some(value);
    true
}

/// What one kind of round did, all rounds of it together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    kind: Kind,
    /// Empty for the model that answers.
    model: ModelName,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// A round of an answer, delivered or declined; `usage` may or may not have it in its sums.
    #[default]
    Answer,
    /// What `usage` has not in its sums: an advisor's answer, a compaction.
    Beside,
}

/// `iterations`, which few answers have.
#[derive(Clone, Debug, Default)]
struct Rounds {
    list: [Round; ROUNDS_MAX],
    len: usize,
    /// The round that is being read.
    told: Told,
    kind: Kind,
    model: ModelName,
    is_fallback: bool,
    /// The model that answered in the place of the one that was asked.
    fallback: ModelName,
}

impl Rounds {
    fn begin(&mut self) {
        (self.told, self.kind, self.model) = (Told::default(), Kind::Answer, ModelName::EMPTY);
        self.is_fallback = false;
    }

    fn end(&mut self, flags: &mut Flags) {
        let counts = self.told.counts(flags);
        if self.is_fallback {
            self.fallback = self.model;
        }
        let open = self.list.get_mut(..self.len).unwrap_or_default();
        if let Some(same) = open.iter_mut().find(|round| round.kind == self.kind && round.model == self.model) {
            same.counts = same.counts.plus(&counts);
        } else if let Some(free) = self.list.get_mut(self.len) {
            *free = Round { kind: self.kind, model: self.model, counts };
            self.len += 1;
        } else if let Some(last) = self.list.last_mut() {
            last.counts = last.counts.plus(&counts);
            flags.add(Flags::WRONG);
        }
    }
}

/// All that has been read of one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    told: Told,
    thinking: Option<u64>,
    web_searches: Option<u64>,
    web_fetches: Option<u64>,
    tier: Tier,
    speed: Speed,
    geo: Geo,
    rounds: Option<Box<Rounds>>,
    /// The model that answers, by its own word.
    pub(super) model: ModelName,
    /// Why it stopped.
    pub(super) stop: Stop,
    /// The output was told since this was last cleared.
    pub(super) saw_output: bool,
    pub(super) flags: Flags,
}

impl Reading {
    /// An object begins.
    pub(super) fn open(&mut self, place: Place) {
        match place {
            // A later list replaces an earlier one.
            Place::Iterations => **self.rounds.get_or_insert_default() = Rounds::default(),
            Place::Iteration => {
                if let Some(rounds) = &mut self.rounds {
                    rounds.begin();
                }
            }
            _ => {}
        }
    }

    /// An object ends.
    pub(super) fn close(&mut self, place: Place) {
        if let (Place::Iteration, Some(rounds)) = (place, &mut self.rounds) {
            rounds.end(&mut self.flags);
        }
    }

    /// A number that was looked for.
    pub(super) fn number(&mut self, place: Place, number: Number, value: u64) {
        self.saw_output |= (place, number) == (Place::Usage, Number::Output);
        let is_right = match (place, number, &mut self.rounds) {
            (Place::Iteration | Place::IterationSplit, _, Some(rounds)) => rounds.told.set(number, value),
            (_, Number::Thinking, _) => keep(&mut self.thinking, value),
            (_, Number::WebSearches, _) => keep(&mut self.web_searches, value),
            (_, Number::WebFetches, _) => keep(&mut self.web_fetches, value),
            _ => self.told.set(number, value),
        };
        if !is_right {
            self.wrong();
        }
    }

    /// A text that was looked for.
    pub(super) fn word(&mut self, place: Place, word: Word, text: &[u8]) {
        match (word, place, &mut self.rounds) {
            (Word::Kind, _, Some(rounds)) => {
                rounds.kind = match text {
                    b"message" | b"fallback_message" => Kind::Answer,
                    _ => Kind::Beside,
                };
                rounds.is_fallback = text == b"fallback_message";
            }
            (Word::Model, Place::Iteration, Some(rounds)) => rounds.model = ModelName::new(text),
            (Word::Model, ..) => self.model = ModelName::new(text),
            (Word::Stop, ..) => self.stop = Stop::of(text),
            (Word::Tier, ..) => self.tier = Tier::of(text),
            (Word::Speed, ..) => self.speed = if text == b"fast" { Speed::Fast } else { Speed::Standard },
            (Word::Geo, ..) => self.geo = if text == b"us" { Geo::Us } else { Geo::Any },
            (Word::Kind, ..) => {}
        }
    }

    /// Something stood where it cannot be right.
    pub(super) fn wrong(&mut self) {
        self.flags.add(Flags::WRONG);
    }

    /// The output as last told, if it was.
    pub(super) fn output(&self) -> Option<u64> {
        self.told.output
    }

    /// What it comes to.
    pub(super) fn usage(&mut self) -> Usage {
        let mut usage = Usage {
            counts: self.told.counts(&mut self.flags),
            thinking: self.thinking.unwrap_or_default(),
            web_searches: self.web_searches.unwrap_or_default(),
            web_fetches: self.web_fetches.unwrap_or_default(),
            tier: self.tier,
            speed: self.speed,
            geo: self.geo,
            asides: [Aside::default(); ASIDES_MAX],
        };
        if let Some(rounds) = self.rounds.take() {
            self.settle(&rounds, &mut usage);
        }
        usage
    }

    /// Takes apart what several models did.
    fn settle(&mut self, rounds: &Rounds, usage: &mut Usage) {
        if !rounds.fallback.is_empty() {
            self.model = rounds.fallback;
        }
        let list = rounds.list.get(..rounds.len).unwrap_or_default();
        let answers = || list.iter().filter(|round| round.kind == Kind::Answer);
        let sum = answers().fold(Counts::default(), |sum, round| sum.plus(&round.counts));
        let is_own = |round: &&Round| round.model.is_empty() || round.model == self.model;
        let others = answers().filter(|round| !is_own(round));
        // The sums of `usage` either are those of all rounds, whoever answered, or those of the delivered answer.
        if is_same(&sum, &usage.counts) {
            usage.counts = others.clone().fold(usage.counts, |all, round| all.minus(&round.counts));
        }
        let billed = others.chain(list.iter().filter(|round| round.kind == Kind::Beside));
        for (used, round) in billed.enumerate() {
            let Some(aside) = usage.asides.get_mut(used.min(ASIDES_MAX - 1)) else { return };
            if used < ASIDES_MAX {
                aside.model = if is_own(&round) { ModelName::EMPTY } else { round.model };
            } else {
                self.flags.add(Flags::WRONG);
            }
            aside.counts = aside.counts.plus(&round.counts);
            self.flags.add(Flags::MIXED);
        }
    }
}

/// Whether two counts are the same but for how long cache writes are kept, which is not always told.
fn is_same(a: &Counts, b: &Counts) -> bool {
    let of = |counts: &Counts| (counts.input, counts.output, counts.cache_read, counts.prompt());
    of(a) == of(b)
}
