//! Whom a refusal sends a developer to, and the keys that somebody should look at.

use super::finding::{Finding, counted, listed};
use crate::{
    base::Wall,
    table::{Caller, Table},
};

/// So long before its end, a key is worth a word, in milliseconds.
const NOTICE_MS: u64 = 14 * 24 * 60 * 60 * 1_000;

/// Whether a refusal says whom to ask.
pub fn contact(table: &Table) -> Finding {
    match &table.org.contact {
        Some(contact) => Finding::ok("contact", format!("refusals end with `{contact}`")),
        None => Finding::warn(
            "contact",
            "refusals name nobody to ask",
            "set [org] contact, such as \"#ai-platform on Slack\"",
        ),
    }
}

/// Whether keys end soon, have ended, are switched off or belong to nobody.
pub fn keys(table: &Table, now: Wall) -> Vec<Finding> {
    let names = |choose: &dyn Fn(&Caller) -> bool| {
        let chosen = table.callers.iter().filter(|caller| choose(caller));
        let name = |caller: &Caller| match &caller.expires {
            Some(expiry) => format!("{} ({})", caller.name, expiry.day),
            None => caller.name.to_string(),
        };
        chosen.map(name).collect::<Vec<_>>()
    };
    let has_ended = |caller: &Caller| caller.expires.as_ref().is_some_and(|expiry| expiry.at <= now);
    let ends_soon = |caller: &Caller| {
        caller.expires.as_ref().is_some_and(|expiry| expiry.at > now && expiry.at.0 - now.0 <= NOTICE_MS)
    };
    let checks: [(Vec<String>, &str, &str); 4] = [
        (names(&|c| !c.disabled && has_ended(c)), "past the last day", "remove them, or give them a later `expires`"),
        (
            names(&|c| !c.disabled && ends_soon(c)),
            "within 14 days of the end",
            "tell their owners; `forebay keys new` makes the next ones",
        ),
        (names(&|c| c.disabled), "disabled", "remove those that nobody will switch on again"),
        (
            names(&|c| !c.disabled && c.owner.is_none()),
            "without an owner",
            "add `owner`, so that a leak finds its person",
        ),
    ];
    let mut findings: Vec<Finding> = checks
        .into_iter()
        .filter(|(names, ..)| !names.is_empty())
        .map(|(names, what, advice)| {
            let found = format!("{} {what}: {}", counted(names.len(), "key is", "keys are"), listed(&names));
            Finding::warn("keys", found, advice)
        })
        .collect();
    if table.callers.is_empty() {
        findings.push(Finding::fail(
            "keys",
            "there is no [[key]]: nobody is let in",
            "make one with `forebay keys new`",
        ));
    } else if findings.is_empty() {
        let count = counted(table.callers.len(), "key", "keys");
        findings.push(Finding::ok("keys", format!("{count}, each with an owner, none near its end")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, super::sample, *};

    const DAY_MS: u64 = 86_400_000;
    /// 2026-03-01T00:00:00Z.
    const NOW: Wall = Wall(1_772_323_200_000);

    fn table(keys: &[&str]) -> Table {
        let keys: Vec<String> = keys.iter().enumerate().map(|(number, more)| sample::key(number, more)).collect();
        sample::table(&keys.concat())
    }

    fn found(keys: &[&str]) -> Vec<(Level, String)> {
        super::keys(&table(keys), NOW).into_iter().map(|finding| (finding.level, finding.found)).collect()
    }

    #[test]
    fn keys_that_need_a_look_are_named() {
        let all = found(&[
            "owner = \"x\"\nexpires = 2026-02-28",
            "owner = \"x\"\nexpires = 2026-03-14",
            "owner = \"x\"\nexpires = 2026-03-15",
            "disabled = true",
            "",
        ]);
        let want = [
            "1 key is past the last day: k0 (2026-02-28)",
            "1 key is within 14 days of the end: k1 (2026-03-14)",
            "1 key is disabled: k3",
            "1 key is without an owner: k4",
        ];
        assert_eq!(all, want.map(|text| (Level::Warn, text.to_owned())), "a day ends at {}", NOW.0 + DAY_MS);
    }

    #[test]
    fn good_keys_are_counted() {
        assert_eq!(
            found(&["owner = \"x\"", "owner = \"y\""]),
            [(Level::Ok, "2 keys, each with an owner, none near its end".into())]
        );
        let many: Vec<&str> = vec![""; 7];
        assert_eq!(found(&many)[0].1, "7 keys are without an owner: k0, k1, k2, k3, k4 and 2 more");
    }

    #[test]
    fn the_contact_is_shown() {
        let mut table = table(&["owner = \"x\""]);
        assert_eq!(contact(&table).level, Level::Warn);
        table.org.contact = Some("#ai".into());
        assert_eq!(contact(&table).found, "refusals end with `#ai`");
    }
}
