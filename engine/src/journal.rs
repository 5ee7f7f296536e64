//! One sync for all partitions of a shard.
//!
//! ```text
//!   round of orders-0    --+                                       +-- its segment
//!   round of orders-1    --+                                       |   its segment, later
//!   round of payments-7  --+                                       |        |
//!                          +-> gathered -> group: one write, synced         synced much later
//!                                                 committed
//!
//!   DATA/journal/0-0.journal  |head| group | group | group | older ones
//!                0-1.journal  |head|   the next file, once this one is full
//! ```
//!
//! A small round of group commit is *committed* once it is written and synced here. Its
//! segment gets it later, in one write with others that came behind it (backlog.rs,
//! appender/placing.rs). So a thousand partitions that are written at once cost one write and
//! one sync; and a lone one is synced by overwriting blocks that the file already has, which
//! costs a file system less than a file that grows.
//!
//! - Continuous, as an appender's rounds are: while one group is written and synced, what
//!   comes gathers for the next.
//! - A group begins at a block of its own: no block that holds a synced group is ever
//!   written again before its file is *settled*, so a torn write hurts only what was never
//!   acknowledged. A group is written after the one before it was synced: a bad group with
//!   a whole one behind it is damage, never a torn tail.
//! - A file is written again only once it is settled: what each partition has in it is
//!   synced in the partition's own segment ([`Member::settled`]), or the partition is
//!   gone. Full, a file is settled in the background while the other is written.
//! - A partition that went offline can't be settled. A file with bytes of it is kept as it
//!   is, for the replay of the next start, and another takes its place: at most the two
//!   files that were in use for a partition that failed.
//! - Each use of a file has a generation of its own, in its header and in every group, so
//!   that older groups behind the newest one never count.
//! - The first failed write or sync latches the journal, and each partition that then has
//!   bytes for it: nothing of it is acknowledged. No room is no failure: as long as nothing
//!   was written the partitions sync for themselves, as they do without a journal.
//!
//! What a start makes of it: replay.rs. The bytes: layout.rs.

mod backlog;
mod files;
pub mod layout;
mod member;
mod replay;
mod settling;
mod zeros;

pub use backlog::Backlog;
pub use member::Member;
pub(crate) use replay::KnownFolder;
pub use replay::{ReplayConfig, Replayed, replay};

use crate::error::Offline;
use crate::io::{BLOCK, Buf, File, Io, write_whole, write_whole_synced};
use crate::segment::LogPosition;
use crate::signal::Signal;
use crate::tail::Chunk;
use crate::units::{Nanos, ShardId};
use files::{JournalFile, Used, earlier};
use futures_channel::oneshot;
use futures_util::future::join;
use layout::{FOLDER, GROUP_HEAD_BYTES, Place, encode_group, entry_bytes, group_room};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use zeros::Ready;

/// One group at most, so that what waits for it does not wait for much more than a sync.
const GROUP_BYTES_MAX: usize = 2 << 20;

#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// A file is full at this size. The larger it is, the more of a partition's rounds are
    /// settled together; but as much may have to be read, and written where it is missing, at
    /// the start after a crash.
    pub file_bytes: u64,
    /// A file grows by so much, zeros, until it is of full size: afterwards no commit
    /// changes the file system's own books. Zeros are written ahead of the groups, as much
    /// again as there are (zeros.rs); where groups come faster, beside them.
    pub grow_bytes: u64,
    /// Larger rounds sync for themselves: written twice, they would cost more than a sync.
    pub entry_bytes_max: usize,
    /// Memory of what waits to be written to its segments.
    pub backlog_bytes_max: usize,
    /// A file with entries of so many partitions is settled by one sync of the whole file
    /// system.
    pub sync_all_from: usize,
}

impl Default for JournalConfig {
    fn default() -> JournalConfig {
        JournalConfig {
            file_bytes: 128 << 20,
            grow_bytes: 1 << 20,
            entry_bytes_max: 64 << 10,
            backlog_bytes_max: 128 << 20,
            sync_all_from: 64,
        }
    }
}

pub struct Journal<I: Io> {
    io: I,
    dir: PathBuf,
    shard: ShardId,
    config: JournalConfig,
    state: RefCell<State<I>>,
    /// Wakes when nothing waits any more, when a file was settled, when the journal failed.
    progress: Rc<Signal>,
    failed: RefCell<Option<Offline>>,
    told_no_room: Cell<bool>,
    /// A file is being settled; another one waits for its turn.
    settles: Cell<bool>,
    backlog: Rc<Backlog<I>>,
}

struct State<I: Io> {
    current: Option<Used<I>>,
    free: Vec<JournalFile<I>>,
    /// Files that are being settled.
    settling: usize,
    /// Files with bytes of partitions that could not be settled.
    kept: Vec<Used<I>>,
    /// The number of the next file that is made.
    next_number: u32,
    generation: u64,
    /// Generations and groups of the files that are full and not settled.
    ended: Vec<(u64, u64)>,
    gathered: VecDeque<Waiting<I>>,
    flushing: bool,
}

/// A round that waits for its group.
struct Waiting<I: Io> {
    member: Rc<Member<I>>,
    place: Place,
    bytes: usize,
    chunks: Vec<Rc<Chunk<I>>>,
    tell: oneshot::Sender<Taken>,
}

/// What became of a round that was given to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is here: written by the one moment, synced by the other.
    Synced { written: Nanos, synced: Nanos },
    /// There was no room: its partition has to sync it.
    No,
}

impl<I: Io> Journal<I> {
    /// A shard's journal, after [`replay`] has seen to what a crash left of all of them.
    pub async fn open(
        io: I,
        data: &Path,
        shard: ShardId,
        config: JournalConfig,
    ) -> Result<Rc<Journal<I>>, Offline> {
        assert!(config.file_bytes.is_multiple_of(BLOCK as u64));
        assert!(config.grow_bytes.is_multiple_of(BLOCK as u64) && config.grow_bytes > 0);
        let dir = data.join(FOLDER);
        let mut free = Vec::new();
        let (mut next_number, mut generation) = (0, 0);
        let found = replay::files_of(&io, &dir, shard).await?;
        if !found.is_empty() {
            // Made by a process that was killed, their names may not be committed.
            for folder in [dir.as_path(), data] {
                let synced = io.sync_dir(folder).await;
                synced.map_err(|e| Offline::failed("sync", folder, e))?;
            }
        }
        for (number, path) in found {
            let (file, header) = replay::open_file::<I>(&io, &path).await?;
            assert!(
                header.as_ref().is_none_or(|h| !h.used),
                "{}: replayed before it is opened",
                path.display()
            );
            let len = file
                .len()
                .await
                .map_err(|e| Offline::failed("measure", &path, e))?;
            next_number = next_number.max(number + 1);
            generation = generation.max(header.map_or(0, |h| h.generation));
            free.push(JournalFile {
                path,
                file,
                ready: Ready::new(len / BLOCK as u64 * BLOCK as u64),
                used: false,
            });
        }
        Ok(Rc::new(Journal {
            io,
            dir,
            shard,
            config,
            state: RefCell::new(State {
                current: None,
                free,
                settling: 0,
                kept: Vec::new(),
                next_number,
                generation,
                ended: Vec::new(),
                gathered: VecDeque::new(),
                flushing: false,
            }),
            progress: Signal::new(),
            failed: RefCell::default(),
            told_no_room: Cell::new(false),
            settles: Cell::new(false),
            backlog: Backlog::new(config.backlog_bytes_max),
        }))
    }

    /// What waits to be written to its segments.
    pub fn backlog(&self) -> &Rc<Backlog<I>> {
        &self.backlog
    }

    /// Whether a round of so many bytes goes here.
    pub fn takes(&self, bytes: usize) -> bool {
        bytes <= self.config.entry_bytes_max
    }

    /// Takes a round's bytes, from one position of a segment to another, which are in
    /// `chunks`. Resolves once they are synced here.
    pub fn commit(
        self: &Rc<Self>,
        member: &Rc<Member<I>>,
        from: LogPosition,
        to: LogPosition,
        chunks: Vec<Rc<Chunk<I>>>,
    ) -> impl Future<Output = Result<Taken, Offline>> + 'static {
        assert!(from.segment == to.segment && from.pos < to.pos && from.offset < to.offset);
        // A channel each: of a thousand rounds that wait only those of a group are woken.
        let (tell, told) = oneshot::channel();
        if self.failed.borrow().is_none() {
            let mut state = self.state.borrow_mut();
            state.gathered.push_back(Waiting {
                member: member.clone(),
                place: Place {
                    id: member.id,
                    folder: member.folder.clone(),
                    segment: from.segment,
                    pos: from.pos,
                    from: from.offset,
                    to: to.offset,
                },
                bytes: (to.pos.0 - from.pos.0) as usize,
                chunks,
                tell,
            });
            if !state.flushing {
                state.flushing = true;
                self.io.spawn(self.clone().flush_loop());
            }
        }
        let this = self.clone();
        async move {
            told.await.map_err(|_| {
                let failed = this.failed.borrow().clone();
                failed.expect("a round that is let go of without a word was not committed")
            })
        }
    }

    async fn flush_loop(self: Rc<Self>) {
        loop {
            let group = {
                let mut state = self.state.borrow_mut();
                let group = state.next_group(self.group_bytes_max());
                state.flushing = !group.is_empty();
                group
            };
            if group.is_empty() {
                break;
            }
            match self.write(&group).await {
                // Who does not listen any more was closed.
                Ok(taken) => group.into_iter().for_each(|w| {
                    let _ = w.tell.send(taken);
                }),
                Err(offline) => {
                    log::error!(
                        "{offline}; the shard acknowledges no small round until the broker is restarted"
                    );
                    self.failed.borrow_mut().get_or_insert(offline);
                    let gathered = {
                        let mut state = self.state.borrow_mut();
                        state.flushing = false;
                        std::mem::take(&mut state.gathered)
                    };
                    drop((group, gathered));
                    break;
                }
            }
        }
        self.progress.wake();
    }

    fn group_bytes_max(&self) -> usize {
        let room = self.config.file_bytes - BLOCK as u64;
        // Padding is less than a quarter.
        GROUP_BYTES_MAX.min(usize::try_from(room / 5 * 4).unwrap_or(usize::MAX))
    }

    async fn write(self: &Rc<Self>, group: &[Waiting<I>]) -> Result<Taken, Offline> {
        let bytes = GROUP_HEAD_BYTES + group.iter().map(Waiting::size).sum::<usize>();
        let blocks = group_room(bytes);
        if !self.make_room(blocks as u64).await? {
            if !self.told_no_room.replace(true) {
                log::warn!(
                    "{}: no room for the journal; each partition syncs for itself, which is slower",
                    self.dir.display()
                );
            }
            return Ok(Taken::No);
        }
        let (file, path, generation, end, number, ready) = {
            let state = self.state.borrow();
            let current = state.current.as_ref().expect("there is room in it");
            (
                current.file.file.clone(),
                current.file.path.clone(),
                current.generation,
                current.end,
                current.groups,
                current.file.ready.clone(),
            )
        };
        let mut buf = self.io.alloc(blocks);
        let entries: Vec<_> = group.iter().map(|w| (&w.place, w.parts())).collect();
        encode_group(buf.as_mut(), generation, number, &entries);
        let behind = end + blocks as u64;
        let grown = behind
            .next_multiple_of(self.config.grow_bytes)
            .min(self.config.file_bytes)
            .max(behind);
        if behind <= ready.written.get() {
            // Nothing else is to be synced: one wait for the disk instead of two, which
            // counts as a sync.
            let written_at = self.io.now();
            write_whole_synced(&self.io, &file, Rc::new(buf), end)
                .await
                .map_err(|e| Offline::failed("write", &path, e))?;
            return Ok(self.note_synced(group, behind, written_at));
        }
        let group_write = write_whole(&self.io, &file, Rc::new(buf), end);
        let zeros = async {
            if behind == grown {
                return Ok(());
            }
            let mut zeros = self.io.alloc((grown - behind) as usize);
            zeros.as_mut().fill(0);
            write_whole(&self.io, &file, Rc::new(zeros), behind).await
        };
        let (first, second) = join(group_write, zeros).await;
        first
            .and(second)
            .map_err(|e| Offline::failed("write", &path, e))?;
        let written_at = self.io.now();
        file.fdatasync()
            .await
            .map_err(|e| Offline::failed("sync", &path, e))?;
        ready.written.set(grown);
        Ok(self.note_synced(group, behind, written_at))
    }

    /// A group is in the current file, and synced: it ends there.
    fn note_synced(self: &Rc<Self>, group: &[Waiting<I>], behind: u64, written: Nanos) -> Taken {
        let synced = self.io.now();
        let mut state = self.state.borrow_mut();
        let current = state.current.as_mut().expect("nobody else ends its use");
        current.end = behind;
        current.groups += 1;
        for waiting in group {
            let known = current
                .members
                .entry(Rc::as_ptr(&waiting.member))
                .or_insert_with(|| (waiting.member.clone(), waiting.place.to));
            known.1 = known.1.max(waiting.place.to);
        }
        drop(state);
        self.zero_ahead();
        Taken::Synced { written, synced }
    }

    /// Sees to it that so many bytes fit into the current file. False: the disk is full.
    async fn make_room(self: &Rc<Self>, bytes: u64) -> Result<bool, Offline> {
        loop {
            let grow = {
                let state = self.state.borrow();
                let current = state.current.as_ref();
                current
                    .filter(|current| current.end + bytes <= current.limit)
                    .map(|current| {
                        let file = &current.file;
                        let end = current.end + bytes;
                        (
                            file.file.clone(),
                            file.path.clone(),
                            file.ready.clone(),
                            end,
                        )
                    })
            };
            let Some((file, path, ready, end)) = grow else {
                if !self.next_file(bytes).await? {
                    return Ok(false);
                }
                continue;
            };
            if end <= ready.written.get() {
                return Ok(true);
            }
            if ready.zeroing.get() {
                self.until_zeroed(&ready).await;
                continue;
            }
            let want = end
                .next_multiple_of(self.config.grow_bytes)
                .min(self.config.file_bytes)
                .max(end);
            match file.allocate(want).await {
                Ok(()) => return Ok(true),
                // A file system without fallocate: the file grows by its writes.
                Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(true),
                Err(e) if e.kind() == ErrorKind::StorageFull => {
                    let mut state = self.state.borrow_mut();
                    let current = state.current.as_mut().expect("it was just looked at");
                    if current.groups == 0 {
                        return Ok(false);
                    }
                    // What it has must do.
                    current.limit = current.file.ready.written.get();
                }
                Err(e) => return Err(Offline::failed("reserve room in", path, e)),
            }
        }
    }
}

impl<I: Io> Journal<I> {
    /// After all partitions of the shard were closed in order: says that nothing here
    /// counts any more. A file with bytes of a partition that could not be settled stays as
    /// it is.
    pub async fn close(&self) -> Result<(), Offline> {
        self.progress
            .until(|| {
                let state = self.state.borrow();
                let zeroing = state
                    .current
                    .as_ref()
                    .is_some_and(|c| c.file.ready.zeroing.get());
                (!state.flushing && state.settling == 0 && !zeroing).then_some(())
            })
            .await;
        let retired: Vec<(Rc<I::File>, PathBuf, u64)> = {
            let mut state = self.state.borrow_mut();
            let generation = state.generation;
            let current = state.current.take();
            let kept = std::mem::take(&mut state.kept);
            let (settled, kept) = kept
                .into_iter()
                .chain(current)
                .partition::<Vec<_>, _>(Used::is_settled);
            state.kept = kept;
            for used in settled {
                state.free_up(used);
            }
            let used = state.free.iter_mut().filter(|file| file.used);
            used.map(|file| {
                file.used = false;
                (file.file.clone(), file.path.clone(), generation)
            })
            .collect()
        };
        let kept = earlier(&self.state.borrow().ended);
        for (file, path, generation) in retired {
            replay::retire(&self.io, &file, &path, generation, kept.clone()).await?;
        }
        Ok(())
    }
}

impl<I: Io> Waiting<I> {
    fn size(&self) -> usize {
        entry_bytes(&self.place.folder, self.bytes)
    }

    /// Its bytes, as they lie in the chunks. A chunk may begin with the partial block of
    /// the one before it.
    fn parts(&self) -> Vec<&[u8]> {
        let mut at = self.place.pos;
        let end = at.plus(self.bytes as u64);
        let mut parts = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let to = chunk.end.min(end);
            parts.push(chunk.slice(at, to));
            at = to;
        }
        assert_eq!(at, end, "the chunks hold the round");
        parts
    }
}

impl<I: Io> State<I> {
    /// What has gathered, as far as it goes in one group.
    fn next_group(&mut self, bytes_max: usize) -> Vec<Waiting<I>> {
        let mut bytes = GROUP_HEAD_BYTES;
        let mut count = 0;
        for waiting in &self.gathered {
            bytes += waiting.size();
            if count > 0 && bytes > bytes_max {
                break;
            }
            count += 1;
        }
        self.gathered.drain(..count).collect()
    }
}
