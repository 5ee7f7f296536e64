//! DeleteTopics (20), versions 1 to 6.
//!
//! ```text
//!   v1-5  by name     v4  flexible     v5  a message with an error
//!   v6    by name or by id, one of them; an unknown id is 100 (KIP-516)
//! ```

use crate::kafka::cluster::{failure, sentence};
use crate::kafka::context::Context;
use crate::kafka::coordinator::{self, ask, of_cluster};
use crate::kafka::errors::{Code, Failure};
use crate::kafka::group::text;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use klamm_coord::core::cluster::{DeletedTopic, TopicRef};
use klamm_engine::io::Io;
use klamm_engine::units::TopicId;
use std::collections::HashMap;
use uuid::Uuid;

pub async fn handle<I: Io>(ctx: Context<I>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let version = ctx.version;
    let (question, mut results) = read(request, version);
    let asked = question.topics.clone();
    match ask(&ctx, question).await {
        Ok(deleted) => results.extend(deleted.into_iter().map(|topic| write(topic, version))),
        Err(unavailable) => {
            let refused = Failure::from(of_cluster(unavailable));
            results.extend(asked.iter().map(|topic| refuse(topic, refused.clone())));
        }
    }
    DeleteTopicsResponse::default().with_responses(results)
}

/// What the coordinator is asked, and what is refused before it: a topic named twice,
/// one named by both name and id, and one named by neither.
pub fn read(
    request: DeleteTopicsRequest,
    version: i16,
) -> (coordinator::DeleteTopics, Vec<DeletableTopicResult>) {
    let mut refused = Vec::new();
    let mut named = Vec::new();
    if version < 6 {
        named.extend(
            request
                .topic_names
                .iter()
                .map(|n| TopicRef::Name(n.to_string())),
        );
    }
    for topic in request.topics {
        let what = match (topic.name, topic.topic_id) {
            (Some(name), id) if id.is_nil() => {
                named.push(TopicRef::Name(name.to_string()));
                continue;
            }
            (None, id) if !id.is_nil() => {
                named.push(TopicRef::Id(TopicId(id.into_bytes())));
                continue;
            }
            (Some(name), id) => DeletableTopicResult::default()
                .with_name(Some(name))
                .with_topic_id(id)
                .with_error_message(Some(text(
                    "A topic is named by its name or its id, not both.",
                ))),
            (None, _) => DeletableTopicResult::default()
                .with_name(None)
                .with_error_message(Some(text("Neither a topic's name nor its id was given."))),
        };
        refused.push(what.with_error_code(Code::INVALID_REQUEST.0));
    }
    let mut times: HashMap<TopicRef, usize> = HashMap::new();
    for topic in &named {
        *times.entry(topic.clone()).or_default() += 1;
    }
    let mut topics = Vec::new();
    for topic in named {
        match times.get(&topic) {
            Some(1) => topics.push(topic),
            Some(_) => {
                times.remove(&topic);
                let twice = Failure::new(Code::INVALID_REQUEST, "Duplicate topic name or id.");
                refused.push(refuse(&topic, twice));
            }
            None => {}
        }
    }
    (coordinator::DeleteTopics { topics }, refused)
}

pub fn write(topic: DeletedTopic, version: i16) -> DeletableTopicResult {
    let result = DeletableTopicResult::default()
        .with_name(topic.name.map(|name| TopicName(text(name))))
        .with_topic_id(Uuid::from_bytes(topic.id.0));
    match topic.result {
        Ok(()) => result,
        Err(error) => {
            let failure = failure(&error);
            // Versions below 3 do not know that deletion may be off.
            let code = match failure.code {
                Code::TOPIC_DELETION_DISABLED if version < 3 => Code::INVALID_REQUEST,
                code => code,
            };
            result
                .with_error_code(code.0)
                .with_error_message(sentence(failure.message))
        }
    }
}

fn refuse(topic: &TopicRef, failure: Failure) -> DeletableTopicResult {
    let result = match topic {
        TopicRef::Name(name) => {
            DeletableTopicResult::default().with_name(Some(TopicName(text(name.as_str()))))
        }
        TopicRef::Id(id) => DeletableTopicResult::default()
            .with_name(None)
            .with_topic_id(Uuid::from_bytes(id.0)),
    };
    result
        .with_error_code(failure.code.0)
        .with_error_message(sentence(failure.message))
}
