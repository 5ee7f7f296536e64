//! A segment: record batches end to end, and what is not one.
//!
//! ```text
//!   |batch|batch|batch| zeros ...        preallocated room: nothing is wrong
//!   |batch|batch|batc                    torn: a crash while it was written
//!   |batch|b?tch|batch|batch|            corrupt: whole batches stand behind it
//! ```
//!
//! Whether a bad place was ever acknowledged only the committed mark beside the log
//! can tell (Klamm's; Kafka has none).

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use klamm_engine::batch::{Batch, BatchError, BatchHeader, HEADER_LEN, TimestampType, is_zero};
use klamm_engine::mark::Mark;
use serde::Serialize;

use super::{Report, base_offset, changelog, unreadable};
use crate::datetime;
use crate::output::{Failure, Outcome, printable};

/// Read at a time.
const WINDOW: usize = 4 << 20;
/// What a batch may unpack to before it is called a bomb.
const UNPACKED_BYTES_MAX: usize = 1 << 30;
/// Of a key or a value, for people.
const SHOWN_CHARS: usize = 120;

#[derive(Clone, Copy, Debug, Default)]
pub struct Show {
    pub batches: bool,
    pub records: bool,
    pub commands: bool,
}

#[derive(Serialize)]
struct BatchLine {
    r#type: &'static str,
    position: u64,
    size: usize,
    base_offset: i64,
    last_offset: i64,
    records: i32,
    codec: &'static str,
    /// `ok` or `wrong`.
    crc: &'static str,
    leader_epoch: i32,
    max_timestamp: i64,
    timestamp_type: &'static str,
    producer_id: Option<i64>,
    producer_epoch: Option<i16>,
    base_sequence: Option<i32>,
    transactional: bool,
    control: bool,
}

const BATCH_HEADING: &str = "  POSITION      SIZE         BASE         LAST   COUNT  CODEC   \
                             CRC    EPOCH  MAX TIMESTAMP             PRODUCER";

impl fmt::Display for BatchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>10}{:>10}{:>13}{:>13}{:>8}  {:<8}{:<7}{:>5}  {:<24}",
            self.position,
            self.size,
            self.base_offset,
            self.last_offset,
            self.records,
            self.codec,
            self.crc,
            self.leader_epoch,
            datetime::format(self.max_timestamp),
        )?;
        match (self.producer_id, self.producer_epoch, self.base_sequence) {
            (Some(id), Some(epoch), Some(sequence)) => {
                write!(f, "  id {id} epoch {epoch} sequence {sequence}")?;
            }
            _ => write!(f, "  -")?,
        }
        for (is, word) in [
            (self.timestamp_type == "log_append", "log-append-time"),
            (self.transactional, "transactional"),
            (self.control, "control"),
        ] {
            if is {
                write!(f, " {word}")?;
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct HeaderLine {
    key: String,
    value: Option<String>,
}

#[derive(Serialize)]
struct RecordLine {
    r#type: &'static str,
    offset: i64,
    timestamp: i64,
    /// With U+FFFD for what is not UTF-8: to look at, not to copy.
    key: Option<String>,
    value: Option<String>,
    key_bytes: Option<usize>,
    value_bytes: Option<usize>,
    headers: Vec<HeaderLine>,
}

impl fmt::Display for RecordLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "    {} {} key={} value={}",
            self.offset,
            datetime::format(self.timestamp),
            shown(self.key.as_deref()),
            shown(self.value.as_deref()),
        )?;
        for h in &self.headers {
            write!(f, " {}={}", printable(&h.key), shown(h.value.as_deref()))?;
        }
        Ok(())
    }
}

fn shown(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "null".into();
    };
    let mut short: String = printable(&text.chars().take(SHOWN_CHARS).collect::<String>());
    if text.chars().nth(SHOWN_CHARS).is_some() {
        short.push_str("...");
    }
    format!("\"{short}\"")
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Zeros behind the last batch.
    Preallocated,
    /// The tail is no batch, and no whole one stands behind it.
    Torn,
    /// Whole batches stand behind a bad place, or it was committed.
    Corrupt,
}

impl Status {
    pub fn is_damage(self) -> bool {
        matches!(self, Status::Torn | Status::Corrupt)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Ok => "ok",
            Status::Preallocated => "ok, preallocated",
            Status::Torn => "TORN",
            Status::Corrupt => "CORRUPT",
        })
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    r#type: &'static str,
    pub file: String,
    pub status: Status,
    pub bytes: u64,
    /// Of whole batches from the front; what comes behind is no batch.
    pub valid_bytes: u64,
    pub batches: u64,
    pub records: u64,
    pub base_offset: Option<i64>,
    pub next_offset: Option<i64>,
    pub max_timestamp: Option<i64>,
    /// The first byte that is wrong.
    pub bad_byte: Option<u64>,
    pub why: Option<String>,
    /// Where the next whole batch begins, if one does.
    pub whole_again_at: Option<u64>,
    /// The bad byte is below the committed mark: it was synced, and acknowledged.
    pub below_committed: Option<bool>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {} batches, {} records, offsets ",
            self.file, self.status, self.batches, self.records
        )?;
        match (self.base_offset, self.next_offset) {
            (Some(base), Some(next)) if next > base => write!(f, "{base} to {}", next - 1)?,
            _ => write!(f, "none")?,
        }
        write!(f, ", {} of {} bytes", self.valid_bytes, self.bytes)?;
        if let (Some(byte), Some(why)) = (self.bad_byte, &self.why) {
            write!(f, "\n  byte {byte}: {why}")?;
            if let Some(again) = self.whole_again_at {
                write!(f, "; a whole batch begins again at byte {again}")?;
            }
            match self.below_committed {
                Some(true) => write!(
                    f,
                    "\n  this is below the committed mark: acknowledged records are damaged"
                )?,
                Some(false) => write!(
                    f,
                    "\n  this is above the committed mark: recovery decides by what stands behind it"
                )?,
                None => {}
            }
        }
        Ok(())
    }
}

/// Walks the file, says what is in it, and gives the summary (said, too).
pub fn inspect(path: &Path, show: Show, report: &mut Report) -> Result<Summary, Failure> {
    if show.batches {
        report.heading(&path.display().to_string())?;
        report.heading(BATCH_HEADING)?;
    }
    let mut damaged_records = None;
    let mut summary = walk(path, |position, batch, crc_ok| {
        if show.batches {
            report.say(&batch_line(position, batch, crc_ok))?;
        }
        if crc_ok && (show.records || show.commands) {
            say_records(position, batch, show.commands, report, &mut damaged_records)?;
        }
        Ok(())
    })?;
    if let (None, Some((position, why))) = (&summary.why, damaged_records) {
        summary.status = Status::Corrupt;
        summary.bad_byte = Some(position);
        summary.why = Some(why);
    }
    report.damaged |= summary.status.is_damage();
    report.say(&summary)?;
    Ok(summary)
}

fn batch_line(position: u64, batch: &Batch<'_>, crc_ok: bool) -> BatchLine {
    let idempotent = batch.has_producer_id();
    BatchLine {
        r#type: "batch",
        position,
        size: batch.size_in_bytes(),
        base_offset: batch.base_offset().0,
        last_offset: batch.last_offset().0,
        records: batch.record_count(),
        codec: batch.codec().name(),
        crc: if crc_ok { "ok" } else { "wrong" },
        leader_epoch: batch.leader_epoch().0,
        max_timestamp: batch.max_timestamp().0,
        timestamp_type: match batch.timestamp_type() {
            TimestampType::CreateTime => "create",
            TimestampType::LogAppendTime => "log_append",
        },
        producer_id: idempotent.then(|| batch.producer_id().0),
        producer_epoch: idempotent.then(|| batch.producer_epoch().0),
        base_sequence: idempotent.then(|| batch.base_sequence()),
        transactional: batch.is_transactional(),
        control: batch.is_control(),
    }
}

fn say_records(
    position: u64,
    batch: &Batch<'_>,
    commands: bool,
    report: &mut Report,
    damaged: &mut Option<(u64, String)>,
) -> Outcome {
    let mut wrong = |why: String| {
        damaged.get_or_insert((position, why));
    };
    let unpacked = match batch.records_unpacked(UNPACKED_BYTES_MAX) {
        Ok(unpacked) => unpacked,
        Err(e) => {
            wrong(e.to_string());
            return Ok(());
        }
    };
    for record in batch.records(&unpacked) {
        let record = match record {
            Ok(record) => record,
            Err(e) => {
                wrong(e.to_string());
                return Ok(());
            }
        };
        let offset = batch.offset_of(&record).0;
        if commands {
            let line = changelog::line(offset, record.value.unwrap_or_default());
            if let Some(why) = line.wrong() {
                wrong(format!(
                    "the record at offset {offset} is no command: {why}"
                ));
            }
            report.say(&line)?;
            continue;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        report.say(&RecordLine {
            r#type: "record",
            offset,
            timestamp: batch.timestamp_of(&record).0,
            key: record.key.map(text),
            value: record.value.map(text),
            key_bytes: record.key.map(<[u8]>::len),
            value_bytes: record.value.map(<[u8]>::len),
            headers: record
                .headers
                .map(|h| HeaderLine {
                    key: text(h.key),
                    value: h.value.map(text),
                })
                .collect(),
        })?;
    }
    Ok(())
}

/// Visits every batch whose structure holds, from the front; a wrong CRC does not stop
/// the walk, for the length in front of it is outside of the CRC.
pub fn walk(
    path: &Path,
    mut visit: impl FnMut(u64, &Batch<'_>, bool) -> Outcome,
) -> Result<Summary, Failure> {
    let failed = |e: std::io::Error| unreadable(path, &e);
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut window = Window {
        file,
        len,
        start: 0,
        bytes: Vec::new(),
    };
    let mut summary = Summary {
        r#type: "segment",
        file: path.display().to_string(),
        status: Status::Ok,
        bytes: len,
        valid_bytes: 0,
        batches: 0,
        records: 0,
        base_offset: base_offset(path),
        next_offset: base_offset(path),
        max_timestamp: None,
        bad_byte: None,
        why: None,
        whole_again_at: None,
        below_committed: None,
    };
    let mut position = 0;
    while position < len {
        let head = window.get(position, HEADER_LEN).map_err(failed)?;
        let size = match BatchHeader::parse(head) {
            Ok(header) => header.size_in_bytes(),
            Err(e) => {
                ends_badly(&mut summary, &mut window, position, reason(&e)).map_err(failed)?;
                break;
            }
        };
        // A length that a flipped bit made huge costs no more than the file has.
        let bytes = window.get(position, size).map_err(failed)?;
        let batch = match Batch::parse(bytes) {
            Ok(batch) => batch,
            Err(e) => {
                ends_badly(&mut summary, &mut window, position, reason(&e)).map_err(failed)?;
                break;
            }
        };
        let crc = batch.verify_crc();
        visit(position, &batch, crc.is_ok())?;
        let back = summary
            .next_offset
            .is_some_and(|next| batch.base_offset().0 < next);
        let why = match crc {
            Err(e) => Some(reason(&e)),
            Ok(()) if back => Some(format!(
                "offset {} does not follow {}",
                batch.base_offset(),
                summary.next_offset.unwrap_or_default() - 1
            )),
            Ok(()) => None,
        };
        match (why, summary.bad_byte) {
            (Some(why), None) => {
                // Corrupt as soon as something whole is found behind it.
                summary.status = Status::Torn;
                summary.bad_byte = Some(position);
                summary.why = Some(why);
            }
            (None, Some(_)) => {
                summary.status = Status::Corrupt;
                summary.whole_again_at.get_or_insert(position);
            }
            _ => {}
        }
        summary.batches += 1;
        summary.records += batch.record_count() as u64;
        summary.base_offset = summary.base_offset.or(Some(batch.base_offset().0));
        summary.next_offset = Some(batch.next_offset().0);
        let timestamp = Some(batch.max_timestamp().0).filter(|t| *t >= 0);
        summary.max_timestamp = summary.max_timestamp.max(timestamp);
        position += size as u64;
        if summary.bad_byte.is_none() {
            summary.valid_bytes = position;
        }
    }
    if let (Some(bad), Some(mark)) = (summary.bad_byte, mark_beside(path)) {
        summary.below_committed = match base_offset(path) {
            // A sealed segment was synced whole before its successor was made.
            Some(base) if base < mark.segment.0 => Some(true),
            Some(base) if base == mark.segment.0 => Some(bad < mark.pos.0),
            _ => None,
        };
        if summary.below_committed == Some(true) {
            summary.status = Status::Corrupt;
        }
    }
    Ok(summary)
}

/// An error in words, without its place: that is said in front of it.
fn reason(e: &BatchError) -> String {
    let said = e.to_string();
    match said.strip_prefix(&format!("batch at byte {}: ", e.at)) {
        Some(why) => why.to_string(),
        None => said,
    }
}

fn mark_beside(segment: &Path) -> Option<Mark> {
    let bytes = std::fs::read(segment.with_file_name(klamm_engine::mark::FILE_NAME)).ok()?;
    Mark::decode(&bytes)
}

/// The walk cannot go on at `position`: zeros, a torn tail, or damage?
fn ends_badly(
    summary: &mut Summary,
    window: &mut Window,
    position: u64,
    why: String,
) -> std::io::Result<()> {
    let mut zeros = true;
    let mut at = position;
    while zeros && at < window.len {
        let bytes = window.get(at, WINDOW)?;
        zeros = is_zero(bytes);
        at += bytes.len() as u64;
    }
    let again = if zeros {
        None
    } else {
        whole_behind(window, position + 1)?
    };
    if zeros {
        // Something further up may be wrong all the same.
        if summary.bad_byte.is_none() {
            summary.status = Status::Preallocated;
        }
        return Ok(());
    }
    if summary.bad_byte.is_none() {
        summary.status = Status::Torn;
        summary.bad_byte = Some(position);
        summary.why = Some(why);
    }
    if let Some(again) = again {
        summary.status = Status::Corrupt;
        summary.whole_again_at.get_or_insert(again);
    }
    Ok(())
}

/// The first byte from `from` on at which a whole batch with a right CRC begins.
fn whole_behind(window: &mut Window, from: u64) -> std::io::Result<Option<u64>> {
    let mut at = from;
    while at + HEADER_LEN as u64 <= window.len {
        let bytes = window.get(at, WINDOW)?.to_vec();
        let candidates = bytes.len().saturating_sub(HEADER_LEN - 1);
        for candidate in 0..candidates {
            // The magic byte rules nearly all of them out.
            if bytes[candidate + 16] != 2 {
                continue;
            }
            let Ok(header) = BatchHeader::parse(&bytes[candidate..]) else {
                continue;
            };
            let (position, size) = (at + candidate as u64, header.size_in_bytes());
            if position + size as u64 > window.len {
                continue;
            }
            let whole = window.get(position, size)?;
            if Batch::parse(whole).is_ok_and(|b| b.verify_crc().is_ok()) {
                return Ok(Some(position));
            }
        }
        if candidates == 0 {
            break;
        }
        at += candidates as u64;
    }
    Ok(None)
}

/// The file through a window that slides.
struct Window {
    file: File,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `n` bytes from `position`, fewer where the file ends.
    fn get(&mut self, position: u64, n: usize) -> std::io::Result<&[u8]> {
        let left = self.len.saturating_sub(position);
        let n = n.min(usize::try_from(left).unwrap_or(usize::MAX));
        let has =
            self.start <= position && position + n as u64 <= self.start + self.bytes.len() as u64;
        if !has {
            let want = n
                .max(WINDOW)
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.bytes.resize(want, 0);
            self.start = position;
            let mut have = 0;
            while have < want {
                match self
                    .file
                    .read_at(&mut self.bytes[have..], position + have as u64)
                {
                    // A running broker may cut the file meanwhile.
                    Ok(0) => break,
                    Ok(read) => have += read,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            self.bytes.truncate(have);
        }
        let from = (position - self.start) as usize;
        let to = (from + n).min(self.bytes.len());
        Ok(&self.bytes[from.min(to)..to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::batch::BatchBuilder;
    use klamm_engine::codec::Codec;
    use klamm_engine::units::{BytePos, Offset, TimestampMs};

    fn batch(base: i64) -> Vec<u8> {
        BatchBuilder::new(Codec::Lz4)
            .base_offset(Offset(base))
            .record(TimestampMs(1), Some(b"k"), Some(b"v"))
            .record(TimestampMs(2), Some(b"k"), Some(b"v"))
            .finish()
    }

    fn walked(bytes: &[u8]) -> (Summary, Vec<(u64, bool)>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000000000000000010.log");
        std::fs::write(&path, bytes).unwrap();
        let mut seen = Vec::new();
        let summary = walk(&path, |position, _, crc| {
            seen.push((position, crc));
            Ok(())
        })
        .unwrap();
        (summary, seen)
    }

    #[test]
    fn whole_batches_and_room_behind_them() {
        let mut bytes = [batch(10), batch(12)].concat();
        let (summary, seen) = walked(&bytes);
        assert_eq!(summary.status, Status::Ok);
        assert_eq!((summary.batches, summary.records), (2, 4));
        assert_eq!(summary.next_offset, Some(14));
        assert_eq!(seen, [(0, true), (batch(10).len() as u64, true)]);

        let valid = bytes.len() as u64;
        bytes.extend([0; 5000]);
        let (summary, _) = walked(&bytes);
        assert_eq!(summary.status, Status::Preallocated);
        assert_eq!(summary.valid_bytes, valid);
        assert_eq!(summary.bad_byte, None);
        assert_eq!(walked(&[]).0.status, Status::Ok);
    }

    #[test]
    fn a_torn_tail_is_said_with_its_byte() {
        let first = batch(10);
        let bytes = [first.clone(), batch(12)].concat();
        for cut in [1, 20, 60] {
            let (summary, _) = walked(&bytes[..bytes.len() - cut]);
            assert_eq!(summary.status, Status::Torn, "cut {cut}");
            assert_eq!(summary.bad_byte, Some(first.len() as u64));
            assert_eq!(summary.valid_bytes, first.len() as u64);
        }
        // In preallocated room the batch has its length, but not its bytes.
        let mut room = bytes.clone();
        room.truncate(bytes.len() - 20);
        room.extend([0; 4096]);
        let (summary, seen) = walked(&room);
        assert_eq!(summary.status, Status::Torn);
        assert_eq!(summary.bad_byte, Some(first.len() as u64));
        assert_eq!(seen[1], (first.len() as u64, false));
    }

    #[test]
    fn damage_in_the_middle_does_not_hide_what_is_behind() {
        let size = batch(10).len();
        let mut bytes = [batch(10), batch(12), batch(14)].concat();
        let good = bytes.clone();
        // In the records: the CRC tells, the walk goes on.
        bytes[2 * size - 1] ^= 1;
        let (summary, seen) = walked(&bytes);
        assert_eq!(summary.status, Status::Corrupt);
        assert_eq!(summary.bad_byte, Some(size as u64));
        assert_eq!(summary.valid_bytes, size as u64);
        assert_eq!(summary.whole_again_at, Some(2 * size as u64));
        assert_eq!(
            seen.iter().map(|(_, crc)| *crc).collect::<Vec<_>>(),
            [true, false, true]
        );
        // In the length: only a search finds the next one.
        let mut bytes = good;
        bytes[size + 8] = 0x7f;
        let (summary, _) = walked(&bytes);
        assert_eq!(summary.status, Status::Corrupt);
        assert_eq!(summary.whole_again_at, Some(2 * size as u64));
    }

    #[test]
    fn the_committed_mark_tells_rot_from_a_torn_write() {
        let size = batch(10).len() as u64;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000000000000000010.log");
        let mut bytes = [batch(10), batch(12)].concat();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        for (committed, below, status) in [
            (size, false, Status::Torn),
            (2 * size, true, Status::Corrupt),
        ] {
            let mut block = vec![0; klamm_engine::io::BLOCK];
            Mark {
                segment: Offset(10),
                pos: BytePos(committed),
                offset: Offset(12),
                window: 0,
            }
            .encode(&mut block);
            std::fs::write(folder.path().join("committed"), &block).unwrap();
            let summary = walk(&path, |_, _, _| Ok(())).unwrap();
            assert_eq!(summary.below_committed, Some(below));
            assert_eq!(summary.status, status);
        }
    }
}
