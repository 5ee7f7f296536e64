//! The groups of a journal's file, read from its front to its end.
//!
//! ```text
//!   file    |head| group | group | group | torn, or older ones ....|
//!                  [ one buffer, which moves on ][ reads ahead ]
//! ```
//!
//! A file may have 128 MiB, and each page of fresh memory costs a start as much as reading
//! what is put there. So all of a file goes through one buffer, and what is known of an entry
//! is where it belongs and where its bytes are. What of them a segment lacks is fetched later.

use super::{Held, Missing, damaged};
use crate::crc;
use crate::error::Offline;
use crate::io::{BLOCK, File, Io};
use crate::journal::layout::{self, Found, GROUP_HEAD_BYTES, Place, decode_group, group_bytes};
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use std::io::Result as IoResult;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

/// Bytes of one read, and how many reads are under way.
const STEP_BYTES: usize = 512 << 10;
const READS_AHEAD: usize = 4;

/// Where an entry's bytes are in its file.
#[derive(Clone, Copy, Debug)]
pub struct EntryBytes {
    pub at: u64,
    pub len: usize,
    pub crc: u32,
}

/// Gives the entries of a file's groups to `take`, in order. `groups`: how many there must
/// be, where that is known.
pub async fn read<I: Io>(
    held: &Held<I>,
    groups: Option<u64>,
    mut take: impl FnMut(Place, EntryBytes),
) -> Result<(), Offline> {
    let Held {
        path, file, header, ..
    } = held;
    let len = file.len().await;
    let len = len.map_err(|e| Offline::failed("measure", path, e))?;
    let mut ahead = Ahead::new(file, path, 0..len);
    let (mut at, mut number) = (BLOCK as u64, 0);
    loop {
        if let (Found::Whole(group), is) = group_at(&mut ahead, at, header.generation).await?
            && is == number
        {
            for entry in group.entries {
                let bytes = EntryBytes {
                    at: at + entry.bytes.start as u64,
                    len: entry.bytes.len(),
                    crc: entry.crc,
                };
                take(entry.place, bytes);
            }
            at += layout::group_room(group.len) as u64;
            number += 1;
            continue;
        }
        if groups.is_some_and(|groups| number < groups) {
            let what = format!(
                "its groups end with number {number}, and a file that was written later says that there were more"
            );
            return Err(damaged(path, at, &what));
        }
        // A group is written once the one before it was synced.
        let mut behind = at + BLOCK as u64;
        while behind < len {
            let (found, is) = group_at(&mut ahead, behind, header.generation).await?;
            if !matches!(found, Found::Nothing) && is > number {
                let what = format!(
                    "group {number} is not whole, and group {is}, at byte {behind}, was written after it was synced"
                );
                return Err(damaged(path, at, &what));
            }
            behind += BLOCK as u64;
        }
        return Ok(());
    }
}

async fn group_at<F: File>(
    ahead: &mut Ahead<'_, F>,
    at: u64,
    generation: u64,
) -> Result<(Found, u64), Offline> {
    let head = ahead.get(at, GROUP_HEAD_BYTES).await?;
    let Some(len) = group_bytes(head, generation) else {
        return Ok((Found::Nothing, 0));
    };
    Ok(decode_group(ahead.get(at, len).await?, 0, generation))
}

/// Fetches what is missing, which is of this file and in its order, and gives each its bytes.
pub async fn fetch<I: Io>(
    held: &Held<I>,
    missing: &[Missing],
    mut give: impl FnMut(&Missing, &[u8]),
) -> Result<(), Offline> {
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
        return Ok(());
    };
    let range = first.bytes.at..last.bytes.at + last.bytes.len as u64;
    let mut ahead = Ahead::new(&held.file, &held.path, range);
    for one in missing {
        let EntryBytes { at, len, crc } = one.bytes;
        let bytes = ahead.get(at, len).await?;
        if crc::iso_hdlc(bytes) != crc {
            let what = "the bytes of an entry were whole, and now they are not";
            return Err(damaged(&held.path, at, what));
        }
        give(one, bytes);
    }
    Ok(())
}

/// A file that is read on and on.
struct Ahead<'a, F: File> {
    path: &'a Path,
    steps: LocalBoxStream<'a, IoResult<F::Read>>,
    /// The bytes from `start` on, as far as they were read and may be asked for.
    bytes: Vec<u8>,
    start: u64,
}

impl<'a, F: File> Ahead<'a, F> {
    fn new(file: &'a Rc<F>, path: &'a Path, range: Range<u64>) -> Ahead<'a, F> {
        let start = range.start / BLOCK as u64 * BLOCK as u64;
        let steps = (start..range.end).step_by(STEP_BYTES);
        let steps = stream::iter(steps).map(move |at| {
            let len = (range.end - at).min(STEP_BYTES as u64) as usize;
            file.read_at(at, len)
        });
        Ahead {
            path,
            steps: steps.buffered(READS_AHEAD).boxed_local(),
            bytes: Vec::new(),
            start,
        }
    }

    /// `n` bytes from `pos`, fewer where the range ends. What is before `pos` is gone then.
    async fn get(&mut self, pos: u64, n: usize) -> Result<&[u8], Offline> {
        assert!(self.start <= pos, "it goes on, and never back");
        while self.start + (self.bytes.len() as u64) < pos.saturating_add(n as u64) {
            let Some(step) = self.steps.next().await else {
                break;
            };
            let step = step.map_err(|e| Offline::failed("read", self.path, e))?;
            let gone = usize::try_from(pos - self.start).unwrap_or(usize::MAX);
            let gone = gone.min(self.bytes.len());
            self.bytes.drain(..gone);
            self.start += gone as u64;
            self.bytes.extend_from_slice(&step);
        }
        let from = usize::try_from(pos - self.start).unwrap_or(usize::MAX);
        let from = from.min(self.bytes.len());
        let to = from.saturating_add(n).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }
}
