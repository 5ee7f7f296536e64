//! The two checksums of Klamm, and which is for what.
//!
//! ```text
//!   CRC-32C     polynomial 0x1EDC6F41, Castagnoli     record batches: Kafka's format
//!               "Crc32Iscsi" in crc-fast              says so, clients check it
//!
//!   CRC-32      polynomial 0x04C11DB7, ISO-HDLC       files that are only ours:
//!               crc32fast                             changelog, snapshots, checkpoints
//! ```
//!
//! Both are 32 bits and both look right until someone else reads the file, so no
//! other module names a polynomial.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C, for record batches (bytes 21 to the end: see `batch.rs`).
#[must_use]
pub fn castagnoli(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of parts that do not lie side by side.
#[must_use]
pub fn castagnoli_of(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    narrow(digest.finalize())
}

/// CRC-32, for our own files.
#[must_use]
pub fn iso_hdlc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32 of parts that do not lie side by side.
#[must_use]
pub fn iso_hdlc_of(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// crc-fast answers every width in 64 bits; a 32-bit algorithm fills the low half.
fn narrow(crc: u64) -> u32 {
    u32::try_from(crc).expect("a 32-bit checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of the catalogue of parametrised CRC algorithms (reveng).
    #[test]
    fn each_name_is_its_polynomial() {
        assert_eq!(castagnoli(b"123456789"), 0xe306_9283);
        assert_eq!(iso_hdlc(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn parts_sum_to_the_whole_at_every_cut() {
        let bytes: Vec<u8> = (0..600u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(castagnoli_of(&[a, b]), castagnoli(&bytes), "cut at {cut}");
            assert_eq!(iso_hdlc_of(&[a, b]), iso_hdlc(&bytes), "cut at {cut}");
        }
    }

    /// Bit by bit from the definition: the fast paths switch by length.
    #[test]
    fn every_length_agrees_with_the_definition() {
        let bytes: Vec<u8> = (0..1100u32).map(|i| (i * 31 % 253) as u8).collect();
        let mut crc = u32::MAX;
        for len in 0..=bytes.len() {
            assert_eq!(castagnoli(&bytes[..len]), !crc, "{len} bytes");
            let Some(&byte) = bytes.get(len) else { break };
            crc ^= u32::from(byte);
            for _ in 0..8 {
                // 0x82F63B78 is the polynomial with its bits reversed.
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0x82f6_3b78
                } else {
                    crc >> 1
                };
            }
        }
    }
}
