//! What goes wrong, how often, and when.
//!
//! A probability is per operation and drawn from the seed; a *planned* fault is
//! for the n-th operation of its kind, for tests that want one thing to happen.

use super::rng::Rng;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The operations that can fail, as the disk sees them. Compound ones
/// (`replace_file`, `create_dir_all`, `remove_dir_all`) are made of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    Open,
    Write,
    Read,
    /// `fdatasync`.
    Sync,
    SyncDir,
    SyncAll,
    /// `allocate`, `truncate`.
    Resize,
    /// `len`, `read_dir`.
    Look,
    /// A name made, moved or removed.
    Name,
}

/// Probabilities of faults, each per operation, in 0..=1. All 0: a disk that only
/// does what the contract allows it (completions in any order, short writes none).
#[derive(Clone, Debug)]
pub struct Faults {
    /// Fewer bytes are taken than given, a multiple of the sector.
    pub short_write: f64,
    /// EIO; some sectors may have been written all the same.
    pub write_error: f64,
    pub read_error: f64,
    /// EIO from `fdatasync`, `sync_dir` and `sync_all`. What was to be committed is committed in
    /// part and forgotten in part, and the next sync says Ok: as Linux does.
    pub sync_error: f64,
    pub open_error: f64,
    /// EIO from `allocate` and `truncate`.
    pub resize_error: f64,
    /// EIO from making, moving and removing names.
    pub name_error: f64,
    /// The share of operations that take up to `slow_max` instead of `usual_max`.
    pub slow: f64,
    pub slow_max: Duration,
    pub usual_max: Duration,
    /// At each restart, per file with bytes in it: one bit is flipped at rest.
    pub bit_rot: f64,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            short_write: 0.0,
            write_error: 0.0,
            read_error: 0.0,
            sync_error: 0.0,
            open_error: 0.0,
            resize_error: 0.0,
            name_error: 0.0,
            slow: 0.0,
            slow_max: Duration::from_secs(2),
            // Wide enough that two operations submitted together finish in either order.
            usual_max: Duration::from_micros(100),
            bit_rot: 0.0,
        }
    }
}

impl Faults {
    pub(super) fn probability(&self, op: OpKind) -> f64 {
        match op {
            OpKind::Open => self.open_error,
            OpKind::Write => self.write_error,
            OpKind::Read => self.read_error,
            OpKind::Sync | OpKind::SyncDir | OpKind::SyncAll => self.sync_error,
            OpKind::Resize => self.resize_error,
            OpKind::Name => self.name_error,
            OpKind::Look => 0.0,
        }
    }

    pub(super) fn delay(&self, rng: &mut Rng) -> Duration {
        let max = if rng.chance(self.slow) {
            self.slow_max
        } else {
            self.usual_max
        };
        Duration::from_nanos(rng.between(1_000, max.as_nanos().max(1_000) as u64))
    }
}

/// A fault that a test has asked for by number.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub op: OpKind,
    /// Only operations on paths below this, or on it.
    pub under: PathBuf,
    /// How many more of them go well.
    pub skip: u64,
    pub what: PlannedFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlannedFault {
    Eio,
    ShortWrite,
}

/// Takes the fault that is due for this operation, if one is.
pub(super) fn take_planned(
    plans: &mut Vec<Planned>,
    op: OpKind,
    path: &Path,
) -> Option<PlannedFault> {
    let mut due = None;
    for (i, plan) in plans.iter_mut().enumerate() {
        if plan.op == op && path.starts_with(&plan.under) {
            if plan.skip == 0 {
                due = due.or(Some(i));
            } else {
                plan.skip -= 1;
            }
        }
    }
    due.map(|i| plans.remove(i).what)
}

pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

pub(super) fn enospc() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}
