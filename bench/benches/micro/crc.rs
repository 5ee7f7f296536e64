//! CRC-32C of a block, of a large read, and of a full batch.
//!
//! Every produced byte goes through it once, so it bounds what a core can take in: at
//! 10 GB/s a tenth of a second of each GB. A length below a few hundred bytes is another
//! matter; see batch_check.rs for one record.

use crate::content::noise;
use criterion::{BenchmarkId, Criterion, Throughput};
use klamm_engine::crc;
use std::hint::black_box;

pub fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for (name, len) in [("4KiB", 4 << 10), ("64KiB", 64 << 10), ("1MiB", 1 << 20)] {
        let bytes = noise(len);
        group.throughput(Throughput::BytesDecimal(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &bytes, |b, bytes| {
            b.iter(|| crc::castagnoli(black_box(bytes)));
        });
    }
    group.finish();
}
