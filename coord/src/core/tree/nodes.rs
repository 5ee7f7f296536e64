//! Where the tree's nodes are kept.
//!
//! ```text
//!   NodeId --> chunk, place     4,096 to a chunk; freed places are used again
//! ```

use super::Node;

pub(super) type NodeId = u32;

/// All nodes, in chunks, so that growing copies nothing and wastes at most one chunk.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    chunks: Vec<Vec<Option<Node>>>,
    /// Last freed, first used: undoing a multi finds every id as it was.
    free: Vec<NodeId>,
}

const CHUNK: usize = 4096;

impl Nodes {
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>() - self.free.len()
    }

    pub fn get(&self, id: NodeId) -> &Node {
        self.chunks[id as usize / CHUNK][id as usize % CHUNK]
            .as_ref()
            .expect("an id that is in use")
    }

    pub fn get_mut(&mut self, id: NodeId) -> &mut Node {
        self.chunks[id as usize / CHUNK][id as usize % CHUNK]
            .as_mut()
            .expect("an id that is in use")
    }

    pub fn insert(&mut self, node: Node) -> NodeId {
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

    pub fn remove(&mut self, id: NodeId) -> Node {
        self.free.push(id);
        self.chunks[id as usize / CHUNK][id as usize % CHUNK]
            .take()
            .expect("an id that is in use")
    }
}
