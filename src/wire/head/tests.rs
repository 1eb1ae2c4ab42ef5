use super::*;

fn request(bytes: &[u8]) -> Result<(RequestHead, usize), HeadError> {
    let mut head = RequestHead::new();
    head.parse(bytes)?.map(|n| (head, n)).ok_or(HeadError::Malformed("test: not complete"))
}

#[test]
fn a_request_is_read_by_offsets() {
    let bytes = b"\r\nPOST http://h.example:8443/v1/messages?beta=true HTTP/1.1\r\nHost:  h \r\nContent-Length: 12\r\nX-A:\r\nConnection: keep-alive, X-a, authorization\r\nAuthorization: b\r\n\r\nbody";
    let (head, n) = request(bytes).unwrap();
    assert_eq!(n, bytes.len() - 4);
    assert_eq!(head.method.of(bytes), b"POST");
    assert_eq!(head.path(bytes), b"/v1/messages");
    assert_eq!(head.query(bytes), Some(&b"beta=true"[..]));
    assert_eq!(head.path_and_query(bytes), b"/v1/messages?beta=true");
    assert_eq!(head.host(bytes), b"h.example:8443");
    assert_eq!(head.field(bytes, "host"), Some(&b"h"[..]));
    assert_eq!(head.framing, Framing::Length(12));
    assert!(head.keep_alive && !head.expect_continue && !head.upgrade);
    let ends: Vec<bool> = head.fields.iter().map(|field| head.is_hop_by_hop(bytes, field)).collect();
    assert_eq!(ends, [false, false, true, true, false]);
}
