//! Rules: which requests get which behaviour, and how often. Set at construction or through `POST /sim/rules`.

use super::behave::Behaviour;
use serde::{Deserialize, Serialize};

/// Rules in force at once.
const RULES_MAX: usize = 1_024;

/// One rule. The first one that matches and is not used up applies; what it does not name matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The behaviour, in the grammar of the `x-sim` header.
    #[serde(rename = "do")]
    pub what: String,
    /// How often; -1 for ever.
    #[serde(default = "once")]
    pub times: i64,
    /// Matching requests that pass before it applies: 2 makes it the third one.
    #[serde(default)]
    pub skip: u64,
    /// The credential's name, or the start of its SHA-256 in hex.
    pub credential: Option<String>,
    /// A part of the model's name.
    pub model: Option<String>,
    /// The path, exactly.
    pub path: Option<String>,
    /// Whether a stream is asked for.
    pub stream: Option<bool>,
}

fn once() -> i64 {
    1
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) credential: &'a str,
    pub(super) digest_hex: &'a str,
    pub(super) model: &'a str,
    pub(super) path: &'a str,
    pub(super) stream: bool,
}

impl Rule {
    fn matches(&self, seen: &Seen<'_>) -> bool {
        let credential = |wanted: &String| {
            seen.credential == wanted || (wanted.len() >= 8 && seen.digest_hex.starts_with(wanted.as_str()))
        };
        self.times != 0
            && self.credential.as_ref().is_none_or(credential)
            && self.model.as_ref().is_none_or(|part| seen.model.contains(part.as_str()))
            && self.path.as_ref().is_none_or(|path| path == seen.path)
            && self.stream.is_none_or(|stream| stream == seen.stream)
    }
}

/// The rules in force.
#[derive(Default)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Checks every rule's behaviour; the error names the first bad one.
    pub(super) fn new(rules: Vec<Rule>) -> Result<Rules, String> {
        if rules.len() > RULES_MAX {
            return Err(format!("more than {RULES_MAX} rules"));
        }
        for (at, rule) in rules.iter().enumerate() {
            Behaviour::default().apply(&rule.what).map_err(|error| format!("rule {at}: {error}"))?;
        }
        Ok(Rules(rules))
    }

    /// What is left of them.
    pub(super) fn list(&self) -> &[Rule] {
        &self.0
    }

    /// The behaviour for a request, which uses its rule up by one.
    pub(super) fn pick(&mut self, seen: &Seen<'_>) -> Option<&str> {
        for rule in self.0.iter_mut().filter(|rule| rule.matches(seen)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= i64::from(rule.times > 0);
            return Some(&rule.what);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(credential: &'a str, model: &'a str) -> Seen<'a> {
        Seen { credential, digest_hex: "0123456789abcdef", model, path: "/v1/messages", stream: true }
    }

    #[test]
    fn rules_are_used_up_in_order_and_only_by_what_they_match() {
        let rules =
            r#"[{"do": "429", "times": 2, "skip": 1, "credential": "a"}, {"do": "529", "times": -1, "model": "opus"}]"#;
        let mut rules = Rules::new(serde_json::from_str(rules).unwrap()).unwrap();
        let mut pick = |credential, model| rules.pick(&seen(credential, model)).map(str::to_owned);
        assert_eq!(pick("a", "sonnet"), None, "skipped");
        assert_eq!(pick("b", "sonnet"), None);
        assert_eq!(pick("a", "opus").as_deref(), Some("429"));
        assert_eq!(pick("b", "opus").as_deref(), Some("529"));
        assert_eq!(pick("a", "sonnet").as_deref(), Some("429"));
        assert_eq!(pick("a", "sonnet"), None, "used up");
        assert_eq!(pick("a", "opus").as_deref(), Some("529"));
    }

    #[test]
    fn a_credential_is_known_by_the_start_of_its_digest() {
        let rule = |credential: &str| Rule {
            what: "500".into(),
            times: 1,
            credential: Some(credential.into()),
            ..Rule::default()
        };
        assert!(rule("01234567").matches(&seen("x", "m")));
        assert!(!rule("0").matches(&seen("x", "m")));
    }

    #[test]
    fn bad_rules_are_refused_with_their_number() {
        let rules =
            vec![Rule { what: "429".into(), ..Rule::default() }, Rule { what: "speed=1".into(), ..Rule::default() }];
        assert!(Rules::new(rules).err().unwrap().starts_with("rule 1: `speed=1`"));
        assert!(serde_json::from_str::<Vec<Rule>>(r#"[{"do": "429", "tmies": 3}]"#).is_err());
    }
}
