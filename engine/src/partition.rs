//! One partition of a topic: what is appended to it and what may be read of it.
//!
//! ```text
//!                append                                   read
//!   batch -> check -> fence producer -> stamp ->+    +-> clamp to the high watermark
//!                                               v    |
//!   |--- log start --------------- high watermark ------ log end
//!   |    readable                 |  dirty or stable   |
//! ```
//!
//! - `log start <= high watermark <= log end`; the last two never fall while it is open.
//! - An append does not wait: the order of calls is the order in the log. Its answer
//!   waits in [`Partition::acknowledged`].
//! - The high watermark is the committed offset, or the stable one where the topic does
//!   not sync before it answers (`flush.messages`). A reader sees nothing beyond it.
//! - The first failed write or sync, and the first damage found, takes the partition
//!   offline: nothing is acknowledged from then on.

use crate::appender::{Appender, Journaled, Resume};
use crate::batch::{BatchError, BatchHeader, check_from_client};
use crate::checkpoint;
use crate::config::LogConfig;
use crate::epochs::LeaderEpochs;
use crate::error::Offline;
use crate::io::Io;
use crate::journal::{Journal, Member};
use crate::producer::{Check, ProducerState, SequenceError};
use crate::profile::{LogProfile, Round};
use crate::reader::Hints;
use crate::recovery::{self, Before, EPOCHS_FILE_NAME, Look};
use crate::segment::{LogPosition, Segment, file_name};
use crate::tail::{Tail, TailCache};
use crate::units::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use zerocopy::IntoBytes;

pub struct Partition<I: Io> {
    pub(crate) id: PartitionId,
    pub(crate) io: I,
    pub(crate) dir: PathBuf,
    pub(crate) config: Rc<RefCell<LogConfig>>,
    pub(crate) tail: Rc<Tail<I>>,
    pub(crate) hints: Hints,
    appender: Rc<Appender<I>>,
    log: RefCell<Log<I>>,
    log_start: Cell<Offset>,
    leader_epoch: Cell<LeaderEpoch>,
    /// Never falls, even where the topic's `flush.messages` changes meanwhile.
    high_watermark: Cell<LogPosition>,
    closing: Cell<bool>,
    /// What closing it came to.
    closed: RefCell<Option<Result<(), Offline>>>,
    pub(crate) checkpoints: checkpoint::Progress,
    /// One retention, DeleteRecords or checkpoint at a time (retention.rs).
    pub(crate) upkeep: Cell<bool>,
}

struct Log<I: Io> {
    segments: BTreeMap<Offset, Rc<Segment<I>>>,
    producers: ProducerState,
    epochs: LeaderEpochs,
}

/// How a partition is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// The broker stopped in order, so what a clean close wrote may be trusted.
    pub clean: bool,
    /// The epoch of the leadership that begins: written into every batch.
    pub leader_epoch: LeaderEpoch,
}

/// Of a log that is no topic's.
const ALONE: PartitionId = PartitionId {
    topic: TopicId([0; 16]),
    index: 0,
};

/// What a log shares with the others of its shard.
pub struct Surroundings<I: Io> {
    pub id: PartitionId,
    pub tail_cache: Rc<TailCache<I>>,
    /// Where rounds and syncs are reported.
    pub profile: LogProfile,
    /// Where small rounds are synced.
    pub journal: Option<Rc<Journal<I>>>,
    /// See [`Before::committed`].
    pub committed: Option<u64>,
}

impl<I: Io> Surroundings<I> {
    /// Of a log that is the only one: it syncs its own segments.
    pub fn alone(tail_cache: Rc<TailCache<I>>) -> Surroundings<I> {
        Surroundings {
            id: ALONE,
            tail_cache,
            profile: LogProfile::default(),
            journal: None,
            committed: None,
        }
    }
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// Below it every transaction is decided. Without transactions: the high watermark.
    pub last_stable: Offset,
    pub log_end: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// What to wait for: everything below it.
    pub next_offset: Offset,
    /// -1 unless the topic stamps the time of the append.
    pub log_append_time: TimestampMs,
    pub log_start: Offset,
    /// It was in the log already; these are the first append's offsets.
    pub duplicate: bool,
}

/// Why a batch is not taken.
#[derive(Clone, Debug)]
pub enum AppendError {
    Batch(BatchError),
    Sequence(SequenceError),
    /// `message.timestamp.before.max.ms`, `message.timestamp.after.max.ms`
    InvalidTimestamp {
        is: TimestampMs,
        now: TimestampMs,
    },
    /// Transactions are not there yet: a transactional batch has no coordinator to
    /// have registered it.
    Transactional,
    Offline(Offline),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Batch(e) => e.fmt(f),
            AppendError::Sequence(e) => e.fmt(f),
            AppendError::InvalidTimestamp { is, now } => {
                write!(
                    f,
                    "timestamp {is} is too far from the broker's time {now} for this topic"
                )
            }
            AppendError::Transactional => write!(
                f,
                "the batch is transactional, but no transaction was begun for it"
            ),
            AppendError::Offline(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for AppendError {}

impl<I: Io> Partition<I> {
    /// Opens the log in `dir`, or makes it; see recovery.rs for what a crash leaves.
    pub async fn open(
        io: I,
        dir: PathBuf,
        config: LogConfig,
        options: OpenOptions,
        tail_cache: Rc<TailCache<I>>,
    ) -> Result<Rc<Partition<I>>, Offline> {
        let around = Surroundings::alone(tail_cache);
        let found = recovery::look(&io, &dir, options.clean).await?;
        Partition::open_in(io, dir, config, options, around, found).await
    }

    /// The same, as one of a shard's logs, whose folder was looked into.
    pub async fn open_in(
        io: I,
        dir: PathBuf,
        config: LogConfig,
        options: OpenOptions,
        around: Surroundings<I>,
        found: Option<Look<I>>,
    ) -> Result<Rc<Partition<I>>, Offline> {
        let before = Before {
            id: around.id,
            clean: options.clean,
            committed: around.committed,
        };
        let mut opened = recovery::open(&io, &dir, &config, before, found).await?;
        // A folder that was taken over may know later epochs than our coordinator does. Epochs
        // never fall along a log: followers and consumers cut by them.
        let latest = opened.epochs.latest().map(|e| e.epoch);
        let leader_epoch = latest.map_or(options.leader_epoch, |e| e.max(options.leader_epoch));
        if opened.epochs.assign(leader_epoch, opened.end.offset) {
            write_epochs(&io, &dir, &opened.epochs).await?;
        }
        let config = Rc::new(RefCell::new(config));
        let tail = Rc::new(Tail::default());
        let open = opened.segments.values().next_back().cloned();
        let open = open.expect("an opened log has a segment");
        let resume = Resume {
            open,
            end: opened.end,
            head: opened.head,
            file_len: opened.file_len,
            mark_file: opened.mark_file,
            marked: opened.marked,
            profile: around.profile,
        };
        let journaled = around.journal.map(|journal| {
            let folder = dir.file_name().and_then(|name| name.to_str());
            let folder = folder.expect("a legal topic name and a number");
            let member = Member::new(around.id, folder, resume.end.offset);
            Journaled { journal, member }
        });
        let appender = Appender::new(
            io.clone(),
            dir.clone(),
            config.clone(),
            tail.clone(),
            around.tail_cache,
            resume,
            journaled,
        );
        appender.mark_opened().await?;
        Ok(Rc::new(Partition {
            id: around.id,
            io,
            dir,
            config,
            tail,
            hints: Hints::default(),
            appender,
            log: RefCell::new(Log {
                segments: opened.segments,
                producers: opened.producers,
                epochs: opened.epochs,
            }),
            log_start: Cell::new(opened.log_start),
            leader_epoch: Cell::new(leader_epoch),
            high_watermark: Cell::new(opened.end),
            closing: Cell::new(false),
            closed: RefCell::default(),
            checkpoints: checkpoint::Progress::from(opened.checkpointed),
            upkeep: Cell::new(false),
        }))
    }

    /// Takes a client's record batch: checked, fenced, stamped and in memory (dirty)
    /// when this returns.
    pub fn append(&self, bytes: &[u8]) -> Result<Appended, AppendError> {
        if let Some(offline) = self.offline() {
            return Err(AppendError::Offline(offline));
        }
        let batch = {
            let config = self.config.borrow();
            check_from_client(bytes, config.batch_bytes_max).map_err(AppendError::Batch)?
        };
        let mut header = *batch.header();
        let records = batch.records_bytes();
        if header.is_transactional() {
            return Err(AppendError::Transactional);
        }
        let now = self.io.wall();
        if let Some(duplicate) = self.check_producer(&header)? {
            return Ok(duplicate);
        }
        let config = self.config.borrow();
        let mut log_append_time = TimestampMs::NONE;
        if config.log_append_time {
            log_append_time = now;
            header.stamp_log_append_time(now, records);
        } else {
            // Lookups skip batches by it, and it is only the producer's word.
            if let Some(max) = batch.max_timestamp_of_records() {
                header.stamp_max_timestamp(max, records);
            }
            check_timestamps(&header, &config, now)?;
        }
        let appended = self.append_stamped(header, records, &config, now);
        Ok(Appended {
            log_append_time,
            ..appended
        })
    }

    /// The answer to a batch that is in the log already, or an error that fences it.
    fn check_producer(&self, header: &BatchHeader) -> Result<Option<Appended>, AppendError> {
        if !header.has_producer_id() {
            return Ok(None);
        }
        let log = self.log.borrow();
        let check = log
            .producers
            .check(
                header.producer_id(),
                header.producer_epoch(),
                header.base_sequence(),
                header.last_sequence(),
            )
            .map_err(AppendError::Sequence)?;
        Ok(match check {
            Check::Fresh => None,
            Check::Duplicate {
                base_offset,
                last_offset,
                timestamp,
            } => Some(Appended {
                base_offset,
                next_offset: last_offset.plus(1),
                log_append_time: if self.config.borrow().log_append_time {
                    timestamp
                } else {
                    TimestampMs::NONE
                },
                log_start: self.log_start.get(),
                duplicate: true,
            }),
        })
    }

    fn append_stamped(
        &self,
        mut header: BatchHeader,
        records: &[u8],
        config: &LogConfig,
        now: TimestampMs,
    ) -> Appended {
        let base_offset = self.appender.dirty().offset;
        header.stamp(base_offset, self.leader_epoch.get());
        let header = &header;
        let mut log = self.log.borrow_mut();
        let segment = log.segment_for(&self.dir, header, config, now);
        segment.extend(header, config.index_interval_bytes, now);
        log.producers.apply(header);
        self.appender
            .append(&segment, [header.as_bytes(), records], segment.end());
        let (end, bytes) = (
            header.next_offset(),
            header.as_bytes().len() + records.len(),
        );
        self.appender
            .profile
            .appended(end, end.0 - base_offset.0, bytes as u64);
        Appended {
            base_offset,
            next_offset: header.next_offset(),
            log_append_time: TimestampMs::NONE,
            log_start: self.log_start.get(),
            duplicate: false,
        }
    }

    /// Resolves once everything below `upto` may be acknowledged, or with why it never
    /// will be.
    pub fn acknowledged(
        &self,
        upto: Offset,
    ) -> impl Future<Output = Result<(), Offline>> + 'static {
        self.appender.acknowledged(upto)
    }

    /// How the newest records that are acknowledged came to be so: asked at once after
    /// [`Partition::acknowledged`], it is of the round that was waited for.
    pub fn round(&self) -> Round {
        let committed = self.config.borrow().acks_committed();
        self.appender.profile.round(committed)
    }

    /// Resolves once a reader can see more than `offset`, or the partition is offline or
    /// closed (then the read says so).
    pub fn beyond(self: &Rc<Self>, offset: Offset) -> impl Future<Output = ()> + 'static {
        let this = self.clone();
        self.appender.progress.until(move || {
            (this.visible_end().offset > offset || this.offline().is_some()).then_some(())
        })
    }

    pub fn offsets(&self) -> Offsets {
        let high_watermark = self.visible_end().offset;
        Offsets {
            log_start: self.log_start.get(),
            high_watermark,
            last_stable: high_watermark,
            log_end: self.appender.dirty().offset,
            leader_epoch: self.leader_epoch.get(),
        }
    }

    /// The high watermark's place.
    pub(crate) fn visible_end(&self) -> LogPosition {
        let end = self.appender.acknowledged_end();
        // The same offset may have come to stand in a new segment.
        if end.offset >= self.high_watermark.get().offset {
            self.high_watermark.set(end);
        }
        self.high_watermark.get()
    }

    /// The epoch that `offset` was written in.
    pub fn epoch_of(&self, offset: Offset) -> LeaderEpoch {
        self.log
            .borrow()
            .epochs
            .epoch_at(offset)
            .unwrap_or(LeaderEpoch(-1))
    }

    /// Where an epoch ended (OffsetForLeaderEpoch): the epoch that is known for it and
    /// the offset behind it.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let end = self.visible_end().offset;
        self.log.borrow().epochs.end_offset_for(epoch, end)
    }

    pub fn configure(&self, config: LogConfig) {
        *self.config.borrow_mut() = config;
        // Who waited for a sync may now wait for less, or for one that is not planned.
        self.appender.reconsider();
    }

    pub fn offline(&self) -> Option<Offline> {
        if self.closing.get() {
            return Some(Offline::closed());
        }
        self.appender.offline()
    }

    pub(crate) fn check_online(&self) -> Result<(), Offline> {
        self.offline().map_or(Ok(()), Err)
    }

    /// Latches what a reader found out, and passes it on.
    pub(crate) fn noted(&self, offline: Offline) -> Offline {
        if self.closing.get() {
            // Its files may be on their way out, so what went wrong says nothing.
            return Offline::closed();
        }
        if !offline.is_closed() && self.appender.offline().is_none() {
            log::error!(
                "{}: {offline}; the partition is offline",
                self.dir.display()
            );
            self.appender.latch(offline.clone());
        }
        offline
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn size_bytes(&self) -> u64 {
        self.log
            .borrow()
            .segments
            .values()
            .map(|s| s.size_bytes())
            .sum()
    }

    pub(crate) fn appender(&self) -> &Rc<Appender<I>> {
        &self.appender
    }

    pub(crate) fn all_segments(&self) -> Vec<Rc<Segment<I>>> {
        self.log.borrow().segments.values().cloned().collect()
    }

    /// The segment that holds `offset`.
    pub(crate) fn segment_of(&self, offset: Offset) -> Option<Rc<Segment<I>>> {
        self.log
            .borrow()
            .segments
            .range(..=offset)
            .next_back()
            .map(|(_, s)| s.clone())
    }

    /// Writes, syncs and indexes everything, so that the next open needs no scan. From
    /// the call on the partition answers that it is closed. A second caller waits for the
    /// first one's result.
    pub async fn close(&self) -> Result<(), Offline> {
        if self.closing.replace(true) {
            let progress = self.appender.progress.clone();
            return progress.until(|| self.closed.borrow().clone()).await;
        }
        let turn = self.turn().await;
        let result = self.try_close().await;
        drop(turn);
        self.tail.clear();
        *self.closed.borrow_mut() = Some(result.clone());
        self.appender.progress.wake();
        result
    }

    async fn try_close(&self) -> Result<(), Offline> {
        let end = self.appender.close().await?;
        let active = self.segment_of(end.offset).expect("a log has a segment");
        active.seal();
        self.appender.write_indexes(&active).await?;
        let snapshot = self.log.borrow().producers.encode_snapshot();
        let path = self.dir.join(file_name(end.offset, "snapshot"));
        self.io
            .replace_file(&path, snapshot)
            .await
            .map_err(|e| Offline::failed("write", path, e))
    }

    /// Stops without writing anything: the folder is about to be removed. Once it
    /// resolves nothing of this partition touches the folder any more.
    pub async fn abandon(&self) {
        self.closing.set(true);
        self.appender.latch(Offline::closed());
        let _turn = self.turn().await;
        self.appender.idle().await;
        self.tail.clear();
        self.closed
            .borrow_mut()
            .get_or_insert_with(|| Err(Offline::closed()));
        self.appender.progress.wake();
    }

    // -- for leadership.rs

    /// Batches are stamped with `epoch` from here on: it begins at the log's end.
    pub(crate) fn stamp_with(&self, epoch: LeaderEpoch) {
        assert!(epoch > self.leader_epoch.get(), "leader epochs rise");
        let end = self.appender.dirty().offset;
        let begun = self.log.borrow_mut().epochs.assign(epoch, end);
        assert!(begun, "no later epoch is known than that of the stamps");
        self.leader_epoch.set(epoch);
    }

    // -- for checkpoint.rs

    /// The producers' state at the log's end.
    pub(crate) fn with_producers<R>(&self, look: impl FnOnce(&ProducerState) -> R) -> R {
        look(&self.log.borrow().producers)
    }

    // -- for retention.rs and leadership.rs

    pub(crate) fn expire_producers(&self, now: TimestampMs, expiration_ms: i64) {
        self.log.borrow_mut().producers.expire(now, expiration_ms);
    }

    pub(crate) fn epochs(&self) -> LeaderEpochs {
        self.log.borrow().epochs.clone()
    }

    pub(crate) fn set_log_start(&self, to: Offset) {
        self.log_start.set(self.log_start.get().max(to));
        self.log.borrow_mut().epochs.truncate_from_start(to);
    }

    /// Seals the active segment and puts an empty one behind it.
    pub(crate) fn begin_segment(&self) -> Rc<Segment<I>> {
        let end = self.appender.dirty().offset;
        self.log.borrow_mut().roll(&self.dir, end)
    }

    /// Takes out the oldest segment if it ends at or below the log start.
    pub(crate) fn take_oldest_below_log_start(&self) -> Option<Offset> {
        let mut log = self.log.borrow_mut();
        let mut bases = log.segments.keys();
        let (oldest, next) = (*bases.next()?, *bases.next()?);
        // A successor whose file is not yet made leaves this one as the open one.
        let done = next <= self.log_start.get() && oldest != self.appender.open_base();
        done.then(|| {
            log.segments.remove(&oldest);
            oldest
        })
    }
}

impl<I: Io> Log<I> {
    /// The active segment, or its successor where the batch does not belong in it.
    fn segment_for(
        &mut self,
        dir: &Path,
        header: &BatchHeader,
        config: &LogConfig,
        now: TimestampMs,
    ) -> Rc<Segment<I>> {
        let active = self
            .segments
            .values()
            .next_back()
            .expect("a log has a segment")
            .clone();
        if !active.must_roll_before(header, config, now) {
            return active;
        }
        self.roll(dir, header.base_offset())
    }

    fn roll(&mut self, dir: &Path, base: Offset) -> Rc<Segment<I>> {
        if let Some(active) = self.segments.values().next_back() {
            active.seal();
        }
        let next = Segment::active(dir, base);
        *next.birth_snapshot.borrow_mut() = Some(self.producers.encode_snapshot());
        self.segments.insert(base, next.clone());
        next
    }
}

pub(crate) async fn write_epochs<I: Io>(
    io: &I,
    dir: &Path,
    epochs: &LeaderEpochs,
) -> Result<(), Offline> {
    let path = dir.join(EPOCHS_FILE_NAME);
    io.replace_file(&path, epochs.encode().into_bytes())
        .await
        .map_err(|e| Offline::failed("write", path, e))
}

fn check_timestamps(
    header: &BatchHeader,
    config: &LogConfig,
    now: TimestampMs,
) -> Result<(), AppendError> {
    let beyond = |bound: Option<std::time::Duration>, ahead: i64| {
        bound.is_some_and(|max| ahead > i64::try_from(max.as_millis()).unwrap_or(i64::MAX))
    };
    let (oldest, newest) = (header.base_timestamp(), header.max_timestamp());
    if oldest.0 >= 0 && beyond(config.timestamp_before_max, now.0.saturating_sub(oldest.0)) {
        return Err(AppendError::InvalidTimestamp { is: oldest, now });
    }
    if beyond(config.timestamp_after_max, newest.0.saturating_sub(now.0)) {
        return Err(AppendError::InvalidTimestamp { is: newest, now });
    }
    Ok(())
}
