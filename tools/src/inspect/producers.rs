//! `.snapshot` files: what a partition remembers of its idempotent producers. Klamm's
//! own format (see docs/format.md) and Kafka's:
//!
//! ```text
//!   version i16 = 1 | CRC-32C u32 of what follows | count i32 | producer*
//!   producer  id i64 | epoch i16 | last sequence i32 | last offset i64 | offset delta i32
//!             | timestamp i64 | coordinator epoch i32 | open transaction's first offset i64
//! ```
//!
//! Source: `ProducerStateManager.java`.

use std::fmt;
use std::path::Path;

use klamm_engine::crc;
use klamm_engine::producer::{ProducerState, SnapshotError};
use serde::Serialize;

use super::segment::Status;
use super::{Report, read};
use crate::datetime;
use crate::output::Outcome;

const KAFKA_HEADER: usize = 10;
const KAFKA_PRODUCER: usize = 46;

#[derive(Serialize)]
struct ProducerLine {
    r#type: &'static str,
    producer_id: i64,
    producer_epoch: i16,
    last_sequence: Option<i32>,
    last_offset: Option<i64>,
    timestamp: i64,
    open_transaction_from: Option<i64>,
    /// How many batches are remembered.
    batches: usize,
}

impl fmt::Display for ProducerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  producer {} epoch {}",
            self.producer_id, self.producer_epoch
        )?;
        if let (Some(sequence), Some(offset)) = (self.last_sequence, self.last_offset) {
            write!(f, " last sequence {sequence} at offset {offset}")?;
        }
        write!(
            f,
            " at {}, {} batches",
            datetime::format(self.timestamp),
            self.batches
        )?;
        match self.open_transaction_from {
            Some(offset) => write!(f, ", open transaction from offset {offset}"),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    file: String,
    status: Status,
    /// `klamm` or `kafka`; null where it is neither.
    format: Option<&'static str>,
    producers: usize,
    why: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {} producers, format {}",
            self.file,
            self.status,
            self.producers,
            self.format.unwrap_or("unknown")
        )?;
        match &self.why {
            Some(why) => write!(f, "\n  {why}; the broker reads the log instead"),
            None => Ok(()),
        }
    }
}

pub fn inspect(path: &Path, details: bool, report: &mut Report) -> Outcome {
    let bytes = read(path)?;
    let (format, producers) = match ProducerState::decode_snapshot(&bytes) {
        Ok(state) => (Some("klamm"), Ok(klamms(&state))),
        Err(SnapshotError::Magic) => match kafkas(&bytes) {
            Some(producers) => (Some("kafka"), producers),
            None => (None, Err(SnapshotError::Magic.to_string())),
        },
        Err(e) => (Some("klamm"), Err(e.to_string())),
    };
    let (count, why) = match &producers {
        Ok(producers) => (producers.len(), None),
        Err(why) => (0, Some(why.clone())),
    };
    if details {
        for p in producers.unwrap_or_default() {
            report.say(&p)?;
        }
    }
    let summary = Summary {
        r#type: "producers",
        file: path.display().to_string(),
        status: if why.is_none() {
            Status::Ok
        } else {
            Status::Corrupt
        },
        format,
        producers: count,
        why,
    };
    report.damaged |= summary.status.is_damage();
    report.say(&summary)
}

fn klamms(state: &ProducerState) -> Vec<ProducerLine> {
    state
        .iter()
        .map(|(id, p)| {
            let last = p.batches().last();
            ProducerLine {
                r#type: "producer",
                producer_id: id.0,
                producer_epoch: p.epoch.0,
                last_sequence: last.map(|b| b.last_sequence),
                last_offset: last.map(|b| b.last_offset.0),
                timestamp: p.last_timestamp.0,
                open_transaction_from: p.current_txn_first_offset.map(|o| o.0),
                batches: p.batches().len(),
            }
        })
        .collect()
}

/// None: no Kafka snapshot either.
fn kafkas(bytes: &[u8]) -> Option<Result<Vec<ProducerLine>, String>> {
    if bytes.len() < KAFKA_HEADER || bytes[..2] != [0, 1] {
        return None;
    }
    let i16_at = |b: &[u8], at: usize| i16::from_be_bytes(b[at..at + 2].try_into().expect("2"));
    let i32_at = |b: &[u8], at: usize| i32::from_be_bytes(b[at..at + 4].try_into().expect("4"));
    let i64_at = |b: &[u8], at: usize| i64::from_be_bytes(b[at..at + 8].try_into().expect("8"));
    let (header, is) = (i32_at(bytes, 2) as u32, crc::castagnoli(&bytes[6..]));
    if header != is {
        return Some(Err(format!(
            "byte 2: the CRC is {is:08x}, the header has {header:08x}"
        )));
    }
    let count = i32_at(bytes, 6);
    let body = &bytes[KAFKA_HEADER..];
    if usize::try_from(count)
        .ok()
        .and_then(|n| n.checked_mul(KAFKA_PRODUCER))
        != Some(body.len())
    {
        return Some(Err(format!(
            "byte 6: {count} producers do not fill {} bytes",
            body.len()
        )));
    }
    let producers = body.chunks_exact(KAFKA_PRODUCER).map(|p| {
        let last_sequence = i32_at(p, 10);
        ProducerLine {
            r#type: "producer",
            producer_id: i64_at(p, 0),
            producer_epoch: i16_at(p, 8),
            last_sequence: Some(last_sequence).filter(|s| *s >= 0),
            last_offset: Some(i64_at(p, 14)).filter(|o| *o >= 0),
            timestamp: i64_at(p, 26),
            open_transaction_from: Some(i64_at(p, 38)).filter(|o| *o >= 0),
            batches: usize::from(last_sequence >= 0),
        }
    });
    Some(Ok(producers.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_snapshot_is_read_and_checked() {
        let mut body = 1i32.to_be_bytes().to_vec();
        body.extend(7i64.to_be_bytes());
        body.extend(2i16.to_be_bytes());
        body.extend(41i32.to_be_bytes());
        body.extend(99i64.to_be_bytes());
        body.extend(3i32.to_be_bytes());
        body.extend(1_795_344_240_000i64.to_be_bytes());
        body.extend((-1i32).to_be_bytes());
        body.extend((-1i64).to_be_bytes());
        let mut bytes = 1i16.to_be_bytes().to_vec();
        bytes.extend(crc::castagnoli(&body).to_be_bytes());
        bytes.extend(&body);

        let producers = kafkas(&bytes).unwrap().unwrap();
        assert_eq!(
            producers[0].to_string(),
            "  producer 7 epoch 2 last sequence 41 at offset 99 at 2026-11-22T10:44:00.000Z, \
             1 batches"
        );
        bytes[20] ^= 1;
        assert!(kafkas(&bytes).unwrap().is_err());
        assert!(kafkas(b"KLMPRODS....").is_none());
        assert!(kafkas(&[]).is_none());
    }
}
