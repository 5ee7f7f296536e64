//! The reading side of `klamm produce`: bytes to records.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::{Args, InputFormat};
use crate::base64;
use crate::client::produce::{Input, OwnedRecord};
use crate::output::Failure;

/// Above this a line is no record for any broker (`socket.request.max.bytes`), and a
/// file with another delimiter would be read into memory whole.
const LINE_BYTES_MAX: usize = 100 << 20;
/// Records are handed on in groups of about this size.
const GROUP_BYTES: usize = 256 << 10;

/// How lines become records.
pub struct Parsing {
    format: InputFormat,
    delimiter: Vec<u8>,
    key_separator: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    null_empty: bool,
    partition: Option<i32>,
    keep_partitions: bool,
}

impl From<&Args> for Parsing {
    fn from(args: &Args) -> Parsing {
        Parsing {
            format: args.input,
            delimiter: args.delimiter.0.clone(),
            key_separator: args.key_separator.as_ref().map(|s| s.0.clone()),
            key: args.key.as_ref().map(|k| k.clone().into_bytes()),
            headers: args
                .headers
                .iter()
                .map(|(k, v)| (k.clone().into_bytes(), Some(v.clone().into_bytes())))
                .collect(),
            null_empty: args.null_empty,
            partition: args.partition,
            keep_partitions: args.keep_partitions,
        }
    }
}

struct Source {
    name: String,
    reader: Box<dyn Read + Send>,
}

pub struct Sources {
    all: Vec<Source>,
    /// Of all files, where each is a plain file.
    pub bytes: Option<u64>,
    /// Someone types.
    pub interactive: bool,
    /// How many bytes were read.
    pub position: Arc<AtomicU64>,
}

/// Opens everything before anything is sent: a name that is wrong costs nothing.
pub fn open(files: &[PathBuf]) -> Result<Sources, Failure> {
    let mut all = Vec::new();
    let mut bytes = Some(0);
    let mut interactive = false;
    let stdin = [PathBuf::from("-")];
    for path in if files.is_empty() { &stdin } else { files } {
        if path.as_os_str() == "-" {
            interactive |= io::stdin().is_terminal();
            bytes = None;
            all.push(Source {
                name: "stdin".into(),
                reader: Box::new(io::stdin()),
            });
            continue;
        }
        let wrong = |e: io::Error| Failure::Other(format!("cannot read {}: {e}", path.display()));
        let file = File::open(path).map_err(wrong)?;
        let metadata = file.metadata().map_err(wrong)?;
        if metadata.is_dir() {
            return Err(Failure::Other(format!(
                "{} is a folder; name the files in it",
                path.display()
            )));
        }
        bytes = bytes
            .filter(|_| metadata.is_file())
            .map(|b| b + metadata.len());
        all.push(Source {
            name: path.display().to_string(),
            reader: Box::new(file),
        });
    }
    Ok(Sources {
        all,
        bytes,
        interactive,
        position: Arc::new(AtomicU64::new(0)),
    })
}

/// Reads to the end, or to the first line that is wrong, which ends the input with
/// an error that names it.
pub fn feed(sources: Sources, parsing: &Parsing, input: Input) {
    let mut how = Ok(());
    for source in sources.all {
        match feed_one(source, parsing, &sources.position, &input) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => {
                how = Err(why);
                break;
            }
        }
    }
    input.end(how);
}

/// False: nobody takes records any more.
fn feed_one(
    source: Source,
    parsing: &Parsing,
    position: &AtomicU64,
    input: &Input,
) -> Result<bool, String> {
    let mut reader = BufReader::with_capacity(256 << 10, source.reader);
    let mut group = Vec::new();
    let mut group_bytes = 0;
    let mut line = Vec::new();
    let mut wrong = None;
    for number in 1u64.. {
        line.clear();
        let read = read_line(&mut reader, &parsing.delimiter, &mut line);
        let whole = *read.as_ref().unwrap_or(&false);
        if read.is_ok() && !whole && line.is_empty() {
            break;
        }
        position.fetch_add(line.len() as u64, Ordering::Relaxed);
        if whole {
            line.truncate(line.len() - parsing.delimiter.len());
        }
        let record = match read {
            Ok(_) => parsing.record(&line),
            Err(e) => Err(e.to_string()),
        };
        match record {
            Ok(Some(record)) => {
                group_bytes += record.size();
                group.push(record);
            }
            Ok(None) => {}
            Err(why) => {
                // What came before it still counts.
                wrong = Some(format!("{}, line {number}: {why}", source.name));
                break;
            }
        }
        // What is there goes on before a read that may wait for someone to type.
        if group_bytes >= GROUP_BYTES || reader.buffer().is_empty() {
            group_bytes = 0;
            if !group.is_empty() && !input.put(std::mem::take(&mut group)) {
                return Ok(false);
            }
        }
        if !whole {
            break;
        }
    }
    let taken = group.is_empty() || input.put(group);
    match wrong {
        Some(why) if taken => Err(why),
        _ => Ok(taken),
    }
}

/// Reads to behind the delimiter, or to the end (false).
fn read_line(reader: &mut impl BufRead, delimiter: &[u8], line: &mut Vec<u8>) -> io::Result<bool> {
    let last = *delimiter.last().expect("unescape refuses an empty one");
    loop {
        let left = (LINE_BYTES_MAX + 1).saturating_sub(line.len()) as u64;
        let read = reader.by_ref().take(left).read_until(last, line)?;
        if line.ends_with(delimiter) {
            return Ok(true);
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is longer than the 100 MiB that a broker takes; is --delimiter right?",
            ));
        }
        if read == 0 {
            return Ok(false);
        }
    }
}

#[derive(Deserialize)]
struct JsonHeader {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
}

/// What `consume --json` prints; what a record does not need is ignored.
#[derive(Deserialize)]
struct JsonRecord {
    partition: Option<i32>,
    timestamp: Option<i64>,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<JsonHeader>,
}

fn part(text: Option<String>, coded: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, coded) {
        (Some(text), _) => Ok(Some(text.into_bytes())),
        (None, Some(coded)) => base64::decode(&coded)
            .map(Some)
            .ok_or_else(|| "a _base64 field is not Base64".into()),
        (None, None) => Ok(None),
    }
}

impl Parsing {
    /// None: an empty line between JSON objects.
    fn record(&self, line: &[u8]) -> Result<Option<OwnedRecord>, String> {
        let mut record = match self.format {
            InputFormat::Lines => self.line_record(line)?,
            InputFormat::Json if line.trim_ascii().is_empty() => return Ok(None),
            InputFormat::Json => self.json_record(line)?,
        };
        if let Some(key) = &self.key {
            record.key = Some(key.clone());
        }
        if self.null_empty {
            record.key = record.key.filter(|k| !k.is_empty());
            record.value = record.value.filter(|v| !v.is_empty());
        }
        record.headers.extend(self.headers.iter().cloned());
        record.partition = self
            .partition
            .or(record.partition.filter(|_| self.keep_partitions));
        Ok(Some(record))
    }

    fn line_record(&self, line: &[u8]) -> Result<OwnedRecord, String> {
        let (key, value) = match &self.key_separator {
            None => (None, line),
            Some(separator) => match find(line, separator) {
                Some(at) => (Some(line[..at].to_vec()), &line[at + separator.len()..]),
                None => {
                    return Err(format!(
                        "there is no key separator `{}` in it",
                        separator.escape_ascii()
                    ));
                }
            },
        };
        Ok(OwnedRecord {
            key,
            value: Some(value.to_vec()),
            ..OwnedRecord::default()
        })
    }

    fn json_record(&self, line: &[u8]) -> Result<OwnedRecord, String> {
        let json: JsonRecord = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        Ok(OwnedRecord {
            partition: json.partition,
            timestamp_ms: json.timestamp,
            key: part(json.key, json.key_base64)?,
            value: part(json.value, json.value_base64)?,
            headers: json
                .headers
                .into_iter()
                .map(|h| Ok((h.key.into_bytes(), part(h.value, h.value_base64)?)))
                .collect::<Result<_, String>>()?,
        })
    }
}

fn find(line: &[u8], what: &[u8]) -> Option<usize> {
    line.windows(what.len()).position(|w| w == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsing() -> Parsing {
        Parsing {
            format: InputFormat::Lines,
            delimiter: b"\n".to_vec(),
            key_separator: None,
            key: None,
            headers: Vec::new(),
            null_empty: false,
            partition: None,
            keep_partitions: false,
        }
    }

    fn lines(delimiter: &[u8], text: &[u8]) -> Vec<(Vec<u8>, bool)> {
        // A small buffer, so that delimiters fall on its edges.
        let mut reader = BufReader::with_capacity(3, text);
        let mut all = Vec::new();
        loop {
            let mut line = Vec::new();
            let whole = read_line(&mut reader, delimiter, &mut line).unwrap();
            if !whole && line.is_empty() {
                return all;
            }
            all.push((line, whole));
        }
    }

    #[test]
    fn a_last_line_without_its_end_is_a_line() {
        assert_eq!(
            lines(b"\n", b"a\n\nbcd"),
            [
                (b"a\n".to_vec(), true),
                (b"\n".to_vec(), true),
                (b"bcd".to_vec(), false)
            ]
        );
        assert!(lines(b"\n", b"").is_empty());
    }

    #[test]
    fn a_delimiter_of_two_bytes_is_found_whole() {
        assert_eq!(
            lines(b"\r\n", b"a\nb\r\nc\r\r\n"),
            [(b"a\nb\r\n".to_vec(), true), (b"c\r\r\n".to_vec(), true)]
        );
    }

    #[test]
    fn keys_headers_and_nulls() {
        let mut p = parsing();
        p.key_separator = Some(b"::".to_vec());
        p.headers = vec![(b"h".to_vec(), Some(b"1".to_vec()))];
        let record = p.record(b"k::v::w").unwrap().unwrap();
        assert_eq!(record.key.as_deref(), Some(b"k".as_slice()));
        assert_eq!(record.value.as_deref(), Some(b"v::w".as_slice()));
        assert_eq!(record.headers.len(), 1);
        assert!(p.record(b"no separator").is_err());

        p.null_empty = true;
        let tombstone = p.record(b"k::").unwrap().unwrap();
        assert_eq!(tombstone.value, None);
        p.null_empty = false;
        let empty = p.record(b"::").unwrap().unwrap();
        assert_eq!((empty.key, empty.value), (Some(vec![]), Some(vec![])));
    }

    #[test]
    fn what_consume_prints_is_read_back() {
        let mut p = parsing();
        p.format = InputFormat::Json;
        let line = br#"{"topic":"t","partition":2,"offset":9,"timestamp":5,"timestamp_type":"create","key":null,"key_base64":"/w==","value":"v","headers":[{"key":"a","value":"1"},{"key":"a","value":null}]}"#;
        let record = p.record(line).unwrap().unwrap();
        assert_eq!(
            record,
            OwnedRecord {
                partition: None,
                timestamp_ms: Some(5),
                key: Some(vec![0xff]),
                value: Some(b"v".to_vec()),
                headers: vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"a".to_vec(), None)],
            }
        );
        p.keep_partitions = true;
        assert_eq!(p.record(line).unwrap().unwrap().partition, Some(2));
        assert!(p.record(b"{").is_err());
        assert!(p.record(br#"{"value_base64":"*"}"#).is_err());
        assert!(p.record(b" ").unwrap().is_none());
    }
}
