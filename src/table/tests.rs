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
