//! What the meter makes of the simulator's answers is what the simulator's own books say.

use super::*;
use crate::{
    meter::{Flags, Metered, Ratios, Tap},
    mock::Ending,
    telemetry,
    wire::EventScanner,
};

/// The answer through a tap, as a relay feeds it.
fn metered(played: &Played, ending: telemetry::Ending) -> Metered {
    let mut tap = Tap::new();
    if played.field("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let (mut scanner, mut at) = (EventScanner::new(), 0);
        while let Some(end) = scanner.next(&played.body, at) {
            tap.event(scanner.name(), &played.body[at..end]);
            at = end;
        }
    } else {
        played.body.chunks(37).for_each(|piece| tap.body(piece));
    }
    tap.finish(ending, &Ratios::new())
}

#[test]
fn whole_answers_are_metered_as_they_are_booked() {
    let long = "a prompt that is long enough for the cache ".repeat(400);
    for sim in [
        "",
        "events=40",
        "bytes=5000,event_bytes=512",
        "crlf,comments",
        "thinking",
        "ping_every=2,events=9",
        "framing=close",
    ] {
        let mut world = World::default();
        for stream in [true, false] {
            for ttl in ["5m", "1h"] {
                let mut body = prompt("hi there", stream);
                let mark = json!({"type": "ephemeral", "ttl": ttl});
                body["system"] =
                    json!([{"type": "text", "text": format!("{ttl}{stream}{long}"), "cache_control": mark}]);
                for turn in 0..2 {
                    let played = world.ask(sim, &body);
                    let row = world.engine.rows().last().unwrap().clone();
                    let metered = metered(&played, telemetry::Ending::Complete);
                    let counts = metered.usage.counts;
                    let writes = if ttl == "1h" { counts.cache_write_1h } else { counts.cache_write_5m };
                    let told = (counts.input, writes, counts.cache_read, counts.output);
                    let booked = (row.input_tokens, row.cache_write_tokens, row.cache_read_tokens, row.output_tokens);
                    assert_eq!(told, booked, "{sim} {stream} {ttl} {turn}");
                    assert_eq!((counts.cache_read > 0, writes > 0), (turn == 1, turn == 0), "{sim}");
                    assert_eq!((metered.stop.slug(), metered.flags), ("end_turn", Flags::default()), "{sim}");
                    assert_eq!(metered.model.as_str(), body["model"], "{sim}");
                }
            }
        }
    }
}

#[test]
fn answers_that_break_are_estimated_near_what_was_produced() {
    for after in [0, 1, 7, 39] {
        for fault in ["cut", "error"] {
            let mut world = World::default();
            let sim = format!("{fault}={after},events=40,event_bytes=400");
            let played = world.hi(&sim);
            let row = world.engine.rows().last().unwrap().clone();
            assert_ne!(row.ending, Ending::Finished, "{sim}");
            let metered = metered(&played, telemetry::Ending::Broken);
            assert!(metered.flags.has(Flags::ESTIMATED), "{sim}");
            assert_eq!(metered.usage.counts.input, row.input_tokens, "{sim}");
            let (told, produced) = (metered.usage.counts.output, row.output_tokens);
            assert!(told.abs_diff(produced) <= 100 + produced / 20, "{sim}: {told} for {produced}");
        }
    }
}
