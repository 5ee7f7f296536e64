//! What a partition remembers of its idempotent producers: enough to tell a retry
//! from a gap, and an old incarnation from the newest.
//!
//! ```text
//!   producer 7, epoch 2   | 0-4 | 5-9 | 10-10 | 11-14 | 15-19 |    last 5 batches
//!                                              ^ sequence numbers, with their offsets
//!     batch 11-14 again    Duplicate: answered with the offsets it has
//!     batch 20-..          Fresh
//!     batch 22-..          OutOfOrderSequence: 20 and 21 are missing
//!     epoch 1              InvalidProducerEpoch: fenced
//!     epoch 3              Fresh if it starts at 0
//!   producer 8             Fresh, wherever it starts: it may only be forgotten
//! ```
//!
//! A client has at most 5 requests in flight (`max.in.flight.requests.per.connection`),
//! so 5 batches are what it can ask about again. After sequence `i32::MAX` comes 0.
//!
//! Pure: no I/O, no clock. Every batch that enters the log goes through
//! [`ProducerState::apply`], at append and at recovery alike, so both end in the
//! same state. Retention and DeleteRecords leave it alone: a producer that pauses
//! longer than its records are kept may still go on (KIP-360, as Kafka since 2.4);
//! only `producer.id.expiration.ms` forgets it.
//!
//! Source: `ProducerStateManager.java`, `ProducerAppendInfo.java` of the Kafka tree.

mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::SnapshotError;

use crate::batch::{BatchHeader, sequence_plus};
use crate::units::{Offset, ProducerEpoch, ProducerId, TimestampMs};
use std::collections::BTreeMap;
use std::fmt;

/// Batches remembered of one producer.
pub const BATCHES_KEPT: usize = 5;

/// The producers of one partition.
#[derive(Clone, Debug, Default)]
pub struct ProducerState {
    /// Ordered, so that equal states have equal snapshots.
    producers: BTreeMap<ProducerId, Producer>,
    /// Every batch below this offset was applied, none above.
    next_offset: Offset,
    /// A cut at or above this one can be undone from what is remembered.
    exact_from: Offset,
}

/// One producer's newest incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    pub epoch: ProducerEpoch,
    /// The largest epoch of a transaction coordinator that ended one of its
    /// transactions here; -1: none did.
    pub coordinator_epoch: i32,
    /// Of its last batch or marker: what expiry counts from.
    pub last_timestamp: TimestampMs,
    /// Where its open transaction begins, if one is open.
    pub current_txn_first_offset: Option<Offset>,
    /// Oldest first; all of `epoch`.
    batches: Kept,
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendedBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub timestamp: TimestampMs,
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Append it.
    Fresh,
    /// It is in the log: answer with where it is, append nothing.
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
        timestamp: TimestampMs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER, 45.
    OutOfOrderSequence {
        producer: ProducerId,
        epoch: ProducerEpoch,
        is: i32,
        expected: i32,
    },
    /// INVALID_PRODUCER_EPOCH, 47.
    InvalidProducerEpoch {
        producer: ProducerId,
        is: ProducerEpoch,
        current: ProducerEpoch,
    },
}

impl fmt::Display for SequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SequenceError::OutOfOrderSequence {
                producer,
                epoch,
                is,
                expected,
            } => write!(
                f,
                "producer {producer} epoch {epoch}: sequence {is} came where {expected} was next"
            ),
            SequenceError::InvalidProducerEpoch {
                producer,
                is,
                current,
            } => {
                write!(
                    f,
                    "producer {producer}: epoch {is} is fenced by epoch {current}"
                )
            }
        }
    }
}

impl std::error::Error for SequenceError {}

impl ProducerState {
    /// Of a log that has nothing below `start`.
    #[must_use]
    pub fn new(start: Offset) -> ProducerState {
        ProducerState {
            next_offset: start,
            exact_from: start,
            ..ProducerState::default()
        }
    }

    /// Whether a client's batch may be appended. Changes nothing; the caller stamps,
    /// then [`ProducerState::apply`]s. Duplicates come first: a retry is one whatever
    /// happened since. `first` and `last` are not negative.
    pub fn check(
        &self,
        id: ProducerId,
        epoch: ProducerEpoch,
        first: i32,
        last: i32,
    ) -> Result<Check, SequenceError> {
        let Some(producer) = self.producers.get(&id) else {
            return Ok(Check::Fresh);
        };
        if epoch < producer.epoch {
            let current = producer.epoch;
            return Err(SequenceError::InvalidProducerEpoch {
                producer: id,
                is: epoch,
                current,
            });
        }
        let mut expected = 0;
        if epoch == producer.epoch {
            if let Some(b) = producer.batches().iter().rfind(|b| b.is(first, last)) {
                let AppendedBatch {
                    base_offset,
                    last_offset,
                    timestamp,
                    ..
                } = *b;
                return Ok(Check::Duplicate {
                    base_offset,
                    last_offset,
                    timestamp,
                });
            }
            // None where a marker brought the epoch: its first batch starts at 0.
            if let Some(newest) = producer.batches().last() {
                expected = sequence_plus(newest.last_sequence, 1);
            }
        }
        if first != expected {
            return Err(SequenceError::OutOfOrderSequence {
                producer: id,
                epoch,
                is: first,
                expected,
            });
        }
        Ok(Check::Fresh)
    }

    /// A stamped batch that is now in the log; of every batch, whether idempotent or
    /// not, in the log's order. Trusts the log: nothing is refused here.
    pub fn apply(&mut self, batch: &BatchHeader) {
        assert!(
            batch.base_offset() >= self.next_offset,
            "batches apply in the log's order"
        );
        self.next_offset = batch.next_offset();
        if !batch.has_producer_id() {
            return;
        }
        if batch.is_control() {
            self.apply_marker(batch);
            return;
        }
        let appended = AppendedBatch {
            first_sequence: batch.base_sequence(),
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset(),
            timestamp: batch.max_timestamp(),
        };
        let producer = self.incarnation(batch.producer_id(), batch.producer_epoch());
        producer.batches.push(appended);
        producer.last_timestamp = appended.timestamp;
        if batch.is_transactional() && producer.current_txn_first_offset.is_none() {
            producer.current_txn_first_offset = Some(appended.base_offset);
        }
    }

    /// A transaction's end. It has no sequence, and may bring a newer epoch.
    fn apply_marker(&mut self, batch: &BatchHeader) {
        // Which transaction it closed is not remembered.
        self.exact_from = batch.next_offset();
        let producer = self.incarnation(batch.producer_id(), batch.producer_epoch());
        producer.current_txn_first_offset = None;
        producer.last_timestamp = batch.max_timestamp();
    }

    /// The producer, at `epoch`: another epoch forgets the batches of the one before.
    fn incarnation(&mut self, id: ProducerId, epoch: ProducerEpoch) -> &mut Producer {
        let producer = self
            .producers
            .entry(id)
            .or_insert_with(|| Producer::new(epoch));
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches = Kept::default();
        }
        producer
    }

    /// Up to where the log was applied: a snapshot's offset, and where replay goes on.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The log begins at `start` now; a state that ends before it has missed nothing
    /// that is still there.
    pub fn advance_to(&mut self, start: Offset) {
        self.next_offset = self.next_offset.max(start);
    }

    /// Forgets producers whose last batch is `expiration_ms` old or older, but none
    /// with an open transaction (`producer.id.expiration.ms`). Returns how many.
    pub fn expire(&mut self, now: TimestampMs, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.current_txn_first_offset.is_some()
                || now.0.saturating_sub(producer.last_timestamp.0) < expiration_ms
        });
        before - self.producers.len()
    }

    /// The log was cut: `offset` and all behind it are gone.
    ///
    /// True: this is now the state as of `offset`. False: what was cut reaches behind
    /// what is remembered (a batch of a producer with five, all batches of a producer, a
    /// marker), and the state was emptied: the caller loads a snapshot not above `offset`, or starts
    /// with [`ProducerState::new`], and replays.
    #[must_use]
    pub fn truncate_to(&mut self, offset: Offset) -> bool {
        if offset >= self.next_offset {
            return true;
        }
        let from = self.exact_from;
        let exact = offset >= from
            && self
                .producers
                .values_mut()
                .all(|producer| producer.truncate_to(offset, from));
        if exact {
            self.next_offset = offset;
        } else {
            *self = ProducerState::default();
        }
        exact
    }

    #[must_use]
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.producers.get(&id)
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ProducerId, &Producer)> {
        self.producers.iter().map(|(&id, producer)| (id, producer))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Where the oldest open transaction begins: the last stable offset's bound.
    #[must_use]
    pub fn first_open_txn_offset(&self) -> Option<Offset> {
        self.producers
            .values()
            .filter_map(|producer| producer.current_txn_first_offset)
            .min()
    }
}

/// Equal states answer alike. How far back each may be cut is not asked: that is of
/// how it came to be.
impl PartialEq for ProducerState {
    fn eq(&self, other: &ProducerState) -> bool {
        self.next_offset == other.next_offset && self.producers == other.producers
    }
}

impl Eq for ProducerState {}

impl Producer {
    fn new(epoch: ProducerEpoch) -> Producer {
        Producer {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: TimestampMs::NONE,
            current_txn_first_offset: None,
            batches: Kept::default(),
        }
    }

    /// Oldest first.
    #[must_use]
    pub fn batches(&self) -> &[AppendedBatch] {
        self.batches.as_slice()
    }

    /// Whether what is left tells the state at `offset`; nothing is known of markers
    /// below `exact_from`, which change a producer too.
    fn truncate_to(&mut self, offset: Offset, exact_from: Offset) -> bool {
        let Some(&newest) = self.batches().last() else {
            return true;
        };
        if newest.last_offset < offset {
            return true;
        }
        // A full set has pushed out older ones that the cut would bring back.
        if self.batches.len == BATCHES_KEPT {
            return false;
        }
        self.batches.len = self
            .batches()
            .partition_point(|batch| batch.last_offset < offset);
        if self
            .current_txn_first_offset
            .is_some_and(|first| first >= offset)
        {
            self.current_txn_first_offset = None;
        }
        match self.batches().last() {
            Some(left) if left.last_offset >= exact_from => {
                self.last_timestamp = left.timestamp;
                true
            }
            _ => false,
        }
    }
}

impl AppendedBatch {
    fn is(&self, first: i32, last: i32) -> bool {
        self.first_sequence == first && self.last_sequence == last
    }
}

/// The last batches, in place: a partition may have 100,000 producers, and one
/// allocation each would cost more than the 200 bytes do.
#[derive(Clone, Debug, Default)]
struct Kept {
    batches: [AppendedBatch; BATCHES_KEPT],
    len: usize,
}

impl Kept {
    fn as_slice(&self) -> &[AppendedBatch] {
        &self.batches[..self.len]
    }

    fn push(&mut self, batch: AppendedBatch) {
        if self.len == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        self.batches[self.len] = batch;
        self.len += 1;
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Kept {}
