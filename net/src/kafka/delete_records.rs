//! DeleteRecords (21), versions 0 to 2: everything before an offset goes.
//!
//! ```text
//!   offset   n   the log start offset becomes n; beyond the high watermark is 1
//!           -1   everything that a consumer can read
//!   v2  flexible
//! ```
//!
//! The partitions of a request are asked on their home shards at the same time; each
//! answers with its log start offset once that is committed.

use crate::kafka::context::{Context, Local};
use crate::kafka::errors::{self, Code};
use crate::kafka::hosted;
use futures_util::future::join_all;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use klamm_engine::io::Io;
use klamm_engine::units::{Offset, PartitionId, ShardId};
use std::collections::BTreeMap;
use std::rc::Rc;

const HIGH_WATERMARK: i64 = -1;

/// What a failed deletion has for a log start offset.
const NONE: i64 = -1;

/// One partition, and its place in the request.
#[derive(Clone, Copy)]
struct Deletion {
    slot: usize,
    id: PartitionId,
    before: i64,
}

type Outcome = Result<Offset, Code>;

pub async fn handle<I: Io>(
    ctx: Context<I>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let image = ctx.image();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut homes: BTreeMap<ShardId, Vec<Deletion>> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let slot = outcomes.len();
            let index = partition.partition_index;
            match hosted::find(&ctx.local, &image, &topic.name, index) {
                Ok(place) => {
                    homes.entry(place.shard).or_default().push(Deletion {
                        slot,
                        id: place.id,
                        before: partition.offset,
                    });
                    // Stands where the home shard does not answer: the broker stops.
                    outcomes.push(Err(Code::NOT_LEADER_OR_FOLLOWER));
                }
                Err(code) => outcomes.push(Err(code)),
            }
        }
    }
    let answers = homes
        .into_iter()
        .map(|(shard, deletions)| ctx.local.on(shard, move |local| delete(local, deletions)));
    for (slot, outcome) in join_all(answers).await.into_iter().flatten().flatten() {
        outcomes[slot] = outcome;
    }
    write(&request, outcomes)
}

async fn delete<I: Io>(local: Rc<Local<I>>, deletions: Vec<Deletion>) -> Vec<(usize, Outcome)> {
    let each = deletions.into_iter().map(|deletion| {
        let local = local.clone();
        async move { (deletion.slot, delete_one(&local, deletion).await) }
    });
    join_all(each).await
}

async fn delete_one<I: Io>(local: &Local<I>, deletion: Deletion) -> Outcome {
    let partition = hosted::partition(local, &deletion.id).map_err(|failure| failure.code)?;
    let before = match deletion.before {
        HIGH_WATERMARK => partition.offsets().high_watermark,
        before if before < 0 => return Err(Code::OFFSET_OUT_OF_RANGE),
        before => Offset(before),
    };
    let deleted = partition.delete_records(before).await;
    deleted.map_err(|error| errors::read(&error).code)
}

/// One result a partition, in the order of the request.
fn write(request: &DeleteRecordsRequest, outcomes: Vec<Outcome>) -> DeleteRecordsResponse {
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let (code, log_start) = match outcomes.next().expect("one for each partition") {
                Ok(log_start) => (Code::NONE, log_start.0),
                Err(code) => (code, NONE),
            };
            DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index)
                .with_low_watermark(log_start)
                .with_error_code(code.0)
        });
        DeleteRecordsTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}
