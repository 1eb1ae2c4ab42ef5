//! What a configuration needs of the machine: variables, files, directory lists, today's date. The only place here
//! that reads.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::base::Wall;
use crate::rt::ring::wall;

/// The machine, or a test's picture of one.
pub trait Host {
    /// The value of an environment variable, if it is set.
    fn var(&self, name: &str) -> Option<String>;
    /// The bytes of a file of at most `bytes_max`.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// The same, of a file with a life of its own, a listener's certificate: when it changes, the configuration does not.
    fn read_apart(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.read(path, bytes_max)
    }
    /// The names of the files in a directory, sorted.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Whether every user of the machine may read a file.
    fn is_open_to_all(&self, path: &Path) -> bool;
    /// The time: certificates begin and end.
    fn now(&self) -> Wall;
}

/// The machine that this runs on.
pub struct Machine<'a> {
    /// Where variables come from.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

impl Host for Machine<'_> {
    fn var(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn is_open_to_all(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
    }

    fn now(&self) -> Wall {
        wall()
    }
}
