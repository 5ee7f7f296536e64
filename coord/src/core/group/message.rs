//! What clients ask of a group and what they are told, without the wire.
//!
//! Field for field what Kafka's messages say, the same for every version of an
//! API: the codec fills a field that a version lacks with the wire's default
//! (-1, empty, none) and leaves out of an answer what a version cannot say.
//! `api_version` is passed on only where the *behaviour* changes with it.

use bytes::Bytes;
use klamm_engine::units::{LeaderEpoch, Offset};

/// Named as Kafka names its error codes; the codec maps each to its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupError {
    OffsetMetadataTooLarge,
    IllegalGeneration,
    InconsistentGroupProtocol,
    InvalidGroupId,
    UnknownMemberId,
    InvalidSessionTimeout,
    RebalanceInProgress,
    NonEmptyGroup,
    GroupIdNotFound,
    MemberIdRequired,
    GroupMaxSizeReached,
    FencedInstanceId,
    GroupSubscribedToTopic,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    JoinGroup(JoinGroup),
    SyncGroup(SyncGroup),
    Heartbeat(Heartbeat),
    LeaveGroup(LeaveGroup),
    OffsetCommit(OffsetCommit),
    OffsetFetch(OffsetFetch),
    ListGroups(ListGroups),
    DescribeGroups(DescribeGroups),
    DeleteGroups(DeleteGroups),
    OffsetDelete(OffsetDelete),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponse),
    ListGroups(ListGroupsResponse),
    DescribeGroups(DescribeGroupsResponse),
    DeleteGroups(DeleteGroupsResponse),
    OffsetDelete(OffsetDeleteResponse),
}

/// One way of assigning partitions that a member can follow: a name ("range")
/// and what the member tells the leader for it (its subscription).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroup {
    /// From 4 on, a first join without a member id is told MEMBER_ID_REQUIRED
    /// (KIP-394); from 9 on, a static leader may be told to skip the assignment
    /// (KIP-814).
    pub api_version: i16,
    pub group: String,
    pub session_timeout_ms: i32,
    /// Negative (version 0 has none): the session timeout.
    pub rebalance_timeout_ms: i32,
    /// Empty at the first join.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    /// As Kafka prints it: "/10.0.0.7".
    pub client_host: String,
    pub protocol_type: String,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroupResponse {
    pub error: Option<GroupError>,
    /// -1 with an error.
    pub generation: i32,
    pub protocol_type: Option<String>,
    /// None: null from version 7 on, the empty string before.
    pub protocol: Option<String>,
    /// Empty with an error.
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// Only the leader is told.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroup {
    /// From 5 on, protocol type and name must be there (KIP-559).
    pub api_version: i16,
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// Member id and assignment; only the leader sends any.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroupResponse {
    pub error: Option<GroupError>,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatResponse {
    pub error: Option<GroupError>,
}

/// Versions 0 to 2 name one member, by its id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveGroup {
    pub group: String,
    pub members: Vec<LeavingMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// Empty when an administrator removes a static member by its instance id.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub reason: Option<String>,
}

/// Versions 0 to 2 have only one error: `error`, or else the member's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveGroupResponse {
    pub error: Option<GroupError>,
    pub members: Vec<LeftMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub error: Option<GroupError>,
}

/// Topics and partitions that do not exist are the caller's to refuse: groups
/// know names, not the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    /// From 9 on, an unknown group is GROUP_ID_NOT_FOUND; ILLEGAL_GENERATION before.
    pub api_version: i16,
    pub group: String,
    /// -1: a simple consumer, which is in no group.
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// Versions 2 to 4; -1: as the broker is set.
    pub retention_time_ms: i64,
    pub topics: Vec<OffsetCommitTopic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitTopic {
    pub topic: String,
    pub partitions: Vec<OffsetCommitPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitPartition {
    pub partition: i32,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitResponse {
    pub topics: Vec<TopicErrors>,
}

/// One verdict a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicErrors {
    pub topic: String,
    pub partitions: Vec<(i32, Option<GroupError>)>,
}

/// Some groups at once from version 8 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetch {
    pub groups: Vec<OffsetFetchGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchGroup {
    pub group: String,
    /// None: every offset that the group has.
    pub topics: Option<Vec<(String, Vec<i32>)>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponse {
    pub groups: Vec<FetchedGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedGroup {
    pub group: String,
    pub topics: Vec<FetchedTopic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    pub topic: String,
    pub partitions: Vec<FetchedOffset>,
}

/// Offset -1, epoch -1, no metadata: nothing was committed, which is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    pub partition: i32,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: String,
}

/// Empty filters let everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListGroups {
    pub states: Vec<String>,
    pub types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListGroupsResponse {
    pub groups: Vec<ListedGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group: String,
    pub protocol_type: String,
    /// `GroupState::name`
    pub state: &'static str,
    /// "classic"
    pub group_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeGroups {
    /// From 6 on, an unknown group is GROUP_ID_NOT_FOUND (KIP-1043); no error before.
    pub api_version: i16,
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeGroupsResponse {
    pub groups: Vec<DescribedGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    pub error: Option<GroupError>,
    pub group: String,
    /// "Dead" for a group that is not there.
    pub state: &'static str,
    pub protocol_type: String,
    /// The selected protocol; empty unless the group is stable.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Empty unless the group is stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGroups {
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGroupsResponse {
    pub groups: Vec<(String, Option<GroupError>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDelete {
    pub group: String,
    pub topics: Vec<(String, Vec<i32>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteResponse {
    /// With an error, `topics` is empty.
    pub error: Option<GroupError>,
    pub topics: Vec<TopicErrors>,
}
