//! What an operator knows of an upstream's answers: the limits behind a credential, and verdicts of its own.

use std::sync::Arc;

use crate::table::{CredentialLimits, Verdict, VerdictRule};

use super::super::diagnose::{At, Problems};
use super::super::file;
use super::super::reader::{entry_removal, item_removal};
use super::{within, word};

/// Verdicts of one upstream at most: each answer that is not a 2xx is held against all of them.
const VERDICTS_MAX: usize = 32;
/// Longest text that a body is searched for, in bytes.
const BODY_BYTES_MAX: usize = 200;

pub(super) fn limits(problems: &mut Problems, written: &file::CredentialLimits) -> CredentialLimits {
    let file::CredentialLimits { rpm, requests_per_day, input_tpm, output_tpm } = written;
    let mut bound = |key: &str, written: &Option<At<i64>>, most: i64| {
        written.as_ref().map(|number| within(problems, key, number, 1, most))
    };
    CredentialLimits {
        rpm: bound("rpm", rpm, 1_000_000).map(|number| number as u32),
        requests_per_day: bound("requests_per_day", requests_per_day, 1_000_000_000).map(|number| number as u32),
        input_tpm: bound("input_tpm", input_tpm, 1_000_000_000_000).map(|number| number as u64),
        output_tpm: bound("output_tpm", output_tpm, 1_000_000_000_000).map(|number| number as u64),
    }
}

pub(super) fn verdicts(problems: &mut Problems, written: &[file::Verdict]) -> Vec<VerdictRule> {
    let words = [("deliver", Verdict::Deliver), ("next", Verdict::Next), ("cool-and-next", Verdict::CoolAndNext)];
    let mut rules: Vec<VerdictRule> = Vec::new();
    for entry in written {
        let Some((status, verdict)) = entry.status.as_ref().zip(entry.means.as_ref()) else { continue };
        let status = within(problems, "status", status, 400, 599) as u16;
        let Some(verdict) = word(problems, "verdict", verdict, &words) else { continue };
        let body = entry.body.as_ref().and_then(|text| body(problems, text));
        let rule = VerdictRule { status, body, verdict };
        let fault = match rules.iter().find(|before| takes(before, &rule)) {
            Some(_) => "this verdict is never reached: one above it takes all its answers",
            None if rules.len() >= VERDICTS_MAX => "an upstream has at most 32 verdicts",
            None => {
                rules.push(rule);
                continue;
            }
        };
        let remedy = item_removal(problems, entry.at);
        problems.add(entry.at, fault, "remove it, or put it further up", remedy);
    }
    rules
}

fn body(problems: &mut Problems, text: &At<String>) -> Option<Arc<str>> {
    if text.value.is_empty() || text.value.len() > BODY_BYTES_MAX {
        let remedy = entry_removal(problems, text.at);
        problems.add(
            text.at,
            format!("`body` is empty or longer than {BODY_BYTES_MAX} bytes; it is a part of what the answer says"),
            "write a few words of the answer, or remove it to mean every body",
            remedy,
        );
        return None;
    }
    Some(text.value.as_str().into())
}

/// Whether every answer that `rule` fits is one that `before` fits.
fn takes(before: &VerdictRule, rule: &VerdictRule) -> bool {
    let holds = |part: &Arc<str>| rule.body.as_ref().is_some_and(|body| body.contains(&**part));
    before.status == rule.status && before.body.as_ref().is_none_or(holds)
}
