//! One histogram of fixed size, with the exact sum of what it was given.
//!
//! Two significant digits: a value is kept to within 1 %. Times from 64 ns to beyond an
//! hour take (256 + 30 * 128) counts of 8 bytes, 31 KiB; sizes to 1 TiB take 33 KiB. What
//! is above counts as the highest, and nothing is ever allocated while it records.

use hdrhistogram::Histogram;

/// What the values of a series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanos,
    Bytes,
    Count,
}

const SIGNIFICANT_DIGITS: u8 = 2;

/// Below it a clock that is read through the vDSO says little.
const NANOS_MIN: u64 = 64;
const NANOS_MAX: u64 = 2 * 3600 * 1_000_000_000;
const AMOUNT_MAX: u64 = 1 << 40;

#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    unit: Unit,
    histogram: Histogram<u64>,
    sum: u64,
}

impl Series {
    #[must_use]
    pub fn new(unit: Unit) -> Series {
        let (low, high) = match unit {
            Unit::Nanos => (NANOS_MIN, NANOS_MAX),
            Unit::Bytes | Unit::Count => (1, AMOUNT_MAX),
        };
        let histogram = Histogram::new_with_bounds(low, high, SIGNIFICANT_DIGITS);
        Series {
            unit,
            histogram: histogram.expect("the bounds are constants, and right"),
            sum: 0,
        }
    }

    /// One that was recorded elsewhere. `Err` where the histogram is not of that unit's
    /// bounds: it could not be added to others.
    pub fn from_parts(
        unit: Unit,
        histogram: Histogram<u64>,
        sum: u64,
    ) -> Result<Series, &'static str> {
        let own = Series::new(unit).histogram;
        let bounds = |h: &Histogram<u64>| (h.low(), h.high(), h.sigfig(), h.distinct_values());
        if bounds(&own) != bounds(&histogram) {
            return Err("a histogram has other bounds than its unit's");
        }
        Ok(Series {
            unit,
            histogram,
            sum,
        })
    }

    #[inline]
    pub fn record(&mut self, value: u64) {
        self.histogram.saturating_record(value);
        self.sum = self.sum.saturating_add(value);
    }

    /// Takes in what another shard has recorded of the same thing.
    pub fn add(&mut self, other: &Series) {
        assert_eq!(self.unit, other.unit, "one thing has one unit");
        let added = self.histogram.add(&other.histogram);
        added.expect("all of a unit have the same bounds");
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What came since `earlier`, which is an older state of this series. None where it
    /// is not.
    #[must_use]
    pub fn since(&self, earlier: &Series) -> Option<Series> {
        let mut since = self.clone();
        since.sum = self.sum.checked_sub(earlier.sum)?;
        since.histogram.subtract(&earlier.histogram).ok()?;
        (self.unit == earlier.unit).then_some(since)
    }

    pub fn unit(&self) -> Unit {
        self.unit
    }

    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Exact, unlike what the histogram itself could say.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Series {
        let mut series = Series::new(Unit::Nanos);
        values.iter().for_each(|v| series.record(*v));
        series
    }

    #[test]
    fn shards_add_up_to_what_one_would_have_recorded() {
        let mut merged = of(&[100, 2_000, 30_000]);
        merged.add(&of(&[400_000, 5_000_000]));
        assert_eq!(merged, of(&[100, 2_000, 30_000, 400_000, 5_000_000]));
        assert_eq!(merged.sum(), 5_432_100);
    }

    #[test]
    fn an_interval_is_the_later_state_without_the_earlier() {
        let earlier = of(&[1_000, 9_000_000]);
        let later = of(&[1_000, 9_000_000, 5_000, 7_000]);
        let between = later.since(&earlier).expect("an older state");
        assert_eq!((between.count(), between.sum()), (2, 12_000));
        assert!(between.histogram().max() < 8_000);
        assert!(earlier.since(&later).is_none(), "not an older state");
    }

    #[test]
    fn what_is_beyond_the_bounds_counts_as_the_highest() {
        let series = of(&[0, u64::MAX]);
        assert_eq!(series.count(), 2);
        assert_eq!(series.sum(), u64::MAX);
        let highest = series.histogram().max();
        assert!(highest >= NANOS_MAX, "{highest}");
    }

    #[test]
    fn a_value_is_kept_to_within_a_hundredth() {
        for value in [64, 999, 12_345, 999_999, 123_456_789, 3_600_000_000_000] {
            let kept = of(&[value]).histogram().value_at_quantile(1.0);
            assert!(kept.abs_diff(value) <= 64 + value / 100, "{value}: {kept}");
        }
    }

    #[test]
    fn foreign_bounds_are_not_taken() {
        let foreign = Histogram::new_with_bounds(1, 1000, 3).expect("bounds");
        assert!(Series::from_parts(Unit::Nanos, foreign, 0).is_err());
        let own = of(&[77]);
        let again = Series::from_parts(Unit::Nanos, own.histogram().clone(), own.sum());
        assert_eq!(again, Ok(own));
    }
}
