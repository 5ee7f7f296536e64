//! SyncGroup: the leader brings everyone's assignment, everyone takes its own.
//! Heartbeat: the session goes on, and the member hears of a rebalance.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::context::Context;
use super::message::{GroupError, Heartbeat, Response, SyncGroup, SyncGroupResponse};
use super::{Arc, Group, GroupState};
use crate::core::groups::Token;

/// From here on the protocol must be named (KIP-559).
const REQUIRES_PROTOCOL: i16 = 5;

pub fn refused(why: GroupError) -> Response {
    Response::SyncGroup(SyncGroupResponse {
        error: Some(why),
        protocol_type: None,
        protocol: None,
        assignment: Bytes::new(),
    })
}

/// What can be told without knowing the group.
pub fn check(request: &SyncGroup) -> Result<(), GroupError> {
    if request.api_version >= REQUIRES_PROTOCOL
        && (request.protocol_type.is_none() || request.protocol.is_none())
    {
        Err(GroupError::InconsistentGroupProtocol)
    } else if request.group.is_empty() {
        Err(GroupError::InvalidGroupId)
    } else {
        Ok(())
    }
}

impl Group {
    pub fn sync(&mut self, token: Token, request: SyncGroup, ctx: &mut Context) {
        if let Err(error) = self.check_sync(&request) {
            ctx.answer(token, refused(error));
            return;
        }
        let id = request.member_id.as_str();
        match self.state {
            GroupState::PreparingRebalance => {
                ctx.answer(token, refused(GroupError::RebalanceInProgress))
            }
            GroupState::CompletingRebalance => {
                ctx.park(token);
                let member = self.members.get_mut(id).expect("checked");
                // The client has given the earlier request up: it sent this one.
                if let Some(earlier) = member.awaiting_sync.replace(token) {
                    ctx.answer_parked(earlier, refused(GroupError::RebalanceInProgress));
                }
                self.note_synced(id, ctx);
                if self.is_leader(id) {
                    self.assign(request.assignments, ctx);
                }
            }
            GroupState::Stable => {
                self.note_synced(id, ctx);
                ctx.answer(token, self.synced(id));
                self.restart_session(id, ctx);
            }
            GroupState::Empty | GroupState::Dead => unreachable!("no members in {:?}", self.state),
        }
    }

    fn check_sync(&self, request: &SyncGroup) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |theirs: &Option<String>, ours: &Option<String>| theirs.is_some() && theirs != ours;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn note_synced(&mut self, id: &str, ctx: &mut Context) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            self.cancel_sync_deadline(ctx);
        }
    }

    /// The leader has spoken: whom it forgot gets nothing.
    fn assign(&mut self, assignments: Vec<(String, Bytes)>, ctx: &mut Context) {
        let mut assignments: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(&**id).unwrap_or_default();
        }
        self.move_to(GroupState::Stable, ctx);
        self.persist(ctx);
        let waiting = self.take_syncs();
        for (id, token) in waiting {
            let response = self.synced(&id);
            ctx.answer_parked(token, response);
            self.restart_session(&id, ctx);
        }
    }

    /// A rebalance overtakes those who wait for their assignment.
    pub(super) fn fail_syncs(&mut self, why: GroupError, ctx: &mut Context) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for (id, token) in self.take_syncs() {
            ctx.answer_parked(token, refused(why));
            self.restart_session(&id, ctx);
        }
    }

    fn take_syncs(&mut self) -> Vec<(Arc<str>, Token)> {
        self.members
            .iter_mut()
            .filter_map(|(id, m)| Some((id.clone(), m.awaiting_sync.take()?)))
            .collect()
    }

    fn synced(&self, id: &str) -> Response {
        Response::SyncGroup(SyncGroupResponse {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members[id].assignment.clone(),
        })
    }

    pub fn heartbeat(&mut self, request: &Heartbeat, ctx: &mut Context) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.restart_session(&request.member_id, ctx);
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }
}
