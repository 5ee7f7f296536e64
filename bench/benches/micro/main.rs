//! What each step of a record's way costs by itself.
//!
//! ```text
//!   cargo bench -p klamm-bench --bench micro                all of them
//!   cargo bench -p klamm-bench --bench micro -- NAME        those with NAME in theirs
//!   cargo bench -p klamm-bench --bench micro -- --quick     a first look
//!
//!   frames, decode    bytes of a socket -> a request         frames.rs
//!   hop               a request -> the partition's shard     hop.rs
//!   batch_check, crc  is it whole, and what it says          batch_check.rs, crc.rs
//!   append            into an aligned chunk: dirty           append.rs
//!   group_commit      dirty -> written and synced            group_commit.rs
//!   index             an offset or a time -> a byte          index.rs
//!   tree              a change of the coordinator's          tree.rs
//! ```
//!
//! `klamm-bench` says how fast the broker is; these say where that goes, and whether a
//! change to one step made it better: criterion compares with the run before. None of
//! them is a promise about the whole. Figures of one machine, and of one quiet moment,
//! are only to be compared with their like.
//!
//! What needs an executor runs on the engine's own (executor.rs), and takes its time
//! inside of it. What needs a disk has it below the target folder, emptied before and
//! after; it has to be one with direct I/O.

mod append;
mod batch_check;
mod content;
mod crc;
mod executor;
mod frames;
mod group_commit;
mod hop;
mod index;
mod nowhere;
mod tree;

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

/// Most steps take below a microsecond: two seconds are millions of them, and the whole
/// takes minutes, not a coffee break.
fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = micro;
    config = settings();
    targets =
        crc::benchmarks,
        batch_check::benchmarks,
        frames::benchmarks,
        hop::benchmarks,
        append::benchmarks,
        group_commit::benchmarks,
        index::benchmarks,
        tree::benchmarks,
}
criterion_main!(micro);
