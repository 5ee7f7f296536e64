//! The tree as bytes and back, and as bytes little by little.
//!
//! ```text
//!   node      = path | czxid mzxid pzxid ctime mtime i64 | version aversion creates i32
//!               | lifetime | data? | acl
//!   lifetime  = 0 | 1 session i64 | 2 | 3 ttl i64
//!   acl       = count | (perms i32 | scheme | id)*        count 0: open to all
//!   tree      = (1 | node)* | 0 | count | node*           each sorted: a node, then what
//!                                                         is below it, by name
//! ```
//!
//! A large tree is written while it changes: `freeze`, then `encode_some` again and again.
//! A node that is changed before it was written is kept as it was, and comes in the second
//! list; one that is made meanwhile is left out. So what is written is the tree of the
//! moment of `freeze`, and nobody waited for it longer than for one piece. Written at one
//! go the second list is empty, and equal trees are equal bytes.
//!
//! Nothing here recurses: a path may be as deep as a request is long.

use super::{Node, NodeId, Nodes, ROOT, Tree};
use crate::core::Zxid;
use crate::core::codec::{
    DecodeError, Reader, put_bytes, put_i32, put_i64, put_len, put_option, put_u8,
};
use crate::core::path;
use crate::core::stat::{Acl, Lifetime, Perms};
use klamm_engine::units::TimestampMs;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// An empty node with an empty path: what a count of nodes is held against.
const NODE_BYTES_MIN: usize = 4 + 5 * 8 + 3 * 4 + 1 + 1 + 4;

/// A tree that is being written.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    /// The last node that was written, as a key; None: none was.
    written: Option<String>,
    /// By key, what was changed too soon: as it was, or None where it was not there.
    before: BTreeMap<String, Option<Vec<u8>>>,
}

/// The parent of the node that was read last: most often of the next one too. Nodes are
/// never taken out while they are read, so it stays where it is.
#[derive(Default)]
struct LastParent {
    path: String,
    id: NodeId,
}

/// Sorts as the nodes are written: no name has a character as small.
fn key(path: &str) -> String {
    path.replace('/', "\0")
}

fn path_of(key: &str) -> String {
    key.replace('\0', "/")
}

impl Tree {
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.walk_behind(None, |path, node| {
            put_u8(out, 1);
            put_node(out, path, node);
            true
        });
        put_u8(out, 0);
        put_len(out, 0);
    }

    /// From here on `encode_some` writes the tree as it is now.
    pub fn freeze(&mut self) {
        self.frozen = Some(Box::default());
    }

    /// Writes so many nodes more; true once that was all.
    pub fn encode_some(&mut self, out: &mut Vec<u8>, nodes: usize) -> bool {
        let mut frozen = self.frozen.take().expect("it was frozen before");
        let behind = frozen.written.as_deref().map(path_of);
        let (mut left, mut last) = (nodes, None);
        self.walk_behind(behind.as_deref(), |path, node| {
            let is_kept = !frozen.before.is_empty() && frozen.before.contains_key(&key(path));
            if !is_kept {
                put_u8(out, 1);
                put_node(out, path, node);
            }
            left -= 1;
            if left == 0 {
                last = Some(key(path));
            }
            left > 0
        });
        if last.is_some() {
            frozen.written = last;
            self.frozen = Some(frozen);
            return false;
        }
        put_u8(out, 0);
        put_len(out, frozen.before.values().flatten().count());
        for node in frozen.before.values().flatten() {
            out.extend_from_slice(node);
        }
        true
    }

    /// Before the node at `path` is changed, made or deleted.
    pub(super) fn keep(&mut self, path: &str) {
        let Some(frozen) = &self.frozen else { return };
        let key = key(path);
        let is_written = frozen.written.as_ref().is_some_and(|last| key <= *last);
        if is_written || frozen.before.contains_key(&key) {
            return;
        }
        let node = self.find(path).map(|id| {
            let mut bytes = Vec::new();
            put_node(&mut bytes, path, self.nodes.get(id));
            bytes
        });
        let frozen = self.frozen.as_mut().expect("just seen");
        frozen.before.insert(key, node);
    }

    /// Visits the nodes behind one (None: all), each before those below it, by name, as
    /// long as the visitor says true. The one need not be there any more.
    fn walk_behind(&self, behind: Option<&str>, mut visit: impl FnMut(&str, &Node) -> bool) {
        // The way down to where we are, with the length of the path at each step; and the
        // child of the last one behind which to go on, None: before its first.
        let mut path = String::new();
        let mut open: Vec<(NodeId, usize)> = vec![(ROOT, 0)];
        let mut after: Option<String> = None;
        match behind {
            None => {
                if !visit("/", self.nodes.get(ROOT)) {
                    return;
                }
            }
            Some(behind) => {
                for name in behind.split('/').filter(|name| !name.is_empty()) {
                    let (above, _) = open[open.len() - 1];
                    let Some(id) = self.nodes.get(above).child(name) else {
                        after = Some(name.to_owned());
                        break;
                    };
                    path.push('/');
                    path.push_str(name);
                    open.push((id, path.len()));
                }
            }
        }
        while let Some((id, len)) = open.last().copied() {
            path.truncate(len);
            let from = match &after {
                None => Bound::Unbounded,
                Some(name) => Bound::Excluded(name.as_str()),
            };
            let children = self.nodes.get(id).children.as_ref();
            let next = children.and_then(|c| c.range::<str, _>((from, Bound::Unbounded)).next());
            if let Some((name, child)) = next {
                path.push('/');
                path.push_str(name);
                open.push((*child, path.len()));
                after = None;
                if !visit(&path, self.nodes.get(*child)) {
                    return;
                }
            } else {
                after = path::split(&path).map(|(_, name)| name.to_owned());
                open.pop();
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Tree, DecodeError> {
        let mut first = reader.clone();
        while reader.bool()? {
            skip_node(reader)?;
        }
        let mut kept = Vec::new();
        for _ in 0..reader.count(NODE_BYTES_MIN)? {
            let (path, node) = get_node(reader)?;
            kept.push((key(path), path, node));
        }
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
        let mut kept = kept.into_iter().peekable();
        let mut last = LastParent::default();
        while first.bool()? {
            let (path, node) = get_node(&mut first)?;
            if kept.peek().is_some() {
                let key = key(path);
                while let Some((_, path, node)) = kept.next_if(|(kept, ..)| *kept < key) {
                    tree.take_back_in(path, node, &mut last, &first)?;
                }
            }
            tree.take_back_in(path, node, &mut last, &first)?;
        }
        for (_, path, node) in kept {
            tree.take_back_in(path, node, &mut last, reader)?;
        }
        if tree.nodes.len() == 0 {
            return Err(reader.fail("a tree without a root"));
        }
        Ok(tree)
    }

    fn take_back_in(
        &mut self,
        path: &str,
        node: Node,
        last: &mut LastParent,
        reader: &Reader<'_>,
    ) -> Result<(), DecodeError> {
        if self.nodes.len() == 0 {
            if path != "/" {
                return Err(reader.fail("a tree that does not begin with its root"));
            }
            self.data_size += node.data_bytes();
            self.nodes.insert(node);
            return Ok(());
        }
        if path::validate(path).is_err() {
            return Err(reader.fail("a path that no node can have"));
        }
        let Some((above, name)) = path::split(path) else {
            return Err(reader.fail("two roots"));
        };
        if last.path != above {
            let Some(id) = self.find(above) else {
                return Err(reader.fail("a node without the one above it"));
            };
            (last.path, last.id) = (above.to_owned(), id);
        }
        let parent = last.id;
        if self.nodes.get(parent).child(name).is_some() {
            return Err(reader.fail("two nodes of the same path"));
        }
        self.link_below(parent, path, node);
        // The stats are in the tree already; only where quotas are is not.
        self.quota_restored(path);
        Ok(())
    }
}

fn put_node(out: &mut Vec<u8>, path: &str, node: &Node) {
    put_bytes(out, path.as_bytes());
    for v in [
        node.czxid.0,
        node.mzxid.0,
        node.pzxid.0,
        node.ctime.0,
        node.mtime.0,
    ] {
        put_i64(out, v);
    }
    for v in [node.version, node.aversion, node.creates] {
        put_i32(out, v);
    }
    put_lifetime(out, node.lifetime);
    put_option(out, node.data.as_deref());
    put_acl(out, node.acl.as_ref().map_or(&[], |acl| acl));
}

fn get_node<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Node), DecodeError> {
    let path = reader.text()?;
    let mut node = Node::new(
        Zxid(reader.i64()?),
        TimestampMs(0),
        None,
        Lifetime::Persistent,
        None,
    );
    node.mzxid = Zxid(reader.i64()?);
    node.pzxid = Zxid(reader.i64()?);
    node.ctime = TimestampMs(reader.i64()?);
    node.mtime = TimestampMs(reader.i64()?);
    node.version = reader.i32()?;
    node.aversion = reader.i32()?;
    node.creates = reader.i32()?;
    node.lifetime = get_lifetime(reader)?;
    node.data = reader.option()?.map(Into::into);
    let acl = get_acl(reader)?;
    node.acl = (!acl.is_empty()).then(|| Box::new(acl));
    Ok((path, node))
}

/// As `get_node`, of which nothing is wanted.
fn skip_node(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    reader.bytes()?;
    reader.take(5 * 8 + 3 * 4)?;
    get_lifetime(reader)?;
    reader.option()?;
    for _ in 0..reader.count(12)? {
        reader.i32()?;
        reader.bytes()?;
        reader.bytes()?;
    }
    Ok(())
}

pub fn put_lifetime(out: &mut Vec<u8>, lifetime: Lifetime) {
    match lifetime {
        Lifetime::Persistent => put_u8(out, 0),
        Lifetime::Ephemeral(session) => {
            put_u8(out, 1);
            put_i64(out, session);
        }
        Lifetime::Container => put_u8(out, 2),
        Lifetime::Ttl(ms) => {
            put_u8(out, 3);
            put_i64(out, ms);
        }
    }
}

pub fn get_lifetime(reader: &mut Reader<'_>) -> Result<Lifetime, DecodeError> {
    Ok(match reader.u8()? {
        0 => Lifetime::Persistent,
        1 => Lifetime::Ephemeral(reader.i64()?),
        2 => Lifetime::Container,
        3 => Lifetime::Ttl(reader.i64()?),
        _ => return Err(reader.fail("an unknown kind of node")),
    })
}

pub fn put_acl(out: &mut Vec<u8>, acl: &[Acl]) {
    put_len(out, acl.len());
    for entry in acl {
        put_i32(out, entry.perms.0);
        put_bytes(out, entry.scheme.as_bytes());
        put_bytes(out, entry.id.as_bytes());
    }
}

pub fn get_acl(reader: &mut Reader<'_>) -> Result<Vec<Acl>, DecodeError> {
    (0..reader.count(12)?)
        .map(|_| {
            let perms = Perms(reader.i32()?);
            Ok(Acl::new(perms, reader.text()?, reader.text()?))
        })
        .collect()
}
