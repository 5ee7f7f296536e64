//! ListOffsets: where a partition begins, where it ends, and which record is the
//! first at or after a time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::error::{ClientError, Result};
use super::{Client, Retry, pause};

/// 8 is the last that Klamm answers; the newer ones ask about tiered storage.
const LIST_OFFSETS_CAP: i16 = 8;

/// How long a leader that does not answer may be about to: a partition that was just
/// created, or a broker that was just restarted, is there within it.
const LEADER_WAIT: Duration = Duration::from_secs(2);
const LEADER_PAUSE: Duration = Duration::from_millis(100);

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

    /// First and end offset of each partition whose leader answers. The others are left
    /// out, as one broker that is away must not hide what the rest has to tell; but a
    /// leader that only moves is waited for.
    pub fn edges_of_led(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, (i64, i64)>> {
        let deadline = Instant::now() + LEADER_WAIT.min(self.timeout());
        let mut names: Vec<String> = partitions.iter().map(|(t, _)| t.clone()).collect();
        names.sort();
        names.dedup();
        let mut edges = BTreeMap::new();
        let mut missing = partitions.to_vec();
        while !missing.is_empty() {
            let leaders = self.leaders(&names)?;
            let mut by_leader: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
            for at in missing.drain(..) {
                if let Some(Some(leader)) = leaders.get(&at) {
                    by_leader.entry(*leader).or_default().push(at);
                }
            }
            for (leader, asked) in by_leader {
                match self.edges_of(leader, &asked) {
                    Ok(told) => edges.extend(told),
                    Err(error) if error.passes() => self.forget(leader),
                    Err(error) => return Err(error),
                }
                missing.extend(asked.into_iter().filter(|at| !edges.contains_key(at)));
            }
            if missing.is_empty() || Instant::now() + LEADER_PAUSE >= deadline {
                break;
            }
            pause(LEADER_PAUSE)?;
        }
        Ok(edges)
    }

    /// Of those that the broker leads.
    fn edges_of(
        &mut self,
        leader: i32,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, (i64, i64))>> {
        let mut ask = |spec| {
            let wanted: Vec<_> = partitions.iter().map(|at| (at.clone(), spec)).collect();
            self.ask_leader(leader, &wanted)
        };
        let (starts, mut ends) = (ask(Spec::Earliest)?, ask(Spec::Latest)?);
        let mut edges = Vec::new();
        for (at, start) in starts {
            let end = ends.remove(&at).expect("the same were asked for");
            match start.and_then(|start| Ok((start, end?))) {
                Ok((start, end)) => edges.push((at, (start.unwrap_or(0), end.unwrap_or(0)))),
                Err(error) if error.passes() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(edges)
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

        let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, Spec)>> = BTreeMap::new();
        for (at, spec) in wanted {
            let leader = match leaders.get(at) {
                Some(Some(leader)) => *leader,
                Some(None) => {
                    return Err(self.any()?.refused(
                        ApiKey::Metadata,
                        ResponseError::LeaderNotAvailable.code(),
                        format!("partition {}-{}", at.0, at.1),
                        None,
                    ));
                }
                None => {
                    return Err(ClientError::Missing(format!(
                        "topic {} has no partition {}",
                        at.0, at.1
                    )));
                }
            };
            by_leader
                .entry(leader)
                .or_default()
                .push((at.clone(), *spec));
        }
        let mut found = BTreeMap::new();
        for (leader, wanted) in by_leader {
            for (at, offset) in self.ask_leader(leader, &wanted)? {
                found.insert(at, offset?);
            }
        }
        Ok(found)
    }

    /// What one leader says of some partitions: of each of them.
    fn ask_leader(
        &mut self,
        leader: i32,
        wanted: &[(TopicPartition, Spec)],
    ) -> Result<BTreeMap<TopicPartition, Result<Option<i64>>>> {
        // One request has one isolation level; nobody mixes them.
        let isolation = i8::from(wanted.iter().any(|(_, s)| *s == Spec::LatestStable));
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for ((topic, index), spec) in wanted {
            let asked = ListOffsetsPartition::default()
                .with_partition_index(*index)
                .with_current_leader_epoch(-1)
                .with_timestamp(spec.timestamp());
            topics.entry(topic).or_default().push(asked);
        }
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
        let mut found = BTreeMap::new();
        for topic in answer.topics {
            for p in topic.partitions {
                let at = (topic.name.0.to_string(), p.partition_index);
                let offset = match p.error_code {
                    0 => Ok(Some(p.offset).filter(|o| *o >= 0)),
                    code => Err(connection.refused(
                        ApiKey::ListOffsets,
                        code,
                        format!("partition {}-{}", at.0, at.1),
                        None,
                    )),
                };
                found.insert(at, offset);
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
