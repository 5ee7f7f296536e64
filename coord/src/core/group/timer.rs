//! Deadlines of groups and members, cheap to push back.
//!
//! ```text
//!  queue   (12.0 s, session of bill/m1)   (15.2 s, join of ship)   ...
//!                      |
//!  member m1   due 14.7 s, queued 12.0 s    <- a heartbeat moved `due` alone
//! ```
//!
//! A heartbeat only writes `due`; the queue learns of it when the older entry
//! comes up and is put back. With 100,000 members that heartbeat every 3 s and
//! time out after 45 s, that is 2,200 queue operations a second instead of
//! 66,000. So the queue's first entry is a lower bound: at or before the first
//! moment at which something is due. A deadline has at most one entry.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_engine::units::Nanos;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    /// Look for offsets and groups that have outlived their retention.
    Retention,
    /// The members had their time to join.
    Join(Arc<str>),
    /// The members had their time to sync.
    Sync(Arc<str>),
    /// A member, or one that is pending, was not heard of.
    Session(Arc<str>, Arc<str>),
}

/// Lives where the timed thing lives; moved only by `Timers`.
#[derive(Debug, Default)]
pub struct Deadline {
    due: Option<Nanos>,
    queued: Option<Nanos>,
}

impl Deadline {
    pub fn is_armed(&self) -> bool {
        self.due.is_some()
    }

    /// Called when the queue's entry for this deadline came up: whether it is
    /// due at `now`. It is disarmed then; else it is queued again.
    pub fn came_up(&mut self, key: TimerKey, now: Nanos, timers: &mut Timers) -> bool {
        self.queued = None;
        match self.due {
            Some(due) if due <= now => {
                self.due = None;
                true
            }
            Some(due) => {
                timers.arm(self, key, due);
                false
            }
            None => false,
        }
    }
}

#[derive(Debug, Default)]
pub struct Timers {
    queue: BTreeSet<(Nanos, TimerKey)>,
}

impl Timers {
    /// Sets the deadline, which may have been set before.
    pub fn arm(&mut self, deadline: &mut Deadline, key: TimerKey, due: Nanos) {
        deadline.due = Some(due);
        match deadline.queued {
            Some(queued) if queued <= due => {}
            queued => {
                let mut entry = (due, key);
                if let Some(queued) = queued {
                    entry.0 = queued;
                    let was_there = self.queue.remove(&entry);
                    assert!(was_there, "a queued deadline is in the queue");
                    entry.0 = due;
                }
                self.queue.insert(entry);
                deadline.queued = Some(due);
            }
        }
    }

    pub fn cancel(&mut self, deadline: &mut Deadline, key: TimerKey) {
        deadline.due = None;
        if let Some(queued) = deadline.queued.take() {
            let was_there = self.queue.remove(&(queued, key));
            assert!(was_there, "a queued deadline is in the queue");
        }
    }

    /// Takes out everything of a group that is let go of with all its deadlines.
    pub fn forget(&mut self, group: &str) {
        self.queue.retain(|(_, key)| match key {
            TimerKey::Retention => true,
            TimerKey::Join(id) | TimerKey::Sync(id) | TimerKey::Session(id, _) => **id != *group,
        });
    }

    /// Takes out the first entry that has come up at `now`.
    pub fn pop(&mut self, now: Nanos) -> Option<TimerKey> {
        if self.queue.first()?.0 > now {
            return None;
        }
        self.queue.pop_first().map(|(_, key)| key)
    }

    pub fn next(&self) -> Option<Nanos> {
        self.queue.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
impl Deadline {
    pub fn is_queued(&self) -> bool {
        self.queued.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> TimerKey {
        TimerKey::Session("bill".into(), "m1".into())
    }

    #[test]
    fn a_deadline_pushed_back_comes_up_early_once_and_fires_late() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.arm(&mut deadline, session(), Nanos(10));
        timers.arm(&mut deadline, session(), Nanos(14));
        assert_eq!((timers.next(), timers.entries()), (Some(Nanos(10)), 1));
        assert_eq!(timers.pop(Nanos(9)), None);
        let key = timers.pop(Nanos(10)).unwrap();
        assert!(!deadline.came_up(key, Nanos(10), &mut timers));
        assert_eq!(timers.next(), Some(Nanos(14)));
        let key = timers.pop(Nanos(20)).unwrap();
        assert!(deadline.came_up(key, Nanos(20), &mut timers));
        assert_eq!((timers.next(), deadline.is_armed()), (None, false));
    }

    #[test]
    fn a_deadline_pulled_forward_leaves_no_entry_behind() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.arm(&mut deadline, session(), Nanos(300));
        timers.arm(&mut deadline, session(), Nanos(10));
        assert_eq!((timers.next(), timers.entries()), (Some(Nanos(10)), 1));
        timers.cancel(&mut deadline, session());
        assert_eq!(timers.entries(), 0);
        timers.cancel(&mut deadline, session());
        assert!(!deadline.is_armed());
    }
}
