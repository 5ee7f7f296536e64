//! What one round of a load has shown: counts, latencies, their course over time, and
//! what the server used meanwhile.
//!
//! ```text
//!   load (produce, consume, tail, mixed) --> Measurement --> table, .hgrm, CSV, HTML
//!                                                 |
//!                                              compare: of several servers, in turn
//! ```

use crate::Outcome;
use crate::process::{Cpu, Memory, Switches};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Latencies are kept to three digits, in nanoseconds, up to two minutes.
pub const LATENCY_MAX: Duration = Duration::from_secs(120);

/// An empty histogram of latencies, in nanoseconds.
pub fn latencies() -> Histogram<u64> {
    let most = u64::try_from(LATENCY_MAX.as_nanos()).expect("two minutes");
    Histogram::new_with_bounds(1, most, 3).expect("bounds that a histogram can have")
}

#[derive(Clone)]
pub struct Measurement {
    /// What ran, as a person would say it: "produce, 1 partition, 1 MiB of 1 KiB records".
    pub workload: String,
    /// Whom it ran against: "Klamm", "Apache Kafka 4.1.1".
    pub server: String,
    /// Requests answered without an error (librdkafka: delivery reports).
    pub requests: u64,
    pub records: u64,
    /// Of record batches as they go over the wire (librdkafka: of record values).
    pub bytes: u64,
    pub wall: Duration,
    /// Nanoseconds from when a request was due (open loop) or sent (as fast as it goes).
    pub latency: Histogram<u64>,
    /// One a second, in order.
    pub course: Vec<Second>,
    /// None where no process was named.
    pub used: Option<Used>,
    pub client: Cpu,
    /// What makes the figures worth less, a sentence each.
    pub warnings: Vec<String>,
}

/// What one second of a round brought.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    pub records: u64,
    pub bytes: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// What the server's process used during a round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    pub cpu: Cpu,
    /// The most it has held since it was started.
    pub resident_bytes_max: u64,
    pub switches_voluntary: u64,
    pub switches_involuntary: u64,
}

/// Of several rounds the one whose throughput is the median; there is one at least.
pub fn median_round(mut rounds: Vec<Measurement>) -> Measurement {
    rounds.sort_by(|a, b| f64::total_cmp(&a.mb_per_second(), &b.mb_per_second()));
    let at = rounds.len() / 2;
    rounds.swap_remove(at)
}

impl Used {
    /// What a process has used since it was started.
    pub fn of(pid: u32) -> Outcome<Used> {
        let switches = Switches::of(pid)?;
        Ok(Used {
            cpu: Cpu::of(pid)?,
            resident_bytes_max: Memory::of(pid)?.resident_bytes_max,
            switches_voluntary: switches.voluntary,
            switches_involuntary: switches.involuntary,
        })
    }

    /// Of this what came after that; memory is the most there ever was.
    #[must_use]
    pub fn since(&self, before: &Used) -> Used {
        let grown = |after: u64, before| after.saturating_sub(before);
        Used {
            cpu: self.cpu - before.cpu,
            resident_bytes_max: self.resident_bytes_max,
            // A thread that has ended meanwhile took its switches with it.
            switches_voluntary: grown(self.switches_voluntary, before.switches_voluntary),
            switches_involuntary: grown(self.switches_involuntary, before.switches_involuntary),
        }
    }
}

impl Measurement {
    /// MB (10^6 bytes) a second.
    pub fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.wall.as_secs_f64()
    }

    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.wall.as_secs_f64()
    }

    /// The server's CPU seconds for each GB (10^9 bytes): user, system.
    pub fn cpu_per_gb(&self) -> Option<(f64, f64)> {
        let gb = self.bytes as f64 / 1e9;
        let used = self.used.filter(|_| gb > 0.0)?;
        Some((used.cpu.user_s / gb, used.cpu.system_s / gb))
    }

    /// The value below which so many percent of the latencies are.
    pub fn latency_at(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_percentile(percentile))
    }
}
