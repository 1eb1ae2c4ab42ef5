//! Reads one section against its schema: every unknown, refused, misspelt, missing or ill-shaped key is told, and a
//! misspelt one is still read as what was meant, so that one typing error makes one report.
//!
//! Written by hand over the parsed tree, because a derived deserializer stops at its first error.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnose::{At, Edit, Problems, Remedy, Spot, nearest};
use super::syntax::line_at;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// A number that may have a point.
    Amount,
    /// A list of texts.
    Texts,
    /// A text or a list of texts.
    TextOrTexts,
    /// A date, or a date and time; in quotes too.
    Date,
    /// A text or a section.
    TextOrSection,
    /// A section.
    Section,
    /// A section that may stand many times.
    Sections,
}

impl Shape {
    fn noun(self) -> &'static str {
        match self {
            Shape::Text => "a text in quotes",
            Shape::Flag => "`true` or `false`",
            Shape::Number => "a whole number",
            Shape::Amount => "a number such as 2.5",
            Shape::Texts => "a list of texts in quotes",
            Shape::TextOrTexts => "a text in quotes, or a list of them",
            Shape::Date => "a date such as 2026-12-31",
            Shape::TextOrSection => "a text in quotes, or a section",
            Shape::Section => "a section",
            Shape::Sections => "a list of sections",
        }
    }
}

/// A key of a section.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its value's shape.
    pub shape: Shape,
    /// A value for hints, as TOML.
    pub example: &'static str,
}

/// The keys of a section.
pub struct Schema {
    /// How messages call it, such as ``[[upstream]]``.
    pub title: &'static str,
    /// What it may hold.
    pub keys: &'static [Key],
    /// What it may not hold although someone may expect it: the key, and a clause that says why.
    pub refused: &'static [(&'static str, &'static str)],
}

/// A section that has been checked against its schema.
pub struct Section<'d> {
    /// Its header, or the whole of it when it is written in braces.
    pub at: Spot,
    schema: &'static Schema,
    values: BTreeMap<&'static str, Kept<'d>>,
    ill_shaped: Vec<&'static str>,
}

/// A value that has the shape of its key.
struct Kept<'d> {
    value: &'d Spanned<DeValue<'d>>,
    at: Spot,
}

impl<'d> Section<'d> {
    /// Checks `table` and keeps what is good.
    pub fn open(problems: &mut Problems, schema: &'static Schema, table: &'d DeTable<'d>, at: Spot) -> Section<'d> {
        let mut section = Section { at, schema, values: BTreeMap::new(), ill_shaped: Vec::new() };
        let known = |name: &str| schema.keys.iter().find(|key| key.name == name);
        let mut strangers = Vec::new();
        for (name, value) in table {
            match known(name.get_ref()) {
                Some(key) => section.keep(problems, key, section.spot(name.span()), value),
                None => strangers.push((name, value)),
            }
        }
        for (name, value) in strangers {
            section.stranger(problems, name, value);
        }
        section
    }

    fn spot(&self, span: std::ops::Range<usize>) -> Spot {
        Spot { file: self.at.file, start: span.start, end: span.end }
    }

    /// A key that the schema does not have.
    fn stranger(
        &mut self,
        problems: &mut Problems,
        name: &Spanned<std::borrow::Cow<'d, str>>,
        value: &'d Spanned<DeValue<'d>>,
    ) {
        let (text, title, at) = (name.get_ref().as_ref(), self.schema.title, self.spot(name.span()));
        if let Some((_, why)) = self.schema.refused.iter().find(|(refused, _)| *refused == text) {
            let remedy = removal(problems, at, value);
            problems.add(at, format!("`{text}` in {title} {why}"), format!("remove `{text}`"), remedy);
            return;
        }
        let schema = self.schema;
        let free = schema.keys.iter().filter(|key| !self.has(key.name));
        let near = nearest(text, free.map(|key| key.name));
        let meant = schema.keys.iter().find(|key| Some(key.name) == near);
        let cause = format!("`{text}` is not a key of {title}");
        if let Some(key) = meant {
            problems.add(at, cause, format!("write `{}`", key.name), Remedy::replace(at, key.name));
            self.keep(problems, key, at, value);
        } else {
            let offered = schema.keys.iter().filter(|key| !key.example.is_empty());
            let names: Vec<&str> = offered.map(|key| key.name).collect();
            let hint = format!("remove it; {title} has {}", names.join(", "));
            let remedy = removal(problems, at, value);
            problems.add(at, cause, hint, remedy);
        }
    }

    /// Keeps a value if it has the right shape, else tells.
    fn keep(&mut self, problems: &mut Problems, key: &Key, name: Spot, value: &'d Spanned<DeValue<'d>>) {
        let at = self.spot(value.span());
        if fits(key.shape, value.get_ref()) {
            self.values.insert(key.name, Kept { value, at });
            return;
        }
        self.ill_shaped.push(key.name);
        let text = problems.text(at.file);
        let raw = text.get(value.span()).unwrap_or_default();
        let cause = format!("`{}` is {}, and must be {}", key.name, kind(value.get_ref()), key.shape.noun());
        let better = reshape(key, value.get_ref(), raw).unwrap_or_else(|| key.example.to_owned());
        let is_header = value.get_ref().is_table() && !raw.starts_with('{') || raw.starts_with("[[");
        let (hint, remedy) = if is_header {
            (format!("write `{} = {better}`, or remove it", key.name), removal(problems, name, value))
        } else {
            (format!("write {better}"), Remedy::replace(at, better))
        };
        problems.add(at, cause, hint, remedy);
    }

    /// Whether a key was written, well or ill shaped.
    pub fn has(&self, name: &'static str) -> bool {
        self.values.contains_key(name) || self.is_told(name)
    }

    /// Whether a key was written in a wrong shape, which has been told.
    pub fn is_told(&self, name: &'static str) -> bool {
        self.ill_shaped.contains(&name)
    }

    /// A remedy that gives a key its example as value: instead of what it has, or as a new key.
    pub fn setting(&self, problems: &Problems, name: &str) -> Remedy {
        let example = self.schema.keys.iter().find(|key| key.name == name).map_or("\"\"", |key| key.example);
        match self.values.get(name) {
            Some(kept) => Remedy::replace(kept.at, example),
            None => self.insertion(problems, name, example),
        }
    }

    /// Where a key's value stands, if it is there and well shaped.
    pub fn place(&self, name: &str) -> Option<Spot> {
        self.values.get(name).map(|kept| kept.at)
    }

    fn get(&self, name: &'static str) -> Option<(&'d DeValue<'d>, Spot)> {
        debug_assert!(self.schema.keys.iter().any(|key| key.name == name), "{name} is not in the schema");
        self.values.get(name).map(|kept| (kept.value.get_ref(), kept.at))
    }

    /// A text.
    pub fn text(&self, name: &'static str) -> Option<At<String>> {
        let (value, at) = self.get(name)?;
        Some(At { value: value.as_str()?.to_owned(), at })
    }

    /// A flag.
    pub fn flag(&self, name: &'static str) -> Option<At<bool>> {
        let (value, at) = self.get(name)?;
        Some(At { value: value.as_bool()?, at })
    }

    /// A whole number; one that does not fit is `i64::MAX`.
    pub fn number(&self, name: &'static str) -> Option<At<i64>> {
        let (value, at) = self.get(name)?;
        let number = value.as_integer()?;
        Some(At { value: i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX), at })
    }

    /// A number as written, so that nothing of it is rounded.
    pub fn amount(&self, name: &'static str) -> Option<At<String>> {
        let (value, at) = self.get(name)?;
        let text = match value {
            DeValue::Float(number) => number.as_str().to_owned(),
            other => other.as_integer()?.to_string(),
        };
        Some(At { value: text, at })
    }

    /// A date as written, without quotes.
    pub fn date(&self, name: &'static str) -> Option<At<String>> {
        let (value, at) = self.get(name)?;
        let text = match value {
            DeValue::Datetime(date) => date.to_string(),
            other => other.as_str()?.to_owned(),
        };
        Some(At { value: text, at })
    }

    /// A list of texts; a lone text is a list of one where the schema allows that.
    pub fn texts(&self, name: &'static str) -> Option<Vec<At<String>>> {
        let (value, at) = self.get(name)?;
        match value {
            DeValue::Array(items) => Some(
                items
                    .iter()
                    .filter_map(|item| {
                        Some(At { value: item.get_ref().as_str()?.to_owned(), at: self.spot(item.span()) })
                    })
                    .collect(),
            ),
            other => Some(vec![At { value: other.as_str()?.to_owned(), at }]),
        }
    }

    /// The sections of a list of sections, and where each is.
    pub fn sections(&self, name: &'static str) -> Vec<(&'d DeTable<'d>, Spot)> {
        match self.get(name) {
            Some((DeValue::Table(table), at)) => vec![(table, at)],
            Some((DeValue::Array(items), _)) => tables(items).map(|(t, span)| (t, self.spot(span))).collect(),
            _ => Vec::new(),
        }
    }

    /// A text that must be there; tells if it is not.
    pub fn required_text(&self, problems: &mut Problems, name: &'static str) -> Option<At<String>> {
        let found = self.text(name);
        if found.is_none() {
            self.missing(problems, name);
        }
        found
    }

    /// Tells that a key is missing, unless it was there in a wrong shape.
    pub fn missing(&self, problems: &mut Problems, name: &'static str) {
        let example = self.schema.keys.iter().find(|key| key.name == name).map_or("\"\"", |key| key.example);
        if !self.has(name) {
            let remedy = self.insertion(problems, name, example);
            problems.add(
                self.at,
                format!("{} has no `{name}`", self.schema.title),
                format!("add `{name} = {example}`"),
                remedy,
            );
        }
    }

    /// A remedy that adds a key to this section.
    pub fn insertion(&self, problems: &Problems, name: &str, value: &str) -> Remedy {
        insertion(problems, self.at, name, value)
    }
}

/// A remedy that adds a key to the section at `at`: under its header, or behind its opening brace.
pub fn insertion(problems: &Problems, at: Spot, name: &str, value: &str) -> Remedy {
    let text = problems.text(at.file);
    let shown = text.get(at.start..at.end).unwrap_or_default();
    if let Some(inside) = shown.strip_prefix('{') {
        let comma = if inside.trim_start().starts_with('}') { "" } else { "," };
        let at = Spot { start: at.start + 1, end: at.start + 1, ..at };
        return Remedy::replace(at, format!(" {name} = {value}{comma}"));
    }
    let line = line_at(&text, at.start);
    Remedy::replace(Spot { start: line.end, end: line.end, ..at }, format!("\n{name} = {value}"))
}

/// From a section's header to the next header or the end of the file; a section in braces is its own extent.
pub fn extent(problems: &Problems, at: Spot) -> Spot {
    let text = problems.text(at.file);
    if !text.get(at.start..).is_some_and(|rest| rest.starts_with('[')) {
        return at;
    }
    let body = line_at(&text, at.start).end;
    let mut end = body;
    for line in text.get(body..).unwrap_or_default().split_inclusive('\n') {
        if end > body && line.trim_start().starts_with('[') && line.trim_end().ends_with(']') {
            break;
        }
        end += line.len();
    }
    Spot { end, ..at }
}

fn tables<'d>(items: &'d DeArray<'d>) -> impl Iterator<Item = (&'d DeTable<'d>, std::ops::Range<usize>)> {
    items.iter().filter_map(|item| Some((item.get_ref().as_table()?, item.span())))
}

fn fits(shape: Shape, value: &DeValue<'_>) -> bool {
    let texts = || value.as_array().is_some_and(|items| items.iter().all(|item| item.get_ref().is_str()));
    let tables = || value.as_array().is_some_and(|items| items.iter().all(|item| item.get_ref().is_table()));
    match shape {
        Shape::Text => value.is_str(),
        Shape::Flag => value.is_bool(),
        Shape::Number => value.is_integer(),
        Shape::Amount => value.is_integer() || value.is_float(),
        Shape::Texts => texts(),
        Shape::TextOrTexts => value.is_str() || texts(),
        Shape::Date => value.is_str() || value.as_datetime().is_some_and(|date| date.date.is_some()),
        Shape::TextOrSection => value.is_str() || value.is_table(),
        Shape::Section => value.is_table(),
        Shape::Sections => value.is_table() || tables(),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// The same value in the shape that was wanted, as TOML, if that is obvious.
fn reshape(key: &Key, value: &DeValue<'_>, raw: &str) -> Option<String> {
    let upstreams = |names: &[&str]| {
        let each: Vec<String> = names.iter().map(|name| format!("{{ upstream = \"{name}\" }}")).collect();
        Some(format!("[{}]", each.join(", ")))
    };
    let scalar = !matches!(value, DeValue::Array(_) | DeValue::Table(_));
    match (key.shape, value) {
        (_, DeValue::String(name)) if key.name == "targets" => upstreams(&[name]),
        (_, DeValue::Array(items)) if key.name == "targets" => {
            upstreams(&items.iter().map(|item| item.get_ref().as_str()).collect::<Option<Vec<_>>>()?)
        }
        (Shape::Text, DeValue::Integer(port)) if key.name == "address" => {
            Some(format!("\"127.0.0.1:{}\"", port.as_str().parse::<u16>().unwrap_or(8080)))
        }
        (Shape::Text, DeValue::Integer(number)) if unit_of(key.example).is_some() => {
            Some(format!("\"{}{}\"", number.as_str(), unit_of(key.example)?))
        }
        (Shape::Text, DeValue::Array(items)) if items.len() == 1 => {
            Some(format!("\"{}\"", items.iter().next()?.get_ref().as_str()?))
        }
        (Shape::Text, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_)) => {
            Some(format!("\"{raw}\""))
        }
        (Shape::Flag, DeValue::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some("true".into()),
            "false" | "no" | "off" | "0" => Some("false".into()),
            _ => None,
        },
        (Shape::Flag, DeValue::Integer(number)) => Some((number.as_str() != "0").to_string()),
        (Shape::Amount, DeValue::String(text)) => {
            let bare = text.trim().trim_matches('$').trim();
            bare.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0).map(|_| bare.to_owned())
        }
        (Shape::Number, DeValue::String(text)) => text.trim().parse::<i64>().ok().map(|n| n.to_string()),
        (Shape::Number, DeValue::Float(number)) => number.as_str().parse::<f64>().ok().map(|n| (n as i64).to_string()),
        (Shape::Texts, DeValue::String(_)) => Some(format!("[{raw}]")),
        (Shape::Texts | Shape::TextOrTexts, _) if scalar => Some(format!("[\"{raw}\"]")),
        _ => None,
    }
}

/// The unit of a quantity without one, told by the example of its key: a bare size is in bytes.
fn unit_of(example: &str) -> Option<&str> {
    let text = example.trim_matches('"');
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (unit.len() < text.len() && !unit.is_empty() && unit.bytes().all(|b| b.is_ascii_alphabetic()))
        .then(|| if unit.ends_with("iB") { "B" } else { unit })
}

/// A remedy that takes a key and its value out of its file, with its line when nothing else is on it.
pub fn removal(problems: &Problems, key: Spot, value: &Spanned<DeValue<'_>>) -> Remedy {
    let text = problems.text(key.file);
    let span = value.span();
    let is_header = text.get(span.start..).is_some_and(|rest| rest.starts_with('['));
    let spot = |range: std::ops::Range<usize>| Spot { file: key.file, start: range.start, end: range.end };
    let sections: Vec<Spot> = match value.get_ref() {
        DeValue::Array(items) if is_header => tables(items).map(|(_, span)| spot(span)).collect(),
        DeValue::Table(_) if is_header => vec![spot(span.clone())],
        _ => Vec::new(),
    };
    let in_list = sections.iter().any(|s| text.get(s.start..).is_none_or(|rest| !rest.starts_with('[')));
    if !sections.is_empty() && !in_list {
        let edit = |section: &Spot| Edit { at: extent(problems, *section), text: String::new() };
        return Remedy::Edits(sections.iter().map(edit).collect());
    }
    let end = last_byte(value);
    Remedy::replace(spot(whole_entry(&text, key.start.min(span.start), end)), "")
}

/// A remedy that takes one item out of a list.
pub fn item_removal(problems: &Problems, item: Spot) -> Remedy {
    let text = problems.text(item.file);
    let range = with_comma(&text, item.start, item.end);
    Remedy::replace(Spot { file: item.file, start: range.start, end: range.end }, "")
}

/// A key and its value, found from the value: back over `=` and the key.
pub fn entry(problems: &Problems, value: Spot) -> Spot {
    let text = problems.text(value.file);
    let before = text.get(..value.start).unwrap_or_default().trim_end();
    let before = before.strip_suffix('=').unwrap_or(before).trim_end();
    let key = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "_-.\"'".contains(c));
    Spot { start: key.len(), ..value }
}

/// A remedy that takes out a key and its value, found from the value.
pub fn entry_removal(problems: &Problems, value: Spot) -> Remedy {
    let entry = entry(problems, value);
    let range = whole_entry(&problems.text(value.file), entry.start, entry.end);
    Remedy::replace(Spot { start: range.start, end: range.end, ..value }, "")
}

/// The end of a value, of its last part when it is written as `a.b = c`.
fn last_byte(value: &Spanned<DeValue<'_>>) -> usize {
    let inner = match value.get_ref() {
        DeValue::Table(table) => table.values().map(last_byte).max(),
        _ => None,
    };
    value.span().end.max(inner.unwrap_or(0))
}

/// An entry with its line, or with its comma.
fn whole_entry(text: &str, key: usize, end: usize) -> std::ops::Range<usize> {
    let (first, last) = (line_at(text, key), line_at(text, end));
    let before = text.get(first.start..key).unwrap_or_default();
    let after = text.get(end..last.end).unwrap_or_default().trim_start();
    let dotted = before.trim().is_empty() || before.trim_end().ends_with('.');
    if dotted && !before.contains(['{', ',', '=']) && (after.is_empty() || after.starts_with('#')) {
        return first.start..(last.end + 1).min(text.len());
    }
    with_comma(text, key, end)
}

/// An item of a list or of braces, with the comma after it, or else the one before it.
fn with_comma(text: &str, start: usize, end: usize) -> std::ops::Range<usize> {
    let after = text.get(end..).unwrap_or_default();
    if let Some(rest) = after.trim_start().strip_prefix(',') {
        let rest = rest.trim_start_matches(' ');
        return start..text.len() - rest.len();
    }
    let before = text.get(..start).unwrap_or_default().trim_end();
    before.strip_suffix(',').map_or(start..end, |kept| kept.len()..end)
}
