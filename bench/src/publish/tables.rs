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
use klamm_engine::profile::hgrm::{self, Percentile};
use std::fmt::Write as _;
use std::time::Duration;

const NANOS_A_MS: f64 = 1e6;

/// Latencies in nanoseconds, as HdrHistogram's percentile output has them in milliseconds.
pub fn hgrm(latency: &Histogram<u64>) -> String {
    hgrm::text(latency, NANOS_A_MS)
}

/// From the fastest to the slowest, in milliseconds.
pub fn percentiles(latency: &Histogram<u64>) -> Vec<Percentile> {
    hgrm::percentiles(latency, NANOS_A_MS).collect()
}

pub fn percentiles_csv(latency: &Histogram<u64>) -> String {
    let mut text = "percentile,latency_ms,count\n".to_owned();
    for point in percentiles(latency) {
        let percent = 100.0 * point.quantile;
        let _ = writeln!(text, "{percent:.10},{:.6},{}", point.value, point.count);
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
    use crate::measurement::Second;
    use crate::publish::tests::measurement;

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
