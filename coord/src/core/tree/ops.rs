//! What may be done to the tree, and what came of it.

use crate::core::path::PathError;
use crate::core::stat::{Acl, Lifetime, Stat};
use std::fmt;
use std::sync::Arc;

/// One write, as a client asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create {
        path: String,
        /// None is ZooKeeper's null, which is not the empty text.
        data: Option<Vec<u8>>,
        /// Never empty; see [`Acl::open`].
        acl: Vec<Acl>,
        lifetime: Lifetime,
        /// Appends the parent's count of creates, ten digits, to the path.
        sequential: bool,
    },
    Delete {
        path: String,
        version: i32,
    },
    Set {
        path: String,
        data: Option<Vec<u8>>,
        version: i32,
    },
    SetAcl {
        path: String,
        acl: Vec<Acl>,
        version: i32,
    },
    Check {
        path: String,
        version: i32,
    },
}

/// As an expected version: any will do.
pub const ANY_VERSION: i32 = -1;

impl Op {
    /// A persistent node that everyone may do everything with.
    #[must_use]
    pub fn create(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Op {
        Op::Create {
            path: path.into(),
            data: Some(data.into()),
            acl: Acl::open(),
            lifetime: Lifetime::Persistent,
            sequential: false,
        }
    }

    /// Whatever the version.
    #[must_use]
    pub fn set(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Op {
        Op::Set {
            path: path.into(),
            data: Some(data.into()),
            version: ANY_VERSION,
        }
    }

    /// Whatever the version.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Op {
        Op::Delete {
            path: path.into(),
            version: ANY_VERSION,
        }
    }

    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Op::Create { path, .. }
            | Op::Delete { path, .. }
            | Op::Set { path, .. }
            | Op::SetAcl { path, .. }
            | Op::Check { path, .. } => path,
        }
    }
}

/// What one operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// The path with its sequence number, where it has one.
    Create {
        path: String,
        stat: Stat,
    },
    Delete,
    Set {
        stat: Stat,
    },
    SetAcl {
        stat: Stat,
    },
    Check,
}

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The path is none, or is one that must not be deleted.
    BadArguments(BadArguments),
    NoNode,
    /// The ACL does not allow it.
    NoAuth,
    BadVersion,
    NoChildrenForEphemerals,
    NodeExists,
    NotEmpty,
    InvalidAcl,
    /// More nodes or bytes than the quota of a node above allows.
    QuotaExceeded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadArguments {
    Path(PathError),
    /// `/`, `/zookeeper` and what ZooKeeper keeps in it.
    Reserved,
    /// A time to live must be above 0.
    Ttl,
}

impl TreeError {
    /// ZooKeeper's error code (`KeeperException.Code`).
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            TreeError::BadArguments(_) => -8,
            TreeError::NoNode => -101,
            TreeError::NoAuth => -102,
            TreeError::BadVersion => -103,
            TreeError::NoChildrenForEphemerals => -108,
            TreeError::NodeExists => -110,
            TreeError::NotEmpty => -111,
            TreeError::InvalidAcl => -114,
            TreeError::QuotaExceeded => -125,
        }
    }
}

impl TreeError {
    /// What a code says of an operation; None for those that are no operation's fault.
    #[must_use]
    pub fn from_code(code: i32) -> Option<TreeError> {
        Some(match code {
            // Which argument is bad is not told.
            -8 => TreeError::BadArguments(BadArguments::Reserved),
            -101 => TreeError::NoNode,
            -102 => TreeError::NoAuth,
            -103 => TreeError::BadVersion,
            -108 => TreeError::NoChildrenForEphemerals,
            -110 => TreeError::NodeExists,
            -111 => TreeError::NotEmpty,
            -114 => TreeError::InvalidAcl,
            -125 => TreeError::QuotaExceeded,
            _ => return None,
        })
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TreeError::BadArguments(BadArguments::Path(error)) => return error.fmt(f),
            TreeError::BadArguments(BadArguments::Reserved) => "this node must stay",
            TreeError::BadArguments(BadArguments::Ttl) => "a time to live must be above 0",
            TreeError::NoNode => "there is no such node",
            TreeError::NoAuth => "the node's ACL does not allow it",
            TreeError::BadVersion => "the node has another version",
            TreeError::NoChildrenForEphemerals => "an ephemeral node cannot have children",
            TreeError::NodeExists => "the node is there already",
            TreeError::NotEmpty => "the node has children",
            TreeError::InvalidAcl => {
                "an ACL must have entries, each with a scheme that is known and an id that fits it"
            }
            TreeError::QuotaExceeded => "a quota above the node does not allow it",
        })
    }
}

impl std::error::Error for TreeError {}

/// Which operation of many failed, and why. None of them was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiError {
    pub index: usize,
    pub error: TreeError,
}

impl MultiError {
    /// ZooKeeper's code for each operation of the multi: 0 before the one that
    /// failed, its own there, RUNTIMEINCONSISTENCY after it.
    #[must_use]
    pub fn code_of(&self, index: usize) -> i32 {
        match index.cmp(&self.index) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => self.error.code(),
            std::cmp::Ordering::Greater => -2,
        }
    }
}

impl fmt::Display for MultiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}: {}", self.index, self.error)
    }
}

impl std::error::Error for MultiError {}

/// What a watch would be told. The numbers are ZooKeeper's (`Watcher.Event.EventType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    Created = 1,
    Deleted = 2,
    DataChanged = 3,
    ChildrenChanged = 4,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub kind: EventKind,
    pub path: String,
    /// Who may read the node (for a deletion: might), and so be told; None: everyone.
    pub acl: Option<Arc<[Acl]>>,
}

impl Event {
    /// That everyone may be told of.
    #[must_use]
    pub fn open(kind: EventKind, path: impl Into<String>) -> Event {
        Event {
            kind,
            path: path.into(),
            acl: None,
        }
    }
}
