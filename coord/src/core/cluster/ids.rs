//! Numbers that must never be given out twice: topic ids, the cluster's id, producer
//! ids.
//!
//! Topic ids and the cluster's id are 128 random bits in all but name: a pure state
//! machine has no random source, so they come from a seed that the caller takes from
//! one, anew at each start. They are stored in the commands, so a replay makes none.

use klamm_engine::units::{ProducerId, TopicId};

/// Makes ids from a seed. The same seed makes the same ids: it must be new at each
/// start.
#[derive(Debug)]
pub struct IdSource {
    seed: u128,
    count: u64,
}

impl IdSource {
    #[must_use]
    pub fn new(seed: u128) -> IdSource {
        IdSource { seed, count: 0 }
    }

    /// The next id: a version 4 UUID, never one of those that Kafka keeps for itself
    /// (0 and 1), and never with a text that begins with `-`, which tools take for an
    /// option.
    pub fn next_id(&mut self) -> TopicId {
        loop {
            self.count += 1;
            let step = self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let half = |seed: u64| u128::from(mix(seed.wrapping_add(step)));
            #[allow(clippy::cast_possible_truncation)]
            let bits = half((self.seed >> 64) as u64) << 64 | half(self.seed as u64);
            // RFC 9562: version 4, variant 10.
            let bits = bits & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
            let id = TopicId(bits.to_be_bytes());
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }
}

/// splitmix64's finish: a bijection, so two counts never give the same half.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// How many producer ids one block has: what one write to the changelog buys
/// (Kafka's `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const BLOCK: i64 = 1000;

/// The producer ids that are this process's to give out. A restart forgets what was
/// left of its block, so that none is ever given out twice.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: i64,
    end: i64,
}

impl ProducerIds {
    /// The next id; None where a new block is due.
    pub fn take(&mut self) -> Option<ProducerId> {
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(ProducerId(self.next - 1))
    }

    /// A block that is now this process's.
    pub fn refill(&mut self, start: i64) {
        assert_eq!(
            self.next, self.end,
            "a block is asked for only when the last one is used up"
        );
        (self.next, self.end) = (start, start + BLOCK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_differ_within_a_run_and_between_runs() {
        let mut seen = BTreeSet::new();
        for seed in [0, 1, u128::MAX] {
            let mut source = IdSource::new(seed);
            for _ in 0..5000 {
                let id = source.next_id();
                assert!(!id.to_string().starts_with('-'));
                assert_eq!((id.0[6] >> 4, id.0[8] >> 6), (4, 2));
                assert!(seen.insert(id));
            }
        }
        assert_eq!(IdSource::new(7).next_id(), IdSource::new(7).next_id());
    }

    #[test]
    fn a_block_is_used_up_before_the_next() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.take(), None);
        ids.refill(3000);
        let given: Vec<i64> = std::iter::from_fn(|| ids.take()).map(|id| id.0).collect();
        assert_eq!(given, (3000..4000).collect::<Vec<_>>());
    }
}
