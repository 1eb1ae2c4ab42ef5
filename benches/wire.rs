//! The codec by itself: what a request and each event of an answer cost before any decision is made.
//!
//! monoio-http's decoder runs beside ours on the same bytes, as a measure and not as an equal: it takes heads that ours
//! refuses, and a fixed body only once the whole of it has been buffered.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "criterion's macros; a bench that fails should stop"
)]

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay::wire::{BodyDecoder, EventScanner, FieldScan, Framing, RequestHead, ResponseHead, chunk_head};
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::{DirectWrapper, GenericHeadDecoder, PayloadDecoder, RequestHeadDecoder};
use std::{fmt::Write as _, hint::black_box};

/// The head that Claude Code 2.1 sends, its secrets and ids replaced.
fn claude_head(body_bytes: usize) -> Vec<u8> {
    format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\n\
         Accept: application/json\r\n\
         Content-Type: application/json\r\n\
         User-Agent: claude-cli/2.1.330 (external, cli)\r\n\
         X-Claude-Code-Session-Id: 7d1c2a44-6a0f-4c55-9b0d-5f8f4b1f0d21\r\n\
         X-Stainless-Arch: x64\r\n\
         X-Stainless-Lang: js\r\n\
         X-Stainless-OS: Linux\r\n\
         X-Stainless-Package-Version: 0.128.0\r\n\
         X-Stainless-Retry-Count: 0\r\n\
         X-Stainless-Runtime: node\r\n\
         X-Stainless-Runtime-Version: v24.3.0\r\n\
         X-Stainless-Timeout: 600\r\n\
         anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,\
         per-turn-control-2026-07-01,mid-conversation-tool-changes-2026-07-01,thinking-token-count-2026-05-13,\
         advanced-tool-use-2025-11-20,effort-2025-11-24,thinking-display-updates-2026-08-18\r\n\
         anthropic-dangerous-direct-browser-access: true\r\n\
         anthropic-version: 2023-06-01\r\n\
         x-api-key: fb_0000000000000000000000000000000000000000000\r\n\
         x-app: cli\r\n\
         x-claude-code-request-class: main\r\n\
         x-claude-code-prompt-id: 0f2b8c1e-2f54-4e0e-8a51-0f6ff4b31c9a\r\n\
         x-claude-code-agent-id: main\r\n\
         x-claude-code-agent-type: main\r\n\
         x-claude-1p-request-class: main\r\n\
         x-client-request-id: 6f1c9a2e-5b0d-4d18-93c1-1b8a7f3b5e60\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         Connection: keep-alive\r\n\
         Host: forebay.example.internal:8443\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: *\r\n\
         Sec-Fetch-Mode: cors\r\n\
         Content-Length: {body_bytes}\r\n\r\n"
    )
    .into_bytes()
}

const ANSWER_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 10:00:00 GMT\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n\
anthropic-ratelimit-input-tokens-limit: 2000000\r\nanthropic-ratelimit-input-tokens-remaining: 1999000\r\n\
anthropic-ratelimit-input-tokens-reset: 2026-11-24T10:00:00Z\r\nanthropic-ratelimit-requests-limit: 4000\r\n\
anthropic-ratelimit-requests-remaining: 3999\r\nanthropic-ratelimit-requests-reset: 2026-11-24T10:00:00Z\r\n\
request-id: req_011CVYpkqA1r1mV4m3rV8p3L\r\nanthropic-organization-id: 00000000-0000-0000-0000-000000000000\r\n\
strict-transport-security: max-age=31536000\r\nServer: cloudflare\r\nX-Robots-Tag: none\r\ncf-cache-status: DYNAMIC\r\n\r\n";

/// A body in the order of Claude Code's keys, `stream` last; its texts are code, so an escape comes every 30 bytes.
fn agent_body(bytes: usize) -> Vec<u8> {
    let mut body = String::from(r#"{"model":"claude-opus-4-6","messages":["#);
    let code = r#"    if let Some(name) = map.get(\"name\") {\n        println!(\"{}\", name);\n    }\n\treturn Err(Error::new(\"no such name\"));\n"#;
    let mut turn = 0;
    while body.len() + 1200 < bytes {
        let comma = if turn == 0 { "" } else { "," };
        let text = code.repeat(1 + (bytes / 100).min(4000) / code.len());
        let _ = write!(
            body,
            r#"{comma}{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"toolu_{turn:020}","content":"{text}"}}]}}"#
        );
        turn += 1;
    }
    body.push_str(
        r#"],"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330; cc_entrypoint=cli;"}],
"tools":[{"name":"Bash","input_schema":{"type":"object","properties":{"command":{"type":"string"},"timeout":{"type":"number"}},"required":["command"]}}],
"metadata":{"user_id":"{\"device_id\":\"0000\",\"account_uuid\":\"\",\"session_id\":\"7d1c2a44-6a0f-4c55-9b0d-5f8f4b1f0d21\"}"},
"max_tokens":128000,"thinking":{"type":"adaptive"},"output_config":{"effort":"high"},"stream":true}"#,
    );
    body.into_bytes()
}

fn events(count: usize) -> Vec<String> {
    let event = |at: usize| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word {at}\"}}}}\n\n"
        )
    };
    (0..count).map(event).collect()
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    let bytes = claude_head(90_000);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut head = RequestHead::new();
    group.bench_function("request, 30 fields", |b| {
        b.iter(|| {
            head.reset();
            head.parse(black_box(&bytes)).unwrap()
        });
    });
    group.bench_function("request, 30 fields, monoio-http", |b| {
        b.iter_batched_ref(
            || BytesMut::from(bytes.as_slice()),
            |buffer| RequestHeadDecoder.decode(buffer).unwrap(),
            BatchSize::NumIterations(32),
        );
    });
    group.throughput(Throughput::Bytes(ANSWER_HEAD.len() as u64));
    let mut answer = ResponseHead::new();
    group.bench_function("answer, 17 fields", |b| {
        b.iter(|| {
            answer.reset();
            answer.parse(black_box(ANSWER_HEAD), false).unwrap()
        });
    });
    group.finish();
}

/// Head and a fixed body of 90 kB, all of it in the buffer already.
fn requests(c: &mut Criterion) {
    let body = agent_body(90_000);
    let mut whole = claude_head(body.len());
    whole.extend_from_slice(&body);
    let mut group = c.benchmark_group("request");
    group.throughput(Throughput::Bytes(whole.len() as u64));
    let mut head = RequestHead::new();
    let mut ours = whole.clone();
    group.bench_function("head and 90 kB", |b| {
        b.iter(|| {
            head.reset();
            let n = head.parse(black_box(&ours)).unwrap().unwrap();
            let mut decoder = BodyDecoder::new(head.framing);
            decoder.strip(&mut ours[n..]).unwrap()
        });
    });
    group.bench_function("head and 90 kB, monoio-http", |b| {
        b.iter_batched_ref(
            || BytesMut::from(whole.as_slice()),
            |buffer| {
                let mut decoder = GenericHeadDecoder::<(), RequestHeadDecoder, DirectWrapper>::new(RequestHeadDecoder);
                let Ok(Decoded::Some((head, PayloadDecoder::Fixed(mut body)))) = decoder.decode(buffer) else {
                    panic!("no head with a fixed body")
                };
                let Ok(Decoded::Some(payload)) = body.decode(buffer) else { panic!("no body") };
                (head, payload)
            },
            BatchSize::NumIterations(32),
        );
    });
    group.finish();
}

fn scans(c: &mut Criterion) {
    let mut group = c.benchmark_group("field scan");
    for (name, bytes) in [("1 kB", 1_000), ("100 kB", 100_000), ("1 MB", 1_000_000)] {
        let body = agent_body(bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut scan = FieldScan::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                scan.reset();
                for read in black_box(&body).chunks(64 * 1024) {
                    scan.feed(read).unwrap();
                }
                let peeked = scan.finish().unwrap();
                assert_eq!((peeked.stream, peeked.max_tokens), (Some(true), Some(128_000)));
                peeked
            });
        });
    }
    group.finish();
}

fn streams(c: &mut Criterion) {
    const COUNT: usize = 1000;
    let events = events(COUNT);
    let stream = events.concat().into_bytes();
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("1000 events split", |b| {
        b.iter(|| {
            let mut scanner = EventScanner::new();
            let (mut from, mut count) = (0, 0);
            while let Some(end) = scanner.next(black_box(&stream), from) {
                count += usize::from(scanner.name() == b"content_block_delta");
                from = end;
            }
            assert_eq!(count, COUNT);
        });
    });
    let framed: Vec<Vec<u8>> =
        events.iter().map(|event| [chunk_head(event.len()).as_bytes(), event.as_bytes(), b"\r\n"].concat()).collect();
    group.bench_function("1000 events unframed, split and framed, a read each", |b| {
        let mut reads = framed.clone();
        b.iter(|| {
            let (mut body, mut scanner, mut sent) = (BodyDecoder::new(Framing::Chunked), EventScanner::new(), 0);
            for read in &mut reads {
                let stripped = body.strip(read).unwrap();
                let payload = read.get(stripped.payload).unwrap();
                let end = scanner.next(payload, 0).unwrap();
                sent += chunk_head(end).as_bytes().len() + end + 2;
            }
            sent
        });
    });
    group.finish();
}

criterion_group!(wire, heads, requests, scans, streams);
criterion_main!(wire);
