//! The cluster's znodes: where each fact stands, and Kafka's JSON of it
//! (`ZkData.scala`).
//!
//! ```text
//!   /brokers/ids/N                          who is there, and where to reach it
//!   /brokers/topics/T                       id, and each partition's replicas
//!   /brokers/topics/T/partitions/P/state    leader, leader epoch, in-sync replicas
//!   /config/topics/T   /config/brokers/N    settings; N is <default> for all brokers
//!   /cluster/id   /latest_producer_id_block
//! ```
//!
//! Reading takes what older Kafkas wrote and what a hand may have written: what is
//! not understood is None, never a panic.

use super::{Overrides, ids};
use crate::core::image::{Broker, Endpoint, Partition};
use klamm_engine::units::{LeaderEpoch, TimestampMs, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const BROKERS: &str = "/brokers/ids";
pub const TOPICS: &str = "/brokers/topics";
pub const TOPIC_CONFIGS: &str = "/config/topics";
pub const BROKER_CONFIGS: &str = "/config/brokers";
pub const CLUSTER_ID: &str = "/cluster/id";
pub const PRODUCER_IDS: &str = "/latest_producer_id_block";
pub const CONSUMERS: &str = "/consumers";

/// What is there before the first topic, as Kafka's first start leaves it.
pub const PERSISTENT: [&str; 16] = [
    "/admin",
    "/admin/delete_topics",
    "/brokers",
    BROKERS,
    "/brokers/seqid",
    TOPICS,
    "/cluster",
    "/config",
    BROKER_CONFIGS,
    "/config/changes",
    "/config/clients",
    "/config/ips",
    TOPIC_CONFIGS,
    "/config/users",
    CONSUMERS,
    "/isr_change_notification",
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

/// `replicas` by partition index.
pub fn topic_json(id: TopicId, replicas: &[Vec<i32>]) -> Vec<u8> {
    json(&TopicJson {
        version: 3,
        topic_id: Some(id.to_string()),
        partitions: (0..).zip(replicas.iter().cloned()).collect(),
        adding_replicas: BTreeMap::new(),
        removing_replicas: BTreeMap::new(),
    })
}

/// The id and each partition's replicas. None too where the topic has no id (Kafka
/// before 2.8 wrote none) or its partitions are not 0 to n-1.
pub fn read_topic(data: &[u8]) -> Option<(TopicId, Vec<Vec<i32>>)> {
    let topic: TopicJson = serde_json::from_slice(data).ok()?;
    let id: TopicId = topic.topic_id?.parse().ok()?;
    let whole = topic
        .partitions
        .keys()
        .copied()
        .eq((0..).take(topic.partitions.len()));
    (id != TopicId::ZERO && whole && !topic.partitions.is_empty())
        .then(|| (id, topic.partitions.into_values().collect()))
}

#[derive(Serialize, Deserialize)]
struct StateJson {
    controller_epoch: i32,
    leader: i32,
    version: i32,
    leader_epoch: i32,
    isr: Vec<i32>,
}

pub fn state_json(partition: &Partition) -> Vec<u8> {
    json(&StateJson {
        controller_epoch: 1,
        leader: partition.leader.unwrap_or(-1),
        version: 1,
        leader_epoch: partition.leader_epoch.0,
        isr: partition.isr.clone(),
    })
}

/// A partition from its replicas and its state node; without one it has no leader.
pub fn read_partition(replicas: Vec<i32>, state: Option<&[u8]>) -> Partition {
    match state.and_then(|data| serde_json::from_slice::<StateJson>(data).ok()) {
        Some(state) => Partition {
            leader: (state.leader >= 0).then_some(state.leader),
            leader_epoch: LeaderEpoch(state.leader_epoch),
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
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_json_is_kafkas() {
        assert_eq!(
            text(topic_json(
                TopicId(1u128.to_be_bytes()),
                &[vec![1, 2], vec![2, 1]]
            )),
            r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"0":[1,2],"1":[2,1]},"adding_replicas":{},"removing_replicas":{}}"#
        );
        let partition = Partition {
            leader: Some(1),
            leader_epoch: LeaderEpoch(0),
            replicas: vec![1, 2],
            isr: vec![1, 2],
        };
        let state = state_json(&partition);
        assert_eq!(
            text(state.clone()),
            r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,2]}"#
        );
        assert_eq!(read_partition(vec![1, 2], Some(&state)), partition);
        let config = Overrides::from([("retention.ms".to_owned(), "1000".to_owned())]);
        assert_eq!(
            text(config_json(&config)),
            r#"{"version":1,"config":{"retention.ms":"1000"}}"#
        );
        assert_eq!(read_config(Some(&config_json(&config))), config);
        assert_eq!(text(cluster_id_json("x")), r#"{"version":"1","id":"x"}"#);
        assert_eq!(
            text(producer_block_json(1, 0)),
            r#"{"version":1,"broker":1,"block_start":"0","block_end":"999"}"#
        );
        assert_eq!(
            read_producer_block(&producer_block_json(1, 2000)),
            Some(2999)
        );
    }

    #[test]
    fn a_broker_comes_back_whole_and_old_ones_are_read() {
        let endpoint = |listener: &str, protocol: &str, host: &str, port| Endpoint {
            listener: listener.to_owned(),
            protocol: protocol.to_owned(),
            host: host.to_owned(),
            port,
        };
        let endpoints = vec![
            endpoint("PLAINTEXT", "PLAINTEXT", "::1", 9092),
            endpoint("OUT", "SSL", "h", 9093),
        ];
        let broker = Broker {
            id: 3,
            rack: Some("r1".to_owned()),
            endpoints,
            hosts_coordinator: true,
        };
        let data = broker_json(&broker, TimestampMs(5));
        assert!(
            text(data.clone()).contains(r#""endpoints":["PLAINTEXT://[::1]:9092","OUT://h:9093"]"#)
        );
        assert_eq!(read_broker(3, &data), Some(broker));

        let old = br#"{"jmx_port":-1,"timestamp":"1","host":"h","version":1,"port":9092}"#;
        assert_eq!(
            read_broker(1, old).unwrap().endpoints,
            [endpoint("PLAINTEXT", "PLAINTEXT", "h", 9092)]
        );
    }

    #[test]
    fn what_a_hand_wrote_wrong_is_not_taken() {
        for bad in [
            "",
            "null",
            "{}",
            r#"{"version":1,"partitions":{"0":[1]}}"#,
            r#"{"version":3,"topic_id":"x","partitions":{"0":[1]}}"#,
            r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAA","partitions":{"0":[1]}}"#,
            r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"1":[1]}}"#,
            r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{"-1":[1],"0":[1]}}"#,
            r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partitions":{}}"#,
        ] {
            assert_eq!(read_topic(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(read_partition(vec![1], Some(b"x")).leader, None);
        assert_eq!(read_config(Some(b"[]")), Overrides::new());
        assert_eq!(
            read_producer_block(br#"{"version":1,"broker":1,"block_start":"0","block_end":"x"}"#),
            None
        );
    }
}
