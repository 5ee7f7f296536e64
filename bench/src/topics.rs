//! Topics with a few records in every partition, and the proof that all are there.
//!
//! ```text
//!   start-0 .. start-9, each of PARTITIONS / 10 partitions
//!   a partition:  | batch 0: 10 records | batch 1: 10 records | ...
//!                   one batch more a round, so every start has something new to open
//! ```

use crate::Outcome;
use crate::wire::Connection;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, FindCoordinatorRequest, MetadataRequest,
    ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const FETCH_VERSION: i16 = 11;

const TOPICS: i32 = 10;
const RECORDS_A_BATCH: i64 = 10;
const RECORD_BYTES: usize = 100;

/// A partition has 10 short records a round: 64 KiB of answer is room for far more.
const PARTITION_BYTES_MAX: i32 = 64 << 10;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_micros(200);

/// The partitions of this run, and how much was acknowledged in each.
pub struct Topics {
    partitions_each: i32,
    next_offset: i64,
}

impl Topics {
    pub fn create(connection: &mut Connection, partitions: i32) -> Outcome<Topics> {
        let topics = Topics {
            partitions_each: partitions / TOPICS,
            next_offset: 0,
        };
        let names: Vec<TopicName> = (0..TOPICS).map(name).collect();
        create(
            connection,
            names
                .iter()
                .map(|name| (name.as_str(), topics.partitions_each)),
        )?;
        Ok(topics)
    }

    /// How many can be asked for: the topics are of one size.
    pub fn are_divisible(partitions: i32) -> bool {
        partitions >= 0 && partitions % TOPICS == 0
    }

    /// One batch more in every partition, with acks=all: acknowledged when it returns.
    pub fn append(&mut self, connection: &mut Connection) -> Outcome {
        let batch = batch()?;
        let deadline = Instant::now() + READY_WITHIN;
        for topic in 0..TOPICS {
            let mut left: Vec<i32> = (0..self.partitions_each).collect();
            while !left.is_empty() {
                let data = left.iter().map(|&partition| {
                    PartitionProduceData::default()
                        .with_index(partition)
                        .with_records(Some(batch.clone()))
                });
                let data = TopicProduceData::default()
                    .with_name(name(topic))
                    .with_partition_data(data.collect());
                let request = ProduceRequest::default()
                    .with_acks(-1)
                    .with_timeout_ms(60_000)
                    .with_topic_data(vec![data]);
                let answer = connection
                    .call(9, &request)
                    .map_err(|e| format!("Produce: {e}"))?;
                for partition in answer
                    .responses
                    .iter()
                    .flat_map(|topic| &topic.partition_responses)
                {
                    match partition.error_code {
                        0 if partition.base_offset == self.next_offset => {
                            left.retain(|&index| index != partition.index);
                        }
                        0 => {
                            return Err(format!(
                                "Produce: {}-{} appends at offset {}, where {} was due",
                                name(topic).as_str(),
                                partition.index,
                                partition.base_offset,
                                self.next_offset
                            ));
                        }
                        // Just created: its home is about to open it.
                        3 | 5 | 6 if Instant::now() < deadline => {}
                        code => {
                            let name = name(topic);
                            return Err(format!(
                                "Produce: {}-{} answers with error {code}",
                                name.as_str(),
                                partition.index
                            ));
                        }
                    }
                }
            }
        }
        self.next_offset += RECORDS_A_BATCH;
        Ok(())
    }

    /// Returns when Metadata names a leader for every partition.
    pub fn await_metadata(&self, connection: &mut Connection) -> Outcome {
        let expected = usize::try_from(self.partitions_each * TOPICS).map_err(|e| e.to_string())?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let request = MetadataRequest::default().with_topics(None);
            let answer = connection
                .call(8, &request)
                .map_err(|e| format!("Metadata: {e}"))?;
            let partitions = answer
                .topics
                .iter()
                .filter(|topic| topic.error_code == 0)
                .flat_map(|t| &t.partitions);
            let led = partitions
                .filter(|p| p.error_code == 0 && p.leader_id.0 >= 0)
                .count();
            if led == expected {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "Metadata: {led} of {expected} partitions have a leader after {READY_WITHIN:?}"
                ));
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// Returns when Fetch has given the last acknowledged batch of every partition.
    pub fn await_last_batches(&self, connection: &mut Connection) -> Outcome {
        let mut left: Vec<(i32, Vec<i32>)> = (0..TOPICS)
            .map(|n| (n, (0..self.partitions_each).collect()))
            .collect();
        let deadline = Instant::now() + READY_WITHIN;
        let mut refusals;
        loop {
            refusals = 0;
            let answer = connection
                .call(FETCH_VERSION, &self.fetch(&left))
                .map_err(|e| format!("Fetch: {e}"))?;
            if answer.error_code != 0 {
                return Err(format!("Fetch answers with error {}", answer.error_code));
            }
            for topic in &answer.responses {
                let Some((_, wanted)) = left.iter_mut().find(|(n, _)| name(*n) == topic.topic)
                else {
                    return Err(format!("Fetch: {} was not asked for", topic.topic.as_str()));
                };
                for partition in &topic.partitions {
                    let records = partition.records.as_ref().map_or(0, Bytes::len);
                    match partition.error_code {
                        0 if records > 0 => {
                            wanted.retain(|&index| index != partition.partition_index)
                        }
                        0 | 3 | 5 | 6 => refusals += 1,
                        code => {
                            let (topic, partition) =
                                (topic.topic.as_str(), partition.partition_index);
                            return Err(format!(
                                "Fetch: {topic}-{partition} answers with error {code}"
                            ));
                        }
                    }
                }
            }
            left.retain(|(_, wanted)| !wanted.is_empty());
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "Fetch: {refusals} partitions give no record after {READY_WITHIN:?}"
                ));
            }
            if refusals > 0 {
                thread::sleep(ASK_EVERY);
            }
        }
    }

    /// As a consumer that has read one partition's every record: no answer until there is one
    /// more, or until `wait` is over.
    pub fn wait_for_more(&self, consumer: u32, wait: Duration) -> FetchRequest {
        let partitions = u32::try_from(self.partitions_each * TOPICS).expect("not below 0");
        let at = i32::try_from(consumer % partitions).expect("a partition's number");
        let mut request = self.fetch(&[(at % TOPICS, vec![at / TOPICS])]);
        request.topics[0].partitions[0].fetch_offset = self.next_offset;
        request
            .with_min_bytes(1)
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
    }

    fn fetch(&self, left: &[(i32, Vec<i32>)]) -> FetchRequest {
        let topics = left.iter().map(|(n, partitions)| {
            let partitions = partitions.iter().map(|&partition| {
                FetchPartition::default()
                    .with_partition(partition)
                    .with_current_leader_epoch(-1)
                    .with_fetch_offset(self.next_offset - RECORDS_A_BATCH)
                    .with_log_start_offset(-1)
                    .with_partition_max_bytes(PARTITION_BYTES_MAX)
            });
            FetchTopic::default()
                .with_topic(name(*n))
                .with_partitions(partitions.collect())
        });
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(50 << 20)
            .with_session_epoch(-1)
            .with_topics(topics.collect())
    }
}

/// Creates topics, each with its number of partitions and one replica.
pub fn create<'a>(
    connection: &mut Connection,
    topics: impl IntoIterator<Item = (&'a str, i32)>,
) -> Outcome {
    let new = |(name, partitions): (&str, i32)| {
        CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics(topics.into_iter().map(new).collect())
        .with_timeout_ms(60_000);
    let created = connection
        .call(5, &request)
        .map_err(|e| format!("CreateTopics: {e}"))?;
    match created.topics.iter().find(|topic| topic.error_code != 0) {
        Some(topic) => Err(format!(
            "CreateTopics: {} answers with error {} {}",
            topic.name.as_str(),
            topic.error_code,
            topic.error_message.as_deref().unwrap_or("")
        )),
        None => Ok(()),
    }
}

/// Returns when the group's coordinator is there to answer for it.
pub fn await_group(connection: &mut Connection, group: &str) -> Outcome {
    let request =
        FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let found = connection
            .call(2, &request)
            .map_err(|e| format!("FindCoordinator: {e}"))?;
        match found.error_code {
            0 => return Ok(()),
            // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE
            14 | 15 if Instant::now() < deadline => thread::sleep(ASK_EVERY),
            code => return Err(format!("FindCoordinator answers with error {code}")),
        }
    }
}

fn name(n: i32) -> TopicName {
    TopicName(StrBytes::from_string(format!("start-{n}")))
}

fn batch() -> Outcome<Bytes> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|e| format!("the clock: {e}"))?;
    let timestamp = i64::try_from(now.as_millis()).map_err(|e| format!("the clock: {e}"))?;
    // The encoder counts sequences on from the first, and begins another batch where
    // they do not follow the offsets; only the first, -1 for none, is written.
    let record = |(sequence, offset): (i32, i64)| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence,
        timestamp,
        key: None,
        value: Some(Bytes::from_static(&[b'k'; RECORD_BYTES])),
        headers: Default::default(),
    };
    let records: Vec<Record> = (NO_SEQUENCE..)
        .zip(0..RECORDS_A_BATCH)
        .map(record)
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options)
        .map_err(|e| format!("a batch to produce: {e}"))?;
    Ok(bytes.freeze())
}
