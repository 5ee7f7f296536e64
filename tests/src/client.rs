//! What most tests do over a [`Connection`], each in one line: create, produce, ask.
//!
//! Every call states the version it uses; a test that is about versions makes its
//! own requests with [`Connection::call`].

use crate::wire::{Connection, text, topic};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest,
};
use std::time::{Duration, Instant};

/// How long a new topic may take until its partitions answer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// ListOffsets' special times.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

impl Connection {
    /// Creates a topic and waits until each of its partitions answers.
    pub fn create_topic(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let (code, message) = self.try_create_topic(name, partitions, 1, settings);
        assert_eq!(code, 0, "creating {name}: {message}");
        let deadline = Instant::now() + READY_WITHIN;
        for partition in 0..partitions {
            // 6: known to the cluster, and its home is about to open it.
            while let (code @ (3 | 5 | 6), _) = self.list_offset(name, partition, LATEST) {
                let late = Instant::now() >= deadline;
                assert!(!late, "{name}-{partition} still answers {code}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The answer's code and message.
    pub fn try_create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        replicas: i16,
        settings: &[(&str, &str)],
    ) -> (i16, String) {
        self.ask_for_topic(name, partitions, replicas, settings)
            .expect("an answer to CreateTopics")
    }

    /// The same over a connection that may break.
    pub fn ask_for_topic(
        &mut self,
        name: &str,
        partitions: i32,
        replicas: i16,
        settings: &[(&str, &str)],
    ) -> std::io::Result<(i16, String)> {
        let configs = settings.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        });
        let new = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_timeout_ms(10_000);
        let response = self.call(5, &request)?;
        let created = &response.topics[0];
        let message = created.error_message.as_deref().unwrap_or("").to_owned();
        Ok((created.error_code, message))
    }

    /// Produces what the bytes are, with acks=all; returns code and base offset.
    pub fn produce(&mut self, name: &str, partition: i32, batches: Vec<u8>) -> (i16, i64) {
        let request = produce_request(name, partition, batches, -1);
        let response = self.call(9, &request).expect("an answer to Produce");
        let answer = &response.responses[0].partition_responses[0];
        (answer.error_code, answer.base_offset)
    }

    /// Code and offset; at [`LATEST`] the high watermark.
    pub fn list_offset(&mut self, name: &str, partition: i32, time: i64) -> (i16, i64) {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(time);
        let asked = ListOffsetsTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![asked]);
        let response = self.call(4, &request).expect("an answer to ListOffsets");
        let answer = &response.topics[0].partitions[0];
        (answer.error_code, answer.offset)
    }

    /// A new producer id, with its epoch.
    pub fn init_producer_id(&mut self) -> (i64, i16) {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let response = self.call(2, &request).expect("an answer to InitProducerId");
        assert_eq!(response.error_code, 0);
        (response.producer_id.0, response.producer_epoch)
    }
}

pub fn produce_request(name: &str, partition: i32, batches: Vec<u8>, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(Bytes::from(batches)));
    let data = TopicProduceData::default()
        .with_name(topic(name))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![data])
}
