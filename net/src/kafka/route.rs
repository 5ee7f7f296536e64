//! From a frame to the handler of its API.
//!
//! ```text
//!  | api_key i16 | api_version i16 | correlation_id i32 | client_id | tags | body |
//!        |               |                                 i16 length  v2 only
//!        +--- the table -+--> header version, guard, decode, handle, encode
//! ```
//!
//! The client id keeps its 2-byte length even in header v2 (`RequestHeader.json`).
//! A key or version that is not in the table closes the connection, as Kafka does;
//! only ApiVersions of an unknown version is answered, in the form of its version 0.

use crate::kafka::answer::{self, Answer, Header};
use crate::kafka::context::{Context, Local, Peer};
use crate::kafka::profile::Watch;
use crate::kafka::turns::Turn;
use crate::kafka::{
    alter_configs, api_versions, create_partitions, create_topics, delete_groups, delete_records,
    delete_topics, describe_cluster, describe_configs, describe_groups, fetch, find_coordinator,
    guard, heartbeat, incremental_alter_configs, init_producer_id, join_group, leave_group,
    list_groups, list_offsets, metadata, offset_commit, offset_delete, offset_fetch,
    offset_for_leader_epoch, produce, sync_group,
};
use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{HeaderVersion, Request, StrBytes};
use klamm_engine::io::Io;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// An answer under way.
pub type Answering<I> = Pin<Box<dyn Future<Output = Answer<I>>>>;

/// Why a frame was not taken: its connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    UnknownApi { api_key: i16 },
    UnsupportedVersion { api_key: i16, version: i16 },
    Malformed(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::UnknownApi { api_key } => write!(f, "it asked for the unknown API {api_key}"),
            Refused::UnsupportedVersion { api_key, version } => write!(
                f,
                "it asked for version {version} of API {api_key}, which is not supported"
            ),
            Refused::Malformed(what) => write!(f, "it sent a malformed request: {what}"),
        }
    }
}

/// One API's line of the table: what needs no type to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// What ApiVersions tells clients.
    pub advertised_min: i16,
    pub served_min: i16,
    pub max: i16,
    /// From this version on: header v2, compact strings, tagged fields.
    pub flexible_from: i16,
}

/// A line: key, name, advertised from, served versions, flexible from, and the
/// function that takes the body.
macro_rules! apis {
    ($($key:literal $name:ident $advertised:literal $min:literal..=$max:literal $flexible:expr, $start:expr;)*) => {
        /// Everything that is served, in the order of the keys. What is not
        /// implemented is not in here, and so it is not advertised.
        pub const APIS: &[Api] = &[$(Api {
            key: $key,
            name: stringify!($name),
            advertised_min: $advertised,
            served_min: $min,
            max: $max,
            flexible_from: $flexible,
        }),*];

        fn dispatch<I: Io>(
            ctx: Context<I>,
            api: &'static Api,
            body: Bytes,
        ) -> Result<Answering<I>, Refused> {
            match api.key {
                $($key => $start(ctx, api, body),)*
                key => unreachable!("API {key} is in the table without a handler"),
            }
        }
    };
}

apis! {
    // key name, advertised from, served, flexible from, handler
    0 Produce 0 3..=12 9, produce::start;
    1 Fetch 4 4..=12 12, fetch::start;
    2 ListOffsets 1 1..=8 6, |ctx, api, body| typed(ctx, api, body, list_offsets::handle);
    3 Metadata 0 0..=12 9, |ctx, api, body| typed(ctx, api, body, metadata::handle);
    8 OffsetCommit 2 2..=9 8, |ctx, api, body| typed(ctx, api, body, offset_commit::handle);
    9 OffsetFetch 1 1..=9 6, |ctx, api, body| typed(ctx, api, body, offset_fetch::handle);
    10 FindCoordinator 0 0..=4 3, |ctx, api, body| typed(ctx, api, body, find_coordinator::handle);
    11 JoinGroup 0 0..=9 6, |ctx, api, body| typed(ctx, api, body, join_group::handle);
    12 Heartbeat 0 0..=4 4, |ctx, api, body| typed(ctx, api, body, heartbeat::handle);
    13 LeaveGroup 0 0..=5 4, |ctx, api, body| typed(ctx, api, body, leave_group::handle);
    14 SyncGroup 0 0..=5 4, |ctx, api, body| typed(ctx, api, body, sync_group::handle);
    15 DescribeGroups 0 0..=6 5, |ctx, api, body| typed(ctx, api, body, describe_groups::handle);
    16 ListGroups 0 0..=5 3, |ctx, api, body| typed(ctx, api, body, list_groups::handle);
    18 ApiVersions 0 0..=4 3, |ctx, api, body| typed(ctx, api, body, api_versions::handle);
    19 CreateTopics 2 2..=7 5, |ctx, api, body| typed(ctx, api, body, create_topics::handle);
    20 DeleteTopics 1 1..=6 4, |ctx, api, body| typed(ctx, api, body, delete_topics::handle);
    21 DeleteRecords 0 0..=2 2, |ctx, api, body| typed(ctx, api, body, delete_records::handle);
    22 InitProducerId 0 0..=4 2, |ctx, api, body| typed(ctx, api, body, init_producer_id::handle);
    23 OffsetForLeaderEpoch 2 2..=4 4, |ctx, api, body| typed(ctx, api, body, offset_for_leader_epoch::handle);
    32 DescribeConfigs 1 1..=4 4, |ctx, api, body| typed(ctx, api, body, describe_configs::handle);
    33 AlterConfigs 0 0..=2 2, |ctx, api, body| typed(ctx, api, body, alter_configs::handle);
    37 CreatePartitions 0 0..=3 2, |ctx, api, body| typed(ctx, api, body, create_partitions::handle);
    42 DeleteGroups 0 0..=2 2, |ctx, api, body| typed(ctx, api, body, delete_groups::handle);
    44 IncrementalAlterConfigs 0 0..=1 1, |ctx, api, body| typed(ctx, api, body, incremental_alter_configs::handle);
    47 OffsetDelete 0 0..=0 i16::MAX, |ctx, api, body| typed(ctx, api, body, offset_delete::handle);
    60 DescribeCluster 0 0..=1 0, |ctx, api, body| typed(ctx, api, body, describe_cluster::handle);
}

/// The line of an API key.
pub fn lookup(api_key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&api_key, |a| a.key)
        .ok()
        .map(|at| &APIS[at])
}

/// A request's header, and where its body begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// Reads the header off the front of a frame; the body stays.
pub fn header(frame: &mut Bytes) -> Result<(RequestHeader, &'static Api), Refused> {
    let short = || Refused::Malformed("the header is cut short".into());
    let api_key = frame.try_get_i16().map_err(|_| short())?;
    let version = frame.try_get_i16().map_err(|_| short())?;
    let correlation_id = frame.try_get_i32().map_err(|_| short())?;
    let api = lookup(api_key).ok_or(Refused::UnknownApi { api_key })?;
    if !(api.served_min..=api.max).contains(&version) {
        // The rest is in a form that we may not know: it is left unread.
        if api_key == ApiVersionsRequest::KEY {
            let header = RequestHeader {
                api_key,
                version,
                correlation_id,
                client_id: None,
            };
            return Ok((header, api));
        }
        return Err(Refused::UnsupportedVersion { api_key, version });
    }
    let client_id = match frame.try_get_i16().map_err(|_| short())? {
        -1 => None,
        len => {
            let len = usize::try_from(len)
                .map_err(|_| Refused::Malformed(format!("a client id of {len} bytes")))?;
            if len > frame.len() {
                return Err(short());
            }
            let id = StrBytes::from_utf8(frame.split_to(len))
                .map_err(|_| Refused::Malformed("the client id is not UTF-8".into()))?;
            Some(id)
        }
    };
    if version >= api.flexible_from {
        guard::skip_tags(frame).map_err(Refused::Malformed)?;
    }
    let header = RequestHeader {
        api_key,
        version,
        correlation_id,
        client_id,
    };
    Ok((header, api))
}

/// Starts a request. What its handler does before it waits has been done in the
/// order of the calls once the caller polls each result once before the next call.
pub fn start<I: Io>(
    local: &Rc<Local<I>>,
    peer: &Rc<Peer>,
    turn: Turn,
    watch: Watch<I>,
    mut frame: Bytes,
) -> Result<Answering<I>, Refused> {
    let (header, api) = header(&mut frame)?;
    watch.known(api, header.client_id.as_deref());
    if !(api.served_min..=api.max).contains(&header.version) {
        let answer = api_versions::unsupported(header.correlation_id);
        return Ok(Box::pin(std::future::ready(answer)));
    }
    let ctx = Context {
        local: local.clone(),
        peer: peer.clone(),
        api_key: header.api_key,
        version: header.version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
        turn,
        watch,
    };
    dispatch(ctx, api, frame)
}

/// The way of every API but the two on the hot path: the guard, then the crate
/// decodes, the handler answers, the crate encodes.
fn typed<I: Io, Q: Request, F>(
    ctx: Context<I>,
    api: &'static Api,
    body: Bytes,
    handle: fn(Context<I>, Q) -> F,
) -> Result<Answering<I>, Refused>
where
    F: Future<Output = Q::Response> + 'static,
{
    let request = decode::<Q>(api, body, ctx.version)?;
    let (correlation_id, version) = (ctx.correlation_id, ctx.version);
    let header = match Q::Response::header_version(version) {
        0 => Header::V0,
        _ => Header::V1,
    };
    let answer = handle(ctx, request);
    Ok(Box::pin(async move {
        answer::encode(&answer.await, header, correlation_id, version)
    }))
}

/// Guards and decodes one body.
pub fn decode<Q: Request>(api: &'static Api, mut body: Bytes, version: i16) -> Result<Q, Refused> {
    guard::check(api.key, version >= api.flexible_from, version, &body)
        .map_err(Refused::Malformed)?;
    // What is left behind the last field is not looked at, as Kafka does not.
    Q::decode(&mut body, version).map_err(|e| Refused::Malformed(e.to_string()))
}
