//! What one partition has promised, kept outside of the machine, and the checks of it.
//!
//! ```text
//!   offsets   0 ........ deleted ........ must ........ records.len()
//!                        |                |             |
//!                        gone for good    acknowledged  appended, and may go in a crash
//!                                         or seen
//! ```

use klamm_engine::batch::{BatchBuilder, Batches};
use klamm_engine::codec::Codec;
use klamm_engine::io::sim::Rng;
use klamm_engine::partition::Offsets;
use klamm_engine::units::{Offset, ProducerEpoch, ProducerId, TimestampMs};

/// A promise that was broken, in words.
pub type Broken = String;

pub struct Ledger {
    /// By offset: which record was put there. A record's number says its bytes.
    records: Vec<u64>,
    /// Below it everything was acknowledged, or seen by a reader.
    must: i64,
    /// DeleteRecords was answered with it.
    pub deleted: i64,
    /// The largest offset that a deletion was ever asked for, or that retention reached.
    pub deleted_at_most: i64,
    /// Retention is under way, or waits for its turn: it reaches as far as the log does.
    pub retaining: bool,
    pub producers: Vec<Producer>,
}

/// An idempotent producer as its client knows it.
#[derive(Clone)]
pub struct Producer {
    pub id: i64,
    pub next_sequence: i32,
    pub batches: Vec<Sent>,
}

/// A batch that was sent and taken.
#[derive(Clone)]
pub struct Sent {
    pub sequence: i32,
    pub numbers: Vec<u64>,
    pub base: i64,
}

/// The bytes of a record: its number, and as many bytes behind it as the number says.
pub fn value_of(number: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed(number);
    let len = match rng.below(20) {
        0 => rng.between(2000, 6000),
        1..=4 => rng.between(400, 1200),
        _ => rng.between(8, 120),
    };
    let mut value = vec![0; len as usize];
    rng.fill(&mut value);
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// A batch of records; the same numbers make the same batch.
pub fn batch_of(numbers: &[u64], producer: Option<(i64, i32)>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), sequence);
    }
    for number in numbers {
        let timestamp = TimestampMs(1_767_225_600_000 + (number % 1000) as i64);
        builder = builder.record(timestamp, None, Some(&value_of(*number)));
    }
    builder.finish()
}

impl Ledger {
    pub fn new(producers: usize) -> Ledger {
        let producer = |id| Producer {
            id,
            next_sequence: 0,
            batches: Vec::new(),
        };
        Ledger {
            records: Vec::new(),
            must: 0,
            deleted: 0,
            deleted_at_most: 0,
            retaining: false,
            producers: (1..=producers as i64).map(producer).collect(),
        }
    }

    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    pub fn appended(&mut self, base: Offset, numbers: &[u64]) -> Result<(), Broken> {
        if base.0 != self.end() {
            return Err(format!("appended at {base}, and {} was next", self.end()));
        }
        self.records.extend_from_slice(numbers);
        if self.retaining {
            self.deleted_at_most = self.end();
        }
        Ok(())
    }

    pub fn acknowledged(&mut self, upto: Offset) {
        self.must = self.must.max(upto.0);
    }

    /// What a reader was given: right, in order, and from now on there for good. Returns
    /// the offset to go on from.
    pub fn seen(&mut self, from: Offset, bytes: &[u8]) -> Result<Offset, Broken> {
        let mut next = from.0;
        for batch in Batches::new(bytes) {
            let batch = batch.map_err(|e| format!("a fetch at {from}: {e}"))?;
            batch
                .verify_crc()
                .map_err(|e| format!("a fetch at {from}: {e}"))?;
            for record in batch.records(batch.records_bytes()) {
                let record = record.map_err(|e| format!("a fetch at {from}: {e}"))?;
                let offset = batch.offset_of(&record).0;
                if offset < next {
                    continue; // the front of the batch that `from` is in
                }
                if offset != next {
                    return Err(format!("a fetch at {from}: {offset} where {next} is next"));
                }
                let Some(&number) = self.records.get(offset as usize) else {
                    return Err(format!("a fetch at {from}: {offset} was never appended"));
                };
                if record.value != Some(&value_of(number)) {
                    return Err(format!("a fetch at {from}: another record at {offset}"));
                }
                next = offset + 1;
            }
        }
        self.must = self.must.max(next);
        Ok(Offset(next))
    }

    /// The log as it was opened again.
    pub fn opened(&mut self, offsets: &Offsets) -> Result<(), Broken> {
        let (start, end) = (offsets.log_start.0, offsets.log_end.0);
        self.retaining = false;
        if offsets.high_watermark.0 != end {
            return Err(format!(
                "opened with a high watermark of {} and the end {end}",
                offsets.high_watermark
            ));
        }
        if end < self.must {
            return Err(format!(
                "lost: the log ends at {end}, and all below {} was acknowledged or seen",
                self.must
            ));
        }
        if end > self.end() {
            return Err(format!("the log ends at {end}, beyond {}", self.end()));
        }
        if start < self.deleted || start > self.deleted_at_most {
            return Err(format!(
                "the log starts at {start}, and {} to {} was deleted",
                self.deleted, self.deleted_at_most
            ));
        }
        self.records.truncate(end as usize);
        for producer in &mut self.producers {
            producer
                .batches
                .retain(|sent| sent.base + (sent.numbers.len() as i64) <= end);
            producer.next_sequence = match producer.batches.last() {
                Some(last) => last.sequence + last.numbers.len() as i32,
                None => 0,
            };
        }
        Ok(())
    }

    /// A stop in order keeps everything.
    pub fn closed(&mut self) {
        self.must = self.end();
    }
}
