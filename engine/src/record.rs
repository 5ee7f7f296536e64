//! The records inside a batch, after decompression.
//!
//! ```text
//!  record                                        header
//!  varint   length of what follows               varint  key length
//!  i8       attributes (none in use)             ..      key (UTF-8 by convention)
//!  varlong  timestamp - baseTimestamp            varint  value length, -1: null
//!  varint   offset - baseOffset                  ..      value
//!  varint   key length, -1: null
//!  ..       key
//!  varint   value length, -1: null
//!  ..       value
//!  varint   number of headers
//!  ..       headers
//! ```
//!
//! Varints are zigzag (protobuf's sint32 and sint64). A view never allocates and
//! never panics on any bytes; what it yields borrows from them. Headers keep their
//! order and their duplicates. Source: `DefaultRecord.java` of the Kafka tree.

use std::fmt;

/// One record, its parts as slices of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub attributes: i8,
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// A record's headers, checked when the record was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    left: u32,
    bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// Where records stop making sense; `at` counts from the first record's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    pub at: usize,
    pub fault: RecordFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// Ran out of bytes, or more than 5 (varint) or 10 (varlong) bytes, or too large.
    Varint { of: &'static str },
    /// A length or count that is negative and not a -1 that means null.
    Negative { of: &'static str, is: i32 },
    /// A length or count that more bytes are needed for than are left.
    Beyond {
        of: &'static str,
        is: i32,
        left: usize,
    },
    /// The record's length covers more than its fields.
    Unused { bytes: usize },
    /// Client batches number their records 0, 1, 2, ...
    OffsetDelta { is: i32, expected: i32 },
    /// Bytes behind the last record.
    Trailing { bytes: usize },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the records: ", self.at)?;
        match self.fault {
            RecordFault::Varint { of } => write!(f, "the {of} is no whole varint"),
            RecordFault::Negative { of, is } => write!(f, "the {of} is {is}"),
            RecordFault::Beyond { of, is, left } => {
                write!(f, "the {of} is {is}, but {left} bytes are left")
            }
            RecordFault::Unused { bytes } => {
                write!(
                    f,
                    "the record's length covers {bytes} bytes more than its fields"
                )
            }
            RecordFault::OffsetDelta { is, expected } => {
                write!(f, "the record's offset delta is {is}, expected {expected}")
            }
            RecordFault::Trailing { bytes } => write!(f, "{bytes} bytes behind the last record"),
        }
    }
}

impl std::error::Error for RecordError {}

/// Walks `count` records. Yields an error once, then ends; bytes behind the last
/// record are an error too.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    left: u32,
    done: bool,
}

impl<'a> Records<'a> {
    /// `count` is the batch header's; negative counts as 0.
    #[must_use]
    pub fn new(bytes: &'a [u8], count: i32) -> Records<'a> {
        Records {
            cursor: Cursor::new(bytes),
            left: u32::try_from(count).unwrap_or(0),
            done: false,
        }
    }

    fn step(&mut self) -> Result<Option<Record<'a>>, RecordError> {
        if self.left == 0 {
            return match self.cursor.left() {
                0 => Ok(None),
                bytes => Err(self.cursor.fault(RecordFault::Trailing { bytes })),
            };
        }
        self.left -= 1;
        Record::read(&mut self.cursor).map(Some)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// What a broker checks of an uncompressed batch before it keeps it: every length,
/// count and varint, offset deltas 0 to `count - 1`, and nothing behind them. Returns
/// the largest timestamp delta.
pub fn check_records(bytes: &[u8], count: i32) -> Result<i64, RecordError> {
    let mut records = Records::new(bytes, count);
    let (mut expected, mut delta_max) = (0, i64::MIN);
    loop {
        let at = records.cursor.at;
        let Some(record) = records.next().transpose()? else {
            return Ok(delta_max);
        };
        let is = record.offset_delta;
        if is != expected {
            return Err(RecordError {
                at,
                fault: RecordFault::OffsetDelta { is, expected },
            });
        }
        expected += 1;
        delta_max = delta_max.max(record.timestamp_delta);
    }
}

impl<'a> Record<'a> {
    fn read(outer: &mut Cursor<'a>) -> Result<Record<'a>, RecordError> {
        let start = outer.at;
        let body = outer.length("record length")?;
        // Inside, positions still count from the first record.
        let mut c = Cursor {
            bytes: &outer.bytes[..outer.at + body],
            at: outer.at,
        };
        outer.at += body;

        let attributes = c.byte("attributes")? as i8;
        let timestamp_delta = c.varlong("timestamp delta")?;
        let offset_delta = c.varint("offset delta")?;
        let key = c.nullable("key length")?;
        let value = c.nullable("value length")?;
        let headers = Headers::read(&mut c)?;
        match c.left() {
            0 => {}
            bytes => {
                return Err(RecordError {
                    at: start,
                    fault: RecordFault::Unused { bytes },
                });
            }
        }
        Ok(Record {
            attributes,
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }
}

impl<'a> Headers<'a> {
    fn read(c: &mut Cursor<'a>) -> Result<Headers<'a>, RecordError> {
        // The count has no bytes of its own to be compared with, but a header takes
        // at least two (two lengths), so a lie ends the walk before it costs much.
        let left = c.count("number of headers")?;
        let start = c.at;
        for _ in 0..left {
            Header::read(c)?;
        }
        Ok(Headers {
            left,
            bytes: &c.bytes[start..c.at],
        })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.left as usize
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Header<'a> {
    fn read(c: &mut Cursor<'a>) -> Result<Header<'a>, RecordError> {
        let key_len = c.length("header key length")?;
        let key = c.take(key_len);
        let value = c.nullable("header value length")?;
        Ok(Header { key, value })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        let mut c = Cursor::new(self.bytes);
        let header = Header::read(&mut c).expect("checked when the record was read");
        self.bytes = &self.bytes[c.at..];
        self.left -= 1;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

/// Reads from `bytes[at..]`; `at` never passes the end.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn fault(&self, fault: RecordFault) -> RecordError {
        RecordError { at: self.at, fault }
    }

    fn byte(&mut self, of: &'static str) -> Result<u8, RecordError> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(self.fault(RecordFault::Beyond { of, is: 1, left: 0 }));
        };
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn varint(&mut self, of: &'static str) -> Result<i32, RecordError> {
        let Some((value, len)) = decode_varint(&self.bytes[self.at..]) else {
            return Err(self.fault(RecordFault::Varint { of }));
        };
        self.at += len;
        Ok(value)
    }

    #[inline]
    fn varlong(&mut self, of: &'static str) -> Result<i64, RecordError> {
        let Some((value, len)) = decode_varlong(&self.bytes[self.at..]) else {
            return Err(self.fault(RecordFault::Varint { of }));
        };
        self.at += len;
        Ok(value)
    }

    /// A count that at most one byte an item backs.
    #[inline]
    fn count(&mut self, of: &'static str) -> Result<u32, RecordError> {
        let at = self.at;
        let is = self.varint(of)?;
        self.backed(is, at, of)
    }

    /// What was read at `at` as a count, where enough bytes are left for it.
    #[inline]
    fn backed(&self, is: i32, at: usize, of: &'static str) -> Result<u32, RecordError> {
        let left = self.left();
        match u32::try_from(is) {
            Ok(count) if count as usize <= left => Ok(count),
            Ok(_) => Err(RecordError {
                at,
                fault: RecordFault::Beyond { of, is, left },
            }),
            Err(_) => Err(RecordError {
                at,
                fault: RecordFault::Negative { of, is },
            }),
        }
    }

    #[inline]
    fn length(&mut self, of: &'static str) -> Result<usize, RecordError> {
        self.count(of).map(|n| n as usize)
    }

    #[inline]
    fn nullable(&mut self, of: &'static str) -> Result<Option<&'a [u8]>, RecordError> {
        let at = self.at;
        let is = self.varint(of)?;
        if is == -1 {
            return Ok(None);
        }
        let len = self.backed(is, at, of)?;
        Ok(Some(self.take(len as usize)))
    }

    /// `len` was checked against what is left.
    #[inline]
    fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        taken
    }
}

// -- varints

/// The number at the front and how many bytes it took; None where it does not end,
/// or does not fit 32 bits.
#[inline]
#[must_use]
pub fn decode_varint(bytes: &[u8]) -> Option<(i32, usize)> {
    let (raw, len) = decode_unsigned(bytes, 5)?;
    let raw = u32::try_from(raw).ok()?;
    Some(((raw >> 1) as i32 ^ -((raw & 1) as i32), len))
}

/// As [`decode_varint`], 64 bits.
#[inline]
#[must_use]
pub fn decode_varlong(bytes: &[u8]) -> Option<(i64, usize)> {
    let (raw, len) = decode_unsigned(bytes, 10)?;
    Some(((raw >> 1) as i64 ^ -((raw & 1) as i64), len))
}

pub fn encode_varint(to: &mut Vec<u8>, value: i32) {
    // Sign extension keeps zigzag's result: it is the same number in 64 bits.
    encode_varlong(to, i64::from(value));
}

pub fn encode_varlong(to: &mut Vec<u8>, value: i64) {
    let mut raw = (value << 1 ^ value >> 63) as u64;
    while raw >= 0x80 {
        to.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    to.push(raw as u8);
}

/// A record has seven of them, and hardly one has more than two bytes.
#[inline]
fn decode_unsigned(bytes: &[u8], len_max: usize) -> Option<(u64, usize)> {
    match *bytes {
        [first, ..] if first < 0x80 => Some((first.into(), 1)),
        [first, second, ..] if second < 0x80 => {
            Some((u64::from(first & 0x7f) | u64::from(second) << 7, 2))
        }
        _ => decode_long(bytes, len_max),
    }
}

#[cold]
fn decode_long(bytes: &[u8], len_max: usize) -> Option<(u64, usize)> {
    let mut raw = 0u64;
    for (i, &byte) in bytes.iter().take(len_max).enumerate() {
        let low = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit: 9 * 7 = 63.
        if i == 9 && low > 1 {
            return None;
        }
        raw |= low << (7 * i);
        if byte & 0x80 == 0 {
            return Some((raw, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varlong(value: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_varlong(&mut bytes, value);
        bytes
    }

    /// The values of protobuf's documentation, and the ends.
    #[test]
    fn varints_are_zigzag() {
        for (value, bytes) in [
            (0i32, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (-2, &[3]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut encoded = Vec::new();
            encode_varint(&mut encoded, value);
            assert_eq!(encoded, bytes, "{value}");
            assert_eq!(decode_varint(bytes), Some((value, bytes.len())));
            assert_eq!(decode_varlong(bytes), Some((value.into(), bytes.len())));
        }
        assert_eq!(varlong(i64::MIN), [&[0xff; 9][..], &[1]].concat());
        assert_eq!(decode_varlong(&varlong(i64::MIN)), Some((i64::MIN, 10)));
        assert_eq!(decode_varlong(&varlong(i64::MAX)), Some((i64::MAX, 10)));
    }

    #[test]
    fn varints_that_do_not_end_or_fit_are_none() {
        assert_eq!(decode_varint(&[]), None);
        assert_eq!(decode_varint(&[0x80]), None);
        assert_eq!(
            decode_varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]),
            None,
            "six bytes"
        );
        assert_eq!(
            decode_varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
            None,
            "33 bits"
        );
        assert_eq!(decode_varlong(&[0x80; 11]), None);
        assert_eq!(
            decode_varlong(&[&[0xff; 9][..], &[3]].concat()),
            None,
            "65 bits"
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value: i64, behind: Vec<u8>) {
            let mut bytes = varlong(value);
            let len = bytes.len();
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(decode_varlong(&bytes), Some((value, len)));
            let narrow = i32::try_from(value).ok().map(|value| (value, len));
            prop_assert_eq!(decode_varint(&bytes), narrow);
        }
    }
}
