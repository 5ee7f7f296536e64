//! Which shard a partition lives on.

use crate::units::{PartitionId, ShardId};

/// A partition's home: the same for as long as the number of shards is, and nothing
/// that is on disk depends on it, so the number may change between starts.
///
/// Partitions of one topic go round the shards from a place that the topic id chooses:
/// a topic with as many partitions as cores has one on each.
pub fn home_shard(partition: PartitionId, shards: usize) -> ShardId {
    assert!(shards > 0 && shards <= usize::from(u16::MAX));
    let id = u128::from_le_bytes(partition.topic.0);
    let first = (id % shards as u128) as usize;
    let index = usize::try_from(partition.index).expect("a partition's number is not negative");
    ShardId(((first + index) % shards) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::TopicId;

    #[test]
    fn a_topics_partitions_go_round_all_shards() {
        for shards in 1..9 {
            let mut count = vec![0; shards];
            for index in 0..shards as i32 * 3 {
                let home = home_shard(
                    PartitionId {
                        topic: TopicId([7; 16]),
                        index,
                    },
                    shards,
                );
                count[usize::from(home.0)] += 1;
            }
            assert_eq!(count, vec![3; shards]);
        }
    }
}
