//! What a broker answers, over frames by hand: who leads, who coordinates, what is there.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    DeleteTopicsRequest, FindCoordinatorRequest, GroupId, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest,
};
use klamm_tests::cluster::Cluster;
use klamm_tests::wire::{Connection, text, topic};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Result;
use std::net::SocketAddr;

/// The cluster as one broker tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub brokers: BTreeSet<i32>,
    pub controller: i32,
    pub topics: BTreeMap<String, Topic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub code: i16,
    pub id: uuid::Uuid,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub code: i16,
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline: Vec<i32>,
}

impl View {
    /// Of all topics.
    pub fn of(address: SocketAddr) -> Result<View> {
        View::ask(address, &MetadataRequest::default().with_topics(None))
    }

    /// As a producer asks for a topic that it has not heard of.
    pub fn creating(address: SocketAddr, name: &str) -> Result<View> {
        let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(true);
        View::ask(address, &request)
    }

    fn ask(address: SocketAddr, request: &MetadataRequest) -> Result<View> {
        let answer = Connection::open(address)?.call(12, request)?;
        let ids = |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|b| b.0).collect();
        let topics = answer.topics.iter().map(|t| {
            let mut partitions: Vec<_> = t.partitions.iter().collect();
            partitions.sort_by_key(|p| p.partition_index);
            let partitions = partitions.into_iter().map(|p| Partition {
                code: p.error_code,
                leader: p.leader_id.0,
                replicas: ids(&p.replica_nodes),
                isr: ids(&p.isr_nodes),
                offline: ids(&p.offline_replicas),
            });
            let name = t.name.as_ref().expect("asked for by name");
            let topic = Topic {
                code: t.error_code,
                id: t.topic_id,
                partitions: partitions.collect(),
            };
            (name.0.to_string(), topic)
        });
        Ok(View {
            brokers: answer.brokers.iter().map(|b| b.node_id.0).collect(),
            controller: answer.controller_id.0,
            topics: topics.collect(),
        })
    }

    pub fn leaders(&self, name: &str) -> Vec<i32> {
        let topic = self.topics.get(name);
        let partitions = topic.into_iter().flat_map(|t| &t.partitions);
        partitions.map(|p| p.leader).collect()
    }
}

/// Creates it through that broker; whoever is told to ask again does.
pub fn create_topic(address: SocketAddr, name: &str, partitions: i32) -> i16 {
    let code = klamm_tests::cluster::eventually(&format!("creating {name}"), || {
        let asked = Connection::open(address)
            .and_then(|mut c| c.ask_for_topic(name, partitions, 1, &[]))
            .map_err(|e| e.to_string())?;
        match asked {
            // 5, 7, 15, 41: not now, ask again.
            (5 | 7 | 15 | 41, message) => Err(message),
            (code, _) => Ok(code),
        }
    });
    assert!(matches!(code, 0 | 36), "creating {name}: code {code}");
    code
}

/// The code.
pub fn delete_topic(address: SocketAddr, name: &str) -> Result<i16> {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic(name)])
        .with_timeout_ms(10_000);
    let answer = Connection::open(address)?.call(5, &request)?;
    Ok(answer.responses[0].error_code)
}

/// The group's coordinator, as that broker tells; none: ask again.
pub fn coordinator(address: SocketAddr, group: &str) -> Result<Option<i32>> {
    let request = FindCoordinatorRequest::default().with_key(text(group));
    let answer = Connection::open(address)?.call(3, &request)?;
    Ok((answer.error_code == 0).then_some(answer.node_id.0))
}

/// Commits for a group without members; the code.
pub fn commit(address: SocketAddr, group: &str, of: &str, at: (i32, i64)) -> Result<i16> {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(at.0)
        .with_committed_offset(at.1);
    let topics = OffsetCommitRequestTopic::default()
        .with_name(topic(of))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topics]);
    let answer = Connection::open(address)?.call(8, &request)?;
    Ok(answer.topics[0].partitions[0].error_code)
}

/// The group's offsets, -1 where there is none; or the code.
pub fn offsets(
    address: SocketAddr,
    group: &str,
    of: &str,
    partitions: i32,
) -> Result<std::result::Result<Vec<i64>, i16>> {
    let asked = OffsetFetchRequestTopic::default()
        .with_name(topic(of))
        .with_partition_indexes((0..partitions).collect());
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(vec![asked]));
    let answer = Connection::open(address)?.call(5, &request)?;
    if answer.error_code != 0 {
        return Ok(Err(answer.error_code));
    }
    let mut found: Vec<_> = answer.topics[0].partitions.iter().collect();
    found.sort_by_key(|p| p.partition_index);
    Ok(match found.iter().find(|p| p.error_code != 0) {
        Some(p) => Err(p.error_code),
        None => Ok(found.iter().map(|p| p.committed_offset).collect()),
    })
}

/// The values of a partition, read off the broker that leads it.
pub fn values(cluster: &Cluster, leader: i32, name: &str, partition: i32) -> Vec<i64> {
    let mut connection = Connection::open(cluster.address(leader)).expect("connect");
    let records = connection.read_all(name, partition);
    let value = |r: kafka_protocol::records::Record| {
        let bytes = r.value.expect("every record has a value");
        let text = std::str::from_utf8(&bytes).expect("text");
        text.parse().expect("a number")
    };
    records.into_iter().map(value).collect()
}
