//! Tasks, timers and completions of a simulated world, in an order from the seed.
//!
//! ```text
//!   spawn -> fresh (starts in call order) --+
//!                                           +--> one of them, by the seed -> poll
//!   wake  -> ready (any order) -------------+
//!                    ^
//!   agenda: completions and timers by virtual time; when nothing is
//!           runnable the clock jumps to the earliest of them
//! ```

use super::World;
use crate::units::Nanos;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The future that `Sim::run` was given; tasks count from 1.
pub(super) const MAIN: u64 = 0;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What happens at an instant: takes effect in the world, and says whom to wake.
pub(super) type Event = Box<dyn FnOnce(&mut World) -> Option<Waker>>;

/// Wakers must be `Send + Sync`, so what they touch is; the lock is never contended.
#[derive(Default)]
struct WokenQueue(Mutex<Vec<u64>>);

impl WokenQueue {
    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    queue: Arc<WokenQueue>,
}

impl TaskWaker {
    /// From here on a wake counts again: said just before the poll.
    pub fn rearm(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.queue.lock().push(self.id);
        }
    }
}

struct Slot {
    /// None while it is being polled.
    task: Option<Task>,
    waker: Arc<TaskWaker>,
}

pub(super) struct Tasks {
    slots: RefCell<BTreeMap<u64, Slot>>,
    fresh: RefCell<VecDeque<u64>>,
    woken: Arc<WokenQueue>,
    next_id: Cell<u64>,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks {
            slots: RefCell::default(),
            fresh: RefCell::default(),
            woken: Arc::default(),
            next_id: Cell::new(MAIN + 1),
        }
    }

    fn waker(&self, id: u64) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(false),
            queue: self.woken.clone(),
        })
    }

    /// For `Sim::run`'s own future; due at once.
    pub fn main_waker(&self) -> Arc<TaskWaker> {
        let waker = self.waker(MAIN);
        waker.wake_by_ref();
        waker
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let slot = Slot {
            task: Some(Box::pin(task)),
            waker: self.waker(id),
        };
        self.slots.borrow_mut().insert(id, slot);
        self.fresh.borrow_mut().push_back(id);
    }

    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Chooses who runs next. Fresh tasks keep their order among themselves.
    pub fn next(&self, choose: impl FnOnce(usize) -> usize) -> Option<u64> {
        let mut fresh = self.fresh.borrow_mut();
        let mut woken = self.woken.lock();
        let choices = woken.len() + usize::from(!fresh.is_empty());
        if choices == 0 {
            return None;
        }
        let choice = if choices == 1 { 0 } else { choose(choices) };
        if choice < woken.len() {
            Some(woken.swap_remove(choice))
        } else {
            fresh.pop_front()
        }
    }

    /// Polls a task; the world is not borrowed meanwhile. Nothing where it has ended.
    pub fn poll(&self, id: u64) {
        let Some((mut task, waker)) = self.take(id) else {
            return;
        };
        waker.rearm();
        let waker = Waker::from(waker);
        let done = task
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        let mut slots = self.slots.borrow_mut();
        if done {
            slots.remove(&id);
        } else if let Some(slot) = slots.get_mut(&id) {
            slot.task = Some(task);
            return;
        }
        // Ended, or its machine went down while it ran: what it owns is dropped with no
        // borrow held, for its drops may spawn.
        drop(slots);
        drop(task);
    }

    fn take(&self, id: u64) -> Option<(Task, Arc<TaskWaker>)> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&id)?;
        Some((slot.task.take()?, slot.waker.clone()))
    }

    /// Ends all tasks where they stand, as a crash does.
    pub fn drop_all(&self) {
        // A drop may spawn: what it spawned is dropped too.
        loop {
            let slots = self.slots.take();
            self.fresh.take();
            if slots.is_empty() {
                return;
            }
        }
    }
}

/// What is due when. Events of one instant are in an order from the seed.
#[derive(Default)]
pub(super) struct Agenda(BTreeMap<EventKey, Event>);

/// Instant, tie-break, serial number.
pub(super) type EventKey = (Nanos, u64, u64);

impl Agenda {
    pub fn add(&mut self, key: EventKey, event: Event) {
        let before = self.0.insert(key, event);
        assert!(before.is_none(), "serial numbers are unique");
    }

    pub fn cancel(&mut self, key: EventKey) -> Option<Event> {
        self.0.remove(&key)
    }

    pub fn due(&mut self, now: Nanos) -> Option<(EventKey, Event)> {
        let first = self.0.first_entry()?;
        (first.key().0 <= now).then(|| first.remove_entry())
    }

    pub fn next_instant(&self) -> Option<Nanos> {
        self.0.first_key_value().map(|(key, _)| key.0)
    }

    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.0).into_values().collect()
    }
}

/// Where an operation's result is put for the future that waits for it.
pub(super) struct Outcome<T> {
    result: Option<T>,
    waker: Option<Waker>,
}

pub(super) type Mailbox<T> = Rc<RefCell<Outcome<T>>>;

pub(super) fn mailbox<T>() -> Mailbox<T> {
    Rc::new(RefCell::new(Outcome {
        result: None,
        waker: None,
    }))
}

pub(super) fn deliver<T>(mailbox: &Mailbox<T>, result: T) -> Option<Waker> {
    let mut outcome = mailbox.borrow_mut();
    outcome.result = Some(result);
    outcome.waker.take()
}

pub(super) fn receive<T>(mailbox: &Mailbox<T>, cx: &Context<'_>) -> Poll<T> {
    let mut outcome = mailbox.borrow_mut();
    match outcome.result.take() {
        Some(result) => Poll::Ready(result),
        None => {
            outcome.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }
}
