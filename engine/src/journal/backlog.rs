//! What is synced in a shard's journal, and not yet written to its segments.
//!
//! ```text
//!   grew -> [member][member][member] ...      by age, each once
//!             |
//!             +-- placed: the oldest, as long as there is more than half of what may be,
//!                 and whoever waits for LINGER
//!
//!   0 ---------------- bytes_max / 2 ---------------- bytes_max: rounds wait
//! ```
//!
//! The longer a partition waits, the more of its rounds become one write of its segment. What
//! bounds it is memory: a waiting chunk can't be let go of. So the more partitions are busy,
//! the smaller their writes.

use super::Member;
use crate::io::Io;
use crate::signal::Signal;
use crate::units::Nanos;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// A partition with so much is placed at once: larger writes gain little, and keep those of
/// the journal waiting.
const PLACED_AT_ONCE_BYTES: usize = 256 << 10;

/// A partition is placed after this time, however little it has: then its file says what its
/// log says, to who looks at it from outside, and memory is let go of.
const LINGER: Duration = Duration::from_secs(1);

/// Partitions that are placed at a time.
const AT_A_TIME: usize = 8;

pub struct Backlog<I: Io> {
    /// Memory that waits at most, but for what the rounds under way bring.
    bytes_max: usize,
    bytes: Cell<usize>,
    waiting: RefCell<VecDeque<(Nanos, Rc<Member<I>>)>>,
    /// How many of [`AT_A_TIME`] are at it.
    placing: Cell<usize>,
    lingering: Cell<bool>,
    fell: Rc<Signal>,
}

impl<I: Io> Backlog<I> {
    pub(super) fn new(bytes_max: usize) -> Rc<Backlog<I>> {
        Rc::new(Backlog {
            bytes_max,
            bytes: Cell::new(0),
            waiting: RefCell::default(),
            placing: Cell::new(0),
            lingering: Cell::new(false),
            fell: Signal::new(),
        })
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        let before = self.bytes.get();
        self.bytes.set(before - bytes);
        if before >= self.bytes_max {
            self.fell.wake();
        }
    }

    /// Resolves at once where there is room for a round's chunks.
    pub(crate) async fn has_room(&self) {
        let room = || (self.bytes.get() < self.bytes_max).then_some(());
        self.fell.until(room).await;
    }

    /// A partition has this much waiting now.
    pub(crate) fn grew(self: &Rc<Self>, io: &I, member: &Rc<Member<I>>, bytes: usize) {
        if bytes >= PLACED_AT_ONCE_BYTES {
            let member = member.clone();
            io.spawn(async move { member.place().await });
        } else if !member.waits.replace(true) {
            let entry = (io.now(), member.clone());
            self.waiting.borrow_mut().push_back(entry);
            self.linger(io);
        }
        // What is due by its age alone is the lingering task's to see.
        if self.is_much() {
            self.place_oldest(io);
        }
    }

    /// So much that nothing may linger.
    fn is_much(&self) -> bool {
        self.bytes.get() > self.bytes_max / 2
    }

    fn place_oldest(self: &Rc<Self>, io: &I) {
        while self.placing.get() < AT_A_TIME
            && let Some(first) = self.next(io)
        {
            self.placing.set(self.placing.get() + 1);
            let (this, io_of_task) = (self.clone(), io.clone());
            io.spawn(async move {
                let mut next = Some(first);
                while let Some(member) = next {
                    member.place().await;
                    next = this.next(&io_of_task);
                }
                this.placing.set(this.placing.get() - 1);
            });
        }
    }

    /// The oldest, if it is to be placed now.
    fn next(&self, io: &I) -> Option<Rc<Member<I>>> {
        let mut waiting = self.waiting.borrow_mut();
        let (since, _) = waiting.front()?;
        let due = self.is_much() || since.plus(LINGER) <= io.now();
        let (_, member) = due.then(|| waiting.pop_front())??;
        member.waits.set(false);
        Some(member)
    }

    fn linger(self: &Rc<Self>, io: &I) {
        if self.lingering.replace(true) {
            return;
        }
        let (this, io_of_task) = (Rc::downgrade(self), io.clone());
        io.spawn(async move {
            let io = io_of_task;
            loop {
                let wait = {
                    let Some(this) = this.upgrade() else { return };
                    this.place_oldest(&io);
                    let oldest = this.waiting.borrow().front().map(|(since, _)| *since);
                    let Some(since) = oldest else {
                        this.lingering.set(false);
                        return;
                    };
                    let left = since.plus(LINGER).0.saturating_sub(io.now().0);
                    // Where all are at it, and the oldest is due, it is looked at again.
                    Duration::from_nanos(left).max(Duration::from_millis(10))
                };
                io.sleep(wait).await;
            }
        });
    }
}
