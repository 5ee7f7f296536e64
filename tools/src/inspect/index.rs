//! Index files: their entries, held against the log beside them.
//!
//! ```text
//!   .index      8 bytes   offset - base i32 | position i32
//!   .timeindex 12 bytes   timestamp i64 | offset - base i32
//!   .txnindex  34 bytes   version i16 | producer id i64 | first, last, last stable offset i64
//! ```
//!
//! No file of these has a checksum, so what can be asked is: whole entries, rising, and
//! true of the log. Kafka preallocates the active segment's: zeros at the end are room.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::segment::{self, Status};
use super::{Report, base_offset, read};
use crate::datetime;
use crate::output::{Failure, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Offset,
    Time,
    Transaction,
}

impl Kind {
    fn entry_bytes(self) -> usize {
        match self {
            Kind::Offset => 8,
            Kind::Time => 12,
            Kind::Transaction => 34,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Entry {
    Offset {
        offset: i64,
        position: i32,
    },
    Time {
        timestamp: i64,
        offset: i64,
    },
    Transaction {
        producer_id: i64,
        first_offset: i64,
        last_offset: i64,
        last_stable_offset: i64,
    },
}

#[derive(Serialize)]
struct EntryLine {
    r#type: &'static str,
    entry: usize,
    #[serde(flatten)]
    what: Entry,
    error: Option<String>,
}

impl fmt::Display for EntryLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8}  ", self.entry)?;
        match &self.what {
            Entry::Offset { offset, position } => {
                write!(f, "offset {offset} position {position}")?;
            }
            Entry::Time { timestamp, offset } => {
                let date = datetime::format(*timestamp);
                write!(f, "timestamp {timestamp} ({date}) offset {offset}")?;
            }
            Entry::Transaction {
                producer_id,
                first_offset,
                last_offset,
                last_stable_offset,
            } => write!(
                f,
                "aborted: producer {producer_id} offsets {first_offset} to {last_offset}, \
                 last stable {last_stable_offset}"
            )?,
        }
        match &self.error {
            Some(error) => write!(f, "  WRONG: {error}"),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    file: String,
    /// `ok`, `preallocated` (zeros at the end), or `corrupt`.
    status: Status,
    entries: usize,
    /// Was there a log beside it to hold it against?
    compared: bool,
    bad_byte: Option<usize>,
    why: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compared = if self.compared {
            "compared with the log"
        } else {
            "no log beside it to compare with"
        };
        write!(
            f,
            "{}: {}; {} entries, {compared}",
            self.file, self.status, self.entries
        )?;
        match (self.bad_byte, &self.why) {
            (Some(byte), Some(why)) => write!(
                f,
                "\n  byte {byte}: {why}; the broker builds it anew if it is taken away"
            ),
            _ => Ok(()),
        }
    }
}

/// What an index says is true of: position -> (base offset, last offset, max timestamp).
type Batches = BTreeMap<u64, (i64, i64, i64)>;

fn batches_beside(index: &Path) -> Result<Option<Batches>, Failure> {
    let log = index.with_extension("log");
    if !log.exists() {
        return Ok(None);
    }
    let mut batches = BTreeMap::new();
    segment::walk(&log, |position, batch, _| {
        let (base, last) = (batch.base_offset().0, batch.last_offset().0);
        batches.insert(position, (base, last, batch.max_timestamp().0));
        Ok(())
    })?;
    Ok(Some(batches))
}

pub fn inspect(path: &Path, kind: Kind, details: bool, report: &mut Report) -> Outcome {
    let bytes = read(path)?;
    let base = base_offset(path).unwrap_or(0);
    let batches = batches_beside(path)?;
    let size = kind.entry_bytes();
    // An entry of zeros can only be the first one, of a log that begins at 0.
    let used = bytes
        .iter()
        .rposition(|b| *b != 0)
        .map_or(0, |last| (last / size + 1) * size)
        .min(bytes.len());
    let preallocated = used < bytes.len();
    let mut summary = Summary {
        r#type: "index",
        file: path.display().to_string(),
        status: if preallocated {
            Status::Preallocated
        } else {
            Status::Ok
        },
        entries: 0,
        compared: batches.is_some(),
        bad_byte: None,
        why: None,
    };
    let wrong = |at: usize, why: &str, summary: &mut Summary| {
        if summary.bad_byte.is_none() {
            summary.status = Status::Corrupt;
            summary.bad_byte = Some(at);
            summary.why = Some(why.to_string());
        }
    };
    let mut before = None;
    let chunks = bytes[..used].chunks_exact(size);
    let rest = chunks.remainder().len();
    for (number, chunk) in chunks.enumerate() {
        let entry = parse(kind, chunk, base);
        let error = check(&entry, before.as_ref(), batches.as_ref());
        if let Some(why) = &error {
            wrong(number * size, why, &mut summary);
        }
        if details {
            report.say(&EntryLine {
                r#type: "index_entry",
                entry: number,
                what: entry.clone(),
                error,
            })?;
        }
        before = Some(entry);
        summary.entries += 1;
    }
    if rest > 0 {
        let why = format!("{rest} bytes that are no whole entry");
        wrong(used - rest, &why, &mut summary);
    }
    report.damaged |= summary.status.is_damage();
    report.say(&summary)
}

fn parse(kind: Kind, bytes: &[u8], base: i64) -> Entry {
    let i32_at = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let i64_at = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    match kind {
        Kind::Offset => Entry::Offset {
            offset: base.saturating_add(i32_at(0).into()),
            position: i32_at(4),
        },
        Kind::Time => Entry::Time {
            timestamp: i64_at(0),
            offset: base.saturating_add(i32_at(8).into()),
        },
        Kind::Transaction => Entry::Transaction {
            producer_id: i64_at(2),
            first_offset: i64_at(10),
            last_offset: i64_at(18),
            last_stable_offset: i64_at(26),
        },
    }
}

fn check(entry: &Entry, before: Option<&Entry>, batches: Option<&Batches>) -> Option<String> {
    match (entry, before) {
        (
            Entry::Offset { offset, position },
            Some(Entry::Offset {
                offset: offset_before,
                position: position_before,
            }),
        ) if offset <= offset_before || position <= position_before => {
            return Some("not above the entry before it".into());
        }
        (
            Entry::Time { timestamp, offset },
            Some(Entry::Time {
                timestamp: timestamp_before,
                offset: offset_before,
            }),
        ) if timestamp < timestamp_before || offset < offset_before => {
            return Some("below the entry before it".into());
        }
        _ => {}
    }
    let batches = batches?;
    match entry {
        Entry::Offset { offset, position } => {
            let at = u64::try_from(*position).ok().and_then(|p| batches.get(&p));
            match at {
                None => Some(format!("no batch begins at position {position}")),
                Some((first, last, _)) if offset < first || offset > last => Some(format!(
                    "the batch at position {position} has offsets {first} to {last}"
                )),
                Some(_) => None,
            }
        }
        Entry::Time { timestamp, offset } => {
            let has = |(first, last, max): &(i64, i64, i64)| {
                first <= offset && offset <= last && max == timestamp
            };
            // A handful of entries against a sorted walk: a binary search by position
            // is of no use for offsets.
            (!batches.values().any(has)).then(|| {
                format!("no batch with offset {offset} has {timestamp} as its largest timestamp")
            })
        }
        Entry::Transaction { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::batch::BatchBuilder;
    use klamm_engine::codec::Codec;
    use klamm_engine::units::{Offset, TimestampMs};

    fn batch(base: i64, timestamp: i64) -> Vec<u8> {
        BatchBuilder::new(Codec::None)
            .base_offset(Offset(base))
            .record(TimestampMs(timestamp), None, Some(b"v"))
            .record(TimestampMs(timestamp), None, Some(b"w"))
            .finish()
    }

    fn damaged(kind: Kind, extension: &str, bytes: &[u8]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000000000000000100.log");
        std::fs::write(&path, [batch(100, 7), batch(102, 9)].concat()).unwrap();
        let path = path.with_extension(extension);
        std::fs::write(&path, bytes).unwrap();
        let mut report = Report {
            out: Box::new(std::io::sink()),
            json: true,
            damaged: false,
        };
        inspect(&path, kind, true, &mut report).unwrap();
        report.damaged
    }

    fn entry(relative: i32, position: i32) -> Vec<u8> {
        [relative.to_be_bytes(), position.to_be_bytes()].concat()
    }

    #[test]
    fn an_offset_index_is_held_against_its_log() {
        let second = batch(100, 7).len() as i32;
        let is = |bytes: &[u8]| damaged(Kind::Offset, "index", bytes);
        assert!(!is(&[]));
        assert!(!is(&entry(3, second)));
        assert!(!is(&[entry(1, 0), entry(3, second), vec![0; 80]].concat()));
        assert!(is(&entry(3, second + 1)), "no batch begins there");
        assert!(is(&entry(1, second)), "another batch has that offset");
        assert!(is(&[entry(3, second), entry(1, 0)].concat()), "order");
        assert!(is(&entry(3, second)[..7]), "no whole entry");
    }

    #[test]
    fn a_time_index_is_held_against_its_log() {
        let at = |timestamp: i64, relative: i32| {
            [
                timestamp.to_be_bytes().as_slice(),
                relative.to_be_bytes().as_slice(),
            ]
            .concat()
        };
        let is = |bytes: &[u8]| damaged(Kind::Time, "timeindex", bytes);
        assert!(!is(&[at(7, 1), at(9, 2)].concat()));
        assert!(is(&at(8, 1)));
        assert!(is(&[at(9, 2), at(7, 1)].concat()));
    }
}
