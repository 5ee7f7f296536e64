//! Random appends, fetches, lookups, deletions, retention and restarts in order, against
//! a plain list of records in memory.

use crate::world::DIR;
use klamm_engine::batch::{BatchBuilder, Batches};
use klamm_engine::codec::Codec;
use klamm_engine::config::LogConfig;
use klamm_engine::error::ReadError;
use klamm_engine::io::Io;
use klamm_engine::io::sim::{Faults, Rng, Sim, SimIo};
use klamm_engine::partition::{AppendError, OpenOptions, Partition};
use klamm_engine::producer::SequenceError;
use klamm_engine::tail::TailCache;
use klamm_engine::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

/// A record as the model knows it; where its batch begins is what a fetch may start with.
#[derive(Clone, Debug, PartialEq)]
struct Modelled {
    timestamp: i64,
    value: Vec<u8>,
    batch_base: i64,
}

/// A producer's last five batches: (first sequence, records, base offset).
#[derive(Default)]
struct Client {
    epoch: i16,
    next_sequence: i32,
    sent: Vec<(i32, Vec<u8>, i64)>,
}

struct Model {
    rng: Rng,
    io: SimIo,
    config: LogConfig,
    log: Rc<Partition<SimIo>>,
    records: Vec<Modelled>,
    start: i64,
    clients: Vec<Client>,
}

async fn open(
    io: &SimIo,
    config: &LogConfig,
    clean: bool,
    tail_bytes: usize,
) -> Rc<Partition<SimIo>> {
    let options = OpenOptions {
        clean,
        leader_epoch: LeaderEpoch(0),
    };
    let cache = TailCache::new(tail_bytes);
    Partition::open(
        io.clone(),
        PathBuf::from(DIR),
        config.clone(),
        options,
        cache,
    )
    .await
    .expect("opens")
}

impl Model {
    /// Appends a batch and waits for it; now and then it waits only for a later one.
    async fn append(&mut self) {
        let rng = &mut self.rng;
        let count = match rng.below(10) {
            0 => rng.between(10, 60),
            _ => rng.between(1, 5),
        };
        let codec = CODECS[rng.index(CODECS.len())];
        let client = rng.coin().then(|| rng.index(self.clients.len()));
        let base = self.records.len() as i64;
        let mut builder = BatchBuilder::new(codec);
        if let Some(n) = client {
            let client = &mut self.clients[n];
            if rng.below(20) == 0 {
                // A new incarnation, which starts at 0 again.
                *client = Client {
                    epoch: client.epoch + 1,
                    ..Client::default()
                };
            }
            let epoch = ProducerEpoch(client.epoch);
            builder = builder.producer(ProducerId(n as i64), epoch, client.next_sequence);
        }
        let now = self.io.wall().0;
        for _ in 0..count {
            // Mostly rising, sometimes far off: lookups by time must not rely on order.
            let ago_max = if rng.below(5) == 0 { 60_000 } else { 50 };
            let len_max = if rng.below(12) == 0 { 9000 } else { 300 };
            let timestamp = now - rng.below(ago_max) as i64;
            let len = rng.below(len_max) as usize;
            let mut value = vec![0; len];
            rng.fill(&mut value);
            builder = builder.record(TimestampMs(timestamp), None, Some(&value));
            self.records.push(Modelled {
                timestamp,
                value,
                batch_base: base,
            });
        }
        let bytes = builder.finish();
        let appended = self.log.append(&bytes).expect("taken");
        assert_eq!(
            (appended.base_offset, appended.duplicate),
            (Offset(base), false)
        );
        if let Some(n) = client {
            let client = &mut self.clients[n];
            client.sent.push((client.next_sequence, bytes, base));
            client.next_sequence += count as i32;
            if client.sent.len() > 5 {
                client.sent.remove(0);
            }
        }
        if self.rng.below(4) > 0 {
            self.log.acknowledged(appended.next_offset).await.unwrap();
            assert_eq!(
                self.log.offsets().high_watermark,
                Offset(self.records.len() as i64)
            );
        }
    }

    fn again(&mut self) {
        let client = &self.clients[self.rng.index(self.clients.len())];
        if let Some((_, bytes, base)) = client.sent.get(self.rng.below(5) as usize) {
            let appended = self.log.append(bytes).expect("known");
            assert_eq!(
                (appended.base_offset, appended.duplicate),
                (Offset(*base), true)
            );
        }
    }

    fn out_of_order(&mut self) {
        let n = self.rng.index(self.clients.len());
        let client = &self.clients[n];
        if client.sent.is_empty() {
            return;
        }
        let by = self.rng.between(1, 9) as i32;
        let batch = |epoch, sequence| {
            BatchBuilder::new(Codec::None)
                .producer(ProducerId(n as i64), ProducerEpoch(epoch), sequence)
                .record(TimestampMs(1), None, Some(b"x"))
                .finish()
        };
        let gap = self
            .log
            .append(&batch(client.epoch, client.next_sequence + by));
        assert!(
            matches!(
                gap,
                Err(AppendError::Sequence(
                    SequenceError::OutOfOrderSequence { .. }
                ))
            ),
            "{gap:?}"
        );
        if client.epoch > 0 {
            let old = self.log.append(&batch(client.epoch - 1, 0));
            assert!(
                matches!(
                    old,
                    Err(AppendError::Sequence(
                        SequenceError::InvalidProducerEpoch { .. }
                    ))
                ),
                "{old:?}"
            );
        }
    }

    /// One fetch from anywhere: whole batches, the next records with no gap, no more than
    /// asked for but for the first batch, and all that fits where the log is in memory.
    async fn fetch(&mut self) {
        let visible = self.log.offsets().high_watermark.0;
        let from = self.rng.below(visible as u64 + 3) as i64 - 1;
        let bytes_max = match self.rng.below(4) {
            0 => self.rng.below(200),
            1 => self.rng.below(20_000),
            _ => self.rng.below(3000),
        } as usize;
        let at_least_one = self.rng.below(4) > 0;
        let result = self.log.read(Offset(from), bytes_max, at_least_one).await;
        let end = self.log.offsets().log_end.0;
        if from < self.start || from > end {
            let told = matches!(result, Err(ReadError::OutOfRange { .. }));
            assert!(told, "a fetch at {from} of {} to {end}", self.start);
            return;
        }
        let slice = result.expect("in range");
        let bytes = slice.load().await.expect("loads").concat();
        if from >= visible {
            assert!(
                bytes.is_empty() && slice.is_empty(),
                "the end: nothing, of length 0"
            );
            return;
        }
        let mut next = self.records[from as usize].batch_base;
        let mut batches = 0;
        for batch in Batches::new(&bytes) {
            let batch = batch.expect("whole");
            batch.verify_crc().expect("as it was sealed");
            batches += 1;
            assert_eq!(batch.base_offset(), Offset(next));
            let unpacked = batch.records_unpacked(1 << 20).expect("unpacks");
            for record in batch.records(&unpacked) {
                let record = record.expect("a record");
                let modelled = &self.records[next as usize];
                assert_eq!(batch.offset_of(&record), Offset(next));
                assert_eq!(batch.timestamp_of(&record), TimestampMs(modelled.timestamp));
                assert_eq!(record.value, Some(&modelled.value[..]), "at {next}");
                next += 1;
            }
        }
        assert!(next <= visible, "nothing beyond the high watermark");
        if at_least_one {
            assert!(next > from, "a fetch at {from} gets on");
            assert!(batches == 1 || bytes.len() <= bytes_max);
        } else {
            assert!(bytes.len() <= bytes_max);
        }
    }

    async fn look_up(&mut self) {
        let visible = self.log.offsets().high_watermark.0 as usize;
        let start = self.start as usize;
        let shown = &self.records[start.min(visible)..visible];
        let now = self.io.wall().0;
        let target = match self.rng.below(3) {
            0 if !shown.is_empty() => shown[self.rng.index(shown.len())].timestamp,
            1 => now - self.rng.below(70_000) as i64,
            _ => now - self.rng.below(100) as i64,
        };
        let found = self
            .log
            .offset_at_or_after(TimestampMs(target))
            .await
            .unwrap();
        // A round may have ended during the look: then more was to be seen than is told here.
        let still = |log: &Partition<SimIo>| log.offsets().high_watermark.0 as usize == visible;
        if !still(&self.log) {
            return;
        }
        let found = found.map(|f| (f.offset.0, f.timestamp.0));
        let at = shown.iter().position(|r| r.timestamp >= target);
        let expected = at.map(|i| ((start + i) as i64, shown[i].timestamp));
        assert_eq!(found, expected, "the first at or after {target}");

        let latest = self.log.latest_timestamp().await.unwrap();
        if !still(&self.log) {
            return;
        }
        let largest = shown.iter().map(|r| r.timestamp).max();
        let at = largest.and_then(|l| shown.iter().position(|r| r.timestamp == l));
        let expected = at.map(|i| (start + i) as i64);
        assert_eq!(latest.map(|f| f.offset.0), expected, "the latest");
    }

    async fn delete(&mut self) {
        let visible = self.log.offsets().high_watermark.0;
        let span = (visible - self.start) as u64;
        let before = self.start + self.rng.below(span / 3 + 2) as i64;
        match self.log.delete_records(Offset(before)).await {
            Ok(start) => {
                assert!(before <= visible);
                self.start = self.start.max(before);
                assert_eq!(start, Offset(self.start));
            }
            Err(ReadError::OutOfRange { .. }) => assert!(before > visible),
            Err(error) => panic!("{error}"),
        }
    }

    /// Retention by size: from the front, whole batches, and never more than it must.
    async fn retain(&mut self) {
        self.log.housekeep().await.unwrap();
        let start = self.log.offsets().log_start.0;
        assert!(start >= self.start && start <= self.log.offsets().high_watermark.0);
        match self.config.retention_bytes_max {
            Some(max) if start > self.start => assert!(self.log.size_bytes() >= max),
            _ => assert_eq!(start, self.start),
        }
        self.start = start;
    }

    async fn restart(&mut self, sim: &Sim) {
        self.log.close().await.unwrap();
        let clean = self.rng.coin();
        if self.rng.coin() {
            // Other settings from here on: what is there keeps its shape.
            self.config.segment_bytes = self.rng.between(1, 40) << 10;
            self.config.index_interval_bytes = self.rng.between(1, 6000);
        }
        let tail_bytes = self.rng.below(100_000) as usize;
        self.io = sim.io();
        self.log = open(&self.io, &self.config, clean, tail_bytes).await;
        let offsets = self.log.offsets();
        assert_eq!(offsets.log_end, Offset(self.records.len() as i64));
        assert_eq!(offsets.high_watermark, offsets.log_end);
        assert_eq!(offsets.log_start, Offset(self.start));
    }
}

fn run(seed: u64) {
    let sim = Sim::from_seed(seed);
    let mut rng = sim.rng();
    sim.faults(Faults {
        short_write: if rng.below(3) == 0 { 0.2 } else { 0.0 },
        ..Faults::default()
    });
    let config = LogConfig {
        segment_bytes: rng.between(1, 40) << 10,
        index_interval_bytes: rng.between(1, 6000),
        retention_age_max: None,
        retention_bytes_max: (rng.below(4) == 0).then(|| rng.between(0, 60) << 10),
        ..LogConfig::default()
    };
    sim.run(async {
        let io = sim.io();
        let tail_bytes = rng.below(100_000) as usize;
        let mut model = Model {
            log: open(&io, &config, false, tail_bytes).await,
            io,
            config,
            records: Vec::new(),
            start: 0,
            clients: (0..3).map(|_| Client::default()).collect(),
            rng,
        };
        for _ in 0..160 {
            match model.rng.below(40) {
                0 => model.restart(&sim).await,
                1 => model.delete().await,
                2 => model.retain().await,
                3 => model.again(),
                4 => model.out_of_order(),
                5 => {
                    let idle = Duration::from_millis(model.rng.below(2000));
                    model.io.sleep(idle).await;
                }
                6 => model.log.checkpoint().await.unwrap(),
                7..=11 => model.look_up().await,
                12..=23 => model.fetch().await,
                _ => model.append().await,
            }
        }
        model.log.close().await.unwrap();
    });
}

#[test]
fn a_log_is_a_list_of_records() {
    let seeds = std::env::var("KLAMM_MODEL_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok());
    for seed in 0..seeds.unwrap_or(300) {
        run(seed);
    }
}
