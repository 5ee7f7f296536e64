//! When a segment is synced, and by whom.
//!
//! ```text
//!   flush loop    | write 1 |......| write 2 |       | write 3 | sync 3 |     small: its own
//!   beside it               | sync 1    |    | sync 2     |                   large
//! ```
//!
//! - One sync at a time: the next one begins when it has ended, and is of all that is
//!   stable by then.
//! - A segment ends, and a log closes, with no sync under way.

use super::Appender;
use crate::error::Offline;
use crate::io::Io;
use crate::segment::Segment;
use crate::units::BytePos;
use futures_util::future::join;
use std::rc::Rc;
use std::time::Duration;

impl<I: Io> Appender<I> {
    pub(super) fn must_sync(self: &Rc<Self>) -> bool {
        let config = self.config.borrow();
        let state = self.state.borrow();
        let unsynced = state.stable.offset.0 - state.committed.offset.0;
        let by_count = config.flush_messages.is_some_and(|n| unsynced as u64 >= n);
        let must = unsynced > 0 && (by_count || state.sync_due);
        if !must && unsynced > 0 {
            drop(state);
            if let Some(age) = config.flush_age_max {
                self.plan_sync(age);
            }
        }
        must
    }

    pub(super) async fn sync(&self, segment: &Rc<Segment<I>>) -> Result<(), Offline> {
        let syncing = self.profile.syncing(&self.io);
        let turn = self.sync_turn().await?;
        let stable = self.stable();
        self.sync_file(segment).await?;
        drop(turn);
        self.profile.synced(&self.io, syncing);
        self.advance(|state| {
            // A later round may have been committed by the journal meanwhile.
            if state.committed.offset <= stable.offset {
                state.committed = stable;
            }
            state.sync_due &= state.committed != state.dirty;
        })?;
        self.note_settled(stable.offset);
        Ok(())
    }

    /// A large round's sync; the flush loop may write the next one meanwhile.
    pub(super) async fn sync_beside(self: Rc<Self>, segment: Rc<Segment<I>>, bytes_end: BytePos) {
        let synced = self.sync_and_mark(&segment, bytes_end).await;
        {
            let mut state = self.state.borrow_mut();
            state.syncing = false;
            if synced.is_ok() {
                self.flush_soon(&mut state);
            }
        }
        match synced {
            Ok(()) => self.progress.wake(),
            Err(offline) => self.fail(offline),
        }
    }

    /// Resolves once no sync is under way beside the caller.
    pub(super) async fn synced_beside(self: &Rc<Self>) {
        let this = self.clone();
        self.progress
            .until(move || (!this.state.borrow().syncing).then_some(()))
            .await;
    }

    pub(super) async fn sync_and_mark(
        &self,
        segment: &Rc<Segment<I>>,
        bytes_end: BytePos,
    ) -> Result<(), Offline> {
        let sync = self.sync(segment);
        if self.marker.is_due(segment.base, bytes_end) {
            let (synced, marked) = join(sync, self.marker.sync()).await;
            synced.and(marked)
        } else {
            sync.await
        }
    }

    /// Plans a sync for what is stable now, `age` from now, unless one is due before.
    pub fn plan_sync(self: &Rc<Self>, age: Duration) {
        let at = self.io.now().plus(age);
        if self.flush_at.get().is_some_and(|planned| planned <= at) {
            return;
        }
        self.flush_at.set(Some(at));
        let (sleep, this) = (self.io.sleep(age), Rc::downgrade(self));
        self.io.spawn(async move {
            sleep.await;
            if let Some(this) = this.upgrade()
                && this.flush_at.get() == Some(at)
            {
                this.flush_at.set(None);
                this.sync_soon();
            }
        });
    }

    /// Asks for a sync of what is only stable.
    pub fn sync_soon(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.committed != state.dirty && !state.closed {
            state.sync_due = true;
            self.flush_soon(&mut state);
        }
    }
}
