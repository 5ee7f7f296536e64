//! Finds the bytes of a range of offsets, without touching them where it can.
//!
//! ```text
//!   from ----> segment ----> sparse index ----> walk headers ----> start
//!   max bytes -------------> an index entry or the visible end ---> end
//!
//!   [start, end)  =  Range::File, then Range::Memory where the tail has it
//! ```
//!
//! A slice is whole batches, the first of which holds the offset asked for, or is the
//! first behind it where compaction has left a gap. It goes on into the next segment only
//! where it reached the end of the one before, so no record is ever skipped.
//!
//! Index files have no checksum. So an entry is believed once the batch at its position
//! was looked at: its last offset must be the entry's. Else the index is made anew from
//! the log, and what does not fit even then is damage of the log.

use crate::batch::{BatchError, BatchHeader, HEADER_LEN};
use crate::error::{Offline, ReadError};
use crate::index::SegmentBounds;
use crate::index_files;
use crate::io::{File, Io, Open};
use crate::partition::Partition;
use crate::segment::{Indexes, LogPosition, Segment};
use crate::slice::{self, Range, Slice};
use crate::units::{BytePos, Offset};
use std::cell::RefCell;
use std::rc::Rc;

pub use crate::lookup::RecordTime;

/// Bytes fetched to walk headers where the index leaves a gap: an index interval and
/// the first header behind it.
const WALK_BYTES: usize = 16 << 10;

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
        self.check_range(from)?;
        match self.slice(from, bytes_max, at_least_one).await {
            Ok(slice) => Ok(slice),
            // Where it is out of range retention was quicker, and took the files.
            Err(offline) => {
                self.check_range(from)?;
                Err(ReadError::Offline(self.found(offline).await))
            }
        }
    }

    /// What a reader has found, once it is known whether a sync that fails is why: such a
    /// one takes along what it was to sync, even where the journal has it too.
    pub(crate) async fn found(&self, offline: Offline) -> Offline {
        self.appender().sync_settled().await;
        match self.appender().offline() {
            Some(first) if !first.is_closed() => first,
            _ => self.noted(offline),
        }
    }

    fn check_range(&self, from: Offset) -> Result<(), ReadError> {
        let offsets = self.offsets();
        if from < offsets.log_start || from > offsets.log_end {
            return Err(ReadError::OutOfRange {
                asked: from,
                log_start: offsets.log_start,
                end: offsets.log_end,
            });
        }
        Ok(())
    }

    async fn slice(
        &self,
        from: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Slice<I>, Offline> {
        let visible = self.visible_end();
        let mut slice = Slice::of(self.appender().clone());
        let mut from = from;
        while from < visible.offset {
            let Some(segment) = self.segment_of(from) else {
                break;
            };
            let limit = self.limit(&segment, visible);
            if let Some(start) = self.locate(&segment, from, limit).await? {
                let left = bytes_max.saturating_sub(slice.bytes);
                let first = slice.is_empty() && at_least_one;
                let last = limit_offset(&segment, visible);
                let (end, next) = self
                    .cut(&segment, start, (limit, last), left, first)
                    .await?;
                if end > start {
                    let ranges = self.ranges(&segment, start, end).await?;
                    let bytes = (end.0 - start.0) as usize;
                    slice.push(&segment, start, bytes, ranges, next);
                }
                if end < limit {
                    break;
                }
            }
            if segment.base == visible.segment {
                break;
            }
            from = segment.end().offset;
        }
        Ok(slice)
    }

    /// Where a segment's visible bytes end.
    pub(crate) fn limit(&self, segment: &Segment<I>, visible: LogPosition) -> BytePos {
        if segment.base == visible.segment {
            visible.pos
        } else {
            segment.end().pos
        }
    }

    /// Where the batch begins that holds `offset`, or the first one behind it. None where
    /// the segment has neither below `limit`.
    pub(crate) async fn locate(
        &self,
        segment: &Rc<Segment<I>>,
        offset: Offset,
        limit: BytePos,
    ) -> Result<Option<BytePos>, Offline> {
        if offset <= segment.base {
            return Ok((limit > BytePos::ZERO).then_some(BytePos::ZERO));
        }
        if let Some(hint) = self.hints.find(segment.base, offset) {
            return Ok((hint < limit).then_some(hint));
        }
        let mut headers = Headers::new(self, segment, limit);
        let mut pos = self
            .index_floor(segment, offset, limit, &mut headers)
            .await?;
        let mut next = segment.base;
        while pos < limit {
            let header = headers.at(pos).await?;
            if header.base_offset() < next {
                let what = format!(
                    "offset {} stands where {next} or more belongs",
                    header.base_offset()
                );
                return Err(Offline::corrupt(&segment.path, pos, what));
            }
            if header.last_offset() >= offset {
                return Ok(Some(pos));
            }
            next = header.next_offset();
            pos = pos.plus(header.size_in_bytes() as u64);
        }
        Ok(None)
    }

    /// A batch's position from which a walk meets `offset`, by the index.
    async fn index_floor(
        &self,
        segment: &Rc<Segment<I>>,
        offset: Offset,
        limit: BytePos,
        headers: &mut Headers<'_, I>,
    ) -> Result<BytePos, Offline> {
        let indexes = self.indexes(segment).await?;
        let entry = indexes.borrow().offsets.lookup(offset);
        if self.is_entry(entry, limit, headers).await? {
            return Ok(entry.1);
        }
        self.make_indexes_anew(segment).await?;
        let indexes = self.indexes(segment).await?;
        let entry = indexes.borrow().offsets.lookup(offset);
        Ok(entry.1)
    }

    /// Whether an index entry is what the log says. Beyond `limit` is what was appended
    /// since, and indexed in this very memory.
    async fn is_entry(
        &self,
        (offset, pos): (Offset, BytePos),
        limit: BytePos,
        headers: &mut Headers<'_, I>,
    ) -> Result<bool, Offline> {
        if pos == BytePos::ZERO || pos >= limit {
            return Ok(true);
        }
        let header = headers.parse_at(pos).await?;
        Ok(header.is_ok_and(|header| header.last_offset() == offset))
    }

    /// Where to stop, so that whole batches fit, and the offset there.
    async fn cut(
        &self,
        segment: &Rc<Segment<I>>,
        start: BytePos,
        limit: (BytePos, Offset),
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<(BytePos, Offset), Offline> {
        let (limit, limit_offset) = limit;
        let fits = BytePos(start.0.saturating_add(bytes_max as u64));
        if limit <= fits {
            return Ok((limit, limit_offset));
        }
        // An index entry is where a batch begins, so the last one that fits is a whole
        // number of batches away; a finer cut would cost a walk.
        let mut headers = Headers::new(self, segment, limit);
        let mut entry = self.last_entry_within(segment, fits).await?;
        if let Some(found) = entry.filter(|e| e.1 > start)
            && !self.is_entry(found, limit, &mut headers).await?
        {
            self.make_indexes_anew(segment).await?;
            entry = self.last_entry_within(segment, fits).await?;
        }
        if let Some((_, position)) = entry.filter(|e| e.1 > start) {
            let next = headers.at(position).await?.base_offset();
            self.hints.note(segment.base, next, position);
            return Ok((position, next));
        }
        let mut end = start;
        loop {
            if end >= limit {
                return Ok((limit, limit_offset));
            }
            let header = headers.at(end).await?;
            let behind = end.plus(header.size_in_bytes() as u64);
            if behind > fits && !(at_least_one && end == start) {
                self.hints.note(segment.base, header.base_offset(), end);
                return Ok((end, header.base_offset()));
            }
            end = behind;
        }
    }

    async fn last_entry_within(
        &self,
        segment: &Rc<Segment<I>>,
        fits: BytePos,
    ) -> Result<Option<(Offset, BytePos)>, Offline> {
        let indexes = self.indexes(segment).await?;
        let entry = indexes.borrow().offsets.last_within(fits);
        Ok(entry)
    }

    /// The bytes of a segment from `start` to `end`, where they are to be had.
    pub(crate) async fn ranges(
        &self,
        segment: &Rc<Segment<I>>,
        start: BytePos,
        end: BytePos,
    ) -> Result<Vec<Range<I>>, Offline> {
        let mut ranges = Vec::new();
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
        Ok(ranges)
    }

    /// A segment's indexes: in memory, from their files, or made anew.
    pub(crate) async fn indexes(
        &self,
        segment: &Rc<Segment<I>>,
    ) -> Result<Rc<RefCell<Indexes>>, Offline> {
        if let Some(indexes) = segment.indexes() {
            return Ok(indexes);
        }
        let file = self.open_file(segment).await?;
        let read = index_files::read(&self.io, &self.dir, &file, bounds(segment)).await?;
        // Another reader may have been quicker; then its copy is the one.
        match (segment.indexes(), read) {
            (Some(indexes), _) => Ok(indexes),
            (None, Some(read)) => Ok(segment.set_indexes(read)),
            (None, None) => {
                self.make_indexes_anew(segment).await?;
                Ok(segment.indexes().expect("just made"))
            }
        }
    }

    /// Makes a segment's indexes from its visible batches, where an entry was found wrong.
    pub(crate) async fn make_indexes_anew(&self, segment: &Rc<Segment<I>>) -> Result<(), Offline> {
        log::warn!(
            "{}: its index does not fit it; it is made anew",
            segment.path.display()
        );
        let visible = self.visible_end();
        // It is read from the file, which may lack what the journal has.
        self.appender().place().await?;
        let file = self.open_file(segment).await?;
        let bounds = SegmentBounds {
            base_offset: segment.base,
            next_offset: limit_offset(segment, visible),
            end: self.limit(segment, visible),
        };
        let interval = self.config.borrow().index_interval_bytes;
        let mut made = index_files::rebuild(&self.io, &self.dir, &file, bounds, interval).await?;
        if let Some(before) = segment.indexes()
            && !segment.is_sealed()
        {
            // What was appended meanwhile was indexed in memory, from the batches.
            let before = before.borrow();
            made.offsets
                .extend_from(&before.offsets, bounds.next_offset);
            made.times.extend_from(&before.times, bounds.next_offset);
        }
        segment.replace_indexes(made);
        Ok(())
    }

    pub(crate) async fn open_file(&self, segment: &Rc<Segment<I>>) -> Result<Rc<I::File>, Offline> {
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

fn bounds<I: Io>(segment: &Segment<I>) -> SegmentBounds {
    let end = segment.end();
    SegmentBounds {
        base_offset: segment.base,
        next_offset: end.offset,
        end: end.pos,
    }
}

/// The offset where a segment's visible records end.
fn limit_offset<I: Io>(segment: &Segment<I>, visible: LogPosition) -> Offset {
    if segment.base == visible.segment {
        visible.offset
    } else {
        segment.end().offset
    }
}

/// Reads the headers of a segment one after another, from the tail or through a window
/// of the file.
pub(crate) struct Headers<'a, I: Io> {
    partition: &'a Partition<I>,
    segment: &'a Rc<Segment<I>>,
    limit: BytePos,
    window: Vec<u8>,
    window_start: BytePos,
}

impl<'a, I: Io> Headers<'a, I> {
    pub(crate) fn new(
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

    pub(crate) async fn at(&mut self, pos: BytePos) -> Result<BatchHeader, Offline> {
        let header = self.parse_at(pos).await?;
        header.map_err(|e| Offline::corrupt(&self.segment.path, pos, e.shifted(pos.0).to_string()))
    }

    /// The header at `pos`, where there may be none.
    async fn parse_at(&mut self, pos: BytePos) -> Result<Result<BatchHeader, BatchError>, Offline> {
        let bytes = self.bytes(pos).await?;
        Ok(BatchHeader::parse(bytes).copied())
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
                // What is behind it only the tail has.
                let placed = self.partition.appender().placed();
                let in_file = match placed.segment == self.segment.base && pos < placed.pos {
                    true => want.min(placed.pos),
                    false => want,
                };
                let file = self.partition.open_file(self.segment).await?;
                let n = (in_file.0 - pos.0) as usize;
                if self.read_cached(&file, pos, n).await {
                    return Ok(&self.window);
                }
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

    /// From the page cache, where the pages are there: a reader that catches up has them
    /// read ahead, and need not wait for the disk a second time.
    async fn read_cached(&mut self, file: &I::File, pos: BytePos, n: usize) -> bool {
        let settled = slice::settled(self.partition.appender(), self.segment);
        if pos.plus(n as u64) > settled {
            return false;
        }
        // An error is met again by the read of the disk, and told there.
        let Ok(Some(cached)) = file.cached().await else {
            return false;
        };
        for n in [n, n.min(HEADER_LEN)] {
            self.window.resize(n, 0);
            if cached.read_resident(pos.0, &mut self.window).is_some() {
                return true;
            }
        }
        self.window.clear();
        false
    }
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
