//! What it costs to have something done on another core, and to hear of it.
//!
//! ```text
//!   own_shard             submit_to(here)      no message: the price of the door alone
//!   other_shard           there and back, one at a time: two wake-ups of a core
//!   other_shard_64        64 under way: what a busy broker pays a request
//! ```
//!
//! A request for a partition of another shard crosses once and its answer comes back.
//! One at a time it is latency that such a request has more than one that came in on the
//! home shard; many at a time it is the share of two cores that forwarding takes. Both are
//! what clients that connect to the home core would save.
//!
//! With one processor free the two shards take turns on it, and the figures tell of the
//! kernel's scheduler: measure on an idle machine.

use crate::executor::on_shards;
use criterion::{Criterion, SamplingMode, Throughput};
use futures_util::{StreamExt, stream};
use klamm_engine::units::ShardId;
use std::time::{Duration, Instant};

const UNDER_WAY: usize = 64;

/// Untimed: the first ones find the other shard asleep and everything cold.
const HOPS_BEFORE: u64 = 256;

pub fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("hop");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Elements(1));
    let cases = [
        ("own_shard", 1, 0, 1),
        ("other_shard", 2, 1, 1),
        ("other_shard_64", 2, 1, UNDER_WAY),
    ];
    for (name, shards, to, under_way) in cases {
        group.bench_function(name, |b| {
            b.iter_custom(|hops| measure(shards, ShardId(to), hops, under_way));
        });
    }
    group.finish();
}

fn measure(shards: usize, to: ShardId, hops: u64, under_way: usize) -> Duration {
    on_shards(shards, async move |shards, _| {
        let hop = async |n: u64| {
            let answer = shards.submit_to(to, move |_| std::future::ready(n)).await;
            assert_eq!(answer, Ok(n));
        };
        for n in 0..HOPS_BEFORE {
            hop(n).await;
        }
        let began = Instant::now();
        if under_way == 1 {
            for n in 0..hops {
                hop(n).await;
            }
        } else {
            stream::iter(0..hops)
                .map(hop)
                .buffer_unordered(under_way)
                .for_each(|()| std::future::ready(()))
                .await;
        }
        began.elapsed()
    })
}
