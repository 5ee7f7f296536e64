//! FindCoordinator (10), versions 0 to 4: who looks after this group?
//!
//! ```text
//!   v0  groups only     v1  groups (0) and transactional ids (1), a message     v3  flexible
//!   v4  many keys, an answer to each (KIP-699)
//! ```
//!
//! Brokers share the groups out among them by their names; where the cluster's
//! coordinator runs in one of them, that one looks after all (`Image::group_coordinator`).
//!
//! There are no transactions yet, and a client must hear so once and stop. Most codes
//! make it ask again until its own timeout: librdkafka takes one alone as final here,
//! 53 (TRANSACTIONAL_ID_AUTHORIZATION_FAILED); the Java client and others do too. The
//! name says "not allowed"; the message, which both print, says why.

use crate::kafka::context::Context;
use crate::kafka::errors::{Code, Failure};
use crate::kafka::group::text;
use crate::kafka::nodes::Nodes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use klamm_coord::core::image::Endpoint;
use klamm_engine::io::Io;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// What FindCoordinator and InitProducerId say to a transactional producer.
pub const NO_TRANSACTIONS: &str = "Klamm has no transactions yet: leave out transactional.id \
     (an idempotent producer needs none)";

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let image = ctx.image();
    let nodes = Nodes::of(&image, &ctx.local.listener);
    let looks_after = |group: &str| {
        let node = nodes.broker(image.group_coordinator(group)?)?;
        Some((node.id, node.endpoint.clone()))
    };
    write(&request, looks_after, ctx.version)
}

/// `looks_after`: the broker of a group, where the asker reaches it; none until one is
/// registered.
pub fn write(
    request: &FindCoordinatorRequest,
    looks_after: impl Fn(&str) -> Option<(i32, Endpoint)>,
    version: i16,
) -> FindCoordinatorResponse {
    if version < 4 {
        let (code, message, node, host, port) = find(request.key_type, &request.key, looks_after);
        return FindCoordinatorResponse::default()
            .with_error_code(code.0)
            .with_error_message(message)
            .with_node_id(BrokerId(node))
            .with_host(host)
            .with_port(port);
    }
    let coordinators = request.coordinator_keys.iter().map(|key| {
        let (code, message, node, host, port) = find(request.key_type, key, &looks_after);
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(node))
            .with_host(host)
            .with_port(port)
            .with_error_code(code.0)
            .with_error_message(message)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

type Found = (Code, Option<StrBytes>, i32, StrBytes, i32);

fn find(key_type: i8, key: &str, looks_after: impl Fn(&str) -> Option<(i32, Endpoint)>) -> Found {
    let found = match key_type {
        GROUP => looks_after(key).ok_or_else(|| Failure::from(Code::COORDINATOR_NOT_AVAILABLE)),
        TRANSACTION => Err(Failure::new(
            Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            NO_TRANSACTIONS,
        )),
        other => Err(Failure::new(
            Code::INVALID_REQUEST,
            format!("There are no coordinators of type {other}."),
        )),
    };
    match found {
        Ok((id, endpoint)) => {
            let host = text(endpoint.host.as_str());
            (Code::NONE, None, id, host, i32::from(endpoint.port))
        }
        Err(failure) => (failure.code, failure.message.map(text), -1, text(""), -1),
    }
}
