//! JoinGroup (11), versions 0 to 9: enter a group, and wait for its next generation.
//!
//! ```text
//!   v0      no rebalance timeout: the session timeout serves for it
//!   v2      throttle time
//!   v4      a first join is sent back with a member id to come again with (KIP-394)
//!   v5      static members: a group instance id (KIP-345)
//!   v6      flexible
//!   v7      protocol type in the answer; no protocol is null, "" before (KIP-559)
//!   v8      the reason for joining (KIP-800)
//!   v9      the leader may be told to skip the assignment (KIP-814)
//! ```

use crate::kafka::context::Context;
use crate::kafka::group::{self, code, given, kept, text};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;

pub async fn handle<I: Io>(ctx: Context<I>, request: JoinGroupRequest) -> JoinGroupResponse {
    let member_id = request.member_id.clone();
    let join = read(request, ctx.version, ctx.client_id(), ctx.client_host());
    match group::ask(&ctx, join).await {
        Ok(joined) => write(joined, ctx.version),
        Err(unavailable) => {
            let mut response = JoinGroupResponse::default();
            response.error_code = unavailable.0;
            response.generation_id = -1;
            response.protocol_name = (ctx.version < 7).then(Default::default);
            response.member_id = member_id;
            response
        }
    }
}

pub fn read(
    request: JoinGroupRequest,
    version: i16,
    client_id: &str,
    client_host: String,
) -> coord::JoinGroup {
    coord::JoinGroup {
        api_version: version,
        group: request.group_id.to_string(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        member_id: request.member_id.to_string(),
        instance_id: given(request.group_instance_id),
        client_id: client_id.to_owned(),
        client_host,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| coord::Protocol {
                name: protocol.name.to_string(),
                metadata: kept(&protocol.metadata),
            })
            .collect(),
        reason: given(request.reason),
    }
}

pub fn write(joined: coord::JoinGroupResponse, version: i16) -> JoinGroupResponse {
    let protocol = joined.protocol.map(text);
    let mut response = JoinGroupResponse::default();
    response.error_code = code(joined.error);
    response.generation_id = joined.generation;
    response.protocol_type = joined.protocol_type.map(text);
    response.protocol_name = if version < 7 {
        Some(protocol.unwrap_or_default())
    } else {
        protocol
    };
    response.leader = text(joined.leader);
    // Before version 9 there is no way to say so: the leader assigns, and what it
    // sends is what the group has.
    response.skip_assignment = version >= 9 && joined.skip_assignment;
    response.member_id = text(joined.member_id);
    response.members = joined
        .members
        .into_iter()
        .map(|member| {
            let mut joined = JoinGroupResponseMember::default();
            joined.member_id = text(member.member_id);
            joined.group_instance_id = member.instance_id.map(text);
            joined.metadata = member.metadata;
            joined
        })
        .collect();
    response
}
