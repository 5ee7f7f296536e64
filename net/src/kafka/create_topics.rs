//! CreateTopics (19), versions 2 to 7.
//!
//! ```text
//!   v4  -1 partitions or replicas: the broker's defaults (KIP-464); no check here
//!       forbids it to older versions, and Kafka has none either
//!   v5  flexible; the answer tells partitions, replicas and settings (KIP-525)
//!   v7  the answer tells the topic's id (KIP-516)
//! ```
//!
//! The answer comes when the topic is committed and this shard knows it; the request's
//! timeout is then over or not, and nothing is gained by saying so.

use crate::kafka::cluster::{failure, sentence};
use crate::kafka::context::Context;
use crate::kafka::coordinator::{self, ask, of_cluster};
use crate::kafka::errors::{Code, Failure};
use crate::kafka::group::{given, text};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use klamm_coord::core::cluster::{CreatedTopic, Named, NewTopic};
use klamm_engine::io::Io;
use std::collections::HashMap;
use uuid::Uuid;

pub async fn handle<I: Io>(ctx: Context<I>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let (question, mut results) = read(request);
    let names: Vec<_> = question.topics.iter().map(|t| t.name.clone()).collect();
    match ask(&ctx, question).await {
        Ok(created) => results.extend(write(created)),
        Err(unavailable) => {
            let refused = Failure::from(of_cluster(unavailable));
            results.extend(names.iter().map(|name| refuse(name, refused.clone())));
        }
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// What the coordinator is asked, and what is refused before: a topic that the
/// request has twice is created neither way, and answered once.
pub fn read(
    request: CreateTopicsRequest,
) -> (coordinator::CreateTopics, Vec<CreatableTopicResult>) {
    let mut times: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut refused = Vec::new();
    let mut topics = Vec::new();
    for topic in request.topics {
        match times.get(topic.name.as_str()) {
            Some(1) => topics.push(new_topic(topic)),
            Some(_) => {
                times.remove(topic.name.as_str());
                let twice = Failure::new(Code::INVALID_REQUEST, "Duplicate topic name.");
                refused.push(refuse(&topic.name, twice));
            }
            None => {}
        }
    }
    let validate_only = request.validate_only;
    let question = coordinator::CreateTopics {
        topics,
        validate_only,
    };
    (question, refused)
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignment: topic
            .assignments
            .into_iter()
            .map(|a| {
                let replicas = a.broker_ids.iter().map(|id| id.0).collect();
                (a.partition_index, replicas)
            })
            .collect(),
        configs: topic
            .configs
            .into_iter()
            .map(|config| (config.name.to_string(), given(config.value)))
            .collect(),
    }
}

pub fn write(created: Named<CreatedTopic>) -> impl Iterator<Item = CreatableTopicResult> {
    created.into_iter().map(|(name, result)| match result {
        Ok(topic) => CreatableTopicResult::default()
            .with_name(TopicName(text(name)))
            .with_topic_id(Uuid::from_bytes(topic.id.0))
            .with_error_message(None)
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor)
            .with_configs(Some(topic.configs.into_iter().map(config).collect())),
        Err(error) => refuse(&name, failure(&error)),
    })
}

fn config(entry: klamm_coord::core::settings::ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(text(entry.name))
        .with_value(entry.value.map(text))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(entry.sensitive)
}

fn refuse(name: &str, failure: Failure) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(TopicName(text(name)))
        .with_error_code(failure.code.0)
        .with_error_message(sentence(failure.message))
}
