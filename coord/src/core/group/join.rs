//! JoinGroup: the way into a group, and into its next generation.
//!
//! ```text
//!  member id  instance id
//!    ""          -       v4+: told an id, MEMBER_ID_REQUIRED; comes back with it (KIP-394)
//!    ""          -       v0-3: given an id and added at once
//!    ""         known    replaces its earlier incarnation, which is fenced (KIP-345)
//!    ""         new      added
//!   pending      -       added
//!   member      any      joins again: a rebalance if that changes something
//! ```

use super::context::Context;
use super::member::Member;
use super::message::{GroupError, JoinGroup, JoinGroupResponse, JoinedMember, Response};
use super::timer::TimerKey;
use super::{Arc, Group, GroupState, count_down, count_up};
use crate::core::groups::Token;

/// From here on a first join is sent back with a member id.
const REQUIRES_MEMBER_ID: i16 = 4;
/// From here on a static leader can be told that there is nothing to assign.
const CAN_SKIP_ASSIGNMENT: i16 = 9;

pub fn refused(member_id: &str, why: GroupError) -> Response {
    Response::JoinGroup(JoinGroupResponse {
        error: Some(why),
        generation: -1,
        protocol_type: None,
        protocol: None,
        leader: String::new(),
        skip_assignment: false,
        member_id: member_id.to_owned(),
        members: Vec::new(),
    })
}

/// What can be told without knowing the group.
pub fn check(
    request: &JoinGroup,
    min_session_ms: i32,
    max_session_ms: i32,
) -> Result<(), GroupError> {
    if request.group.is_empty() {
        Err(GroupError::InvalidGroupId)
    } else if !(min_session_ms..=max_session_ms).contains(&request.session_timeout_ms) {
        Err(GroupError::InvalidSessionTimeout)
    } else {
        Ok(())
    }
}

/// Version 0's missing rebalance timeout, and protocols named twice, settled once.
pub fn normalized(mut request: JoinGroup) -> JoinGroup {
    if request.rebalance_timeout_ms < 0 {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let mut seen = std::collections::BTreeSet::new();
    request.protocols.retain(|p| seen.insert(p.name.clone()));
    request
}

impl Group {
    /// `request` is checked and normalized.
    pub fn join(&mut self, token: Token, request: JoinGroup, ctx: &mut Context) {
        log::debug!(
            "group {:?}: member {:?} (instance {:?}) of client {:?} joins: {:?}",
            self.id,
            request.member_id,
            request.instance_id,
            request.client_id,
            request.reason.as_deref().unwrap_or("no reason given"),
        );
        if !self.has_room_for(&request, ctx) {
            let member_id = request.member_id;
            self.remove_pending(&member_id, ctx);
            self.remove_member(&member_id, GroupError::GroupMaxSizeReached, ctx);
            ctx.answer(token, refused("", GroupError::GroupMaxSizeReached));
            self.maybe_complete_join(ctx);
        } else if !self.supports(&request.protocol_type, &request.protocols) {
            ctx.answer(
                token,
                refused(&request.member_id, GroupError::InconsistentGroupProtocol),
            );
        } else if request.member_id.is_empty() {
            self.join_new(token, request, ctx);
        } else {
            self.join_known(token, request, ctx);
        }
    }

    /// While preparing, who waits already counts, not who was there before:
    /// the last ones to rejoin a group that is too large are those that go.
    fn has_room_for(&self, request: &JoinGroup, ctx: &Context) -> bool {
        let max = ctx.config().max_size;
        // A static member that restarts takes its own place.
        let earlier = request
            .instance_id
            .as_ref()
            .and_then(|i| self.static_members.get(i));
        let id = earlier
            .filter(|_| request.member_id.is_empty())
            .map_or(request.member_id.as_str(), |id| id);
        let member = self.members.get(id);
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                member.is_some_and(|m| m.awaiting_join.is_some()) || self.awaiting_join < max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || self.members.len() < max
            }
        }
    }

    fn join_new(&mut self, token: Token, request: JoinGroup, ctx: &mut Context) {
        let prefix = request.instance_id.as_deref().unwrap_or(&request.client_id);
        let new_id: Arc<str> = ctx.shared.ids.next(prefix).into();
        match &request.instance_id {
            Some(instance) => match self.static_members.get(instance).cloned() {
                Some(old_id) => self.rejoin_static(token, request, &old_id, new_id, ctx),
                None => self.add_and_rebalance(token, request, new_id, ctx),
            },
            None if request.api_version >= REQUIRES_MEMBER_ID => {
                let due = ctx.after_ms(request.session_timeout_ms);
                let deadline = self.pending_join.entry(new_id.clone()).or_default();
                ctx.timers().arm(
                    deadline,
                    TimerKey::Session(self.id.clone(), new_id.clone()),
                    due,
                );
                ctx.answer(token, refused(&new_id, GroupError::MemberIdRequired));
            }
            None => self.add_and_rebalance(token, request, new_id, ctx),
        }
    }

    fn join_known(&mut self, token: Token, request: JoinGroup, ctx: &mut Context) {
        if self.pending_join.contains_key(request.member_id.as_str()) {
            if request.instance_id.is_some() {
                // An id that was given to a dynamic member cannot turn static.
                ctx.answer(
                    token,
                    refused(&request.member_id, GroupError::UnknownMemberId),
                );
                return;
            }
            self.remove_pending(&request.member_id, ctx);
            let id: Arc<str> = request.member_id.as_str().into();
            self.add_and_rebalance(token, request, id, ctx);
            return;
        }
        if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_deref()) {
            ctx.answer(token, refused(&request.member_id, error));
            return;
        }
        let member = &self.members[request.member_id.as_str()];
        let is_unchanged = member.protocols == request.protocols;
        let is_answered_now = match self.state {
            GroupState::PreparingRebalance => false,
            // It has missed the answer to its join; nothing has changed.
            GroupState::CompletingRebalance => is_unchanged,
            // A leader that joins again wants to assign anew.
            GroupState::Stable => is_unchanged && !self.is_leader(&request.member_id),
            GroupState::Empty | GroupState::Dead => unreachable!("no members in {:?}", self.state),
        };
        if is_answered_now {
            let mut response = self.joined(&request.member_id);
            if self.state == GroupState::Stable
                && let Response::JoinGroup(joined) = &mut response
            {
                joined.members.clear();
            }
            ctx.answer(token, response);
            self.restart_session(&request.member_id, ctx);
        } else {
            let id: Arc<str> = request.member_id.as_str().into();
            self.update_member(&id, token, request, ctx);
            self.rebalance_or_complete_join(ctx);
        }
    }

    fn add_and_rebalance(
        &mut self,
        token: Token,
        request: JoinGroup,
        id: Arc<str>,
        ctx: &mut Context,
    ) {
        if let Some(initial) = &mut self.initial {
            initial.note_member();
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        ctx.park(token);
        self.add_member(Member::joining(id.clone(), request, token));

        let due = ctx.after_ms(ctx.config().new_member_join_timeout_ms);
        let member = self.members.get_mut(&id).expect("just added");
        ctx.timers().arm(
            &mut member.session,
            TimerKey::Session(self.id.clone(), id),
            due,
        );
        self.rebalance_or_complete_join(ctx);
    }

    /// The member waits in this join from now on. An earlier one that still
    /// waits was given up by its client, which sent this one instead.
    fn update_member(
        &mut self,
        id: &Arc<str>,
        token: Token,
        request: JoinGroup,
        ctx: &mut Context,
    ) {
        let member = self.members.get_mut(id).expect("checked by the caller");
        count_down(&mut self.supported, &member.protocols);
        count_up(&mut self.supported, &request.protocols);
        member.protocols = request.protocols;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        member.client_id = request.client_id;
        member.client_host = request.client_host;
        ctx.park(token);
        match member.awaiting_join.replace(token) {
            Some(earlier) => {
                ctx.answer_parked(earlier, refused(id, GroupError::RebalanceInProgress))
            }
            None => self.awaiting_join += 1,
        }
    }

    /// A static member is back under a new id, and takes over what it had.
    fn rejoin_static(
        &mut self,
        token: Token,
        request: JoinGroup,
        old_id: &str,
        id: Arc<str>,
        ctx: &mut Context,
    ) {
        let api_version = request.api_version;
        let leader_before = self.leader.clone();
        self.replace_static(old_id, &id, ctx);
        self.update_member(&id, token, request, ctx);
        self.restart_session(&id, ctx);
        match self.state {
            GroupState::Stable if self.protocol == self.select_protocol() => {
                self.subscribed = self.read_subscriptions();
                self.persist(ctx);
                let mut response = self.joined(&id);
                if let Response::JoinGroup(joined) = &mut response {
                    if api_version >= CAN_SKIP_ASSIGNMENT {
                        joined.skip_assignment = self.is_leader(&id);
                    } else {
                        // A stable group would ignore its assignment, so it must
                        // not think that it leads: the old id hides that.
                        joined.leader = leader_before.as_deref().unwrap_or_default().to_owned();
                        joined.members.clear();
                    }
                }
                let member = self.members.get_mut(&id).expect("just put there");
                member.awaiting_join = None;
                self.awaiting_join -= 1;
                ctx.answer_parked(token, response);
            }
            // The leader may be assigning to the old id at this moment: start over.
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(ctx),
            GroupState::PreparingRebalance => self.maybe_complete_join(ctx),
            GroupState::Empty | GroupState::Dead => unreachable!("no members in {:?}", self.state),
        }
    }

    fn replace_static(&mut self, old_id: &str, id: &Arc<str>, ctx: &mut Context) {
        let mut member = self
            .members
            .remove(old_id)
            .expect("static ids name members");
        self.answer_join_with_error(&mut member, old_id, GroupError::FencedInstanceId, ctx);
        member.answer_sync_with_error(GroupError::FencedInstanceId, ctx);
        ctx.timers().cancel(
            &mut member.session,
            TimerKey::Session(self.id.clone(), old_id.into()),
        );
        member.id = id.clone();
        member.is_new = false;
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(id.clone());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(id.clone());
        }
        self.members.insert(id.clone(), member);
    }

    /// What this generation tells a member that joined it.
    pub(super) fn joined(&self, id: &str) -> Response {
        let members = self
            .members
            .iter()
            .filter(|_| self.is_leader(id))
            .map(|(id, member)| JoinedMember {
                member_id: id.as_ref().to_owned(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata_bytes(self.protocol.as_deref().unwrap_or_default()),
            });
        Response::JoinGroup(JoinGroupResponse {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members: members.collect(),
        })
    }
}
