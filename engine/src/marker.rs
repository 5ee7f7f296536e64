//! When a log's mark is written and synced (what it means: mark.rs).
//!
//! ```text
//!   synced mark        written mark      committed        this round's end
//!       |------------------|----------------|------------------|
//!       |<------------- half a window: sync the mark ... ----->|
//!       |<------------------------ window: never beyond ------------------->|
//! ```
//!
//! - A round that the journal commits writes no mark: the journal says how far the log is
//!   committed, and replay brings the mark up to it. When the journal lets go of the round
//!   the mark is written, after the segment was synced (`appender/journaled.rs`); a log that
//!   is idle then has it synced a second later.
//! - Every other round of group commit writes the mark of the round before it beside its own
//!   data. On most disks the data's sync then makes it durable too, but [`File`] promises
//!   that only for the file that was synced.
//! - So the mark's own sync (for a journaled round: its write too) goes beside the data's, once half a window is used up: with a
//!   window of 68 MiB one more sync for each 34 MiB, at no latency of its own.
//! - A log that falls idle has its mark written, and a second later synced.
//! - One write or sync of the mark at a time: two at once could end in the older one.

use crate::error::Offline;
use crate::io::{BLOCK, Buf, File, Io, write_whole};
use crate::mark::{FILE_NAME, Mark, UNBOUNDED};
use crate::signal::Signal;
use crate::units::{BytePos, Offset};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub struct Marker<I: Io> {
    io: I,
    path: PathBuf,
    file: Rc<I::File>,
    /// What a process that starts after a kill would find.
    written: Cell<Option<Mark>>,
    /// What is there after the power went, or something newer.
    synced: Cell<Option<Mark>>,
    busy: Cell<bool>,
    free: Rc<Signal>,
}

/// Held while the mark is written or synced.
struct Turn<'a, I: Io>(&'a Marker<I>);

impl<I: Io> Drop for Turn<'_, I> {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.free.wake();
    }
}

impl<I: Io> Marker<I> {
    /// `found`: the mark that is on disk, synced.
    pub fn new(io: I, dir: &Path, file: Rc<I::File>, found: Option<Mark>) -> Marker<I> {
        Marker {
            io,
            path: dir.join(FILE_NAME),
            file,
            written: Cell::new(found),
            synced: Cell::new(found),
            busy: Cell::new(false),
            free: Signal::new(),
        }
    }

    pub fn written(&self) -> Option<Mark> {
        self.written.get()
    }

    pub fn synced(&self) -> Option<Mark> {
        self.synced.get()
    }

    /// Whether the bytes of a segment up to `end` are within the synced mark's window.
    pub fn covers(&self, segment: Offset, end: BytePos) -> bool {
        self.synced
            .get()
            .is_some_and(|mark| used(&mark, segment, end) <= mark.window)
    }

    /// Whether so much of the window is used up that the next sync should be the mark's
    /// too.
    pub fn is_due(&self, segment: Offset, end: BytePos) -> bool {
        self.synced.get().is_none_or(|mark| {
            mark.window != UNBOUNDED && used(&mark, segment, end) > mark.window / 2
        })
    }

    /// Writes `mark`, unless it stands there or another one is just being written.
    pub async fn note(&self, mark: Mark) -> Result<(), Offline> {
        if self.written.get() == Some(mark) || self.busy.get() {
            return Ok(());
        }
        let _turn = self.turn().await;
        self.write(mark).await
    }

    /// Makes the mark that was written last a synced one.
    pub async fn sync(&self) -> Result<(), Offline> {
        let _turn = self.turn().await;
        self.sync_written().await
    }

    /// Writes and syncs `mark`.
    pub async fn commit(&self, mark: Mark) -> Result<(), Offline> {
        let _turn = self.turn().await;
        if self.written.get() != Some(mark) {
            self.write(mark).await?;
        }
        self.sync_written().await
    }

    /// Resolves once no write of the mark is under way.
    pub async fn idle(&self) {
        drop(self.turn().await);
    }

    async fn turn(&self) -> Turn<'_, I> {
        self.free.until(|| (!self.busy.get()).then_some(())).await;
        self.busy.set(true);
        Turn(self)
    }

    async fn write(&self, mark: Mark) -> Result<(), Offline> {
        let mut block = self.io.alloc(BLOCK);
        mark.encode(block.as_mut());
        write_whole(&self.io, &self.file, Rc::new(block), 0)
            .await
            .map_err(|e| Offline::failed("write", &self.path, e))?;
        self.written.set(Some(mark));
        Ok(())
    }

    async fn sync_written(&self) -> Result<(), Offline> {
        let written = self.written.get();
        let synced = self.file.fdatasync().await;
        synced.map_err(|e| Offline::failed("sync", &self.path, e))?;
        self.synced.set(written);
        Ok(())
    }
}

/// How far beyond a mark a segment's byte is. A segment behind the marked one counts from
/// its own front: everything before it was synced when it began.
fn used(mark: &Mark, segment: Offset, end: BytePos) -> u64 {
    if mark.segment == segment {
        end.0.saturating_sub(mark.pos.0)
    } else {
        end.0
    }
}
