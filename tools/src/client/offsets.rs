//! ListOffsets: where a partition begins, where it ends, and which record is the
//! first at or after a time.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::error::{ClientError, Result};
use super::{Client, Retry};

/// 8 is the last that Klamm answers; the newer ones ask about tiered storage.
const LIST_OFFSETS_CAP: i16 = 8;

/// Which offset of a partition. The negative numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// The log start offset.
    Earliest,
    /// The high watermark: behind the last record that can be read.
    Latest,
    /// The last stable offset: behind the last record whose transaction has ended.
    LatestStable,
    /// The first record whose timestamp is this (ms since 1970) or later.
    At(i64),
}

impl Spec {
    fn timestamp(self) -> i64 {
        match self {
            Spec::Earliest => -2,
            Spec::Latest | Spec::LatestStable => -1,
            Spec::At(ms) => ms,
        }
    }
}

/// Topic and partition, as answers are keyed.
pub type TopicPartition = (String, i32);

impl Client {
    /// The offsets asked for. Every partition asked for is in the answer; a time
    /// after the last record gives None.
    pub fn list_offsets(
        &mut self,
        wanted: &[(TopicPartition, Spec)],
    ) -> Result<BTreeMap<TopicPartition, Option<i64>>> {
        self.retrying(Retry::Freely, |client| client.list_offsets_once(wanted))
    }

    /// The same spec for many partitions, where None cannot be.
    pub fn edge_offsets(
        &mut self,
        partitions: &[TopicPartition],
        spec: Spec,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let wanted: Vec<_> = partitions.iter().map(|p| (p.clone(), spec)).collect();
        let found = self.list_offsets(&wanted)?;
        Ok(found
            .into_iter()
            .map(|(at, offset)| (at, offset.unwrap_or(0)))
            .collect())
    }

    fn list_offsets_once(
        &mut self,
        wanted: &[(TopicPartition, Spec)],
    ) -> Result<BTreeMap<TopicPartition, Option<i64>>> {
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut names: Vec<String> = wanted.iter().map(|((t, _), _)| t.clone()).collect();
        names.sort();
        names.dedup();
        let leaders = self.leaders(&names)?;

        // One request has one isolation level; nobody mixes them.
        let isolation = i8::from(wanted.iter().any(|(_, s)| *s == Spec::LatestStable));
        let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<ListOffsetsPartition>>> =
            BTreeMap::new();
        for ((topic, index), spec) in wanted {
            let leader = match leaders.get(&(topic.clone(), *index)) {
                Some(Some(leader)) => *leader,
                Some(None) => {
                    return Err(self.any()?.refused(
                        ApiKey::Metadata,
                        ResponseError::LeaderNotAvailable.code(),
                        format!("partition {topic}-{index}"),
                        None,
                    ));
                }
                None => {
                    return Err(ClientError::Missing(format!(
                        "topic {topic} has no partition {index}"
                    )));
                }
            };
            by_leader
                .entry(leader)
                .or_default()
                .entry(topic)
                .or_default()
                .push(
                    ListOffsetsPartition::default()
                        .with_partition_index(*index)
                        .with_current_leader_epoch(-1)
                        .with_timestamp(spec.timestamp()),
                );
        }

        let mut found = BTreeMap::new();
        for (leader, topics) in by_leader {
            let topics: Vec<_> = topics
                .into_iter()
                .map(|(name, partitions)| {
                    ListOffsetsTopic::default()
                        .with_name(TopicName(StrBytes::from_string(name.to_string())))
                        .with_partitions(partitions)
                })
                .collect();
            let connection = self.broker(leader)?;
            let answer = connection.call::<ListOffsetsRequest>(LIST_OFFSETS_CAP, |version| {
                ListOffsetsRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_isolation_level(if version >= 2 { isolation } else { 0 })
                    .with_topics(topics)
            })?;
            for topic in answer.topics {
                for p in topic.partitions {
                    let at = (topic.name.0.to_string(), p.partition_index);
                    if p.error_code != 0 {
                        return Err(connection.refused(
                            ApiKey::ListOffsets,
                            p.error_code,
                            format!("partition {}-{}", at.0, at.1),
                            None,
                        ));
                    }
                    found.insert(at, Some(p.offset).filter(|o| *o >= 0));
                }
            }
        }
        for (at, _) in wanted {
            if !found.contains_key(at) {
                return Err(ClientError::Missing(format!(
                    "the leader's ListOffsets answer leaves {}-{} out",
                    at.0, at.1
                )));
            }
        }
        Ok(found)
    }

    /// Who leads what. A partition between two leaders is None.
    pub fn leaders(&mut self, topics: &[String]) -> Result<BTreeMap<TopicPartition, Option<i32>>> {
        let mut leaders = BTreeMap::new();
        for (name, topic) in self.topics(Some(topics), false)? {
            for p in topic?.partitions {
                leaders.insert((name.clone(), p.index), p.leader);
            }
        }
        Ok(leaders)
    }
}
