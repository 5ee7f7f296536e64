//! The bytes on DATA/klamm.sock. All numbers are big-endian.
//!
//! ```text
//!   asked     | "KLPROF" | version u8 | what u8: 1, a snapshot |             8 bytes
//!   answered  | length u32 | version u8 | status u8 | ...                    any number
//!     0  began u64 | taken u64 | shards u16 | entries u32, and each:
//!        | group: length u8, text | name: the same | unit u8 | sum u64 |
//!        | length u32 | histogram: HdrHistogram's V2 encoding |
//!     1  why not, in a sentence
//! ```
//!
//! Both ends are of one machine and mostly of one binary; a version that differs is said
//! and not guessed at.

use super::{Entry, Snapshot};
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use klamm_engine::profile::{Series, Unit};
use klamm_engine::units::Nanos;
use std::fmt;

pub const VERSION: u8 = 1;
pub const QUESTION_BYTES: usize = 8;
const MAGIC: &[u8; 6] = b"KLPROF";
const SNAPSHOT: u8 = 1;

/// Some 300 histograms of 3,900 counts that take up to 9 bytes each would be 10 MiB.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

pub const QUESTION: [u8; QUESTION_BYTES] = [
    MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], MAGIC[4], MAGIC[5], VERSION, SNAPSHOT,
];

/// What the other end said makes no sense, or is of another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

fn malformed(what: impl Into<String>) -> Malformed {
    Malformed(what.into())
}

/// Whether these bytes ask for what there is: a snapshot.
pub fn check_question(bytes: &[u8; QUESTION_BYTES]) -> Result<(), Malformed> {
    if &bytes[..6] != MAGIC {
        return Err(malformed("the question is none of klamm's"));
    }
    if bytes[6] != VERSION {
        return Err(malformed(format!(
            "the question is of version {}, and this broker speaks {VERSION}; use the klamm command that the broker was started with",
            bytes[6]
        )));
    }
    if bytes[7] != SNAPSHOT {
        return Err(malformed(format!("nothing is known as {}", bytes[7])));
    }
    Ok(())
}

/// A whole answer, its length included.
#[must_use]
pub fn encode(answer: &Result<Snapshot, String>) -> Vec<u8> {
    let mut to = vec![0, 0, 0, 0, VERSION];
    match answer {
        Ok(snapshot) => {
            to.push(0);
            put_snapshot(&mut to, snapshot);
        }
        Err(why) => {
            to.push(1);
            to.extend_from_slice(why.as_bytes());
        }
    }
    let length = u32::try_from(to.len() - 4).expect("a few MiB");
    to[..4].copy_from_slice(&length.to_be_bytes());
    to
}

fn put_snapshot(to: &mut Vec<u8>, snapshot: &Snapshot) {
    to.extend_from_slice(&snapshot.began.0.to_be_bytes());
    to.extend_from_slice(&snapshot.taken.0.to_be_bytes());
    to.extend_from_slice(&snapshot.shards.to_be_bytes());
    let count = u32::try_from(snapshot.entries.len()).expect("some hundred");
    to.extend_from_slice(&count.to_be_bytes());
    let mut serializer = V2Serializer::new();
    let mut bytes = Vec::new();
    for entry in &snapshot.entries {
        put_text(to, &entry.group);
        put_text(to, &entry.name);
        to.push(match entry.series.unit() {
            Unit::Nanos => 0,
            Unit::Bytes => 1,
            Unit::Count => 2,
        });
        to.extend_from_slice(&entry.series.sum().to_be_bytes());
        bytes.clear();
        serializer
            .serialize(entry.series.histogram(), &mut bytes)
            .expect("a Vec takes all, and counts stay below 2^63");
        let length = u32::try_from(bytes.len()).expect("some KiB");
        to.extend_from_slice(&length.to_be_bytes());
        to.extend_from_slice(&bytes);
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.push(u8::try_from(text.len()).expect("names of groups and series are short"));
    to.extend_from_slice(text.as_bytes());
}

/// An answer without its length.
pub fn decode(answer: &[u8]) -> Result<Result<Snapshot, String>, Malformed> {
    let mut from = Reader(answer);
    let version = from.u8()?;
    if version != VERSION {
        return Err(malformed(format!(
            "the broker answers in version {version}, and this command speaks {VERSION}; use the klamm command that the broker was started with"
        )));
    }
    match from.u8()? {
        0 => snapshot(&mut from).map(Ok),
        1 => Ok(Err(String::from_utf8_lossy(from.0).into_owned())),
        other => Err(malformed(format!(
            "the broker answered with status {other}"
        ))),
    }
}

fn snapshot(from: &mut Reader<'_>) -> Result<Snapshot, Malformed> {
    let began = Nanos(from.u64()?);
    let taken = Nanos(from.u64()?);
    let shards = from.u16()?;
    let count = from.u32()?;
    let mut entries = Vec::new();
    let mut deserializer = Deserializer::new();
    for _ in 0..count {
        let group = from.text()?.into();
        let name = from.text()?.into();
        let unit = match from.u8()? {
            0 => Unit::Nanos,
            1 => Unit::Bytes,
            2 => Unit::Count,
            other => return Err(malformed(format!("no unit is known as {other}"))),
        };
        let sum = from.u64()?;
        let length = from.u32()? as usize;
        let mut bytes = from.take(length)?;
        let histogram = deserializer
            .deserialize(&mut bytes)
            .map_err(|e| malformed(format!("a histogram can't be read: {e}")))?;
        let series = Series::from_parts(unit, histogram, sum).map_err(malformed)?;
        entries.push(Entry {
            group,
            name,
            series,
        });
    }
    if !from.0.is_empty() {
        return Err(malformed(format!("{} bytes behind the end", from.0.len())));
    }
    Ok(Snapshot {
        began,
        taken,
        shards,
        entries,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(n)
            .ok_or_else(|| malformed("the answer is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.take(N)?.try_into().expect("as long as was asked for"))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u8()?;
        let bytes = self.take(usize::from(length))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a name is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> Snapshot {
        let entry = |group: &'static str, name: &'static str, unit, values: &[u64]| {
            let mut series = Series::new(unit);
            values.iter().for_each(|v| series.record(*v));
            Entry {
                group: group.into(),
                name: name.into(),
                series,
            }
        };
        Snapshot {
            began: Nanos(17),
            taken: Nanos(u64::MAX),
            shards: 2,
            entries: vec![
                entry("Produce", "total", Unit::Nanos, &[100, 1_000_000, u64::MAX]),
                entry("engine", "sync_batches", Unit::Count, &[1, 2, 3]),
                entry("engine", "batch_bytes", Unit::Bytes, &[]),
            ],
        }
    }

    #[test]
    fn what_is_sent_arrives() {
        for answer in [Ok(some()), Err("it is off".to_owned())] {
            let bytes = encode(&answer);
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(length as usize, bytes.len() - 4);
            assert_eq!(decode(&bytes[4..]), Ok(answer));
        }
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_refused() {
        let bytes = encode(&Ok(some()));
        for end in 4..bytes.len() - 1 {
            assert!(decode(&bytes[4..end]).is_err(), "cut at {end}");
        }
        let longer = [&bytes[4..], &[0]].concat();
        assert!(decode(&longer).is_err(), "a byte too many");
    }

    #[test]
    fn a_question_of_another_version_is_told_so() {
        assert_eq!(check_question(&QUESTION), Ok(()));
        let mut other = QUESTION;
        other[6] = 9;
        assert!(check_question(&other).unwrap_err().0.contains("version 9"));
        other = QUESTION;
        other[7] = 2;
        assert!(check_question(&other).is_err());
        assert!(check_question(b"GET / HT").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn no_flipped_byte_makes_the_reader_panic(at in 0usize..400, to in any::<u8>()) {
            let mut bytes = encode(&Ok(some()))[4..].to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = decode(&bytes);
        }
    }
}
