//! A measurement as text for other programs: HdrHistogram's percentiles, and CSV.
//!
//! ```text
//!   .hgrm       Value Percentile TotalCount 1/(1-Percentile), then #[Mean ...] lines:
//!               what HdrHistogram prints and its plotter opens; values in milliseconds
//!   .csv        second,records,bytes,p50_ms,p99_ms,max_ms      the course of a round
//!   -percentiles.csv   percentile,latency_ms,count
//! ```

use crate::measurement::Measurement;
use hdrhistogram::Histogram;
use std::fmt::Write as _;
use std::time::Duration;

/// As many lines each time the distance to 100 % is halved as HdrHistogram's own logs.
const TICKS: u32 = 5;

const NANOS_A_MS: f64 = 1e6;

/// Latencies in nanoseconds, as HdrHistogram's percentile output has them in milliseconds.
pub fn hgrm(latency: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for point in percentiles(latency) {
        let (ms, percentile, count) = (point.ms, point.quantile, point.count);
        // A write to a String does not fail.
        let _ = write!(text, "{ms:12.3} {percentile:1.12} {count:10}");
        let _ = match percentile < 1.0 {
            true => writeln!(text, " {:14.2}", 1.0 / (1.0 - percentile)),
            false => writeln!(text),
        };
    }
    let sub_buckets = sub_buckets(latency);
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        latency.mean() / NANOS_A_MS,
        latency.stdev() / NANOS_A_MS,
        latency.max() as f64 / NANOS_A_MS,
        latency.len(),
        latency.buckets(),
        sub_buckets,
    );
    text
}

/// Twice ten to the digits kept, and up to a power of two.
fn sub_buckets(latency: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(latency.sigfig().into())).next_power_of_two()
}

/// A point of the distribution.
pub struct Point {
    pub quantile: f64,
    pub ms: f64,
    /// So many took no longer.
    pub count: u64,
}

/// From the fastest to the slowest, closer together towards the slow end.
pub fn percentiles(latency: &Histogram<u64>) -> Vec<Point> {
    let mut count = 0;
    let points = latency.iter_quantiles(TICKS).map(|at| {
        count += at.count_since_last_iteration();
        Point {
            quantile: at.quantile_iterated_to(),
            ms: at.value_iterated_to() as f64 / NANOS_A_MS,
            count,
        }
    });
    points.collect()
}

pub fn percentiles_csv(latency: &Histogram<u64>) -> String {
    let mut text = "percentile,latency_ms,count\n".to_owned();
    for point in percentiles(latency) {
        let percent = 100.0 * point.quantile;
        let _ = writeln!(text, "{percent:.10},{:.6},{}", point.ms, point.count);
    }
    text
}

pub fn course_csv(measurement: &Measurement) -> String {
    let mut text = "second,records,bytes,p50_ms,p99_ms,max_ms\n".to_owned();
    for (n, second) in measurement.course.iter().enumerate() {
        let _ = writeln!(
            text,
            "{n},{},{},{:.6},{:.6},{:.6}",
            second.records,
            second.bytes,
            ms(second.p50),
            ms(second.p99),
            ms(second.max)
        );
    }
    text
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::{Second, latencies};
    use crate::publish::tests::measurement;

    #[test]
    fn percentiles_are_as_hdrhistogram_prints_them() {
        let mut latency = latencies();
        // 1 to 1000 ms: percentile p is at 10 p ms.
        (1..=1000).for_each(|ms| latency.record(ms * 1_000_000).unwrap());
        let text = hgrm(&latency);
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
        let counts: Vec<u64> = percentiles(&latency).iter().map(|p| p.count).collect();
        assert!(counts.is_sorted() && counts.last() == Some(&1000));
    }

    #[test]
    fn nothing_measured_is_no_line_but_the_frame() {
        let text = hgrm(&latencies());
        assert!(text.contains("Total count    =            0]"), "{text}");
    }

    #[test]
    fn the_course_has_a_line_a_second() {
        let mut measured = measurement("Klamm");
        measured.course = vec![
            Second::default(),
            Second {
                records: 10,
                bytes: 1000,
                p50: Duration::from_micros(1500),
                p99: Duration::from_millis(2),
                max: Duration::from_millis(3),
            },
        ];
        assert_eq!(
            course_csv(&measured),
            "second,records,bytes,p50_ms,p99_ms,max_ms\n\
             0,0,0,0.000000,0.000000,0.000000\n\
             1,10,1000,1.500000,2.000000,3.000000\n"
        );
    }
}
