//! The coordinator's state machines: a request and a time in; what to persist,
//! then what to send, out.
//!
//! ```text
//!   Request, Now --> coordinator --+--> cluster    topics, brokers, configs, producer ids
//!                                  |       |  ops
//!                                  |    tree       znodes; the cluster's and all others
//!                                  |       ^  offsets as nodes
//!                                  +--> groups     members, generations, offsets
//!
//!   out:  persist [(Zxid, Command)]   send [(Zxid, Token, Response)]   image
//! ```
//!
//! Nothing in here reads a clock, a disk or a random source: the same commands give
//! the same state on every machine and at every time, which is what lets a changelog
//! (and later a consensus log) be replayed. Of the engine only its units are used.

pub mod acl;
pub mod cluster;
pub mod codec;
pub mod command;
pub mod coordinator;
pub mod group;
pub mod groups;
pub mod image;
pub mod offset_nodes;
pub mod offsets;
pub mod path;
pub mod sessions;
pub mod settings;
pub mod stat;
pub mod tree;
pub mod watches;

/// The two clocks, and who waits: the same for groups and for all else.
pub use coordinator::zookeeper;
pub use groups::{Now, Token};

use std::fmt;

/// A change's number, from 1, without gaps: its place in the changelog plus one.
/// 0 is the empty state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub i64);

impl Zxid {
    pub const ZERO: Zxid = Zxid(0);

    #[must_use]
    pub fn next(self) -> Zxid {
        Zxid(self.0 + 1)
    }
}

impl fmt::Display for Zxid {
    /// As ZooKeeper's tools print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}
