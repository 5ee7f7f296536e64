//! What of the groups outlives a restart, as records in the changelog.
//!
//! ```text
//!  format u8 = 1 | kind u8 | body
//!
//!  kind 1  OffsetsCommitted   group | base time | topics* (topic | entries*)
//!            entry            partition | offset | leader epoch | metadata
//!                             | time - base | 0, or 1 | expiry - base
//!  kind 2  OffsetsRemoved     group | topics* (topic | partitions*)
//!  kind 3  GroupState         group | generation | protocol type? | protocol?
//!                             | leader? | since | members*
//!            member           id | instance? | client id | client host
//!                             | rebalance ms | session ms
//!                             | protocols* (name | metadata) | assignment
//!  kind 4  GroupRemoved       group
//!  kind 5  TopicForgotten     topic
//!
//!  number    zigzag, LEB128        string, bytes   length | bytes
//!  x*        count | x, x, ...     string?         0, or length + 1 | bytes
//! ```
//!
//! No checksum: the changelog has one. Times stand as differences because the
//! partitions of one commit share theirs: 1 byte each instead of 6.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use klamm_engine::units::{LeaderEpoch, Offset, TimestampMs};

use super::message::Protocol;
use crate::core::offsets::CommittedOffset;

const FORMAT: u8 = 1;

/// The only way in which durable state changes. Absolute, so that a record
/// applied twice in a row changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Creates a simple group where there is none.
    OffsetsCommitted {
        group: String,
        topics: Vec<TopicOffsets>,
    },
    OffsetsRemoved {
        group: String,
        topics: Vec<(String, Vec<i32>)>,
    },
    /// A rebalance has ended: who is in, with what assignment.
    GroupState {
        group: String,
        state: Arc<GroupRecord>,
    },
    /// The group and every offset of it.
    GroupRemoved { group: String },
    /// The topic's offsets in every group.
    TopicForgotten { topic: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    pub topic: String,
    pub partitions: Vec<(i32, CommittedOffset)>,
}

/// A group between two rebalances: stable, or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into this state; expiry counts from here once it is empty.
    pub since: TimestampMs,
    pub members: Vec<MemberRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// All of them, not only the selected one as in Kafka: a member that rejoins
    /// unchanged after a restart is then seen to be unchanged.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
}

/// Bytes that are no record, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRecord(pub &'static str);

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a group record: {}", self.0)
    }
}

impl std::error::Error for BadRecord {}

impl Record {
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.put_u8(FORMAT);
        match self {
            Record::OffsetsCommitted { group, topics } => {
                to.put_u8(1);
                put_bytes(to, group.as_bytes());
                let base = topics
                    .iter()
                    .find_map(|t| t.partitions.first())
                    .map_or(0, |(_, c)| c.at.0);
                put_int(to, base);
                put_count(to, topics.len());
                for topic in topics {
                    put_bytes(to, topic.topic.as_bytes());
                    put_count(to, topic.partitions.len());
                    for (partition, committed) in &topic.partitions {
                        put_committed(to, *partition, committed, base);
                    }
                }
            }
            Record::OffsetsRemoved { group, topics } => {
                to.put_u8(2);
                put_bytes(to, group.as_bytes());
                put_count(to, topics.len());
                for (topic, partitions) in topics {
                    put_bytes(to, topic.as_bytes());
                    put_count(to, partitions.len());
                    for partition in partitions {
                        put_int(to, (*partition).into());
                    }
                }
            }
            Record::GroupState { group, state } => {
                to.put_u8(3);
                put_bytes(to, group.as_bytes());
                put_group(to, state);
            }
            Record::GroupRemoved { group } => {
                to.put_u8(4);
                put_bytes(to, group.as_bytes());
            }
            Record::TopicForgotten { topic } => {
                to.put_u8(5);
                put_bytes(to, topic.as_bytes());
            }
        }
    }

    /// Whatever the bytes, no panic, and no more memory than some times their
    /// length.
    pub fn decode(bytes: &[u8]) -> Result<Record, BadRecord> {
        let mut from = Reader { rest: bytes };
        if from.u8()? != FORMAT {
            return Err(BadRecord("unknown format"));
        }
        let record = match from.u8()? {
            1 => {
                let group = from.string()?;
                let base = from.int()?;
                let topics = from.many(|from| {
                    Ok(TopicOffsets {
                        topic: from.string()?,
                        partitions: from.many(|from| from.committed(base))?,
                    })
                })?;
                Record::OffsetsCommitted { group, topics }
            }
            2 => {
                let group = from.string()?;
                let topics = from.many(|from| Ok((from.string()?, from.many(Reader::i32)?)))?;
                Record::OffsetsRemoved { group, topics }
            }
            3 => Record::GroupState {
                group: from.string()?,
                state: Arc::new(from.group()?),
            },
            4 => Record::GroupRemoved {
                group: from.string()?,
            },
            5 => Record::TopicForgotten {
                topic: from.string()?,
            },
            _ => return Err(BadRecord("unknown kind")),
        };
        if !from.rest.is_empty() {
            return Err(BadRecord("bytes after its end"));
        }
        Ok(record)
    }
}

fn put_uint(to: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        to.put_u8((n as u8) | 0x80);
        n >>= 7;
    }
    to.put_u8(n as u8);
}

fn put_int(to: &mut Vec<u8>, n: i64) {
    put_uint(to, ((n << 1) ^ (n >> 63)) as u64);
}

fn put_count(to: &mut Vec<u8>, n: usize) {
    put_uint(to, n as u64);
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_count(to, bytes.len());
    to.put_slice(bytes);
}

fn put_optional(to: &mut Vec<u8>, string: Option<&str>) {
    match string {
        None => put_count(to, 0),
        Some(string) => {
            put_count(to, string.len() + 1);
            to.put_slice(string.as_bytes());
        }
    }
}

fn put_committed(to: &mut Vec<u8>, partition: i32, committed: &CommittedOffset, base: i64) {
    put_int(to, partition.into());
    put_int(to, committed.offset.0);
    put_int(to, committed.leader_epoch.0.into());
    put_bytes(to, committed.metadata.as_bytes());
    // Wrapping both ways, so that any two times have a difference that comes back.
    put_int(to, committed.at.0.wrapping_sub(base));
    match committed.expires_at {
        None => to.put_u8(0),
        Some(at) => {
            to.put_u8(1);
            put_int(to, at.0.wrapping_sub(base));
        }
    }
}

fn put_group(to: &mut Vec<u8>, group: &GroupRecord) {
    put_int(to, group.generation.into());
    put_optional(to, group.protocol_type.as_deref());
    put_optional(to, group.protocol.as_deref());
    put_optional(to, group.leader.as_deref());
    put_int(to, group.since.0);
    put_count(to, group.members.len());
    for member in &group.members {
        put_bytes(to, member.member_id.as_bytes());
        put_optional(to, member.instance_id.as_deref());
        put_bytes(to, member.client_id.as_bytes());
        put_bytes(to, member.client_host.as_bytes());
        put_int(to, member.rebalance_timeout_ms.into());
        put_int(to, member.session_timeout_ms.into());
        put_count(to, member.protocols.len());
        for protocol in &member.protocols {
            put_bytes(to, protocol.name.as_bytes());
            put_bytes(to, &protocol.metadata);
        }
        put_bytes(to, &member.assignment);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn u8(&mut self) -> Result<u8, BadRecord> {
        let (first, rest) = self.rest.split_first().ok_or(BadRecord("cut short"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn uint(&mut self) -> Result<u64, BadRecord> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has room for the one bit that is left.
            if shift == 63 && bits > 1 {
                return Err(BadRecord("number too long"));
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(BadRecord("number too long"))
    }

    fn int(&mut self) -> Result<i64, BadRecord> {
        let n = self.uint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    fn i32(&mut self) -> Result<i32, BadRecord> {
        i32::try_from(self.int()?).map_err(|_| BadRecord("number too large"))
    }

    fn slice(&mut self, length: u64) -> Result<&'a [u8], BadRecord> {
        let length = usize::try_from(length).map_err(|_| BadRecord("length beyond its end"))?;
        let (slice, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(BadRecord("length beyond its end"))?;
        self.rest = rest;
        Ok(slice)
    }

    fn text(&mut self, length: u64) -> Result<String, BadRecord> {
        let text = std::str::from_utf8(self.slice(length)?)
            .map_err(|_| BadRecord("text that is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn string(&mut self) -> Result<String, BadRecord> {
        let length = self.uint()?;
        self.text(length)
    }

    fn optional(&mut self) -> Result<Option<String>, BadRecord> {
        match self.uint()? {
            0 => Ok(None),
            n => self.text(n - 1).map(Some),
        }
    }

    /// Copied: a slice would keep the whole changelog chunk in memory.
    fn bytes(&mut self) -> Result<Bytes, BadRecord> {
        let length = self.uint()?;
        Ok(Bytes::copy_from_slice(self.slice(length)?))
    }

    fn many<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, BadRecord>,
    ) -> Result<Vec<T>, BadRecord> {
        let count = self.uint()?;
        // Every element takes a byte or more, so a count beyond the rest is a lie;
        // memory grows with what was really read, not with what was announced.
        if count > self.rest.len() as u64 {
            return Err(BadRecord("count beyond its end"));
        }
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn committed(&mut self, base: i64) -> Result<(i32, CommittedOffset), BadRecord> {
        let partition = self.i32()?;
        let committed = CommittedOffset {
            offset: Offset(self.int()?),
            leader_epoch: LeaderEpoch(self.i32()?),
            metadata: self.string()?,
            at: TimestampMs(base.wrapping_add(self.int()?)),
            expires_at: match self.u8()? {
                0 => None,
                1 => Some(TimestampMs(base.wrapping_add(self.int()?))),
                _ => return Err(BadRecord("unknown flag")),
            },
        };
        Ok((partition, committed))
    }

    fn group(&mut self) -> Result<GroupRecord, BadRecord> {
        Ok(GroupRecord {
            generation: self.i32()?,
            protocol_type: self.optional()?,
            protocol: self.optional()?,
            leader: self.optional()?,
            since: TimestampMs(self.int()?),
            members: self.many(|from| {
                Ok(MemberRecord {
                    member_id: from.string()?,
                    instance_id: from.optional()?,
                    client_id: from.string()?,
                    client_host: from.string()?,
                    rebalance_timeout_ms: from.i32()?,
                    session_timeout_ms: from.i32()?,
                    protocols: from.many(|from| {
                        Ok(Protocol {
                            name: from.string()?,
                            metadata: from.bytes()?,
                        })
                    })?,
                    assignment: from.bytes()?,
                })
            })?,
        })
    }
}

#[cfg(test)]
mod tests;
