//! Which slot each name has, over the tables of one process. A slot is given out once and for all: a name that comes
//! back gets its own again, so that what was counted, learnt or reserved under a slot is never taken for another's.
//! An upstream's slot stands for its name *and* for where it is: one that moves gets a new slot, so that addresses,
//! TLS sessions and idle connections of the old place cannot serve the new one.

use super::{Access, Caller, Table, Upstream};
use crate::base::{CallerSlot, CredentialSlot, ModelSlot, TeamSlot, UpstreamSlot};
use std::{collections::HashMap, fmt::Write, sync::Arc};

/// The slots of one table. The default is that of a process's first table: slot `n` is place `n` of the list.
#[derive(Clone, Default)]
pub struct Slots {
    upstreams: Lane,
    /// Over the pools of all upstreams, one behind the other.
    credentials: Lane,
    models: Lane,
    teams: Lane,
    callers: Lane,
}

/// The slots of one list.
#[derive(Clone, Default)]
struct Lane {
    /// Every name that ever had a slot. Empty means: slot `n` is place `n`.
    known: HashMap<Arc<str>, u32>,
    /// The slot of each place in the list.
    of_place: Vec<u32>,
    /// The place of each slot, if this table has it.
    place_of: Vec<Option<u32>>,
}

impl Lane {
    /// The lane of a list with these `names`, after a table whose list had `before`.
    fn after(previous: &Lane, before: Vec<Arc<str>>, names: Vec<Arc<str>>) -> Lane {
        let mut next = previous.place_of.len().max(before.len()) as u32;
        let mut known = previous.known.clone();
        if known.is_empty() {
            known.extend(before.into_iter().zip(0..));
        }
        let mut of_place = Vec::with_capacity(names.len());
        for name in names {
            let slot = *known.entry(name).or_insert(next);
            next = next.max(slot + 1);
            of_place.push(slot);
        }
        let mut place_of = vec![None; next as usize];
        for (place, slot) in of_place.iter().enumerate() {
            if let Some(free) = place_of.get_mut(*slot as usize) {
                *free = Some(place as u32);
            }
        }
        Lane { known, of_place, place_of }
    }

    fn place(&self, slot: u32) -> Option<usize> {
        let place =
            if self.known.is_empty() { Some(slot) } else { self.place_of.get(slot as usize).copied().flatten() };
        place.map(|place| place as usize)
    }

    fn slot(&self, place: usize) -> u32 {
        self.of_place.get(place).copied().unwrap_or(place as u32)
    }

    /// How many slots there are; `places` when each place has its own number.
    fn len(&self, places: usize) -> usize {
        if self.known.is_empty() { places } else { self.place_of.len() }
    }
}

impl Table {
    /// Makes this table, as it was compiled, the one after `previous`: names keep their slots, new ones get new ones,
    /// and the generation is the next.
    pub fn follow(&mut self, previous: &Table) {
        let of = |table: &Table| {
            [
                table.upstreams.iter().map(identity).collect::<Vec<_>>(),
                table.upstreams.iter().flat_map(pool_identities).collect(),
                table.models.iter().map(|model| Arc::clone(model.name.text())).collect(),
                table.teams.iter().map(|team| Arc::clone(&team.name)).collect(),
                table.callers.iter().map(|caller| Arc::clone(&caller.name)).collect(),
            ]
        };
        let ([u0, p0, m0, t0, c0], [u1, p1, m1, t1, c1]) = (of(previous), of(self));
        let old = &previous.slots;
        let slots = Slots {
            upstreams: Lane::after(&old.upstreams, u0, u1),
            credentials: Lane::after(&old.credentials, p0, p1),
            models: Lane::after(&old.models, m0, m1),
            teams: Lane::after(&old.teams, t0, t1),
            callers: Lane::after(&old.callers, c0, c1),
        };
        let access = |access: &mut Access| {
            for slot in access.upstreams.iter_mut().flatten() {
                slot.0 = slots.upstreams.slot(slot.index());
            }
        };
        for target in self.models.iter_mut().flat_map(|model| &mut model.targets) {
            target.upstream.0 = slots.upstreams.slot(target.upstream.index());
        }
        self.teams.iter_mut().for_each(|team| access(&mut team.access));
        for caller in &mut self.callers {
            access(&mut caller.access);
            if let Some(team) = &mut caller.team {
                team.0 = slots.teams.slot(team.index());
            }
        }
        for caller in self.digests.0.values_mut() {
            caller.0 = slots.callers.slot(caller.index());
        }
        self.slots = slots;
        self.generation = previous.generation.saturating_add(1);
    }

    /// The upstreams with their slots, in file order.
    pub fn upstream_slots(&self) -> impl Iterator<Item = (UpstreamSlot, &Upstream)> {
        self.upstreams.iter().enumerate().map(|(place, u)| (UpstreamSlot(self.slots.upstreams.slot(place)), u))
    }

    /// The keys with their slots, in file order.
    pub fn caller_slots(&self) -> impl Iterator<Item = (CallerSlot, &Caller)> {
        self.callers.iter().enumerate().map(|(place, caller)| (CallerSlot(self.slots.callers.slot(place)), caller))
    }

    /// Every slot that an upstream of this name has had, wherever it was, in the order in which it had them.
    pub fn upstream_slots_named(&self, name: &str) -> Vec<UpstreamSlot> {
        let known = &self.slots.upstreams.known;
        if known.is_empty() {
            return self
                .upstream_slots()
                .filter(|(_, upstream)| *upstream.name == *name)
                .map(|(slot, _)| slot)
                .collect();
        }
        let is_its = |identity: &str| identity.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        let mut slots: Vec<UpstreamSlot> =
            known.iter().filter(|(identity, _)| is_its(identity)).map(|(_, slot)| UpstreamSlot(*slot)).collect();
        slots.sort_unstable();
        slots
    }

    /// How many upstream slots the process has given out until this table: what a list by slot needs room for.
    pub fn upstream_slots_len(&self) -> usize {
        self.slots.upstreams.len(self.upstreams.len())
    }

    /// The slot of the credential at `at` of an upstream's pool; `None` when there is none.
    pub fn credential_slot(&self, upstream: UpstreamSlot, at: usize) -> Option<CredentialSlot> {
        let place = self.upstream_place(upstream)?;
        if at >= self.upstreams.get(place)?.pool_len() {
            return None;
        }
        let before: usize = self.upstreams.iter().take(place).map(Upstream::pool_len).sum();
        Some(CredentialSlot(self.slots.credentials.slot(before + at)))
    }

    /// Every credential slot, with its upstream's and its place in that one's pool, in file order.
    pub fn credential_slots(&self) -> impl Iterator<Item = (CredentialSlot, UpstreamSlot, usize)> {
        let places =
            self.upstream_slots().flat_map(|(slot, upstream)| (0..upstream.pool_len()).map(move |at| (slot, at)));
        places.enumerate().map(|(place, (slot, at))| (CredentialSlot(self.slots.credentials.slot(place)), slot, at))
    }

    /// How many credential slots the process has given out until this table.
    pub fn credential_slots_len(&self) -> usize {
        self.slots.credentials.len(self.upstreams.iter().map(Upstream::pool_len).sum())
    }

    /// The slot of the model rule at `place` of the list.
    pub(super) fn model_slot(&self, place: usize) -> ModelSlot {
        ModelSlot(self.slots.models.slot(place))
    }

    pub(super) fn upstream_place(&self, slot: UpstreamSlot) -> Option<usize> {
        self.slots.upstreams.place(slot.0)
    }

    pub(super) fn model_place(&self, slot: ModelSlot) -> Option<usize> {
        self.slots.models.place(slot.0)
    }

    pub(super) fn team_place(&self, slot: TeamSlot) -> Option<usize> {
        self.slots.teams.place(slot.0)
    }

    pub(super) fn caller_place(&self, slot: CallerSlot) -> Option<usize> {
        self.slots.callers.place(slot.0)
    }
}

/// What an upstream's slot stands for: its name, and all that says whom a connection to it reaches and trusts. The
/// credential is not in it: it travels with each request, and may be rotated on warm connections.
fn identity(upstream: &Upstream) -> Arc<str> {
    let Upstream {
        name,
        provider,
        tls,
        host,
        port,
        base_path,
        host_header: _, // follows from host and port
        credentials: _,
        extra_ca,
        via,
        guard,
        charge: _,     // what it takes, not whom it is
        first_byte: _, // how long to wait, not for whom
        verdicts: _,   // what an answer means, not where it comes from
    } = upstream;
    let via = via.as_ref().map_or("straight".to_owned(), |via| format!("{} {}", via.name(), via.target()));
    let mut text = format!("{name} {} {tls} {host} {port} {base_path} {via} {guard:?}", provider.name());
    for der in extra_ca {
        push_digest(&mut text, der);
    }
    text.into()
}

/// What the slots of an upstream's pool stand for: the upstream, the credential's name, and the secret, so that a new one
/// under an old name starts with a clean slate.
fn pool_identities(upstream: &Upstream) -> Vec<Arc<str>> {
    let of = identity(upstream);
    let names = (0..upstream.pool_len()).map(|at| {
        let name = upstream.credentials.get(at).map_or("", |credential| &credential.name);
        let mut text = format!("{of} / {name}");
        push_digest(&mut text, upstream.credential_line(at));
        text.into()
    });
    names.collect()
}

fn push_digest(text: &mut String, bytes: &[u8]) {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    text.push(' ');
    for byte in sum.as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
}
