//! What takes too long, found out by one timer for all requests of a shard.
//!
//! ```text
//!   waiting    until tick 25   until tick 31   until tick 25   ...       now: tick 24
//!                   ^ looked through once a TICK, as long as anybody waits
//! ```
//!
//! Nearly every request is done long before its timeout. A timer of its own costs it a
//! place in the reactor's order of all timers, and taking it out again: more than anything
//! else that it waits by. This costs a place in a list, and a timeout that comes up to two
//! ticks late.

use klamm_engine::io::Io;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Far less than a client gives a request, and too seldom to be seen in a core's load.
pub const TICK: Duration = Duration::from_millis(50);

/// One shard's.
pub struct Lateness<I: Io> {
    io: I,
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Ticks that have passed while somebody waited.
    now: u64,
    is_ticking: bool,
    /// Each has its place until it goes; the places of those that went are given again.
    places: Vec<Option<(u64, Waker)>>,
    free: Vec<usize>,
}

impl<I: Io> Lateness<I> {
    pub fn new(io: I) -> Rc<Lateness<I>> {
        Rc::new(Lateness {
            io,
            waiting: RefCell::default(),
        })
    }

    /// Resolves after `timeout`, never before it.
    pub fn after(self: &Rc<Self>, timeout: Duration) -> Late<I> {
        let ticks = timeout.as_nanos().div_ceil(TICK.as_nanos());
        // The tick that is under way has begun before.
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1);
        Late {
            until: self.waiting.borrow().now.saturating_add(ticks),
            of: self.clone(),
            place: None,
        }
    }

    async fn run(self: Rc<Self>) {
        while self.waiting.borrow().is_ticking {
            self.io.sleep(TICK).await;
            for waker in self.tick() {
                waker.wake();
            }
        }
    }

    fn tick(&self) -> Vec<Waker> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.now += 1;
        waiting.is_ticking = waiting.places.len() > waiting.free.len();
        let now = waiting.now;
        let late = waiting.places.iter().flatten();
        late.filter(|(until, _)| *until <= now)
            .map(|(_, waker)| waker.clone())
            .collect()
    }
}

pub struct Late<I: Io> {
    of: Rc<Lateness<I>>,
    until: u64,
    place: Option<usize>,
}

impl<I: Io> Future for Late<I> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut waiting = this.of.waiting.borrow_mut();
        if this.until <= waiting.now {
            return Poll::Ready(());
        }
        if let Some(place) = this.place {
            let (_, waker) = waiting.places[place].as_mut().expect("its own place");
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        let waits = Some((this.until, cx.waker().clone()));
        this.place = Some(match waiting.free.pop() {
            Some(place) => {
                waiting.places[place] = waits;
                place
            }
            None => {
                waiting.places.push(waits);
                waiting.places.len() - 1
            }
        });
        if !std::mem::replace(&mut waiting.is_ticking, true) {
            drop(waiting);
            this.of.io.spawn(this.of.clone().run());
        }
        Poll::Pending
    }
}

impl<I: Io> Drop for Late<I> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut waiting = self.of.waiting.borrow_mut();
            waiting.places[place] = None;
            waiting.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{Either, join_all, select};
    use klamm_engine::io::sim::Sim;
    use klamm_engine::units::Nanos;
    use std::pin::pin;

    #[test]
    fn a_timeout_is_never_early_and_at_most_two_ticks_late() {
        let sim = Sim::from_seed(1);
        let io = sim.io();
        let lateness = Lateness::new(io.clone());
        sim.run(async {
            // Some before anything ticks, some between two ticks.
            let waits = (0..200u64).map(|n| {
                let (io, lateness) = (io.clone(), lateness.clone());
                async move {
                    io.sleep(Duration::from_millis(n * 7)).await;
                    let timeout = Duration::from_millis(n * 13 % 400);
                    let from = io.now();
                    lateness.after(timeout).await;
                    let took = Duration::from_nanos(io.now().0 - from.0);
                    assert!(took >= timeout, "{took:?} for {timeout:?}");
                    // A tick is a sleep, which may be late itself.
                    assert!(took <= timeout + TICK * 3, "{took:?} for {timeout:?}");
                }
            });
            join_all(waits).await;
            let waiting = lateness.waiting.borrow();
            assert_eq!(waiting.places.len(), waiting.free.len(), "all have gone");
        });
    }

    #[test]
    fn who_went_leaves_a_place_and_no_ticks() {
        let sim = Sim::from_seed(1);
        let io = sim.io();
        let lateness = Lateness::new(io.clone());
        sim.run(async {
            for _ in 0..100 {
                let late = pin!(lateness.after(Duration::from_secs(30)));
                let done = pin!(io.sleep(Duration::from_millis(1)));
                assert!(matches!(select(done, late).await, Either::Left(_)));
            }
            assert_eq!(lateness.waiting.borrow().places.len(), 1);
            io.sleep(TICK * 3).await;
            let ticks = lateness.waiting.borrow().now;
            assert!(!lateness.waiting.borrow().is_ticking);
            io.sleep(TICK * 10).await;
            assert_eq!(lateness.waiting.borrow().now, ticks);
            let from = io.now();
            lateness.after(TICK).await;
            assert!(io.now() >= Nanos(from.0 + TICK.as_nanos() as u64));
        });
    }
}
