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

/// Words of a language of 1,024 of them, which a codec packs about as it does real texts:
/// there is no line that it has seen before, and no word that it has not.
struct Texts {
    words: Vec<Vec<u8>>,
    random: Random,
}

impl Texts {
    fn new() -> Texts {
        let mut random = Random::new();
        let mut word = |_| {
            let len = 2 + random.below(8);
            let letter = |_| b'a' + random.below(26) as u8;
            (0..len).map(letter).chain([b' ']).collect()
        };
        let words = (0..1024).map(&mut word).collect();
        Texts { words, random }
    }

    fn text(&mut self, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 10);
        while text.len() < len {
            let word = self.random.below(self.words.len() as u64);
            text.extend_from_slice(&self.words[word as usize]);
        }
        text.truncate(len);
        text
    }
}

/// One batch of as many records of so many bytes as fit below the default of
/// `max.message.bytes` before they are packed.
pub fn full_batch(codec: Codec, record_bytes: usize) -> Vec<u8> {
    // A record is its value and some 10 bytes more, of which the lengths vary.
    const BESIDE_VALUE: usize = 16;
    let mut texts = Texts::new();
    let mut batch = BatchBuilder::new(codec);
    while batch.size_unpacked() + record_bytes + BESIDE_VALUE <= 1 << 20 {
        batch.push(NewRecord {
            timestamp: BEGAN,
            key: None,
            value: Some(&texts.text(record_bytes)),
            headers: &[],
        });
    }
    let batch = batch.finish();
    assert!(batch.len() <= BATCH_BYTES_MAX, "{} bytes", batch.len());
    batch
}

/// One batch of one record, as a producer that doesn't wait for more sends it.
pub fn lone_record(codec: Codec, record_bytes: usize) -> Vec<u8> {
    BatchBuilder::new(codec)
        .record(BEGAN, None, Some(&Texts::new().text(record_bytes)))
        .finish()
}
