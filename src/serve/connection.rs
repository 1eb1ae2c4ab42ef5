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
        let patience = shard.table().patience;
        match client.read_head(&shard.rt, &shard.drain, &patience).await {
            Arrived::Nothing => return,
            Arrived::Refused(failure) => {
                let mut story = Story::begin(&shard, &client);
                story.refuse(&failure);
                answer::fail(&shard.rt, &mut client, &mut story, &failure, true).await;
                story.end(&shard);
                return client.linger(&shard.rt).await;
            }
            Arrived::Head => match exchange(&shard, &mut client, listener).await {
                After::Next => {}
                After::Close => return client.linger(&shard.rt).await,
                After::Drop => return,
                After::Abort => return client.outbound.abort(),
            },
        }
    }
}

/// Tells a client that comes over the worker's bound so, before it has said anything.
pub async fn turn_away<R: Runtime>(shard: &Shard<R>, conn: Conn<R::Outbox>) {
    let mut client = Client::new(conn);
    let mut story = Story::begin(shard, &client);
    let text = "forebay holds as many connections as it may. Try again in a moment.";
    let failure = Failure::new(Kind::ConnectionsFull, text).retry_after(5);
    story.refuse(&failure);
    answer::fail(&shard.rt, &mut client, &mut story, &failure, true).await;
    story.end(shard);
    client.linger(&shard.rt).await;
}
