//! Where the upstreams are: host names to addresses, off the cores, because the system's resolver blocks. What was
//! found stays in force while look-ups fail.

use super::Control;
use crate::{
    base::{Span, Wall},
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

/// What is known without asking anyone: the upstreams that are given by address.
pub fn literals(upstreams: &[Upstream], now: Wall) -> Live {
    let mut live = Live::unknown(upstreams.len());
    for (upstream, known) in upstreams.iter().zip(&mut live.addresses) {
        if let Ok(ip) = upstream.host.parse::<IpAddr>() {
            *known = Addresses {
                known: Arc::new([SocketAddr::new(ip, upstream.port)]),
                resolved_at: Some(now),
                error: None,
            };
        }
    }
    live
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
    for (slot, upstream) in table.upstreams.iter().enumerate() {
        if let Ok(ip) = upstream.host.parse::<IpAddr>() {
            learn(control, &table, slot, Ok(vec![SocketAddr::new(ip, upstream.port)]));
            continue;
        }
        let (host, port) = (Arc::clone(&upstream.host), upstream.port);
        lookups.spawn(async move { (slot, look_up(&host, port).await) });
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
fn learn(control: &Control, table: &Table, slot: usize, found: Result<Vec<SocketAddr>, Arc<str>>) {
    let Some(upstream) = table.upstreams.get(slot) else { return };
    let now = wall();
    control.change_live(table.upstreams.len(), |live| {
        let known = live.addresses.get_mut(slot)?;
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

/// All addresses of a name, in the resolver's order.
async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Arc<str>> {
    let asked = tokio::time::timeout(LOOKUP_MAX.to_std(), tokio::net::lookup_host((host, port)));
    let found = match asked.await {
        Ok(found) => found,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    };
    match found {
        Ok(addresses) => {
            let mut seen = HashSet::new();
            let addresses: Vec<_> = addresses.filter(|a| seen.insert(*a)).take(ADDRESSES_MAX).collect();
            if addresses.is_empty() { Err(format!("the name `{host}` has no address").into()) } else { Ok(addresses) }
        }
        Err(error) => Err(format!("the name `{host}` was not resolved: {error}").into()),
    }
}

/// What is known after a look-up; `None` when that is nothing new. The order of the same addresses is nothing new:
/// name servers turn it from answer to answer.
fn merge(old: &Addresses, found: Result<Vec<SocketAddr>, Arc<str>>, now: Wall) -> Option<Addresses> {
    match found {
        Ok(found) => {
            let same = found.len() == old.known.len() && found.iter().all(|a| old.known.contains(a));
            let new = Addresses { known: found.into(), resolved_at: Some(now), error: None };
            match same {
                true if old.error.is_none() => None,
                true => Some(Addresses { error: None, ..old.clone() }),
                false => Some(new),
            }
        }
        Err(error) if old.error.as_ref() == Some(&error) => None,
        Err(error) => Some(Addresses { error: Some(error), ..old.clone() }),
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
        let failed = merge(&good, Err("no answer".into()), Wall(6)).unwrap();
        assert_eq!(&*failed.known, at(&[1]));
        assert_eq!(failed.error.as_deref(), Some("no answer"));
        assert_eq!(merge(&failed, Err("no answer".into()), Wall(7)), None);
        let again = merge(&failed, Ok(at(&[1])), Wall(8)).unwrap();
        assert_eq!((again.error, again.resolved_at), (None, Some(Wall(5))));
    }

    #[tokio::test]
    async fn names_resolve_and_a_failure_names_the_name() {
        let found = look_up("localhost", 7).await.unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 7), "{found:?}");
        let error = look_up("forebay-test.invalid", 7).await.unwrap_err();
        assert!(error.contains("forebay-test.invalid"), "{error}");
    }
}
