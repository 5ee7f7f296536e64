//! Numbers that must never be given out twice: topic ids, the cluster's id, producer
//! ids.
//!
//! Topic ids and the cluster's id are 128 random bits in all but name: a pure state
//! machine has no random source, so they come from a seed that the caller takes from
//! one, anew at each start. They are stored in the commands, so a replay makes none.

use klamm_engine::units::{ProducerId, TopicId};

/// Kafka's text of a 16-byte id (`Uuid.toString`): url-safe base64 without padding.
#[must_use]
pub fn to_text(id: [u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from_be_bytes(id);
    // 128 bits are 21 digits of 6 bits and a last one of 2, its low bits 0.
    (0..22)
        .map(|at| {
            let digit = if at < 21 {
                bits >> (122 - 6 * at)
            } else {
                bits << 4
            };
            char::from(DIGITS[(digit & 63) as usize])
        })
        .collect()
}

/// The id that a text stands for; None where it is not 22 digits of one.
#[must_use]
pub fn from_text(text: &str) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut bits = 0u128;
    for (at, digit) in text.bytes().enumerate() {
        let value = u128::from(match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        });
        if at < 21 {
            bits |= value << (122 - 6 * at);
        } else if value & 15 == 0 {
            bits |= value >> 4;
        } else {
            return None;
        }
    }
    Some(bits.to_be_bytes())
}

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
    pub fn next_id(&mut self) -> [u8; 16] {
        loop {
            self.count += 1;
            let step = self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let half = |seed: u64| u128::from(mix(seed.wrapping_add(step)));
            #[allow(clippy::cast_possible_truncation)]
            let bits = half((self.seed >> 64) as u64) << 64 | half(self.seed as u64);
            // RFC 9562: version 4, variant 10.
            let bits = bits & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
            let id = bits.to_be_bytes();
            if !to_text(id).starts_with('-') {
                return id;
            }
        }
    }

    pub fn next_topic(&mut self) -> TopicId {
        TopicId(self.next_id())
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
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_text_is_kafkas() {
        // Uuid.ZERO_UUID, Uuid.ONE_UUID, and one from RFC 4648's alphabet's end.
        assert_eq!(to_text([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(to_text(1u128.to_be_bytes()), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(to_text([0xff; 16]), "_____________________w");
        assert_eq!(
            from_text("AAAAAAAAAAAAAAAAAAAAAB"),
            None,
            "bits beyond the 128"
        );
        assert_eq!(from_text("AAAA"), None);
        assert_eq!(from_text("AAAAAAAAAAAAAAAAAAAA+Q"), None);
    }

    #[test]
    fn ids_differ_within_a_run_and_between_runs() {
        let mut seen = BTreeSet::new();
        for seed in [0, 1, u128::MAX] {
            let mut source = IdSource::new(seed);
            for _ in 0..5000 {
                let id = source.next_id();
                assert!(!to_text(id).starts_with('-'));
                assert_eq!((id[6] >> 4, id[8] >> 6), (4, 2));
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

    proptest! {
        #[test]
        fn every_id_comes_back_from_its_text(id in any::<[u8; 16]>()) {
            prop_assert_eq!(from_text(&to_text(id)), Some(id));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            if let Some(id) = from_text(&text) {
                prop_assert_eq!(to_text(id), text);
            }
        }
    }
}
