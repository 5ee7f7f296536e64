//! Which leader wrote from which offset on: how a follower, or a consumer that comes
//! back, finds where its log and the leader's part (KIP-101, KIP-279, KIP-320).
//!
//! ```text
//!   epoch, start         0,0      2,100         5,180
//!   offsets              |-- 0 --|----- 2 -----|------ 5 ------> log end 250
//!
//!   end of epoch 5       (5, 250)   the newest one ends at the log's end
//!   end of epoch 2       (2, 180)   where the next one began
//!   end of epoch 3       (2, 180)   the largest one below it that wrote
//!   end of epoch 6       unknown    this log has not heard of it
//! ```
//!
//! Epochs and start offsets both rise strictly. The file is Kafka's
//! `leader-epoch-checkpoint`, text: version 0, the number of lines, then one line
//! `epoch startOffset` each. Source: `LeaderEpochFileCache.java`.

use crate::units::{LeaderEpoch, Offset};
use std::fmt::{self, Write};

const VERSION: &str = "0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: LeaderEpoch,
    pub start: Offset,
}

/// The epochs of one partition's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

/// Which line of the checkpoint, from 1, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointError {
    pub line: usize,
    pub fault: CheckpointFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointFault {
    NotText,
    Version,
    Count,
    /// Neither `epoch startOffset` nor in range.
    Entry,
    /// Not above the line before it.
    Order,
    /// More lines or fewer than the count says.
    Lines {
        is: usize,
        expected: usize,
    },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leader-epoch-checkpoint, line {}: ", self.line)?;
        match self.fault {
            CheckpointFault::NotText => write!(f, "not text"),
            CheckpointFault::Version => write!(f, "the version is not {VERSION}"),
            CheckpointFault::Count => write!(f, "no number of entries"),
            CheckpointFault::Entry => write!(f, "no epoch and start offset"),
            CheckpointFault::Order => write!(f, "not above the entry before it"),
            CheckpointFault::Lines { is, expected } => {
                write!(f, "{is} entries where {expected} are announced")
            }
        }
    }
}

impl std::error::Error for CheckpointError {}

impl LeaderEpochs {
    #[must_use]
    pub fn new() -> LeaderEpochs {
        LeaderEpochs::default()
    }

    /// `epoch` writes from `start` on. Entries that contradict it, from a log that
    /// has since been cut, go. Returns whether anything changed: then the checkpoint
    /// is to be written. Batches of no epoch (-1) change nothing.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if epoch.0 < 0 || start < Offset::ZERO {
            return false;
        }
        if self
            .latest()
            .is_some_and(|latest| latest.epoch == epoch && latest.start <= start)
        {
            return false;
        }
        let keep = self
            .entries
            .partition_point(|e| e.epoch < epoch && e.start < start);
        self.entries.truncate(keep);
        self.entries.push(EpochStart { epoch, start });
        true
    }

    /// The newest epoch, and where it began.
    #[must_use]
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// The epoch that wrote the record at `offset`.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|e| e.start <= offset);
        self.entries[..above].last().map(|e| e.epoch)
    }

    /// OffsetForLeaderEpoch: the largest epoch not above `requested` that wrote here,
    /// and the offset behind its last record. None (on the wire: -1, -1) where
    /// `requested` is above all known ones, or is -1.
    ///
    /// An epoch older than this log's first answers with itself and the log's first
    /// known start: nothing that it wrote is left, so whoever asks cuts back to there.
    #[must_use]
    pub fn end_offset_for(
        &self,
        requested: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if requested.0 < 0 {
            return None;
        }
        let latest = self.latest()?;
        if requested == latest.epoch {
            return Some((requested, log_end));
        }
        let above = self.entries.partition_point(|e| e.epoch <= requested);
        let higher = self.entries.get(above)?;
        let floor = self.entries[..above].last().map_or(requested, |e| e.epoch);
        Some((floor, higher.start))
    }

    /// The log was cut: `end` and all behind it are gone. Returns whether anything
    /// changed.
    pub fn truncate_from_end(&mut self, end: Offset) -> bool {
        let keep = self.entries.partition_point(|e| e.start < end);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// The log begins at `start` now. The epoch that spans it begins there. Returns
    /// whether anything changed.
    pub fn truncate_from_start(&mut self, start: Offset) -> bool {
        let below = self.entries.partition_point(|e| e.start <= start);
        let Some(spanning) = self.entries[..below].last_mut() else {
            return false;
        };
        let changed = below > 1 || spanning.start != start;
        spanning.start = start;
        self.entries.drain(..below - 1);
        changed
    }

    #[must_use]
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The checkpoint file's bytes.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{VERSION}\n{}\n", self.entries.len());
        for EpochStart { epoch, start } in &self.entries {
            writeln!(text, "{epoch} {start}").expect("memory takes every write");
        }
        text
    }

    /// Of any bytes; never panics.
    pub fn decode(bytes: &[u8]) -> Result<LeaderEpochs, CheckpointError> {
        let fail = |line, fault| Err(CheckpointError { line, fault });
        let Ok(text) = std::str::from_utf8(bytes) else {
            return fail(1, CheckpointFault::NotText);
        };
        let mut lines = text.lines();
        if lines.next().map(str::trim) != Some(VERSION) {
            return fail(1, CheckpointFault::Version);
        }
        let Some(expected) = lines
            .next()
            .and_then(|line| line.trim().parse::<usize>().ok())
        else {
            return fail(2, CheckpointFault::Count);
        };
        let mut entries: Vec<EpochStart> = Vec::new();
        for (number, line) in (3..).zip(lines) {
            let Some(entry) = entry(line) else {
                return fail(number, CheckpointFault::Entry);
            };
            if entries
                .last()
                .is_some_and(|e| e.epoch >= entry.epoch || e.start >= entry.start)
            {
                return fail(number, CheckpointFault::Order);
            }
            entries.push(entry);
        }
        let is = entries.len();
        match is == expected {
            true => Ok(LeaderEpochs { entries }),
            false => fail(is + 2, CheckpointFault::Lines { is, expected }),
        }
    }
}

fn entry(line: &str) -> Option<EpochStart> {
    let mut words = line.split_whitespace();
    let (epoch, start) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let sound = words.next().is_none() && epoch >= 0 && start >= 0;
    sound.then_some(EpochStart {
        epoch: LeaderEpoch(epoch),
        start: Offset(start),
    })
}
