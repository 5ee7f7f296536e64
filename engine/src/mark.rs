//! The committed mark: how far a log's bytes are known to be synced, in the segment itself
//! or in the shard's journal, whose replay comes before the segment is looked at.
//!
//! ```text
//!   active segment   |==== committed ====|==== this round ====|  zeros
//!                                        ^ mark.pos           ^ at most mark.pos + window
//! ```
//!
//! Recovery needs it to tell bit rot from a torn write. Bad bytes below the mark were
//! synced once, so they are damage, whatever stands behind them. Bad bytes above it
//! are the torn tail of a crash as long as everything behind them lies within the
//! window, because a disk may keep any sectors of what was never synced.
//!
//! A mark never claims more than was synced; one that is older than the truth only
//! widens what counts as torn, up to its window. marker.rs says when it is written, and
//! sees to it that no byte is ever written beyond the window of a mark that is synced.
//!
//! The file `committed` is one block, of which the first sector is used (a sector is
//! written whole or not at all):
//!
//! | at | field |
//! |---|---|
//! | 0 | magic "KLMK" |
//! | 4 | version u32 = 1 |
//! | 8 | segment base offset i64 |
//! | 16 | committed position in that segment u64 |
//! | 24 | committed offset i64 |
//! | 32 | window u64 |
//! | 40 | CRC-32 (ISO-HDLC) of bytes 0 to 39, u32 |
//!
//! Integers are little-endian.

use crate::io::BLOCK;
use crate::units::{BytePos, Offset};

pub const FILE_NAME: &str = "committed";

const MAGIC: &[u8; 4] = b"KLMK";
const VERSION: u32 = 1;
const BYTES: usize = 44;

/// Unsynced bytes have no bound: the topic does not sync before it answers.
pub const UNBOUNDED: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub segment: Offset,
    pub pos: BytePos,
    pub offset: Offset,
    pub window: u64,
}

impl Mark {
    /// Fills a block, whatever is in it.
    pub fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK);
        block.fill(0);
        block[0..4].copy_from_slice(MAGIC);
        block[4..8].copy_from_slice(&VERSION.to_le_bytes());
        block[8..16].copy_from_slice(&self.segment.0.to_le_bytes());
        block[16..24].copy_from_slice(&self.pos.0.to_le_bytes());
        block[24..32].copy_from_slice(&self.offset.0.to_le_bytes());
        block[32..40].copy_from_slice(&self.window.to_le_bytes());
        let crc = crc32fast::hash(&block[0..40]);
        block[40..44].copy_from_slice(&crc.to_le_bytes());
    }

    /// None where there is no valid mark: the file is a hint that may be missing, so a
    /// bad one is the same as none. Without one recovery cuts nothing at all.
    pub fn decode(bytes: &[u8]) -> Option<Mark> {
        let bytes: &[u8; BYTES] = bytes.get(..BYTES)?.try_into().ok()?;
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        if &bytes[0..4] != MAGIC
            || u32_at(4) != VERSION
            || u32_at(40) != crc32fast::hash(&bytes[..40])
        {
            return None;
        }
        Some(Mark {
            segment: Offset(u64_at(8) as i64),
            pos: BytePos(u64_at(16)),
            offset: Offset(u64_at(24) as i64),
            window: u64_at(32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_a_flipped_bit_makes_it_none() {
        let mark = Mark {
            segment: Offset(7),
            pos: BytePos(4242),
            offset: Offset(99),
            window: 1 << 24,
        };
        let mut block = vec![0; BLOCK];
        mark.encode(&mut block);
        assert_eq!(Mark::decode(&block), Some(mark));
        for byte in 0..BYTES {
            block[byte] ^= 4;
            assert_eq!(Mark::decode(&block), None, "byte {byte}");
            block[byte] ^= 4;
        }
        assert_eq!(Mark::decode(&block[..20]), None);
        assert_eq!(Mark::decode(&vec![0; BLOCK]), None);
    }
}
