//! Records in through Produce, out through Fetch, over one connection and the real
//! store, on a simulated machine.

use crate::kafka::context::Coordinator;
use crate::kafka::cores::Gone;
use crate::kafka::following;
use crate::kafka::limits::Limits;
use crate::kafka::testing::{BROKER, Client, Front, LISTENER, batch, topic};
use bytes::{Bytes, BytesMut};
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
    ApiVersionsRequest, BrokerId, FetchRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use klamm_coord::core::coordinator::{CoreConfig, Request, Response};
use klamm_coord::core::image::{Broker, Endpoint, Image};
use klamm_coord::core::settings::BrokerConfig;
use klamm_coord::driver::{Driver, DriverConfig, Host};
use klamm_engine::batch::{Batch, BatchBuilder, BatchHeader};
use klamm_engine::codec::Codec;
use klamm_engine::io::Io;
use klamm_engine::io::sim::SimIo;
use klamm_engine::shard::home_shard;
use klamm_engine::units::{Offset, PartitionId, ProducerEpoch, ProducerId};
use std::time::Duration;

fn name(name: &str) -> StrBytes {
    StrBytes::from_string(name.to_owned())
}

fn produce(acks: i16, batches: &[(&str, i32, Bytes)]) -> ProduceRequest {
    let topics = batches.iter().map(|(topic, index, batch)| {
        let partition = PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(batch.clone()));
        TopicProduceData::default()
            .with_name(name(topic).into())
            .with_partition_data(vec![partition])
    });
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(topics.collect())
}

async fn write(client: &Client, version: i16, batch: Bytes) -> PartitionProduceResponse {
    let request = produce(-1, &[("orders", 0, batch)]);
    let mut response = client.call(version, &request).await;
    response.responses.remove(0).partition_responses.remove(0)
}

#[derive(Clone, Copy)]
struct Ask {
    from: i64,
    bytes_min: i32,
    bytes_max: i32,
    partition_bytes_max: i32,
    wait_ms: i32,
    epoch: i32,
}

impl Default for Ask {
    fn default() -> Self {
        Ask {
            from: 0,
            bytes_min: 1,
            bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            wait_ms: 0,
            epoch: -1,
        }
    }
}

fn fetch(partitions: &[(&str, i32)], ask: Ask) -> FetchRequest {
    let topics = partitions.iter().map(|(topic, index)| {
        let partition = FetchPartition::default()
            .with_partition(*index)
            .with_current_leader_epoch(ask.epoch)
            .with_fetch_offset(ask.from)
            .with_partition_max_bytes(ask.partition_bytes_max);
        FetchTopic::default()
            .with_topic(name(topic).into())
            .with_partitions(vec![partition])
    });
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(ask.wait_ms)
        .with_min_bytes(ask.bytes_min)
        .with_max_bytes(ask.bytes_max)
        .with_topics(topics.collect())
}

async fn read(client: &Client, ask: Ask) -> PartitionData {
    let mut response = client.call(11, &fetch(&[("orders", 0)], ask)).await;
    assert_eq!(response.error_code, 0);
    response.responses.remove(0).partitions.remove(0)
}

fn values(records: &Option<Bytes>) -> Vec<(i64, String)> {
    let mut bytes = &records.as_ref().expect("never null")[..];
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let size = BatchHeader::parse(bytes).unwrap().size_in_bytes();
        let batch = Batch::parse(&bytes[..size]).unwrap();
        batch.verify_crc().unwrap();
        let unpacked = batch.records_unpacked(1 << 20).unwrap();
        for record in batch.records(&unpacked) {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            all.push((
                batch.base_offset().0 + i64::from(record.offset_delta),
                value,
            ));
        }
        bytes = &bytes[size..];
    }
    all
}

/// Each story on one shard, and on three: partitions then live elsewhere than the
/// connection.
fn run<F: Future<Output = ()>>(story: impl Fn(&'static Front) -> F) {
    for shards in [1, 3] {
        // For the whole test process: the story and its clients borrow it.
        let front: &'static Front =
            Box::leak(Box::new(Front::of_shards(shards, Limits::default())));
        front.sim.run(async {
            front.topics(&[("orders", 2), ("other", 1)]).await;
            story(front).await;
        });
    }
}

#[test]
fn the_stories_cross_shards() {
    let front = Front::of_shards(3, Limits::default());
    let orders = topic("orders", 2, &[]).id;
    let homes: Vec<u16> = [0, 1]
        .map(|index| {
            home_shard(
                PartitionId {
                    topic: orders,
                    index,
                },
                3,
            )
            .0
        })
        .into();
    assert!(
        homes.iter().any(|home| *home != front.local.cores.here().0),
        "{homes:?}"
    );
}

#[test]
fn what_was_produced_is_fetched_at_every_version() {
    run(|front| async move {
        let client = front.connect();
        let mut next = 0;
        for version in 3..=12 {
            let written = write(&client, version, batch(&client.io, &["a", "b"])).await;
            assert_eq!(written.error_code, 0, "version {version}: {written:?}");
            assert_eq!((written.index, written.base_offset), (0, next));
            assert_eq!(written.log_append_time_ms, -1);
            assert_eq!(written.log_start_offset, if version >= 5 { 0 } else { -1 });
            next += 2;
        }
        for version in 4..=12 {
            let mut response = client
                .call(
                    version,
                    &fetch(&[("orders", 0), ("orders", 1)], Ask::default()),
                )
                .await;
            let full = response.responses.remove(0).partitions.remove(0);
            assert_eq!((full.error_code, full.high_watermark), (0, next));
            let all = values(&full.records);
            let offsets: Vec<i64> = all.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(offsets, (0..next).collect::<Vec<_>>());
            let empty = response.responses.remove(0).partitions.remove(0);
            assert_eq!(empty.records, Some(Bytes::new()));
            assert_eq!(empty.high_watermark, 0);
        }
    });
}

#[test]
fn pipelined_produces_are_appended_and_answered_in_order() {
    run(|front| async move {
        let client = front.connect();
        let mut asked = Vec::new();
        for n in 0..300 {
            let value = format!("{n}");
            let batch = batch(&client.io, &[&value]);
            asked.push(client.ask(9, &produce(1, &[("orders", 0, batch)])));
        }
        for (n, id) in asked.into_iter().enumerate() {
            let response = client.answer::<ProduceRequest>(9, id).await;
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.base_offset, n as i64);
        }
        let all = values(&read(&client, Ask::default()).await.records);
        let expected: Vec<_> = (0..300).map(|n| (n, n.to_string())).collect();
        assert_eq!(all, expected);
    });
}

#[test]
fn bad_batches_get_kafkas_codes_and_nothing_is_kept() {
    run(|front| async move {
        let client = front.connect();
        let good = batch(&client.io, &["x"]);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            Bytes::from(bytes)
        };
        let twice = Bytes::from([&good[..], &good[..]].concat());
        let now = client.io.wall();
        let transactional = BatchBuilder::new(Codec::None)
            .producer(ProducerId(9), ProducerEpoch(0), 0)
            .transactional()
            .record(now, None, None)
            .finish();
        let old = klamm_engine::units::TimestampMs(now.0 + 2 * 60 * 60 * 1000);
        let from_the_future = BatchBuilder::new(Codec::None)
            .record(old, None, None)
            .finish();
        for (what, bytes, code) in [
            ("crc", changed(60, 9), 2),
            ("magic", changed(16, 1), 87),
            ("base offset", changed(7, 1), 87),
            ("two batches", twice, 87),
            ("half a batch", good.slice(..50), 87),
            ("no batch", Bytes::new(), 87),
            (
                "too large",
                batch(&client.io, &[&"x".repeat(1_100_000)]),
                10,
            ),
            ("transactional", transactional.into(), 48),
            ("far ahead", from_the_future.into(), 32),
        ] {
            let written = write(&client, 9, bytes).await;
            assert_eq!(written.error_code, code, "{what}: {written:?}");
            assert_eq!(written.base_offset, -1, "{what}");
            assert!(written.error_message.is_some(), "{what}");
        }
        let read = read(&client, Ask::default()).await;
        assert_eq!((read.high_watermark, read.records), (0, Some(Bytes::new())));
        assert!(client.is_open());
    });
}

#[test]
fn zstd_needs_a_client_that_knows_it() {
    run(|front| async move {
        let client = front.connect();
        let now = client.io.wall();
        let zstd: Bytes = BatchBuilder::new(Codec::Zstd)
            .record(now, None, Some(b"z"))
            .finish()
            .into();
        assert_eq!(write(&client, 6, zstd.clone()).await.error_code, 76);
        assert_eq!(write(&client, 7, zstd).await.error_code, 0);
        for (version, code) in [(9, 76), (10, 0)] {
            let request = fetch(&[("orders", 0)], Ask::default());
            let mut response = client.call(version, &request).await;
            let partition = response.responses.remove(0).partitions.remove(0);
            assert_eq!(partition.error_code, code, "version {version}");
        }
    });
}

#[test]
fn an_idempotent_producer_is_answered_as_kafka_does() {
    run(|front| async move {
        let client = front.connect();
        let now = client.io.wall();
        let batch = |epoch: i16, sequence: i32| -> Bytes {
            BatchBuilder::new(Codec::None)
                .producer(ProducerId(1), ProducerEpoch(epoch), sequence)
                .record(now, None, Some(b"x"))
                .finish()
                .into()
        };
        let code_and_offset = async |bytes: Bytes| {
            let written = write(&client, 9, bytes).await;
            (written.error_code, written.base_offset)
        };
        assert_eq!(code_and_offset(batch(1, 0)).await, (0, 0));
        assert_eq!(code_and_offset(batch(1, 1)).await, (0, 1));
        assert_eq!(code_and_offset(batch(1, 0)).await, (0, 0), "a duplicate");
        assert_eq!(code_and_offset(batch(1, 3)).await, (45, -1), "a gap");
        assert_eq!(code_and_offset(batch(0, 2)).await, (47, -1), "fenced");
    });
}

#[test]
fn strange_topics_and_partitions_are_unknown_and_reach_no_path() {
    run(|front| async move {
        let client = front.connect();
        let long = "x".repeat(250);
        let good = batch(&client.io, &["x"]);
        let names = ["", ".", "..", "../x", "nowhere", "a\0b", "a\nb", &long];
        let mut asked: Vec<(&str, i32, Bytes)> =
            names.iter().map(|n| (*n, 0, good.clone())).collect();
        asked.extend([("orders", -1, good.clone()), ("orders", 2, good.clone())]);
        let response = client.call(9, &produce(-1, &asked)).await;
        for topic in &response.responses {
            let code = topic.partition_responses[0].error_code;
            assert_eq!(code, 3, "{:?}", topic.name);
        }
        let places: Vec<(&str, i32)> = asked.iter().map(|(n, i, _)| (*n, *i)).collect();
        let response = client.call(9, &fetch(&places, Ask::default())).await;
        for topic in &response.responses {
            assert_eq!(topic.partitions[0].error_code, 3, "{:?}", topic.topic);
        }
        let folders = front.sim.list("/data");
        assert!(
            folders
                .iter()
                .all(|f| f.starts_with("orders-") || f.starts_with("other-"))
        );
    });
}

#[test]
fn acks_decide_what_is_answered() {
    run(|front| async move {
        let client = front.connect();
        let good = batch(&client.io, &["x"]);
        let response = client
            .call(9, &produce(2, &[("orders", 0, good.clone())]))
            .await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
        // acks=0: no answer, so the next one's is the next frame.
        client.ask(9, &produce(0, &[("orders", 0, good.clone())]));
        let written = write(&client, 9, good.clone()).await;
        assert_eq!(written.base_offset, 1);
        client.ask(9, &produce(0, &[("nowhere", 0, good.clone())]));
        let end = client.end().await;
        assert!(
            end.contains("acks=0") && end.contains("UNKNOWN_TOPIC"),
            "{end}"
        );
    });
}

#[test]
fn a_fetch_at_the_end_waits_for_the_next_record_and_no_longer() {
    run(|front| async move {
        let (consumer, producer) = (front.connect(), front.connect());
        let ask = Ask {
            wait_ms: 60_000,
            ..Ask::default()
        };
        let request = fetch(&[("orders", 1), ("orders", 0)], ask);
        let id = consumer.ask(11, &request);
        consumer.io.sleep(Duration::from_secs(5)).await;
        let before = consumer.io.now();
        write(&producer, 9, batch(&producer.io, &["new"])).await;
        let mut response = consumer.answer::<FetchRequest>(11, id).await;
        let records = response.responses.remove(1).partitions.remove(0).records;
        assert_eq!(values(&records), [(0, "new".to_owned())]);
        let took = consumer.io.now().0 - before.0;
        assert!(took < Duration::from_secs(1).as_nanos() as u64, "{took} ns");
    });
}

#[test]
fn a_fetch_that_finds_nothing_is_answered_when_its_time_is_up() {
    run(|front| async move {
        let client = front.connect();
        let before = client.io.now();
        let ask = Ask {
            wait_ms: 500,
            ..Ask::default()
        };
        let read = read(&client, ask).await;
        assert_eq!(read.records, Some(Bytes::new()));
        let took = Duration::from_nanos(client.io.now().0 - before.0);
        assert!(took >= Duration::from_millis(500), "{took:?}");
        assert!(took < Duration::from_millis(600), "{took:?}");
    });
}

#[test]
fn min_bytes_are_waited_for() {
    run(|front| async move {
        let (consumer, producer) = (front.connect(), front.connect());
        let one = batch(&producer.io, &["0123456789"]);
        let ask = Ask {
            bytes_min: 3 * one.len() as i32,
            wait_ms: 60_000,
            ..Ask::default()
        };
        let id = consumer.ask(11, &fetch(&[("orders", 0)], ask));
        for _ in 0..2 {
            write(&producer, 9, one.clone()).await;
            consumer.settle().await;
        }
        let id_of_next = producer.ask(9, &produce(1, &[("orders", 0, one.clone())]));
        let mut response = consumer.answer::<FetchRequest>(11, id).await;
        let records = response.responses.remove(0).partitions.remove(0).records;
        assert_eq!(values(&records).len(), 3);
        producer.answer::<ProduceRequest>(9, id_of_next).await;
    });
}

#[test]
fn what_waits_for_a_client_that_left_is_dropped() {
    run(|front| async move {
        let client = front.connect();
        let ask = Ask {
            wait_ms: i32::MAX,
            ..Ask::default()
        };
        client.ask(11, &fetch(&[("orders", 0)], ask));
        client.settle().await;
        assert!(client.is_open());
        client.hang_up();
        assert_eq!(client.end().await, "the client closed it");
    });
}

#[test]
fn the_first_batch_comes_whole_and_the_rest_within_bounds() {
    run(|front| async move {
        let client = front.connect();
        let one = batch(&client.io, &["0123456789"]);
        for _ in 0..4 {
            write(&client, 9, one.clone()).await;
        }
        let size = one.len() as i32;
        for (bytes_max, partition_bytes_max, expected) in [
            (1, 1, 1),
            (0, 0, 1),
            (size * 2, 1 << 20, 2),
            (1 << 20, size * 3 + 5, 3),
            (1 << 20, 1 << 20, 4),
        ] {
            let ask = Ask {
                bytes_max,
                partition_bytes_max,
                ..Ask::default()
            };
            let read = read(&client, ask).await;
            assert_eq!(
                values(&read.records).len(),
                expected,
                "{bytes_max} {partition_bytes_max}"
            );
        }
        // Only the first partition that has something may go beyond.
        let other = produce(1, &[("orders", 1, one.clone())]);
        client.call(9, &other).await;
        let ask = Ask {
            bytes_max: 1,
            ..Ask::default()
        };
        let both = fetch(&[("orders", 1), ("orders", 0)], ask);
        let response = client.call(11, &both).await;
        let bytes: Vec<usize> = response
            .responses
            .iter()
            .map(|t| t.partitions[0].records.as_ref().unwrap().len())
            .collect();
        assert_eq!(bytes, [one.len(), 0]);
    });
}

#[test]
fn a_fetch_in_the_middle_of_a_batch_returns_that_batch() {
    run(|front| async move {
        let client = front.connect();
        write(&client, 9, batch(&client.io, &["a", "b", "c"])).await;
        write(&client, 9, batch(&client.io, &["d"])).await;
        let from = |from| Ask {
            from,
            ..Ask::default()
        };
        assert_eq!(values(&read(&client, from(1)).await.records).len(), 4);
        assert_eq!(values(&read(&client, from(3)).await.records).len(), 1);
        let end = read(&client, from(4)).await;
        assert_eq!((end.error_code, end.records), (0, Some(Bytes::new())));
        let beyond = read(&client, from(5)).await;
        assert_eq!((beyond.error_code, beyond.high_watermark), (1, -1));
        let ahead = Ask {
            from: -3,
            ..Ask::default()
        };
        assert_eq!(read(&client, ahead).await.error_code, 1);
    });
}

#[test]
fn leader_epochs_and_sessions_are_checked() {
    run(|front| async move {
        let client = front.connect();
        for (epoch, code) in [(-1, 0), (4, 0), (3, 74), (5, 75)] {
            let ask = Ask {
                epoch,
                ..Ask::default()
            };
            assert_eq!(read(&client, ask).await.error_code, code, "epoch {epoch}");
        }
        for (session, epoch, code) in [(0, 0, 0), (0, -1, 0), (9, 0, 0), (9, 3, 70), (0, 7, 71)] {
            let request = fetch(&[("orders", 0)], Ask::default())
                .with_session_id(session)
                .with_session_epoch(epoch);
            let response = client.call(11, &request).await;
            assert_eq!((response.error_code, response.session_id), (code, 0));
            assert_eq!(response.responses.len(), usize::from(code == 0));
        }
    });
}

#[test]
fn a_reader_whose_log_parted_from_ours_is_told_where() {
    run(|front| async move {
        let client = front.connect();
        write(&client, 9, batch(&client.io, &["a", "b"])).await;
        let mut request = fetch(
            &[("orders", 0)],
            Ask {
                from: 9,
                ..Ask::default()
            },
        );
        request.topics[0].partitions[0].last_fetched_epoch = 4;
        let mut response = client.call(12, &request).await;
        let partition = response.responses.remove(0).partitions.remove(0);
        assert_eq!(
            (
                partition.diverging_epoch.epoch,
                partition.diverging_epoch.end_offset
            ),
            (4, 2)
        );
        assert_eq!(partition.records, Some(Bytes::new()));
    });
}

#[test]
fn offsets_are_found_by_time() {
    run(|front| async move {
        let client = front.connect();
        let now = client.io.wall().0;
        let at = |ms: i64| klamm_engine::units::TimestampMs(now + ms);
        let bytes = BatchBuilder::new(Codec::Gzip)
            .record(at(0), None, Some(b"a"))
            .record(at(20), None, Some(b"b"))
            .record(at(10), None, Some(b"c"))
            .finish();
        write(&client, 9, bytes.into()).await;
        for version in 1..=8 {
            for (timestamp, offset, found, code) in [
                (-1, 3, -1, 0),
                (-2, 0, -1, 0),
                (0, 0, now, 0),
                (now + 5, 1, now + 20, 0),
                (now + 21, -1, -1, 0),
                (-3, 1, now + 20, if version >= 7 { 0 } else { 35 }),
                (-4, 0, -1, if version >= 8 { 0 } else { 35 }),
                (-9, -1, -1, 35),
            ] {
                let partition = ListOffsetsPartition::default()
                    .with_partition_index(0)
                    .with_timestamp(timestamp);
                let topic = ListOffsetsTopic::default()
                    .with_name(name("orders").into())
                    .with_partitions(vec![partition]);
                let request = ListOffsetsRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_topics(vec![topic]);
                let mut response = client.call(version, &request).await;
                let partition = response.topics.remove(0).partitions.remove(0);
                let what = format!("version {version}, timestamp {timestamp}");
                assert_eq!(partition.error_code, code, "{what}");
                let expected = if code == 0 { (offset, found) } else { (-1, -1) };
                assert_eq!((partition.offset, partition.timestamp), expected, "{what}");
                let epoch = if version >= 4 && expected.0 >= 0 {
                    4
                } else {
                    -1
                };
                assert_eq!(partition.leader_epoch, epoch, "{what}");
            }
        }
    });
}

#[test]
fn an_epochs_end_is_known() {
    run(|front| async move {
        let client = front.connect();
        write(&client, 9, batch(&client.io, &["a", "b"])).await;
        for version in 2..=4 {
            for (ours, asked, expected) in [
                (-1, 4, (0, 4, 2)),
                (4, 4, (0, 4, 2)),
                (5, 4, (75, -1, -1)),
                (3, 4, (74, -1, -1)),
                (-1, 9, (0, -1, -1)),
            ] {
                let partition = OffsetForLeaderPartition::default()
                    .with_partition(0)
                    .with_current_leader_epoch(ours)
                    .with_leader_epoch(asked);
                let topic = OffsetForLeaderTopic::default()
                    .with_topic(name("orders").into())
                    .with_partitions(vec![partition]);
                let request = OffsetForLeaderEpochRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_topics(vec![topic]);
                let request = if version < 3 {
                    request.with_replica_id(BrokerId(-2))
                } else {
                    request
                };
                let mut response = client.call(version, &request).await;
                let end = response.topics.remove(0).partitions.remove(0);
                assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expected);
            }
        }
    });
}

#[test]
fn metadata_is_the_image_at_every_version() {
    run(|front| async move {
        let client = front.connect();
        for version in 0..=12 {
            let all = MetadataRequest::default().with_topics(if version == 0 {
                Some(vec![])
            } else {
                None
            });
            let response = client.call(version, &all).await;
            let broker = &response.brokers[0];
            assert_eq!((broker.node_id.0, broker.port), (BROKER, 9092));
            assert_eq!(broker.host.as_str(), "gorge.example");
            let names: Vec<_> = response
                .topics
                .iter()
                .map(|t| t.name.clone().unwrap())
                .collect();
            assert_eq!(names, [name("orders"), name("other")]);
            let orders = &response.topics[0].partitions;
            assert_eq!(orders.len(), 2);
            assert_eq!(
                (orders[1].partition_index, orders[1].leader_id.0),
                (1, BROKER)
            );
            assert_eq!(orders[1].isr_nodes, [BrokerId(BROKER)]);
            if version >= 1 {
                assert_eq!(response.controller_id.0, BROKER);
                assert_eq!(broker.rack.as_deref(), Some("left"));
            }
            if version >= 2 {
                assert_eq!(
                    response.cluster_id.as_deref(),
                    Some("klamm-klamm-klamm-klam")
                );
            }
            if version >= 7 {
                assert_eq!(orders[0].leader_epoch, 4);
            }
            let ids = version >= 10;
            assert_eq!(response.topics[0].topic_id.is_nil(), !ids);
        }
    });
}

#[test]
fn metadata_of_topics_that_are_not_there() {
    run(|front| async move {
        let client = front.connect();
        let ask = |n: &str| MetadataRequestTopic::default().with_name(Some(name(n).into()));
        let long = "x".repeat(250);
        let request = MetadataRequest::default()
            .with_allow_auto_topic_creation(false)
            .with_topics(Some(vec![
                ask("nowhere"),
                ask(""),
                ask(".."),
                ask("a/b"),
                ask(&long),
                ask("orders"),
                MetadataRequestTopic::default()
                    .with_name(None)
                    .with_topic_id(uuid::Uuid::from_u128(5)),
                MetadataRequestTopic::default()
                    .with_name(None)
                    .with_topic_id(uuid::Uuid::from_bytes(topic("other", 1, &[]).id.0)),
            ]));
        let response = client.call(12, &request).await;
        let codes: Vec<i16> = response.topics.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [3, 17, 17, 17, 17, 0, 100, 0]);
        assert_eq!(response.topics[7].name, Some(name("other").into()));
    });
}

/// Byte for byte, against the shapes in Kafka's `*Response.json`: the other tests
/// decode with the crate that also encoded.
#[test]
fn the_bytes_of_old_answers() {
    run(|front| async move {
        let client = front.connect();
        client.ask(3, &produce(1, &[("orders", 1, batch(&client.io, &["x"]))]));
        #[rustfmt::skip]
        assert_eq!(&client.frame().await[..], [
            0, 0, 0, 0,                                     // correlation id
            0, 0, 0, 1,  0, 6, b'o', b'r', b'd', b'e', b'r', b's',
            0, 0, 0, 1,  0, 0, 0, 1,  0, 0,                 // partition 1, no error
            0, 0, 0, 0, 0, 0, 0, 0,                         // base offset
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // log append time
            0, 0, 0, 0,                                     // throttle time
        ]);
        let other = MetadataRequestTopic::default().with_name(Some(name("other").into()));
        let request = MetadataRequest::default().with_topics(Some(vec![other]));
        client.ask(1, &request);
        #[rustfmt::skip]
        assert_eq!(&client.frame().await[..], [
            &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 0, 13][..], // correlation id, broker 3
            b"gorge.example", &[0, 0, 0x23, 0x84, 0, 4], b"left",
            &[0, 0, 0, 3],                                  // controller
            &[0, 0, 0, 1, 0, 0, 0, 5], b"other", &[0],      // no error; not internal
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],    // partition 0, leader 3
            &[0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 3], // replicas, in sync
        ].concat());
        client.ask(0, &ApiVersionsRequest::default());
        let versions = client.frame().await;
        #[rustfmt::skip]
        assert_eq!(&versions[..22], [
            0, 0, 0, 2,  0, 0,  0, 0, 0, 26,
            0, 0,  0, 0,  0, 12,                            // Produce 0-12
            0, 1,  0, 4,  0, 12,                            // Fetch 4-12
        ]);
        assert_eq!(versions.len(), 10 + 6 * crate::kafka::route::APIS.len());
    });
}

#[test]
fn what_is_advertised_is_what_is_served() {
    run(|front| async move {
        let client = front.connect();
        for version in 0..=4 {
            let request = ApiVersionsRequest::default();
            let request = if version >= 3 {
                request
                    .with_client_software_name(name("a-client"))
                    .with_client_software_version(name("1.0"))
            } else {
                request
            };
            // The header is always version 0, which is what the crate decodes too.
            let response = client.call(version, &request).await;
            assert_eq!(response.error_code, 0);
            let keys: Vec<i16> = response.api_keys.iter().map(|k| k.api_key).collect();
            assert!(keys.is_sorted() && keys.contains(&0) && keys.contains(&18));
            let produce = &response.api_keys[0];
            assert_eq!((produce.min_version, produce.max_version), (0, 12));
        }
        // A version of the future: the form of version 0, and only this API.
        client.send(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff]);
        let answer = client.frame().await;
        assert_eq!(
            &answer[..],
            [0, 0, 0, 5, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]
        );
        let mut bad_name = ApiVersionsRequest::default();
        bad_name.client_software_name = name("a client!");
        assert_eq!(client.call(3, &bad_name).await.error_code, 42);
    });
}

#[test]
fn a_transactional_id_alone_does_not_make_a_transaction() {
    run(|front| async move {
        let client = front.connect();
        let good = batch(&client.io, &["x"]);
        let request = produce(-1, &[("orders", 0, good)])
            .with_transactional_id(Some(TransactionalId(name("t"))));
        let response = client.call(9, &request).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    });
}

#[test]
fn log_append_time_is_answered_and_stored() {
    run(|front| async move {
        let stamped = topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
        front.publish([stamped].into_iter()).await;
        let client = front.connect();
        let now = client.io.wall();
        let bytes = batch(&client.io, &["x"]);
        let response = client.call(9, &produce(1, &[("stamped", 0, bytes)])).await;
        let written = &response.responses[0].partition_responses[0];
        assert!(written.log_append_time_ms >= now.0);
        let response = client
            .call(11, &fetch(&[("stamped", 0)], Ask::default()))
            .await;
        let records = response.responses[0].partitions[0].records.clone().unwrap();
        let header = BatchHeader::parse(&records).unwrap();
        assert_eq!(header.max_timestamp().0, written.log_append_time_ms);
        assert_eq!(header.base_offset(), Offset(0));
    });
}

#[test]
fn a_deleted_topic_is_unknown_and_its_folders_go() {
    run(|front| async move {
        let client = front.connect();
        write(&client, 9, batch(&client.io, &["x"])).await;
        front
            .publish_only([topic("other", 1, &[])].into_iter())
            .await;
        let written = write(&client, 9, batch(&client.io, &["x"])).await;
        assert_eq!(written.error_code, 3);
        client.settle().await;
        let folders = front.sim.list("/data");
        assert!(!folders.iter().any(|f| f == "orders-0"), "{folders:?}");
    });
}

#[test]
fn frames_in_pieces_are_whole_requests() {
    run(|front| async move {
        let client = front.connect();
        let mut wire = BytesMut::new();
        for n in 0..3 {
            let request = produce(1, &[("orders", 0, batch(&client.io, &["x"]))]);
            wire.extend_from_slice(&crate::kafka::testing::frame(9, n, &request));
        }
        for byte in wire {
            client.send(&[byte]);
            client.settle().await;
        }
        for n in 0..3 {
            let response = client.answer::<ProduceRequest>(9, n).await;
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.base_offset, i64::from(n));
        }
    });
}

/// What the coordinator's driver tells of every new image.
struct Following(&'static Front);

impl Host for Following {
    async fn apply_image(&self, image: std::sync::Arc<Image>) {
        following::publish(&self.0.local, image).await;
    }
}

struct Driven(std::rc::Rc<Driver<SimIo, Following>>);

impl Coordinator for Driven {
    fn call(
        &self,
        request: Request,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response, Gone>>>> {
        let answer = self.0.call(request);
        Box::pin(async move { answer.await.map_err(|_| Gone) })
    }
}

#[test]
fn a_topic_that_is_asked_for_is_created_and_can_be_written_to_at_once() {
    for shards in [1, 3] {
        let front: &'static Front =
            Box::leak(Box::new(Front::of_shards(shards, Limits::default())));
        front.sim.run(async {
            let given = [
                ("broker.id", BROKER.to_string()),
                ("num.partitions", "4".to_owned()),
            ];
            let given = given.map(|(name, value)| (name.to_owned(), value));
            let core = CoreConfig {
                broker: BrokerConfig::new(given).unwrap(),
                cluster_id: None,
                id_seed: 1,
                session_secret: 1,
                zookeeper: Default::default(),
            };
            let io = front.local.io.clone();
            let config = DriverConfig::new(core, true);
            let driver = Driver::open(io, "/data".as_ref(), config, Following(front)).await;
            let driver = driver.unwrap_or_else(|e| panic!("{e}"));
            let broker = Broker {
                id: BROKER,
                rack: None,
                endpoints: vec![Endpoint {
                    listener: LISTENER.to_owned(),
                    protocol: LISTENER.to_owned(),
                    host: "gorge.example".to_owned(),
                    port: 9092,
                }],
            };
            driver
                .call(Request::RegisterBroker { broker })
                .await
                .unwrap();
            front
                .local
                .set_coordinator(std::rc::Rc::new(Driven(driver)));
            let client = front.connect();
            let ask = |n: &str| MetadataRequestTopic::default().with_name(Some(name(n).into()));
            let asked = || Some(vec![ask("orders"), ask("no/path"), ask("orders")]);
            let unwanted = MetadataRequest::default()
                .with_allow_auto_topic_creation(false)
                .with_topics(asked());
            let response = client.call(9, &unwanted).await;
            let codes: Vec<i16> = response.topics.iter().map(|t| t.error_code).collect();
            assert_eq!(codes, [3, 17, 3]);
            let wanted = MetadataRequest::default().with_topics(asked());
            let response = client.call(9, &wanted).await;
            let codes: Vec<i16> = response.topics.iter().map(|t| t.error_code).collect();
            assert_eq!(codes, [0, 17, 0]);
            assert_eq!(response.topics[0].partitions.len(), 4);
            for index in 0..4 {
                let bytes = batch(&client.io, &["x"]);
                let response = client
                    .call(9, &produce(1, &[("orders", index, bytes)]))
                    .await;
                assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
            }
        });
    }
}
