use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::fmt::Write as _;

fn scan_cut(body: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<Peeked, ScanError> {
    let mut scan = FieldScan::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([body.len()]) {
        scan.feed(&body[from..cut])?;
        from = cut;
    }
    scan.finish()
}

/// Whole, a byte at a time, and cut in two at every place.
fn scan(body: impl AsRef<[u8]>) -> Result<Peeked, ScanError> {
    let body = body.as_ref();
    let whole = scan_cut(body, []);
    assert_eq!(whole, scan_cut(body, 0..body.len()), "a byte at a time: {}", body.escape_ascii());
    for cut in 0..body.len().min(300) {
        assert_eq!(whole, scan_cut(body, [cut]), "cut at {cut}: {}", body.escape_ascii());
    }
    whole
}

#[test]
fn routing_fields_are_found_anywhere() {
    let body = br#" {"a":[{"model":"no"},"]}"],"mod\u0065l" : "cl\u0061ude","metadata":{"x":{"user_id":1},"user_id":"{\"a\":1}"},"max_tokens":128000,"stream":true}  "#;
    let peeked = scan(body).unwrap();
    let model = peeked.model.unwrap();
    assert_eq!(model.text.as_str(), "claude");
    assert_eq!(&body[model.at.start as usize..model.at.end as usize], br#""cl\u0061ude""#);
    assert_eq!((peeked.stream, peeked.max_tokens), (Some(true), Some(128_000)));
    assert_eq!(peeked.metadata_user_id.as_deref(), Some(&br#"{"a":1}"#[..]));
}

#[test]
fn what_a_body_demands_is_seen_and_never_refused() {
    let of = |body: &str| scan(body).map(|peeked| (peeked.has_tools, peeked.has_thinking));
    for (body, want) in [
        (r#"{"tools":[{"name":"x"}],"thinking":{"type":"adaptive"}}"#, (true, true)),
        (r#"{"tools": [ ] ,"thinking":null}"#, (false, false)),
        (r#"{"tools":[],"a":["x"],"thinking":{}}"#, (false, true)),
        (r#"{"tools":{"a":1},"thinking":true}"#, (false, false)),
        (r#"{"tools":[],"tools":[1],"Tools":[],"Thinking":{}}"#, (true, false)),
        (r#"{"x":{"tools":[1],"thinking":{}},"y":[[1]],"metadata":{"tools":[1],"thinking":{}}}"#, (false, false)),
    ] {
        assert_eq!(of(body), Ok(want), "{body}");
    }
}

#[test]
fn values_are_read_as_they_are() {
    let model = |text: &str| scan(text).map(|peeked| peeked.model.map(|model| model.text.to_string()));
    for (body, want) in [
        (r#"{"model":"a"}"#, Some("a")),
        (r#"{"model":""}"#, Some("")),
        (r#"{"x":"\\","model":"\"\\\/\b\f\n\r\t"}"#, Some("\"\\/\u{8}\u{c}\n\r\t")),
        (r#"{"model":"\u00e9\ud83d\ude00é"}"#, Some("é😀é")),
        (r#"{"x":"\"model\":\"b\"","y":1}"#, None),
        (r#"{"x":{"model":"b"}}"#, None),
        (r#"{"metadata":{"model":"b"}}"#, None),
        (r"{}", None),
        (" \r\n\t{ } \n", None),
    ] {
        assert_eq!(model(body), Ok(want.map(str::to_string)), "{body}");
    }
    for (body, want) in [
        (r#"{"stream":true}"#, (Some(true), None)),
        (r#"{"stream":false ,"max_tokens":0}"#, (Some(false), Some(0))),
        (r#"{"stream":null,"max_tokens":null}"#, (None, None)),
        (r#"{"max_tokens":18446744073709551615}"#, (None, Some(u64::MAX))),
    ] {
        assert_eq!(scan(body).map(|peeked| (peeked.stream, peeked.max_tokens)), Ok(want), "{body}");
    }
    for (body, want) in [
        (r#"{"metadata":{"user_id":"a"}}"#, Some("a")),
        (r#"{"metadata":{"user_id":null}}"#, None),
        (r#"{"metadata":{"user_id":"\ud800"}}"#, None),
        (r#"{"metadata":null}"#, None),
        (r#"{"metadata":[{"user_id":"a"}]}"#, None),
        (r#"{"user_id":"a"}"#, None),
    ] {
        assert_eq!(
            scan(body).map(|peeked| peeked.metadata_user_id),
            Ok(want.map(|text| text.as_bytes().to_vec())),
            "{body}"
        );
    }
}

#[test]
fn what_has_two_readings_is_refused() {
    use ScanError::{Duplicate, Lookalike, Malformed, NotAnObject, TrailingBytes, Truncated, Unbalanced, WrongType};
    let rows: &[(&str, ScanError)] = &[
        (r#"{"model":"a","model":"a"}"#, Duplicate("model")),
        (r#"{"model":"a","m\u006fdel":"b"}"#, Duplicate("model")),
        (r#"{"stream":true,"stream":null}"#, Duplicate("stream")),
        (r#"{"max_tokens":1,"max_tokens":1}"#, Duplicate("max_tokens")),
        (r#"{"metadata":{},"metadata":1}"#, Duplicate("metadata")),
        (r#"{"metadata":{"user_id":"a","user_id":"b"}}"#, Duplicate("user_id")),
        (r#"{"Model":"a"}"#, Lookalike("model")),
        (r#"{"model":"a","STREAM":true}"#, Lookalike("stream")),
        (r#"{"model":1}"#, WrongType("model")),
        (r#"{"model":null}"#, WrongType("model")),
        (r#"{"model":["a"]}"#, WrongType("model")),
        (r#"{"model":"\ud83d"}"#, WrongType("model")),
        (r#"{"model":"\ud83dx"}"#, WrongType("model")),
        (r#"{"model":"\ude00"}"#, WrongType("model")),
        (r#"{"model":"\x"}"#, WrongType("model")),
        ("{\"model\":\"a\nb\"}", WrongType("model")),
        (r#"{"stream":"true"}"#, WrongType("stream")),
        (r#"{"stream":1}"#, WrongType("stream")),
        (r#"{"stream":{}}"#, WrongType("stream")),
        (r#"{"max_tokens":-1}"#, WrongType("max_tokens")),
        (r#"{"max_tokens":1.5}"#, WrongType("max_tokens")),
        (r#"{"max_tokens":1e3}"#, WrongType("max_tokens")),
        (r#"{"max_tokens":01}"#, WrongType("max_tokens")),
        (r#"{"max_tokens":"1"}"#, WrongType("max_tokens")),
        (r#"{"max_tokens":18446744073709551616}"#, WrongType("max_tokens")),
        (r#"{"max_tokens":1111111111111111111111111111111}"#, WrongType("max_tokens")),
        ("[]", NotAnObject),
        ("\"{}\"", NotAnObject),
        ("\u{feff}{}", NotAnObject),
        ("", Truncated),
        ("  ", Truncated),
        (r#"{"a":1"#, Truncated),
        (r#"{"a":"}"#, Truncated),
        (r#"{"a":"\"}"#, Truncated),
        ("{}{}", TrailingBytes),
        ("{},", TrailingBytes),
        (r#"{"a":[1}}"#, Unbalanced),
        (r#"{"a":{1]}"#, Unbalanced),
        (r#"{"a":1]"#, Unbalanced),
        (r#"{"a":1,}"#, Malformed("")),
        (r#"{,"a":1}"#, Malformed("")),
        (r#"{"a" 1}"#, Malformed("")),
        (r#"{"a":}"#, Malformed("")),
        (r#"{"a":1 "b":2}"#, Malformed("")),
        (r#"{"a":1"b":2}"#, Malformed("")),
        (r#"{"a":"x""b":2}"#, Malformed("")),
        (r"{a:1}", Malformed("")),
        (r#"{"\m":1}"#, Malformed("")),
        (r#"{"metadata":{"a":1,}}"#, Malformed("")),
    ];
    for (body, want) in rows {
        match (scan(body).expect_err(body), *want) {
            (Malformed(_), Malformed(_)) => {}
            (error, want) => assert_eq!(error, want, "{body}"),
        }
    }
    assert_eq!(scan([b"{\"model\":\"\xff\"}".as_slice()].concat()), Err(WrongType("model")));
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |open: &str, close: &str, depth: u32| {
        let depth = depth as usize;
        format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [("[", "]"), ("{\"b\":", "}")] {
        assert!(scan_cut(nested(open, close, JSON_DEPTH_MAX - 1).as_bytes(), []).is_ok());
        assert_eq!(scan_cut(nested(open, close, JSON_DEPTH_MAX).as_bytes(), []), Err(ScanError::TooDeep));
    }
    let inner = |depth: usize| format!("{{\"metadata\":{{\"a\":{}{}}}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(scan(inner(JSON_DEPTH_MAX as usize - 2)).is_ok());
    assert_eq!(scan(inner(JSON_DEPTH_MAX as usize - 1)), Err(ScanError::TooDeep));

    let model = |text: &str| scan_cut(format!("{{\"model\":\"{text}\"}}").as_bytes(), []).map(|_| ());
    assert_eq!(model(&"a".repeat(MODEL_BYTES_MAX)), Ok(()));
    assert_eq!(model(&"\\u0061".repeat(MODEL_BYTES_MAX)), Ok(()));
    for over in [
        "a".repeat(MODEL_BYTES_MAX + 1),
        "\\u0061".repeat(MODEL_BYTES_MAX + 1),
        "é".repeat(MODEL_BYTES_MAX),
        "a".repeat(1 << 20),
    ] {
        assert_eq!(model(&over), Err(ScanError::TooLong("model")));
    }
    let user = |len: usize| {
        let body = format!("{{\"metadata\":{{\"user_id\":\"{}\"}}}}", "a".repeat(len));
        scan_cut(body.as_bytes(), []).map(|peeked| peeked.metadata_user_id.map(|id| id.len()))
    };
    assert_eq!(user(USER_ID_BYTES_MAX), Ok(Some(USER_ID_BYTES_MAX)));
    assert_eq!(user(USER_ID_BYTES_MAX + 1), Ok(None));
    assert_eq!(user(1 << 16), Ok(None));
    assert!(scan_cut(format!("{{\"{}\":1}}", "k".repeat(1 << 16)).as_bytes(), []).is_ok());
}

#[test]
fn a_scan_is_reused_without_a_trace_and_an_error_stays() {
    let mut scan = FieldScan::new();
    scan.feed(br#"{"model":"a","metadata":{"user_id":"b"},"c":["#).unwrap();
    assert_eq!(scan.so_far().model.as_ref().map(|model| model.text.as_str()), Some("a"));
    let error = scan.feed(b"}").unwrap_err();
    assert_eq!(scan.feed(b"]}"), Err(error));
    assert_eq!(scan.finish(), Err(error));
    scan.reset();
    scan.feed(b"{}").unwrap();
    assert_eq!(scan.finish(), Ok(Peeked::default()));
}

/// A document as text, with its strings escaped and its spaces put in at random.
fn write(value: &Value, style: &mut impl Iterator<Item = u8>, out: &mut String) {
    let space = |style: &mut dyn Iterator<Item = u8>, out: &mut String| {
        out.push_str(["", "", " ", "\n\t"][style.next().unwrap() as usize % 4]);
    };
    space(style, out);
    match value {
        Value::String(text) => write_string(text, style, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write(item, style, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (key, member)) in members.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                space(style, out);
                write_string(key, style, out);
                space(style, out);
                out.push(':');
                write(member, style, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
    space(style, out);
}

fn write_string(text: &str, style: &mut impl Iterator<Item = u8>, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if style.next().unwrap().is_multiple_of(4) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            let quoted = serde_json::to_string(&character).unwrap();
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
    }
    out.push('"');
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{0,12}", "[\"\\\\/{}\\[\\]:,\n\t é😀a]{0,10}", ".{0,8}"]
}

fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        text().prop_map(Value::from)
    ];
    let key = prop_oneof![text(), Just("model".to_string()), Just("user_id".to_string()), Just("stream".to_string())];
    let any_value = scalar.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    let other = prop::collection::hash_map("[a-ln-z]{1,3}|x.{0,70}", any_value.clone(), 0..5);
    let metadata = prop_oneof![
        any_value.clone().prop_filter("an object has its own case", |value| !value.is_object()),
        (prop::option::of(prop_oneof![text().prop_map(Value::from), any_value]), any::<bool>()).prop_map(
            |(id, more)| {
                let mut members = serde_json::Map::new();
                id.map(|id| members.insert("user_id".to_string(), id));
                more.then(|| members.insert("z".to_string(), Value::from(vec![1])));
                Value::Object(members)
            }
        ),
    ];
    (
        other,
        prop::option::of(text()),
        prop::option::of(any::<Option<bool>>()),
        prop::option::of(any::<Option<u64>>()),
        prop::option::of(metadata),
    )
        .prop_map(|(other, model, stream, max_tokens, metadata)| {
            let mut members: serde_json::Map<String, Value> = other.into_iter().collect();
            model.map(|model| members.insert("model".to_string(), model.into()));
            stream.map(|stream| members.insert("stream".to_string(), stream.into()));
            max_tokens.map(|max| members.insert("max_tokens".to_string(), max.into()));
            metadata.map(|metadata| members.insert("metadata".to_string(), metadata));
            Value::Object(members)
        })
}

proptest! {
    #[test]
    fn agrees_with_serde_json(value in document(), style in prop::collection::vec(any::<u8>(), 1..40), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut body = String::new();
        write(&value, &mut style.iter().copied().cycle(), &mut body);
        prop_assert_eq!(&serde_json::from_str::<Value>(&body).unwrap(), &value, "the text is the document");
        let body = body.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        let peeked = scan_cut(body, cuts);
        prop_assert_eq!(&peeked, &scan_cut(body, 0..body.len()));
        let peeked = peeked.unwrap();
        prop_assert_eq!(peeked.model.as_ref().map(|model| model.text.as_str()), value["model"].as_str());
        if let Some(model) = peeked.model {
            let slice = &body[model.at.start as usize..model.at.end as usize];
            prop_assert_eq!(serde_json::from_slice::<String>(slice).unwrap(), model.text.as_str());
        }
        prop_assert_eq!(peeked.stream, value["stream"].as_bool());
        prop_assert_eq!(peeked.max_tokens, value["max_tokens"].as_u64());
        prop_assert_eq!(peeked.metadata_user_id.as_deref(), value["metadata"]["user_id"].as_str().map(str::as_bytes));
    }

    #[test]
    fn cutting_changes_nothing(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", "\"", "\\", "\\u00", "65", ":", ",", "\"model\"", "\"stream\":", "true", "null", "\"max_tokens\":1", "\"metadata\":{",
        "\"user_id\":\"a\"", "\"a\":\"b\",", " ", "é", "\n",
    ]), 0..14)) {
        let _ = scan(pieces.concat());
        let _ = scan(format!("{{{}}}", pieces.concat()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = scan(&bytes);
        let _ = scan([b"{\"model\":\"", bytes.as_slice()].concat());
    }
}
