//! All that is checked of a produced batch: structure, CRC, fields, and each record where
//! they are not packed.
//!
//! The broker does it once for each batch, on the home shard. For large batches it should
//! cost little more than the CRC (crc.rs); for one record of 100 bytes it is a fixed price
//! that a million records a second pay a million times. A packed batch is never unpacked,
//! so its rate, told in bytes as they are sent, should be the CRC's.

use crate::content::{BATCH_BYTES_MAX, full_batch, lone_record};
use criterion::{BenchmarkId, Criterion, Throughput};
use klamm_engine::batch::check_from_client;
use klamm_engine::codec::Codec;
use std::hint::black_box;

pub fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch_check");
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let batches = [
            ("1MiB_of_1KiB", full_batch(codec, 1 << 10)),
            ("1MiB_of_100B", full_batch(codec, 100)),
            ("one_100B", lone_record(codec, 100)),
        ];
        for (name, batch) in batches {
            check_from_client(&batch, BATCH_BYTES_MAX).expect("a batch that is sound");
            group.throughput(Throughput::BytesDecimal(batch.len() as u64));
            let id = BenchmarkId::new(name, codec.name());
            group.bench_with_input(id, &batch, |b, batch| {
                b.iter(|| check_from_client(black_box(batch), BATCH_BYTES_MAX).is_ok());
            });
        }
    }
    group.finish();
}
