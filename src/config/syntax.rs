//! Errors of TOML itself, said so that someone who does not know TOML can mend them.

use std::ops::Range;

use jiff::civil::Date;
use toml::de::{DeTable, Error};

use super::diagnose::{Edit, Problems, Remedy, Spot, nearest};

/// Syntax errors told per file at most; the rest follow from the first.
const TOLD_MAX: usize = 20;

/// Parses a text as far as it goes. Returns the table, and whether it can be read on: after some errors (a missing
/// quote around a value, a key twice) the rest means what it says, after others it does not.
pub fn parse<'t>(problems: &mut Problems, file: u32, text: &'t str) -> (toml::Spanned<DeTable<'t>>, bool) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut readable = true;
    let mut lines_told: Vec<usize> = Vec::new();
    let mut errors: Vec<&Error> = errors.iter().collect();
    // The parser reports the end of a fault first: the one that begins further left says more.
    errors.sort_by_key(|error| start(error, text));
    for error in errors {
        let line = line_at(text, start(error, text));
        if lines_told.contains(&line.start) || lines_told.len() >= TOLD_MAX {
            continue;
        }
        lines_told.push(line.start);
        let fault = match Fault::of(error.message(), text, error.span().unwrap_or(line.clone()), line.clone()) {
            fault if fault.changes(text) => fault,
            // The usual hint is followed already, and still the line is wrong.
            _ => Fault::other(error.message(), text, line),
        };
        readable &= fault.readable;
        let edits = fault.edits.into_iter().map(|(range, text)| Edit { at: spot(file, range), text }).collect();
        let at = spot(file, fault.at);
        problems.add(at, fault.cause, fault.hint, Remedy::Edits(edits));
        problems.broken(at);
    }
    (table, readable)
}

fn spot(file: u32, range: Range<usize>) -> Spot {
    Spot { file, start: range.start, end: range.end }
}

/// Where an error is; one at the very end of a line belongs to that line.
fn start(error: &Error, text: &str) -> usize {
    error.span().map_or(0, |span| span.start.min(text.len()))
}

/// The line around `at`, without its end.
pub(super) fn line_at(text: &str, at: usize) -> Range<usize> {
    let before = text.get(..at).unwrap_or(text);
    let from = before.rfind('\n').map_or(0, |n| n + 1);
    let end = text.get(from..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| from + n);
    let end = if text.get(from..end).is_some_and(|line| line.ends_with('\r')) { end - 1 } else { end };
    from..end
}

struct Fault {
    at: Range<usize>,
    cause: String,
    hint: String,
    edits: Vec<(Range<usize>, String)>,
    readable: bool,
}

impl Fault {
    fn of(message: &str, text: &str, span: Range<usize>, line: Range<usize>) -> Fault {
        let shown = text.get(line.clone()).unwrap_or_default();
        let colon = shown.find(':').filter(|at| is_bare_key(shown.get(..*at).unwrap_or_default()));
        let control = shown.find(|c: char| c.is_ascii_control() && c != '\t');
        let odd = |quote| shown.matches(quote).count() % 2 == 1;
        match message {
            _ if control.is_some() => Fault::control(line.start + control.unwrap_or(0)),
            _ if colon.is_some() => Fault::colon(line.start + colon.unwrap_or(0)),
            "duplicate key" => Fault::duplicate(text, span, line),
            m if m.starts_with("unclosed table") => Fault::bracket(text, line, "]"),
            m if m.starts_with("unclosed array table") => Fault::bracket(text, line, "]]"),
            m if m.starts_with("unclosed array") => Fault::open_array(line),
            m if m.starts_with("invalid basic string") && odd('"') => Fault::quote(line, '"'),
            m if m.starts_with("invalid literal string") && odd('\'') => Fault::quote(line, '\''),
            m if m.starts_with("invalid multi-line") => Fault::block(m, text, line),
            m if m.starts_with("missing escaped value") => Fault::escape(text, span, line),
            m if m.starts_with("invalid date") => Fault::date(text, span),
            m if is_value_fault(m) => Fault::value(text, span, line),
            m => Fault::other(m, text, line),
        }
    }

    /// Whether doing what the hint says leaves another text.
    fn changes(&self, text: &str) -> bool {
        self.edits.iter().any(|(range, new)| text.get(range.clone()) != Some(new))
    }

    /// A byte that no editor shows, which came with a paste or from another system.
    fn control(at: usize) -> Fault {
        Fault {
            at: at..at + 1,
            cause: "an invisible control character".into(),
            hint: "remove it".into(),
            edits: vec![(at..at + 1, String::new())],
            readable: false,
        }
    }

    fn colon(at: usize) -> Fault {
        Fault {
            at: at..at + 1,
            cause: "`:` between a key and its value".into(),
            hint: "write `=`".into(),
            edits: vec![(at..at + 1, " =".into())],
            readable: false,
        }
    }

    fn duplicate(text: &str, span: Range<usize>, line: Range<usize>) -> Fault {
        let name = text.get(span.clone()).unwrap_or_default().to_owned();
        let is_header = text.get(line.clone()).is_some_and(|l| l.trim_start().starts_with('['));
        let end = (line.end + 1).min(text.len());
        let header = text.get(line.clone()).unwrap_or_default().trim();
        let first = text.lines().scan(0, |at, line| {
            let here = *at;
            *at = here + line.len() + 1;
            Some((here, line))
        });
        let first = first.filter(|(at, other)| *at < line.start && other.trim() == header).last();
        let (hint, edits) = match first.filter(|_| is_header) {
            Some((at, _)) => {
                // Its keys join the first section, under that one's header.
                let rest = text.get(end..).unwrap_or_default();
                let body: usize =
                    rest.split_inclusive('\n').take_while(|l| !l.trim().starts_with('[')).map(str::len).sum();
                let moved = rest.get(..body).unwrap_or_default().trim_end();
                let to = line_at(text, at).end;
                (
                    "put its keys into the first",
                    vec![(to..to, format!("\n{moved}")), (line.start..end + body, String::new())],
                )
            }
            None => ("keep one of the two", vec![(line.start..end, String::new())]),
        };
        let cause = format!("`{name}` stands here a second time");
        Fault { at: span, cause, hint: hint.into(), edits, readable: true }
    }

    fn bracket(text: &str, line: Range<usize>, close: &str) -> Fault {
        let bare = text.get(line.clone()).unwrap_or_default().trim_end().trim_end_matches(']');
        let end = line.start + bare.len()..line.end;
        Fault {
            at: line.clone(),
            cause: "a section header without its end".into(),
            hint: format!("end it with `{close}`"),
            edits: vec![(end, close.into())],
            readable: false,
        }
    }

    fn open_array(line: Range<usize>) -> Fault {
        Fault {
            at: line.clone(),
            cause: "a list without its end".into(),
            hint: "end it with `]`".into(),
            edits: vec![(line.end..line.end, "]".into())],
            readable: false,
        }
    }

    fn quote(line: Range<usize>, quote: char) -> Fault {
        Fault {
            at: line.clone(),
            cause: "a text without its closing quote".into(),
            hint: format!("end it with `{quote}`"),
            edits: vec![(line.end..line.end, quote.into())],
            readable: false,
        }
    }

    /// A text of several lines that does not end. It is shown where it begins: its end was most likely meant there.
    fn block(message: &str, text: &str, line: Range<usize>) -> Fault {
        let quotes = if message.contains("literal") { "'''" } else { "\"\"\"" };
        let Some(open) = text.get(..line.end).and_then(|before| before.rfind(quotes)) else {
            return Fault::other(message, text, line);
        };
        let line = line_at(text, open);
        Fault {
            at: open..line.end.max(open),
            cause: format!("a text without its closing `{quotes}`"),
            hint: format!("end it with `{quotes}`"),
            edits: vec![(line.end..line.end, quotes.into())],
            readable: false,
        }
    }

    /// A path of another system, most often: in single quotes a `\` is only a `\`.
    fn escape(text: &str, span: Range<usize>, line: Range<usize>) -> Fault {
        let at = span.start.saturating_sub(1)..span.start;
        let open = text.get(line.start..at.start).and_then(|before| before.rfind('"')).map(|n| line.start + n);
        let close = text.get(at.end..line.end).and_then(|after| after.find('"')).map(|n| at.end + n);
        let edits = match (open, close) {
            (Some(open), Some(close)) => vec![(open..open + 1, "'".into()), (close..close + 1, "'".into())],
            _ => vec![(at.clone(), "\\\\".into())],
        };
        let hint = "write the text in single quotes, or each `\\` twice".into();
        Fault { at, cause: "a `\\` that begins no escape".into(), hint, edits, readable: false }
    }

    /// A day that its month does not have.
    fn date(text: &str, span: Range<usize>) -> Fault {
        let raw = text.get(span.clone()).unwrap_or_default().to_owned();
        let parts: Vec<i16> = raw.split('-').filter_map(|part| part.parse().ok()).collect();
        let last = match parts.as_slice() {
            &[year, month, _] => i8::try_from(month).ok().and_then(|month| Date::new(year, month, 1).ok()),
            _ => None,
        };
        let good = last.map_or("2099-12-31".to_owned(), |first| first.last_of_month().to_string());
        Fault {
            at: span.clone(),
            cause: format!("`{raw}` is not a day of the calendar"),
            hint: format!("write {good}"),
            edits: vec![(span, good)],
            readable: true,
        }
    }

    /// A value that is no value: most often a text without quotes.
    fn value(text: &str, span: Range<usize>, line: Range<usize>) -> Fault {
        let shown = text.get(line.clone()).unwrap_or_default();
        let whole = shown.find('=').map(|eq| line.start + eq + 1).map(|from| {
            let raw = text.get(from..line.end).unwrap_or_default();
            let raw = raw.split(" #").next().unwrap_or_default();
            let lead = raw.len() - raw.trim_start().len();
            from + lead..from + lead + raw.trim().len()
        });
        // Inside a list or an inline table only the item itself is known.
        let nested = |range: &Range<usize>| text.get(range.clone()).is_some_and(|raw| raw.starts_with(['[', '{']));
        let at = whole.filter(|range| range.end >= range.start && !nested(range)).unwrap_or(span);
        let raw = text.get(at.clone()).unwrap_or_default();
        if raw.is_empty() {
            let end = (line.end + 1).min(text.len());
            return Fault {
                at: line.clone(),
                cause: "a key without a value".into(),
                hint: "give it a value, or remove the line".into(),
                edits: vec![(line.start..end, String::new())],
                readable: false,
            };
        }
        let bare = raw.trim_matches(['"', '\'', '“', '”', '‘', '’', '`']);
        let fixed = match nearest(bare, ["true", "false"]).filter(|_| bare.len() <= 6 && raw == bare) {
            Some(word) => word.to_owned(),
            None => format!("\"{}\"", bare.replace(['"', '\\'], "")),
        };
        Fault {
            at: at.clone(),
            cause: format!("`{raw}` is neither a quoted text nor a number, `true`, `false` or a date"),
            hint: format!("write {fixed}"),
            edits: vec![(at, fixed)],
            readable: true,
        }
    }

    fn other(message: &str, text: &str, line: Range<usize>) -> Fault {
        let is_comment = text.get(line.clone()).is_some_and(|shown| shown.starts_with('#'));
        let (hint, edit) = if is_comment {
            let end = (line.end + 1).min(text.len());
            ("remove the line", (line.start..end, String::new()))
        } else {
            ("correct the line, or put `#` before it", (line.start..line.start, "# ".into()))
        };
        Fault { at: line, cause: format!("not TOML: {message}"), hint: hint.into(), edits: vec![edit], readable: false }
    }
}

fn is_bare_key(text: &str) -> bool {
    let name = text.trim();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_value_fault(message: &str) -> bool {
    let starts = ["string values must be quoted", "unexpected leading zero", "unexpected sign", "unexpected `_`"];
    let kinds = ["float", "boolean", "date", "time", "datetime", "offset", "integer", "number"];
    starts.iter().any(|start| message.starts_with(start))
        || kinds.iter().any(|kind| message.strip_prefix("invalid ").is_some_and(|rest| rest.starts_with(kind)))
}
