//! Topics and their configs: create, delete, grow, describe, alter.
//!
//! What changes something is sent again only after an error that says that nothing
//! was done, so a lost answer is reported, not hidden behind a TOPIC_ALREADY_EXISTS.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_configs_request as alter_v0;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::error::{ClientError, Result};
use super::{Client, Connection, Retry, topic_id};

/// `ConfigResource.Type.TOPIC`
const RESOURCE_TOPIC: i8 = 2;
/// `ConfigSource.DYNAMIC_TOPIC_CONFIG`: set on the topic itself.
const SOURCE_TOPIC: i8 = 1;

#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    /// None: the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// None: the broker's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    pub configs: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Created {
    /// What brokers older than 2.4 do not say.
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    pub id: Option<String>,
}

#[derive(Clone, Debug)]
pub struct ConfigEntry {
    pub name: String,
    /// None: it has none, or it is a secret.
    pub value: Option<String>,
    pub source: &'static str,
    /// Set on the topic itself rather than inherited.
    pub own: bool,
    pub read_only: bool,
    pub sensitive: bool,
}

/// What IncrementalAlterConfigs can do to a setting (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    Set(String, String),
    Delete(String),
    Append(String, String),
    Subtract(String, String),
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_string())
}

fn name(s: &str) -> TopicName {
    TopicName(text(s))
}

fn timeout_ms(connection: &Connection) -> i32 {
    i32::try_from(connection.timeout().as_millis()).unwrap_or(i32::MAX)
}

/// The outcome of each thing asked for, in the order asked.
pub type Outcomes<T> = Vec<(String, Result<T>)>;

impl Client {
    pub fn create_topics(
        &mut self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Outcomes<Created>> {
        self.retrying(Retry::WithCare, |client| {
            let hold = client.timeout();
            let connection = client.controller()?;
            // The broker's own defaults can be asked for from version 4 on (KIP-464).
            let version = connection.version_of::<CreateTopicsRequest>(7)?;
            if version < 4
                && let Some(t) = topics
                    .iter()
                    .find(|t| t.partitions.is_none() || t.replication_factor.is_none())
            {
                return Err(ClientError::Missing(format!(
                    "topic {}: {} is older than Kafka 2.4 and takes no defaults; give \
                     --partitions and --replication-factor",
                    t.name,
                    connection.broker()
                )));
            }
            let timeout_ms = timeout_ms(connection);
            let request: Vec<_> = topics
                .iter()
                .map(|t| {
                    CreatableTopic::default()
                        .with_name(name(&t.name))
                        .with_num_partitions(t.partitions.unwrap_or(-1))
                        .with_replication_factor(t.replication_factor.unwrap_or(-1))
                        .with_configs(
                            t.configs
                                .iter()
                                .map(|(k, v)| {
                                    CreatableTopicConfig::default()
                                        .with_name(text(k))
                                        .with_value(Some(text(v)))
                                })
                                .collect(),
                        )
                })
                .collect();
            let answer = connection.call_held::<CreateTopicsRequest>(7, hold, |_| {
                CreateTopicsRequest::default()
                    .with_topics(request)
                    .with_timeout_ms(timeout_ms)
                    .with_validate_only(validate_only)
            })?;
            let mut outcomes = BTreeMap::new();
            for t in answer.topics {
                let topic = t.name.0.to_string();
                let outcome = if t.error_code == 0 {
                    Ok(Created {
                        partitions: Some(t.num_partitions).filter(|n| *n > 0),
                        replication_factor: Some(t.replication_factor).filter(|n| *n > 0),
                        id: topic_id(t.topic_id),
                    })
                } else {
                    Err(connection.refused(
                        ApiKey::CreateTopics,
                        t.error_code,
                        format!("topic {topic}"),
                        t.error_message.as_ref(),
                    ))
                };
                outcomes.insert(topic, outcome);
            }
            in_order(topics.iter().map(|t| t.name.as_str()), outcomes)
        })
    }

    pub fn delete_topics(&mut self, topics: &[String]) -> Result<Outcomes<()>> {
        self.retrying(Retry::WithCare, |client| {
            let hold = client.timeout();
            let connection = client.controller()?;
            let timeout_ms = timeout_ms(connection);
            let answer = connection.call_held::<DeleteTopicsRequest>(6, hold, |version| {
                let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
                if version >= 6 {
                    request.with_topics(
                        topics
                            .iter()
                            .map(|t| DeleteTopicState::default().with_name(Some(name(t))))
                            .collect(),
                    )
                } else {
                    request.with_topic_names(topics.iter().map(|t| name(t)).collect())
                }
            })?;
            let mut outcomes = BTreeMap::new();
            for t in answer.responses {
                let topic = t.name.map(|n| n.0.to_string()).unwrap_or_default();
                let outcome = refusal(
                    connection,
                    ApiKey::DeleteTopics,
                    t.error_code,
                    &topic,
                    t.error_message.as_ref(),
                );
                outcomes.insert(topic, outcome);
            }
            in_order(topics.iter().map(String::as_str), outcomes)
        })
    }

    pub fn create_partitions(
        &mut self,
        topic: &str,
        count: i32,
        validate_only: bool,
    ) -> Result<()> {
        self.retrying(Retry::WithCare, |client| {
            let hold = client.timeout();
            let connection = client.controller()?;
            let timeout_ms = timeout_ms(connection);
            let answer = connection.call_held::<CreatePartitionsRequest>(3, hold, |_| {
                CreatePartitionsRequest::default()
                    .with_topics(vec![
                        CreatePartitionsTopic::default()
                            .with_name(name(topic))
                            .with_count(count)
                            .with_assignments(None),
                    ])
                    .with_timeout_ms(timeout_ms)
                    .with_validate_only(validate_only)
            })?;
            let t = the_one(answer.results, "CreatePartitions", topic)?;
            refusal(
                connection,
                ApiKey::CreatePartitions,
                t.error_code,
                topic,
                t.error_message.as_ref(),
            )
        })
    }

    pub fn describe_topic_configs(
        &mut self,
        topics: &[String],
    ) -> Result<BTreeMap<String, Vec<ConfigEntry>>> {
        if topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.retrying(Retry::Freely, |client| {
            let connection = client.any()?;
            let answer = connection.call::<DescribeConfigsRequest>(4, |_| {
                DescribeConfigsRequest::default().with_resources(
                    topics
                        .iter()
                        .map(|t| {
                            DescribeConfigsResource::default()
                                .with_resource_type(RESOURCE_TOPIC)
                                .with_resource_name(text(t))
                                .with_configuration_keys(None)
                        })
                        .collect(),
                )
            })?;
            let mut found = BTreeMap::new();
            for r in answer.results {
                let topic = r.resource_name.to_string();
                refusal(
                    connection,
                    ApiKey::DescribeConfigs,
                    r.error_code,
                    &topic,
                    r.error_message.as_ref(),
                )?;
                let mut entries: Vec<_> = r
                    .configs
                    .into_iter()
                    .map(|c| ConfigEntry {
                        name: c.name.to_string(),
                        value: c.value.map(|v| v.to_string()),
                        source: source_name(c.config_source),
                        own: c.config_source == SOURCE_TOPIC,
                        read_only: c.read_only,
                        sensitive: c.is_sensitive,
                    })
                    .collect();
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                found.insert(topic, entries);
            }
            Ok(found)
        })
    }

    /// All alterations or none: the broker checks them together.
    pub fn alter_topic_configs(
        &mut self,
        topic: &str,
        alterations: &[Alteration],
        validate_only: bool,
    ) -> Result<()> {
        let incremental = self
            .any()?
            .version_of::<IncrementalAlterConfigsRequest>(1)
            .is_ok();
        if !incremental {
            return self.alter_topic_configs_whole(topic, alterations, validate_only);
        }
        self.retrying(Retry::WithCare, |client| {
            let connection = client.controller()?;
            let configs = alterations
                .iter()
                .map(|a| {
                    let (key, operation, value) = match a {
                        Alteration::Set(k, v) => (k, 0, Some(v)),
                        Alteration::Delete(k) => (k, 1, None),
                        Alteration::Append(k, v) => (k, 2, Some(v)),
                        Alteration::Subtract(k, v) => (k, 3, Some(v)),
                    };
                    AlterableConfig::default()
                        .with_name(text(key))
                        .with_config_operation(operation)
                        .with_value(value.map(|v| text(v)))
                })
                .collect();
            let answer = connection.call::<IncrementalAlterConfigsRequest>(1, |_| {
                IncrementalAlterConfigsRequest::default()
                    .with_resources(vec![
                        AlterConfigsResource::default()
                            .with_resource_type(RESOURCE_TOPIC)
                            .with_resource_name(text(topic))
                            .with_configs(configs),
                    ])
                    .with_validate_only(validate_only)
            })?;
            let r = the_one(answer.responses, "IncrementalAlterConfigs", topic)?;
            refusal(
                connection,
                ApiKey::IncrementalAlterConfigs,
                r.error_code,
                topic,
                r.error_message.as_ref(),
            )
        })
    }

    /// Before Kafka 2.3 a topic's settings could only be replaced as a whole: read
    /// them, change them, write them back.
    fn alter_topic_configs_whole(
        &mut self,
        topic: &str,
        alterations: &[Alteration],
        validate_only: bool,
    ) -> Result<()> {
        let mut now: BTreeMap<String, String> = self
            .describe_topic_configs(&[topic.to_string()])?
            .remove(topic)
            .unwrap_or_default()
            .into_iter()
            .filter(|c| c.own)
            .filter_map(|c| Some((c.name, c.value?)))
            .collect();
        apply(&mut now, alterations);
        self.retrying(Retry::WithCare, |client| {
            let connection = client.controller()?;
            let configs = now
                .iter()
                .map(|(k, v)| {
                    alter_v0::AlterableConfig::default()
                        .with_name(text(k))
                        .with_value(Some(text(v)))
                })
                .collect();
            let answer = connection.call::<AlterConfigsRequest>(2, |_| {
                AlterConfigsRequest::default()
                    .with_resources(vec![
                        alter_v0::AlterConfigsResource::default()
                            .with_resource_type(RESOURCE_TOPIC)
                            .with_resource_name(text(topic))
                            .with_configs(configs),
                    ])
                    .with_validate_only(validate_only)
            })?;
            let r = the_one(answer.responses, "AlterConfigs", topic)?;
            refusal(
                connection,
                ApiKey::AlterConfigs,
                r.error_code,
                topic,
                r.error_message.as_ref(),
            )
        })
    }
}

fn apply(settings: &mut BTreeMap<String, String>, alterations: &[Alteration]) {
    let items = |list: Option<&String>| -> Vec<String> {
        list.map(|l| {
            l.split(',')
                .filter(|i| !i.is_empty())
                .map(String::from)
                .collect()
        })
        .unwrap_or_default()
    };
    for a in alterations {
        match a {
            Alteration::Set(k, v) => {
                settings.insert(k.clone(), v.clone());
            }
            Alteration::Delete(k) => {
                settings.remove(k);
            }
            Alteration::Append(k, v) => {
                let mut list = items(settings.get(k));
                for item in items(Some(v)) {
                    if !list.contains(&item) {
                        list.push(item);
                    }
                }
                settings.insert(k.clone(), list.join(","));
            }
            Alteration::Subtract(k, v) => {
                let without = items(Some(v));
                let mut list = items(settings.get(k));
                list.retain(|i| !without.contains(i));
                settings.insert(k.clone(), list.join(","));
            }
        }
    }
}

fn refusal(
    connection: &Connection,
    key: ApiKey,
    code: i16,
    topic: &str,
    message: Option<&StrBytes>,
) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(connection.refused(key, code, format!("topic {topic}"), message))
    }
}

fn the_one<T>(results: Vec<T>, api: &str, topic: &str) -> Result<T> {
    results.into_iter().next().ok_or_else(|| {
        ClientError::Missing(format!("the broker's {api} answer leaves {topic} out"))
    })
}

fn in_order<'a, T>(
    asked: impl Iterator<Item = &'a str>,
    mut outcomes: BTreeMap<String, Result<T>>,
) -> Result<Outcomes<T>> {
    Ok(asked
        .map(|name| {
            let outcome = outcomes.remove(name).unwrap_or_else(|| {
                Err(ClientError::Missing(format!(
                    "the broker's answer leaves topic {name} out"
                )))
            });
            (name.to_string(), outcome)
        })
        .collect())
}

fn source_name(source: i8) -> &'static str {
    match source {
        1 => "topic",
        2 | 4 => "broker",
        3 => "cluster",
        5 => "default",
        8 => "group",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alterations_for_old_brokers_do_what_new_brokers_do() {
        let mut settings: BTreeMap<String, String> = [
            ("retention.ms", "1000"),
            ("cleanup.policy", "delete"),
            ("x", "a,b,c"),
        ]
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .into();
        apply(
            &mut settings,
            &[
                Alteration::Delete("retention.ms".into()),
                Alteration::Append("cleanup.policy".into(), "compact,delete".into()),
                Alteration::Subtract("x".into(), "b".into()),
                Alteration::Set("y".into(), "1".into()),
            ],
        );
        let now: Vec<_> = settings
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            now,
            [
                ("cleanup.policy", "delete,compact"),
                ("x", "a,c"),
                ("y", "1")
            ]
        );
    }
}
