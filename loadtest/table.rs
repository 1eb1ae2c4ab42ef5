//! Rows to tables: medians over the rounds with their spread, differences and ratios paired by round, and the verdict
//! which figures are void because a control could not repeat its own.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::Path};

/// A figure is void when a control's own spread, (max - min) / median, is more than this.
const SPREAD_MAX: f64 = 0.20;
/// The systems that are not forebay and that everything is held against.
const CONTROLS: [&str; 2] = ["direct", "nginx"];

#[derive(Deserialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

#[derive(Deserialize)]
struct Row {
    round: u32,
    system: String,
    case: String,
    unit: String,
    per_second: f64,
    cpu_us: Option<f64>,
    rss_mb: Option<f64>,
    delay_us: Option<Quantiles>,
    first_event_us: Option<Quantiles>,
    load_busy_pct: f64,
    proxy_busy_pct: f64,
    foreign_pct: f64,
    cpu_busy_stolen_pct: Vec<[f64; 2]>,
    faults: usize,
}

type Figure = (&'static str, fn(&Row) -> Option<f64>);

/// What is told of a run, besides what is compared.
const FIGURES: [Figure; 8] = [
    ("per second", |row| Some(row.per_second)),
    ("CPU us", |row| row.cpu_us),
    ("p50 us", |row| Some(row.delay_us.as_ref()?.p50)),
    ("p99 us", |row| Some(row.delay_us.as_ref()?.p99)),
    ("first event p50 us", |row| Some(row.first_event_us.as_ref()?.p50)),
    ("RSS MB", |row| row.rss_mb),
    ("proxy busy %", |row| row.cpu_us.map(|_| row.proxy_busy_pct)),
    ("load busy %", |row| Some(row.load_busy_pct)),
];
/// The figures whose repetition by the controls decides about a case's verdict.
const JUDGED: usize = 5;

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
    rounds: usize,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let lower = if values.len().is_multiple_of(2) { *values.get(middle.checked_sub(1)?)? } else { upper };
        Some(Spread {
            median: f64::midpoint(lower, upper),
            min: *values.first()?,
            max: *values.last()?,
            rounds: values.len(),
        })
    }

    fn relative(&self) -> f64 {
        (self.max - self.min) / self.median.abs().max(f64::MIN_POSITIVE)
    }
}

#[derive(Serialize)]
struct System {
    #[serde(rename = "system")]
    name: String,
    figures: BTreeMap<&'static str, Spread>,
    /// By figure: this system's over nginx's, paired by round.
    over_nginx: BTreeMap<&'static str, Spread>,
    /// By delay: this system's less the direct one's, paired by round.
    added_us: BTreeMap<&'static str, Spread>,
    faults: usize,
}

#[derive(Serialize)]
struct Case {
    #[serde(rename = "case")]
    name: String,
    unit: String,
    systems: Vec<System>,
    /// By figure: the larger spread of the two controls.
    control_spread: BTreeMap<&'static str, f64>,
    void: Vec<&'static str>,
    stolen_pct_max: f64,
    /// Of one core.
    foreign_pct: Option<Spread>,
}

/// Prints the tables of `rows`, and writes them to `json`.
///
/// # Errors
/// When a file cannot be read or written, or a row is not one.
pub fn print(rows: &Path, json: Option<&Path>) -> io::Result<()> {
    let text = fs::read_to_string(rows)?;
    let rows: Vec<Row> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let cases = sum_up(&rows);
    for case in &cases {
        print!("{}", case.markdown());
    }
    match json {
        Some(json) => fs::write(json, serde_json::to_vec_pretty(&cases)?),
        None => Ok(()),
    }
}

/// The different values of a field, in the order in which they come.
fn distinct<'a>(rows: &[&'a Row], field: fn(&Row) -> &str) -> Vec<&'a str> {
    let mut values: Vec<&'a str> = Vec::new();
    for row in rows {
        if !values.contains(&field(row)) {
            values.push(field(row));
        }
    }
    values
}

fn sum_up(rows: &[Row]) -> Vec<Case> {
    let all: Vec<&Row> = rows.iter().collect();
    let cases = distinct(&all, |row| &row.case).into_iter();
    cases.map(|case| Case::of(&all.iter().filter(|row| row.case == case).copied().collect::<Vec<_>>())).collect()
}

impl Case {
    fn of(rows: &[&Row]) -> Case {
        let names = distinct(rows, |row| &row.system);
        let systems: Vec<System> = names.iter().map(|system| System::of(system, rows)).collect();
        let mut control_spread = BTreeMap::new();
        for system in systems.iter().filter(|system| CONTROLS.contains(&system.name.as_str())) {
            for (figure, _) in FIGURES.iter().take(JUDGED) {
                if let Some(spread) = system.figures.get(figure) {
                    let larger = control_spread.entry(*figure).or_insert(0.0_f64);
                    *larger = larger.max(spread.relative());
                }
            }
        }
        let void = control_spread.iter().filter(|(_, spread)| **spread > SPREAD_MAX).map(|(figure, _)| *figure);
        let stolen = rows.iter().flat_map(|row| row.cpu_busy_stolen_pct.iter().map(|[_, stolen]| *stolen));
        Case {
            name: rows.first().map_or_else(String::new, |row| row.case.clone()),
            unit: rows.first().map_or_else(String::new, |row| row.unit.clone()),
            void: void.collect(),
            stolen_pct_max: stolen.fold(0.0, f64::max),
            foreign_pct: Spread::of(rows.iter().map(|row| row.foreign_pct).collect()),
            systems,
            control_spread,
        }
    }

    fn markdown(&self) -> String {
        let shown: Vec<Figure> = FIGURES
            .into_iter()
            .filter(|(figure, _)| self.systems.iter().any(|system| system.figures.contains_key(figure)))
            .collect();
        let mut text = format!("\n**{}** (per {})\n\n| |", self.name, self.unit);
        for (figure, _) in &shown {
            let void = if self.void.contains(figure) { " (void)" } else { "" };
            let _ = write!(text, " {figure}{void} |");
        }
        text.push_str(" CPU x nginx | added p50 us | added p99 us | faults |\n|---|");
        text.push_str(&"---:|".repeat(shown.len() + 4));
        text.push('\n');
        for system in &self.systems {
            let _ = write!(text, "| {} |", system.name);
            for (figure, _) in &shown {
                let _ = write!(text, " {} |", cell(system.figures.get(figure)));
            }
            let ratio = system.over_nginx.get("CPU us").map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median));
            let (p50, p99) = (cell(system.added_us.get("p50 us")), cell(system.added_us.get("p99 us")));
            let _ = writeln!(text, " {ratio} | {p50} | {p99} | {} |", system.faults);
        }
        let spreads: Vec<_> =
            self.control_spread.iter().map(|(figure, spread)| format!("{figure} {:.0} %", spread * 100.0)).collect();
        let _ = writeln!(
            text,
            "\nThe controls' own spread: {}. Other programs took {} % of a core; the hypervisor stole at most {:.0} %.",
            spreads.join(", "),
            cell(self.foreign_pct.as_ref()),
            self.stolen_pct_max
        );
        text
    }
}

impl System {
    fn of(system: &str, rows: &[&Row]) -> System {
        let of = |name: &str| rows.iter().filter(|row| row.system == name).copied().collect::<Vec<_>>();
        let (own, nginx, direct) = (of(system), of("nginx"), of("direct"));
        let (mut figures, mut over_nginx, mut added_us) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (figure, get) in FIGURES {
            figures.extend(Spread::of(own.iter().filter_map(|row| get(row)).collect()).map(|spread| (figure, spread)));
            let paired = |others: &[&Row], join: fn(f64, f64) -> f64| {
                let pairs = own.iter().filter_map(|row| {
                    let other = others.iter().find(|other| other.round == row.round)?;
                    Some(join(get(row)?, get(other)?))
                });
                Spread::of(pairs.collect()).map(|spread| (figure, spread))
            };
            if system != "direct" {
                over_nginx.extend(paired(&nginx, |own, other| own / other));
                added_us.extend(paired(&direct, |own, other| own - other).filter(|_| figure.ends_with(" us")));
            }
        }
        let faults = own.iter().map(|row| row.faults).sum();
        System { name: system.to_owned(), figures, over_nginx, added_us, faults }
    }
}

/// A median with its extremes.
fn cell(spread: Option<&Spread>) -> String {
    let Some(spread) = spread else { return "-".to_owned() };
    format!("{} ({}..{})", short(spread.median), short(spread.min), short(spread.max))
}

/// Three digits are all that is known.
fn short(value: f64) -> String {
    match value.abs() {
        10_000.0.. => format!("{:.1}k", value / 1000.0),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(round: u32, system: &str, cpu_us: Option<f64>, p50: f64) -> Row {
        Row {
            round,
            system: system.into(),
            case: "c".into(),
            unit: "request".into(),
            per_second: 100.0,
            cpu_us,
            rss_mb: None,
            delay_us: Some(Quantiles { p50, p99: p50 }),
            first_event_us: None,
            load_busy_pct: 1.0,
            proxy_busy_pct: 1.0,
            foreign_pct: 0.0,
            cpu_busy_stolen_pct: vec![],
            faults: 0,
        }
    }

    #[test]
    fn medians_ratios_and_differences_are_paired_by_round() {
        let rows = [
            row(1, "direct", None, 20.0),
            row(1, "nginx", Some(40.0), 100.0),
            row(1, "forebay", Some(20.0), 80.0),
            row(2, "direct", None, 22.0),
            row(2, "nginx", Some(44.0), 100.0),
            row(2, "forebay", Some(33.0), 92.0),
        ];
        let cases = sum_up(&rows);
        assert_eq!(cases.len(), 1);
        let forebay = &cases[0].systems[2];
        assert_eq!(forebay.over_nginx["CPU us"], Spread { median: 0.625, min: 0.5, max: 0.75, rounds: 2 });
        assert!((forebay.added_us["p50 us"].median - 65.0).abs() < 1e-9);
        assert!(cases[0].void.is_empty(), "{:?}", cases[0].control_spread);
    }

    #[test]
    fn a_control_that_cannot_repeat_itself_voids_the_figure() {
        let rows = [
            row(1, "direct", None, 20.0),
            row(2, "direct", None, 26.0),
            row(1, "nginx", Some(40.0), 100.0),
            row(2, "nginx", Some(41.0), 100.0),
        ];
        assert_eq!(sum_up(&rows)[0].void, ["p50 us", "p99 us"]);
    }
}
