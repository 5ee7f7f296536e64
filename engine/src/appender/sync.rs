//! When a segment is synced: at the end of a round, where the topic or its age asks for it.
//!
//! One sync of a segment at a time, whoever asks for it (journaled.rs says why).

use super::gathering::Round;
use super::{Appender, Journaled};
use crate::error::Offline;
use crate::io::Io;
use crate::segment::{LogPosition, Segment};
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

    pub(super) async fn sync(self: &Rc<Self>, segment: &Rc<Segment<I>>) -> Result<(), Offline> {
        self.place().await?;
        let syncing = self.profile.syncing(&self.io);
        let turn = self.sync_turn().await?;
        let stable = self.stable();
        assert_eq!(stable, self.placed(), "no round beside the one that syncs");
        self.sync_file(segment).await?;
        drop(turn);
        self.profile.synced(&self.io, syncing);
        self.note_synced(stable)
    }

    /// The segment is synced up to there.
    pub(super) fn note_synced(&self, upto: LogPosition) -> Result<(), Offline> {
        self.advance(|state| {
            assert!(state.committed.offset <= upto.offset);
            state.committed = upto;
            state.sync_due &= state.committed != state.dirty;
        })?;
        self.note_settled(upto.offset);
        Ok(())
    }

    /// Whether a round's write is to be a synced one, which spares a wait for the disk. Where
    /// it is the only write, begins where the segment is synced, and ends what is answered:
    /// a sync of the file would have nothing else to commit.
    pub(super) fn write_syncs(&self, round: &Round<I>) -> bool {
        let [chunk] = round.chunks.as_slice() else {
            return false;
        };
        let state = self.state.borrow();
        let from = state.committed;
        let settled = |journaled: &Journaled<I>| journaled.member.settled() >= from.offset;
        self.config.borrow().acks_committed()
            && !self.syncing.get()
            && state.placed == from
            && self.journaled.as_ref().is_none_or(settled)
            && from.segment == round.segment.base
            && chunk.start <= from.pos
            && from.offset < round.whole.offset
    }

    /// Resolves once no sync of a segment is under way, whoever asked for it.
    pub async fn sync_settled(&self) {
        let ended = self.sync_ended.clone();
        ended.until(|| (!self.syncing.get()).then_some(())).await;
    }

    pub(super) async fn sync_and_mark(
        self: &Rc<Self>,
        segment: &Rc<Segment<I>>,
        bytes_end: BytePos,
    ) -> Result<(), Offline> {
        let marking = self.mark_synced(segment, bytes_end);
        let (synced, marked) = join(self.sync(segment), marking).await;
        synced.and(marked)
    }

    /// Syncs the mark where it is due.
    pub(super) async fn mark_synced(
        &self,
        segment: &Rc<Segment<I>>,
        bytes_end: BytePos,
    ) -> Result<(), Offline> {
        match self.marker.is_due(segment.base, bytes_end) {
            true => self.marker.sync().await,
            false => Ok(()),
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
