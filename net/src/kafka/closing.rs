//! The word that this shard is closing, heard by everyone who waits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Said once, never taken back.
#[derive(Clone, Default)]
pub struct Closing(Rc<Shared>);

#[derive(Default)]
struct Shared {
    said: Cell<bool>,
    next: Cell<u64>,
    wakers: RefCell<HashMap<u64, Waker>>,
}

impl Closing {
    pub fn say(&self) {
        self.0.said.set(true);
        for (_, waker) in self.0.wakers.take() {
            waker.wake();
        }
    }

    pub fn is_said(&self) -> bool {
        self.0.said.get()
    }

    /// Resolves once it is said.
    pub fn heard(&self) -> Heard {
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        Heard {
            closing: self.clone(),
            id,
        }
    }
}

pub struct Heard {
    closing: Closing,
    id: u64,
}

impl Future for Heard {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &self.closing.0;
        if shared.said.get() {
            return Poll::Ready(());
        }
        let mut wakers = shared.wakers.borrow_mut();
        match wakers.get_mut(&self.id) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                wakers.insert(self.id, cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.closing.0.wakers.borrow_mut().remove(&self.id);
    }
}
