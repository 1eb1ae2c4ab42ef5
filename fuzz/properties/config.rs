//! A configuration's text: whatever it is, it compiles or is told what is wrong; the report renders, shows no secret and
//! points into the text; and doing what its hints say changes something, and of a text that is TOML makes a configuration.

use forebay::base::Wall;
use forebay::config::{self, Remedy, Report, host::Host};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A variable's value, and a key as people paste it: neither may stand in a report.
const CANARY: &str = "sk-ant-api03-canary-0123456789";
/// Rounds of mending after which nothing may be left that a change of the text would mend. Each round may bring to light
/// what the errors before it hid, so it is more than one.
const ROUNDS_MAX: usize = 12;

/// A machine on which every variable is set and one file is there.
struct Machine;

impl Host for Machine {
    fn var(&self, name: &str) -> Option<String> {
        (!name.starts_with('_')).then(|| CANARY.to_owned())
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("secret") => Ok(CANARY.as_bytes().to_vec()),
            Some("more.toml") => Ok(b"[[team]]\nname = \"more\"\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(vec!["more.toml".into(), "secret".into()])
    }

    fn is_open_to_all(&self, _: &Path) -> bool {
        true
    }

    fn now(&self) -> Wall {
        Wall(1_800_000_000_000)
    }
}

fn parse(text: &str) -> Result<(), Report> {
    config::parse(Path::new("etc/forebay.toml"), text, &Machine).map(|_| ())
}

/// The property of a text.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let is_toml = text.parse::<toml::Table>().is_ok();
    let mut text = text.to_owned();
    for _ in 0..ROUNDS_MAX {
        let Err(report) = parse(&text) else { return };
        check(&report, &text);
        let mended = report.mended(0);
        let changeable = report.problems().iter().any(|problem| matches!(problem.remedy, Remedy::Edits(_)));
        if !changeable {
            return;
        }
        assert_ne!(mended, text, "a hint that is a change changes something:\n{report}");
        text = mended;
    }
    // What is not even TOML may have been meant in too many ways.
    assert!(
        !is_toml,
        "still wrong after {ROUNDS_MAX} rounds of its own hints:\n{}\nin\n{text}",
        parse(&text).unwrap_err()
    );
}

/// The report can be shown, and what it says lies where it says.
fn check(report: &Report, text: &str) {
    assert!(!report.problems().is_empty());
    let shown = report.to_string();
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(shown.lines().count() <= report.problems().len() * 40 + 1);
    for problem in report.problems() {
        let source = &report.sources()[problem.at.file as usize];
        let fits = |start: usize, end: usize| source.text.get(start..end).is_some();
        assert!(fits(problem.at.start, problem.at.end), "{:?} is no place in the text", problem.at);
        assert!(!problem.cause.is_empty() && !problem.hint.is_empty());
        match &problem.remedy {
            Remedy::Edits(edits) => assert!(edits.iter().all(|edit| {
                let source = &report.sources()[edit.at.file as usize];
                source.text.get(edit.at.start..edit.at.end).is_some()
            })),
            Remedy::Variable(name) => assert!(!name.is_empty()),
            Remedy::File(path) => assert_ne!(path, &PathBuf::new()),
        }
    }
    assert_eq!(&*report.sources()[0].text, text);
}
