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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::new();
        for &(epoch, start) in entries {
            assert!(epochs.assign(LeaderEpoch(epoch), Offset(start)));
        }
        epochs
    }

    fn told(epochs: &LeaderEpochs) -> Vec<(i32, i64)> {
        epochs
            .entries()
            .iter()
            .map(|e| (e.epoch.0, e.start.0))
            .collect()
    }

    fn end(epochs: &LeaderEpochs, requested: i32) -> Option<(i32, i64)> {
        let end = epochs.end_offset_for(LeaderEpoch(requested), Offset(250));
        end.map(|(epoch, offset)| (epoch.0, offset.0))
    }

    #[test]
    fn an_epoch_ends_where_the_next_that_wrote_begins() {
        let epochs = epochs(&[(1, 10), (2, 100), (5, 180)]);
        assert_eq!(end(&epochs, 5), Some((5, 250)));
        assert_eq!(end(&epochs, 2), Some((2, 180)));
        assert_eq!(end(&epochs, 3), Some((2, 180)));
        assert_eq!(end(&epochs, 4), Some((2, 180)));
        assert_eq!(end(&epochs, 1), Some((1, 100)));
        assert_eq!(
            end(&epochs, 0),
            Some((0, 10)),
            "older than all: cut to the first start"
        );
        assert_eq!(end(&epochs, 6), None, "newer than all");
        assert_eq!(end(&epochs, -1), None);
        assert_eq!(end(&LeaderEpochs::new(), 0), None);
    }

    #[test]
    fn assigning_keeps_epochs_and_starts_rising() {
        let mut epochs = epochs(&[(1, 10), (2, 100), (5, 180)]);
        assert!(!epochs.assign(LeaderEpoch(5), Offset(180)));
        assert!(
            !epochs.assign(LeaderEpoch(5), Offset(200)),
            "an epoch begins once"
        );
        assert!(!epochs.assign(LeaderEpoch(-1), Offset(300)));
        assert!(
            epochs.assign(LeaderEpoch(7), Offset(180)),
            "epoch 5 wrote nothing"
        );
        assert_eq!(told(&epochs), [(1, 10), (2, 100), (7, 180)]);
        assert!(
            epochs.assign(LeaderEpoch(8), Offset(50)),
            "the log was cut to 50"
        );
        assert_eq!(told(&epochs), [(1, 10), (8, 50)]);
        assert!(epochs.assign(LeaderEpoch(8), Offset(20)));
        assert_eq!(told(&epochs), [(1, 10), (8, 20)]);
    }

    #[test]
    fn a_record_has_the_epoch_that_spans_it() {
        let epochs = epochs(&[(1, 10), (2, 100)]);
        let at = |offset| epochs.epoch_at(Offset(offset)).map(|epoch| epoch.0);
        assert_eq!(
            [at(9), at(10), at(99), at(100), at(1 << 40)],
            [None, Some(1), Some(1), Some(2), Some(2)]
        );
    }

    #[test]
    fn cutting_the_end_drops_what_began_behind_it() {
        let mut epochs = epochs(&[(1, 10), (2, 100), (5, 180)]);
        assert!(!epochs.truncate_from_end(Offset(181)));
        assert!(epochs.truncate_from_end(Offset(180)));
        assert_eq!(told(&epochs), [(1, 10), (2, 100)]);
        assert!(epochs.truncate_from_end(Offset(0)));
        assert_eq!(told(&epochs), []);
    }

    #[test]
    fn cutting_the_start_moves_the_epoch_that_spans_it() {
        let mut epochs = epochs(&[(1, 10), (2, 100), (5, 180)]);
        assert!(!epochs.truncate_from_start(Offset(10)));
        assert!(epochs.truncate_from_start(Offset(120)));
        assert_eq!(told(&epochs), [(2, 120), (5, 180)]);
        assert!(epochs.truncate_from_start(Offset(180)));
        assert_eq!(told(&epochs), [(5, 180)]);
        assert!(epochs.truncate_from_start(Offset(500)));
        assert_eq!(told(&epochs), [(5, 500)]);
        assert!(!epochs.truncate_from_start(Offset(400)));
    }

    /// The text as Kafka writes it.
    #[test]
    fn the_checkpoint_is_kafkas_text() {
        let epochs = epochs(&[(0, 0), (3, 9_000_000_000)]);
        assert_eq!(epochs.encode(), "0\n2\n0 0\n3 9000000000\n");
        assert_eq!(
            LeaderEpochs::decode(b"0\n2\n0 0\n3 9000000000\n"),
            Ok(epochs)
        );
        assert_eq!(LeaderEpochs::decode(b"0\n0\n"), Ok(LeaderEpochs::new()));
    }

    #[test]
    fn a_bad_checkpoint_is_refused_with_its_line() {
        for (text, line, fault) in [
            (&b""[..], 1, CheckpointFault::Version),
            (b"1\n0\n", 1, CheckpointFault::Version),
            (b"0\n", 2, CheckpointFault::Count),
            (b"0\n-1\n", 2, CheckpointFault::Count),
            (b"0\n1\n", 2, CheckpointFault::Lines { is: 0, expected: 1 }),
            (
                b"0\n1\n0 0\n1 5\n",
                4,
                CheckpointFault::Lines { is: 2, expected: 1 },
            ),
            (
                b"0\n99999999999\n0 0\n",
                3,
                CheckpointFault::Lines {
                    is: 1,
                    expected: 99_999_999_999,
                },
            ),
            (b"0\n1\n0\n", 3, CheckpointFault::Entry),
            (b"0\n1\n0 0 0\n", 3, CheckpointFault::Entry),
            (b"0\n1\n-1 0\n", 3, CheckpointFault::Entry),
            (b"0\n1\n0 -1\n", 3, CheckpointFault::Entry),
            (b"0\n1\n99999999999 0\n", 3, CheckpointFault::Entry),
            (b"0\n2\n1 5\n1 9\n", 4, CheckpointFault::Order),
            (b"0\n2\n1 5\n2 5\n", 4, CheckpointFault::Order),
            (b"0\n1\n\xff \n", 1, CheckpointFault::NotText),
        ] {
            let text_lossy = String::from_utf8_lossy(text).into_owned();
            let expected = Err(CheckpointError { line, fault });
            assert_eq!(LeaderEpochs::decode(text), expected, "{text_lossy:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = LeaderEpochs::decode(&bytes);
            let _ = LeaderEpochs::decode(&[b"0\n1\n", &bytes[..]].concat());
        }

        /// Against the log itself: each record with the epoch that wrote it.
        #[test]
        fn answers_are_what_the_records_say(
            steps in prop::collection::vec((0u8..4, 0i32..3, 0usize..12), 1..40),
        ) {
            let mut log: Vec<i32> = Vec::new();
            let (mut start, mut leader) = (0, 0);
            let mut epochs = LeaderEpochs::new();
            for (what, epoch_up, n) in steps {
                match what {
                    0 | 1 => {
                        leader += epoch_up;
                        for _ in 0..n {
                            epochs.assign(LeaderEpoch(leader), Offset(log.len() as i64));
                            log.push(leader);
                        }
                    }
                    2 => {
                        log.truncate(log.len().saturating_sub(n).max(start));
                        epochs.truncate_from_end(Offset(log.len() as i64));
                        leader += 1;
                    }
                    _ => {
                        // Not all of it: of an empty log only the file knows epochs.
                        start = (start + n).min(log.len().saturating_sub(1)).max(start);
                        epochs.truncate_from_start(Offset(start as i64));
                    }
                }
                let at = |offset: usize| epochs.epoch_at(Offset(offset as i64)).map(|e| e.0);
                for (offset, &epoch) in log.iter().enumerate().skip(start) {
                    prop_assert_eq!(at(offset), Some(epoch));
                }
                let log_end = Offset(log.len() as i64);
                for requested in log[start..].iter().copied() {
                    let behind = log.iter().rposition(|&e| e == requested).unwrap() + 1;
                    let expected = (LeaderEpoch(requested), Offset(behind as i64));
                    let answer = epochs.end_offset_for(LeaderEpoch(requested), log_end);
                    prop_assert_eq!(answer, Some(expected));
                }
                let again = LeaderEpochs::decode(epochs.encode().as_bytes());
                prop_assert_eq!(again.as_ref(), Ok(&epochs));
            }
        }
    }
}
