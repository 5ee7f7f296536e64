//! DescribeCluster (60), versions 0 and 1: the nodes, the controller, the cluster's id.
//!
//! ```text
//!   v0  flexible from the start     v1  which kind of endpoints: brokers, controllers
//! ```
//!
//! There are no endpoints that are a controller's alone (KIP-919): asking for them is
//! answered as a Kafka broker answers it.

use crate::kafka::context::Context;
use crate::kafka::errors::{Code, Failure};
use crate::kafka::group::text;
use crate::kafka::nodes::Nodes;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use klamm_engine::io::Io;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// `Errors.java`: of the endpoint types.
const MISMATCHED_ENDPOINT_TYPE: Code = Code(114);
const UNSUPPORTED_ENDPOINT_TYPE: Code = Code(115);

/// Everyone may do everything, as long as there are no ACLs. One bit an operation
/// that a cluster knows (`AclOperation`): create 5, alter 7, describe 8, cluster
/// action 9, describe configs 10, alter configs 11, idempotent write 12.
const EVERYTHING: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let image = ctx.image();
    let nodes = Nodes::of(&image, &ctx.local.listener);
    write(&request, &image.cluster_id, image.controller, &nodes)
}

pub fn write(
    request: &DescribeClusterRequest,
    cluster_id: &str,
    controller: Option<i32>,
    nodes: &Nodes<'_>,
) -> DescribeClusterResponse {
    if let Err(failure) = check(request.endpoint_type) {
        return DescribeClusterResponse::default()
            .with_error_code(failure.code.0)
            .with_error_message(failure.message.map(text));
    }
    let brokers: Vec<_> = nodes
        .all()
        .map(|node| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(node.id))
                .with_host(text(node.endpoint.host.as_str()))
                .with_port(i32::from(node.endpoint.port))
                .with_rack(node.rack.map(text))
        })
        .collect();
    // A controller that a client cannot find among the brokers is none to it.
    let controller = controller.filter(|id| brokers.iter().any(|broker| broker.broker_id.0 == *id));
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(text(cluster_id))
        .with_controller_id(BrokerId(controller.unwrap_or(-1)))
        .with_brokers(brokers);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = EVERYTHING;
    }
    response
}

fn check(endpoints: i8) -> Result<(), Failure> {
    match endpoints {
        BROKERS => Ok(()),
        CONTROLLERS => Err(Failure::new(
            MISMATCHED_ENDPOINT_TYPE,
            "This is a broker's endpoint; there are none of controllers.",
        )),
        other => Err(Failure::new(
            UNSUPPORTED_ENDPOINT_TYPE,
            format!("There are no endpoints of type {other}."),
        )),
    }
}
