//! Committed offsets: how far each group has read each partition.
//!
//! ```text
//!  group ─> topic ─> partition ─> offset, leader epoch, metadata, when
//!  "bill"   "orders"   0          1204    3            ""        ...
//!                      1           977    3            ""
//! ```
//!
//! Nested maps rather than one keyed by all three: a commit finds its group
//! once and its topic once, and no name is copied for a partition that was
//! committed before. Empty maps are taken out, so "has offsets" is "is there".

use std::collections::BTreeMap;

use klamm_engine::units::{LeaderEpoch, Offset, TimestampMs};

use super::group::record::TopicOffsets;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: Offset,
    /// Of the last record read. -1: unknown.
    pub leader_epoch: LeaderEpoch,
    pub metadata: String,
    pub at: TimestampMs,
    /// Set by a client of OffsetCommit 2 to 4 that asked for its own retention.
    pub expires_at: Option<TimestampMs>,
}

pub type PartitionOffsets = BTreeMap<i32, CommittedOffset>;
pub type GroupOffsets = BTreeMap<String, PartitionOffsets>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    groups: BTreeMap<String, GroupOffsets>,
}

/// From when an offset's retention counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionBase {
    /// When the group became empty.
    Since(TimestampMs),
    /// When each offset was committed.
    CommitTime,
}

impl Offsets {
    pub fn group(&self, group: &str) -> Option<&GroupOffsets> {
        self.groups.get(group)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &GroupOffsets)> {
        self.groups.iter()
    }

    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    pub fn commit(&mut self, group: &str, topics: &[TopicOffsets]) {
        if topics.iter().all(|t| t.partitions.is_empty()) {
            return;
        }
        let of_group = entry(&mut self.groups, group);
        for topic in topics.iter().filter(|t| !t.partitions.is_empty()) {
            let of_topic = entry(of_group, &topic.topic);
            for (partition, committed) in &topic.partitions {
                of_topic.insert(*partition, committed.clone());
            }
        }
    }

    pub fn remove(&mut self, group: &str, topics: &[(String, Vec<i32>)]) {
        let Some(of_group) = self.groups.get_mut(group) else {
            return;
        };
        for (topic, partitions) in topics {
            let Some(of_topic) = of_group.get_mut(topic) else {
                continue;
            };
            for partition in partitions {
                of_topic.remove(partition);
            }
            if of_topic.is_empty() {
                of_group.remove(topic);
            }
        }
        if of_group.is_empty() {
            self.groups.remove(group);
        }
    }

    pub fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub fn has_topic(&self, topic: &str) -> bool {
        self.groups.values().any(|g| g.contains_key(topic))
    }

    pub fn remove_topic(&mut self, topic: &str) {
        self.groups.retain(|_, of_group| {
            of_group.remove(topic);
            !of_group.is_empty()
        });
    }

    /// What of a group has outlived its retention at `now`, but for the topics
    /// that `kept` names.
    pub fn expired(
        &self,
        group: &str,
        base: RetentionBase,
        retention_ms: i64,
        now: TimestampMs,
        kept: impl Fn(&str) -> bool,
    ) -> Vec<(String, Vec<i32>)> {
        let Some(of_group) = self.groups.get(group) else {
            return Vec::new();
        };
        let is_expired = |c: &CommittedOffset| match (c.expires_at, base) {
            (Some(at), _) => now >= at,
            (None, RetentionBase::Since(since)) => now.0.saturating_sub(since.0) >= retention_ms,
            (None, RetentionBase::CommitTime) => now.0.saturating_sub(c.at.0) >= retention_ms,
        };
        let mut expired = Vec::new();
        for (topic, of_topic) in of_group.iter().filter(|(topic, _)| !kept(topic)) {
            let partitions: Vec<i32> = of_topic
                .iter()
                .filter(|(_, c)| is_expired(c))
                .map(|(p, _)| *p)
                .collect();
            if !partitions.is_empty() {
                expired.push((topic.clone(), partitions));
            }
        }
        expired
    }
}

/// `entry().or_default()` that copies the name only when it is new.
fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, name: &str) -> &'a mut V {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), V::default());
    }
    map.get_mut(name).expect("there, or just inserted")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, ms: i64) -> CommittedOffset {
        CommittedOffset {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(-1),
            metadata: String::new(),
            at: TimestampMs(ms),
            expires_at: None,
        }
    }

    fn orders(partitions: Vec<(i32, CommittedOffset)>) -> Vec<TopicOffsets> {
        vec![TopicOffsets {
            topic: "orders".into(),
            partitions,
        }]
    }

    #[test]
    fn the_last_partition_takes_its_topic_and_group_along() {
        let mut offsets = Offsets::default();
        offsets.commit("bill", &orders(vec![(0, at(5, 0)), (1, at(6, 0))]));
        offsets.remove(
            "bill",
            &[("orders".into(), vec![0, 7]), ("none".into(), vec![0])],
        );
        assert_eq!(offsets.get("bill", "orders", 1), Some(&at(6, 0)));
        assert_eq!(offsets.get("bill", "orders", 0), None);
        offsets.remove("bill", &[("orders".into(), vec![1])]);
        assert_eq!(offsets, Offsets::default());
    }

    #[test]
    fn a_commit_of_nothing_leaves_no_trace() {
        let mut offsets = Offsets::default();
        offsets.commit("bill", &orders(vec![]));
        offsets.commit("bill", &[]);
        assert_eq!(offsets, Offsets::default());
    }

    #[test]
    fn a_deleted_topic_is_gone_from_every_group() {
        let mut offsets = Offsets::default();
        offsets.commit("bill", &orders(vec![(0, at(5, 0))]));
        offsets.commit("ship", &orders(vec![(0, at(9, 0))]));
        offsets.commit(
            "ship",
            &[TopicOffsets {
                topic: "trucks".into(),
                partitions: vec![(0, at(1, 0))],
            }],
        );
        assert!(offsets.has_topic("orders"));
        offsets.remove_topic("orders");
        assert!(!offsets.has_topic("orders"));
        assert!(offsets.group("bill").is_none());
        assert_eq!(offsets.get("ship", "trucks", 0), Some(&at(1, 0)));
    }

    #[test]
    fn retention_counts_from_the_base_unless_the_commit_said_when() {
        let mut offsets = Offsets::default();
        let own = CommittedOffset {
            expires_at: Some(TimestampMs(50)),
            ..at(3, 0)
        };
        offsets.commit(
            "bill",
            &orders(vec![(0, at(1, 100)), (1, at(2, 200)), (2, own)]),
        );
        let expired = |base, now| offsets.expired("bill", base, 1_000, TimestampMs(now), |_| false);
        let table: &[(RetentionBase, i64, &[i32])] = &[
            (RetentionBase::CommitTime, 49, &[]),
            (RetentionBase::CommitTime, 1_099, &[2]),
            (RetentionBase::CommitTime, 1_100, &[0, 2]),
            (RetentionBase::CommitTime, 1_200, &[0, 1, 2]),
            (RetentionBase::Since(TimestampMs(500)), 1_499, &[2]),
            (RetentionBase::Since(TimestampMs(500)), 1_500, &[0, 1, 2]),
        ];
        for (base, now, partitions) in table {
            let want: Vec<(String, Vec<i32>)> = if partitions.is_empty() {
                vec![]
            } else {
                vec![("orders".into(), partitions.to_vec())]
            };
            assert_eq!(expired(*base, *now), want, "{base:?} at {now}");
        }
        let kept = offsets.expired(
            "bill",
            RetentionBase::CommitTime,
            1_000,
            TimestampMs(9_999),
            |t| t == "orders",
        );
        assert!(kept.is_empty());
    }
}
