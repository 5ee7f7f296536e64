//! What the ten group APIs share: the way to the coordinator, and its verdicts as codes.
//!
//! ```text
//!   join_group, sync_group, heartbeat, leave_group      membership
//!   offset_commit, offset_fetch, offset_delete          offsets
//!   list_groups, describe_groups, delete_groups         administration
//!        |  ^
//!   group::ask     the coordinator's shard; answered once what it changed is committed
//! ```
//!
//! Each of those files is two mappings with a call between them: the wire's request
//! to the coordinator's, and back. Both are plain functions, so that they are tested
//! without a broker. The coordinator knows no versions but where its behaviour
//! changes with them; what an old version cannot say is left out on the way back.

use crate::kafka::context::Context;
use crate::kafka::coordinator::{self, Question};
use crate::kafka::errors::Code;
use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use klamm_coord::core::group::message::GroupError;
use klamm_engine::io::Io;

/// Asks the group's coordinator; the code stands in for an answer that does not come.
pub fn ask<I: Io, Q: Question>(
    ctx: &Context<I>,
    question: Q,
) -> impl Future<Output = Result<Q::Answer, Code>> + 'static {
    let answer = coordinator::ask(ctx, question);
    async move { answer.await.map_err(coordinator::of_group) }
}

/// A verdict as the wire has it; 0 where there is nothing wrong.
pub fn code(error: Option<GroupError>) -> i16 {
    error.map_or(Code::NONE, error_code).0
}

pub fn error_code(error: GroupError) -> Code {
    match error {
        GroupError::OffsetMetadataTooLarge => Code::OFFSET_METADATA_TOO_LARGE,
        GroupError::IllegalGeneration => Code::ILLEGAL_GENERATION,
        GroupError::InconsistentGroupProtocol => Code::INCONSISTENT_GROUP_PROTOCOL,
        GroupError::InvalidGroupId => Code::INVALID_GROUP_ID,
        GroupError::UnknownMemberId => Code::UNKNOWN_MEMBER_ID,
        GroupError::InvalidSessionTimeout => Code::INVALID_SESSION_TIMEOUT,
        GroupError::RebalanceInProgress => Code::REBALANCE_IN_PROGRESS,
        GroupError::NonEmptyGroup => Code::NON_EMPTY_GROUP,
        GroupError::GroupIdNotFound => Code::GROUP_ID_NOT_FOUND,
        GroupError::MemberIdRequired => Code::MEMBER_ID_REQUIRED,
        GroupError::GroupMaxSizeReached => Code::GROUP_MAX_SIZE_REACHED,
        GroupError::FencedInstanceId => Code::FENCED_INSTANCE_ID,
        GroupError::GroupSubscribedToTopic => Code::GROUP_SUBSCRIBED_TO_TOPIC,
    }
}

/// A string that may be null, off the wire.
pub fn given(text: Option<StrBytes>) -> Option<String> {
    text.map(|t| t.to_string())
}

/// A string onto the wire.
pub fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Bytes that the coordinator keeps for longer than the request lives: a slice of
/// the frame would keep all of the frame.
pub fn kept(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
