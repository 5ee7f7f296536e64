//! A shard follows the image: it opens what it is to lead, takes over new settings and
//! leader epochs, closes what went to other brokers and removes what is gone.
//!
//! ```text
//!   publish(image)   1  every shard opens the partitions that are its own
//!                    2  every shard shows the image to its connections
//!                    3  every shard removes the partitions that are in it no more,
//!                       and closes those that have no place here any more
//! ```
//!
//! In this order, so that whoever sees a partition in the image finds it open on its
//! home shard, whichever shard is asked.
//!
//! A partition that lost its leader stays open while this broker may lead it again: a
//! broker whose session expired is back in a moment, in a newer leader epoch.

use crate::kafka::context::Local;
use futures_util::future::join_all;
use klamm_coord::core::image::{Image, Partition, Topic};
use klamm_coord::core::settings::{BrokerConfig, TimestampType, TopicConfig};
use klamm_engine::config::LogConfig;
use klamm_engine::io::Io;
use klamm_engine::shard::home_shard;
use klamm_engine::store::PartitionSpec;
use klamm_engine::units::{PartitionId, ShardId};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Shows an image to all shards. One at a time, in the order of their zxids: the
/// caller awaits each before the next.
pub async fn publish<I: Io>(local: &Rc<Local<I>>, image: Arc<Image>) {
    let shards = || (0..local.cores.count()).map(|shard| ShardId(shard as u16));
    // A shard that is gone has nothing to follow any more.
    join_all(shards().map(|shard| {
        let image = image.clone();
        local.on(shard, |local| async move { open(&local, &image).await })
    }))
    .await;
    join_all(shards().map(|shard| {
        let image = image.clone();
        local.on(shard, |local| async move { show(&local, image).await })
    }))
    .await;
}

/// Opens what is new; what is open takes over its settings and leader epoch.
async fn open<I: Io>(local: &Rc<Local<I>>, image: &Image) {
    let before = local.image();
    let mut specs = Vec::new();
    for topic in image.topics() {
        let settings_changed = !Arc::ptr_eq(&before.settings, &image.settings);
        let same = before
            .topic_by_id(topic.id)
            .is_some_and(|known| Arc::ptr_eq(known, topic));
        if same && !settings_changed && before.zxid > klamm_coord::core::Zxid::ZERO {
            continue;
        }
        let config = log_config(&topic.config, &image.settings);
        for (id, partition) in own(local, topic) {
            specs.push(PartitionSpec {
                id,
                topic: topic.name.to_string(),
                leader_epoch: partition.leader_epoch,
                config: config.clone(),
            });
        }
    }
    local.store.open_partitions(specs).await;
}

/// This broker's partitions of a topic that live on this shard.
fn own<'a, I: Io>(
    local: &'a Local<I>,
    topic: &'a Topic,
) -> impl Iterator<Item = (PartitionId, &'a Partition)> {
    let partitions = topic.partitions.iter().enumerate();
    partitions.filter_map(|(index, partition)| {
        let id = PartitionId {
            topic: topic.id,
            index: i32::try_from(index).ok()?,
        };
        let here = home_shard(id, local.cores.count()) == local.cores.here();
        (here && partition.leader == Some(local.broker_id)).then_some((id, partition))
    })
}

/// Whether this broker leads the partition, or may be made its leader: a replica, or one
/// in sync that a hand has taken out of the assignment while its data is here.
fn has_a_place_here(broker_id: i32, partition: &Partition) -> bool {
    partition.leader == Some(broker_id)
        || partition.replicas.contains(&broker_id)
        || partition.isr.contains(&broker_id)
}

async fn show<I: Io>(local: &Rc<Local<I>>, image: Arc<Image>) {
    let before = local.image();
    local.set_image(image.clone());
    let mut moved = Vec::new();
    for id in local.store.ids() {
        if let Some(topic) = image.topic_by_id(id.topic) {
            // An index that the topic has no more is nobody's, and its data is left alone.
            let partition = topic.partition(id.index);
            if !partition.is_some_and(|p| has_a_place_here(local.broker_id, p)) {
                moved.push(id);
            }
            continue;
        }
        let Some(topic) = before.topic_by_id(id.topic) else {
            continue;
        };
        match local.store.remove_partition(&id, &topic.name).await {
            Ok(()) => log::info!("partition {}-{} was deleted", topic.name, id.index),
            Err(e) => log::error!("partition {}-{}: {e}", topic.name, id.index),
        }
    }
    local.store.close_partitions(moved).await;
}

/// A topic's settings as its logs take them. Where Kafka writes "never" or "no limit"
/// as -1 or as the largest number, that is None.
pub fn log_config(topic: &TopicConfig, broker: &BrokerConfig) -> LogConfig {
    let limit = |value: i64| u64::try_from(value).ok();
    let time = |ms: i64| match ms {
        0..=9_223_372_036_854_775_806 => Some(Duration::from_millis(ms as u64)),
        _ => None,
    };
    LogConfig {
        segment_bytes: u64::from(topic.segment_bytes),
        segment_age_max: time(topic.segment_ms).unwrap_or(Duration::MAX),
        index_interval_bytes: u64::from(topic.index_interval_bytes),
        retention_age_max: time(topic.retention_ms),
        retention_bytes_max: limit(topic.retention_bytes),
        batch_bytes_max: topic.max_message_bytes as usize,
        flush_messages: match topic.flush_messages {
            i64::MAX => None,
            messages => limit(messages),
        },
        flush_age_max: time(topic.flush_ms),
        log_append_time: topic.message_timestamp_type == TimestampType::LogAppendTime,
        timestamp_before_max: time(topic.message_timestamp_before_max_ms),
        timestamp_after_max: time(topic.message_timestamp_after_max_ms),
        producer_id_expiration: time(broker.producer_id_expiration_ms).unwrap_or(Duration::MAX),
    }
}

#[cfg(test)]
mod tests;
