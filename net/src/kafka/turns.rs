//! Whose answer leaves next: a large answer is made only when it can leave.
//!
//! ```text
//!   requests   0  1  2  3          left: 2
//!   answers    x  x  .  .          Turn(2).come() is ready, Turn(3).come() waits
//! ```
//!
//! Without it a client that pipelines a hundred fetches and reads nothing would have
//! a hundred answers of 50 MiB made for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// One connection's order.
#[derive(Clone, Default)]
pub struct Turns(Rc<Shared>);

#[derive(Default)]
struct Shared {
    taken: Cell<u64>,
    left: Cell<u64>,
    wakers: RefCell<HashMap<u64, Waker>>,
}

/// One request's place in it.
#[derive(Clone)]
pub struct Turn {
    turns: Turns,
    number: u64,
}

impl Turns {
    /// The next request's place.
    pub fn take(&self) -> Turn {
        let number = self.0.taken.get();
        self.0.taken.set(number + 1);
        Turn {
            turns: self.clone(),
            number,
        }
    }

    /// An answer has left.
    pub fn leave(&self) {
        let left = self.0.left.get() + 1;
        self.0.left.set(left);
        if let Some(waker) = self.0.wakers.borrow_mut().remove(&left) {
            waker.wake();
        }
    }
}

impl Turn {
    /// Resolves when all answers before this one have left.
    pub fn come(&self) -> impl Future<Output = ()> + use<> {
        let Turn { turns, number } = self.clone();
        poll_fn(move |cx| {
            if turns.0.left.get() >= number {
                return Poll::Ready(());
            }
            let mut wakers = turns.0.wakers.borrow_mut();
            wakers.insert(number, cx.waker().clone());
            Poll::Pending
        })
    }
}
