//! `forebay keys`: makes keys. The configuration gets only digests; a key itself is shown once, or written to a file
//! that only its owner can read.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use zeroize::Zeroize;

use crate::auth::key::{self, Secret};

use super::{OK, USAGE, WRONG, complain, say};

/// People that one list may hold.
const PEOPLE_MAX: usize = 100_000;

/// `forebay keys`.
#[derive(Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: Keys,
}

#[derive(Subcommand)]
enum Keys {
    /// Make a key, or one for each line of a list.
    New(NewArgs),
}

#[derive(Args)]
#[command(after_help = "\
With --from, the list is CSV with a header: a column `name` or `email`, and `team`, `owner`, `expires`, `class` where
they are wanted. DIR then holds keys.d/NAME.toml, a [[key]] block each, for `include = [\"keys.d/*.toml\"]`; and
secrets/NAME.key, a key each, readable for its owner only: hand them out, then delete them. Nothing is overwritten.
Exit codes: 0 made; 1 something could not be written; 2 wrong usage or a wrong list.")]
struct NewArgs {
    /// The key's name: letters, digits and . - _ @ +
    #[arg(long, required_unless_present = "from", conflicts_with = "from")]
    name: Option<String>,
    /// The team that it belongs to.
    #[arg(long)]
    team: Option<String>,
    /// The person or system behind it.
    #[arg(long, conflicts_with = "from")]
    owner: Option<String>,
    /// Its last day: a date such as 2026-12-31, or days from now such as 90d.
    #[arg(long, value_name = "DATE|DAYS")]
    expires: Option<String>,
    /// Who goes first: interactive, background or ci.
    #[arg(long, value_parser = ["interactive", "background", "ci"])]
    class: Option<String>,
    /// A list of people, CSV.
    #[arg(long, value_name = "FILE", requires = "out_dir")]
    from: Option<PathBuf>,
    /// Where the files go.
    #[arg(long, value_name = "DIR", requires = "from")]
    out_dir: Option<PathBuf>,
}

/// Whom a key is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Person {
    name: String,
    team: Option<String>,
    owner: Option<String>,
    expires: Option<String>,
    class: Option<String>,
}

/// Runs the command; returns its exit code.
pub(super) fn run(args: &KeysArgs) -> u8 {
    let Keys::New(args) = &args.command;
    let today = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date();
    let result = match (&args.from, &args.out_dir) {
        (Some(list), Some(directory)) => many(args, list, directory, today),
        _ => one(args, today),
    };
    result.unwrap_or_else(|(code, fault)| {
        complain(&format!("forebay keys: {fault}\n"));
        code
    })
}

type Outcome<T> = Result<T, (u8, String)>;

fn one(args: &NewArgs, today: jiff::civil::Date) -> Outcome<u8> {
    let person = Person {
        name: args.name.clone().unwrap_or_default(),
        team: args.team.clone(),
        owner: args.owner.clone(),
        expires: args.expires.clone(),
        class: args.class.clone(),
    };
    let person = checked(person, today).map_err(|fault| (USAGE, fault))?;
    let secret = secret()?;
    Ok(say(&format!(
        "# The key, shown this once. Its owner sets ANTHROPIC_AUTH_TOKEN to it:\n{}\n\n\
         # Its block for the configuration:\n{}",
        secret.expose(),
        block(&person, &secret)
    )))
}

fn many(args: &NewArgs, list: &Path, directory: &Path, today: jiff::civil::Date) -> Outcome<u8> {
    let text = fs::read_to_string(list).map_err(|error| (USAGE, format!("{}: {error}", list.display())))?;
    let people = people(&text, args, today).map_err(|fault| (USAGE, format!("{}: {fault}", list.display())))?;
    let (blocks, secrets) = (directory.join("keys.d"), directory.join("secrets"));
    let broken = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| (WRONG, format!("{path}: {error}"))
    };
    for path in people.iter().flat_map(|p| [block_path(&blocks, p), secret_path(&secrets, p)]) {
        if path.exists() {
            return Err((WRONG, format!("{} is there already; nothing was written", path.display())));
        }
    }
    fs::create_dir_all(&blocks).map_err(broken(&blocks))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets).map_err(broken(&secrets))?;
    for person in &people {
        let secret = secret()?;
        let path = secret_path(&secrets, person);
        create(&path, 0o600, &format!("{}\n", secret.expose())).map_err(broken(&path))?;
        let path = block_path(&blocks, person);
        create(&path, 0o644, &block(person, &secret)).map_err(broken(&path))?;
    }
    say(&format!(
        "{} keys made.\n  {}/*.toml: put `include = [\"keys.d/*.toml\"]` into the configuration beside keys.d\n  \
         {}/*.key: hand them out, then delete them\n",
        people.len(),
        blocks.display(),
        secrets.display()
    ));
    Ok(OK)
}

fn block_path(directory: &Path, person: &Person) -> PathBuf {
    directory.join(format!("{}.toml", person.name))
}

fn secret_path(directory: &Path, person: &Person) -> PathBuf {
    directory.join(format!("{}.key", person.name))
}

fn create(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

fn secret() -> Outcome<Secret> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| (WRONG, "no randomness to be had".to_owned()))?;
    let secret = key::mint(random);
    random.zeroize();
    Ok(secret)
}

/// Reads a list; the fault names its line.
fn people(text: &str, args: &NewArgs, today: jiff::civil::Date) -> Result<Vec<Person>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| header.iter().position(|title| title.eq_ignore_ascii_case(name));
    let (email, known) = (column("email"), ["name", "email", "team", "owner", "expires", "class"]);
    if let Some(stranger) = header.iter().find(|title| !known.iter().any(|name| title.eq_ignore_ascii_case(name))) {
        return Err(format!("the column `{stranger}` is unknown; there is {}", known.join(", ")));
    }
    let Some(name) = column("name").or(email) else {
        return Err("there is no column `name` or `email` in the first line".into());
    };
    let (mut people, mut names) = (Vec::new(), HashSet::new());
    for (at, record) in reader.records().enumerate() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(at as u64 + 2, csv::Position::line);
        let field = |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|v| !v.is_empty()).map(str::to_owned);
        let person = Person {
            name: field(Some(name)).unwrap_or_default(),
            team: field(column("team")).or_else(|| args.team.clone()),
            owner: field(column("owner")).or_else(|| field(email)),
            expires: field(column("expires")).or_else(|| args.expires.clone()),
            class: field(column("class")).or_else(|| args.class.clone()),
        };
        let person = checked(person, today).map_err(|fault| format!("line {line}: {fault}"))?;
        if !names.insert(person.name.to_ascii_lowercase()) {
            return Err(format!("line {line}: the name `{}` stands there twice", person.name));
        }
        people.push(person);
        if people.len() > PEOPLE_MAX {
            return Err(format!("more than {PEOPLE_MAX} lines"));
        }
    }
    if people.is_empty() { Err("no people in it".into()) } else { Ok(people) }
}

/// A person whose block `check` will take.
fn checked(mut person: Person, today: jiff::civil::Date) -> Result<Person, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_@+".contains(c);
    for name in [Some(&person.name), person.team.as_ref()].into_iter().flatten() {
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) || name.starts_with('.') {
            return Err(format!("`{name}` is not a name: letters, digits and . - _ @ +, at most 64"));
        }
    }
    if let Some(class) = person.class.as_deref().filter(|class| !["interactive", "background", "ci"].contains(class)) {
        return Err(format!("the class `{class}` is not interactive, background or ci"));
    }
    person.expires = person.expires.map(|text| last_day(&text, today)).transpose()?;
    Ok(person)
}

/// `90d` from today, or a date.
fn last_day(text: &str, today: jiff::civil::Date) -> Result<String, String> {
    let wrong = || format!("`{text}` is neither a date such as 2026-12-31 nor a number of days such as 90d");
    if let Some(days) = text.strip_suffix('d') {
        let days: i32 = days.parse().ok().filter(|days| (1..=36_500).contains(days)).ok_or_else(wrong)?;
        let date = today.checked_add(jiff::Span::new().days(days)).map_err(|_| wrong())?;
        return Ok(date.to_string());
    }
    let date: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    if date < today { Err(format!("`{text}` is over")) } else { Ok(date.to_string()) }
}

/// A ready `[[key]]` block.
fn block(person: &Person, secret: &Secret) -> String {
    let mut out = format!("[[key]]\nname = {}\n", toml_text(&person.name));
    for (name, value) in [("owner", &person.owner), ("team", &person.team), ("class", &person.class)] {
        if let Some(value) = value {
            let _ = writeln!(out, "{name} = {}", toml_text(value));
        }
    }
    let _ = writeln!(out, "hash = \"{}\"", secret.hash());
    if let Some(day) = &person.expires {
        let _ = writeln!(out, "expires = {day}");
    }
    out
}

fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> jiff::civil::Date {
        jiff::civil::date(2026, 3, 1)
    }

    fn args() -> NewArgs {
        NewArgs {
            name: None,
            team: Some("all".into()),
            owner: None,
            expires: Some("90d".into()),
            class: None,
            from: None,
            out_dir: None,
        }
    }

    #[test]
    fn a_list_fills_in_what_the_command_line_says() {
        let people = people("email,Team\n a@example.com , x\nb@example.com,\n", &args(), today()).expect("a list");
        assert_eq!(people.len(), 2);
        assert_eq!((people[0].name.as_str(), people[0].team.as_deref()), ("a@example.com", Some("x")));
        assert_eq!((people[1].team.as_deref(), people[1].owner.as_deref()), (Some("all"), Some("b@example.com")));
        assert_eq!(people[1].expires.as_deref(), Some("2026-05-30"));
    }

    #[test]
    fn faults_name_their_line() {
        let fault = |text: &str| people(text, &args(), today()).expect_err("a fault");
        assert!(fault("name\na\nb c\n").starts_with("line 3: `b c`"));
        assert!(fault("name\na\nA\n").contains("line 3: the name `A`"));
        assert!(fault("name,salary\na,1\n").contains("`salary`"));
        assert!(fault("team\nx\n").contains("no column"));
        assert!(fault("name,expires\na,2020-01-01\n").contains("is over"));
        assert!(fault("name\n../x\n").contains("line 2"));
        assert!(fault("name\n").contains("no people"));
    }

    #[test]
    fn a_block_is_toml_that_holds_the_digest_only() {
        let secret = key::mint([7; 32]);
        let owner = Some("Zo\u{eb} \"Z\" \\".to_owned());
        let person =
            Person { name: "a".into(), owner: owner.clone(), expires: Some("2026-12-31".into()), ..Person::default() };
        let text = block(&person, &secret);
        let parsed: toml::Table = text.parse().expect("TOML");
        let key = &parsed["key"][0];
        assert_eq!(key["hash"].as_str(), Some(secret.hash().as_str()));
        assert_eq!(key["owner"].as_str(), owner.as_deref());
        assert!(key["expires"].is_datetime() && !text.contains(secret.expose()));
    }

    #[test]
    fn days_and_dates() {
        assert_eq!(last_day("1d", today()).as_deref(), Ok("2026-03-02"));
        assert_eq!(last_day("2026-03-01", today()).as_deref(), Ok("2026-03-01"));
        for bad in ["0d", "d", "-1d", "soon", "2026-02-30", "2025-12-31"] {
            assert!(last_day(bad, today()).is_err(), "{bad}");
        }
    }
}
