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

/// Kafka writes ids as 22 characters of URL-safe base64 (RFC 4648, without padding).
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 sextets and 2 bits, which the last character has on top.
        let bits = u128::from_be_bytes(self.0);
        let sextet = |i: u32| {
            (if i < 21 {
                bits >> (122 - 6 * i)
            } else {
                bits << 4
            }) as usize
                & 63
        };
        let text: String = (0..22).map(|i| char::from(BASE64[sextet(i)])).collect();
        f.write_str(&text)
    }
}

impl std::str::FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<TopicId, ParseTopicIdError> {
        if text.len() != 22 {
            return Err(ParseTopicIdError);
        }
        let mut bits = 0u128;
        for (i, c) in text.bytes().enumerate() {
            let sextet = BASE64
                .iter()
                .position(|&b| b == c)
                .ok_or(ParseTopicIdError)? as u128;
            bits = if i < 21 {
                bits << 6 | sextet
            } else {
                bits << 2 | sextet >> 4
            };
        }
        Ok(TopicId(bits.to_be_bytes()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseTopicIdError;

impl fmt::Display for ParseTopicIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected 22 characters of URL-safe base64")
    }
}

impl std::error::Error for ParseTopicIdError {}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_are_written_as_kafka_writes_them() {
        let id = TopicId([
            0, 16, 131, 16, 81, 135, 32, 146, 139, 48, 211, 143, 65, 20, 147, 81,
        ]);
        assert_eq!(id.to_string(), "ABCDEFGHIJKLMNOPQRSTUQ");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(TopicId([255; 16]).to_string(), "_____________________w");
        for bad in [
            "",
            "ABC",
            "ABCDEFGHIJKLMNOPQRSTU/",
            "ABCDEFGHIJKLMNOPQRSTUQQ",
        ] {
            assert_eq!(bad.parse::<TopicId>(), Err(ParseTopicIdError), "{bad}");
        }
    }
}
