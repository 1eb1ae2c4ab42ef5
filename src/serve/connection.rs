//! One client's connection: exchanges one after the other, pipelined requests in their order, and its end.

use super::{
    answer,
    client::{Arrived, Client},
    exchange::{After, Story, exchange},
    shard::Shard,
};
use crate::{
    base::{Failure, Kind},
    net::Conn,
    rt::Runtime,
};
use std::rc::Rc;

/// Serves `conn`, which was accepted by the table's listener number `listener`, to its end.
pub async fn connection<R: Runtime>(shard: Rc<Shard<R>>, conn: Conn<R::Outbox>, listener: usize) {
    let mut client = Client::new(conn);
    loop {
        let (keep_alive, patience) = {
            let table = shard.table();
            (table.patience.keep_alive, table.patience.head)
        };
        // Boxed, all but the wait for a head: a connection waits for most of its life, and holds only what waiting needs.
        let after = match client.read_head(&shard.rt, &shard.drain, keep_alive, patience).await {
            Arrived::Nothing => return Box::pin(client.leave(&shard.rt)).await,
            Arrived::Refused(failure) => Box::pin(refuse(&shard, &mut client, failure)).await,
            Arrived::Head => Box::pin(exchange(&shard, &mut client, listener)).await,
        };
        match after {
            After::Next => {}
            After::Close => return Box::pin(client.linger(&shard.rt)).await,
            After::Drop => return,
            After::Abort => return client.outbound.abort(),
        }
    }
}

/// Answers what cannot be read as a request.
async fn refuse<R: Runtime>(shard: &Shard<R>, client: &mut Client<R::Outbox>, failure: Failure) -> After {
    let mut story = Story::begin(shard, client);
    story.fails(failure.kind);
    answer::fail(&shard.rt, client, &mut story, &failure, true).await;
    story.end(shard);
    After::Close
}

/// Tells a client that comes over the worker's bound so, before it has said anything.
pub async fn turn_away<R: Runtime>(shard: &Shard<R>, conn: Conn<R::Outbox>) {
    let text = "forebay holds as many connections as it may. Try again in a moment.";
    send_away(shard, conn, Failure::new(Kind::ConnectionsFull, text).retry_after(5)).await;
}

/// Tells a client that speaks plain HTTP to a listener with TLS so.
pub async fn refuse_plain<R: Runtime>(shard: &Shard<R>, conn: Conn<R::Outbox>) {
    let text = "a plain HTTP request came to a port that speaks HTTPS. Begin the URL with https:// \
                (Claude Code: ANTHROPIC_BASE_URL).";
    send_away(shard, conn, Failure::new(Kind::Malformed, text)).await;
}

async fn send_away<R: Runtime>(shard: &Shard<R>, conn: Conn<R::Outbox>, failure: Failure) {
    let mut client = Client::new(conn);
    // Boxed: it shares its task with `connection`, which is the common case.
    Box::pin(refuse(shard, &mut client, failure)).await;
    Box::pin(client.linger(&shard.rt)).await;
}
