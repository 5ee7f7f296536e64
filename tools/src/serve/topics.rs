//! A shard's partitions, made to match the image.
//!
//! ```text
//!   new image --> open what has its home here --> serve by it --> remove what is gone
//! ```
//!
//! In this order: who learns of a topic finds its partitions open, and who still goes
//! by the old image finds those that are about to go.

use klamm_coord::core::image::{Image, Topic};
use klamm_coord::core::settings::{BrokerConfig, TimestampType, TopicConfig};
use klamm_engine::config::LogConfig;
use klamm_engine::io::Io;
use klamm_engine::shard::home_shard;
use klamm_engine::store::PartitionSpec;
use klamm_engine::units::PartitionId;
use klamm_net::kafka::context::Local;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub async fn apply<I: Io>(local: Rc<Local<I>>, image: Arc<Image>) {
    let before = local.image();
    let unchanged = |topic: &Arc<Topic>| {
        let same = before.topic_by_id(topic.id).is_some_and(|known| Arc::ptr_eq(known, topic));
        same && before.settings == image.settings
    };
    let mut wanted = Vec::new();
    for topic in image.topics().filter(|topic| !unchanged(topic)) {
        let config = log_config(&topic.config, &image.settings);
        for (index, partition) in topic.partitions.iter().enumerate() {
            let id = PartitionId { topic: topic.id, index: index as i32 };
            let here = home_shard(id, local.cores.count()) == local.cores.here();
            if here && partition.leader == Some(local.broker_id) {
                wanted.push(PartitionSpec {
                    id,
                    topic: topic.name.to_string(),
                    leader_epoch: partition.leader_epoch,
                    config: config.clone(),
                });
            }
        }
    }
    local.store.open_partitions(wanted).await;
    local.set_image(image.clone());
    for id in local.store.ids() {
        if image.partition(id).is_some() {
            continue;
        }
        let Some(topic) = before.topic_by_id(id.topic) else { continue };
        if let Err(offline) = local.store.remove_partition(&id, &topic.name).await {
            log::error!("the deleted partition {}-{} could not be removed: {offline}", topic.name, id.index);
        }
    }
}

/// A topic's settings in the engine's words.
fn log_config(topic: &TopicConfig, broker: &BrokerConfig) -> LogConfig {
    // Kafka's i64::MAX means never, and its -1 means no limit.
    let never = |ms: i64| (ms != i64::MAX).then(|| duration(ms));
    let limit = |ms: i64| (ms >= 0).then(|| duration(ms));
    LogConfig {
        segment_bytes: u64::from(topic.segment_bytes),
        segment_age_max: duration(topic.segment_ms),
        index_interval_bytes: u64::from(topic.index_interval_bytes),
        retention_age_max: limit(topic.retention_ms),
        retention_bytes_max: u64::try_from(topic.retention_bytes).ok(),
        batch_bytes_max: topic.max_message_bytes as usize,
        flush_messages: (topic.flush_messages != i64::MAX).then_some(topic.flush_messages.unsigned_abs()),
        flush_age_max: never(topic.flush_ms),
        log_append_time: topic.message_timestamp_type == TimestampType::LogAppendTime,
        timestamp_before_max: never(topic.message_timestamp_before_max_ms),
        timestamp_after_max: never(topic.message_timestamp_after_max_ms),
        producer_id_expiration: duration(broker.producer_id_expiration_ms),
    }
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(ms.max(0).unsigned_abs())
}
