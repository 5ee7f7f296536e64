//! stub
use klamm_engine::units::{Nanos, TimestampMs};

pub use super::group::config::GroupConfig;
pub use super::group::message::*;
pub use super::group::record::{BadRecord, GroupRecord, MemberRecord, Record, TopicOffsets};

/// The two clocks, read once by whoever calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Timeouts run on this one.
    pub mono: Nanos,
    /// Commit times and retention are told in this one; it may jump.
    pub wall: TimestampMs,
}

/// Who waits for an answer. Given by the caller, never interpreted, never twice
/// at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What a step wants done, in this order: persist, then send.
#[derive(Debug, Default)]
pub struct Output {
    pub persist: Vec<Record>,
    pub send: Vec<(Token, Response)>,
}
