//! The broker's side of `klamm profile`: what is asked through DATA/klamm.sock is
//! collected from the shards by the first of them.

use futures_util::StreamExt;
use klamm_engine::io::Io;
use klamm_net::kafka::context::Local;
use klamm_net::kafka::profile::collect;
use klamm_net::profile::socket::{self, Asks, Door};
use std::path::Path;
use std::rc::Rc;

/// Opens the socket. A broker whose folder can have none serves all the same.
pub fn open(data: &Path) -> (Option<Door>, Option<Asks>) {
    match socket::open(data) {
        Ok((door, asks)) => (Some(door), Some(asks)),
        Err(e) => {
            log::warn!(
                "{} can't be made: {e}; the broker serves, but klamm profile won't reach it",
                data.join(socket::NAME).display()
            );
            (None, None)
        }
    }
}

/// On one shard, for as long as it runs.
pub async fn answer<I: Io>(local: Rc<Local<I>>, mut asks: Asks) {
    while let Some(ask) = asks.next().await {
        ask.answer(collect(&local).await);
    }
}
