//! The batches that the benchmarks are fed with: the same at every run.

use klamm_engine::batch::{BatchBuilder, NewRecord};
use klamm_engine::codec::Codec;
use klamm_engine::units::TimestampMs;

/// What `max.message.bytes` is unless a topic says otherwise: 1 MiB and 12 bytes.
pub const BATCH_BYTES_MAX: usize = 1_048_588;

/// Any time that is past, so that no broker refuses it.
pub const BEGAN: TimestampMs = TimestampMs(1_700_000_000_000);

/// Numbers without a pattern that a processor could learn.
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Bytes that look random.
pub fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new();
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// One batch of as many records of so many bytes as fit below the default of
/// `max.message.bytes`.
pub fn full_batch(codec: Codec, record_bytes: usize) -> Vec<u8> {
    // A record is its value and some 10 bytes more, of which the lengths vary.
    const BESIDE_VALUE: usize = 16;
    // 16 letters: a codec packs it to about half, as it does real texts.
    let text: Vec<u8> = noise(record_bytes).iter().map(|b| b'a' + b % 16).collect();
    let mut batch = BatchBuilder::new(codec);
    let mut records = 0;
    while batch.size_unpacked() + record_bytes + BESIDE_VALUE <= 1 << 20 {
        // So that no record is a copy of the one before it.
        let mut value = text.clone();
        value.rotate_left(records % record_bytes);
        batch.push(NewRecord {
            timestamp: BEGAN,
            key: None,
            value: Some(&value),
            headers: &[],
        });
        records += 1;
    }
    let batch = batch.finish();
    assert!(batch.len() <= BATCH_BYTES_MAX, "{} bytes", batch.len());
    batch
}

/// One batch of one record, as a producer that doesn't wait for more sends it.
pub fn lone_record(codec: Codec, record_bytes: usize) -> Vec<u8> {
    BatchBuilder::new(codec)
        .record(BEGAN, None, Some(&noise(record_bytes)))
        .finish()
}
