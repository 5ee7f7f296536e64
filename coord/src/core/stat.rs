//! What ZooKeeper tells of a znode besides its data, and who may do what with it.

use crate::core::Zxid;
use klamm_engine::units::TimestampMs;
use std::borrow::Cow;

/// A znode's record, as `zookeeper.jute` orders it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The change that made the node.
    pub czxid: Zxid,
    /// The last change of its data.
    pub mzxid: Zxid,
    pub ctime: TimestampMs,
    pub mtime: TimestampMs,
    /// How often the data was set.
    pub version: i32,
    /// How often a child was made or deleted: 2 x creates - children.
    pub cversion: i32,
    /// How often the ACL was set.
    pub aversion: i32,
    /// The session of an ephemeral node; 0 for every other kind.
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    /// The last change of the set of children; `czxid` where it never changed.
    pub pzxid: Zxid,
}

/// How long a znode lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lifetime {
    Persistent,
    /// Until the session of this id ends. It cannot have children.
    Ephemeral(i64),
    /// Until its last child is gone, once it had one.
    Container,
    /// Until it has had no child and no change for so many milliseconds.
    Ttl(i64),
}

/// What an ACL entry allows: a sum of the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Perms(pub i32);

impl Perms {
    pub const READ: Perms = Perms(1);
    pub const WRITE: Perms = Perms(2);
    pub const CREATE: Perms = Perms(4);
    pub const DELETE: Perms = Perms(8);
    pub const ADMIN: Perms = Perms(16);
    pub const ALL: Perms = Perms(31);
}

/// One entry of a node's ACL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acl {
    pub perms: Perms,
    /// "world", "auth", "digest", "ip", "x509", ...
    pub scheme: Cow<'static, str>,
    pub id: Cow<'static, str>,
}

impl Acl {
    /// The names that nearly every ACL is made of are not copied.
    #[must_use]
    pub fn new(perms: Perms, scheme: &str, id: &str) -> Acl {
        let name = |text: &str| {
            let known = ["world", "anyone", "auth", "digest", "ip", ""];
            match known.into_iter().find(|known| *known == text) {
                Some(known) => Cow::Borrowed(known),
                None => Cow::Owned(text.to_owned()),
            }
        };
        Acl {
            perms,
            scheme: name(scheme),
            id: name(id),
        }
    }

    /// `world:anyone:cdrwa`, what ZooKeeper calls OPEN_ACL_UNSAFE.
    #[must_use]
    pub fn open() -> Vec<Acl> {
        vec![Acl::new(Perms::ALL, "world", "anyone")]
    }

    /// Whether this is what `open` gives. Nearly every create asks it.
    #[must_use]
    pub fn is_open(acl: &[Acl]) -> bool {
        matches!(acl, [one] if one.perms == Perms::ALL && one.scheme == "world" && one.id == "anyone")
    }
}
