//! Answers that a stranger has encoded, read in pieces of every size, whole and broken.

use super::*;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{FetchRequest, FetchResponse, RequestHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use klamm_engine::batch::{BatchBuilder, LENGTH_OVERHEAD as OVERHEAD};
use klamm_engine::codec::Codec;
use klamm_engine::units::{Offset, TimestampMs};

const LIMITS: Limits = Limits {
    max_bytes: 1000,
    max_partition_bytes: 100,
    min_bytes: 1,
    max_wait_ms: 500,
};

#[test]
fn a_stranger_reads_the_request() {
    let wanted = [("a", 0, 5), ("a", 2, 6), ("b", 0, 7)];
    let mut bytes = vec![1, 2, 3];
    let each = wanted.iter().map(|&(topic, index, offset)| Wanted {
        topic,
        index,
        offset,
    });
    request(&mut bytes, 42, &LIMITS, each);
    let mut bytes = Bytes::from(bytes);
    let length = bytes.split_to(4);
    assert_eq!(length[..], (bytes.len() as i32).to_be_bytes());
    let header = RequestHeader::decode(&mut bytes, 1).unwrap();
    assert_eq!(
        (header.request_api_key, header.request_api_version),
        (KEY, VERSION)
    );
    assert_eq!(header.correlation_id, 42);
    let request = FetchRequest::decode(&mut bytes, VERSION).unwrap();
    assert!(bytes.is_empty());
    assert_eq!(
        (request.max_bytes, request.min_bytes, request.max_wait_ms),
        (1000, 1, 500)
    );
    assert_eq!((request.session_id, request.session_epoch), (0, -1));
    assert_eq!(request.topics.len(), 2);
    let read: Vec<_> = (request.topics.iter())
        .flat_map(|topic| topic.partitions.iter().map(|p| (topic.topic.as_str(), p)))
        .map(|(topic, p)| (topic, p.partition, p.fetch_offset))
        .collect();
    assert_eq!(read, wanted);
}

fn batch(base: i64, records: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset(base));
    for n in 0..records {
        builder = builder.record(TimestampMs(n), None, Some(b"a value of some length"));
    }
    builder.finish()
}

fn partition(index: i32, records: Vec<u8>) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_high_watermark(100)
        .with_records(Some(records.into()))
}

/// Two topics; the second partition has aborted transactions and ends in half a batch.
fn response() -> Vec<u8> {
    let whole = [batch(5, 3), batch(8, 1)].concat();
    let cut = [batch(20, 2), batch(22, 2)[..70].to_vec()].concat();
    let cut_early = [batch(30, 2), batch(32, 2)[..30].to_vec()].concat();
    let aborted = AbortedTransaction::default().with_first_offset(4);
    let topic = |name: &str, partitions| {
        FetchableTopicResponse::default()
            .with_topic(TopicName(StrBytes::from_string(name.to_owned())))
            .with_partitions(partitions)
    };
    let response = FetchResponse::default().with_responses(vec![
        topic(
            "a",
            vec![
                partition(0, whole),
                partition(1, cut).with_aborted_transactions(Some(vec![aborted.clone(), aborted])),
            ],
        ),
        topic("b", vec![partition(0, Vec::new()), partition(1, cut_early)]),
    ]);
    framed(&response)
}

fn framed(response: &FetchResponse) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    bytes.put_i32(9);
    response.encode(&mut bytes, VERSION).unwrap();
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes.to_vec()
}

/// What was said, one line each.
fn read(bytes: &[u8], piece: usize) -> Outcome<Vec<String>> {
    let mut reader = Reader::new(true);
    reader.expect(9);
    let mut lines = Vec::new();
    let mut whole = false;
    for piece in bytes.chunks(piece) {
        if whole {
            return Err("bytes behind the end".to_owned());
        }
        whole = reader.read(piece, |said| {
            lines.push(match said {
                Said::Partition {
                    topic,
                    index,
                    error,
                    high_watermark,
                } => format!(
                    "{}-{index} {error} {high_watermark}",
                    String::from_utf8_lossy(topic)
                ),
                Said::Batch(header) => format!(
                    "{} {} {}",
                    header.base_offset, header.next_offset, header.records
                ),
            });
            Ok(())
        })?;
    }
    if whole {
        Ok(lines)
    } else {
        Err("not whole".to_owned())
    }
}

const LINES: [&str; 8] = [
    "a-0 0 100",
    "5 8 3",
    "8 9 1",
    "a-1 0 100",
    "20 22 2",
    "b-0 0 100",
    "b-1 0 100",
    "30 32 2",
];

#[test]
fn an_answer_is_the_same_in_pieces_of_any_size() {
    let bytes = response();
    for piece in 1..=bytes.len() {
        assert_eq!(read(&bytes, piece).unwrap(), LINES, "in pieces of {piece}");
    }
}

#[test]
fn one_reader_reads_one_answer_after_another() {
    let bytes = response();
    let mut reader = Reader::new(true);
    for _ in 0..3 {
        reader.expect(9);
        let mut batches = 0;
        let whole = reader.read(&bytes, |said| {
            batches += u32::from(matches!(said, Said::Batch(_)));
            Ok(())
        });
        assert_eq!((whole, batches), (Ok(true), 4));
    }
}

#[test]
fn a_flipped_bit_in_a_batch_is_found() {
    let bytes = response();
    let records = batch(5, 3);
    let at = bytes
        .windows(records.len())
        .position(|w| w == records)
        .unwrap();
    for bit in [CRC_FROM, 40, records.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at + bit] ^= 1;
        let message = read(&flipped, 16).unwrap_err();
        assert!(
            message.contains("CRC") || message.contains("header"),
            "{message}"
        );
    }
}

#[test]
fn a_broken_answer_is_refused_and_nothing_panics() {
    let bytes = response();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x40, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= bit;
            for piece in [7, bytes.len()] {
                let _ = read(&flipped, piece);
            }
        }
    }
    // A length that promises less, or more, than there is.
    for more in [-1, 1] {
        let mut wrong = bytes.clone();
        let length = i32::try_from(bytes.len() - 4).unwrap() + more;
        wrong[..4].copy_from_slice(&length.to_be_bytes());
        assert!(read(&wrong, 50).is_err());
    }
    assert!(read(&[bytes.clone(), vec![0]].concat(), bytes.len() + 1).is_err());
    let mut shortest = batch(5, 1);
    shortest[8..12].copy_from_slice(&i32::try_from(HEADER - OVERHEAD - 1).unwrap().to_be_bytes());
    let topic = FetchableTopicResponse::default().with_partitions(vec![partition(0, shortest)]);
    let answer = framed(&FetchResponse::default().with_responses(vec![topic]));
    assert!(read(&answer, 9).unwrap_err().contains("length"));
}

#[test]
fn an_error_of_the_whole_and_anothers_answer_are_told() {
    let refused = framed(&FetchResponse::default().with_error_code(56));
    assert!(read(&refused, 5).unwrap_err().contains("error 56"));
    let mut others = response();
    others[7] = 10;
    assert!(
        read(&others, 100)
            .unwrap_err()
            .contains("request 10 came where 9")
    );
}
