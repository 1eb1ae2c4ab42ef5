use super::*;

#[test]
fn an_event_is_found_with_its_name() {
    let bytes = b"event: ping\ndata: {}\n\n: c\r\n\r\nevent:x\rdata\r\r!";
    let mut scanner = EventScanner::new();
    assert_eq!(scanner.next(bytes, 0), Some(22));
    assert_eq!(scanner.name(), b"ping");
    assert_eq!(scanner.next(bytes, 22), Some(29));
    assert_eq!(scanner.name(), b"");
    assert_eq!(scanner.next(bytes, 29), Some(43));
    assert_eq!(scanner.name(), b"x");
    assert_eq!(scanner.next(bytes, 43), None);
    assert!(scanner.is_partial());
}
