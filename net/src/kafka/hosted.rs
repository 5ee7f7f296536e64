//! Which partition a request means, and where it lives.
//!
//! ```text
//!   "orders", 3 --image--> topic id, leader, epoch --home shard--> store --> Partition
//!        |                     |                                     |
//!     unknown: 3          elsewhere: 6                      offline: 56, not there: 6
//! ```
//!
//! A name that a client sends is only looked up, never used: no path is made of it.

use crate::kafka::context::Local;
use crate::kafka::errors::{self, Code, Failure};
use klamm_coord::core::image::{Image, Topic};
use klamm_engine::io::Io;
use klamm_engine::partition::Partition;
use klamm_engine::shard::home_shard;
use klamm_engine::store::Entry;
use klamm_engine::units::{LeaderEpoch, PartitionId, ShardId};
use std::rc::Rc;

/// A partition that this broker leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: PartitionId,
    pub shard: ShardId,
    pub leader_epoch: LeaderEpoch,
}

/// Where the partition of that name is served, if it is here.
pub fn find<I: Io>(
    local: &Local<I>,
    image: &Image,
    topic: &str,
    index: i32,
) -> Result<Place, Code> {
    let topic = image.topic(topic).ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)?;
    find_in(local, topic, index)
}

/// The same, of a topic that is at hand.
pub fn find_in<I: Io>(local: &Local<I>, topic: &Topic, index: i32) -> Result<Place, Code> {
    let partition = topic
        .partition(index)
        .ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if partition.leader != Some(local.broker_id) {
        return Err(Code::NOT_LEADER_OR_FOLLOWER);
    }
    let id = PartitionId {
        topic: topic.id,
        index,
    };
    Ok(Place {
        id,
        shard: home_shard(id, local.cores.count()),
        leader_epoch: partition.leader_epoch,
    })
}

/// The partition itself, on its home shard.
pub fn partition<I: Io>(local: &Local<I>, id: &PartitionId) -> Result<Rc<Partition<I>>, Failure> {
    match local.store.get(id) {
        Some(Entry::Online(partition)) => Ok(partition),
        Some(Entry::Offline(offline)) => Err(errors::offline(&offline)),
        // Not yet opened, or deleted a moment ago: the client asks for metadata and
        // comes again.
        None => Err(Code::NOT_LEADER_OR_FOLLOWER.into()),
    }
}

/// The client's idea of who leads, against ours. -1: it has none.
pub fn check_leader_epoch(client: i32, ours: LeaderEpoch) -> Result<(), Code> {
    match client {
        -1 => Ok(()),
        epoch if epoch < ours.0 => Err(Code::FENCED_LEADER_EPOCH),
        epoch if epoch > ours.0 => Err(Code::UNKNOWN_LEADER_EPOCH),
        _ => Ok(()),
    }
}
