//! A checkpoint: what spares recovery the front of an active segment.
//!
//! ```text
//!   active segment   |======= checkpoint.pos =======|== scanned after a kill ==|
//!                     its indexes, the producers' state at that very offset
//! ```
//!
//! After a kill the active segment is read and checked from its front, since its indexes
//! and the producers' state were in memory only: of a thousand partitions with 10 MB each
//! that is 10 GB. So now and then they are put into the folder, of an end that is synced.
//!
//! - A checkpoint is of committed bytes only, so it says all that a mark says (mark.rs),
//!   and recovery takes it for one where it is further on.
//! - It is believed where its own CRC is right, it is of this partition, and the segment's
//!   last block up to its position has the CRC-32C that it says; else the segment is scanned
//!   from its front, as without one. So a thousand checkpoints cost a thousand reads of one
//!   block, whatever the batches' size.
//! - It is not synced: after a power cut there may be an older one, or none, and more is
//!   scanned. A thousand synced ones a second would cost more than what they spare. Since
//!   there may also be what was in those blocks of the disk before, it says of which
//!   partition it is.
//!
//! What that block is there for. Everything below the position was committed: it was synced
//! in the segment, or in the journal, whose replay comes first. So where nobody meddled the
//! segment has it, and neither a kill nor a power cut takes it away. The block tells the
//! other cases:
//!
//! | the segment | the block | what follows |
//! |---|---|---|
//! | is shorter, or was replaced by one that is or that has other records | is not there, or is another | scanned from its front; what is missing below the position is damage |
//! | lacks what only a journal had that was moved away to give it up | is zeros, or an older one with fewer bytes | the same |
//! | has a bad bit in it | is another | the same: this block is written again with the next round, and would be bad for good |
//! | has a bad bit below it | is right | not found here but by who reads it, as anywhere in the front that a checkpoint spares |
//!
//! `klamm repair --give-up` removes the checkpoint with what it cuts, so no other records
//! come to stand where it ends.
//!
//! - It is taken when an eighth has come on top of what the last one covers, or, where that
//!   is less, 25 times the bytes that the last one took, or when a log has fallen idle. So
//!   checkpoints are 4 % more bytes to write at most: the indexes are some 0.5 % of a log of
//!   small batches, of which an eighth is 25 times that. Of a gigabyte in batches of 16 KiB
//!   they are 1.3 MB, so 32 MB may have to be scanned; in batches of 1 MiB, one or two.
//!
//! The file `checkpoint`, big-endian as the batches are:
//!
//! | at | field |
//! |---|---|
//! | 0 | magic "KLMCHKPT" |
//! | 8 | version u32 = 3; an older one is taken for none |
//! | 12 | CRC-32 (ISO-HDLC) of bytes 8 to 11 and of 16 to the end, u32 |
//! | 16 | segment base offset i64 |
//! | 24 | position in that segment u64, and the offset there i64 |
//! | 40 | largest timestamp i64, and its offset i64 |
//! | 56 | first timestamp i64 |
//! | 64 | topic id 16 bytes, partition i32 |
//! | 84 | CRC-32C of the segment's bytes from the begin of the last block to the position, u32 |
//! | 88 | three lengths u32: offset index, time index, producers |
//! | 100 | those three, as their own files have them |

use crate::appender::Appender;
use crate::crc;
use crate::error::Offline;
use crate::index::{OffsetIndex, SegmentBounds, TimeIndex};
use crate::io::{BLOCK, File, Io};
use crate::partition::Partition;
use crate::producer::ProducerState;
use crate::segment::{Indexes, LogPosition, Segment};
use crate::units::{BytePos, Offset, PartitionId, TimestampMs, TopicId};
use std::cell::Cell;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

pub const FILE_NAME: &str = "checkpoint";

const MAGIC: &[u8; 8] = b"KLMCHKPT";
const VERSION: u32 = 3;
const BODY_AT: usize = 16;
const ID_AT: usize = 64;
const LAST_BLOCK_AT: usize = 84;
const LENGTHS_AT: usize = 88;
const HEADER: usize = 100;

/// Less than this is scanned sooner than a checkpoint is written.
const IDLE_BYTES_MIN: u64 = 64 << 10;
/// A log that is being written waits for this much, or an eighth of what it has ...
const BUSY_BYTES_MIN: u64 = 512 << 10;
/// ... but not for more than this, or so many times the bytes of its last checkpoint.
const BUSY_BYTES_SOON: u64 = 1 << 20;
const BUSY_PER_CHECKPOINT: u64 = 25;

/// An active segment at a position up to which it is committed.
pub struct Checkpoint {
    pub id: PartitionId,
    pub end: LogPosition,
    /// CRC-32C of the segment's bytes in [`last_block`].
    pub last_block: u32,
    pub largest_timestamp: (TimestampMs, Offset),
    pub first_timestamp: TimestampMs,
    pub indexes: Indexes,
    pub producers: ProducerState,
}

impl Checkpoint {
    /// None where the bytes are no checkpoint, or one that is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let i64_at = |at: usize| i64::from_be_bytes(header[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        if &header[..8] != MAGIC || u32_at(8) != VERSION || u32_at(12) != checksum(bytes) {
            return None;
        }
        let mut rest = &bytes[HEADER..];
        let mut part = |n: usize| {
            let len = usize::try_from(u32_at(LENGTHS_AT + 4 * n)).ok()?;
            let (part, behind) = rest.split_at_checked(len)?;
            rest = behind;
            Some(part)
        };
        let (offsets, times, producers) = (part(0)?, part(1)?, part(2)?);
        let end = LogPosition {
            segment: Offset(i64_at(16)),
            pos: BytePos(u64::try_from(i64_at(24)).ok()?),
            offset: Offset(i64_at(32)),
        };
        if !(Offset::ZERO <= end.segment && end.segment <= end.offset) {
            return None;
        }
        let bounds = SegmentBounds {
            base_offset: end.segment,
            next_offset: end.offset,
            end: end.pos,
        };
        let producers = ProducerState::decode_snapshot(producers).ok()?;
        let whole = rest.is_empty() && producers.next_offset() == end.offset;
        let topic = header[ID_AT..ID_AT + 16].try_into().expect("16 bytes");
        let index = u32_at(ID_AT + 16).cast_signed();
        whole.then_some(Checkpoint {
            id: PartitionId {
                topic: TopicId(topic),
                index,
            },
            end,
            last_block: u32_at(LAST_BLOCK_AT),
            largest_timestamp: (TimestampMs(i64_at(40)), Offset(i64_at(48))),
            first_timestamp: TimestampMs(i64_at(56)),
            indexes: Indexes {
                offsets: OffsetIndex::decode(offsets, bounds).ok()?,
                times: TimeIndex::decode(times, bounds).ok()?,
            },
            producers,
        })
    }

    /// Whether bytes are the segment's [`last_block`].
    pub fn ends_with(&self, bytes: &[u8]) -> bool {
        let range = last_block(self.end.pos);
        bytes.len() as u64 == range.end - range.start && crc::castagnoli(bytes) == self.last_block
    }

    /// The segment as it was, to be taken up from there.
    pub fn segment<I: Io>(self, dir: &Path, now: TimestampMs) -> (Rc<Segment<I>>, ProducerState) {
        let LogPosition {
            segment: base,
            pos,
            offset,
        } = self.end;
        let segment = Segment::sealed(dir, base, pos.0, offset, self.largest_timestamp, now);
        segment.unseal(self.indexes, self.first_timestamp);
        (segment, self.producers)
    }
}

/// What a checkpoint up to `end` has the CRC of: the last block that has bytes before it, up
/// to there. Nothing only of an empty segment.
pub fn last_block(end: BytePos) -> Range<u64> {
    let block = BLOCK as u64;
    end.0.saturating_sub(1) / block * block..end.0
}

/// A checkpoint of a segment whose bytes end at the producers' offset; to be sealed.
fn encode<I: Io>(
    id: PartitionId,
    segment: &Segment<I>,
    producers: &ProducerState,
) -> Option<Vec<u8>> {
    let end = segment.end();
    assert_eq!(producers.next_offset(), end.offset, "one moment of one log");
    let indexes = segment.indexes()?;
    let parts = {
        let indexes = indexes.borrow();
        [
            indexes.offsets.encode(),
            indexes.times.encode(),
            producers.encode_snapshot(),
        ]
    };
    let (largest, largest_at) = segment.largest_timestamp();
    let mut out = Vec::with_capacity(HEADER + parts.iter().map(Vec::len).sum::<usize>());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&end.segment.0.to_be_bytes());
    out.extend_from_slice(&end.pos.0.to_be_bytes());
    for number in [
        end.offset.0,
        largest.0,
        largest_at.0,
        segment.first_timestamp().0,
    ] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&id.topic.0);
    out.extend_from_slice(&id.index.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    for part in &parts {
        out.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
    }
    assert_eq!(out.len(), HEADER, "as the table has it");
    for part in &parts {
        out.extend_from_slice(part);
    }
    Some(out)
}

/// Makes one whole: `last_block` is known only once its bytes are committed.
fn seal(checkpoint: &mut [u8], last_block: u32) {
    checkpoint[LAST_BLOCK_AT..LENGTHS_AT].copy_from_slice(&last_block.to_be_bytes());
    let crc = checksum(checkpoint);
    checkpoint[12..BODY_AT].copy_from_slice(&crc.to_be_bytes());
}

/// `bytes` has the header.
fn checksum(bytes: &[u8]) -> u32 {
    crc::iso_hdlc_of(&[&bytes[8..12], &bytes[BODY_AT..]])
}

/// How far a log's checkpoints have come.
#[derive(Default)]
pub struct Progress {
    /// The end of the last one, and how many bytes it has.
    taken: Cell<Option<(LogPosition, u64)>>,
    /// Where the log ended when it was last looked at.
    seen: Cell<Option<LogPosition>>,
}

impl From<Option<LogPosition>> for Progress {
    /// Of a log that was opened by a checkpoint up to there.
    fn from(taken: Option<LogPosition>) -> Progress {
        Progress {
            // Its size is known from the next one on.
            taken: Cell::new(taken.map(|end| (end, 0))),
            seen: Cell::new(None),
        }
    }
}

impl Progress {
    /// Whether a checkpoint is worth its writing now.
    fn is_due(&self, end: LogPosition) -> bool {
        let taken = self.taken.get();
        let (covered, bytes) = taken
            .filter(|(taken, _)| taken.segment == end.segment)
            .map_or((0, 0), |(taken, bytes)| (taken.pos.0, bytes));
        let open = end.pos.0 - covered;
        let idle = self.seen.replace(Some(end)) == Some(end);
        let soon = BUSY_BYTES_SOON.max(BUSY_PER_CHECKPOINT * bytes);
        let busy = (covered / 8).min(soon).max(BUSY_BYTES_MIN);
        open >= busy || (idle && open >= IDLE_BYTES_MIN)
    }
}

impl<I: Io> Partition<I> {
    /// Looks whether a checkpoint is due, and takes it. To be called now and then.
    pub async fn checkpoint_if_due(&self) -> Result<(), Offline> {
        if self.checkpoints.is_due(self.appender().dirty()) {
            return self.checkpoint().await;
        }
        Ok(())
    }

    /// Puts what recovery would have to scan for into the folder, as of now. Nothing is
    /// written where the topic's records are not synced: nobody knows how far they are
    /// committed.
    pub async fn checkpoint(&self) -> Result<(), Offline> {
        // Not beside a close or a removal of the folder, which wait for their turn too.
        let _turn = self.turn().await;
        self.check_online()?;
        if !self.config.borrow().acks_committed() {
            return Ok(());
        }
        let end = self.appender().dirty();
        let segment = self.segment_of(end.offset).filter(|s| s.end() == end);
        let Some((segment, mut bytes)) = segment.and_then(|segment| {
            let encoded = self.with_producers(|producers| encode(self.id, &segment, producers));
            Some((segment, encoded?))
        }) else {
            return Ok(());
        };
        committed(self.appender(), end.offset).await?;
        let Some(last_block) = self.crc_of_last_block(&segment, end.pos).await? else {
            return Ok(());
        };
        seal(&mut bytes, last_block);
        let len = bytes.len() as u64;
        let path = self.dir.join(FILE_NAME);
        let written = self.io.replace_file_unsynced(&path, bytes).await;
        written.map_err(|e| Offline::failed("write", &path, e))?;
        self.checkpoints.taken.set(Some((end, len)));
        Ok(())
    }

    /// Of a segment that is committed up to `end`. None where it was sealed meanwhile, and
    /// needs no checkpoint any more.
    async fn crc_of_last_block(
        &self,
        segment: &Segment<I>,
        end: BytePos,
    ) -> Result<Option<u32>, Offline> {
        let range = last_block(end);
        // What is not in the file yet is here.
        if let Some(chunk) = self.tail.at(segment.base, BytePos(range.start))
            && chunk.end >= end
        {
            let bytes = chunk.slice(BytePos(range.start), end);
            return Ok(Some(crc::castagnoli(bytes)));
        }
        let Some(file) = segment.file().filter(|_| !segment.is_sealed()) else {
            return Ok(None);
        };
        let len = (range.end - range.start) as usize;
        let read = file.read_at(range.start, len).await;
        let read = read.map_err(|e| Offline::failed("read", &segment.path, e))?;
        Ok((read.len() == len).then(|| crc::castagnoli(&read)))
    }
}

/// Resolves once everything below `upto` is committed.
async fn committed<I: Io>(appender: &Rc<Appender<I>>, upto: Offset) -> Result<(), Offline> {
    let progress = appender.progress.clone();
    progress
        .until(|| {
            if appender.committed().offset >= upto {
                return Some(Ok(()));
            }
            appender.offline().map(Err)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchHeader};
    use crate::codec::Codec;
    use crate::io::sim::SimIo;

    fn at(pos: u64) -> LogPosition {
        LogPosition {
            segment: Offset(0),
            pos: BytePos(pos),
            offset: Offset(pos as i64),
        }
    }

    #[test]
    fn it_is_due_by_what_it_spares_and_what_it_weighs() {
        let progress = Progress::default();
        assert!(!progress.is_due(at(70_000)), "it is being written");
        assert!(progress.is_due(at(70_000)), "and now it is idle");
        assert!(!Progress::default().is_due(at(1000)));
        assert!(Progress::default().is_due(at(BUSY_BYTES_MIN)));
        // Of small batches it takes half a percent: an eighth of what it covers.
        progress.taken.set(Some((at(100 << 20), 512 << 10)));
        assert!(!progress.is_due(at(112 << 20)));
        assert!(progress.is_due(at(113 << 20)));
        // Of large ones next to nothing.
        progress.taken.set(Some((at(100 << 20), 2048)));
        assert!(!progress.is_due(at((101 << 20) - 1)));
        assert!(progress.is_due(at(101 << 20)));
        progress.taken.set(Some((at(2 << 20), 2048)));
        assert!(progress.is_due(at((2 << 20) + BUSY_BYTES_MIN)));
        let next = LogPosition {
            segment: Offset(500 << 20),
            ..at(BUSY_BYTES_MIN)
        };
        assert!(progress.is_due(next), "another segment, nothing of it yet");
    }

    #[test]
    fn the_last_block_is_the_one_that_the_last_byte_is_in() {
        let range = |end| last_block(BytePos(end));
        assert_eq!(range(0), 0..0);
        assert_eq!(range(1), 0..1);
        assert_eq!(range(4096), 0..4096);
        assert_eq!(range(4097), 4096..4097);
        assert_eq!(range((1 << 20) + 8192), (1 << 20) + 4096..(1 << 20) + 8192);
    }

    /// A segment with one record at offset 40, and the producers' state there.
    fn one_record() -> (Rc<Segment<SimIo>>, ProducerState, PartitionId) {
        let mut bytes = BatchBuilder::new(Codec::None)
            .record(TimestampMs(77), None, Some(b"value"))
            .finish();
        bytes[..8].copy_from_slice(&40i64.to_be_bytes());
        let header = BatchHeader::parse(&bytes).unwrap();
        let segment = Segment::<SimIo>::active(Path::new("/log"), Offset(40));
        segment.extend(header, 0, TimestampMs(80));
        let mut producers = ProducerState::new(Offset(40));
        producers.apply(header);
        let id = PartitionId {
            topic: TopicId([7; 16]),
            index: 3,
        };
        (segment, producers, id)
    }

    #[test]
    fn a_checkpoint_comes_back_and_a_flipped_bit_makes_it_none() {
        let (segment, producers, id) = one_record();
        let mut encoded = encode(id, &segment, &producers).unwrap();
        assert!(Checkpoint::decode(&encoded).is_none(), "it is not sealed");
        seal(&mut encoded, 0xfeed_0102);
        let found = Checkpoint::decode(&encoded).unwrap();
        assert_eq!((found.id, found.end), (id, segment.end()));
        assert_eq!(found.last_block, 0xfeed_0102);
        let (again, state) = found.segment::<SimIo>(Path::new("/log"), TimestampMs(90));
        let mut same = encode(id, &again, &state).unwrap();
        seal(&mut same, 0xfeed_0102);
        assert_eq!(same, encoded);
        for byte in 0..encoded.len() {
            encoded[byte] ^= 4;
            assert!(Checkpoint::decode(&encoded).is_none(), "byte {byte}");
            encoded[byte] ^= 4;
            assert!(Checkpoint::decode(&encoded[..byte]).is_none());
        }
    }

    /// As format.md has it.
    #[test]
    fn its_bytes_are_these() {
        let (segment, producers, id) = one_record();
        let mut encoded = encode(id, &segment, &producers).unwrap();
        seal(&mut encoded, 0xfeed_0102);
        assert_eq!(hex(&encoded), GOLDEN.concat());
    }

    #[test]
    fn one_of_another_version_is_taken_for_none() {
        let (segment, producers, id) = one_record();
        let mut encoded = encode(id, &segment, &producers).unwrap();
        seal(&mut encoded, 0xfeed_0102);
        assert!(Checkpoint::decode(&encoded).is_some());
        for version in [0u32, 1, 2, 4] {
            encoded[8..12].copy_from_slice(&version.to_be_bytes());
            let crc = checksum(&encoded);
            encoded[12..16].copy_from_slice(&crc.to_be_bytes());
            assert!(Checkpoint::decode(&encoded).is_none(), "{version}");
        }
        // Version 2 had no CRC of the last block: all that is behind it came earlier.
        encoded.drain(LAST_BLOCK_AT..LENGTHS_AT);
        encoded[8..12].copy_from_slice(&2u32.to_be_bytes());
        let crc = checksum(&encoded);
        encoded[12..16].copy_from_slice(&crc.to_be_bytes());
        assert!(Checkpoint::decode(&encoded).is_none());
    }

    #[test]
    fn only_the_bytes_that_it_was_taken_of_are_its_last_block() {
        let (segment, producers, id) = one_record();
        let log: Vec<u8> = (0..segment.size_bytes()).map(|n| n as u8).collect();
        let mut encoded = encode(id, &segment, &producers).unwrap();
        seal(&mut encoded, crc::castagnoli(&log));
        let found = Checkpoint::decode(&encoded).unwrap();
        assert!(found.ends_with(&log));
        assert!(!found.ends_with(&log[..log.len() - 1]), "the file was cut");
        assert!(!found.ends_with(&vec![0; log.len()]), "it never came");
        for byte in 0..log.len() {
            let mut other = log.clone();
            other[byte] ^= 0x10;
            assert!(!found.ends_with(&other), "byte {byte}");
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    const GOLDEN: &[&str] = &[
        "4b4c4d43484b5054",
        "00000003",
        "323f4a80",
        "0000000000000028",
        "0000000000000049",
        "0000000000000029",
        "000000000000004d",
        "0000000000000028",
        "000000000000004d",
        "07070707070707070707070707070707",
        "00000003",
        "feed0102",
        "000000080000000c0000001c",
        "0000000000000000",
        "000000000000004d00000000",
        "4b4c4d50524f445300000001fdfcdfa5000000000000002900000000",
    ];
}
