//! Tokens of one answer, kind by kind.

/// Tokens by the rate at which they are billed. Nothing is in two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Input that was neither written to the prompt cache nor read from it.
    pub input: u64,
    /// Output, thinking included.
    pub output: u64,
    /// Read from the prompt cache.
    pub cache_read: u64,
    /// Written to the prompt cache for five minutes.
    pub cache_write_5m: u64,
    /// Written to the prompt cache for an hour.
    pub cache_write_1h: u64,
}

impl Counts {
    /// The whole prompt. Price thresholds are compared with it.
    pub fn prompt(&self) -> u64 {
        let writes = self.cache_write_5m.saturating_add(self.cache_write_1h);
        self.input.saturating_add(self.cache_read).saturating_add(writes)
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }

    /// Both together; saturates.
    #[must_use]
    pub fn plus(&self, other: &Counts) -> Counts {
        self.each(other, u64::saturating_add)
    }

    /// This without that; stops at nothing.
    #[must_use]
    pub fn minus(&self, other: &Counts) -> Counts {
        self.each(other, u64::saturating_sub)
    }

    fn each(&self, other: &Counts, both: fn(u64, u64) -> u64) -> Counts {
        Counts {
            input: both(self.input, other.input),
            output: both(self.output, other.output),
            cache_read: both(self.cache_read, other.cache_read),
            cache_write_5m: both(self.cache_write_5m, other.cache_write_5m),
            cache_write_1h: both(self.cache_write_1h, other.cache_write_1h),
        }
    }
}
