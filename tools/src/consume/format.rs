//! How a record is printed: a format string as kcat has it, or a line of JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::base64;
use crate::client::fetch::Read;
use crate::datetime;

/// What `--help` says of the format string.
pub const HELP: &str = "\
Format (--format):
  %t topic          %p partition       %o offset
  %k key            %K key's length    (-1: null)
  %s value          %S value's length  (-1: null)
  %h headers as NAME=VALUE,...         %H their number
  %T timestamp, ms since 1970          %D timestamp as 2026-11-22T10:44:00.000Z
  %R value's length as 4 bytes, big-endian
  %% a percent sign                    \\n \\r \\t \\0 \\\\ \\xHH as usual";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLength,
    Value,
    ValueLength,
    ValueLengthBinary,
    Headers,
    HeaderCount,
    Timestamp,
    Date,
}

/// A parsed format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

impl Format {
    pub fn parse(given: &str) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let bytes = given.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'%' => {
                    at += 1;
                    let piece = match bytes.get(at) {
                        Some(b'%') => {
                            literal.push(b'%');
                            at += 1;
                            continue;
                        }
                        Some(b't') => Piece::Topic,
                        Some(b'p') => Piece::Partition,
                        Some(b'o') => Piece::Offset,
                        Some(b'k') => Piece::Key,
                        Some(b'K') => Piece::KeyLength,
                        Some(b's') => Piece::Value,
                        Some(b'S') => Piece::ValueLength,
                        Some(b'R') => Piece::ValueLengthBinary,
                        Some(b'h') => Piece::Headers,
                        Some(b'H') => Piece::HeaderCount,
                        Some(b'T') => Piece::Timestamp,
                        Some(b'D') => Piece::Date,
                        _ => {
                            let rest: String = given[at..].chars().take(1).collect();
                            return Err(format!("`%{rest}` is not part of a format; {HELP}"));
                        }
                    };
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(piece);
                    at += 1;
                }
                b'\\' => {
                    let (byte, taken) = escape(&bytes[at..])?;
                    literal.push(byte);
                    at += taken;
                }
                byte => {
                    literal.push(byte);
                    at += 1;
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Format(pieces))
    }

    /// `value\n`, or `key SEP value\n`.
    pub fn plain(key_separator: Option<&[u8]>) -> Format {
        let mut pieces = Vec::new();
        if let Some(separator) = key_separator {
            pieces.push(Piece::Key);
            pieces.push(Piece::Literal(separator.to_vec()));
        }
        pieces.push(Piece::Value);
        pieces.push(Piece::Literal(b"\n".to_vec()));
        Format(pieces)
    }

    pub fn print(&self, out: &mut impl Write, read: &Read<'_>) -> io::Result<()> {
        let length = |part: Option<&[u8]>| part.map_or(-1, |p| p.len() as i64);
        for piece in &self.0 {
            match piece {
                Piece::Literal(bytes) => out.write_all(bytes)?,
                Piece::Topic => out.write_all(read.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", read.partition)?,
                Piece::Offset => write!(out, "{}", read.offset)?,
                Piece::Key => out.write_all(read.record.key.unwrap_or_default())?,
                Piece::KeyLength => write!(out, "{}", length(read.record.key))?,
                Piece::Value => out.write_all(read.record.value.unwrap_or_default())?,
                Piece::ValueLength => write!(out, "{}", length(read.record.value))?,
                Piece::ValueLengthBinary => {
                    out.write_all(&(length(read.record.value) as i32).to_be_bytes())?;
                }
                Piece::Headers => {
                    for (at, header) in read.record.headers.enumerate() {
                        if at > 0 {
                            out.write_all(b",")?;
                        }
                        out.write_all(header.key)?;
                        out.write_all(b"=")?;
                        out.write_all(header.value.unwrap_or(b"NULL"))?;
                    }
                }
                Piece::HeaderCount => write!(out, "{}", read.record.headers.len())?,
                Piece::Timestamp => write!(out, "{}", read.timestamp)?,
                Piece::Date => write!(out, "{}", datetime::format(read.timestamp.0))?,
            }
        }
        Ok(())
    }
}

/// A backslash and what it stands for; how many bytes it took.
fn escape(bytes: &[u8]) -> Result<(u8, usize), String> {
    let byte = match bytes.get(1) {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(b'\\') => b'\\',
        Some(b'x') => {
            let hex = bytes
                .get(2..4)
                .and_then(|h| std::str::from_utf8(h).ok())
                .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or("`\\x` needs two hexadecimal digits, as in \\x1f")?;
            let byte = u8::from_str_radix(hex, 16).expect("two hexadecimal digits");
            return Ok((byte, 4));
        }
        _ => return Err("a backslash stands before n, r, t, 0, xHH or another backslash".into()),
    };
    Ok((byte, 2))
}

/// Separators and delimiters of the command line: escapes as in a format.
pub fn unescape(given: &str) -> Result<Vec<u8>, String> {
    let bytes = given.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            let (byte, taken) = escape(&bytes[at..])?;
            out.push(byte);
            at += taken;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    if out.is_empty() {
        return Err("it must not be empty".into());
    }
    Ok(out)
}

/// Bytes that are text are a string; other bytes have a field of their own.
#[derive(Serialize)]
struct JsonHeader<'a> {
    key: std::borrow::Cow<'a, str>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    /// `create` or `log_append`.
    timestamp_type: &'static str,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<JsonHeader<'a>>,
}

fn text_or_base64(part: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match part.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((bytes, Err(_))) => (None, Some(base64::encode(bytes))),
    }
}

pub fn print_json(out: &mut impl Write, read: &Read<'_>) -> io::Result<()> {
    let (key, key_base64) = text_or_base64(read.record.key);
    let (value, value_base64) = text_or_base64(read.record.value);
    let line = JsonRecord {
        topic: read.topic,
        partition: read.partition,
        offset: read.offset,
        timestamp: read.timestamp.0,
        timestamp_type: if read.log_append_time {
            "log_append"
        } else {
            "create"
        },
        key,
        key_base64,
        value,
        value_base64,
        headers: read
            .record
            .headers
            .map(|h| {
                let (value, value_base64) = text_or_base64(h.value);
                JsonHeader {
                    key: String::from_utf8_lossy(h.key),
                    value,
                    value_base64,
                }
            })
            .collect(),
    };
    crate::output::json_line(out, &line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::batch::{Batch, BatchBuilder, NewRecord};
    use klamm_engine::codec::Codec;
    use klamm_engine::units::TimestampMs;

    fn printed(record: NewRecord<'_>, print: impl Fn(&mut Vec<u8>, &Read<'_>)) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(record);
        let bytes = builder.finish();
        let batch = Batch::parse(&bytes).unwrap();
        let record = batch
            .records(batch.records_bytes())
            .next()
            .unwrap()
            .unwrap();
        let mut out = Vec::new();
        print(
            &mut out,
            &Read {
                topic: "orders",
                partition: 3,
                offset: 42,
                timestamp: batch.timestamp_of(&record),
                log_append_time: false,
                record: &record,
            },
        );
        out
    }

    fn formatted(format: &str, record: NewRecord<'_>) -> Vec<u8> {
        let format = Format::parse(format).unwrap();
        printed(record, |out, read| format.print(out, read).unwrap())
    }

    const HEADERS: &[(&[u8], Option<&[u8]>)] = &[(b"a", Some(b"1")), (b"a", None)];

    #[test]
    fn every_placeholder() {
        let record = NewRecord {
            timestamp: TimestampMs(1_795_344_240_250),
            key: Some(b"k\xff"),
            value: Some(b"value"),
            headers: HEADERS,
        };
        assert_eq!(
            formatted(
                "%t/%p/%o %k(%K) %s(%S) [%h %H] %T %D 100%%\\n\\x41\\\\",
                record
            ),
            b"orders/3/42 k\xff(2) value(5) [a=1,a=NULL 2] 1795344240250 \
              2026-11-22T10:44:00.250Z 100%\nA\\"
        );
        assert_eq!(formatted("%R", record), [0, 0, 0, 5]);
    }

    #[test]
    fn null_is_minus_one_long() {
        let record = NewRecord::default();
        assert_eq!(formatted("<%k|%K|%s|%S|%h|%H>", record), b"<|-1||-1||0>");
        assert_eq!(formatted("%R", record), [0xff; 4]);
    }

    #[test]
    fn wrong_formats_are_refused() {
        for wrong in ["%", "%x", "%ü", "\\", "\\q", "\\x4", "\\xzz", "\\x+1"] {
            assert!(Format::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(unescape("\\t").unwrap(), b"\t");
        assert_eq!(unescape("->").unwrap(), b"->");
        assert!(unescape("").is_err());
    }

    #[test]
    fn json_keeps_every_byte() {
        let record = NewRecord {
            timestamp: TimestampMs(5),
            key: Some(b"\xff"),
            value: Some("größe\n".as_bytes()),
            headers: HEADERS,
        };
        let line = printed(record, |out, read| print_json(out, read).unwrap());
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"topic\":\"orders\",\"partition\":3,\"offset\":42,\"timestamp\":5,\
             \"timestamp_type\":\"create\",\"key\":null,\"key_base64\":\"/w==\",\
             \"value\":\"größe\\n\",\"headers\":[{\"key\":\"a\",\"value\":\"1\"},\
             {\"key\":\"a\",\"value\":null}]}\n"
        );
    }
}
