//! Where in a segment an offset or a time is.
//!
//! ```text
//!   a full segment: 1 GiB, an entry for each 4,096 bytes: 262,144 entries
//!   .index 2 MiB, .timeindex 3 MiB, searched by halves: 18 steps
//! ```
//!
//! Once for every fetch that is not served from the recent tail, and for every
//! ListOffsets by time. What is asked for has no pattern: an index that fits no cache of
//! the processor's pays for its steps in misses.

use crate::content::{BEGAN, Random};
use criterion::{Criterion, Throughput};
use klamm_engine::index::{OffsetIndex, TimeIndex};
use klamm_engine::units::{BytePos, Offset, TimestampMs};
use std::hint::black_box;

const ENTRIES: i64 = 262_144;
const INTERVAL_BYTES: i64 = 4096;
/// Records of 100 bytes.
const OFFSETS_PER_ENTRY: i64 = 40;
const MS_PER_ENTRY: i64 = 3;

pub fn benchmarks(c: &mut Criterion) {
    let base = Offset(1_000_000_000);
    let mut offsets = OffsetIndex::new(base);
    let mut times = TimeIndex::new(base);
    for n in 1..=ENTRIES {
        let offset = base.plus(n * OFFSETS_PER_ENTRY);
        // Behind the entry's batch there is one more of them: below 1 GiB.
        let position = BytePos(((n - 1) * INTERVAL_BYTES).unsigned_abs() + 1);
        offsets.append(offset, position);
        times.maybe_append(TimestampMs(BEGAN.0 + n * MS_PER_ENTRY), offset);
    }

    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    group.bench_function("offset_lookup", |b| {
        let mut random = Random::new();
        let span = (ENTRIES * OFFSETS_PER_ENTRY).unsigned_abs();
        b.iter(|| {
            let target = base.plus(random.below(span).cast_signed());
            offsets.lookup(black_box(target))
        });
    });
    group.bench_function("time_lookup", |b| {
        let mut random = Random::new();
        let span = (ENTRIES * MS_PER_ENTRY).unsigned_abs();
        b.iter(|| {
            let target = TimestampMs(BEGAN.0 + random.below(span).cast_signed());
            times.lookup(black_box(target))
        });
    });
    group.finish();
}
