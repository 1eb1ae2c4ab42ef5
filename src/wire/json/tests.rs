use super::*;

fn scan(body: &[u8]) -> Result<Peeked, ScanError> {
    let mut scan = FieldScan::new();
    scan.feed(body)?;
    scan.finish()
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
