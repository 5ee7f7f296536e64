//! Finds the bytes of a range of offsets, without touching them where it can.
//!
//! ```text
//!   from ----> segment ----> sparse index ----> walk headers ----> start
//!   max bytes -------------> an index entry or the visible end ---> end
//!
//!   [start, end)  =  Range::File, then Range::Memory where the tail has it
//! ```
//!
//! A slice is whole batches, the first of which holds the offset asked for. It goes on
//! into the next segment only where it reached the end of the one before, so no record
//! is ever skipped. Ranges, not bytes: who sends them decides how (a copy today, a
//! sendfile later).

use crate::batch::{Batch, BatchHeader, HEADER_LEN};
use crate::codec::CodecError;
use crate::error::{Offline, ReadError};
use crate::io::{File, Io, Open};
use crate::partition::Partition;
use crate::recovery::{read_index_files, rebuild_indexes};
use crate::segment::{Indexes, LogPosition, Segment};
use crate::tail::Chunk;
use crate::units::{BytePos, LeaderEpoch, Offset, TimestampMs};
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;

/// Bytes fetched to walk headers where the index leaves a gap: an index interval and
/// the first header behind it.
const WALK_BYTES: usize = 16 << 10;

/// A batch is unpacked to find a record by its time; what it may become is bounded.
const UNPACKED_BYTES_MAX: usize = 128 << 20;

/// Whole batches, as ranges of memory and files.
pub struct Slice<I: Io> {
    pub ranges: Vec<Range<I>>,
    pub bytes: usize,
}

impl<I: Io> Default for Slice<I> {
    fn default() -> Self {
        Slice {
            ranges: Vec::new(),
            bytes: 0,
        }
    }
}

pub enum Range<I: Io> {
    /// A part of a chunk that the appender wrote.
    Memory {
        chunk: Rc<Chunk<I>>,
        from: BytePos,
        to: BytePos,
    },
    /// A part of a segment's file.
    File {
        segment: Rc<Segment<I>>,
        file: Rc<I::File>,
        from: BytePos,
        to: BytePos,
    },
}

impl<I: Io> Slice<I> {
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes themselves, copied out of this shard's buffers: what may cross to
    /// another shard.
    pub async fn load(&self) -> Result<Vec<Bytes>, Offline> {
        let mut parts = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            parts.push(match range {
                Range::Memory { chunk, from, to } => {
                    Bytes::copy_from_slice(chunk.slice(*from, *to))
                }
                Range::File {
                    segment,
                    file,
                    from,
                    to,
                } => {
                    let n = (to.0 - from.0) as usize;
                    let read = file
                        .read_at(from.0, n)
                        .await
                        .map_err(|e| Offline::failed("read", &segment.path, e))?;
                    if read.len() < n {
                        let at = from.plus(read.len() as u64);
                        return Err(Offline::corrupt(
                            &segment.path,
                            at,
                            "the file ends inside of committed records",
                        ));
                    }
                    Bytes::copy_from_slice(&read)
                }
            });
        }
        Ok(parts)
    }
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTime {
    pub timestamp: TimestampMs,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

impl<I: Io> Partition<I> {
    /// Whole batches from the one that holds `from`, up to the high watermark and to
    /// `bytes_max`. With `at_least_one` the first batch comes even where it is larger
    /// (KIP-74). Empty at the end; an error outside of the log.
    pub async fn read(
        &self,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Slice<I>, ReadError> {
        self.check_online()?;
        let offsets = self.offsets();
        if from < offsets.log_start || from > offsets.log_end {
            return Err(ReadError::OutOfRange {
                asked: from,
                log_start: offsets.log_start,
                end: offsets.log_end,
            });
        }
        let result = self.slice(from, bytes_max, at_least_one).await;
        result.map_err(|offline| ReadError::Offline(self.noted(offline)))
    }

    async fn slice(
        &self,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Slice<I>, Offline> {
        let visible = self.visible_end();
        let mut slice = Slice::default();
        let mut from = from;
        while from < visible.offset {
            let Some(segment) = self.segment_of(from) else {
                break;
            };
            let limit = if segment.base == visible.segment {
                visible.pos
            } else {
                segment.end().pos
            };
            let start = self.locate(&segment, from, limit).await?;
            let left = bytes_max.saturating_sub(slice.bytes);
            let first = slice.is_empty() && at_least_one;
            let end = self.cut(&segment, start, limit, left, first).await?;
            if end > start {
                slice.bytes += (end.0 - start.0) as usize;
                self.push_ranges(&mut slice.ranges, &segment, start, end)
                    .await?;
            }
            if end < limit || segment.base == visible.segment {
                break;
            }
            from = segment.end().offset;
        }
        Ok(slice)
    }

    /// Where the batch that holds `offset` begins.
    async fn locate(
        &self,
        segment: &Rc<Segment<I>>,
        offset: Offset,
        limit: BytePos,
    ) -> Result<BytePos, Offline> {
        if offset == segment.base {
            return Ok(BytePos::ZERO);
        }
        if let Some(hint) = self.hints.find(segment.base, offset) {
            return Ok(hint);
        }
        let indexes = self.indexes(segment).await?;
        let mut pos = indexes.borrow().offsets.lookup(offset).1;
        let mut headers = Headers::new(self, segment, limit);
        while pos < limit {
            let header = headers.at(pos).await?;
            if header.last_offset() >= offset {
                return Ok(pos);
            }
            pos = pos.plus(header.size_in_bytes() as u64);
        }
        Err(Offline::corrupt(
            &segment.path,
            pos,
            format!("offset {offset} was not found below byte {limit}"),
        ))
    }

    /// Where to stop, so that whole batches fit.
    async fn cut(
        &self,
        segment: &Rc<Segment<I>>,
        start: BytePos,
        limit: BytePos,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<BytePos, Offline> {
        let fits = start.plus(bytes_max as u64);
        if limit <= fits {
            return Ok(limit);
        }
        // An index entry is where a batch begins, so the last one that fits is a whole
        // number of batches away; a finer cut would cost a read.
        let indexes = self.indexes(segment).await?;
        let entry = indexes.borrow().offsets.last_within(fits);
        if let Some((offset, position)) = entry.filter(|e| e.1 > start) {
            self.hints.note(segment.base, offset, position);
            return Ok(position);
        }
        let mut headers = Headers::new(self, segment, limit);
        let mut end = start;
        while end < limit {
            let header = headers.at(end).await?;
            let next = end.plus(header.size_in_bytes() as u64);
            if next > fits && !(at_least_one && end == start) {
                break;
            }
            self.hints.note(segment.base, header.next_offset(), next);
            end = next;
        }
        Ok(end)
    }

    async fn push_ranges(
        &self,
        ranges: &mut Vec<Range<I>>,
        segment: &Rc<Segment<I>>,
        start: BytePos,
        end: BytePos,
    ) -> Result<(), Offline> {
        let mut pos = start;
        while pos < end {
            if let Some(chunk) = self.tail.at(segment.base, pos) {
                let to = chunk.end.min(end);
                ranges.push(Range::Memory {
                    chunk,
                    from: pos,
                    to,
                });
                pos = to;
                continue;
            }
            let tail_from = self.tail.begins(segment.base).filter(|&t| t > pos);
            let to = tail_from.map_or(end, |t| t.min(end));
            let file = self.open_file(segment).await?;
            ranges.push(Range::File {
                segment: segment.clone(),
                file,
                from: pos,
                to,
            });
            pos = to;
        }
        Ok(())
    }

    /// The first record at or behind `target` in time that is visible (ListOffsets).
    pub async fn offset_at_or_after(
        &self,
        target: TimestampMs,
    ) -> Result<Option<RecordTime>, ReadError> {
        self.check_online()?;
        let result = self.find_time(target).await;
        result.map_err(|e| match e {
            ReadError::Offline(offline) => ReadError::Offline(self.noted(offline)),
            other => other,
        })
    }

    /// The visible record with the largest timestamp (ListOffsets, -3).
    pub async fn latest_timestamp(&self) -> Result<Option<RecordTime>, ReadError> {
        let largest = self
            .all_segments()
            .iter()
            .map(|s| s.largest_timestamp().0)
            .max();
        match largest {
            // The largest may be of a record that is not visible yet; then the largest
            // visible one would need a scan, and the answer is that of a moment ago.
            Some(largest) if largest.0 >= 0 => self.offset_at_or_after(largest).await,
            _ => Ok(None),
        }
    }

    async fn find_time(&self, target: TimestampMs) -> Result<Option<RecordTime>, ReadError> {
        let visible = self.visible_end();
        let log_start = self.offsets().log_start;
        for segment in self.all_segments() {
            if segment.base >= visible.offset {
                break;
            }
            let ends_before_start = segment.is_sealed() && segment.end().offset <= log_start;
            if segment.largest_timestamp().0 < target || ends_before_start {
                continue;
            }
            if let Some(found) = self
                .find_time_in(&segment, target, visible, log_start)
                .await?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn find_time_in(
        &self,
        segment: &Rc<Segment<I>>,
        target: TimestampMs,
        visible: LogPosition,
        log_start: Offset,
    ) -> Result<Option<RecordTime>, ReadError> {
        let limit = if segment.base == visible.segment {
            visible.pos
        } else {
            segment.end().pos
        };
        let indexes = self.indexes(segment).await?;
        let mut pos = {
            let indexes = indexes.borrow();
            let from = indexes
                .times
                .lookup(target)
                .max(log_start)
                .max(segment.base);
            indexes.offsets.lookup(from).1
        };
        let mut headers = Headers::new(self, segment, limit);
        while pos < limit {
            let header = headers.at(pos).await?;
            let next = pos.plus(header.size_in_bytes() as u64);
            if header.max_timestamp() >= target && header.last_offset() >= log_start {
                let bytes = self.bytes(segment, pos, next).await?;
                let found = first_record_at(&bytes, target, log_start)
                    .map_err(|why| why.at(header.base_offset()))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            pos = next;
        }
        Ok(None)
    }

    /// The bytes of one range, in one piece.
    async fn bytes(
        &self,
        segment: &Rc<Segment<I>>,
        from: BytePos,
        to: BytePos,
    ) -> Result<Vec<u8>, Offline> {
        let mut slice = Slice {
            ranges: Vec::new(),
            bytes: (to.0 - from.0) as usize,
        };
        self.push_ranges(&mut slice.ranges, segment, from, to)
            .await?;
        Ok(slice.load().await?.concat())
    }

    /// A segment's indexes: in memory, from their files, or made anew.
    async fn indexes(&self, segment: &Rc<Segment<I>>) -> Result<Rc<RefCell<Indexes>>, Offline> {
        if let Some(indexes) = segment.indexes() {
            return Ok(indexes);
        }
        let len = segment.size_bytes();
        let read =
            match read_index_files(&self.io, &self.dir, segment.base, segment.end().offset, len)
                .await
            {
                Some(read) => read,
                None => {
                    let file = self.open_file(segment).await?;
                    let interval = self.config.borrow().index_interval_bytes;
                    rebuild_indexes(&self.io, &self.dir, segment.base, &file, len, interval).await?
                }
            };
        // Another reader may have been quicker; then its copy is the one.
        Ok(segment
            .indexes()
            .unwrap_or_else(|| segment.set_indexes(read)))
    }

    async fn open_file(&self, segment: &Rc<Segment<I>>) -> Result<Rc<I::File>, Offline> {
        if let Some(file) = segment.file() {
            return Ok(file);
        }
        let file = self
            .io
            .open(&segment.path, Open::Existing)
            .await
            .map_err(|e| Offline::failed("open", &segment.path, e))?;
        let file = Rc::new(file);
        if segment.file().is_none() {
            segment.set_file(file.clone());
        }
        Ok(file)
    }
}

/// Reads the headers of a segment one after another, from the tail or through a window
/// of the file.
struct Headers<'a, I: Io> {
    partition: &'a Partition<I>,
    segment: &'a Rc<Segment<I>>,
    limit: BytePos,
    window: Vec<u8>,
    window_start: BytePos,
}

impl<'a, I: Io> Headers<'a, I> {
    fn new(
        partition: &'a Partition<I>,
        segment: &'a Rc<Segment<I>>,
        limit: BytePos,
    ) -> Headers<'a, I> {
        Headers {
            partition,
            segment,
            limit,
            window: Vec::new(),
            window_start: BytePos::ZERO,
        }
    }

    async fn at(&mut self, pos: BytePos) -> Result<BatchHeader, Offline> {
        let bytes = self.bytes(pos).await?;
        match BatchHeader::parse(bytes) {
            Ok(header) => Ok(*header),
            Err(e) => Err(Offline::corrupt(
                &self.segment.path,
                pos,
                e.shifted(pos.0).to_string(),
            )),
        }
    }

    async fn bytes(&mut self, pos: BytePos) -> Result<&[u8], Offline> {
        let inside = |w: &[u8], start: BytePos| {
            start <= pos && pos.0 + HEADER_LEN as u64 <= start.0 + w.len() as u64
        };
        if !inside(&self.window, self.window_start) {
            self.window.clear();
            self.window_start = pos;
            let mut at = pos;
            let want = pos.plus(WALK_BYTES as u64).min(self.limit);
            // From the tail first: its chunks lie one behind another.
            while at < want
                && let Some(chunk) = self.partition.tail.at(self.segment.base, at)
            {
                let to = chunk.end.min(want);
                self.window.extend_from_slice(chunk.slice(at, to));
                at = to;
            }
            if self.window.len() < HEADER_LEN {
                let file = self.partition.open_file(self.segment).await?;
                let n = (want.0 - pos.0) as usize;
                let read = file
                    .read_at(pos.0, n)
                    .await
                    .map_err(|e| Offline::failed("read", &self.segment.path, e))?;
                self.window.clear();
                self.window.extend_from_slice(&read);
            }
        }
        let from = ((pos.0 - self.window_start.0) as usize).min(self.window.len());
        Ok(&self.window[from..])
    }
}

/// Why a batch's records can't be looked at.
enum Opaque {
    Undecodable(String),
    TooLarge(String),
}

impl Opaque {
    fn at(self, offset: Offset) -> ReadError {
        match self {
            Opaque::Undecodable(what) => ReadError::Undecodable { offset, what },
            Opaque::TooLarge(what) => ReadError::UnpacksTooLarge { offset, what },
        }
    }
}

/// The first record of a batch that is at or behind `target`, and not below `log_start`.
fn first_record_at(
    bytes: &[u8],
    target: TimestampMs,
    log_start: Offset,
) -> Result<Option<RecordTime>, Opaque> {
    let batch = Batch::parse(bytes).map_err(|e| Opaque::Undecodable(e.to_string()))?;
    let header = batch.header();
    let unpacked = batch
        .records_unpacked(UNPACKED_BYTES_MAX)
        .map_err(|e| match e {
            CodecError::TooLarge { .. } => Opaque::TooLarge(e.to_string()),
            CodecError::Corrupt { .. } => Opaque::Undecodable(e.to_string()),
        })?;
    for record in batch.records(&unpacked) {
        let record = record.map_err(|e| Opaque::Undecodable(e.to_string()))?;
        let timestamp = match header.timestamp_type() {
            crate::batch::TimestampType::LogAppendTime => header.max_timestamp(),
            crate::batch::TimestampType::CreateTime => TimestampMs(
                header
                    .base_timestamp()
                    .0
                    .saturating_add(record.timestamp_delta),
            ),
        };
        let offset = header.base_offset().plus(i64::from(record.offset_delta));
        if timestamp >= target && offset >= log_start {
            return Ok(Some(RecordTime {
                timestamp,
                offset,
                leader_epoch: header.leader_epoch(),
            }));
        }
    }
    Ok(None)
}

/// Where recent reads ended. A consumer asks next for exactly that offset, and then
/// needs neither the index nor a read of headers.
#[derive(Default)]
pub struct Hints {
    recent: RefCell<[Option<(Offset, Offset, BytePos)>; 16]>,
    next: std::cell::Cell<usize>,
}

impl Hints {
    fn find(&self, segment: Offset, offset: Offset) -> Option<BytePos> {
        let recent = self.recent.borrow();
        recent
            .iter()
            .flatten()
            .find(|h| h.0 == segment && h.1 == offset)
            .map(|h| h.2)
    }

    pub fn note(&self, segment: Offset, offset: Offset, pos: BytePos) {
        if self.find(segment, offset).is_some() {
            return;
        }
        let slot = self.next.get();
        self.recent.borrow_mut()[slot] = Some((segment, offset, pos));
        self.next.set((slot + 1) % 16);
    }
}
