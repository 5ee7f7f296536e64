//! A producer state as bytes, so that recovery replays one segment and not the log.
//!
//! ```text
//!   0  magic       8 bytes  "KLMPRODS"
//!   8  version     u32      1
//!  12  crc         u32      CRC-32 (ISO-HDLC) of bytes 8-11 and of 16 to the end
//!  16  nextOffset  i64      the state after every batch below it
//!  24  count       u32      producers, in the order of their ids
//!  28  producer*   producerId i64 | epoch i16 | coordinatorEpoch i32
//!                  lastTimestamp i64 | currentTxnFirstOffset i64, -1: none
//!                  batches u8, 0 to 5
//!                  batch*  firstSequence i32 | lastSequence i32
//!                          baseOffset i64 | lastOffset i64 | timestamp i64
//! ```
//!
//! Big-endian as the batches are. Ours, and not Kafka's `.snapshot`, which keeps one
//! batch a producer: a broker that restarts would take a retry of the other four for
//! a gap. Bytes that do not check out are an error, which the caller answers by
//! replaying from the start of the log.

use super::{AppendedBatch, BATCHES_KEPT, Kept, Producer, ProducerState};
use crate::crc;
use crate::units::{Offset, ProducerEpoch, ProducerId, TimestampMs};
use std::fmt;

const MAGIC: &[u8; 8] = b"KLMPRODS";
const VERSION: u32 = 1;
const CRC_AT: usize = 12;
const BODY_AT: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// No producer snapshot of ours.
    Magic,
    /// Of a newer Klamm.
    Version {
        is: u32,
    },
    Crc {
        is: u32,
        header: u32,
    },
    /// The CRC is right and the contents are not: written wrong, at this byte.
    Invalid {
        at: usize,
        what: &'static str,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Magic => write!(f, "not a producer snapshot"),
            SnapshotError::Version { is } => {
                write!(
                    f,
                    "producer snapshot version {is}, this Klamm reads {VERSION}"
                )
            }
            SnapshotError::Crc { is, header } => {
                write!(
                    f,
                    "producer snapshot: crc is {is:08x}, header says {header:08x}"
                )
            }
            SnapshotError::Invalid { at, what } => {
                write!(f, "producer snapshot: byte {at}: bad {what}")
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

impl ProducerState {
    #[must_use]
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28 + self.producers.len() * 199);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.next_offset.0.to_be_bytes());
        let count = u32::try_from(self.producers.len()).expect("below 2^32 producers");
        out.extend_from_slice(&count.to_be_bytes());
        for (id, producer) in self.iter() {
            out.extend_from_slice(&id.0.to_be_bytes());
            producer.encode(&mut out);
        }
        let crc = checksum(&out);
        out[CRC_AT..BODY_AT].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Of any bytes; never panics, allocates no more than the bytes account for.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<ProducerState, SnapshotError> {
        if !bytes.starts_with(MAGIC) {
            return Err(SnapshotError::Magic);
        }
        let mut from = Reader {
            bytes,
            at: MAGIC.len(),
        };
        let version = from.u32("version")?;
        if version != VERSION {
            return Err(SnapshotError::Version { is: version });
        }
        let header = from.u32("crc")?;
        let is = checksum(bytes);
        if is != header {
            return Err(SnapshotError::Crc { is, header });
        }
        let next_offset = Offset(from.i64("nextOffset")?);
        if next_offset < Offset::ZERO {
            return Err(from.invalid("nextOffset"));
        }
        let mut state = ProducerState::new(next_offset);
        for _ in 0..from.u32("count")? {
            let id = ProducerId(from.i64("producerId")?);
            let ascends = state
                .producers
                .last_key_value()
                .is_none_or(|(&last, _)| last < id);
            if id.0 < 0 || !ascends {
                return Err(from.invalid("producerId"));
            }
            let producer = Producer::decode(&mut from, next_offset)?;
            state.producers.insert(id, producer);
        }
        match from.at == bytes.len() {
            true => Ok(state),
            false => Err(from.invalid("length: bytes are left over")),
        }
    }
}

impl Producer {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&self.last_timestamp.0.to_be_bytes());
        let txn = self.current_txn_first_offset.map_or(-1, |first| first.0);
        out.extend_from_slice(&txn.to_be_bytes());
        out.push(self.batches.len as u8);
        for batch in self.batches() {
            out.extend_from_slice(&batch.first_sequence.to_be_bytes());
            out.extend_from_slice(&batch.last_sequence.to_be_bytes());
            out.extend_from_slice(&batch.base_offset.0.to_be_bytes());
            out.extend_from_slice(&batch.last_offset.0.to_be_bytes());
            out.extend_from_slice(&batch.timestamp.0.to_be_bytes());
        }
    }

    fn decode(from: &mut Reader<'_>, next_offset: Offset) -> Result<Producer, SnapshotError> {
        let mut producer = Producer::new(ProducerEpoch(from.i16("epoch")?));
        producer.coordinator_epoch = from.i32("coordinatorEpoch")?;
        producer.last_timestamp = TimestampMs(from.i64("lastTimestamp")?);
        producer.current_txn_first_offset = match from.i64("currentTxnFirstOffset")? {
            -1 => None,
            first if (0..next_offset.0).contains(&first) => Some(Offset(first)),
            _ => return Err(from.invalid("currentTxnFirstOffset")),
        };
        let batches = usize::from(from.u8("batches")?);
        if batches > BATCHES_KEPT {
            return Err(from.invalid("batches"));
        }
        let mut kept = Kept::default();
        let mut floor = Offset::ZERO;
        for _ in 0..batches {
            let batch = AppendedBatch {
                first_sequence: from.i32("firstSequence")?,
                last_sequence: from.i32("lastSequence")?,
                base_offset: Offset(from.i64("baseOffset")?),
                last_offset: Offset(from.i64("lastOffset")?),
                timestamp: TimestampMs(from.i64("timestamp")?),
            };
            if batch.first_sequence < 0 || batch.last_sequence < 0 {
                return Err(from.invalid("sequence"));
            }
            let ordered = floor <= batch.base_offset
                && batch.base_offset <= batch.last_offset
                && batch.last_offset < next_offset;
            if !ordered {
                return Err(from.invalid("offset"));
            }
            floor = batch.last_offset.plus(1);
            kept.push(batch);
        }
        producer.batches = kept;
        Ok(producer)
    }
}

/// Over all but the magic and the checksum itself; `bytes` has both.
fn checksum(bytes: &[u8]) -> u32 {
    crc::iso_hdlc_of(&[&bytes[MAGIC.len()..CRC_AT], &bytes[BODY_AT..]])
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], SnapshotError> {
        let Some(taken) = self.bytes[self.at..].first_chunk::<N>() else {
            return Err(self.invalid(what));
        };
        self.at += N;
        Ok(*taken)
    }

    fn invalid(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Invalid { at: self.at, what }
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, SnapshotError> {
        self.take::<1>(what).map(|[byte]| byte)
    }

    fn i16(&mut self, what: &'static str) -> Result<i16, SnapshotError> {
        self.take(what).map(i16::from_be_bytes)
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, SnapshotError> {
        self.take(what).map(i32::from_be_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, SnapshotError> {
        self.take(what).map(u32::from_be_bytes)
    }

    fn i64(&mut self, what: &'static str) -> Result<i64, SnapshotError> {
        self.take(what).map(i64::from_be_bytes)
    }
}
