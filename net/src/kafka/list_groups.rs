//! ListGroups (16), versions 0 to 5: which groups there are.
//!
//! ```text
//!   v1  throttle time     v3  flexible
//!   v4  by state, and the state in the answer (KIP-518)    v5  by type (KIP-848)
//! ```
//!
//! Tools ask every node and put the answers side by side. Of a broker whose cores are nodes
//! each, the one that FindCoordinator names has all groups; the others have none.

use crate::kafka::context::Context;
use crate::kafka::group::{self, text};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;
use klamm_engine::units::ShardId;

pub async fn handle<I: Io>(ctx: Context<I>, request: ListGroupsRequest) -> ListGroupsResponse {
    if ctx.peer.own_port && ctx.local.cores.here() != ShardId::COORDINATOR {
        return ListGroupsResponse::default();
    }
    match group::ask(&ctx, read(&request)).await {
        Ok(listed) => write(listed),
        Err(unavailable) => ListGroupsResponse::default().with_error_code(unavailable.0),
    }
}

pub fn read(request: &ListGroupsRequest) -> coord::ListGroups {
    coord::ListGroups {
        states: request
            .states_filter
            .iter()
            .map(|s| s.to_string())
            .collect(),
        types: request.types_filter.iter().map(|t| t.to_string()).collect(),
    }
}

pub fn write(listed: coord::ListGroupsResponse) -> ListGroupsResponse {
    ListGroupsResponse::default().with_groups(
        listed
            .groups
            .into_iter()
            .map(|group| {
                ListedGroup::default()
                    .with_group_id(GroupId(text(group.group)))
                    .with_protocol_type(text(group.protocol_type))
                    .with_group_state(text(group.state))
                    .with_group_type(text(group.group_type))
            })
            .collect(),
    )
}
