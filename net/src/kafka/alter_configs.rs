//! AlterConfigs (33), versions 0 to 2: a resource's settings are these and no others.
//!
//! ```text
//!   v1  throttle time, as v0     v2  flexible
//! ```
//!
//! What is not named goes back to its default, which is why IncrementalAlterConfigs
//! took its place (KIP-339); old clients know only this one.

use crate::kafka::cluster::{Resources, Verdict, failure, given_once, sentence};
use crate::kafka::context::Context;
use crate::kafka::coordinator::{self, ask, of_cluster};
use crate::kafka::errors::Failure;
use crate::kafka::group::given;
use crate::kafka::nodes;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use klamm_coord::core::cluster::{ConfigReplacement, ConfigResource};
use klamm_engine::io::Io;

pub async fn handle<I: Io>(ctx: Context<I>, request: AlterConfigsRequest) -> AlterConfigsResponse {
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
    let question = coordinator::AlterConfigs {
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
    AlterConfigsResponse::default().with_responses(responses.map(|(r, v)| write(r, v)).collect())
}

pub fn read(asked: &AlterConfigsResource) -> Result<ConfigReplacement, Failure> {
    given_once(asked.configs.iter().map(|config| config.name.as_str()))?;
    Ok(ConfigReplacement {
        resource: ConfigResource::from_wire(asked.resource_type, &asked.resource_name),
        configs: asked
            .configs
            .iter()
            .map(|config| (config.name.to_string(), given(config.value.clone())))
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
