//! Member ids: `<client id or instance id>-<uuid>`, as Kafka makes them.
//!
//! A pure state machine cannot ask the system for randomness, so the 128 bits
//! come from a seed and a counter: each half runs through splitmix64, which is a
//! bijection, so no id repeats within a run.

/// Kafka's strings end at 32,767 bytes; a client id of that length must not make
/// a member id that no answer can carry.
const PREFIX_BYTES_MAX: usize = 1_024;

#[derive(Debug)]
pub struct MemberIds {
    seed: u128,
    count: u64,
}

impl MemberIds {
    pub fn new(seed: u128) -> Self {
        Self { seed, count: 0 }
    }

    pub fn next(&mut self, prefix: &str) -> String {
        self.count += 1;
        let half = |seed: u64| {
            splitmix64(seed.wrapping_add(self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        };
        let (high, low) = (half((self.seed >> 64) as u64), half(self.seed as u64));
        // RFC 9562: version 4 in the third group, variant 10 in the fourth.
        let high = (high & 0xFFFF_FFFF_FFFF_0FFF) | 0x4000;
        let low = (low & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000;
        let mut end = prefix.len().min(PREFIX_BYTES_MAX);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        format!(
            "{}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            &prefix[..end],
            high >> 32,
            (high >> 16) & 0xFFFF,
            high & 0xFFFF,
            low >> 48,
            low & 0xFFFF_FFFF_FFFF,
        )
    }
}

fn splitmix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_uuids_that_neither_repeat_nor_change_with_the_run() {
        let mut ids = MemberIds::new(7);
        let made: Vec<String> = (0..10_000).map(|_| ids.next("app")).collect();
        assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), made.len());
        assert_eq!(MemberIds::new(7).next("app"), made[0]);
        assert_ne!(MemberIds::new(8).next("app"), made[0]);
        let groups: Vec<usize> = made[0].split('-').map(str::len).collect();
        assert_eq!(groups, [3, 8, 4, 4, 4, 12]);
        assert_eq!(&made[0][18..19], "4");
    }

    #[test]
    fn a_long_client_id_is_cut_between_characters() {
        let id = MemberIds::new(7).next(&"ü".repeat(20_000));
        assert_eq!(id.len(), PREFIX_BYTES_MAX + 37);
        let id = MemberIds::new(7).next(&format!("a{}", "ü".repeat(20_000)));
        assert_eq!(id.len(), PREFIX_BYTES_MAX - 1 + 37);
    }
}
