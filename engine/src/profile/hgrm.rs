//! HdrHistogram's own text form, which its plotters read: percentiles by value.
//!
//! ```text
//!        Value     Percentile TotalCount 1/(1-Percentile)
//!
//!       12.096 0.000000000000          1           1.00
//!       ...
//! #[Mean    = ...        #[Max     = ...        #[Buckets = ...
//! ```

use hdrhistogram::Histogram;
use std::fmt::Write as _;

/// Ticks for each halving of the distance to 100 %, as HdrHistogram's own tools have it.
const TICKS: u32 = 5;

/// A point of the distribution.
pub struct Percentile {
    /// 0 to 1.
    pub quantile: f64,
    pub value: f64,
    /// So many were not above.
    pub count: u64,
}

/// From the least to the greatest, closer together towards the great end. Values are
/// divided by `scale`.
pub fn percentiles(histogram: &Histogram<u64>, scale: f64) -> impl Iterator<Item = Percentile> {
    let mut count = 0;
    histogram.iter_quantiles(TICKS).map(move |step| {
        count += step.count_since_last_iteration();
        Percentile {
            quantile: step.quantile_iterated_to(),
            value: step.value_iterated_to() as f64 / scale,
            count,
        }
    })
}

/// A whole file, its values divided by `scale`.
#[must_use]
pub fn text(histogram: &Histogram<u64>, scale: f64) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for point in percentiles(histogram, scale) {
        let (value, quantile, count) = (point.value, point.quantile, point.count);
        // A write to a String does not fail.
        let _ = write!(text, "{value:12.3} {quantile:1.12} {count:10}");
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        histogram.mean() / scale,
        histogram.stdev() / scale,
        histogram.max() as f64 / scale,
        histogram.len(),
        histogram.buckets(),
        sub_buckets(histogram),
    );
    text
}

/// Twice ten to the digits kept, and up to a power of two.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(histogram.sigfig().into())).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    fn latencies() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("bounds")
    }

    #[test]
    fn percentiles_are_as_hdrhistogram_prints_them() {
        let mut latency = latencies();
        // 1 to 1000 ms: percentile p is at 10 p ms.
        (1..=1000).for_each(|ms| latency.record(ms * 1_000_000).unwrap());
        let text = text(&latency, MS);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "       Value     Percentile TotalCount 1/(1-Percentile)"
        );
        assert_eq!(lines[1], "");
        assert_eq!(
            lines[2],
            "       1.000 0.000000000000          1           1.00"
        );
        let median = lines.iter().find(|line| line.contains(" 0.5000000"));
        let median: Vec<&str> = median.unwrap().split_whitespace().collect();
        assert_eq!(&median[2..], ["500", "2.00"]);
        let value: f64 = median[0].parse().unwrap();
        assert!((value - 500.0).abs() < 0.5, "{value}");
        let last = lines[lines.len() - 4];
        assert!(last.ends_with(" 1.000000000000       1000"), "{last:?}");
        assert!(
            lines[lines.len() - 3].starts_with("#[Mean    =      500."),
            "{text}"
        );
        assert!(
            lines[lines.len() - 2].ends_with("Total count    =         1000]"),
            "{text}"
        );
        assert_eq!(
            lines[lines.len() - 1],
            format!(
                "#[Buckets = {:12}, SubBuckets     =         2048]",
                latency.buckets()
            )
        );
        let counts: Vec<u64> = percentiles(&latency, MS).map(|p| p.count).collect();
        assert!(counts.is_sorted() && counts.last() == Some(&1000));
    }

    #[test]
    fn nothing_measured_is_no_line_but_the_frame() {
        let text = text(&latencies(), MS);
        assert!(text.contains("Total count    =            0]"), "{text}");
    }
}
