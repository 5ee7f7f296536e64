//! What a read gives: whole batches, as ranges of memory and files.
//!
//! ```text
//!   run       |------ one segment's batches, [from, to) ------|   offsets below `next`
//!   ranges    | File .................... | Memory | Memory   |
//! ```
//!
//! Ranges, not bytes: who takes them decides how.
//!
//! - [`Slice::load`] copies them out, and checks what came from a file: its CRCs, and that
//!   its offsets are those that the log has there.
//! - [`Slice::pieces`] leaves them where they are, for a socket that sends from there.
//!   Nobody looks at the bytes on that way, as with Kafka: the CRC goes along, and the
//!   client checks it. What was found on the way to the range is checked (its first
//!   batch, and where it was cut); a disk that can't read the range is told of here, for
//!   its first megabyte, and by the sender after that.
//!
//! ```text
//!   open segment   |---- settled ----|~~ 1 MiB ~~|  placed, rewritten, preallocated
//!                    File pieces       loaded      Memory pieces where the tail has it
//! ```
//!
//! Only what is settled leaves by the page cache. The last block that is not full is
//! written again with each round, and behind it the file has reserved room; the kernel
//! reads ahead of the range that it is asked for, and pages that it caches there would
//! have to be thrown away by the very next write, which waits for that. So a distance is
//! kept that is more than it reads ahead as shipped.

use crate::appender::Appender;
use crate::batch::{Batch, BatchHeader, HEADER_LEN};
use crate::error::Offline;
use crate::io::page_cache::CachedFile;
use crate::io::{BLOCK, File, Io};
use crate::segment::Segment;
use crate::tail::Chunk;
use crate::units::{BytePos, Offset};
use bytes::Bytes;
use std::io::ErrorKind;
use std::rc::Rc;

/// How much of a file is brought into the page cache, and sent, at once. Enough that a
/// blocking thread is worth waking (some 20 µs) for what it reads (1 ms at 1 GB/s); little
/// enough that a slow reader's pages are not many.
pub const WINDOW_BYTES: u64 = 1 << 20;

/// What the kernel reads ahead as shipped is 128 KiB; with room for who raised it.
const UNSETTLED_BYTES: u64 = 1 << 20;

/// Whole batches, the first of which holds the offset that was asked for.
pub struct Slice<I: Io> {
    pub ranges: Vec<Range<I>>,
    pub bytes: usize,
    runs: Vec<Run<I>>,
    /// Where damage that is found is to be told.
    log: Option<Rc<Appender<I>>>,
}

impl<I: Io> Default for Slice<I> {
    fn default() -> Self {
        Slice {
            ranges: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
            log: None,
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

/// A part of a slice as a socket sends it.
pub enum Piece<I: Io> {
    Memory {
        chunk: Rc<Chunk<I>>,
        from: BytePos,
        to: BytePos,
    },
    File(FilePiece),
    /// Copied.
    Bytes(Bytes),
}

/// A part of a slice that is sent from the page cache. May go to another shard.
#[derive(Clone, Debug)]
pub struct FilePiece {
    pub file: CachedFile,
    pub from: u64,
    pub to: u64,
    /// How far the file may be read ahead.
    pub settled: u64,
}

/// The part of a slice that is of one segment.
struct Run<I: Io> {
    segment: Rc<Segment<I>>,
    from: BytePos,
    /// How many of the ranges it has.
    ranges: usize,
    /// Offsets end here at the latest.
    next: Offset,
}

impl<I: Io> Range<I> {
    pub fn is_file(&self) -> bool {
        matches!(self, Range::File { .. })
    }
}

impl<I: Io> Slice<I> {
    pub(crate) fn of(log: Rc<Appender<I>>) -> Slice<I> {
        Slice {
            log: Some(log),
            ..Slice::default()
        }
    }

    /// Adds batches of `segment` from `from` on; `next` is the offset behind them.
    pub(crate) fn push(
        &mut self,
        segment: &Rc<Segment<I>>,
        from: BytePos,
        bytes: usize,
        ranges: Vec<Range<I>>,
        next: Offset,
    ) {
        self.bytes += bytes;
        self.runs.push(Run {
            segment: segment.clone(),
            from,
            ranges: ranges.len(),
            next,
        });
        self.ranges.extend(ranges);
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes themselves, copied out of this shard's buffers: what may cross to
    /// another shard.
    pub async fn load(&self) -> Result<Vec<Bytes>, Offline> {
        let result = self.load_checked().await;
        self.noted(result).await
    }

    /// The ranges for a socket: memory where it is, settled parts of files as such, with
    /// the first window of each in the page cache. What else there is, is loaded.
    pub async fn pieces(&self, io: &I) -> Result<Vec<Piece<I>>, Offline> {
        let mut pieces = Vec::with_capacity(self.ranges.len() + 1);
        let mut first = 0;
        for run in &self.runs {
            let ranges = &self.ranges[first..first + run.ranges];
            let result = self.pieces_of(io, run, ranges, &mut pieces).await;
            self.noted(result).await?;
            first += run.ranges;
        }
        Ok(pieces)
    }

    async fn pieces_of(
        &self,
        io: &I,
        run: &Run<I>,
        ranges: &[Range<I>],
        pieces: &mut Vec<Piece<I>>,
    ) -> Result<(), Offline> {
        let settled = self.settled(&run.segment);
        let mut leaves_by_cache = false;
        let mut has_file = false;
        for range in ranges {
            if let Range::File { file, from, .. } = range {
                has_file = true;
                leaves_by_cache |= *from < settled && cached(run, file).await?.is_some();
            }
        }
        if has_file && !leaves_by_cache {
            let parts = load_all(ranges).await?;
            run.check(&parts)?;
            pieces.extend(parts.into_iter().map(Piece::Bytes));
            return Ok(());
        }
        for range in ranges {
            match range {
                Range::Memory { chunk, from, to } => pieces.push(Piece::Memory {
                    chunk: chunk.clone(),
                    from: *from,
                    to: *to,
                }),
                Range::File { file, from, to, .. } => {
                    let (from, to) = (*from, *to);
                    let until = to.min(settled).max(from);
                    if until > from
                        && let Some(cached) = cached(run, file).await?
                    {
                        let piece = FilePiece {
                            file: cached,
                            from: from.0,
                            to: until.0,
                            settled: settled.0,
                        };
                        piece.load_first(io, run).await?;
                        pieces.push(Piece::File(piece));
                    }
                    if until < to {
                        let rest = load_file(&run.segment, file, until, to).await?;
                        pieces.push(Piece::Bytes(rest));
                    }
                }
            }
        }
        Ok(())
    }

    /// Up to where a segment's file is neither written any more nor near to what is.
    fn settled(&self, segment: &Segment<I>) -> BytePos {
        self.log
            .as_ref()
            .map_or(BytePos::ZERO, |log| settled(log, segment))
    }

    async fn noted<T>(&self, result: Result<T, Offline>) -> Result<T, Offline> {
        let (Err(offline), Some(log)) = (&result, &self.log) else {
            return result;
        };
        // A sync that fails takes along what it was to sync, and the journal has it: who
        // reads it in that moment sees damage, and the sync is about to say why.
        log.sync_settled().await;
        match log.offline() {
            Some(first) => Err(first),
            None => {
                log::error!("{offline}; the partition is offline");
                log.latch(offline.clone());
                result
            }
        }
    }

    async fn load_checked(&self) -> Result<Vec<Bytes>, Offline> {
        let parts = load_all(&self.ranges).await?;
        let mut first = 0;
        for run in &self.runs {
            let ranges = &self.ranges[first..first + run.ranges];
            if ranges.iter().any(Range::is_file) {
                run.check(&parts[first..first + run.ranges])?;
            }
            first += run.ranges;
        }
        Ok(parts)
    }
}

/// Up to where a segment's file is neither written any more nor near to what is. A segment
/// with a successor is whole, and synced.
pub(crate) fn settled<I: Io>(log: &Appender<I>, segment: &Segment<I>) -> BytePos {
    if segment.base < log.open_base() {
        return segment.end().pos;
    }
    let placed = log.placed();
    if placed.segment != segment.base {
        return BytePos::ZERO;
    }
    let near = placed.pos.0.saturating_sub(UNSETTLED_BYTES);
    BytePos(near / BLOCK as u64 * BLOCK as u64)
}

async fn cached<I: Io>(run: &Run<I>, file: &I::File) -> Result<Option<CachedFile>, Offline> {
    let cached = file.cached().await;
    cached.map_err(|e| Offline::failed("open", &run.segment.path, e))
}

impl FilePiece {
    /// So that a disk that can't read is told of in the answer, and not after its begin.
    async fn load_first<I: Io>(&self, io: &I, run: &Run<I>) -> Result<(), Offline> {
        let window = self.from..self.to.min(self.from + WINDOW_BYTES);
        if self.file.is_resident(window.clone()) {
            return Ok(());
        }
        let loaded = io.load_pages(&self.file, window.clone()).await;
        loaded.map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => too_short(&run.segment, BytePos(window.start)),
            _ => Offline::failed("read", &run.segment.path, e),
        })
    }
}

fn too_short<I: Io>(segment: &Segment<I>, at: BytePos) -> Offline {
    let what = "the file ends inside of committed records";
    Offline::corrupt(&segment.path, at, what)
}

async fn load_all<I: Io>(ranges: &[Range<I>]) -> Result<Vec<Bytes>, Offline> {
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        parts.push(match range {
            Range::Memory { chunk, from, to } => Bytes::copy_from_slice(chunk.slice(*from, *to)),
            Range::File {
                segment,
                file,
                from,
                to,
            } => load_file(segment, file, *from, *to).await?,
        });
    }
    Ok(parts)
}

async fn load_file<I: Io>(
    segment: &Segment<I>,
    file: &I::File,
    from: BytePos,
    to: BytePos,
) -> Result<Bytes, Offline> {
    let n = (to.0 - from.0) as usize;
    let read = file
        .read_at(from.0, n)
        .await
        .map_err(|e| Offline::failed("read", &segment.path, e))?;
    if read.len() < n {
        return Err(too_short(segment, from.plus(read.len() as u64)));
    }
    Ok(Bytes::copy_from_slice(&read))
}

impl<I: Io> Run<I> {
    /// Every batch whole and as its CRC says, offsets rising and within the segment.
    fn check(&self, parts: &[Bytes]) -> Result<(), Offline> {
        let mut parts = parts.iter().map(|p| &p[..]);
        let mut rest: &[u8] = parts.next().unwrap_or_default();
        let mut pos = self.from;
        let mut next = self.segment.base;
        let mut joined = Vec::new();
        loop {
            while rest.is_empty() {
                match parts.next() {
                    Some(part) => rest = part,
                    None => return Ok(()),
                }
            }
            // A batch may lie across the border of two ranges: then it is put together.
            joined.clear();
            let size = loop {
                let head = if joined.is_empty() { rest } else { &joined[..] };
                let need = match BatchHeader::parse(head) {
                    Ok(header) => header.size_in_bytes(),
                    Err(_) => HEADER_LEN,
                };
                if head.len() >= need {
                    break need;
                }
                let Some(part) = parts.next() else { break need };
                if joined.is_empty() {
                    joined.extend_from_slice(rest);
                }
                joined.extend_from_slice(part);
                rest = part;
            };
            let bytes = if joined.is_empty() { rest } else { &joined[..] };
            let checked = Batch::parse(bytes).and_then(|b| b.verify_crc().map(|()| b));
            let batch = checked.map_err(|e| self.damage(pos, e.shifted(pos.0).to_string()))?;
            if batch.base_offset() < next || batch.next_offset() > self.next {
                let what = format!(
                    "offsets {} to {} stand where {next} to {} belong",
                    batch.base_offset(),
                    batch.last_offset(),
                    self.next.plus(-1),
                );
                return Err(self.damage(pos, what));
            }
            next = batch.next_offset();
            pos = pos.plus(size as u64);
            rest = if joined.is_empty() {
                &rest[size..]
            } else {
                &rest[rest.len() - (joined.len() - size)..]
            };
        }
    }

    fn damage(&self, pos: BytePos, what: String) -> Offline {
        Offline::corrupt(&self.segment.path, pos, what)
    }
}
