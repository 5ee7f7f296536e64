//! Rounds that are synced by the shard's journal (journal.rs), and the syncs of the segment
//! that they are made good by.
//!
//! ```text
//!   committed      this round's end             a round goes there if it begins where the
//!       |--- whole batches ---|                 log is committed, ends with a batch, and is
//!       ^ in the round's chunks                 small; else it is written and synced itself
//! ```
//!
//! So what the journal has of a segment follows without a gap on what was synced before, by
//! either of the two: replay never finds a hole. The segment has it later: placing.rs.

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
pub(super) struct SyncTurn<I: Io>(Rc<Appender<I>>);

impl<I: Io> Drop for SyncTurn<I> {
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
    /// Has the journal commit a round, where it goes there. False: it is to be written to
    /// its segment, and synced.
    pub(super) async fn journal_round(self: &Rc<Self>, round: &Round<I>) -> Result<bool, Offline> {
        if let Some(Journaled { journal, .. }) = &self.journaled {
            journal.backlog().has_room().await;
            self.check_online()?;
        }
        let whole = round.whole;
        let journaling = self.profile.journaling(&self.io);
        let Some(journaled) = self.give_to_journal(round) else {
            return Ok(false);
        };
        let Taken::Synced { written, synced } = journaled.await? else {
            return Ok(false);
        };
        self.check_online()?;
        self.profile
            .journaled(journaling, written, synced, whole.offset);
        for chunk in &round.chunks {
            self.tail.push(chunk.clone());
        }
        self.last_by_journal.set(true);
        self.advance(|state| {
            assert!(state.stable.offset <= whole.offset && whole.offset <= state.dirty.offset);
            state.stable = whole;
            state.committed = whole;
            state.sync_due &= state.committed != state.dirty;
            for chunk in &round.chunks {
                state.unplaced.push(chunk.clone());
            }
        })?;
        if let Some(Journaled { journal, member }) = &self.journaled {
            let held_bytes = self.state.borrow().unplaced.held_bytes();
            journal.backlog().grew(&self.io, member, held_bytes);
        }
        Ok(true)
    }

    /// Hands a round's bytes to the journal, where they go there.
    fn give_to_journal(
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

    pub(super) async fn sync_turn(self: &Rc<Self>) -> Result<SyncTurn<I>, Offline> {
        self.sync_ended
            .until(|| (!self.syncing.get()).then_some(()))
            .await;
        if let Some(offline) = self.offline() {
            return Err(offline);
        }
        self.syncing.set(true);
        Ok(SyncTurn(self.clone()))
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

    /// Places and syncs the segment up to `upto` at least, so that the journal may forget it,
    /// and has the mark say so. Beside rounds that are under way.
    pub async fn settle(self: &Rc<Self>, upto: Offset) {
        let Some(settling) = self.begin_settling(upto).await else {
            return;
        };
        let synced = self.sync_file(&settling.segment).await;
        settling.ended(synced).await;
    }

    /// The first half of it: what is below `upto` is placed, and the segment may be synced
    /// by whoever asked. None where there is nothing to do, or no way.
    pub async fn begin_settling(self: &Rc<Self>, upto: Offset) -> Option<Settling<I>> {
        let this = self.clone();
        self.progress
            .until(move || (this.stable().offset >= upto || this.offline().is_some()).then_some(()))
            .await;
        let settled = |this: &Self| {
            let member = this.journaled.as_ref().map(|j| j.member.settled());
            member.is_none_or(|settled| settled >= upto)
        };
        if settled(self) {
            return None;
        }
        if self.placed().offset < upto {
            self.place().await.ok()?;
        }
        let turn = self.sync_turn().await.ok()?;
        // A roll or a large round may have synced it meanwhile.
        if settled(self) {
            return None;
        }
        let (segment, placed) = {
            let state = self.state.borrow();
            (state.open.clone(), state.placed)
        };
        assert_eq!(
            segment.base, placed.segment,
            "what is older was synced whole"
        );
        assert!(placed.offset >= upto, "it was placed");
        Some(Settling {
            turn,
            segment,
            placed,
        })
    }
}

/// A segment that is about to be synced.
pub struct Settling<I: Io> {
    turn: SyncTurn<I>,
    segment: Rc<Segment<I>>,
    placed: LogPosition,
}

impl<I: Io> Settling<I> {
    pub fn segment(&self) -> &Rc<Segment<I>> {
        &self.segment
    }

    /// The sync went well, or not: then the log is latched.
    pub async fn ended(self, synced: Result<(), Offline>) {
        let log = self.turn.0.clone();
        if let Err(offline) = &synced {
            log.fail(offline.clone());
        }
        drop(self.turn);
        if log.offline().is_some() {
            return;
        }
        log.note_settled(self.placed.offset);
        if log.state.borrow().closed {
            return;
        }
        if let Err(offline) = log.marker.note(log.mark_of(log.committed())).await {
            log.fail(offline);
            return;
        }
        log.plan_idle_sync();
    }
}
