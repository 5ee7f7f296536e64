//! Topics, brokers, configs and producer ids: what is asked of the cluster, the rules
//! that it must keep, and the znodes that hold the outcome.
//!
//! ```text
//!   CreateTopics --check against tree and settings--> [Op]  --tree--> znodes
//!                                                                       |
//!   Image  <-- topic, read back from its znodes (znodes.rs) <-----------+
//! ```
//!
//! The znodes are the truth, in Kafka's paths and JSON: what is served is always read
//! back from them, so that a topic made by a ZooKeeper client is as good as one made
//! through the Kafka protocol, and a restart sees what was seen before.

pub mod configs;
pub mod controller;
pub mod ids;
pub mod registration;
pub mod state;
pub mod topics;
pub mod znodes;

use crate::core::settings::{ConfigEntry, SettingError};
use klamm_engine::units::{ProducerEpoch, ProducerId, TopicId};
use std::collections::BTreeMap;
use std::fmt;

/// One topic of CreateTopics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// -1: as `num.partitions` says; also where `assignment` is given.
    pub partitions: i32,
    /// -1: as `default.replication.factor` says; also where `assignment` is given.
    pub replication_factor: i16,
    /// Partition index to replicas, the preferred leader first. Empty: chosen here.
    pub assignment: Vec<(i32, Vec<i32>)>,
    /// Settings; None is Kafka's null and is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// What CreateTopics says of a topic that is there now, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// ZERO where the request only validated.
    pub id: TopicId,
    pub partitions: i32,
    pub replication_factor: i16,
    /// As DescribeConfigs tells them.
    pub configs: Vec<ConfigEntry>,
}

/// Which topic: by name or by id (DeleteTopics 6, Metadata 12).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    Name(String),
    Id(TopicId),
}

/// What became of one topic of DeleteTopics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// None where only an id was given and there is no such topic.
    pub name: Option<String>,
    /// ZERO where only a name was given and there is no such topic.
    pub id: TopicId,
    pub result: Result<(), ClusterError>,
}

/// One topic of CreatePartitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    pub topic: String,
    /// How many there are afterwards, in all.
    pub count: i32,
    /// Replicas of each partition that is added, in order. None: chosen here.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// What settings belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    Topic(String),
    /// None: all brokers of the cluster (Kafka's empty name).
    Broker(Option<i32>),
    /// A kind of resource that has no settings here (Kafka's number), with its name.
    Other(i8, String),
}

/// AlterConfigs: the resource's settings are these and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigReplacement {
    pub resource: ConfigResource,
    pub configs: Vec<(String, Option<String>)>,
}

/// IncrementalAlterConfigs: the resource's settings change as told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub resource: ConfigResource,
    pub ops: Vec<ConfigOp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigOp {
    pub name: String,
    /// Kafka's number: 0 set, 1 delete, 2 append, 3 subtract.
    pub op: i8,
    pub value: Option<String>,
}

/// DescribeConfigs of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigQuery {
    pub resource: ConfigResource,
    /// None: all.
    pub names: Option<Vec<String>>,
}

/// InitProducerId's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewProducer {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// One error per name in a request that has many.
pub type Named<T> = Vec<(String, Result<T, ClusterError>)>;
/// Settings by name, as text.
pub type Overrides = BTreeMap<String, String>;

/// Why the cluster refused. The kinds are named as Kafka names its error codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterError {
    pub kind: ClusterErrorKind,
    /// For a person: what is wrong and what would be right.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterErrorKind {
    UnknownTopicOrPartition,
    InvalidTopicException,
    TopicAlreadyExists,
    InvalidPartitions,
    InvalidReplicationFactor,
    InvalidReplicaAssignment,
    InvalidConfig,
    InvalidRequest,
    PolicyViolation,
    TopicDeletionDisabled,
    UnknownTopicId,
    BrokerIdNotRegistered,
    /// The tree is not as the cluster needs it, most likely because of a hand.
    UnknownServerError,
}

impl ClusterErrorKind {
    /// Kafka's error code (`Errors.java`).
    #[must_use]
    pub fn code(self) -> i16 {
        match self {
            ClusterErrorKind::UnknownServerError => -1,
            ClusterErrorKind::UnknownTopicOrPartition => 3,
            ClusterErrorKind::InvalidTopicException => 17,
            ClusterErrorKind::TopicAlreadyExists => 36,
            ClusterErrorKind::InvalidPartitions => 37,
            ClusterErrorKind::InvalidReplicationFactor => 38,
            ClusterErrorKind::InvalidReplicaAssignment => 39,
            ClusterErrorKind::InvalidConfig => 40,
            ClusterErrorKind::InvalidRequest => 42,
            ClusterErrorKind::PolicyViolation => 44,
            ClusterErrorKind::TopicDeletionDisabled => 73,
            ClusterErrorKind::UnknownTopicId => 100,
            ClusterErrorKind::BrokerIdNotRegistered => 102,
        }
    }

    pub(super) fn because(self, message: impl Into<String>) -> ClusterError {
        ClusterError {
            kind: self,
            message: message.into(),
        }
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClusterError {}

impl From<SettingError> for ClusterError {
    fn from(error: SettingError) -> ClusterError {
        ClusterErrorKind::InvalidConfig.because(error.to_string())
    }
}
