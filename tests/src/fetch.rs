//! Reading over the wire: Fetch by hand, its batches by kafka-protocol.
//!
//! ```text
//!   fetch(orders-0 from 40) -> | batch 38..42 | batch 43..44 | bat     cut at the limit
//!   records_from(40)        ->     40 41 42       43 44
//! ```

use crate::wire::{Connection, topic};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use std::time::Duration;

/// One partition's part of a fetch.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub partition_bytes_max: i32,
}

/// Limits and patience of the fetch as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub bytes_min: i32,
    pub wait_max: Duration,
}

impl Patience {
    pub const NONE: Patience = Patience {
        bytes_min: 0,
        wait_max: Duration::ZERO,
    };
}

/// What came for one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub code: i16,
    pub high_watermark: i64,
    /// None where the answer says null.
    pub bytes: Option<Bytes>,
}

pub fn request(of: &[Fetch<'_>], patience: Patience) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for f in of {
        let partition = FetchPartition::default()
            .with_partition(f.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(f.offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(f.partition_bytes_max);
        match topics.last_mut().filter(|t| t.topic == topic(f.topic)) {
            Some(of_topic) => of_topic.partitions.push(partition),
            None => topics.push(
                FetchTopic::default()
                    .with_topic(topic(f.topic))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    let wait_ms = i32::try_from(patience.wait_max.as_millis()).expect("a wait of days at most");
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(patience.bytes_min)
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(topics)
}

impl Connection {
    /// Asks once and does not wait for more than there is.
    pub fn fetch(&mut self, of: &Fetch<'_>) -> Fetched {
        let request = request(std::slice::from_ref(of), Patience::NONE);
        let response = self.call(11, &request).expect("an answer to Fetch");
        assert_eq!(response.error_code, 0, "the fetch as a whole");
        let partition = &response.responses[0].partitions[0];
        Fetched {
            code: partition.error_code,
            high_watermark: partition.high_watermark,
            bytes: partition.records.clone(),
        }
    }

    /// The partition's records up to the high watermark that it has now, whatever the
    /// size of the answers; each offset follows the one before it.
    pub fn read_all(&mut self, name: &str, partition: i32) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let offset = records.last().map_or(0, |r| r.offset + 1);
            let answer = self.fetch(&Fetch {
                topic: name,
                partition,
                offset,
                partition_bytes_max: 4 << 20,
            });
            assert_eq!(answer.code, 0, "reading {name}-{partition} from {offset}");
            let bytes = answer.bytes.expect("records, if of length 0");
            let more = records_from(&bytes, offset);
            if offset >= answer.high_watermark {
                assert!(
                    more.is_empty(),
                    "{name}-{partition}: records above the high watermark"
                );
                return records;
            }
            assert!(
                !more.is_empty(),
                "{name}-{partition}: nothing at {offset} of {}",
                answer.high_watermark
            );
            records.extend(more);
        }
    }
}

/// The records from `offset` on, checked to follow one another with no gap. The first
/// batch may begin before `offset`, and the last one may be cut: that is Kafka's form.
pub fn records_from(bytes: &Bytes, offset: i64) -> Vec<Record> {
    let whole = bytes.slice(..whole_batches(bytes));
    let mut batches = whole;
    let sets = RecordBatchDecoder::decode_all(&mut batches).expect("sound batches");
    let mut next = offset;
    let mut records = Vec::new();
    for record in sets.into_iter().flat_map(|set| set.records) {
        if record.offset < offset {
            assert!(records.is_empty(), "{} after {}", record.offset, next - 1);
            continue;
        }
        assert_eq!(record.offset, next, "the next offset");
        next += 1;
        records.push(record);
    }
    records
}

/// Where the last whole batch ends. The decoder looks at the CRC of each.
pub fn whole_batches(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = bytes.get(at + 8..at + 12) {
        let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
        let end = at + 12 + usize::try_from(length).expect("a length");
        if end > bytes.len() {
            break;
        }
        at = end;
    }
    at
}
