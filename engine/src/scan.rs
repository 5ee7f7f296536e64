//! Walks a segment's batches from the front, as bytes that may be anything.
//!
//! ```text
//!   |batch|batch|batch| ? ........ zeros        ? is where [`walk`] ends, with the fault
//!                     ^ [`valid_behind`] looks for batches that are whole further on
//! ```

use crate::batch::{Batch, BatchFault, BatchHeader, HEADER_LEN, is_zero};
use crate::error::Offline;
use crate::io::File;
use crate::units::{BytePos, Offset};
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

/// Bytes fetched at a time: large enough for the disk's full rate.
const WINDOW_BYTES: usize = 1 << 20;

/// Bytes fetched at first: most often all that there is to walk, behind a checkpoint.
const FIRST_BYTES: usize = 128 << 10;

/// So little is read again sooner than it is copied to the front of what is read next.
const AGAIN_BYTES_MAX: usize = 64 << 10;

/// How far a file goes.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    pub len: u64,
    /// From here on it is zeros, which need not be read ([`File::data_end`]).
    pub data_end: u64,
}

impl Reach {
    /// All of it may be data.
    pub fn of(len: u64) -> Reach {
        let data_end = len;
        Reach { len, data_end }
    }
}

/// A file read through a window that slides.
pub struct Window<F: File> {
    file: Rc<F>,
    path: Rc<Path>,
    reach: Reach,
    start: u64,
    bytes: Bytes<F>,
    step: usize,
    /// A step is twice the one before it, up to this.
    step_max: usize,
}

enum Bytes<F: File> {
    Read(F::Read),
    Own(Vec<u8>),
}

impl<F: File> Deref for Bytes<F> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Read(read) => read,
            Bytes::Own(bytes) => bytes,
        }
    }
}

impl<F: File> Window<F> {
    /// Reads `file`, `step` bytes ahead.
    pub fn new(file: Rc<F>, path: &Path, reach: Reach, step: usize) -> Window<F> {
        Window {
            file,
            path: path.into(),
            reach,
            start: 0,
            bytes: Bytes::Own(Vec::new()),
            step,
            step_max: step,
        }
    }

    /// One for [`walk`].
    pub fn to_walk(file: &Rc<F>, path: &Path, reach: Reach) -> Window<F> {
        let mut window = Window::new(file.clone(), path, reach, FIRST_BYTES);
        window.step_max = WINDOW_BYTES;
        window
    }

    /// `n` bytes from `pos`, fewer where the file ends.
    pub async fn get(&mut self, pos: u64, n: usize) -> Result<&[u8], Offline> {
        let left = self.reach.len.saturating_sub(pos);
        let n = n.min(usize::try_from(left).unwrap_or(usize::MAX));
        let has = self.start <= pos && pos + n as u64 <= self.start + self.bytes.len() as u64;
        if !has {
            self.slide(pos, n).await?;
        }
        let from = (pos - self.start) as usize;
        let to = (from + n).min(self.bytes.len());
        Ok(&self.bytes[from.min(to)..to])
    }

    async fn slide(&mut self, pos: u64, n: usize) -> Result<(), Offline> {
        let end = self.start + self.bytes.len() as u64;
        // A batch of a window's size begins somewhere inside of one: what is there already
        // is not read again.
        let kept = match self.start <= pos && pos < end {
            true if end - pos > AGAIN_BYTES_MAX as u64 => (end - pos) as usize,
            _ => 0,
        };
        let Reach { len, data_end } = self.reach;
        let want = (pos + n.max(self.step) as u64).min(len);
        let from = pos + kept as u64;
        let to = want.min(data_end).max(from);
        let mut read = None;
        if to > from {
            let bytes = self.file.read_at(from, (to - from) as usize).await;
            read = Some(bytes.map_err(|e| Offline::failed("read", &*self.path, e))?);
        }
        let got = read.as_ref().map_or(0, |read| read.len());
        let has = kept + got;
        let short = got < (to - from) as usize;
        self.bytes = match read {
            Some(read) if kept == 0 && (short || has >= n) => Bytes::Read(read),
            read => {
                let mut own = Vec::with_capacity(has.max(n));
                own.extend_from_slice(&self.bytes[self.bytes.len() - kept..]);
                own.extend_from_slice(read.as_deref().unwrap_or_default());
                if !short {
                    own.resize(has.max(n), 0);
                }
                Bytes::Own(own)
            }
        };
        self.start = pos;
        self.step = (self.step * 2).min(self.step_max);
        Ok(())
    }

    /// Whether there is nothing but zeros from `pos` on, as far as is known without reading.
    fn is_room(&self, pos: u64) -> bool {
        self.data_left(pos) == 0
    }

    /// How many bytes from `pos` on are not known to be zeros.
    fn data_left(&self, pos: u64) -> usize {
        let left = self.reach.data_end.saturating_sub(pos);
        usize::try_from(left).unwrap_or(usize::MAX)
    }
}

/// Where a walk ended, and why if it was not the file's end.
#[derive(Debug)]
pub struct WalkEnd {
    pub pos: BytePos,
    pub next: Offset,
    pub fault: Option<String>,
    /// Everything from `pos` on is zeros, or there is nothing.
    pub only_zeros: bool,
    /// The last batch that does not begin with the offset behind the one before it. Only
    /// compaction leaves such gaps, and we do not compact.
    pub gap: Option<BytePos>,
}

/// What a walk expects.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// The segment's base offset.
    pub base: Offset,
    pub pos: BytePos,
    /// The smallest offset that may come first.
    pub next: Offset,
    /// Where the offsets must have ended, if that is known.
    pub below: Option<Offset>,
}

/// Walks whole batches with a right CRC and rising offsets. The offsets are not under the
/// CRC, so a flipped one shows only where it leaves the order. Up to `len`, which is not
/// beyond the window's.
pub async fn walk<F: File>(
    window: &mut Window<F>,
    len: u64,
    from: Stretch,
    mut visit: impl FnMut(&BatchHeader, BytePos),
) -> Result<WalkEnd, Offline> {
    let (mut pos, mut next) = (from.pos.0, from.next);
    let mut gap = None;
    let fault = loop {
        if pos >= len {
            break None;
        }
        let size = match BatchHeader::parse(window.get(pos, HEADER_LEN).await?) {
            Ok(header) => header.size_in_bytes(),
            Err(e) => break Some(e),
        };
        let left = usize::try_from(len - pos).unwrap_or(usize::MAX);
        if size > left {
            let short = BatchFault::Short {
                need: size,
                have: left,
            };
            break Some(short.at(0));
        }
        let batch =
            Batch::parse(window.get(pos, size).await?).and_then(|b| b.verify_crc().map(|()| b));
        let batch = match batch {
            Ok(batch) => batch,
            Err(e) => break Some(e),
        };
        let header = batch.header();
        // Index entries have 31 bits for each.
        let beyond = header.last_offset().0 - from.base.0 > i64::from(i32::MAX)
            || pos + size as u64 > i32::MAX as u64
            || from.below.is_some_and(|below| header.next_offset() > below);
        if header.base_offset() < next || beyond {
            break Some(
                BatchFault::Field {
                    field: "baseOffset",
                    is: header.base_offset().0,
                }
                .at(0),
            );
        }
        if header.base_offset() > next {
            gap = Some(BytePos(pos));
        }
        visit(header, BytePos(pos));
        next = header.next_offset();
        pos += size as u64;
    };
    let mut only_zeros = true;
    let mut at = pos;
    while fault.is_some() && only_zeros && at < len && !window.is_room(at) {
        let bytes = window
            .get(at, window.data_left(at).min(WINDOW_BYTES))
            .await?;
        if bytes.is_empty() {
            break;
        }
        only_zeros = is_zero(bytes);
        at += bytes.len() as u64;
    }
    let fault = fault.map(|e| e.shifted(pos).to_string());
    Ok(WalkEnd {
        pos: BytePos(pos),
        next,
        fault,
        only_zeros,
        gap,
    })
}

/// Where the last whole batch behind `from` ends, at whatever byte it begins, if its
/// offset is `next` or more. A header may be gone, so every byte is tried.
pub async fn valid_behind<F: File>(
    file: &Rc<F>,
    path: &Path,
    reach: Reach,
    from: BytePos,
    next: Offset,
) -> Result<Option<BytePos>, Offline> {
    let len = reach.len;
    let mut window = Window::to_walk(file, path, reach);
    // A second window for the candidates, so that the search keeps its place.
    let mut candidate = Window::to_walk(file, path, reach);
    let mut found = None;
    let mut pos = from.0;
    // Zeros are no header.
    while pos + HEADER_LEN as u64 <= len && !window.is_room(pos) {
        // A header may end in the room.
        let n = window.data_left(pos).saturating_add(HEADER_LEN);
        let bytes = window.get(pos, n.min(WINDOW_BYTES)).await?;
        if bytes.len() < HEADER_LEN {
            break;
        }
        let mut at = 0;
        let mut hit = None;
        while at + HEADER_LEN <= bytes.len() {
            // Preallocated room is skipped a block at a time.
            if at + 4096 <= bytes.len() && is_zero(&bytes[at..at + 4096]) {
                at += 4096 - HEADER_LEN;
                continue;
            }
            if let Ok(header) = BatchHeader::parse(&bytes[at..])
                && header.base_offset() >= next
                && pos + at as u64 + header.size_in_bytes() as u64 <= len
            {
                hit = Some(header.size_in_bytes());
                break;
            }
            at += 1;
        }
        let at_pos = pos + at as u64;
        pos = match hit {
            Some(size) => {
                let whole = candidate.get(at_pos, size).await?;
                if Batch::parse(whole).is_ok_and(|b| b.verify_crc().is_ok()) {
                    found = Some(BytePos(at_pos + size as u64));
                    at_pos + size as u64
                } else {
                    at_pos + 1
                }
            }
            None => at_pos.max(pos + 1),
        };
    }
    Ok(found)
}
