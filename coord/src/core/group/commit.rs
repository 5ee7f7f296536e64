//! Who may commit, keep and delete offsets of a group.

use super::context::Context;
use super::message::{GroupError, OffsetCommit};
use super::{Group, GroupState};
use crate::core::offsets::RetentionBase;

/// For a group that is not there, None: a simple consumer founds it.
pub fn check_unfounded(request: &OffsetCommit) -> Option<GroupError> {
    if request.generation < 0 {
        None
    } else if request.api_version >= 9 {
        Some(GroupError::GroupIdNotFound)
    } else {
        Some(GroupError::IllegalGeneration)
    }
}

impl Group {
    /// A commit is a sign of life too.
    pub fn admit_commit(
        &mut self,
        request: &OffsetCommit,
        ctx: &mut Context,
    ) -> Result<(), GroupError> {
        if request.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        let is_simple =
            request.generation < 0 && request.member_id.is_empty() && request.instance_id.is_none();
        if is_simple {
            // It would overwrite what the group's members are at.
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            // It knows this generation but not yet what it may read in it.
            return Err(GroupError::RebalanceInProgress);
        }
        self.restart_session(&request.member_id, ctx);
        Ok(())
    }

    pub fn admit_offset_delete(&self) -> Result<(), GroupError> {
        if self.state == GroupState::Empty || self.is_of_consumers() {
            Ok(())
        } else {
            Err(GroupError::NonEmptyGroup)
        }
    }

    pub fn admit_topic_delete(&self, topic: &str) -> Result<(), GroupError> {
        if self.is_subscribed_to(topic) {
            Err(GroupError::GroupSubscribedToTopic)
        } else {
            Ok(())
        }
    }

    pub fn admit_delete(&self) -> Result<(), GroupError> {
        if self.state == GroupState::Empty {
            Ok(())
        } else {
            Err(GroupError::NonEmptyGroup)
        }
    }

    /// From when this group's offsets age (KIP-211). None: not at all, because
    /// it rebalances or nobody can tell what it reads.
    pub fn retention_base(&self) -> Option<RetentionBase> {
        match (self.state, &self.protocol_type) {
            (_, None) => Some(RetentionBase::CommitTime),
            (GroupState::Empty, Some(_)) => Some(RetentionBase::Since(self.since)),
            // What no member subscribes to any more ages even in a live group.
            (GroupState::Stable, Some(_))
                if self.is_of_consumers() && self.subscribed.is_some() =>
            {
                Some(RetentionBase::CommitTime)
            }
            _ => None,
        }
    }

    pub fn keeps_offsets_of(&self, topic: &str) -> bool {
        self.is_subscribed_to(topic)
    }
}
