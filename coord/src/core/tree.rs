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

mod ops;
mod snapshot;

#[cfg(test)]
mod model;

pub(super) use snapshot::{get_acl, get_lifetime, put_acl, put_lifetime};

pub use ops::{ANY_VERSION, BadArguments, Event, EventKind, MultiError, Op, OpResult, TreeError};

use crate::core::Zxid;
use crate::core::path;
use crate::core::stat::{Acl, Lifetime, Stat};
use klamm_engine::units::TimestampMs;
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
}

type NodeId = u32;
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
        };
        let fresh = || Node::new(Zxid::ZERO, TimestampMs(0), None, Lifetime::Persistent, None);
        let root = tree.nodes.insert(fresh());
        assert_eq!(root, ROOT);
        for path in &RESERVED[1..] {
            tree.link(path, fresh());
        }
        tree
    }

    // -- reads

    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    #[must_use]
    pub fn stat(&self, path: &str) -> Option<Stat> {
        self.find(path).map(|id| self.nodes.get(id).stat())
    }

    /// A node's data; the inner None is ZooKeeper's null.
    #[must_use]
    pub fn data(&self, path: &str) -> Option<Option<&[u8]>> {
        self.find(path).map(|id| self.nodes.get(id).data.as_deref())
    }

    /// The names of a node's children, sorted.
    #[must_use]
    pub fn children(&self, path: &str) -> Option<impl Iterator<Item = &str>> {
        let node = self.nodes.get(self.find(path)?);
        Some(
            node.children
                .iter()
                .flat_map(|c| c.keys())
                .map(|name| &**name),
        )
    }

    #[must_use]
    pub fn acl(&self, path: &str) -> Option<Vec<Acl>> {
        self.find(path).map(|id| self.nodes.get(id).acl())
    }

    #[must_use]
    pub fn lifetime(&self, path: &str) -> Option<Lifetime> {
        self.find(path).map(|id| self.nodes.get(id).lifetime)
    }

    /// How many nodes there are, the root and the reserved ones with them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The paths of a session's ephemeral nodes, sorted.
    pub fn ephemerals(&self, session: i64) -> impl Iterator<Item = &str> {
        self.ephemerals
            .get(&session)
            .into_iter()
            .flatten()
            .map(|path| &**path)
    }

    /// The paths of all container nodes, sorted.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().map(|path| &**path)
    }

    /// The paths of all nodes with a time to live, sorted.
    pub fn ttls(&self) -> impl Iterator<Item = &str> {
        self.ttls.iter().map(|path| &**path)
    }

    // -- writes

    /// Does one operation, or changes nothing. `events` gets what watches would be
    /// told, in order.
    pub fn apply(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        op: &Op,
        events: &mut Vec<Event>,
    ) -> Result<OpResult, TreeError> {
        self.step(zxid, time, op, events, None)
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
        let events_before = events.len();
        let mut undo = Vec::with_capacity(ops.len());
        let mut results = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter().enumerate() {
            match self.step(zxid, time, op, events, Some(&mut undo)) {
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
            self.set(id, zxid, time, Some(data));
            events.push(Event {
                kind: EventKind::DataChanged,
                path: path.to_owned(),
            });
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

    // -- inside

    fn step(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        op: &Op,
        events: &mut Vec<Event>,
        undo: Option<&mut Vec<Undo>>,
    ) -> Result<OpResult, TreeError> {
        let (result, step) = match op {
            Op::Create {
                path,
                data,
                acl,
                lifetime,
                sequential,
            } => {
                let (parent, path) = self.check_create(path, acl, *lifetime, *sequential)?;
                let node = Node::new(zxid, time, data.as_deref(), *lifetime, boxed(acl));
                let stat = node.stat();
                self.link(&path, node);
                let before = self.nodes.get_mut(parent).child_changed(zxid, 1);
                tell_parent(events, EventKind::Created, &path);
                (
                    OpResult::Create {
                        path: path.clone(),
                        stat,
                    },
                    Undo::Create {
                        path,
                        parent: before,
                    },
                )
            }
            Op::Delete { path, version } => {
                let parent = self.check_delete(path, *version)?;
                let node = Box::new(self.unlink(path));
                let before = self.nodes.get_mut(parent).child_changed(zxid, 0);
                tell_parent(events, EventKind::Deleted, path);
                (
                    OpResult::Delete,
                    Undo::Delete {
                        path: path.clone(),
                        node,
                        parent: before,
                    },
                )
            }
            Op::Set {
                path,
                data,
                version,
            } => {
                let id = self.check_version(path, |node| node.version, *version)?;
                let before = self.set(id, zxid, time, data.as_deref());
                events.push(Event {
                    kind: EventKind::DataChanged,
                    path: path.clone(),
                });
                (
                    OpResult::Set {
                        stat: self.nodes.get(id).stat(),
                    },
                    before,
                )
            }
            Op::SetAcl { path, acl, version } => {
                check_acl(acl)?;
                let id = self.check_version(path, |node| node.aversion, *version)?;
                let node = self.nodes.get_mut(id);
                node.aversion = node.aversion.wrapping_add(1);
                let before = std::mem::replace(&mut node.acl, boxed(acl));
                (
                    OpResult::SetAcl { stat: node.stat() },
                    Undo::SetAcl { id, acl: before },
                )
            }
            Op::Check { path, version } => {
                self.check_version(path, |node| node.version, *version)?;
                return Ok(OpResult::Check);
            }
        };
        if let Some(undo) = undo {
            undo.push(step);
        }
        Ok(result)
    }

    /// In ZooKeeper's order: the parent is looked up before the path is judged, so
    /// that `/x/` without `/x` is NONODE and with it BADARGUMENTS.
    fn check_create(
        &self,
        path: &str,
        acl: &[Acl],
        lifetime: Lifetime,
        sequential: bool,
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
        let path = if sequential {
            format!("{path}{:010}", above.creates)
        } else {
            path.to_owned()
        };
        path::validate(&path).map_err(|e| TreeError::BadArguments(BadArguments::Path(e)))?;
        if self.exists(&path) {
            return Err(TreeError::NodeExists);
        }
        if matches!(above.lifetime, Lifetime::Ephemeral(_)) {
            return Err(TreeError::NoChildrenForEphemerals);
        }
        Ok((parent, path))
    }

    fn check_delete(&self, path: &str, version: i32) -> Result<NodeId, TreeError> {
        if RESERVED.contains(&path) {
            return Err(TreeError::BadArguments(BadArguments::Reserved));
        }
        // Of a delete, ZooKeeper judges no more of the path than this.
        if !path.contains('/') || path.contains('\0') {
            return Err(judge(path));
        }
        let node = self.nodes.get(self.find(path).ok_or(TreeError::NoNode)?);
        if version != ANY_VERSION && version != node.version {
            return Err(TreeError::BadVersion);
        }
        if node.children.is_some() {
            return Err(TreeError::NotEmpty);
        }
        let (parent, _) = path::split(path).expect("a node that is not the root has a parent");
        Ok(self.find(parent).expect("a node's parent is there"))
    }

    fn check_version(
        &self,
        path: &str,
        of: impl Fn(&Node) -> i32,
        version: i32,
    ) -> Result<NodeId, TreeError> {
        path::validate(path).map_err(|e| TreeError::BadArguments(BadArguments::Path(e)))?;
        let id = self.find(path).ok_or(TreeError::NoNode)?;
        if version != ANY_VERSION && version != of(self.nodes.get(id)) {
            return Err(TreeError::BadVersion);
        }
        Ok(id)
    }

    fn set(&mut self, id: NodeId, zxid: Zxid, time: TimestampMs, data: Option<&[u8]>) -> Undo {
        let node = self.nodes.get_mut(id);
        let before = Undo::Set {
            id,
            data: node.data.take(),
            mzxid: node.mzxid,
            mtime: node.mtime,
        };
        node.data = data.map(Into::into);
        (node.mzxid, node.mtime) = (zxid, time);
        node.version = node.version.wrapping_add(1);
        before
    }

    fn take_back(&mut self, step: Undo) {
        let (path, parent) = match step {
            Undo::Create { path, parent } => {
                self.unlink(&path);
                (path, parent)
            }
            Undo::Delete { path, node, parent } => {
                self.link(&path, *node);
                (path, parent)
            }
            Undo::Set {
                id,
                data,
                mzxid,
                mtime,
            } => {
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

    fn find(&self, path: &str) -> Option<NodeId> {
        let rest = path.strip_prefix('/')?;
        if rest.is_empty() {
            return Some(ROOT);
        }
        rest.split('/').try_fold(ROOT, |id, name| {
            self.nodes.get(id).children.as_ref()?.get(name).copied()
        })
    }

    /// Hangs a node in; its parent is there, its name is free.
    fn link(&mut self, path: &str, node: Node) {
        let (parent, name) = path::split(path).expect("the root is never linked");
        let parent = self.find(parent).expect("the parent was checked");
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
        let (parent, name) = path::split(path).expect("the root is never unlinked");
        let parent = self.find(parent).expect("the parent was checked");
        let siblings = &mut self.nodes.get_mut(parent).children;
        let children = siblings.as_mut().expect("the node was checked to be there");
        let id = children
            .remove(name)
            .expect("the node was checked to be there");
        if children.is_empty() {
            *siblings = None;
        }
        let node = self.nodes.remove(id);
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

fn boxed(acl: &[Acl]) -> Option<Box<Vec<Acl>>> {
    (acl != Acl::open()).then(|| Box::new(acl.to_vec()))
}

/// That an ACL has entries and that each could mean something. Which schemes there
/// are, and who may do what, is decided where sessions are.
fn check_acl(acl: &[Acl]) -> Result<(), TreeError> {
    let means_nothing = |a: &Acl| a.scheme.is_empty() || (a.scheme == "world" && a.id != "anyone");
    if acl.is_empty() || acl.iter().any(means_nothing) {
        Err(TreeError::InvalidAcl)
    } else {
        Ok(())
    }
}

fn judge(path: &str) -> TreeError {
    let error = path::validate(path).expect_err("only called for what is no path");
    TreeError::BadArguments(BadArguments::Path(error))
}

fn tell_parent(events: &mut Vec<Event>, kind: EventKind, path: &str) {
    let (parent, _) = path::split(path).expect("the root is neither made nor deleted");
    events.push(Event {
        kind,
        path: path.to_owned(),
    });
    events.push(Event {
        kind: EventKind::ChildrenChanged,
        path: parent.to_owned(),
    });
}

/// Whether `path` is `top` or stands below it.
fn is_within(path: &str, top: &str) -> bool {
    top == "/"
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All nodes, in chunks, so that growing copies nothing and wastes at most one chunk.
#[derive(Debug, Default)]
struct Nodes {
    chunks: Vec<Vec<Option<Node>>>,
    /// Last freed, first used: undoing a multi finds every id as it was.
    free: Vec<NodeId>,
}

const CHUNK: usize = 4096;

impl Nodes {
    fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>() - self.free.len()
    }

    fn get(&self, id: NodeId) -> &Node {
        self.chunks[id as usize / CHUNK][id as usize % CHUNK]
            .as_ref()
            .expect("an id that is in use")
    }

    fn get_mut(&mut self, id: NodeId) -> &mut Node {
        self.chunks[id as usize / CHUNK][id as usize % CHUNK]
            .as_mut()
            .expect("an id that is in use")
    }

    fn insert(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.free.pop() {
            self.chunks[id as usize / CHUNK][id as usize % CHUNK] = Some(node);
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let last = self.chunks.last_mut().expect("just made sure");
        last.push(Some(node));
        NodeId::try_from(full + last.len() - 1).expect("memory ends before 2^32 nodes do")
    }

    fn remove(&mut self, id: NodeId) -> Node {
        self.free.push(id);
        self.chunks[id as usize / CHUNK][id as usize % CHUNK]
            .take()
            .expect("an id that is in use")
    }
}

#[cfg(test)]
pub(super) mod tests;
