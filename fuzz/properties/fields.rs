//! The scan of a request's body: the same however it is cut, and what `serde_json` finds wherever that can read the body.
//! What it refuses although it is JSON has two readings, a wrong type or no bound, and that is shown to be so.

use super::{cuts, pieces};
use forebay::wire::{FieldScan, Peeked, ScanError, json};
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

fn scan(bytes: &[u8], ends: &[usize]) -> Result<Peeked, ScanError> {
    let mut scan = FieldScan::new();
    for piece in pieces(bytes, ends) {
        scan.feed(piece)?;
    }
    scan.finish()
}

/// The property of a body.
pub fn fields(bytes: &[u8]) {
    let whole = scan(bytes, &[bytes.len()]);
    for ends in cuts(bytes) {
        assert_eq!(scan(bytes, &ends), whole, "cut at {ends:?}");
    }
    let mut reused = FieldScan::new();
    let _ = reused.feed(bytes);
    reused.reset();
    assert_eq!(reused.feed(bytes).and_then(|()| reused.finish()), whole, "a scan is reused without a trace");
    if let Ok(Some(model)) = whole.as_ref().map(|found| &found.model) {
        let literal = &bytes[model.at.start as usize..model.at.end as usize];
        let read: Result<String, _> = serde_json::from_slice(literal);
        assert_eq!(read.ok().as_deref(), Some(model.text.as_str()), "the span is the model's literal");
    }
    match serde_json::from_slice::<Members>(bytes) {
        Ok(object) => agrees(&object, &whole),
        Err(_) if serde_json::from_slice::<&RawValue>(bytes).is_ok() => {
            assert!(whole.is_err(), "an array, a number or a word is no body");
        }
        // Its own errors are the upstream's to tell, but for what the scan itself has to read.
        Err(_) => {}
    }
}

/// What the scan says of a valid object is what the object says.
fn agrees(object: &Members<'_>, whole: &Result<Peeked, ScanError>) {
    let metadata = object.named("metadata").and_then(|raw| serde_json::from_str::<Members>(raw.get()).ok());
    match whole {
        Ok(found) => {
            let once = |members: &Members<'_>, name| members.alike(name) <= 1 && !members.lookalike(name);
            assert!(["model", "stream", "max_tokens", "metadata"].iter().all(|name| once(object, name)));
            assert!(metadata.as_ref().is_none_or(|members| once(members, "user_id")));
            let text = |name| object.named(name).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
            assert_eq!(found.model.as_ref().map(|model| model.text.as_str().to_owned()), text("model"));
            let flag = object.named("stream").map(RawValue::get).filter(|raw| *raw != "null");
            assert_eq!(found.stream.map(|stream| if stream { "true" } else { "false" }), flag);
            let number = object.named("max_tokens").and_then(|raw| raw.get().parse::<u64>().ok());
            assert_eq!(found.max_tokens, number);
            let id = metadata.as_ref().and_then(|members| members.named("user_id"));
            let id = id.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
            let id = id.filter(|id| id.len() <= json::USER_ID_BYTES_MAX).map(String::into_bytes);
            // One whose escapes alone make it long as written is passed over too.
            assert!(found.metadata_user_id == id || found.metadata_user_id.is_none(), "{found:?}, not {id:?}");
        }
        Err(ScanError::Duplicate(name) | ScanError::Lookalike(name)) => {
            let twice = |members: &Members<'_>| members.alike(name) > 1 || members.lookalike(name);
            assert!(twice(object) || metadata.as_ref().is_some_and(twice), "`{name}` has one reading");
        }
        Err(ScanError::WrongType(name)) => {
            let raw = object.named(name).expect("the key is there").get();
            let right = match *name {
                "model" => {
                    raw.starts_with('"') && serde_json::from_str::<String>(raw).is_ok_and(|m| !m.contains('\u{fffd}'))
                }
                "stream" => matches!(raw, "true" | "false" | "null"),
                _ => raw == "null" || (raw.len() < 20 && raw.parse::<u64>().is_ok() && !raw.starts_with("00")),
            };
            assert!(!right, "`{name}` is of the right type: {raw}");
        }
        Err(ScanError::TooLong(name)) => {
            assert!(object.named(name).expect("the key is there").get().len() > json::MODEL_BYTES_MAX);
        }
        Err(ScanError::TooDeep) => assert!(object.deepest() >= 126, "{} levels are not too deep", object.deepest()),
        Err(ScanError::Malformed("a key has a broken escape")) => {}
        Err(error) => panic!("valid JSON is refused: {error}"),
    }
}

/// The members of an object, in order, with duplicates.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The value under the name; the last where there are several.
    fn named(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    fn alike(&self, name: &str) -> usize {
        self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).count()
    }

    fn lookalike(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key != name && key.eq_ignore_ascii_case(name))
    }

    /// Brackets around the innermost value.
    fn deepest(&self) -> usize {
        self.0.iter().map(|(_, value)| depth(value.get())).max().unwrap_or(0)
    }
}

fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    deepest
}

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}
