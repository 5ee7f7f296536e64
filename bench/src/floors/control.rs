//! The control: the same bytes by the plainest writes there are, user and system CPU apart.
//!
//! ```text
//!   buffered   | write | write | write | ... | fsync |      through the page cache
//!   direct     | write | write | write | ... | fsync |      past it (O_DIRECT)
//! ```
//!
//! No figure of Klamm's is held against them. They say what kind of moment it is: on a
//! virtual machine the first touch of a page that the guest had given back costs the host
//! about 2 CPU seconds a GB, so a broker that writes through the page cache swings, and
//! direct I/O looks better than it is. Hence an untimed buffered round comes first, and
//! both are printed beside every comparison.

use super::sendfile::Aligned;
use super::{Floor, Site};
use crate::Outcome;
use crate::process::Cpu;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 1 << 20;

pub fn floors(site: &Site<'_>) -> Outcome<Vec<Floor>> {
    let path = site.folder.join("control");
    let blocks = site.bytes.div_ceil(BLOCK_BYTES as u64).max(1);
    let block = Aligned::noise(BLOCK_BYTES);
    let failed = |e: io::Error| {
        format!(
            "plain writes of {}: {e}; the folder given with --data must be on a disk with \
             direct I/O (a tmpfs has none)",
            path.display()
        )
    };
    let timed = |id, label, flags| -> Outcome<Floor> {
        let before = Cpu::of_this_thread()?;
        let wall = write(&path, block.bytes(), blocks, flags).map_err(failed)?;
        let cpu = Cpu::of_this_thread()? - before;
        fs::remove_file(&path).map_err(failed)?;
        let bytes = blocks * BLOCK_BYTES as u64;
        Ok(Floor {
            id,
            label,
            bytes,
            wall,
            cpu,
        })
    };
    let all = || -> Outcome<Vec<Floor>> {
        timed("control_untimed", "", 0)?;
        Ok(vec![
            timed(
                "control_buffered",
                "control: plain buffered writes, fsync at the end",
                0,
            )?,
            timed(
                "control_direct",
                "control: plain direct writes, fsync at the end",
                libc::O_DIRECT,
            )?,
        ])
    };
    // As the broker would: from the server's core.
    site.cores.start(all)
}

fn write(path: &Path, block: &[u8], blocks: u64, flags: i32) -> io::Result<Duration> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(flags)
        .open(path)?;
    let began = Instant::now();
    for _ in 0..blocks {
        file.write_all(block)?;
    }
    file.sync_all()?;
    Ok(began.elapsed())
}
