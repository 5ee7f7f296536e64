//! IncrementalAlterConfigs (44), versions 0 and 1: settings change one by one (KIP-339).
//!
//! ```text
//!   op  0 set   1 delete: back to the default   2 append to a list   3 take from a list
//!   v1  flexible
//! ```

use crate::kafka::cluster::{Resources, Verdict, failure, given_once, sentence};
use crate::kafka::context::Context;
use crate::kafka::coordinator::{self, ask, of_cluster};
use crate::kafka::errors::Failure;
use crate::kafka::group::given;
use crate::kafka::nodes;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use klamm_coord::core::cluster::{ConfigChange, ConfigOp, ConfigResource};
use klamm_engine::io::Io;

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let image = ctx.image();
    let asked = Resources::sort(
        &request.resources,
        |r| r.resource_type,
        |r| &r.resource_name,
        |r| {
            let read = read(r)?;
            nodes::alterable(&read.resource, &image, &ctx.local.listener)?;
            Ok(read)
        },
    );
    drop(image);
    let question = coordinator::IncrementalAlterConfigs {
        resources: asked.sound.clone(),
        validate_only: request.validate_only,
    };
    let verdicts = match ask(&ctx, question).await {
        Ok(each) => each
            .into_iter()
            .map(|(_, verdict)| verdict.map_err(|error| failure(&error)))
            .collect(),
        Err(unavailable) => asked.all(Failure::from(of_cluster(unavailable))),
    };
    let results = asked.merge(verdicts);
    let responses = request.resources.iter().zip(results);
    IncrementalAlterConfigsResponse::default()
        .with_responses(responses.map(|(r, v)| write(r, v)).collect())
}

pub fn read(asked: &AlterConfigsResource) -> Result<ConfigChange, Failure> {
    given_once(asked.configs.iter().map(|config| config.name.as_str()))?;
    Ok(ConfigChange {
        resource: ConfigResource::from_wire(asked.resource_type, &asked.resource_name),
        ops: asked
            .configs
            .iter()
            .map(|config| ConfigOp {
                name: config.name.to_string(),
                op: config.config_operation,
                value: given(config.value.clone()),
            })
            .collect(),
    })
}

pub fn write(asked: &AlterConfigsResource, verdict: Verdict) -> AlterConfigsResourceResponse {
    let response = AlterConfigsResourceResponse::default()
        .with_error_message(None)
        .with_resource_type(asked.resource_type)
        .with_resource_name(asked.resource_name.clone());
    match verdict {
        Ok(()) => response,
        Err(failure) => response
            .with_error_code(failure.code.0)
            .with_error_message(sentence(failure.message)),
    }
}
