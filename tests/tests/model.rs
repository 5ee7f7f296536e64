//! Fetches against a plain list: whatever the sizes, the next records come, with no gap.
//!
//! ```text
//!   model:   [v0, v1, v2, ...]            one list a partition, eight partitions
//!   broker:  segments of 1 MiB, batches of 1 to 8 records, on two cores
//!   fetch:   any offset, any limit  ->  a part of the list that begins at the offset
//! ```

use bytes::Bytes;
use klamm_tests::batch::Batch;
use klamm_tests::broker::Broker;
use klamm_tests::client::LATEST;
use klamm_tests::fetch::{self, Fetch, Patience, records_from, whole_batches};
use klamm_tests::random::Random;
use klamm_tests::wire::{Connection, Next, encode};
use std::time::{Duration, Instant};

const TOPIC: &str = "orders";
/// A topic's partitions go round the cores, so that each of two has four.
const PARTITIONS: usize = 8;
const OFFSET_OUT_OF_RANGE: i16 = 1;

fn two_cores() -> Broker {
    let broker = Broker::with().flag("--cores", "2").start();
    let partitions = i32::try_from(PARTITIONS).expect("a few");
    // Kafka's smallest segments.
    broker
        .connect()
        .create_topic(TOPIC, partitions, &[("segment.bytes", "1048576")]);
    broker
}

fn number(p: usize) -> i32 {
    i32::try_from(p).expect("a partition's number")
}

#[test]
fn every_fetch_returns_the_next_records() {
    const STEPS: usize = 1_500;
    let mut random = Random::new();
    let mut broker = two_cores();
    let mut connection = broker.connect();
    let mut model: Vec<Vec<Vec<u8>>> = vec![Vec::new(); PARTITIONS];
    for step in 0..STEPS {
        let p = random.below(PARTITIONS);
        if random.below(3) == 0 {
            append(&mut connection, &mut model, p, &mut random);
        } else {
            fetch_and_compare(&mut connection, &model[p], p, &mut random);
        }
        // Once with everything closed in order, once with nothing closed at all.
        if step == STEPS / 3 {
            broker.restart();
            connection = broker.connect();
        } else if step == 2 * STEPS / 3 {
            broker.kill9();
            broker.start_again();
            connection = broker.connect();
        }
    }
    let mut most_segments = 0;
    for (p, values) in model.iter().enumerate() {
        let records = connection.read_all(TOPIC, number(p));
        assert_eq!(records.len(), values.len(), "{TOPIC}-{p}");
        for (record, value) in records.iter().zip(values) {
            assert_eq!(
                record.value.as_deref(),
                Some(&value[..]),
                "{TOPIC}-{p} at {}",
                record.offset
            );
        }
        let folder =
            std::fs::read_dir(broker.data().join(format!("{TOPIC}-{p}"))).expect("its folder");
        let logs = folder.filter(|f| {
            f.as_ref()
                .is_ok_and(|f| f.path().extension().is_some_and(|e| e == "log"))
        });
        most_segments = most_segments.max(logs.count());
    }
    assert!(most_segments > 1, "segment boundaries were under test");
}

/// A batch of random records; often small ones, sometimes large ones.
fn append(connection: &mut Connection, model: &mut [Vec<Vec<u8>>], p: usize, random: &mut Random) {
    let longest = if random.below(4) == 0 { 60_000 } else { 300 };
    let values: Vec<Vec<u8>> = (0..1 + random.below(8))
        .map(|_| {
            let mut value = random.bits().to_be_bytes().to_vec();
            value.resize(8 + random.below(longest), b'.');
            value
        })
        .collect();
    let base = i64::try_from(model[p].len()).expect("small");
    let answer = connection.produce(TOPIC, number(p), Batch::of(&values).encode());
    assert_eq!(answer, (0, base), "{TOPIC}-{p}: the base offset");
    model[p].extend(values);
}

fn fetch_and_compare(
    connection: &mut Connection,
    values: &[Vec<u8>],
    p: usize,
    random: &mut Random,
) {
    let end = values.len();
    // Up to one beyond the end; every eighth at the end exactly.
    let from = if random.below(8) == 0 {
        end
    } else {
        random.below(end + 2)
    };
    let limit_max = if random.below(2) == 0 { 500 } else { 1 << 20 };
    let limit = 1 + random.below(limit_max);
    let offset = i64::try_from(from).expect("small");
    let answer = connection.fetch(&Fetch {
        topic: TOPIC,
        partition: number(p),
        offset,
        partition_bytes_max: i32::try_from(limit).expect("a MiB at most"),
    });
    let what = format!("{TOPIC}-{p} from {from} of {end}, at most {limit} bytes");
    if from > end {
        assert_eq!(answer.code, OFFSET_OUT_OF_RANGE, "{what}");
        return;
    }
    assert_eq!(answer.code, 0, "{what}");
    assert_eq!(
        answer.high_watermark,
        i64::try_from(end).expect("small"),
        "{what}"
    );
    let bytes = answer
        .bytes
        .unwrap_or_else(|| panic!("{what}: null instead of no records"));
    let records = records_from(&bytes, offset);
    if from == end {
        assert!(bytes.is_empty(), "{what}: {} bytes at the end", bytes.len());
        return;
    }
    assert!(!records.is_empty(), "{what}: a reader would stand still");
    for (record, value) in records.iter().zip(&values[from..]) {
        assert_eq!(
            record.value.as_deref(),
            Some(&value[..]),
            "{what}: at {}",
            record.offset
        );
    }
    assert!(from + records.len() <= end, "{what}: more than there is");
    // KIP-74: beyond the limit only for a first batch that alone is larger.
    if bytes.len() > limit {
        assert_eq!(
            first_batch(&bytes),
            bytes.len(),
            "{what}: {} bytes",
            bytes.len()
        );
    }
    assert!(whole_batches(&bytes) > 0, "{what}: no whole batch");
}

fn first_batch(bytes: &Bytes) -> usize {
    let length = i32::from_be_bytes(bytes[8..12].try_into().expect("four bytes"));
    12 + usize::try_from(length).expect("a length")
}

/// librdkafka takes null for a broken answer, and goes on asking for ever.
#[test]
fn an_answer_at_the_end_has_records_of_length_zero() {
    let broker = two_cores();
    let mut connection = broker.connect();
    for (p, filled) in [(0, false), (1, true), (2, false), (3, true)] {
        let mut offset = 0;
        if filled {
            assert_eq!(
                connection.produce(TOPIC, p, Batch::of(&["one"]).encode()),
                (0, 0)
            );
            offset = 1;
        }
        for version in 4..=12 {
            let fetch = Fetch {
                topic: TOPIC,
                partition: p,
                offset,
                partition_bytes_max: 1 << 20,
            };
            let request = fetch::request(&[fetch], Patience::NONE);
            let frame = encode(1, None, version, &request);
            connection.send_frame(&frame).expect("sent");
            let answer = connection.receive_frame().expect("an answer");
            // The records are the last field. With compact lengths 1 means none, and
            // three empty lists of tagged fields follow: partition, topic, answer.
            let end: &[u8] = if version < 12 {
                &[0, 0, 0, 0]
            } else {
                &[1, 0, 0, 0]
            };
            assert!(answer.ends_with(end), "version {version}: {answer:02x?}");
        }
    }
}

/// The reader is woken by the record, and not by its own patience: it would wait for
/// half a minute, and the answer is there in a part of that, on a slow machine too.
#[test]
fn a_reader_at_the_end_is_woken_by_a_record() {
    const WAIT_MAX: Duration = Duration::from_secs(30);
    const PROMPT: Duration = Duration::from_secs(5);
    let broker = two_cores();
    let mut writer = broker.connect();
    let mut reader = broker.connect();
    let mut of: Vec<_> = (0..number(PARTITIONS))
        .map(|partition| Fetch {
            topic: TOPIC,
            partition,
            offset: 0,
            partition_bytes_max: 1 << 20,
        })
        .collect();
    // Each partition in turn, so that the record comes from either core.
    for p in 0..PARTITIONS {
        let request = fetch::request(
            &of,
            Patience {
                bytes_min: 1,
                wait_max: WAIT_MAX,
            },
        );
        let correlation = reader.send_request(11, &request).expect("sent");
        let early = reader.next(Duration::from_millis(100));
        assert_eq!(early, Next::Nothing, "an answer before there is a record");
        let produced = writer.produce(TOPIC, number(p), Batch::of(&["wake up"]).encode());
        assert_eq!(produced, (0, 0));
        let since = Instant::now();
        let answer = reader
            .receive::<kafka_protocol::messages::FetchRequest>(11, correlation)
            .expect("an answer");
        assert!(
            since.elapsed() < PROMPT,
            "{TOPIC}-{p}: woken after {:?}",
            since.elapsed()
        );
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let bytes = partition.records.clone().unwrap_or_default();
            let expected = usize::from(partition.partition_index == number(p));
            assert_eq!(
                records_from(&bytes, 0).len(),
                expected,
                "woken by {TOPIC}-{p}"
            );
        }
        of[p].offset = 1;
    }
    assert_eq!(writer.list_offset(TOPIC, 0, LATEST), (0, 1));
}
