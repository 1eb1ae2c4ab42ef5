//! The way out to an upstream: `proxy`, or what the environment says, and which addresses it may be at.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::net::egress::{self, percent_decoded};
use crate::net::{Guard, Via};

use super::super::diagnose::{At, Problems, Remedy};
use super::super::file;
use super::super::host::Host;
use super::super::reader::entry_removal;
use super::super::url::{self, BaseUrl};
use super::quoted;

/// `proxy` of an upstream that must go straight whatever the environment says.
const NONE: &str = "none";

/// The proxy on the way to `url`, if there is one.
pub(super) fn via(
    problems: &mut Problems,
    host: &dyn Host,
    written: &file::Upstream,
    url: &BaseUrl,
) -> Option<Arc<Via>> {
    let Some(proxy) = &written.proxy else { return from_environment(problems, host, written, url) };
    let text = proxy.url.as_ref()?;
    if text.value == NONE {
        return None;
    }
    if !url.tls {
        let whole = entry_removal(problems, proxy.at);
        problems.add(
            proxy.at,
            "an upstream without TLS has a `proxy`, which would see the credential and every request",
            "remove `proxy`, or give the upstream an https:// address",
            whole,
        );
        return None;
    }
    let parsed = ProxyUrl::parse(&text.value).and_then(|parsed| match text.value.contains("://") {
        true => Ok(parsed),
        false => Err("does not begin with http://"),
    });
    let credentials = credentials(problems, host, proxy);
    match parsed {
        Ok(parsed) => Some(parsed.towards(url, credentials)),
        Err(fault) => {
            let good = quoted(&mended(&text.value));
            problems.add(
                text.at,
                format!("`proxy` {fault}"),
                format!("write {good}, or \"none\" to go straight"),
                Remedy::replace(text.at, good),
            );
            None
        }
    }
}

/// Which addresses the first hop may be at. Where a proxy is, is the operator's business; a proxy is inside as a rule.
pub(super) fn guard(written: &file::Upstream, url: &BaseUrl, via: Option<&Arc<Via>>) -> Guard {
    let allowed = written.allow_private.as_ref().is_some_and(|flag| flag.value);
    if via.is_some() || allowed { Guard::Inside } else { guard_of(url) }
}

/// The same without anything written: an address may be itself, an inside name may be inside.
pub(in super::super) fn guard_of(url: &BaseUrl) -> Guard {
    if url.host.parse::<IpAddr>().is_ok() || url.is_inside() { Guard::Inside } else { Guard::Public }
}

/// What is wrong with a base URL's host as a clause, when it is an address that is never connected to.
pub(in super::super) fn address_fault(url: &BaseUrl) -> Option<String> {
    let ip = url.host.parse::<IpAddr>().ok()?;
    Some(format!("names {ip}, which is {} and is never connected to", Guard::Inside.refuses(ip)?))
}

fn from_environment(
    problems: &mut Problems,
    host: &dyn Host,
    written: &file::Upstream,
    url: &BaseUrl,
) -> Option<Arc<Via>> {
    match environment(&|name| host.var(name), url) {
        Ok(via) => via,
        Err((variable, fault)) => {
            let name = written.name.as_ref().map_or(written.at, |name| name.at);
            problems.add(
                name,
                format!("the variable {variable}, which names the proxy on the way to this upstream, {fault}"),
                format!("set {variable} to http://HOST:PORT, or write `proxy = \"none\"` here"),
                Remedy::Variable(variable.to_owned()),
            );
            None
        }
    }
}

/// The proxy that the environment names on the way to `url`; or the variable, and what is wrong with its value.
pub(in super::super) fn environment(
    env: &dyn Fn(&str) -> Option<String>,
    url: &BaseUrl,
) -> Result<Option<Arc<Via>>, (&'static str, &'static str)> {
    // Without TLS a proxy would see the credential, and what has none is inside anyway.
    let Some((variable, text)) = egress::from_environment(env, &url.host, url.port).filter(|_| url.tls) else {
        return Ok(None);
    };
    match ProxyUrl::parse(&text) {
        Ok(parsed) => Ok(Some(parsed.towards(url, None))),
        Err(fault) => Err((variable, fault)),
    }
}

/// `username_env` and `password_env`.
fn credentials(problems: &mut Problems, host: &dyn Host, proxy: &file::Proxy) -> Option<Credentials> {
    let user = match (&proxy.username_env, &proxy.password_env) {
        (None, None) => return None,
        (None, Some(password)) => {
            let remedy = entry_removal(problems, password.at);
            problems.add(password.at, "`proxy` has a password and no user", "add `username_env`, or remove it", remedy);
            return None;
        }
        (Some(user), _) => variable(problems, host, user),
    };
    let password = proxy.password_env.as_ref().map(|name| variable(problems, host, name));
    let user = user?;
    if !is_user(&user) {
        let name = proxy.username_env.as_ref()?;
        problems.add(
            name.at,
            format!("the value of {} is no user name: it is empty or holds a colon or a control character", name.value),
            "name a variable that holds a user name",
            Remedy::Variable(name.value.clone()),
        );
    }
    Some(Credentials { user, password: password.unwrap_or_default().unwrap_or_default() })
}

fn variable(problems: &mut Problems, host: &dyn Host, name: &At<String>) -> Option<Zeroizing<String>> {
    let value = host.var(&name.value).map(Zeroizing::new);
    if value.is_none() {
        problems.add(
            name.at,
            format!("the variable {} is not set", name.value),
            format!("run `export {}=...` in the environment of forebay, or name another variable", name.value),
            Remedy::Variable(name.value.clone()),
        );
    }
    value.map(|value| Zeroizing::new(value.trim().to_owned()))
}

/// A user and a password for a proxy.
struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

/// RFC 7617 section 2: no colon in the user name, no control characters in either.
fn is_user(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c == ':' || c.is_control())
}

/// What is wrong with the part before the `@`.
const USER_FAULT: &str = "has a user or a password that is ill-formed: write special characters as %XX";

/// `http://user:password@host:port`, taken apart.
struct ProxyUrl {
    url: BaseUrl,
    credentials: Option<Credentials>,
}

impl ProxyUrl {
    /// The scheme may be missing. The error is a clause that follows the URL's name, and does not quote it.
    fn parse(text: &str) -> Result<ProxyUrl, &'static str> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return Err(
                    "names a proxy over TLS, which is not in this version; TLS to the upstream goes unopened through a plain one",
                );
            }
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => {
                return Err("names a SOCKS proxy, not an HTTP one");
            }
            _ => return Err("does not begin with http://"),
        }
        let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let url = url::parse(&format!("http://{authority}"))?;
        if !url.path.is_empty() {
            return Err("has a path");
        }
        if let Ok(ip) = url.host.parse::<IpAddr>()
            && Guard::Inside.refuses(ip).is_some()
        {
            return Err("names an address that is never connected to");
        }
        let credentials = user.map(|text| {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            let (user, password) =
                (percent_decoded(user).ok_or(USER_FAULT)?, percent_decoded(password).ok_or(USER_FAULT)?);
            let good = is_user(&user) && !password.chars().any(char::is_control);
            if good { Ok(Credentials { user, password }) } else { Err(USER_FAULT) }
        });
        Ok(ProxyUrl { url, credentials: credentials.transpose()? })
    }

    /// The proxy on the way to `target`; `credentials` go before the URL's own.
    fn towards(self, target: &BaseUrl, credentials: Option<Credentials>) -> Arc<Via> {
        let credentials = credentials.or(self.credentials);
        let pair = credentials.as_ref().map(|pair| (pair.user.as_str(), pair.password.as_str()));
        Arc::new(Via::new((&self.url.host, self.url.port), (&target.host, target.port), pair))
    }
}

/// What an ill-formed proxy URL probably meant, without a user and password.
fn mended(text: &str) -> String {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.rsplit('@').next().unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    let good = format!("http://{bare}");
    if ProxyUrl::parse(&good).is_ok() { good } else { "http://proxy.example:3128".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::super::{parse, quickstart};
    use super::*;
    use crate::table::Table;
    use std::{io, path::Path};

    struct Vars<'a>(&'a [(&'a str, &'a str)]);

    impl Host for Vars<'_> {
        fn var(&self, name: &str) -> Option<String> {
            if name == "K" {
                return Some("sk-k".into());
            }
            self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        }

        fn read(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn list(&self, _: &Path) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }

        fn is_open_to_all(&self, _: &Path) -> bool {
            false
        }

        fn now(&self) -> crate::base::Wall {
            crate::base::Wall(0)
        }
    }

    fn load(upstream: &str, vars: &[(&str, &str)]) -> Result<Table, String> {
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:1\"\n[[upstream]]\nname = \"a\"\n{upstream}\ncredentials = [{{ env = \"K\" }}]\n"
        );
        parse(Path::new("f.toml"), &text, &Vars(vars)).map_err(|report| report.to_string())
    }

    fn of(upstream: &str, vars: &[(&str, &str)]) -> (Option<(String, String)>, Guard) {
        let mut table = load(upstream, vars).expect("a good configuration");
        let upstream = table.upstreams.remove(0);
        let request = |via: &Arc<Via>| String::from_utf8_lossy(via.request()).into_owned();
        (upstream.via.as_ref().map(|via| (via.name(), request(via))), upstream.guard)
    }

    const ANTHROPIC: &str = "provider = \"anthropic\"";

    #[test]
    fn what_is_written_goes_before_the_environment() {
        let env = [("HTTPS_PROXY", "http://env:1"), ("ME", "m e"), ("PW", "p:w")];
        let via = |more: &str| of(&format!("{ANTHROPIC}\n{more}"), &env).0;
        let name = |more: &str| via(more).map(|(name, _)| name);
        assert_eq!(name("").as_deref(), Some("env:1"));
        assert_eq!(name("proxy = \"none\""), None);
        assert_eq!(name("proxy = { url = \"none\" }"), None);
        assert_eq!(name("proxy = \"http://Own.example\"").as_deref(), Some("own.example:80"));
        assert_eq!(name("proxy = \"http://[fd00::1]:3128/\"").as_deref(), Some("[fd00::1]:3128"));
        let (_, plain) = via("proxy = \"http://p:1\"").expect("one");
        assert_eq!(plain, "CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: api.anthropic.com:443\r\n\r\n");
        let (_, with) = via("proxy = \"http://me:p%40w@p:1\"").expect("one");
        assert!(with.contains("\r\nProxy-Authorization: Basic bWU6cEB3\r\n"), "{with}");
        let (_, with) =
            via("proxy = { url = \"http://x:y@p:1\", username_env = \"ME\", password_env = \"PW\" }").expect("one");
        assert!(with.contains("\r\nProxy-Authorization: Basic bSBlOnA6dw==\r\n"), "{with}");
    }

    #[test]
    fn the_environment_does_not_take_inside_targets_out() {
        let env = [("ALL_PROXY", "proxy:3128"), ("NO_PROXY", "10.0.0.0/8,.corp.example")];
        let via = |url: &str| of(&format!("base_url = \"{url}\""), &env).0.map(|(name, _)| name);
        assert_eq!(via("https://llm.example").as_deref(), Some("proxy:3128"));
        for straight in
            ["https://10.1.2.3", "https://llm.corp.example", "https://localhost:8443", "http://llm.internal"]
        {
            assert_eq!(via(straight), None, "{straight}");
        }
    }

    #[test]
    fn a_proxy_of_the_environment_that_cannot_be_used_is_told_without_its_password() {
        for (value, what) in [
            ("socks5://u:hush@proxy:1080", "names a SOCKS proxy"),
            ("https://u:hush@proxy", "names a proxy over TLS"),
            ("http://u:hush@proxy/path", "has a path"),
            ("http://u:hu%sh@proxy", "ill-formed"),
            ("http://u:hush@169.254.169.254", "never connected to"),
            ("http://:hush@proxy", "ill-formed"),
        ] {
            let told = load(ANTHROPIC, &[("HTTPS_PROXY", value)]).err().expect(value);
            assert!(told.contains("the variable HTTPS_PROXY") && told.contains(what), "{told}");
            assert!(told.contains("`proxy = \"none\"`") && !told.contains("hush"), "{told}");
            assert!(load(&format!("{ANTHROPIC}\nproxy = \"none\""), &[("HTTPS_PROXY", value)]).is_ok());
            let quick = quickstart("sk-k".into(), None, [0; 32], "127.0.0.1:1".parse().expect("an address"), &|name| {
                Vars(&[("HTTPS_PROXY", value)]).var(name)
            });
            let told = quick.err().expect("refused too");
            assert!(told.contains(what) && !told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn private_addresses_are_for_those_who_say_so() {
        let guard = |upstream: &str| of(upstream, &[]).1;
        assert_eq!(guard(ANTHROPIC), Guard::Public);
        assert_eq!(guard("base_url = \"https://llm.corp.example\""), Guard::Public);
        assert_eq!(guard("base_url = \"http://llm.corp.example\"\nplaintext = true"), Guard::Public);
        assert_eq!(guard("base_url = \"https://llm.corp.example\"\nallow_private = true"), Guard::Inside);
        assert_eq!(guard("base_url = \"https://llm.corp.example\"\nallow_private = false"), Guard::Public);
        assert_eq!(guard("base_url = \"https://llm.corp.example\"\nproxy = \"http://proxy.corp:1\""), Guard::Inside);
        for inside in ["http://10.0.0.1", "https://127.0.0.1", "http://localhost", "http://litellm", "http://a.svc"] {
            assert_eq!(guard(&format!("base_url = \"{inside}\"")), Guard::Inside, "{inside}");
        }
        for never in ["http://169.254.169.254", "https://[fe80::1]", "http://0.0.0.0:8080", "https://[fd00:ec2::254]"] {
            let told = load(&format!("base_url = \"{never}\""), &[]).err().expect(never);
            assert!(told.contains("is never connected to"), "{told}");
        }
    }
}
