//! The table of a run without a configuration: one upstream, one listener on this machine, one key.

use std::net::SocketAddr;

use crate::base::{CallerSlot, UpstreamSlot};
use crate::net::Guard;
use crate::table::upstream::secret_fault;
use crate::table::{
    Access, Bounds, Caller, Class, Credential, Digests, Hosts, Listener, LogFormat, Model, Org, Patience, Pattern,
    Provider, RuntimeSettings, SecretLine, Slots, Table, Target, Upstream,
};

use super::compile::egress;
use super::{prices, url};
use crate::table::prices::Charge;

/// Where the Anthropic API is.
pub const ANTHROPIC_URL: &str = "https://api.anthropic.com";

/// Fronts the Anthropic API, or what speaks like it at `base_url`, for the one key whose digest is given. A web page on
/// the same machine must not spend the org's money: only this machine's own names are answered, and no other site's
/// requests. The way out goes through the proxy that `env` names, if any.
///
/// # Errors
/// What is wrong with the API key, the URL or the proxy's, as a sentence without the key.
pub fn quickstart(
    api_key: String,
    base_url: Option<&str>,
    caller_digest: [u8; 32],
    listen: SocketAddr,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Table, String> {
    let api_key = zeroize::Zeroizing::new(api_key);
    let api_key = api_key.trim();
    if let Some(fault) = secret_fault(api_key) {
        return Err(format!("the API key {fault}"));
    }
    let text = base_url.unwrap_or(ANTHROPIC_URL);
    let url = url::parse(text).map_err(|fault| format!("the base URL `{text}` {fault}"))?;
    if let Some(fault) = egress::address_fault(&url) {
        return Err(format!("the base URL `{text}` {fault}"));
    }
    let via = egress::environment(env, &url).map_err(|(variable, fault)| format!("the variable {variable} {fault}"))?;
    let guard = if via.is_some() { Guard::Inside } else { egress::guard_of(&url) };
    let mut digests = Digests::default();
    digests.add(caller_digest, CallerSlot(0));
    let hosts = if listen.ip().is_loopback() { Hosts::local(listen.ip()) } else { Hosts::Any };
    Ok(Table {
        generation: 1,
        org: Org { contact: None, timezone: "UTC".into() },
        listeners: vec![Listener { address: listen, plaintext: false, tls: None, hosts, refuse_cross_site: true }],
        admin: None,
        health: None,
        upstreams: vec![Upstream {
            name: "anthropic".into(),
            provider: if base_url.is_none() { Provider::Anthropic } else { Provider::AnthropicCompatible },
            tls: url.tls,
            host: url.host.into(),
            port: url.port,
            base_path: url.path,
            host_header: url.host_header,
            credentials: vec![Credential::new("environment", SecretLine::x_api_key(api_key))],
            extra_ca: Vec::new(),
            guard,
            via,
            first_byte: None,
            charge: Charge::default(),
            verdicts: Vec::new(),
        }],
        models: vec![every_model()],
        teams: Vec::new(),
        callers: vec![Caller {
            name: "local".into(),
            owner: None,
            team: None,
            access: Access::default(),
            expires: None,
            disabled: false,
            class: Class::Interactive,
            fallback: true,
        }],
        digests,
        bounds: Bounds::default(),
        patience: Patience::default(),
        runtime: RuntimeSettings::default(),
        log: LogFormat::Auto,
        prices: prices::shipped(),
        slots: Slots::default(),
    })
}

/// What stands in for `[[model]]` when there is none: every id goes to the only upstream, unchanged.
pub(super) fn every_model() -> Model {
    Model::new(Pattern::new("*"), vec![Target::to(UpstreamSlot(0))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(key: &str, url: Option<&str>) -> Result<Table, String> {
        quickstart(key.into(), url, [7; 32], "127.0.0.1:8080".parse().expect("an address"), &|_| None)
    }

    #[test]
    fn fronts_anthropic_for_its_one_key() {
        let table = run("sk-ant-api03-x\n", None).expect("good");
        let caller = table.caller_by_digest(&[7; 32]).expect("known");
        let plan = table.resolve(caller, "any-model").expect("open");
        let target = plan.candidates(&table).next().expect("one");
        let upstream = table.upstream(target.upstream).expect("there");
        assert_eq!((&*upstream.host, upstream.port, upstream.tls), ("api.anthropic.com", 443, true));
        assert_eq!(upstream.credentials[0].header.as_bytes(), b"x-api-key: sk-ant-api03-x\r\n");
        assert!(table.listeners[0].refuse_cross_site && !table.listeners[0].hosts.answers(b"evil.example"));
        assert!(!table.passthrough_allows(caller, b"/v1/files"));
    }

    #[test]
    fn faults_do_not_show_the_key() {
        assert_eq!(run("", None).err().as_deref(), Some("the API key is empty"));
        let fault = run("sk ant", None).err().expect("refused");
        assert!(!fault.contains("sk ant"), "{fault}");
        assert!(run("k", Some("nope")).err().is_some_and(|fault| fault.contains("`nope`")));
    }
}
