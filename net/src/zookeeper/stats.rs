//! Figures for `srvr`, `stat`, `mntr` and `cons`.

use std::cell::Cell;

#[derive(Default)]
pub struct Stats {
    received: Cell<u64>,
    sent: Cell<u64>,
    pub rejected: Cell<u64>,
    pub latency: Latency,
}

impl Stats {
    pub fn saw_request(&self) {
        self.received.set(self.received.get() + 1);
    }

    pub fn sent(&self) {
        self.sent.set(self.sent.get() + 1);
    }

    pub fn received_count(&self) -> u64 {
        self.received.get()
    }

    pub fn sent_count(&self) -> u64 {
        self.sent.get()
    }

    pub fn reset(&self) {
        self.received.set(0);
        self.sent.set(0);
        self.latency.reset();
    }
}

/// From a request's arrival until its answer may be sent, ns.
#[derive(Default)]
pub struct Latency {
    min: Cell<u64>,
    max: Cell<u64>,
    last: Cell<u64>,
    sum: Cell<u64>,
    count: Cell<u64>,
}

const NANOS_A_MS: u64 = 1_000_000;

impl Latency {
    pub fn saw(&self, items: u32, took: u64) {
        let first = self.count.get() == 0;
        self.count.set(self.count.get() + u64::from(items));
        let sum = took.saturating_mul(u64::from(items));
        self.sum.set(self.sum.get().saturating_add(sum));
        self.max.set(self.max.get().max(took));
        self.min.set(if first {
            took
        } else {
            self.min.get().min(took)
        });
        self.last.set(took);
    }

    pub fn min_ms(&self) -> u64 {
        self.min.get() / NANOS_A_MS
    }

    pub fn max_ms(&self) -> u64 {
        self.max.get() / NANOS_A_MS
    }

    pub fn last_ms(&self) -> u64 {
        self.last.get() / NANOS_A_MS
    }

    pub fn avg_ms(&self) -> f64 {
        match self.count.get() {
            0 => 0.0,
            count => self.sum.get() as f64 / count as f64 / NANOS_A_MS as f64,
        }
    }

    pub fn reset(&self) {
        for cell in [&self.min, &self.max, &self.last, &self.sum, &self.count] {
            cell.set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_took_the_same_count_as_many() {
        let latency = Latency::default();
        latency.saw(3, 2_000_000);
        latency.saw(1, 6_000_000);
        assert_eq!(
            (latency.min_ms(), latency.max_ms(), latency.last_ms()),
            (2, 6, 6)
        );
        assert!((latency.avg_ms() - 3.0).abs() < 1e-9);
        latency.reset();
        assert_eq!((latency.min_ms(), latency.max_ms()), (0, 0));
        assert!(latency.avg_ms() < 1e-9);
    }
}
