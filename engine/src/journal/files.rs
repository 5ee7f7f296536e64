//! The life of a journal's files.
//!
//! ```text
//!   make_file --> free --begin_use--> current --full--> settling --retire--> free
//!                                        |                 |
//!                                        |                 +--> kept: a partition that went
//!                                        +-- close: retired      offline has bytes in it
//! ```
//!
//! What a file is at any moment, its header tells the next start: that its groups count, in
//! which generation, and which files before it are not settled yet.

use super::layout::{EARLIER_MAX, Header, file_name};
use super::zeros::Ready;
use super::{Journal, Member, State, replay, settling};
use crate::error::Offline;
use crate::io::{BLOCK, File, Io, Open};
use crate::units::Offset;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;

/// Files in turn: one is written while the other is settled.
const FILES: usize = 2;

pub(super) struct JournalFile<I: Io> {
    pub(super) path: PathBuf,
    pub(super) file: Rc<I::File>,
    /// How much of it was written before.
    pub(super) ready: Rc<Ready>,
    /// Its header says that its groups count.
    pub(super) used: bool,
}

/// A file whose groups count.
pub(super) struct Used<I: Io> {
    pub(super) file: JournalFile<I>,
    pub(super) generation: u64,
    pub(super) groups: u64,
    /// Where the next group goes.
    pub(super) end: u64,
    /// Where the file ends for now: less than its full size where the disk has no room.
    pub(super) limit: u64,
    /// By the member's place in memory: who has entries here, and up to which offset.
    pub(super) members: HashMap<*const Member<I>, (Rc<Member<I>>, Offset)>,
}

impl<I: Io> Used<I> {
    pub(super) fn is_settled(&self) -> bool {
        self.members.values().all(|(m, upto)| m.is_settled(*upto))
    }
}

impl<I: Io> Journal<I> {
    /// Ends the use of the current file, and begins that of the next. False: none is to
    /// be had.
    pub(super) async fn next_file(self: &Rc<Self>, bytes: u64) -> Result<bool, Offline> {
        let full = {
            let mut state = self.state.borrow_mut();
            let settled = state.kept.extract_if(.., |used| used.is_settled());
            let settled: Vec<_> = settled.collect();
            for used in settled {
                state.free_up(used);
            }
            let full = state.current.take();
            if let Some(full) = &full {
                state.ended.push((full.generation, full.groups));
                state.settling += 1;
            }
            full
        };
        if let Some(full) = full {
            self.settle_beside(full);
        }
        loop {
            let free = self.state.borrow_mut().free.pop();
            if let Some(file) = free {
                return self.begin_use(file, bytes).await;
            }
            let settling = self.state.borrow().settling;
            if settling < FILES {
                match self.make_file().await {
                    Ok(()) => continue,
                    Err((_, e)) if e.kind() == ErrorKind::StorageFull && settling == 0 => {
                        return Ok(false);
                    }
                    Err((_, e)) if e.kind() == ErrorKind::StorageFull => {}
                    Err((doing, e)) => return Err(Offline::failed(doing, &self.dir, e)),
                }
            }
            let this = self.clone();
            self.progress
                .until(move || {
                    let state = this.state.borrow();
                    (!state.free.is_empty() || state.settling < settling).then_some(())
                })
                .await;
        }
    }

    /// Says in a file's header that a new use of it begins. Synced before its first group is
    /// written: else a crash could leave the header of the old use, and groups of that one
    /// written over. False: the disk is full.
    async fn begin_use(&self, mut file: JournalFile<I>, bytes: u64) -> Result<bool, Offline> {
        if file.ready.written.get() == 0 {
            match file.file.allocate(BLOCK as u64).await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                Err(e) if e.kind() == ErrorKind::StorageFull => {
                    self.state.borrow_mut().free.push(file);
                    return Ok(false);
                }
                Err(e) => return Err(Offline::failed("reserve room in", file.path, e)),
            }
        }
        let header = {
            let mut state = self.state.borrow_mut();
            state.generation += 1;
            Header {
                generation: state.generation,
                used: true,
                earlier: earlier(&state.ended),
            }
        };
        let generation = header.generation;
        replay::write_header(&self.io, &file.file, &file.path, header).await?;
        file.used = true;
        file.ready
            .written
            .set(file.ready.written.get().max(BLOCK as u64));
        let limit = self.config.file_bytes.max(BLOCK as u64 + bytes);
        self.state.borrow_mut().current = Some(Used {
            file,
            generation,
            groups: 0,
            end: BLOCK as u64,
            limit,
            members: HashMap::new(),
        });
        Ok(true)
    }

    async fn make_file(&self) -> Result<(), (&'static str, std::io::Error)> {
        let number = self.state.borrow().next_number;
        if number == 0 {
            let made = self.io.create_dir_all(&self.dir).await;
            made.map_err(|e| ("create", e))?;
            if let Some(data) = self.dir.parent() {
                self.io.sync_dir(data).await.map_err(|e| ("sync", e))?;
            }
        }
        let path = self.dir.join(file_name(self.shard, number));
        let file = self.io.open(&path, Open::New).await;
        let file = file.map_err(|e| ("create a file in", e))?;
        self.io.sync_dir(&self.dir).await.map_err(|e| ("sync", e))?;
        let mut state = self.state.borrow_mut();
        state.next_number = number + 1;
        state.free.push(JournalFile {
            path,
            file: Rc::new(file),
            ready: Ready::new(0),
            used: false,
        });
        Ok(())
    }

    /// Settles a full file in the background.
    fn settle_beside(self: &Rc<Self>, full: Used<I>) {
        let mut members: Vec<_> = full.members.values().cloned().collect();
        // In an order that does not change from run to run, so that a simulated one comes again.
        members.sort_by_key(|(member, upto)| (member.id, *upto));
        let this = self.clone();
        self.io.spawn(async move {
            // Two at once that hold segments of the same partitions back from other syncs, each
            // some of them, would wait for one another.
            let free = || (!this.settles.get()).then_some(());
            this.progress.until(free).await;
            this.settles.set(true);
            let all_from = this.config.sync_all_from;
            this.until_zeroed(&full.file.ready).await;
            settling::settle(&this.io, &full.file.file, &this.dir, members, all_from).await;
            let full = this.retire(full).await;
            this.settles.set(false);
            this.settled(full);
        });
    }

    /// Says of a settled file at once that it does not count: the next start need not look
    /// at what is in it.
    async fn retire(&self, mut full: Used<I>) -> Used<I> {
        if !full.is_settled() {
            return full;
        }
        let JournalFile { file, path, .. } = &full.file;
        match replay::retire(&self.io, file, path, full.generation, Vec::new()).await {
            Ok(()) => full.file.used = false,
            // Its next use writes the header anew, and does not begin unless that is synced.
            Err(offline) => log::warn!("{offline}; the next start may take longer"),
        }
        full
    }

    fn settled(&self, full: Used<I>) {
        let mut state = self.state.borrow_mut();
        state.settling -= 1;
        if full.is_settled() {
            state.free_up(full);
        } else {
            log::warn!(
                "{}: kept for the next start: it holds records of a partition that went offline",
                full.file.path.display()
            );
            state.kept.push(full);
        }
        drop(state);
        self.progress.wake();
    }
}

impl<I: Io> State<I> {
    /// A settled file may be used again.
    pub(super) fn free_up(&mut self, used: Used<I>) {
        self.ended
            .retain(|(generation, _)| *generation != used.generation);
        self.free.push(used.file);
    }
}

/// As many as a header has room for, the newest.
pub(super) fn earlier(ended: &[(u64, u64)]) -> Vec<(u64, u64)> {
    ended[ended.len().saturating_sub(EARLIER_MAX)..].to_vec()
}
