//! A batch into memory: checked, stamped, indexed and copied into an aligned chunk.
//!
//! ```text
//!   append append ... append | acknowledged | append append ...
//!   ^---- counts ----------^   does not       ^---- counts
//! ```
//!
//! All that a home shard does for a batch before the disk has its turn, and all of it
//! without a pause: while it lasts the shard does nothing else. For 1 MiB it is the check
//! (batch_check.rs) and one copy; for one record it is bookkeeping.
//!
//! The flush loop runs between the bursts, onto a disk that keeps nothing (nowhere.rs).
//! Before the first one the shard's tail cache is filled: from then on chunks go round, as
//! they do in a broker that is busy, and none is memory that the kernel has yet to give.

use crate::content::{full_batch, lone_record};
use crate::executor::{empty_folder, on_shards, remove_folder};
use crate::nowhere::Nowhere;
use criterion::{Criterion, SamplingMode, Throughput};
use klamm_engine::codec::Codec;
use klamm_engine::config::LogConfig;
use klamm_engine::io::Io;
use klamm_engine::partition::{OpenOptions, Partition};
use klamm_engine::tail::TailCache;
use klamm_engine::units::LeaderEpoch;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the recent tail of a shard's logs may take of memory.
const TAIL_BYTES: usize = 64 << 20;

/// Between two looks at the disk a busy shard takes about so much.
const BURST_BYTES: usize = 4 << 20;
const BURST_BATCHES: u64 = 256;

/// Of full batches: the tail, and the chunks that are filled and written meanwhile.
const WARM_UP: usize = TAIL_BYTES / (1 << 20) + 16;

pub fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let filler: Arc<[u8]> = full_batch(Codec::None, 1 << 10).into();
    let batches = [
        ("1MiB_of_1KiB", full_batch(Codec::None, 1 << 10)),
        ("1MiB_of_1KiB_lz4", full_batch(Codec::Lz4, 1 << 10)),
        ("one_100B", lone_record(Codec::None, 100)),
    ];
    for (name, batch) in batches {
        let batch: Arc<[u8]> = batch.into();
        group.throughput(Throughput::BytesDecimal(batch.len() as u64));
        group.bench_function(name, |b| {
            b.iter_custom(|appends| measure(&batch, &filler, appends));
        });
    }
    group.finish();
}

fn measure(batch: &Arc<[u8]>, filler: &Arc<[u8]>, appends: u64) -> Duration {
    let (batch, filler) = (batch.clone(), filler.clone());
    on_shards(1, async move |_, io| {
        let io = Nowhere(io);
        let folder = empty_folder(&io, "append").await;
        let partition = open(&io, folder.clone()).await;
        for _ in 0..WARM_UP {
            append(&partition, &filler, 1).await;
        }
        let burst = ((BURST_BYTES / batch.len()) as u64).clamp(1, BURST_BATCHES);
        let mut took = Duration::ZERO;
        let mut left = appends;
        while left > 0 {
            let now = left.min(burst);
            took += append(&partition, &batch, now).await;
            left -= now;
        }
        partition.abandon().await;
        remove_folder(&io, &folder).await;
        took
    })
}

/// So many at once, then what is gathered is written; only the former is in the time.
async fn append<I: Io>(partition: &Partition<I>, batch: &[u8], times: u64) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        partition.append(batch).expect("a batch that is sound");
    }
    let took = began.elapsed();
    let end = partition.offsets().log_end;
    partition
        .acknowledged(end)
        .await
        .expect("nothing fails on this disk");
    took
}

/// A new partition with the defaults: every answer waits for a sync.
pub async fn open<I: Io>(io: &I, folder: PathBuf) -> Rc<Partition<I>> {
    let options = OpenOptions {
        clean: false,
        leader_epoch: LeaderEpoch(0),
    };
    let tails = TailCache::new(TAIL_BYTES);
    Partition::open(io.clone(), folder, LogConfig::default(), options, tails)
        .await
        .unwrap_or_else(|e| panic!("a partition in {}: {e}", env!("CARGO_TARGET_TMPDIR")))
}
