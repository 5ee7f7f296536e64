//! Doors for fuzzers: everything that is done with bytes of a client before a handler
//! sees them. Nothing here may panic, or take more memory than a small multiple of
//! the bytes.

use crate::kafka::route::{self, Api};
use crate::kafka::{guard, produce};
use bytes::Bytes;
use kafka_protocol::protocol::Decodable;

/// Calls a function with the request type of an API that is decoded behind the guard.
macro_rules! with_type {
    ($api:expr, $do:ident, $($arg:expr),*) => {{
        use kafka_protocol::messages::*;
        match $api.key {
            1 => $do::<FetchRequest>($($arg),*),
            2 => $do::<ListOffsetsRequest>($($arg),*),
            3 => $do::<MetadataRequest>($($arg),*),
            8 => $do::<OffsetCommitRequest>($($arg),*),
            9 => $do::<OffsetFetchRequest>($($arg),*),
            10 => $do::<FindCoordinatorRequest>($($arg),*),
            11 => $do::<JoinGroupRequest>($($arg),*),
            12 => $do::<HeartbeatRequest>($($arg),*),
            13 => $do::<LeaveGroupRequest>($($arg),*),
            14 => $do::<SyncGroupRequest>($($arg),*),
            15 => $do::<DescribeGroupsRequest>($($arg),*),
            16 => $do::<ListGroupsRequest>($($arg),*),
            18 => $do::<ApiVersionsRequest>($($arg),*),
            19 => $do::<CreateTopicsRequest>($($arg),*),
            20 => $do::<DeleteTopicsRequest>($($arg),*),
            21 => $do::<DeleteRecordsRequest>($($arg),*),
            22 => $do::<InitProducerIdRequest>($($arg),*),
            23 => $do::<OffsetForLeaderEpochRequest>($($arg),*),
            32 => $do::<DescribeConfigsRequest>($($arg),*),
            33 => $do::<AlterConfigsRequest>($($arg),*),
            37 => $do::<CreatePartitionsRequest>($($arg),*),
            42 => $do::<DeleteGroupsRequest>($($arg),*),
            44 => $do::<IncrementalAlterConfigsRequest>($($arg),*),
            47 => $do::<OffsetDeleteRequest>($($arg),*),
            60 => $do::<DescribeClusterRequest>($($arg),*),
            key => unreachable!("API {key} has its own decoder"),
        }
    }};
}
#[cfg(test)]
pub(crate) use with_type;

/// A frame's content: header, guard, and the decoder of its API and version.
pub fn fuzz_request(frame: &[u8]) {
    let mut body = Bytes::copy_from_slice(frame);
    let Ok((header, api)) = route::header(&mut body) else {
        return;
    };
    if !(api.served_min..=api.max).contains(&header.version) {
        return;
    }
    decode(api, header.version, body);
}

/// The body of a Produce in its plain and its flexible form.
pub fn fuzz_produce(body: &[u8]) {
    for flexible in [false, true] {
        let _ = produce::decode(Bytes::copy_from_slice(body), flexible);
    }
}

fn decode(api: &'static Api, version: i16, body: Bytes) {
    fn through<Q: Decodable>(mut body: Bytes, version: i16) {
        let before = body.len();
        // What has passed the guard may still be refused: a null, bytes that are no
        // UTF-8. It is never read beyond.
        let _ = Q::decode(&mut body, version);
        assert!(body.len() <= before);
    }
    let flexible = version >= api.flexible_from;
    if api.key == 0 {
        let _ = produce::decode(body, flexible);
        return;
    }
    if let Ok(used) = guard::check(api.key, flexible, version, &body) {
        assert!(used <= body.len());
        with_type!(api, through, body, version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ProduceRequest;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::protocol::Encodable;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn corpus() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/kafka_request")
    }

    #[test]
    fn the_corpus_of_requests() {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus()).expect("the corpus") {
            let path = entry.expect("the corpus").path();
            let bytes = std::fs::read(&path).expect("an input");
            let both = || {
                fuzz_request(&bytes);
                fuzz_produce(&bytes);
            };
            std::panic::catch_unwind(both)
                .unwrap_or_else(|_| panic!("the input was {}", path.display()));
            inputs += 1;
        }
        assert!(inputs >= 10, "a corpus of {inputs}");
    }

    /// Produce is not guarded as the others are; theirs come from the guard's tests.
    #[test]
    #[ignore = "writes the seeds of the corpus"]
    fn seeds_of_the_corpus_of_produce_are_written() {
        for version in [3i16, 9, 12] {
            let data = PartitionProduceData::default()
                .with_index(1)
                .with_records(Some(Bytes::from_static(&[0; 70])));
            let topic = TopicProduceData::default()
                .with_name(kafka_protocol::protocol::StrBytes::from_static_str("orders").into())
                .with_partition_data(vec![data]);
            let request = ProduceRequest::default()
                .with_acks(-1)
                .with_topic_data(vec![topic]);
            let mut frame =
                bytes::BytesMut::from(&[0, 0, 0, version as u8, 0, 0, 0, 7, 0xff, 0xff][..]);
            if version >= 9 {
                frame.extend_from_slice(&[0]);
            }
            request.encode(&mut frame, version).expect("a request");
            std::fs::write(corpus().join(format!("Produce-{version}")), &frame).expect("a seed");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_frame_is_taken_or_refused(
            nth in 0usize..64,
            version in -1i16..14,
            rest in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), any::<u8>()], 0..120),
        ) {
            let api = route::APIS[nth % route::APIS.len()];
            let mut frame = api.key.to_be_bytes().to_vec();
            frame.extend_from_slice(&version.to_be_bytes());
            frame.extend_from_slice(&rest);
            fuzz_request(&frame);
            fuzz_request(&rest);
            fuzz_produce(&rest);
        }
    }
}
