//! Rounds that are synced by the shard's journal (journal.rs), and the syncs of the segment
//! that they are made good by.
//!
//! ```text
//!   committed      this round's end             a round goes there if it begins where the
//!       |--- whole batches ---|                 log is committed, ends with a batch, and is
//!       ^ in the round's chunks                 small; else the segment is synced
//! ```
//!
//! So what the journal has of a segment follows without a gap on what was synced before, by
//! either of the two: replay never finds a hole.

use super::{Appender, Round};
use crate::error::Offline;
use crate::io::{File, Io};
use crate::journal::{Journal, Member, Taken};
use crate::segment::{LogPosition, Segment};
use crate::units::Offset;
use std::future::Future;
use std::rc::Rc;

/// Held while a segment is synced. One sync of a file at a time: a failed one takes along
/// what it could not write, and another beside it would say Ok. So who comes next finds the
/// log latched.
pub(super) struct SyncTurn<'a, I: Io>(&'a Appender<I>);

impl<I: Io> Drop for SyncTurn<'_, I> {
    fn drop(&mut self) {
        self.0.syncing.set(false);
        self.0.sync_ended.wake();
    }
}

/// The journal of the shard, and a partition's part in it.
pub struct Journaled<I: Io> {
    pub journal: Rc<Journal<I>>,
    pub member: Rc<Member<I>>,
}

impl<I: Io> Appender<I> {
    /// Hands a round's bytes to the journal, where they go there.
    pub(super) fn give_to_journal(
        &self,
        round: &Round<I>,
    ) -> Option<impl Future<Output = Result<Taken, Offline>> + 'static> {
        let Journaled { journal, member } = self.journaled.as_ref()?;
        if !self.config.borrow().acks_committed() {
            return None;
        }
        let (from, to) = (self.committed(), round.whole);
        let (first, last) = (round.chunks.first()?, round.chunks.last()?);
        let here = from.segment == round.segment.base && to.segment == from.segment;
        let fits = here && first.start <= from.pos && last.end == to.pos && from.pos < to.pos;
        if !fits || !journal.takes((to.pos.0 - from.pos.0) as usize) {
            return None;
        }
        Some(journal.commit(member, from, to, round.chunks.clone()))
    }

    pub(super) async fn sync_turn(&self) -> Result<SyncTurn<'_, I>, Offline> {
        self.sync_ended
            .until(|| (!self.syncing.get()).then_some(()))
            .await;
        if let Some(offline) = self.offline() {
            return Err(offline);
        }
        self.syncing.set(true);
        Ok(SyncTurn(self))
    }

    /// Only with the turn. A failure has latched the log when this returns.
    pub(super) async fn sync_file(&self, segment: &Rc<Segment<I>>) -> Result<(), Offline> {
        let synced = self.file_of(segment).fdatasync().await;
        synced.map_err(|e| {
            let offline = Offline::failed("sync", &segment.path, e);
            self.fail(offline.clone());
            offline
        })
    }

    /// What is below `upto` is synced in its segments.
    pub(super) fn note_settled(&self, upto: Offset) {
        if let Some(Journaled { member, .. }) = &self.journaled {
            member.note_settled(upto);
        }
    }

    /// The folder was removed, and that is committed.
    pub fn note_gone(&self) {
        if let Some(Journaled { member, .. }) = &self.journaled {
            member.note_gone();
        }
    }

    /// A round is committed by the journal.
    pub(super) fn committed_by_journal(&self, whole: LogPosition) -> Result<(), Offline> {
        self.last_by_journal.set(true);
        self.advance(|state| {
            assert!(state.committed.offset <= whole.offset && whole == state.stable);
            state.committed = whole;
            state.sync_due &= state.committed != state.dirty;
        })
    }

    /// Syncs the segment up to `upto` at least, so that the journal may forget it, and has
    /// the mark say so. Beside rounds that are under way.
    pub async fn settle(self: &Rc<Self>, upto: Offset) {
        let this = self.clone();
        self.progress
            .until(move || (this.stable().offset >= upto || this.offline().is_some()).then_some(()))
            .await;
        let settled = |this: &Self| {
            let member = this.journaled.as_ref().map(|j| j.member.settled());
            member.is_none_or(|settled| settled >= upto)
        };
        let Ok(turn) = self.sync_turn().await else {
            return;
        };
        // A roll or a large round may have synced it meanwhile.
        if settled(self) {
            return;
        }
        let (segment, stable) = {
            let state = self.state.borrow();
            (state.open.clone(), state.stable)
        };
        assert_eq!(
            segment.base, stable.segment,
            "what is older was synced whole"
        );
        let synced = self.sync_file(&segment).await;
        drop(turn);
        if synced.is_err() || self.offline().is_some() {
            return;
        }
        self.note_settled(stable.offset);
        if self.state.borrow().closed {
            return;
        }
        if let Err(offline) = self.marker.note(self.mark_of(self.committed())).await {
            self.fail(offline);
            return;
        }
        self.plan_idle_sync();
    }
}
