//! The door for ZooKeeper's clients, on shard 0 alone: where the state machine is.

use crate::door::{self, Admission};
use crate::socket::Accept;
use crate::zookeeper::connection::Connection;
use crate::zookeeper::front::Front;
use futures_util::future::{Either, select};
use klamm_engine::io::Io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// How often connections whose time is up are looked for.
const SWEEP_PERIOD: Duration = Duration::from_millis(500);

/// Serves one listening socket until `Front::close`, then returns once its connections
/// are gone.
pub async fn serve<I: Io, A: Accept>(io: I, front: Rc<Front>, listener: A) {
    let limits = &front.limits;
    let admission = Admission::new(door::Settings {
        all_max: limits.connections_max,
        all_name: "maxCnxns",
        ip_max: limits.connections_per_ip_max,
        ip_name: "maxClientCnxns",
    });
    let take = |socket, address, place| {
        let connection = Connection::new(front.clone(), address, socket);
        io.spawn(async move {
            connection.run().await;
            drop(place);
        });
    };
    let refused = || front.stats.rejected.set(front.stats.rejected.get() + 1);
    let doors = door::serve(&io, &front.closing, listener, &admission, take, refused);
    let mut doors = pin!(doors);
    loop {
        match select(doors.as_mut(), pin!(io.sleep(SWEEP_PERIOD))).await {
            Either::Left(_) => return,
            Either::Right(_) => front.sweep(),
        }
    }
}
