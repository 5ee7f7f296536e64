//! Kafka's wire protocol.
//!
//! ```text
//!  server       listens on every shard, counts connections, drains
//!  connection   one client: reads frames, starts requests in order, answers in order
//!  frame        the 4-byte length and what follows it
//!  route        header -> API and version -> guard -> decode -> handler -> answer
//!  guard        does everything the bytes claim to hold fit in the bytes there are?
//!  context      what a handler is given
//!  answer       what a handler gives back
//!  errors       what went wrong below -> Kafka's code
//!  nodes        what clients take for brokers: brokers, or their cores
//!  following    the image of the cluster -> this shard's partitions
//!  profile      what each request's time went into
//!  limits       what one client, and all of them together, may hold
//! ```
//!
//! and one file an API, named as Kafka names it. Each has one function:
//!
//! ```text
//! pub async fn handle<I: Io>(ctx: Context<I>, request: XRequest) -> XResponse
//! ```
//!
//! What a handler does before it first waits happens in the order in which the
//! client sent its requests; from there on the requests of one connection overtake
//! each other freely, and only their answers are put back in order.

pub mod answer;
pub mod closing;
pub mod cluster;
pub mod connection;
pub mod context;
pub mod coordinator;
pub mod cores;
pub mod errors;
pub mod following;
pub mod frame;
pub mod fuzzing;
pub mod group;
pub mod guard;
pub mod hosted;
pub mod lateness;
pub mod limits;
pub mod nodes;
mod outbox;
pub mod profile;
pub mod route;
pub mod server;
pub mod turns;
pub mod wire;

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod every_version;
#[cfg(test)]
mod testing;
