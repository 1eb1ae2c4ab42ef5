//! What the tap adds to an event and to a document, beside serde_json on the same bytes.
#![allow(missing_docs, clippy::unwrap_used, reason = "criterion's macros; a bench that fails should stop")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::meter::{Ratios, Tap};
use forebay::telemetry::Ending;
use std::hint::black_box;

const START: &[u8] = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_013Zva2CMHLNnXjNJJKqJ2EF\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-opus-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":300,\"cache_read_input_tokens\":4000,\"cache_creation\":{\"ephemeral_5m_input_tokens\":300,\"ephemeral_1h_input_tokens\":0},\"output_tokens\":1,\"service_tier\":\"standard\",\"inference_geo\":\"global\"}}}\n\n";
const END: &[u8] = b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":300,\"cache_read_input_tokens\":4000,\"output_tokens\":15}}\n\n";
const DELTA: &[u8] = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there, this is a word or two\"}}\n\n";

fn long_delta() -> Vec<u8> {
    let text = "if let Some(name) = map.get(\\\"name\\\") {\\n".repeat(24);
    format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n").into_bytes()
}

fn document(bytes: usize) -> Vec<u8> {
    let text = "if let Some(name) = map.get(\\\"name\\\") {\\n".repeat(bytes / 42);
    format!("{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-opus-5\",\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\",\"usage\":{{\"input_tokens\":25,\"cache_creation_input_tokens\":300,\"cache_read_input_tokens\":4000,\"output_tokens\":15}}}}").into_bytes()
}

fn events(c: &mut Criterion) {
    let mut tap = Tap::new();
    let mut group = c.benchmark_group("event");
    group.bench_function("content", |b| b.iter(|| tap.event(b"content_block_delta", black_box(DELTA))));
    let long = long_delta();
    group.bench_function("content of 1 KiB", |b| b.iter(|| tap.event(b"content_block_delta", black_box(&long))));
    group.bench_function("ping", |b| b.iter(|| tap.event(b"ping", black_box(b"event: ping\ndata: {}\n\n"))));
    for (name, event) in [("message_start", START), ("message_delta", END)] {
        group.bench_function(name, |b| b.iter(|| tap.event(name.as_bytes(), black_box(event))));
        let data = event.splitn(2, |byte| *byte == b'\n').nth(1).and_then(|line| line.strip_prefix(b"data: ")).unwrap();
        group.bench_function(format!("{name}, serde_json"), |b| {
            b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(data)).unwrap());
        });
    }
    group.finish();
}

fn documents(c: &mut Criterion) {
    let mut group = c.benchmark_group("document");
    let (body, ratios) = (document(64 << 10), Ratios::new());
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("64 KiB in reads of 16 KiB", |b| {
        b.iter(|| {
            let mut tap = Tap::new();
            body.chunks(16 << 10).for_each(|piece| tap.body(black_box(piece)));
            tap.finish(Ending::Complete, &ratios)
        });
    });
    group.bench_function("64 KiB, serde_json", |b| {
        b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, events, documents);
criterion_main!(benches);
