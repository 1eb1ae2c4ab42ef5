//! What one check found, and how it is written: a line for people, an object for programs.

use serde::Serialize;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// It runs, but not as production should.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check, from a fixed set of words.
    pub check: &'static str,
    /// The upstream, credential or model that it is about.
    pub subject: Option<String>,
    /// How good it is.
    pub level: Level,
    /// What was found, as a clause without a full stop. Never a secret.
    pub found: String,
    /// What to do; `None` when there is nothing.
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, found: impl AsRef<str>) -> Finding {
        Finding { check, subject: None, level: Level::Ok, found: clean(found.as_ref()), advice: None }
    }

    /// Something should be done.
    pub fn warn(check: &'static str, found: impl AsRef<str>, advice: impl AsRef<str>) -> Finding {
        Finding { level: Level::Warn, advice: Some(clean(advice.as_ref())), ..Finding::ok(check, found) }
    }

    /// Something must be done.
    pub fn fail(check: &'static str, found: impl AsRef<str>, advice: impl AsRef<str>) -> Finding {
        Finding { level: Level::Fail, ..Finding::warn(check, found, advice) }
    }

    /// Names what it is about.
    pub fn about(self, subject: impl AsRef<str>) -> Finding {
        Finding { subject: Some(clean(subject.as_ref())), ..self }
    }

    /// The finding as one line.
    pub fn line(&self) -> String {
        let level = match self.level {
            Level::Ok => "OK  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        let subject = self.subject.as_ref().map_or_else(String::new, |subject| format!("{subject}: "));
        let advice = self.advice.as_ref().map_or_else(String::new, |advice| format!(" -> {advice}."));
        format!("{level}  {:<11} {subject}{}.{advice}", self.check, self.found)
    }
}

/// Names and messages of others may hold anything; a line stays a line.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How many findings have each level: OK, WARN, FAIL.
pub fn count(findings: &[Finding]) -> [usize; 3] {
    [Level::Ok, Level::Warn, Level::Fail].map(|level| findings.iter().filter(|f| f.level == level).count())
}

/// A number of things, with the word for them.
pub fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// At most five names, and how many more there are.
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN_MAX: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN_MAX).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_it_quotes() {
        let finding = Finding::fail("credential", "refused:\r\n\u{1b}[2Jbad", "replace it").about("a/b");
        assert_eq!(finding.line(), "FAIL  credential  a/b: refused:   [2Jbad. -> replace it.");
        assert_eq!(Finding::ok("clock", "right").line(), "OK    clock       right.");
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed(&["a", "b"]), "a, b");
        assert_eq!(listed(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
