//! What a simulator is made of: its seed, its credentials, its models, its limits.

use super::{limits::LimitSet, rules::Rule};
use std::net::{Ipv4Addr, SocketAddr};

/// Rows of the usage log kept unless said.
const LOG_ROWS_DEFAULT: usize = 100_000;
/// Prefixes shorter than this are not cached, as with the API's larger models.
const CACHE_TOKENS_MIN_DEFAULT: u64 = 1_024;

/// One credential that is accepted; the secret itself is not kept.
#[derive(Clone)]
pub struct Key {
    pub(super) name: String,
    pub(super) digest: [u8; 32],
}

impl Key {
    /// `secret` under `name`, as the usage log and rules call it.
    pub fn new(name: impl Into<String>, secret: &str) -> Key {
        Key { name: name.into(), digest: sha256(secret.as_bytes()) }
    }
}

/// How to build an engine. `Options::default()` accepts every credential, limits nothing, and listens on a free
/// loopback port.
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools)] // each is one independent switch
pub struct Options {
    /// Where `spawn_on_thread` listens. On any address, `/sim/` answers loopback peers only.
    pub listen: SocketAddr,
    /// The seed of all ids.
    pub seed: u64,
    /// The credentials that are accepted; empty accepts any that is not empty.
    pub keys: Vec<Key>,
    /// The models that are listed. Any name is answered.
    pub models: Vec<String>,
    /// The limits that are enforced.
    pub enforce: LimitSet,
    /// The rules from the start on.
    pub rules: Vec<Rule>,
    /// Prompts shorter than this are not cached, in tokens.
    pub cache_tokens_min: u64,
    /// Rows of the usage log that are kept; totals count all.
    pub log_rows_max: usize,
    /// Logs the SHA-256 of each body, for proofs of byte-exactness.
    pub hash_bodies: bool,
    /// Refuses what the API refuses about `anthropic-version`.
    pub strict: bool,
    /// `spawn_on_thread` never uses io_uring.
    pub force_epoll: bool,
}

impl Default for Options {
    fn default() -> Options {
        let models = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-sim"];
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            keys: Vec::new(),
            models: models.map(str::to_owned).into(),
            enforce: LimitSet::default(),
            rules: Vec::new(),
            cache_tokens_min: CACHE_TOKENS_MIN_DEFAULT,
            log_rows_max: LOG_ROWS_DEFAULT,
            hash_bodies: false,
            strict: false,
            force_epoll: false,
        }
    }
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
