//! Resolution and access, on small tables built by hand.

use super::*;
use crate::base::Kind;
use crate::net::Guard;

fn slot(n: u32) -> UpstreamSlot {
    UpstreamSlot(n)
}

fn upstream(name: &str) -> Upstream {
    Upstream {
        name: name.into(),
        provider: Provider::Anthropic,
        tls: true,
        host: "api.example".into(),
        port: 443,
        base_path: String::new(),
        host_header: "api.example".into(),
        credentials: vec![Credential::new("a", SecretLine::x_api_key("k"))],
        extra_ca: Vec::new(),
        via: None,
        guard: Guard::Inside,
        first_byte: None,
        charge: crate::table::prices::Charge::default(),
        verdicts: Vec::new(),
    }
}

fn to(n: u32, tier: u8) -> Target {
    Target { tier, ..Target::to(slot(n)) }
}

fn model(name: &str, targets: &[Target]) -> Model {
    Model::new(Pattern::new(name), targets.to_vec())
}

fn access(models: Option<&[&str]>, upstreams: Option<&[u32]>) -> Access {
    Access {
        models: models.map(|list| list.iter().map(|m| Pattern::new(*m)).collect()),
        upstreams: upstreams.map(|list| list.iter().map(|u| slot(*u)).collect()),
        passthrough: Vec::new(),
    }
}

fn caller(name: &str, team: Option<u32>, access: Access) -> Caller {
    Caller {
        name: name.into(),
        owner: None,
        team: team.map(TeamSlot),
        access,
        expires: None,
        disabled: false,
        class: Class::Interactive,
        fallback: true,
    }
}

fn table(models: Vec<Model>, teams: Vec<Team>, callers: Vec<Caller>) -> Table {
    let mut digests = Digests::default();
    for at in 0..callers.len() as u32 {
        assert_eq!(digests.add([at as u8; 32], CallerSlot(at)), None);
    }
    Table {
        generation: 1,
        org: Org { contact: None, timezone: "UTC".into() },
        listeners: Vec::new(),
        admin: None,
        health: None,
        upstreams: vec![upstream("one"), upstream("two")],
        models,
        teams,
        callers,
        digests,
        bounds: Bounds::default(),
        patience: Patience::default(),
        runtime: RuntimeSettings::default(),
        log: LogFormat::Auto,
        prices: crate::table::prices::Prices::default(),
        slots: Slots::default(),
    }
}

const FIRST: CallerSlot = CallerSlot(0);

fn ways(table: &Table, model: &str) -> Result<Vec<u32>, Refusal> {
    table.resolve(FIRST, model).map(|plan| plan.candidates(table).map(|t| t.upstream.0).collect())
}

#[test]
fn candidates_go_by_tier_then_file_order() {
    let rule = model("claude-*", &[to(0, 2), to(1, 1), to(0, 1)]);
    let table = table(vec![rule], vec![], vec![caller("a", None, Access::default())]);
    assert_eq!(ways(&table, "claude-opus"), Ok(vec![1, 0, 0]));
    assert_eq!(ways(&table, "gpt-5"), Err(Refusal::UnknownModel));
    assert_eq!(ways(&table, &format!("claude-{}", "x".repeat(300))), Err(Refusal::UnknownModel));
}

#[test]
fn exact_names_go_before_globs_wherever_they_stand() {
    let models = vec![model("claude-*", &[to(0, 1)]), model("claude-haiku", &[to(1, 1)])];
    let table = table(models, vec![], vec![caller("a", None, Access::default())]);
    assert_eq!(ways(&table, "claude-haiku"), Ok(vec![1]));
    assert_eq!(ways(&table, "claude-haiku-4"), Ok(vec![0]));
}

#[test]
fn team_and_key_both_bound() {
    let team = Team { name: "t".into(), access: access(Some(&["claude-*"]), Some(&[0])) };
    let key = access(Some(&["*-haiku", "gpt-*"]), None);
    let models = vec![model("*", &[to(0, 1), to(1, 2)]), model("only-two-haiku", &[to(1, 1)])];
    let table = table(models, vec![team], vec![caller("a", Some(0), key)]);
    assert_eq!(ways(&table, "claude-haiku"), Ok(vec![0]));
    assert_eq!(ways(&table, "claude-opus"), Err(Refusal::ModelDenied));
    assert_eq!(ways(&table, "gpt-5"), Err(Refusal::ModelDenied));
    assert!(table.may_list(FIRST, "claude-haiku") && !table.may_list(FIRST, "claude-opus"));
    assert_eq!(table.passthrough_upstream(FIRST), Some(slot(0)));
}

#[test]
fn a_team_never_reaches_an_upstream_outside_its_list() {
    let team = Team { name: "t".into(), access: access(None, Some(&[1])) };
    let models = vec![model("a", &[to(0, 1)]), model("b", &[to(0, 1), to(1, 2)])];
    let table = table(models, vec![team], vec![caller("k", Some(0), access(None, Some(&[0, 1])))]);
    assert_eq!(ways(&table, "a"), Err(Refusal::UpstreamsDenied));
    assert_eq!(ways(&table, "b"), Ok(vec![1]));
    let failure = table.refuse(FIRST, "a", Refusal::UpstreamsDenied);
    assert_eq!(failure.kind, Kind::UpstreamsDenied);
    assert!(failure.message.ends_with("Open to you: b."), "{}", failure.message);
}

#[test]
fn a_refusal_names_what_is_open_and_cleans_what_came() {
    let team = Team { name: "t".into(), access: access(Some(&["claude-*"]), None) };
    let key = access(Some(&["claude-haiku-*"]), None);
    let table = table(vec![model("*", &[to(0, 1)])], vec![team], vec![caller("k", Some(0), key)]);
    let failure = table.refuse(FIRST, "claude-opus", Refusal::ModelDenied);
    assert_eq!(failure.message, "the model `claude-opus` is not open to your key. Open to you: claude-haiku-*.");
    let failure = table.refuse(FIRST, &format!("a\r\n`{}", "é".repeat(100)), Refusal::UnknownModel);
    assert!(failure.message.starts_with("the model `a???é"), "{}", failure.message);
    assert!(failure.message.contains("é…`") && failure.message.len() < 400);
}

#[test]
fn digests_find_their_caller() {
    let table = table(vec![], vec![], vec![caller("a", None, Access::default()), caller("b", None, Access::default())]);
    assert_eq!(table.caller_by_digest(&[1; 32]), Some(CallerSlot(1)));
    assert_eq!(table.caller_by_digest(&[9; 32]), None);
}

#[test]
fn a_caller_of_another_table_may_do_nothing() {
    let table = table(vec![model("*", &[to(0, 1)])], vec![], vec![]);
    assert_eq!(table.resolve(CallerSlot(7), "x"), Err(Refusal::ModelDenied));
    assert!(!table.allows_upstream(CallerSlot(7), slot(0)));
    assert!(!table.passthrough_allows(CallerSlot(7), b"/v1/files"));
}

#[test]
fn passthrough_is_by_segment_and_takes_no_disguise() {
    let open = |prefixes: &[&str]| Access {
        passthrough: prefixes.iter().map(|p| Arc::from(*p)).collect(),
        ..Access::default()
    };
    let team = Team { name: "t".into(), access: open(&["/v1/files"]) };
    let key = open(&["/v1/messages/batches", "/v1/organizations"]);
    let table = table(vec![], vec![team], vec![caller("k", Some(0), key)]);
    for yes in ["/v1/files", "/v1/files/", "/v1/files/file_01/content", "/v1/messages/batches"] {
        assert!(table.passthrough_allows(FIRST, yes.as_bytes()), "{yes}");
    }
    let no = [
        "/v1/filesystem",
        "/v1/files/../organizations",
        "/v1/files/%2e%2e/organizations",
        "/v1/files//x",
        "/v1/files/./x",
        "/v1/files\\x",
        "/v1/files?x",
        "/v1/messages",
        "/v1/organizations",
        "/v1/Organizations/users",
        "v1/files",
        "",
    ];
    for path in no {
        assert!(!table.passthrough_allows(FIRST, path.as_bytes()), "{path}");
    }
}

/// The id that each candidate is asked for, where it is not the one that was written.
fn sent(table: &Table, asked: &str) -> Result<Vec<Option<String>>, Refusal> {
    let plan = table.resolve(FIRST, asked)?;
    Ok(plan.candidates(table).map(|t| table.sent_id(&plan, t, asked).map(str::to_owned)).collect())
}

/// As `sent`, for one candidate.
fn sent_one(table: &Table, asked: &str) -> Result<Option<String>, Refusal> {
    sent(table, asked).map(|mut all| all.pop().flatten())
}

fn open_to_all(models: Vec<Model>) -> Table {
    table(models, vec![], vec![caller("a", None, Access::default())])
}

#[test]
fn a_target_is_asked_for_its_own_id_or_for_what_the_client_wrote() {
    let named = Target { model: Some("house-3".into()), ..to(1, 2) };
    let same = Target { model: Some("x".into()), ..to(1, 3) };
    let table = open_to_all(vec![model("x", &[to(0, 1), named, same]), model("*", &[to(0, 1)])]);
    assert_eq!(sent(&table, "x"), Ok(vec![None, Some("house-3".into()), None]), "the same id is no change");
    for as_it_is in ["y", "claude-haiku-4-5-20251001", "claude-3-opus-20240229", "us.anthropic.claude-opus-5"] {
        assert_eq!(sent_one(&table, as_it_is), Ok(None), "a glob that has it leaves it");
    }
}

#[test]
fn an_alias_goes_after_exact_names_and_before_globs_and_is_its_model_upstream() {
    let alias = |name: &str, alias: &str, at| Model { aliases: vec![alias.into()], ..model(name, &[to(at, 1)]) };
    let table = open_to_all(vec![model("*", &[to(0, 1)]), alias("claude-sonnet-5", "sonnet", 1), alias("b", "a", 1)]);
    assert_eq!((ways(&table, "sonnet"), sent_one(&table, "sonnet")), (Ok(vec![1]), Ok(Some("claude-sonnet-5".into()))));
    assert_eq!(ways(&table, "sonnet-5"), Ok(vec![0]));
    let table = open_to_all(vec![alias("b", "a", 1), model("a", &[to(0, 1)])]);
    assert_eq!((ways(&table, "a"), sent_one(&table, "a")), (Ok(vec![0]), Ok(None)));
}

#[test]
fn a_dated_id_and_an_undated_one_find_each_others_rule() {
    let table = open_to_all(vec![model("claude-haiku-4-5", &[to(1, 1)]), model("claude-opus-4-5-*", &[to(0, 1)])]);
    assert_eq!(sent_one(&table, "claude-haiku-4-5-20251001"), Ok(Some("claude-haiku-4-5".into())));
    assert_eq!(sent_one(&table, "claude-opus-4-5"), Ok(Some("claude-opus-4-5-20251101".into())));
    assert_eq!(ways(&table, "claude-haiku-4-5-20251002"), Err(Refusal::UnknownModel), "no date is made up");
    let table = open_to_all(vec![model("claude-haiku-4-5-20251001", &[to(1, 1)]), model("claude-*", &[to(0, 1)])]);
    assert_eq!((ways(&table, "claude-haiku-4-5"), sent_one(&table, "claude-haiku-4-5")), (Ok(vec![0]), Ok(None)));
}

#[test]
fn a_retired_id_finds_its_successor_where_no_rule_has_it() {
    let table = open_to_all(vec![model("claude-sonnet-4-6", &[to(1, 1)]), model("claude-haiku-*", &[to(0, 1)])]);
    assert_eq!(sent_one(&table, "claude-3-7-sonnet-20250219"), Ok(Some("claude-sonnet-4-6".into())));
    assert_eq!(sent_one(&table, "claude-3-5-haiku-latest"), Ok(Some("claude-haiku-4-5".into())));
    assert_eq!(ways(&table, "claude-3-opus-20240229"), Err(Refusal::UnknownModel), "its successor has no rule");
    let table = open_to_all(vec![model("claude-haiku-4-5-20251001", &[to(1, 1)])]);
    assert_eq!(sent_one(&table, "claude-3-haiku-20240307"), Ok(Some("claude-haiku-4-5-20251001".into())));
    let kept = open_to_all(vec![model("claude-3-*", &[to(1, 1)]), model("claude-sonnet-4-6", &[to(0, 1)])]);
    assert_eq!(
        (ways(&kept, "claude-3-7-sonnet-latest"), sent_one(&kept, "claude-3-7-sonnet-latest")),
        (Ok(vec![1]), Ok(None))
    );
}

#[test]
fn a_bound_on_models_holds_for_what_is_used_whatever_it_was_called() {
    let models = || {
        let sonnet = Model { aliases: vec!["best".into()], ..model("claude-sonnet-4-6", &[to(1, 1)]) };
        vec![sonnet, model("claude-haiku-4-5", &[to(1, 1)])]
    };
    let bounded = |open: &str| table(models(), vec![], vec![caller("a", None, access(Some(&[open]), None))]);
    let opens = |open: &str, asked: &str| bounded(open).resolve(FIRST, asked).map(|_| ());
    assert_eq!(opens("claude-sonnet-4-6", "best"), Ok(()), "the model is open");
    assert_eq!(opens("best", "best"), Ok(()), "the name is open");
    assert_eq!(opens("claude-haiku-*", "best"), Err(Refusal::ModelDenied));
    assert_eq!(opens("claude-haiku-4-5-20251001", "claude-haiku-4-5"), Ok(()));
    assert_eq!(opens("claude-haiku-4-5", "claude-haiku-4-5-20251001"), Ok(()));
    assert_eq!(opens("claude-3-*", "claude-3-7-sonnet-20250219"), Err(Refusal::ModelDenied), "Sonnet 4.6 is used");
    assert_eq!(opens("claude-sonnet-*", "claude-3-7-sonnet-20250219"), Ok(()));
    let names = |open: &str| bounded(open).open_models(FIRST).iter().map(|p| p.text().to_string()).collect::<Vec<_>>();
    assert_eq!(
        (names("*"), names("best")),
        (vec!["claude-sonnet-4-6".into(), "best".into(), "claude-haiku-4-5".into()], vec!["best".to_owned()])
    );
}

#[test]
fn what_a_target_can_take_is_said_or_known_by_the_id_there() {
    let can = |table: &Table, asked: &str| {
        let plan = table.resolve(FIRST, asked).expect("open");
        plan.candidates(table).map(|target| table.can(&plan, target, asked)).collect::<Vec<_>>()
    };
    let said = SaidCan { window_max: Some(32_000), tools: Some(false), ..SaidCan::default() };
    let small = Target { said, ..to(1, 2) };
    let table = open_to_all(vec![
        model("claude-haiku-4-5", &[to(0, 1), Target { model: Some("glm-4.7".into()), ..to(1, 2) }, small.clone()]),
        Model { aliases: vec!["old".into()], ..model("claude-opus-4-5", &[to(0, 1)]) },
        model("*", &[to(0, 1), small]),
    ]);
    let known = |window, images| Can { window_max: Some(window), images, ..Can::default() };
    let small = Can { window_max: Some(32_000), tools: false, ..Can::default() };
    assert_eq!(can(&table, "claude-haiku-4-5"), [known(200_000, true), known(200_000, false), small]);
    assert_eq!(can(&table, "old"), [known(200_000, true)]);
    assert_eq!(can(&table, "claude-opus-5-5"), [known(1_000_000, true), small], "a glob is looked up when asked");
    assert_eq!(can(&table, "anthropic/qwen3-coder-plus"), [known(998_000, false), Can { images: false, ..small }]);
    assert_eq!(can(&table, "house-model"), [Can::default(), small], "what is not known is taken to be possible");
}
