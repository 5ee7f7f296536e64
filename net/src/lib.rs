//! Klamm's protocol fronts.
//!
//! ```text
//!   a client's connection
//!     |  ^
//!   socket.rs            accept on every core, receive, send: the one glommio file
//!     |  |
//!   kafka/frame          bytes -> frames, never more memory than bytes arrived
//!     |  |
//!   kafka/connection     requests start in order, work in flight is bounded,
//!     |  |               answers leave in order
//!   kafka/route          header, guard, decode; the table of APIs
//!     |  |
//!   kafka/<api>.rs       one file an API: route to the home shard, answer
//!     |  |
//!   klamm_engine         partitions          klamm_coord    topics, groups, offsets
//!
//!   zookeeper/           the same for ZooKeeper's clients, on shard 0, where klamm_coord is
//!   profile.rs           what requests took, for `klamm profile`: a socket in DATA
//!   door.rs              both: accept, count connections, wait for their end
//! ```

pub mod door;
pub mod kafka;
pub mod profile;
pub mod socket;
pub mod zookeeper;

#[cfg(test)]
mod pipe;
