//! OffsetDelete (47), version 0: a group forgets its place in partitions (KIP-496).
//!
//! Refused with 86 for a topic that members of the group are subscribed to.

use crate::kafka::context::Context;
use crate::kafka::errors::Code;
use crate::kafka::group::{self, code};
use crate::kafka::offset_commit::exists;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;
use std::collections::HashMap;

pub async fn handle<I: Io>(ctx: Context<I>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = ctx.image();
    let exists = |topic: &str, partition: i32| exists(&image, topic, partition);
    match group::ask(&ctx, read(&request, exists)).await {
        Ok(deleted) => write(&request, exists, deleted),
        Err(unavailable) => OffsetDeleteResponse::default().with_error_code(unavailable.0),
    }
}

pub fn read(
    request: &OffsetDeleteRequest,
    exists: impl Fn(&str, i32) -> bool,
) -> coord::OffsetDelete {
    coord::OffsetDelete {
        group: request.group_id.to_string(),
        topics: request
            .topics
            .iter()
            .map(|topic| {
                let there = topic
                    .partitions
                    .iter()
                    .map(|partition| partition.partition_index)
                    .filter(|&partition| exists(&topic.name, partition));
                (topic.name.to_string(), there.collect::<Vec<_>>())
            })
            .filter(|(_, partitions)| !partitions.is_empty())
            .collect(),
    }
}

/// An error of the group alone; else one verdict for each partition of the request.
pub fn write(
    request: &OffsetDeleteRequest,
    exists: impl Fn(&str, i32) -> bool,
    deleted: coord::OffsetDeleteResponse,
) -> OffsetDeleteResponse {
    if deleted.error.is_some() {
        return OffsetDeleteResponse::default().with_error_code(code(deleted.error));
    }
    let verdicts: HashMap<(&str, i32), i16> = deleted
        .topics
        .iter()
        .flat_map(|topic| {
            let name = topic.topic.as_str();
            let each = topic.partitions.iter();
            each.map(move |&(partition, error)| ((name, partition), code(error)))
        })
        .collect();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let error = if exists(&topic.name, index) {
                *verdicts
                    .get(&(topic.name.as_str(), index))
                    .unwrap_or(&Code::UNKNOWN_SERVER_ERROR.0)
            } else {
                Code::UNKNOWN_TOPIC_OR_PARTITION.0
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error)
        });
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
