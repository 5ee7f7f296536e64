//! The nouns of the log, one type each. All of them are what the wire says:
//! signed, big-endian there, native here. No arithmetic that has no meaning.

use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

unit! {
    /// A record's number in its partition, from 0, without gaps at append.
    Offset(i64)
}
unit! {
    /// A byte's place in one segment file.
    BytePos(u64)
}
unit! {
    /// Milliseconds since 1970 (UTC), as record timestamps are. -1: none.
    TimestampMs(i64)
}
unit! {
    /// Counts a partition's leaders. Written into every batch header. -1: unknown.
    LeaderEpoch(i32)
}
unit! {
    /// A producer's number, handed out by InitProducerId. -1: not idempotent.
    ProducerId(i64)
}
unit! {
    /// Counts the incarnations of one producer id; the newest fences the others.
    ProducerEpoch(i16)
}
unit! {
    /// Nanoseconds of the monotonic clock, from an origin that is not said.
    Nanos(u64)
}

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The offset `n` records later.
    #[must_use]
    pub fn plus(self, n: i64) -> Offset {
        Offset(self.0 + n)
    }
}

impl BytePos {
    pub const ZERO: BytePos = BytePos(0);

    #[must_use]
    pub fn plus(self, n: u64) -> BytePos {
        BytePos(self.0 + n)
    }
}

impl TimestampMs {
    pub const NONE: TimestampMs = TimestampMs(-1);
}

impl Nanos {
    #[must_use]
    pub fn plus(self, d: std::time::Duration) -> Nanos {
        Nanos(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A topic's identity, which outlives its name (KIP-516): a deleted and created
/// anew topic of the same name is another topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    pub const ZERO: TopicId = TopicId([0; 16]);
}

/// Which partition, wherever it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    pub topic: TopicId,
    pub index: i32,
}

/// One core's executor and everything it owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard that also runs the coordinator core.
    pub const COORDINATOR: ShardId = ShardId(0);
}
