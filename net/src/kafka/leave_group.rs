//! LeaveGroup (13), versions 0 to 5: members go, by their own wish or an operator's.
//!
//! ```text
//!   v0-2   one member, by its id; its error is the answer's only one
//!   v1     throttle time
//!   v3     many members, each with an id or a group instance id (KIP-345)
//!   v4     flexible      v5  the reason for leaving (KIP-800)
//! ```

use crate::kafka::context::Context;
use crate::kafka::group::{self, code, given, text};
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;

pub async fn handle<I: Io>(ctx: Context<I>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    match group::ask(&ctx, read(request, ctx.version)).await {
        Ok(left) => write(left, ctx.version),
        Err(unavailable) => LeaveGroupResponse::default().with_error_code(unavailable.0),
    }
}

pub fn read(request: LeaveGroupRequest, version: i16) -> coord::LeaveGroup {
    let members = if version < 3 {
        vec![coord::LeavingMember {
            member_id: request.member_id.to_string(),
            instance_id: None,
            reason: None,
        }]
    } else {
        request
            .members
            .into_iter()
            .map(|member| coord::LeavingMember {
                member_id: member.member_id.to_string(),
                instance_id: given(member.group_instance_id),
                reason: given(member.reason),
            })
            .collect()
    };
    coord::LeaveGroup {
        group: request.group_id.to_string(),
        members,
    }
}

pub fn write(left: coord::LeaveGroupResponse, version: i16) -> LeaveGroupResponse {
    let mut response = LeaveGroupResponse::default();
    if version < 3 {
        let member = left.members.first().and_then(|member| member.error);
        response.error_code = code(left.error.or(member));
        return response;
    }
    response.error_code = code(left.error);
    response.members = left
        .members
        .into_iter()
        .map(|member| {
            MemberResponse::default()
                .with_member_id(text(member.member_id))
                .with_group_instance_id(member.instance_id.map(text))
                .with_error_code(code(member.error))
        })
        .collect();
    response
}
