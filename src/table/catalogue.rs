//! What is known of models without asking anyone: their names, windows and abilities, their dated ids, and which ones
//! are retired. Constant data as of the end of November 2026; a configuration overrides each row of it. Not a list of
//! what may be asked for: an id that is not here is passed on as it is.
//!
//! Sources: windows are those of LiteLLM 1.109.1's price file (2026-11-22, MIT); dated ids, retirements and successors
//! those of the provider's own page on deprecations, for its own API. What is in neither is marked as assumed.

use super::Can;

/// One model.
#[derive(Debug)]
pub struct Known {
    /// Its id without a date.
    pub id: &'static str,
    /// As people call it.
    pub name: &'static str,
    /// Its id with a date, where there is one: another spelling of the same model.
    pub dated: Option<&'static str>,
    /// What it can take.
    pub can: Can,
    /// What of the row stands in no source; empty when all of it does.
    pub assumed: &'static str,
}

/// One id that the provider does not answer any more.
#[derive(Debug)]
pub struct Retired {
    /// All spellings of it.
    pub ids: &'static [&'static str],
    /// The provider's own recommendation, without a date.
    pub successor: &'static str,
    /// The day, `YYYY-MM-DD`, in the provider's own API.
    pub day: &'static str,
}

const fn model(id: &'static str, name: &'static str, window_max: u64) -> Known {
    let can = Can { window_max: Some(window_max), images: true, tools: true, thinking: true };
    Known { id, name, dated: None, can, assumed: "" }
}

impl Known {
    const fn dated(mut self, id: &'static str) -> Known {
        self.dated = Some(id);
        self
    }

    const fn without_images(mut self) -> Known {
        self.can.images = false;
        self
    }

    const fn assumed(mut self, what: &'static str) -> Known {
        self.assumed = what;
        self
    }
}

/// The models. Abilities are those of the model; a service in front of it may have fewer.
pub const KNOWN: &[Known] = &[
    model("claude-fable-5-1", "Claude Fable 5.1", 1_000_000),
    model("claude-fable-5", "Claude Fable 5", 1_000_000),
    model("claude-mythos-5-1", "Claude Mythos 5.1", 1_000_000),
    model("claude-mythos-5", "Claude Mythos 5", 1_000_000).assumed("the window: that of Mythos 5.1"),
    model("claude-opus-5-5", "Claude Opus 5.5", 1_000_000),
    model("claude-opus-5", "Claude Opus 5", 1_000_000),
    model("claude-opus-4-8", "Claude Opus 4.8", 1_000_000),
    model("claude-opus-4-7", "Claude Opus 4.7", 1_000_000),
    model("claude-opus-4-6", "Claude Opus 4.6", 1_000_000),
    model("claude-opus-4-5", "Claude Opus 4.5", 200_000).dated("claude-opus-4-5-20251101"),
    model("claude-sonnet-5-5", "Claude Sonnet 5.5", 1_000_000),
    model("claude-sonnet-5", "Claude Sonnet 5", 1_000_000),
    model("claude-sonnet-4-6", "Claude Sonnet 4.6", 1_000_000),
    model("claude-sonnet-4-5", "Claude Sonnet 4.5", 200_000)
        .dated("claude-sonnet-4-5-20250929")
        .assumed("the window: a beta header made it 1M"),
    model("claude-haiku-5-5", "Claude Haiku 5.5", 1_000_000),
    model("claude-haiku-4-5", "Claude Haiku 4.5", 200_000).dated("claude-haiku-4-5-20251001"),
    model("deepseek-v4-pro", "DeepSeek V4 Pro", 1_000_000)
        .without_images()
        .assumed("no images: support is called limited"),
    model("deepseek-flash", "DeepSeek Flash", 1_000_000)
        .without_images()
        .assumed("no images: support is called limited"),
    model("glm-5.3", "GLM 5.3", 1_000_000).assumed("images"),
    model("glm-4.7", "GLM 4.7", 200_000).without_images().assumed("no images"),
    model("kimi-k3", "Kimi K3", 1_000_000).assumed("images"),
    model("kimi-k2.7-code", "Kimi K2.7 Code", 256_000).assumed("images"),
    model("qwen3.8-max", "Qwen3.8 Max", 992_000).assumed("images"),
    model("qwen3-coder-plus", "Qwen3 Coder Plus", 998_000).without_images().assumed("no images"),
];

const fn retired(day: &'static str, ids: &'static [&'static str], successor: &'static str) -> Retired {
    Retired { ids, successor, day }
}

/// What is retired. A row has an effect only where a configuration has no rule for the id.
pub const RETIRED: &[Retired] = &[
    retired("2026-11-30", &["claude-sonnet-4-5", "claude-sonnet-4-5-20250929"], "claude-sonnet-5-5"),
    retired("2026-08-05", &["claude-opus-4-1", "claude-opus-4-1-20250805"], "claude-opus-4-8"),
    retired("2026-06-15", &["claude-opus-4-0", "claude-opus-4-20250514"], "claude-opus-4-8"),
    retired("2026-06-15", &["claude-sonnet-4-0", "claude-sonnet-4-20250514"], "claude-sonnet-4-6"),
    retired("2026-04-20", &["claude-3-haiku-20240307"], "claude-haiku-4-5"),
    retired("2026-02-19", &["claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"], "claude-haiku-4-5"),
    retired("2026-02-19", &["claude-3-7-sonnet-latest", "claude-3-7-sonnet-20250219"], "claude-sonnet-4-6"),
    retired("2026-01-05", &["claude-3-opus-latest", "claude-3-opus-20240229"], "claude-opus-4-8"),
    retired(
        "2025-10-28",
        &["claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20240620"],
        "claude-sonnet-4-6",
    ),
    retired("2025-07-21", &["claude-3-sonnet-20240229"], "claude-sonnet-4-6"),
    retired("2025-07-21", &["claude-2.1", "claude-2.0"], "claude-opus-4-8"),
];

/// What is known of the model that `id` names, in any provider's spelling: with a date, a version behind `@` or a colon,
/// a vendor or a region before it, dots for dashes.
pub fn find(id: &str) -> Option<&'static Known> {
    let stem = stem(id);
    KNOWN.iter().find(|known| is_same(known.id, stem))
}

/// The same model's id in the provider's other spelling: without a date for one with, and the other way round.
pub fn other_spelling(id: &str) -> Option<&'static str> {
    KNOWN.iter().find_map(|known| {
        let dated = known.dated?;
        match () {
            () if known.id == id => Some(dated),
            () if dated == id => Some(known.id),
            () => None,
        }
    })
}

/// The row of an id that is retired.
pub fn retirement(id: &str) -> Option<&'static Retired> {
    RETIRED.iter().find(|row| row.ids.contains(&id))
}

/// The part of an id that says which model it is, whoever spells it: `us.anthropic.claude-sonnet-4-5-20250929-v1:0`,
/// `claude-sonnet-4-5@20250929`, `anthropic/claude-sonnet-4-5` and `claude-sonnet-4-5[1m]` have the same. Dots in
/// versions stay.
pub fn stem(id: &str) -> &str {
    let id = id.rsplit('/').next().unwrap_or(id);
    let id = id.find("claude-").and_then(|at| id.get(at..)).unwrap_or(id);
    let id = id.split(['@', '[', ':']).next().unwrap_or(id);
    let id = id.strip_suffix("-v1").unwrap_or(id);
    let is_date = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    match id.rsplit_once('-') {
        Some((name, last)) if is_date(last) || last == "latest" => name,
        _ => id,
    }
}

/// Whether two stems are equal when a dot is as good as a dash.
fn is_same(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'.' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| plain(a) == plain(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_spelling_is_the_same_model() {
        for id in [
            "claude-sonnet-4-5",
            "claude-sonnet-4-5-20250929",
            "claude-sonnet-4-5@20250929",
            "claude-sonnet-4-5[1m]",
            "anthropic/claude-sonnet-4.5",
            "anthropic.claude-sonnet-4-5",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "databricks-claude-sonnet-4-5",
        ] {
            assert_eq!(find(id).map(|known| known.name), Some("Claude Sonnet 4.5"), "{id}");
        }
        assert_eq!(find("zai/glm-4.7").map(|known| known.can.images), Some(false));
        for id in ["claude-sonnet-4-55", "claude-sonnet", "claude-", "", "house-model-3", "claude-sonnet-4-5-fast", "é"]
        {
            assert!(find(id).is_none(), "{id}");
        }
    }

    #[test]
    fn dated_ids_are_other_spellings_both_ways() {
        assert_eq!(other_spelling("claude-haiku-4-5"), Some("claude-haiku-4-5-20251001"));
        assert_eq!(other_spelling("claude-haiku-4-5-20251001"), Some("claude-haiku-4-5"));
        assert_eq!(other_spelling("claude-haiku-4-5-20251002"), None);
        assert_eq!(other_spelling("claude-opus-5-5"), None);
    }

    #[test]
    fn the_data_is_of_one_piece() {
        let mut ids = BTreeSet::new();
        for known in KNOWN {
            assert!(ids.insert(known.id) && known.dated.is_none_or(|dated| ids.insert(dated)), "{} twice", known.id);
            assert!(known.dated.is_none_or(|dated| stem(dated) == known.id), "{}", known.id);
            assert!(known.can.window_max.is_some_and(|window| window >= 100_000));
        }
        let mut gone = BTreeSet::new();
        for row in RETIRED {
            assert!(row.ids.iter().all(|id| gone.insert(*id)), "{:?} twice", row.ids);
            assert!(row.day.len() == 10 && row.day.starts_with("20"), "{}", row.day);
            let successor = KNOWN.iter().find(|known| known.id == row.successor);
            assert!(successor.is_some(), "{} is not known", row.successor);
            assert!(retirement(row.successor).is_none(), "{} is retired itself", row.successor);
        }
    }
}
