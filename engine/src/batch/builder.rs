//! Builds record batches: for the coordinator's changelog, tools and tests. What
//! producers send is never rebuilt.
//!
//! ```text
//!   new(codec) .producer(..) .transactional() ..  push(record)*  finish() -> bytes
//! ```
//!
//! The first record's timestamp is the base timestamp; offset deltas count from 0.

use super::{
    BatchHeader, CONTROL, CRC_FROM, HEADER_LEN, LENGTH_OVERHEAD, LOG_APPEND_TIME, MAGIC,
    TRANSACTIONAL, seal,
};
use crate::codec::{self, Codec};
use crate::record::{encode_varint, encode_varlong};
use crate::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use zerocopy::IntoBytes;

/// A record to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    pub timestamp: TimestampMs,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// In order; duplicate keys are kept.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    attributes: i16,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer: (ProducerId, ProducerEpoch, i32),
    log_append_time: Option<TimestampMs>,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    count: i32,
    records: Vec<u8>,
    /// One record's body, whose length has to stand before it.
    body: Vec<u8>,
}

impl BatchBuilder {
    #[must_use]
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            codec,
            attributes: i16::from(codec.id()),
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch(-1),
            producer: (ProducerId(-1), ProducerEpoch(-1), -1),
            log_append_time: None,
            base_timestamp: TimestampMs::NONE,
            max_timestamp: TimestampMs::NONE,
            count: 0,
            records: Vec::new(),
            body: Vec::new(),
        }
    }

    #[must_use]
    pub fn base_offset(mut self, base_offset: Offset) -> BatchBuilder {
        self.base_offset = base_offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> BatchBuilder {
        self.leader_epoch = epoch;
        self
    }

    /// Of an idempotent producer; `base_sequence` is the first record's.
    #[must_use]
    pub fn producer(
        mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> BatchBuilder {
        self.producer = (id, epoch, base_sequence);
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> BatchBuilder {
        self.attributes |= TRANSACTIONAL;
        self
    }

    /// Its records are the broker's own (transaction markers).
    #[must_use]
    pub fn control(mut self) -> BatchBuilder {
        self.attributes |= CONTROL;
        self
    }

    #[must_use]
    pub fn log_append_time(mut self, now: TimestampMs) -> BatchBuilder {
        self.attributes |= LOG_APPEND_TIME;
        self.log_append_time = Some(now);
        self
    }

    /// [`BatchBuilder::push`] for one-liners.
    #[must_use]
    pub fn record(
        mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> BatchBuilder {
        self.push(NewRecord {
            timestamp,
            key,
            value,
            headers: &[],
        });
        self
    }

    pub fn push(&mut self, record: NewRecord<'_>) {
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.body.clear();
        self.body.push(0);
        // Wrapping, as readers add it back wrapping: any two timestamps have a delta.
        encode_varlong(
            &mut self.body,
            record.timestamp.0.wrapping_sub(self.base_timestamp.0),
        );
        encode_varint(&mut self.body, self.count);
        put_nullable(&mut self.body, record.key);
        put_nullable(&mut self.body, record.value);
        encode_varint(&mut self.body, len_i32(record.headers.len()));
        for &(key, value) in record.headers {
            put_nullable(&mut self.body, Some(key));
            put_nullable(&mut self.body, value);
        }
        encode_varint(&mut self.records, len_i32(self.body.len()));
        self.records.extend_from_slice(&self.body);
        self.count += 1;
    }

    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch's size before packing: when to begin another one.
    #[must_use]
    pub fn size_unpacked(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// The whole batch, sealed with its CRC. It must have a record.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        assert!(self.count > 0, "a batch has at least one record");
        let packed = codec::compress(self.codec, &self.records);
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let header = BatchHeader {
            base_offset: self.base_offset.0.into(),
            batch_length: len_i32(HEADER_LEN - LENGTH_OVERHEAD + packed.len()).into(),
            partition_leader_epoch: self.leader_epoch.0.into(),
            magic: MAGIC,
            crc: 0.into(),
            attributes: self.attributes.into(),
            last_offset_delta: (self.count - 1).into(),
            base_timestamp: self.base_timestamp.0.into(),
            max_timestamp: self.log_append_time.unwrap_or(self.max_timestamp).0.into(),
            producer_id: producer_id.0.into(),
            producer_epoch: producer_epoch.0.into(),
            base_sequence: base_sequence.into(),
            record_count: self.count.into(),
        };
        let mut batch = Vec::with_capacity(HEADER_LEN + packed.len());
        batch.extend_from_slice(header.as_bytes());
        batch.extend_from_slice(&packed);
        debug_assert!(batch.len() > CRC_FROM);
        seal(&mut batch);
        batch
    }
}

fn put_nullable(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => encode_varint(to, -1),
        Some(bytes) => {
            encode_varint(to, len_i32(bytes.len()));
            to.extend_from_slice(bytes);
        }
    }
}

fn len_i32(len: usize) -> i32 {
    i32::try_from(len).expect("a batch is below 2 GiB")
}
