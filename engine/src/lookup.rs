//! Finds records by their time (ListOffsets).
//!
//! ```text
//!   target --> the first segment that reaches it --> time index --> offset index
//!          --> the first batch whose maxTimestamp reaches it --> its first such record
//! ```
//!
//! maxTimestamp is right in what we stored uncompressed; of a packed batch it is the
//! producer's word, and where no record of it reaches the target the search goes on.

use crate::batch::{Batch, BatchError, TimestampType, UnpackError};
use crate::codec::CodecError;
use crate::error::{Offline, ReadError};
use crate::io::Io;
use crate::partition::Partition;
use crate::reader::Headers;
use crate::record::RecordError;
use crate::segment::{LogPosition, Segment};
use crate::slice::Slice;
use crate::units::{BytePos, LeaderEpoch, Offset, TimestampMs};
use std::rc::Rc;

/// A batch is unpacked to find a record by its time; what it may become is bounded.
const UNPACKED_BYTES_MAX: usize = 128 << 20;

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTime {
    pub timestamp: TimestampMs,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

impl<I: Io> Partition<I> {
    /// The first record at or behind `target` in time that is visible.
    pub async fn offset_at_or_after(
        &self,
        target: TimestampMs,
    ) -> Result<Option<RecordTime>, ReadError> {
        self.check_online()?;
        let visible = self.visible_end();
        for segment in self.all_segments() {
            if segment.base >= visible.offset {
                break;
            }
            if segment.largest_timestamp().0 < target || self.is_dropped(&segment) {
                continue;
            }
            match self.find_time_in(&segment, target, visible).await {
                Ok(None) => {}
                // Retention was quicker: what is left is in the next ones.
                Err(ReadError::Offline(_)) if self.is_dropped(&segment) => {}
                Ok(found) => return Ok(found),
                Err(error) => return Err(self.noted_read(error).await),
            }
        }
        Ok(None)
    }

    /// The visible record with the largest timestamp (ListOffsets, -3).
    pub async fn latest_timestamp(&self) -> Result<Option<RecordTime>, ReadError> {
        self.check_online()?;
        let visible = self.visible_end();
        let mut largest = TimestampMs::NONE;
        for segment in self.all_segments() {
            if segment.base >= visible.offset || self.is_dropped(&segment) {
                continue;
            }
            if segment.largest_timestamp().0 <= largest {
                continue;
            }
            match self.largest_in(&segment, visible).await {
                Ok(found) => largest = largest.max(found),
                Err(ReadError::Offline(_)) if self.is_dropped(&segment) => {}
                Err(error) => return Err(self.noted_read(error).await),
            }
        }
        match largest.0 {
            0.. => self.offset_at_or_after(largest).await,
            _ => Ok(None),
        }
    }

    async fn noted_read(&self, error: ReadError) -> ReadError {
        match error {
            ReadError::Offline(offline) => ReadError::Offline(self.found(offline).await),
            other => other,
        }
    }

    async fn find_time_in(
        &self,
        segment: &Rc<Segment<I>>,
        target: TimestampMs,
        visible: LogPosition,
    ) -> Result<Option<RecordTime>, ReadError> {
        let limit = self.limit(segment, visible);
        let log_start = self.offsets().log_start;
        let from = self.time_floor(segment, target, limit).await?;
        let from = from.max(log_start).max(segment.base);
        let Some(mut pos) = self.locate(segment, from, limit).await? else {
            return Ok(None);
        };
        let mut headers = Headers::new(self, segment, limit);
        while pos < limit {
            let header = headers.at(pos).await?;
            let next = pos.plus(header.size_in_bytes() as u64);
            if header.max_timestamp() >= target {
                let bytes = self.bytes(segment, pos, next, header.next_offset()).await?;
                let found = first_record_at(&bytes, target, log_start);
                if let Some(found) = found.map_err(|opaque| opaque.at(header.base_offset()))? {
                    return Ok(Some(found));
                }
            }
            pos = next;
        }
        Ok(None)
    }

    /// An offset below which no batch of the segment reaches `target`, by the time index,
    /// whose entry must be what the log says.
    async fn time_floor(
        &self,
        segment: &Rc<Segment<I>>,
        target: TimestampMs,
        limit: BytePos,
    ) -> Result<Offset, Offline> {
        for last_try in [false, true] {
            let indexes = self.indexes(segment).await?;
            let Some((timestamp, offset)) = indexes.borrow().times.floor(target) else {
                return Ok(segment.base);
            };
            // An entry of what is not visible yet was made in this very memory.
            let Some(pos) = self.locate(segment, offset, limit).await? else {
                return Ok(offset);
            };
            let header = Headers::new(self, segment, limit).at(pos).await?;
            if header.max_timestamp() == timestamp && header.base_offset() <= offset {
                return Ok(offset);
            }
            if last_try {
                let what = format!("the largest timestamp up to here is not {timestamp}");
                return Err(Offline::corrupt(&segment.path, pos, what));
            }
            self.make_indexes_anew(segment).await?;
        }
        unreachable!("the second try returns");
    }

    /// The largest timestamp of a segment's visible records; -1: none has one.
    async fn largest_in(
        &self,
        segment: &Rc<Segment<I>>,
        visible: LogPosition,
    ) -> Result<TimestampMs, ReadError> {
        let log_start = self.offsets().log_start;
        let (largest, at) = segment.largest_timestamp();
        let whole = segment.base >= log_start;
        if whole && at < visible.offset {
            return Ok(largest);
        }
        let limit = self.limit(segment, visible);
        let (mut largest, mut from) = (TimestampMs::NONE, log_start.max(segment.base));
        if whole {
            let indexes = self.indexes(segment).await?;
            if let Some((timestamp, offset)) = indexes.borrow().times.last_below(visible.offset) {
                (largest, from) = (timestamp, offset);
            }
        }
        let Some(mut pos) = self.locate(segment, from, limit).await? else {
            return Ok(largest);
        };
        let mut headers = Headers::new(self, segment, limit);
        while pos < limit {
            let header = headers.at(pos).await?;
            let next = pos.plus(header.size_in_bytes() as u64);
            let mut reaches = header.max_timestamp();
            if header.base_offset() < log_start {
                // Its largest may be of a record that was deleted.
                let bytes = self.bytes(segment, pos, next, header.next_offset()).await?;
                reaches = largest_record(&bytes, log_start)
                    .map_err(|opaque| opaque.at(header.base_offset()))?;
            }
            largest = largest.max(reaches);
            pos = next;
        }
        Ok(largest)
    }

    /// One batch, in one piece.
    async fn bytes(
        &self,
        segment: &Rc<Segment<I>>,
        from: BytePos,
        to: BytePos,
        next: Offset,
    ) -> Result<Vec<u8>, Offline> {
        let mut slice = Slice::default();
        let ranges = self.ranges(segment, from, to).await?;
        slice.push(segment, from, (to.0 - from.0) as usize, ranges, next);
        Ok(slice.load().await?.concat())
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

impl From<BatchError> for Opaque {
    fn from(error: BatchError) -> Opaque {
        Opaque::Undecodable(error.to_string())
    }
}

impl From<RecordError> for Opaque {
    fn from(error: RecordError) -> Opaque {
        Opaque::Undecodable(error.to_string())
    }
}

impl From<CodecError> for Opaque {
    fn from(error: CodecError) -> Opaque {
        match error {
            CodecError::TooLarge { .. } => Opaque::TooLarge(error.to_string()),
            CodecError::Corrupt { .. } => Opaque::Undecodable(error.to_string()),
        }
    }
}

impl From<UnpackError> for Opaque {
    fn from(error: UnpackError) -> Opaque {
        match error {
            UnpackError::Codec(error) => error.into(),
            UnpackError::Record(error) => error.into(),
        }
    }
}

/// The first record of a batch that is at or behind `target`, and not below `log_start`.
fn first_record_at(
    bytes: &[u8],
    target: TimestampMs,
    log_start: Offset,
) -> Result<Option<RecordTime>, Opaque> {
    let batch = Batch::parse(bytes)?;
    let found = if batch.base_offset() >= log_start {
        batch.first_at_or_after(target, UNPACKED_BYTES_MAX)?
    } else if batch.timestamp_type() == TimestampType::LogAppendTime {
        let reaches = batch.max_timestamp() >= target && batch.last_offset() >= log_start;
        reaches.then(|| (log_start, batch.max_timestamp()))
    } else {
        let mut found = None;
        each_record_from(&batch, log_start, |offset, timestamp| {
            if timestamp >= target && found.is_none() {
                found = Some((offset, timestamp));
            }
        })?;
        found
    };
    Ok(found.map(|(offset, timestamp)| RecordTime {
        timestamp,
        offset,
        leader_epoch: batch.leader_epoch(),
    }))
}

fn largest_record(bytes: &[u8], log_start: Offset) -> Result<TimestampMs, Opaque> {
    let batch = Batch::parse(bytes)?;
    let mut largest = TimestampMs::NONE;
    each_record_from(&batch, log_start, |_, timestamp| {
        largest = largest.max(timestamp);
    })?;
    Ok(largest)
}

fn each_record_from(
    batch: &Batch<'_>,
    log_start: Offset,
    mut visit: impl FnMut(Offset, TimestampMs),
) -> Result<(), Opaque> {
    let unpacked = batch.records_unpacked(UNPACKED_BYTES_MAX)?;
    for record in batch.records(&unpacked) {
        let record = record?;
        if batch.offset_of(&record) >= log_start {
            visit(batch.offset_of(&record), batch.timestamp_of(&record));
        }
    }
    Ok(())
}
