//! Bytes that do not compress, the same in every run.
//!
//! A disk of a virtual machine may store zeros for nothing, and a broker may meet a
//! codec: what is written here is worth what it weighs.

/// So many of them, less what is no whole word of 8 (xorshift64*).
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let word = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    std::iter::repeat_with(word)
        .take(bytes / 8)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_noise() {
        let noise = noise(2 << 20);
        assert_eq!(noise.len(), 2 << 20);
        let mut counts = [0_u32; 256];
        noise
            .iter()
            .for_each(|&byte| counts[usize::from(byte)] += 1);
        // 8192 of each on average; a byte that is 10 % off would compress.
        assert!(
            counts.iter().all(|n| (7400..9000).contains(n)),
            "{counts:?}"
        );
    }
}
