//! Which answers have left whole: the outbox knows only how many bytes it still has.
//!
//! ```text
//!   bytes put in so far:   [ answer 1 |  answer 2  | answer 3 ]
//!                                 100          350        400
//!   the outbox still has 120: 280 are sent, so answer 1 is, and answer 2 is not
//! ```

use super::Watch;
use klamm_engine::io::Io;
use klamm_engine::units::Nanos;
use std::collections::VecDeque;

pub struct Departures<I: Io> {
    put: u64,
    waiting: VecDeque<Waiting<I>>,
}

struct Waiting<I: Io> {
    end: u64,
    bytes: usize,
    watch: Watch<I>,
}

impl<I: Io> Default for Departures<I> {
    fn default() -> Self {
        Departures {
            put: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl<I: Io> Departures<I> {
    /// An answer went into the outbox, which had `before` bytes and now has `after`.
    pub fn put(&mut self, watch: Watch<I>, before: usize, after: usize) {
        let bytes = after - before;
        self.put += bytes as u64;
        self.waiting.push_back(Waiting {
            end: self.put,
            bytes,
            watch,
        });
    }

    /// The outbox has so many bytes left.
    pub fn left(&mut self, outbox_bytes: usize, now: Nanos) {
        let sent = self.put - outbox_bytes as u64;
        while self.waiting.front().is_some_and(|first| first.end <= sent) {
            let first = self.waiting.pop_front().expect("just seen");
            first.watch.sent(Some(now), first.bytes);
        }
    }
}
