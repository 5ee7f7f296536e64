//! Fetch's answer, put together by hand: records are parts of their own.
//!
//! ```text
//!   throttle i32 | v7: error i16, session i32 | topics [ name | partitions [ ... ] ]
//!
//!   partition   index i32 | error i16 | high watermark i64 | last stable i64
//!               v5: log start i64 | aborted? [ ] | v11: preferred replica i32
//!               records length | records          <- parts of the log
//!               v12: tags: 0 diverging epoch { epoch i32, end i64, tags }
//! ```
//!
//! Records that are not there have length 0 and are not null: librdkafka waits for
//! ever on null. The shape is `FetchResponse.json`'s.

use super::Outcome;
use crate::kafka::answer::{Answer, Header, Part};
use crate::kafka::context::Context;
use crate::kafka::errors::{Code, Failure};
use crate::kafka::limits::Permit;
use crate::kafka::wire::Writer;
use bytes::{BufMut, BytesMut};
use kafka_protocol::protocol::StrBytes;
use klamm_engine::io::Io;
use klamm_engine::units::{LeaderEpoch, Offset};

/// zstd is understood by clients from this version on (KIP-110).
pub const ZSTD_FROM: i16 = 10;

/// The parts of an answer, and the fields behind the last part.
struct Whole<I: Io> {
    parts: Vec<Part<I>>,
    fields: Writer,
    bytes: usize,
}

impl<I: Io> Whole<I> {
    fn cut(&mut self) {
        let fields = self.fields.to.split().freeze();
        self.bytes += fields.len();
        self.parts.push(Part::Bytes(fields));
    }
}

pub fn encode<I: Io>(
    ctx: &Context<I>,
    flexible: bool,
    error: Code,
    shape: Vec<(StrBytes, Vec<i32>)>,
    outcomes: Vec<Outcome<I>>,
    read_committed: bool,
    permit: Option<Permit>,
) -> Answer<I> {
    let version = ctx.version;
    let mut whole = Whole {
        parts: Vec::new(),
        fields: Writer::new(flexible),
        bytes: 0,
    };
    whole.fields.to.put_i32(0);
    if version >= 7 {
        whole.fields.to.put_i16(error.0);
        // No session, so the client always sends all of its partitions.
        whole.fields.to.put_i32(0);
    }
    whole.fields.length(shape.len());
    let mut outcomes = outcomes.into_iter();
    for (name, indexes) in shape {
        whole.fields.string(&name);
        whole.fields.length(indexes.len());
        for index in indexes {
            let outcome = outcomes.next().expect("one for each partition");
            put_partition(&mut whole, version, index, outcome, read_committed);
        }
        whole.fields.no_tags();
    }
    whole.fields.no_tags();
    whole.cut();
    let header = if flexible { Header::V1 } else { Header::V0 };
    let mut head = BytesMut::with_capacity(header.prefix());
    if let Err(e) = header.put(&mut head, ctx.correlation_id, whole.bytes) {
        log::error!("a fetch could not be answered: {e}");
        return Answer::Close(e);
    }
    let mut parts = vec![Part::Bytes(head.freeze())];
    parts.append(&mut whole.parts);
    parts.extend(permit.map(Part::Held));
    Answer::Send(parts)
}

fn put_partition<I: Io>(
    whole: &mut Whole<I>,
    version: i16,
    index: i32,
    outcome: Outcome<I>,
    read_committed: bool,
) {
    let outcome = match outcome {
        Ok(mut fetched) if version < ZSTD_FROM => {
            let (kept, zstd) = before_zstd(&fetched.records);
            if zstd && kept == 0 {
                Err(Failure::from(Code::UNSUPPORTED_COMPRESSION_TYPE))
            } else {
                if zstd {
                    truncate(&mut fetched.records, kept);
                    fetched.bytes = kept;
                }
                Ok(fetched)
            }
        }
        outcome => outcome,
    };
    let to = &mut whole.fields.to;
    to.put_i32(index);
    let (code, offsets) = match &outcome {
        Ok(fetched) => (Code::NONE, Some(fetched.offsets)),
        Err(failure) => (failure.code, None),
    };
    to.put_i16(code.0);
    to.put_i64(offsets.map_or(-1, |o| o.high_watermark.0));
    to.put_i64(offsets.map_or(-1, |o| o.last_stable.0));
    if version >= 5 {
        to.put_i64(offsets.map_or(-1, |o| o.log_start.0));
    }
    if read_committed && offsets.is_some() {
        whole.fields.length(0);
    } else {
        whole.fields.null();
    }
    if version >= 11 {
        whole.fields.to.put_i32(-1);
    }
    let (records, bytes, diverging) = match outcome {
        Ok(fetched) => (fetched.records, fetched.bytes, fetched.diverging),
        Err(_) => (Vec::new(), 0, None),
    };
    whole.fields.length(bytes);
    if bytes > 0 {
        let there: usize = records.iter().map(Part::len).sum();
        assert_eq!(there, bytes, "the records are as long as was said");
        whole.cut();
        whole.parts.extend(records);
        whole.bytes += bytes;
    }
    match diverging {
        Some(at) if version >= 12 => put_diverging(&mut whole.fields, at),
        _ => whole.fields.no_tags(),
    }
}

fn put_diverging(fields: &mut Writer, (epoch, end): (LeaderEpoch, Offset)) {
    fields.uvarint(1); // tagged fields
    fields.uvarint(0); // the tag
    fields.uvarint(4 + 8 + 1);
    fields.to.put_i32(epoch.0);
    fields.to.put_i64(end.0);
    fields.no_tags();
}

/// Bytes in front of the first batch that is packed with zstd, and whether there is one.
fn before_zstd<I: Io>(records: &[Part<I>]) -> (usize, bool) {
    let total: usize = records.iter().map(Part::len).sum();
    let byte = |at: usize| -> u8 {
        let mut at = at;
        for part in records {
            if at < part.len() {
                let bytes = part.in_memory().expect("read so, as they are looked at");
                return bytes[at];
            }
            at -= part.len();
        }
        unreachable!("asked within the records")
    };
    let mut at = 0;
    // 61 bytes are a batch's header; what is read is whole batches.
    while at + 61 <= total {
        if byte(at + 22) & 7 == 4 {
            return (at, true);
        }
        let length = [8, 9, 10, 11].map(|i| byte(at + i));
        at += 12 + u32::from_be_bytes(length) as usize;
    }
    (total, false)
}

fn truncate<I: Io>(records: &mut Vec<Part<I>>, mut bytes: usize) {
    records.retain_mut(|part| {
        let kept = part.len().min(bytes);
        bytes -= kept;
        part.truncate(kept);
        kept > 0
    });
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
