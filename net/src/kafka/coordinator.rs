//! The questions to the coordinator, each with the one kind of answer that it has.
//!
//! ```text
//!   create_topics, alter_configs, init_producer_id ...   join_group, offset_commit ...
//!          |  ask(ctx, CreateTopics {..})                      |  ask(ctx, JoinGroup {..})
//!          v                                                   v
//!   Question::put   Request::CreateTopics      Request::Group(JoinGroup)
//!                          \                       /
//!                     Context::coordinator: its shard, its changelog; the answer
//!                     comes once what it says is committed
//! ```

use crate::kafka::context::Context;
use crate::kafka::cores::Gone;
use crate::kafka::errors::Code;
use klamm_coord::core::cluster;
use klamm_coord::core::coordinator::{Request, Response};
use klamm_coord::core::group::message as group;
use klamm_engine::io::Io;

/// For what goes through a group's coordinator: clients look it up again and retry.
pub fn of_group(_: Gone) -> Code {
    Code::COORDINATOR_NOT_AVAILABLE
}

/// For what Kafka sends to its controller: clients refresh their metadata and retry.
pub fn of_cluster(_: Gone) -> Code {
    Code::NOT_CONTROLLER
}

/// A question that has one kind of answer.
pub trait Question {
    type Answer;

    fn put(self) -> Request;

    /// The answer to this question. Another kind of answer is a fault in the
    /// coordinator, after which nothing that it says can be trusted.
    fn take(answer: Response) -> Self::Answer;
}

/// Asks. What was asked may have been done or not where no answer comes.
pub fn ask<I: Io, Q: Question>(
    ctx: &Context<I>,
    question: Q,
) -> impl Future<Output = Result<Q::Answer, Gone>> + 'static {
    // Called here and not in the future: the order of the calls is kept.
    let answer = ctx.coordinator(question.put());
    async move { answer.await.map(Q::take) }
}

macro_rules! group_questions {
    ($($kind:ident -> $answer:ident),* $(,)?) => {$(
        impl Question for group::$kind {
            type Answer = group::$answer;

            fn put(self) -> Request {
                Request::Group(group::Request::$kind(self))
            }

            fn take(answer: Response) -> group::$answer {
                match answer {
                    Response::Group(group::Response::$kind(answer)) => answer,
                    other => unreachable!("{} was answered with {other:?}", stringify!($kind)),
                }
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

pub struct InitProducerId {}

/// One verdict a resource, in the order of the question.
pub type ConfigVerdicts = Vec<(cluster::ConfigResource, Result<(), cluster::ClusterError>)>;

macro_rules! cluster_questions {
    ($($kind:ident { $($field:ident),* } $request:expr => $answer:ty),* $(,)?) => {$(
        impl Question for $kind {
            type Answer = $answer;

            fn put(self) -> Request {
                let $kind { $($field),* } = self;
                $request
            }

            fn take(answer: Response) -> $answer {
                match answer {
                    Response::$kind(answer) => answer,
                    other => unreachable!("{} was answered with {other:?}", stringify!($kind)),
                }
            }
        }
    )*};
}

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
    InitProducerId {} Request::InitProducerId
        => Result<cluster::NewProducer, cluster::ClusterError>,
}
