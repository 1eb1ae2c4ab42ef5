//! The form of a forebay key: `fby_`, 256 random bits in base 62 (43 characters), and a CRC-32 of all that in base 62
//! (6 characters). Secret scanners find it by its prefix and checksum; a typing error is told from a wrong key. Only
//! SHA-256 digests of keys are stored: 256 random bits need no slow hash.

use std::fmt::Write;

use zeroize::{Zeroize, Zeroizing};

/// What every key begins with.
pub const PREFIX: &str = "fby_";
/// Length of a key, in bytes.
pub const KEY_BYTES: usize = PREFIX.len() + RANDOM_CHARS + CHECK_CHARS;
/// 62^43 > 2^256.
const RANDOM_CHARS: usize = 43;
/// 62^6 > 2^32.
const CHECK_CHARS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key in clear. No `Debug`, no `Display`; overwritten when dropped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The key itself, to be shown to its owner once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the configuration stores: `sha256:` and the digest in hex.
    pub fn hash(&self) -> String {
        digest(self.0.as_bytes()).iter().fold("sha256:".to_owned(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// What a presented credential is, told by its form alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A well-formed forebay key.
    Forebay,
    /// Begins like a forebay key, but its length, alphabet or checksum is wrong.
    ForebayMistyped,
    /// The OAuth credential of a claude.ai login.
    ClaudeLogin,
    /// A key of the Anthropic API.
    AnthropicApi,
    /// An admin key of the Anthropic API, or another of its secrets.
    AnthropicOther,
    /// A key of OpenRouter.
    OpenRouter,
    /// A key of the OpenAI API.
    OpenAi,
    /// A key of a Google API.
    Google,
    /// A signed statement (JWT) of some login service.
    Jwt,
    /// Anything else.
    Other,
}

/// Makes a key of 256 random bits.
pub fn mint(mut random: [u8; 32]) -> Secret {
    let mut body = [b'0'; RANDOM_CHARS];
    for place in body.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut random {
            let value = (rest << 8) | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *place = digit(rest);
    }
    let mut key = Zeroizing::new(String::with_capacity(KEY_BYTES));
    key.push_str(PREFIX);
    key.extend(body.iter().map(|b| char::from(*b)));
    let check = checksum(key.as_bytes());
    key.extend(check.iter().map(|b| char::from(*b)));
    body.zeroize();
    random.zeroize();
    Secret(key)
}

/// SHA-256.
pub fn digest(key: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
    for (to, from) in out.iter_mut().zip(sum.as_ref()) {
        *to = *from;
    }
    out
}

/// What a credential is by its form.
pub fn classify(key: &[u8]) -> KeyKind {
    const FORMS: &[(&[u8], KeyKind)] = &[
        (b"sk-ant-oat", KeyKind::ClaudeLogin),
        (b"sk-ant-ort", KeyKind::ClaudeLogin),
        (b"sk-ant-api", KeyKind::AnthropicApi),
        (b"sk-ant-", KeyKind::AnthropicOther),
        (b"sk-or-", KeyKind::OpenRouter),
        (b"sk-", KeyKind::OpenAi),
        (b"AIza", KeyKind::Google),
        (b"eyJ", KeyKind::Jwt),
    ];
    if key.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes())) {
        return if is_well_formed(key) { KeyKind::Forebay } else { KeyKind::ForebayMistyped };
    }
    FORMS.iter().find(|(start, _)| key.starts_with(start)).map_or(KeyKind::Other, |(_, kind)| *kind)
}

fn is_well_formed(key: &[u8]) -> bool {
    key.len() == KEY_BYTES
        && key.starts_with(PREFIX.as_bytes())
        && key.split_at_checked(KEY_BYTES - CHECK_CHARS).is_some_and(|(body, check)| checksum(body) == check)
}

fn checksum(body: &[u8]) -> [u8; CHECK_CHARS] {
    let mut sum = crc32fast::hash(body);
    let mut out = [b'0'; CHECK_CHARS];
    for place in out.iter_mut().rev() {
        *place = digit(sum % 62);
        sum /= 62;
    }
    out
}

fn digit(value: u32) -> u8 {
    DIGITS.get(value as usize).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn extremes_have_the_fixed_length() {
        assert_eq!(mint([0; 32]).expose()[..47], format!("fby_{}", "0".repeat(43)));
        assert_eq!(mint([255; 32]).expose().len(), KEY_BYTES);
        assert_eq!(classify(mint([255; 32]).expose().as_bytes()), KeyKind::Forebay);
    }

    #[test]
    fn kinds_are_told_by_form() {
        let forms = [
            ("sk-ant-oat01-x", KeyKind::ClaudeLogin),
            ("sk-ant-api03-x", KeyKind::AnthropicApi),
            ("sk-ant-admin01-x", KeyKind::AnthropicOther),
            ("sk-or-v1-x", KeyKind::OpenRouter),
            ("sk-proj-x", KeyKind::OpenAi),
            ("AIzaSyx", KeyKind::Google),
            ("eyJhbGciOi", KeyKind::Jwt),
            ("fby_short", KeyKind::ForebayMistyped),
            ("FBY_x", KeyKind::ForebayMistyped),
            ("hello", KeyKind::Other),
            ("", KeyKind::Other),
        ];
        for (text, kind) in forms {
            assert_eq!(classify(text.as_bytes()), kind, "{text}");
        }
    }

    #[test]
    fn the_hash_is_sha_256_of_the_whole_key() {
        assert_eq!(
            Secret(Zeroizing::new("abc".into())).hash(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(random: [u8; 32], at in 4..KEY_BYTES, to in 0..62usize) {
            let key = mint(random);
            let mut typed = key.expose().as_bytes().to_vec();
            prop_assert_eq!(classify(&typed), KeyKind::Forebay);
            prop_assume!(typed[at] != DIGITS[to]);
            typed[at] = DIGITS[to];
            prop_assert_eq!(classify(&typed), KeyKind::ForebayMistyped);
        }

        #[test]
        fn different_bits_make_different_keys(a: [u8; 32], b: [u8; 32]) {
            prop_assert_eq!(a == b, mint(a).expose() == mint(b).expose());
        }
    }
}
