//! OffsetCommit (8), versions 2 to 9: a group's place in partitions, and a note to each.
//!
//! ```text
//!   v2-4  how long to keep them, in the request     v3  throttle time
//!   v6    the leader epoch of the committed offset  v7  static members (KIP-345)
//!   v8    flexible                                  v9  GROUP_ID_NOT_FOUND (KIP-848)
//!
//!   a topic or partition that is not there  ->  3, without asking the group
//!   all others                              ->  the group's verdict, one a partition
//! ```

use crate::kafka::context::Context;
use crate::kafka::errors::Code;
use crate::kafka::group::{self, code, given};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use klamm_coord::core::group::message as coord;
use klamm_coord::core::image::Image;
use klamm_engine::io::Io;
use klamm_engine::units::{LeaderEpoch, Offset};
use std::collections::HashMap;

pub async fn handle<I: Io>(ctx: Context<I>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = ctx.image();
    let exists = |topic: &str, partition: i32| exists(&image, topic, partition);
    let commit = read(&request, ctx.version, exists);
    if commit.topics.is_empty() {
        return write(&request, exists, &Verdicts::All(Code::NONE.0));
    }
    match group::ask(&ctx, commit).await {
        Ok(committed) => write(&request, exists, &Verdicts::of(committed)),
        Err(unavailable) => write(&request, exists, &Verdicts::All(unavailable.0)),
    }
}

/// What the group is asked: partitions that are there, and no topic without any.
pub fn read(
    request: &OffsetCommitRequest,
    version: i16,
    exists: impl Fn(&str, i32) -> bool,
) -> coord::OffsetCommit {
    coord::OffsetCommit {
        api_version: version,
        group: request.group_id.to_string(),
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id.to_string(),
        instance_id: given(request.group_instance_id.clone()),
        retention_time_ms: request.retention_time_ms,
        topics: request
            .topics
            .iter()
            .map(|topic| coord::OffsetCommitTopic {
                topic: topic.name.to_string(),
                partitions: topic
                    .partitions
                    .iter()
                    .filter(|partition| exists(&topic.name, partition.partition_index))
                    .map(|partition| coord::OffsetCommitPartition {
                        partition: partition.partition_index,
                        offset: Offset(partition.committed_offset),
                        leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
                        metadata: given(partition.committed_metadata.clone()),
                    })
                    .collect(),
            })
            .filter(|topic: &coord::OffsetCommitTopic| !topic.partitions.is_empty())
            .collect(),
    }
}

/// Whether the cluster has that partition.
pub fn exists(image: &Image, topic: &str, partition: i32) -> bool {
    image
        .topic(topic)
        .is_some_and(|topic| topic.partition(partition).is_some())
}

/// What was said of the partitions that the group was asked about.
pub enum Verdicts {
    All(i16),
    Each(HashMap<(String, i32), i16>),
}

impl Verdicts {
    pub fn of(committed: coord::OffsetCommitResponse) -> Verdicts {
        let each = committed.topics.into_iter().flat_map(|topic| {
            let name = topic.topic;
            topic
                .partitions
                .into_iter()
                .map(move |(partition, error)| ((name.clone(), partition), code(error)))
        });
        Verdicts::Each(each.collect())
    }

    fn of_partition(&self, topic: &str, partition: i32) -> i16 {
        match self {
            Verdicts::All(code) => *code,
            // Every partition that was asked about has an answer; one without would be
            // a commit of which nothing is known, and the client had better repeat it.
            Verdicts::Each(each) => *each
                .get(&(topic.to_owned(), partition))
                .unwrap_or(&Code::UNKNOWN_SERVER_ERROR.0),
        }
    }
}

/// One verdict for everything in the request, in its order.
pub fn write(
    request: &OffsetCommitRequest,
    exists: impl Fn(&str, i32) -> bool,
    verdicts: &Verdicts,
) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let error = if exists(&topic.name, index) {
                verdicts.of_partition(&topic.name, index)
            } else {
                Code::UNKNOWN_TOPIC_OR_PARTITION.0
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error)
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}
