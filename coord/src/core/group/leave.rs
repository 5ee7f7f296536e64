//! The ways out of a group: LeaveGroup, and sessions that end.

use klamm_engine::units::Nanos;

use super::context::Context;
use super::message::{GroupError, LeavingMember, LeftMember};
use super::timer::TimerKey;
use super::{Group, GroupState};

impl Group {
    /// One verdict a member, then one rebalance for all that went. A pending
    /// member that goes takes nothing from the others.
    pub fn leave(&mut self, members: Vec<LeavingMember>, ctx: &mut Context) -> Vec<LeftMember> {
        let mut left = Vec::with_capacity(members.len());
        let mut member_left = false;
        for LeavingMember {
            member_id,
            instance_id,
            reason,
        } in members
        {
            let verdict = self.leave_one(&member_id, instance_id.as_deref(), ctx);
            if let Ok(was_member) = verdict {
                member_left |= was_member;
                log::info!(
                    "group {:?}: member {:?} (instance {:?}) leaves: {:?}",
                    self.id,
                    member_id,
                    instance_id,
                    reason.as_deref().unwrap_or("no reason given"),
                );
            }
            left.push(LeftMember {
                member_id,
                instance_id,
                error: verdict.err(),
            });
        }
        if member_left {
            self.go_on_without(ctx);
        } else {
            self.maybe_complete_join(ctx);
        }
        left
    }

    /// Whether it was a member, not only pending.
    fn leave_one(
        &mut self,
        id: &str,
        instance: Option<&str>,
        ctx: &mut Context,
    ) -> Result<bool, GroupError> {
        if id.is_empty() {
            // An administrator removes a static member whose id it does not know.
            let id = instance
                .and_then(|i| self.static_members.get(i))
                .cloned()
                .ok_or(GroupError::UnknownMemberId)?;
            self.remove_member(&id, GroupError::UnknownMemberId, ctx);
        } else if self.remove_pending(id, ctx) {
            return Ok(false);
        } else {
            self.check_member(id, instance)?;
            self.remove_member(id, GroupError::UnknownMemberId, ctx);
        }
        Ok(true)
    }

    fn go_on_without(&mut self, ctx: &mut Context) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(ctx),
            GroupState::PreparingRebalance => self.maybe_complete_join(ctx),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    pub fn session_came(&mut self, id: &str, now: Nanos, ctx: &mut Context) {
        let key = TimerKey::Session(self.id.clone(), id.into());
        if let Some(deadline) = self.pending_join.get_mut(id) {
            if deadline.came_up(key, now, ctx.timers()) {
                self.remove_pending(id, ctx);
                self.maybe_complete_join(ctx);
            }
            return;
        }
        let member = self
            .members
            .get_mut(id)
            .expect("a session goes with its member");
        // A member that waits has its session started anew by the answer.
        if member.session.came_up(key, now, ctx.timers()) && !member.is_excused() {
            log::info!(
                "group {:?}: the session of member {id:?} has ended",
                self.id
            );
            self.remove_member(id, GroupError::UnknownMemberId, ctx);
            self.go_on_without(ctx);
        }
    }
}
