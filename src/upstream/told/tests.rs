//! What heads tell, read from heads as providers send them.

use super::*;
use proptest::prelude::*;

/// 2026-11-25T10:00:00Z.
const WALL: Wall = Wall(1_795_600_800_000);

fn read(fields: &[(&str, &str)]) -> Told {
    Told::read(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), WALL)
}

fn level(limit: u64, remaining: u64, full_in: Span, per_minute: bool) -> Level {
    Level { limit: Some(limit), remaining: Some(remaining), full_in: Some(full_in), per_minute }
}

#[test]
fn anthropics_twelve_fields() {
    let told = read(&[
        ("anthropic-ratelimit-requests-limit", "4000"),
        ("anthropic-ratelimit-requests-remaining", "3999"),
        ("anthropic-ratelimit-requests-reset", "2026-11-25T10:00:01Z"),
        ("Anthropic-RateLimit-Tokens-Limit", "400000"),
        ("anthropic-ratelimit-tokens-remaining", "391000"),
        ("anthropic-ratelimit-tokens-reset", "2026-11-25T10:00:02Z"),
        ("anthropic-ratelimit-input-tokens-limit", "2000000"),
        ("anthropic-ratelimit-input-tokens-remaining", "1000000"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-11-25T10:00:30.250Z"),
        ("anthropic-ratelimit-output-tokens-limit", "400000"),
        ("anthropic-ratelimit-output-tokens-remaining", "0"),
        ("anthropic-ratelimit-output-tokens-reset", "2026-11-25T09:59:59Z"),
        ("anthropic-organization-id", "x"),
    ]);
    assert_eq!(told.requests, level(4_000, 3_999, Span::from_secs(1), true));
    assert_eq!(told.both, level(400_000, 391_000, Span::from_secs(2), true));
    assert_eq!(told.input, level(2_000_000, 1_000_000, Span::from_ms(30_250), true));
    assert_eq!(told.output, level(400_000, 0, Span::ZERO, true), "what is past is now");
    assert_eq!(told.retry_after, None);
}

#[test]
fn openais_six_fields_and_openrouters_three() {
    let told = read(&[
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-remaining-requests", "499"),
        ("x-ratelimit-reset-requests", "120ms"),
        ("x-ratelimit-limit-tokens", "30000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "6m0s"),
        ("x-ratelimit-reset-tokens_usage_based", "1h"),
    ]);
    assert_eq!(told.requests, level(500, 499, Span::from_ms(120), false));
    assert_eq!(told.both, level(30_000, 0, Span::from_secs(360), false));
    let at = (WALL.0 + 7_000).to_string();
    let told = read(&[("X-RateLimit-Limit", "20"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", &at)]);
    assert_eq!(told.requests, level(20, 0, Span::from_secs(7), false));
    assert_eq!(told.retry_after, Some(Span::from_secs(7)));
}

#[test]
fn a_limit_that_is_not_known_is_none() {
    let told = read(&[
        ("x-ratelimit-limit-requests", "0"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-limit-tokens", "-1"),
        ("x-ratelimit-remaining-tokens", "-1"),
        ("x-ratelimit-reset-tokens", "1s"),
        ("anthropic-ratelimit-input-tokens-remaining", "12"),
    ]);
    assert_eq!(told, Told::default());
}

#[test]
fn how_long_to_wait_in_every_form() {
    let retry = |fields: &[(&str, &str)]| read(fields).retry_after;
    assert_eq!(retry(&[("retry-after", "3")]), Some(Span::from_secs(3)));
    assert_eq!(retry(&[("Retry-After", " 1.5 ")]), Some(Span::from_ms(1_500)));
    assert_eq!(retry(&[("retry-after", "9"), ("retry-after-ms", "120")]), Some(Span::from_ms(120)), "the finer one");
    assert_eq!(retry(&[("retry-after", "Wed, 25 Nov 2026 10:00:40 GMT")]), Some(Span::from_secs(40)));
    assert_eq!(retry(&[("retry-after", "Wed, 25 Nov 2026 09:00:00 GMT")]), Some(Span::ZERO));
    assert_eq!(retry(&[("retry-after", "124633")]), Some(RETRY_AFTER_MAX));
    assert_eq!(retry(&[("retry-after", "99999999999999999999999999")]), Some(RETRY_AFTER_MAX));
    for nonsense in ["", "-1", "soon", "1e9", "1.x", "1_000"] {
        assert_eq!(retry(&[("retry-after", nonsense)]), None, "{nonsense}");
    }
}

#[test]
fn moments_are_measured_by_the_upstreams_own_clock() {
    let reset = ("anthropic-ratelimit-requests-reset", "2026-11-25T11:30:30Z");
    let limit = ("anthropic-ratelimit-requests-limit", "50");
    let off = read(&[reset, limit, ("date", "Wed, 25 Nov 2026 11:30:00 GMT")]);
    assert_eq!(off.requests.full_in, Some(Span::from_secs(30)));
    let retry = read(&[("retry-after", "Wed, 25 Nov 2026 11:30:07 GMT"), ("Date", "Wed, 25 Nov 2026 11:30:00 GMT")]);
    assert_eq!(retry.retry_after, Some(Span::from_secs(7)));
    assert_eq!(read(&[reset, limit]).requests.full_in, Some(Span::from_secs(5_430)), "by ours where it says nothing");
}

proptest! {
    #[test]
    fn no_head_brings_it_down_and_nothing_is_beyond_its_bound(
        fields in proptest::collection::vec((
            prop_oneof![
                "anthropic-ratelimit-(requests|tokens|input-tokens|output-tokens)-(limit|remaining|reset)",
                "x-ratelimit-(limit|remaining|reset)(-requests|-tokens)?",
                "retry-after(-ms)?|date",
                "[axrd-]{0,30}",
            ],
            prop_oneof!["[0-9]{0,30}", "[0-9hms.]{0,12}", "[0-9TZ:+-]{0,26}", "\\PC{0,30}"],
        ), 0..14),
        raw in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
        wall: u64,
    ) {
        let text = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let raw = raw.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        let told = Told::read(text.chain(raw), Wall(wall));
        prop_assert!(told.retry_after.is_none_or(|span| span <= RETRY_AFTER_MAX));
        for level in told.levels() {
            prop_assert!(level.limit.is_none_or(|limit| (1..=UNITS_MAX).contains(&limit)));
            prop_assert!(level.remaining.is_none_or(|remaining| remaining <= UNITS_MAX));
            prop_assert!(level.full_in.is_none_or(|span| span <= FULL_IN_MAX));
        }
    }
}
