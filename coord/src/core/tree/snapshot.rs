//! The tree as bytes and back.
//!
//! ```text
//!   node      = name | czxid mzxid pzxid ctime mtime i64 | version aversion creates i32
//!               | lifetime | data? | acl | children u32
//!   lifetime  = 0 | 1 session i64 | 2 | 3 ttl i64
//!   acl       = count | (perms i32 | scheme | id)*        count 0: open to all
//!   tree      = node*       depth first, a node before its children, sorted by name
//! ```
//!
//! The order is that of the names, so that equal trees are equal bytes. Nothing here
//! recurses: a path may be as deep as a request is long.

use super::{Node, NodeId, ROOT, Tree};
use crate::core::Zxid;
use crate::core::codec::{
    DecodeError, Reader, put_bytes, put_i32, put_i64, put_len, put_option, put_u8,
};
use crate::core::path;
use crate::core::stat::{Acl, Lifetime, Perms};
use klamm_engine::units::TimestampMs;
use std::collections::{BTreeMap, BTreeSet};

/// An empty node with an empty name: what a count of children is held against.
const NODE_BYTES_MIN: usize = 4 + 5 * 8 + 3 * 4 + 1 + 1 + 4 + 4;

impl Tree {
    pub fn encode(&self, out: &mut Vec<u8>) {
        // To be visited, the next one last.
        let mut stack: Vec<(&str, NodeId)> = vec![("", ROOT)];
        while let Some((name, id)) = stack.pop() {
            let node = self.nodes.get(id);
            put_node(out, name, node);
            stack.extend(
                node.children
                    .iter()
                    .flat_map(|c| c.iter())
                    .rev()
                    .map(|(name, id)| (&**name, *id)),
            );
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Tree, DecodeError> {
        let mut tree = Tree {
            nodes: super::Nodes::default(),
            ephemerals: BTreeMap::new(),
            containers: BTreeSet::new(),
            ttls: BTreeSet::new(),
            quotas: BTreeSet::new(),
            enforce_quota: false,
            data_size: 0,
        };
        let (name, root, children) = get_node(reader)?;
        if !name.is_empty() {
            return Err(reader.fail("a tree that does not begin with its root"));
        }
        tree.data_size += root.data_bytes();
        tree.nodes.insert(root);
        // The nodes whose children are being read: how many are left, and the length
        // of the path up to them.
        let mut path = String::new();
        let mut open = vec![(children, 0)];
        while let Some((left, len)) = open.last_mut() {
            if *left == 0 {
                open.pop();
                continue;
            }
            *left -= 1;
            path.truncate(*len);
            let (name, node, children) = get_node(reader)?;
            path.push('/');
            path.push_str(name);
            let one_name = !name.is_empty() && !name.contains('/');
            if !one_name || path::validate(&path[*len..]).is_err() {
                return Err(reader.fail("a name that no node can have"));
            }
            if tree.exists(&path) {
                return Err(reader.fail("two nodes of the same path"));
            }
            tree.link(&path, node);
            // The stats are in the tree already; only where quotas are is not.
            tree.quota_restored(&path);
            open.push((children, path.len()));
        }
        Ok(tree)
    }
}

fn put_node(out: &mut Vec<u8>, name: &str, node: &Node) {
    put_bytes(out, name.as_bytes());
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
    put_len(out, node.children.as_ref().map_or(0, |c| c.len()));
}

fn get_node<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Node, usize), DecodeError> {
    let name = reader.text()?;
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
    let children = reader.count(NODE_BYTES_MIN)?;
    Ok((name, node, children))
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
