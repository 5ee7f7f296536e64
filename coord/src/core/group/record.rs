//! What of the groups outlives a restart, as records in the changelog.

use std::sync::Arc;

use bytes::Bytes;
use klamm_engine::units::TimestampMs;

use super::message::Protocol;
use crate::core::offsets::CommittedOffset;

/// The only way in which durable state changes; absolute, so that a record
/// applied twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Creates a simple group where there is none.
    OffsetsCommitted { group: String, topics: Vec<TopicOffsets> },
    OffsetsRemoved { group: String, topics: Vec<(String, Vec<i32>)> },
    /// A rebalance has ended: who is in, with what assignment.
    GroupState { group: String, state: Arc<GroupRecord> },
    /// The group and every offset of it.
    GroupRemoved { group: String },
    /// The topic's offsets in every group.
    TopicForgotten { topic: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    pub topic: String,
    pub partitions: Vec<(i32, CommittedOffset)>,
}

/// A group between two rebalances: stable, or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into this state; expiry counts from here once it is empty.
    pub since: TimestampMs,
    pub members: Vec<MemberRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// All of them, not only the selected one as in Kafka: a member that rejoins
    /// unchanged after a restart is then seen to be unchanged.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
}

/// Bytes that are no record, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRecord(pub &'static str);

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a group record: {}", self.0)
    }
}

impl std::error::Error for BadRecord {}
