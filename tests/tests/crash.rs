//! The promise, held against the real binary: what was acknowledged survives SIGKILL.
//!
//! ```text
//!   producer   (librdkafka, idempotent, acks=all)  0 1 2 3 ... into each partition
//!   consumer   (librdkafka, a group)               reads, commits, reads on
//!   creator    (raw frames)                        a topic after the other
//!       |  never told of what happens below
//!   killer     wait a random time -> SIGKILL -> start -> check, 20 times
//! ```
//!
//! The values are numbers: with each there once and in order, offset `n` of a partition
//! holds the value `n`. That one line is the whole check of the log; an acknowledgement,
//! or a record that the consumer has seen, says how far the log reaches at least.

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, MetadataRequest, OffsetFetchRequest};
use klamm_tests::broker::Broker;
use klamm_tests::random::Random;
use klamm_tests::wire::{Connection, text, topic};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const KILLS: usize = 20;
const PARTITIONS: i32 = 4;
const TOPIC: &str = "orders";
const GROUP: &str = "billing";
/// Kafka's smallest. With values of 4 KiB a segment takes 256 of them.
const SEGMENT_BYTES: &str = "1048576";
/// What is sent between two kills, over all partitions: 400 of 4 KiB are 1.6 MiB, so
/// that 20 kills come to some 8 MiB a partition, and eight rolls.
const PER_ROUND: usize = 400;
/// Of one partition, sent and not yet acknowledged: several batches.
const IN_FLIGHT_MAX: i64 = 64;
/// Recovery, a reconnect and a retry on a busy machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// What the clients were promised, partition by partition.
struct Ledger {
    /// Next values to send; every value below was handed to the producer.
    sent: Vec<i64>,
    /// Every value below is acknowledged.
    acked: Vec<i64>,
    /// Every record below was seen by the consumer.
    seen: Vec<i64>,
    /// The group's offset, as acknowledged, and as asked for at most.
    committed: Vec<i64>,
    asked: Vec<i64>,
    topics: BTreeSet<String>,
    /// Values that may be sent before the next round begins.
    budget: usize,
    /// Topics that may be created before the next round begins.
    topics_budget: usize,
    /// The first thing that is wrong.
    wrong: Option<String>,
}

impl Ledger {
    fn new() -> Ledger {
        let zeros = vec![0; usize::try_from(PARTITIONS).expect("a few")];
        Ledger {
            sent: zeros.clone(),
            acked: zeros.clone(),
            seen: zeros.clone(),
            committed: zeros.clone(),
            asked: zeros,
            topics: BTreeSet::new(),
            budget: 0,
            topics_budget: 0,
            wrong: None,
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}

/// The ledger, and who waits for what in it.
struct Books {
    ledger: Mutex<Ledger>,
    changed: Condvar,
    over: AtomicBool,
}

impl Books {
    fn write<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let done = change(&mut self.ledger.lock().expect("the ledger"));
        self.changed.notify_all();
        done
    }

    /// Waits until `what` is found, or the end of the test, or the deadline: then None.
    fn find<T>(&self, within: Duration, what: impl Fn(&mut Ledger) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut ledger = self.ledger.lock().expect("the ledger");
        loop {
            if let Some(found) = what(&mut ledger) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_over() {
                return None;
            }
            ledger = self
                .changed
                .wait_timeout(ledger, left)
                .expect("the ledger")
                .0;
        }
    }

    /// As [`Books::find`], where not to find it is a failure.
    fn demand(&self, what: &str, is: impl Fn(&Ledger) -> bool) {
        let found = self.find(PROGRESS_WITHIN, |l| {
            (l.wrong.is_some() || is(l)).then(|| l.wrong.clone())
        });
        match found {
            Some(None) => {}
            Some(Some(wrong)) => panic!("{wrong}"),
            None => panic!("{what}: not within {PROGRESS_WITHIN:?}"),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        // Under the lock, so that nobody goes to sleep between looking and waiting.
        self.write(|_| self.over.store(true, Ordering::Relaxed));
    }
}

fn at(partition: i32) -> usize {
    usize::try_from(partition).expect("a partition's number")
}

// -- the producer

struct Acknowledged(Arc<Books>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.write(|ledger| match result {
            Ok(message) => {
                let p = at(message.partition());
                let value = value_of(message.payload());
                let due = ledger.acked[p];
                if (value, message.offset()) != (due, due) {
                    ledger.wrong(format!(
                        "{TOPIC}-{p}: value {value} is acknowledged at offset {}, the next one due is {due}",
                        message.offset()
                    ));
                }
                ledger.acked[p] = due + 1;
            }
            Err((error, message)) => {
                let (p, value) = (message.partition(), value_of(message.payload()));
                ledger.wrong(format!("{TOPIC}-{p}: value {value} was given up: {error}"));
            }
        });
    }
}

/// The number, then bytes that follow from it.
fn payload(value: i64, length: usize) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.resize(length.max(8), value.to_be_bytes()[7]);
    bytes
}

fn value_of(bytes: Option<&[u8]>) -> i64 {
    let bytes = bytes.expect("every record has a value");
    let value = i64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
    assert!(
        bytes == payload(value, bytes.len()),
        "the value {value} is whole"
    );
    value
}

fn produce(address: SocketAddr, books: Arc<Books>, mut random: Random) -> Result<(), String> {
    let producer: ThreadedProducer<Acknowledged> = impatient(address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        .set("batch.num.messages", "16")
        .set("max.in.flight.requests.per.connection", "5")
        .create_with_context(Acknowledged(books.clone()))
        .map_err(|e| e.to_string())?;
    while !books.is_over() {
        // The partition that is furthest behind, if it may have more in flight.
        let next = books.find(Duration::from_secs(1), |ledger| {
            let open = |p: &usize| ledger.sent[*p] - ledger.acked[*p] < IN_FLIGHT_MAX;
            let p = (0..ledger.sent.len())
                .filter(open)
                .min_by_key(|p| ledger.sent[*p])?;
            ledger.budget = ledger.budget.checked_sub(1)?;
            ledger.sent[p] += 1;
            Some((p, ledger.sent[p] - 1))
        });
        let Some((p, value)) = next else { continue };
        let bytes = payload(value, 8 + random.below(8 << 10));
        let partition = i32::try_from(p).expect("a partition's number");
        let record = BaseRecord::<(), [u8]>::to(TOPIC)
            .partition(partition)
            .payload(&bytes);
        producer
            .send(record)
            .map_err(|(e, _)| format!("{TOPIC}-{p}: sending {value}: {e}"))?;
    }
    match producer.client().fatal_error() {
        Some((code, reason)) => Err(format!("the producer gave up: {code}: {reason}")),
        None => Ok(()),
    }
}

/// A client that comes back at once.
fn impatient(address: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address.to_string())
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "100")
        .set("retry.backoff.ms", "10")
        .set("retry.backoff.max.ms", "100")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        // It says what it lost on stderr, which here is no news.
        .set("log_level", "2");
    config
}

// -- the consumer

/// Reads in a group and commits, all along; what it was told is in the ledger.
fn consume(address: SocketAddr, books: Arc<Books>, mut random: Random) -> Result<(), String> {
    let consumer: BaseConsumer = impatient(address)
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "300")
        .create()
        .map_err(|e| e.to_string())?;
    consumer.subscribe(&[TOPIC]).map_err(|e| e.to_string())?;
    let mut until_commit = 1;
    while !books.is_over() {
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Ok(record)) => {
                let (p, offset) = (at(record.partition()), record.offset());
                let value = value_of(record.payload());
                books.write(|ledger| {
                    if value != offset {
                        ledger.wrong(format!(
                            "{TOPIC}-{p}: the consumer sees {value} at offset {offset}"
                        ));
                    }
                    if offset > ledger.seen[p] {
                        ledger.wrong(format!(
                            "{TOPIC}-{p}: the consumer was led past {}, on to {offset}",
                            ledger.seen[p]
                        ));
                    }
                    ledger.seen[p] = ledger.seen[p].max(offset + 1);
                });
                until_commit -= 1;
            }
            // The broker is away; the client looks for it on its own.
            Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => {}
            Some(Err(e)) => return Err(format!("the consumer: {e}")),
        }
        if until_commit == 0 {
            until_commit = 1 + random.below(60);
            commit(&consumer, &books)?;
        }
    }
    Ok(())
}

/// Commits where the consumer stands.
fn commit(consumer: &BaseConsumer, books: &Books) -> Result<(), String> {
    let position = consumer.position().map_err(|e| e.to_string())?;
    let mut offsets = TopicPartitionList::new();
    for element in position.elements() {
        if let Offset::Offset(offset) = element.offset() {
            offsets
                .add_partition_offset(TOPIC, element.partition(), Offset::Offset(offset))
                .map_err(|e| e.to_string())?;
        }
    }
    let each = |mut take: Box<dyn FnMut(usize, i64) + '_>| {
        for element in offsets.elements() {
            if let Offset::Offset(offset) = element.offset() {
                take(at(element.partition()), offset);
            }
        }
    };
    if offsets.count() == 0 {
        return Ok(());
    }
    // Noted before it is sent: it may arrive although its answer does not.
    books.write(|ledger| {
        each(Box::new(|p, offset| {
            if offset < ledger.committed[p] {
                ledger.wrong(format!(
                    "{TOPIC}-{p}: the consumer was set back to {offset}, after {} was committed",
                    ledger.committed[p]
                ));
            }
            ledger.asked[p] = ledger.asked[p].max(offset);
        }));
    });
    match consumer.commit(&offsets, CommitMode::Sync) {
        Ok(()) => {
            books.write(|ledger| {
                each(Box::new(|p, offset| {
                    ledger.committed[p] = ledger.committed[p].max(offset)
                }));
            });
            Ok(())
        }
        Err(KafkaError::ConsumerCommit(code)) if is_passing(code) => Ok(()),
        Err(e) => Err(format!("the consumer's commit: {e}")),
    }
}

/// What a client may meet while its broker is away or just back.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::WaitingForCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::RebalanceInProgress
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::NoOffset
    )
}

// -- the creator of topics

fn create_topics(address: SocketAddr, books: Arc<Books>) -> Result<(), String> {
    let mut next = 0;
    let mut connection = None;
    while !books.is_over() {
        let may = books.find(Duration::from_secs(1), |ledger| {
            ledger.topics_budget = ledger.topics_budget.checked_sub(1)?;
            Some(())
        });
        if may.is_none() {
            continue;
        }
        let name = format!("made-{next}");
        while !books.is_over() {
            // A connection that fails is a broker that was killed.
            let Some(open) = connection.as_mut() else {
                connection = Connection::open(address).ok();
                if connection.is_none() {
                    thread::sleep(Duration::from_millis(5));
                }
                continue;
            };
            let (code, message) =
                match open.ask_for_topic(&name, 2, 1, &[("segment.bytes", SEGMENT_BYTES)]) {
                    Ok(answer) => answer,
                    Err(_) => {
                        connection = None;
                        continue;
                    }
                };
            match code {
                // 36: it is there already, from the try whose answer was lost.
                0 | 36 => {
                    books.write(|ledger| ledger.topics.insert(name.clone()));
                    next += 1;
                    break;
                }
                // 7, 41: the coordinator is going away, or not there yet.
                7 | 41 => {}
                _ => return Err(format!("creating {name}: code {code}: {message}")),
            }
        }
    }
    Ok(())
}

// -- the killer

#[test]
fn what_was_acknowledged_survives_twenty_kills() {
    let mut random = Random::new();
    let mut broker = Broker::with()
        .flag("--cores", "2")
        .setting("group.initial.rebalance.delay.ms", 0)
        .start();
    broker
        .connect()
        .create_topic(TOPIC, PARTITIONS, &[("segment.bytes", SEGMENT_BYTES)]);
    let books = Arc::new(Books {
        ledger: Mutex::new(Ledger::new()),
        changed: Condvar::new(),
        over: AtomicBool::new(false),
    });
    let clients = Clients::start(broker.address(), &books, &mut random);
    for round in 1..=KILLS {
        let before = books.write(|ledger| {
            ledger.budget += PER_ROUND;
            ledger.topics_budget += 1;
            ledger.acked.clone()
        });
        // Most kills meet a broker at work; every fourth one meets a broker that
        // clients are only finding again, or that has not got through its start.
        if round % 4 != 0 {
            books.demand("an acknowledgement after the start", |l| l.acked != before);
        }
        thread::sleep(Duration::from_millis(random.within(0..300)));
        broker.kill9();
        if round % 4 == 3 {
            broker.launch();
            thread::sleep(Duration::from_millis(random.within(0..60)));
            broker.kill9();
        }
        // Told before the check: everything up to here must be there after it.
        let promised = Promised::of(&books);
        broker.start_again();
        check(&broker, &promised, &format!("after kill {round}"));
    }
    books.demand("everything sent is acknowledged", |l| {
        l.budget == 0 && l.sent == l.acked
    });
    books.demand("the consumer is at the end", |l| l.seen == l.acked);
    books.demand("the creator is done", |l| l.topics_budget == 0);
    clients.end();
    let promised = Promised::of(&books);
    check(&broker, &promised, "at the end");
    assert_eq!(
        promised.acked.iter().sum::<i64>(),
        i64::try_from(KILLS * PER_ROUND).expect("small"),
        "everything was acknowledged, once"
    );
    let rolled = segments(&broker);
    assert!(
        rolled.iter().all(|n| *n >= 4),
        "rolls were under test: segments {rolled:?}"
    );
    // And once more over a stop in order, which recovers nothing.
    broker.restart();
    check(&broker, &promised, "after a clean stop");
}

struct Clients {
    books: Arc<Books>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Clients {
    fn start(address: SocketAddr, books: &Arc<Books>, random: &mut Random) -> Clients {
        let mut each = |run: fn(SocketAddr, Arc<Books>, Random) -> Result<(), String>| {
            let (books, random) = (books.clone(), random.another());
            // A client that ends with an error ends the test, now and not at its end.
            thread::spawn(move || {
                run(address, books.clone(), random)
                    .inspect_err(|error| books.write(|ledger| ledger.wrong(error.clone())))
            })
        };
        let threads = vec![
            each(produce),
            each(consume),
            each(|address, books, _| create_topics(address, books)),
        ];
        Clients {
            books: books.clone(),
            threads,
        }
    }

    fn end(mut self) {
        self.books.end();
        for thread in self.threads.drain(..) {
            thread
                .join()
                .expect("a client that did not panic")
                .expect("a client without an error");
        }
        let wrong = self.books.write(|ledger| ledger.wrong.clone());
        assert_eq!(wrong, None);
    }
}

impl Drop for Clients {
    /// A test that failed says why at once: clients may wait for a broker that does not
    /// come back, and the process does not wait for them.
    fn drop(&mut self) {
        self.books.end();
    }
}

/// What must be there, as of one moment at which no broker ran.
struct Promised {
    acked: Vec<i64>,
    seen: Vec<i64>,
    committed: Vec<i64>,
    topics: BTreeSet<String>,
}

impl Promised {
    fn of(books: &Books) -> Promised {
        books.write(|ledger| {
            assert_eq!(ledger.wrong, None);
            Promised {
                acked: ledger.acked.clone(),
                seen: ledger.seen.clone(),
                committed: ledger.committed.clone(),
                topics: ledger.topics.clone(),
            }
        })
    }
}

fn check(broker: &Broker, promised: &Promised, when: &str) {
    let mut connection = broker.connect();
    for partition in 0..PARTITIONS {
        let p = at(partition);
        let records = connection.read_all(TOPIC, partition);
        for (offset, record) in (0..).zip(&records) {
            let value = value_of(record.value.as_deref());
            assert_eq!(
                (record.offset, value),
                (offset, offset),
                "{when}: {TOPIC}-{p} at offset {} holds the value {value}; each is there once, in order",
                record.offset
            );
        }
        let end = i64::try_from(records.len()).expect("small");
        let (acked, seen) = (promised.acked[p], promised.seen[p]);
        assert!(
            end >= acked,
            "{when}: {TOPIC}-{p} ends at {end}, acknowledged were all below {acked}"
        );
        assert!(
            end >= seen,
            "{when}: {TOPIC}-{p} ends at {end}, a consumer saw all below {seen}"
        );
    }
    for (p, offset) in committed(&mut connection).into_iter().enumerate() {
        let promised = promised.committed[p];
        assert!(
            offset >= promised,
            "{when}: {GROUP} stands at {offset} of {TOPIC}-{p}, and {promised} was acknowledged"
        );
    }
    let there = topics(&mut connection);
    let lost: Vec<_> = promised.topics.difference(&there).collect();
    assert!(
        lost.is_empty(),
        "{when}: created, acknowledged and gone: {lost:?}"
    );
}

/// The group's offsets; 0 where it has none yet.
fn committed(connection: &mut Connection) -> Vec<i64> {
    let asked = OffsetFetchRequestTopic::default()
        .with_name(topic(TOPIC))
        .with_partition_indexes((0..PARTITIONS).collect());
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_topics(Some(vec![asked]));
    let response = connection
        .call(5, &request)
        .expect("an answer to OffsetFetch");
    assert_eq!(response.error_code, 0, "OffsetFetch");
    let mut offsets = vec![0; at(PARTITIONS)];
    for partition in &response.topics[0].partitions {
        assert_eq!(
            partition.error_code, 0,
            "OffsetFetch of {TOPIC}-{}",
            partition.partition_index
        );
        offsets[at(partition.partition_index)] = partition.committed_offset.max(0);
    }
    offsets
}

/// Every topic with both of its partitions led.
fn topics(connection: &mut Connection) -> BTreeSet<String> {
    let request = MetadataRequest::default().with_topics(None);
    let response = connection.call(7, &request).expect("an answer to Metadata");
    let led = response.topics.iter().filter(|t| {
        t.error_code == 0
            && t.partitions.len() >= 2
            && t.partitions.iter().all(|p| p.error_code == 0)
    });
    led.filter_map(|t| t.name.as_ref().map(|name| name.0.to_string()))
        .collect()
}

/// How many segments each partition has.
fn segments(broker: &Broker) -> Vec<usize> {
    let count = |partition| {
        let folder = broker.data().join(format!("{TOPIC}-{partition}"));
        let files = std::fs::read_dir(&folder).expect("the partition's folder");
        files
            .filter(|f| {
                f.as_ref()
                    .is_ok_and(|f| f.path().extension().is_some_and(|e| e == "log"))
            })
            .count()
    };
    (0..PARTITIONS).map(count).collect()
}
