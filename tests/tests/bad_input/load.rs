//! Too much of what is right.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiVersionsRequest, BrokerId, FetchRequest};
use klamm_tests::batch::Batch;
use klamm_tests::broker::Broker;
use klamm_tests::wire::{encode, topic};
use std::io::Write;

const MIB: u64 = 1 << 20;

/// A hundred thousand requests before the first answer is read. They come in order,
/// and the broker holds few of them at a time.
#[test]
fn a_hundred_thousand_pipelined_requests_are_answered_in_order_and_bounded() {
    const REQUESTS: i32 = 100_000;
    let broker = Broker::start();
    broker.connect().api_versions().expect("an answer");
    let before = broker.memory_peak();
    let mut connection = broker.connect();
    let mut writer = connection.socket().try_clone().expect("another end");
    let sending = std::thread::spawn(move || {
        let mut frames = Vec::new();
        for correlation in 0..REQUESTS {
            let frame = encode(
                correlation,
                Some("eager"),
                0,
                &ApiVersionsRequest::default(),
            );
            let length = i32::try_from(frame.len()).expect("small");
            frames.extend(length.to_be_bytes());
            frames.extend(frame);
        }
        // As long as nothing is read, this comes to a stop where the buffers of both
        // ends and the broker's own few are full; the reader below lets it go on.
        writer.set_write_timeout(None).expect("no timeout");
        writer.write_all(&frames)
    });
    // Others are served meanwhile.
    broker.connect().api_versions().expect("an answer");
    for correlation in 0..REQUESTS {
        let answer = connection.receive_frame().expect("an answer");
        let expected = correlation.to_be_bytes();
        assert_eq!(
            answer[..4],
            expected,
            "answer {correlation} is in its place"
        );
    }
    sending.join().expect("the sender").expect("all sent");
    let grown = broker.memory_peak() - before;
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}

/// Fetches whose answers would be gigabytes, and nobody who reads them.
#[test]
fn a_reader_that_never_drains_costs_only_itself() {
    const BATCHES: usize = 16;
    const FETCHES: usize = 2_000;
    let broker = Broker::start();
    let mut connection = broker.connect();
    connection.create_topic("orders", 1, &[]);
    let values: Vec<_> = (0..8).map(|_| vec![b'x'; 100_000]).collect();
    for _ in 0..BATCHES {
        let (code, _) = connection.produce("orders", 0, Batch::of(&values).encode());
        assert_eq!(code, 0);
    }
    let before = broker.memory_peak();
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(0)
        .with_partition_max_bytes(32 << 20);
    let orders = FetchTopic::default()
        .with_topic(topic("orders"))
        .with_partitions(vec![partition]);
    let fetch = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_min_bytes(1)
        .with_max_bytes(32 << 20)
        .with_topics(vec![orders]);
    let mut hoarders: Vec<_> = (0..4).map(|_| broker.connect()).collect();
    for hoarder in &mut hoarders {
        let frame = encode(1, None, 4, &fetch);
        let length = i32::try_from(frame.len()).expect("small");
        let framed = [&length.to_be_bytes()[..], &frame].concat();
        // 2,000 requests of some 80 bytes: they fit in the socket's own buffers, so
        // that this does not wait for a broker that has stopped reading.
        hoarder.send(&framed.repeat(FETCHES)).expect("sent");
    }
    // Others go on, writing and reading, for longer than the answers would take.
    for _ in 0..50 {
        let (code, _) = connection.produce("orders", 0, Batch::of(&["on"]).encode());
        assert_eq!(code, 0);
        let answer = connection.call(4, &fetch).expect("an answer");
        let records = answer.responses[0].partitions[0].records.as_ref();
        assert!(records.expect("records").len() > 10_000_000);
    }
    let grown = broker.memory_peak() - before;
    assert!(grown < 512 * MIB, "{} MiB", grown / MIB);
}
