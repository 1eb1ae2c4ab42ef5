//! Bodies: JSON that names a model, streams of events, and anything at all.

use flate2::{Compression, write::GzEncoder};
use forebay::sim::dice::Dice;
use std::{io::Write, sync::OnceLock};

/// Bytes to cut bodies from: making each anew would take longer than the exchange.
const POOL: usize = 1 << 20;

fn pool(kind: usize) -> &'static [u8] {
    static POOLS: [OnceLock<Vec<u8>>; 2] = [const { OnceLock::new() }; 2];
    POOLS[kind].get_or_init(|| {
        let mut dice = Dice::new(7);
        let letters = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 {}[]:,.;()<>=+-*/_'#$%&";
        let byte = |_| if kind == 0 { *dice.pick(letters) } else { dice.bits() as u8 };
        (0..POOL).map(byte).collect()
    })
}

fn cut(dice: &mut Dice, kind: usize, len: usize) -> &'static [u8] {
    let at = dice.below(POOL - len.min(POOL) + 1);
    &pool(kind)[at..at + len.min(POOL)]
}

/// `len` bytes of any kind.
pub fn any(dice: &mut Dice, len: usize) -> Vec<u8> {
    let kind = dice.below(2);
    cut(dice, kind, len).to_vec()
}

/// `bytes` as somebody compresses them.
pub fn zipped(dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
    let level = *dice.pick(&[Compression::none(), Compression::fast(), Compression::default()]);
    let mut gzip = GzEncoder::new(Vec::new(), level);
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// `text` as a string of JSON, some of it escaped.
pub fn json_string(dice: &mut Dice, text: &str) -> Vec<u8> {
    let escapes = dice.chance(4);
    let mut out = vec![b'"'];
    for letter in text.chars() {
        if escapes && dice.chance(3) {
            out.extend_from_slice(format!("\\u{:04x}", letter as u32).as_bytes());
        } else {
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    out.push(b'"');
    out
}

/// Text inside a string of JSON: letters, other scripts, escapes, and what looks like the field that routes.
fn said(dice: &mut Dice, len: usize) -> Vec<u8> {
    let odd =
        ["\\u00e9", "\u{e9}\u{1f600}", "\\\"", "\\\\", "\\n", "\\\"model\\\":\\\"fast\\\"", "\\ud83d\\ude00", "\\/"];
    let mut out = Vec::with_capacity(len + 100);
    while out.len() < len {
        let piece = (len - out.len()).min(*dice.pick(&[10, 1_000, 100_000]));
        out.extend_from_slice(cut(dice, 0, piece));
        out.extend_from_slice(dice.pick(&odd).as_bytes());
    }
    out
}

/// An object with a `model` among its fields: what stands before the model's name, and what behind.
pub fn around_model(dice: &mut Dice, max: usize) -> (Vec<u8>, Vec<u8>) {
    let space = *dice.pick(&["", "", " ", "\n  ", "\r\n\t"]);
    let text = |dice: &mut Dice| {
        let bytes = dice.size(max);
        [b"\"", &said(dice, bytes)[..], b"\""].concat()
    };
    let mut members: Vec<Vec<u8>> = vec![
        [b"\"messages\":[{\"role\":\"user\",\"content\":", &text(dice)[..], b"}]"].concat(),
        format!("\"max_tokens\":{space}1024").into(),
        b"\"metadata\" : {\"user_id\":\"user_1\",\"model\":\"fast\"}".to_vec(),
        format!("\"stream\"{space}:{space}{}", dice.pick(&["true", "false", "null"])).into(),
        b"\"n\":1.50,\"e\":-1.0E+2,\"z\":-0,\"n\":1.5".to_vec(),
        b"\"tools\":[{\"input_schema\":{\"model\":\"x\",\"a\":[[],{},[{}]]}},null,true]".to_vec(),
        "\"\u{fc}ber\":\"\u{fc}\"".into(),
    ];
    members.retain(|_| !dice.chance(5));
    super::made::shuffle(dice, &mut members);
    let at = dice.below(members.len() + 1);
    let comma = format!("{space},{space}").into_bytes();
    let key = *dice.pick(&["\"model\"", "\"model\"", "\"mod\\u0065l\""]);
    let mut before = format!("{space}{{{space}").into_bytes();
    for member in &members[..at] {
        before.extend_from_slice(member);
        before.extend_from_slice(&comma);
    }
    before.extend_from_slice(format!("{key}{space}:{space}").as_bytes());
    let mut after = Vec::new();
    for member in &members[at..] {
        after.extend_from_slice(&comma);
        after.extend_from_slice(member);
    }
    after.extend_from_slice(format!("{space}}}{space}").as_bytes());
    (before, after)
}

/// Events as a model makes them, with oddities that the standard allows; one in four is not well ended, unless `is_whole`.
pub fn stream(dice: &mut Dice, is_whole: bool) -> Vec<u8> {
    let end = *dice.pick(&["\n", "\n", "\n", "\r\n", "\r"]);
    let mut out = if dice.chance(10) { "\u{feff}".as_bytes().to_vec() } else { Vec::new() };
    let mut event = |dice: &mut Dice, name: &str, bytes: usize| {
        match dice.below(12) {
            0 => out.extend_from_slice(format!(": a comment{end}").as_bytes()),
            1 => out.extend_from_slice(format!("id:{}{end}retry: 10{end}", dice.below(99)).as_bytes()),
            2 => out.extend_from_slice(format!("data: one line more{end}").as_bytes()),
            _ => {}
        }
        let space = if dice.chance(6) { "" } else { " " };
        out.extend_from_slice(format!("event:{space}{name}{end}data:{space}{{\"type\":\"{name}\",\"t\":\"").as_bytes());
        out.extend_from_slice(&said(dice, bytes));
        out.extend_from_slice(format!("\"}}{end}{end}").as_bytes());
    };
    event(dice, "message_start", 300);
    for _ in 0..dice.between(0, 3) {
        event(dice, "content_block_start", 20);
        for _ in 0..dice.below(12) {
            let bytes = if dice.chance(60) { dice.between(14_000, 60_000) } else { dice.size(4_000) };
            event(dice, "content_block_delta", bytes);
            if dice.chance(8) {
                event(dice, "ping", 0);
            }
        }
        event(dice, "content_block_stop", 0);
    }
    event(dice, "message_delta", 30);
    if is_whole || !dice.chance(6) {
        event(dice, "message_stop", 0);
    }
    if !is_whole && dice.chance(6) {
        out.extend_from_slice(b"data: no blank line follows");
    }
    out
}
