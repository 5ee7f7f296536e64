//! The znode tree: ZooKeeper's data model, whole.
//!
//! ```text
//!   /                      nodes       slab, 4,096 to a chunk: never moved, never
//!   +- brokers             |           copied to grow
//!   |  +- topics           +- stat     times, versions, the zxids that made them
//!   |     +- orders  ----- +- data     one exact allocation
//!   +- zookeeper           +- children name -> node, sorted; only where there are any
//! ```
//!
//! Every write takes its zxid and its time from the command, so that the same
//! commands make the same tree. A multi is done whole or not at all. Each write
//! tells which watches it would fire; who watches is not the tree's business.
//!
//! Memory: about 110 bytes a node, 40 its entry in the parent, and its name and data
//! as the allocator rounds them: 1,000,000 nodes with 100 bytes of data take below
//! 400 MiB (`tests/tree_memory.rs` holds it to that).

// A box more costs an allocation where there is something, and saves 16 bytes in each
// of the many nodes where there is nothing.
#![allow(clippy::box_collection)]

mod mirror;
mod nodes;
mod ops;
mod quota;
mod reads;
mod snapshot;

#[cfg(test)]
mod model;

pub(super) use snapshot::{get_acl, get_lifetime, put_acl, put_lifetime};

pub use mirror::Seen;
pub use ops::{ANY_VERSION, BadArguments, Event, EventKind, MultiError, Op, OpResult, TreeError};

use crate::core::Zxid;
use crate::core::acl::{self, Identity};
use crate::core::path;
use crate::core::stat::{Acl, Lifetime, Perms, Stat};
use klamm_engine::units::TimestampMs;
use nodes::{NodeId, Nodes};
use std::collections::{BTreeMap, BTreeSet};

/// What ZooKeeper itself keeps; none of it can be deleted.
const RESERVED: [&str; 4] = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"];

#[derive(Debug)]
pub struct Tree {
    nodes: Nodes,
    /// The ephemeral nodes of each session that has any.
    ephemerals: BTreeMap<i64, BTreeSet<Box<str>>>,
    /// The nodes that may have to be removed without anyone asking.
    containers: BTreeSet<Box<str>>,
    ttls: BTreeSet<Box<str>>,
    /// The nodes below which quotas count.
    quotas: BTreeSet<Box<str>>,
    enforce_quota: bool,
    /// The bytes of all paths, but the root's, and of all data.
    data_size: i64,
    /// Where a snapshot is being written.
    frozen: Option<Box<snapshot::Frozen>>,
}

const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
struct Node {
    czxid: Zxid,
    mzxid: Zxid,
    pzxid: Zxid,
    ctime: TimestampMs,
    mtime: TimestampMs,
    version: i32,
    aversion: i32,
    /// How many children were ever made under this node: the next sequence number.
    creates: i32,
    lifetime: Lifetime,
    data: Option<Box<[u8]>>,
    children: Option<Box<BTreeMap<Box<str>, NodeId>>>,
    /// None: `world:anyone:cdrwa`, which nearly every node has.
    acl: Option<Box<Vec<Acl>>>,
}

/// What ACLs are held against.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// The broker's own work, and a replay: what was allowed once is done again.
    All,
    /// A client, by what it has shown to be.
    Of(&'a [Identity]),
}

impl Access<'_> {
    fn check(self, node: &Node, perm: Perms) -> Result<(), TreeError> {
        match (self, &node.acl) {
            (Access::All, _) | (_, None) => Ok(()),
            (Access::Of(who), Some(acl)) if acl::allows(acl, perm, who) => Ok(()),
            (Access::Of(_), Some(_)) => Err(TreeError::NoAuth),
        }
    }
}

/// How to take back one operation of a multi.
enum Undo {
    Create {
        path: String,
        parent: ParentBefore,
    },
    Delete {
        path: String,
        node: Box<Node>,
        parent: ParentBefore,
    },
    Set {
        path: String,
        id: NodeId,
        data: Option<Box<[u8]>>,
        mzxid: Zxid,
        mtime: TimestampMs,
    },
    SetAcl {
        id: NodeId,
        acl: Option<Box<Vec<Acl>>>,
    },
}

struct DataBefore {
    data: Option<Box<[u8]>>,
    mzxid: Zxid,
    mtime: TimestampMs,
}

struct ParentBefore {
    creates: i32,
    pzxid: Zxid,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Tree {
    /// As a fresh ZooKeeper shows it: the root and the reserved nodes, which do not
    /// count as creates (so the root's cversion is -1, as it is there).
    #[must_use]
    pub fn new() -> Tree {
        let mut tree = Tree {
            nodes: Nodes::default(),
            ephemerals: BTreeMap::new(),
            containers: BTreeSet::new(),
            ttls: BTreeSet::new(),
            quotas: BTreeSet::new(),
            enforce_quota: false,
            data_size: 0,
            frozen: None,
        };
        let fresh = || {
            let (time, data) = (TimestampMs(0), Some(&[][..]));
            Node::new(Zxid::ZERO, time, data, Lifetime::Persistent, None)
        };
        let root = tree.nodes.insert(fresh());
        assert_eq!(root, ROOT);
        for path in &RESERVED[1..] {
            tree.link(path, fresh());
        }
        tree
    }

    /// Whether hard quotas are held to (ZooKeeper's `enforceQuota`).
    pub fn set_enforce_quota(&mut self, enforce: bool) {
        self.enforce_quota = enforce;
    }

    /// Does one operation, or changes nothing. `events` gets what watches would be
    /// told, in order.
    pub fn apply(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        op: &Op,
        events: &mut Vec<Event>,
    ) -> Result<OpResult, TreeError> {
        self.apply_as(Access::All, zxid, time, op, events)
    }

    /// The same, as far as the nodes' ACLs allow it.
    pub fn apply_as(
        &mut self,
        access: Access<'_>,
        zxid: Zxid,
        time: TimestampMs,
        op: &Op,
        events: &mut Vec<Event>,
    ) -> Result<OpResult, TreeError> {
        self.step(zxid, time, op, access, events, None)
    }

    /// Does all operations in order, or changes nothing. Each sees what those before
    /// it did.
    pub fn multi(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        ops: &[Op],
        events: &mut Vec<Event>,
    ) -> Result<Vec<OpResult>, MultiError> {
        self.multi_as(Access::All, zxid, time, ops, events)
    }

    /// The same, as far as the nodes' ACLs allow it.
    pub fn multi_as(
        &mut self,
        access: Access<'_>,
        zxid: Zxid,
        time: TimestampMs,
        ops: &[Op],
        events: &mut Vec<Event>,
    ) -> Result<Vec<OpResult>, MultiError> {
        let events_before = events.len();
        let mut undo = Vec::with_capacity(ops.len());
        let mut results = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter().enumerate() {
            match self.step(zxid, time, op, access, events, Some(&mut undo)) {
                Ok(result) => results.push(result),
                Err(error) => {
                    events.truncate(events_before);
                    while let Some(step) = undo.pop() {
                        self.take_back(step);
                    }
                    return Err(MultiError { index, error });
                }
            }
        }
        Ok(results)
    }

    /// Makes a persistent node hold `data`, and those above it be there. For nodes
    /// that show what another state machine keeps; it cannot fail on a valid path
    /// unless an ephemeral node stands in the way, and then does nothing.
    pub fn put(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        path: &str,
        data: &[u8],
        events: &mut Vec<Event>,
    ) {
        debug_assert_eq!(path::validate(path), Ok(()));
        if let Some(id) = self.find(path) {
            self.keep(path);
            self.set(id, zxid, time, Some(data));
            events.push(self.nodes.get(id).event(EventKind::DataChanged, path));
            return;
        }
        let mut end = 0;
        while end < path.len() {
            end = path[end + 1..]
                .find('/')
                .map_or(path.len(), |at| end + 1 + at);
            let here = &path[..end];
            if !self.exists(here) {
                let data = (end == path.len()).then(|| data.to_vec());
                let op = Op::Create {
                    path: here.to_owned(),
                    data,
                    acl: Acl::open(),
                    lifetime: Lifetime::Persistent,
                    sequential: false,
                };
                if self.apply(zxid, time, &op, events).is_err() {
                    return;
                }
            }
        }
    }

    /// Removes a node and all below it, the deepest first. Nothing happens where
    /// there is no such node, or where it is a reserved one.
    pub fn remove_all(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        path: &str,
        events: &mut Vec<Event>,
    ) {
        if !self.exists(path) || RESERVED.iter().any(|r| is_within(r, path)) {
            return;
        }
        let mut found = vec![path.to_owned()];
        let mut next = 0;
        while next < found.len() {
            let below: Vec<String> = self
                .children(&found[next])
                .into_iter()
                .flatten()
                .map(|name| format!("{}/{name}", found[next]))
                .collect();
            found.extend(below);
            next += 1;
        }
        for path in found.into_iter().rev() {
            let deleted = self.apply(zxid, time, &Op::delete(path), events);
            debug_assert_eq!(deleted, Ok(OpResult::Delete));
        }
    }

    /// Removes a session's ephemeral nodes.
    pub fn end_session(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        session: i64,
        events: &mut Vec<Event>,
    ) {
        let paths: Vec<String> = self.ephemerals(session).map(str::to_owned).collect();
        for path in paths {
            let deleted = self.apply(zxid, time, &Op::delete(path), events);
            debug_assert_eq!(deleted, Ok(OpResult::Delete));
        }
    }

    // -- inside

    fn step(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        op: &Op,
        access: Access<'_>,
        events: &mut Vec<Event>,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<OpResult, TreeError> {
        match op {
            Op::Create {
                path,
                data,
                acl,
                lifetime,
                sequential,
            } => {
                let (parent, path) =
                    self.check_create(path, acl, *lifetime, *sequential, access)?;
                let is_client = matches!(access, Access::Of(_));
                if is_client && self.exceeds_quota(&path, bytes_of(data.as_deref()), 1) {
                    return Err(TreeError::QuotaExceeded);
                }
                let node = Node::new(zxid, time, data.as_deref(), *lifetime, boxed(acl));
                let (stat, bytes) = (node.stat(), node.data_bytes());
                events.push(node.event(EventKind::Created, &path));
                self.keep_both(&path);
                self.link_below(parent, &path, node);
                let before = self.nodes.get_mut(parent).child_changed(zxid, 1);
                self.quota_created(&path, bytes);
                self.tell_parent(events, parent, &path);
                if let Some(undo) = undo {
                    undo.push(Undo::Create {
                        path: path.clone(),
                        parent: before,
                    });
                }
                Ok(OpResult::Create { path, stat })
            }
            Op::Delete { path, version } => {
                let parent = self.check_delete(path, *version, access)?;
                self.keep_both(path);
                let node = self.unlink_below(parent, path);
                let before = self.nodes.get_mut(parent).child_changed(zxid, 0);
                self.quota_deleted(path, node.data_bytes());
                events.push(node.event(EventKind::Deleted, path));
                self.tell_parent(events, parent, path);
                if let Some(undo) = undo {
                    undo.push(Undo::Delete {
                        path: path.clone(),
                        node: Box::new(node),
                        parent: before,
                    });
                }
                Ok(OpResult::Delete)
            }
            Op::Set {
                path,
                data,
                version,
            } => {
                let id = self.check_version(
                    path,
                    |node| node.version,
                    *version,
                    (access, Perms::WRITE),
                )?;
                let more = bytes_of(data.as_deref()) - self.nodes.get(id).data_bytes();
                if matches!(access, Access::Of(_)) && self.exceeds_quota(path, more, 0) {
                    return Err(TreeError::QuotaExceeded);
                }
                self.keep(path);
                let before = self.set(id, zxid, time, data.as_deref());
                self.quota_changed(path, more, 0);
                if let Some(undo) = undo {
                    undo.push(Undo::Set {
                        path: path.clone(),
                        id,
                        data: before.data,
                        mzxid: before.mzxid,
                        mtime: before.mtime,
                    });
                }
                let node = self.nodes.get(id);
                events.push(node.event(EventKind::DataChanged, path));
                Ok(OpResult::Set { stat: node.stat() })
            }
            Op::SetAcl { path, acl, version } => {
                path::validate(path).map_err(|e| TreeError::BadArguments(BadArguments::Path(e)))?;
                check_acl(acl)?;
                let id = self.check_version(
                    path,
                    |node| node.aversion,
                    *version,
                    (access, Perms::ADMIN),
                )?;
                self.keep(path);
                let node = self.nodes.get_mut(id);
                node.aversion = node.aversion.wrapping_add(1);
                let before = std::mem::replace(&mut node.acl, boxed(acl));
                let stat = node.stat();
                if let Some(undo) = undo {
                    undo.push(Undo::SetAcl { id, acl: before });
                }
                Ok(OpResult::SetAcl { stat })
            }
            Op::Check { path, version } => {
                self.check_version(path, |node| node.version, *version, (access, Perms::READ))?;
                Ok(OpResult::Check)
            }
        }
    }

    /// In ZooKeeper's order: the parent is looked up before the path is judged, so
    /// that `/x/` without `/x` is NONODE and with it BADARGUMENTS.
    fn check_create(
        &self,
        path: &str,
        acl: &[Acl],
        lifetime: Lifetime,
        sequential: bool,
        access: Access<'_>,
    ) -> Result<(NodeId, String), TreeError> {
        let parent = match path.rfind('/') {
            None => return Err(judge(path)),
            Some(_) if path.contains('\0') => return Err(judge(path)),
            Some(0) => "/",
            Some(at) => &path[..at],
        };
        if matches!(lifetime, Lifetime::Ttl(ms) if ms <= 0) {
            return Err(TreeError::BadArguments(BadArguments::Ttl));
        }
        check_acl(acl)?;
        let parent = self.find(parent).ok_or(TreeError::NoNode)?;
        let above = self.nodes.get(parent);
        access.check(above, Perms::CREATE)?;
        let path = if sequential {
            format!("{path}{:010}", above.creates)
        } else {
            path.to_owned()
        };
        path::validate(&path).map_err(|e| TreeError::BadArguments(BadArguments::Path(e)))?;
        let is_there = match path::split(&path) {
            Some((_, name)) => above.child(name).is_some(),
            None => true,
        };
        if is_there {
            return Err(TreeError::NodeExists);
        }
        if matches!(above.lifetime, Lifetime::Ephemeral(_)) {
            return Err(TreeError::NoChildrenForEphemerals);
        }
        Ok((parent, path))
    }

    fn check_delete(
        &self,
        path: &str,
        version: i32,
        access: Access<'_>,
    ) -> Result<NodeId, TreeError> {
        if RESERVED.contains(&path) {
            return Err(TreeError::BadArguments(BadArguments::Reserved));
        }
        // Of a delete, ZooKeeper judges no more of the path than this.
        if !path.contains('/') || path.contains('\0') {
            return Err(judge(path));
        }
        let above = match path.rfind('/') {
            Some(0) | None => "/",
            // "//a" is not "/a".
            Some(at) if path[..at].ends_with('/') => return Err(TreeError::NoNode),
            Some(at) => &path[..at],
        };
        let parent = self.find(above).ok_or(TreeError::NoNode)?;
        access.check(self.nodes.get(parent), Perms::DELETE)?;
        let name = path.rfind('/').map_or(path, |at| &path[at + 1..]);
        let id = self.nodes.get(parent).child(name);
        let node = self.nodes.get(id.ok_or(TreeError::NoNode)?);
        if version != ANY_VERSION && version != node.version {
            return Err(TreeError::BadVersion);
        }
        if node.children.is_some() {
            return Err(TreeError::NotEmpty);
        }
        Ok(parent)
    }

    fn check_version(
        &self,
        path: &str,
        of: impl Fn(&Node) -> i32,
        version: i32,
        (access, perm): (Access<'_>, Perms),
    ) -> Result<NodeId, TreeError> {
        path::validate(path).map_err(|e| TreeError::BadArguments(BadArguments::Path(e)))?;
        let id = self.find(path).ok_or(TreeError::NoNode)?;
        access.check(self.nodes.get(id), perm)?;
        if version != ANY_VERSION && version != of(self.nodes.get(id)) {
            return Err(TreeError::BadVersion);
        }
        Ok(id)
    }

    fn set(
        &mut self,
        id: NodeId,
        zxid: Zxid,
        time: TimestampMs,
        data: Option<&[u8]>,
    ) -> DataBefore {
        let node = self.nodes.get_mut(id);
        let before = DataBefore {
            data: std::mem::replace(&mut node.data, data.map(Into::into)),
            mzxid: node.mzxid,
            mtime: node.mtime,
        };
        (node.mzxid, node.mtime) = (zxid, time);
        node.version = node.version.wrapping_add(1);
        self.data_size += bytes_of(data) - bytes_of(before.data.as_deref());
        before
    }

    fn take_back(&mut self, step: Undo) {
        let (path, parent) = match step {
            Undo::Create { path, parent } => {
                let node = self.unlink(&path);
                self.quota_deleted(&path, node.data_bytes());
                (path, parent)
            }
            Undo::Delete { path, node, parent } => {
                let bytes = node.data_bytes();
                self.link(&path, *node);
                self.quota_created(&path, bytes);
                (path, parent)
            }
            Undo::Set {
                path,
                id,
                data,
                mzxid,
                mtime,
            } => {
                let more = bytes_of(data.as_deref()) - self.nodes.get(id).data_bytes();
                self.quota_changed(&path, more, 0);
                self.data_size += more;
                let node = self.nodes.get_mut(id);
                (node.data, node.mzxid, node.mtime) = (data, mzxid, mtime);
                node.version = node.version.wrapping_sub(1);
                return;
            }
            Undo::SetAcl { id, acl } => {
                let node = self.nodes.get_mut(id);
                node.acl = acl;
                node.aversion = node.aversion.wrapping_sub(1);
                return;
            }
        };
        let (above, _) = path::split(&path).expect("it has a parent");
        let above = self.find(above).expect("it has a parent");
        let above = self.nodes.get_mut(above);
        (above.creates, above.pzxid) = (parent.creates, parent.pzxid);
    }

    /// A node, and the one above it, which tells of its children.
    fn keep_both(&mut self, path: &str) {
        if self.frozen.is_none() {
            return;
        }
        self.keep(path);
        if let Some((above, _)) = path::split(path) {
            self.keep(above);
        }
    }

    fn tell_parent(&self, events: &mut Vec<Event>, parent: NodeId, path: &str) {
        let (above, _) = path::split(path).expect("the root is neither made nor deleted");
        events.push(
            self.nodes
                .get(parent)
                .event(EventKind::ChildrenChanged, above),
        );
    }

    fn find(&self, path: &str) -> Option<NodeId> {
        let rest = path.strip_prefix('/')?;
        if rest.is_empty() {
            return Some(ROOT);
        }
        rest.split('/')
            .try_fold(ROOT, |id, name| self.nodes.get(id).child(name))
    }

    /// Hangs a node in; its parent is there, its name is free.
    fn link(&mut self, path: &str, node: Node) {
        let (parent, _) = path::split(path).expect("the root is never linked");
        let parent = self.find(parent).expect("the parent was checked");
        self.link_below(parent, path, node);
    }

    fn link_below(&mut self, parent: NodeId, path: &str, node: Node) {
        let (_, name) = path::split(path).expect("the root is never linked");
        match node.lifetime {
            Lifetime::Persistent => {}
            Lifetime::Ephemeral(session) => {
                self.ephemerals
                    .entry(session)
                    .or_default()
                    .insert(path.into());
            }
            Lifetime::Container => {
                self.containers.insert(path.into());
            }
            Lifetime::Ttl(_) => {
                self.ttls.insert(path.into());
            }
        }
        self.data_size += path.len() as i64 + node.data_bytes();
        let id = self.nodes.insert(node);
        let before = self
            .nodes
            .get_mut(parent)
            .children
            .get_or_insert_default()
            .insert(name.into(), id);
        assert_eq!(before, None, "the name was checked to be free");
    }

    /// Takes a node out that has no children.
    fn unlink(&mut self, path: &str) -> Node {
        let (parent, _) = path::split(path).expect("the root is never unlinked");
        let parent = self.find(parent).expect("the parent was checked");
        self.unlink_below(parent, path)
    }

    fn unlink_below(&mut self, parent: NodeId, path: &str) -> Node {
        let (_, name) = path::split(path).expect("the root is never unlinked");
        let siblings = &mut self.nodes.get_mut(parent).children;
        let children = siblings.as_mut().expect("the node was checked to be there");
        let id = children
            .remove(name)
            .expect("the node was checked to be there");
        if children.is_empty() {
            *siblings = None;
        }
        let node = self.nodes.remove(id);
        self.data_size -= path.len() as i64 + node.data_bytes();
        match node.lifetime {
            Lifetime::Persistent => {}
            Lifetime::Ephemeral(session) => {
                let of_session = self
                    .ephemerals
                    .get_mut(&session)
                    .expect("every ephemeral is in the index");
                of_session.remove(path);
                if of_session.is_empty() {
                    self.ephemerals.remove(&session);
                }
            }
            Lifetime::Container => {
                self.containers.remove(path);
            }
            Lifetime::Ttl(_) => {
                self.ttls.remove(path);
            }
        }
        node
    }
}

impl Node {
    fn new(
        zxid: Zxid,
        time: TimestampMs,
        data: Option<&[u8]>,
        lifetime: Lifetime,
        acl: Option<Box<Vec<Acl>>>,
    ) -> Node {
        Node {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            version: 0,
            aversion: 0,
            creates: 0,
            lifetime,
            data: data.map(Into::into),
            children: None,
            acl,
        }
    }

    fn event(&self, kind: EventKind, path: &str) -> Event {
        Event {
            kind,
            path: path.to_owned(),
            acl: self.acl.as_ref().map(|acl| acl.as_slice().into()),
        }
    }

    fn child(&self, name: &str) -> Option<NodeId> {
        self.children.as_ref()?.get(name).copied()
    }

    fn data_bytes(&self) -> i64 {
        bytes_of(self.data.as_deref())
    }

    fn stat(&self) -> Stat {
        // Requests end at 1 MiB, so neither count nor length comes near 2^31.
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let num_children = count(self.children.as_ref().map_or(0, |c| c.len()));
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.creates.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: match self.lifetime {
                Lifetime::Ephemeral(session) => session,
                Lifetime::Persistent | Lifetime::Container | Lifetime::Ttl(_) => 0,
            },
            data_length: count(self.data.as_ref().map_or(0, |d| d.len())),
            num_children,
            pzxid: self.pzxid,
        }
    }

    fn acl(&self) -> Vec<Acl> {
        self.acl.as_ref().map_or_else(Acl::open, |acl| acl.to_vec())
    }

    fn child_changed(&mut self, zxid: Zxid, created: i32) -> ParentBefore {
        let before = ParentBefore {
            creates: self.creates,
            pzxid: self.pzxid,
        };
        self.creates = self.creates.wrapping_add(created);
        self.pzxid = zxid;
        before
    }
}

fn bytes_of(data: Option<&[u8]>) -> i64 {
    data.map_or(0, |data| data.len() as i64)
}

fn boxed(acl: &[Acl]) -> Option<Box<Vec<Acl>>> {
    (!Acl::is_open(acl)).then(|| Box::new(acl.to_vec()))
}

/// That an ACL has entries and that each means somebody.
fn check_acl(acl: &[Acl]) -> Result<(), TreeError> {
    if acl.is_empty() || !acl.iter().all(acl::is_valid) {
        Err(TreeError::InvalidAcl)
    } else {
        Ok(())
    }
}

fn judge(path: &str) -> TreeError {
    let error = path::validate(path).expect_err("only called for what is no path");
    TreeError::BadArguments(BadArguments::Path(error))
}

/// Whether `path` is `top` or stands below it.
fn is_within(path: &str, top: &str) -> bool {
    top == "/"
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
pub(super) mod tests;
