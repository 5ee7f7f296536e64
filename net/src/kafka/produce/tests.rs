use super::*;
use crate::kafka::testing::Front;
use bytes::BytesMut;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest as Crate, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable};
use klamm_engine::io::sim::Faults;
use proptest::prelude::*;

fn flexible(version: i16) -> bool {
    version >= 9
}

fn as_ours(request: Crate) -> ProduceRequest {
    ProduceRequest {
        transactional_id: request.transactional_id.map(|id| id.0),
        acks: request.acks,
        timeout_ms: request.timeout_ms,
        topics: request
            .topic_data
            .into_iter()
            .map(|topic| TopicData {
                name: topic.name.0,
                partitions: topic
                    .partition_data
                    .into_iter()
                    .map(|p| PartitionData {
                        index: p.index,
                        records: p.records,
                    })
                    .collect(),
            })
            .collect(),
    }
}

fn a_request() -> impl Strategy<Value = Crate> {
    let records = prop::option::of(prop::collection::vec(any::<u8>(), 0..300));
    let partitions = prop::collection::vec((any::<i32>(), records), 0..4);
    let topics = prop::collection::vec(("[a-zé\n]{0,20}", partitions), 0..4);
    let id = prop::option::of("[a-z]{0,200}");
    (id, any::<i16>(), any::<i32>(), topics).prop_map(|(id, acks, timeout, topics)| {
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, records)| {
                PartitionProduceData::default()
                    .with_index(index)
                    .with_records(records.map(Bytes::from))
            });
            TopicProduceData::default()
                .with_name(StrBytes::from_string(name).into())
                .with_partition_data(partitions.collect())
        });
        Crate::default()
            .with_transactional_id(id.map(|id| TransactionalId(StrBytes::from_string(id))))
            .with_acks(acks)
            .with_timeout_ms(timeout)
            .with_topic_data(topics.collect())
    })
}

proptest! {
    #[test]
    fn what_another_encoder_wrote_is_read_as_it_was_meant(
        request in a_request(),
        version in 3i16..=12,
        unknown_tag in any::<bool>(),
    ) {
        let mut request = request;
        if unknown_tag && flexible(version) {
            request.unknown_tagged_fields.insert(77, Bytes::from_static(b"later"));
        }
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        let ours = decode(body.freeze(), flexible(version)).unwrap();
        prop_assert_eq!(ours, as_ours(request));
    }

    #[test]
    fn a_request_cut_short_is_refused(request in a_request(), version in 3i16..=12, cut in 1usize..50) {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        let cut = cut.min(body.len());
        body.truncate(body.len() - cut);
        prop_assert!(decode(body.freeze(), flexible(version)).is_err());
    }

    /// What ours takes, the other takes too, and the same.
    #[test]
    fn any_bytes_are_read_alike_or_refused(
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), any::<u8>()], 0..100),
        version in 3i16..=12,
    ) {
        let mut body = Bytes::from(body);
        if let Ok(ours) = decode(body.clone(), flexible(version)) {
            let theirs = Crate::decode(&mut body, version);
            prop_assert_eq!(as_ours(theirs.unwrap()), ours);
        }
    }
}

#[test]
fn records_are_slices_of_the_frame() {
    let partition =
        PartitionProduceData::default().with_records(Some(Bytes::from_static(b"batch")));
    let topic = TopicProduceData::default()
        .with_name(StrBytes::from_static_str("orders").into())
        .with_partition_data(vec![partition]);
    let mut body = BytesMut::new();
    Crate::default()
        .with_topic_data(vec![topic])
        .encode(&mut body, 8)
        .unwrap();
    let frame = body.freeze();
    let request = decode(frame.clone(), false).unwrap();
    let records = request.topics[0].partitions[0].records.as_ref().unwrap();
    let within = frame.as_ptr() as usize..frame.as_ptr() as usize + frame.len();
    assert!(within.contains(&(records.as_ptr() as usize)));
}

#[test]
fn a_count_that_lies_takes_no_memory() {
    let mut body = BytesMut::new();
    bytes::BufMut::put_slice(&mut body, &[0xff, 0xff, 0, 1, 0, 0, 0, 1]);
    bytes::BufMut::put_i32(&mut body, i32::MAX);
    assert!(decode(body.freeze(), false).is_err());
}

/// A request's partitions are waited for one after another, and the clock is the request's.
#[test]
fn what_is_not_on_the_disk_in_time_is_said_of_each_partition() {
    const TIMEOUT_MS: i32 = 5000;
    let front: &'static Front = Box::leak(Box::new(Front::new()));
    front.sim.run(async {
        front.topics(&[("orders", 1), ("other", 1)]).await;
        let client = front.connect();
        let batch = crate::kafka::testing::batch(&client.io, &["x"]);
        let ask = |topics: [&'static str; 2]| {
            let topics = topics.map(|topic| {
                let partition = PartitionProduceData::default().with_records(Some(batch.clone()));
                TopicProduceData::default()
                    .with_name(StrBytes::from_static_str(topic).into())
                    .with_partition_data(vec![partition])
            });
            Crate::default()
                .with_acks(-1)
                .with_timeout_ms(TIMEOUT_MS)
                .with_topic_data(topics.to_vec())
        };
        let codes = async |topics| -> Vec<i16> {
            let response = client.call(9, &ask(topics)).await;
            let partitions = response.responses.iter().map(|t| &t.partition_responses[0]);
            partitions.map(|p| p.error_code).collect()
        };
        assert_eq!(codes(["orders", "other"]).await, [0, 0]);
        front.sim.faults(Faults {
            slow: 1.0,
            slow_max: Duration::from_secs(3600),
            ..Faults::default()
        });
        let began = client.io.now();
        assert_eq!(codes(["orders", "other"]).await, [7, 7]);
        let took = Duration::from_nanos(client.io.now().0 - began.0);
        assert!(
            took.as_millis().abs_diff(TIMEOUT_MS as u128) < 100,
            "{took:?}"
        );
    });
}
