//! The names behind slots, for all that outlives the table that gave a slot out: records, and what was counted. Only
//! grows, as slots do; the names of a table are learnt before the table is in force. Pure.

use crate::{
    base::{CredentialSlot, UpstreamSlot},
    table::Table,
};
use std::sync::Arc;

/// What stands for a name that is not known. No name may look so.
const UNKNOWN: &str = "?";

/// The names of upstreams and credentials, by slot.
#[derive(Clone, Default)]
pub struct Names {
    upstreams: Vec<Option<Arc<str>>>,
    credentials: Vec<Option<Of>>,
}

/// A credential: its upstream's name, and its own; that is empty where none is wanted.
type Of = (Arc<str>, Arc<str>);

impl Names {
    /// These names, and those of `table`.
    #[must_use]
    pub fn and(&self, table: &Table) -> Names {
        let mut names = self.clone();
        names.upstreams.resize(table.upstream_slots_len().max(names.upstreams.len()), None);
        names.credentials.resize(table.credential_slots_len().max(names.credentials.len()), None);
        for (slot, upstream) in table.upstream_slots() {
            put(&mut names.upstreams, slot.index(), Arc::clone(&upstream.name));
        }
        for (slot, upstream, place) in table.credential_slots() {
            let Some(upstream) = table.upstream(upstream) else { continue };
            let own = upstream.credentials.get(place).map(|credential| Arc::clone(&credential.name));
            put(&mut names.credentials, slot.index(), (Arc::clone(&upstream.name), own.unwrap_or_default()));
        }
        names
    }

    /// The name of an upstream.
    pub fn upstream(&self, slot: UpstreamSlot) -> &str {
        self.upstreams.get(slot.index()).and_then(Option::as_deref).unwrap_or(UNKNOWN)
    }

    /// The name of a credential, without its upstream's; empty where none is wanted.
    pub fn credential(&self, slot: CredentialSlot) -> &str {
        self.credentials.get(slot.index()).and_then(Option::as_ref).map_or(UNKNOWN, |(_, own)| own)
    }

    /// Every slot that the credential of this name has had, with whichever secret and wherever its upstream was.
    pub fn credential_slots(&self, upstream: &str, credential: &str) -> impl Iterator<Item = CredentialSlot> {
        let its = move |of: &Option<Of>| of.as_ref().is_some_and(|(of, own)| **of == *upstream && **own == *credential);
        let slots = self.credentials.iter().zip(0..).filter(move |(of, _)| its(of));
        slots.map(|(_, slot)| CredentialSlot(slot))
    }
}

fn put<T>(list: &mut [Option<T>], at: usize, name: T) {
    if let Some(place) = list.get_mut(at) {
        *place = Some(name);
    }
}

/// `upstream/credential`, as the operator writes it; the upstream alone where it has no credential.
pub fn joined(upstream: &str, credential: &str) -> String {
    if credential.is_empty() { upstream.to_owned() } else { format!("{upstream}/{credential}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::tests::{table, upstream},
        table::{Credential, SecretLine},
    };

    #[test]
    fn a_name_stays_known_and_its_slots_are_found() {
        let with = |secret: &str, port| {
            let mut upstream = upstream("a", "127.0.0.1", port);
            upstream.credentials.push(Credential::new("org", SecretLine::x_api_key(secret)));
            table(vec![upstream])
        };
        let first = with("one", 1);
        let names = Names::default().and(&first);
        assert_eq!((names.upstream(UpstreamSlot(0)), names.credential(CredentialSlot(0))), ("a", "org"));
        assert_eq!(names.credential(CredentialSlot(1)), UNKNOWN);
        let mut second = with("two", 1);
        second.follow(&first);
        let mut none = table(vec![upstream("b", "127.0.0.1", 1)]);
        none.follow(&second);
        let names = names.and(&second).and(&none);
        assert_eq!(names.credential_slots("a", "org").map(|slot| slot.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(names.credential_slots("b", "").map(|slot| slot.0).collect::<Vec<_>>(), [2]);
        assert_eq!((names.upstream(UpstreamSlot(0)), names.upstream(UpstreamSlot(1))), ("a", "b"));
        assert_eq!((joined("a", "org"), joined("b", "")), ("a/org".to_owned(), "b".to_owned()));
    }
}
