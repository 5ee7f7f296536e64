//! A shard's door for Kafka's clients.

use crate::door;
pub use crate::door::Admission;
use crate::kafka::connection::Connection;
use crate::kafka::context::{Local, Peer};
use crate::kafka::limits::Limits;
use crate::socket::Accept;
use klamm_engine::io::Io;
use std::rc::Rc;

/// One for all shards.
pub fn admission(limits: &Limits) -> Admission {
    Admission::new(door::Settings {
        all_max: limits.connections_max,
        all_name: "max.connections",
        ip_max: limits.connections_per_ip_max,
        ip_name: "max.connections.per.ip",
    })
}

/// Which clients come in at a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Some of those that connect to the broker.
    Shared,
    /// All of those that connect to the node that this core is (`nodes`).
    Own,
}

/// Serves one listening socket until the shard is closing, then returns once its
/// connections are gone (each has `drain_time_max` for what is in flight).
pub async fn serve<I: Io, A: Accept>(
    local: Rc<Local<I>>,
    listener: A,
    port: Port,
    admission: Admission,
) {
    let own_port = port == Port::Own;
    let take = |socket, address, place| {
        let peer = Peer { address, own_port };
        let connection = Connection::new(local.clone(), peer, socket);
        local.io.spawn(async move {
            log::debug!("{address} connected");
            let end = connection.run().await;
            log::debug!("{address} disconnected: {end}");
            drop(place);
        });
    };
    door::serve(&local.io, &local.closing, listener, &admission, take, || {}).await;
}
