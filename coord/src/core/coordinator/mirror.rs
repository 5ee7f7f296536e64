//! A coordinator whose tree is elsewhere: at an Apache ZooKeeper ensemble, or at another
//! Klamm's coordinator.
//!
//! ```text
//!   step --> changes the mirror at once --> effects --> multis, in order
//!                                                        |
//!            reflect <-- read anew <-- events <----------+  and what others change
//! ```
//!
//! The same machine as with a tree of its own: only what is done leaves as operations
//! and not as commands, and it may turn out that somebody else was quicker. Then the
//! nodes concerned are read anew, and who asked is told to ask again.
//!
//! Of the groups only the offsets outlive this process, as nodes. They are read when
//! the group is first asked for here.

use super::Core;
use crate::core::command::Change;
use crate::core::groups::Record;
use crate::core::member_nodes;
use crate::core::sessions::SessionId;
use crate::core::stat::{Acl, Lifetime};
use crate::core::tree::{EventKind, Op, Seen};
use crate::core::{Now, Zxid};

/// What one change is to do to the original: a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub zxid: Zxid,
    pub ops: Vec<Op>,
    /// The group whose doing it is.
    pub group: Option<String>,
}

impl Core {
    /// Goes to work on a mirror that has been filled by `reflect`. `own`: the session with
    /// the ensemble.
    pub fn start_mirror(
        &mut self,
        own: SessionId,
        now: Now,
    ) -> Result<(), crate::core::cluster::ClusterError> {
        self.is_mirror = true;
        self.set_own_session(own);
        self.start(now)
    }

    /// The session with the ensemble is another one: what was registered in the old one
    /// is gone, or goes.
    pub fn set_own_session(&mut self, own: SessionId) {
        self.own_session = Some(own);
        self.own_broker = None;
        self.elected_at = None;
        self.member_owner = Some(own);
    }

    /// Takes in what was seen at some paths of the original, those above first.
    pub fn reflect(&mut self, read: &[(String, Option<Seen>)]) {
        for (path, seen) in read {
            self.tree.reflect(path, seen.as_ref(), &mut self.events);
        }
        if self.cluster.is_none() {
            // Read whole at the start.
            self.events.clear();
        } else if !self.events.is_empty() {
            self.zxid = self.zxid.next();
            self.follow();
        }
    }

    /// What was to be read has been read: does what that calls for. In the midst of it the
    /// mirror would show things that never were.
    pub fn reflected(&mut self, now: Now) {
        self.govern(now);
    }

    /// The changes up to this one were done, or some of them were not.
    pub fn carried_out(&mut self, upto: Zxid, done: bool, now: Now) {
        if self.elected_at.is_none_or(|at| at > upto) {
            return;
        }
        self.elected_at = None;
        // Where it was not done, what there is instead is read first.
        if done {
            self.govern(now);
        }
    }

    /// A group that this broker has just taken over: its members come anew, and the nodes
    /// that tell of them still are those of the broker that had it before.
    pub fn clear_members(&mut self, group: &str, now: Now) {
        let zxid = self.zxid.next();
        for path in member_nodes::paths(&self.tree, group) {
            let delete = Op::delete(path);
            let deleted = self.tree.apply(zxid, now.wall, &delete, &mut self.events);
            debug_assert!(deleted.is_ok(), "an ephemeral node has no children");
        }
        let ops = self.ops_of_events();
        if !ops.is_empty() {
            self.zxid = zxid;
            let group = Some(group.to_owned());
            self.output.effects.push(Effect { zxid, ops, group });
            self.follow();
        }
    }

    /// The offsets that a group was found to have. A mirror's group has no more than that
    /// when it comes here.
    pub fn adopt_group(&mut self, record: &Record, now: Now) {
        debug_assert!(matches!(record, Record::OffsetsCommitted { .. }));
        self.groups.adopt(record, now);
    }

    /// The group is looked after elsewhere from now on: nothing of it stays, and nobody
    /// who waits is answered from here.
    pub fn let_go_of_group(&mut self, group: &str) {
        self.groups.let_go(group);
        self.member_nodes.forget(group);
    }

    /// A change of the cluster was not done after all.
    pub fn forget_producer_ids(&mut self) {
        self.producer_ids = crate::core::cluster::ids::ProducerIds::default();
    }

    /// What a change did to the mirror, as operations on the original.
    pub(super) fn send_away(&mut self, change: Change) {
        let (ops, group) = match change {
            Change::Tree(ops) => (ops, None),
            Change::Group(record) => (self.ops_of_events(), group_of(&record).map(str::to_owned)),
            Change::Refused => return,
            Change::SessionOpened(_) | Change::SessionClosed(_) => {
                unreachable!("a mirror has no sessions of its own")
            }
        };
        if !ops.is_empty() {
            let zxid = self.zxid;
            self.output.effects.push(Effect { zxid, ops, group });
        }
    }

    /// The events of the last change as the operations that would make them: what the
    /// nodes hold now, so that of two changes of a node the last is done.
    fn ops_of_events(&self) -> Vec<Op> {
        let mut ops: Vec<Op> = Vec::new();
        for event in &self.events {
            let path = event.path.clone();
            let data = || {
                let data = self.tree.data(&event.path).flatten();
                data.map(<[u8]>::to_vec)
            };
            match event.kind {
                EventKind::Created => ops.push(Op::Create {
                    data: data(),
                    acl: Acl::open(),
                    lifetime: self
                        .tree
                        .lifetime(&event.path)
                        .unwrap_or(Lifetime::Persistent),
                    path,
                    sequential: false,
                }),
                EventKind::DataChanged => ops.push(Op::Set {
                    data: data(),
                    path,
                    version: -1,
                }),
                EventKind::Deleted => ops.push(Op::delete(path)),
                EventKind::ChildrenChanged => {}
            }
        }
        ops
    }
}

fn group_of(record: &Record) -> Option<&str> {
    match record {
        Record::OffsetsCommitted { group, .. }
        | Record::OffsetsRemoved { group, .. }
        | Record::GroupState { group, .. }
        | Record::GroupRemoved { group } => Some(group),
        Record::TopicForgotten { .. } => None,
    }
}
