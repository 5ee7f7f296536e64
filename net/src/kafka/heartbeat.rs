//! Heartbeat (12), versions 0 to 4: a member is alive, and hears of a rebalance.
//!
//! ```text
//!   v1  throttle time    v3  static members (KIP-345)    v4  flexible
//! ```

use crate::kafka::context::Context;
use crate::kafka::group::{self, code, given};
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;

pub async fn handle<I: Io>(ctx: Context<I>, request: HeartbeatRequest) -> HeartbeatResponse {
    let error = match group::ask(&ctx, read(request)).await {
        Ok(heard) => code(heard.error),
        Err(unavailable) => unavailable.0,
    };
    HeartbeatResponse::default().with_error_code(error)
}

pub fn read(request: HeartbeatRequest) -> coord::Heartbeat {
    coord::Heartbeat {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: given(request.group_instance_id),
    }
}
