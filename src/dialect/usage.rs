//! What an answer used, as its provider counts it, in the one shape that prices and books read. The names are those of
//! the Anthropic Messages API (reference: its `usage` object); other dialects are brought into it.
//!
//! Not here: how it is found in an answer (`meter`), and what it costs (`table::prices`).

pub use crate::base::Counts;
use crate::telemetry::Text;

/// Models, besides the one that answered, whose work an answer can bill; more are summed under the last.
pub const ASIDES_MAX: usize = 2;

/// The room for a model's name.
pub type ModelName = Text<64>;

/// What one model did on the way to an answer of another: an advisor, a model that declined, a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Which; empty when it was the one that answered.
    pub model: ModelName,
    /// What it used. Not part of `Usage::counts`.
    pub counts: Counts,
}

/// What an answer used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the model that answered.
    pub counts: Counts,
    /// Of `counts.output`, what was thinking, where that was told.
    pub thinking: u64,
    /// Web searches of the provider's; billed one by one.
    pub web_searches: u64,
    /// Web pages that the provider fetched.
    pub web_fetches: u64,
    /// The service that was given.
    pub tier: Tier,
    /// The speed that was given.
    pub speed: Speed,
    /// Where it was computed, as far as that has a price.
    pub geo: Geo,
    /// Billed besides.
    pub asides: [Aside; ASIDES_MAX],
}

/// `service_tier`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Nothing was said, or `standard`, or what is not known here.
    #[default]
    Standard,
    /// Bought beforehand.
    Priority,
    /// A batch.
    Batch,
    /// Slower and cheaper (OpenAI's).
    Flex,
}

impl Tier {
    /// The tier of that name.
    pub fn of(name: &[u8]) -> Tier {
        match name {
            b"priority" => Tier::Priority,
            b"batch" => Tier::Batch,
            b"flex" => Tier::Flex,
            _ => Tier::Standard,
        }
    }

    /// As it stands in logs.
    pub const fn slug(self) -> &'static str {
        match self {
            Tier::Standard => "standard",
            Tier::Priority => "priority",
            Tier::Batch => "batch",
            Tier::Flex => "flex",
        }
    }
}

/// `speed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Speed {
    /// Nothing was said, or `standard`, or what is not known here.
    #[default]
    Standard,
    /// Faster and dearer.
    Fast,
}

/// `inference_geo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Geo {
    /// Anywhere.
    #[default]
    Any,
    /// In the United States only.
    Us,
}

macro_rules! stops {
    ($($(#[$doc:meta])* $stop:ident $slug:literal;)*) => {
        /// Why a model stopped (`stop_reason`).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Stop {
            /// It was not told: the answer has not come so far.
            #[default]
            Untold,
            $($(#[$doc])* $stop,)*
            /// A reason that is not known here.
            Other,
        }

        impl Stop {
            /// The reason of that name.
            pub fn of(name: &[u8]) -> Stop {
                $(if name == $slug.as_bytes() { return Stop::$stop })*
                Stop::Other
            }

            /// As it stands in logs; empty when it was not told.
            pub const fn slug(self) -> &'static str {
                match self { Stop::Untold => "", $(Stop::$stop => $slug,)* Stop::Other => "other" }
            }
        }
    };
}

stops! {
    /// It was done.
    EndTurn "end_turn";
    /// At the length that was asked for.
    MaxTokens "max_tokens";
    /// At a text that was asked for.
    StopSequence "stop_sequence";
    /// It calls a tool.
    ToolUse "tool_use";
    /// The provider's own tools need another round; the client sends the answer back.
    PauseTurn "pause_turn";
    /// It declined.
    Refusal "refusal";
    /// The window is full.
    ContextWindow "model_context_window_exceeded";
    /// The conversation was shortened.
    Compaction "compaction";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_is_all_that_was_put_in() {
        let counts = Counts { input: 1, output: 2, cache_read: 4, cache_write_5m: 8, cache_write_1h: 16 };
        assert_eq!((counts.prompt(), counts.total()), (29, 31));
        assert_eq!(counts.plus(&counts).minus(&counts), counts);
        assert_eq!(Counts::default().minus(&counts), Counts::default());
    }

    #[test]
    fn names_lead_to_meanings_and_back() {
        for name in ["end_turn", "max_tokens", "tool_use", "refusal", "model_context_window_exceeded"] {
            assert_eq!(Stop::of(name.as_bytes()).slug(), name);
        }
        assert_eq!((Stop::of(b"new_reason"), Stop::Untold.slug()), (Stop::Other, ""));
        for tier in [Tier::Standard, Tier::Priority, Tier::Batch, Tier::Flex] {
            assert_eq!(Tier::of(tier.slug().as_bytes()), tier);
        }
        assert_eq!(Tier::of(b"new_tier"), Tier::Standard);
    }
}
