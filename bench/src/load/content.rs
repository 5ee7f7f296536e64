//! Record batches, built once and sent over and over.
//!
//! ```text
//!   noise from a seed -> records -> batch (v2, packed with the codec, CRC-32C)
//!   | batch 0 | batch 1 | ... |    so many that a processor's cache does not hold them all
//! ```
//!
//! A broker takes a batch's bytes as they are and counts the offsets itself, so the
//! same batch may be sent a million times: the client's work is that of its kernel.

use bytes::Bytes;
use klamm_engine::batch::{BatchBuilder, NewRecord};
use klamm_engine::codec::Codec;
use klamm_engine::units::TimestampMs;

/// Distinct batches: as many as make this much, and no more than [`DISTINCT_MAX`].
const DISTINCT_BYTES: usize = 8 << 20;
const DISTINCT_MAX: usize = 16;

/// At most, around a record's key and value: five varints of up to 5 bytes, and its
/// attributes.
const RECORD_OVERHEAD_MAX: usize = 26;

/// Bytes of a key: the record's number in digits.
const KEY_BYTES: usize = 10;

/// What records are like.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// Of a record's value.
    pub record_bytes: usize,
    /// A batch's size before it is packed, at most; one record if that is larger.
    pub batch_bytes: usize,
    pub codec: Codec,
    /// Records have keys, of so many; 0: none.
    pub keys: u32,
}

/// Batches of the same number of records.
pub struct Batches {
    pub batches: Vec<Bytes>,
    pub records: u32,
}

impl Batches {
    pub fn build(content: &Content, now: TimestampMs) -> Batches {
        let distinct = (DISTINCT_BYTES / content.batch_bytes.max(1)).clamp(1, DISTINCT_MAX);
        let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
        let mut key = 0;
        let mut records = 0;
        let batches = (0..distinct).map(|_| {
            let built = one(content, now, &mut noise, &mut key);
            records = u32::try_from(built.record_count()).expect("a count");
            Bytes::from(built.finish())
        });
        Batches {
            batches: batches.collect(),
            records,
        }
    }
}

fn one(content: &Content, now: TimestampMs, noise: &mut Noise, number: &mut u32) -> BatchBuilder {
    let mut builder = BatchBuilder::new(content.codec);
    let mut value = vec![0; content.record_bytes];
    let key_bytes = if content.keys > 0 { KEY_BYTES } else { 0 };
    let record_max = content.record_bytes + key_bytes + RECORD_OVERHEAD_MAX;
    while builder.is_empty() || builder.size_unpacked() + record_max <= content.batch_bytes {
        noise.fill(&mut value);
        if content.codec != Codec::None {
            // To about a half, as text is packed: noise alone would not be.
            value.chunks_mut(16).for_each(|chunk| {
                let half = chunk.len() / 2;
                chunk[half..].fill(b'k');
            });
        }
        let key = (content.keys > 0).then(|| format!("{:010}", *number % content.keys));
        *number = number.wrapping_add(1);
        builder.push(NewRecord {
            timestamp: now,
            key: key.as_ref().map(|key| key.as_bytes()),
            value: Some(&value),
            headers: &[],
        });
    }
    builder
}

/// Bytes that do not compress, the same in every run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, to: &mut [u8]) {
        for chunk in to.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::RecordBatchDecoder;
    use klamm_engine::batch::Batch;

    fn content(record_bytes: usize, batch_bytes: usize) -> Content {
        Content {
            record_bytes,
            batch_bytes,
            codec: Codec::None,
            keys: 0,
        }
    }

    #[test]
    fn a_stranger_reads_the_batches() {
        let content = Content {
            keys: 3,
            ..content(100, 4096)
        };
        let built = Batches::build(&content, TimestampMs(1_700_000_000_000));
        assert_eq!(built.batches.len(), DISTINCT_MAX);
        for batch in &built.batches {
            assert!(batch.len() <= 4096 && batch.len() > 4096 - 2 * 126);
            Batch::parse(batch).unwrap().verify_crc().unwrap();
            let read = RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
            assert_eq!(read.records.len(), built.records as usize);
            assert!(read.records.iter().all(|record| {
                record.timestamp == 1_700_000_000_000
                    && record
                        .value
                        .as_ref()
                        .is_some_and(|value| value.len() == 100)
                    && record
                        .key
                        .as_ref()
                        .is_some_and(|key| key.len() == KEY_BYTES)
            }));
        }
        assert_ne!(built.batches[0], built.batches[1]);
    }

    #[test]
    fn a_batch_has_at_least_one_record() {
        let built = Batches::build(&content(1000, 1), TimestampMs(0));
        assert_eq!(built.records, 1);
    }

    #[test]
    fn only_noise_stays_as_long_as_it_is() {
        for codec in Codec::ALL {
            let content = Content {
                codec,
                ..content(1000, 100_000)
            };
            let batch = &Batches::build(&content, TimestampMs(0)).batches[0];
            let parsed = Batch::parse(batch).unwrap();
            assert_eq!(parsed.codec(), codec);
            let unpacked = parsed.records_unpacked(1 << 20).unwrap();
            assert_eq!(
                parsed.records(&unpacked).count(),
                parsed.record_count() as usize
            );
            assert_eq!(codec == Codec::None, batch.len() > 95_000, "{codec}");
        }
    }
}
