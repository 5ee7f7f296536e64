//! Consumer groups seen from outside: which there are, who is in them, what they
//! have committed; and the offsets' keeping: fetch, commit, delete.
//!
//! A group lives at one broker, its coordinator. Groups of the newer kind (KIP-848,
//! `type=consumer`) answer to ConsumerGroupDescribe; their offsets answer to the
//! same calls as the classic ones.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerProtocolAssignment, DeleteGroupsRequest,
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::error::{ClientError, Result};
use super::offsets::TopicPartition;
use super::{Client, Connection, Retry, host_port};

/// Topic ids replace names at 10.
const OFFSET_COMMIT_CAP: i16 = 9;
const OFFSET_FETCH_CAP: i16 = 9;

#[derive(Clone, Debug)]
pub struct Listed {
    pub group: String,
    pub protocol_type: String,
    /// None: the broker is older than 2.6.
    pub state: Option<String>,
    /// `classic`, `consumer`, ...; None: the broker is older than 3.8.
    pub kind: Option<String>,
    pub coordinator: i32,
}

#[derive(Clone, Debug)]
pub struct Group {
    pub group: String,
    pub state: String,
    pub protocol_type: String,
    /// The assignor in use: `range`, `roundrobin`, ...
    pub protocol: String,
    pub kind: &'static str,
    pub coordinator: i32,
    pub coordinator_address: String,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    pub assignment: Vec<TopicPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub metadata: Option<String>,
}

/// Who commits. From outside, into a group without members, nobody.
#[derive(Clone, Debug)]
pub struct Committer {
    pub member_id: String,
    pub generation: i32,
    pub instance_id: Option<String>,
}

impl Committer {
    pub fn outside() -> Committer {
        Committer {
            member_id: String::new(),
            generation: -1,
            instance_id: None,
        }
    }
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_string())
}

fn group_id(s: &str) -> GroupId {
    GroupId(text(s))
}

impl Client {
    /// The broker that keeps the group.
    pub fn coordinator(&mut self, group: &str) -> Result<i32> {
        let connection = self.any()?;
        let answer = connection.call::<FindCoordinatorRequest>(4, |version| {
            if version >= 4 {
                FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)])
            } else {
                FindCoordinatorRequest::default().with_key(text(group))
            }
        })?;
        let (code, message, id, host, port) = match answer.coordinators.into_iter().next() {
            Some(c) => (c.error_code, c.error_message, c.node_id, c.host, c.port),
            None => (
                answer.error_code,
                answer.error_message,
                answer.node_id,
                answer.host,
                answer.port,
            ),
        };
        if code != 0 {
            return Err(connection.refused(
                ApiKey::FindCoordinator,
                code,
                format!("group {group}"),
                message.as_ref(),
            ));
        }
        let address = host_port(&host, port);
        if self.brokers.insert(id.0, address.clone()) != Some(address) {
            self.connections.remove(&id.0);
        }
        Ok(id.0)
    }

    /// Runs a call at the group's coordinator, and again where that has moved.
    fn at_coordinator<T>(
        &mut self,
        group: &str,
        retry: Retry,
        mut call: impl FnMut(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        self.retrying(retry, |client| {
            let id = client.coordinator(group)?;
            call(client.broker(id)?)
        })
    }

    pub fn list_groups(&mut self) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        for id in self.broker_ids() {
            let groups = self.retrying(Retry::Freely, |client| {
                let connection = client.broker(id)?;
                let answer =
                    connection.call::<ListGroupsRequest>(5, |_| ListGroupsRequest::default())?;
                if answer.error_code != 0 {
                    return Err(connection.refused(
                        ApiKey::ListGroups,
                        answer.error_code,
                        "the list of groups",
                        None,
                    ));
                }
                Ok(answer.groups)
            })?;
            found.extend(groups.into_iter().map(|g| Listed {
                group: g.group_id.0.to_string(),
                protocol_type: g.protocol_type.to_string(),
                state: some(&g.group_state),
                kind: some(&g.group_type).map(|k| k.to_ascii_lowercase()),
                coordinator: id,
            }));
        }
        found.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(found)
    }

    /// A group that nobody has ever joined and nothing was committed for is
    /// GROUP_ID_NOT_FOUND here, whatever the broker's version calls it.
    pub fn describe_group(&mut self, group: &str) -> Result<Group> {
        let coordinator = self.retrying(Retry::Freely, |client| client.coordinator(group))?;
        let coordinator_address = self.brokers.get(&coordinator).cloned().unwrap_or_default();
        let classic = self.at_coordinator(group, Retry::Freely, |connection| {
            let answer = connection.call::<DescribeGroupsRequest>(6, |_| {
                DescribeGroupsRequest::default().with_groups(vec![group_id(group)])
            })?;
            let Some(g) = answer.groups.into_iter().next() else {
                return Err(ClientError::Missing(format!(
                    "the broker's DescribeGroups answer leaves group {group} out"
                )));
            };
            if g.error_code != 0 {
                return Err(connection.refused(
                    ApiKey::DescribeGroups,
                    g.error_code,
                    format!("group {group}"),
                    g.error_message.as_ref(),
                ));
            }
            Ok(g)
        });
        let g = match classic {
            // A group of the newer kind is "not found" among the classic ones.
            Err(e) if e.is(ResponseError::GroupIdNotFound) => {
                return self.describe_consumer_group(group, coordinator, coordinator_address, e);
            }
            other => other?,
        };
        if &*g.group_state == "Dead" {
            let connection = self.broker(coordinator)?;
            return Err(connection.refused(
                ApiKey::DescribeGroups,
                ResponseError::GroupIdNotFound.code(),
                format!("group {group}"),
                None,
            ));
        }
        // Other kinds of groups (Connect's) have bytes of their own there, and reading
        // them as what they are not can ask for any amount of memory.
        let is_consumer = &*g.protocol_type == "consumer";
        Ok(Group {
            group: group.to_string(),
            state: g.group_state.to_string(),
            protocol_type: g.protocol_type.to_string(),
            protocol: g.protocol_data.to_string(),
            kind: "classic",
            coordinator,
            coordinator_address,
            members: g
                .members
                .into_iter()
                .map(|m| Member {
                    member_id: m.member_id.to_string(),
                    instance_id: m.group_instance_id.map(|i| i.to_string()),
                    client_id: m.client_id.to_string(),
                    host: m.client_host.trim_start_matches('/').to_string(),
                    // Empty while the group rebalances.
                    assignment: Some(m.member_assignment)
                        .filter(|_| is_consumer)
                        .and_then(decode_assignment)
                        .unwrap_or_default(),
                })
                .collect(),
        })
    }

    fn describe_consumer_group(
        &mut self,
        group: &str,
        coordinator: i32,
        coordinator_address: String,
        not_classic: ClientError,
    ) -> Result<Group> {
        let connection = self.broker(coordinator)?;
        if connection
            .version_of::<ConsumerGroupDescribeRequest>(1)
            .is_err()
        {
            return Err(not_classic);
        }
        let answer = connection.call::<ConsumerGroupDescribeRequest>(1, |_| {
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)])
        })?;
        let Some(g) = answer.groups.into_iter().next() else {
            return Err(not_classic);
        };
        if g.error_code != 0 {
            return Err(connection.refused(
                ApiKey::ConsumerGroupDescribe,
                g.error_code,
                format!("group {group}"),
                g.error_message.as_ref(),
            ));
        }
        Ok(Group {
            group: group.to_string(),
            state: g.group_state.to_string(),
            protocol_type: "consumer".into(),
            protocol: g.assignor_name.to_string(),
            kind: "consumer",
            coordinator,
            coordinator_address,
            members: g
                .members
                .into_iter()
                .map(|m| Member {
                    member_id: m.member_id.to_string(),
                    instance_id: m.instance_id.map(|i| i.to_string()),
                    client_id: m.client_id.to_string(),
                    host: m.client_host.trim_start_matches('/').to_string(),
                    assignment: m
                        .assignment
                        .topic_partitions
                        .into_iter()
                        .flat_map(|t| {
                            let topic = t.topic_name.0.to_string();
                            t.partitions.into_iter().map(move |p| (topic.clone(), p))
                        })
                        .collect(),
                })
                .collect(),
        })
    }

    /// What the group has committed; partitions without a commit are left out.
    /// None: for all topics.
    pub fn committed(
        &mut self,
        group: &str,
        topics: Option<&BTreeMap<String, Vec<i32>>>,
    ) -> Result<BTreeMap<TopicPartition, Committed>> {
        use kafka_protocol::messages::offset_fetch_request as request;
        self.at_coordinator(group, Retry::Freely, |connection| {
            let answer = connection.call::<OffsetFetchRequest>(OFFSET_FETCH_CAP, |version| {
                if version >= 8 {
                    let topics = topics.map(|t| {
                        t.iter()
                            .map(|(name, partitions)| {
                                request::OffsetFetchRequestTopics::default()
                                    .with_name(TopicName(text(name)))
                                    .with_partition_indexes(partitions.clone())
                            })
                            .collect()
                    });
                    OffsetFetchRequest::default()
                        .with_topics(Some(Vec::new()))
                        .with_groups(vec![
                            OffsetFetchRequestGroup::default()
                                .with_group_id(group_id(group))
                                .with_topics(topics),
                        ])
                } else {
                    let topics = topics.map(|t| {
                        t.iter()
                            .map(|(name, partitions)| {
                                request::OffsetFetchRequestTopic::default()
                                    .with_name(TopicName(text(name)))
                                    .with_partition_indexes(partitions.clone())
                            })
                            .collect()
                    });
                    OffsetFetchRequest::default()
                        .with_group_id(group_id(group))
                        .with_topics(topics)
                }
            })?;
            let mut rows = Vec::new();
            let mut code = answer.error_code;
            for t in answer.topics {
                for p in t.partitions {
                    let at = (t.name.0.to_string(), p.partition_index);
                    rows.push((at, p.committed_offset, p.metadata, p.error_code));
                }
            }
            for g in answer.groups {
                code = g.error_code;
                for t in g.topics {
                    for p in t.partitions {
                        let at = (t.name.0.to_string(), p.partition_index);
                        rows.push((at, p.committed_offset, p.metadata, p.error_code));
                    }
                }
            }
            let refused =
                |code, subject| connection.refused(ApiKey::OffsetFetch, code, subject, None);
            if code != 0 {
                return Err(refused(code, format!("group {group}")));
            }
            let mut found = BTreeMap::new();
            for (at, offset, metadata, code) in rows {
                // A topic that was deleted since has nothing to tell.
                if code == ResponseError::UnknownTopicOrPartition.code() {
                    continue;
                }
                if code != 0 {
                    return Err(refused(
                        code,
                        format!("group {group}, partition {}-{}", at.0, at.1),
                    ));
                }
                if offset >= 0 {
                    let metadata = metadata.as_ref().and_then(some);
                    found.insert(at, Committed { offset, metadata });
                }
            }
            Ok(found)
        })
    }

    /// All of the offsets, or the first error. Committing the same twice is
    /// committing it once, so it is retried.
    pub fn commit(
        &mut self,
        group: &str,
        who: &Committer,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, index), offset) in offsets {
            topics.entry(topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(*index)
                    .with_committed_offset(*offset),
            );
        }
        self.at_coordinator(group, Retry::Freely, |connection| {
            let answer = connection.call::<OffsetCommitRequest>(OFFSET_COMMIT_CAP, |version| {
                OffsetCommitRequest::default()
                    .with_group_id(group_id(group))
                    .with_generation_id_or_member_epoch(who.generation)
                    .with_member_id(text(&who.member_id))
                    .with_group_instance_id(
                        who.instance_id
                            .as_deref()
                            .filter(|_| version >= 7)
                            .map(text),
                    )
                    .with_topics(
                        topics
                            .iter()
                            .map(|(name, partitions)| {
                                OffsetCommitRequestTopic::default()
                                    .with_name(TopicName(text(name)))
                                    .with_partitions(partitions.clone())
                            })
                            .collect(),
                    )
            })?;
            for t in answer.topics {
                for p in t.partitions {
                    if p.error_code != 0 {
                        return Err(connection.refused(
                            ApiKey::OffsetCommit,
                            p.error_code,
                            format!(
                                "group {group}, partition {}-{}",
                                t.name.0, p.partition_index
                            ),
                            None,
                        ));
                    }
                }
            }
            Ok(())
        })
    }

    pub fn delete_group(&mut self, group: &str) -> Result<()> {
        self.at_coordinator(group, Retry::WithCare, |connection| {
            let answer = connection.call::<DeleteGroupsRequest>(2, |_| {
                DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)])
            })?;
            let code = answer.results.first().map_or(0, |r| r.error_code);
            if code == 0 {
                return Ok(());
            }
            Err(connection.refused(ApiKey::DeleteGroups, code, format!("group {group}"), None))
        })
    }

    pub fn delete_offsets(&mut self, group: &str, partitions: &[TopicPartition]) -> Result<()> {
        let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for (topic, index) in partitions {
            topics
                .entry(topic)
                .or_default()
                .push(OffsetDeleteRequestPartition::default().with_partition_index(*index));
        }
        self.at_coordinator(group, Retry::WithCare, |connection| {
            let answer = connection.call::<OffsetDeleteRequest>(0, |_| {
                OffsetDeleteRequest::default()
                    .with_group_id(group_id(group))
                    .with_topics(
                        topics
                            .iter()
                            .map(|(name, partitions)| {
                                OffsetDeleteRequestTopic::default()
                                    .with_name(TopicName(text(name)))
                                    .with_partitions(partitions.clone())
                            })
                            .collect(),
                    )
            })?;
            let mut errors = vec![(answer.error_code, format!("group {group}"))];
            for t in answer.topics {
                for p in t.partitions {
                    let subject = format!("partition {}-{}", t.name.0, p.partition_index);
                    errors.push((p.error_code, format!("group {group}, {subject}")));
                }
            }
            match errors.into_iter().find(|(code, _)| *code != 0) {
                Some((code, subject)) => {
                    Err(connection.refused(ApiKey::OffsetDelete, code, subject, None))
                }
                None => Ok(()),
            }
        })
    }
}

/// An assignment as the consumer protocol packs it: i16 version, then its struct.
pub fn decode_assignment(mut bytes: Bytes) -> Option<Vec<TopicPartition>> {
    if bytes.len() < 2 {
        return None;
    }
    // A newer version keeps the older fields in front.
    let version = bytes.get_i16().clamp(0, 3);
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version).ok()?;
    let mut partitions: Vec<_> = assignment
        .assigned_partitions
        .into_iter()
        .flat_map(|t| {
            let topic = t.topic.0.to_string();
            t.partitions.into_iter().map(move |p| (topic.clone(), p))
        })
        .collect();
    partitions.sort();
    Some(partitions)
}

fn some(s: &StrBytes) -> Option<String> {
    Some(s.to_string()).filter(|s| !s.is_empty())
}
