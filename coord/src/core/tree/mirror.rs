//! A tree that follows another one, across the network.
//!
//! ```text
//!   what a read there gave --reflect--> the same node here, and the events of what
//!                                       was not the same before
//! ```
//!
//! What this process changed itself it has done here at once, before it was done
//! there: a node that is seen to be as it is makes no event, only its stat is taken over.

use super::{Event, EventKind, Node, Tree, bytes_of};
use crate::core::Zxid;
use crate::core::path;
use crate::core::stat::{Lifetime, Stat};
use klamm_engine::units::TimestampMs;

/// A node as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub data: Option<Vec<u8>>,
    pub stat: Stat,
}

impl Tree {
    /// Makes `path` what was seen there; None: nothing. A node whose parent is not here is
    /// left out: it was deleted meanwhile, and that will be seen too.
    pub fn reflect(&mut self, path: &str, seen: Option<&Seen>, events: &mut Vec<Event>) {
        let Some(seen) = seen else {
            self.remove_all(Zxid::ZERO, TimestampMs(0), path, events);
            return;
        };
        let lifetime = match seen.stat.ephemeral_owner {
            0 => Lifetime::Persistent,
            owner => Lifetime::Ephemeral(owner),
        };
        if self.lifetime(path).is_some_and(|was| {
            was != lifetime
                && matches!(
                    (was, lifetime),
                    (Lifetime::Ephemeral(_), _) | (_, Lifetime::Ephemeral(_))
                )
        }) {
            // Another node of the same name: a session went, and another one came.
            self.remove_all(Zxid::ZERO, TimestampMs(0), path, events);
        }
        match self.find(path) {
            Some(id) => {
                let node = self.nodes.get_mut(id);
                if node.data.as_deref() != seen.data.as_deref() {
                    self.data_size += bytes_of(seen.data.as_deref()) - node.data_bytes();
                    node.data = seen.data.as_deref().map(Into::into);
                    events.push(Event::open(EventKind::DataChanged, path));
                }
                node.take_over(&seen.stat);
            }
            None => {
                let parent = path::split(path).and_then(|(above, _)| self.find(above));
                if parent.is_none() || path::validate(path).is_err() {
                    return;
                }
                let mut node = Node::new(
                    Zxid::ZERO,
                    TimestampMs(0),
                    seen.data.as_deref(),
                    lifetime,
                    None,
                );
                node.take_over(&seen.stat);
                self.link(path, node);
                events.push(Event::open(EventKind::Created, path));
                let (above, _) = path::split(path).expect("its parent was found");
                events.push(Event::open(EventKind::ChildrenChanged, above));
            }
        }
    }
}

impl Node {
    fn take_over(&mut self, stat: &Stat) {
        (self.czxid, self.mzxid, self.pzxid) = (stat.czxid, stat.mzxid, stat.pzxid);
        (self.ctime, self.mtime) = (stat.ctime, stat.mtime);
        (self.version, self.aversion) = (stat.version, stat.aversion);
        // The next sequence number, as far as it can be told from outside.
        self.creates = stat.cversion.wrapping_add(stat.num_children) / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tree::Op;

    fn seen(data: &str, version: i32, owner: i64) -> Seen {
        Seen {
            data: Some(data.into()),
            stat: Stat {
                version,
                ephemeral_owner: owner,
                ..Stat::default()
            },
        }
    }

    fn kinds(tree: &mut Tree, path: &str, what: Option<Seen>) -> Vec<EventKind> {
        let mut events = Vec::new();
        tree.reflect(path, what.as_ref(), &mut events);
        events.retain(|e| e.kind != EventKind::ChildrenChanged);
        events.iter().map(|e| e.kind).collect()
    }

    #[test]
    fn what_is_new_or_other_is_told_and_what_is_the_same_is_not() {
        use EventKind::{Created, DataChanged, Deleted};
        let mut tree = Tree::new();
        assert_eq!(kinds(&mut tree, "/a", Some(seen("1", 0, 0))), [Created]);
        assert_eq!(kinds(&mut tree, "/a", Some(seen("1", 5, 0))), []);
        assert_eq!(tree.stat("/a").unwrap().version, 5);
        assert_eq!(kinds(&mut tree, "/a", Some(seen("2", 6, 0))), [DataChanged]);
        assert_eq!(kinds(&mut tree, "/x/y", Some(seen("2", 6, 0))), []);
        assert_eq!(kinds(&mut tree, "/e", Some(seen("", 0, 7))), [Created]);
        assert_eq!(
            kinds(&mut tree, "/e", Some(seen("", 0, 8))),
            [Deleted, Created]
        );
        assert_eq!(tree.ephemerals(7).count(), 0);
        tree.apply(
            Zxid(1),
            TimestampMs(1),
            &Op::create("/a/b", ""),
            &mut Vec::new(),
        )
        .unwrap();
        assert_eq!(kinds(&mut tree, "/a", None), [Deleted, Deleted]);
    }
}
