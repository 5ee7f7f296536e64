//! The disk's floor: the same bytes on the same file system, with nothing else.
//!
//! ```text
//!   write:  | 1 MiB | fdatasync | 1 MiB | fdatasync | ...   each megabyte is safe before the next
//!           | 1 MiB | 1 MiB | ...                | fdatasync   safe at the end only
//!   read:   | 1 MiB | 1 MiB | ...                              what was just written
//! ```
//!
//! Direct (O_DIRECT), so that neither the page cache nor its write-back is measured;
//! one request at a time, from one thread, into a file that grows as it is written.
//! That is a plain program's rate and not the most that the device can do: with more
//! requests under way, or into a file that was preallocated, it may do better, and a
//! broker that does both may come out above 1.

use crate::Outcome;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 1 << 20;

/// What direct I/O asks of an address in memory, on every disk in use.
const ALIGN: usize = 4096;

/// How long each took, and for how many bytes: whole blocks.
pub struct Floor {
    pub bytes: u64,
    pub write_sync_each: Duration,
    pub write_sync_once: Duration,
    pub read: Duration,
}

/// At least `bytes` written twice and read once, in a file that is gone afterwards.
pub fn floor(file: &Path, bytes: u64) -> Outcome<Floor> {
    let blocks = bytes.div_ceil(BLOCK_BYTES as u64).max(1);
    let mut memory = vec![0xA5; BLOCK_BYTES + ALIGN];
    let at = memory.as_ptr().align_offset(ALIGN);
    let block = &mut memory[at..at + BLOCK_BYTES];
    let failed = |e: io::Error| {
        format!(
            "direct writes and reads of {}: {e}; the folder given with --data must be on a disk \
             with direct I/O (a tmpfs has none)",
            file.display()
        )
    };
    let mut measured = || -> io::Result<Floor> {
        let write_sync_each = write(file, block, blocks, true)?;
        fs::remove_file(file)?;
        let write_sync_once = write(file, block, blocks, false)?;
        let read = read(file, block, blocks)?;
        fs::remove_file(file)?;
        Ok(Floor {
            bytes: blocks * BLOCK_BYTES as u64,
            write_sync_each,
            write_sync_once,
            read,
        })
    };
    measured().map_err(failed)
}

fn write(path: &Path, block: &[u8], blocks: u64, sync_each: bool) -> io::Result<Duration> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let began = Instant::now();
    for _ in 0..blocks {
        file.write_all(block)?;
        if sync_each {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    Ok(began.elapsed())
}

fn read(path: &Path, block: &mut [u8], blocks: u64) -> io::Result<Duration> {
    let mut file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let began = Instant::now();
    for _ in 0..blocks {
        file.read_exact(block)?;
    }
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_written_and_nothing_stays() {
        // Beside the test's own binary: /tmp is often a tmpfs.
        let file = std::env::current_exe().unwrap().with_extension("floor");
        let floor = floor(&file, BLOCK_BYTES as u64 + 1).unwrap();
        assert_eq!(floor.bytes, 2 * BLOCK_BYTES as u64);
        assert!(!floor.read.is_zero() && !floor.write_sync_each.is_zero());
        assert!(!file.exists());
    }
}
