//! Fetch, without sessions: the request, and its answer read as it comes.
//!
//! ```text
//!   | length | correlation .. topics |
//!     { name | partitions | { index, error, offsets, aborted | preferred, length |
//!         { batch header 61 | records, skipped or checked }* }* }*
//!   a read may end anywhere: what must be whole is held until the rest comes
//! ```
//!
//! Version 11: every broker of today has it, and zstd may be in it. An answer is never
//! held as a whole, so that the client's buffer stays in its processor's cache: what is
//! looked at is each partition's error and each batch's header, and with `check` the
//! CRC of all of it. A batch counts when its last byte has come; the last one of a
//! partition may be cut off, as Kafka may do it, and does not count.

use super::cursor::{Cursor, Short};
use super::produce::{CLIENT_ID, FRONT_BYTES, front, put_string};
use crate::Outcome;
use bytes::BufMut;
use crc_fast::{CrcAlgorithm, Digest};
use std::mem;

pub const KEY: i16 = 1;
pub const VERSION: i16 = 11;

/// `fetch.max.bytes` and its like, by their names in Kafka's consumer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_bytes: i32,
    pub max_partition_bytes: i32,
    pub min_bytes: i32,
    pub max_wait_ms: i32,
}

/// What is asked for of a partition.
pub struct Wanted<'a> {
    pub topic: &'a str,
    pub index: i32,
    pub offset: i64,
}

/// A request into `to`, which is emptied. Partitions come topic by topic.
pub fn request<'a>(
    to: &mut Vec<u8>,
    correlation: i32,
    limits: &Limits,
    wanted: impl Iterator<Item = Wanted<'a>>,
) {
    to.clear();
    to.put_slice(&[0; FRONT_BYTES]);
    put_string(to, CLIENT_ID);
    to.put_i32(-1);
    to.put_i32(limits.max_wait_ms);
    to.put_i32(limits.min_bytes);
    to.put_i32(limits.max_bytes);
    // Read uncommitted; no session.
    to.put_i8(0);
    to.put_i32(0);
    to.put_i32(-1);
    let topics_at = to.len();
    to.put_i32(0);
    let (mut topics, mut partitions, mut partitions_at) = (0_i32, 0_i32, 0);
    let mut topic = None;
    for partition in wanted {
        if topic != Some(partition.topic) {
            topic = Some(partition.topic);
            topics += 1;
            put_string(to, partition.topic);
            (partitions, partitions_at) = (0, to.len());
            to.put_i32(0);
        }
        partitions += 1;
        put_at(to, partitions_at, partitions);
        to.put_i32(partition.index);
        to.put_i32(-1);
        to.put_i64(partition.offset);
        to.put_i64(-1);
        to.put_i32(limits.max_partition_bytes);
    }
    put_at(to, topics_at, topics);
    // Nothing forgotten, no rack.
    to.put_i32(0);
    put_string(to, "");
    let length = i32::try_from(to.len() - 4).expect("a request is small");
    to[..FRONT_BYTES].copy_from_slice(&front(length, KEY, VERSION, correlation));
}

fn put_at(to: &mut [u8], at: usize, value: i32) {
    to[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// What an answer says, in its order.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    Partition {
        topic: &'a [u8],
        index: i32,
        error: i16,
        high_watermark: i64,
    },
    /// A batch of the partition that was said last, all of it.
    Batch(Header),
}

/// Of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub base_offset: i64,
    pub next_offset: i64,
    pub records: u32,
    /// Header and all.
    pub bytes: u64,
    crc: u32,
}

/// Bytes of a batch before its records, and what its length does not count.
const HEADER: usize = 61;
const LENGTH_OVERHEAD: usize = 12;
const CRC_FROM: usize = 21;

/// Reads one answer after another.
pub struct Reader {
    check: bool,
    correlation: i32,
    state: State,
    /// The front of what has to be whole.
    held: Vec<u8>,
    /// To pass over before `state`.
    skip: usize,
    /// Bytes of the answer that are still to come.
    left: usize,
    topics: i32,
    partitions: i32,
    topic: Vec<u8>,
    /// Bytes of the partition's records that are still to come.
    records: usize,
    batch: Option<Header>,
    digest: Option<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length,
    /// Correlation id, throttle time, error, session, topics.
    Front,
    TopicLength,
    /// The name, so long, and the number of partitions.
    Topic(usize),
    /// Index, error, high watermark, last stable offset, start, aborted.
    Partition,
    /// Preferred replica, bytes of records.
    Records,
    Batch,
    /// The end of a partition's records, too short for another batch.
    Cut(usize),
    /// The next partition, or topic, or end.
    Next,
}

impl State {
    fn bytes(self) -> usize {
        match self {
            State::Length => 4,
            State::Front => 4 + 4 + 2 + 4 + 4,
            State::TopicLength => 2,
            State::Topic(length) => length + 4,
            State::Partition => 4 + 2 + 8 + 8 + 8 + 4,
            State::Records => 4 + 4,
            State::Batch => HEADER,
            State::Cut(bytes) => bytes,
            State::Next => 0,
        }
    }
}

/// An aborted transaction: producer id, first offset.
const ABORTED_BYTES: usize = 16;

impl Reader {
    pub fn new(check: bool) -> Reader {
        Reader {
            check,
            correlation: 0,
            state: State::Length,
            held: Vec::new(),
            skip: 0,
            left: 4,
            topics: 0,
            partitions: 0,
            topic: Vec::new(),
            records: 0,
            batch: None,
            digest: None,
        }
    }

    /// The answer to this request is next.
    pub fn expect(&mut self, correlation: i32) {
        assert!(
            self.state == State::Length && self.held.is_empty(),
            "one answer at a time"
        );
        (self.correlation, self.left) = (correlation, 4);
    }

    /// What a read has brought; true when the answer is whole.
    pub fn read(
        &mut self,
        mut bytes: &[u8],
        mut said: impl FnMut(Said<'_>) -> Outcome,
    ) -> Outcome<bool> {
        loop {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                if let Some(digest) = &mut self.digest {
                    digest.update(&bytes[..n]);
                }
                bytes = &bytes[n..];
                self.skip -= n;
                if self.skip > 0 {
                    return Ok(false);
                }
            }
            if let Some(batch) = self.batch.take() {
                self.checked(&batch)?;
                said(Said::Batch(batch))?;
            }
            let need = self.state.bytes();
            if need > self.left {
                return Err(malformed("it ends too early"));
            }
            let take = bytes.len().min(need - self.held.len());
            let (taken, rest) = bytes.split_at(take);
            bytes = rest;
            let done = if take == need {
                self.left -= need;
                self.step(taken, &mut said)?
            } else {
                self.held.extend_from_slice(taken);
                if self.held.len() < need {
                    return Ok(false);
                }
                self.left -= need;
                let mut held = mem::take(&mut self.held);
                let done = self.step(&held, &mut said)?;
                held.clear();
                self.held = held;
                done
            };
            if done {
                self.state = State::Length;
                return match (self.left, bytes) {
                    (0, []) => Ok(true),
                    _ => Err(malformed("there are bytes behind it")),
                };
            }
        }
    }

    /// The bytes of a state, all of them; true at the end of the answer.
    fn step(&mut self, bytes: &[u8], said: &mut impl FnMut(Said<'_>) -> Outcome) -> Outcome<bool> {
        let short = |Short| malformed("a length in it is none");
        let mut at = Cursor(bytes);
        self.state = match self.state {
            State::Length => {
                let length = at.i32().map_err(short)?;
                self.left = usize::try_from(length).map_err(|_| malformed("its length is none"))?;
                State::Front
            }
            State::Front => {
                let correlation = at.i32().map_err(short)?;
                if correlation != self.correlation {
                    return Err(format!(
                        "Fetch: the answer to request {correlation} came where {} was due",
                        self.correlation
                    ));
                }
                at.i32().map_err(short)?;
                let error = at.i16().map_err(short)?;
                if error != 0 {
                    return Err(format!(
                        "Fetch answers with {}",
                        super::produce::named(error)
                    ));
                }
                at.i32().map_err(short)?;
                (self.topics, self.partitions) = (at.i32().map_err(short)?, 0);
                State::Next
            }
            State::TopicLength => {
                let length = at.i16().map_err(short)?;
                State::Topic(usize::try_from(length).map_err(|_| malformed("a topic has no name"))?)
            }
            State::Topic(length) => {
                self.topic.clear();
                self.topic
                    .extend_from_slice(at.take(length).map_err(short)?);
                self.partitions = at.i32().map_err(short)?;
                State::Next
            }
            State::Partition => {
                let (index, error) = (at.i32().map_err(short)?, at.i16().map_err(short)?);
                let high_watermark = at.i64().map_err(short)?;
                at.take(16).map_err(short)?;
                let aborted = usize::try_from(at.i32().map_err(short)?).unwrap_or(0);
                let topic = &self.topic;
                said(Said::Partition {
                    topic,
                    index,
                    error,
                    high_watermark,
                })?;
                self.pass(aborted.saturating_mul(ABORTED_BYTES))?;
                State::Records
            }
            State::Records => {
                at.i32().map_err(short)?;
                // Null, as -1, is none.
                let records = at.i32().map_err(short)?;
                self.records = usize::try_from(records).unwrap_or(0);
                if self.records > self.left {
                    return Err(malformed("more records are said than come"));
                }
                self.batches()
            }
            State::Batch => {
                let whole = batch_bytes(bytes)?;
                if whole > self.records {
                    // Cut off.
                    self.pass(self.records - HEADER)?;
                    self.records = 0;
                    State::Next
                } else {
                    self.batch = Some(header(bytes, whole)?);
                    self.digest = self.check.then(|| {
                        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
                        digest.update(&bytes[CRC_FROM..]);
                        digest
                    });
                    self.pass(whole - HEADER)?;
                    self.records -= whole;
                    self.batches()
                }
            }
            State::Cut(_) => State::Next,
            State::Next if self.partitions > 0 => {
                self.partitions -= 1;
                State::Partition
            }
            State::Next if self.topics > 0 => {
                self.topics -= 1;
                State::TopicLength
            }
            State::Next => return Ok(true),
        };
        Ok(false)
    }

    /// The next batch, or what comes behind the last one.
    fn batches(&mut self) -> State {
        match mem::take(&mut self.records) {
            0 => State::Next,
            short if short < HEADER => State::Cut(short),
            more => {
                self.records = more;
                State::Batch
            }
        }
    }

    fn pass(&mut self, bytes: usize) -> Outcome {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| malformed("it ends too early"))?;
        self.skip = bytes;
        Ok(())
    }

    fn checked(&mut self, batch: &Header) -> Outcome {
        let Some(digest) = self.digest.take() else {
            return Ok(());
        };
        let is = digest.finalize();
        if is == u64::from(batch.crc) {
            return Ok(());
        }
        Err(format!(
            "Fetch: the batch at offset {} has the CRC {:08x} in it and is {is:08x}",
            batch.base_offset, batch.crc
        ))
    }
}

fn malformed(why: &str) -> String {
    format!("Fetch: a malformed answer: {why}")
}

/// What a batch's header says of its size, header and all.
fn batch_bytes(bytes: &[u8]) -> Outcome<usize> {
    let length = i32::from_be_bytes(bytes[8..12].try_into().expect("4 bytes"));
    let whole = usize::try_from(length).map_or(0, |length| LENGTH_OVERHEAD + length);
    if whole < HEADER {
        return Err(malformed("a batch's length is none"));
    }
    Ok(whole)
}

fn header(bytes: &[u8], whole: usize) -> Outcome<Header> {
    let four = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let base_offset = i64::from_be_bytes(bytes[..8].try_into().expect("8 bytes"));
    let (magic, last_delta) = (bytes[16], four(23));
    let next_offset = base_offset.checked_add(i64::from(last_delta) + 1);
    let records = u32::try_from(four(57));
    match (magic, base_offset, last_delta, next_offset, records) {
        (2, 0.., 0.., Some(next_offset), Ok(records)) => Ok(Header {
            base_offset,
            next_offset,
            records,
            bytes: whole as u64,
            crc: u32::from_be_bytes(bytes[17..21].try_into().expect("4 bytes")),
        }),
        _ => Err(malformed("a batch's header makes no sense")),
    }
}

#[cfg(test)]
mod tests;
