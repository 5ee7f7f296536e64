//! What makes a log shorter: retention by time and size, and DeleteRecords.
//!
//! ```text
//!   log start moves     in memory, and in its file, synced     first
//!   segments go         oldest first, those wholly below it    then; a crash between
//!                                                              is made good at the start
//! ```
//!
//! One at a time: each holds the partition's turn, and closing or removing the partition
//! waits for it, so that no file is touched in a folder that is another topic's by then.
//! A reader that is overtaken is told that its offset is out of range.

use crate::config::LogConfig;
use crate::error::{Offline, ReadError};
use crate::io::Io;
use crate::partition::{Partition, write_epochs};
use crate::recovery::{LOG_START_FILE_NAME, encode_log_start};
use crate::segment::file_name;
use crate::signal::Signal;
use crate::units::{Offset, TimestampMs};
use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

/// Held by who changes which files there are.
pub(crate) struct Turn<'a> {
    taken: &'a Cell<bool>,
    freed: &'a Signal,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.taken.set(false);
        self.freed.wake();
    }
}

/// What retention makes of a log.
struct Kept {
    from: Offset,
    /// The active segment goes too, so a new one is to be begun.
    nothing: bool,
}

impl<I: Io> Partition<I> {
    /// Waits for this caller's turn.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let freed = self.appender().progress.clone();
        freed.until(|| (!self.upkeep.get()).then_some(())).await;
        self.upkeep.set(true);
        Turn {
            taken: &self.upkeep,
            freed: &self.appender().progress,
        }
    }

    /// Forgets records below `before`, for every reader (DeleteRecords). Returns the log
    /// start offset, which a crash will not take back.
    pub async fn delete_records(&self, before: Offset) -> Result<Offset, ReadError> {
        let _turn = self.turn().await;
        self.check_online()?;
        let offsets = self.offsets();
        if before < Offset::ZERO || before > offsets.high_watermark {
            return Err(ReadError::OutOfRange {
                asked: before,
                log_start: offsets.log_start,
                end: offsets.high_watermark,
            });
        }
        self.move_log_start(before).await?;
        self.drop_segments().await?;
        Ok(self.offsets().log_start)
    }

    /// Applies retention by time and size, forgets expired producers, lets go of idle
    /// files. To be called now and then.
    pub async fn housekeep(&self) -> Result<(), Offline> {
        let _turn = self.turn().await;
        self.check_online()?;
        let now = self.io.wall();
        let config = self.config.borrow().clone();
        self.expire_producers(now, millis(config.producer_id_expiration));
        let kept = self.kept(&config, now);
        if kept.nothing {
            let next = self.begin_segment();
            let begun = self.appender().begin_segment(&next).await;
            begun.map_err(|offline| self.noted(offline))?;
        }
        self.move_log_start(kept.from).await?;
        self.drop_segments().await?;
        // A sealed one may still be written: its successor has no file yet.
        let open = self.appender().open_base();
        for segment in self.all_segments() {
            if segment.base < open {
                segment.release_idle();
            }
        }
        Ok(())
    }

    /// What retention keeps. Nothing at or above the high watermark goes, and the active
    /// segment only whole.
    fn kept(&self, config: &LogConfig, now: TimestampMs) -> Kept {
        let mut size = self.size_bytes();
        let visible = self.visible_end().offset;
        let mut from = self.offsets().log_start;
        for segment in self.all_segments() {
            let age_ms = now.0.saturating_sub(segment.newest_record_at().0);
            let too_old = config
                .retention_age_max
                .is_some_and(|max| age_ms > millis(max));
            let too_much = config
                .retention_bytes_max
                .is_some_and(|max| size - segment.size_bytes() >= max);
            let end = segment.end().offset;
            if segment.is_empty() || end > visible || !(too_old || too_much) {
                break;
            }
            if !segment.is_sealed() {
                // Only where all that was taken is visible too.
                let all = end == self.offsets().log_end;
                return Kept {
                    from: if all { end } else { from },
                    nothing: all,
                };
            }
            size -= segment.size_bytes();
            from = from.max(end);
        }
        Kept {
            from,
            nothing: false,
        }
    }

    /// The file first: once a reader was told that records are gone, they are.
    async fn move_log_start(&self, to: Offset) -> Result<(), Offline> {
        if to <= self.offsets().log_start {
            return Ok(());
        }
        let path = self.dir.join(LOG_START_FILE_NAME);
        self.io
            .replace_file(&path, encode_log_start(to))
            .await
            .map_err(|e| self.noted(Offline::failed("write", path, e)))?;
        self.check_online()?;
        self.set_log_start(to);
        Ok(())
    }

    /// Removes the sealed segments that end at or below the log start, oldest first.
    async fn drop_segments(&self) -> Result<(), Offline> {
        let result = self.try_drop_segments().await;
        result.map_err(|offline| self.noted(offline))
    }

    async fn try_drop_segments(&self) -> Result<(), Offline> {
        let mut removed = false;
        while let Some(oldest) = self.take_oldest_below_log_start() {
            for extension in ["log", "index", "timeindex", "snapshot"] {
                self.check_online()?;
                let path = self.dir.join(file_name(oldest, extension));
                match self.io.remove_file(&path).await {
                    Ok(()) => {}
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(Offline::failed("remove", path, e)),
                }
            }
            removed = true;
        }
        if removed {
            self.check_online()?;
            self.io
                .sync_dir(&self.dir)
                .await
                .map_err(|e| Offline::failed("sync", &self.dir, e))?;
            self.check_online()?;
            let epochs = self.epochs();
            write_epochs(&self.io, &self.dir, &epochs).await?;
        }
        Ok(())
    }

    /// Whether a reader of `segment` was overtaken: then its file may be gone.
    pub(crate) fn is_dropped(&self, segment: &Rc<crate::segment::Segment<I>>) -> bool {
        segment.is_sealed() && segment.end().offset <= self.offsets().log_start
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
