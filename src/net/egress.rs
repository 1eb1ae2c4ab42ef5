//! Which way leads out to a target: straight, or through a proxy, and what that proxy is asked. Pure: the environment is
//! an argument. Whoever opens a connection for forebay, a worker or the control thread, goes by what this says.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Where the environment names a proxy for TLS targets, the first that is set and not empty wins; the lower-case name
/// first, as curl has it.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Where it names the targets that go without.
const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A proxy on the way to one target. Holds the credentials for it: no `Debug`, no `Display`, and they are overwritten
/// when it is dropped.
pub struct Via {
    /// The proxy's name or address, without brackets.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// The target as `CONNECT` names it.
    target: String,
    head: Zeroizing<Vec<u8>>,
    with_credentials: bool,
}

impl Via {
    /// The proxy at `host` and `port`, on the way to `target` and its port, with the user and password that it wants.
    pub fn new(proxy: (&str, u16), target: (&str, u16), credentials: Option<(&str, &str)>) -> Via {
        let target = authority(target.0, target.1);
        // Nothing of the client's request is in here: the proxy learns where, not what.
        let mut head = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes());
        if let Some((user, password)) = credentials {
            let pair = Zeroizing::new(format!("{user}:{password}"));
            // RFC 7617 section 2.
            let mut line = Zeroizing::new(Vec::with_capacity(head.len() + 64 + pair.len() * 2));
            line.extend_from_slice(&head);
            line.extend_from_slice(b"Proxy-Authorization: Basic ");
            base64(pair.as_bytes(), &mut line);
            line.extend_from_slice(b"\r\n");
            head = line;
        }
        head.extend_from_slice(b"\r\n");
        Via { host: proxy.0.into(), port: proxy.1, target, head, with_credentials: credentials.is_some() }
    }

    /// `host:port` of the proxy, for messages and for people.
    pub fn name(&self) -> String {
        authority(&self.host, self.port)
    }

    /// `host:port` of the target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The whole `CONNECT` request (RFC 9110 section 9.3.6). Secret.
    pub fn request(&self) -> &[u8] {
        &self.head
    }

    /// Whether it has credentials for the proxy.
    pub fn has_credentials(&self) -> bool {
        self.with_credentials
    }
}

/// `host:port`, an IPv6 address in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Standard base64 with padding (RFC 4648 section 4), behind what `out` holds.
fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let byte = |at: usize| three.get(at).copied().map_or(0, u32::from);
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4_usize {
            let six = (word >> (18 - 6 * at)) & 63;
            out.push(if at <= three.len() { ALPHABET[six as usize] } else { b'=' });
        }
    }
}

/// The proxy that the environment names for a TLS target, and the variable that does: none for a target on this
/// machine, and none for what `NO_PROXY` lists.
pub fn from_environment(
    env: &dyn Fn(&str) -> Option<String>,
    host: &str,
    port: u16,
) -> Option<(&'static str, Zeroizing<String>)> {
    let set = |name: &'static str| Some((name, env(name)?)).filter(|(_, value)| !value.trim().is_empty());
    let (name, url) = PROXY_VARIABLES.into_iter().find_map(set)?;
    let url = Zeroizing::new(url.trim().to_owned());
    let exempt = NO_PROXY_VARIABLES.into_iter().find_map(set).is_some_and(|(_, list)| is_exempt(&list, host, port));
    (!is_this_machine(host) && !exempt).then_some((name, url))
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let name = host == "localhost" || host.ends_with(".localhost");
    name || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether a list such as `NO_PROXY` names the target. Its entries stand between commas or spaces: `*` is every target;
/// a name is itself and all names below it, with a dot or `*.` before it or without; an address is itself; `10.0.0.0/8`
/// is every target that is given by an address inside. Each but `*` may end with `:port`, and is for that port alone
/// then. What is none of these names nothing.
pub fn is_exempt(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let mut entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
    entries.any(|entry| covers(&entry.to_ascii_lowercase(), &host, ip, port))
}

fn covers(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let Some((name, wanted)) = split(entry) else { return false };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if let Some((network, bits)) = name.split_once('/') {
        let network = network.parse::<IpAddr>().ok().zip(bits.parse::<u8>().ok());
        return network.zip(ip).is_some_and(|((network, bits), ip)| is_within(ip, network, bits));
    }
    if let Ok(address) = name.parse::<IpAddr>() {
        return ip == Some(address.to_canonical());
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = name.strip_prefix('.').unwrap_or(name).trim_end_matches('.');
    let above = host.strip_suffix(name).filter(|_| !name.is_empty() && ip.is_none());
    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// An entry without its port and brackets, and the port.
fn split(entry: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| text.parse::<u16>().ok();
    if let Some(rest) = entry.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(text) => Some((address, Some(port(text)?))),
            None if after.is_empty() => Some((address, None)),
            None => None,
        };
    }
    let bare = entry.split('/').next().unwrap_or_default();
    match entry.rsplit_once(':') {
        Some(_) if bare.parse::<Ipv6Addr>().is_ok() => Some((entry, None)),
        Some((name, text)) => Some((name, Some(port(text)?))),
        None => Some((entry, None)),
    }
}

/// Whether the first `bits` of the two are the same. An IPv4 network has no IPv6 address in it.
fn is_within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) if bits <= 32 => {
            (u32::from(ip) ^ u32::from(network)).checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) if bits <= 128 => {
            (u128::from(ip) ^ u128::from(network)).checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// A part of a URL's user information with its `%xx` decoded (RFC 3986 section 2.1); `None` when that is no text.
pub fn percent_decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    std::str::from_utf8(&out).ok().map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_proxy_lists() {
        for (list, host, port, exempt) in [
            ("", "a.example", 443, false),
            (" , ,", "a.example", 443, false),
            ("*", "a.example", 443, true),
            ("b.example, *", "a.example", 443, true),
            ("a.example", "a.example", 443, true),
            ("A.Example", "a.eXample", 443, true),
            ("a.example", "x.a.example", 443, true),
            ("a.example", "xa.example", 443, false),
            ("a.example", "example", 443, false),
            (".a.example", "a.example", 443, true),
            (".a.example", "x.a.example", 443, true),
            (".a.example", "xa.example", 443, false),
            ("*.a.example", "x.y.a.example", 443, true),
            ("*.a.example", "xa.example", 443, false),
            ("a.example.", "a.example", 443, true),
            ("a.example", "a.example.", 443, true),
            ("b.example a.example", "a.example", 443, true),
            ("b.example,a.example:443", "a.example", 443, true),
            ("a.example:8443", "a.example", 443, false),
            (".example:443", "a.example", 443, true),
            ("a.example:port", "a.example", 443, false),
            (".", "a.example", 443, false),
            ("*.", "a.example", 443, false),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.1.2.3", "10.1.2.30", 443, false),
            ("2.3", "10.1.2.3", 443, false),
            ("10.1.2.3:443", "10.1.2.3", 443, true),
            ("10.1.2.3:80", "10.1.2.3", 443, false),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("10.0.0.0/8", "a.example", 443, false),
            ("10.1.2.3/32", "10.1.2.3", 443, true),
            ("10.1.2.3/32", "10.1.2.2", 443, false),
            ("0.0.0.0/0", "8.8.8.8", 443, true),
            ("10.0.0.0/33", "10.0.0.1", 443, false),
            ("10.0.0.0/x", "10.0.0.1", 443, false),
            ("fd00::/8", "fd12::1", 443, true),
            ("fd00::/8", "fe00::1", 443, false),
            ("::/0", "fe00::1", 443, true),
            ("::/0", "8.8.8.8", 443, false),
            ("fd12::1", "fd12::1", 443, true),
            ("fd12:0::1", "fd12::1", 443, true),
            ("[fd12::1]", "fd12::1", 443, true),
            ("[fd12::1]:443", "fd12::1", 443, true),
            ("[fd12::1]:80", "fd12::1", 443, false),
            ("[fd12::1", "fd12::1", 443, false),
            ("[fd12::1]x", "fd12::1", 443, false),
            ("10.1.2.3", "::ffff:10.1.2.3", 443, true),
        ] {
            assert_eq!(is_exempt(list, host, port), exempt, "`{list}` for {host}:{port}");
        }
    }

    #[test]
    fn the_environment_names_a_proxy() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<(&'a str, &'a str)>);
        let cases: &[Case<'_>] = &[
            (&[], "a.example", None),
            (&[("HTTPS_PROXY", " http://p:1 ")], "a.example", Some(("HTTPS_PROXY", "http://p:1"))),
            (&[("HTTPS_PROXY", "u"), ("https_proxy", "l")], "a.example", Some(("https_proxy", "l"))),
            (&[("HTTPS_PROXY", "u"), ("https_proxy", " ")], "a.example", Some(("HTTPS_PROXY", "u"))),
            (&[("ALL_PROXY", "a")], "a.example", Some(("ALL_PROXY", "a"))),
            (&[("ALL_PROXY", "a"), ("HTTPS_PROXY", "u")], "a.example", Some(("HTTPS_PROXY", "u"))),
            (&[("HTTP_PROXY", "h"), ("http_proxy", "h")], "a.example", None),
            (&[("HTTPS_PROXY", "u"), ("NO_PROXY", ".example")], "a.example", None),
            (&[("HTTPS_PROXY", "u"), ("NO_PROXY", ".example")], "a.test", Some(("HTTPS_PROXY", "u"))),
            (&[("HTTPS_PROXY", "u"), ("NO_PROXY", "*"), ("no_proxy", "b")], "a", Some(("HTTPS_PROXY", "u"))),
            (&[("HTTPS_PROXY", "u")], "localhost", None),
            (&[("HTTPS_PROXY", "u")], "a.localhost", None),
            (&[("HTTPS_PROXY", "u")], "127.0.0.5", None),
            (&[("HTTPS_PROXY", "u")], "::1", None),
            (&[("HTTPS_PROXY", "u")], "10.0.0.1", Some(("HTTPS_PROXY", "u"))),
        ];
        for (vars, host, expected) in cases {
            let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let chosen = from_environment(&env, host, 443);
            let chosen = chosen.as_ref().map(|(name, url)| (*name, url.as_str()));
            assert_eq!(chosen, *expected, "{vars:?} for {host}");
        }
    }

    #[test]
    fn a_proxy_is_asked_for_the_target_and_nothing_else() {
        let via = Via::new(("proxy.example", 3128), ("api.example", 443), None);
        assert_eq!(via.request(), b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n");
        assert_eq!((via.name().as_str(), via.target()), ("proxy.example:3128", "api.example:443"));
        let via = Via::new(("::1", 1), ("2001:db8::1", 8443), Some(("Aladdin", "open sesame")));
        let expected: &[u8] = b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\
            Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert_eq!(via.request(), expected);
        assert_eq!(via.name(), "[::1]:1");
    }

    #[test]
    fn base64_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            let mut out = Vec::new();
            base64(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
        let mut out = Vec::new();
        base64(&[0xfb, 0xff, 0xfe], &mut out);
        assert_eq!(out, b"+//+");
    }

    #[test]
    fn percent_signs_are_decoded() {
        let decoded = |text| percent_decoded(text).map(|t| t.to_string());
        assert_eq!(decoded("a%40b%3A%25"), Some("a@b:%".into()));
        assert_eq!(decoded("%C3%BC"), Some("\u{fc}".into()));
        for bad in ["%", "%4", "%zz", "%+1", "%FF"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
