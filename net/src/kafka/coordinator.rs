//! The door to the coordinator, the same on every shard.
//!
//! ```text
//!   create_topics, alter_configs, init_producer_id ...   join_group, offset_commit ...
//!          |  cluster questions                                |  group questions
//!          +------------------> dyn Coordinator <--------------+
//!                                     |
//!                     its shard, its changelog; the answer comes once what it
//!                     says is committed
//! ```
//!
//! Which shard that is, or later which other broker, is known behind the door only.

use crate::kafka::context::Context;
use crate::kafka::errors::Code;
use klamm_coord::core::group::message as group;
use klamm_coord::core::image::Image;
use klamm_coord::core::settings::ConfigEntry;
use klamm_coord::core::{cluster, coordinator};
use klamm_engine::io::Io;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// An answer under way.
pub type Asking<R> = Pin<Box<dyn Future<Output = Result<R, Unavailable>>>>;

/// Why there will be no answer. What was asked may have been done, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The broker is going down.
    Closing,
    /// The changelog failed: nothing is answered any more that needs it.
    Failed,
}

pub trait Coordinator {
    /// The newest state of the cluster that this shard knows.
    fn image(&self) -> Arc<Image>;

    fn ask(&self, question: coordinator::Request) -> Asking<coordinator::Response>;

    fn ask_group(&self, question: group::Request) -> Asking<group::Response>;
}

/// For what goes through a group's coordinator: clients look it up again and retry.
pub fn of_group(unavailable: Unavailable) -> Code {
    match unavailable {
        Unavailable::Closing | Unavailable::Failed => Code::COORDINATOR_NOT_AVAILABLE,
    }
}

/// For what Kafka sends to its controller: clients refresh their metadata and retry.
pub fn of_cluster(unavailable: Unavailable) -> Code {
    match unavailable {
        Unavailable::Closing => Code::NOT_CONTROLLER,
        Unavailable::Failed => Code::KAFKA_STORAGE_ERROR,
    }
}

impl<I: Io> Context<I> {
    pub fn coordinator(&self) -> &dyn Coordinator {
        &*self.local.coordinator
    }

    pub fn image(&self) -> Arc<Image> {
        self.local.coordinator.image()
    }
}

/// A question that has one kind of answer.
pub trait Question {
    type Answer;

    fn put(self, to: &dyn Coordinator) -> Asking<Self::Answer>;
}

/// Asks, and names what stands in for an answer that does not come.
pub async fn ask<I: Io, Q: Question>(
    ctx: &Context<I>,
    question: Q,
) -> Result<Q::Answer, Unavailable> {
    question.put(ctx.coordinator()).await
}

macro_rules! group_questions {
    ($($kind:ident -> $answer:ident),* $(,)?) => {$(
        impl Question for group::$kind {
            type Answer = group::$answer;

            fn put(self, to: &dyn Coordinator) -> Asking<group::$answer> {
                let asking = to.ask_group(group::Request::$kind(self));
                Box::pin(async move {
                    match asking.await? {
                        group::Response::$kind(answer) => Ok(answer),
                        other => unreachable!("{} was answered with {other:?}", stringify!($kind)),
                    }
                })
            }
        }
    )*};
}

group_questions! {
    JoinGroup -> JoinGroupResponse,
    SyncGroup -> SyncGroupResponse,
    Heartbeat -> HeartbeatResponse,
    LeaveGroup -> LeaveGroupResponse,
    OffsetCommit -> OffsetCommitResponse,
    OffsetFetch -> OffsetFetchResponse,
    ListGroups -> ListGroupsResponse,
    DescribeGroups -> DescribeGroupsResponse,
    DeleteGroups -> DeleteGroupsResponse,
    OffsetDelete -> OffsetDeleteResponse,
}

pub struct CreateTopics {
    pub topics: Vec<cluster::NewTopic>,
    pub validate_only: bool,
}

pub struct DeleteTopics {
    pub topics: Vec<cluster::TopicRef>,
}

pub struct CreatePartitions {
    pub topics: Vec<cluster::NewPartitions>,
    pub validate_only: bool,
}

pub struct AlterConfigs {
    pub resources: Vec<cluster::ConfigReplacement>,
    pub validate_only: bool,
}

pub struct IncrementalAlterConfigs {
    pub resources: Vec<cluster::ConfigChange>,
    pub validate_only: bool,
}

pub struct DescribeConfigs {
    pub resources: Vec<cluster::ConfigQuery>,
}

pub struct InitProducerId {}

/// One verdict a resource, in the order of the question.
pub type ConfigVerdicts = Vec<(cluster::ConfigResource, Result<(), cluster::ClusterError>)>;

/// One description a resource, in the order of the question.
pub type ConfigDescriptions = Vec<(
    cluster::ConfigResource,
    Result<Vec<ConfigEntry>, cluster::ClusterError>,
)>;

macro_rules! cluster_questions {
    ($($kind:ident { $($field:ident),* } $request:expr => $answer:ty),* $(,)?) => {$(
        impl Question for $kind {
            type Answer = $answer;

            fn put(self, to: &dyn Coordinator) -> Asking<$answer> {
                let $kind { $($field),* } = self;
                let asking = to.ask($request);
                Box::pin(async move {
                    match asking.await? {
                        coordinator::Response::$kind(answer) => Ok(answer),
                        other => unreachable!("{} was answered with {other:?}", stringify!($kind)),
                    }
                })
            }
        }
    )*};
}

use coordinator::Request;

cluster_questions! {
    CreateTopics { topics, validate_only } Request::CreateTopics { topics, validate_only }
        => cluster::Named<cluster::CreatedTopic>,
    DeleteTopics { topics } Request::DeleteTopics { topics }
        => Vec<cluster::DeletedTopic>,
    CreatePartitions { topics, validate_only } Request::CreatePartitions { topics, validate_only }
        => cluster::Named<()>,
    AlterConfigs { resources, validate_only } Request::AlterConfigs { resources, validate_only }
        => ConfigVerdicts,
    IncrementalAlterConfigs { resources, validate_only }
        Request::IncrementalAlterConfigs { resources, validate_only } => ConfigVerdicts,
    DescribeConfigs { resources } Request::DescribeConfigs { resources } => ConfigDescriptions,
    InitProducerId {} Request::InitProducerId => cluster::NewProducer,
}
