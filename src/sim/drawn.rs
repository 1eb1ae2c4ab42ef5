//! The parts of a made-up story: upstreams, callers, models, clients; each as a seed's dice fall.

use super::{
    client,
    dice::Dice,
    pipe::{Cut, Manner},
    plan::{Aim, How, Ill, Illness, Person, Plan, Rule, Site, Times, Visit, When},
    request::{self, Asked},
};
use crate::{
    auth::key,
    base::Span,
    table::{Bounds, Patience, Verdict},
};
use std::net::SocketAddr;

/// Exact names, the beginnings of names, and names that lead nowhere.
const NAMES: [&str; 4] = ["claude-sonnet-5", "claude-opus-*", "fast", "claude-*"];

pub(super) fn site(dice: &mut Dice, number: usize, times: Times) -> Site {
    let credential = |dice: &mut Dice, at: usize| {
        let secret = format!("sk-of-site-{number}-{at}-{:016x}", dice.bits());
        if dice.chance(3) {
            ("authorization".to_owned(), format!("Bearer {secret}"))
        } else {
            ("x-api-key".to_owned(), secret)
        }
    };
    let moods: &[[usize; 3]] = match dice.below(9) {
        _ if times != Times::Mixed => &[[10, 0, 0]],
        0 => &[[0, 10, 0], [10, 0, 0]],
        4 => &[[0, 5, 5], [0, 0, 10]],
        1 => &[[0, 0, 10], [10, 0, 0]],
        2 => &[[6, 3, 1], [7, 3, 0]],
        3 => &[[0, 10, 0]],
        _ => &[[10, 0, 0]],
    };
    let address = |at: usize| SocketAddr::from(([10, 0, number as u8, at as u8], 443));
    Site {
        name: format!("site-{number}"),
        base_path: if dice.chance(3) { "/base".into() } else { String::new() },
        credentials: (0..*dice.pick(&[1, 1, 2, 3])).map(|at| credential(dice, at)).collect(),
        addresses: moods.iter().enumerate().map(|(at, mood)| (address(at), *mood)).collect(),
        idle_ms: dice.chance(2).then(|| dice.size(60_000) as u64),
        first_byte: dice.chance(3).then(|| Span::from_secs(dice.between(2, 9) as u64)),
        ill: ill(dice, times),
        verdicts: match dice.below(6) {
            0 if times == Times::Mixed => vec![*dice.pick(&[
                (529, Verdict::Deliver),
                (429, Verdict::Next),
                (400, Verdict::CoolAndNext),
                (413, Verdict::Next),
                (404, Verdict::Deliver),
            ])],
            _ => Vec::new(),
        },
    }
}

fn ill(dice: &mut Dice, times: Times) -> Option<Ill> {
    let how = *dice.pick(&[
        Illness::Refuses,
        Illness::Swallows,
        Illness::Hangs,
        Illness::Closes,
        Illness::Says(500),
        Illness::Says(529),
        Illness::Says(401),
        Illness::Says(429),
    ]);
    match times {
        Times::Calm => None,
        // Only what shows at once, so that there is an outage to speak of before the story ends.
        Times::Outage => {
            let how = *dice.pick(&[Illness::Refuses, Illness::Closes, Illness::Says(500), Illness::Says(529)]);
            Some(Ill { from_ms: 0, to_ms: u64::MAX, how })
        }
        Times::Mixed => dice.chance(4).then(|| {
            let from_ms = dice.size(20_000) as u64;
            Ill { from_ms, to_ms: from_ms + dice.size(100_000) as u64, how }
        }),
    }
}

pub(super) fn person(dice: &mut Dice, sites: usize, times: Times) -> Person {
    let mut random = [0; 32];
    for byte in &mut random {
        *byte = dice.bits() as u8;
    }
    let key = key::mint(random).expose().to_owned();
    let open = (0..sites).filter(|_| !dice.chance(if times == Times::Outage { 8 } else { 4 })).collect();
    Person {
        key,
        refused: *dice.pick(&[None, None, None, None, None, None, Some("key_disabled")]),
        models: dice.chance(4).then(|| (0..2).map(|_| (*dice.pick(&NAMES)).to_owned()).collect()),
        sites: open,
        files: dice.chance(2),
        fallback: !dice.chance(5),
    }
}

pub(super) fn rules(dice: &mut Dice, sites: usize) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for name in NAMES {
        if dice.chance(4) {
            continue;
        }
        let alias = name == "fast" || dice.chance(8);
        let mut targets: Vec<Aim> = Vec::new();
        for _ in 0..dice.between(1, 5) {
            let ids = ["claude-haiku-4-5-20251001", "there/a-model-of-another-name"];
            let model = (alias || dice.chance(4)).then(|| (*dice.pick(&ids)).to_owned());
            let (site, tier, weight) = (dice.below(sites), dice.between(1, 3) as u8, dice.between(1, 4) as u32);
            if !targets.iter().any(|aim| (aim.site, &aim.model) == (site, &model)) {
                targets.push(Aim { site, model, tier, weight });
            }
        }
        rules.push(Rule { name: name.to_owned(), targets, fallback: !dice.chance(8) });
    }
    if rules.is_empty() {
        let target = Aim { site: dice.below(sites), model: None, tier: 1, weight: 1 };
        rules.push(Rule { name: "*".into(), targets: vec![target], fallback: true });
    }
    rules
}

pub(super) fn patience(dice: &mut Dice) -> Patience {
    let mut secs = |from, to| Span::from_secs(dice.between(from, to) as u64);
    Patience {
        connect: secs(1, 5),
        tls: secs(1, 5),
        head: secs(2, 15),
        body: secs(5, 60),
        send: secs(3, 30),
        first_byte: secs(10, 40),
        idle: secs(6, 40),
        write_stall: secs(6, 40),
        keep_alive: secs(5, 75),
        drain_grace: secs(0, 3),
        drain: secs(1, 20),
        ping: secs(0, 6),
    }
}

pub(super) fn bounds(dice: &mut Dice) -> Bounds {
    let mut bounds = Bounds { body_bytes_max: 400_000, ..Bounds::default() };
    if dice.chance(8) {
        bounds.bodies_bytes_max = dice.between(100, 60_000) as u64;
    }
    if dice.chance(10) {
        bounds.body_bytes_max = dice.between(200, 5_000) as u64;
    }
    if dice.chance(12) {
        bounds.connections_max = dice.between(1, 4);
    }
    bounds.pool_idle_max = dice.between(1, 4);
    bounds
}

/// How bytes travel on a connection.
pub(super) fn manner(dice: &mut Dice) -> Manner {
    Manner {
        cut: *dice.pick(&[Cut::Whole, Cut::Whole, Cut::Anywhere, Cut::Anywhere, Cut::Bytes]),
        delay_ms_max: *dice.pick(&[0, 0, 2, 20]),
        buffer_bytes: *dice.pick(&[200, 3_000, 64 * 1024, 1 << 20]),
        panic: None,
    }
}

pub(super) fn visit(dice: &mut Dice, plan: &Plan, id: &mut u32) -> Visit {
    let asks: Vec<Asked> = (0..dice.between(1, 5))
        .map(|_| {
            *id += 1;
            request::make(dice, plan, *id)
        })
        .collect();
    let bytes: usize = asks.iter().map(|ask| ask.wire.len()).sum();
    let how = *dice.pick(&[How::Close, How::Close, How::Reset, How::HalfClose]);
    let leaves = match dice.below(10) {
        0 => Some((When::Sent(dice.below(bytes)), how)),
        1 => Some((When::Got(dice.size(100_000)), how)),
        2 => Some((When::After(dice.size(60_000) as u64), how)),
        _ => None,
    };
    let longer = [plan.patience.head, plan.patience.body, plan.patience.write_stall].map(|span| span.as_ms() + 5_000);
    let pause = |dice: &mut Dice, bytes: usize| {
        let ms = *dice.pick(&[100, 1_500, longer[0], longer[1], longer[2], client::LASTING_MS]);
        dice.chance(6).then(|| (dice.below(bytes), ms))
    };
    Visit {
        at_ms: dice.size(30_000) as u64,
        asks,
        pipelines: dice.chance(4),
        pause: pause(dice, bytes),
        stall: pause(dice, 100_000).map(|(at, ms)| (at / dice.between(1, 300), ms)),
        leaves,
        waits: dice.chance(3),
        manner: manner(dice),
    }
}
