//! Which partition a record goes to: the same as the Java producer chooses, so that
//! a key lands where other producers put it.

/// Murmur2 as Kafka has it: 32 bits, seed 0x9747b28c (`Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M);
        h ^= k;
    }
    let rest = words.remainder();
    for (at, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of a key. The sign bit is masked off, not negated: Java's way.
pub fn for_key(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions
}

/// Records without a key stick to one partition until a batch is full, then go on to
/// another one drawn at random: few large batches instead of many small ones
/// (KIP-480).
#[derive(Debug)]
pub struct Sticky {
    current: usize,
    state: u64,
}

impl Sticky {
    pub fn new(seed: u64, partitions: usize) -> Sticky {
        let mut sticky = Sticky {
            current: 0,
            // xorshift never leaves 0.
            state: seed | 1,
        };
        sticky.advance(partitions);
        sticky
    }

    pub fn current(&self) -> usize {
        self.current
    }

    /// The batch of the current partition is full.
    pub fn advance(&mut self, partitions: usize) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let drawn = (self.state >> 32) as usize;
        self.current = if partitions < 2 {
            0
        } else {
            // One of the others.
            (self.current + 1 + drawn % (partitions - 1)) % partitions
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Kafka's own test has (`UtilsTest.testMurmur2`).
    #[test]
    fn hashes_are_javas() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_is_masked() {
        // -790332482 & 0x7fffffff = 1357151166
        assert_eq!(for_key(b"foobar", 1000), 166);
        assert_eq!(for_key(b"anything", 1), 0);
    }

    #[test]
    fn sticking_moves_on_and_reaches_all() {
        let mut sticky = Sticky::new(42, 5);
        let mut seen = [0; 5];
        for _ in 0..200 {
            let before = sticky.current();
            sticky.advance(5);
            assert_ne!(before, sticky.current());
            seen[sticky.current()] += 1;
        }
        assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
        let mut one = Sticky::new(0, 1);
        one.advance(1);
        assert_eq!(one.current(), 0);
    }
}
