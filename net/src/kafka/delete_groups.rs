//! DeleteGroups (42), versions 0 to 2: groups that nobody is in go, with their offsets.

use crate::kafka::context::Context;
use crate::kafka::group::{self, code, text};
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use klamm_coord::core::group::message as coord;
use klamm_engine::io::Io;
use std::collections::HashSet;

pub async fn handle<I: Io>(ctx: Context<I>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let delete = read(&request);
    let groups = delete.groups.clone();
    match group::ask(&ctx, delete).await {
        Ok(deleted) => write(deleted.groups.into_iter().map(|(g, e)| (g, code(e)))),
        Err(unavailable) => write(groups.into_iter().map(|g| (g, unavailable.0))),
    }
}

/// A group named twice is deleted once and answered once.
pub fn read(request: &DeleteGroupsRequest) -> coord::DeleteGroups {
    let mut seen = HashSet::new();
    coord::DeleteGroups {
        groups: request
            .groups_names
            .iter()
            .filter(|group| seen.insert(group.as_str()))
            .map(|group| group.to_string())
            .collect(),
    }
}

pub fn write(verdicts: impl Iterator<Item = (String, i16)>) -> DeleteGroupsResponse {
    DeleteGroupsResponse::default().with_results(
        verdicts
            .map(|(group, error)| {
                DeletableGroupResult::default()
                    .with_group_id(GroupId(text(group)))
                    .with_error_code(error)
            })
            .collect(),
    )
}
