//! The real one: io_uring and direct I/O through glommio, one executor a shard.
//!
//! ```text
//!   bytes    write_at, read_at, fdatasync, allocate   --> the executor's rings
//!   names    create, rename, remove, list, sync_dir,  --> its blocking threads, for
//!            truncate, small files, sync_all              io_uring or glommio lack them
//!   clock    CLOCK_MONOTONIC, the wall clock, the reactor's timers
//!   tasks    the queue of the task that spawns, first in first out
//! ```
//!
//! `runtime` starts the executors and carries messages between them, `probe` says
//! beforehand whether this machine can run them, `termination` makes SIGINT and SIGTERM
//! something to wait for. glommio and `unsafe` stay in here.

mod device;
mod folder;
pub mod probe;
pub mod runtime;
pub mod termination;

use super::page_cache::CachedFile;
use super::{BLOCK, Buf, Entry, File, Io, Open, OpenedDir, OpenedFile, Want, beside};
use crate::units::{Nanos, TimestampMs};
use device::Held;
use folder::{data_end, open_dir, read_dir, replace_file, sync_dir};
use futures_channel::oneshot;
use glommio::io::{DmaBuffer, DmaFile, ReadResult};
use glommio::timer::Timer;
use glommio::{GlommioError, allocate_dma_buffer_global, executor, spawn_local_into};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::future::Future;
use std::io::{self, Result};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

thread_local! {
    /// How many calls of this thread's executor are with its blocking threads. They panic
    /// where it ends before they do, so the runtime waits for 0.
    static BLOCKING: Cell<usize> = const { Cell::new(0) };

    /// Buffers that wait for their next use.
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Disk, clock and tasks of the executor on this thread.
#[derive(Clone)]
pub struct GlommioIo(
    /// Not for another thread.
    PhantomData<Rc<()>>,
);

/// A file opened for direct I/O.
pub struct GlommioFile {
    file: DmaFile,
    /// The same file, opened anew: each write to it is synced before it is done. Opened when
    /// it is first asked for.
    synced: OnceCell<DmaFile>,
    cached: Cached,
}

/// The same file without O_DIRECT, opened when it is first asked for.
struct Cached {
    path: PathBuf,
    opened: OnceCell<CachedFile>,
}

/// Memory that the kernel reads from, aligned to 4,096. It is used again: a fresh one costs
/// the kernel a fault for each page, and us the zeros that make it readable.
#[repr(transparent)]
pub struct GlommioBuf(ManuallyDrop<DmaBuffer>);

/// Buffers by their length in blocks.
#[derive(Default)]
struct Kept {
    by_blocks: Vec<Vec<DmaBuffer>>,
    bytes: usize,
    /// Those in use that are larger than they say: a buffer that was shrunk does not grow
    /// again, and kept by its new length it would hold more than is known.
    shrunk: HashSet<*const u8>,
}

/// What is kept on each thread. Buffers in use are not in it.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Larger ones are not kept: they are rare.
const KEPT_LEN_MAX: usize = 4 << 20;

impl Kept {
    fn take(&mut self, len: usize) -> Option<DmaBuffer> {
        let buf = self.by_blocks.get_mut(len / BLOCK)?.pop()?;
        self.bytes -= len;
        Some(buf)
    }

    fn give(&mut self, buf: DmaBuffer) {
        let len = buf.len();
        if self.shrunk.remove(&buf.as_ptr())
            || len > KEPT_LEN_MAX
            || self.bytes + len > KEPT_BYTES_MAX
        {
            return;
        }
        let blocks = len / BLOCK;
        if self.by_blocks.len() <= blocks {
            self.by_blocks.resize_with(blocks + 1, Vec::new);
        }
        self.by_blocks[blocks].push(buf);
        self.bytes += len;
    }
}

/// What was read: a range of the blocks that the disk delivered.
pub struct GlommioRead {
    blocks: Blocks,
    range: Range<usize>,
}

enum Blocks {
    Direct(ReadResult),
    /// Put together, where the kernel delivered in parts.
    Joined(Vec<u8>),
}

impl GlommioIo {
    /// The executor of this thread; there must be one that runs.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is not to be had everywhere")]
    pub fn new() -> GlommioIo {
        GlommioIo(PhantomData)
    }

    /// Runs `work` on a blocking thread. It runs to its end even where nobody waits for
    /// it any more: a name half made would be worse.
    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (answer, answered) = oneshot::channel();
        BLOCKING.set(BLOCKING.get() + 1);
        self.spawn(async move {
            let result = executor().spawn_blocking(work).await;
            BLOCKING.set(BLOCKING.get() - 1);
            // No one listens any more: see above.
            let _ = answer.send(result);
        });
        answered
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the executor of this shard ended")))
    }

    async fn on_path<R: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce(&Path) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let path = path.to_owned();
        self.blocking(move || work(&path)).await
    }

    async fn take(&self, held: Held, path: PathBuf) -> Result<GlommioFile> {
        let file = device::take(self, held, &path).await?;
        let opened = OnceCell::new();
        Ok(GlommioFile {
            file,
            synced: OnceCell::new(),
            cached: Cached { path, opened },
        })
    }

    /// Returns once no call is with the blocking threads.
    pub(crate) async fn settle(&self) {
        while BLOCKING.get() > 0 {
            self.sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Io for GlommioIo {
    type File = GlommioFile;
    type Buf = GlommioBuf;

    fn alloc(&self, len: usize) -> GlommioBuf {
        assert!(
            len > 0 && len.is_multiple_of(BLOCK),
            "a buffer of {len} bytes is not of blocks"
        );
        if let Some(kept) = KEPT.with_borrow_mut(|kept| kept.take(len)) {
            return GlommioBuf(ManuallyDrop::new(kept));
        }
        // From the heap: a written chunk may stay in the tail cache for long, and would
        // keep the executor's small registered arena from the reads that it is for.
        let mut buf = allocate_dma_buffer_global(len);
        // The allocator gives memory that was never written, which nobody may read.
        buf.as_bytes_mut().fill(0);
        GlommioBuf(ManuallyDrop::new(buf))
    }

    async fn device(&self, path: &Path) -> Result<u64> {
        self.on_path(path, |path| Ok(fs::metadata(path)?.dev()))
            .await
    }

    async fn open(&self, path: &Path, mode: Open) -> Result<GlommioFile> {
        let held = self
            .on_path(path, move |path| Held::open(path, mode))
            .await?;
        self.take(held, path.to_owned()).await
    }

    async fn open_dir(
        &self,
        path: &Path,
        want: impl FnOnce(&[Entry]) -> Vec<(String, Want)> + Send + 'static,
    ) -> Result<OpenedDir<GlommioFile>> {
        let found = self.on_path(path, move |path| open_dir(path, want)).await?;
        let mut files = HashMap::with_capacity(found.files.len());
        for (name, file) in found.files {
            let file = match file {
                Ok(OpenedFile {
                    file,
                    len,
                    data_end,
                    front,
                }) => self
                    .take(file, path.join(&name))
                    .await
                    .map(|file| OpenedFile {
                        file,
                        len,
                        data_end,
                        front,
                    }),
                Err(e) => Err(e),
            };
            files.insert(name, file);
        }
        Ok(OpenedDir {
            entries: found.entries,
            bytes: found.bytes,
            files,
        })
    }

    async fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.on_path(path, |path| fs::create_dir_all(path)).await
    }

    async fn sync_dir(&self, path: &Path) -> Result<()> {
        self.on_path(path, sync_dir).await
    }

    async fn sync_all(&self, path: &Path) -> Result<()> {
        let device = device::of(self, path).await?;
        self.blocking(move || device.sync_all()).await
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<Entry>> {
        self.on_path(path, read_dir).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let to = to.to_owned();
        self.on_path(from, move |from| fs::rename(from, to)).await
    }

    async fn remove_file(&self, path: &Path) -> Result<()> {
        self.on_path(path, |path| fs::remove_file(path)).await
    }

    async fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.on_path(path, |path| fs::remove_dir_all(path)).await
    }

    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        self.on_path(path, |path| fs::read(path)).await
    }

    async fn replace_file(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let beside = beside(path)?;
        self.on_path(path, move |path| replace_file(path, &beside, &bytes))
            .await
    }

    async fn replace_file_unsynced(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let beside = beside(path)?;
        self.on_path(path, move |path| {
            fs::write(&beside, &bytes)?;
            fs::rename(&beside, path)
        })
        .await
    }

    fn load_pages(
        &self,
        file: &CachedFile,
        range: Range<u64>,
    ) -> impl Future<Output = Result<()>> + 'static {
        let (io, file) = (self.clone(), file.clone());
        async move { io.blocking(move || file.load(range)).await }
    }

    fn now(&self) -> Nanos {
        // Read some six times a request, and `Instant` takes half as long again: it is a
        // difference of two, each of which might be negative.
        let mut at = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer is to a timespec of our own, and is not kept.
        let read = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) };
        assert_eq!(read, 0, "Linux has this clock");
        Nanos(at.tv_sec.unsigned_abs() * 1_000_000_000 + at.tv_nsec.unsigned_abs())
    }

    fn wall(&self) -> TimestampMs {
        TimestampMs(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        })
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let timer = Timer::new(duration);
        async move {
            timer.await;
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // Not `spawn_local`, which polls the task at once. The queue is there: it is the
        // one that runs us.
        spawn_local_into(task, executor().current_task_queue())
            .unwrap_or_else(|e| unreachable!("the current task queue: {e}"))
            .detach();
    }
}

impl GlommioFile {
    /// The length, by a system call that does not wait for the disk.
    fn len_now(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn metadata(&self) -> Result<fs::Metadata> {
        // SAFETY: the descriptor is open as long as `self.file` lives, and ManuallyDrop
        // keeps this borrowed view from closing it.
        let file = ManuallyDrop::new(unsafe { fs::File::from_raw_fd(self.file.as_raw_fd()) });
        file.metadata()
    }

    /// Another descriptor of the same open file, for a thread that may outlive this one.
    fn duplicate(&self) -> Result<OwnedFd> {
        // SAFETY: the descriptor is open as long as `self.file` lives, which is longer than
        // this borrow.
        unsafe { BorrowedFd::borrow_raw(self.file.as_raw_fd()) }.try_clone_to_owned()
    }

    async fn synced(&self) -> Result<&DmaFile> {
        if let Some(synced) = self.synced.get() {
            return Ok(synced);
        }
        let (io, held) = (GlommioIo::new(), self.duplicate()?);
        let held = io.blocking(move || Held::open_synced(&held)).await?;
        let opened = device::take(&io, held, &self.cached.path).await?;
        // Another writer may have been quicker; then its handle is the one.
        Ok(self.synced.get_or_init(|| opened))
    }

    /// What remains of a read that the kernel cut short before the file's end.
    async fn join(&self, first: ReadResult, start: u64, end: u64) -> Result<Vec<u8>> {
        let mut bytes = first.to_vec();
        loop {
            // A direct read starts at a block.
            bytes.truncate(bytes.len() / BLOCK * BLOCK);
            let at = start + bytes.len() as u64;
            let more = self
                .file
                .read_at_aligned(at, (end - at) as usize)
                .await
                .map_err(io_error)?;
            bytes.extend_from_slice(&more);
            let reached = start + bytes.len() as u64;
            if reached >= end.min(self.len_now()?) {
                return Ok(bytes);
            }
            if more.len() < BLOCK {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("a read at byte {at} stopped at {reached}, before the file's end"),
                ));
            }
        }
    }
}

async fn write_at(file: &DmaFile, buf: Rc<GlommioBuf>, pos: u64) -> Result<usize> {
    assert!(
        !buf.is_empty() && buf.len().is_multiple_of(BLOCK) && pos.is_multiple_of(BLOCK as u64),
        "a write of {} bytes at {pos} is not of whole blocks",
        buf.len()
    );
    // SAFETY: GlommioBuf and ManuallyDrop are repr(transparent), so the pointer is one to
    // a DmaBuffer; the count is carried over by into_raw and from_raw. Where glommio is
    // the last to let go, DmaBuffer's own drop frees it and it is not used again.
    let buf = unsafe { Rc::from_raw(Rc::into_raw(buf).cast::<DmaBuffer>()) };
    file.write_rc_at(buf, pos).await.map_err(io_error)
}

impl File for GlommioFile {
    type Buf = GlommioBuf;
    type Read = GlommioRead;

    async fn write_at(&self, buf: Rc<GlommioBuf>, pos: u64) -> Result<usize> {
        write_at(&self.file, buf, pos).await
    }

    async fn write_synced_at(&self, buf: Rc<GlommioBuf>, pos: u64) -> Result<usize> {
        match self.synced().await {
            Ok(synced) => write_at(synced, buf, pos).await,
            // No descriptor is left, and nothing was written: two calls promise the same.
            Err(e) if no_descriptor(&e) => {
                let taken = self.write_at(buf, pos).await?;
                self.fdatasync().await?;
                Ok(taken)
            }
            Err(e) => Err(e),
        }
    }

    async fn read_at(&self, pos: u64, len: usize) -> Result<GlommioRead> {
        let block = BLOCK as u64;
        let until = pos
            .checked_add(len as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let (start, end) = (pos / block * block, until.next_multiple_of(block));
        if len == 0 {
            return Ok(GlommioRead {
                blocks: Blocks::Joined(Vec::new()),
                range: 0..0,
            });
        }
        let first = self
            .file
            .read_at_aligned(start, (end - start) as usize)
            .await;
        let first = first.map_err(io_error)?;
        let reached = start + first.len() as u64;
        let blocks = if reached >= until || reached >= self.len_now()? {
            Blocks::Direct(first)
        } else {
            Blocks::Joined(self.join(first, start, end).await?)
        };
        let has = blocks.len();
        let from = ((pos - start) as usize).min(has);
        Ok(GlommioRead {
            range: from..((until - start) as usize).min(has),
            blocks,
        })
    }

    async fn fdatasync(&self) -> Result<()> {
        self.file.fdatasync().await.map_err(io_error)
    }

    async fn allocate(&self, len: u64) -> Result<()> {
        self.file.pre_allocate(len, false).await.map_err(io_error)
    }

    async fn truncate(&self, len: u64) -> Result<()> {
        // glommio gives the bare number of the descriptor to its thread: were this file
        // closed meanwhile, another one could be cut. A descriptor of its own cannot.
        let file = fs::File::from(self.duplicate()?);
        GlommioIo::new().blocking(move || file.set_len(len)).await
    }

    async fn len(&self) -> Result<u64> {
        self.len_now()
    }

    async fn data_end(&self) -> Result<u64> {
        let file = fs::File::from(self.duplicate()?);
        GlommioIo::new().blocking(move || data_end(&file)).await
    }

    fn device(&self) -> Result<u64> {
        Ok(self.metadata()?.dev())
    }

    async fn cached(&self) -> Result<Option<CachedFile>> {
        if let Some(cached) = self.cached.opened.get() {
            return Ok(Some(cached.clone()));
        }
        // By the descriptor, as the name may be gone by now.
        let (held, path) = (self.duplicate()?, self.cached.path.clone());
        let open = move || {
            let name = format!("/proc/self/fd/{}", held.as_raw_fd());
            Ok(CachedFile::new(fs::File::open(name)?, path))
        };
        let opened = GlommioIo::new().blocking(open).await?;
        // Another reader may have been quicker; then its handle is the one.
        Ok(Some(self.cached.opened.get_or_init(|| opened).clone()))
    }
}

impl AsRawFd for GlommioFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Deref for GlommioBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for GlommioBuf {
    fn drop(&mut self) {
        // SAFETY: `self` is being dropped, so nobody looks at the field after this.
        let buf = unsafe { ManuallyDrop::take(&mut self.0) };
        // A thread that ends has no more use for it.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().give(buf));
    }
}

impl Buf for GlommioBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }

    fn shrink(&mut self, len: usize) {
        assert!(
            len.is_multiple_of(BLOCK) && len <= self.0.len(),
            "{} bytes shrink to {len}, which is not fewer blocks",
            self.0.len()
        );
        if len < self.0.len() {
            KEPT.with_borrow_mut(|kept| kept.shrunk.insert(self.0.as_ptr()));
            self.0.trim_to_size(len);
        }
    }
}

impl Deref for Blocks {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Blocks::Direct(read) => read,
            Blocks::Joined(bytes) => bytes,
        }
    }
}

impl Deref for GlommioRead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.blocks[self.range.clone()]
    }
}

/// The process has as many as it may, or the machine has.
fn no_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The system's own error, with its number: callers tell ENOSPC from EIO by it.
fn io_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}
