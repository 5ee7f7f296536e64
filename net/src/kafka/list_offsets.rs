//! ListOffsets (key 2, versions 1-8): offsets by time.
//!
//! ```text
//!   timestamp  -1  the end a consumer can read to      (latest)
//!              -2  the log start offset                (earliest)
//!              -3  the record with the largest time    (from version 7, KIP-734)
//!              -4  the start of what is local          (from version 8, KIP-405): -2 here
//!             >=0  the first record at or after it; -1, -1 where there is none
//! ```

use crate::kafka::context::{Context, Local};
use crate::kafka::errors::{self, Code, Failure};
use crate::kafka::hosted;
use futures_util::future::join_all;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use klamm_engine::io::Io;
use klamm_engine::units::{PartitionId, ShardId, TimestampMs};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;

const READ_COMMITTED: i8 = 1;

/// What one partition is asked.
#[derive(Clone, Copy)]
struct Query {
    slot: usize,
    id: PartitionId,
    timestamp: i64,
    read_committed: bool,
}

/// Timestamp, offset and leader epoch; -1 each where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

const NOTHING: Found = Found {
    timestamp: -1,
    offset: -1,
    leader_epoch: -1,
};

pub async fn handle<I: Io>(ctx: Context<I>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = ctx.image();
    let mut outcomes: Vec<Result<Found, Failure>> = Vec::new();
    let mut homes: BTreeMap<ShardId, Vec<Query>> = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((&topic.name, partition.partition_index)) {
                twice.insert((&topic.name, partition.partition_index));
            }
        }
    }
    for topic in &request.topics {
        for partition in &topic.partitions {
            let slot = outcomes.len();
            let index = partition.partition_index;
            let place = if twice.contains(&(&topic.name, index)) {
                Err(Code::INVALID_REQUEST)
            } else if !is_supported(partition.timestamp, ctx.version) {
                Err(Code::UNSUPPORTED_VERSION)
            } else {
                hosted::find(&ctx.local, &image, &topic.name, index).and_then(|place| {
                    hosted::check_leader_epoch(partition.current_leader_epoch, place.leader_epoch)?;
                    Ok(place)
                })
            };
            match place {
                Ok(place) => {
                    homes.entry(place.shard).or_default().push(Query {
                        slot,
                        id: place.id,
                        timestamp: partition.timestamp,
                        read_committed: request.isolation_level == READ_COMMITTED,
                    });
                    // Stands until the home shard has spoken: it does not where the
                    // broker is stopping.
                    outcomes.push(Err(Code::NOT_LEADER_OR_FOLLOWER.into()));
                }
                Err(code) => outcomes.push(Err(code.into())),
            }
        }
    }
    let answers = homes
        .into_iter()
        .map(|(shard, queries)| ctx.local.on(shard, move |local| look_up(local, queries)));
    for (slot, outcome) in join_all(answers).await.into_iter().flatten().flatten() {
        outcomes[slot] = outcome;
    }
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let outcome = outcomes.next().expect("one for each partition");
            respond(ctx.version, partition.partition_index, outcome)
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// A negative timestamp is a question, and old clients can't have meant the new ones.
fn is_supported(timestamp: i64, version: i16) -> bool {
    match timestamp {
        0.. | LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        _ => false,
    }
}

async fn look_up<I: Io>(
    local: Rc<Local<I>>,
    queries: Vec<Query>,
) -> Vec<(usize, Result<Found, Failure>)> {
    let mut results = Vec::with_capacity(queries.len());
    for query in queries {
        results.push((query.slot, look_up_one(&local, query).await));
    }
    results
}

async fn look_up_one<I: Io>(local: &Local<I>, query: Query) -> Result<Found, Failure> {
    let partition = hosted::partition(local, &query.id)?;
    if let Some(offline) = partition.offline() {
        return Err(errors::offline(&offline));
    }
    let offsets = partition.offsets();
    let end = if query.read_committed {
        offsets.last_stable
    } else {
        offsets.high_watermark
    };
    let at = |offset, leader_epoch| Found {
        timestamp: -1,
        offset,
        leader_epoch,
    };
    let found = match query.timestamp {
        LATEST => return Ok(at(end.0, offsets.leader_epoch.0)),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = partition.epoch_of(offsets.log_start);
            return Ok(at(offsets.log_start.0, epoch.0));
        }
        MAX_TIMESTAMP => partition.latest_timestamp().await,
        time => partition.offset_at_or_after(TimestampMs(time)).await,
    };
    let found = found.map_err(|e| errors::read(&e))?;
    // What a reader of this isolation can't see yet is not there.
    let visible = found.filter(|record| record.offset < end);
    Ok(visible.map_or(NOTHING, |record| Found {
        timestamp: record.timestamp.0,
        offset: record.offset.0,
        leader_epoch: record.leader_epoch.0,
    }))
}

fn respond(
    version: i16,
    index: i32,
    outcome: Result<Found, Failure>,
) -> ListOffsetsPartitionResponse {
    let (code, found) = match outcome {
        Ok(found) => (Code::NONE, found),
        Err(failure) => (failure.code, NOTHING),
    };
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code.0)
        .with_timestamp(found.timestamp)
        .with_offset(found.offset);
    if version >= 4 {
        return response.with_leader_epoch(found.leader_epoch);
    }
    response
}
