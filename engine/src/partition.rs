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

use crate::appender::{Appender, Resume};
use crate::batch::{BatchError, BatchHeader, HEADER_LEN, check_from_client, stamp_log_append_time};
use crate::config::LogConfig;
use crate::epochs::LeaderEpochs;
use crate::error::{Offline, ReadError};
use crate::io::Io;
use crate::producer::{Check, ProducerState, SequenceError};
use crate::reader::Hints;
use crate::recovery::{self, EPOCHS_FILE_NAME, LOG_START_FILE_NAME};
use crate::segment::{LogPosition, Segment, file_name};
use crate::tail::{Tail, TailCache};
use crate::units::{LeaderEpoch, Offset, TimestampMs};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use zerocopy::IntoBytes;

pub struct Partition<I: Io> {
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
    /// One retention or DeleteRecords at a time.
    trimming: Cell<bool>,
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
        let mut opened = recovery::open(&io, &dir, &config, options.clean).await?;
        if opened
            .epochs
            .assign(options.leader_epoch, opened.end.offset)
        {
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
            marked: opened.marked.unwrap_or(opened.end),
        };
        let appender = Appender::new(
            io.clone(),
            dir.clone(),
            config.clone(),
            tail.clone(),
            tail_cache,
            opened.mark_file,
            resume,
        );
        if opened.marked.is_none() {
            appender.first_mark().await?;
        }
        Ok(Rc::new(Partition {
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
            leader_epoch: Cell::new(options.leader_epoch),
            high_watermark: Cell::new(opened.end),
            closing: Cell::new(false),
            trimming: Cell::new(false),
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
        let header = batch.header();
        if header.is_transactional() {
            return Err(AppendError::Transactional);
        }
        let now = self.io.wall();
        if let Some(duplicate) = self.check_producer(header)? {
            return Ok(duplicate);
        }
        let config = self.config.borrow();
        let mut log_append_time = TimestampMs::NONE;
        let stamped;
        let bytes = if config.log_append_time {
            log_append_time = now;
            let mut copy = bytes.to_vec();
            stamp_log_append_time(&mut copy, now);
            stamped = copy;
            &stamped[..]
        } else {
            check_timestamps(header, &config, now)?;
            bytes
        };
        let appended = self.append_stamped(bytes, &config, now);
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

    fn append_stamped(&self, bytes: &[u8], config: &LogConfig, now: TimestampMs) -> Appended {
        let base_offset = self.appender.dirty().offset;
        let mut header = *BatchHeader::parse(bytes).expect("a checked batch");
        header.stamp(base_offset, self.leader_epoch.get());
        let header = &header;
        let mut log = self.log.borrow_mut();
        let segment = log.segment_for(&self.dir, header, config, now);
        segment.extend(header, config.index_interval_bytes, now);
        log.producers.apply(header);
        self.appender.append(
            &segment,
            [header.as_bytes(), &bytes[HEADER_LEN..]],
            segment.end(),
        );
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
        if end.offset > self.high_watermark.get().offset {
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
        if self.config.borrow().acks_committed() {
            self.appender.sync_soon();
        }
        self.appender.progress.wake();
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
        if !offline.is_closed() {
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
    /// the call on the partition answers that it is closed.
    pub async fn close(&self) -> Result<(), Offline> {
        if self.closing.replace(true) {
            return Ok(());
        }
        let end = self.appender.close().await?;
        let active = self.segment_of(end.offset).expect("a log has a segment");
        active.seal();
        self.appender.write_indexes(&active).await?;
        let snapshot = self.log.borrow().producers.encode_snapshot();
        let path = self.dir.join(file_name(end.offset, "snapshot"));
        self.io
            .replace_file(&path, snapshot)
            .await
            .map_err(|e| Offline::failed("write", path, e))?;
        self.tail.clear();
        Ok(())
    }

    /// Stops without writing anything: the folder is about to be removed.
    pub async fn abandon(&self) {
        self.closing.set(true);
        self.appender.latch(Offline::closed());
        self.appender.idle().await;
        self.tail.clear();
    }

    /// Forgets records below `before`, for every reader (DeleteRecords). Returns the log
    /// start offset, which a crash will not take back.
    pub async fn delete_records(&self, before: Offset) -> Result<Offset, ReadError> {
        self.check_online()?;
        let offsets = self.offsets();
        if before < Offset::ZERO || before > offsets.high_watermark {
            return Err(ReadError::OutOfRange {
                asked: before,
                log_start: offsets.log_start,
                end: offsets.high_watermark,
            });
        }
        if before > offsets.log_start {
            // The file first: once a reader was told that records are gone, they are.
            let path = self.dir.join(LOG_START_FILE_NAME);
            let text = format!("{before}\n").into_bytes();
            self.io
                .replace_file(&path, text)
                .await
                .map_err(|e| self.noted(Offline::failed("write", path, e)))?;
            self.log_start.set(self.log_start.get().max(before));
            self.log.borrow_mut().epochs.truncate_from_start(before);
        }
        self.drop_segments_below(self.log_start.get()).await?;
        Ok(self.log_start.get())
    }

    /// Applies retention by time and size, forgets expired producers, lets go of idle
    /// files. To be called now and then.
    pub async fn housekeep(&self) -> Result<(), Offline> {
        self.check_online()?;
        let now = self.io.wall();
        let config = self.config.borrow().clone();
        let expiration_ms =
            i64::try_from(config.producer_id_expiration.as_millis()).unwrap_or(i64::MAX);
        self.log.borrow_mut().producers.expire(now, expiration_ms);
        let keep_from = self.retained_from(&config, now);
        if keep_from > self.log_start.get() {
            self.log_start.set(keep_from);
        }
        self.drop_segments_below(self.log_start.get()).await?;
        for segment in self.all_segments() {
            segment.release_idle();
        }
        Ok(())
    }

    /// The first offset that retention keeps. Only sealed segments go, and only below
    /// the high watermark.
    fn retained_from(&self, config: &LogConfig, now: TimestampMs) -> Offset {
        let mut size = self.size_bytes();
        let visible = self.visible_end().offset;
        let mut keep_from = self.log_start.get();
        let log = self.log.borrow();
        let mut segments = log.segments.values().peekable();
        while let Some(segment) = segments.next() {
            let Some(next) = segments.peek() else { break };
            if next.base > visible {
                break;
            }
            let largest = segment.largest_timestamp().0;
            let too_old = config.retention_age_max.is_some_and(|age| {
                now.0.saturating_sub(largest.0) > i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
            });
            let too_much = config
                .retention_bytes_max
                .is_some_and(|max| size - segment.size_bytes() >= max);
            if !too_old && !too_much {
                break;
            }
            size -= segment.size_bytes();
            keep_from = keep_from.max(next.base);
        }
        keep_from
    }

    /// Removes sealed segments that end at or below `start`, oldest first, so that a
    /// crash leaves no gap.
    async fn drop_segments_below(&self, start: Offset) -> Result<(), Offline> {
        if self.trimming.replace(true) {
            return Ok(());
        }
        let result = self.drop_segments(start).await;
        self.trimming.set(false);
        result.map_err(|offline| self.noted(offline))
    }

    async fn drop_segments(&self, start: Offset) -> Result<(), Offline> {
        let mut removed = false;
        loop {
            let oldest = {
                let log = self.log.borrow();
                let mut segments = log.segments.values();
                let oldest = segments.next().cloned();
                let next = segments.next().map(|s| s.base);
                // A successor whose file is not yet made leaves this one as the open one.
                oldest.filter(|s| {
                    next.is_some_and(|n| n <= start) && s.base != self.appender.open_base()
                })
            };
            let Some(oldest) = oldest else { break };
            for extension in ["log", "index", "timeindex", "snapshot"] {
                let path = self.dir.join(file_name(oldest.base, extension));
                match self.io.remove_file(&path).await {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(Offline::failed("remove", path, e)),
                }
            }
            self.log.borrow_mut().segments.remove(&oldest.base);
            removed = true;
        }
        if removed {
            self.io
                .sync_dir(&self.dir)
                .await
                .map_err(|e| Offline::failed("sync", &self.dir, e))?;
            let epochs = {
                let mut log = self.log.borrow_mut();
                log.epochs.truncate_from_start(self.log_start.get());
                log.epochs.clone()
            };
            write_epochs(&self.io, &self.dir, &epochs).await?;
        }
        Ok(())
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
        active.seal();
        let next = Segment::active(dir, header.base_offset());
        *next.birth_snapshot.borrow_mut() = Some(self.producers.encode_snapshot());
        self.segments.insert(next.base, next.clone());
        next
    }
}

async fn write_epochs<I: Io>(io: &I, dir: &Path, epochs: &LeaderEpochs) -> Result<(), Offline> {
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
