//! What is known about the upstreams now, beside what was configured: their addresses and their model lists. The
//! control thread finds it out and publishes a new value whole; a worker reads it as it reads the table, without a
//! lock. An empty value is a valid one: nothing is known yet.

use crate::base::{UpstreamSlot, Wall};
use std::{net::SocketAddr, sync::Arc};

/// Addresses that are kept for one upstream; a name that has more keeps the first ones.
pub const ADDRESSES_MAX: usize = 16;

/// What is known now. Indexed by upstream slot.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Where each upstream is.
    pub addresses: Vec<Addresses>,
    /// The models that each upstream lists; `None` until a list has come.
    pub models: Vec<Option<Arc<ModelList>>>,
    /// Why the last attempt to get each list failed, if it did.
    pub model_errors: Vec<Option<Arc<str>>>,
}

impl Live {
    /// Nothing known about `upstreams` upstreams.
    pub fn unknown(upstreams: usize) -> Live {
        let mut live = Live::default();
        live.resize(upstreams);
        live
    }

    /// Makes room for exactly `upstreams` upstreams; nothing is known about the new ones.
    pub fn resize(&mut self, upstreams: usize) {
        self.addresses.resize(upstreams, Addresses::default());
        self.models.resize(upstreams, None);
        self.model_errors.resize(upstreams, None);
    }

    /// Where an upstream is; empty when that is not known.
    pub fn addresses_of(&self, slot: UpstreamSlot) -> &[SocketAddr] {
        self.addresses.get(slot.index()).map_or(&[], |addresses| &addresses.known)
    }

    /// Whether the upstream's name leads only to addresses that are not connected to.
    pub fn is_refused(&self, slot: UpstreamSlot) -> bool {
        self.addresses.get(slot.index()).is_some_and(|addresses| addresses.refused)
    }

    /// Why an upstream's name has no address, if the last look-up failed.
    pub fn address_error(&self, slot: UpstreamSlot) -> Option<&str> {
        self.addresses.get(slot.index())?.error.as_deref()
    }

    /// The models that an upstream lists.
    pub fn models_of(&self, slot: UpstreamSlot) -> Option<&Arc<ModelList>> {
        self.models.get(slot.index())?.as_ref()
    }
}

/// Where one upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses, as the resolver ordered them; the last good ones while look-ups fail. At most `ADDRESSES_MAX`.
    pub known: Arc<[SocketAddr]>,
    /// When these addresses were found first; `None` when there are none.
    pub resolved_at: Option<Wall>,
    /// What the last look-up said when it failed.
    pub error: Option<Arc<str>>,
    /// The last look-up found addresses, and the guard lets none of them through.
    pub refused: bool,
}

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses { known: Arc::new([]), resolved_at: None, error: None, refused: false }
    }
}

/// One upstream's answer to `GET /v1/models`.
#[derive(Debug, PartialEq, Eq)]
pub struct ModelList {
    /// The models, in the upstream's order.
    pub models: Vec<Model>,
    /// When it came.
    pub fetched_at: Wall,
}

/// One model of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// Its id, as requests name it.
    pub id: Box<str>,
    /// Its name for people.
    pub display_name: Option<Box<str>>,
    /// The whole JSON object as the upstream sent it, so that fields of tomorrow pass.
    pub json: Box<str>,
}
