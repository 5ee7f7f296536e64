//! A segment's index files: read, held against the log, made anew.
//!
//! They have no checksum (they are Kafka's format), so an entry is believed only once the
//! batch that it speaks of was looked at: a batch begins at the position, and the entry's
//! offset is its last one; a time entry's batch has the entry's timestamp. Of a file that
//! is opened only the last entries are looked at, of the others each one that is used
//! (reader.rs). What does not fit is made anew from the log.

use crate::batch::{BatchHeader, HEADER_LEN};
use crate::error::Offline;
use crate::index::{OffsetIndex, SegmentBounds, TimeIndex};
use crate::io::{File, Io};
use crate::scan::{Reach, Stretch, Window, walk};
use crate::segment::{Indexes, Segment, file_name};
use crate::units::{BytePos, Offset, TimestampMs};
use std::path::Path;
use std::rc::Rc;

/// Bytes fetched to look at a batch that an entry speaks of, and at those behind it.
const LOOK_BYTES: usize = 16 << 10;

/// The index files of a segment that is whole, if both are there and sound.
pub async fn read<I: Io>(
    io: &I,
    dir: &Path,
    file: &Rc<I::File>,
    bounds: SegmentBounds,
) -> Result<Option<Indexes>, Offline> {
    let base = bounds.base_offset;
    let read = async |extension| io.read_file(&dir.join(file_name(base, extension))).await;
    let (Ok(offsets), Ok(times)) = (read("index").await, read("timeindex").await) else {
        return Ok(None);
    };
    sound(dir, file, bounds, [&offsets, &times]).await
}

/// The indexes that two files' bytes are, if they are sound.
pub async fn sound<F: File>(
    dir: &Path,
    file: &Rc<F>,
    bounds: SegmentBounds,
    [offsets, times]: [&[u8]; 2],
) -> Result<Option<Indexes>, Offline> {
    let (Ok(offsets), Ok(times)) = (
        OffsetIndex::decode(offsets, bounds),
        TimeIndex::decode(times, bounds),
    ) else {
        return Ok(None);
    };
    let indexes = Indexes { offsets, times };
    let path = dir.join(file_name(bounds.base_offset, "log"));
    let reach = Reach::of(bounds.end.0);
    let mut window = Window::new(file.clone(), &path, reach, LOOK_BYTES);
    Ok(fits(&indexes, bounds, &mut window)
        .await?
        .then_some(indexes))
}

/// Whether the last entries are what the log says.
async fn fits<F: File>(
    indexes: &Indexes,
    bounds: SegmentBounds,
    window: &mut Window<F>,
) -> Result<bool, Offline> {
    if bounds.end == BytePos::ZERO {
        return Ok(indexes.offsets.is_empty() && indexes.times.is_empty());
    }
    // A segment with records has an entry for its first batch, and one for its times.
    let Some((offset, position)) = indexes.offsets.last() else {
        return Ok(false);
    };
    let at_last = header_at(window, position).await?;
    if at_last.is_none_or(|header| header.last_offset() != offset) {
        return Ok(false);
    }
    let Some((timestamp, offset)) = indexes.times.last() else {
        let first = header_at(window, BytePos::ZERO).await?;
        return Ok(first.is_some_and(|header| header.max_timestamp() < TimestampMs(0)));
    };
    let mut position = indexes.offsets.lookup(offset).1;
    while position < bounds.end {
        let Some(header) = header_at(window, position).await? else {
            return Ok(false);
        };
        if header.last_offset() >= offset {
            return Ok(header.base_offset() <= offset && header.max_timestamp() == timestamp);
        }
        position = position.plus(header.size_in_bytes() as u64);
    }
    Ok(false)
}

async fn header_at<F: File>(
    window: &mut Window<F>,
    position: BytePos,
) -> Result<Option<BatchHeader>, Offline> {
    let bytes = window.get(position.0, HEADER_LEN).await?;
    Ok(BatchHeader::parse(bytes).ok().copied())
}

/// Makes indexes from a segment's batches up to `end`, every one of which is checked.
pub async fn rebuild<I: Io>(
    io: &I,
    dir: &Path,
    file: &Rc<I::File>,
    bounds: SegmentBounds,
    index_interval_bytes: u64,
) -> Result<Indexes, Offline> {
    let segment = Segment::<I>::active(dir, bounds.base_offset);
    let now = io.wall();
    let stretch = Stretch {
        base: bounds.base_offset,
        pos: BytePos::ZERO,
        next: bounds.base_offset,
        below: Some(bounds.next_offset),
    };
    let mut window = Window::to_walk(file, &segment.path, Reach::of(bounds.end.0));
    let end = walk(&mut window, bounds.end.0, stretch, |header, _| {
        segment.extend(header, index_interval_bytes, now);
    })
    .await?;
    if let Some(fault) = end.fault {
        return Err(Offline::corrupt(&segment.path, end.pos, fault));
    }
    segment.seal();
    let indexes = segment.indexes().expect("an active segment has them");
    let indexes = indexes.borrow().clone();
    log::info!("{}: indexes made anew from the log", segment.path.display());
    Ok(indexes)
}

/// Writes both files. They can be made anew, so a full disk is no reason to go offline.
pub async fn save<I: Io>(io: &I, dir: &Path, base: Offset, indexes: &Indexes) {
    for (extension, bytes) in [
        ("index", indexes.offsets.encode()),
        ("timeindex", indexes.times.encode()),
    ] {
        let path = dir.join(file_name(base, extension));
        if let Err(e) = io.replace_file(&path, bytes).await {
            log::warn!(
                "could not write {}: {e}; it is made anew from the log at the next start",
                path.display()
            );
        }
    }
}
