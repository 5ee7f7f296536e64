//! Metadata (key 3, versions 0-12): which brokers there are, and who leads what.
//!
//! ```text
//!   topics null (v0: empty)   all
//!   topics [name | id]        these; one that is not there is created, if the client
//!                             and `auto.create.topics.enable` both say so
//! ```
//!
//! The answer is one image of the cluster. After a creation the image that has the
//! topic is waited for, so that a client's first produce finds it.

use crate::kafka::cluster;
use crate::kafka::context::Context;
use crate::kafka::errors::Code;
use crate::kafka::nodes::Nodes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;
use klamm_coord::core::cluster::{ClusterErrorKind, NewTopic};
use klamm_coord::core::coordinator::{Request, Response};
use klamm_coord::core::image::{Image, Topic};
use klamm_engine::io::Io;
use klamm_engine::units::{PartitionId, TopicId};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use uuid::Uuid;

/// What this broker lets anyone do with a topic or the cluster, as a set of
/// `AclOperation` numbers: there are no ACLs yet, so everything that applies.
const TOPIC_OPERATIONS: i32 = operations(&[3, 4, 5, 6, 7, 8, 10, 11]);
const CLUSTER_OPERATIONS: i32 = operations(&[5, 7, 8, 9, 10, 11, 12]);
/// Kafka's "not asked for".
const NO_OPERATIONS: i32 = i32::MIN;

/// How long the image of a topic that was just created is waited for; then the client
/// is told to ask again.
const IMAGE_WAIT: Duration = Duration::from_secs(1);

const fn operations(numbers: &[u32]) -> i32 {
    let mut set = 0;
    let mut at = 0;
    while at < numbers.len() {
        set |= 1 << numbers[at];
        at += 1;
    }
    set
}

pub async fn handle<I: Io>(ctx: Context<I>, request: MetadataRequest) -> MetadataResponse {
    let with_operations = request.include_topic_authorized_operations;
    let asked = match &request.topics {
        None => None,
        Some(topics) if topics.is_empty() && ctx.version == 0 => None,
        Some(topics) => Some(topics),
    };
    let mut refused = HashMap::new();
    if let Some(topics) = asked
        && request.allow_auto_topic_creation
        && ctx.image().settings.auto_create_topics_enable
    {
        refused = create_missing(&ctx, topics).await;
    }
    let image = ctx.image();
    let nodes = Nodes::of(&image, &ctx.local.listener);
    let topics: Vec<MetadataResponseTopic> = match asked {
        None => image
            .topics()
            .map(|topic| describe(ctx.version, &image, &nodes, topic))
            .collect(),
        Some(topics) => topics
            .iter()
            .map(|topic| answer_one(ctx.version, &image, &nodes, topic, &refused))
            .collect(),
    };
    let topics = topics.into_iter().map(|topic| {
        let known = topic.error_code == 0;
        topic.with_topic_authorized_operations(if with_operations && known {
            TOPIC_OPERATIONS
        } else {
            NO_OPERATIONS
        })
    });
    let cluster = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        NO_OPERATIONS
    };
    MetadataResponse::default()
        .with_brokers(brokers(&nodes))
        .with_cluster_id(Some(text(&image.cluster_id)))
        .with_controller_id(BrokerId(image.controller.unwrap_or(-1)))
        .with_topics(topics.collect())
        .with_cluster_authorized_operations(cluster)
}

/// Creates the topics that are asked for by name and not there; returns why, where it
/// could not be.
async fn create_missing<I: Io>(
    ctx: &Context<I>,
    topics: &[MetadataRequestTopic],
) -> HashMap<String, Code> {
    let image = ctx.image();
    let missing: BTreeSet<&str> = topics
        .iter()
        .filter(|topic| topic.topic_id.is_nil())
        .filter_map(|topic| topic.name.as_ref().map(|name| name.as_str()))
        .filter(|name| is_legal_topic_name(name) && image.topic(name).is_none())
        .collect();
    if missing.is_empty() {
        return HashMap::new();
    }
    let topics = missing.iter().map(|name| NewTopic {
        name: (*name).to_owned(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    });
    let request = Request::CreateTopics {
        topics: topics.collect(),
        validate_only: false,
    };
    let created = match ctx.coordinator(request).await {
        Ok(Response::CreateTopics(created)) => created,
        Ok(other) => unreachable!("CreateTopics was answered with {other:?}"),
        Err(_) => {
            let unavailable = |name: &&str| ((*name).to_owned(), Code::LEADER_NOT_AVAILABLE);
            return missing.iter().map(unavailable).collect();
        }
    };
    let mut refused = HashMap::new();
    let mut awaited = Vec::new();
    for (name, result) in created {
        match result {
            Ok(_) => {
                log::info!(
                    "topic {name:?} was created, because client {:?} at {} asked for it",
                    ctx.client_id(),
                    ctx.peer.address
                );
                awaited.push(name);
            }
            // Somebody else was faster.
            Err(e) if e.kind == ClusterErrorKind::TopicAlreadyExists => awaited.push(name),
            Err(e) => {
                log::warn!("topic {name:?} could not be created: {e}");
                refused.insert(name, cluster::code(e.kind));
            }
        }
    }
    ctx.local
        .image_where(IMAGE_WAIT, move |image| {
            awaited.iter().all(|name| image.topic(name).is_some())
        })
        .await;
    refused
}

fn answer_one(
    version: i16,
    image: &Image,
    nodes: &Nodes<'_>,
    asked: &MetadataRequestTopic,
    refused: &HashMap<String, Code>,
) -> MetadataResponseTopic {
    if !asked.topic_id.is_nil() {
        // By id from version 12 on.
        if version < 12 {
            return failed(version, asked, Code::INVALID_REQUEST);
        }
        let id = TopicId(*asked.topic_id.as_bytes());
        return match image.topic_by_id(id) {
            Some(topic) => describe(version, image, nodes, topic),
            None => failed(version, asked, Code::UNKNOWN_TOPIC_ID),
        };
    }
    let Some(name) = asked.name.as_ref().map(|name| name.as_str()) else {
        return failed(version, asked, Code::INVALID_REQUEST);
    };
    if let Some(topic) = image.topic(name) {
        return describe(version, image, nodes, topic);
    }
    let code = match refused.get(name) {
        Some(code) => *code,
        None if !is_legal_topic_name(name) => Code::INVALID_TOPIC_EXCEPTION,
        None => Code::UNKNOWN_TOPIC_OR_PARTITION,
    };
    failed(version, asked, code)
}

fn failed(version: i16, asked: &MetadataRequestTopic, code: Code) -> MetadataResponseTopic {
    let name = match &asked.name {
        Some(name) => Some(name.clone()),
        None if version >= 12 => None,
        None => Some(StrBytes::default().into()),
    };
    MetadataResponseTopic::default()
        .with_error_code(code.0)
        .with_name(name)
        .with_topic_id(asked.topic_id)
}

fn describe(
    version: i16,
    image: &Image,
    nodes: &Nodes<'_>,
    topic: &Topic,
) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().zip(0..).map(|(p, index)| {
        let is_there = |id: &i32| image.brokers.contains_key(id);
        let id = PartitionId {
            topic: topic.id,
            index,
        };
        let node = |broker: i32| BrokerId(nodes.home(broker, id));
        let leader = p.leader.filter(is_there);
        let ids = |ids: &[i32]| ids.iter().copied().map(node).collect();
        let offline: Vec<i32> = p
            .replicas
            .iter()
            .copied()
            .filter(|id| !is_there(id))
            .collect();
        let code = match leader {
            Some(_) => Code::NONE,
            None => Code::LEADER_NOT_AVAILABLE,
        };
        MetadataResponsePartition::default()
            .with_error_code(code.0)
            .with_partition_index(index)
            .with_leader_id(leader.map_or(BrokerId(-1), node))
            .with_leader_epoch(p.leader_epoch.0)
            .with_replica_nodes(ids(&p.replicas))
            .with_isr_nodes(ids(&p.isr))
            .with_offline_replicas(ids(&offline))
    });
    let id = if version >= 10 {
        Uuid::from_bytes(topic.id.0)
    } else {
        Uuid::nil()
    };
    MetadataResponseTopic::default()
        .with_name(Some(text(&topic.name).into()))
        .with_topic_id(id)
        .with_is_internal(false)
        .with_partitions(partitions.collect())
}

fn brokers(nodes: &Nodes<'_>) -> Vec<MetadataResponseBroker> {
    let brokers = nodes.all().map(|node| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(node.id))
            .with_host(text(&node.endpoint.host))
            .with_port(i32::from(node.endpoint.port))
            .with_rack(node.rack.map(text))
    });
    brokers.collect()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Kafka's rule (`Topic.java`): it keeps a name from being a path.
pub fn is_legal_topic_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(legal)
}
