//! OffsetForLeaderEpoch (key 23, versions 2-4): where a leader's epoch ended, so that
//! a consumer finds out whether what it read is still the log (KIP-320).

use crate::kafka::context::{Context, Local};
use crate::kafka::errors::{self, Code, Failure};
use crate::kafka::hosted;
use futures_util::future::join_all;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use klamm_engine::io::Io;
use klamm_engine::units::{LeaderEpoch, PartitionId, ShardId};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The epoch found and the offset behind it; -1 and -1 where it is not known.
type End = (i32, i64);
const UNKNOWN: End = (-1, -1);

struct Query {
    slot: usize,
    id: PartitionId,
    epoch: LeaderEpoch,
}

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = ctx.image();
    let mut outcomes: Vec<Result<End, Failure>> = Vec::new();
    let mut homes: BTreeMap<ShardId, Vec<Query>> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let slot = outcomes.len();
            let place = hosted::find(&ctx.local, &image, &topic.topic, partition.partition)
                .and_then(|place| {
                    hosted::check_leader_epoch(partition.current_leader_epoch, place.leader_epoch)?;
                    Ok(place)
                });
            match place {
                Ok(place) => {
                    homes.entry(place.shard).or_default().push(Query {
                        slot,
                        id: place.id,
                        epoch: LeaderEpoch(partition.leader_epoch),
                    });
                    // Stands where the broker is stopping.
                    outcomes.push(Err(Code::NOT_LEADER_OR_FOLLOWER.into()));
                }
                Err(code) => outcomes.push(Err(code.into())),
            }
        }
    }
    let answers = homes.into_iter().map(|(shard, queries)| {
        ctx.local.on(shard, move |local| async move {
            let ends = queries
                .into_iter()
                .map(|query| (query.slot, end_of(&local, &query)));
            ends.collect::<Vec<_>>()
        })
    });
    for (slot, outcome) in join_all(answers).await.into_iter().flatten().flatten() {
        outcomes[slot] = outcome;
    }
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let (code, (epoch, end)) = match outcomes.next().expect("one for each partition") {
                Ok(end) => (Code::NONE, end),
                Err(failure) => (failure.code, UNKNOWN),
            };
            EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_error_code(code.0)
                .with_leader_epoch(epoch)
                .with_end_offset(end)
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_of<I: Io>(local: &Rc<Local<I>>, query: &Query) -> Result<End, Failure> {
    let partition = hosted::partition(local, &query.id)?;
    if let Some(offline) = partition.offline() {
        return Err(errors::offline(&offline));
    }
    let known = partition.end_offset_for_epoch(query.epoch);
    Ok(known.map_or(UNKNOWN, |(epoch, end)| (epoch.0, end.0)))
}
