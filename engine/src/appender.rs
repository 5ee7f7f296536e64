//! Gathers batches in aligned chunks, writes them, syncs them, many at a time.
//!
//! ```text
//!   append (no await)          flush loop (one per log, alive while there is work)
//!     |                          |
//!   filling chunk  -- sealed --> round: write all chunks at once ... fdatasync
//!   [head|batch|batch|ba]        |            |                        |
//!                                |          stable                 committed
//!                                + the next round gathers meanwhile
//! ```
//!
//! A round of one chunk is written and synced by one call, where nothing before it is to be
//! synced: the disk is waited for once and not twice.
//!
//! Where the shard has a journal, a small round goes there instead, beside those of other
//! partitions (appender/journaled.rs), and to its segment later, with others of its own log
//! (appender/placing.rs): *committed* is what is synced in the segment or in the journal,
//! *placed* what is written to the segment.
//!
//! - `committed <= stable <= dirty`, `placed <= stable`, and none of them ever falls.
//! - Nothing waits for a timer: a round begins as soon as the one before it ended, or
//!   at once where there is none. What arrives during a round is the next one.
//! - A round's chunks are of one segment. Between two segments the old one is cut to
//!   its length, synced and indexed before the new one's file exists: a segment with a
//!   successor is therefore whole.
//! - A chunk that ends inside a block is padded with zeros. The next chunk begins with
//!   that block's bytes again, so a torn write can hurt only what was never committed.
//!   The two are never of one round: writes of a round may land in any order.
//! - After the first failed write or sync nothing is written or acknowledged again.

mod gathering;
mod journaled;
mod marking;
mod placing;
mod sync;

pub use journaled::{Journaled, Settling};

use crate::config::LogConfig;
use crate::error::Offline;
use crate::io::{BLOCK, Buf, File, Io, Open, write_whole, write_whole_synced};
use crate::mark::Mark;
use crate::marker::Marker;
use crate::profile::LogProfile;
use crate::segment::{LogPosition, Segment, file_name};
use crate::signal::Signal;
use crate::tail::{Tail, TailCache};
use crate::units::{BytePos, Nanos, Offset};
use futures_util::future::{join, join_all};
use gathering::{Filling, Gathered, Round};
use placing::Unplaced;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;

/// What one round writes at most. A batch may be larger and take several rounds, the last
/// of which is synced; so what is unsynced is bounded by this and the largest batch.
const ROUND_BYTES_MAX: u64 = 16 << 20;

/// Preallocation grows with the file, by a quarter: a thousand small partitions must not
/// reserve 64 GB, a busy one should not ask for blocks a thousand times. After a kill
/// recovery reads what is reserved, to know that it is zeros.
const ALLOCATE_BYTES_MIN: u64 = 64 << 10;
const ALLOCATE_BYTES_MAX: u64 = 64 << 20;

pub struct Appender<I: Io> {
    io: I,
    dir: PathBuf,
    config: Rc<RefCell<LogConfig>>,
    tail: Rc<Tail<I>>,
    tail_cache: Rc<TailCache<I>>,
    marker: Marker<I>,
    /// What rounds and syncs take.
    pub profile: LogProfile,
    journaled: Option<Journaled<I>>,
    /// The last round was committed by the journal, which knows how far.
    last_by_journal: Cell<bool>,
    /// A segment is being synced: see [`SyncTurn`].
    syncing: Cell<bool>,
    sync_ended: Rc<Signal>,
    /// A segment is being written: see placing.rs.
    placing: Cell<bool>,
    placing_ended: Rc<Signal>,
    /// Wakes when stable or committed moved, when the log went offline or fell idle.
    pub progress: Rc<Signal>,
    state: RefCell<State<I>>,
    offline: RefCell<Option<Offline>>,
    idle_mark_planned: Cell<bool>,
    idle_sync_planned: Cell<bool>,
    /// When `flush.ms` next asks for a sync.
    flush_at: Cell<Option<Nanos>>,
    /// Counts rounds: two looks that see the same number saw an idle log.
    rounds: Cell<u64>,
}

struct State<I: Io> {
    /// The segment whose file is written now.
    open: Rc<Segment<I>>,
    /// The segment that bytes are taken for: the open one, or its successor.
    newest: Rc<Segment<I>>,
    allocated: u64,
    filling: Option<Filling<I>>,
    /// The bytes of the last block that is not full, and where the block begins.
    head: Vec<u8>,
    head_start: BytePos,
    gathered: VecDeque<Gathered<I>>,
    dirty: LogPosition,
    stable: LogPosition,
    committed: LogPosition,
    placed: LogPosition,
    unplaced: Unplaced<I>,
    largest_batch: usize,
    flushing: bool,
    /// No round begins: see [`Held`].
    held: bool,
    sync_due: bool,
    closed: bool,
}

/// Where an appender goes on: a recovered log's end, all of it committed.
pub struct Resume<I: Io> {
    pub open: Rc<Segment<I>>,
    pub end: LogPosition,
    /// The bytes of the end's block that are before the end.
    pub head: Vec<u8>,
    pub file_len: u64,
    pub mark_file: Rc<I::File>,
    /// What the mark on disk says, if there is one.
    pub marked: Option<Mark>,
    pub profile: LogProfile,
}

impl<I: Io> Appender<I> {
    pub fn new(
        io: I,
        dir: PathBuf,
        config: Rc<RefCell<LogConfig>>,
        tail: Rc<Tail<I>>,
        tail_cache: Rc<TailCache<I>>,
        resume: Resume<I>,
        journaled: Option<Journaled<I>>,
    ) -> Rc<Appender<I>> {
        let block_start = resume.end.pos.0 / BLOCK as u64 * BLOCK as u64;
        assert_eq!(
            resume.head.len() as u64,
            resume.end.pos.0 - block_start,
            "head fills to the end"
        );
        let marker = Marker::new(io.clone(), &dir, resume.mark_file, resume.marked);
        let backlog = journaled.as_ref().map(|j| j.journal.backlog().clone());
        let appender = Rc::new(Appender {
            io,
            dir,
            config,
            tail,
            tail_cache,
            marker,
            profile: resume.profile,
            journaled,
            last_by_journal: Cell::new(false),
            syncing: Cell::new(false),
            sync_ended: Signal::new(),
            placing: Cell::new(false),
            placing_ended: Signal::new(),
            progress: Signal::new(),
            state: RefCell::new(State {
                newest: resume.open.clone(),
                open: resume.open,
                allocated: resume.file_len,
                filling: None,
                head: resume.head,
                head_start: BytePos(block_start),
                gathered: VecDeque::new(),
                dirty: resume.end,
                stable: resume.end,
                committed: resume.end,
                placed: resume.end,
                unplaced: Unplaced::new(backlog),
                largest_batch: 0,
                flushing: false,
                held: false,
                sync_due: false,
                closed: false,
            }),
            offline: RefCell::new(None),
            idle_mark_planned: Cell::new(false),
            idle_sync_planned: Cell::new(false),
            flush_at: Cell::new(None),
            rounds: Cell::new(0),
        });
        if let Some(Journaled { member, .. }) = &appender.journaled {
            member.appended_by(&appender);
        }
        appender
    }

    pub fn dirty(&self) -> LogPosition {
        self.state.borrow().dirty
    }

    pub fn stable(&self) -> LogPosition {
        self.state.borrow().stable
    }

    pub fn committed(&self) -> LogPosition {
        self.state.borrow().committed
    }

    /// Up to where the segment's file has what is stable.
    pub fn placed(&self) -> LogPosition {
        self.state.borrow().placed
    }

    /// The segment whose file is written now.
    pub fn open_base(&self) -> Offset {
        self.state.borrow().open.base
    }

    pub fn offline(&self) -> Option<Offline> {
        self.offline.borrow().clone()
    }

    /// Takes one whole batch, given in parts, which ends at `end`: dirty when it
    /// returns. `segment` is the open one or its successor.
    pub fn append(self: &Rc<Self>, segment: &Rc<Segment<I>>, parts: [&[u8]; 2], end: LogPosition) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        assert!(!state.closed, "a closed log takes no batch");
        assert!(end.offset > state.dirty.offset, "offsets rise");
        if state.newest.base != segment.base {
            state.go_to(segment);
        }
        let mut left: usize = parts.iter().map(|p| p.len()).sum();
        state.largest_batch = state.largest_batch.max(left);
        assert_eq!(
            state.dirty.pos.0 + left as u64,
            end.pos.0,
            "the batch goes where the segment says"
        );
        for mut part in parts {
            while !part.is_empty() {
                let filling = state.filling_with_room(&self.io, segment, left);
                let n = part.len().min(filling.buf.len() - filling.used);
                filling.buf.as_mut()[filling.used..filling.used + n].copy_from_slice(&part[..n]);
                filling.used += n;
                part = &part[n..];
                left -= n;
            }
        }
        state.dirty = end;
        if let Some(filling) = &mut state.filling {
            filling.whole = end;
        }
        self.flush_soon(state);
    }

    /// Ends the open segment, of which everything is committed, and begins `segment`
    /// without a byte in it. Resolves once its file is there.
    pub async fn begin_segment(self: &Rc<Self>, segment: &Rc<Segment<I>>) -> Result<(), Offline> {
        {
            let mut state = self.state.borrow_mut();
            assert!(!state.closed, "a closed log begins no segment");
            state.go_to(segment);
            self.flush_soon(&mut state);
        }
        let (this, base) = (self.clone(), segment.base);
        self.progress
            .until(move || {
                if this.open_base() >= base {
                    return Some(Ok(()));
                }
                this.offline().map(Err)
            })
            .await
    }

    fn flush_soon(self: &Rc<Self>, state: &mut State<I>) {
        if !state.flushing && !state.held && self.offline.borrow().is_none() {
            state.flushing = true;
            self.io.spawn(self.clone().flush_loop());
        }
    }

    /// The topic's settings changed: what was only stable may have to be synced.
    pub fn reconsider(self: &Rc<Self>) {
        if self.must_sync() {
            self.sync_soon();
        }
        self.progress.wake();
    }

    /// Writes and syncs what there is, cuts the file to its length, marks it. Nothing
    /// can be appended from the call on.
    pub async fn close(self: &Rc<Self>) -> Result<LogPosition, Offline> {
        self.sync_soon();
        self.state.borrow_mut().closed = true;
        self.idle().await;
        if let Some(offline) = self.offline() {
            return Err(offline);
        }
        let (open, committed) = {
            let state = self.state.borrow();
            assert_eq!(state.committed, state.dirty, "the last round synced all");
            (state.open.clone(), state.committed)
        };
        let result = async {
            self.cut_to_length(&open).await?;
            self.marker.commit(self.mark_of(committed)).await?;
            if self.offline().is_none() {
                self.note_settled(committed.offset);
            }
            Ok::<_, Offline>(())
        }
        .await;
        result.inspect_err(|offline| self.latch(offline.clone()))?;
        Ok(committed)
    }

    /// Resolves once no round is under way, nor another write of the segment or of the mark.
    pub async fn idle(self: &Rc<Self>) {
        let this = self.clone();
        self.progress
            .until(move || {
                let flushing = this.state.borrow().flushing;
                (!flushing).then_some(())
            })
            .await;
        drop(self.place_turn().await);
        self.marker.idle().await;
    }

    /// What is in no round yet gathers in memory until this is let go; a round that is under
    /// way goes on. Only for who has the partition's turn: closing waits for the turn, and
    /// so finds no log that is held.
    pub fn hold(self: &Rc<Self>) -> Held<I> {
        let mut state = self.state.borrow_mut();
        assert!(!state.closed && !state.held, "one holds an open log");
        state.held = true;
        Held {
            appender: self.clone(),
            written: false,
        }
    }

    /// Latches the log: from now on it acknowledges nothing. The first reason stays.
    pub fn latch(&self, offline: Offline) {
        self.offline.borrow_mut().get_or_insert(offline);
        self.progress.wake();
    }

    async fn flush_loop(self: Rc<Self>) {
        loop {
            let round = {
                let mut state = self.state.borrow_mut();
                let round = match state.held || self.offline.borrow().is_some() {
                    true => None,
                    false => state.next_round(),
                };
                state.flushing = round.is_some();
                round
            };
            let Some(round) = round else { break };
            if let Err(offline) = self.flush(round).await {
                self.state.borrow_mut().flushing = false;
                self.fail(offline);
                return;
            }
        }
        self.progress.wake();
        if !self.last_by_journal.get() {
            self.plan_idle_mark();
            self.plan_idle_sync();
        }
    }

    /// Latches the log for what its disk said.
    fn fail(&self, offline: Offline) {
        if self.offline().is_none() {
            log::error!(
                "{}: {offline}; it takes no more records until the broker is restarted",
                self.dir.display()
            );
        }
        self.latch(offline);
    }

    async fn flush(self: &Rc<Self>, round: Round<I>) -> Result<(), Offline> {
        self.rounds.set(self.rounds.get() + 1);
        let open = self.state.borrow().open.clone();
        if open.base != round.segment.base {
            self.roll(&open, &round.segment).await?;
        }
        let bytes_end = round
            .chunks
            .last()
            .map_or(BytePos::ZERO, |c| c.start.plus(c.buf.len() as u64));
        if !round.chunks.is_empty() {
            if self.journal_round(&round).await? {
                return Ok(());
            }
            if self.write_round(&round, bytes_end).await? {
                self.last_by_journal.set(false);
                return self.mark_synced(&round.segment, bytes_end).await;
            }
        }
        self.last_by_journal.set(false);
        if self.must_sync() {
            self.sync_and_mark(&round.segment, bytes_end).await?;
        }
        Ok(())
    }

    /// Writes a round to its segment, behind what is yet to be placed there. True: it is
    /// synced as well.
    async fn write_round(self: &Rc<Self>, round: &Round<I>, end: BytePos) -> Result<bool, Offline> {
        let turn = self.place_turn().await;
        let writing = self.profile.writing(&self.io);
        self.place_in(&turn).await?;
        let file = self.file_of(&round.segment);
        self.reserve(&round.segment, &file, end.0).await?;
        let mark = self.mark_of(self.committed());
        if !self.marker.covers(round.segment.base, end) {
            // `flush.messages` was raised, or a batch came that is larger than any was.
            self.marker.commit(mark).await?;
        }
        assert!(
            self.marker.covers(round.segment.base, end),
            "no byte beyond the window of a synced mark"
        );
        let sync_turn = match self.write_syncs(round) {
            true => Some(self.sync_turn().await?),
            false => None,
        };
        let whole = round.whole;
        let note_written = || {
            let bytes = round.chunks.iter().map(|c| c.buf.len() as u64).sum();
            self.profile.written(&self.io, writing, whole.offset, bytes);
        };
        // A synced write counts as a sync, all of it.
        let syncing = sync_turn.as_ref().map(|_| {
            note_written();
            self.profile.syncing(&self.io)
        });
        let writes = self.write_chunks(round, &file, sync_turn.is_some());
        let (written, marked) = join(writes, self.marker.note(mark)).await;
        // Before the turn ends: who syncs next would be told that all is well.
        written.inspect_err(|offline| self.fail(offline.clone()))?;
        marked?;
        match syncing {
            Some(syncing) => self.profile.synced(&self.io, syncing),
            None => note_written(),
        }
        for chunk in &round.chunks {
            self.tail_cache.add(&self.tail, chunk.clone());
        }
        self.check_online()?;
        {
            let mut state = self.state.borrow_mut();
            assert!(state.stable.offset <= whole.offset && whole.offset <= state.dirty.offset);
            state.stable = whole;
            state.placed = whole;
        }
        drop(turn);
        if let Some(sync_turn) = sync_turn {
            drop(sync_turn);
            self.note_synced(whole)?;
            return Ok(true);
        }
        // Where an acknowledgement waits for the sync, nobody has news before that.
        if !self.config.borrow().acks_committed() {
            self.progress.wake();
        }
        Ok(false)
    }

    async fn write_chunks(
        &self,
        round: &Round<I>,
        file: &I::File,
        synced: bool,
    ) -> Result<(), Offline> {
        let writes = round.chunks.iter().map(async |chunk| {
            let (buf, pos) = (chunk.buf.clone(), chunk.start.0);
            match synced {
                true => write_whole_synced(&self.io, file, buf, pos).await,
                false => write_whole(&self.io, file, buf, pos).await,
            }
        });
        let written: Result<(), _> = join_all(writes).await.into_iter().collect();
        written.map_err(|e| Offline::failed("write", &round.segment.path, e))
    }

    /// Moves the positions, unless the log went offline meanwhile: then nothing more is
    /// acknowledged, whatever the disk says.
    fn advance(&self, change: impl FnOnce(&mut State<I>)) -> Result<(), Offline> {
        self.check_online()?;
        change(&mut self.state.borrow_mut());
        self.progress.wake();
        Ok(())
    }

    fn check_online(&self) -> Result<(), Offline> {
        self.offline().map_or(Ok(()), Err)
    }

    /// Grows the file ahead of the writes, so that they find their blocks reserved.
    async fn reserve(
        &self,
        segment: &Segment<I>,
        file: &Rc<I::File>,
        bytes_end: u64,
    ) -> Result<(), Offline> {
        let allocated = self.state.borrow().allocated;
        if bytes_end <= allocated {
            return Ok(());
        }
        let step = (allocated / 4).clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX);
        let segment_bytes = self
            .config
            .borrow()
            .segment_bytes
            .next_multiple_of(BLOCK as u64);
        let want = (allocated + step)
            .min(segment_bytes)
            .max(bytes_end)
            .next_multiple_of(BLOCK as u64);
        let need = bytes_end.next_multiple_of(BLOCK as u64);
        let (allocated, result) = match file.allocate(want).await {
            // Too little room to reserve ahead may still be enough for what is there.
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull && need < want => {
                (need, file.allocate(need).await)
            }
            result => (want, result),
        };
        match result {
            Ok(()) => {
                self.state.borrow_mut().allocated = allocated;
                Ok(())
            }
            // A file system without fallocate: the file grows by its writes instead.
            Err(e) if e.kind() == std::io::ErrorKind::Unsupported => Ok(()),
            Err(e) => Err(Offline::failed("reserve room in", &segment.path, e)),
        }
    }

    /// Ends one segment and begins the next. The order is what recovery relies on.
    async fn roll(
        self: &Rc<Self>,
        old: &Rc<Segment<I>>,
        new: &Rc<Segment<I>>,
    ) -> Result<(), Offline> {
        if self.committed() != old.end() {
            self.sync(old).await?;
        }
        self.cut_to_length(old).await?;
        self.note_settled(new.base);
        self.write_indexes(old).await?;
        let snapshot = new.birth_snapshot.borrow_mut().take();
        if let Some(snapshot) = snapshot {
            let path = self.dir.join(file_name(new.base, "snapshot"));
            self.io
                .replace_file(&path, snapshot)
                .await
                .map_err(|e| Offline::failed("write", path, e))?;
        }
        let file = self
            .io
            .open(&new.path, Open::New)
            .await
            .map_err(|e| Offline::failed("create", &new.path, e))?;
        self.io
            .sync_dir(&self.dir)
            .await
            .map_err(|e| Offline::failed("sync", &self.dir, e))?;
        new.set_file(Rc::new(file));
        self.advance(|state| {
            assert_eq!(
                state.committed.offset, new.base,
                "the old one is synced whole"
            );
            state.open = new.clone();
            state.allocated = 0;
            // The same offset, at its new place.
            state.stable = new.start();
            state.committed = new.start();
            state.placed = new.start();
            state.sync_due &= state.committed != state.dirty;
        })
    }

    /// Takes the preallocated room behind the last batch away, once that is there.
    async fn cut_to_length(self: &Rc<Self>, segment: &Rc<Segment<I>>) -> Result<(), Offline> {
        self.place().await?;
        let file = self.file_of(segment);
        let path = &segment.path;
        let turn = self.sync_turn().await?;
        file.truncate(segment.size_bytes())
            .await
            .map_err(|e| Offline::failed("cut", path, e))?;
        self.sync_file(segment).await?;
        drop(turn);
        self.state.borrow_mut().allocated = segment.size_bytes();
        Ok(())
    }

    /// Writes a sealed segment's index files.
    pub async fn write_indexes(&self, segment: &Rc<Segment<I>>) -> Result<(), Offline> {
        let Some(indexes) = segment.indexes() else {
            return Ok(());
        };
        let (offsets, times) = {
            let indexes = indexes.borrow();
            (indexes.offsets.encode(), indexes.times.encode())
        };
        for (extension, bytes) in [("index", offsets), ("timeindex", times)] {
            let path = self.dir.join(file_name(segment.base, extension));
            self.io
                .replace_file(&path, bytes)
                .await
                .map_err(|e| Offline::failed("write", path, e))?;
        }
        Ok(())
    }

    fn file_of(&self, segment: &Rc<Segment<I>>) -> Rc<I::File> {
        segment.file().expect("the open segment has a file")
    }

    /// Resolves once everything below `upto` is safe enough to be acknowledged.
    pub fn acknowledged(
        self: &Rc<Self>,
        upto: Offset,
    ) -> impl Future<Output = Result<(), Offline>> + 'static {
        let this = self.clone();
        self.progress.until(move || {
            if this.acknowledged_end().offset >= upto {
                return Some(Ok(()));
            }
            this.offline().map(Err)
        })
    }

    /// Committed, or stable where the topic does not sync before it answers.
    pub fn acknowledged_end(&self) -> LogPosition {
        let state = self.state.borrow();
        if self.config.borrow().acks_committed() {
            state.committed
        } else {
            state.stable
        }
    }
}

/// Keeps the log's writes back while a file that must be there before them is written.
pub struct Held<I: Io> {
    appender: Rc<Appender<I>>,
    written: bool,
}

impl<I: Io> Held<I> {
    /// The file is there: what has gathered may follow.
    pub fn let_go(mut self) {
        self.written = true;
    }
}

impl<I: Io> Drop for Held<I> {
    fn drop(&mut self) {
        if !self.written {
            // Given up half-way: nobody knows whether the file is there, and what has
            // gathered relies on it. Where there is a reason it was latched before.
            self.appender.latch(Offline::closed());
        }
        let mut state = self.appender.state.borrow_mut();
        state.held = false;
        self.appender.flush_soon(&mut state);
    }
}
