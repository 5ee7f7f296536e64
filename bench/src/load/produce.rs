//! Produce requests that are built once, and what is looked at in their answers.
//!
//! ```text
//!   | length | key 0 | version | correlation |   12 bytes, made anew for each
//!   | client id | null | acks | timeout | topics | name | partitions | index | length |
//!   | batch ...                                  as it was built, shared by all
//!   | index | length | batch ... | index | ...   where a request carries several
//! ```
//!
//! Versions 7 and 8: the last before the flexible ones, with nothing in them that a
//! broker of today would refuse. Answers are read here by hand, every field of every
//! partition: an error is a failure of the run, never a request that counts.

use super::cursor::{Cursor, Short};
use super::layout::Place;
use crate::Outcome;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

pub const VERSIONS: std::ops::RangeInclusive<i16> = 7..=8;
pub const KEY: i16 = 0;
pub const CLIENT_ID: &str = "klamm-bench";

/// How long a broker may take for acks=all.
const TIMEOUT_MS: i32 = 30_000;

/// Length, key, version, correlation id.
pub const FRONT_BYTES: usize = 12;

/// One request, without its front.
pub struct Frame {
    pub parts: Vec<Bytes>,
    /// Of the whole frame, as its front says it.
    length: i32,
    version: i16,
    /// Indices into the layout's places.
    pub places: Vec<usize>,
    pub records: u64,
    /// Of one batch.
    pub records_each: u32,
    /// Of the batches.
    pub bytes: u64,
}

impl Frame {
    /// A batch for each of some places, which come topic by topic.
    pub fn build(
        version: i16,
        acks: i16,
        places: &[Place],
        to: &[(usize, &Bytes)],
        records_each: u32,
    ) -> Outcome<Frame> {
        let mut parts = Vec::with_capacity(2 * to.len());
        let mut head = BytesMut::new();
        put_string(&mut head, CLIENT_ID);
        head.put_i16(-1);
        head.put_i16(acks);
        head.put_i32(TIMEOUT_MS);
        let by_topic =
            |a: &(usize, &Bytes), b: &(usize, &Bytes)| places[a.0].topic == places[b.0].topic;
        head.put_i32(count(to.chunk_by(by_topic).count())?);
        for topic in to.chunk_by(by_topic) {
            put_string(&mut head, &places[topic[0].0].topic);
            head.put_i32(count(topic.len())?);
            for &(place, batch) in topic {
                head.put_i32(places[place].index);
                head.put_i32(count(batch.len())?);
                parts.push(head.split().freeze());
                parts.push(batch.clone());
            }
        }
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        Ok(Frame {
            length: count(FRONT_BYTES - 4 + bytes)?,
            version,
            places: to.iter().map(|(place, _)| *place).collect(),
            records: to.len() as u64 * u64::from(records_each),
            records_each,
            bytes: to.iter().map(|(_, batch)| batch.len() as u64).sum(),
            parts,
        })
    }

    pub fn front(&self, correlation: i32) -> [u8; FRONT_BYTES] {
        front(self.length, KEY, self.version, correlation)
    }

    /// Of the whole frame as it goes over the wire.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum::<usize>() + FRONT_BYTES
    }

    /// Looks at an answer from behind its correlation id; `appended` is told each place's
    /// base offset.
    pub fn answered(
        &self,
        body: &[u8],
        places: &[Place],
        mut appended: impl FnMut(usize, i64) -> Outcome,
    ) -> Outcome {
        let mut left: Vec<usize> = Vec::new();
        let mut met = 0;
        let mut each = |topic: &[u8], index: i32, error: i16, offset: i64| -> Outcome {
            let is = |place: usize| {
                places[place].index == index && places[place].topic.as_bytes() == topic
            };
            // In the order of the request, as a rule; it is not promised.
            let place = match self.places.get(met) {
                Some(&place) if left.is_empty() && is(place) => place,
                _ => {
                    if left.is_empty() {
                        left = self.places[met.min(self.places.len())..].to_vec();
                    }
                    let at = left.iter().position(|&place| is(place)).ok_or_else(|| {
                        format!(
                            "Produce: the answer names {}-{index}, which was not asked, or twice",
                            String::from_utf8_lossy(topic)
                        )
                    })?;
                    left.remove(at)
                }
            };
            met += 1;
            if error != 0 {
                return Err(format!(
                    "Produce: {} answers with {}",
                    places[place],
                    named(error)
                ));
            }
            appended(place, offset)
        };
        match walk(body, self.version, &mut each) {
            Ok(told) => told?,
            Err(Short) => return Err("Produce: an answer that ends too early".to_owned()),
        }
        if met == self.places.len() {
            Ok(())
        } else {
            Err(format!(
                "Produce: {} partitions were asked and {met} answer",
                self.places.len()
            ))
        }
    }
}

/// Every field of an answer, and nothing behind it.
fn walk(
    body: &[u8],
    version: i16,
    each: &mut impl FnMut(&[u8], i32, i16, i64) -> Outcome,
) -> Result<Outcome, Short> {
    let mut at = Cursor(body);
    for _ in 0..at.i32()? {
        let topic = at.string()?;
        for _ in 0..at.i32()? {
            let (index, error, offset) = (at.i32()?, at.i16()?, at.i64()?);
            // Log append time, log start offset.
            at.take(16)?;
            if version >= 8 {
                for _ in 0..at.i32()? {
                    at.i32()?;
                    at.nullable_string()?;
                }
                at.nullable_string()?;
            }
            if let Err(message) = each(topic, index, error, offset) {
                return Ok(Err(message));
            }
        }
    }
    // How long the broker held the answer back.
    at.i32()?;
    if at.0.is_empty() {
        Ok(Ok(()))
    } else {
        Err(Short)
    }
}

pub fn front(length: i32, key: i16, version: i16, correlation: i32) -> [u8; FRONT_BYTES] {
    let mut front = [0; FRONT_BYTES];
    front[..4].copy_from_slice(&length.to_be_bytes());
    front[4..6].copy_from_slice(&key.to_be_bytes());
    front[6..8].copy_from_slice(&version.to_be_bytes());
    front[8..].copy_from_slice(&correlation.to_be_bytes());
    front
}

pub fn put_string(to: &mut impl BufMut, text: &str) {
    to.put_i16(i16::try_from(text.len()).expect("a name is short"));
    to.put_slice(text.as_bytes());
}

fn count(n: usize) -> Outcome<i32> {
    i32::try_from(n).map_err(|_| format!("a request of {n} bytes is larger than Kafka has them"))
}

/// An error code with its name.
pub fn named(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        Some(error) => format!("error {code} ({error:?})"),
        None => format!("error {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse, RequestHeader, TopicName};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    fn places() -> Vec<Place> {
        [("a", 0), ("a", 7), ("b", 1)]
            .map(|(topic, index)| Place {
                topic: topic.into(),
                index,
                leader: 0,
                start: 0,
                end: 0,
            })
            .into()
    }

    fn frame(version: i16) -> Frame {
        let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"batch two"));
        let to = [(0, &one), (1, &two), (2, &one)];
        Frame::build(version, -1, &places(), &to, 4).unwrap()
    }

    #[test]
    fn a_stranger_reads_the_request() {
        for version in VERSIONS {
            let frame = frame(version);
            let mut wire = frame.front(77).to_vec();
            frame
                .parts
                .iter()
                .for_each(|part| wire.extend_from_slice(part));
            assert_eq!(wire.len(), frame.len());
            assert_eq!((frame.records, frame.bytes), (12, 3 + 9 + 3));
            let mut wire = Bytes::from(wire);
            let length = wire.split_to(4);
            assert_eq!(length[..], (wire.len() as i32).to_be_bytes());
            let header = RequestHeader::decode(&mut wire, 1).unwrap();
            assert_eq!(
                (header.request_api_key, header.request_api_version),
                (0, version)
            );
            assert_eq!(header.correlation_id, 77);
            let request = ProduceRequest::decode(&mut wire, version).unwrap();
            assert!(wire.is_empty());
            assert_eq!((request.acks, request.timeout_ms), (-1, TIMEOUT_MS));
            let sent: Vec<_> = (request.topic_data.iter())
                .flat_map(|topic| {
                    topic
                        .partition_data
                        .iter()
                        .map(|p| (topic.name.as_str(), p))
                })
                .map(|(topic, p)| (topic, p.index, p.records.clone().unwrap()))
                .collect();
            let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"batch two"));
            assert_eq!(sent, [("a", 0, one.clone()), ("a", 7, two), ("b", 1, one)]);
        }
    }

    /// As a broker says it, partition by partition.
    fn response(version: i16, said: &[(&str, i32, i16, i64)]) -> Vec<u8> {
        let topics = said.iter().map(|&(topic, index, error, offset)| {
            let mut partition = PartitionProduceResponse::default()
                .with_index(index)
                .with_error_code(error)
                .with_base_offset(offset);
            if version >= 8 && error != 0 {
                let record = BatchIndexAndErrorMessage::default();
                partition = partition
                    .with_record_errors(vec![record])
                    .with_error_message(Some(StrBytes::from_static_str("why")));
            }
            TopicProduceResponse::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partition_responses(vec![partition])
        });
        let response = ProduceResponse::default().with_responses(topics.collect());
        let mut bytes = BytesMut::new();
        response.encode(&mut bytes, version).unwrap();
        bytes.to_vec()
    }

    fn answered(version: i16, body: &[u8]) -> Outcome<Vec<(usize, i64)>> {
        let mut appended = Vec::new();
        frame(version).answered(body, &places(), |place, offset| {
            appended.push((place, offset));
            Ok(())
        })?;
        Ok(appended)
    }

    #[test]
    fn every_partition_answers_in_whatever_order() {
        for version in VERSIONS {
            let body = response(version, &[("a", 0, 0, 5), ("a", 7, 0, 6), ("b", 1, 0, 7)]);
            assert_eq!(answered(version, &body).unwrap(), [(0, 5), (1, 6), (2, 7)]);
            let body = response(version, &[("b", 1, 0, 7), ("a", 0, 0, 5), ("a", 7, 0, 6)]);
            assert_eq!(answered(version, &body).unwrap(), [(2, 7), (0, 5), (1, 6)]);
        }
    }

    #[test]
    fn an_error_is_never_counted() {
        for version in VERSIONS {
            let body = response(version, &[("a", 0, 0, 5), ("a", 7, 6, -1), ("b", 1, 0, 7)]);
            let message = answered(version, &body).unwrap_err();
            assert!(
                message.contains("a-7 answers with error 6 (NotLeader"),
                "{message}"
            );
        }
    }

    #[test]
    fn an_answer_must_be_to_what_was_asked() {
        let few = response(8, &[("a", 0, 0, 5), ("a", 7, 0, 6)]);
        assert!(
            answered(8, &few)
                .unwrap_err()
                .contains("3 partitions were asked and 2")
        );
        for said in [("a", 0, 0, 5), ("b", 7, 0, 5)] {
            let wrong = response(8, &[("a", 0, 0, 5), said, ("b", 1, 0, 5)]);
            assert!(
                answered(8, &wrong)
                    .unwrap_err()
                    .contains("not asked, or twice")
            );
        }
    }

    #[test]
    fn a_malformed_answer_is_refused() {
        for version in VERSIONS {
            let said = [("a", 0, 0, 5), ("a", 7, 0, 6), ("b", 1, 0, 7)];
            let body = response(version, &said);
            for length in 0..body.len() {
                assert!(answered(version, &body[..length]).is_err(), "{length}");
            }
            let longer = [&body[..], &[0]].concat();
            assert!(answered(version, &longer).is_err());
            for at in 0..body.len() {
                let mut flipped = body.clone();
                flipped[at] ^= 0x80;
                // Refused or not (an offset is as good as another), it is read to its end.
                let _ = answered(version, &flipped);
            }
        }
    }
}
