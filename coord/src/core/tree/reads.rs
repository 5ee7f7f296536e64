//! What is asked of a tree, and changes nothing in it.
//!
//! ```text
//!   exists stat data children acl lifetime     one node, by its path
//!   read, rests_on                             with its ACL; with what it rests on
//!   ephemerals containers ttls len ...         of all nodes, from what is kept of them
//! ```

use super::{Access, Node, ROOT, Tree, TreeError};
use crate::core::Zxid;
use crate::core::stat::{Acl, Lifetime, Perms, Stat};
use std::collections::BTreeSet;

impl Tree {
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
    pub fn children<'a>(&'a self, path: &str) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
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

    /// A node's data and stat, where its ACL allows `perms`.
    pub fn read(
        &self,
        path: &str,
        access: Access<'_>,
        perms: Perms,
    ) -> Result<(Option<&[u8]>, Stat), TreeError> {
        self.read_with_gate(path, access, perms).1
    }

    /// The same, and the change that what is at `path` rests on: its own last one, or where
    /// there is no such node, the last one of the children among which it is missing.
    #[allow(clippy::type_complexity)]
    pub fn read_with_gate(
        &self,
        path: &str,
        access: Access<'_>,
        perms: Perms,
    ) -> (Zxid, Result<(Option<&[u8]>, Stat), TreeError>) {
        match self.walk(path) {
            Ok(node) => {
                let read = access
                    .check(node, perms)
                    .map(|()| (node.data.as_deref(), node.stat()));
                (node.mzxid.max(node.pzxid), read)
            }
            Err(above) => (above.pzxid, Err(TreeError::NoNode)),
        }
    }

    /// The change that what is at `path` rests on.
    #[must_use]
    pub fn rests_on(&self, path: &str) -> Zxid {
        match self.walk(path) {
            Ok(node) => node.mzxid.max(node.pzxid),
            Err(above) => above.pzxid,
        }
    }

    /// The node, or the last one above it that there is.
    fn walk(&self, path: &str) -> Result<&Node, &Node> {
        let mut node = self.nodes.get(ROOT);
        let Some(rest) = path.strip_prefix('/') else {
            return Err(node);
        };
        if rest.is_empty() {
            return Ok(node);
        }
        for name in rest.split('/') {
            match node.child(name) {
                Some(child) => node = self.nodes.get(child),
                None => return Err(node),
            }
        }
        Ok(node)
    }

    /// How many nodes stand below one.
    #[must_use]
    pub fn count_children(&self, path: &str) -> Option<usize> {
        let mut count = 0;
        let mut open = vec![self.find(path)?];
        while let Some(id) = open.pop() {
            let before = open.len();
            let children = &self.nodes.get(id).children;
            open.extend(children.iter().flat_map(|c| c.values()).copied());
            count += open.len() - before;
        }
        Some(count)
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

    /// How many sessions have ephemeral nodes, and how many nodes those are.
    #[must_use]
    pub fn count_ephemerals(&self) -> (usize, usize) {
        let nodes = self.ephemerals.values().map(BTreeSet::len).sum();
        (self.ephemerals.len(), nodes)
    }

    /// Each session with ephemeral nodes, and their paths.
    pub fn all_ephemerals(&self) -> impl Iterator<Item = (i64, impl Iterator<Item = &str>)> {
        self.ephemerals
            .iter()
            .map(|(session, paths)| (*session, paths.iter().map(|path| &**path)))
    }

    /// The bytes of all paths and data (`zk_approximate_data_size`).
    #[must_use]
    pub fn approximate_data_size(&self) -> i64 {
        self.data_size
    }

    /// The paths of all container nodes, sorted.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().map(|path| &**path)
    }

    /// Whether there is anything that may go without anyone asking.
    #[must_use]
    pub fn has_reapable(&self) -> bool {
        !self.containers.is_empty() || !self.ttls.is_empty()
    }

    /// The paths of all nodes with a time to live, sorted.
    pub fn ttls(&self) -> impl Iterator<Item = &str> {
        self.ttls.iter().map(|path| &**path)
    }
}
