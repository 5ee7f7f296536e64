//! CreatePartitions (37), versions 0 to 3: a topic gets more partitions.
//!
//! ```text
//!   v2  flexible      v3  only says that quotas apply
//! ```
//!
//! One result for every topic of the request, each named once.

use crate::kafka::cluster::{failure, sentence};
use crate::kafka::context::Context;
use crate::kafka::coordinator::{self, ask, of_cluster};
use crate::kafka::errors::{Code, Failure};
use crate::kafka::group::text;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use klamm_coord::core::cluster::{Named, NewPartitions};
use klamm_engine::io::Io;
use std::collections::HashMap;

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let (question, mut results) = read(request);
    let names: Vec<_> = question.topics.iter().map(|t| t.topic.clone()).collect();
    match ask(&ctx, question).await {
        Ok(created) => results.extend(write(created)),
        Err(unavailable) => {
            let refused = Failure::from(of_cluster(unavailable));
            results.extend(names.iter().map(|name| result(name, Some(refused.clone()))));
        }
    }
    CreatePartitionsResponse::default().with_results(results)
}

/// What the coordinator is asked, and what is refused before it: a topic that the
/// request has twice.
pub fn read(
    request: CreatePartitionsRequest,
) -> (
    coordinator::CreatePartitions,
    Vec<CreatePartitionsTopicResult>,
) {
    let mut times: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut refused = Vec::new();
    let mut topics = Vec::new();
    for topic in request.topics {
        match times.get(topic.name.as_str()) {
            Some(1) => topics.push(new_partitions(topic)),
            Some(_) => {
                times.remove(topic.name.as_str());
                let twice = Failure::new(Code::INVALID_REQUEST, "Duplicate topic name.");
                refused.push(result(&topic.name, Some(twice)));
            }
            None => {}
        }
    }
    let validate_only = request.validate_only;
    let question = coordinator::CreatePartitions {
        topics,
        validate_only,
    };
    (question, refused)
}

fn new_partitions(topic: CreatePartitionsTopic) -> NewPartitions {
    NewPartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.map(|assignments| {
            assignments
                .into_iter()
                .map(|one| one.broker_ids.iter().map(|id| id.0).collect())
                .collect()
        }),
    }
}

pub fn write(created: Named<()>) -> impl Iterator<Item = CreatePartitionsTopicResult> {
    created
        .into_iter()
        .map(|(name, verdict)| result(&name, verdict.err().map(|error| failure(&error))))
}

fn result(name: &str, failure: Option<Failure>) -> CreatePartitionsTopicResult {
    let mut result = CreatePartitionsTopicResult::default();
    result.name = TopicName(text(name));
    result.error_message = None;
    if let Some(failure) = failure {
        result.error_code = failure.code.0;
        result.error_message = sentence(failure.message);
    }
    result
}
