//! The configuration: as written (`file`, read by `reader` against `schema`), its errors (`diagnose`, `syntax`), and its
//! compilation into a `Table` (`compile`). Pure but for reading files and variables, all of it in `host`.

mod compile;
pub mod diagnose;
mod file;
pub mod host;
pub mod prices;
pub mod quickstart;
mod reader;
mod reference;
mod schema;
mod syntax;
pub mod trace;
pub mod url;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::table::{Pattern, Table};

pub use diagnose::{Problem, Remedy, Report};
pub use quickstart::quickstart;
pub use reference::reference;
pub use trace::{Reading, Source, Trace};

use diagnose::{At, Problems, Spot};
use file::File;
use host::{Host, Machine};

/// A configuration file is no larger than this, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that `include` brings in at most.
const INCLUDED_MAX: usize = 10_000;

/// Reads a configuration file, what it includes, and the secrets that it names, and compiles them.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Table, Report> {
    load_from(path, &Machine { env })
}

/// The same on another machine than this one: a test's.
///
/// # Errors
/// As `load`.
pub fn load_from(path: &Path, host: &dyn Host) -> Result<Table, Report> {
    let mut problems = Problems::default();
    let table = match read_text(host, path) {
        Ok(text) => read(&mut problems, host, path, &text),
        Err(fault) => {
            let file = problems.source(path, "".into());
            let at = Spot { file, start: 0, end: 0 };
            let remedy = Remedy::File(path.to_owned());
            problems.add(at, format!("the file {fault}"), "name a file that is there", remedy);
            None
        }
    };
    table.ok_or_else(|| problems.report())
}

/// Compiles a text as if it stood in the file `path`.
///
/// # Errors
/// As `load`.
pub fn parse(path: &Path, text: &str, host: &dyn Host) -> Result<Table, Report> {
    let mut problems = Problems::default();
    let table = read(&mut problems, host, path, &text.into());
    table.ok_or_else(|| problems.report())
}

fn read(problems: &mut Problems, host: &dyn Host, path: &Path, text: &Arc<str>) -> Option<Table> {
    let number = problems.source(path, text.clone());
    let (root, readable) = syntax::parse(problems, number, text);
    if !readable {
        return None;
    }
    let mut file = File::read(problems, number, root.get_ref());
    let mut readable = true;
    for include in std::mem::take(&mut file.include) {
        for path in matching(problems, host, &include) {
            readable &= included(problems, host, &mut file, &path, include.at);
        }
    }
    // What an unreadable file would have defined must not be told as missing.
    if readable { compile::compile(problems, host, &mut file) } else { None }
}

fn included(problems: &mut Problems, host: &dyn Host, file: &mut File, path: &Path, at: Spot) -> bool {
    match read_text(host, path) {
        Ok(text) => {
            let number = problems.source(path, text.clone());
            let (root, readable) = syntax::parse(problems, number, &text);
            if readable {
                file.read_included(problems, number, root.get_ref());
            }
            readable
        }
        Err(fault) => {
            let cause = format!("the included file {} {fault}", path.display());
            let remedy = reader::item_removal(problems, at);
            problems.add(at, cause, "write the file, or remove it from `include`", remedy);
            false
        }
    }
}

/// The files that an `include` stands for, sorted. A glob may stand for none; a name must be there.
fn matching(problems: &mut Problems, host: &dyn Host, include: &At<String>) -> Vec<PathBuf> {
    let written = Path::new(&include.value);
    let directory = written.parent().unwrap_or(Path::new(""));
    let base = problems.path(include.at.file).parent().unwrap_or(Path::new("")).join(directory);
    let name = written.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if directory.to_str().is_none_or(|text| text.contains('*')) {
        let cause = format!("`{}` has a `*` in a directory's name; only a file's name may have one", include.value);
        let remedy = reader::item_removal(problems, include.at);
        problems.add(include.at, cause, "remove it, and name each directory by itself", remedy);
        return Vec::new();
    }
    if !name.contains('*') {
        return vec![base.join(name)];
    }
    let pattern = Pattern::new(name);
    let here = if base.as_os_str().is_empty() { Path::new(".") } else { &base };
    let names = host.list(here).unwrap_or_default();
    let matching = names.into_iter().filter(|found| !found.starts_with('.') && pattern.matches(found));
    matching.take(INCLUDED_MAX).map(|found| base.join(found)).collect()
}

fn read_text(host: &dyn Host, path: &Path) -> Result<Arc<str>, String> {
    let read = host.read(path, FILE_BYTES_MAX);
    let bytes = read.map_err(|error| format!("cannot be read: {}", compile::plain(error.kind())))?;
    String::from_utf8(bytes).map(Arc::from).map_err(|_| "is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests;
