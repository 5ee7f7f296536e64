//! What one client, and all of a shard's clients together, may hold.
//!
//! ```text
//!   Limits     constants of the broker, most of them Kafka's settings
//!   Budget     bytes of one shard: acquire -> Permit -> (drop) -> the next waiter
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The front's limits. The names in quotes are Kafka's settings.
#[derive(Clone, Debug)]
pub struct Limits {
    /// "socket.request.max.bytes"
    pub frame_bytes_max: usize,
    /// A frame that has begun must be whole after this long, and a second more for
    /// each MiB of it that has come.
    pub frame_time_max: Duration,
    /// "connections.max.idle.ms": nothing asked, nothing answered. Also how long an
    /// answer may make no progress: consumers read only when they poll, and may
    /// lawfully think for `max.poll.interval.ms` (5 minutes) in between.
    pub idle_time_max: Duration,
    /// "max.connections"
    pub connections_max: usize,
    /// "max.connections.per.ip"
    pub connections_per_ip_max: usize,
    /// Requests of one connection that were read and not yet answered. Kafka's
    /// clients have 1 to 5 under way.
    pub in_flight_max: usize,
    /// Bytes of them.
    pub in_flight_bytes_max: usize,
    /// Answer bytes of one connection that wait for its socket before no more of its
    /// requests are taken.
    pub outbox_bytes_max: usize,
    /// "queued.max.request.bytes", a shard's share.
    pub request_bytes_max: usize,
    /// Answer bytes of all connections of a shard.
    pub answer_bytes_max: usize,
    /// "fetch.max.bytes": the bound of one answer to Fetch.
    pub fetch_bytes_max: usize,
    /// How long a stopping broker waits for requests under way.
    pub drain_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        const MIB: usize = 1 << 20;
        Limits {
            frame_bytes_max: 100 * MIB,
            frame_time_max: Duration::from_secs(30),
            idle_time_max: Duration::from_secs(600),
            connections_max: 20_000,
            connections_per_ip_max: usize::MAX,
            in_flight_max: 128,
            // A frame of the largest size may always be under way; with small ones
            // the count is the bound.
            in_flight_bytes_max: 100 * MIB,
            outbox_bytes_max: MIB,
            request_bytes_max: 256 * MIB,
            answer_bytes_max: 256 * MIB,
            fetch_bytes_max: 55 * MIB,
            drain_time_max: Duration::from_secs(10),
        }
    }
}

/// So many bytes of a shard. First come, first served; who asks for more than there
/// is gets all of it once nobody else holds any, so that nobody waits for ever.
#[derive(Clone)]
pub struct Budget(Rc<Shared>);

struct Shared {
    bytes_max: usize,
    taken: Cell<usize>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    bytes: usize,
    granted: Cell<bool>,
    gone: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget(Rc::new(Shared {
            bytes_max,
            taken: Cell::new(0),
            waiters: RefCell::new(VecDeque::new()),
        }))
    }

    pub fn taken(&self) -> usize {
        self.0.taken.get()
    }

    /// At once, or not at all; never in front of those who wait.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        if self.0.waiters.borrow().is_empty() && self.0.fits(bytes) {
            self.0.taken.set(self.0.taken.get() + bytes);
            return Some(self.permit(bytes));
        }
        None
    }

    /// As many of `bytes` as there are, maybe none: for who can do with less.
    pub fn acquire_up_to(&self, bytes: usize) -> Permit {
        let free = self.0.bytes_max.saturating_sub(self.0.taken.get());
        let bytes = bytes.min(free);
        self.0.taken.set(self.0.taken.get() + bytes);
        self.permit(bytes)
    }

    /// Waits for its turn. Dropped before that, it never stood in the queue.
    pub fn acquire(&self, bytes: usize) -> Acquire {
        let waiter = Rc::new(Waiter {
            bytes,
            granted: Cell::new(false),
            gone: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.0.waiters.borrow_mut().push_back(waiter.clone());
        self.0.serve();
        Acquire {
            budget: self.clone(),
            waiter,
            done: false,
        }
    }

    fn permit(&self, bytes: usize) -> Permit {
        Permit {
            budget: self.clone(),
            bytes,
        }
    }
}

impl Shared {
    fn fits(&self, bytes: usize) -> bool {
        let taken = self.taken.get();
        taken == 0 || taken.saturating_add(bytes) <= self.bytes_max
    }

    fn serve(&self) {
        loop {
            let next = {
                let mut waiters = self.waiters.borrow_mut();
                while waiters.front().is_some_and(|w| w.gone.get()) {
                    waiters.pop_front();
                }
                match waiters.front() {
                    Some(w) if self.fits(w.bytes) => waiters.pop_front(),
                    _ => None,
                }
            };
            let Some(waiter) = next else { return };
            self.taken.set(self.taken.get() + waiter.bytes);
            waiter.granted.set(true);
            if let Some(waker) = waiter.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn give_back(&self, bytes: usize) {
        let taken = self.taken.get();
        assert!(taken >= bytes, "{bytes} bytes given back, {taken} taken");
        self.taken.set(taken - bytes);
        self.serve();
    }
}

/// Bytes that are held until this is dropped.
pub struct Permit {
    budget: Budget,
    bytes: usize,
}

impl Permit {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.budget.0.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.0.give_back(self.bytes);
    }
}

pub struct Acquire {
    budget: Budget,
    waiter: Rc<Waiter>,
    done: bool,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        assert!(!self.done, "a permit is handed out once");
        if self.waiter.granted.get() {
            self.done = true;
            return Poll::Ready(self.budget.permit(self.waiter.bytes));
        }
        *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.waiter.gone.set(true);
        if self.waiter.granted.get() {
            self.budget.0.give_back(self.waiter.bytes);
        } else {
            // It may have stood in front of one that fits.
            self.budget.0.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn those_who_wait_are_served_in_turn() {
        let budget = Budget::new(100);
        let first = budget.try_acquire(80).expect("there is room");
        let mut big = budget.acquire(90);
        let mut small = budget.acquire(10);
        assert!((&mut big).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "not past the queue");
        assert!(budget.try_acquire(1).is_none());
        drop(first);
        let big = big.now_or_never().expect("its turn");
        let small = small.now_or_never().expect("both fit");
        assert_eq!(budget.taken(), 100);
        drop((big, small));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn one_that_is_larger_than_the_budget_waits_only_for_the_others() {
        let budget = Budget::new(100);
        let held = budget.try_acquire(1).expect("there is room");
        let huge = budget.acquire(1000);
        drop(held);
        let huge = huge.now_or_never().expect("alone");
        assert!(budget.try_acquire(1).is_none());
        drop(huge);
        assert!(budget.try_acquire(1).is_some());
    }

    #[test]
    fn one_that_gave_up_makes_room() {
        let budget = Budget::new(100);
        let held = budget.try_acquire(50).expect("there is room");
        let big = budget.acquire(90);
        let small = budget.acquire(50);
        drop(big);
        assert_eq!(small.now_or_never().expect("its turn").bytes(), 50);
        let granted = budget.acquire(10);
        drop(granted);
        assert_eq!(budget.taken(), 50);
        drop(held);
    }
}
