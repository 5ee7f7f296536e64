//! What can go wrong below the protocol, each with the sentence a person reads.
//! net/ turns these into Kafka's codes, in one match without a default arm.

use crate::units::{BytePos, Offset};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

/// A partition that can no longer be trusted. Cheap to copy: it is latched, and
/// every caller from then on gets the same one.
#[derive(Clone, Debug)]
pub struct Offline(pub Rc<OfflineReason>);

#[derive(Debug)]
pub enum OfflineReason {
    /// Bytes that were committed are not what was written.
    Corrupt {
        file: PathBuf,
        at: BytePos,
        what: String,
    },
    /// The disk refused; nothing is known of what was not yet synced.
    Failed {
        doing: &'static str,
        file: PathBuf,
        error: std::io::Error,
    },
    /// Closed or deleted while the caller held it.
    Closed,
}

impl Offline {
    pub fn new(reason: OfflineReason) -> Offline {
        Offline(Rc::new(reason))
    }

    pub fn failed(doing: &'static str, file: impl Into<PathBuf>, error: std::io::Error) -> Offline {
        Offline::new(OfflineReason::Failed {
            doing,
            file: file.into(),
            error,
        })
    }

    pub fn corrupt(file: impl Into<PathBuf>, at: BytePos, what: impl Into<String>) -> Offline {
        Offline::new(OfflineReason::Corrupt {
            file: file.into(),
            at,
            what: what.into(),
        })
    }

    pub fn closed() -> Offline {
        Offline::new(OfflineReason::Closed)
    }

    pub fn is_closed(&self) -> bool {
        matches!(*self.0, OfflineReason::Closed)
    }
}

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            OfflineReason::Corrupt { file, at, what } => {
                write!(f, "{} is damaged at byte {at}: {what}", file.display())
            }
            OfflineReason::Failed { doing, file, error } => {
                write!(f, "could not {doing} {}: {error}", file.display())
            }
            OfflineReason::Closed => write!(f, "the partition is closed"),
        }
    }
}

impl std::error::Error for Offline {}

/// Why a read has no records to give.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// Below the log start offset, or beyond the end.
    OutOfRange {
        asked: Offset,
        log_start: Offset,
        end: Offset,
    },
    /// A batch that was stored as it came can't be unpacked to look for a record in it.
    Undecodable {
        offset: Offset,
        what: String,
    },
    /// The same, because it unpacks to more than may be held for one lookup.
    UnpacksTooLarge {
        offset: Offset,
        what: String,
    },
    Offline(Offline),
}

impl From<Offline> for ReadError {
    fn from(o: Offline) -> ReadError {
        ReadError::Offline(o)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::OutOfRange {
                asked,
                log_start,
                end,
            } => {
                write!(f, "offset {asked} is outside of {log_start} to {end}")
            }
            ReadError::Undecodable { offset, what }
            | ReadError::UnpacksTooLarge { offset, what } => {
                write!(f, "the batch at offset {offset} can't be unpacked: {what}")
            }
            ReadError::Offline(o) => o.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}
