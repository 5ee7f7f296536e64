//! The coordinator whole: tree, cluster and groups behind one door.

use crate::core::Zxid;
use crate::core::cluster::{
    ClusterError, ConfigChange, ConfigQuery, ConfigReplacement, ConfigResource, CreatedTopic,
    DeletedTopic, Named, NewPartitions, NewProducer, NewTopic, TopicRef,
};
use crate::core::group::message as group;
use crate::core::image::Broker;
use crate::core::settings::ConfigEntry;
use crate::core::tree::{MultiError, Op, OpResult};

/// What the coordinator can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
    },
    CreatePartitions {
        topics: Vec<NewPartitions>,
        validate_only: bool,
    },
    AlterConfigs {
        resources: Vec<ConfigReplacement>,
        validate_only: bool,
    },
    IncrementalAlterConfigs {
        resources: Vec<ConfigChange>,
        validate_only: bool,
    },
    /// Also answered by [`crate::core::image::Image::describe_configs`], without the
    /// way to shard 0.
    DescribeConfigs {
        resources: Vec<ConfigQuery>,
    },
    /// A producer id for an idempotent producer, never given out before.
    InitProducerId,
    /// What goes through a group's coordinator.
    Group(group::Request),
    /// This broker is there; its node is written anew at each start.
    RegisterBroker {
        broker: Broker,
    },
    /// Operations on the tree, all or none, as ZooKeeper's multi.
    CommitTreeOps {
        ops: Vec<Op>,
    },
}

/// What it answers, in the order of what was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    CreateTopics(Named<CreatedTopic>),
    DeleteTopics(Vec<DeletedTopic>),
    CreatePartitions(Named<()>),
    AlterConfigs(Vec<(ConfigResource, Result<(), ClusterError>)>),
    IncrementalAlterConfigs(Vec<(ConfigResource, Result<(), ClusterError>)>),
    DescribeConfigs(Vec<(ConfigResource, Result<Vec<ConfigEntry>, ClusterError>)>),
    InitProducerId(NewProducer),
    Group(group::Response),
    RegisterBroker,
    CommitTreeOps {
        zxid: Zxid,
        result: Result<Vec<OpResult>, MultiError>,
    },
}
