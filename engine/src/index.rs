//! Where in a segment an offset or a timestamp is, to within `index.interval.bytes`.
//!
//! ```text
//!   .log        | batch | batch | batch | batch | batch | batch | batch |
//!               |  more than 4,096 bytes  ^       4,096 bytes     ^
//!   .index                         (last offset, position)  (last offset, position)
//!   .timeindex                     (largest timestamp so far, an offset of its batch)
//! ```
//!
//! Both files are Kafka's own formats, big-endian and without a header:
//!
//! - `.index`, 8 bytes an entry: offset - base offset i32, position i32. The offset
//!   is the last of the batch that begins at the position; both rise strictly.
//! - `.timeindex`, 12 bytes: timestamp i64, offset - base offset i32. The timestamp
//!   is the largest up to there; the offset is of the first batch that has it. So no
//!   batch before it reaches the timestamp. Its last entry has the segment's largest.
//!
//! Neither file has a checksum, and adding one would make them ours alone. What can
//! be known of damage is what Kafka too asks: whole entries, in order, within the
//! segment. An index that fails it is built anew from the log; an index that passes
//! with a wrong entry inside makes a lookup that its caller must check: a read from a
//! position must find a batch there, and one not behind the offset asked for.
//!
//! Sources: `OffsetIndex.java`, `TimeIndex.java`, `LogSegment.java`.

#[cfg(test)]
mod tests;

use crate::batch::BatchHeader;
use crate::units::{BytePos, Offset, TimestampMs};
use std::fmt;
use zerocopy::byteorder::big_endian::{I32, I64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An entry as it is on disk; kept so in memory too, so that a file is one copy.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OffsetEntry {
    relative_offset: I32,
    position: I32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TimeEntry {
    timestamp: I64,
    relative_offset: I32,
}

const _: () = assert!(size_of::<OffsetEntry>() == 8);
const _: () = assert!(size_of::<TimeEntry>() == 12);

/// The segment that an index file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBounds {
    pub base_offset: Offset,
    /// Behind its last record.
    pub next_offset: Offset,
    /// Behind its last batch.
    pub end: BytePos,
}

impl SegmentBounds {
    /// An entry's offset, if the segment has it.
    fn offset(&self, relative: i32) -> Option<Offset> {
        let offset = self.base_offset.0.checked_add(i64::from(relative))?;
        (relative >= 0 && offset < self.next_offset.0).then_some(Offset(offset))
    }
}

/// An index file that does not fit its segment: build it anew from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexError {
    /// Counted from 0.
    pub entry: usize,
    pub fault: IndexFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFault {
    /// Bytes that make no whole entry.
    Size { bytes: usize, entry: usize },
    /// Not above the entry before it.
    Order,
    /// An offset that the segment does not have.
    Offset { relative: i32 },
    /// A position that the segment does not have.
    Position { is: i32 },
    /// A negative timestamp.
    Timestamp { is: i64 },
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index entry {}: ", self.entry)?;
        match self.fault {
            IndexFault::Size { bytes, entry } => {
                write!(f, "the file has {bytes} bytes, no multiple of {entry}")
            }
            IndexFault::Order => write!(f, "not above the entry before it"),
            IndexFault::Offset { relative } => {
                write!(f, "relative offset {relative} is outside of the segment")
            }
            IndexFault::Position { is } => write!(f, "position {is} is outside of the segment"),
            IndexFault::Timestamp { is } => write!(f, "timestamp {is} is negative"),
        }
    }
}

impl std::error::Error for IndexError {}

// -- by offset

/// `.index`.
#[derive(Clone, Debug, Default)]
pub struct OffsetIndex {
    base: Offset,
    entries: Vec<OffsetEntry>,
}

impl OffsetIndex {
    #[must_use]
    pub fn new(base: Offset) -> OffsetIndex {
        OffsetIndex {
            base,
            entries: Vec::new(),
        }
    }

    /// `offset` is one of the batch that begins at `position`.
    pub fn append(&mut self, offset: Offset, position: BytePos) {
        let entry = OffsetEntry {
            relative_offset: relative(self.base, offset).into(),
            position: i32::try_from(position.0)
                .expect("a segment is below 2 GiB")
                .into(),
        };
        if let Some(last) = self.entries.last() {
            assert!(last.rises_to(&entry), "{last:?} then {entry:?}");
        }
        self.entries.push(entry);
    }

    /// The last entry not above `offset`: reading from its position forward meets the
    /// batch with `offset`, if the segment has it. The segment's front where no entry
    /// is.
    #[must_use]
    pub fn lookup(&self, offset: Offset) -> (Offset, BytePos) {
        let above = self
            .entries
            .partition_point(|e| self.offset_of(e) <= offset);
        match self.entries[..above].last() {
            Some(entry) => (self.offset_of(entry), entry.position()),
            None => (self.base, BytePos::ZERO),
        }
    }

    /// The last entry that begins at or below `position`: a batch begins there.
    #[must_use]
    pub fn last_within(&self, position: BytePos) -> Option<(Offset, BytePos)> {
        let above = self.entries.partition_point(|e| e.position() <= position);
        self.entries[..above]
            .last()
            .map(|e| (self.offset_of(e), e.position()))
    }

    /// The first entry above `offset`: the batch with `offset` begins below its
    /// position, unless it is the same batch. Bounds a scan from above.
    #[must_use]
    pub fn upper_bound(&self, offset: Offset) -> Option<(Offset, BytePos)> {
        let above = self
            .entries
            .partition_point(|e| self.offset_of(e) <= offset);
        self.entries
            .get(above)
            .map(|entry| (self.offset_of(entry), entry.position()))
    }

    #[must_use]
    pub fn last(&self) -> Option<(Offset, BytePos)> {
        self.entries
            .last()
            .map(|entry| (self.offset_of(entry), entry.position()))
    }

    /// Drops the entries at `offset` and behind it.
    pub fn truncate_to(&mut self, offset: Offset) {
        let keep = self.entries.partition_point(|e| self.offset_of(e) < offset);
        self.entries.truncate(keep);
    }

    /// Adds the entries of another index of this segment, at `offset` and behind it.
    pub fn extend_from(&mut self, other: &OffsetIndex, offset: Offset) {
        let from = other
            .entries
            .partition_point(|e| other.offset_of(e) < offset);
        for entry in &other.entries[from..] {
            self.append(other.offset_of(entry), entry.position());
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.entries.as_bytes().to_vec()
    }

    /// Of any bytes; never panics.
    pub fn decode(bytes: &[u8], segment: SegmentBounds) -> Result<OffsetIndex, IndexError> {
        let entries = entries::<OffsetEntry>(bytes)?;
        check(entries, OffsetEntry::rises_to, |e| {
            let (relative, position) = (e.relative_offset.get(), e.position.get());
            if segment.offset(relative).is_none() {
                return Err(IndexFault::Offset { relative });
            }
            match u64::try_from(position) {
                Ok(at) if at < segment.end.0 => Ok(()),
                _ => Err(IndexFault::Position { is: position }),
            }
        })?;
        Ok(OffsetIndex {
            base: segment.base_offset,
            entries: entries.to_vec(),
        })
    }

    fn offset_of(&self, entry: &OffsetEntry) -> Offset {
        self.base.plus(i64::from(entry.relative_offset.get()))
    }
}

impl OffsetEntry {
    fn position(&self) -> BytePos {
        BytePos(u64::try_from(self.position.get()).expect("checked when it came in"))
    }

    fn rises_to(&self, next: &OffsetEntry) -> bool {
        self.relative_offset.get() < next.relative_offset.get()
            && self.position.get() < next.position.get()
    }
}

// -- by timestamp

/// `.timeindex`.
#[derive(Clone, Debug, Default)]
pub struct TimeIndex {
    base: Offset,
    entries: Vec<TimeEntry>,
}

impl TimeIndex {
    #[must_use]
    pub fn new(base: Offset) -> TimeIndex {
        TimeIndex {
            base,
            entries: Vec::new(),
        }
    }

    /// `timestamp` is the largest so far, and `offset` one of the first batch with
    /// it. No entry where the timestamp has not risen, or is none.
    pub fn maybe_append(&mut self, timestamp: TimestampMs, offset: Offset) {
        let last = self.last();
        if timestamp <= last.map_or(TimestampMs::NONE, |(t, _)| t) {
            return;
        }
        assert!(
            last.is_none_or(|(_, o)| o <= offset),
            "{last:?} then {timestamp}, {offset}"
        );
        let relative_offset = relative(self.base, offset).into();
        self.entries.push(TimeEntry {
            timestamp: timestamp.0.into(),
            relative_offset,
        });
    }

    /// Where a search for records at or after `target` starts: they all lie in the
    /// batch with this offset or behind it.
    #[must_use]
    pub fn lookup(&self, target: TimestampMs) -> Offset {
        self.floor(target).map_or(self.base, |(_, offset)| offset)
    }

    /// The last entry not above `target`.
    #[must_use]
    pub fn floor(&self, target: TimestampMs) -> Option<(TimestampMs, Offset)> {
        let above = self
            .entries
            .partition_point(|e| e.timestamp.get() <= target.0);
        let entry = self.entries[..above].last()?;
        Some((TimestampMs(entry.timestamp.get()), self.offset_of(entry)))
    }

    /// The last entry whose batch lies below `offset`, and so the largest timestamp up to
    /// there.
    #[must_use]
    pub fn last_below(&self, offset: Offset) -> Option<(TimestampMs, Offset)> {
        let above = self.entries.partition_point(|e| self.offset_of(e) < offset);
        let entry = self.entries[..above].last()?;
        Some((TimestampMs(entry.timestamp.get()), self.offset_of(entry)))
    }

    /// Adds the entries of another index of this segment, at `offset` and behind it.
    pub fn extend_from(&mut self, other: &TimeIndex, offset: Offset) {
        let from = other
            .entries
            .partition_point(|e| other.offset_of(e) < offset);
        for entry in &other.entries[from..] {
            self.maybe_append(TimestampMs(entry.timestamp.get()), other.offset_of(entry));
        }
    }

    /// The largest timestamp of a sealed segment, and an offset of its first batch.
    #[must_use]
    pub fn last(&self) -> Option<(TimestampMs, Offset)> {
        self.entries
            .last()
            .map(|e| (TimestampMs(e.timestamp.get()), self.offset_of(e)))
    }

    /// Drops the entries at `offset` and behind it.
    pub fn truncate_to(&mut self, offset: Offset) {
        let keep = self.entries.partition_point(|e| self.offset_of(e) < offset);
        self.entries.truncate(keep);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.entries.as_bytes().to_vec()
    }

    /// Of any bytes; never panics.
    pub fn decode(bytes: &[u8], segment: SegmentBounds) -> Result<TimeIndex, IndexError> {
        let entries = entries::<TimeEntry>(bytes)?;
        check(entries, TimeEntry::rises_to, |e| {
            let (timestamp, relative) = (e.timestamp.get(), e.relative_offset.get());
            if timestamp < 0 {
                return Err(IndexFault::Timestamp { is: timestamp });
            }
            match segment.offset(relative) {
                Some(_) => Ok(()),
                None => Err(IndexFault::Offset { relative }),
            }
        })?;
        Ok(TimeIndex {
            base: segment.base_offset,
            entries: entries.to_vec(),
        })
    }

    fn offset_of(&self, entry: &TimeEntry) -> Offset {
        self.base.plus(i64::from(entry.relative_offset.get()))
    }
}

impl TimeEntry {
    fn rises_to(&self, next: &TimeEntry) -> bool {
        self.timestamp.get() < next.timestamp.get()
            && self.relative_offset.get() <= next.relative_offset.get()
    }
}

// -- both, of one segment

/// The two indexes of one segment, fed with its batches as they are appended, or as a
/// rebuild reads them.
#[derive(Clone, Debug)]
pub struct SegmentIndexes {
    pub offsets: OffsetIndex,
    pub times: TimeIndex,
    /// `index.interval.bytes`.
    interval: usize,
    since_entry: usize,
    max_timestamp: TimestampMs,
    max_timestamp_offset: Offset,
}

impl SegmentIndexes {
    #[must_use]
    pub fn new(base: Offset, interval: usize) -> SegmentIndexes {
        SegmentIndexes {
            offsets: OffsetIndex::new(base),
            times: TimeIndex::new(base),
            interval,
            since_entry: 0,
            max_timestamp: TimestampMs::NONE,
            max_timestamp_offset: base,
        }
    }

    /// The files of a sealed segment.
    pub fn decode(
        offsets: &[u8],
        times: &[u8],
        segment: SegmentBounds,
        interval: usize,
    ) -> Result<SegmentIndexes, IndexError> {
        let mut indexes = SegmentIndexes::new(segment.base_offset, interval);
        indexes.offsets = OffsetIndex::decode(offsets, segment)?;
        indexes.times = TimeIndex::decode(times, segment)?;
        indexes.take_max_from_times();
        Ok(indexes)
    }

    /// A stamped batch, and where it begins. In order.
    pub fn on_batch(&mut self, batch: &BatchHeader, position: BytePos) {
        if batch.max_timestamp() > self.max_timestamp {
            self.max_timestamp = batch.max_timestamp();
            self.max_timestamp_offset = batch.last_offset();
        }
        if self.since_entry > self.interval {
            self.offsets.append(batch.last_offset(), position);
            self.times
                .maybe_append(self.max_timestamp, self.max_timestamp_offset);
            self.since_entry = 0;
        }
        self.since_entry += batch.size_in_bytes();
    }

    /// The segment takes no more: its largest timestamp becomes the last entry.
    pub fn seal(&mut self) {
        self.times
            .maybe_append(self.max_timestamp, self.max_timestamp_offset);
    }

    /// Where to read from to meet the batch with `offset`.
    #[must_use]
    pub fn position_of(&self, offset: Offset) -> BytePos {
        self.offsets.lookup(offset).1
    }

    /// Where to read from to meet the first record at or after `target`. None where no
    /// batch of the segment reaches it.
    #[must_use]
    pub fn position_at_or_after(&self, target: TimestampMs) -> Option<BytePos> {
        (target <= self.max_timestamp).then(|| self.position_of(self.times.lookup(target)))
    }

    /// The largest timestamp so far, -1: none, and an offset of the first batch that
    /// has it.
    #[must_use]
    pub fn max_timestamp(&self) -> (TimestampMs, Offset) {
        (self.max_timestamp, self.max_timestamp_offset)
    }

    /// The segment was cut: `offset` and all behind it are gone. The caller gives
    /// [`SegmentIndexes::on_batch`] the batches from the position returned up to the
    /// cut once more, since what lies between entries was not remembered.
    #[must_use]
    pub fn truncate_to(&mut self, offset: Offset) -> BytePos {
        self.offsets.truncate_to(offset);
        self.times.truncate_to(offset);
        self.since_entry = 0;
        self.take_max_from_times();
        self.offsets
            .last()
            .map_or(BytePos::ZERO, |(_, position)| position)
    }

    fn take_max_from_times(&mut self) {
        (self.max_timestamp, self.max_timestamp_offset) = self
            .times
            .last()
            .unwrap_or((TimestampMs::NONE, self.times.base));
    }
}

// -- entries

fn relative(base: Offset, offset: Offset) -> i32 {
    let relative = i32::try_from(offset.0 - base.0).expect("a segment rolls within 2^31 offsets");
    assert!(
        relative >= 0,
        "offset {offset} is below the segment's base {base}"
    );
    relative
}

fn entries<T: FromBytes + Immutable + KnownLayout + Unaligned>(
    bytes: &[u8],
) -> Result<&[T], IndexError> {
    let entry = size_of::<T>();
    <[T]>::ref_from_bytes(bytes).map_err(|_| IndexError {
        entry: bytes.len() / entry,
        fault: IndexFault::Size {
            bytes: bytes.len(),
            entry,
        },
    })
}

fn check<T>(
    entries: &[T],
    rises_to: impl Fn(&T, &T) -> bool,
    within: impl Fn(&T) -> Result<(), IndexFault>,
) -> Result<(), IndexError> {
    for (number, entry) in entries.iter().enumerate() {
        within(entry).map_err(|fault| IndexError {
            entry: number,
            fault,
        })?;
        if number > 0 && !rises_to(&entries[number - 1], entry) {
            return Err(IndexError {
                entry: number,
                fault: IndexFault::Order,
            });
        }
    }
    Ok(())
}
