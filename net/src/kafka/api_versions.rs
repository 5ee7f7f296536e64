//! ApiVersions (key 18, versions 0-4): what this broker can do.
//!
//! The answer's header is always version 0, and a version that is not known is
//! answered in the form of version 0 with UNSUPPORTED_VERSION and this API's own
//! range (KIP-511), so that any client can find a common version.

use crate::kafka::answer::{self, Answer, Header};
use crate::kafka::context::Context;
use crate::kafka::errors::Code;
use crate::kafka::route::{self, APIS, Api};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_engine::io::Io;

pub async fn handle<I: Io>(ctx: Context<I>, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if ctx.version >= 3 {
        if !is_software_name(&request.client_software_name)
            || !is_software_name(&request.client_software_version)
        {
            return ApiVersionsResponse::default().with_error_code(Code::INVALID_REQUEST.0);
        }
        log::debug!(
            "{} is {} {} (client id {:?})",
            ctx.peer.address,
            request.client_software_name,
            request.client_software_version,
            ctx.client_id()
        );
    }
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(line).collect())
}

/// The answer to a version that is not in the table.
pub fn unsupported<I: Io>(correlation_id: i32) -> Answer<I> {
    let own = route::lookup(18).expect("ApiVersions is served");
    let response = ApiVersionsResponse::default()
        .with_error_code(Code::UNSUPPORTED_VERSION.0)
        .with_api_keys(vec![line(own)]);
    answer::encode(&response, Header::V0, correlation_id, 0)
}

fn line(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key)
        .with_min_version(api.advertised_min)
        .with_max_version(api.max)
}

/// KIP-511's rule for names and versions of client software.
fn is_software_name(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_alphanumeric();
    let inner = |b: u8| edge(b) || b == b'-' || b == b'.';
    let b = name.as_bytes();
    match (b.first(), b.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && b.iter().all(|b| inner(*b)),
        _ => false,
    }
}
