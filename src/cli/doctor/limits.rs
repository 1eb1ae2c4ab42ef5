//! Rate limits: what an upstream's headers grant, and what a team of this size asks for.

use super::{
    Workload,
    answer::Answer,
    finding::{Finding, listed},
};
use crate::table::CredentialLimits;

/// What one model class of one organisation may have in a minute (R70).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub rpm: Option<u64>,
    /// Input tokens; cache reads do not count.
    pub itpm: Option<u64>,
    /// Output tokens.
    pub otpm: Option<u64>,
}

impl Limits {
    /// From the fields of an answer; `field` gives a field as a number.
    pub fn read(field: &dyn Fn(&str) -> Option<u64>) -> Limits {
        Limits {
            rpm: field("anthropic-ratelimit-requests-limit"),
            itpm: field("anthropic-ratelimit-input-tokens-limit"),
            otpm: field("anthropic-ratelimit-output-tokens-limit"),
        }
    }

    /// What the configuration says, over a minute.
    fn declared(limits: &CredentialLimits) -> Limits {
        Limits { rpm: limits.rpm.map(u64::from), itpm: limits.input_tpm, otpm: limits.output_tpm }
    }

    /// The lower of both, where both are known.
    fn within(self, other: Limits) -> Limits {
        let lower = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Limits {
            rpm: lower(self.rpm, other.rpm),
            itpm: lower(self.itpm, other.itpm),
            otpm: lower(self.otpm, other.otpm),
        }
    }

    fn are_all_missing(self) -> bool {
        self == Limits::default()
    }

    fn larger(self, other: Limits) -> Limits {
        Limits { rpm: self.rpm.max(other.rpm), itpm: self.itpm.max(other.itpm), otpm: self.otpm.max(other.otpm) }
    }

    fn plus(self, other: Limits) -> Limits {
        let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        Limits { rpm: add(self.rpm, other.rpm), itpm: add(self.itpm, other.itpm), otpm: add(self.otpm, other.otpm) }
    }

    fn text(self) -> String {
        let part = |number: Option<u64>, unit| number.map(|number| format!("{} {unit}", short(number)));
        let parts = [part(self.rpm, "RPM"), part(self.itpm, "ITPM"), part(self.otpm, "OTPM")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// What a team asks for in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Requests.
    pub rpm: u64,
    /// Input tokens.
    pub itpm: u64,
    /// Output tokens.
    pub otpm: u64,
}

/// Up to this many people: thousands of tokens, and hundredths of a request, per person and minute, from and to. The
/// more people, the less each: they do not all work in the same minute.
const SIZES: &[(u64, [u64; 2], [u64; 2])] = &[
    (5, [200, 300], [500, 700]),
    (20, [100, 150], [250, 350]),
    (50, [50, 75], [125, 175]),
    (100, [25, 35], [62, 87]),
    (500, [15, 20], [37, 47]),
    (u64::MAX, [10, 15], [25, 35]),
];

/// Output tokens for each hundred input tokens without cache reads: what providers grant, and what agents use.
const OUTPUT_PERCENT: u64 = 20;

/// What `people` ask for. A light workload takes the lower end of each range, a heavy one the upper, a normal one the
/// middle; a larger team is never said to need less than a smaller one.
pub fn need(people: u64, workload: Workload) -> Need {
    let within = |[from, to]: [u64; 2]| match workload {
        Workload::Light => from * 2,
        Workload::Normal => from + to,
        Workload::Heavy => to * 2,
    };
    let (mut tpm, mut rpm) = (0, 0);
    for (most, tokens, requests) in SIZES {
        let here = people.min(*most);
        tpm = tpm.max(within(*tokens).saturating_mul(here).saturating_mul(500));
        rpm = rpm.max(within(*requests).saturating_mul(here).div_ceil(200));
        if people <= *most {
            break;
        }
    }
    Need { rpm, itpm: tpm, otpm: tpm.saturating_mul(OUTPUT_PERCENT) / 100 }
}

/// A credential whose probe was answered.
pub struct Granted<'a> {
    /// `upstream/credential`.
    pub subject: String,
    /// The model that was asked.
    pub model: &'a str,
    /// What came.
    pub answer: &'a Answer,
    /// What the configuration says of it.
    pub declared: CredentialLimits,
    /// A model leads to its upstream.
    pub in_use: bool,
}

impl Granted<'_> {
    /// What its answers and the configuration bound it to.
    fn limits(&self) -> Limits {
        self.answer.limits.within(Limits::declared(&self.declared))
    }
}

/// Whether each credential's limits are known.
pub fn known(granted: &Granted<'_>) -> Finding {
    let limits = granted.limits();
    let finding = if limits.are_all_missing() {
        Finding::warn(
            "limits",
            "the answer has no anthropic-ratelimit-* fields, so the limits are not known",
            "look them up at the provider and declare them: `limits` of the credential; from a service of your own, have it send the fields",
        )
    } else if granted.answer.limits.are_all_missing() {
        Finding::ok("limits", format!("{} for each model class, as declared", limits.text()))
    } else {
        Finding::ok("limits", format!("{} for {}; each model class has its own", limits.text(), granted.model))
    };
    finding.about(&granted.subject)
}

/// Whether what is granted is enough for the team. Credentials of one organisation share its limits.
pub fn capacity(granted: &[Granted<'_>], people: u64, workload: Workload) -> Finding {
    let need = need(people, workload);
    let wanted = Limits { rpm: Some(need.rpm), itpm: Some(need.itpm), otpm: Some(need.otpm) };
    let wanted = format!("a team of {people} with a {} workload wants about {}", workload.name(), wanted.text());
    let look_up = "compare with the limits that the provider's console shows";
    let (total, models) = total(granted);
    if total.are_all_missing() {
        return Finding::warn("capacity", format!("{wanted}, and what the provider grants is not known"), look_up);
    }
    let (mut short_of, mut unknown) = (Vec::new(), Vec::new());
    for (has, wants, unit) in
        [(total.rpm, need.rpm, "RPM"), (total.itpm, need.itpm, "ITPM"), (total.otpm, need.otpm, "OTPM")]
    {
        match has {
            Some(has) if has < wants => short_of.push(format!("{} of {} {unit}", short(has), short(wants))),
            Some(_) => {}
            None => unknown.push(unit),
        }
    }
    if !short_of.is_empty() {
        return Finding::warn(
            "capacity",
            format!("{wanted}; granted for {} are only {}", listed(&models), short_of.join(", ")),
            "ask the provider for higher limits, or expect 429s at busy times",
        );
    }
    let found = format!("{wanted}; granted for {} are {}", listed(&models), total.text());
    if unknown.is_empty() {
        return Finding::ok("capacity", found);
    }
    Finding::warn("capacity", format!("{found}; not known: {}", unknown.join(", ")), look_up)
}

/// What the credentials in use have together, and for which models.
fn total<'a>(granted: &[Granted<'a>]) -> (Limits, Vec<&'a str>) {
    let mut organizations: Vec<(Option<&str>, Limits)> = Vec::new();
    let mut models = Vec::new();
    for one in granted.iter().filter(|one| one.in_use) {
        let organization = one.answer.organization.as_deref();
        match organizations.iter_mut().find(|(known, _)| known.is_some() && *known == organization) {
            Some((_, limits)) => *limits = limits.larger(one.limits()),
            None => organizations.push((organization, one.limits())),
        }
        if !models.contains(&one.model) {
            models.push(one.model);
        }
    }
    (organizations.iter().fold(Limits::default(), |sum, (_, limits)| sum.plus(*limits)), models)
}

/// `1250000` is `1.25M`.
pub fn short(number: u64) -> String {
    let scaled = |unit: u64, letter| {
        let hundredths = number / (unit / 100);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        let rest = format!("{rest:02}");
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { format!("{whole}{letter}") } else { format!("{whole}.{rest}{letter}") }
    };
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => scaled(1_000, 'k'),
        _ => scaled(1_000_000, 'M'),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    fn answer(organization: Option<&str>, rpm: u64, itpm: u64, otpm: u64) -> Answer {
        Answer {
            organization: organization.map(str::to_owned),
            limits: Limits { rpm: Some(rpm), itpm: Some(itpm), otpm: Some(otpm) },
            ..Answer::default()
        }
    }

    fn granted(answer: &Answer, in_use: bool) -> Granted<'_> {
        let declared = CredentialLimits::default();
        Granted { subject: "main/org".into(), model: "claude-x", answer, declared, in_use }
    }

    #[test]
    fn needs_follow_the_table_and_never_fall() {
        assert_eq!(need(1, Workload::Light), Need { rpm: 5, itpm: 200_000, otpm: 40_000 });
        assert_eq!(need(20, Workload::Normal), Need { rpm: 60, itpm: 2_500_000, otpm: 500_000 });
        assert_eq!(need(40, Workload::Heavy), Need { rpm: 70, itpm: 3_000_000, otpm: 600_000 });
        assert_eq!(need(1_000, Workload::Heavy), Need { rpm: 350, itpm: 15_000_000, otpm: 3_000_000 });
        for workload in [Workload::Light, Workload::Normal, Workload::Heavy] {
            let needs: Vec<u64> = (0..2_000).map(|people| need(people, workload).itpm).collect();
            assert!(needs.is_sorted(), "{workload:?}");
        }
        assert_eq!(need(u64::MAX, Workload::Heavy).itpm, u64::MAX, "saturates");
    }

    #[test]
    fn a_shortage_is_told_in_numbers() {
        let low = answer(None, 50, 30_000, 8_000);
        let finding = capacity(&[granted(&low, true)], 20, Workload::Normal);
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.found.contains("wants about 60 RPM, 2.5M ITPM, 500k OTPM"), "{}", finding.found);
        assert!(finding.found.contains("50 of 60 RPM, 30k of 2.5M ITPM, 8000 of 500k OTPM"), "{}", finding.found);
        let high = answer(None, 4_000, 4_000_000, 800_000);
        assert_eq!(capacity(&[granted(&high, true)], 20, Workload::Normal).level, Level::Ok);
    }

    #[test]
    fn an_organisation_counts_once_and_what_is_not_used_not_at_all() {
        let half = answer(Some("org-1"), 40, 1_500_000, 300_000);
        let other = answer(Some("org-2"), 40, 1_500_000, 300_000);
        let people = |granted: &[Granted<'_>]| capacity(granted, 20, Workload::Normal).level;
        assert_eq!(people(&[granted(&half, true), granted(&half, true)]), Level::Warn);
        assert_eq!(people(&[granted(&half, true), granted(&other, false)]), Level::Warn);
        assert_eq!(people(&[granted(&half, true), granted(&other, true)]), Level::Ok);
        let nameless = answer(None, 40, 1_500_000, 300_000);
        assert_eq!(people(&[granted(&nameless, true), granted(&nameless, true)]), Level::Ok);
        let partly = Answer { limits: Limits { rpm: Some(4_000), ..Limits::default() }, ..Answer::default() };
        let finding = capacity(&[granted(&partly, true)], 20, Workload::Normal);
        assert!(finding.level == Level::Warn && finding.found.ends_with("not known: ITPM, OTPM"), "{finding:?}");
    }

    #[test]
    fn missing_fields_are_a_warning() {
        let silent = Answer::default();
        assert_eq!(known(&granted(&silent, true)).level, Level::Warn);
        assert!(capacity(&[granted(&silent, true)], 3, Workload::Light).found.contains("600k ITPM"));
        let declared = CredentialLimits { rpm: Some(20), ..CredentialLimits::default() };
        let finding = known(&Granted { declared, ..granted(&silent, true) });
        assert_eq!((finding.level, finding.found.as_str()), (Level::Ok, "20 RPM for each model class, as declared"));
        let high = answer(None, 4_000, 1, 1);
        let lower = Granted { declared, ..granted(&high, true) };
        assert!(known(&lower).found.starts_with("20 RPM, 1 ITPM"), "the lower one counts");
        let some = Answer { limits: Limits { itpm: Some(1), ..Limits::default() }, ..Answer::default() };
        assert_eq!(known(&granted(&some, true)).level, Level::Ok);
        assert!(capacity(&[granted(&some, true)], 3, Workload::Light).found.ends_with("only 1 of 600k ITPM"));
    }

    #[test]
    fn numbers_are_short() {
        let all = [0, 9_999, 10_000, 62_500, 999_999, 1_000_000, 12_340_000].map(short);
        assert_eq!(all, ["0", "9999", "10k", "62.5k", "999.99k", "1M", "12.34M"]);
    }
}
