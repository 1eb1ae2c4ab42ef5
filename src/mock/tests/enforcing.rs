//! The enforcing mode and the usage log, judged over whole runs.

use super::*;
use crate::{
    base::Rng,
    mock::{Ending, LimitSet},
};

fn enforcing(limits: &str) -> World {
    let enforce = LimitSet::parse(limits).unwrap();
    World::new(Options { enforce, cache_tokens_min: 1, ..Options::default() })
}

#[test]
fn a_seeded_run_keeps_every_window_and_every_book() {
    let mut world = enforcing("rpm=60,itpm=4000,otpm=3000,burst_s=20");
    let mut rng = Rng(11);
    let mut told_wrong = 0;
    for _ in 0..600 {
        world.now = world.now.after(Span(rng.below(900_000_000)));
        let text = "w".repeat(40 + rng.below(800) as usize);
        let played = world.hi_with(&format!("event_bytes=20,bytes={}", 20 + rng.below(400)), &text);
        match played.head.status {
            200 => drop(played.message().unwrap()),
            429 => told_wrong += u64::from(played.field("retry-after").is_none()),
            other => panic!("{other}"),
        }
    }
    assert_eq!(told_wrong, 0);
    let rows: Vec<_> = world.engine.rows().cloned().collect();
    let admitted: Vec<_> = rows.iter().filter(|row| row.admitted).collect();
    assert!(admitted.len() > 100 && admitted.len() < 500, "{}", admitted.len());
    for (at, first) in admitted.iter().enumerate() {
        let (mut requests, mut inputs) = (0_u128, 0_u128);
        for row in &admitted[at..] {
            requests += 1;
            inputs += u128::from(row.input_tokens + row.cache_write_tokens);
            let window = u128::from(row.at_mono_ns - first.at_mono_ns);
            assert!(requests * 60_000_000_000 <= 20 * 60_000_000_000 + 60 * window);
            assert!(inputs * 60_000_000_000 <= 1_333 * 60_000_000_000 + 20_000_000_000 + 4_000 * window);
        }
    }
    let (all, each) = world.engine.log.sums();
    assert_eq!((all.requests, all.open, all.failed), (600, 0, 0));
    assert_eq!(all.admitted + all.throttled, 600);
    assert_eq!(all.finished, 600);
    assert_eq!(all.output_tokens, rows.iter().map(|row| row.output_tokens).sum::<u64>());
    assert_eq!(all.input_tokens, rows.iter().map(|row| row.input_tokens).sum::<u64>());
    assert_eq!(each.values().map(|sums| sums.requests).sum::<u64>(), 600);
    assert!(rows.iter().all(|row| row.admitted || row.output_tokens == 0));
}

impl World {
    fn hi_with(&mut self, sim: &str, text: &str) -> Played {
        self.ask(sim, &prompt(text, true))
    }
}

#[test]
fn the_told_limits_are_the_true_ones() {
    let mut world = enforcing("rpm=10,itpm=1000,otpm=600");
    let played = world.hi_with("bytes=400,event_bytes=40", &"w".repeat(400));
    let told = |played: &Played, name: &str| played.field(&format!("anthropic-ratelimit-{name}")).unwrap().to_owned();
    assert_eq!(told(&played, "requests-limit"), "10");
    assert_eq!(told(&played, "requests-remaining"), "9");
    assert_eq!(told(&played, "requests-reset"), "2026-11-25T10:00:06Z");
    assert_eq!(told(&played, "input-tokens-remaining"), "900");
    assert_eq!(told(&played, "input-tokens-reset"), "2026-11-25T10:00:06Z");
    assert_eq!(told(&played, "output-tokens-remaining"), "600", "nothing is produced when the head leaves");
    assert_eq!((told(&played, "tokens-limit"), told(&played, "tokens-remaining")), ("1000".into(), "900".into()));
    let next = world.hi_with("bytes=4", "w");
    assert_eq!(told(&next, "output-tokens-remaining"), "500", "the first answer's hundred tokens are charged");
    assert_eq!(told(&next, "tokens-limit"), "600", "output is the tighter one now");
}

#[test]
fn a_throttled_request_is_told_what_and_how_long_and_then_fits() {
    let mut world = enforcing("itpm=600,burst_s=10");
    assert_eq!(world.hi_with("", &"w".repeat(400)).head.status, 200);
    let played = world.hi_with("", &"w".repeat(200));
    assert_eq!((played.head.status, played.field("retry-after")), (429, Some("5")));
    let body = played.json();
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert!(body["error"]["message"].as_str().unwrap().contains("600 input tokens per minute"));
    assert_eq!(played.field("anthropic-ratelimit-input-tokens-remaining"), Some("0"));
    world.now = world.now.after(Span(4_999_999_999));
    assert_eq!(world.hi_with("", &"w".repeat(200)).head.status, 429);
    world.now = world.now.after(Span(1));
    assert_eq!(world.hi_with("", &"w".repeat(200)).head.status, 200);
}

#[test]
fn cache_reads_do_not_count_and_refused_requests_warm_nothing() {
    let mut world = enforcing("itpm=1000");
    let mut body = prompt("", true);
    let mark = json!({"type": "ephemeral"});
    body["messages"][0]["content"] = json!([{"type": "text", "text": "w".repeat(2_800), "cache_control": mark}]);
    let usage = |played: &Played| played.message().unwrap()["usage"].clone();
    let first = usage(&world.ask("", &body));
    assert_eq!((&first["cache_creation_input_tokens"], &first["cache_read_input_tokens"]), (&json!(700), &json!(0)));
    assert_eq!(first["cache_creation"]["ephemeral_5m_input_tokens"], 700);
    let second = usage(&world.ask("", &body));
    assert_eq!((&second["cache_creation_input_tokens"], &second["cache_read_input_tokens"]), (&json!(0), &json!(700)));
    let mut other = body.clone();
    other["messages"][0]["content"][0]["text"] = json!("x".repeat(2_800));
    assert_eq!(world.ask("", &other).head.status, 429);
    world.now = world.now.after(Span::from_secs(60));
    assert_eq!(usage(&world.ask("", &other))["cache_read_input_tokens"], 0);
    let read: u64 = world.engine.rows().map(|row| row.cache_read_tokens).sum();
    assert_eq!(read, 700);
}

#[test]
fn simulated_failures_cost_nothing() {
    let mut world = enforcing("rpm=1");
    for sim in ["529", "reset", "429", "junk"] {
        world.hi(sim);
    }
    assert_eq!(world.hi("").head.status, 200);
    assert_eq!(world.hi("").head.status, 429);
    let (all, _) = world.engine.log.sums();
    assert_eq!((all.admitted, all.throttled, all.failed, all.broken), (1, 2, 3, 1));
}

#[test]
fn counting_has_a_limit_of_its_own() {
    let mut world = enforcing("rpm=1,count_rpm=2");
    let body = prompt("hi", false).to_string();
    let mut count =
        || world.send("POST", "/v1/messages/count_tokens", &[("x-api-key", "k")], body.as_bytes()).head.status;
    assert_eq!([count(), count(), count()], [200, 200, 429]);
    assert_eq!(world.hi("").head.status, 200);
}

#[test]
fn a_ramp_has_its_own_code() {
    let mut world = enforcing("ramp_itpm=100");
    assert_eq!(world.hi_with("", &"w".repeat(400)).head.status, 200);
    let played = world.hi_with("", &"w".repeat(40));
    assert_eq!(played.head.status, 429);
    assert_eq!(played.json()["error"]["details"]["error_code"], "ramp_limit_exceeded");
}

#[test]
fn the_simulator_is_read_and_steered_over_http_from_loopback_only() {
    let mut world = World::default();
    world.hi("events=3");
    world.hi("529");
    let log = world.send("GET", "/sim/log?from=1", &[], b"").json();
    assert_eq!(
        (log["rows"].as_array().unwrap().len(), &log["next"], &log["rows"][0]["status"]),
        (1, &json!(2), &json!(529))
    );
    let stats = world.send("GET", "/sim/stats", &[], b"").json();
    assert_eq!(
        (&stats["all"]["requests"], &stats["all"]["admitted"], &stats["rows"]),
        (&json!(2), &json!(1), &json!(2))
    );
    let rules = br#"[{"do": "503", "times": 1}]"#;
    assert_eq!(world.send("POST", "/sim/rules", &[], rules).head.status, 200);
    assert_eq!((world.hi("").head.status, world.hi("").head.status), (503, 200));
    assert_eq!(world.send("GET", "/sim/rules", &[], b"").json()[0]["times"], 0);
    assert_eq!(world.send("POST", "/sim/rules", &[], br#"[{"do": "speed"}]"#).head.status, 400);
    assert_eq!(world.send("POST", "/sim/limits", &[], b"rpm=1").head.status, 200);
    assert_eq!((world.hi("").head.status, world.hi("").head.status), (200, 429));
    assert_eq!(world.send("POST", "/sim/reset", &[], b"").head.status, 200);
    assert_eq!(world.send("GET", "/sim/stats", &[], b"").json()["all"]["requests"], 0);
    assert_eq!(world.hi("").head.status, 200);
    assert_eq!(world.send("POST", "/sim/log", &[], b"").head.status, 405);
    let request = Request {
        method: "GET",
        target: "/sim/log",
        fields: &[],
        body: b"",
        http10: false,
        keep_alive: true,
        loopback: false,
    };
    let (mut script, mut out) = (world.engine.answer(world.now, WALL, &request), Vec::new());
    world.engine.step(&mut script, world.now, &mut out);
    assert!(out.starts_with(b"HTTP/1.1 403"));
}

#[test]
fn a_reset_forgets_answers_that_are_under_way() {
    let mut world = World::default();
    let body = prompt("hi", true).to_string();
    let fields: [(&str, &[u8]); 1] = [("x-api-key", b"k")];
    let request = Request {
        method: "POST",
        target: "/v1/messages",
        fields: &fields,
        body: body.as_bytes(),
        http10: false,
        keep_alive: true,
        loopback: true,
    };
    let (mut script, mut out) = (world.engine.answer(world.now, WALL, &request), Vec::new());
    world.send("POST", "/sim/reset", &[], b"");
    world.hi("");
    while world.engine.step(&mut script, world.now, &mut out) == Step::Send {}
    let (all, _) = world.engine.log.sums();
    assert_eq!((all.requests, all.finished, all.open), (1, 1, 0));
    assert_eq!(world.engine.rows().map(|row| row.ending).collect::<Vec<_>>(), [Ending::Finished]);
}
