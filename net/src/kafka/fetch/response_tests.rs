use super::*;
use crate::kafka::fetch::read::Fetched;
use crate::kafka::testing::Front;
use bytes::{Buf, Bytes};
use kafka_protocol::messages::{FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use klamm_engine::io::sim::SimIo;
use klamm_engine::partition::Offsets;

fn offsets() -> Offsets {
    Offsets {
        log_start: Offset(5),
        high_watermark: Offset(90),
        last_stable: Offset(80),
        log_end: Offset(99),
        leader_epoch: LeaderEpoch(3),
    }
}

fn fetched(records: &[&[u8]]) -> Fetched<SimIo> {
    let parts: Vec<Part<SimIo>> = records
        .iter()
        .map(|r| Part::Bytes(Bytes::copy_from_slice(r)))
        .collect();
    Fetched {
        offsets: offsets(),
        bytes: parts.iter().map(Part::len).sum(),
        records: parts,
        diverging: None,
    }
}

/// A batch's header of zeros but for what matters here: its length and its codec.
fn batch(codec: u8, body: usize) -> Vec<u8> {
    let mut bytes = vec![0; 61 + body];
    bytes[8..12].copy_from_slice(&(49 + body as u32).to_be_bytes());
    bytes[16] = 2;
    bytes[22] = codec;
    bytes
}

fn encoded(
    version: i16,
    error: Code,
    shape: Vec<(&'static str, Vec<i32>)>,
    outcomes: Vec<Outcome<SimIo>>,
    read_committed: bool,
) -> FetchResponse {
    let front = Front::new();
    let ctx = front.context(1, version);
    let shape = shape
        .into_iter()
        .map(|(name, indexes)| (StrBytes::from_static_str(name), indexes))
        .collect();
    let flexible = version >= 12;
    let answer = encode(&ctx, flexible, error, shape, outcomes, read_committed, None);
    let Answer::Send(parts) = answer else {
        panic!("it is sent");
    };
    let bytes: Vec<u8> = parts
        .iter()
        .flat_map(|p| p.in_memory().unwrap().to_vec())
        .collect();
    let mut bytes = Bytes::from(bytes);
    assert_eq!(bytes.get_i32() as usize, bytes.len());
    let header = FetchResponse::header_version(version);
    let header = ResponseHeader::decode(&mut bytes, header).unwrap();
    assert_eq!(header.correlation_id, ctx.correlation_id);
    let response = FetchResponse::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "version {version}");
    response
}

#[test]
fn another_decoder_reads_what_was_meant_at_every_version() {
    for version in 4..=12 {
        let first = batch(0, 10);
        let second = batch(3, 300);
        let response = encoded(
            version,
            Code::NONE,
            vec![("orders", vec![2, 0]), ("é", vec![7])],
            vec![
                Ok(fetched(&[&first, &second])),
                Ok(fetched(&[])),
                Err(Code::NOT_LEADER_OR_FOLLOWER.into()),
            ],
            false,
        );
        assert_eq!((response.error_code, response.session_id), (0, 0));
        assert_eq!(response.responses.len(), 2);
        let orders = &response.responses[0];
        assert_eq!(orders.topic.as_str(), "orders");
        let [full, empty] = &orders.partitions[..] else {
            panic!("two partitions");
        };
        assert_eq!((full.partition_index, full.error_code), (2, 0));
        assert_eq!((full.high_watermark, full.last_stable_offset), (90, 80));
        let log_start = if version >= 5 { 5 } else { -1 };
        assert_eq!(full.log_start_offset, log_start);
        assert_eq!(full.aborted_transactions, None);
        assert_eq!(full.preferred_read_replica.0, -1);
        let both = [first, second].concat();
        assert_eq!(full.records.as_deref(), Some(&both[..]));
        // Not null: librdkafka would wait for ever.
        assert_eq!(empty.records.as_deref(), Some(&[][..]), "version {version}");
        let lost = &response.responses[1].partitions[0];
        assert_eq!((lost.partition_index, lost.error_code), (7, 6));
        assert_eq!((lost.high_watermark, lost.last_stable_offset), (-1, -1));
        assert_eq!(lost.records.as_deref(), Some(&[][..]));
    }
}

#[test]
fn a_reader_of_committed_records_is_told_that_none_were_aborted() {
    for version in 4..=12 {
        let outcomes = vec![Ok(fetched(&[]))];
        let response = encoded(version, Code::NONE, vec![("t", vec![0])], outcomes, true);
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.aborted_transactions, Some(vec![]));
    }
}

#[test]
fn a_diverging_log_is_told_from_version_12() {
    let mut outcome = fetched(&[]);
    outcome.diverging = Some((LeaderEpoch(2), Offset(41)));
    let response = encoded(
        12,
        Code::NONE,
        vec![("t", vec![0])],
        vec![Ok(outcome)],
        false,
    );
    let diverging = &response.responses[0].partitions[0].diverging_epoch;
    assert_eq!((diverging.epoch, diverging.end_offset), (2, 41));
}

#[test]
fn a_session_that_is_not_known_is_an_answer_without_partitions() {
    for version in 7..=12 {
        let response = encoded(
            version,
            Code::FETCH_SESSION_ID_NOT_FOUND,
            vec![],
            vec![],
            false,
        );
        assert_eq!(response.error_code, 70);
        assert!(response.responses.is_empty());
    }
}

#[test]
fn zstd_is_kept_from_clients_that_are_older_than_it() {
    let (plain, zstd) = (batch(2, 50), batch(4, 50));
    // A batch may lie in two parts, and its header too.
    let (head, tail) = zstd.split_at(20);
    let records: [&[u8]; 3] = [&plain, head, tail];
    for (version, kept) in [(9, plain.len()), (10, plain.len() + zstd.len())] {
        let outcomes = vec![Ok(fetched(&records)), Ok(fetched(&records[1..]))];
        let shape = vec![("t", vec![0, 1])];
        let response = encoded(version, Code::NONE, shape, outcomes, false);
        let partitions = &response.responses[0].partitions;
        let bytes = |at: usize| partitions[at].records.as_ref().unwrap().len();
        assert_eq!(bytes(0), kept, "version {version}");
        let (code, bytes_after) = if version < 10 {
            (76, 0)
        } else {
            (0, zstd.len())
        };
        assert_eq!((partitions[1].error_code, bytes(1)), (code, bytes_after));
    }
}

/// Version 4, byte for byte: what a client of 2017 has to read.
#[test]
fn the_bytes_of_version_4() {
    let front = Front::new();
    let ctx = front.context(1, 4);
    let shape = vec![(StrBytes::from_static_str("ab"), vec![1])];
    let outcomes = vec![Ok(fetched(&[b"records"]))];
    let Answer::Send(parts) = encode(&ctx, false, Code::NONE, shape, outcomes, false, None) else {
        panic!("it is sent");
    };
    let bytes: Vec<u8> = parts
        .iter()
        .flat_map(|p| p.in_memory().unwrap().to_vec())
        .collect();
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 57,  0, 0, 0, 77,              // size, correlation id
        0, 0, 0, 0,                             // throttle time
        0, 0, 0, 1,  0, 2, b'a', b'b',          // one topic, "ab"
        0, 0, 0, 1,  0, 0, 0, 1,  0, 0,         // one partition, 1, no error
        0, 0, 0, 0, 0, 0, 0, 90,                // high watermark
        0, 0, 0, 0, 0, 0, 0, 80,                // last stable offset
        0xff, 0xff, 0xff, 0xff,                 // aborted transactions: null
        0, 0, 0, 7, b'r', b'e', b'c', b'o', b'r', b'd', b's',
    ];
    assert_eq!(bytes, expected);
}

/// A compact name may be longer than a plain one can: it is only unknown.
#[test]
fn a_long_name_of_version_12_comes_back() {
    let long: &'static str = Box::leak("x".repeat(70_000).into_boxed_str());
    let outcomes = vec![Err(Code::UNKNOWN_TOPIC_OR_PARTITION.into())];
    let response = encoded(12, Code::NONE, vec![(long, vec![0])], outcomes, false);
    assert_eq!(response.responses[0].topic.len(), 70_000);
}
