//! DescribeGroups (15), versions 0 to 6: a group's state, protocol and members.
//!
//! ```text
//!   v1  throttle time     v3  what the asker may do with it     v4  group instance ids
//!   v5  flexible          v6  an unknown group is an error with a message (KIP-1043);
//!                             before, it is a group in the state "Dead"
//! ```

use crate::kafka::context::Context;
use crate::kafka::group::{self, code, text};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;

/// Everyone may do everything, as long as there are no ACLs. One bit an operation
/// that a group knows (`AclOperation`): read 3, delete 6, describe 8, describe
/// configs 10, alter configs 11.
const EVERYTHING: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// The asker did not want to know.
const NOT_ASKED: i32 = i32::MIN;

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = if request.include_authorized_operations {
        EVERYTHING
    } else {
        NOT_ASKED
    };
    match group::ask(&ctx, read(&request, ctx.version)).await {
        Ok(described) => write(described, ctx.version, operations),
        Err(unavailable) => DescribeGroupsResponse::default().with_groups(
            request
                .groups
                .into_iter()
                .map(|group| {
                    DescribedGroup::default()
                        .with_group_id(group)
                        .with_error_code(unavailable.0)
                })
                .collect(),
        ),
    }
}

pub fn read(request: &DescribeGroupsRequest, version: i16) -> coord::DescribeGroups {
    coord::DescribeGroups {
        api_version: version,
        groups: request
            .groups
            .iter()
            .map(|group| group.to_string())
            .collect(),
    }
}

pub fn write(
    described: coord::DescribeGroupsResponse,
    version: i16,
    operations: i32,
) -> DescribeGroupsResponse {
    DescribeGroupsResponse::default().with_groups(
        described
            .groups
            .into_iter()
            .map(|group| describe(group, version, operations))
            .collect(),
    )
}

fn describe(group: coord::DescribedGroup, version: i16, operations: i32) -> DescribedGroup {
    let mut described = DescribedGroup::default();
    described.error_code = code(group.error);
    if version >= 6 && group.error.is_some() {
        // An id may have 32,767 bytes: the message keeps to its front.
        let id: String = group.group.chars().take(255).collect();
        described.error_message = Some(text(format!("Group {id} not found.")));
    }
    described.group_id = GroupId(text(group.group));
    described.group_state = text(group.state);
    described.protocol_type = text(group.protocol_type);
    described.protocol_data = text(group.protocol);
    if version >= 3 && group.error.is_none() {
        described.authorized_operations = operations;
    }
    described.members = group
        .members
        .into_iter()
        .map(|member| {
            DescribedGroupMember::default()
                .with_member_id(text(member.member_id))
                .with_group_instance_id(member.instance_id.map(text))
                .with_client_id(text(member.client_id))
                .with_client_host(text(member.client_host))
                .with_member_metadata(member.metadata)
                .with_member_assignment(member.assignment)
        })
        .collect();
    described
}
