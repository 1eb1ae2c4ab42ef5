//! Time as values. Reading a clock is `rt`'s business; everything else takes `now` as an argument.

use std::time::Duration;

/// A length of time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// A moment on the monotonic clock, in nanoseconds; its zero is the machine's affair. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// A moment on the wall clock, in milliseconds since 1970-01-01T00:00:00Z. May jump; never used to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// `ms` milliseconds; saturates.
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms.saturating_mul(1_000_000))
    }

    /// `s` seconds; saturates.
    pub const fn from_secs(s: u64) -> Span {
        Span(s.saturating_mul(1_000_000_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole microseconds, rounded down.
    pub const fn as_us(self) -> u64 {
        self.0 / 1_000
    }

    /// The same length for `std`.
    pub const fn to_std(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl Mono {
    /// The moment `span` later; saturates.
    #[must_use]
    pub const fn after(self, span: Span) -> Mono {
        Mono(self.0.saturating_add(span.0))
    }

    /// How long since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Mono) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Mono(u64::MAX).after(Span::from_secs(1)), Mono(u64::MAX));
        assert_eq!(Mono(5).since(Mono(9)), Span::ZERO);
        assert_eq!(Span::from_ms(1_500).as_us(), 1_500_000);
        assert_eq!(Span::from_secs(u64::MAX).0, u64::MAX);
    }
}
