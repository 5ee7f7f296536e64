//! One executor a core, and the mailboxes between them.
//!
//! ```text
//!   run()  a thread a shard, pinned
//!    |
//!    |   all executors made?      no: none starts, the error says which and why
//!    |   local contexts made      each on its own thread; nothing is served before
//!    |   serve                    until the futures of all shards have ended
//!    v
//!   Ok, or the first error: a context that could not be made, a panic
//!
//!   mailbox: one bounded ring for each ordered pair of shards, without locks
//! ```
//!
//! A busy executor looks at its mailboxes each time its tasks have nothing more to do;
//! one that sleeps is woken. So no task queue of its own is needed for them: glommio's
//! `Latency::Matters` is about wakers that cross threads, which these channels do without.
//!
//! It would do harm, too: it shortens the preempt timer, and so does the builder's
//! `preempt_timer`. glommio 0.9.0 arms that timer, then runs its tasks; where the timer is
//! over before the first of them ran, because the thread was not on a processor, it takes
//! the round for an idle one and goes to sleep with tasks to run, until something else
//! wakes it. At 1 ms that is every day's experience on a loaded machine. So the timer stays
//! at its 100 ms, and a heartbeat bounds how long such a sleep can be.

#[cfg(test)]
mod tests;

use super::{GlommioIo, probe, termination};
use crate::io::Io;
use crate::io::shards::{Link, Message, Shards};
use crate::units::ShardId;
use futures_channel::oneshot;
use futures_util::future::{Either, join_all, join3, select};
use glommio::channels::shared_channel::{
    self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
};
use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long the other shards get to end when one has failed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Each executor wakes this often, whatever it waits for: see the module. 10 times a
/// second costs some 0.1 % of a processor.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// So many messages in one go, then the executor has a look at the disk and the network.
const MESSAGES_IN_A_ROW: usize = 256;

/// How long to leave a full mailbox alone. A shard that reads at all takes some hundred
/// messages in this time.
const RETRY: Duration = Duration::from_micros(100);

#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// How many shards.
    pub cores: usize,
    /// Each shard keeps to a processor of those that this process may use. More shards
    /// than processors share them.
    pub pin: bool,
    /// How many messages a mailbox holds; the rest waits on the sender's side.
    pub mailbox_len: usize,
    /// Memory a shard for reads, registered with the kernel and locked, so it counts as
    /// used from the start: see `probe::io_memory`. Reads beyond it use the heap.
    pub io_memory_bytes: usize,
    /// Entries of each ring: how much a shard submits to the kernel at once.
    pub ring_depth: usize,
}

impl Default for RuntimeConfig {
    fn default() -> RuntimeConfig {
        RuntimeConfig {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            pin: true,
            // A message is a box of some 100 bytes: 16 cores have 240 rings, so 15 MiB.
            mailbox_len: 512,
            io_memory_bytes: 1 << 20,
            ring_depth: 128,
        }
    }
}

#[derive(Debug)]
pub enum RuntimeError<E> {
    /// An executor could not be made; `probe` says more of the causes.
    Executor { shard: ShardId, reason: String },
    /// A shard's local context could not be made.
    Start { shard: ShardId, error: E },
    /// A mistake of ours: the process is to end.
    Panicked { shard: ShardId, message: String },
}

impl<E: fmt::Display> fmt::Display for RuntimeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuntimeError::Executor { shard, reason } => {
                write!(
                    f,
                    "the executor of shard {} could not be started: {reason}",
                    shard.0
                )
            }
            RuntimeError::Start { error, .. } => error.fmt(f),
            RuntimeError::Panicked { shard, message } => write!(
                f,
                "shard {} stopped by a mistake in the program: {message}; please report it with what \
                 stands above",
                shard.0
            ),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for RuntimeError<E> {}

/// Runs `make`, then `serve`, on every shard, and returns when `serve` has ended on all.
///
/// `make` builds what the shard owns; it may await, but not another shard (the handle is
/// there to be kept). Where it fails on one shard, no shard serves. `serve` should end
/// once `Shards::stopping` resolves; a shard whose `serve` has ended still does what
/// others submit to it, until all have ended.
///
/// A panic on a shard is returned at once, whatever the other shards do: the caller ends
/// the process, and recovery sees to the rest.
pub fn run<L, E, M, S>(config: &RuntimeConfig, make: M, serve: S) -> Result<(), RuntimeError<E>>
where
    L: 'static,
    E: Send + 'static,
    M: AsyncFnOnce(Shards<L>, GlommioIo) -> Result<L, E> + Clone + Send + 'static,
    S: AsyncFnOnce(Shards<L>, GlommioIo) + Clone + Send + 'static,
{
    let count = config.cores;
    assert!(
        count > 0 && count <= usize::from(u16::MAX),
        "{count} shards"
    );
    // While this is the only thread it takes no time; with others about, tens of
    // milliseconds, and glommio would do it in its first sleep.
    probe::register_barrier();
    let processors = if config.pin {
        probe::processors()
    } else {
        Vec::new()
    };
    let abandoned = Arc::new(Abandoned::default());
    let (report, reports) = mpsc::channel();
    let mut starters = Vec::with_capacity(count);
    for (seat, ends) in mesh::<L>(count, config.mailbox_len).into_iter().enumerate() {
        let shard = ShardId(seat as u16);
        let processor = (!processors.is_empty()).then(|| processors[seat % processors.len()]);
        let (starter, start) = mpsc::channel::<()>();
        starters.push(starter);
        let (config, report, abandoned) = (config.clone(), report.clone(), abandoned.clone());
        let (make, serve) = (make.clone(), serve.clone());
        let thread = std::thread::Builder::new().name(format!("shard-{}", shard.0));
        let spawned = thread.spawn(move || {
            termination::leave_to_other_threads();
            let made = catch_unwind(AssertUnwindSafe(|| builder(&config, processor).make()));
            let error = match made {
                Ok(Ok(executor)) => {
                    let _ = report.send((shard, Report::Made));
                    if start.recv().is_ok() {
                        let ended = on_executor(executor, &abandoned, shard, ends, make, serve);
                        let _ = report.send((shard, Report::Ended(ended)));
                    }
                    return;
                }
                Ok(Err(e)) => RuntimeError::Executor {
                    shard,
                    reason: e.to_string(),
                },
                Err(panic) => RuntimeError::Executor {
                    shard,
                    reason: message(&*panic),
                },
            };
            let _ = report.send((shard, Report::Ended(Err(error))));
        });
        if let Err(e) = spawned {
            return Err(RuntimeError::Executor {
                shard,
                reason: e.to_string(),
            });
        }
    }
    drop(report);
    let mut error = None;
    for _ in 0..count {
        if let (_, Report::Ended(Err(e))) = next(&reports) {
            error.get_or_insert(e);
        }
    }
    if let Some(error) = error {
        // The others wait to be started; dropping the starters sends them home.
        return Err(error);
    }
    for starter in &starters {
        // A thread that is gone has reported it.
        let _ = starter.send(());
    }
    wait_for_all(count, &reports, &abandoned)
}

enum Report<E> {
    Made,
    Ended(Result<(), RuntimeError<E>>),
}

fn next<E>(reports: &mpsc::Receiver<(ShardId, Report<E>)>) -> (ShardId, Report<E>) {
    reports
        .recv()
        .expect("each thread reports before it ends, and a panic is caught")
}

fn wait_for_all<E>(
    count: usize,
    reports: &mpsc::Receiver<(ShardId, Report<E>)>,
    abandoned: &Abandoned,
) -> Result<(), RuntimeError<E>> {
    let mut running = count;
    let mut result = Ok(());
    while running > 0 && result.is_ok() {
        if let (_, Report::Ended(ended)) = next(reports) {
            running -= 1;
            result = ended;
        }
    }
    if result.is_err() {
        abandoned.set();
        let deadline = Instant::now() + LAST_WORDS;
        while running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            // A shard that hangs is left behind: the process is about to end.
            let Ok((shard, Report::Ended(ended))) = reports.recv_timeout(left) else {
                break;
            };
            running -= 1;
            if let (Err(RuntimeError::Start { .. }), Err(worse @ RuntimeError::Panicked { .. })) =
                (&result, ended)
            {
                log::error!("shard {} panicked while another could not start", shard.0);
                result = Err(worse);
            }
        }
    }
    result
}

fn builder(config: &RuntimeConfig, processor: Option<usize>) -> LocalExecutorBuilder {
    let placement = processor.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .io_memory(config.io_memory_bytes)
        .ring_depth(config.ring_depth)
        // Where the executor is pinned, its helpers are not: they only wait for the disk. Four:
        // readers that catch up have most of them waiting, and names want one, too.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(4))
}

fn on_executor<L, E, M, S>(
    executor: LocalExecutor,
    abandoned: &Arc<Abandoned>,
    shard: ShardId,
    ends: Ends<L>,
    make: M,
    serve: S,
) -> Result<(), RuntimeError<E>>
where
    L: 'static,
    E: 'static,
    M: AsyncFnOnce(Shards<L>, GlommioIo) -> Result<L, E> + 'static,
    S: AsyncFnOnce(Shards<L>, GlommioIo) + 'static,
{
    let work = catch_unwind(AssertUnwindSafe(|| {
        executor.run(async {
            let life = pin!(live(shard, ends, make, serve));
            let end = pin!(poll_fn(|cx| abandoned.poll(cx)));
            match select(life, end).await {
                Either::Left((result, _)) => result,
                Either::Right(((), _)) => {
                    GlommioIo::new().settle().await;
                    Ok(())
                }
            }
        })
    }));
    match work {
        Ok(result) => result.map_err(|error| RuntimeError::Start { shard, error }),
        Err(panic) => {
            // Dropping its tasks now would run drops that expect an executor.
            std::mem::forget(executor);
            Err(RuntimeError::Panicked {
                shard,
                message: message(&*panic),
            })
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

async fn live<L: 'static, E>(
    shard: ShardId,
    ends: Ends<L>,
    make: impl AsyncFnOnce(Shards<L>, GlommioIo) -> Result<L, E>,
    serve: impl AsyncFnOnce(Shards<L>, GlommioIo),
) -> Result<(), E> {
    let io = GlommioIo::new();
    let shards = Shards::unlinked(shard, io.clone());
    let senders = ends.senders.into_iter().map(async |sender| match sender {
        Some(sender) => {
            let link: Box<dyn Link<L>> = Box::new(Outbox::new(sender.connect().await, io.clone()));
            Some(link)
        }
        None => None,
    });
    let receivers = ends.receivers.into_iter().map(SharedReceiver::connect);
    let (first_beat, beating) = oneshot::channel();
    io.spawn(beat(shards.clone(), io.clone(), first_beat));
    // All at once: each side of a channel waits for the other to connect.
    let linked = join3(join_all(senders), join_all(receivers), beating);
    // The task of the heartbeat may itself be one that the executor sleeps over, and then
    // two shards wait for each other for ever. Until it runs this one has the timer.
    let (links, mailboxes, _) = match select(pin!(linked), pin!(beat_here(&io))).await {
        Either::Left((linked, _)) => linked,
        Either::Right((never, _)) => match never {},
    };
    shards.link(links);
    // Messages wait in the mailbox meanwhile: nothing is served before its context is.
    let local = make(shards.clone(), io.clone()).await?;
    shards.settle(local);
    for mailbox in mailboxes {
        io.spawn(serve_mailbox(shards.clone(), io.clone(), mailbox));
    }
    // A shard that could not be made answers nothing, and no other one gets beyond this.
    shards.all_made().await;
    serve(shards.clone(), io.clone()).await;
    shards.all_ended().await;
    // The last word to the others is out before the channels close.
    while shards.waiting() > 0 {
        io.sleep(RETRY).await;
    }
    shards.close();
    io.settle().await;
    // The mailboxes' tasks are woken; once round for them to end.
    io.sleep(Duration::ZERO).await;
    Ok(())
}

async fn serve_mailbox<L: 'static>(
    shards: Shards<L>,
    io: GlommioIo,
    mailbox: ConnectedReceiver<Message<L>>,
) {
    let mut closed = pin!(shards.closed());
    let mut in_a_row = 0;
    loop {
        let mut received = pin!(mailbox.recv());
        // Not `select`, and polled no more often than it must be: each poll of `recv` that
        // has to wait leaves another waker with the channel.
        let next = poll_fn(|cx| match received.as_mut().poll(cx) {
            Poll::Ready(message) => Poll::Ready(message),
            Poll::Pending => {
                in_a_row = 0;
                closed.as_mut().poll(cx).map(|()| None)
            }
        });
        let Some(message) = next.await else { return };
        message(&shards);
        in_a_row += 1;
        if in_a_row == MESSAGES_IN_A_ROW {
            // Yielding does not do it: without a timer to wait for, the executor goes on
            // with its tasks and never looks at its rings.
            in_a_row = 0;
            io.sleep(Duration::from_micros(10)).await;
        }
    }
}

async fn beat<L: 'static>(shards: Shards<L>, io: GlommioIo, first: oneshot::Sender<()>) {
    let mut closed = pin!(shards.closed());
    // The timer is armed before anything else runs: there is no await in between. Nobody
    // waits for the word where the shard has been given up.
    let _ = first.send(());
    while let Either::Left(_) = select(pin!(io.sleep(HEARTBEAT)), &mut closed).await {}
}

async fn beat_here(io: &GlommioIo) -> Infallible {
    loop {
        io.sleep(HEARTBEAT).await;
    }
}

// -- mailboxes

/// One shard's ends of all its channels.
struct Ends<L: 'static> {
    /// By the shard that they lead to; none to itself.
    senders: Vec<Option<SharedSender<Message<L>>>>,
    receivers: Vec<SharedReceiver<Message<L>>>,
}

/// A channel for every ordered pair of shards.
fn mesh<L: 'static>(count: usize, len: usize) -> Vec<Ends<L>> {
    let mut all: Vec<Ends<L>> = (0..count)
        .map(|_| Ends {
            senders: Vec::with_capacity(count),
            receivers: Vec::new(),
        })
        .collect();
    for from in 0..count {
        for to in 0..count {
            if from == to {
                all[from].senders.push(None);
            } else {
                let (sender, receiver) = shared_channel::new_bounded(len);
                all[from].senders.push(Some(sender));
                all[to].receivers.push(receiver);
            }
        }
    }
    all
}

/// The sending side of a mailbox, with what it had no room for.
struct Outbox<L: 'static>(Rc<OutboxState<L>>);

struct OutboxState<L: 'static> {
    io: GlommioIo,
    sender: ConnectedSender<Message<L>>,
    overflow: RefCell<VecDeque<Message<L>>>,
    /// A task moves the overflow into the mailbox; until it is done nothing may pass it.
    moving: Cell<bool>,
}

impl<L: 'static> Outbox<L> {
    fn new(sender: ConnectedSender<Message<L>>, io: GlommioIo) -> Outbox<L> {
        Outbox(Rc::new(OutboxState {
            io,
            sender,
            overflow: RefCell::default(),
            moving: Cell::new(false),
        }))
    }
}

impl<L: 'static> Link<L> for Outbox<L> {
    fn post(&self, message: Message<L>) {
        if self.0.moving.get() {
            self.0.overflow.borrow_mut().push_back(message);
            return;
        }
        if let Some(message) = self.0.try_send(message) {
            self.0.overflow.borrow_mut().push_back(message);
            self.0.moving.set(true);
            self.0.io.spawn(move_overflow(self.0.clone()));
        }
    }

    fn waiting(&self) -> usize {
        // The one that the task holds waits too.
        self.0.overflow.borrow().len() + usize::from(self.0.moving.get())
    }
}

impl<L: 'static> OutboxState<L> {
    /// Gives the message back where there is no room; drops it where no one is there.
    fn try_send(&self, message: Message<L>) -> Option<Message<L>> {
        match self.sender.try_send(message) {
            Ok(()) => None,
            Err(GlommioError::WouldBlock(glommio::ResourceType::Channel(message))) => Some(message),
            Err(_) => None,
        }
    }
}

/// glommio's own `send().await` panics where the ring says that there is room and then has
/// none, which its memory order allows on some processors; so this asks again instead.
async fn move_overflow<L: 'static>(outbox: Rc<OutboxState<L>>) {
    loop {
        let first = outbox.overflow.borrow_mut().pop_front();
        let Some(message) = first else { break };
        if let Some(message) = outbox.try_send(message) {
            outbox.overflow.borrow_mut().push_front(message);
            outbox.io.sleep(RETRY).await;
        }
    }
    outbox.moving.set(false);
}

// -- the end that nobody wished for

/// Set when a shard has failed; every shard's main future waits for it, on whatever
/// thread it is set.
#[derive(Default)]
struct Abandoned(Mutex<(bool, Vec<Waker>)>);

impl Abandoned {
    fn lock(&self) -> MutexGuard<'_, (bool, Vec<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        let waiting = {
            let mut state = self.lock();
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.0 {
            return Poll::Ready(());
        }
        if !state.1.iter().any(|w| w.will_wake(cx.waker())) {
            state.1.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
