//! What a restart finds: the sum of the records, and nothing else.
//!
//! ```text
//!  step ──> Record ──> apply ──> Durable      a running broker
//!  changelog ──> Record ──> apply ──> Durable      one that starts
//! ```
//!
//! One function on both ways, so they cannot differ. The live groups beside it
//! hold what a restart forgets: who waits, who is pending, half a rebalance.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{GroupRecord, Record, TopicOffsets};
use crate::core::offsets::Offsets;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    pub groups: BTreeMap<String, Arc<GroupRecord>>,
    pub offsets: Offsets,
}

impl Durable {
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::OffsetsCommitted { group, topics } => self.offsets.commit(group, topics),
            Record::OffsetsRemoved { group, topics } => self.offsets.remove(group, topics),
            Record::GroupState { group, state } => {
                self.groups.insert(group.clone(), Arc::clone(state));
            }
            Record::GroupRemoved { group } => {
                self.groups.remove(group);
                self.offsets.remove_group(group);
            }
            Record::TopicForgotten { topic } => self.offsets.remove_topic(topic),
        }
    }

    /// Whether a restart would find the group.
    pub fn knows(&self, group: &str) -> bool {
        self.groups.contains_key(group) || self.offsets.group(group).is_some()
    }

    /// Records that build this state from nothing, each bounded in size: a
    /// group's offsets come topic by topic.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> + '_ {
        let groups = self.groups.iter().map(|(group, state)| Record::GroupState {
            group: group.clone(),
            state: Arc::clone(state),
        });
        let offsets = self.offsets.iter().flat_map(|(group, topics)| {
            topics
                .iter()
                .map(move |(topic, partitions)| Record::OffsetsCommitted {
                    group: group.clone(),
                    topics: vec![TopicOffsets {
                        topic: topic.clone(),
                        partitions: partitions.iter().map(|(p, c)| (*p, c.clone())).collect(),
                    }],
                })
        });
        groups.chain(offsets)
    }
}
