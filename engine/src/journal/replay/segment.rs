//! A segment beside what the journals have of it.
//!
//! ```text
//!   the journals     | entry | entry | entry |        | entry | entry |
//!   the segment      |====== one step =======|  gap   |===...   zeros
//!                      has it   has it  lacks it: its CRC is not the entry's
//! ```
//!
//! Between two entries may be what a large round has synced in the segment itself.

use super::Noted;
use crate::batch::is_zero;
use crate::crc;
use crate::error::Offline;
use crate::io::{BLOCK, Buf, File, Io, OpenedFile, SECTOR, write_whole};
use crate::units::BytePos;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

/// Bytes read and written at a time, unless an entry has more: some dozens of partitions are
/// seen to together.
const STEP_BYTES: u64 = 256 << 10;

/// Which of the entries the segment does not have.
pub async fn lacks<F: File>(
    path: &Path,
    log: &OpenedFile<F>,
    entries: &[Noted],
) -> Result<Vec<usize>, Offline> {
    let mut lacks = Vec::new();
    // What the file's length will be by then.
    let mut len = log.len;
    let mut n = 0;
    while let Some(first) = entries.get(n) {
        if len < first.from.pos.0 {
            let what = format!(
                "the file ends here, and the journal goes on at byte {}",
                first.from.pos
            );
            return Err(Offline::corrupt(path, BytePos(len), what));
        }
        let step = &entries[n..n + step_len(entries[n..].iter())];
        let blocks = blocks(first, &step[step.len() - 1]);
        let has = read(path, log, &blocks).await?;
        let has = has.as_deref().unwrap_or_default();
        for (entry, n) in step.iter().zip(n..) {
            let is = has.get(place(entry, &blocks)).map(crc::iso_hdlc);
            if is != Some(entry.bytes.crc) {
                lacks.push(n);
                len = len.max(blocks.end);
            }
        }
        n += step.len();
    }
    Ok(lacks)
}

/// Writes the entries that the segment lacks, whose bytes lie one behind another in `bytes`.
pub async fn bring<I: Io>(
    io: &I,
    path: &Path,
    log: &mut OpenedFile<I::File>,
    missing: &[&Noted],
    mut bytes: &[u8],
) -> Result<(), Offline> {
    let mut n = 0;
    while let Some(first) = missing.get(n) {
        let step = &missing[n..n + step_len(missing[n..].iter().copied())];
        let blocks = blocks(first, step[step.len() - 1]);
        let place = place(first, &blocks).start..place(step[step.len() - 1], &blocks).end;
        let (wanted, behind) = bytes.split_at(place.len());
        let has = read(path, log, &blocks).await?;
        let has_bytes = has.as_deref().unwrap_or_default();
        let there = &has_bytes[place.start.min(has_bytes.len())..place.end.min(has_bytes.len())];
        if let Some(byte) = first_damaged(there, wanted, first.from.pos.0) {
            log::warn!(
                "{}: damaged at byte {byte}; put right with what the journal has of it",
                path.display()
            );
        }
        // What else is in the first and the last block stays as it is.
        let mut buf = io.alloc((blocks.end - blocks.start) as usize);
        let out = buf.as_mut();
        out[..has_bytes.len()].copy_from_slice(has_bytes);
        out[has_bytes.len()..].fill(0);
        out[place].copy_from_slice(wanted);
        drop(has);
        let written = write_whole(io, &log.file, Rc::new(buf), blocks.start).await;
        written.map_err(|e| Offline::failed("write", path, e))?;
        log.len = log.len.max(blocks.end);
        log.data_end = log.data_end.max(blocks.end);
        bytes = behind;
        n += step.len();
    }
    assert!(bytes.is_empty(), "each entry has its bytes");
    Ok(())
}

/// How many entries from the first on lie side by side, and are not too much for one step.
fn step_len<'a>(entries: impl Iterator<Item = &'a Noted>) -> usize {
    let mut step = Range::default();
    let fits = |entry: &&Noted| {
        if step.is_empty() {
            step = entry.from.pos.0..entry.end();
            return true;
        }
        let fits = entry.from.pos.0 == step.end && entry.end() - step.start <= STEP_BYTES;
        step.end = entry.end();
        fits
    };
    entries.take_while(fits).count()
}

/// The blocks that a step is in.
fn blocks(first: &Noted, last: &Noted) -> Range<u64> {
    let block = BLOCK as u64;
    first.from.pos.0 / block * block..last.end().next_multiple_of(block)
}

fn place(entry: &Noted, blocks: &Range<u64>) -> Range<usize> {
    let at = |pos: u64| (pos - blocks.start) as usize;
    at(entry.from.pos.0)..at(entry.end())
}

/// None where nothing was ever written.
async fn read<F: File>(
    path: &Path,
    log: &OpenedFile<F>,
    blocks: &Range<u64>,
) -> Result<Option<F::Read>, Offline> {
    if blocks.start >= log.data_end {
        return Ok(None);
    }
    let len = (blocks.end - blocks.start) as usize;
    let read = log.file.read_at(blocks.start, len).await;
    Ok(Some(read.map_err(|e| Offline::failed("read", path, e))?))
}

/// Where bytes that begin at `pos` in their file are first not what they are to be, in a
/// sector that no lost write explains: one that a power cut left out is what it was before,
/// the front of what it is to be, and zeros.
fn first_damaged(has: &[u8], wanted: &[u8], pos: u64) -> Option<u64> {
    let (len, mut at) = (has.len().min(wanted.len()), 0);
    while at < len {
        let upto = (at + SECTOR - (pos as usize + at) % SECTOR).min(len);
        if has[at..upto] == wanted[at..upto] {
            at = upto;
            continue;
        }
        let pairs = has[at..upto].iter().zip(&wanted[at..upto]);
        at += pairs.take_while(|(has, wanted)| has == wanted).count();
        if !is_zero(&has[at..upto]) {
            return Some(pos + at as u64);
        }
        at = upto;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_out_is_told_from_damage() {
        let wanted: Vec<u8> = (0..2000u32).map(|n| (n % 251) as u8 | 1).collect();
        let first = |has: &[u8]| first_damaged(has, &wanted, 5000);
        assert_eq!(first(&wanted), None);
        assert_eq!(first(&[]), None, "the file ends before");
        assert_eq!(first(&[0; 2000]), None, "nothing of it was written");
        // Sectors begin at 5120, 5632, 6144, 6656 of the file.
        let mut older = wanted.clone();
        older[700..].fill(0);
        older[..120].copy_from_slice(&wanted[..120]);
        assert_eq!(first(&older), None, "a block as it was before");
        older[1144..1656].copy_from_slice(&wanted[1144..1656]);
        assert_eq!(first(&older), None, "one sector of what came later");
        for at in [0, 119, 120, 699, 1200] {
            let mut flipped = older.clone();
            flipped[at] ^= 2;
            assert_eq!(first(&flipped), Some(5000 + at as u64));
        }
        older[1800] = 1;
        assert_eq!(
            first(&older),
            Some(6656),
            "a sector that was not written, and is not zeros"
        );
    }
}
