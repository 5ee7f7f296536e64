//! Produce's request, read by hand: records are slices of the frame.
//!
//! ```text
//!  transactional_id? | acks i16 | timeout i32 | topics [ name | [ index i32 | records ] ]
//! ```

use crate::kafka::wire::{Reader, Short};
use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Known to whoever will register transactions; a batch says itself whether it
    /// belongs to one.
    pub transactional_id: Option<StrBytes>,
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<TopicData>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicData {
    pub name: StrBytes,
    pub partitions: Vec<PartitionData>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionData {
    pub index: i32,
    pub records: Option<Bytes>,
}

/// Versions 3 to 12; flexible from 9.
pub fn decode(body: Bytes, flexible: bool) -> Result<ProduceRequest, Short> {
    let mut from = Reader::new(body, flexible);
    let transactional_id = from.nullable_string("transactional_id")?;
    let acks = from.i16("acks")?;
    let timeout_ms = from.i32("timeout_ms")?;
    // The least that an element takes: a name's length and a count; an index and the
    // records' length. So what is reserved is a small multiple of what was sent.
    let (topic_bytes, partition_bytes) = if flexible { (3, 6) } else { (6, 8) };
    let count = from.count(topic_bytes, "topics")?;
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let name = from.string("topic name")?;
        let count = from.count(partition_bytes, "partitions")?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            let index = from.i32("partition index")?;
            let records = from.nullable_bytes("records")?;
            from.skip_tags()?;
            partitions.push(PartitionData { index, records });
        }
        from.skip_tags()?;
        topics.push(TopicData { name, partitions });
    }
    from.skip_tags()?;
    Ok(ProduceRequest {
        transactional_id,
        acks,
        timeout_ms,
        topics,
    })
}
