//! One shard's handle to all the others: work goes to where its state lives.
//!
//! ```text
//!   shard A                                        shard B
//!   submit_to(B, work) --> outbox --> mailbox ---> work(local of B), its first poll
//!                          (bounded; what does         |
//!                           not fit waits, in          v
//!   answer <-- mailbox <-- outbox <----------------- its end
//! ```
//!
//! - Work of one shard for another *starts* in the order of the calls: its call and its
//!   first poll are done before the next one's. It ends in any order.
//! - Work for the own shard starts at once, before `submit_to` returns.
//! - Work that has started goes on when nobody waits for its answer any more.
//! - Nothing is lost and nothing blocks: what a mailbox has no room for waits on the
//!   sender's side. [`Shards::waiting_for`] says how much, so that who lets work in can
//!   stop letting it in.
//!
//! What carries the messages is a [`Link`]: glommio's channels between threads
//! (`io/glommio/runtime.rs`), or a list where all shards are on one thread.

use super::Io;
use crate::units::ShardId;
use futures_channel::oneshot;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Runs on the shard that it was sent to.
pub type Message<L> = Box<dyn FnOnce(&Shards<L>) + Send>;

/// The way from this shard to another one. In order, without loss while both live.
pub trait Link<L> {
    /// Takes the message at once; it never waits. Drops it where the other has ended.
    fn post(&self, message: Message<L>);

    /// How many messages wait on this side for room.
    fn waiting(&self) -> usize;
}

/// The shard that was asked has stopped. Whether it did the work is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardGone(pub ShardId);

impl fmt::Display for ShardGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} has stopped", self.0.0)
    }
}

impl std::error::Error for ShardGone {}

/// One shard's handle to all of them; `L` is what a shard owns. See the module.
pub struct Shards<L>(Rc<Inner<L>>);

impl<L> Clone for Shards<L> {
    fn clone(&self) -> Self {
        Shards(self.0.clone())
    }
}

type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()>>>)>;

struct Inner<L> {
    here: ShardId,
    local: OnceCell<Rc<L>>,
    spawn: Spawn,
    /// By shard; there is none to ourselves.
    links: OnceCell<Vec<Option<Box<dyn Link<L>>>>>,
    stop: Flag,
    /// Every shard has its local context.
    made: Roll,
    /// Every shard has nothing more to begin.
    ended: Roll,
    /// This shard serves the others no more.
    closed: Flag,
}

/// Which all shards have to answer to before it is complete.
#[derive(Default)]
struct Roll {
    answered: Cell<usize>,
    complete: Flag,
}

/// Something that becomes true once, and who waits for it.
#[derive(Default)]
struct Flag {
    set: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Flag {
    fn set(&self) {
        self.set.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.set.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|w| w.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<L: 'static> Shards<L> {
    /// A handle that has neither its links nor its local context yet.
    pub(super) fn unlinked(here: ShardId, io: impl Io) -> Shards<L> {
        Shards(Rc::new(Inner {
            here,
            local: OnceCell::new(),
            spawn: Box::new(move |task| io.spawn(task)),
            links: OnceCell::new(),
            stop: Flag::default(),
            made: Roll::default(),
            ended: Roll::default(),
            closed: Flag::default(),
        }))
    }

    pub(super) fn link(&self, links: Vec<Option<Box<dyn Link<L>>>>) {
        assert!(
            links[self.index()].is_none(),
            "a shard has no link to itself"
        );
        assert!(self.0.links.set(links).is_ok(), "the links are made once");
    }

    pub(super) fn settle(&self, local: L) {
        assert!(
            self.0.local.set(Rc::new(local)).is_ok(),
            "the local context is made once"
        );
    }

    /// One shard that is all there is.
    #[must_use]
    pub fn single(io: impl Io, local: L) -> Shards<L> {
        Shards::together(io, vec![local]).remove(0)
    }

    /// Several shards on one thread, for tests: messages travel by tasks of `io`, so a
    /// simulated one delays them and keeps the order of each pair, as the real ones do.
    #[must_use]
    pub fn together(io: impl Io, locals: Vec<L>) -> Vec<Shards<L>> {
        assert!(!locals.is_empty() && locals.len() <= usize::from(u16::MAX));
        let ids = 0..locals.len();
        let all: Vec<Shards<L>> = ids
            .clone()
            .map(|i| Shards::unlinked(ShardId(i as u16), io.clone()))
            .collect();
        for (shards, local) in all.iter().zip(locals) {
            let link = |to: usize| -> Box<dyn Link<L>> {
                Box::new(TaskLink {
                    io: io.clone(),
                    to: Rc::downgrade(&all[to].0),
                    queue: Rc::default(),
                    carried: Rc::default(),
                })
            };
            let others = ids
                .clone()
                .map(|to| (to != shards.index()).then(|| link(to)));
            shards.link(others.collect());
            shards.settle(local);
        }
        all
    }

    #[must_use]
    pub fn here(&self) -> ShardId {
        self.0.here
    }

    fn index(&self) -> usize {
        usize::from(self.0.here.0)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.links().len()
    }

    /// All shards, this one among them.
    pub fn ids(&self) -> impl Iterator<Item = ShardId> + use<L> {
        (0..self.count()).map(|i| ShardId(i as u16))
    }

    fn links(&self) -> &[Option<Box<dyn Link<L>>>] {
        self.0
            .links
            .get()
            .expect("a shard is linked before it runs")
    }

    /// This shard's own context. It is there once the shard has made it.
    #[must_use]
    pub fn local(&self) -> Rc<L> {
        self.0
            .local
            .get()
            .expect("the local context is made before it is used")
            .clone()
    }

    /// How many messages for `shard` wait here for room in its mailbox. Above 0: it does
    /// not keep up with us.
    #[must_use]
    pub fn waiting_for(&self, shard: ShardId) -> usize {
        self.links()[usize::from(shard.0)]
            .as_ref()
            .map_or(0, |link| link.waiting())
    }

    /// The same for all shards together.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.links()
            .iter()
            .flatten()
            .map(|link| link.waiting())
            .sum()
    }

    /// Runs `work` on `shard` with that shard's context. It is on its way when this
    /// returns; the future only waits for the answer. See the module for the order.
    pub fn submit_to<R, F, Fut>(
        &self,
        shard: ShardId,
        work: F,
    ) -> impl Future<Output = Result<R, ShardGone>> + use<L, R, F, Fut>
    where
        F: FnOnce(Rc<L>) -> Fut + Send + 'static,
        Fut: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        match &self.links()[usize::from(shard.0)] {
            None => self.start(work(self.local()), move |result| {
                // Nobody waits for it any more: that is their right.
                let _ = answer.send(result);
            }),
            Some(link) => {
                let from = self.here();
                link.post(Box::new(move |there| {
                    let way_back = there.clone();
                    there.start(work(there.local()), move |result| {
                        way_back.post(from, move |_| {
                            let _ = answer.send(result);
                        });
                    });
                }));
            }
        }
        async move { answered.await.map_err(|_| ShardGone(shard)) }
    }

    fn post(&self, shard: ShardId, message: impl FnOnce(&Shards<L>) + Send + 'static) {
        match &self.links()[usize::from(shard.0)] {
            Some(link) => link.post(Box::new(message)),
            None => message(self),
        }
    }

    fn post_to_all(&self, message: impl Fn(&Shards<L>) + Clone + Send + 'static) {
        for shard in self.ids() {
            let message = message.clone();
            self.post(shard, move |shards| message(shards));
        }
    }

    /// Polls a future once here and now, and sees it through in a task of its own.
    fn start<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(T) + 'static,
    ) {
        let mut future = Box::pin(future);
        let relay = Arc::new(Relay::default());
        let waker = Waker::from(relay.clone());
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => then(value),
            Poll::Pending => (self.0.spawn)(Box::pin(async move {
                let ended = poll_fn(|cx| {
                    relay.point_to(cx.waker());
                    if relay.take_woken() {
                        future.as_mut().poll(&mut Context::from_waker(&waker))
                    } else {
                        Poll::Pending
                    }
                });
                then(ended.await);
            })),
        }
    }

    // -- the end

    /// Asks all shards to stop: `stopping` resolves on each of them.
    pub fn stop(&self) {
        self.post_to_all(|shards| shards.0.stop.set());
    }

    /// Resolves once any shard has called `stop`.
    pub fn stopping(&self) -> impl Future<Output = ()> + use<L> {
        let shards = self.clone();
        poll_fn(move |cx| shards.0.stop.poll(cx))
    }

    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stop.set.get()
    }

    /// Says that this shard has its context, and waits for all to have said so.
    pub(super) async fn all_made(&self) {
        self.call_the_roll(|shards| &shards.0.made).await;
    }

    /// This shard begins nothing more of its own. It serves the others until all of them
    /// have said so, for what one is ending may need an answer of another.
    pub(super) async fn all_ended(&self) {
        self.call_the_roll(|shards| &shards.0.ended).await;
    }

    async fn call_the_roll(&self, roll: fn(&Shards<L>) -> &Roll) {
        self.post_to_all(move |shards| {
            let answered = roll(shards).answered.get() + 1;
            roll(shards).answered.set(answered);
            if answered == shards.count() {
                roll(shards).complete.set();
            }
        });
        poll_fn(|cx| roll(self).complete.poll(cx)).await;
    }

    /// Ends what serves the others here.
    pub(super) fn close(&self) {
        self.0.closed.set();
    }

    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<L> {
        let shards = self.clone();
        poll_fn(move |cx| shards.0.closed.poll(cx))
    }
}

/// Stands between a future and the task that sees it through, which is not there yet
/// when the future is first polled.
#[derive(Default)]
struct Relay {
    woken: AtomicBool,
    // Wakers are Send, so this is; only a wake from another thread contends for it.
    to: Mutex<Option<Waker>>,
}

impl Relay {
    fn point_to(&self, waker: &Waker) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *to {
            Some(known) => known.clone_from(waker),
            None => *to = Some(waker.clone()),
        }
    }

    fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let to = self
            .to
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(waker) = to {
            waker.wake();
        }
    }
}

/// Between shards on one thread: a task carries what is there, one after the other.
struct TaskLink<L, I> {
    io: I,
    to: Weak<Inner<L>>,
    queue: Rc<RefCell<VecDeque<Message<L>>>>,
    carried: Rc<Cell<bool>>,
}

impl<L: 'static, I: Io> Link<L> for TaskLink<L, I> {
    fn post(&self, message: Message<L>) {
        self.queue.borrow_mut().push_back(message);
        if self.carried.replace(true) {
            return;
        }
        let (io, to) = (self.io.clone(), self.to.clone());
        let (queue, carried) = (self.queue.clone(), self.carried.clone());
        self.io.spawn(async move {
            while !queue.borrow().is_empty() {
                io.sleep(Duration::ZERO).await;
                let Some(to) = to.upgrade().map(Shards) else {
                    drop(queue.take());
                    break;
                };
                let message = queue
                    .borrow_mut()
                    .pop_front()
                    .expect("only this task takes");
                message(&to);
            }
            carried.set(false);
        });
    }

    fn waiting(&self) -> usize {
        self.queue.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, Sim, SimIo};
    use futures_util::future::join_all;

    struct Local {
        io: SimIo,
        log: RefCell<Vec<u32>>,
    }

    fn world(seed: u64, count: usize) -> (Sim, SimIo, Vec<Shards<Local>>) {
        let sim = Sim::from_seed(seed);
        sim.faults(Faults {
            slow: 0.2,
            ..Faults::default()
        });
        let io = sim.io();
        let local = || Local {
            io: io.clone(),
            log: RefCell::default(),
        };
        let all = Shards::together(io.clone(), (0..count).map(|_| local()).collect());
        (sim, io, all)
    }

    const HERE: ShardId = ShardId(0);
    const THERE: ShardId = ShardId(1);

    #[test]
    fn own_work_starts_before_the_call_returns_and_ends_when_it_may() {
        let (sim, _, all) = world(1, 1);
        let shards = &all[0];
        sim.run(async {
            let slow = shards.submit_to(HERE, |local: Rc<Local>| async move {
                local.log.borrow_mut().push(1);
                local.io.sleep(Duration::from_millis(5)).await;
                local.log.borrow_mut().push(3);
                "slow"
            });
            assert_eq!(*shards.local().log.borrow(), [1]);
            let quick = shards.submit_to(HERE, |local: Rc<Local>| async move {
                local.log.borrow_mut().push(2);
                "quick"
            });
            assert_eq!(*shards.local().log.borrow(), [1, 2]);
            assert_eq!(quick.await, Ok("quick"));
            assert_eq!(slow.await, Ok("slow"));
            assert_eq!(*shards.local().log.borrow(), [1, 2, 3]);
        });
    }

    #[test]
    fn work_goes_on_when_nobody_waits_for_it() {
        let (sim, io, all) = world(1, 2);
        sim.run(async {
            for shard in [HERE, THERE] {
                drop(all[0].submit_to(shard, |local: Rc<Local>| async move {
                    local.io.sleep(Duration::from_millis(5)).await;
                    local.log.borrow_mut().push(7);
                }));
            }
            io.sleep(Duration::from_secs(10)).await;
            assert_eq!(*all[0].local().log.borrow(), [7]);
            assert_eq!(*all[1].local().log.borrow(), [7]);
        });
    }

    #[test]
    fn work_for_another_shard_starts_in_call_order_under_any_seed() {
        for seed in 0..100 {
            let (sim, _, all) = world(seed, 2);
            sim.run(async {
                let answers = (0..20u32).map(|i| {
                    all[0].submit_to(THERE, move |local: Rc<Local>| async move {
                        local.log.borrow_mut().push(i);
                        local
                            .io
                            .sleep(Duration::from_millis(u64::from(20 - i)))
                            .await;
                        i
                    })
                });
                // Collected first: the calls are made, and none is polled.
                let answers: Vec<_> = answers.collect();
                assert_eq!(all[0].waiting_for(THERE), 20);
                let answers = join_all(answers).await;
                assert_eq!(answers, (0..20).map(Ok).collect::<Vec<_>>());
                assert_eq!(*all[1].local().log.borrow(), (0..20).collect::<Vec<_>>());
                assert_eq!(all[0].waiting(), 0);
            });
        }
    }

    #[test]
    fn a_shard_that_is_gone_is_said_to_be() {
        let (sim, _, mut all) = world(1, 2);
        all.truncate(1);
        let answer = sim.run(all[0].submit_to(THERE, |_| async {}));
        assert_eq!(answer, Err(ShardGone(THERE)));
    }

    #[test]
    fn stop_is_heard_on_every_shard_and_the_end_waits_for_all() {
        let (sim, io, all) = world(3, 3);
        let ended = Rc::new(Cell::new(0));
        sim.run(async {
            for shards in &all {
                let (shards, ended) = (shards.clone(), ended.clone());
                io.spawn(async move {
                    shards.stopping().await;
                    let index = shards.here().0;
                    let nap = Duration::from_millis(100 * u64::from(index));
                    shards.local().io.sleep(nap).await;
                    // The others still answer, though they have nothing more to do.
                    let other = ShardId((index + 1) % 3);
                    assert_eq!(shards.submit_to(other, |_| async { 1 }).await, Ok(1));
                    shards.all_ended().await;
                    ended.set(ended.get() + 1);
                });
            }
            io.sleep(Duration::from_millis(10)).await;
            assert!(!all[0].is_stopping());
            all[1].stop();
            io.sleep(Duration::from_millis(150)).await;
            assert_eq!(ended.get(), 0);
            io.sleep(Duration::from_millis(150)).await;
            assert_eq!(ended.get(), 3);
        });
    }
}
