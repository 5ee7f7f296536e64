//! `rate`: records in and out through librdkafka, beside the disk's own rate.
//!
//! ```text
//!   noise -> records -> librdkafka -> broker -> disk    acks=all: safe when answered
//!                 clock starts ... clock stops at the delivery report
//!   then     records <- librdkafka <- broker            from the beginning, all of them
//!   then     the same bytes, by plain direct writes     disk.rs
//! ```
//!
//! The client runs on the same machine and takes its share of the cores: its CPU is
//! given beside the broker's. As fast as possible, a record's latency is mostly its
//! place in the client's own queue (--queue records at most); with --pace the clock
//! starts when a record was due and not when it was sent (open loop), so a broker
//! that falls behind can't hide it.
//!
//! One client and one shape of load: the load generator proper comes later.

use crate::broker::{Binary, Started};
use crate::data_folder::DataFolder;
use crate::disk::{self, Floor};
use crate::process::Cpu;
use crate::report::{Figure, Report};
use crate::{Common, Outcome, topics};
use hdrhistogram::Histogram;
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

/// Produce and consume rates with librdkafka, acks=all, beside the disk's own.
///
/// Records of noise (nothing compresses), without keys, dealt to the partitions in
/// turn; librdkafka's defaults but for acks=all and the length of its queue: linger
/// 5 ms, batches up to 1 MB, no compression, not idempotent. It ends after --mib or
/// --seconds, whichever comes first; then all is consumed from the beginning, and
/// then the same bytes are written and read by plain direct I/O on the same file
/// system, 1 MiB at a time. MB and GB are 10^6 and 10^9 bytes of record values.
#[derive(clap::Args)]
pub struct Args {
    /// Partitions of the topic.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,

    /// Bytes of a record's value.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    record_bytes: u32,

    /// Produce at most this many MiB.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    mib: u32,

    /// Produce for at most this many seconds.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Records a second, evenly; as many as possible without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pace: Option<u32>,

    /// Records that may wait in the client (queue.buffering.max.messages).
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
}

const TOPIC: &str = "rate";
const NOISE_BYTES: usize = 2 << 20;
/// A client that hears nothing for so long calls the broker hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const QUEUE_FULL_PAUSE: Duration = Duration::from_micros(100);
const LATENCY_US_MAX: u64 = 3_600_000_000;

pub fn run(args: &Args, common: &Common) -> Outcome<Report> {
    let klamm = Binary::find(common, common.cores())?;
    let pace = args.pace.map_or("as fast as possible".to_owned(), |n| {
        format!("{n} records/s")
    });
    let workload = format!(
        "librdkafka, acks=all, {} B records, {} partitions, {} cores, {pace}",
        args.record_bytes,
        args.partitions,
        common.cores()
    );
    let mut report = Report::new("rate", workload, Some(&klamm))?;
    let folder = DataFolder::make(&common.data)?;
    let Started {
        broker,
        mut connection,
        ..
    } = klamm.start(&folder.join("broker"))?;
    topics::create(&mut connection, [(TOPIC, args.partitions)])?;
    drop(connection);

    let (produced, latencies) = produce(args, &broker.bootstrap(), broker.pid())?;
    let consumed = consume(args, &broker.bootstrap(), broker.pid(), &produced)?;
    broker.stop()?;
    let floor = disk::floor(&folder.join("floor"), produced.bytes)?;

    add(&mut report, &produced, &latencies, &consumed, &floor);
    Ok(report)
}

/// One phase: what went through, how long it took, what it cost.
struct Phase {
    records: u64,
    bytes: u64,
    /// In it, but not timed: what opened the connections.
    warm_up_records: u64,
    took: Duration,
    broker: Cpu,
    client: Cpu,
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53
impl Phase {
    fn mb_per_s(&self) -> f64 {
        mb_per_s(self.bytes, self.took)
    }

    fn records_per_s(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64()
    }

    fn per_gb(&self, seconds: f64) -> f64 {
        seconds / (self.bytes as f64 / 1e9)
    }
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53
fn mb_per_s(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

/// What the delivery reports say; librdkafka's thread tells it.
#[derive(Clone)]
struct Deliveries {
    origin: Instant,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    delivered: u64,
    last: Instant,
    latencies_us: Histogram<u64>,
    failure: Option<KafkaError>,
}

impl Deliveries {
    fn new() -> Outcome<Deliveries> {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .map_err(|e| format!("a histogram: {e}"))?;
        let origin = Instant::now();
        let seen = Seen {
            delivered: 0,
            last: origin,
            latencies_us,
            failure: None,
        };
        Ok(Deliveries {
            origin,
            seen: Arc::new(Mutex::new(seen)),
        })
    }

    /// A record's clock, in what librdkafka carries through for it.
    fn clock(&self, start: Instant) -> usize {
        usize::try_from(start.duration_since(self.origin).as_nanos()).unwrap_or(usize::MAX)
    }

    fn with<R>(&self, f: impl FnOnce(&mut Seen) -> R) -> R {
        f(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on, what was seen before does not count.
    fn restart(&self) {
        self.with(|seen| {
            seen.delivered = 0;
            seen.latencies_us.reset();
        });
    }

    fn check(&self) -> Outcome {
        self.with(|seen| {
            seen.failure
                .as_ref()
                .map_or(Ok(()), |e| Err(format!("a record was not delivered: {e}")))
        })
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, clock: usize) {
        let now = Instant::now();
        let nanos = now
            .duration_since(self.origin)
            .as_nanos()
            .saturating_sub(clock as u128);
        let latency_us = u64::try_from(nanos / 1000).unwrap_or(LATENCY_US_MAX);
        self.with(|seen| match result {
            Ok(_) => {
                seen.delivered += 1;
                seen.last = now;
                seen.latencies_us.saturating_record(latency_us);
            }
            Err((error, _)) => seen.failure = Some(error.clone()),
        });
    }
}

fn produce(args: &Args, bootstrap: &str, pid: u32) -> Outcome<(Phase, Histogram<u64>)> {
    let deliveries = Deliveries::new()?;
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("queue.buffering.max.messages", args.queue.to_string())
        .create_with_context(deliveries.clone())
        .map_err(|e| format!("a producer: {e}"))?;
    let noise = noise();
    let record_bytes = args.record_bytes as usize;
    let send = |n: u64, start: Option<Instant>| -> Outcome {
        // A step that shares no factor with the length: records differ.
        let at = usize::try_from(n)
            .map_err(|e| e.to_string())?
            .wrapping_mul(4099)
            % (NOISE_BYTES - record_bytes);
        let partition = i32::try_from(n % u64::from(args.partitions.unsigned_abs()))
            .map_err(|e| e.to_string())?;
        let value = &noise[at..at + record_bytes];
        let record = || {
            BaseRecord::<(), [u8], usize>::with_opaque_to(
                TOPIC,
                deliveries.clock(start.unwrap_or_else(Instant::now)),
            )
            .partition(partition)
            .payload(value)
        };
        while let Err((error, _)) = producer.send(record()) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(format!("a record can't be sent: {error}"));
            }
            deliveries.check()?;
            thread::sleep(QUEUE_FULL_PAUSE);
        }
        Ok(())
    };
    let flush = || {
        producer
            .flush(ANSWER_WITHIN)
            .map_err(|e| format!("the last records: {e}"))
    };

    // One record a partition: connections, metadata and the partitions are open.
    let warm_up_records = u64::from(args.partitions.unsigned_abs());
    (0..warm_up_records).try_for_each(|n| send(n, None))?;
    flush()?;
    deliveries.check()?;
    deliveries.restart();

    let records_max = (u64::from(args.mib) << 20).div_ceil(u64::from(args.record_bytes));
    let (broker_before, client_before) = (Cpu::of(pid)?, Cpu::of_this_process()?);
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds.into());
    let mut sent = 0;
    while sent < records_max && Instant::now() < end {
        let due = args.pace.map(|pace| began + due_after(sent, pace));
        if let Some(due) = due {
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        send(sent, due)?;
        sent += 1;
    }
    flush()?;
    deliveries.check()?;
    let (broker, client) = (
        Cpu::of(pid)? - broker_before,
        Cpu::of_this_process()? - client_before,
    );
    deliveries.with(|seen| {
        if seen.delivered != sent {
            return Err(format!(
                "{sent} records were sent and {} delivered",
                seen.delivered
            ));
        }
        let took = seen.last - began;
        let bytes = sent * u64::from(args.record_bytes);
        let phase = Phase {
            records: sent,
            bytes,
            warm_up_records,
            took,
            broker,
            client,
        };
        Ok((phase, seen.latencies_us.clone()))
    })
}

fn due_after(records: u64, pace: u32) -> Duration {
    let pace = u64::from(pace);
    Duration::from_secs(records / pace)
        + Duration::from_nanos(records % pace * 1_000_000_000 / pace)
}

/// Reads every record from the beginning, the warm-up's too, and counts.
fn consume(args: &Args, bootstrap: &str, pid: u32, produced: &Phase) -> Outcome<Phase> {
    let (broker_before, client_before) = (Cpu::of(pid)?, Cpu::of_this_process()?);
    let began = Instant::now();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // Assigned by hand; librdkafka wants the name of a group all the same.
        .set("group.id", "klamm-bench")
        .set("enable.auto.commit", "false")
        .create()
        .map_err(|e| format!("a consumer: {e}"))?;
    let mut all = TopicPartitionList::new();
    for partition in 0..args.partitions {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning)
            .map_err(|e| format!("an assignment: {e}"))?;
    }
    consumer
        .assign(&all)
        .map_err(|e| format!("an assignment: {e}"))?;

    let expected = produced.records + produced.warm_up_records;
    let (mut records, mut bytes) = (0, 0);
    while records < expected {
        let message = match consumer.poll(ANSWER_WITHIN) {
            Some(message) => message.map_err(|e| format!("consuming: {e}"))?,
            None => {
                return Err(format!(
                    "{records} of {expected} records came, then none for {ANSWER_WITHIN:?}"
                ));
            }
        };
        let length = message.payload_len();
        if length != args.record_bytes as usize {
            return Err(format!(
                "a record of {length} bytes came back, {} were sent",
                args.record_bytes
            ));
        }
        records += 1;
        bytes += length as u64;
    }
    let took = began.elapsed();
    let (broker, client) = (
        Cpu::of(pid)? - broker_before,
        Cpu::of_this_process()? - client_before,
    );
    Ok(Phase {
        records,
        bytes,
        warm_up_records: 0,
        took,
        broker,
        client,
    })
}

fn add(
    report: &mut Report,
    produced: &Phase,
    latencies_us: &Histogram<u64>,
    consumed: &Phase,
    floor: &Floor,
) {
    let ms = |quantile| {
        Duration::from_micros(latencies_us.value_at_quantile(quantile)).as_secs_f64() * 1000.0
    };
    let once = mb_per_s(floor.bytes, floor.write_sync_once);
    let each = mb_per_s(floor.bytes, floor.write_sync_each);
    let read = mb_per_s(floor.bytes, floor.read);
    let figures = [
        ("produce", "produce", produced.mb_per_s(), "MB/s"),
        ("produce_records", "", produced.records_per_s(), "records/s"),
        ("produce_seconds", "  for", produced.took.as_secs_f64(), "s"),
        ("produce_p50", "  latency p50", ms(0.5), "ms"),
        ("produce_p99", "  latency p99", ms(0.99), "ms"),
        ("produce_p99_9", "  latency p99.9", ms(0.999), "ms"),
        ("produce_max", "  latency max", ms(1.0), "ms"),
        (
            "produce_broker_user",
            "  broker's CPU, user",
            produced.per_gb(produced.broker.user_s),
            "s/GB",
        ),
        (
            "produce_broker_system",
            "  broker's CPU, system",
            produced.per_gb(produced.broker.system_s),
            "s/GB",
        ),
        (
            "produce_client",
            "  client's CPU",
            produced.per_gb(produced.client.total_s()),
            "s/GB",
        ),
        ("consume", "consume", consumed.mb_per_s(), "MB/s"),
        ("consume_records", "", consumed.records_per_s(), "records/s"),
        (
            "consume_broker_user",
            "  broker's CPU, user",
            consumed.per_gb(consumed.broker.user_s),
            "s/GB",
        ),
        (
            "consume_broker_system",
            "  broker's CPU, system",
            consumed.per_gb(consumed.broker.system_s),
            "s/GB",
        ),
        (
            "consume_client",
            "  client's CPU",
            consumed.per_gb(consumed.client.total_s()),
            "s/GB",
        ),
        (
            "disk_write_sync_each",
            "disk alone, write, fdatasync each MiB",
            each,
            "MB/s",
        ),
        (
            "disk_write_sync_once",
            "disk alone, write, fdatasync at the end",
            once,
            "MB/s",
        ),
        ("disk_read", "disk alone, read", read, "MB/s"),
        (
            "produce_to_sync_each",
            "produce : disk, fdatasync each MiB",
            produced.mb_per_s() / each,
            "x",
        ),
        (
            "produce_to_sync_once",
            "produce : disk, fdatasync at the end",
            produced.mb_per_s() / once,
            "x",
        ),
        (
            "consume_to_read",
            "consume : disk, read",
            consumed.mb_per_s() / read,
            "x",
        ),
    ];
    for (id, label, value, unit) in figures {
        report.add(Figure::new(id, label, value, unit));
    }
}

/// Bytes that do not compress, the same in every run (xorshift64*).
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let word = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    std::iter::repeat_with(word)
        .take(NOISE_BYTES / 8)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_even_and_does_not_drift() {
        assert_eq!(due_after(0, 3), Duration::ZERO);
        assert_eq!(due_after(1, 4), Duration::from_millis(250));
        assert_eq!(
            due_after(3_000_000_000, 3),
            Duration::from_secs(1_000_000_000)
        );
    }

    #[test]
    fn noise_is_noise() {
        let noise = noise();
        assert_eq!(noise.len(), NOISE_BYTES);
        let mut counts = [0_u32; 256];
        noise
            .iter()
            .for_each(|&byte| counts[usize::from(byte)] += 1);
        // 8192 of each on average; a byte that is 10 % off would compress.
        assert!(
            counts.iter().all(|n| (7400..9000).contains(n)),
            "{counts:?}"
        );
    }
}
