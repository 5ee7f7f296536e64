//! When requests are due, fixed before the first is sent.
//!
//! ```text
//!   due   |0    |1    |2    |3    |4 ...         n / rate after the start
//!   sent  |0        |1|2  |3      |4              a server that stalls delays what is
//!   lat.   <------------>                         sent, never what was due
//! ```
//!
//! A request's clock starts when it was due. So what a stall kept from being sent is in
//! the latencies, and the load does not wait for the server (no coordinated omission).

use std::time::Duration;

/// The share of one of several threads: every so-many-th of the requests.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Requests a second, of all threads.
    rate: f64,
    next: u64,
    step: u64,
}

impl Schedule {
    pub fn new(rate: f64, thread: usize, threads: usize) -> Schedule {
        assert!(rate > 0.0 && thread < threads);
        Schedule {
            rate,
            next: thread as u64,
            step: threads as u64,
        }
    }

    /// When the next request is due, after the start.
    pub fn due(&self) -> Duration {
        #[allow(clippy::cast_precision_loss)] // exact below 2^53 requests
        Duration::from_secs_f64(self.next as f64 / self.rate)
    }

    /// The next request, if it is due by then: when it was.
    pub fn take(&mut self, now: Duration) -> Option<Duration> {
        let due = self.due();
        (due <= now).then(|| {
            self.next += self.step;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(schedule: &mut Schedule, now: Duration) -> Vec<u128> {
        std::iter::from_fn(|| schedule.take(now))
            .map(|due| due.as_millis())
            .collect()
    }

    #[test]
    fn a_stall_moves_nothing_that_was_due() {
        let mut schedule = Schedule::new(100.0, 0, 1);
        assert_eq!(until(&mut schedule, Duration::from_millis(20)), [0, 10, 20]);
        // Nobody asked for 40 ms: all that was due meanwhile is there, at its own time.
        let late = until(&mut schedule, Duration::from_millis(60));
        assert_eq!(late, [30, 40, 50, 60]);
        assert_eq!(schedule.due(), Duration::from_millis(70));
    }

    #[test]
    fn threads_share_one_schedule() {
        let now = Duration::from_millis(49);
        let mut all: Vec<u128> = (0..3)
            .flat_map(|thread| until(&mut Schedule::new(200.0, thread, 3), now))
            .collect();
        all.sort_unstable();
        assert_eq!(all, until(&mut Schedule::new(200.0, 0, 1), now));
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn it_does_not_drift() {
        let mut schedule = Schedule::new(3.0, 0, 1);
        for _ in 0..3_000_000 {
            schedule.take(Duration::MAX).unwrap();
        }
        assert_eq!(schedule.due(), Duration::from_secs(1_000_000));
    }
}
