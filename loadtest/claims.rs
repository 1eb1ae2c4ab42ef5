//! What a scenario claims of a proxy, and whether it holds: rows with bounds in, a table with PASS, FAIL and VOID out.
//!
//! nginx is the control. A round in which the control itself misses a bound says nothing about the one beside it, so
//! that round does not count; a claim without enough rounds that count is void.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path};

/// Who is held against nobody.
const CONTROL: &str = "nginx";

/// One figure of one run, and what it may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Claim {
    /// The figure, unit last.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// The greatest value that is good; without one the figure is only told.
    pub at_most: Option<f64>,
    /// As many times the control's value is good too.
    pub of_control: Option<f64>,
    /// A round in which the control is over `at_most` does not count.
    pub voids: bool,
    /// The worst round decides, not the median one: for counts of what must never happen.
    pub worst: bool,
}

impl Claim {
    /// A delay or a size that may be `at_most`, and that a busy machine can spoil for the control too.
    pub fn bounded(what: &str, value: f64, at_most: f64) -> Claim {
        Claim { what: what.into(), value, at_most: Some(at_most), of_control: None, voids: true, worst: false }
    }

    /// A size that no other program's work changes.
    pub fn sized(what: &str, value: f64, at_most: f64) -> Claim {
        Claim { voids: false, ..Claim::bounded(what, value, at_most) }
    }

    /// Something that must never happen, and how often it did.
    pub fn never(what: &str, count: usize) -> Claim {
        Claim { voids: false, worst: true, ..Claim::bounded(what, count as f64, 0.0) }
    }

    /// A figure that is only told.
    pub fn told(what: &str, value: f64) -> Claim {
        Claim { at_most: None, ..Claim::sized(what, value, 0.0) }
    }

    /// The same, or as many times what the control shows.
    pub fn or_of_control(self, times: f64) -> Claim {
        Claim { of_control: Some(times), ..self }
    }
}

/// One run, as a line of JSON.
#[derive(Debug, Deserialize, Serialize)]
pub struct Row {
    /// The round.
    pub round: u32,
    /// What stood there.
    pub system: String,
    /// What was done to it.
    pub case: String,
    /// What it showed.
    pub claims: Vec<Claim>,
    /// The first few things that went wrong.
    pub faults: Vec<String>,
}

/// How a claim came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// Nothing can be said.
    Void,
    /// There is no bound.
    Told,
}

#[derive(Serialize)]
struct Judged {
    case: String,
    what: String,
    bound: String,
    control: Option<f64>,
    /// By system: its value and its verdict.
    systems: BTreeMap<String, (f64, Verdict)>,
    rounds: usize,
    rounds_counted: usize,
}

/// Prints the verdicts on `rows`; true when none is a FAIL.
///
/// # Errors
/// When a file cannot be read or written, or a row is not one.
pub fn print(rows: &Path, json: Option<&Path>) -> io::Result<bool> {
    let text = fs::read_to_string(rows)?;
    let rows: Vec<Row> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let judged = judge(&rows);
    print!("{}", markdown(&rows, &judged));
    if let Some(json) = json {
        fs::write(json, serde_json::to_vec_pretty(&judged)?)?;
    }
    Ok(judged.iter().flat_map(|one| one.systems.values()).all(|(_, verdict)| *verdict != Verdict::Fail))
}

fn judge(rows: &[Row]) -> Vec<Judged> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        for claim in &row.claims {
            if !names.contains(&(&row.case, &claim.what)) {
                names.push((&row.case, &claim.what));
            }
        }
    }
    names.into_iter().map(|(case, what)| judge_one(rows, case, what)).collect()
}

fn judge_one(rows: &[Row], case: &str, what: &str) -> Judged {
    // By round and system.
    let mut found: BTreeMap<u32, BTreeMap<&str, &Claim>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.case == case) {
        if let Some(claim) = row.claims.iter().find(|claim| claim.what == what) {
            found.entry(row.round).or_default().insert(&row.system, claim);
        }
    }
    let rounds = found.len();
    found.retain(|_, systems| {
        let Some(control) = systems.get(CONTROL) else { return !systems.values().any(|claim| claim.voids) };
        !control.voids || control.at_most.is_none_or(|most| control.value <= most)
    });
    let counted = found.len();
    let of = |system: &str| found.values().filter_map(|systems| systems.get(system).copied()).collect::<Vec<_>>();
    let control = fold(&of(CONTROL));
    let mut systems = BTreeMap::new();
    let mut bound = String::new();
    for row in rows.iter().filter(|row| row.case == case && row.system != CONTROL) {
        let Some(sample) = row.claims.iter().find(|claim| claim.what == what) else { continue };
        bound = text_of(sample);
        let verdict = match (sample.at_most, fold(&of(&row.system))) {
            (None, Some(value)) => (value, Verdict::Told),
            (Some(_), Some(value)) if counted * 2 < rounds => (value, Verdict::Void),
            (Some(most), Some(value)) => {
                let relative = sample.of_control.zip(control).map_or(most, |(times, control)| times * control);
                (value, if value <= most.max(relative) { Verdict::Pass } else { Verdict::Fail })
            }
            // All of its rounds were void: what it showed in them is told all the same.
            (_, None) => (sample.value, Verdict::Void),
        };
        systems.insert(row.system.clone(), verdict);
    }
    let control = control.or_else(|| {
        let control = rows.iter().find(|row| row.case == case && row.system == CONTROL)?;
        Some(control.claims.iter().find(|claim| claim.what == what)?.value)
    });
    Judged { case: case.into(), what: what.into(), bound, control, systems, rounds, rounds_counted: counted }
}

/// One value for several rounds.
fn fold(claims: &[&Claim]) -> Option<f64> {
    let mut values: Vec<f64> = claims.iter().map(|claim| claim.value).collect();
    values.sort_by(f64::total_cmp);
    let place = if claims.first()?.worst { values.len() - 1 } else { values.len() / 2 };
    values.get(place).copied()
}

fn text_of(claim: &Claim) -> String {
    match (claim.at_most, claim.of_control) {
        (None, _) => "-".into(),
        (Some(most), None) => format!("<= {most}"),
        (Some(most), Some(times)) => format!("<= {most} or {times} x nginx"),
    }
}

fn markdown(rows: &[Row], judged: &[Judged]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in judged.iter().flat_map(|one| one.systems.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut text = "| | figure | bound | nginx |".to_owned();
    for name in &names {
        let _ = write!(text, " {name} |");
    }
    text.push_str(" rounds that count |\n|---|---|---|---:|");
    text.push_str(&"---:|".repeat(names.len() + 1));
    text.push('\n');
    let mut last = "";
    for one in judged {
        let case = if one.case == last { "" } else { &one.case };
        last = &one.case;
        let control = one.control.map_or_else(|| "-".into(), short);
        let _ = write!(text, "| {case} | {} | {} | {control} |", one.what, one.bound);
        for name in &names {
            let _ = match one.systems.get(*name) {
                None => write!(text, " - |"),
                Some((value, Verdict::Told)) => write!(text, " {} |", short(*value)),
                Some((value, verdict)) => {
                    write!(text, " {} {} |", short(*value), format!("{verdict:?}").to_uppercase())
                }
            };
        }
        let _ = writeln!(text, " {} of {} |", one.rounds_counted, one.rounds);
    }
    for row in rows.iter().filter(|row| !row.faults.is_empty()) {
        let _ = writeln!(text, "\nround {}, {}, {}: {}", row.round, row.case, row.system, row.faults.join("; "));
    }
    text
}

fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(round: u32, system: &str, claim: Claim) -> Row {
        Row { round, system: system.into(), case: "c".into(), claims: vec![claim], faults: vec![] }
    }

    fn verdict(rows: &[Row]) -> (f64, Verdict) {
        judge(rows)[0].systems["forebay"]
    }

    #[test]
    fn a_bound_is_held_by_the_median_of_the_rounds_that_count() {
        let p99 = |value| Claim::bounded("p99 ms", value, 100.0);
        let mut rows = vec![
            row(1, "nginx", p99(5.0)),
            row(1, "forebay", p99(300.0)),
            row(2, "nginx", p99(5.0)),
            row(2, "forebay", p99(20.0)),
            row(3, "nginx", p99(5.0)),
            row(3, "forebay", p99(30.0)),
        ];
        assert_eq!(verdict(&rows), (30.0, Verdict::Pass));
        rows[3].claims[0].value = 200.0;
        assert_eq!(verdict(&rows), (200.0, Verdict::Fail));
        // The control has missed, too, where the others were slow.
        rows[0].claims[0].value = 150.0;
        assert_eq!(verdict(&rows), (200.0, Verdict::Fail));
        rows[2].claims[0].value = 150.0;
        assert_eq!(verdict(&rows).1, Verdict::Void);
    }

    #[test]
    fn a_bound_may_be_a_multiple_of_the_controls_figure() {
        let p99 = |value| Claim::bounded("p99 ms", value, 50.0).or_of_control(1.5);
        let rows = |nginx, forebay| vec![row(1, "nginx", p99(nginx)), row(1, "forebay", p99(forebay))];
        assert_eq!(verdict(&rows(40.0, 59.0)).1, Verdict::Pass);
        assert_eq!(verdict(&rows(40.0, 61.0)).1, Verdict::Fail);
        assert_eq!(verdict(&rows(1.0, 49.0)).1, Verdict::Pass);
        assert_eq!(verdict(&rows(51.0, 1.0)).1, Verdict::Void);
    }

    #[test]
    fn what_must_never_happen_fails_when_it_happens_once_and_no_control_excuses_it() {
        let never = |count| Claim::never("broken", count);
        let rows = [
            row(1, "nginx", never(7)),
            row(1, "forebay", never(0)),
            row(2, "nginx", never(7)),
            row(2, "forebay", never(1)),
            row(3, "nginx", never(7)),
            row(3, "forebay", never(0)),
        ];
        assert_eq!(verdict(&rows), (1.0, Verdict::Fail));
        assert_eq!(
            verdict(&[row(1, "nginx", Claim::told("x", 1.0)), row(1, "forebay", Claim::told("x", 9.0))]).1,
            Verdict::Told
        );
    }

    #[test]
    fn without_a_control_nothing_that_it_could_void_is_judged() {
        assert_eq!(verdict(&[row(1, "forebay", Claim::bounded("p99 ms", 1.0, 100.0))]).1, Verdict::Void);
        assert_eq!(verdict(&[row(1, "forebay", Claim::sized("KiB", 1.0, 12.0))]).1, Verdict::Pass);
    }
}
