//! The other engine: what an application gets, through librdkafka.
//!
//! ```text
//!   noise -> records -> librdkafka's queue -> its batches -> broker
//!     clock starts: due (a rate), or handed over ... clock stops: delivery report
//!   broker -> librdkafka -> poll, record by record          consume: from the beginning
//! ```
//!
//! librdkafka's defaults but for acks, its idea of a batch and not ours, and one client
//! on the client's core. As fast as it goes, it is the client that is at its limit with
//! small records, and a record's latency is mostly its place in the client's own queue:
//! then the figure that tells brokers apart is records per second of the server's CPU.

use crate::Outcome;
use crate::cores::pin_this_thread;
use crate::load::{self, Layout, Rate, Spec, Tally, Target, Workload};
use crate::measurement::{Measurement, Used};
use crate::noise::noise;
use crate::process::Cpu;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const NOISE_BYTES: usize = 2 << 20;
/// A client that hears nothing for so long calls the broker hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const QUEUE_FULL_PAUSE: Duration = Duration::from_micros(100);
/// Records that are sent between two looks at the clock.
const RECORDS_A_LOOK: u64 = 64;

/// What makes the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Batches built once, sent by few system calls: loads the broker and not the client.
    Raw,
    /// What an application gets; produce and consume, one topic, one client.
    Librdkafka,
}

impl Engine {
    /// A round; of a load with two sides both, as the raw engine has them.
    pub fn run(self, spec: &Spec, target: &Target) -> Outcome<Vec<Measurement>> {
        match self {
            Engine::Raw => load::run(spec, target),
            Engine::Librdkafka => Ok(vec![run_once(spec, target)?]),
        }
    }

    pub fn run_once(self, spec: &Spec, target: &Target) -> Outcome<Measurement> {
        match self {
            Engine::Raw => load::run_once(spec, target),
            Engine::Librdkafka => run_once(spec, target),
        }
    }
}

/// One load, once: its warm-up, and the round that counts. Produce and consume.
fn run_once(spec: &Spec, target: &Target) -> Outcome<Measurement> {
    match spec.workload {
        Workload::Produce | Workload::Consume => {}
        other => {
            return Err(format!(
                "{other} has no librdkafka engine: leave --engine away, or choose produce or consume"
            ));
        }
    }
    if spec.named_topics.is_empty() && spec.topics != 1 || spec.named_topics.len() > 1 {
        return Err("the librdkafka engine loads one topic: leave --topics away".to_owned());
    }
    let layout = Layout::make(spec, target)?;
    // Its threads run where the one runs that makes the client.
    let (spec, target, places) = (spec.clone(), target.clone(), layout.places.clone());
    let topic = places[0].topic.to_string();
    let partitions: Vec<i32> = places.iter().map(|place| place.index).collect();
    let worker = thread::spawn(move || {
        pin_this_thread(spec.client_cores.first().copied())?;
        let load = Load {
            spec: &spec,
            target: &target,
            topic: &topic,
            partitions: &partitions,
        };
        match spec.workload {
            Workload::Consume => load.consume(),
            _ => load.produce(),
        }
    });
    let measured = worker
        .join()
        .map_err(|_| "the librdkafka engine panicked".to_owned());
    // Whatever happens, what was made is removed; the first failure is the one to be told.
    let removed = layout.remove();
    let measured = measured??;
    removed?;
    Ok(measured)
}

struct Load<'a> {
    spec: &'a Spec,
    target: &'a Target,
    topic: &'a str,
    partitions: &'a [i32],
}

impl Load<'_> {
    fn produce(&self) -> Outcome<Measurement> {
        let sender = Sender::open(self)?;
        if !self.spec.warm_up.is_zero() {
            sender.send(Until::Time(self.spec.warm_up))?;
        }
        let before = self.target.pid.map(Used::of).transpose()?;
        let client_before = Cpu::of_this_process()?;
        sender.deliveries.restart();
        let sent = sender.send(Until::Time(self.spec.time))?;
        let used = self.target.pid.map(Used::of).transpose()?;
        let client = Cpu::of_this_process()? - client_before;
        let used = used.zip(before).map(|(after, before)| after.since(&before));
        sender.deliveries.with(|seen| match seen.tally.records {
            delivered if delivered == sent => Ok(self.measurement(&seen.tally, used, client)),
            delivered => Err(format!(
                "{sent} records were sent and {delivered} delivered"
            )),
        })
    }

    /// Fills the topic, if it is a fresh one, then reads all from the beginning.
    fn consume(&self) -> Outcome<Measurement> {
        if self.spec.named_topics.is_empty() {
            let records = self.spec.fill_bytes / self.spec.content.record_bytes.max(1) as u64;
            Sender::open(self)?.send(Until::Records(records.max(1)))?;
        }
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.target.bootstrap)
            // Assigned by hand; librdkafka wants the name of a group all the same.
            .set("group.id", "klamm-bench")
            .set("enable.auto.commit", "false")
            .create()
            .map_err(|e| format!("a consumer: {e}"))?;
        let mut all = TopicPartitionList::new();
        let mut expected = 0;
        for &partition in self.partitions {
            let (low, high) = consumer
                .fetch_watermarks(self.topic, partition, ANSWER_WITHIN)
                .map_err(|e| format!("offsets of {}-{partition}: {e}", self.topic))?;
            expected += u64::try_from(high - low).unwrap_or(0);
            all.add_partition_offset(self.topic, partition, Offset::Beginning)
                .map_err(|e| format!("an assignment: {e}"))?;
        }
        if let Some(folder) = &self.spec.evict {
            load::evict(folder)?;
        }
        let before = self.target.pid.map(Used::of).transpose()?;
        let (client_before, began) = (Cpu::of_this_process()?, Instant::now());
        consumer
            .assign(&all)
            .map_err(|e| format!("an assignment: {e}"))?;
        let mut tally = Tally::new();
        while tally.records < expected {
            let message = match consumer.poll(ANSWER_WITHIN) {
                Some(message) => message.map_err(|e| format!("consuming: {e}"))?,
                None => {
                    return Err(format!(
                        "{} of {expected} records came, then none for {ANSWER_WITHIN:?}",
                        tally.records
                    ));
                }
            };
            tally.came(nanos(began.elapsed()), 1, 1, message.payload_len() as u64);
        }
        let used = self.target.pid.map(Used::of).transpose()?;
        let client = Cpu::of_this_process()? - client_before;
        let used = used.zip(before).map(|(after, before)| after.since(&before));
        Ok(self.measurement(&tally, used, client))
    }

    fn measurement(&self, tally: &Tally, used: Option<Used>, client: Cpu) -> Measurement {
        let spec = self.spec;
        let pace = match spec.rate {
            Some(Rate::Records(rate) | Rate::Requests(rate)) => format!("{rate} records/s"),
            None => "as fast as it goes".to_owned(),
        };
        let acks = match (spec.workload, spec.acks) {
            (Workload::Consume, _) => String::new(),
            (_, -1) => ", acks=all".to_owned(),
            (_, acks) => format!(", acks={acks}"),
        };
        Measurement {
            workload: format!(
                "{} by librdkafka, {} partitions, {} B records{acks}, {pace}",
                spec.workload,
                self.partitions.len(),
                spec.content.record_bytes
            ),
            server: self.target.server.clone(),
            requests: tally.requests,
            records: tally.records,
            bytes: tally.bytes,
            wall: Duration::from_nanos(tally.last),
            latency: tally.latency.clone(),
            course: tally.course(),
            used,
            client,
            warnings: Vec::new(),
        }
    }
}

#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Records(u64),
}

/// A producer and what it sends.
struct Sender<'a> {
    load: &'a Load<'a>,
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    noise: Vec<u8>,
}

impl<'a> Sender<'a> {
    fn open(load: &'a Load<'a>) -> Outcome<Sender<'a>> {
        let spec = load.spec;
        let deliveries = Deliveries::new();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &load.target.bootstrap)
            .set("acks", spec.acks.to_string())
            .set("compression.type", spec.content.codec.name())
            .create_with_context(deliveries.clone())
            .map_err(|e| format!("a producer: {e}"))?;
        Ok(Sender {
            load,
            producer,
            deliveries,
            noise: noise(NOISE_BYTES.max(2 * spec.content.record_bytes)),
        })
    }

    /// Returns how many were sent, once all are delivered.
    fn send(&self, until: Until) -> Outcome<u64> {
        let rate = match (until, self.load.spec.rate) {
            (Until::Time(_), Some(Rate::Records(rate) | Rate::Requests(rate))) => Some(rate),
            _ => None,
        };
        let began = Instant::now();
        let mut sent = 0;
        loop {
            let looks = rate.is_some() || sent % RECORDS_A_LOOK == 0;
            let over = match until {
                Until::Time(time) => looks && began.elapsed() >= time,
                Until::Records(records) => sent == records,
            };
            if over {
                break;
            }
            let due = rate.map(|rate| began + Duration::from_secs_f64(sent as f64 / rate));
            if let Some(due) = due {
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            self.hand_over(sent, due)?;
            sent += 1;
        }
        self.producer
            .flush(ANSWER_WITHIN)
            .map_err(|e| format!("the last records: {e}"))?;
        self.deliveries.check()?;
        Ok(sent)
    }

    fn hand_over(&self, n: u64, due: Option<Instant>) -> Outcome {
        let length = self.load.spec.content.record_bytes;
        // A step that shares no factor with the length: records differ.
        let step = n.wrapping_mul(4099) % (self.noise.len() - length) as u64;
        let at = usize::try_from(step).expect("within the noise");
        let partitions = self.load.partitions;
        let partition = partitions[usize::try_from(n % partitions.len() as u64).expect("one")];
        let clock = self.deliveries.clock(due.unwrap_or_else(Instant::now));
        let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(self.load.topic, clock)
            .partition(partition)
            .payload(&self.noise[at..at + length]);
        while let Err((error, back)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(format!("a record can't be sent: {error}"));
            }
            self.deliveries.check()?;
            thread::sleep(QUEUE_FULL_PAUSE);
            record = back;
        }
        Ok(())
    }
}

/// What the delivery reports say; librdkafka's thread tells it.
#[derive(Clone)]
struct Deliveries {
    /// Of the clocks that records carry.
    origin: Instant,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    /// When what counts began.
    began: Instant,
    tally: Tally,
    failure: Option<KafkaError>,
}

impl Deliveries {
    fn new() -> Deliveries {
        let origin = Instant::now();
        let seen = Seen {
            began: origin,
            tally: Tally::new(),
            failure: None,
        };
        Deliveries {
            origin,
            seen: Arc::new(Mutex::new(seen)),
        }
    }

    /// In what librdkafka carries through for a record.
    fn clock(&self, start: Instant) -> usize {
        usize::try_from(nanos(start.duration_since(self.origin))).unwrap_or(usize::MAX)
    }

    fn with<R>(&self, f: impl FnOnce(&mut Seen) -> R) -> R {
        f(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on, what was seen before does not count.
    fn restart(&self) {
        self.with(|seen| {
            seen.began = Instant::now();
            seen.tally = Tally::new();
        });
    }

    fn check(&self) -> Outcome {
        self.with(|seen| match &seen.failure {
            None => Ok(()),
            Some(e) => Err(format!("a record was not delivered: {e}")),
        })
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, clock: usize) {
        let now = Instant::now();
        let latency = nanos(now.duration_since(self.origin)).saturating_sub(clock as u64);
        self.with(|seen| match result {
            Ok(message) => {
                let at = nanos(now.duration_since(seen.began));
                seen.tally.came(at, 1, 1, message.payload_len() as u64);
                seen.tally.took(at, latency, 1);
            }
            Err((error, _)) => seen.failure = Some(error.clone()),
        });
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
