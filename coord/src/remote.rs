//! The coordinator of a broker whose cluster is kept elsewhere: in an Apache ZooKeeper
//! ensemble, or by another Klamm's coordinator.
//!
//! ```text
//!   call --> core (a mirror of the tree) --> gathered --> multis, in order --> ensemble
//!              ^                                            |                     |
//!              |                             all were done: |                     | events
//!              |                             answered       | one was not:        v
//!              +-- reflect <-- read anew <------------------+--------------- dirty paths
//! ```
//!
//! One interface with [`crate::driver`]: the same requests, the same answers, the same
//! state machine. What differs is what may go wrong. Somebody else may have been quicker:
//! then the nodes are read anew, and who asked is refused in a way that makes a client
//! ask again. The session may end: then everything is read, and this broker registers
//! again.
//!
//! Between a change that was not done and its reading the mirror is in doubt: it shows
//! what never was. Nothing that rests on it leaves meanwhile, neither to the ensemble nor
//! to a client nor to a shard, which would delete the records of a topic that is there.
//!
//! Groups are shared out among the brokers by their names (see [`crate::core::image`]).
//! Whoever is asked for a group first claims it by setting `/consumers/GROUP`; every
//! commit checks that the claim stands, so that of two brokers that both think a group
//! theirs only the last one's commits are taken.

mod claims;
mod reading;

use crate::core::coordinator::{Core, CoreConfig, Effect, Output, Request, Response};
use crate::core::image::{Broker, Image};
use crate::core::path;
use crate::core::tree::{Event, EventKind, MultiError, Op, OpResult, Seen, TreeError};
use crate::core::zookeeper::SessionId;
use crate::core::{Now, Token};
use crate::desk::{Answer, Desk};
use crate::driver::{Host, Stopped};
use claims::{Claim, group_node, not_ours};
use futures_channel::oneshot;
use futures_util::future::{self, Either};
use klamm_engine::io::Io;
use klamm_engine::signal::Signal;
use klamm_engine::units::{Nanos, TimestampMs};
use reading::{Dirty, everything};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What of the tree is mirrored. Of `/consumers` only what this broker looks after.
const MIRRORED: [&str; 9] = [
    "/admin",
    "/brokers",
    "/cluster",
    "/config",
    "/controller",
    "/controller_epoch",
    "/isr_change_notification",
    "/latest_producer_id_block",
    "/log_dir_event_notification",
];

const CONSUMERS: &str = "/consumers";

/// How many operations one multi takes: with paths of 100 bytes about 100 KiB, a tenth of
/// what a server takes by default (`jute.maxbuffer`).
pub(crate) const MULTI_OPS: usize = 1_000;

/// How long a request waits for the mirror to be read anew; then its client asks again.
const DOUBT_MAX: Duration = Duration::from_secs(2);

/// Until what could not be read is asked for again, where no reconnection says so before.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A session with an ensemble. Requests are sent, and answered, in the order of the
/// calls; a call that is made has its place even where its future is not polled yet.
pub trait Ensemble: 'static {
    /// The session that ephemeral nodes belong to.
    fn session(&self) -> SessionId;

    fn multi(
        &self,
        ops: &[Op],
    ) -> impl Future<Output = Result<Result<Vec<OpResult>, MultiError>, Lost>> + 'static;

    fn read(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Result<Seen, TreeError>, Lost>> + 'static;

    fn children(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Result<Vec<String>, TreeError>, Lost>> + 'static;

    /// Has changes of the path and of all below it told, from now on and over every
    /// reconnection and session.
    fn watch(&self, path: &str) -> impl Future<Output = Result<(), Lost>> + 'static;

    /// What happened next.
    fn notice(&self) -> impl Future<Output = Notice>;

    /// Ends the session, and its ephemeral nodes with it.
    fn close(&self) -> impl Future<Output = ()>;
}

/// No answer came: what was asked may have been done or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A watched node changed.
    Event(Event),
    /// The connection was away: events may have been missed.
    Reconnected,
    /// The session had expired; there is another one now.
    NewSession,
    /// It was closed, and nothing more comes.
    Closed,
}

pub struct Remote<I: Io, H: Host, E: Ensemble> {
    io: I,
    ensemble: E,
    desk: Rc<Desk<I, H>>,
    core: RefCell<Core>,
    me: i32,
    /// What is registered again in a new session.
    broker: RefCell<Option<Broker>>,
    groups: RefCell<HashMap<String, Claim>>,
    /// Whose requests wait in which group: refused where it is let go of.
    asked: RefCell<HashMap<Token, String>>,

    gathered: RefCell<Output>,
    committing: Cell<bool>,
    /// How many multis were sent; and the last one that touched a path, while it may
    /// still be under way.
    sent: Cell<u64>,
    touched: RefCell<HashMap<String, u64>>,

    /// Paths to be read anew, in the order in which they changed.
    dirty: RefCell<VecDeque<Dirty>>,
    reading: Cell<bool>,
    /// A change was not done, and what is there instead has not been read.
    in_doubt: Cell<bool>,
    /// An image was held back, or must be made once there is no doubt.
    image_due: Cell<bool>,
    /// Reading has failed; somebody sees to it that it is done again.
    unread: Cell<bool>,

    changed: Rc<Signal>,
    armed: Cell<Option<Nanos>>,
    stopped: RefCell<Option<Stopped>>,
}

impl<I: Io, H: Host, E: Ensemble> Remote<I, H, E> {
    /// Reads the cluster, makes what is missing of Kafka's tree, and has the host serve by
    /// the first image.
    pub async fn open(
        io: I,
        ensemble: E,
        config: CoreConfig,
        host: H,
    ) -> Result<Rc<Remote<I, H, E>>, String> {
        let changed = Signal::new();
        let me = config.broker.broker_id;
        let this = Rc::new(Remote {
            desk: Desk::new(io.clone(), host, changed.clone()),
            io,
            ensemble,
            core: RefCell::new(Core::new(config)),
            me,
            broker: RefCell::default(),
            groups: RefCell::default(),
            asked: RefCell::default(),
            gathered: RefCell::default(),
            committing: Cell::new(false),
            sent: Cell::new(0),
            touched: RefCell::default(),
            dirty: RefCell::default(),
            reading: Cell::new(false),
            in_doubt: Cell::new(false),
            image_due: Cell::new(false),
            unread: Cell::new(false),
            changed,
            armed: Cell::new(None),
            stopped: RefCell::default(),
        });
        let lost = |lost: Lost| format!("the ensemble did not answer: {}", lost.why);
        for path in MIRRORED {
            this.ensemble.watch(path).await.map_err(lost)?;
        }
        this.read_all().await.map_err(lost)?;
        this.core
            .borrow_mut()
            .start_mirror(this.ensemble.session(), now(&this.io))
            .map_err(|error| error.message)?;
        this.collect();
        this.io.spawn(this.clone().run_notices());
        this.io.spawn(this.clone().run_ticker());
        this.settled().await;
        if let Some(stopped) = this.stopped() {
            return Err(stopped.to_string());
        }
        Ok(this)
    }

    /// Asks. The order of the calls is the order of the steps, but for the first request
    /// of a group, which waits until the group's offsets are read.
    pub fn call(
        self: &Rc<Self>,
        request: Request,
    ) -> impl Future<Output = Answer> + use<I, H, E> + 'static {
        let this = self.clone();
        let wanted = self.groups_of(&request);
        let of_group = matches!(request, Request::Group(_));
        let ready = (of_group || !self.in_doubt.get()) && wanted.iter().all(|g| self.holds(g));
        let at_once = ready.then(|| self.submit(request.clone(), &wanted));
        async move {
            let receiver = match at_once {
                Some(receiver) => receiver?,
                None => {
                    if !of_group {
                        this.believed().await?;
                    }
                    for group in &wanted {
                        this.claim(group).await?;
                    }
                    this.submit(request, &wanted)?
                }
            };
            receiver
                .await
                .unwrap_or_else(|_| Err(stopped("the coordinator is gone")))
        }
    }

    /// Waits for the mirror to show what is.
    async fn believed(self: &Rc<Self>) -> Result<(), Stopped> {
        let this = self.clone();
        let is_over = move || !this.in_doubt.get() || this.stopped.borrow().is_some();
        let known = self.changed.until(move || is_over().then_some(()));
        match future::select(pin!(known), pin!(self.io.sleep(DOUBT_MAX))).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(stopped("what the ensemble has is not known now")),
        }
    }

    fn submit(
        self: &Rc<Self>,
        request: Request,
        groups: &[String],
    ) -> Result<oneshot::Receiver<Answer>, Stopped> {
        if let Some(stopped) = self.stopped() {
            return Err(stopped);
        }
        if let Some(group) = groups.iter().find(|group| !self.holds(group)) {
            return Err(not_ours(group));
        }
        if let Request::RegisterBroker { broker } = &request {
            *self.broker.borrow_mut() = Some(broker.clone());
        }
        let (token, receiver) = self.desk.take_in();
        if let Some(group) = groups.first() {
            self.asked.borrow_mut().insert(token, group.clone());
        }
        self.core.borrow_mut().step(token, request, now(&self.io));
        self.collect();
        Ok(receiver)
    }

    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.core.borrow_mut().image()
    }

    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped.borrow().clone()
    }

    /// Ends the session, and with it what was registered.
    pub async fn close(self: &Rc<Self>) {
        self.settled().await;
        self.stop("the coordinator is closed");
        self.ensemble.close().await;
    }

    // -- to the ensemble

    fn collect(self: &Rc<Self>) {
        let (mut output, deadline) = {
            let mut core = self.core.borrow_mut();
            (core.take_output(), core.next_deadline())
        };
        if self.in_doubt.get() {
            self.hold_back(&mut output);
        }
        if deadline.is_some_and(|at| self.armed.get().is_none_or(|armed| at < armed)) {
            self.changed.wake();
        }
        let mut gathered = self.gathered.borrow_mut();
        gathered.effects.extend(output.effects);
        gathered.send.extend(output.send);
        gathered.image = output.image.or(gathered.image.take());
        if gathered.is_empty() || self.committing.get() {
            return;
        }
        self.committing.set(true);
        drop(gathered);
        self.io.spawn(self.clone().run_commits());
    }

    /// Takes out what rests on the mirror, which is in doubt: what was planned by it is
    /// undone by reading, and planned again; who asked asks again.
    fn hold_back(&self, output: &mut Output) {
        if output.image.take().is_some() {
            self.image_due.set(true);
        }
        let effects = std::mem::take(&mut output.effects);
        let (of_groups, dropped): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|e| e.group.is_some());
        output.effects = of_groups;
        let mut core = self.core.borrow_mut();
        if let Some(last) = dropped.last() {
            core.forget_producer_ids();
            core.carried_out(last.zxid, false, now(&self.io));
            self.mark_dirty(dropped.iter().flat_map(|effect| &effect.ops));
        }
        let send = std::mem::take(&mut output.send);
        for (zxid, token, response) in send {
            if matches!(response, Response::Group(_)) {
                output.send.push((zxid, token, response));
            } else {
                self.desk
                    .refuse(token, stopped("somebody else was quicker"));
            }
        }
    }

    /// What the operations were to change is to be read, with all below it.
    fn mark_dirty<'a>(&self, ops: impl Iterator<Item = &'a Op>) {
        let paths = ops.map(|op| op.path().to_owned());
        let mut dirty = self.dirty.borrow_mut();
        dirty.extend(paths.map(|path| Dirty { path, whole: true }));
    }

    /// Takes batch after batch to the ensemble until nothing has gathered.
    async fn run_commits(self: Rc<Self>) {
        while self.stopped.borrow().is_none() {
            let output = std::mem::take(&mut *self.gathered.borrow_mut());
            if output.is_empty() {
                break;
            }
            let upto = output.effects.last().map(|effect| effect.zxid);
            let failed = self.carry_out(output.effects).await;
            if let Some(upto) = upto {
                let done = failed.is_none();
                let now = now(&self.io);
                self.core.borrow_mut().carried_out(upto, done, now);
                self.collect();
            }
            for (_, token, _) in &output.send {
                self.asked.borrow_mut().remove(token);
            }
            match failed {
                None => self.desk.publish(output.image, output.send),
                Some(why) => {
                    log::info!("{why}; reading anew what it concerns");
                    for (_, token, _) in output.send {
                        self.core.borrow_mut().abandon(token);
                        self.desk.refuse(token, stopped(&why));
                    }
                    if self.in_doubt.get() {
                        self.image_due.set(true);
                        // What came meanwhile was answered by a mirror that was wrong.
                        let mut rest = std::mem::take(&mut *self.gathered.borrow_mut());
                        self.hold_back(&mut rest);
                        *self.gathered.borrow_mut() = rest;
                    } else {
                        self.desk.publish(output.image, Vec::new());
                    }
                    self.read_dirty();
                }
            }
        }
        self.committing.set(false);
        self.changed.wake();
    }

    /// Does it all, or says what was not done, and marks what is to be read for it.
    async fn carry_out(self: &Rc<Self>, effects: Vec<Effect>) -> Option<String> {
        let mut under_way = Vec::new();
        for effect in effects {
            let guard = match &effect.group {
                None => None,
                Some(group) => match self.groups.borrow().get(group) {
                    Some(Claim::Held { version }) => Some(Op::Check {
                        path: group_node(group),
                        version: *version,
                    }),
                    // Let go of while this was gathered.
                    _ => continue,
                },
            };
            self.sent.set(self.sent.get() + 1);
            for op in &effect.ops {
                let path = op.path().to_owned();
                self.touched.borrow_mut().insert(path, self.sent.get());
            }
            for ops in effect.ops.chunks(MULTI_OPS) {
                let mut guarded: Vec<Op> = guard.iter().cloned().collect();
                guarded.extend_from_slice(ops);
                let answer = self.ensemble.multi(&guarded);
                under_way.push((effect.group.clone(), guarded, answer));
            }
        }
        let (mut failed, mut undone) = (None, Vec::new());
        for (group, ops, answer) in under_way {
            let why = match answer.await {
                Ok(Ok(results)) => {
                    self.correct_names(&ops, &results);
                    continue;
                }
                Ok(Err(error)) => {
                    let path = ops.get(error.index).map_or("", |op| op.path());
                    format!("{path} is not as it was: {}", error.error)
                }
                Err(lost) => format!("the ensemble did not answer: {}", lost.why),
            };
            match group {
                Some(group) => self.let_go(&group),
                None => undone.extend(ops),
            }
            failed.get_or_insert(why);
        }
        self.touched.borrow_mut().clear();
        if !undone.is_empty() {
            self.in_doubt.set(true);
            self.core.borrow_mut().forget_producer_ids();
            self.mark_dirty(undone.iter());
        }
        failed
    }

    /// A sequential node may have got another number there than here.
    fn correct_names(&self, ops: &[Op], results: &[OpResult]) {
        for (op, result) in ops.iter().zip(results) {
            let (
                Op::Create {
                    path,
                    sequential: true,
                    ..
                },
                OpResult::Create { path: got, .. },
            ) = (op, result)
            else {
                continue;
            };
            let parent = path::split(path).map_or("/", |(parent, _)| parent);
            log::debug!("{path} became {got}");
            self.dirty.borrow_mut().push_back(Dirty {
                path: parent.to_owned(),
                whole: true,
            });
        }
    }

    // -- from the ensemble

    async fn run_notices(self: Rc<Self>) {
        loop {
            match self.ensemble.notice().await {
                Notice::Event(event) => {
                    if event.kind != EventKind::ChildrenChanged {
                        self.dirty.borrow_mut().push_back(Dirty {
                            path: event.path,
                            whole: false,
                        });
                    }
                    self.read_dirty();
                }
                Notice::Reconnected => self.read_everything_again(),
                Notice::NewSession => {
                    let own = self.ensemble.session();
                    log::warn!("the session with the ensemble had expired: registering again");
                    self.core.borrow_mut().set_own_session(own);
                    let held: Vec<String> = self.groups.borrow().keys().cloned().collect();
                    for group in held {
                        self.let_go(&group);
                    }
                    self.read_everything_again();
                    let this = self.clone();
                    self.io.spawn(async move { this.register_again().await });
                }
                Notice::Closed => return self.stop("the session with the ensemble is closed"),
            }
        }
    }

    fn read_everything_again(self: &Rc<Self>) {
        *self.dirty.borrow_mut() = everything().collect();
        self.read_dirty();
    }

    async fn register_again(self: Rc<Self>) {
        self.settled().await;
        let broker = self.broker.borrow().clone();
        let Some(broker) = broker else { return };
        match self.call(Request::RegisterBroker { broker }).await {
            Ok(Response::RegisterBroker(Ok(()))) => log::info!("registered again"),
            Ok(Response::RegisterBroker(Err(error))) => {
                log::error!("could not register again: {}", error.message);
            }
            Ok(other) => unreachable!("RegisterBroker was answered with {other:?}"),
            Err(why) => {
                log::warn!("could not register again: {why}; trying once more in a second");
                self.io.sleep(Duration::from_secs(1)).await;
                if self.stopped().is_none() {
                    let this = self.clone();
                    self.io
                        .spawn(async move { Box::pin(this.register_again()).await });
                }
            }
        }
    }

    // -- time

    async fn run_ticker(self: Rc<Self>) {
        while self.stopped.borrow().is_none() {
            let due = self.core.borrow().next_deadline();
            self.armed.set(due);
            let this = self.clone();
            let sooner = self.changed.until(move || {
                let next = this.core.borrow().next_deadline();
                let is_sooner = next.is_some_and(|at| due.is_none_or(|due| at < due));
                (is_sooner || this.stopped.borrow().is_some()).then_some(())
            });
            let Some(due) = due else {
                sooner.await;
                continue;
            };
            let wait = Duration::from_nanos(due.0.saturating_sub(self.io.now().0));
            if let Either::Left(_) = future::select(pin!(self.io.sleep(wait)), pin!(sooner)).await {
                self.core.borrow_mut().tick(now(&self.io));
                self.collect();
            }
        }
    }

    /// Resolves once nothing is under way.
    fn settled(self: &Rc<Self>) -> impl Future<Output = ()> + use<I, H, E> {
        let this = self.clone();
        self.changed.until(move || {
            let busy = this.committing.get() || this.reading.get() || this.desk.is_publishing();
            (!busy || this.stopped.borrow().is_some()).then_some(())
        })
    }

    fn stop(&self, why: &str) {
        let stopped = self
            .stopped
            .borrow_mut()
            .get_or_insert_with(|| stopped(why))
            .clone();
        self.desk.refuse_all(&stopped);
        self.changed.wake();
    }
}

fn stopped(why: &str) -> Stopped {
    Stopped { why: why.into() }
}

fn now<I: Io>(io: &I) -> Now {
    Now {
        mono: io.now(),
        wall: io.wall().max(TimestampMs(0)),
    }
}

#[cfg(test)]
mod tests;
