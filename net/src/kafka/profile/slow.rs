//! A line in the log for a request that took long, with what it took long for.
//!
//! What a client asked to wait for is not slowness: of a Fetch that waits for records,
//! and of a group's members that wait for each other, the `wait` does not count.

use super::{PARTS, Part, Parts};
use crate::kafka::context::Peer;
use crate::kafka::route::Api;
use klamm_engine::units::Nanos;
use std::cell::Cell;
use std::fmt::Write;
use std::time::Duration;

/// Lines a second and shard: a bound that every request is above must not turn the log
/// into the load.
const LINES_A_SECOND: u32 = 20;

/// Fetch, JoinGroup, SyncGroup.
const WAIT_BECAUSE_ASKED: [i16; 3] = [1, 11, 14];

/// A client's name may be 32 KiB.
const CLIENT_ID_CHARS_MAX: usize = 100;

pub struct Slow {
    from: Option<u64>,
    second: Cell<Nanos>,
    lines: Cell<u32>,
    unsaid: Cell<u64>,
}

/// Whose request it was.
pub struct Of<'a> {
    pub api: &'static Api,
    pub client_id: Option<&'a str>,
    pub peer: &'a Peer,
    pub bytes: usize,
    pub answer_bytes: usize,
}

impl Slow {
    pub fn new(from: Option<Duration>) -> Slow {
        Slow {
            from: from.map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
            second: Cell::new(Nanos(0)),
            lines: Cell::new(0),
            unsaid: Cell::new(0),
        }
    }

    pub fn is_on(&self) -> bool {
        self.from.is_some()
    }

    /// Logs it if it was slow.
    pub fn consider(&self, now: Nanos, total: u64, parts: &Parts, of: &Of<'_>) {
        if let Some(line) = self.line(now, total, parts, of) {
            log::warn!("{line}");
        }
    }

    fn line(&self, now: Nanos, total: u64, parts: &Parts, of: &Of<'_>) -> Option<String> {
        let asked_for = match WAIT_BECAUSE_ASKED.contains(&of.api.key) {
            true => parts[Part::Wait as usize],
            false => 0,
        };
        if total.saturating_sub(asked_for) < self.from? {
            return None;
        }
        if now >= self.second.get() {
            self.second.set(now.plus(Duration::from_secs(1)));
            self.lines.set(0);
        }
        if self.lines.get() >= LINES_A_SECOND {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(describe(total, parts, of, self.unsaid.take()))
    }
}

fn ms(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000_000, nanos / 1_000 % 1_000)
}

fn describe(total: u64, parts: &Parts, of: &Of<'_>, unsaid: u64) -> String {
    let client: String = of
        .client_id
        .unwrap_or("")
        .chars()
        .take(CLIENT_ID_CHARS_MAX)
        .collect();
    let mut line = format!(
        "slow request: {} took {} ms: client={client:?} peer={} request_bytes={} answer_bytes={}",
        of.api.name,
        ms(total),
        of.peer.address,
        of.bytes,
        of.answer_bytes,
    );
    for ((_, name), nanos) in PARTS.iter().zip(parts) {
        // A String takes all.
        let _ = write!(line, " {name}_ms={}", ms(*nanos));
    }
    if unsaid > 0 {
        let _ = write!(line, " (and {unsaid} more that were not logged)");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::route::lookup;

    const MS: u64 = 1_000_000;

    fn of<'a>(api_key: i16, peer: &'a Peer, client_id: &'a str) -> Of<'a> {
        Of {
            api: lookup(api_key).expect("served"),
            client_id: Some(client_id),
            peer,
            bytes: 1_234,
            answer_bytes: 56,
        }
    }

    fn peer() -> Peer {
        let address = ([127, 0, 0, 1], 5_000).into();
        Peer::at(address)
    }

    fn parts(of: &[(Part, u64)]) -> Parts {
        let mut parts = Parts::default();
        of.iter()
            .for_each(|(part, ms)| parts[*part as usize] = ms * MS);
        parts
    }

    #[test]
    fn a_slow_request_says_where_its_time_went() {
        let slow = Slow::new(Some(Duration::from_millis(10)));
        let peer = peer();
        let parts = parts(&[(Part::Write, 2), (Part::Sync, 9)]);
        assert_eq!(
            slow.line(Nanos(0), 9 * MS, &parts, &of(0, &peer, "x")),
            None
        );
        let line = slow.line(Nanos(0), 11 * MS, &parts, &of(0, &peer, "a\nb"));
        assert_eq!(
            line.expect("slow"),
            "slow request: Produce took 11.000 ms: client=\"a\\nb\" peer=127.0.0.1:5000 \
             request_bytes=1234 answer_bytes=56 queue_ms=0.000 hop_ms=0.000 append_ms=0.000 \
             write_ms=2.000 sync_ms=9.000 wait_ms=0.000 handle_ms=0.000 send_ms=0.000"
        );
    }

    #[test]
    fn a_reader_that_waits_for_records_is_not_slow() {
        let slow = Slow::new(Some(Duration::from_millis(10)));
        let peer = peer();
        let waits = parts(&[(Part::Wait, 500)]);
        let fetch = of(1, &peer, "reader");
        assert_eq!(slow.line(Nanos(0), 505 * MS, &waits, &fetch), None);
        assert!(slow.line(Nanos(0), 511 * MS, &waits, &fetch).is_some());
        let produce = of(0, &peer, "writer");
        assert!(slow.line(Nanos(0), 505 * MS, &waits, &produce).is_some());
    }

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let slow = Slow::new(Some(Duration::ZERO));
        let peer = peer();
        let parts = Parts::default();
        let said = (0..100)
            .filter(|n| {
                slow.line(Nanos(*n), 1, &parts, &of(0, &peer, "x"))
                    .is_some()
            })
            .count();
        assert_eq!(said, LINES_A_SECOND as usize);
        let next = slow.line(Nanos(1_000 * MS), 1, &parts, &of(0, &peer, "x"));
        assert!(next.expect("a new second").contains("and 80 more"));
    }

    #[test]
    fn off_is_off() {
        let slow = Slow::new(None);
        let peer = peer();
        let line = slow.line(Nanos(0), u64::MAX, &Parts::default(), &of(0, &peer, "x"));
        assert!(!slow.is_on() && line.is_none());
    }
}
