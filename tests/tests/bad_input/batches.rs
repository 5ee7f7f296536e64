//! Produce and Fetch: batches that are not what they claim, and offsets that are not.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TransactionalId};
use klamm_tests::batch::{Batch, CONTROL, TRANSACTIONAL, record, varint};
use klamm_tests::broker::Broker;
use klamm_tests::client::{LATEST, produce_request};
use klamm_tests::wire::{Connection, text, topic};

fn orders() -> (Broker, Connection) {
    let broker = Broker::start();
    let mut connection = broker.connect();
    connection.create_topic("orders", 1, &[]);
    (broker, connection)
}

fn end(connection: &mut Connection) -> i64 {
    let (code, offset) = connection.list_offset("orders", 0, LATEST);
    assert_eq!(code, 0);
    offset
}

#[test]
fn a_sound_batch_is_taken() {
    let (_broker, mut connection) = orders();
    let batch = Batch::of(&["a", "b"]).encode();
    assert_eq!(connection.produce("orders", 0, batch.clone()), (0, 0));
    assert_eq!(connection.produce("orders", 0, batch), (0, 2));
    assert_eq!(end(&mut connection), 4);
}

#[test]
fn a_wrong_crc_is_corrupt() {
    let (_broker, mut connection) = orders();
    let good = Batch::of(&["a", "b"]).encode();
    // Everything from the CRC itself to the last byte is under it.
    for at in [17, 20, 21, 30, 61, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(connection.produce("orders", 0, bad), (2, -1), "byte {at}");
    }
    assert_eq!(end(&mut connection), 0);
}

#[test]
fn a_batch_beyond_max_message_bytes_is_too_large() {
    let (_broker, mut connection) = orders();
    let of = |bytes: usize| Batch::of(&[vec![b'x'; bytes]]).encode();
    // The default is a megabyte and the 12 bytes before a batch's length counts.
    assert_eq!(connection.produce("orders", 0, of(1_048_588)), (10, -1));
    assert_eq!(connection.produce("orders", 0, of(1_000_000)), (0, 0));
    connection.create_topic("small", 1, &[("max.message.bytes", "1000")]);
    assert_eq!(connection.produce("small", 0, of(1_000)), (10, -1));
    assert_eq!(connection.produce("small", 0, of(900)), (0, 0));
}

#[test]
fn a_batch_that_contradicts_itself_is_invalid() {
    let (_broker, mut connection) = orders();
    let batch = || Batch::of(&["a", "b"]);
    let twice = [batch().encode(), batch().encode()].concat();
    let mut beyond = Vec::new();
    varint(&mut beyond, 1_000);
    beyond.extend(b"too little");
    let mut negative = Vec::new();
    varint(&mut negative, -3);
    let mut one_more = Vec::new();
    record(&mut one_more, 0, b"a");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("magic 1", batch().change(|b| b.magic = 1).encode()),
        ("magic 3", batch().change(|b| b.magic = 3).encode()),
        ("two batches", twice),
        (
            "base offset 5",
            batch().change(|b| b.base_offset = 5).encode(),
        ),
        ("count 3 of 2", batch().change(|b| b.count = 3).encode()),
        ("count 0", batch().change(|b| b.count = 0).encode()),
        (
            "last offset 7",
            batch().change(|b| b.last_offset_delta = 7).encode(),
        ),
        (
            "last offset -1",
            batch().change(|b| b.last_offset_delta = -1).encode(),
        ),
        (
            "control",
            batch().change(|b| b.attributes = CONTROL).encode(),
        ),
        ("sequence -1", batch().from_producer(9, 0, -1).encode()),
        ("sequence -2", batch().from_producer(9, 0, -2).encode()),
        (
            "a record beyond the batch",
            batch().change(|b| b.records = beyond).encode(),
        ),
        (
            "a record of -3 bytes",
            batch().change(|b| b.records = negative).encode(),
        ),
        (
            "fewer records than counted",
            batch().change(|b| b.records = one_more).encode(),
        ),
        (
            "more records than counted",
            batch().change(|b| record(&mut b.records, 2, b"c")).encode(),
        ),
        ("no records", batch().change(|b| b.records.clear()).encode()),
    ];
    for (what, bytes) in cases {
        assert_eq!(connection.produce("orders", 0, bytes), (87, -1), "{what}");
    }
    assert_eq!(end(&mut connection), 0);
}

#[test]
fn a_batch_whose_length_lies_is_refused() {
    let (_broker, mut connection) = orders();
    let good = Batch::of(&["a", "b"]).encode();
    let length = i32::from_be_bytes(good[8..12].try_into().unwrap());
    for lie in [i32::MAX, i32::MIN, -1, 0, 48, length - 1, length + 1] {
        let mut bad = good.clone();
        bad[8..12].copy_from_slice(&lie.to_be_bytes());
        let (code, _) = connection.produce("orders", 0, bad);
        assert!(matches!(code, 2 | 87), "length {lie}: {code}");
    }
    for cut in [0, 1, 11, 12, 60, good.len() - 1] {
        let (code, _) = connection.produce("orders", 0, good[..cut].to_vec());
        assert!(matches!(code, 2 | 87), "{cut} bytes: {code}");
    }
    assert_eq!(end(&mut connection), 0);
}

#[test]
fn zstd_needs_produce_7_and_codecs_5_to_7_are_none() {
    let (_broker, mut connection) = orders();
    let zstd = |_: ()| {
        Batch::of(&["a"]).change(|b| {
            b.attributes = 4;
            b.records = zstd_of_zeros(64);
        })
    };
    for (version, expected) in [(3, 76), (6, 76), (7, 0)] {
        let request = produce_request("orders", 0, zstd(()).encode(), -1);
        let response = connection.call(version, &request).expect("an answer");
        let code = response.responses[0].partition_responses[0].error_code;
        assert_eq!(code, expected, "version {version}");
    }
    for codec in [5, 6, 7] {
        let batch = Batch::of(&["a"]).change(|b| b.attributes = codec).encode();
        assert_eq!(
            connection.produce("orders", 0, batch),
            (76, -1),
            "codec {codec}"
        );
    }
}

/// A zstd frame (RFC 8878) of so many zeros: magic, a window of 128 KiB, then blocks
/// of 4 bytes that each stand for up to 128 KiB of one byte.
fn zstd_of_zeros(zeros: u64) -> Vec<u8> {
    const BLOCK_MAX: u64 = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    let mut left = zeros;
    while left > 0 {
        let now = left.min(BLOCK_MAX);
        left -= now;
        let last = u64::from(left == 0);
        let header = now << 3 | 1 << 1 | last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn a_batch_that_unpacks_to_4_gib_costs_no_more_than_others() {
    let (broker, mut connection) = orders();
    let before = broker.memory_peak();
    let bomb = Batch::of(&["a"]).change(|b| {
        b.attributes = 4;
        b.records = zstd_of_zeros(4 << 30);
    });
    let bomb_time = bomb.base_timestamp;
    let (code, _) = connection.produce("orders", 0, bomb.encode());
    // Stored as it came, it must be unpacked to find a time in it; else it is refused
    // at once.
    let code = match code {
        0 => connection.list_offset("orders", 0, bomb_time).0,
        code => code,
    };
    assert_eq!(code, 10);
    let grown = broker.memory_peak() - before;
    assert!(grown < 256 << 20, "{} MiB", grown >> 20);
    let good = Batch::of(&["a"]).encode();
    assert_eq!(connection.produce("orders", 0, good).0, 0);
}

#[test]
fn acks_2_is_refused_and_an_error_with_acks_0_closes() {
    let (broker, mut connection) = orders();
    let good = || Batch::of(&["a"]).encode();
    for acks in [2, -2, i16::MAX] {
        let request = produce_request("orders", 0, good(), acks);
        let response = connection.call(9, &request).expect("an answer");
        assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
    }
    assert_eq!(end(&mut connection), 0);

    let mut bad = good();
    bad[17] ^= 1;
    for (name, batch) in [("orders", bad), ("nothing", good())] {
        let mut silent = broker.connect();
        silent
            .send_request(9, &produce_request(name, 0, batch, 0))
            .unwrap();
        silent.expect_close();
    }
    let mut silent = broker.connect();
    silent
        .send_request(9, &produce_request("orders", 0, good(), 0))
        .unwrap();
    silent
        .api_versions()
        .expect("a sound one has no answer and does not close");
}

#[test]
fn produce_to_what_is_not_there_is_unknown() {
    let (_broker, mut connection) = orders();
    let long = "x".repeat(250);
    let good = || Batch::of(&["a"]).encode();
    for name in ["", ".", "..", "../x", &long, "a\0b", "a\nb", "nothing"] {
        assert_eq!(connection.produce(name, 0, good()), (3, -1), "{name:?}");
    }
    for partition in [-1, 1, i32::MAX, i32::MIN] {
        assert_eq!(connection.produce("orders", partition, good()), (3, -1));
    }
}

#[test]
fn sequences_have_no_gaps_and_duplicates_no_second_copy() {
    let (_broker, mut connection) = orders();
    let (id, epoch) = connection.init_producer_id();
    let batch = |epoch, sequence| {
        Batch::of(&["a", "b"])
            .from_producer(id, epoch, sequence)
            .encode()
    };
    let mut produce = |epoch, sequence| connection.produce("orders", 0, batch(epoch, sequence));
    assert_eq!(produce(epoch, 0), (0, 0));
    assert_eq!(produce(epoch, 2), (0, 2));
    assert_eq!(
        produce(epoch, 0),
        (0, 0),
        "a duplicate gets the first one's offset"
    );
    assert_eq!(produce(epoch, 6), (45, -1), "a gap");
    assert_eq!(produce(epoch, 4), (0, 4), "and it goes on where it was");
    assert_eq!(produce(epoch + 1, 3), (45, -1), "a new epoch begins at 0");
    assert_eq!(produce(epoch + 1, 0), (0, 6));
    assert_eq!(produce(epoch, 6), (47, -1), "an old epoch");
    assert_eq!(end(&mut connection), 8);
}

#[test]
fn a_transactional_produce_without_a_transaction_is_refused() {
    let (_broker, mut connection) = orders();
    let (id, epoch) = connection.init_producer_id();
    let batch = Batch::of(&["a"])
        .from_producer(id, epoch, 0)
        .change(|b| b.attributes = TRANSACTIONAL)
        .encode();
    let mut request = produce_request("orders", 0, batch, -1);
    for transactional_id in [Some(TransactionalId(text("tx"))), None] {
        request.transactional_id = transactional_id;
        let response = connection.call(9, &request).expect("an answer");
        assert_eq!(response.responses[0].partition_responses[0].error_code, 48);
    }
    assert_eq!(end(&mut connection), 0);
}

// -- fetch

fn fetch(name: &str, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default()
        .with_topic(topic(name))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

fn partition_code(response: &FetchResponse) -> i16 {
    response.responses[0].partitions[0].error_code
}

#[test]
fn a_fetch_outside_of_the_log_is_out_of_range() {
    let (_broker, mut connection) = orders();
    connection.produce("orders", 0, Batch::of(&["a", "b"]).encode());
    for (offset, code) in [
        (-1, 1),
        (3, 1),
        (i64::MAX, 1),
        (i64::MIN, 1),
        (2, 0),
        (0, 0),
    ] {
        let response = connection
            .call(11, &fetch("orders", 0, offset))
            .expect("an answer");
        assert_eq!(partition_code(&response), code, "offset {offset}");
    }
    // The end is no error: records of length 0, not null.
    let response = connection
        .call(11, &fetch("orders", 0, 2))
        .expect("an answer");
    let records = &response.responses[0].partitions[0].records;
    assert_eq!(records.as_ref(), Some(&Bytes::new()));
    for (name, partition) in [("nothing", 0), ("orders", 1), ("orders", -1), ("../x", 0)] {
        let response = connection
            .call(11, &fetch(name, partition, 0))
            .expect("an answer");
        assert_eq!(partition_code(&response), 3, "{name}-{partition}");
    }
}

#[test]
fn a_fetch_session_that_is_not_there_is_told_so() {
    let (_broker, mut connection) = orders();
    for (session, epoch, code) in [(12_345, 1, 70), (0, 7, 71), (0, -1, 0), (0, 0, 0)] {
        let request = fetch("orders", 0, 0)
            .with_session_id(session)
            .with_session_epoch(epoch);
        let response = connection.call(11, &request).expect("an answer");
        assert_eq!((response.error_code, response.session_id), (code, 0));
    }
}
