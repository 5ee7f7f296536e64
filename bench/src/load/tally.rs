//! What a thread counts while it works.
//!
//! ```text
//!   answer --> Tally: counts, latencies, and the same for its second --\
//!   another thread's ---------------------------------------------------+-> Measurement
//! ```

use crate::Outcome;
use crate::measurement::{LATENCY_MAX, Second};
use hdrhistogram::Histogram;
use std::time::Duration;

/// In nanoseconds from the round's start.
pub type Nanos = u64;

/// The totals are kept to three digits, a second's to two: 30 KiB each.
const DIGITS: u8 = 3;
const DIGITS_OF_A_SECOND: u8 = 2;

pub struct Tally {
    pub requests: u64,
    pub records: u64,
    pub bytes: u64,
    pub latency: Histogram<u64>,
    course: Vec<Part>,
    /// When the last of it came.
    pub last: Nanos,
}

struct Part {
    records: u64,
    bytes: u64,
    latency: Histogram<u64>,
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            requests: 0,
            records: 0,
            bytes: 0,
            latency: histogram(DIGITS),
            course: Vec::new(),
            last: 0,
        }
    }

    /// So much has come, now.
    pub fn came(&mut self, now: Nanos, requests: u64, records: u64, bytes: u64) {
        self.requests += requests;
        self.records += records;
        self.bytes += bytes;
        self.last = self.last.max(now);
        let part = self.part(now);
        part.records += records;
        part.bytes += bytes;
    }

    /// So many took so long.
    pub fn took(&mut self, now: Nanos, latency: Nanos, count: u64) {
        self.latency.saturating_record_n(latency, count);
        self.part(now).latency.saturating_record_n(latency, count);
    }

    fn part(&mut self, now: Nanos) -> &mut Part {
        let second = usize::try_from(now / 1_000_000_000).expect("a round is short");
        while self.course.len() <= second {
            self.course.push(Part {
                records: 0,
                bytes: 0,
                latency: histogram(DIGITS_OF_A_SECOND),
            });
        }
        &mut self.course[second]
    }

    /// Another thread's, of the same round.
    pub fn add(&mut self, other: &Tally) -> Outcome {
        let failed = |e| format!("histograms: {e}");
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        self.last = self.last.max(other.last);
        self.latency.add(&other.latency).map_err(failed)?;
        for (second, theirs) in (0_u64..).zip(&other.course) {
            let ours = self.part(second * 1_000_000_000);
            ours.records += theirs.records;
            ours.bytes += theirs.bytes;
            ours.latency.add(&theirs.latency).map_err(failed)?;
        }
        Ok(())
    }

    pub fn course(&self) -> Vec<Second> {
        let second = |part: &Part| {
            let at =
                |percentile| Duration::from_nanos(part.latency.value_at_percentile(percentile));
            Second {
                records: part.records,
                bytes: part.bytes,
                p50: at(50.0),
                p99: at(99.0),
                max: at(100.0),
            }
        };
        self.course.iter().map(second).collect()
    }
}

fn histogram(digits: u8) -> Histogram<u64> {
    let max = u64::try_from(LATENCY_MAX.as_nanos()).expect("two minutes");
    Histogram::new_with_bounds(1, max, digits).expect("bounds that a histogram can have")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn threads_are_added_second_by_second() {
        let (mut one, mut two) = (Tally::new(), Tally::new());
        one.came(SECOND / 2, 1, 10, 1000);
        one.took(SECOND / 2, 2_000_000, 1);
        two.came(2 * SECOND, 2, 20, 2000);
        two.took(2 * SECOND, 4_000_000, 2);
        one.add(&two).unwrap();
        assert_eq!((one.requests, one.records, one.bytes), (3, 30, 3000));
        assert_eq!((one.last, one.latency.len()), (2 * SECOND, 3));
        let course = one.course();
        let bytes: Vec<u64> = course.iter().map(|second| second.bytes).collect();
        assert_eq!(bytes, [1000, 0, 2000]);
        assert_eq!(course[1].max, Duration::ZERO);
        let off = course[2].p50.abs_diff(Duration::from_millis(4));
        assert!(off < Duration::from_micros(40), "{off:?}");
    }

    #[test]
    fn what_takes_longer_than_a_histogram_has_is_kept_at_its_end() {
        let mut tally = Tally::new();
        tally.took(0, Nanos::MAX, 1);
        assert!(tally.latency.max() >= 120 * SECOND);
    }
}
