//! A disk that takes every write and sync at once and keeps nothing, for what is to be
//! measured without one.
//!
//! ```text
//!   open, names, small files, clock, tasks    the real ones
//!   write, sync, reserve, cut                 done, says it, and nothing was
//! ```
//!
//! So a partition opens in a real folder, and appends for as long as a benchmark wants
//! without filling it. What it wrote can't be read again: a fresh partition only.

use klamm_engine::io::glommio::{GlommioBuf, GlommioFile, GlommioIo};
use klamm_engine::io::{Entry, File, Io, Open};
use klamm_engine::units::{Nanos, TimestampMs};
use std::io::Result;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

#[derive(Clone)]
pub struct Nowhere(pub GlommioIo);

pub struct NowhereFile(GlommioFile);

impl Io for Nowhere {
    type File = NowhereFile;
    type Buf = GlommioBuf;

    fn alloc(&self, len: usize) -> GlommioBuf {
        self.0.alloc(len)
    }

    async fn open(&self, path: &Path, mode: Open) -> Result<NowhereFile> {
        self.0.open(path, mode).await.map(NowhereFile)
    }

    async fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.0.create_dir_all(path).await
    }

    async fn sync_dir(&self, path: &Path) -> Result<()> {
        self.0.sync_dir(path).await
    }

    async fn sync_all(&self, path: &Path) -> Result<()> {
        self.0.sync_all(path).await
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<Entry>> {
        self.0.read_dir(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename(from, to).await
    }

    async fn remove_file(&self, path: &Path) -> Result<()> {
        self.0.remove_file(path).await
    }

    async fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.0.remove_dir_all(path).await
    }

    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        self.0.read_file(path).await
    }

    async fn replace_file(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        self.0.replace_file(path, bytes).await
    }

    async fn replace_file_unsynced(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        self.0.replace_file_unsynced(path, bytes).await
    }

    fn now(&self) -> Nanos {
        self.0.now()
    }

    fn wall(&self) -> TimestampMs {
        self.0.wall()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        self.0.sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn(task);
    }
}

impl File for NowhereFile {
    type Buf = GlommioBuf;
    type Read = <GlommioFile as File>::Read;

    async fn write_at(&self, buf: Rc<GlommioBuf>, _pos: u64) -> Result<usize> {
        Ok(buf.len())
    }

    async fn write_synced_at(&self, buf: Rc<GlommioBuf>, _pos: u64) -> Result<usize> {
        Ok(buf.len())
    }

    async fn read_at(&self, pos: u64, len: usize) -> Result<Self::Read> {
        self.0.read_at(pos, len).await
    }

    async fn fdatasync(&self) -> Result<()> {
        Ok(())
    }

    async fn allocate(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    async fn truncate(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    async fn len(&self) -> Result<u64> {
        self.0.len().await
    }
}
