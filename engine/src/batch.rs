//! The record batch, version 2: the unit that is sent, checked, stored and fetched.
//!
//! ```text
//!   0  baseOffset            i64 \ patched by the broker,
//!   8  batchLength           i32  | outside of the CRC.
//!  12  partitionLeaderEpoch  i32 /  Whole size = 12 + batchLength.
//!  16  magic                 i8    2
//!  17  crc                   u32   CRC-32C of byte 21 to the end
//!  21  attributes            i16   bits 0-2 codec, 3 log append time, 4 transactional,
//!  23  lastOffsetDelta       i32        5 control, 6 delete horizon
//!  27  baseTimestamp         i64
//!  35  maxTimestamp          i64
//!  43  producerId            i64   -1: not idempotent
//!  51  producerEpoch         i16
//!  53  baseSequence          i32
//!  57  recordCount           i32
//!  61  records, packed with the codec                     all numbers big-endian
//! ```
//!
//! [`Batch`] is a view: bytes whose shape and fields were checked, so that no
//! accessor can fail or overflow. The CRC is a question of its own, asked with
//! [`Batch::verify_crc`], since a reader of trusted memory need not pay for it.
//! Nothing here allocates but for decompression; nothing panics on any bytes.
//!
//! Sources: `DefaultRecordBatch.java`, `LogValidator.java`, `UnifiedLog` of the
//! Kafka tree.

mod builder;
mod error;
#[cfg(test)]
mod tests;

pub use builder::{BatchBuilder, NewRecord};
pub use error::{BatchError, BatchFault, Refusal, UnpackError};

use crate::codec::{self, Codec, CodecError};
use crate::crc;
use crate::record::{self, Record, Records};
use crate::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use std::borrow::Cow;
use std::ops::Deref;
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes before the records.
pub const HEADER_LEN: usize = 61;

/// What the length field does not count: the base offset and itself.
pub const LENGTH_OVERHEAD: usize = 12;

/// Where the CRC begins to count.
pub const CRC_FROM: usize = 21;

const MAGIC: i8 = 2;
const CODEC_BITS: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// The 61 bytes. As a reference it may be had only through [`BatchHeader::parse`] or
/// [`Batch`], which checked it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    base_offset: I64,
    batch_length: I32,
    partition_leader_epoch: I32,
    magic: i8,
    crc: U32,
    attributes: I16,
    last_offset_delta: I32,
    base_timestamp: I64,
    max_timestamp: I64,
    producer_id: I64,
    producer_epoch: I16,
    base_sequence: I32,
    record_count: I32,
}

const _: () = assert!(size_of::<BatchHeader>() == HEADER_LEN);
const _: () = assert!(std::mem::offset_of!(BatchHeader, attributes) == CRC_FROM);

/// Who says what a record's timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer; each record has its own.
    CreateTime,
    /// The broker; every record has the batch's maxTimestamp.
    LogAppendTime,
}

impl BatchHeader {
    /// Checks the header at the front of `bytes`; the records need not be there. So
    /// a reader can walk a file by headers.
    pub fn parse(bytes: &[u8]) -> Result<&BatchHeader, BatchError> {
        let header = BatchHeader::structure(bytes)?;
        header.fields()?;
        Ok(header)
    }

    /// What must hold for the bytes to be a batch at all.
    fn structure(bytes: &[u8]) -> Result<&BatchHeader, BatchError> {
        let Ok((header, _)) = BatchHeader::ref_from_prefix(bytes) else {
            let fault = if is_zero(bytes) {
                BatchFault::Zeros
            } else {
                BatchFault::Short {
                    need: HEADER_LEN,
                    have: bytes.len(),
                }
            };
            return Err(fault.at(0));
        };
        let length = header.batch_length.get();
        if length == 0 && is_zero(&bytes[..HEADER_LEN]) {
            return Err(BatchFault::Zeros.at(0));
        }
        if length < (HEADER_LEN - LENGTH_OVERHEAD) as i32 {
            return Err(BatchFault::Length { is: length }.at(0));
        }
        if header.magic != MAGIC {
            return Err(BatchFault::Magic { is: header.magic }.at(0));
        }
        Ok(header)
    }

    /// What accessors build on. Asked after the CRC where that is asked, so that a
    /// flipped bit is called what it is.
    fn fields(&self) -> Result<(), BatchError> {
        let field = |field, is: i64| Err(BatchFault::Field { field, is }.at(0));
        let base = self.base_offset.get();
        let delta = self.last_offset_delta.get();
        if base < 0 {
            return field("baseOffset", base);
        }
        if delta < 0 {
            return field("lastOffsetDelta", delta.into());
        }
        // Room for the next offset too.
        if base.checked_add(i64::from(delta) + 1).is_none() {
            return field("baseOffset", base);
        }
        // Compaction leaves fewer records than offsets, and may leave none.
        let count = self.record_count.get();
        if count < 0 || i64::from(count) > i64::from(delta) + 1 {
            return field("recordCount", count.into());
        }
        if self.producer_id.get() >= 0 && self.base_sequence.get() < 0 && !self.is_control() {
            return field("baseSequence", self.base_sequence.get().into());
        }
        let codec = self.codec_id();
        match Codec::from_id(codec) {
            Some(_) => Ok(()),
            None => Err(BatchFault::Codec { is: codec }.at(0)),
        }
    }

    /// Where the batch stands in its log: the fields outside of the CRC.
    pub fn stamp(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.base_offset.set(base_offset.0);
        self.partition_leader_epoch.set(leader_epoch.0);
    }

    /// [`stamp_log_append_time`] on a header that was copied out; `records` are the bytes
    /// behind it.
    pub fn stamp_log_append_time(&mut self, now: TimestampMs, records: &[u8]) {
        self.attributes.set(self.attributes.get() | LOG_APPEND_TIME);
        self.max_timestamp.set(now.0);
        self.seal(records);
    }

    /// [`stamp_max_timestamp`] on a header that was copied out; `records` are the bytes
    /// behind it.
    pub fn stamp_max_timestamp(&mut self, max: TimestampMs, records: &[u8]) {
        if self.max_timestamp.get() != max.0 {
            self.max_timestamp.set(max.0);
            self.seal(records);
        }
    }

    fn seal(&mut self, records: &[u8]) {
        let crc = crc::castagnoli_of(&[&self.as_bytes()[CRC_FROM..], records]);
        self.crc.set(crc);
    }

    #[must_use]
    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset.get())
    }

    /// The last record's offset; of a compacted batch, the last one it once had.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset()
            .plus(i64::from(self.last_offset_delta.get()))
    }

    /// The offset behind the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Of the whole batch, this header included.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        LENGTH_OVERHEAD + self.batch_length.get() as usize
    }

    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.partition_leader_epoch.get())
    }

    /// The CRC as it stands in the header.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc.get()
    }

    #[must_use]
    pub fn attributes(&self) -> i16 {
        self.attributes.get()
    }

    fn codec_id(&self) -> u8 {
        (self.attributes.get() & CODEC_BITS) as u8
    }

    #[must_use]
    pub fn codec(&self) -> Codec {
        Codec::from_id(self.codec_id()).expect("checked by parse")
    }

    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes.get() & LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes.get() & TRANSACTIONAL != 0
    }

    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes.get() & CONTROL != 0
    }

    /// From when on compaction may drop the batch's tombstones (KIP-534). It stands
    /// where the base timestamp else does.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        (self.attributes.get() & DELETE_HORIZON != 0).then(|| self.base_timestamp())
    }

    #[must_use]
    pub fn base_timestamp(&self) -> TimestampMs {
        TimestampMs(self.base_timestamp.get())
    }

    #[must_use]
    pub fn max_timestamp(&self) -> TimestampMs {
        TimestampMs(self.max_timestamp.get())
    }

    /// -1 where the producer is not idempotent.
    #[must_use]
    pub fn producer_id(&self) -> ProducerId {
        ProducerId(self.producer_id.get())
    }

    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.get() >= 0
    }

    #[must_use]
    pub fn producer_epoch(&self) -> ProducerEpoch {
        ProducerEpoch(self.producer_epoch.get())
    }

    #[must_use]
    pub fn base_sequence(&self) -> i32 {
        self.base_sequence.get()
    }

    /// The last record's sequence number; -1 where there is none. After `i32::MAX`
    /// comes 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence.get() {
            base if base < 0 => -1,
            base => sequence_plus(base, self.last_offset_delta.get()),
        }
    }

    #[must_use]
    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta.get()
    }

    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count.get()
    }
}

/// Sequence numbers go round from `i32::MAX` to 0. Neither may be negative.
#[must_use]
pub fn sequence_plus(sequence: i32, n: i32) -> i32 {
    (i64::from(sequence) + i64::from(n)).rem_euclid(1 << 31) as i32
}

/// A whole batch whose structure and fields are sound. Its CRC may still be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    header: &'a BatchHeader,
    bytes: &'a [u8],
    records_max: Option<TimestampMs>,
}

impl Deref for Batch<'_> {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        self.header
    }
}

impl<'a> Batch<'a> {
    /// The batch at the front of `bytes`; there may be more behind it.
    pub fn parse(bytes: &'a [u8]) -> Result<Batch<'a>, BatchError> {
        let batch = Batch::structure(bytes)?;
        batch.fields()?;
        Ok(batch)
    }

    fn structure(bytes: &'a [u8]) -> Result<Batch<'a>, BatchError> {
        let header = BatchHeader::structure(bytes)?;
        let need = header.size_in_bytes();
        match bytes.get(..need) {
            Some(bytes) => Ok(Batch {
                header,
                bytes,
                records_max: None,
            }),
            None => Err(BatchFault::Short {
                need,
                have: bytes.len(),
            }
            .at(0)),
        }
    }

    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let is = crc::castagnoli(&self.bytes[CRC_FROM..]);
        match self.crc() {
            header if header == is => Ok(()),
            header => Err(BatchFault::Crc { is, header }.at(0)),
        }
    }

    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    #[must_use]
    pub fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// The records as they are stored: packed, where there is a codec.
    #[must_use]
    pub fn records_bytes(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// The largest timestamp of the records themselves, where [`check_from_client`]
    /// went through them. maxTimestamp is what the producer says it is; Kafka puts
    /// it right, see [`stamp_max_timestamp`].
    #[must_use]
    pub fn max_timestamp_of_records(&self) -> Option<TimestampMs> {
        self.records_max
    }

    /// The records unpacked: borrowed where there is no codec. `limit` bounds the
    /// output in bytes.
    pub fn records_unpacked(&self, limit: usize) -> Result<Cow<'a, [u8]>, CodecError> {
        match self.codec() {
            Codec::None => Ok(Cow::Borrowed(self.records_bytes())),
            codec => codec::decompress(codec, self.records_bytes(), limit).map(Cow::Owned),
        }
    }

    /// Walks records that [`Batch::records_unpacked`] gave.
    #[must_use]
    pub fn records<'r>(&self, unpacked: &'r [u8]) -> Records<'r> {
        Records::new(unpacked, self.record_count())
    }

    /// The first record whose timestamp is not below `target`. None where there is
    /// none: maxTimestamp is the producer's word, so a caller goes on with the next
    /// batch. `limit` bounds unpacking.
    pub fn first_at_or_after(
        &self,
        target: TimestampMs,
        limit: usize,
    ) -> Result<Option<(Offset, TimestampMs)>, UnpackError> {
        if self.timestamp_type() == TimestampType::LogAppendTime {
            let all = self.max_timestamp();
            return Ok((all >= target).then(|| (self.base_offset(), all)));
        }
        let unpacked = self.records_unpacked(limit).map_err(UnpackError::Codec)?;
        for record in self.records(&unpacked) {
            let record = record.map_err(UnpackError::Record)?;
            let timestamp = self.timestamp_of(&record);
            if timestamp >= target {
                return Ok(Some((self.offset_of(&record), timestamp)));
            }
        }
        Ok(None)
    }

    /// A record's offset in the log; for one of this batch.
    #[must_use]
    pub fn offset_of(&self, record: &Record<'_>) -> Offset {
        // A packed batch was never looked into, so its deltas may lie.
        Offset(
            self.base_offset
                .get()
                .saturating_add(i64::from(record.offset_delta)),
        )
    }

    /// A record's timestamp, as a consumer is told it.
    #[must_use]
    pub fn timestamp_of(&self, record: &Record<'_>) -> TimestampMs {
        match self.timestamp_type() {
            TimestampType::LogAppendTime => self.max_timestamp(),
            TimestampType::CreateTime => TimestampMs(
                self.base_timestamp
                    .get()
                    .wrapping_add(record.timestamp_delta),
            ),
        }
    }
}

// -- what a broker checks of a produced batch

/// All that must hold for a batch from a client to be kept; `bytes` is what the
/// request has for one partition. In the order of Kafka's own checks, so that a
/// batch with two faults gets the same answer. A packed batch is not unpacked.
pub fn check_from_client(bytes: &[u8], max_message_bytes: usize) -> Result<Batch<'_>, BatchError> {
    let mut batch = Batch::structure(bytes)?;
    let size = batch.size_in_bytes();
    if size != bytes.len() {
        return Err(BatchFault::NotOne {
            size,
            have: bytes.len(),
        }
        .at(0));
    }
    let base = batch.base_offset.get();
    if base != 0 {
        return Err(BatchFault::Field {
            field: "baseOffset",
            is: base,
        }
        .at(0));
    }
    if size > max_message_bytes {
        return Err(BatchFault::TooLarge {
            is: size,
            max: max_message_bytes,
        }
        .at(0));
    }
    batch.verify_crc()?;
    batch.fields()?;
    let (count, delta) = (batch.record_count(), batch.last_offset_delta());
    if i64::from(count) != i64::from(delta) + 1 {
        return Err(BatchFault::Count {
            is: count,
            last_offset_delta: delta,
        }
        .at(0));
    }
    if batch.is_control() {
        return Err(BatchFault::Control.at(0));
    }
    if batch.codec() == Codec::None {
        let delta_max = record::check_records(batch.records_bytes(), count)
            .map_err(|error| BatchFault::Record(error).at(0))?;
        let max = batch.base_timestamp.get().wrapping_add(delta_max);
        batch.records_max = Some(TimestampMs(max));
    }
    Ok(batch)
}

/// Gives a checked batch its place in the log. The CRC does not cover these fields.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    let header = header_mut(batch);
    header.base_offset.set(base_offset.0);
    header.partition_leader_epoch.set(leader_epoch.0);
}

/// Makes the broker's clock the batch's (`message.timestamp.type=LogAppendTime`), and
/// computes the CRC, which covers both fields, anew. Records keep their deltas:
/// readers take maxTimestamp for each of them.
pub fn stamp_log_append_time(batch: &mut [u8], now: TimestampMs) {
    let header = header_mut(batch);
    header
        .attributes
        .set(header.attributes.get() | LOG_APPEND_TIME);
    header.max_timestamp.set(now.0);
    seal(batch);
}

/// Corrects a maxTimestamp, by which lookups skip batches, and computes the CRC,
/// which covers it, anew. Nothing where it is right.
pub fn stamp_max_timestamp(batch: &mut [u8], max: TimestampMs) {
    let header = header_mut(batch);
    if header.max_timestamp.get() != max.0 {
        header.max_timestamp.set(max.0);
        seal(batch);
    }
}

/// Writes the CRC of what stands there.
pub(crate) fn seal(batch: &mut [u8]) {
    let crc = crc::castagnoli(&batch[CRC_FROM..]);
    header_mut(batch).crc.set(crc);
}

fn header_mut(batch: &mut [u8]) -> &mut BatchHeader {
    let len = batch.len();
    let (header, _) = BatchHeader::mut_from_prefix(batch).expect("a checked batch");
    assert_eq!(header.size_in_bytes(), len, "exactly one checked batch");
    header
}

// -- many batches

/// Walks batches end to end, as a segment or a fetched range has them. Yields an
/// error at the first byte that begins no whole batch, and then ends. The CRC is not
/// asked.
///
/// ```text
///   | batch | batch | batch | 000000 or half a batch or rubbish
///    Ok      Ok      Ok      ^ Err, once; position() stays here
/// ```
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    at: usize,
    done: bool,
}

impl<'a> Batches<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches {
            bytes,
            at: 0,
            done: false,
        }
    }

    /// The byte behind the last batch that was yielded.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done || self.at == self.bytes.len() {
            return None;
        }
        let item = Batch::parse(&self.bytes[self.at..]);
        match &item {
            Ok(batch) => self.at += batch.size_in_bytes(),
            Err(_) => self.done = true,
        }
        Some(item.map_err(|error| error.shifted(self.at as u64)))
    }
}

/// Whether a tail is only preallocated room.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    // All of a chunk, without a branch for each byte.
    let zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
    chunks.iter().all(|chunk| zero(chunk)) && zero(rest)
}
