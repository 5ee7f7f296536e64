//! DescribeConfigs (32), versions 1 to 4: settings, where each value comes from, and
//! what it is for.
//!
//! ```text
//!   v1  every place that has a value (KIP-226)
//!   v3  types and documentation (KIP-569)     v4  flexible
//! ```
//!
//! One result a resource, in the order of the request. The defaults are in it too:
//! that is what tools ask for.

use crate::kafka::cluster::{failure, sentence};
use crate::kafka::context::Context;
use crate::kafka::errors::Failure;
use crate::kafka::group::text;
use crate::kafka::nodes;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use klamm_coord::core::cluster::{ConfigQuery, ConfigResource};
use klamm_coord::core::settings::ConfigEntry;
use klamm_engine::io::Io;

/// What of an entry the asker wants to hear.
#[derive(Clone, Copy, Debug)]
pub struct Detail {
    pub synonyms: bool,
    pub documentation: bool,
}

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let detail = Detail {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let image = ctx.image();
    let results = request.resources.iter().map(|asked| {
        let mut query = read(asked);
        query.resource = nodes::described(query.resource, &image, &ctx.local.listener);
        let described = image.describe_configs(&query);
        write(asked, described.map_err(|error| failure(&error)), detail)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

pub fn read(asked: &DescribeConfigsResource) -> ConfigQuery {
    let names = asked
        .configuration_keys
        .as_ref()
        // No names are all names, as in Kafka.
        .filter(|names| !names.is_empty())
        .map(|names| names.iter().map(|name| name.to_string()).collect());
    ConfigQuery {
        resource: ConfigResource::from_wire(asked.resource_type, &asked.resource_name),
        names,
    }
}

pub fn write(
    asked: &DescribeConfigsResource,
    described: Result<Vec<ConfigEntry>, Failure>,
    detail: Detail,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(asked.resource_type)
        .with_resource_name(asked.resource_name.clone());
    match described {
        Ok(entries) => result.with_error_message(None).with_configs(
            entries
                .into_iter()
                .map(|entry| config(entry, detail))
                .collect(),
        ),
        Err(failure) => result
            .with_error_code(failure.code.0)
            .with_error_message(sentence(failure.message)),
    }
}

fn config(entry: ConfigEntry, detail: Detail) -> DescribeConfigsResourceResult {
    let mut config = DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(entry.value.map(text))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(entry.sensitive)
        .with_config_type(entry.config_type)
        .with_documentation(None);
    if detail.documentation {
        config.documentation = Some(text(entry.doc));
    }
    if detail.synonyms {
        config.synonyms = entry
            .synonyms
            .into_iter()
            .map(|synonym| {
                DescribeConfigsSynonym::default()
                    .with_name(text(synonym.name))
                    .with_value(synonym.value.map(text))
                    .with_source(synonym.source.code())
            })
            .collect();
    }
    config
}
