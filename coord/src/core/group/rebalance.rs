//! From one generation to the next.
//!
//! ```text
//!  prepare ── all joined ───────────────────────> complete_join ──> next generation
//!     │                                              ^     │
//!     ├─ not yet: join deadline, the longest ────────┘     └─ nobody left: Empty
//!     │  rebalance timeout; who misses it is out
//!     └─ a new group: initial delay, longer while members keep coming
//! ```

use klamm_engine::units::Nanos;

use super::context::Context;
use super::message::GroupError;
use super::timer::TimerKey;
use super::{Arc, Group, GroupState};

/// `group.initial.rebalance.delay.ms` at work: each round in which somebody new
/// came is followed by one more, within the rebalance timeout.
#[derive(Debug, Default)]
pub struct InitialDelay {
    round_ms: i32,
    remaining_ms: i32,
    member_came: bool,
}

impl InitialDelay {
    pub fn note_member(&mut self) {
        self.member_came = true;
    }
}

impl Group {
    pub(super) fn rebalance_or_complete_join(&mut self, ctx: &mut Context) {
        match self.state {
            GroupState::PreparingRebalance => self.maybe_complete_join(ctx),
            _ => self.prepare_rebalance(ctx),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, ctx: &mut Context) {
        if self.state == GroupState::CompletingRebalance {
            self.fail_syncs(GroupError::RebalanceInProgress, ctx);
        }
        self.pending_sync.clear();
        self.cancel_sync_deadline(ctx);

        let was_empty = self.state == GroupState::Empty;
        self.move_to(GroupState::PreparingRebalance, ctx);
        log::info!(
            "group {:?}: rebalances after generation {}, with {} members",
            self.id,
            self.generation,
            self.members.len()
        );
        if was_empty {
            let round_ms = ctx.config().initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(round_ms).max(0);
            if round_ms > 0 {
                self.initial = Some(InitialDelay {
                    round_ms,
                    remaining_ms,
                    member_came: false,
                });
                self.arm_join_deadline(round_ms, ctx);
            } else {
                self.complete_join(ctx);
            }
        } else if self.all_have_joined() {
            self.complete_join(ctx);
        } else {
            self.arm_join_deadline(self.rebalance_timeout_ms(), ctx);
        }
    }

    /// Somebody joined or went while the group prepares: was it the last?
    /// A new group waits for its delay in any case.
    pub(super) fn maybe_complete_join(&mut self, ctx: &mut Context) {
        if self.state == GroupState::PreparingRebalance
            && self.initial.is_none()
            && self.all_have_joined()
        {
            self.complete_join(ctx);
        }
    }

    pub fn join_deadline_came(&mut self, now: Nanos, ctx: &mut Context) {
        let key = TimerKey::Join(self.id.clone());
        if !self.join_deadline.came_up(key, now, ctx.timers()) {
            return;
        }
        if let Some(initial) = &mut self.initial
            && initial.member_came
            && initial.remaining_ms > 0
        {
            let next_ms = ctx
                .config()
                .initial_rebalance_delay_ms
                .min(initial.remaining_ms);
            initial.remaining_ms = initial.remaining_ms.saturating_sub(initial.round_ms).max(0);
            initial.round_ms = next_ms;
            initial.member_came = false;
            self.arm_join_deadline(next_ms, ctx);
            return;
        }
        self.complete_join(ctx);
    }

    fn complete_join(&mut self, ctx: &mut Context) {
        assert_eq!(self.state, GroupState::PreparingRebalance);
        self.initial = None;
        self.cancel_join_deadline(ctx);

        // A static member may be restarting: only its session decides (KIP-345).
        let missing: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|(_, m)| m.awaiting_join.is_none() && m.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.remove_member(&id, GroupError::UnknownMemberId, ctx);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Static members alone, none of them back: wait on, until they are
            // or their sessions end.
            self.arm_join_deadline(self.rebalance_timeout_ms(), ctx);
            return;
        }

        self.generation = self.generation.saturating_add(1);
        self.protocol = self.select_protocol();
        self.subscribed = self.read_subscriptions();
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.move_to(GroupState::Empty, ctx);
            self.persist(ctx);
            return;
        }
        assert!(
            self.protocol.is_some(),
            "group {} has no protocol that all members support",
            self.id
        );
        self.move_to(GroupState::CompletingRebalance, ctx);
        self.announce_generation(ctx);
    }

    /// Tells everyone who waits, and expects everyone's SyncGroup in time.
    fn announce_generation(&mut self, ctx: &mut Context) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            let response = self.joined(id);
            let member = self.members.get_mut(id).expect("a key of this map");
            member.is_new = false;
            if let Some(token) = member.awaiting_join.take() {
                self.awaiting_join -= 1;
                ctx.answer_parked(token, response);
            }
            self.restart_session(id, ctx);
        }
        self.pending_sync.extend(ids);
        let due = ctx.after_ms(self.rebalance_timeout_ms());
        ctx.timers().arm(
            &mut self.sync_deadline,
            TimerKey::Sync(self.id.clone()),
            due,
        );
    }

    pub fn sync_deadline_came(&mut self, now: Nanos, ctx: &mut Context) {
        let key = TimerKey::Sync(self.id.clone());
        if !self.sync_deadline.came_up(key, now, ctx.timers()) {
            return;
        }
        assert!(matches!(
            self.state,
            GroupState::CompletingRebalance | GroupState::Stable
        ));
        assert!(
            !self.pending_sync.is_empty(),
            "the sync deadline goes with the last pending member"
        );
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(&id, GroupError::UnknownMemberId, ctx);
        }
        self.prepare_rebalance(ctx);
    }

    /// The leader must be one that is here to lead.
    fn elect_joined_leader(&mut self) -> bool {
        let is_here = |id: &Arc<str>| {
            self.members
                .get(id)
                .is_some_and(|m| m.awaiting_join.is_some())
        };
        if self.leader.as_ref().is_some_and(is_here) {
            return true;
        }
        match self.members.keys().find(|id| is_here(id)).cloned() {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    fn arm_join_deadline(&mut self, ms: i32, ctx: &mut Context) {
        let due = ctx.after_ms(ms);
        ctx.timers().arm(
            &mut self.join_deadline,
            TimerKey::Join(self.id.clone()),
            due,
        );
    }

    pub(super) fn cancel_join_deadline(&mut self, ctx: &mut Context) {
        ctx.timers()
            .cancel(&mut self.join_deadline, TimerKey::Join(self.id.clone()));
    }

    pub(super) fn cancel_sync_deadline(&mut self, ctx: &mut Context) {
        ctx.timers()
            .cancel(&mut self.sync_deadline, TimerKey::Sync(self.id.clone()));
    }

    /// `group.max.size` was lowered while the broker was down: whoever rejoins
    /// first stays.
    pub fn shrink_if_over(&mut self, max_size: usize, ctx: &mut Context) {
        if self.members.len() > max_size {
            self.prepare_rebalance(ctx);
        }
    }
}
