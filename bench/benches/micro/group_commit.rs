//! From an append to its acknowledgement, synced, with k callers at a time.
//!
//! ```text
//!   caller 1  append ---+
//!   caller 2  append ---+--> one write, one fdatasync --> all k acknowledged
//!   caller k  append ---+                                 and the next k
//! ```
//!
//! On the real disk, through the engine's own door. It shows what group commit is for: a
//! round should cost little more with 256 callers than with one, so that the rate rises
//! almost as k does. With k = 1 it is the disk's own write and sync, which no broker that
//! keeps its promise can go below.

use crate::append::open;
use crate::content::lone_record;
use crate::executor::{empty_folder, on_shards, remove_folder};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use futures_util::future::join_all;
use klamm_engine::codec::Codec;
use klamm_engine::io::Io;
use klamm_engine::partition::Partition;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Untimed, so that the first blocks of the file are there.
const ROUNDS_BEFORE: u64 = 4;

pub fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("group_commit");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let batch: Arc<[u8]> = lone_record(Codec::None, 100).into();
    for callers in [1, 16, 256] {
        group.throughput(Throughput::Elements(callers));
        let id = BenchmarkId::from_parameter(callers);
        group.bench_with_input(id, &callers, |b, &callers| {
            b.iter_custom(|rounds| measure(&batch, callers, rounds));
        });
    }
    group.finish();
}

fn measure(batch: &Arc<[u8]>, callers: u64, rounds: u64) -> Duration {
    let batch = batch.clone();
    on_shards(1, async move |_, io| {
        let folder = empty_folder(&io, "group_commit").await;
        let partition = open(&io, folder.clone()).await;
        for _ in 0..ROUNDS_BEFORE {
            round(&partition, &batch, callers).await;
        }
        let began = Instant::now();
        for _ in 0..rounds {
            round(&partition, &batch, callers).await;
        }
        let took = began.elapsed();
        let end = partition.offsets();
        assert_eq!(end.high_watermark, end.log_end, "all of it is committed");
        partition.abandon().await;
        remove_folder(&io, &folder).await;
        took
    })
}

async fn round<I: Io>(partition: &Partition<I>, batch: &[u8], callers: u64) {
    let caller = async |_| {
        let appended = partition.append(batch).expect("a batch that is sound");
        partition
            .acknowledged(appended.next_offset)
            .await
            .unwrap_or_else(|e| panic!("the disk of the target folder: {e}"));
    };
    join_all((0..callers).map(caller)).await;
}
