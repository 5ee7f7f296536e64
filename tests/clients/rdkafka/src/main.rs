//! The rdkafka crate (librdkafka) through the plan.

mod plan;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use plan::{
    ALL, BEFORE_RESTART, CODECS, GivenUp, Ledger, Outcome, PARTITIONS, Plan, Record, STAGES, WAIT,
};
use plan::{await_restart, check, check_ledgers, check_timestamps, must, split, until};

const SHORT: Duration = Duration::from_millis(100);

#[derive(Clone, Default)]
struct Deliveries {
    acked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() {
            &self.acked
        } else {
            &self.refused
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// One idempotent producer a codec, open for the whole run: after the restart
/// their sequences go on where they were.
struct Sender {
    plan: Plan,
    producers: Vec<ThreadedProducer<Deliveries>>,
    deliveries: Deliveries,
}

impl Sender {
    fn new(plan: &Plan) -> Outcome<Sender> {
        let deliveries = Deliveries::default();
        let producer = |codec: &&str| {
            ClientConfig::new()
                .set("bootstrap.servers", &plan.bootstrap)
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set("compression.type", *codec)
                .set("linger.ms", "5")
                .create_with_context(deliveries.clone())
        };
        let producers = CODECS.iter().map(producer).collect::<Result<_, _>>()?;
        Ok(Sender {
            plan: plan.clone(),
            producers,
            deliveries,
        })
    }

    fn send(&self, stage: usize) -> Outcome {
        for (codec, producer) in self.producers.iter().enumerate() {
            for n in plan::run(stage, codec) {
                let r = self.plan.record(n);
                let mut headers = OwnedHeaders::new();
                for (key, value) in &r.headers {
                    headers = headers.insert(Header {
                        key,
                        value: value.as_deref(),
                    });
                }
                let record = BaseRecord::to(&self.plan.topic)
                    .key(&r.key)
                    .payload(&r.value)
                    .timestamp(r.timestamp_ms)
                    .headers(headers);
                producer.send(record).map_err(|(error, _)| error)?;
            }
            producer.flush(WAIT)?;
            let refused = self.deliveries.refused.load(Ordering::SeqCst);
            if refused > 0 {
                must(
                    "produce",
                    false,
                    format!("{}: {refused} refused", CODECS[codec]),
                )?;
            }
        }
        Ok(())
    }
}

fn consumer(plan: &Plan, group: &str) -> Outcome<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", &plan.bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("heartbeat.interval.ms", "500")
        .set("session.timeout.ms", "10000")
        .set("check.crcs", "true")
        .create()?)
}

struct Member {
    consumer: BaseConsumer,
    read: usize,
    first: BTreeMap<i32, i64>,
}

impl Member {
    fn join(plan: &Plan) -> Outcome<Member> {
        let consumer = consumer(plan, &plan.group)?;
        consumer.subscribe(&[&plan.topic])?;
        Ok(Member {
            consumer,
            read: 0,
            first: BTreeMap::new(),
        })
    }

    fn owned(&self) -> Outcome<Vec<i32>> {
        let assignment = self.consumer.assignment()?;
        let mut partitions: Vec<i32> = assignment
            .elements()
            .iter()
            .map(|tp| tp.partition())
            .collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    fn poll(&mut self, ledger: &mut Ledger) -> Outcome {
        let mut wait = SHORT;
        while let Some(message) = self.consumer.poll(wait) {
            let message = message?;
            self.first
                .entry(message.partition())
                .or_insert(message.offset());
            self.read += 1;
            take(ledger, &message);
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn commit(&self) -> Outcome {
        Ok(self.consumer.commit_consumer_state(CommitMode::Sync)?)
    }

    /// Dropping a consumer leaves the group, as closing it does elsewhere.
    fn leave(self) -> usize {
        self.read
    }
}

fn take(ledger: &mut Ledger, m: &BorrowedMessage<'_>) {
    let text =
        |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = m.headers().map_or_else(Vec::new, |all| {
        all.iter()
            .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
            .collect()
    });
    let timestamp_ms = m.timestamp().to_millis().unwrap_or(-1);
    ledger.add(
        m.partition(),
        m.offset(),
        Record {
            key: text(m.key()),
            value: text(m.payload()),
            headers,
            timestamp_ms,
        },
    );
}

fn everywhere(plan: &Plan, offset: Offset) -> Outcome<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(&plan.topic, partition, offset)?;
    }
    Ok(list)
}

fn offsets(list: &TopicPartitionList) -> BTreeMap<i32, Option<i64>> {
    let offset = |offset| {
        if let Offset::Offset(at) = offset {
            Some(at)
        } else {
            None
        }
    };
    list.elements()
        .iter()
        .map(|tp| (tp.partition(), offset(tp.offset())))
        .collect()
}

fn committed(plan: &Plan) -> Outcome<BTreeMap<i32, Option<i64>>> {
    let asking = consumer(plan, &plan.group)?;
    let mut found = BTreeMap::new();
    until("the committed offsets", || {
        match asking.committed_offsets(everywhere(plan, Offset::Invalid)?, WAIT) {
            Ok(list) => found = offsets(&list),
            // A coordinator that has just started may not be one yet.
            Err(error) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::NotCoordinator,
                ) => thread::sleep(SHORT),
                _ => return Err(error.into()),
            },
        }
        Ok(!found.is_empty())
    })?;
    Ok(found)
}

fn create_topic(plan: &Plan) -> Outcome {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &plan.bootstrap)
        .create()?;
    let topic = NewTopic::new(&plan.topic, PARTITIONS, TopicReplication::Fixed(1));
    for created in block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
        created.map_err(|(topic, code)| GivenUp(format!("create topic {topic}: {code}")))?;
    }
    let metadata = admin.inner().fetch_metadata(Some(&plan.topic), WAIT)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    must(
        "create",
        partitions == PARTITIONS as usize,
        format!("{partitions} partitions"),
    )
}

fn program() -> Outcome {
    let plan = Plan::from_arguments()?;
    create_topic(&plan)?;
    let sender = Sender::new(&plan)?;
    let mut seen = Ledger::new(&plan);

    sender.send(0)?;
    let mut a = Member::join(&plan)?;
    until("A to read stage 0", || {
        a.poll(&mut seen).map(|()| seen.len() == STAGES[0].end)
    })?;
    a.commit()?;

    let mut b = Member::join(&plan)?;
    until("A and B to share the partitions", || {
        a.poll(&mut seen)?;
        b.poll(&mut seen)?;
        Ok(split(&a.owned()?, &b.owned()?))
    })?;
    check(
        "join",
        true,
        format!("A has {:?}, B has {:?}", a.owned()?, b.owned()?),
    );
    sender.send(1)?;
    until("A and B to read stage 1", || {
        a.poll(&mut seen)?;
        b.poll(&mut seen)?;
        Ok(seen.len() == STAGES[1].end)
    })?;
    a.commit()?;
    b.commit()?;

    let read_by_a = a.leave();
    until("B to get A's partitions", || {
        b.poll(&mut seen)?;
        Ok(b.owned()?.len() == PARTITIONS as usize)
    })?;
    sender.send(2)?;
    until("B to read stage 2", || {
        b.poll(&mut seen).map(|()| seen.len() == STAGES[2].end)
    })?;
    check(
        "leave",
        b.read > 0,
        format!("A read {read_by_a}, B {}", b.read),
    );
    b.commit()?;
    let before = committed(&plan)?;
    b.leave();

    await_restart()?;
    let after = committed(&plan)?;
    let upto: BTreeMap<i32, Option<i64>> = seen
        .next
        .iter()
        .map(|(&p, &next)| (p, Some(next)))
        .collect();
    let same = before == after && after == upto;
    check(
        "commit",
        same,
        format!("before the restart {before:?}, after {after:?}, read up to {upto:?}"),
    );
    sender.send(3)?;
    let acked = sender.deliveries.acked.load(Ordering::SeqCst);
    check("produce", acked == ALL, format!("{acked} acknowledged"));
    let mut c = Member::join(&plan)?;
    until("C to read stage 3", || {
        c.poll(&mut seen).map(|()| seen.len() == ALL)
    })?;
    let first: BTreeMap<i32, Option<i64>> = c.first.iter().map(|(&p, &at)| (p, Some(at))).collect();
    let resumed = first == after && c.read == ALL - BEFORE_RESTART;
    check(
        "resume",
        resumed,
        format!("C read {}, from {first:?}", c.read),
    );
    c.commit()?;
    c.leave();

    let mut again = Ledger::new(&plan);
    let reader = consumer(&plan, &format!("{}-none", plan.group))?;
    reader.assign(&everywhere(&plan, Offset::Beginning)?)?;
    until("the read from the beginning", || {
        if let Some(message) = reader.poll(SHORT) {
            take(&mut again, &message?);
        }
        Ok(again.len() == ALL)
    })?;
    check_timestamps(&plan, &again, |ms| {
        Ok(offsets(&reader.offsets_for_times(
            everywhere(&plan, Offset::Offset(ms))?,
            WAIT,
        )?))
    })?;
    check_ledgers(&seen, &again);
    Ok(())
}

fn main() -> ExitCode {
    match program() {
        Ok(()) => ExitCode::SUCCESS,
        Err(GivenUp(why)) => {
            eprintln!("given up: {why}");
            ExitCode::FAILURE
        }
    }
}
