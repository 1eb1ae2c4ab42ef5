//! How much a connection holds while it waits, and how much while it serves. What makes one of these futures large is
//! mostly a path that is rarely taken: box that one.

use super::{client::Client, connection, exchange::exchange, shard::Shard};
use crate::rt::ring::{Ring, RingOutbox};

/// An idle connection, without its buffers.
const CONNECTION_BYTES_MAX: usize = 1024;
/// An exchange, without its buffers. One byte more, and the allocator gives a kibibyte more.
const EXCHANGE_BYTES_MAX: usize = 5 * 1024;

/// The size of the future that `make` would make; it is never called.
fn size<S, C, F: Future>(_: impl FnOnce(S, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn futures_are_small() {
    let idle = size(|shard, conn| connection::<Ring>(shard, conn, 0));
    assert!(idle <= CONNECTION_BYTES_MAX, "an idle connection takes {idle} bytes");
    let busy = size(|shard: &Shard<Ring>, client: &mut Client<RingOutbox>| exchange(shard, client, 0));
    assert!(busy <= EXCHANGE_BYTES_MAX, "an exchange takes {busy} bytes");
}
