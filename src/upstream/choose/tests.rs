//! The rules of the choice one by one, on tables built by hand and in virtual time.

mod agree;
mod days;
mod states;

use super::*;
use crate::{
    base::{CallerSlot, Wall},
    net::Guard,
    table::{
        Access, Bounds, Caller, Class, Credential, CredentialLimits, Digests, LogFormat, Model, Org, Patience, Pattern,
        Provider, RuntimeSettings, SaidCan, SecretLine, Slots, Target, Upstream,
    },
    upstream::{Sent, Standing},
};
use std::sync::{Arc, atomic::Ordering::Relaxed};

const NOW: Mono = Mono(1_000_000_000_000);
const UNTRIED: Tried = Tried { asked: [None; TRIES_MAX] };

fn secs(seconds: u64) -> Mono {
    NOW.after(Span::from_secs(seconds))
}

fn upstream(name: &str, provider: Provider, credentials: usize) -> Upstream {
    let credential = |at: usize| Credential::new(&format!("c{at}"), SecretLine::x_api_key("k"));
    Upstream {
        name: name.into(),
        provider,
        tls: true,
        host: "api.example".into(),
        port: 443,
        base_path: String::new(),
        host_header: "api.example".into(),
        credentials: (0..credentials).map(credential).collect(),
        extra_ca: Vec::new(),
        via: None,
        guard: Guard::Inside,
        first_byte: None,
        charge: crate::table::prices::Charge::default(),
        verdicts: Vec::new(),
    }
}

/// One model over upstreams with so many credentials each. The caller may use all of them but `closed`.
struct World {
    table: Table,
    health: Health,
    plan: Plan,
}

impl World {
    fn new(pools: &[usize], targets: Vec<Target>) -> World {
        World::closed(pools, targets, &[])
    }

    fn closed(pools: &[usize], targets: Vec<Target>, closed: &[u32]) -> World {
        let named = |(at, len): (usize, &usize)| upstream(&format!("u{at}"), Provider::Anthropic, *len);
        let open = (0..pools.len() as u32).filter(|at| !closed.contains(at)).map(UpstreamSlot).collect();
        let caller = Caller {
            name: "a".into(),
            owner: None,
            team: None,
            access: Access { upstreams: Some(open), ..Access::default() },
            expires: None,
            disabled: false,
            class: Class::Interactive,
            fallback: true,
        };
        let table = Table {
            generation: 1,
            org: Org { contact: None, timezone: "UTC".into() },
            listeners: Vec::new(),
            admin: None,
            health: None,
            upstreams: pools.iter().enumerate().map(named).collect(),
            models: vec![Model::new(Pattern::new("*"), targets)],
            teams: Vec::new(),
            callers: vec![caller],
            digests: Digests::default(),
            bounds: Bounds::default(),
            patience: Patience::default(),
            runtime: RuntimeSettings::default(),
            log: LogFormat::Auto,
            prices: crate::table::prices::Prices::default(),
            slots: Slots::default(),
        };
        let plan = table.resolve(CallerSlot(0), "claude-opus-5").unwrap();
        World { health: Health::default().grown_for(&table), table, plan }
    }

    /// One upstream with a pool.
    fn pool(credentials: usize) -> World {
        World::new(&[credentials], vec![to(0, 1)])
    }

    fn view(&self, conversation: Option<u64>) -> View<'_> {
        View {
            table: &self.table,
            health: &self.health,
            plan: self.plan,
            model: "claude-opus-5",
            demand: Demand { input: 1_000, output_max: 128_000, ..Demand::default() },
            bytes: 4_000,
            conversation: conversation.map(Conversation),
            fallback: true,
            bound: false,
            counts_only: false,
            waited: Span::ZERO,
        }
    }

    fn credential(&self, slot: u32) -> &super::super::CredentialState {
        self.health.credential(CredentialSlot(slot)).unwrap()
    }

    fn fail(&self, upstream: u32, now: Mono) {
        let breaker = &self.health.upstream(UpstreamSlot(upstream)).unwrap().breaker;
        let failures = (0..100).take_while(|_| breaker.standing(now) == Standing::Closed);
        failures.for_each(|_| breaker.failed(now));
        assert!(matches!(breaker.standing(now), Standing::Open { .. }));
    }

    fn standing(&self, upstream: u32, now: Mono) -> Standing {
        self.health.upstream(UpstreamSlot(upstream)).unwrap().breaker.standing(now)
    }

    /// When a failing upstream may be probed.
    fn probed_at(&self, upstream: u32, now: Mono) -> Mono {
        let Standing::Open { until } = self.standing(upstream, now) else { return now };
        assert_eq!(self.standing(upstream, until), Standing::Probe);
        until
    }

    /// Requests to this credential are under way, and none has been answered yet.
    fn burden(&self, slot: u32, requests: usize) -> Vec<Sent> {
        let state = self.health.credential(CredentialSlot(slot)).unwrap();
        let (class, need) = (ModelClass::of("claude-opus-5"), Need::default());
        let begin = |_| Sent::begin(Arc::clone(state), class, need, CredentialLimits::default(), NOW, Wall(0));
        (0..requests).map(begin).collect()
    }

    /// The upstream refuses this credential's requests for room until then.
    fn fill(&self, slot: u32, until: Mono) {
        self.credential(slot).classes[ModelClass::of("claude-opus-5").index()].refused(until);
    }
}

fn to(upstream: u32, tier: u8) -> Target {
    Target { tier, ..Target::to(UpstreamSlot(upstream)) }
}

fn windowed(upstream: u32, tier: u8, window: u64) -> Target {
    let said = SaidCan { window_max: Some(window), ..SaidCan::default() };
    Target { said, ..to(upstream, tier) }
}

fn asked(choice: Choice) -> Candidate {
    match choice {
        Choice::Ask(candidate) => candidate,
        other => panic!("{other:?}"),
    }
}

fn ask(view: &View<'_>, now: Mono) -> Candidate {
    asked(choose(view, &UNTRIED, now, 0))
}

fn slot(view: &View<'_>, now: Mono) -> u32 {
    ask(view, now).credential.0
}

#[test]
fn tiers_go_in_order_and_each_candidate_once() {
    let world = World::new(&[1, 1, 2], vec![to(0, 2), to(1, 1), to(2, 3)]);
    let view = world.view(Some(1));
    let mut tried = Tried::default();
    let mut order = Vec::new();
    while let Choice::Ask(candidate) = choose(&view, &tried, NOW, 0) {
        order.push(candidate.upstream.0);
        tried.note(&candidate, Spent::Candidate);
    }
    assert_eq!(order, [1, 0, 2]);
    assert_eq!(choose(&view, &tried, NOW, 0), Choice::Nobody { room_at: None }, "three are enough");
}

#[test]
fn a_whole_upstreams_failure_leaves_out_its_other_credentials() {
    let world = World::new(&[3, 1], vec![to(0, 1), to(1, 2)]);
    let view = world.view(Some(1));
    let first = ask(&view, NOW);
    let mut tried = Tried::default();
    tried.note(&first, Spent::Upstream);
    assert_eq!(asked(choose(&view, &tried, NOW, 0)).upstream, UpstreamSlot(1));
    let mut tried = Tried::default();
    tried.note(&first, Spent::Candidate);
    let second = asked(choose(&view, &tried, NOW, 0));
    assert_eq!(second.upstream, UpstreamSlot(0));
    assert_ne!(second.credential, first.credential);
}

#[test]
fn another_model_with_the_same_credential_is_another_candidate() {
    let sonnet = Target { model: Some("claude-sonnet-5".into()), ..to(0, 2) };
    let world = World::new(&[1], vec![to(0, 1), sonnet]);
    let view = world.view(Some(1));
    let opus = ask(&view, NOW);
    let mut tried = Tried::default();
    tried.note(&opus, Spent::Candidate);
    world.fill(0, secs(30));
    let next = asked(choose(&view, &tried, NOW, 0));
    assert_eq!((next.target, next.credential, next.class.name()), (1, opus.credential, "sonnet"));
}

#[test]
fn a_conversation_stays_and_others_are_spread_by_weight() {
    let heavy = Target { weight: 3, ..to(0, 1) };
    let world = World::new(&[1, 2], vec![heavy, to(1, 1)]);
    let mut counts = [0_u32; 3];
    for conversation in 0..4_000 {
        let view = world.view(Some(super::super::affinity::mix(conversation)));
        let first = slot(&view, NOW);
        assert_eq!(first, slot(&view, secs(3_600)), "the same without being remembered");
        counts[first as usize] += 1;
    }
    // 3 of 4 parts to the first, the fourth shared by the second's two credentials.
    for (count, want) in counts.into_iter().zip([3_000, 500, 500]) {
        assert!(count.abs_diff(want) < want / 8, "{counts:?}");
    }
}

#[test]
fn without_a_conversation_the_draw_decides() {
    let world = World::pool(4);
    let view = world.view(None);
    let mut counts = [0_u32; 4];
    for draw in 0..4_000 {
        counts[asked(choose(&view, &UNTRIED, NOW, draw)).credential.0 as usize] += 1;
    }
    assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
}

#[test]
fn the_second_best_takes_a_cold_conversation_of_one_that_has_clearly_more_to_do() {
    let world = World::pool(4);
    let view = world.view(Some(5));
    let first = slot(&view, NOW);
    world.credential(first).in_flight.store(2, Relaxed);
    assert_eq!(slot(&view, NOW), first, "two are chance");
    world.credential(first).in_flight.store(3, Relaxed);
    let second = slot(&view, NOW);
    assert_ne!(second, first);
    world.credential(second).in_flight.store(3, Relaxed);
    assert_eq!(slot(&view, NOW), first, "a third has nothing to do, but two are looked at");
    let candidate = ask(&view, NOW);
    remember(&view, &candidate, false, false, NOW);
    world.credential(first).in_flight.store(100, Relaxed);
    assert_eq!(slot(&view, NOW), first, "a warm one is worth more than a shorter queue");
}

#[test]
fn a_warm_conversation_stays_where_it_went_and_a_cold_one_goes_home() {
    let world = World::pool(4);
    let view = world.view(Some(9));
    let home = ask(&view, NOW);
    remember(&view, &home, false, false, NOW);
    world.credential(home.credential.0).refused.set(secs(60));
    let refuge = ask(&view, secs(1));
    assert!(refuge.credential != home.credential && !refuge.warm);
    assert_eq!(leaving(&view, &refuge, secs(1)).map(|cost| cost.from), Some(home.credential));
    remember(&view, &refuge, false, false, secs(1));
    let later = ask(&view, secs(100));
    assert_eq!((later.credential, later.warm), (refuge.credential, true), "its cache is there now");
    assert_eq!(leaving(&view, &later, secs(100)), None);
    assert_eq!(ask(&view, secs(301)).credential, home.credential, "the cache is gone: home");
}

#[test]
fn one_session_may_be_warm_in_two_places_under_two_models() {
    let mut world = World::new(&[4], vec![to(0, 1)]);
    world.table.models.push(Model::new(Pattern::new("claude-haiku-5"), vec![to(0, 1)]));
    let haiku = world.table.resolve(CallerSlot(0), "claude-haiku-5").unwrap();
    let view = world.view(Some(1));
    let opus_at = ask(&view, NOW);
    remember(&view, &opus_at, false, false, NOW);
    let small = View { plan: haiku, model: "claude-haiku-5", ..world.view(Some(1)) };
    let elsewhere = Candidate { credential: CredentialSlot((opus_at.credential.0 + 1) % 4), ..opus_at };
    remember(&small, &elsewhere, false, false, NOW);
    assert_eq!(slot(&view, secs(1)), opus_at.credential.0);
    assert_eq!(slot(&small, secs(1)), elsewhere.credential.0);
}

/// Asks, remembers, and leaves `bytes` of cache at the credential.
fn warmed(world: &World, conversation: u64, bytes: u64) -> (View<'_>, Candidate) {
    let view = View { bytes, ..world.view(Some(conversation)) };
    let candidate = ask(&view, NOW);
    remember(&view, &candidate, false, false, NOW);
    (view, candidate)
}

#[test]
fn a_cache_is_waited_for_as_long_as_it_is_worth() {
    let world = World::pool(2);
    // 100 KB are 25,000 units at 5.75 dollars a million: 14 cents, five seconds of a developer.
    let (view, candidate) = warmed(&world, 1, 100_000);
    world.fill(candidate.credential.0, secs(4));
    assert_eq!(choose(&view, &UNTRIED, NOW, 0), Choice::Wait(secs(4)));
    let waited = View { waited: Span::from_secs(2), ..view };
    assert_ne!(ask(&waited, NOW).credential, candidate.credential, "with what it has waited, that is too long");
    world.fill(candidate.credential.0, secs(6));
    assert_ne!(ask(&view, NOW).credential, candidate.credential, "never longer than five seconds");
    assert_eq!(choose(&view, &UNTRIED, secs(2), 0), Choice::Wait(secs(6)));

    let small = World::pool(2);
    let (view, candidate) = warmed(&small, 1, 10_000);
    small.fill(candidate.credential.0, secs(1));
    assert_ne!(ask(&view, NOW).credential, candidate.credential, "1.4 cents are half a second");
    let cost = leaving(&view, &ask(&view, NOW), NOW).unwrap();
    assert_eq!((cost.from, cost.llm_tokens), (candidate.credential, 2_500));
    assert_eq!(cost.cost.0, 14_375);
}

#[test]
fn what_is_not_only_full_is_not_waited_for() {
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 2)]);
    let (view, candidate) = warmed(&world, 1, 1_000_000);
    assert_eq!(candidate.upstream, UpstreamSlot(0));
    world.fail(0, NOW);
    assert_eq!(ask(&view, secs(1)).upstream, UpstreamSlot(1));
}

#[test]
fn a_lower_tier_is_gone_back_to_although_the_cache_is_elsewhere() {
    let world = World::new(&[1, 1], vec![to(0, 1), to(1, 2)]);
    let view = world.view(Some(1));
    world.credential(0).refused.set(secs(10));
    let second = ask(&view, NOW);
    remember(&view, &second, false, false, NOW);
    assert_eq!(slot(&view, secs(9)), 1);
    assert_eq!(slot(&view, secs(10)), 0);
}

#[test]
fn a_prompt_that_is_mostly_cached_needs_little_room_where_it_is_warm() {
    let world = World::pool(2);
    let (view, _) = warmed(&world, 1, 409_600);
    let view = View { demand: Demand { input: 102_400, ..view.demand }, ..view };
    let candidate = ask(&view, NOW);
    assert!(candidate.warm);
    assert_eq!((candidate.need.input, candidate.need.output), (10_240, 128_000));
    let other = View { conversation: Some(Conversation(2)), ..view };
    assert_eq!(ask(&other, NOW).need.input, 102_400);
}

#[test]
fn a_smaller_window_takes_over_only_what_it_surely_holds() {
    let targets = vec![windowed(0, 1, 1_000_000), windowed(1, 2, 200_000), windowed(2, 3, 1_000_000)];
    let world = World::new(&[1, 1, 1], targets);
    let of = |input: u64| View { demand: Demand { input, ..Demand::default() }, ..world.view(Some(1)) };
    world.fail(0, NOW);
    assert_eq!(ask(&of(150_000), NOW).upstream, UpstreamSlot(1));
    assert_eq!(ask(&of(151_000), NOW).upstream, UpstreamSlot(2), "no `prompt is too long` that the first has not");
}

#[test]
fn when_nobody_holds_it_the_first_choice_says_so_itself() {
    let world = World::new(&[1, 1], vec![windowed(0, 1, 1_000), windowed(1, 2, 2_000)]);
    let view = View { demand: Demand { input: 100_000, ..Demand::default() }, ..world.view(Some(1)) };
    let first = ask(&view, NOW);
    assert_eq!(first.upstream, UpstreamSlot(0));
    let mut tried = Tried::default();
    tried.note(&first, Spent::Candidate);
    assert_eq!(choose(&view, &tried, NOW, 0), Choice::Nobody { room_at: None });
}

#[test]
fn a_target_that_takes_no_images_is_passed_over_for_one_that_does() {
    let blind = Target { said: SaidCan { images: Some(false), ..SaidCan::default() }, ..to(0, 1) };
    let world = World::new(&[1, 1], vec![blind, to(1, 2)]);
    let seeing = View { demand: Demand { images: true, ..Demand::default() }, ..world.view(Some(1)) };
    assert_eq!(ask(&seeing, NOW).upstream, UpstreamSlot(1));
    assert_eq!(ask(&world.view(Some(1)), NOW).upstream, UpstreamSlot(0));
}

#[test]
fn crossing_a_family_is_told_and_not_forgotten() {
    let mut world = World::new(&[2, 1, 1, 1], vec![to(0, 1), to(1, 1), to(2, 1), to(3, 1)]);
    world.table.upstreams[2].provider = Provider::AnthropicCompatible;
    world.table.upstreams[3].provider = Provider::AnthropicCompatible;
    let view = world.view(Some(1));
    let at = |credential: u32, upstream: u32| Candidate {
        credential: CredentialSlot(credential),
        upstream: UpstreamSlot(upstream),
        ..ask(&view, NOW)
    };
    let (claude, sibling, claude_too, other, another) = (at(0, 0), at(1, 0), at(2, 1), at(3, 2), at(4, 3));
    assert!(!crossed(&view, &other, NOW), "nothing is known");
    remember(&view, &claude, false, false, NOW);
    for same in [&claude, &sibling, &claude_too] {
        assert!(!crossed(&view, same, NOW), "Claude accepts its own signatures wherever it runs");
    }
    assert!(crossed(&view, &other, secs(9_000)), "signatures outlive caches");
    remember(&view, &other, false, true, NOW);
    assert!(crossed(&view, &other, NOW), "the history still holds the first family's");
    remember(&view, &claude, false, true, NOW);
    assert!(crossed(&view, &claude, NOW));

    let view = world.view(Some(2));
    remember(&view, &other, false, false, NOW);
    assert!(!crossed(&view, &other, NOW));
    assert!(crossed(&view, &another, NOW), "two others are strangers to each other");
    let gone = Candidate { credential: CredentialSlot(77), ..other };
    remember(&view, &gone, false, false, NOW);
    assert!(crossed(&view, &claude, NOW), "of what is gone nobody knows the family");
}
