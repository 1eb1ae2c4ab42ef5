//! Where connections to the upstreams go: host names to addresses, theirs or those of the proxies on the way, off the
//! cores, because the system's resolver blocks. What the guard lets through is published; what was found stays in force
//! while look-ups fail.

use super::Control;
use crate::{
    base::{Span, UpstreamSlot, Wall},
    net::Guard,
    rt::ring::wall,
    table::{
        Table, Upstream,
        live::{ADDRESSES_MAX, Addresses, Live},
    },
};
use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::task::JoinSet;

/// How long a found address is taken for true.
const TTL: Span = Span::from_secs(30);
/// The first pause after a failure; doubles up to `TTL`.
const RETRY: Span = Span::from_secs(1);
/// How long one look-up may take; resolvers of today give up after ten to thirty seconds by themselves.
const LOOKUP_MAX: Span = Span::from_secs(10);
/// How long a new table waits for the addresses of what is new in it.
const FIRST_MAX: Span = Span::from_secs(3);

/// What a look-up found.
pub type Found = Result<Vec<SocketAddr>, Unknown>;

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// As a sentence without a full stop.
    pub text: Arc<str>,
    /// There are addresses, and the guard lets none of them through.
    pub refused: bool,
}

impl Unknown {
    fn failed(text: impl Into<Arc<str>>) -> Unknown {
        Unknown { text: text.into(), refused: false }
    }
}

/// What is known without asking anyone: the upstreams that are given by address.
pub fn literals(table: &Table, now: Wall) -> Live {
    let mut live = Live::unknown(table.upstream_slots_len());
    for (slot, upstream) in table.upstream_slots() {
        if let (Some(found), Some(known)) = (literal(upstream), live.addresses.get_mut(slot.index())) {
            *known = merge(known, found, now).unwrap_or_default();
        }
    }
    live
}

/// The address that a first hop is given by, if it is.
fn literal(upstream: &Upstream) -> Option<Found> {
    let (host, port) = upstream.first_hop();
    let ip = host.parse::<IpAddr>().ok()?;
    Some(guarded(upstream.guard, host, vec![SocketAddr::new(ip, port)]))
}

/// Finds the addresses of what `table`, which is about to come into force, has and nothing is known about, so that no
/// request meets an upstream without an address. One that is not found within `FIRST_MAX` counts as failed, and is
/// asked for again like any other.
pub(super) async fn introduce(control: &Arc<Control>, table: &Arc<Table>) {
    let live = control.live.load_full();
    let mut waiting: Vec<UpstreamSlot> = Vec::new();
    let mut lookups = JoinSet::new();
    for (slot, _) in table.upstream_slots().filter(|(slot, _)| live.addresses_of(*slot).is_empty()) {
        waiting.push(slot);
        let table = Arc::clone(table);
        lookups.spawn(async move { Some((slot, addresses(table.upstream(slot)?).await)) });
    }
    let until = tokio::time::Instant::now() + FIRST_MAX.to_std();
    while let Ok(Some(joined)) = tokio::time::timeout_at(until, lookups.join_next()).await {
        if let Ok(Some((slot, found))) = joined {
            waiting.retain(|other| *other != slot);
            learn(control, table, slot, found);
        }
    }
    for slot in waiting {
        learn(control, table, slot, Err(Unknown::failed("its name has not been resolved yet")));
    }
}

/// Keeps the addresses of all upstreams fresh; never ends.
pub async fn run(control: Arc<Control>) {
    let mut retry = RETRY;
    loop {
        let (generation, all_found) = round(&control).await;
        let pause = if all_found { TTL } else { retry };
        retry = if all_found { RETRY } else { Span(retry.0.saturating_mul(2)).min(TTL) };
        control.pause(pause, generation).await;
    }
}

/// Looks every name up once, each beside the others; says for which table, and whether all have an answer.
async fn round(control: &Arc<Control>) -> (u64, bool) {
    let table = control.table.load_full();
    let mut lookups = JoinSet::new();
    for (slot, upstream) in table.upstream_slots() {
        if let Some(found) = literal(upstream) {
            learn(control, &table, slot, found);
            continue;
        }
        let (host, port) = upstream.first_hop();
        let (host, guard) = (Arc::clone(host), upstream.guard);
        lookups.spawn(async move { (slot, look_up(&host, port, guard).await) });
    }
    let mut all_found = true;
    while let Some(joined) = lookups.join_next().await {
        let Ok((slot, found)) = joined else {
            all_found = false;
            continue;
        };
        all_found &= found.is_ok();
        learn(control, &table, slot, found);
    }
    (table.generation, all_found)
}

/// Publishes what a look-up found, if that is news.
fn learn(control: &Control, table: &Table, slot: UpstreamSlot, found: Found) {
    let Some(upstream) = table.upstream(slot) else { return };
    let now = wall();
    control.change_live(table.upstream_slots_len(), |live| {
        let known = live.addresses.get_mut(slot.index())?;
        let new = merge(known, found, now)?;
        match &new.error {
            Some(error) => control.sink.notice(&format!("upstream `{}`: {error}", upstream.name)),
            None if known.error.is_some() => {
                control.sink.notice(&format!("upstream `{}`: its name resolves again", upstream.name));
            }
            None => {}
        }
        *known = new;
        Some(())
    });
}

/// The addresses of an upstream's first hop as of now, asked for anew.
///
/// # Errors
/// Why there are none.
pub async fn addresses(upstream: &Upstream) -> Found {
    if let Some(found) = literal(upstream) {
        return found;
    }
    let (host, port) = upstream.first_hop();
    look_up(host, port, upstream.guard).await
}

/// All addresses of a name that may be connected to, in the resolver's order.
async fn look_up(host: &str, port: u16, guard: Guard) -> Found {
    let asked = tokio::time::timeout(LOOKUP_MAX.to_std(), tokio::net::lookup_host((host, port)));
    let found = match asked.await {
        Ok(found) => found,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    };
    match found {
        Ok(addresses) => {
            let mut seen = HashSet::new();
            let addresses: Vec<_> = addresses.filter(|a| seen.insert(*a)).take(ADDRESSES_MAX).collect();
            guarded(guard, host, addresses)
        }
        Err(error) => Err(Unknown::failed(format!("the name `{host}` was not resolved: {error}"))),
    }
}

/// Those of a host's addresses that the guard lets through.
fn guarded(guard: Guard, host: &str, mut addresses: Vec<SocketAddr>) -> Found {
    let refused = addresses.iter().find_map(|address| guard.told(address.ip()));
    addresses.retain(|address| guard.refuses(address.ip()).is_none());
    match refused {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(told) => Err(Unknown { text: format!("`{host}` leads to {told}").into(), refused: true }),
        None => Err(Unknown::failed(format!("the name `{host}` has no address"))),
    }
}

/// What is known after a look-up; `None` when that is nothing new. The order of the same addresses is nothing new:
/// name servers turn it from answer to answer.
fn merge(old: &Addresses, found: Found, now: Wall) -> Option<Addresses> {
    match found {
        Ok(found) => {
            let same = found.len() == old.known.len() && found.iter().all(|a| old.known.contains(a));
            let new = Addresses { known: found.into(), resolved_at: Some(now), error: None, refused: false };
            match same {
                true if old.error.is_none() => None,
                true => Some(Addresses { error: None, refused: false, ..old.clone() }),
                false => Some(new),
            }
        }
        Err(unknown) if old.error.as_ref() == Some(&unknown.text) => None,
        Err(Unknown { text, refused }) => Some(Addresses { error: Some(text), refused, ..old.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::new(IpAddr::from([127, 0, 0, 1]), *port)).collect()
    }

    #[test]
    fn only_news_are_published() {
        let first = merge(&Addresses::default(), Ok(at(&[1, 2])), Wall(5)).unwrap();
        assert_eq!(&*first.known, at(&[1, 2]));
        assert_eq!(merge(&first, Ok(at(&[2, 1])), Wall(6)), None, "another order is nothing new");
        assert_eq!(merge(&first, Ok(at(&[2])), Wall(6)).unwrap().resolved_at, Some(Wall(6)));
    }

    #[test]
    fn the_last_good_addresses_outlive_failures() {
        let good = merge(&Addresses::default(), Ok(at(&[1])), Wall(5)).unwrap();
        let failed = merge(&good, Err(Unknown::failed("no answer")), Wall(6)).unwrap();
        assert_eq!(&*failed.known, at(&[1]));
        assert_eq!(failed.error.as_deref(), Some("no answer"));
        assert_eq!(merge(&failed, Err(Unknown::failed("no answer")), Wall(7)), None);
        let again = merge(&failed, Ok(at(&[1])), Wall(8)).unwrap();
        assert_eq!((again.error, again.resolved_at), (None, Some(Wall(5))));
    }

    #[test]
    fn what_the_guard_refuses_is_never_published() {
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 443);
        let mixed = vec![address("10.0.0.1"), address("1.1.1.1"), address("::1")];
        assert_eq!(guarded(Guard::Public, "h", mixed.clone()), Ok(vec![address("1.1.1.1")]));
        assert_eq!(guarded(Guard::Inside, "h", mixed.clone()), Ok(mixed));
        let good = merge(&Addresses::default(), Ok(vec![address("1.1.1.1")]), Wall(5)).unwrap();
        let rebound = guarded(Guard::Public, "api.example", vec![address("10.0.0.1")]);
        let told = rebound.clone().unwrap_err().text;
        assert!(told.starts_with("`api.example` leads to 10.0.0.1, which is a private address"), "{told}");
        let after = merge(&good, rebound.clone(), Wall(6)).unwrap();
        assert_eq!((&*after.known, after.refused), (&[address("1.1.1.1")][..], true), "the last good one stays");
        let from_nothing = merge(&Addresses::default(), rebound, Wall(6)).unwrap();
        assert!(from_nothing.known.is_empty() && from_nothing.refused);
        let back = merge(&after, Ok(vec![address("1.1.1.1")]), Wall(8)).unwrap();
        assert_eq!((back.refused, back.error), (false, None));
    }

    #[tokio::test]
    async fn names_resolve_and_a_failure_names_the_name() {
        let found = look_up("localhost", 7, Guard::Inside).await.unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 7), "{found:?}");
        let error = look_up("forebay-test.invalid", 7, Guard::Inside).await.unwrap_err();
        assert!(error.text.contains("forebay-test.invalid") && !error.refused, "{error:?}");
        let error = look_up("localhost", 7, Guard::Public).await.unwrap_err();
        assert!(error.text.contains("allow_private") && error.refused, "{error:?}");
    }
}
