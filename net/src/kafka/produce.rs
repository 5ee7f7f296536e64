//! Produce (key 0, versions 3-12; advertised from 0, see KAFKA-18659).
//!
//! ```text
//!   frame --decode--> batches (slices of the frame)
//!     --by home shard--> append: in the order of the requests, before anything waits
//!     --> acknowledged (synced, where the topic says so) --> answer
//! ```
//!
//! `acks`: 1 and -1 are answered when the records are as safe as the topic promises;
//! 0 is never answered, and an error closes the connection, which makes the client
//! look for a new leader. Its place in flight is held until then all the same: that is
//! what bounds a client that never waits.

mod request;

pub use request::{PartitionData, ProduceRequest, TopicData, decode};

use crate::kafka::answer::{self, Answer, Header};
use crate::kafka::cluster;
use crate::kafka::context::{Context, Local};
use crate::kafka::errors::{self, Code, Failure};
use crate::kafka::hosted::{self, Place};
use crate::kafka::nodes::Nodes;
use crate::kafka::profile::Stay;
use crate::kafka::route::{Answering, Api, Refused};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, FusedFuture, join_all, select};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use klamm_engine::io::Io;
use klamm_engine::partition::{Appended, Partition};
use klamm_engine::profile::Round;
use klamm_engine::units::{Nanos, PartitionId, ShardId};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// zstd came with this version (KIP-110): a client that asks with an older one can't
/// have meant it.
const ZSTD_FROM: i16 = 7;

/// A client's own timeout counts from here on: less would fail writes that a busy disk
/// syncs a moment later.
const TIMEOUT_MIN: Duration = Duration::from_millis(1000);

/// Called for each request in order; appends before it returns.
pub fn start<I: Io>(
    ctx: Context<I>,
    api: &'static Api,
    body: Bytes,
) -> Result<Answering<I>, Refused> {
    let flexible = ctx.version >= api.flexible_from;
    let request = decode(body, flexible).map_err(|e| Refused::Malformed(e.into()))?;
    Ok(Box::pin(handle(ctx, request, flexible)))
}

/// What became of one partition's records.
type Outcome = Result<Written, Failure>;

#[derive(Clone, Copy, Debug)]
struct Written {
    base_offset: i64,
    log_append_time: i64,
    log_start: i64,
    round: Round,
}

/// A batch on its way to its home shard, and its place in the answer.
struct Batch {
    slot: usize,
    id: PartitionId,
    bytes: Bytes,
}

fn handle<I: Io>(
    ctx: Context<I>,
    request: ProduceRequest,
    flexible: bool,
) -> impl Future<Output = Answer<I>> + 'static {
    let acks = request.acks;
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64).max(TIMEOUT_MIN);
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    let mut shape: Vec<(StrBytes, Vec<i32>)> = Vec::with_capacity(request.topics.len());
    let mut homes: BTreeMap<ShardId, Vec<Batch>> = BTreeMap::new();
    let image = ctx.image();
    for topic in request.topics {
        let mut indexes = Vec::with_capacity(topic.partitions.len());
        for data in topic.partitions {
            indexes.push(data.index);
            let slot = outcomes.len();
            let placed = check(acks, ctx.version, data.records).and_then(|bytes| {
                let place = hosted::find(&ctx.local, &image, &topic.name, data.index)?;
                Ok((place, bytes))
            });
            match placed {
                Ok((Place { id, shard, .. }, bytes)) => {
                    homes
                        .entry(shard)
                        .or_default()
                        .push(Batch { slot, id, bytes });
                    outcomes.push(None);
                }
                Err(failure) => outcomes.push(Some(Err(failure))),
            }
        }
        shape.push((topic.name, indexes));
    }
    drop(image);
    // Sent off here and not in the future: this is what keeps the order.
    let appends: Vec<_> = homes
        .into_iter()
        .map(|(shard, batches)| {
            let slots: Vec<usize> = batches.iter().map(|b| b.slot).collect();
            let is_here = shard == ctx.local.cores.here();
            let since = ctx.watch.started_at().filter(|_| is_here);
            let done = ctx
                .local
                .on(shard, move |local| append(local, batches, timeout, since));
            done.map(move |done| (is_here, slots, done))
        })
        .collect();
    async move {
        for (is_here, slots, done) in join_all(appends).await {
            match done {
                Ok((results, stay)) => {
                    ctx.watch.stayed(stay, !is_here);
                    for (slot, outcome) in results {
                        outcomes[slot] = Some(outcome);
                    }
                }
                // The broker is stopping: whether they were kept is not known.
                Err(_) => {
                    for slot in slots {
                        outcomes[slot] = Some(Err(Code::NOT_LEADER_OR_FOLLOWER.into()));
                    }
                }
            }
        }
        let outcomes = outcomes.into_iter().map(|o| o.expect("all were asked"));
        if acks == 0 {
            return silent(shape, outcomes);
        }
        let header = if flexible { Header::V1 } else { Header::V0 };
        let response = respond(&ctx, shape, outcomes);
        answer::encode(&response, header, ctx.correlation_id, ctx.version)
    }
}

/// What can be said before the partition is asked.
fn check(acks: i16, version: i16, records: Option<Bytes>) -> Result<Bytes, Failure> {
    if !matches!(acks, -1..=1) {
        return Err(Failure::new(
            Code::INVALID_REQUIRED_ACKS,
            format!("acks={acks}: 0, 1 and -1 (all) are possible"),
        ));
    }
    let records = records.filter(|r| !r.is_empty()).ok_or_else(|| {
        Failure::new(
            Code::INVALID_RECORD,
            "there is no record batch for the partition",
        )
    })?;
    // The codec is in the lowest three bits of the attributes, at 21; magic is at 16.
    let is_zstd = records.get(16) == Some(&2) && records.get(22).is_some_and(|a| a & 7 == 4);
    if is_zstd && version < ZSTD_FROM {
        return Err(Failure::new(
            Code::UNSUPPORTED_COMPRESSION_TYPE,
            format!("zstd needs Produce {ZSTD_FROM} or newer, and this is {version}"),
        ));
    }
    Ok(records)
}

/// On the home shard: appends at once, then waits.
fn append<I: Io>(
    local: Rc<Local<I>>,
    batches: Vec<Batch>,
    timeout: Duration,
    since: Option<Nanos>,
) -> impl Future<Output = (Vec<(usize, Outcome)>, Stay)> + 'static {
    let mut stay = Stay::arrived(&local, since);
    let mut results = Vec::with_capacity(batches.len());
    let mut waiting = Vec::new();
    for Batch { slot, id, bytes } in batches {
        let appended = hosted::partition(&local, &id).and_then(|partition| {
            let appended = partition.append(&bytes).map_err(|e| errors::append(&e))?;
            Ok((partition, appended))
        });
        match appended {
            Ok((partition, appended)) => waiting.push((slot, acknowledge(partition, appended))),
            Err(failure) => results.push((slot, Err(failure))),
        }
    }
    stay.appended(&local);
    async move {
        if waiting.is_empty() {
            return (results, stay);
        }
        // All of them are waited for, so one after another is no later than side by side,
        // and a thousand partitions cost no thousand wakeups each.
        let mut late = pin!(local.lateness.after(timeout).fuse());
        for (slot, acknowledged) in waiting {
            let acknowledged = pin!(acknowledged);
            let outcome = match late.is_terminated() {
                false => match select(acknowledged, &mut late).await {
                    Either::Left((outcome, _)) => Some(outcome),
                    Either::Right(((), _)) => None,
                },
                // Too late for the one before; this one may be there all the same.
                true => acknowledged.now_or_never(),
            };
            let outcome = outcome.unwrap_or_else(|| {
                Err(Failure::new(
                    Code::REQUEST_TIMED_OUT,
                    "the records were not on the disk in time; they may still get there",
                ))
            });
            stay.by(outcome.as_ref().map_or(Round::default(), |w| w.round));
            results.push((slot, outcome));
        }
        stay.acknowledged(&local);
        (results, stay)
    }
}

async fn acknowledge<I: Io>(partition: Rc<Partition<I>>, appended: Appended) -> Outcome {
    partition
        .acknowledged(appended.next_offset)
        .await
        .map_err(|offline| errors::offline(&offline))?;
    Ok(Written {
        base_offset: appended.base_offset.0,
        log_append_time: appended.log_append_time.0,
        log_start: appended.log_start.0,
        round: partition.round(),
    })
}

/// acks=0: nothing is sent; an error ends the connection.
fn silent<I: Io>(
    shape: Vec<(StrBytes, Vec<i32>)>,
    outcomes: impl Iterator<Item = Outcome>,
) -> Answer<I> {
    let partitions = shape
        .iter()
        .flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic, index)));
    for ((topic, index), outcome) in partitions.zip(outcomes) {
        if let Err(failure) = outcome {
            return Answer::Close(format!(
                "a produce with acks=0 failed for {topic:?}-{index}: {}",
                failure.code.name()
            ));
        }
    }
    Answer::Nothing
}

fn respond<I: Io>(
    ctx: &Context<I>,
    shape: Vec<(StrBytes, Vec<i32>)>,
    mut outcomes: impl Iterator<Item = Outcome>,
) -> ProduceResponse {
    let topics = shape.into_iter().map(|(name, indexes)| {
        let partitions = indexes
            .into_iter()
            .map(|index| {
                let outcome = outcomes.next().expect("one for each partition");
                partition_response(ctx, &name, index, outcome)
            })
            .collect();
        TopicProduceResponse::default()
            .with_name(name.into())
            .with_partition_responses(partitions)
    });
    ProduceResponse::default().with_responses(topics.collect())
}

fn partition_response<I: Io>(
    ctx: &Context<I>,
    topic: &str,
    index: i32,
    outcome: Outcome,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok(written) => {
            let response = response
                .with_base_offset(written.base_offset)
                .with_log_append_time_ms(written.log_append_time);
            if ctx.version >= 5 {
                return response.with_log_start_offset(written.log_start);
            }
            response
        }
        Err(failure) => {
            let mut response = response
                .with_error_code(failure.code.0)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1);
            if ctx.version >= 5 {
                response.log_start_offset = -1;
            }
            if ctx.version >= 8 {
                response.error_message = cluster::sentence(failure.message);
            }
            // KIP-951: the new leader comes with the news that we are not.
            if ctx.version >= 10 && failure.code == Code::NOT_LEADER_OR_FOLLOWER {
                let image = ctx.image();
                let topic = image.topic(topic);
                if let Some((topic, known)) = topic.and_then(|t| Some((t, t.partition(index)?))) {
                    let nodes = Nodes::of(&image, &ctx.local.listener);
                    let topic = topic.id;
                    let leader = known.leader.map_or(-1, |broker| {
                        nodes.home(broker, PartitionId { topic, index })
                    });
                    response.current_leader = LeaderIdAndEpoch::default()
                        .with_leader_id(BrokerId(leader))
                        .with_leader_epoch(known.leader_epoch.0);
                }
            }
            response
        }
    }
}

#[cfg(test)]
mod tests;
