//! Where forebay listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::net::identity::{self, Identity, Part};
use crate::table::{Hosts, Listener, ListenerTls};

use super::super::diagnose::{At, Problems, Remedy, Spot};
use super::super::file::{File, Listen, ListenTls};
use super::super::host::Host;
use super::super::reader::entry_removal;
use super::super::{url, value};
use super::{beside, plain, quoted};

/// Listeners for clients, and the two for operators.
pub(super) struct Places {
    pub listeners: Vec<Listener>,
    pub admin: Option<SocketAddr>,
    pub health: Option<SocketAddr>,
}

pub(super) fn compile(problems: &mut Problems, host: &dyn Host, file: &File) -> Places {
    if file.listen.is_empty() {
        let (end, section) = (problems.end_of(0), "[listen]\naddress = \"127.0.0.1:8080\"");
        let remedy = problems.append(0, section);
        problems.add(end, "no [listen]: nowhere for clients to connect", "add [listen] with an `address`", remedy);
    }
    let mut taken = Taken::default();
    let listeners = file.listen.iter().filter_map(|listen| listener(problems, host, &mut taken, listen)).collect();
    let admin = file.admin.as_ref().map(|text| admin(problems, &mut taken, text));
    let health = file.health.as_ref().map(|text| {
        let address = address(problems, text);
        taken.take(problems, address, text.at)
    });
    Places { listeners, admin, health }
}

fn listener(problems: &mut Problems, machine: &dyn Host, taken: &mut Taken, listen: &Listen) -> Option<Listener> {
    let text = listen.address.as_ref()?;
    let address = address(problems, text);
    let address = taken.take(problems, address, text.at);
    let loopback = address.ip().is_loopback();
    let plaintext = listen.plaintext.as_ref().is_some_and(|flag| flag.value);
    if !loopback && !plaintext && listen.tls.is_none() {
        let remedy = match &listen.plaintext {
            Some(flag) => Remedy::replace(flag.at, "true"),
            None => listen.insert_plaintext.clone(),
        };
        problems.add(
            text.at,
            format!("{address} is not a loopback address, and keys would cross the network without TLS"),
            "add `tls` with a certificate, or `plaintext = true` if something in front of it speaks TLS",
            remedy,
        );
    }
    if let Some(flag) = listen.plaintext.as_ref().filter(|flag| flag.value && listen.tls.is_some()) {
        let remedy = entry_removal(problems, flag.at);
        problems.add(flag.at, "a listener has `tls`, or is in `plaintext`, not both", "remove `plaintext`", remedy);
    }
    let tls = listen.tls.as_ref().and_then(|written| tls(problems, machine, written));
    let hosts = match &listen.hosts {
        None => Hosts::Any,
        Some(names) => Hosts::Only(names.iter().map(|name| host(problems, name)).collect()),
    };
    let refuse_cross_site = listen.refuse_cross_site.as_ref().map_or(loopback, |flag| flag.value);
    Some(Listener { address, plaintext, tls, hosts, refuse_cross_site })
}

/// The certificate and its key, as the files have them now. A missing path has been told.
fn tls(problems: &mut Problems, host: &dyn Host, written: &ListenTls) -> Option<ListenerTls> {
    let (chain, key) = (written.cert.as_ref()?, written.key.as_ref()?);
    let (chain_path, key_path) = (beside(problems, chain), beside(problems, key));
    let mut fault = |part: Part, cause: &str, hint: &str| {
        let (name, at, path) = match part {
            Part::Certificate => ("cert", chain.at, &chain_path),
            Part::Key => ("key", key.at, &key_path),
        };
        problems.add(at, format!("the `{name}` {} {cause}", path.display()), hint, Remedy::File(path.clone()));
    };
    let mut read = |part, path: &PathBuf| match host.read_apart(path, identity::FILE_BYTES_MAX) {
        Ok(bytes) => Some(Zeroizing::new(bytes)),
        Err(error) => {
            let cause = format!("cannot be read: {}", plain(error.kind()));
            fault(part, &cause, "name a file that is there and that forebay's user may read");
            None
        }
    };
    let (chain_pem, key_pem) = (read(Part::Certificate, &chain_path), read(Part::Key, &key_path));
    match Identity::read(&chain_pem?, &key_pem?, host.now()) {
        Ok(identity) => {
            let key_is_open = host.is_open_to_all(&key_path);
            Some(ListenerTls { cert: chain_path, key: key_path, key_is_open, identity })
        }
        Err(faults) => {
            for found in &faults {
                fault(found.part, &found.cause, found.hint);
            }
            None
        }
    }
}

/// A host name without scheme and port.
fn host(problems: &mut Problems, written: &At<String>) -> Box<str> {
    let bare = written.value.split("://").last().unwrap_or_default();
    let parsed = url::parse(&format!("http://{bare}"));
    let good = parsed.as_ref().map_or("localhost", |url| url.host.as_str());
    if good != written.value.to_ascii_lowercase() {
        problems.add(
            written.at,
            format!("`{}` is not a host name without scheme, port and path", written.value),
            format!("write {}", quoted(good)),
            Remedy::replace(written.at, quoted(good)),
        );
    }
    good.into()
}

/// The operator's listener has no keys: loopback only.
fn admin(problems: &mut Problems, taken: &mut Taken, text: &At<String>) -> SocketAddr {
    let address = address(problems, text);
    if address.ip().is_loopback() {
        return taken.take(problems, address, text.at);
    }
    let better = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    problems.add(
        text.at,
        format!("[admin] on {address} could be reached by everyone on the network; it asks for no key"),
        format!("write \"{better}\"; for health checks and metrics from elsewhere there is [health]"),
        Remedy::replace(text.at, quoted(&better.to_string())),
    );
    better
}

/// An address; an ill-formed one is told, and what was probably meant is returned.
fn address(problems: &mut Problems, text: &At<String>) -> SocketAddr {
    match value::address(&text.value) {
        Ok(address) => address,
        Err(fault) => {
            problems.add(
                text.at,
                format!("`{}` {}", text.value, fault.cause),
                format!("write {}", quoted(&fault.instead)),
                Remedy::replace(text.at, quoted(&fault.instead)),
            );
            fault.instead.parse().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080))
        }
    }
}

/// Addresses that are spoken for.
#[derive(Default)]
struct Taken(Vec<SocketAddr>);

impl Taken {
    /// Takes an address; one that another section has is told, and the next free port is returned.
    fn take(&mut self, problems: &mut Problems, address: SocketAddr, at: Spot) -> SocketAddr {
        let mut free = address;
        while self.0.contains(&free) && free.port() != 0 && free.port() < u16::MAX {
            free.set_port(free.port() + 1);
        }
        if free != address {
            problems.add(
                at,
                format!("another section listens on {address} already"),
                format!("write \"{free}\""),
                Remedy::replace(at, quoted(&free.to_string())),
            );
        }
        self.0.push(free);
        free
    }
}
