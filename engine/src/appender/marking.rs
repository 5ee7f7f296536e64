//! When a log's mark is written: beside its rounds, when it was opened, when it falls idle.
//!
//! What a mark says, and what recovery makes of it: mark.rs. How it is written: marker.rs.

use super::{Appender, ROUND_BYTES_MAX};
use crate::error::Offline;
use crate::io::{BLOCK, Io};
use crate::mark::{self, Mark};
use crate::segment::LogPosition;
use std::rc::Rc;
use std::time::Duration;

/// A log that stays idle this long writes its mark once more. Long enough that a
/// producer which waits for each answer does not pay for it.
const IDLE_MARK_AFTER: Duration = Duration::from_millis(5);

/// A log that stays idle this long has its mark synced: from then on it is known to be
/// committed to its last byte, and bit rot there is no torn tail any more.
const IDLE_SYNC_AFTER: Duration = Duration::from_secs(1);

impl<I: Io> Appender<I> {
    /// The mark that says how far the log is committed, with a window that what may be
    /// unsynced by the next one never leaves.
    pub(super) fn mark_of(&self, committed: LogPosition) -> Mark {
        let state = self.state.borrow();
        let config = self.config.borrow();
        let window = if config.acks_committed() && state.committed.offset >= state.stable.offset {
            // Half of it until the mark is synced again, and then twice what one sync is of.
            let batch = config.batch_bytes_max.max(state.largest_batch);
            4 * (ROUND_BYTES_MAX + batch as u64 + BLOCK as u64)
        } else {
            mark::UNBOUNDED
        };
        Mark {
            segment: committed.segment,
            pos: committed.pos,
            offset: committed.offset,
            window,
        }
    }

    /// Marks a log that was just opened as committed to its end, which recovery has seen
    /// to. Damage is no torn tail from here on; where the mark that was found is a synced one
    /// and not far behind, from a second later on, as of any log that falls idle.
    pub async fn mark_opened(self: &Rc<Self>) -> Result<(), Offline> {
        let committed = self.committed();
        let mark = self.mark_of(committed);
        if self.marker.synced() == Some(mark) {
            return Ok(());
        }
        if self.marker.is_due(committed.segment, committed.pos) {
            return self.marker.commit(mark).await;
        }
        self.marker.note(mark).await?;
        self.plan_idle_sync();
        Ok(())
    }

    pub(super) fn plan_idle_mark(self: &Rc<Self>) {
        if self.idle_mark_planned.replace(true) {
            return;
        }
        let (io, this) = (self.io.clone(), Rc::downgrade(self));
        self.io.spawn(async move {
            io.sleep(IDLE_MARK_AFTER).await;
            let Some(this) = this.upgrade() else { return };
            this.idle_mark_planned.set(false);
            if let Some(mark) = this.idle_mark()
                && this.marker.written() != Some(mark)
                && let Err(offline) = this.marker.note(mark).await
            {
                this.latch(offline);
            }
        });
    }

    pub(super) fn plan_idle_sync(self: &Rc<Self>) {
        if self.idle_sync_planned.replace(true) {
            return;
        }
        let (io, this) = (self.io.clone(), Rc::downgrade(self));
        self.io.spawn(async move {
            let mut seen = None;
            loop {
                io.sleep(IDLE_SYNC_AFTER).await;
                let Some(this) = this.upgrade() else { return };
                let rounds = this.rounds.get();
                let idle_since = seen.replace(rounds);
                if this.offline().is_some() || this.state.borrow().closed {
                    break;
                }
                let Some(mark) = this.idle_mark() else {
                    continue;
                };
                if this.marker.synced() == Some(mark) {
                    this.idle_sync_planned.set(false);
                    break;
                }
                if idle_since == Some(rounds)
                    && let Err(offline) = this.marker.commit(mark).await
                {
                    this.latch(offline);
                }
            }
        });
    }

    /// The mark of a log on which nothing is under way.
    fn idle_mark(&self) -> Option<Mark> {
        let committed = {
            let state = self.state.borrow();
            let idle = !state.flushing && !state.closed;
            (idle && self.offline.borrow().is_none()).then_some(state.committed)
        }?;
        Some(self.mark_of(committed))
    }
}
