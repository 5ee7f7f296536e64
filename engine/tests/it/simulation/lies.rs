//! The simulated machine, with a lie put between it and the engine: bugs that an engine
//! could have, planted below it. The simulation must find each of them.

use klamm_engine::io::sim::{SimBuf, SimFile, SimIo, SimRead};
use klamm_engine::io::{BLOCK, Buf, Entry, File, Io, Open};
use klamm_engine::journal::layout;
use klamm_engine::mark::{self, Mark};
use klamm_engine::units::{Nanos, TimestampMs};
use std::cell::Cell;
use std::future::Future;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// None: the engine as it is.
    Honest,
    /// The answer does not wait for the sync.
    NoSync,
    /// Fewer bytes taken than given count as all of them.
    ShortWriteIgnored,
    /// A sync that failed is tried again, and is then taken for good.
    SyncRetried,
    /// No latch: a write that failed counts as done.
    WriteErrorSwallowed,
    /// No latch: a sync that failed counts as done.
    SyncErrorSwallowed,
    /// A write that is to be synced is only written.
    SyncedWriteNotSynced,
    /// A new segment's name is not synced.
    NoDirSync,
    /// What was cut stays behind the end.
    NoTruncate,
    /// The mark says a little more than was synced.
    MarkClaimsTooMuch,
    /// A write goes one block too far, now and then.
    WriteMisplaced,
    /// The journal is not synced.
    JournalNotSynced,
    /// Segments are not synced: what the journal has of them is forgotten too early.
    SegmentNotSynced,
    /// The journals are never seen at a start.
    JournalNotReplayed,
    /// A file is replaced by a plain write, not beside it and renamed.
    ReplaceForgotten,
}

/// What went wrong on purpose, counted.
#[derive(Default)]
pub struct Injected {
    pub errors: Cell<u64>,
    pub short_writes: Cell<u64>,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[derive(Clone)]
pub struct LyingIo {
    io: SimIo,
    lie: Lie,
    injected: Rc<Injected>,
}

impl LyingIo {
    pub fn new(io: SimIo, lie: Lie, injected: Rc<Injected>) -> LyingIo {
        LyingIo { io, lie, injected }
    }

    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result
            && e.raw_os_error().is_some()
        {
            count(&self.injected.errors);
        }
        result
    }
}

pub struct LyingFile {
    file: SimFile,
    io: LyingIo,
    path: PathBuf,
    writes: Cell<u64>,
}

impl Io for LyingIo {
    type File = LyingFile;
    type Buf = SimBuf;

    fn alloc(&self, len: usize) -> SimBuf {
        self.io.alloc(len)
    }

    async fn open(&self, path: &Path, mode: Open) -> Result<LyingFile> {
        let file = self.noted(self.io.open(path, mode).await)?;
        Ok(LyingFile {
            file,
            io: self.clone(),
            path: path.to_owned(),
            writes: Cell::new(0),
        })
    }

    async fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.noted(self.io.create_dir_all(path).await)
    }

    async fn sync_dir(&self, path: &Path) -> Result<()> {
        if self.lie == Lie::NoDirSync {
            return Ok(());
        }
        self.noted(self.io.sync_dir(path).await)
    }

    async fn sync_all(&self, path: &Path) -> Result<()> {
        match self.lie {
            Lie::NoSync => Ok(()),
            // Those that skip, repeat or misjudge a sync of one thing: one by one, then.
            Lie::NoDirSync
            | Lie::JournalNotSynced
            | Lie::SegmentNotSynced
            | Lie::SyncRetried
            | Lie::SyncErrorSwallowed => Err(std::io::ErrorKind::Unsupported.into()),
            _ => self.noted(self.io.sync_all(path).await),
        }
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<Entry>> {
        if self.lie == Lie::JournalNotReplayed && path.ends_with(layout::FOLDER) {
            return Ok(Vec::new());
        }
        self.noted(self.io.read_dir(path).await)
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.noted(self.io.rename(from, to).await)
    }

    async fn remove_file(&self, path: &Path) -> Result<()> {
        self.noted(self.io.remove_file(path).await)
    }

    async fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.noted(self.io.remove_dir_all(path).await)
    }

    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        self.noted(self.io.read_file(path).await)
    }

    async fn replace_file(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        if self.lie == Lie::ReplaceForgotten && path.ends_with("log-start-offset") {
            return Ok(());
        }
        self.noted(self.io.replace_file(path, bytes).await)
    }

    async fn replace_file_unsynced(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        self.noted(self.io.replace_file_unsynced(path, bytes).await)
    }

    fn now(&self) -> Nanos {
        self.io.now()
    }

    fn wall(&self) -> TimestampMs {
        self.io.wall()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        self.io.sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.io.spawn(task);
    }
}

impl LyingFile {
    /// The mark's block, with a batch more than there is.
    fn exaggerated(&self, buf: &Rc<SimBuf>) -> Rc<SimBuf> {
        let Some(mut mark) = Mark::decode(buf) else {
            return buf.clone();
        };
        mark.pos = mark.pos.plus(100);
        mark.offset = mark.offset.plus(1);
        let mut block = self.io.alloc(BLOCK);
        mark.encode(block.as_mut());
        Rc::new(block)
    }
}

impl File for LyingFile {
    type Buf = SimBuf;
    type Read = SimRead;

    async fn write_at(&self, buf: Rc<SimBuf>, pos: u64) -> Result<usize> {
        count(&self.writes);
        let len = buf.len();
        let is_mark = self.path.ends_with(mark::FILE_NAME);
        let result = match self.io.lie {
            Lie::MarkClaimsTooMuch if is_mark => {
                self.file.write_at(self.exaggerated(&buf), pos).await
            }
            Lie::WriteMisplaced if !is_mark && self.writes.get() % 16 == 15 => {
                self.file.write_at(buf, pos + BLOCK as u64).await
            }
            _ => self.file.write_at(buf, pos).await,
        };
        let result = self.io.noted(result);
        if result.as_ref().is_ok_and(|&taken| taken < len) {
            count(&self.io.injected.short_writes);
        }
        match self.io.lie {
            Lie::ShortWriteIgnored => result.map(|_| len),
            Lie::WriteErrorSwallowed => Ok(result.unwrap_or(len)),
            _ => result,
        }
    }

    async fn write_synced_at(&self, buf: Rc<SimBuf>, pos: u64) -> Result<usize> {
        match self.io.lie {
            Lie::Honest => {
                count(&self.writes);
                let len = buf.len();
                let result = self.io.noted(self.file.write_synced_at(buf, pos).await);
                if result.as_ref().is_ok_and(|&taken| taken < len) {
                    count(&self.io.injected.short_writes);
                }
                result
            }
            Lie::SyncedWriteNotSynced => self.write_at(buf, pos).await,
            // Of what is not lied about more is synced than must be.
            _ => {
                let taken = self.write_at(buf, pos).await?;
                self.fdatasync().await?;
                Ok(taken)
            }
        }
    }

    async fn read_at(&self, pos: u64, len: usize) -> Result<SimRead> {
        self.io.noted(self.file.read_at(pos, len).await)
    }

    async fn fdatasync(&self) -> Result<()> {
        let is = |extension| self.path.extension().is_some_and(|e| e == extension);
        let never = match self.io.lie {
            Lie::NoSync => true,
            Lie::JournalNotSynced => is(layout::EXTENSION),
            Lie::SegmentNotSynced => is("log"),
            _ => false,
        };
        if never {
            return Ok(());
        }
        let result = self.io.noted(self.file.fdatasync().await);
        match self.io.lie {
            Lie::SyncErrorSwallowed => Ok(()),
            Lie::SyncRetried if result.is_err() => {
                while self.file.fdatasync().await.is_err() {}
                Ok(())
            }
            _ => result,
        }
    }

    async fn allocate(&self, len: u64) -> Result<()> {
        self.io.noted(self.file.allocate(len).await)
    }

    async fn truncate(&self, len: u64) -> Result<()> {
        if self.io.lie == Lie::NoTruncate {
            return Ok(());
        }
        self.io.noted(self.file.truncate(len).await)
    }

    async fn data_end(&self) -> Result<u64> {
        self.file.data_end().await
    }

    async fn len(&self) -> Result<u64> {
        self.file.len().await
    }
}
