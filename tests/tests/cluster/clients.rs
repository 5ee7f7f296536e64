//! librdkafka's producer and consumer, each told of one broker only.

use klamm_tests::cluster::WITHIN;
pub use klamm_tests::group::await_assignment;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A client that comes back at once.
fn impatient(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        .set("topic.metadata.refresh.interval.ms", "1000")
        // It says what it lost on stderr, which here is no news.
        .set("log_level", "2");
    config
}

/// A value, and the partition and offset that it was acknowledged at.
pub type Acknowledged = (i64, i32, i64);

/// What a producer was told of its records.
#[derive(Clone, Default)]
pub struct Deliveries(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    acknowledged: Vec<Acknowledged>,
    failures: Vec<String>,
}

impl Deliveries {
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.0.lock().expect("deliveries").acknowledged.clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().expect("deliveries").acknowledged.len()
    }

    pub fn failures(&self) -> Vec<String> {
        self.0.lock().expect("deliveries").failures.clone()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut deliveries = self.0.lock().expect("deliveries");
        match result {
            Ok(m) => deliveries
                .acknowledged
                .push((value_of(m), m.partition(), m.offset())),
            Err((error, m)) => deliveries
                .failures
                .push(format!("{}: {error}", value_of(m))),
        }
    }
}

fn value_of(message: &BorrowedMessage<'_>) -> i64 {
    let bytes = message.payload().expect("every record has a value");
    let text = std::str::from_utf8(bytes).expect("text");
    text.parse().expect("a number")
}

pub fn producer(bootstrap: &str) -> (ThreadedProducer<Deliveries>, Deliveries) {
    let deliveries = Deliveries::default();
    let producer = impatient(bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        .create_with_context(deliveries.clone())
        .expect("a producer");
    (producer, deliveries)
}

/// Value `n` goes to partition `n` mod `partitions`.
pub fn send(
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    partitions: i32,
    value: i64,
) -> Result<(), KafkaError> {
    let payload = value.to_string();
    let partition = i32::try_from(value % i64::from(partitions)).expect("a partition");
    let record = BaseRecord::<(), str>::to(topic)
        .partition(partition)
        .payload(&payload);
    producer.send(record).map_err(|(error, _)| error)
}

/// Returns once all of them are acknowledged.
pub fn produce(bootstrap: &str, topic: &str, partitions: i32, values: Range<i64>) {
    let (producer, deliveries) = producer(bootstrap);
    for value in values.clone() {
        send(&producer, topic, partitions, value).expect("room for a record");
    }
    let flushed = producer.flush(WITHIN);
    assert_eq!(deliveries.failures(), Vec::<String>::new());
    assert!(flushed.is_ok(), "{topic} by {bootstrap}: {flushed:?}");
    let acked: BTreeSet<i64> = deliveries.acknowledged().iter().map(|a| a.0).collect();
    assert_eq!(acked, values.collect(), "{topic} by {bootstrap}");
}

/// Reads all partitions from their starts until that many values have come.
pub fn consume(bootstrap: &str, topic: &str, partitions: i32, count: usize) -> BTreeSet<i64> {
    let consumer: BaseConsumer = impatient(bootstrap)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut assigned = TopicPartitionList::new();
    for partition in 0..partitions {
        let added = assigned.add_partition_offset(topic, partition, Offset::Beginning);
        added.expect("an offset");
    }
    consumer.assign(&assigned).expect("partitions");
    poll(&[&consumer], count)
}

/// Polls the consumers in turn until that many values have come, however often each.
pub fn poll(consumers: &[&BaseConsumer], count: usize) -> BTreeSet<i64> {
    let deadline = Instant::now() + WITHIN;
    let mut values = BTreeSet::new();
    let mut last = None;
    while values.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} values within {WITHIN:?}; {last:?}",
            values.len()
        );
        for consumer in consumers {
            match consumer.poll(Duration::from_millis(20)) {
                None => {}
                Some(Ok(message)) => {
                    values.insert(value_of(&message));
                }
                // The client looks for the broker or the coordinator on its own.
                Some(Err(error)) => last = Some(error),
            }
        }
    }
    values
}

pub fn member(bootstrap: &str, group: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = impatient(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "300")
        .create()
        .expect("a member");
    consumer.subscribe(&[topic]).expect("a subscription");
    consumer
}

/// Commits where the member stands.
pub fn commit(member: &BaseConsumer) {
    let deadline = Instant::now() + WITHIN;
    while let Err(error) = member.commit_consumer_state(CommitMode::Sync) {
        assert!(Instant::now() < deadline, "the commit: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
