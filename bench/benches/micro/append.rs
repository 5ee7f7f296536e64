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
//! The flush loop runs between the bursts, onto a disk that keeps nothing (nowhere.rs), so
//! that chunks go round as they do in a broker.

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

pub fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let batches = [
        ("1MiB_of_1KiB", full_batch(Codec::None, 1 << 10)),
        ("1MiB_of_1KiB_lz4", full_batch(Codec::Lz4, 1 << 10)),
        ("one_100B", lone_record(Codec::None, 100)),
    ];
    for (name, batch) in batches {
        let batch: Arc<[u8]> = batch.into();
        group.throughput(Throughput::BytesDecimal(batch.len() as u64));
        group.bench_function(name, |b| {
            b.iter_custom(|appends| measure(&batch, appends));
        });
    }
    group.finish();
}

fn measure(batch: &Arc<[u8]>, appends: u64) -> Duration {
    let batch = batch.clone();
    on_shards(1, async move |_, io| {
        let io = Nowhere(io);
        let folder = empty_folder(&io, "append").await;
        let partition = open(&io, folder.clone()).await;
        let burst = ((BURST_BYTES / batch.len()) as u64).clamp(1, BURST_BATCHES);
        let mut took = Duration::ZERO;
        let mut left = appends;
        while left > 0 {
            let now = left.min(burst);
            let began = Instant::now();
            for _ in 0..now {
                partition.append(&batch).expect("a batch that is sound");
            }
            took += began.elapsed();
            let end = partition.offsets().log_end;
            partition
                .acknowledged(end)
                .await
                .expect("nothing fails on this disk");
            left -= now;
        }
        partition.abandon().await;
        remove_folder(&io, &folder).await;
        took
    })
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
