//! Which groups are this broker's to look after, and how it comes by them.
//!
//! ```text
//!   asked for GROUP --> claim: set /consumers/GROUP --> load: its offsets --> held
//!                                                                              |
//!                      another broker has set it since, or is to: let go of <--+
//! ```

use super::{CONSUMERS, Ensemble, Lost, Remote, now, stopped};
use crate::core::Token;
use crate::core::coordinator::Request;
use crate::core::groups::{self, Record, TopicOffsets};
use crate::core::offsets::CommittedOffset;
use crate::core::path;
use crate::core::tree::{MultiError, Op, OpResult, TreeError};
use crate::driver::{Host, Stopped};
use klamm_engine::io::Io;
use klamm_engine::units::{LeaderEpoch, Offset, TimestampMs};
use std::collections::BTreeMap;
use std::rc::Rc;

/// This broker's hold on a group.
#[derive(Clone, Debug)]
pub(super) enum Claim {
    /// Being read; who asked waits for the signal.
    Loading,
    /// The version of `/consumers/GROUP` that makes it ours.
    Held { version: i32 },
}

impl<I: Io, H: Host, E: Ensemble> Remote<I, H, E> {
    /// The groups that a request speaks of.
    pub(super) fn groups_of(&self, request: &Request) -> Vec<String> {
        use groups::Request as Group;
        let Request::Group(request) = request else {
            return Vec::new();
        };
        match request {
            Group::JoinGroup(r) => vec![r.group.clone()],
            Group::SyncGroup(r) => vec![r.group.clone()],
            Group::Heartbeat(r) => vec![r.group.clone()],
            Group::LeaveGroup(r) => vec![r.group.clone()],
            Group::OffsetCommit(r) => vec![r.group.clone()],
            Group::OffsetDelete(r) => vec![r.group.clone()],
            Group::OffsetFetch(r) => r.groups.iter().map(|g| g.group.clone()).collect(),
            Group::DescribeGroups(r) => r.groups.clone(),
            Group::DeleteGroups(r) => r.groups.clone(),
            // Those that are looked after here, as every broker tells of its own.
            Group::ListGroups(_) => Vec::new(),
        }
    }

    pub(super) fn holds(&self, group: &str) -> bool {
        matches!(self.groups.borrow().get(group), Some(Claim::Held { .. }))
            && self.image().group_coordinator(group) == Some(self.me)
    }

    /// Takes a group over: claims it, then reads its offsets, in this order, so that
    /// nobody's later commit is missed.
    pub(super) async fn claim(self: &Rc<Self>, group: &str) -> Result<(), Stopped> {
        if self.image().group_coordinator(group) != Some(self.me) {
            self.let_go(group);
            return Err(not_ours(group));
        }
        loop {
            let held = self.groups.borrow().get(group).cloned();
            match held {
                Some(Claim::Held { .. }) => return Ok(()),
                Some(Claim::Loading) => {
                    let (this, name) = (self.clone(), group.to_owned());
                    let loaded = move || {
                        let groups = this.groups.borrow();
                        let loads = matches!(groups.get(&name), Some(Claim::Loading));
                        (!loads).then_some(())
                    };
                    self.changed.until(loaded).await;
                    if !self.groups.borrow().contains_key(group) {
                        return Err(not_ours(group));
                    }
                }
                None => break,
            }
        }
        self.groups
            .borrow_mut()
            .insert(group.to_owned(), Claim::Loading);
        let loaded = self.load(group).await;
        match &loaded {
            Ok(version) => {
                let claim = Claim::Held { version: *version };
                self.groups.borrow_mut().insert(group.to_owned(), claim);
                let now = now(&self.io);
                self.core.borrow_mut().clear_members(group, now);
                self.collect();
            }
            Err(_) => self.let_go(group),
        }
        self.changed.wake();
        loaded.map(drop)
    }

    async fn load(self: &Rc<Self>, group: &str) -> Result<i32, Stopped> {
        let lost = |lost: Lost| stopped(&format!("the ensemble did not answer: {}", lost.why));
        let node = group_node(group);
        let owner = self.me.to_string();
        let version = loop {
            let set = self
                .ensemble
                .multi(&[Op::set(node.as_str(), owner.as_str())]);
            match set.await.map_err(lost)? {
                Ok(results) => match results.first() {
                    Some(OpResult::Set { stat }) => break stat.version,
                    other => unreachable!("a set was answered with {other:?}"),
                },
                Err(MultiError {
                    error: TreeError::NoNode,
                    ..
                }) => {
                    let made = self.ensemble.multi(&[Op::create(node.as_str(), "")]);
                    match made.await.map_err(lost)? {
                        // There is one to be set now, whoever made it.
                        Ok(_)
                        | Err(MultiError {
                            error: TreeError::NodeExists,
                            ..
                        }) => {}
                        Err(other) => return Err(stopped(&format!("{node}: {}", other.error))),
                    }
                }
                Err(other) => return Err(stopped(&format!("{node}: {}", other.error))),
            }
        };
        let read = self.read_whole(vec![node]).await.map_err(lost)?;
        self.take_over(read);
        let record = offsets_in(self.core.borrow().tree(), group, now(&self.io).wall);
        if let Some(record) = record {
            self.core.borrow_mut().adopt_group(&record, now(&self.io));
        }
        Ok(version)
    }

    pub(super) fn let_go(&self, group: &str) {
        if self.groups.borrow_mut().remove(group).is_none() {
            return;
        }
        let mut core = self.core.borrow_mut();
        core.let_go_of_group(group);
        core.reflect(&[(group_node(group), None)]);
        let mut asked = self.asked.borrow_mut();
        let tokens: Vec<Token> = asked
            .iter()
            .filter(|(_, of)| *of == group)
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            asked.remove(&token);
            core.abandon(token);
            self.desk.refuse(token, not_ours(group));
        }
        drop((core, asked));
        self.changed.wake();
    }
}

pub(super) fn not_ours(group: &str) -> Stopped {
    stopped(&format!(
        "the group {group:?} is looked after by another broker"
    ))
}

pub(super) fn group_node(group: &str) -> String {
    format!("{CONSUMERS}/{}", path::component(group))
}

/// A group's offsets as its nodes tell them: the plain numbers, since that is all there
/// is in them.
fn offsets_in(tree: &crate::core::tree::Tree, group: &str, at: TimestampMs) -> Option<Record> {
    let all = format!("{}/offsets", group_node(group));
    let mut topics: BTreeMap<String, Vec<(i32, CommittedOffset)>> = BTreeMap::new();
    for topic in tree.children(&all).into_iter().flatten() {
        let of_topic = format!("{all}/{topic}");
        for partition in tree.children(&of_topic).into_iter().flatten() {
            let data = tree.data(&format!("{of_topic}/{partition}")).flatten();
            let offset = data.and_then(|d| std::str::from_utf8(d).ok()?.trim().parse().ok());
            let (Some(offset), Ok(partition)) = (offset, partition.parse()) else {
                continue;
            };
            let committed = CommittedOffset {
                offset: Offset(offset),
                leader_epoch: LeaderEpoch(-1),
                metadata: String::new(),
                at,
                expires_at: None,
            };
            topics
                .entry(topic.to_owned())
                .or_default()
                .push((partition, committed));
        }
    }
    (!topics.is_empty()).then(|| Record::OffsetsCommitted {
        group: group.to_owned(),
        topics: topics
            .into_iter()
            .map(|(topic, partitions)| TopicOffsets { topic, partitions })
            .collect(),
    })
}
