//! The one door to disk, clock and tasks.
//!
//! ```text
//!   partition, log, appender, recovery, changelog        (no other I/O below here)
//!        |
//!      Io + File + Buf                                   this file: what is promised
//!        |                 \
//!   io/glommio.rs        io/sim.rs
//!   io_uring, O_DIRECT   one thread, one seed, a disk that lies
//! ```
//!
//! `io/shards.rs` carries work from one shard to another, over either.
//!
//! What both promise, and `io/contract.rs` holds them to:
//!
//! - A write is a whole number of [`BLOCK`]s at a multiple of [`BLOCK`]. It returns
//!   how many bytes were taken, which may be fewer than were given.
//! - What was written is *stable*: a later read sees it, and so does a process that
//!   starts after this one was killed. It is *committed* only after
//!   [`File::fdatasync`] or [`Io::sync_all`] returned Ok, or the [`File::write_synced_at`]
//!   that wrote it; until then a power cut may lose any subset of it, in units of
//!   [`SECTOR`].
//! - After a failed sync nothing is known of the unsynced bytes. Callers latch.
//! - A new, renamed or removed name is committed only after [`Io::sync_dir`] of its
//!   folder, or [`Io::sync_all`].
//! - Futures run on the thread that made them; nothing here is `Send`. A future that
//!   is dropped may or may not have had its effect.

pub mod glommio;
pub mod page_cache;
pub mod shards;
pub mod sim;

#[cfg(test)]
mod contract;

use crate::units::{Nanos, TimestampMs};
use page_cache::CachedFile;
use std::collections::HashMap;
use std::future::Future;
use std::io::Result;
use std::ops::{Deref, Range};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Direct I/O's unit here: every position and length of a write is a multiple.
/// 4,096 serves disks with 512-byte and with 4 KiB sectors alike.
pub const BLOCK: usize = 4096;

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// Disk, clock and tasks of one shard.
pub trait Io: Clone + 'static {
    type File: File<Buf = Self::Buf>;
    type Buf: Buf;

    // -- disk

    /// A buffer for a write; `len` is a multiple of [`BLOCK`]. What is in it may be left
    /// from an earlier use: whoever writes it fills it whole.
    fn alloc(&self, len: usize) -> Self::Buf;

    /// Opens a file for direct reads and writes.
    fn open(&self, path: &Path, mode: Open) -> impl Future<Output = Result<Self::File>>;

    /// Creates a folder, and those above it that are missing.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Commits the names in a folder.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Commits every byte, length and name that was written, on any shard and by processes
    /// that were killed, to the file system that holds `path`, before the call. For who has
    /// hundreds of files to sync: it waits for what others wrote there too.
    ///
    /// `Unsupported`: nothing was tried, the file system is none that is known to do it;
    /// files and folders are to be synced one by one. After any other error nothing is known
    /// of what was unsynced, and each later call on this shard fails too.
    fn sync_all(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// A number of its own for each file system: the one that `path` is on, which is what
    /// [`Io::sync_all`] of it commits.
    fn device(&self, path: &Path) -> impl Future<Output = Result<u64>> {
        let _ = path;
        std::future::ready(Ok(0))
    }

    /// The names in a folder, sorted; `NotFound` where there is no such folder.
    fn read_dir(&self, path: &Path) -> impl Future<Output = Result<Vec<Entry>>>;

    /// Looks into a folder, and reads and opens in it what `want` chooses by the names: as
    /// `read_dir`, `read_file` and `open` do, each for itself and with its own error, but in
    /// one go where that spares the calls. Writes that a killed process had under way in a
    /// file which is opened here are over.
    fn open_dir(
        &self,
        path: &Path,
        want: impl FnOnce(&[Entry]) -> Vec<(String, Want)> + Send + 'static,
    ) -> impl Future<Output = Result<OpenedDir<Self::File>>> {
        open_dir_step_by_step(self, path, want)
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<()>>;

    fn remove_file(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Removes a folder and all that is in it.
    fn remove_dir_all(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Puts a small file in place whole, without any sync. After a kill there is the old one
    /// or the new one; after a power cut there may be any damage: for what is under a
    /// checksum, and can be done without.
    fn replace_file_unsynced(
        &self,
        path: &Path,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<()>>;

    /// A small file whole (checkpoints, indexes, snapshots: not segments).
    fn read_file(&self, path: &Path) -> impl Future<Output = Result<Vec<u8>>>;

    /// Puts a small file in place whole: written beside it, synced, renamed over it,
    /// folder synced. After a crash there is the old one or the new one, and perhaps a
    /// `NAME.tmp` beside it.
    fn replace_file(&self, path: &Path, bytes: Vec<u8>) -> impl Future<Output = Result<()>>;

    /// Brings a range of a file into the page cache, without keeping this shard from its
    /// work. An error where the file ends within.
    fn load_pages(
        &self,
        file: &CachedFile,
        range: Range<u64>,
    ) -> impl Future<Output = Result<()>> + 'static {
        // Where there is no reactor, nobody is kept.
        std::future::ready(file.load(range))
    }

    // -- clock

    /// The monotonic clock: for timeouts and latency.
    fn now(&self) -> Nanos;

    /// The wall clock: for record timestamps and retention. May jump.
    fn wall(&self) -> TimestampMs;

    /// Resolves so long after the call (not: after it is first awaited).
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;

    // -- tasks

    /// Runs a task on this shard beside the caller; it starts after the caller next
    /// waits, in the order of the calls.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// An open file. Dropping it closes it.
#[expect(
    clippy::len_without_is_empty,
    reason = "an empty file is no case of its own here"
)]
pub trait File: 'static {
    type Buf: Buf;
    /// What a read returns: bytes that stay as long as it is held.
    type Read: Deref<Target = [u8]>;

    /// Writes all of `buf` at `pos`. Returns the bytes taken, from the front.
    fn write_at(&self, buf: Rc<Self::Buf>, pos: u64) -> impl Future<Output = Result<usize>>;

    /// As [`File::write_at`]; what was taken is committed when it returns Ok, and nothing is
    /// known of it after an error. Of what else was written it says nothing.
    fn write_synced_at(&self, buf: Rc<Self::Buf>, pos: u64) -> impl Future<Output = Result<usize>>;

    /// Reads at any position and length. Shorter than asked only at the file's end.
    fn read_at(&self, pos: u64, len: usize) -> impl Future<Output = Result<Self::Read>>;

    /// Commits the bytes written before, and the file's length.
    fn fdatasync(&self) -> impl Future<Output = Result<()>>;

    /// Reserves room up to `len`; the file becomes that long, new bytes read as zero.
    fn allocate(&self, len: u64) -> impl Future<Output = Result<()>>;

    fn truncate(&self, len: u64) -> impl Future<Output = Result<()>>;

    fn len(&self) -> impl Future<Output = Result<u64>>;

    /// From here to the file's end it reads as zeros, as far as the file system knows without
    /// reading: where it says nothing, that is the end. Never beyond it.
    fn data_end(&self) -> impl Future<Output = Result<u64>> {
        self.len()
    }

    /// A number of its own for each file system: what [`Io::sync_all`] of one commits.
    fn device(&self) -> Result<u64> {
        Ok(0)
    }

    /// The same file through the page cache, for who sends it without looking at it. None
    /// where the kernel has no such file.
    fn cached(&self) -> impl Future<Output = Result<Option<CachedFile>>> {
        std::future::ready(Ok(None))
    }
}

/// A block-aligned buffer: filled while it is owned, written while it is shared.
pub trait Buf: Deref<Target = [u8]> + 'static {
    fn as_mut(&mut self) -> &mut [u8];

    /// Forgets the end; `len` is a multiple of [`BLOCK`] and not above the length.
    fn shrink(&mut self, len: usize);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The file must be there.
    Existing,
    /// The file must not be there.
    New,
}

/// What [`Io::open_dir`] is to bring of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// As [`Io::read_file`].
    Bytes,
    /// As [`Io::open`] of an existing file, and so many bytes of its front.
    File { front: usize },
}

/// A folder as [`Io::open_dir`] found it.
pub struct OpenedDir<F> {
    pub entries: Vec<Entry>,
    pub bytes: HashMap<String, Result<Vec<u8>>>,
    pub files: HashMap<String, Result<OpenedFile<F>>>,
}

pub struct OpenedFile<F> {
    pub file: F,
    pub len: u64,
    /// As [`File::data_end`].
    pub data_end: u64,
    /// Shorter than asked only where the file ends.
    pub front: Vec<u8>,
}

async fn open_dir_step_by_step<I: Io>(
    io: &I,
    path: &Path,
    want: impl FnOnce(&[Entry]) -> Vec<(String, Want)>,
) -> Result<OpenedDir<I::File>> {
    let entries = io.read_dir(path).await?;
    let wanted = want(&entries);
    let mut opened = OpenedDir {
        entries,
        bytes: HashMap::new(),
        files: HashMap::new(),
    };
    for (name, want) in wanted {
        let path = path.join(&name);
        match want {
            Want::Bytes => {
                let bytes = io.read_file(&path).await;
                opened.bytes.insert(name, bytes);
            }
            Want::File { front } => {
                let file = async {
                    let file = io.open(&path, Open::Existing).await?;
                    let (len, data_end) = (file.len().await?, file.data_end().await?);
                    let front = match front {
                        0 => Vec::new(),
                        front => file.read_at(0, front).await?.to_vec(),
                    };
                    Ok(OpenedFile {
                        file,
                        len,
                        data_end,
                        front,
                    })
                };
                let file = file.await;
                opened.files.insert(name, file);
            }
        }
    }
    Ok(opened)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
}

/// Where [`Io::replace_file`] writes first: `NAME.tmp`. A crash can leave it behind;
/// the next replacing of the same file writes over it.
fn beside(path: &Path) -> Result<std::path::PathBuf> {
    let mut name = path
        .file_name()
        .ok_or(std::io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}

/// A write that makes no headway so often in a row has failed.
const STUCK_MAX: usize = 16;

/// Writes a buffer whole, going on where the disk took less than it was given.
pub(crate) async fn write_whole<I: Io>(
    io: &I,
    file: &I::File,
    buf: Rc<I::Buf>,
    pos: u64,
) -> Result<()> {
    write_parts(io, buf, pos, async |buf, pos| file.write_at(buf, pos).await).await
}

/// The same, and what was written is committed.
pub(crate) async fn write_whole_synced<I: Io>(
    io: &I,
    file: &I::File,
    buf: Rc<I::Buf>,
    pos: u64,
) -> Result<()> {
    let write = async |buf, pos| file.write_synced_at(buf, pos).await;
    write_parts(io, buf, pos, write).await
}

async fn write_parts<I: Io>(
    io: &I,
    buf: Rc<I::Buf>,
    pos: u64,
    write: impl AsyncFn(Rc<I::Buf>, u64) -> Result<usize>,
) -> Result<()> {
    let (mut buf, mut pos, mut stuck) = (buf, pos, 0);
    loop {
        let taken = write(buf.clone(), pos).await?;
        if taken >= buf.len() {
            return Ok(());
        }
        // Direct I/O goes on only from a block's edge; the block that was begun is
        // written again whole.
        let whole = taken / BLOCK * BLOCK;
        stuck = if whole == 0 { stuck + 1 } else { 0 };
        if stuck == STUCK_MAX {
            let what = "the disk takes no more bytes";
            return Err(std::io::Error::new(std::io::ErrorKind::WriteZero, what));
        }
        if whole > 0 {
            let mut rest = io.alloc(buf.len() - whole);
            rest.as_mut().copy_from_slice(&buf[whole..]);
            buf = Rc::new(rest);
            pos += whole as u64;
        }
    }
}
