//! sendfile's own rate: a file that is on the disk and not in memory, to a socket.
//!
//! ```text
//!   written direct, synced, POSIX_FADV_DONTNEED        nothing of it is in the page cache
//!   cold              sendfile(1 range), sendfile(1 range), ...      the kernel reads ahead
//!   cold, read ahead  POSIX_FADV_WILLNEED(next range), sendfile(this range)
//!   warm              the same file once more
//!     client: recv into one buffer
//! ```
//!
//! From a thread on the server's core to one on the client's, over a blocking socket. CPU
//! is the server's thread's: what the kernel's own threads do for the disk is not in it.

use super::loopback::{joined, on_server, pair};
use super::{Floor, Site};
use crate::Outcome;
use crate::noise::noise;
use crate::process::Cpu;
use rustix::fs::{Advice, fadvise, sendfile};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

/// What direct I/O asks of an address in memory, on every disk in use.
const ALIGN: usize = 4096;
const RANGE_BYTES: u64 = 1 << 20;
const RECEIVE_BYTES: usize = 1 << 20;

pub fn floors(site: &Site<'_>) -> Outcome<Vec<Floor>> {
    let path = site.folder.join("sendfile");
    let failed = |e: io::Error| format!("sendfile of {}: {e}", path.display());
    let bytes = site.bytes.next_multiple_of(RANGE_BYTES);
    write_direct(&path, bytes).map_err(failed)?;
    let mut floors = Vec::new();
    for (id, label, cold, ahead) in [
        ("sendfile_cold", "sendfile: cold", true, false),
        (
            "sendfile_cold_ahead",
            "sendfile: cold, asked a range ahead",
            true,
            true,
        ),
        ("sendfile_warm", "sendfile: warm", false, false),
    ] {
        let file = File::open(&path).map_err(failed)?;
        if cold {
            fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| failed(e.into()))?;
        }
        floors.push(through(site, file, bytes, ahead, id, label)?);
    }
    fs::remove_file(&path).map_err(failed)?;
    Ok(floors)
}

fn through(
    site: &Site<'_>,
    file: File,
    bytes: u64,
    ahead: bool,
    id: &'static str,
    label: &'static str,
) -> Outcome<Floor> {
    let (mut client, server) = pair()?;
    let server = on_server(site, move || {
        let before = Cpu::of_this_thread()?;
        let failed = |e| format!("sendfile: {e}");
        let (mut at, mut asked) = (0, 0);
        while at < bytes {
            let range = at / RANGE_BYTES;
            if ahead && asked <= range {
                asked = range + 1;
                let next = NonZeroU64::new(RANGE_BYTES);
                fadvise(&file, asked * RANGE_BYTES, next, Advice::WillNeed).map_err(failed)?;
            }
            let left = usize::try_from(RANGE_BYTES - at % RANGE_BYTES).expect("a range");
            match sendfile(&server, &file, Some(&mut at), left) {
                Ok(0) => return Err(format!("sendfile: the file ended at {at} of {bytes}")),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(Cpu::of_this_thread()? - before)
    })?;
    let began = Instant::now();
    let mut room = vec![0; RECEIVE_BYTES];
    let mut left = bytes;
    while left > 0 {
        match client.read(&mut room) {
            // The server knows better why.
            Ok(0) => break,
            Ok(read) => left -= read as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("the loopback: {e}")),
        }
    }
    let wall = began.elapsed();
    let cpu = joined(server)?;
    if left > 0 {
        return Err(format!(
            "sendfile: {left} of {bytes} bytes did not come through"
        ));
    }
    Ok(Floor {
        id,
        label,
        bytes,
        wall,
        cpu,
    })
}

fn write_direct(path: &Path, bytes: u64) -> io::Result<()> {
    let block = Aligned::noise(usize::try_from(RANGE_BYTES).expect("a range"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    for _ in 0..bytes / RANGE_BYTES {
        file.write_all(block.bytes())?;
    }
    file.sync_all()
}

/// Bytes at an address that direct I/O takes.
pub struct Aligned {
    memory: Vec<u8>,
    at: usize,
    length: usize,
}

impl Aligned {
    pub fn noise(length: usize) -> Aligned {
        let mut memory = vec![0; length + ALIGN];
        let at = memory.as_ptr().align_offset(ALIGN);
        memory[at..at + length].copy_from_slice(&noise(length));
        Aligned { memory, at, length }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.at..self.at + self.length]
    }
}
