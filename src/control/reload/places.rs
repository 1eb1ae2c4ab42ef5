//! Which directories to watch, so that no way of changing a file goes unseen: the file's own, and that of every symbolic
//! link on the way to it. A Kubernetes ConfigMap changes by one link, `..data`, that is renamed into place beside links
//! that never change; an editor renames a new file over the old one. Both are seen in a directory only.

use crate::config::Trace;
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Links followed on the way to one file, as many as Linux does.
const LINKS_MAX: u32 = 40;
/// Directories that are watched; beyond it changes are found by looking.
const DIRECTORIES_MAX: usize = 256;

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Directories, absolute, each with its device and number: another of the same name is not heard by a watch on this.
    pub directories: BTreeMap<PathBuf, Option<(u64, u64)>>,
    /// The files that were read, as links name them and as they are.
    pub files: HashSet<PathBuf>,
}

impl Places {
    /// Those of everything that a configuration was read from. Looks at the file system.
    pub fn of(trace: &Trace) -> Places {
        let mut places = Places::default();
        for file in trace.files() {
            let file = absolute(file);
            places.add(&file, false);
            places.files.extend(fs::canonicalize(&file));
            places.files.insert(file);
        }
        for directory in trace.directories() {
            places.add(&absolute(directory), true);
        }
        places
    }

    fn add(&mut self, path: &Path, is_directory: bool) {
        let mut links = LINKS_MAX;
        let mut path = path.to_owned();
        while let Some((beside, target)) = first_link(&path).filter(|_| links > 0) {
            links -= 1;
            self.watch(beside);
            path = target;
        }
        if is_directory {
            self.watch(path);
        } else if let Some(parent) = path.parent() {
            self.watch(parent.to_owned());
        }
    }

    fn watch(&mut self, directory: PathBuf) {
        if self.directories.len() < DIRECTORIES_MAX {
            let number = fs::metadata(&directory).ok().map(|found| (found.dev(), found.ino()));
            self.directories.insert(directory, number);
        }
    }
}

/// An empty path means the current directory.
fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The directory of the first link on `path`, and where the path leads with that link followed.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut beside = PathBuf::new();
    let mut rest = path.components();
    while let Some(name) = rest.next() {
        let here = beside.join(name);
        if let Ok(target) = fs::read_link(&here) {
            let target = beside.join(target);
            let rest = rest.as_path();
            let onward = if rest.as_os_str().is_empty() { target } else { target.join(rest) };
            return Some((beside, onward));
        }
        beside = here;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_has_its_directory_watched() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("map/..1/keys.d")).unwrap();
        fs::write(at("map/..1/main.toml"), "").unwrap();
        symlink("..1", at("map/..data")).unwrap();
        symlink("..data/main.toml", at("map/main.toml")).unwrap();
        symlink("..data/keys.d", at("map/keys.d")).unwrap();
        symlink(at("map/main.toml"), at("main.toml")).unwrap();
        let mut places = Places::default();
        places.add(&at("main.toml"), false);
        let watched: Vec<_> = places.directories.keys().cloned().collect();
        assert_eq!(watched, [root.clone(), at("map"), at("map/..1")]);
        places.add(&at("map/keys.d"), true);
        let before = places.clone();
        assert!(places.directories.contains_key(&at("map/..1/keys.d")));
        fs::rename(at("map/..1/keys.d"), at("old")).unwrap();
        fs::create_dir(at("map/..1/keys.d")).unwrap();
        places.add(&at("map/keys.d"), true);
        assert_ne!(places, before, "a directory of the same name is another one");
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let mut places = Places::default();
        places.add(&folder.path().join("a/x"), false);
        assert!(places.directories.len() <= 3, "{places:?}");
    }
}
