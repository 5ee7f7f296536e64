//! Klamm's coordinator.
//!
//! ```text
//!  net                                             every shard
//!   |  Request                ^ Response             ^ Image (topics, brokers, settings)
//!   v                         |                      |
//!  driver ----------------- answers only what is committed
//!   |  step, tick             ^ persist, send, image
//!   v                         |
//!  core     pure: tree, cluster, groups; no I/O, no clock
//!
//!  driver -> changelog   the commands, one log record each, many a sync
//!         -> snapshot    the whole state now and then, so that the changelog stays short
//! ```
//!
//! Everything that must outlive the process is a command in the changelog, in the
//! order of its zxid. The state is what the commands make of an empty one; an
//! answer leaves only once the commands before it are committed.

pub mod changelog;
pub mod core;
mod desk;
pub mod driver;
pub mod remote;
pub mod snapshot;
