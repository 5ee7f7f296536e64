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
//! ```

pub mod kafka;
pub mod socket;
