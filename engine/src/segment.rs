//! One segment of a log: a file of record batches, and what is known of it.
//!
//! The name is the base offset in 20 digits, as Kafka names it, so that names sort as
//! offsets do. The newest segment is *active*: its indexes grow in memory. The others
//! are *sealed*: their length is final and their indexes are files, read when first
//! needed and let go again when idle.

use crate::batch::BatchHeader;
use crate::config::LogConfig;
use crate::index::{OffsetIndex, TimeIndex};
use crate::io::Io;
use crate::units::{BytePos, Offset, TimestampMs};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Where a batch begins, or where the bytes end: the same place said three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// Base offset of the segment.
    pub segment: Offset,
    pub pos: BytePos,
    /// The offset of the first record at or behind `pos`.
    pub offset: Offset,
}

/// A segment's sparse indexes, by offset and by time.
#[derive(Clone, Debug)]
pub struct Indexes {
    pub offsets: OffsetIndex,
    pub times: TimeIndex,
}

impl Indexes {
    pub fn new(base: Offset) -> Indexes {
        Indexes {
            offsets: OffsetIndex::new(base),
            times: TimeIndex::new(base),
        }
    }
}

pub struct Segment<I: Io> {
    pub base: Offset,
    pub path: PathBuf,
    /// Where its bytes end, dirty ones included.
    end: Cell<LogPosition>,
    /// Bytes since the last index entry; the first batch always gets one.
    unindexed_bytes: Cell<u64>,
    largest_timestamp: Cell<(TimestampMs, Offset)>,
    /// Rolling by time counts from the first batch's time to the next one's, as Kafka's
    /// does, so that old records put in late do not roll at each batch.
    first_timestamp: Cell<TimestampMs>,
    /// When records without timestamps count as written: of a segment that was found on
    /// disk, when it was found.
    written_at: Cell<TimestampMs>,
    sealed: Cell<bool>,
    /// The indexes were made anew, and their files are bad: see [`Segment::release_idle`].
    unsaved: Cell<bool>,
    indexes: RefCell<Option<Rc<RefCell<Indexes>>>>,
    file: RefCell<Option<Rc<I::File>>>,
    /// Producer state where the segment begins, to be written when its file is made.
    pub birth_snapshot: RefCell<Option<Vec<u8>>>,
}

impl<I: Io> Segment<I> {
    /// A segment without bytes, active, whose file need not exist yet.
    pub fn active(dir: &Path, base: Offset) -> Rc<Segment<I>> {
        Rc::new(Segment {
            base,
            path: dir.join(file_name(base, "log")),
            end: Cell::new(LogPosition {
                segment: base,
                pos: BytePos::ZERO,
                offset: base,
            }),
            unindexed_bytes: Cell::new(u64::MAX),
            largest_timestamp: Cell::new((TimestampMs::NONE, base)),
            first_timestamp: Cell::new(TimestampMs::NONE),
            written_at: Cell::new(TimestampMs::NONE),
            sealed: Cell::new(false),
            unsaved: Cell::new(false),
            indexes: RefCell::new(Some(Rc::new(RefCell::new(Indexes::new(base))))),
            file: RefCell::new(None),
            birth_snapshot: RefCell::new(None),
        })
    }

    /// A sealed segment of known length, its indexes still on disk.
    pub fn sealed(
        dir: &Path,
        base: Offset,
        bytes: u64,
        next: Offset,
        largest: (TimestampMs, Offset),
        now: TimestampMs,
    ) -> Rc<Segment<I>> {
        let segment = Segment::active(dir, base);
        segment.written_at.set(now);
        segment.end.set(LogPosition {
            segment: base,
            pos: BytePos(bytes),
            offset: next,
        });
        segment.largest_timestamp.set(largest);
        segment.sealed.set(true);
        *segment.indexes.borrow_mut() = None;
        segment
    }

    pub fn end(&self) -> LogPosition {
        self.end.get()
    }

    /// Its front.
    pub fn start(&self) -> LogPosition {
        LogPosition {
            segment: self.base,
            pos: BytePos::ZERO,
            offset: self.base,
        }
    }

    pub fn size_bytes(&self) -> u64 {
        self.end.get().pos.0
    }

    pub fn is_empty(&self) -> bool {
        self.size_bytes() == 0
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed.get()
    }

    /// The first batch's; NONE while there is none.
    pub fn first_timestamp(&self) -> TimestampMs {
        self.first_timestamp.get()
    }

    pub fn largest_timestamp(&self) -> (TimestampMs, Offset) {
        self.largest_timestamp.get()
    }

    /// What retention by time counts from.
    pub fn newest_record_at(&self) -> TimestampMs {
        match self.largest_timestamp.get().0 {
            largest if largest.0 >= 0 => largest,
            _ => self.written_at.get(),
        }
    }

    /// Whether a batch belongs in the next segment. `now` is the wall clock, which
    /// stands in for a batch without timestamps.
    pub fn must_roll_before(
        &self,
        batch: &BatchHeader,
        config: &LogConfig,
        now: TimestampMs,
    ) -> bool {
        if self.is_empty() {
            return false;
        }
        let bytes = batch.size_in_bytes();
        let last_offset = batch.last_offset();
        let end = self.end.get();
        // An index entry holds the offset relative to the base, and the position, in 31
        // bits each: that is Kafka's format.
        let index_full = last_offset.0 - self.base.0 > i64::from(i32::MAX)
            || end.pos.0 + bytes as u64 > i32::MAX as u64;
        let first = self.first_timestamp.get();
        let time = if batch.max_timestamp().0 >= 0 {
            batch.max_timestamp()
        } else {
            now
        };
        let too_old = first.0 >= 0
            && time.0.saturating_sub(first.0)
                > i64::try_from(config.segment_age_max.as_millis()).unwrap_or(i64::MAX);
        end.pos.0 + bytes as u64 > config.segment_bytes || index_full || too_old
    }

    /// Notes a batch that was put at the segment's end.
    pub fn extend(&self, header: &BatchHeader, index_interval_bytes: u64, now: TimestampMs) {
        assert!(!self.sealed.get(), "a sealed segment takes no batch");
        let end = self.end.get();
        assert!(header.base_offset() >= end.offset, "offsets rise");
        let size = header.size_in_bytes() as u64;
        self.written_at.set(now);
        let (mut largest, mut largest_at) = self.largest_timestamp.get();
        if header.max_timestamp() > largest {
            // Kafka notes the offset of the batch's last record: which record has the
            // largest timestamp is not in the header.
            (largest, largest_at) = (header.max_timestamp(), header.last_offset());
            self.largest_timestamp.set((largest, largest_at));
        }
        if self.first_timestamp.get() == TimestampMs::NONE {
            let first = if header.max_timestamp().0 >= 0 {
                header.max_timestamp()
            } else {
                now
            };
            self.first_timestamp.set(first);
        }
        if self.unindexed_bytes.get() >= index_interval_bytes
            && let Some(indexes) = &*self.indexes.borrow()
        {
            let mut indexes = indexes.borrow_mut();
            indexes.offsets.append(header.last_offset(), end.pos);
            indexes.times.maybe_append(largest, largest_at);
            self.unindexed_bytes.set(0);
        }
        self.unindexed_bytes
            .set(self.unindexed_bytes.get().saturating_add(size));
        self.end.set(LogPosition {
            segment: self.base,
            pos: end.pos.plus(size),
            offset: header.next_offset(),
        });
    }

    /// Makes the length final. The last time entry says the largest timestamp, so that
    /// a reader of the index alone knows it.
    pub fn seal(&self) {
        if let Some(indexes) = &*self.indexes.borrow() {
            let (largest, at) = self.largest_timestamp.get();
            if largest.0 >= 0 {
                indexes.borrow_mut().times.maybe_append(largest, at);
            }
        }
        self.sealed.set(true);
    }

    /// Takes up a segment again that a clean stop had closed, or a checkpoint describes.
    pub fn unseal(&self, indexes: Indexes, first_timestamp: TimestampMs) {
        *self.indexes.borrow_mut() = Some(Rc::new(RefCell::new(indexes)));
        self.first_timestamp.set(first_timestamp);
        // As if an entry had just been made: the next comes after a whole interval.
        self.unindexed_bytes.set(0);
        self.sealed.set(false);
    }

    pub fn indexes(&self) -> Option<Rc<RefCell<Indexes>>> {
        self.indexes.borrow().clone()
    }

    pub fn set_indexes(&self, indexes: Indexes) -> Rc<RefCell<Indexes>> {
        let indexes = Rc::new(RefCell::new(indexes));
        *self.indexes.borrow_mut() = Some(indexes.clone());
        indexes
    }

    pub fn file(&self) -> Option<Rc<I::File>> {
        self.file.borrow().clone()
    }

    pub fn set_file(&self, file: Rc<I::File>) {
        *self.file.borrow_mut() = Some(file);
    }

    /// Indexes made anew while others read from them. Files are not written here: the
    /// segment may be on its way out, and they would stay behind. The next start does it.
    pub fn replace_indexes(&self, indexes: Indexes) {
        match &*self.indexes.borrow() {
            Some(shared) => {
                *shared.borrow_mut() = indexes;
                self.unsaved.set(true);
                return;
            }
            None => self.unsaved.set(true),
        }
        self.set_indexes(indexes);
    }

    /// Lets go of a sealed segment's file and indexes that nobody is using. They come
    /// back at the next read.
    pub fn release_idle(&self) {
        if !self.sealed.get() {
            return;
        }
        self.file
            .borrow_mut()
            .take_if(|file| Rc::strong_count(file) == 1);
        if !self.unsaved.get() {
            self.indexes
                .borrow_mut()
                .take_if(|indexes| Rc::strong_count(indexes) == 1);
        }
    }
}

/// `00000000000000000042.log`
pub fn file_name(base: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", base.0)
}

/// The base offset in a file's name, if the name has that shape.
pub fn parse_file_name(name: &str, extension: &str) -> Option<Offset> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(file_name(Offset(42), "log"), "00000000000000000042.log");
        assert_eq!(
            parse_file_name("00000000000000000042.log", "log"),
            Some(Offset(42))
        );
        for bad in [
            "42.log",
            "00000000000000000042.index",
            "0000000000000000004x.log",
            "00000000000000000042log",
            "99999999999999999999.log",
        ] {
            assert_eq!(parse_file_name(bad, "log"), None, "{bad}");
        }
    }
}
