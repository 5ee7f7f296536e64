//! The cluster's znodes: where each fact stands, and Kafka's JSON of it
//! (`ZkData.scala`).
//!
//! ```text
//!   /brokers/ids/N                          who is there, and where to reach it
//!   /brokers/topics/T                       id, and each partition's replicas
//!   /brokers/topics/T/partitions/P/state    leader, leader epoch, in-sync replicas
//!   /config/topics/T   /config/brokers/N    settings; N is <default> for all brokers
//!   /config/changes/config_change_%010d     which settings changed, for a while
//!   /controller   /controller_epoch         who sees to all this, and its term
//!   /cluster/id   /latest_producer_id_block
//! ```
//!
//! Reading takes what older Kafkas wrote and what a hand may have written: what is
//! not understood is None, never a panic.

use super::{Overrides, ids};
use crate::core::image::{Broker, Endpoint, Partition};
use klamm_engine::units::{LeaderEpoch, TimestampMs, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub const BROKERS: &str = "/brokers/ids";
pub const TOPICS: &str = "/brokers/topics";
pub const TOPIC_CONFIGS: &str = "/config/topics";
pub const BROKER_CONFIGS: &str = "/config/brokers";
pub const CLUSTER_ID: &str = "/cluster/id";
pub const PRODUCER_IDS: &str = "/latest_producer_id_block";
pub const CONSUMERS: &str = "/consumers";
pub const CONTROLLER: &str = "/controller";
pub const CONTROLLER_EPOCH: &str = "/controller_epoch";
pub const CONFIG_CHANGES: &str = "/config/changes";
pub const DELETIONS: &str = "/admin/delete_topics";
pub const REASSIGNMENT: &str = "/admin/reassign_partitions";
pub const PREFERRED_ELECTION: &str = "/admin/preferred_replica_election";
pub const ISR_CHANGES: &str = "/isr_change_notification";
pub const LOG_DIR_EVENTS: &str = "/log_dir_event_notification";

/// What is there before the first topic, as Kafka's first start leaves it
/// (`ZkData.PersistentZkPaths`), each with null as its data.
pub const PERSISTENT: [&str; 18] = [
    "/admin",
    DELETIONS,
    "/brokers",
    BROKERS,
    "/brokers/seqid",
    TOPICS,
    "/cluster",
    "/config",
    BROKER_CONFIGS,
    CONFIG_CHANGES,
    "/config/clients",
    "/config/ips",
    TOPIC_CONFIGS,
    "/config/users",
    CONSUMERS,
    ISR_CHANGES,
    PRODUCER_IDS,
    LOG_DIR_EVENTS,
];

pub fn broker(id: i32) -> String {
    format!("{BROKERS}/{id}")
}

pub fn topic(name: &str) -> String {
    format!("{TOPICS}/{name}")
}

pub fn partitions(topic: &str) -> String {
    format!("{TOPICS}/{topic}/partitions")
}

pub fn partition(topic: &str, index: i32) -> String {
    format!("{TOPICS}/{topic}/partitions/{index}")
}

pub fn state(topic: &str, index: i32) -> String {
    format!("{TOPICS}/{topic}/partitions/{index}/state")
}

pub fn topic_config(name: &str) -> String {
    format!("{TOPIC_CONFIGS}/{name}")
}

/// None: the settings of all brokers.
pub fn broker_config(id: Option<i32>) -> String {
    match id {
        Some(id) => format!("{BROKER_CONFIGS}/{id}"),
        None => format!("{BROKER_CONFIGS}/<default>"),
    }
}

// -- topics

#[derive(Serialize, Deserialize)]
struct TopicJson {
    version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<String>,
    partitions: BTreeMap<i32, Vec<i32>>,
    #[serde(default)]
    adding_replicas: BTreeMap<i32, Vec<i32>>,
    #[serde(default)]
    removing_replicas: BTreeMap<i32, Vec<i32>>,
}

/// A topic's node, of version 1, 2 or 3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicNode {
    /// None before the controller has given it one: tools and Kafka before 2.8 wrote
    /// none.
    pub id: Option<TopicId>,
    /// By partition index; none is empty.
    pub replicas: Vec<Vec<i32>>,
    /// Of a reassignment under way. Kept as they were found.
    pub adding: BTreeMap<i32, Vec<i32>>,
    pub removing: BTreeMap<i32, Vec<i32>>,
}

impl TopicNode {
    /// None where it cannot be a topic: its partitions are not 0 to n-1, one has no
    /// replicas or one twice, or what stands for its id is none.
    pub fn read(data: &[u8]) -> Option<TopicNode> {
        let topic: TopicJson = serde_json::from_slice(data).ok()?;
        let id = match topic.topic_id {
            Some(text) => Some(text.parse::<TopicId>().ok()?).filter(|id| *id != TopicId::ZERO),
            None => None,
        };
        let whole = topic
            .partitions
            .keys()
            .copied()
            .eq((0..).take(topic.partitions.len()));
        let assigned = topic.partitions.values().all(|replicas| {
            let distinct: BTreeSet<i32> = replicas.iter().copied().collect();
            !replicas.is_empty()
                && distinct.len() == replicas.len()
                && distinct.first().is_some_and(|id| *id >= 0)
        });
        (whole && assigned && !topic.partitions.is_empty()).then(|| TopicNode {
            id,
            replicas: topic.partitions.into_values().collect(),
            adding: topic.adding_replicas,
            removing: topic.removing_replicas,
        })
    }

    pub fn json(&self) -> Vec<u8> {
        json(&TopicJson {
            version: 3,
            topic_id: self.id.map(|id| id.to_string()),
            partitions: (0..).zip(self.replicas.iter().cloned()).collect(),
            adding_replicas: self.adding.clone(),
            removing_replicas: self.removing.clone(),
        })
    }
}

/// `replicas` by partition index.
pub fn topic_json(id: TopicId, replicas: &[Vec<i32>]) -> Vec<u8> {
    TopicNode {
        id: Some(id),
        replicas: replicas.to_vec(),
        ..TopicNode::default()
    }
    .json()
}

#[derive(Serialize, Deserialize)]
struct StateJson {
    controller_epoch: i32,
    leader: i32,
    version: i32,
    leader_epoch: i32,
    isr: Vec<i32>,
}

pub fn state_json(partition: &Partition, controller_epoch: i32) -> Vec<u8> {
    json(&StateJson {
        controller_epoch,
        leader: partition.leader.unwrap_or(-1),
        version: 1,
        leader_epoch: partition.leader_epoch.0,
        isr: partition.isr.clone(),
    })
}

/// A partition from its replicas and its state node. Without one that can be read it
/// has no leader and nobody in sync.
pub fn read_partition(replicas: Vec<i32>, state: Option<&[u8]>) -> Partition {
    match state.and_then(|data| serde_json::from_slice::<StateJson>(data).ok()) {
        Some(state) => Partition {
            leader: (state.leader >= 0).then_some(state.leader),
            leader_epoch: LeaderEpoch(state.leader_epoch.max(0)),
            replicas,
            isr: state.isr,
        },
        None => Partition {
            leader: None,
            leader_epoch: LeaderEpoch(0),
            replicas,
            isr: Vec::new(),
        },
    }
}

/// Whether a state node holds a state.
pub fn is_state(data: &[u8]) -> bool {
    serde_json::from_slice::<StateJson>(data).is_ok()
}

// -- configs

#[derive(Serialize, Deserialize)]
struct ConfigJson {
    version: i32,
    config: Overrides,
}

pub fn config_json(config: &Overrides) -> Vec<u8> {
    json(&ConfigJson {
        version: 1,
        config: config.clone(),
    })
}

/// What cannot be read counts as nothing set.
pub fn read_config(data: Option<&[u8]>) -> Overrides {
    data.and_then(|data| serde_json::from_slice::<ConfigJson>(data).ok())
        .map(|c| c.config)
        .unwrap_or_default()
}

#[derive(Serialize)]
struct ConfigChangeJson<'a> {
    version: i32,
    entity_path: &'a str,
}

/// Where a notice of changed settings is made, its number behind it.
pub const CONFIG_CHANGE: &str = "/config/changes/config_change_";

/// `entity` is the path of the settings below `/config`: `topics/orders`.
pub fn config_change_json(entity: &str) -> Vec<u8> {
    json(&ConfigChangeJson {
        version: 2,
        entity_path: entity,
    })
}

// -- the controller

#[derive(Serialize, Deserialize)]
struct ControllerJson {
    version: i32,
    brokerid: i32,
    timestamp: String,
    #[serde(rename = "kraftControllerEpoch", default = "no_epoch")]
    kraft_controller_epoch: i32,
}

fn no_epoch() -> i32 {
    -1
}

pub fn controller_json(broker: i32, time: TimestampMs) -> Vec<u8> {
    json(&ControllerJson {
        version: 2,
        brokerid: broker,
        timestamp: time.0.to_string(),
        kraft_controller_epoch: -1,
    })
}

/// The broker that is the controller.
pub fn read_controller(data: &[u8]) -> Option<i32> {
    serde_json::from_slice::<ControllerJson>(data)
        .ok()
        .map(|c| c.brokerid)
}

/// `/controller_epoch` is a plain number.
pub fn read_controller_epoch(data: &[u8]) -> Option<i32> {
    std::str::from_utf8(data).ok()?.trim().parse().ok()
}

#[derive(Deserialize)]
struct PartitionsJson {
    partitions: Vec<PartitionJson>,
}

#[derive(Deserialize)]
struct PartitionJson {
    topic: String,
    partition: i32,
    #[serde(default)]
    replicas: Vec<i32>,
}

/// What `/admin/preferred_replica_election` and `/admin/reassign_partitions` name:
/// topic, partition and, in the latter, the replicas that it is to have.
pub fn read_partitions(data: &[u8]) -> Option<Vec<(String, i32, Vec<i32>)>> {
    let named: PartitionsJson = serde_json::from_slice(data).ok()?;
    let partitions = named.partitions.into_iter();
    Some(
        partitions
            .map(|p| (p.topic, p.partition, p.replicas))
            .collect(),
    )
}

// -- consumers

#[derive(Serialize)]
struct ConsumerJson<'a> {
    version: i32,
    subscription: BTreeMap<&'a str, i32>,
    pattern: &'static str,
    timestamp: String,
}

/// A consumer with one thread for each topic that it subscribed to.
pub fn consumer_json<'a>(topics: impl Iterator<Item = &'a str>, time: TimestampMs) -> Vec<u8> {
    json(&ConsumerJson {
        version: 1,
        subscription: topics.map(|topic| (topic, 1)).collect(),
        pattern: "static",
        timestamp: time.0.to_string(),
    })
}

// -- brokers

#[derive(Serialize, Deserialize)]
struct BrokerJson {
    version: i32,
    host: Option<String>,
    port: i32,
    #[serde(default = "no_port")]
    jmx_port: i32,
    #[serde(default)]
    timestamp: String,
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(default)]
    rack: Option<String>,
    #[serde(default)]
    listener_security_protocol_map: BTreeMap<String, String>,
    #[serde(default)]
    features: BTreeMap<String, serde_json::Value>,
}

fn no_port() -> i32 {
    -1
}

pub fn broker_json(broker: &Broker, time: TimestampMs) -> Vec<u8> {
    let plain = broker.endpoints.iter().find(|e| e.protocol == "PLAINTEXT");
    json(&BrokerJson {
        version: 5,
        host: plain.map(|e| e.host.clone()),
        port: plain.map_or(-1, |e| i32::from(e.port)),
        jmx_port: -1,
        timestamp: time.0.to_string(),
        endpoints: broker
            .endpoints
            .iter()
            .map(|e| format!("{}://{}:{}", e.listener, bracketed(&e.host), e.port))
            .collect(),
        rack: broker.rack.clone(),
        listener_security_protocol_map: broker
            .endpoints
            .iter()
            .map(|e| (e.listener.clone(), e.protocol.clone()))
            .collect(),
        features: broker
            .hosts_coordinator
            .then(|| (HOSTS_COORDINATOR.to_owned(), feature_version(1)))
            .into_iter()
            .collect(),
    })
}

/// The feature of a broker in whose process the coordinator runs: it looks after all
/// groups. Kafka's own readers take it for a feature that they do not know.
const HOSTS_COORDINATOR: &str = "klamm.coordinator";

fn feature_version(version: i16) -> serde_json::Value {
    serde_json::json!({ "min_version": version, "max_version": version })
}

/// An IPv6 address stands in brackets in a URL.
fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

pub fn read_broker(id: i32, data: &[u8]) -> Option<Broker> {
    let broker: BrokerJson = serde_json::from_slice(data).ok()?;
    let mut endpoints: Vec<Endpoint> = broker
        .endpoints
        .iter()
        .filter_map(|text| {
            let (listener, address) = text.split_once("://")?;
            let (host, port) = address.rsplit_once(':')?;
            let host = host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .unwrap_or(host);
            let protocol = broker
                .listener_security_protocol_map
                .get(listener)
                .map_or(listener, String::as_str);
            Some(Endpoint {
                listener: listener.to_owned(),
                protocol: protocol.to_owned(),
                host: host.to_owned(),
                port: port.parse().ok()?,
            })
        })
        .collect();
    if endpoints.is_empty() {
        // Version 1, of Kafka 0.8, has only these two.
        endpoints.push(Endpoint {
            listener: "PLAINTEXT".to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: broker.host?,
            port: u16::try_from(broker.port).ok()?,
        });
    }
    Some(Broker {
        id,
        rack: broker.rack,
        endpoints,
        hosts_coordinator: broker.features.contains_key(HOSTS_COORDINATOR),
    })
}

// -- the cluster's id, producer ids

#[derive(Serialize, Deserialize)]
struct ClusterIdJson {
    version: String,
    id: String,
}

pub fn cluster_id_json(id: &str) -> Vec<u8> {
    json(&ClusterIdJson {
        version: "1".to_owned(),
        id: id.to_owned(),
    })
}

pub fn read_cluster_id(data: &[u8]) -> Option<String> {
    serde_json::from_slice::<ClusterIdJson>(data)
        .ok()
        .map(|c| c.id)
}

#[derive(Serialize, Deserialize)]
struct ProducerBlockJson {
    version: i32,
    broker: i32,
    block_start: String,
    block_end: String,
}

/// The block's last id is in it, as Kafka has it: 0 to 999.
pub fn producer_block_json(broker: i32, start: i64) -> Vec<u8> {
    json(&ProducerBlockJson {
        version: 1,
        broker,
        block_start: start.to_string(),
        block_end: (start + ids::BLOCK - 1).to_string(),
    })
}

/// The last id of the latest block.
pub fn read_producer_block(data: &[u8]) -> Option<i64> {
    let block: ProducerBlockJson = serde_json::from_slice(data).ok()?;
    block.block_end.parse().ok().filter(|end| *end >= 0)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have no part that JSON lacks")
}

#[cfg(test)]
mod tests;
