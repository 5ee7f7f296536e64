//! OffsetFetch (9), versions 1 to 9: where a group stands.
//!
//! ```text
//!   v1-7  one group     v2  no topics: all that the group has; an error of the group
//!   v3    throttle time     v5  leader epochs     v6  flexible
//!   v7    only stable offsets (KIP-447)
//!   v8    many groups, each with its own error     v9  member id and epoch (KIP-848)
//! ```
//!
//! "Only stable" asks for offsets that no open transaction is about to change. There
//! are no transactions yet, and an offset is shown once it is committed to the
//! changelog: every offset is stable. A topic that is not there has no offset, which
//! is -1 and no error, as for one that nobody committed.

use crate::kafka::context::Context;
use crate::kafka::errors::Code;
use crate::kafka::group::{self, text};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;

pub async fn handle<I: Io>(ctx: Context<I>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let fetch = read(&request, ctx.version);
    match group::ask(&ctx, fetch.clone()).await {
        Ok(fetched) => write(fetched, ctx.version),
        Err(unavailable) => refuse(&fetch, unavailable, ctx.version),
    }
}

pub fn read(request: &OffsetFetchRequest, version: i16) -> coord::OffsetFetch {
    if version >= 8 {
        let groups = request.groups.iter().map(|group| coord::OffsetFetchGroup {
            group: group.group_id.to_string(),
            topics: group.topics.as_ref().map(|topics| {
                topics
                    .iter()
                    .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
                    .collect()
            }),
        });
        return coord::OffsetFetch {
            groups: groups.collect(),
        };
    }
    coord::OffsetFetch {
        groups: vec![coord::OffsetFetchGroup {
            group: request.group_id.to_string(),
            topics: request.topics.as_ref().map(|topics| {
                topics
                    .iter()
                    .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
                    .collect()
            }),
        }],
    }
}

pub fn write(fetched: coord::OffsetFetchResponse, version: i16) -> OffsetFetchResponse {
    let mut groups = fetched.groups.into_iter();
    if version >= 8 {
        let groups = groups.map(|group| {
            let topics = group.topics.into_iter().map(|topic| {
                let partitions = topic.partitions.into_iter().map(|offset| {
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(offset.partition)
                        .with_committed_offset(offset.offset.0)
                        .with_committed_leader_epoch(offset.leader_epoch.0)
                        .with_metadata(Some(text(offset.metadata)))
                });
                OffsetFetchResponseTopics::default()
                    .with_name(TopicName(text(topic.topic)))
                    .with_partitions(partitions.collect())
            });
            OffsetFetchResponseGroup::default()
                .with_group_id(GroupId(text(group.group)))
                .with_topics(topics.collect())
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = groups.next().map(|group| group.topics).unwrap_or_default();
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|offset| {
            let mut partition = OffsetFetchResponsePartition::default()
                .with_partition_index(offset.partition)
                .with_committed_offset(offset.offset.0)
                .with_metadata(Some(text(offset.metadata)));
            if version >= 5 {
                partition.committed_leader_epoch = offset.leader_epoch.0;
            }
            partition
        });
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(text(topic.topic)))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// An error of the whole: the group's from version 2 on; version 1 has no place for
/// it but the partitions.
fn refuse(fetch: &coord::OffsetFetch, error: Code, version: i16) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = fetch.groups.iter().map(|group| {
            OffsetFetchResponseGroup::default()
                .with_group_id(GroupId(text(group.group.clone())))
                .with_error_code(error.0)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    if version >= 2 {
        return OffsetFetchResponse::default().with_error_code(error.0);
    }
    let asked = fetch
        .groups
        .iter()
        .flat_map(|group| group.topics.iter().flatten());
    let topics = asked.map(|(topic, partitions)| {
        let partitions = partitions.iter().map(|&partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition)
                .with_committed_offset(-1)
                .with_metadata(Some(text("")))
                .with_error_code(error.0)
        });
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(text(topic.clone())))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}
