//! What is known now, beside what was configured: the upstreams' addresses and model lists, and the certificates that
//! listeners show. The control thread finds it out and publishes a new value whole; a worker reads it as it reads the
//! table, without a lock. An empty value is a valid one: nothing is known yet.

use crate::{
    base::{UpstreamSlot, Wall},
    net::Identity,
};
use rustls::ServerConfig;
use std::{net::SocketAddr, sync::Arc};

/// Addresses that are kept for one upstream; a name that has more keeps the first ones.
pub const ADDRESSES_MAX: usize = 16;

/// What is known now. Indexed by upstream slot, but for `fronts`.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Where each upstream is.
    pub addresses: Vec<Addresses>,
    /// The models that each upstream lists; `None` until a list has come.
    pub models: Vec<Option<Arc<ModelList>>>,
    /// Why the last attempt to get each list failed, if it did.
    pub model_errors: Vec<Option<Arc<str>>>,
    /// What each listener shows to its clients, in the table's order; `None` for plain HTTP.
    pub fronts: Vec<Option<Front>>,
}

/// The TLS side of a listener. A connection keeps the one that it began with.
#[derive(Clone, Debug)]
pub struct Front {
    /// For handshakes; has the keys of the tickets too, so that sessions resume on every core.
    pub config: Arc<ServerConfig>,
    /// What is in there, for people.
    pub identity: Identity,
    /// Why the files as they are now are not in force.
    pub fault: Option<Arc<str>>,
}

impl Live {
    /// Nothing known about `upstreams` upstreams.
    pub fn unknown(upstreams: usize) -> Live {
        let mut live = Live::default();
        live.grow(upstreams);
        live
    }

    /// Makes room for `upstreams` upstream slots; nothing is known about the new ones. It never shrinks: what an older
    /// table's exchanges need stays, and slots are not given out twice.
    pub fn grow(&mut self, upstreams: usize) {
        let upstreams = upstreams.max(self.addresses.len());
        self.addresses.resize(upstreams, Addresses::default());
        self.models.resize(upstreams, None);
        self.model_errors.resize(upstreams, None);
    }

    /// Forgets the model lists, which are large, of the slots that `stays` says no to. Addresses stay, for exchanges
    /// that began under an older table.
    pub fn prune(&mut self, stays: impl Fn(UpstreamSlot) -> bool) {
        let each = self.models.iter_mut().zip(&mut self.model_errors).zip(0..);
        for ((models, error), _) in each.filter(|(_, slot)| !stays(UpstreamSlot(*slot))) {
            (*models, *error) = (None, None);
        }
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

    /// What a listener shows; `None` for plain HTTP.
    pub fn front(&self, listener: usize) -> Option<&Front> {
        self.fronts.get(listener)?.as_ref()
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
