//! What can be wrong with a batch, and what a producer is told of it.

use super::{HEADER_LEN, LENGTH_OVERHEAD, MAGIC};
use crate::codec::CodecError;
use crate::record::RecordError;
use std::fmt;

/// What is wrong with a batch, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchError {
    /// The batch's first byte, in what was given; see [`BatchError::shifted`].
    pub at: u64,
    pub fault: BatchFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// Nothing but zeros where a header should be: preallocated room.
    Zeros,
    /// The bytes end before the batch does.
    Short {
        need: usize,
        have: usize,
    },
    /// The length field leaves no room for a header.
    Length {
        is: i32,
    },
    Magic {
        is: i8,
    },
    /// A header field out of its range.
    Field {
        field: &'static str,
        is: i64,
    },
    Crc {
        is: u32,
        header: u32,
    },
    /// A client's bytes are not exactly one batch.
    NotOne {
        size: usize,
        have: usize,
    },
    TooLarge {
        is: usize,
        max: usize,
    },
    /// A client's batch without one record an offset.
    Count {
        is: i32,
        last_offset_delta: i32,
    },
    /// Control batches are the broker's own.
    Control,
    Codec {
        is: u8,
    },
    Record(RecordError),
}

/// The Kafka errors that a refused batch can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CORRUPT_MESSAGE, 2.
    CorruptMessage,
    /// MESSAGE_TOO_LARGE, 10.
    MessageTooLarge,
    /// UNSUPPORTED_COMPRESSION_TYPE, 76.
    UnsupportedCompressionType,
    /// INVALID_RECORD, 87.
    InvalidRecord,
}

impl BatchFault {
    #[must_use]
    pub fn at(self, at: u64) -> BatchError {
        BatchError { at, fault: self }
    }

    /// What a producer is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            BatchFault::Crc { .. } => Refusal::CorruptMessage,
            BatchFault::TooLarge { .. } => Refusal::MessageTooLarge,
            BatchFault::Codec { .. } => Refusal::UnsupportedCompressionType,
            BatchFault::Zeros
            | BatchFault::Short { .. }
            | BatchFault::Length { .. }
            | BatchFault::Magic { .. }
            | BatchFault::Field { .. }
            | BatchFault::NotOne { .. }
            | BatchFault::Count { .. }
            | BatchFault::Control
            | BatchFault::Record(_) => Refusal::InvalidRecord,
        }
    }
}

impl BatchError {
    /// The same, where the bytes given began at `by` of something larger.
    #[must_use]
    pub fn shifted(self, by: u64) -> BatchError {
        BatchError {
            at: self.at + by,
            ..self
        }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch at byte {}: ", self.at)?;
        match self.fault {
            BatchFault::Zeros => write!(f, "only zeros"),
            BatchFault::Short { need, have } => {
                write!(f, "{need} bytes are needed, {have} are there")
            }
            BatchFault::Length { is } => {
                write!(
                    f,
                    "length is {is}, below a header's {}",
                    HEADER_LEN - LENGTH_OVERHEAD
                )
            }
            BatchFault::Magic { is } => write!(f, "magic is {is}, expected {MAGIC}"),
            BatchFault::Field { field, is } => write!(f, "{field} is {is}, out of range"),
            BatchFault::Crc { is, header } => {
                write!(f, "crc is {is:08x}, header says {header:08x}")
            }
            BatchFault::NotOne { size, have } => {
                write!(
                    f,
                    "{have} bytes where exactly one batch of {size} should be"
                )
            }
            BatchFault::TooLarge { is, max } => {
                write!(
                    f,
                    "{is} bytes, at most {max} are allowed (max.message.bytes)"
                )
            }
            BatchFault::Count {
                is,
                last_offset_delta,
            } => {
                write!(
                    f,
                    "recordCount is {is}, but lastOffsetDelta is {last_offset_delta}"
                )
            }
            BatchFault::Control => write!(f, "a control batch, which clients may not send"),
            BatchFault::Codec { is } => write!(f, "compression codec {is} is unknown"),
            BatchFault::Record(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BatchError {}

/// Why a kept batch's records could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnpackError {
    Codec(CodecError),
    Record(RecordError),
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnpackError::Codec(error) => error.fmt(f),
            UnpackError::Record(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UnpackError {}
