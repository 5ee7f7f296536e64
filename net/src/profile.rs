//! What the broker has measured of itself, on its way to who asks.
//!
//! ```text
//!   shard 0   shard 1   ...      each copies its histograms when it is asked
//!       \        |
//!        Snapshot (merged) --wire--> DATA/klamm.sock --> klamm profile
//!            |
//!          group  name   series
//!          Produce total, queue, hop, append, write, sync, wait, handle, send, ...
//!          engine  batch_bytes, write, sync, sync_batches, ...
//!          shard   timer, turn
//! ```
//!
//! Merging, encoding and sending are done by a thread of their own: a shard pays for the
//! copying alone, a group at a time.

pub mod socket;
pub mod wire;

use klamm_engine::profile::Series;
use klamm_engine::units::Nanos;
use std::borrow::Cow;
use std::time::Duration;

/// The group of what the logs report.
pub const ENGINE: &str = "engine";
/// The group of what the scheduler does.
pub const SHARD: &str = "shard";

/// One histogram and what it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub group: Cow<'static, str>,
    pub name: Cow<'static, str>,
    pub series: Series,
}

/// The histograms of one shard or of all, as they were at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// When the broker began to record, and when this was taken, on the broker's clock.
    pub began: Nanos,
    pub taken: Nanos,
    pub shards: u16,
    pub entries: Vec<Entry>,
}

impl Snapshot {
    /// How long it is of.
    #[must_use]
    pub fn span(&self) -> Duration {
        Duration::from_nanos(self.taken.0.saturating_sub(self.began.0))
    }

    /// All shards' as one, in the order in which groups and names first come.
    #[must_use]
    pub fn merged(shards: Vec<Snapshot>) -> Option<Snapshot> {
        let mut shards = shards.into_iter();
        let mut merged = shards.next()?;
        for shard in shards {
            merged.began = merged.began.min(shard.began);
            merged.taken = merged.taken.max(shard.taken);
            merged.shards += shard.shards;
            for entry in shard.entries {
                match merged.find_mut(&entry) {
                    Some(known) => known.series.add(&entry.series),
                    None => merged.entries.push(entry),
                }
            }
        }
        Some(merged)
    }

    fn find_mut(&mut self, like: &Entry) -> Option<&mut Entry> {
        let mut entries = self.entries.iter_mut();
        entries.find(|e| e.group == like.group && e.name == like.name)
    }

    #[must_use]
    pub fn get(&self, group: &str, name: &str) -> Option<&Series> {
        let mut entries = self.entries.iter();
        let found = entries.find(|e| e.group == group && e.name == name)?;
        Some(&found.series)
    }

    /// What came since an earlier one. None where that is not of the same run of the
    /// broker.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Option<Snapshot> {
        if earlier.began != self.began {
            return None;
        }
        let entries = self.entries.iter().map(|entry| {
            let series = match earlier.get(&entry.group, &entry.name) {
                Some(before) => entry.series.since(before)?,
                None => entry.series.clone(),
            };
            Some(Entry {
                series,
                ..entry.clone()
            })
        });
        Some(Snapshot {
            began: earlier.taken,
            taken: self.taken,
            shards: self.shards,
            entries: entries.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::profile::Unit;

    pub fn snapshot(taken: u64, entries: &[(&'static str, &'static str, &[u64])]) -> Snapshot {
        let entries = entries.iter().map(|(group, name, values)| {
            let mut series = Series::new(Unit::Nanos);
            values.iter().for_each(|v| series.record(*v));
            Entry {
                group: (*group).into(),
                name: (*name).into(),
                series,
            }
        });
        Snapshot {
            began: Nanos(1_000),
            taken: Nanos(taken),
            shards: 1,
            entries: entries.collect(),
        }
    }

    #[test]
    fn shards_that_served_other_apis_are_merged_by_name() {
        let left = snapshot(5_000, &[("Produce", "total", &[700, 900])]);
        let right = snapshot(
            6_000,
            &[("Fetch", "total", &[50_000]), ("Produce", "total", &[300])],
        );
        let merged = Snapshot::merged(vec![left, right]).expect("two");
        assert_eq!(merged.shards, 2);
        assert_eq!(merged.span(), Duration::from_nanos(5_000));
        let produce = merged.get("Produce", "total").expect("there");
        assert_eq!((produce.count(), produce.sum()), (3, 1_900));
        let fetch = merged.get("Fetch", "total").expect("there");
        assert_eq!((fetch.count(), fetch.sum()), (1, 50_000));
        assert!(Snapshot::merged(Vec::new()).is_none());
    }

    #[test]
    fn an_interval_has_what_is_new_and_only_that() {
        let earlier = snapshot(5_000, &[("Produce", "total", &[700])]);
        let later = snapshot(
            9_000,
            &[
                ("Produce", "total", &[700, 900]),
                ("Fetch", "total", &[100]),
            ],
        );
        let between = later.since(&earlier).expect("the same run");
        assert_eq!(between.span(), Duration::from_nanos(4_000));
        assert_eq!(between.get("Produce", "total").map(Series::sum), Some(900));
        assert_eq!(between.get("Fetch", "total").map(Series::sum), Some(100));
        assert_eq!(earlier.since(&later), None, "time goes forward");
        let restarted = Snapshot {
            began: Nanos(8_000),
            ..later
        };
        assert_eq!(restarted.since(&earlier), None, "another run");
    }
}
