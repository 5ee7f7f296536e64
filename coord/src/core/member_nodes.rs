//! Groups' members and what they consume, shown as the znodes that Kafka's users know.
//!
//! ```text
//!   /consumers/<group>/ids/<member>               its subscription, as JSON   ephemeral
//!   /consumers/<group>/owners/<topic>/<partition>    =  the member's id       ephemeral
//! ```
//!
//! A rebalance ends in one record of the group: one command in the changelog, one sync,
//! however many partitions the group has. The nodes are not in it. They follow from it,
//! here, where it is applied, under its zxid: from what the record before it said and
//! what this one says comes the difference, and only nodes of the difference are
//! touched. Members whose assignment has not changed are not even read, so that one
//! consumer more in a group of 10,000 partitions costs the partitions that it takes
//! over (`a_rebalance_touches_what_it_moves`).
//!
//! The nodes belong to a session, as they did when consumers made them: that of the
//! broker which coordinates the group. A node that somebody else has put in the place of
//! one of ours is left alone. What clients assign one another is theirs; here it is only
//! read, and of partitions that there are.

use crate::core::Zxid;
use crate::core::cluster::topics::empty;
use crate::core::cluster::znodes::{self, CONSUMERS};
use crate::core::group::subscription::{CONSUMER_PROTOCOL_TYPE, read_assignment, read_topics};
use crate::core::groups::{GroupRecord, MemberRecord, Record};
use crate::core::offset_nodes::prune;
use crate::core::path;
use crate::core::stat::{Acl, Lifetime};
use crate::core::tree::{Event, Op, Tree};
use klamm_engine::units::TimestampMs;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

/// What the nodes show now: of each group the record that was applied last.
#[derive(Debug, Default)]
pub struct MemberNodes {
    shown: BTreeMap<String, Arc<GroupRecord>>,
}

/// Where a change is made: whose the nodes are, and under which zxid.
pub struct Change<'a> {
    pub tree: &'a mut Tree,
    /// The session of the coordinator itself.
    pub owner: i64,
    pub zxid: Zxid,
    pub time: TimestampMs,
    pub events: &'a mut Vec<Event>,
}

impl MemberNodes {
    /// A snapshot's record: its tree has the nodes already.
    pub fn restore(&mut self, record: &Record) {
        self.note(record);
    }

    /// A record that nobody's nodes can show: `show_again` will.
    pub fn note(&mut self, record: &Record) {
        match record {
            Record::GroupState { group, state } => {
                self.shown.insert(group.clone(), state.clone());
            }
            Record::GroupRemoved { group } => drop(self.shown.remove(group)),
            Record::TopicForgotten { .. }
            | Record::OffsetsCommitted { .. }
            | Record::OffsetsRemoved { .. } => {}
        }
    }

    /// Makes the nodes show what a record changed. Before the offsets' nodes do: what
    /// is left of a group that is gone goes with them.
    pub fn show(&mut self, record: &Record, change: &mut Change<'_>) {
        match record {
            Record::GroupState { group, state } => {
                let before = self.shown.insert(group.clone(), state.clone());
                show_group(group, before.as_deref(), Some(state), change);
            }
            Record::GroupRemoved { group } => {
                if let Some(before) = self.shown.remove(group) {
                    show_group(group, Some(&before), None, change);
                }
            }
            // A member owns what it was assigned until the next rebalance, be the topic
            // there or not.
            Record::TopicForgotten { .. }
            | Record::OffsetsCommitted { .. }
            | Record::OffsetsRemoved { .. } => {}
        }
    }

    /// The group is looked after by another broker, and its nodes are that one's.
    pub fn forget(&mut self, group: &str) {
        self.shown.remove(group);
    }

    /// Makes all nodes again: the session that had them has ended, and `change.owner`
    /// is the one that has taken its place.
    pub fn show_again(&self, change: &mut Change<'_>) {
        for (group, state) in &self.shown {
            show_group(group, None, Some(state), change);
        }
    }
}

/// The nodes that tell of a group's members, whosoever they are.
pub fn paths(tree: &Tree, group: &str) -> Vec<String> {
    let group = format!("{CONSUMERS}/{}", path::component(group));
    let below = |folder: String| {
        let names = tree.children(&folder).into_iter().flatten();
        names.map(move |name| format!("{folder}/{name}"))
    };
    let owners = below(format!("{group}/owners")).flat_map(below);
    below(format!("{group}/ids"))
        .chain(owners)
        .filter(|path| tree.stat(path).is_some_and(|s| s.ephemeral_owner != 0))
        .collect()
}

fn show_group(
    group: &str,
    before: Option<&GroupRecord>,
    after: Option<&GroupRecord>,
    change: &mut Change<'_>,
) {
    let group = format!("{CONSUMERS}/{}", path::component(group));
    show_members(&format!("{group}/ids"), before, after, change);
    show_owners(&format!("{group}/owners"), before, after, change);
}

// -- members

fn show_members(
    folder: &str,
    before: Option<&GroupRecord>,
    after: Option<&GroupRecord>,
    change: &mut Change<'_>,
) {
    let (was, is) = (members(before), members(after));
    let node = |id: &str| format!("{folder}/{}", path::component(id));
    for (id, _) in was.iter().filter(|(id, _)| !is.contains_key(*id)) {
        change.delete(&node(id));
    }
    for (id, member) in &is {
        let topics = |group: Option<&GroupRecord>, member| subscription(group?, member);
        let subscribed = topics(after, member);
        if let Some(earlier) = was.get(id)
            && topics(before, earlier) == subscribed
        {
            continue;
        }
        let names = subscribed.iter().flatten().map(String::as_str);
        let json = znodes::consumer_json(names, change.time);
        change.put(folder, &node(id), json);
    }
    if is.is_empty() {
        change.prune(folder);
    }
}

fn members(group: Option<&GroupRecord>) -> BTreeMap<&str, &MemberRecord> {
    let members = group.map_or(&[][..], |group| &group.members);
    members.iter().map(|m| (m.member_id.as_str(), m)).collect()
}

/// None where these are no consumers, or consumers that speak another language.
fn subscription(group: &GroupRecord, member: &MemberRecord) -> Option<BTreeSet<String>> {
    if group.protocol_type.as_deref() != Some(CONSUMER_PROTOCOL_TYPE) {
        return None;
    }
    let chosen = group.protocol.as_deref()?;
    let protocol = member.protocols.iter().find(|p| p.name == chosen)?;
    let mut topics = BTreeSet::new();
    read_topics(&protocol.metadata, &mut topics)?;
    Some(topics)
}

// -- owners

/// A partition and the member that consumes it.
type Owned<'a> = (&'a str, i32, &'a str);

fn show_owners(
    folder: &str,
    before: Option<&GroupRecord>,
    after: Option<&GroupRecord>,
    change: &mut Change<'_>,
) {
    let (was, is) = (consumers(before), consumers(after));
    // Whose assignment is the same, to the byte, has nothing to show.
    let differs = |(id, bytes): &(&str, &[u8]), other: &BTreeMap<&str, &[u8]>| {
        other.get(id).is_none_or(|there| there != bytes)
    };
    let lost = owned(
        was.iter()
            .map(|(k, v)| (*k, *v))
            .filter(|m| differs(m, &is)),
    );
    let mut won = owned(
        is.iter()
            .map(|(k, v)| (*k, *v))
            .filter(|m| differs(m, &was)),
    );
    let mut counts: HashMap<&str, i32> = HashMap::new();
    won.retain(|(topic, partition, _)| {
        let count = counts
            .entry(topic)
            .or_insert_with(|| partition_count(change.tree, topic));
        (0..*count).contains(partition)
    });

    let mut left = BTreeSet::new();
    let (mut lost, mut won) = (lost.into_iter().peekable(), won.into_iter().peekable());
    // Sorted, so that a topic's folder is named once; and one buffer for all paths.
    let (mut of_topic, mut parent, mut node) = ("", String::new(), String::new());
    loop {
        let order = match (lost.peek(), won.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(lost), Some(won)) => (lost.0, lost.1).cmp(&(won.0, won.1)),
        };
        let from = (order != Ordering::Greater).then(|| lost.next()).flatten();
        let to = (order != Ordering::Less).then(|| won.next()).flatten();
        let (topic, partition, _) = to.or(from).expect("one of them was there");
        if parent.is_empty() || topic != of_topic {
            of_topic = topic;
            parent = format!("{folder}/{}", path::component(topic));
        }
        node.clone_from(&parent);
        write!(node, "/{partition}").expect("a String takes everything");
        match (from, to) {
            (Some((_, _, from)), Some((_, _, to))) if from == to => {}
            (_, Some((_, _, member))) => change.put(&parent, &node, member.as_bytes().to_vec()),
            _ => {
                change.delete(&node);
                if !left.contains(&parent) {
                    left.insert(parent.clone());
                }
            }
        }
    }
    for parent in left {
        change.prune(&parent);
    }
}

/// Each consumer's assignment, as the bytes that its leader sent.
fn consumers(group: Option<&GroupRecord>) -> BTreeMap<&str, &[u8]> {
    let group =
        group.filter(|group| group.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE));
    let members = group.map_or(&[][..], |group| &group.members);
    members
        .iter()
        .map(|m| (m.member_id.as_str(), &m.assignment[..]))
        .collect()
}

/// Sorted, each partition once: of two that claim it the first.
fn owned<'a>(members: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<Owned<'a>> {
    let mut owned: Vec<Owned<'a>> = Vec::new();
    for (member, assignment) in members {
        for (topic, partitions) in read_assignment(assignment).unwrap_or_default() {
            owned.extend(partitions.into_iter().map(|p| (topic, p, member)));
        }
    }
    owned.sort_unstable();
    owned.dedup_by_key(|(topic, partition, _)| (*topic, *partition));
    owned
}

fn partition_count(tree: &Tree, topic: &str) -> i32 {
    tree.stat(&znodes::partitions(topic))
        .map_or(0, |stat| stat.num_children)
}

// -- nodes

impl Change<'_> {
    fn is_ours(&self, node: &str) -> bool {
        self.tree
            .stat(node)
            .is_some_and(|stat| stat.ephemeral_owner == self.owner)
    }

    fn put(&mut self, parent: &str, node: &str, data: Vec<u8>) {
        let op = match self.tree.stat(node) {
            None => {
                if !self.tree.exists(parent) {
                    self.make(parent);
                }
                Op::Create {
                    path: node.to_owned(),
                    data: Some(data),
                    acl: Acl::open(),
                    lifetime: Lifetime::Ephemeral(self.owner),
                    sequential: false,
                }
            }
            Some(stat) if stat.ephemeral_owner == self.owner => Op::set(node, data),
            Some(_) => return,
        };
        self.apply(&op);
    }

    /// Makes a folder, and those above it.
    fn make(&mut self, folder: &str) {
        for (end, _) in folder
            .match_indices('/')
            .skip(1)
            .chain([(folder.len(), "")])
        {
            let here = &folder[..end];
            if !self.tree.exists(here) {
                self.apply(&empty(here.to_owned()));
            }
        }
    }

    fn delete(&mut self, node: &str) {
        if self.is_ours(node) {
            self.apply(&Op::delete(node));
        }
    }

    fn prune(&mut self, folder: &str) {
        prune(self.tree, self.zxid, self.time, folder, self.events);
    }

    /// Fails only where a node that cannot carry any is in the way; then nothing is
    /// shown below it.
    fn apply(&mut self, op: &Op) {
        let done = self.tree.apply(self.zxid, self.time, op, self.events);
        if let Err(error) = done {
            log::debug!("{} cannot show a group's member: {error}", op.path());
        }
    }
}

#[cfg(test)]
mod tests;
