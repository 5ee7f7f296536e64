//! What a shard's writes and syncs cost, and how much each of them carries.
//!
//! ```text
//!   append  append  append          LogProfile, one a log: what is gathered, what is written
//!      \      |      /
//!       round: write ------> sync
//!         |                   |
//!         |  Span             |  Span, and the Round that it committed
//!         v                   v
//!       StoreProfile, one a shard: histograms, and whoever waited asks for the Round
//! ```
//!
//! Nothing here is shared between shards and nothing locks. A profile that is off reads
//! no clock. Only what ended well is counted: a failed write latches its log anyway.

pub mod hgrm;
mod series;

pub use series::{Series, Unit};

use crate::io::Io;
use crate::units::{Nanos, Offset};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// From when to when. Empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub from: Nanos,
    pub to: Nanos,
}

impl Span {
    /// How much of it lies between two moments.
    #[inline]
    #[must_use]
    pub fn within(self, from: Nanos, to: Nanos) -> u64 {
        self.to.min(to).0.saturating_sub(self.from.max(from).0)
    }
}

/// How the newest records that may be acknowledged became so. The sync begins after the
/// write ended: the two never overlap, whatever other rounds do meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub write: Span,
    /// Empty where the topic does not sync before it answers.
    pub sync: Span,
}

impl Round {
    /// When its records could be acknowledged.
    #[inline]
    #[must_use]
    pub fn ended(&self) -> Nanos {
        self.write.to.max(self.sync.to)
    }
}

/// One shard's histograms of its logs.
pub struct StoreProfile {
    series: RefCell<All>,
}

struct All {
    batch_bytes: Series,
    batch_records: Series,
    write: Series,
    write_bytes: Series,
    sync: Series,
    sync_batches: Series,
    sync_bytes: Series,
}

impl StoreProfile {
    /// All of a shard's logs report to one.
    #[must_use]
    pub fn new() -> Rc<StoreProfile> {
        Rc::new(StoreProfile {
            series: RefCell::new(All {
                batch_bytes: Series::new(Unit::Bytes),
                batch_records: Series::new(Unit::Count),
                write: Series::new(Unit::Nanos),
                write_bytes: Series::new(Unit::Bytes),
                sync: Series::new(Unit::Nanos),
                sync_batches: Series::new(Unit::Count),
                sync_bytes: Series::new(Unit::Bytes),
            }),
        })
    }

    /// As they are now, by name.
    #[must_use]
    pub fn copied(&self) -> Vec<(&'static str, Series)> {
        let all = self.series.borrow();
        vec![
            ("batch_bytes", all.batch_bytes.clone()),
            ("batch_records", all.batch_records.clone()),
            ("write", all.write.clone()),
            ("write_bytes", all.write_bytes.clone()),
            ("sync", all.sync.clone()),
            ("sync_batches", all.sync_batches.clone()),
            ("sync_bytes", all.sync_bytes.clone()),
        ]
    }
}

/// A batch, and where it ends.
struct Taken {
    end: Offset,
    records: u64,
    bytes: u64,
}

/// Batches, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    batches: u64,
    bytes: u64,
}

/// What one log's appender reports into. Off by default.
#[derive(Default)]
pub struct LogProfile {
    store: Option<Rc<StoreProfile>>,
    /// Batches that are dirty. They are counted a round at a time: the histograms are
    /// then in the core's cache for all but the first.
    dirty: RefCell<VecDeque<Taken>>,
    /// What is stable and not known to be committed.
    stable: Cell<Amount>,
    written: Cell<Span>,
    synced: Cell<Round>,
}

/// A round that is with the journal, since when.
#[must_use]
pub struct Journaling(Nanos);

/// A sync under way.
#[must_use]
pub struct Syncing {
    from: Nanos,
    write: Span,
    amount: Amount,
}

impl LogProfile {
    #[must_use]
    pub fn new(store: Option<Rc<StoreProfile>>) -> LogProfile {
        LogProfile {
            store,
            ..LogProfile::default()
        }
    }

    /// A batch was taken, and ends before `end`.
    pub fn appended(&self, end: Offset, records: i64, bytes: u64) {
        if self.store.is_some() {
            let records = records.max(0).unsigned_abs();
            let taken = Taken {
                end,
                records,
                bytes,
            };
            self.dirty.borrow_mut().push_back(taken);
        }
    }

    /// A round begins to be written. What it returns goes to [`LogProfile::written`].
    pub fn writing<I: Io>(&self, io: &I) -> Nanos {
        match self.store {
            Some(_) => io.now(),
            None => Nanos(0),
        }
    }

    /// A round's `bytes` are written, padding included: all below `stable` now is.
    pub fn written<I: Io>(&self, io: &I, from: Nanos, stable: Offset, bytes: u64) {
        let Some(store) = &self.store else { return };
        let span = Span { from, to: io.now() };
        self.written.set(span);
        let mut amount = self.stable.get();
        let mut all = store.series.borrow_mut();
        self.count(&mut all, &mut amount, stable);
        self.stable.set(amount);
        all.write.record(span.to.0 - span.from.0);
        all.write_bytes.record(bytes);
    }

    /// A round is given to the journal, which writes and syncs it.
    pub fn journaling<I: Io>(&self, io: &I) -> Journaling {
        Journaling(self.writing(io))
    }

    /// The journal has written such a round, by `written`, and synced it, by `synced`: all
    /// below `committed` now is. What it wrote of others beside is in nobody's bytes.
    pub fn journaled(
        &self,
        journaling: Journaling,
        written: Nanos,
        synced: Nanos,
        committed: Offset,
    ) {
        let Some(store) = &self.store else { return };
        let write = Span {
            from: journaling.0,
            to: written.max(journaling.0),
        };
        let sync = Span {
            from: write.to,
            to: synced.max(write.to),
        };
        self.written.set(write);
        self.synced.set(Round { write, sync });
        let mut all = store.series.borrow_mut();
        let mut amount = self.stable.take();
        let before = amount.bytes;
        self.count(&mut all, &mut amount, committed);
        all.write.record(write.to.0 - write.from.0);
        all.write_bytes.record(amount.bytes - before);
        all.sync.record(sync.to.0 - sync.from.0);
        all.sync_batches.record(amount.batches);
        all.sync_bytes.record(amount.bytes);
    }

    /// What is below `stable` is dirty no more.
    fn count(&self, all: &mut All, amount: &mut Amount, stable: Offset) {
        let mut dirty = self.dirty.borrow_mut();
        while dirty.front().is_some_and(|taken| taken.end <= stable) {
            let taken = dirty.pop_front().expect("just seen");
            amount.batches += 1;
            amount.bytes += taken.bytes;
            all.batch_bytes.record(taken.bytes);
            all.batch_records.record(taken.records);
        }
    }

    /// What is stable now begins to be synced.
    pub fn syncing<I: Io>(&self, io: &I) -> Syncing {
        Syncing {
            from: self.writing(io),
            write: self.written.get(),
            amount: self.stable.get(),
        }
    }

    /// What was stable when the sync began is committed.
    pub fn synced<I: Io>(&self, io: &I, syncing: Syncing) {
        let Some(store) = &self.store else { return };
        let sync = Span {
            from: syncing.from,
            to: io.now(),
        };
        self.synced.set(Round {
            write: syncing.write,
            sync,
        });
        let left = self.stable.get();
        self.stable.set(Amount {
            batches: left.batches.saturating_sub(syncing.amount.batches),
            bytes: left.bytes.saturating_sub(syncing.amount.bytes),
        });
        let mut all = store.series.borrow_mut();
        all.sync.record(sync.to.0 - sync.from.0);
        // A sync of the file's length alone commits no batch.
        if syncing.amount.batches > 0 {
            all.sync_batches.record(syncing.amount.batches);
            all.sync_bytes.record(syncing.amount.bytes);
        }
    }

    /// How what may be acknowledged now came to be so: `committed` where a sync is part
    /// of that.
    #[inline]
    #[must_use]
    pub fn round(&self, committed: bool) -> Round {
        if committed {
            return self.synced.get();
        }
        Round {
            write: self.written.get(),
            sync: Span::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Sim, SimIo};
    use std::time::Duration;

    fn count(store: &StoreProfile, name: &str) -> (u64, u64) {
        let all = store.copied();
        let (_, series) = all.iter().find(|(n, _)| *n == name).expect("a series");
        (series.count(), series.sum())
    }

    async fn later(io: &SimIo) -> Nanos {
        io.sleep(Duration::from_millis(1)).await;
        io.now()
    }

    #[test]
    fn a_sync_is_charged_with_what_was_stable_when_it_began() {
        let sim = Sim::from_seed(1);
        let io = sim.io();
        let store = StoreProfile::new();
        let log = LogProfile::new(Some(store.clone()));
        sim.run(async {
            log.appended(Offset(10), 10, 1000);
            log.appended(Offset(20), 10, 2000);
            let first = log.writing(&io);
            log.appended(Offset(30), 10, 4000);
            later(&io).await;
            log.written(&io, first, Offset(20), 4096);
            let written = log.round(false).write;
            assert!(written.from == first && written.to > first);
            // The next round is written while the first one is synced.
            let syncing = log.syncing(&io);
            let second = log.writing(&io);
            later(&io).await;
            log.written(&io, second, Offset(30), 4096);
            later(&io).await;
            log.synced(&io, syncing);
            let round = log.round(true);
            assert_eq!(round.write, written, "the write that this sync committed");
            assert!(round.write.to <= round.sync.from);
            assert_eq!(count(&store, "sync_batches"), (1, 2));
            assert_eq!(count(&store, "sync_bytes"), (1, 3000));
            let syncing = log.syncing(&io);
            log.synced(&io, syncing);
            assert_eq!(count(&store, "sync_batches"), (2, 3));
            assert_eq!(count(&store, "sync_bytes"), (2, 7000));
            // Nothing new: the sync counts, and no group of batches.
            let syncing = log.syncing(&io);
            log.synced(&io, syncing);
            assert_eq!(count(&store, "sync").0, 3);
            assert_eq!(count(&store, "sync_batches").0, 2);
            assert_eq!(count(&store, "batch_records"), (3, 30));
            assert_eq!(count(&store, "write_bytes"), (2, 8192));
        });
    }

    #[test]
    fn a_span_counts_only_where_somebody_waited() {
        let span = Span {
            from: Nanos(10),
            to: Nanos(20),
        };
        assert_eq!(span.within(Nanos(0), Nanos(100)), 10);
        assert_eq!(span.within(Nanos(15), Nanos(100)), 5);
        assert_eq!(span.within(Nanos(0), Nanos(12)), 2);
        assert_eq!(span.within(Nanos(20), Nanos(30)), 0);
        assert_eq!(Span::default().within(Nanos(0), Nanos(30)), 0);
    }
}
