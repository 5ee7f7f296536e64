//! Waiting on one shard for state to become true: a list of wakers, and a future
//! that looks again each time it is told.
//!
//! Who changes the state calls [`Signal::wake`] after the change, in the same stretch
//! between awaits; who waits gives a look at the state. A look that finds what it
//! wants never waits, so nothing that happened before the call is missed.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
pub struct Signal {
    waiting: RefCell<Waiting>,
}

/// Wakers in slots, so that a future which is dropped takes its own along.
#[derive(Default)]
struct Waiting {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Signal {
    pub fn new() -> Rc<Signal> {
        Rc::new(Signal::default())
    }

    /// Has everyone who waits look again.
    pub fn wake(&self) {
        // Waking may poll at once in some executors, which may register anew: the
        // wakers are taken out before the first is woken.
        let woken: Vec<Waker> = {
            let mut waiting = self.waiting.borrow_mut();
            let waiting = &mut *waiting;
            waiting.slots.iter_mut().filter_map(Option::take).collect()
        };
        for waker in woken {
            waker.wake();
        }
    }

    /// Resolves with what `look` finds, once it finds something.
    pub fn until<T, F>(self: &Rc<Self>, look: F) -> Until<F>
    where
        F: FnMut() -> Option<T>,
    {
        Until {
            signal: self.clone(),
            look,
            slot: None,
        }
    }

    pub fn waiters(&self) -> usize {
        let waiting = self.waiting.borrow();
        waiting.slots.len() - waiting.free.len()
    }
}

/// See [`Signal::until`].
pub struct Until<F> {
    signal: Rc<Signal>,
    look: F,
    slot: Option<usize>,
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for Until<F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if let Some(found) = (this.look)() {
            return Poll::Ready(found);
        }
        // Cloning and dropping a waker is an executor's code, which may come back here:
        // both happen with nothing borrowed.
        let waker = cx.waker().clone();
        let mut waiting = this.signal.waiting.borrow_mut();
        let slot = match this.slot {
            Some(slot) => slot,
            None => match waiting.free.pop() {
                Some(slot) => slot,
                None => {
                    waiting.slots.push(None);
                    waiting.slots.len() - 1
                }
            },
        };
        this.slot = Some(slot);
        let before = waiting.slots[slot].replace(waker);
        drop(waiting);
        drop(before);
        Poll::Pending
    }
}

impl<F> Drop for Until<F> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut waiting = self.signal.waiting.borrow_mut();
            let waker = waiting.slots[slot].take();
            waiting.free.push(slot);
            drop(waiting);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::cell::Cell;

    #[test]
    fn what_is_already_true_never_waits() {
        let signal = Signal::new();
        assert_eq!(signal.until(|| Some(7)).now_or_never(), Some(7));
        assert_eq!(signal.waiters(), 0);
    }

    #[test]
    fn a_waiter_looks_again_when_woken_and_leaves_when_dropped() {
        let signal = Signal::new();
        let value = Rc::new(Cell::new(0));
        let seen = value.clone();
        let mut wait = Box::pin(signal.until(move || (seen.get() > 1).then(|| seen.get())));
        assert_eq!((&mut wait).now_or_never(), None);
        assert_eq!(signal.waiters(), 1);
        value.set(2);
        signal.wake();
        assert_eq!((&mut wait).now_or_never(), Some(2));
        drop(wait);
        assert_eq!(signal.waiters(), 0);
    }
}
