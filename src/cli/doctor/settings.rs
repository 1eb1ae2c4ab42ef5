//! What the configuration itself shows: fallbacks, shared quotas, monitoring, timeouts. No network, no host.

use super::finding::{Finding, counted, listed};
use crate::{
    base::{CallerSlot, Span, UpstreamSlot},
    table::{Caller, Model, Table, Upstream},
};
use std::net::{IpAddr, SocketAddr};

/// With no head of an answer by then, Claude Code gives up and sends the request again (R11, as measured).
const CLAUDE_HEAD: Span = Span::from_secs(360);
/// After this silence inside a stream, Claude Code sends the request again without streaming (R3).
const CLAUDE_SILENCE: Span = Span::from_secs(300);
/// What Claude Code grants an answer that is not streamed: its head comes when all of it is there.
const WHOLE_ANSWER: Span = Span::from_secs(300);
/// A prompt that fills a window is read for so long before the head of an answer comes.
const LONG_PROMPT: Span = Span::from_secs(10);
/// A model that thinks is silent for longer than this now and then, but for pings.
const THOUGHT: Span = Span::from_secs(60);

/// The upstreams that a model leads to, in whichever tier, with all their credentials.
pub fn in_use(table: &Table) -> Vec<UpstreamSlot> {
    let mut slots: Vec<UpstreamSlot> = Vec::new();
    for slot in table.models.iter().flat_map(|model| &model.targets).map(|target| target.upstream) {
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }
    slots
}

/// Whether each model can be had in more than one way.
pub fn fallback(table: &Table) -> Vec<Finding> {
    let has_two = |model: &&Model| {
        let mut upstreams: Vec<usize> = model.targets.iter().map(|target| target.upstream.index()).collect();
        upstreams.sort_unstable();
        upstreams.dedup();
        let credentials = |slot: &usize| table.upstreams.get(*slot).map_or(0, |upstream| upstream.credentials.len());
        upstreams.len() > 1 || upstreams.iter().map(credentials).sum::<usize>() > 1
    };
    let (two, one): (Vec<&Model>, Vec<&Model>) = table.models.iter().partition(has_two);
    let (two, off): (Vec<&Model>, Vec<&Model>) = two.into_iter().partition(|model| model.fallback);
    let names = |models: &[&Model]| listed(&models.iter().map(|m| format!("`{}`", m.name.text())).collect::<Vec<_>>());
    let mut findings = Vec::new();
    if !two.is_empty() {
        findings.push(Finding::ok("fallback", format!("{} can be had in more than one way", names(&two))));
    }
    if !one.is_empty() {
        findings.push(Finding::warn(
            "fallback",
            format!("{} can be had in one way only: one upstream, one credential", names(&one)),
            "add a target on another upstream, or a credential of another organisation",
        ));
    }
    if !off.is_empty() {
        findings.push(Finding::ok(
            "fallback",
            format!("{} could be had in another way, and may not (fallback = false)", names(&off)),
        ));
    }
    findings
}

/// Whether people who share a quota are kept from taking it from each other.
pub fn shared_quota(table: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    for slot in in_use(table) {
        let Some(upstream) = table.upstream(slot) else { continue };
        let uses = |at: &u32| table.allows_upstream(CallerSlot(*at), slot) && is_enabled(table, CallerSlot(*at));
        let keys = (0..table.callers.len() as u32).filter(uses).count();
        findings.push(if keys > 1 {
            let found = format!("{keys} keys share one quota, and any of them can use it up: this version has no limits per key");
            let advice = "keep CI on an upstream of its own with a workspace limit at the provider; limits per key and team, and a \
                          fair queue, arrive in a later version";
            Finding::warn("quota", found, advice).about(&upstream.name)
        } else {
            Finding::ok("quota", format!("{} may use it", counted(keys, "key", "keys"))).about(&upstream.name)
        });
    }
    findings
}

fn is_enabled(table: &Table, slot: CallerSlot) -> bool {
    table.caller(slot).is_some_and(|caller: &Caller| !caller.disabled)
}

/// Whether somebody can see how it is doing, and nobody else. `own` are the addresses of this host.
pub fn monitoring(table: &Table, own: &[IpAddr]) -> Vec<Finding> {
    if table.admin.is_none() && table.health.is_none() {
        let advice = "add [admin] address = \"127.0.0.1:9090\", and [health] for a scraper on another host";
        return vec![Finding::warn(
            "monitoring",
            "there is neither [admin] nor [health]: no metrics, no readiness",
            advice,
        )];
    }
    let places = [("[admin]", table.admin), ("[health]", table.health)];
    let places = places.into_iter().filter_map(|(section, address)| Some((section, address?)));
    places.map(|(section, address)| place(section, address, own)).collect()
}

fn place(section: &str, address: SocketAddr, own: &[IpAddr]) -> Finding {
    let what = if section == "[admin]" { "health, metrics and the table" } else { "health and metrics" };
    let public: Vec<String> = if address.ip().is_unspecified() {
        own.iter().filter(|ip| !is_inside(**ip)).map(IpAddr::to_string).collect()
    } else {
        [address.ip()].iter().filter(|ip| !is_inside(**ip)).map(IpAddr::to_string).collect()
    };
    if public.is_empty() {
        return Finding::ok("monitoring", format!("{section} gives {what} on {address}"));
    }
    Finding::warn(
        "monitoring",
        format!("{section} on {address} can be reached by public addresses of this host: {}", listed(&public)),
        "listen on a private or loopback address, or close the port in a firewall",
    )
}

/// Loopback, link-local and private networks (RFC 1918, RFC 4193, RFC 6598).
fn is_inside(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether forebay gives up before its clients do, and not before an answer could be there.
pub fn timeouts(table: &Table) -> Vec<Finding> {
    let patience = &table.patience;
    let secs = |span: Span| format!("{} s", span.as_ms() / 1_000);
    let head = Span(patience.connect.0.saturating_add(patience.tls.0).saturating_add(patience.first_byte.0));
    let mut findings = Vec::new();
    let mut warn = |found: String, advice: &str| findings.push(Finding::warn("timeouts", found, advice));
    if head >= CLAUDE_HEAD {
        warn(
            format!(
                "connect + tls + first_byte is {}; Claude Code gives up at {} and sends again",
                secs(head),
                secs(CLAUDE_HEAD)
            ),
            "lower first_byte to 340s, so that the client learns why",
        );
    }
    if patience.first_byte < WHOLE_ANSWER {
        warn(
            format!(
                "first_byte is {}; an answer that is not streamed, Claude Code's way out after a broken stream, may take {}",
                secs(patience.first_byte),
                secs(WHOLE_ANSWER)
            ),
            "raise first_byte to 340s",
        );
    }
    if patience.idle > CLAUDE_SILENCE {
        warn(
            format!(
                "idle is {}; Claude Code leaves a silent stream after {}",
                secs(patience.idle),
                secs(CLAUDE_SILENCE)
            ),
            "lower idle to 300s or less",
        );
    }
    if patience.idle < THOUGHT {
        warn(
            format!("idle is {}; a model may think for longer without a word", secs(patience.idle)),
            "raise idle to 60s at least, 300s at most",
        );
    }
    let hasty = |upstream: &&Upstream| upstream.first_byte.is_some_and(|span| span < LONG_PROMPT);
    for upstream in table.upstreams.iter().filter(hasty) {
        let span = upstream.first_byte.unwrap_or_default();
        findings.push(
            Finding::warn(
                "timeouts",
                format!("first_byte is {} s; a long prompt alone may take longer to read", span.as_ms() / 1_000),
                "raise it to 30s at least: what is cut short is paid for, and asked again elsewhere",
            )
            .about(&upstream.name),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "timeouts",
            format!(
                "a head within {} (Claude Code waits {}), at most {} of silence (it waits {})",
                secs(head),
                secs(CLAUDE_HEAD),
                secs(patience.idle),
                secs(CLAUDE_SILENCE)
            ),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{
        super::finding::Level,
        super::sample,
        super::sample::{UPSTREAM, key},
        *,
    };
    use crate::table::Patience;

    fn table(more: &str) -> Table {
        let pool = "[{ name = \"one\", env = \"L\" }, { name = \"two\", env = \"M\" }]";
        let second = format!("[[upstream]]\nname = \"b\"\nprovider = \"anthropic\"\ncredentials = {pool}\n");
        sample::table(&format!("{UPSTREAM}{second}{more}"))
    }

    fn model(name: &str, upstreams: &[&str]) -> String {
        sample::model(name, upstreams, None)
    }

    #[test]
    fn one_way_only_is_told_from_a_second_one() {
        let findings = fallback(&table(&(model("x", &["a"]) + &model("y", &["a", "b"]) + &model("z", &["b"]))));
        let told: Vec<_> = findings.iter().map(|finding| (finding.level, finding.found.as_str())).collect();
        let [(Level::Ok, two), (Level::Warn, one)] = told[..] else { panic!("{told:?}") };
        assert!(two.starts_with("`y`, `z` can be had in more than one way"), "{two}");
        assert!(one.starts_with("`x` can be had in one way only"), "{one}");
        let off = fallback(&table(&(model("y", &["a", "b"]) + "fallback = false\n")));
        assert!(
            matches!(&off[..], [finding] if finding.level == Level::Ok && finding.found.contains("may not")),
            "{off:?}"
        );
    }

    #[test]
    fn a_quota_is_shared_by_the_enabled_keys_that_may_use_it() {
        let models = model("x", &["a", "b"]);
        let levels = |keys: &str| {
            let findings = shared_quota(&table(&(models.clone() + keys)));
            findings.iter().map(|f| (f.level, f.subject.clone().unwrap())).collect::<Vec<_>>()
        };
        let (ok, warn) = (Level::Ok, Level::Warn);
        let both = |a, b| [(a, "a".to_owned()), (b, "b".to_owned())];
        assert_eq!(levels(&(key(1, "") + &key(2, ""))), both(warn, warn));
        assert_eq!(levels(&(key(1, "") + &key(2, "disabled = true"))), both(ok, ok));
        assert_eq!(levels(&(key(1, "") + &key(2, "upstreams = [\"b\"]"))), both(ok, warn));
    }

    #[test]
    fn monitoring_is_on_and_not_public() {
        let models = model("x", &["a"]);
        let own: Vec<IpAddr> = ["127.0.0.1", "10.1.2.3", "203.0.113.7"].map(|ip| ip.parse().unwrap()).to_vec();
        let of = |more: &str, own: &[IpAddr]| {
            let mut table = table(&models);
            for line in more.split_whitespace() {
                let (section, address) = line.split_once('=').unwrap();
                let slot = if section == "admin" { &mut table.admin } else { &mut table.health };
                *slot = Some(address.parse().unwrap());
            }
            monitoring(&table, own).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(of("", &own), [Level::Warn]);
        assert_eq!(of("admin=127.0.0.1:9 health=10.0.0.1:9", &own), [Level::Ok, Level::Ok]);
        assert_eq!(of("health=203.0.113.7:9", &own), [Level::Warn]);
        assert_eq!(of("health=0.0.0.0:9", &own), [Level::Warn], "one of the host's addresses is public");
        assert_eq!(of("health=0.0.0.0:9", &own[..2]), [Level::Ok]);
        assert_eq!(of("health=100.64.0.1:9 admin=[fd00::1]:9", &own), [Level::Ok, Level::Ok]);
    }

    #[test]
    fn timeouts_stay_inside_the_clients_patience() {
        let of = |change: fn(&mut Patience)| {
            let mut table = table("[[model]]\nname = \"*\"\ntargets = [{ upstream = \"a\" }]\n");
            change(&mut table.patience);
            timeouts(&table).iter().map(|f| (f.level, f.found.clone())).collect::<Vec<_>>()
        };
        let one_warning = |change: fn(&mut Patience), word: &str| {
            let findings = of(change);
            assert!(matches!(&findings[..], [(Level::Warn, found)] if found.contains(word)), "{findings:?}");
        };
        assert!(matches!(&of(|_| {})[..], [(Level::Ok, found)] if found.contains("within 350 s")), "{:?}", of(|_| {}));
        one_warning(|p| p.first_byte = Span::from_secs(350), "connect + tls + first_byte is 360 s");
        one_warning(|p| p.first_byte = Span::from_secs(299), "not streamed");
        one_warning(|p| p.idle = Span::from_secs(301), "silent stream");
        one_warning(|p| p.idle = Span::from_secs(59), "think");
        let mut hasty = table(&model("x", &["a", "b"]));
        hasty.upstreams[1].first_byte = Some(Span::from_secs(2));
        let findings = timeouts(&hasty);
        assert!(
            matches!(&findings[..], [f] if f.level == Level::Warn && f.subject.as_deref() == Some("b")),
            "{findings:?}"
        );
    }
}
