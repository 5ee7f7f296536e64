//! What a read gives: whole batches, as ranges of memory and files.
//!
//! ```text
//!   run       |------ one segment's batches, [from, to) ------|   offsets below `next`
//!   ranges    | File .................... | Memory | Memory   |
//! ```
//!
//! Ranges, not bytes: who sends them decides how. [`Slice::load`] copies them out, and
//! checks what came from a file: its CRCs, and that its offsets are those that the log
//! has there. A disk that lies is so found before a client is.

use crate::appender::Appender;
use crate::batch::{Batch, BatchHeader, HEADER_LEN};
use crate::error::Offline;
use crate::io::{File, Io};
use crate::segment::Segment;
use crate::tail::Chunk;
use crate::units::{BytePos, Offset};
use bytes::Bytes;
use std::rc::Rc;

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
        if let (Err(offline), Some(log)) = (&result, &self.log)
            && log.offline().is_none()
        {
            log::error!("{offline}; the partition is offline");
            log.latch(offline.clone());
        }
        result
    }

    async fn load_checked(&self) -> Result<Vec<Bytes>, Offline> {
        let mut parts = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            parts.push(load(range).await?);
        }
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

async fn load<I: Io>(range: &Range<I>) -> Result<Bytes, Offline> {
    let (segment, file, from, to) = match range {
        Range::Memory { chunk, from, to } => {
            return Ok(Bytes::copy_from_slice(chunk.slice(*from, *to)));
        }
        Range::File {
            segment,
            file,
            from,
            to,
        } => (segment, file, *from, *to),
    };
    let n = (to.0 - from.0) as usize;
    let read = file
        .read_at(from.0, n)
        .await
        .map_err(|e| Offline::failed("read", &segment.path, e))?;
    if read.len() < n {
        let at = from.plus(read.len() as u64);
        let what = "the file ends inside of committed records";
        return Err(Offline::corrupt(&segment.path, at, what));
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
