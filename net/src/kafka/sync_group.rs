//! SyncGroup (14), versions 0 to 5: the leader brings the assignment, everyone waits
//! for their part of it.
//!
//! ```text
//!   v1  throttle time    v3  static members (KIP-345)    v4  flexible
//!   v5  protocol type and name, in both directions; they must be there (KIP-559)
//! ```

use crate::kafka::context::Context;
use crate::kafka::group::{self, code, given, kept, text};
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;

pub async fn handle<I: Io>(ctx: Context<I>, request: SyncGroupRequest) -> SyncGroupResponse {
    match group::ask(&ctx, read(request, ctx.version)).await {
        Ok(synced) => write(synced),
        Err(unavailable) => SyncGroupResponse::default().with_error_code(unavailable.0),
    }
}

pub fn read(request: SyncGroupRequest, version: i16) -> coord::SyncGroup {
    coord::SyncGroup {
        api_version: version,
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: given(request.group_instance_id),
        protocol_type: given(request.protocol_type),
        protocol: given(request.protocol_name),
        assignments: request
            .assignments
            .iter()
            .map(|one| (one.member_id.to_string(), kept(&one.assignment)))
            .collect(),
    }
}

pub fn write(synced: coord::SyncGroupResponse) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(code(synced.error))
        .with_protocol_type(synced.protocol_type.map(text))
        .with_protocol_name(synced.protocol.map(text))
        .with_assignment(synced.assignment)
}
