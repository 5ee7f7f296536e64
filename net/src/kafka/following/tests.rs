//! Settings as logs take them, and partitions that lose their leader, get it back, or move
//! to other brokers.

use super::*;
use crate::kafka::limits::Limits;
use crate::kafka::nodes;
use crate::kafka::testing::{BROKER, Client, Front, LISTENER, batch, topic};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use klamm_coord::core::image::{Broker, Endpoint};
use klamm_engine::batch::Batches;
use klamm_engine::units::LeaderEpoch;
use std::collections::BTreeMap;

/// Another broker; it is not registered.
const OTHER: i32 = 9;

fn name() -> TopicName {
    StrBytes::from_static_str("orders").into()
}

/// The topic "orders" with one partition, led so.
fn orders(leader: Option<i32>, epoch: i32, replicas: &[i32]) -> Topic {
    let mut topic = topic("orders", 1, &[]);
    topic.partitions[0].leader = leader;
    topic.partitions[0].leader_epoch = LeaderEpoch(epoch);
    topic.partitions[0].replicas = replicas.to_vec();
    topic.partitions[0].isr = replicas.to_vec();
    topic
}

async fn become_led(front: &Front, leader: Option<i32>, epoch: i32, replicas: &[i32]) {
    front
        .publish([orders(leader, epoch, replicas)].into_iter())
        .await;
}

fn run<F: Future<Output = ()>>(story: impl Fn(&'static Front) -> F) {
    for shards in [1, 3] {
        // For the whole test process: the story and its clients borrow it.
        let front: &'static Front =
            Box::leak(Box::new(Front::of_shards(shards, Limits::default())));
        front.sim.run(async {
            become_led(front, Some(BROKER), 4, &[BROKER]).await;
            story(front).await;
        });
    }
}

/// Whether the partition's home shard has it open.
async fn is_open(front: &Front) -> bool {
    let id = PartitionId {
        topic: orders(None, 0, &[]).id,
        index: 0,
    };
    let home = home_shard(id, front.local.cores.count());
    let open = front.local.on(home, move |local| async move {
        local.store.online().iter().any(|(open, _)| *open == id)
    });
    open.await.unwrap()
}

fn produce(acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(name())
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

async fn write(client: &Client, version: i16, value: &str) -> PartitionProduceResponse {
    let request = produce(-1, batch(&client.io, &[value]));
    let mut response = client.call(version, &request).await;
    response.responses.remove(0).partition_responses.remove(0)
}

fn fetch(epoch: i32, from: i64, bytes_min: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_current_leader_epoch(epoch)
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name())
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(30_000)
        .with_min_bytes(bytes_min)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn first(mut response: FetchResponse) -> PartitionData {
    response.responses.remove(0).partitions.remove(0)
}

/// The base offset and epoch of every batch.
fn stamps(data: &PartitionData) -> Vec<(i64, i32)> {
    let bytes = data.records.as_ref().expect("never null");
    let stamps = Batches::new(bytes).map(|batch| {
        let header = *batch.unwrap().header();
        (header.base_offset().0, header.leader_epoch().0)
    });
    stamps.collect()
}

async fn epoch_end(client: &Client, ours: i32, asked: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default()
        .with_current_leader_epoch(ours)
        .with_leader_epoch(asked);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(name())
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let mut response = client.call(4, &request).await;
    let end = response.topics.remove(0).partitions.remove(0);
    (end.error_code, end.leader_epoch, end.end_offset)
}

/// KIP-951: clients are told who leads now, as the node that Metadata names.
#[test]
fn another_brokers_core_is_told_as_the_new_leader() {
    run(|front| async move {
        let port = |core: usize| Endpoint {
            listener: nodes::core_listener(LISTENER, core),
            protocol: LISTENER.to_owned(),
            host: "cleft.example".to_owned(),
            port: 9093 + core as u16,
        };
        let mut image = Image::clone(&front.local.image());
        image.zxid = image.zxid.next();
        let other = Broker {
            id: OTHER,
            rack: None,
            endpoints: vec![port(0), port(1)],
            hosts_coordinator: false,
        };
        image.brokers.insert(OTHER, Arc::new(other));
        let image = image.with_topic(orders(Some(OTHER), 6, &[OTHER]));
        publish(&front.local, Arc::new(image)).await;

        let client = front.connect();
        let written = write(&client, 10, "x").await;
        let leader = &written.current_leader;
        // The topic's id is odd: its first partition lives on the second of two cores.
        assert_eq!((leader.leader_id.0, leader.leader_epoch), (1_000_009, 6));
        let topic = MetadataRequestTopic::default().with_name(Some(name()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let metadata = client.call(8, &request).await;
        let partition = &metadata.topics[0].partitions[0];
        assert_eq!(
            (partition.error_code, partition.leader_id.0),
            (0, 1_000_009)
        );
        let nodes = metadata
            .brokers
            .iter()
            .map(|node| (node.node_id.0, node.port));
        let nodes: Vec<_> = nodes.collect();
        assert_eq!(nodes, [(BROKER, 9092), (OTHER, 9093), (1_000_009, 9094)]);
    });
}

/// As Kafka: 6 of the data path, 5 and leader -1 in Metadata; a client takes both for
/// "ask for metadata and come again".
#[test]
fn a_partition_that_nobody_leads_is_retried_by_clients() {
    run(|front| async move {
        become_led(front, None, 5, &[BROKER]).await;
        let client = front.connect();
        for version in 3..=12 {
            let written = write(&client, version, "x").await;
            assert_eq!((written.error_code, written.base_offset), (6, -1));
            if version >= 10 {
                let leader = &written.current_leader;
                assert_eq!((leader.leader_id.0, leader.leader_epoch), (-1, 5));
            }
        }
        for version in 4..=12 {
            let fetched = first(client.call(version, &fetch(-1, 0, 1)).await);
            assert_eq!((fetched.error_code, fetched.high_watermark), (6, -1));
        }
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(name())
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let listed = client.call(7, &request).await;
        assert_eq!(listed.topics[0].partitions[0].error_code, 6);
        assert_eq!(epoch_end(&client, -1, 4).await, (6, -1, -1));
        let topic = MetadataRequestTopic::default().with_name(Some(name()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        for version in 0..=12 {
            let mut response = client.call(version, &request).await;
            let topic = response.topics.remove(0);
            assert_eq!(topic.error_code, 0, "version {version}");
            let partition = &topic.partitions[0];
            assert_eq!((partition.error_code, partition.leader_id.0), (5, -1));
            assert_eq!(partition.replica_nodes, [BrokerId(BROKER)]);
            if version >= 7 {
                assert_eq!(partition.leader_epoch, 5);
            }
        }
        // Nothing tells a client that does not listen; so it is shown the door.
        client.ask(9, &produce(0, batch(&client.io, &["x"])));
        let end = client.end().await;
        assert!(end.contains("NOT_LEADER_OR_FOLLOWER"), "{end}");
    });
}

#[test]
fn a_session_lost_and_won_back_leads_on_in_the_newer_epoch() {
    run(|front| async move {
        let client = front.connect();
        assert_eq!(write(&client, 9, "a").await.error_code, 0);
        become_led(front, None, 5, &[BROKER]).await;
        assert_eq!(write(&client, 9, "lost").await.error_code, 6);
        assert!(is_open(front).await, "it may be back at once");
        become_led(front, Some(BROKER), 6, &[BROKER]).await;
        assert_eq!(write(&client, 9, "b").await.base_offset, 1);
        let fetched = first(client.call(11, &fetch(6, 0, 1)).await);
        assert_eq!(stamps(&fetched), [(0, 4), (1, 6)]);
        let stale = first(client.call(11, &fetch(4, 0, 1)).await);
        assert_eq!(stale.error_code, 74);
        assert_eq!(epoch_end(&client, 6, 4).await, (0, 4, 1));
        assert_eq!(epoch_end(&client, 6, 5).await, (0, 4, 1));
        assert_eq!(epoch_end(&client, 6, 6).await, (0, 6, 2));
        // Both at once, as where the image in between was never seen.
        become_led(front, Some(BROKER), 8, &[BROKER]).await;
        assert_eq!(write(&client, 9, "c").await.base_offset, 2);
        let fetched = first(client.call(11, &fetch(8, 2, 1)).await);
        assert_eq!(stamps(&fetched), [(2, 8)]);
    });
}

#[test]
fn a_partition_that_moved_away_is_closed_kept_and_taken_back() {
    run(|front| async move {
        let client = front.connect();
        assert_eq!(write(&client, 9, "a").await.error_code, 0);
        become_led(front, Some(OTHER), 5, &[OTHER, BROKER]).await;
        assert!(is_open(front).await, "we may be next");
        // A hand changed the assignment; the data is still here, and so is the leader.
        become_led(front, Some(BROKER), 6, &[BROKER]).await;
        let mut odd = orders(Some(BROKER), 6, &[BROKER]);
        odd.partitions[0].replicas = vec![OTHER];
        front.publish([odd.clone()].into_iter()).await;
        assert!(is_open(front).await, "we lead it");
        odd.partitions[0].leader = None;
        front.publish([odd].into_iter()).await;
        assert!(is_open(front).await, "nobody else can lead it");

        let waits = client.ask(11, &fetch(-1, 1, 1 << 20));
        client.settle().await;
        become_led(front, Some(BROKER), 7, &[BROKER]).await;
        become_led(front, Some(OTHER), 8, &[OTHER]).await;
        assert!(!is_open(front).await);
        let told = first(client.answer::<FetchRequest>(11, waits).await);
        assert_eq!(told.error_code, 6);
        assert_eq!(write(&client, 9, "not ours").await.error_code, 6);
        assert!(front.sim.list("/data").contains(&"orders-0".to_owned()));

        become_led(front, Some(BROKER), 9, &[BROKER]).await;
        assert_eq!(write(&client, 9, "b").await.base_offset, 1);
        let fetched = first(client.call(11, &fetch(9, 0, 1)).await);
        assert_eq!(stamps(&fetched), [(0, 4), (1, 9)]);
    });
}

#[test]
fn the_defaults_are_the_logs_own() {
    let broker = BrokerConfig::default();
    let topic = TopicConfig::resolve_valid(&BTreeMap::new(), &broker);
    assert_eq!(log_config(&topic, &broker), LogConfig::default());
}

#[test]
fn never_is_none() {
    let broker = BrokerConfig::default();
    let set = [
        ("retention.ms", "-1"),
        ("flush.messages", "9223372036854775807"),
        ("retention.bytes", "1000"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let topic = TopicConfig::resolve_valid(&BTreeMap::from(set), &broker);
    let config = log_config(&topic, &broker);
    assert_eq!(config.retention_age_max, None);
    assert_eq!(config.flush_messages, None);
    assert_eq!(config.retention_bytes_max, Some(1000));
    assert!(config.log_append_time && !config.acks_committed());
}
