use super::*;

#[test]
fn chunks_of_one_read_become_one_payload() {
    let mut bytes = *b"5\r\nhello\r\n6;a=\"b c\"\r\n world\r\n0\r\nX-T: 1\r\n\r\nGET";
    let mut body = BodyDecoder::new(Framing::Chunked);
    let stripped = body.strip(&mut bytes).unwrap();
    assert_eq!(&bytes[stripped.payload], b"hello world");
    assert_eq!(stripped.consumed, bytes.len() - 3);
    assert!(body.is_done());
}

#[test]
fn size_lines_are_written() {
    for (len, line) in
        [(1, "1\r\n"), (0x1f4, "1f4\r\n"), (65_536, "10000\r\n"), (0, ""), (usize::MAX, "ffffffffffffffff\r\n")]
    {
        assert_eq!(chunk_head(len).as_bytes(), line.as_bytes());
    }
}
