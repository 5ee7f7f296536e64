//! Runs the coordinator's core: takes requests, persists, exchanges images, answers.
//!
//! ```text
//!   call --> step --> gathered --> changelog: many commands, one sync
//!   tick -->  "           |            |  while it runs, the next ones gather
//!                         |            v
//!                         |      committed: groups are answered
//!                         |            |
//!                         |            v   where topics, brokers or settings changed
//!                         |      Host::apply_image, every shard --> the others are
//!                         |                                         answered
//!                         +--> every now and then a snapshot, beside all this
//!
//!   Keeper::with --> reads and writes of ZooKeeper's clients, answered at once;
//!                    Clients::committed says when an answer may leave
//! ```
//!
//! One per broker, on shard 0. An answer leaves only once the changelog is committed up
//! to the change that it may rest on; one that speaks of topics only once every shard
//! serves by it, so that a client that was told of a topic can produce to it at once.
//!
//! The first failed write or sync latches: everyone who waits is told, everyone who
//! calls from then on too.

use crate::changelog::{Changelog, ChangelogError};
use crate::core::coordinator::{Core, CoreConfig, Output, Request, Response, Snapshot};
use crate::core::image::Image;
use crate::core::zookeeper::{ConnectionId, Fired};
use crate::core::{Now, Token, Zxid};
use crate::desk::{Answer, Desk};
use crate::snapshot;
use futures_channel::oneshot;
use futures_util::future::{self, Either};
use klamm_engine::io::Io;
use klamm_engine::signal::Signal;
use klamm_engine::units::{Nanos, TimestampMs};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How many nodes of a snapshot are written at a time: about a millisecond, so that it
/// holds nobody up who waits for an answer.
const NODES_AT_ONCE: usize = 2_000;

/// Where the coordinator keeps its files, in DATA. No partition's folder is called so.
pub const FOLDER: &str = "coordinator";
const CHANGELOG: &str = "changelog";

/// Who serves by the image: opens and drops partitions on every shard.
pub trait Host: 'static {
    /// Resolves once every shard serves by this image. Called with newer and newer
    /// ones, one at a time. What fails of it (a partition that cannot be opened) is
    /// the host's to tell its clients.
    fn apply_image(&self, image: Arc<Image>) -> impl Future<Output = ()>;
}

/// Who serves ZooKeeper's clients: told of what concerns their connections.
pub trait Clients {
    /// Watches that fired: to be sent to each of the connections once the zxid is
    /// committed, before the answer of any later call.
    fn fired(&self, fired: Vec<Fired>);

    /// The session has ended, or is on another connection: nothing more is answered here.
    fn hang_up(&self, connection: ConnectionId);

    /// What waited for this or an earlier change may be sent.
    fn committed(&self, upto: Zxid);

    /// Nothing is committed any more.
    fn stopped(&self);
}

/// The state machine, as the front of ZooKeeper's clients uses it.
pub trait Keeper {
    /// Does work on the state. What it wants persisted is taken to the changelog together;
    /// what fired and was not taken with `take_fired` goes to [`Clients::fired`].
    /// The work must not call the keeper again.
    fn with(&self, work: &mut dyn FnMut(&mut Core, Now));

    /// Everything up to here is committed.
    fn committed(&self) -> Zxid;

    fn set_clients(&self, clients: Rc<dyn Clients>);

    /// Why nothing is answered any more, where that is so.
    fn stopped(&self) -> Option<Stopped>;
}

#[derive(Clone, Debug)]
pub struct DriverConfig {
    pub core: CoreConfig,
    /// The last process stopped in order.
    pub clean: bool,
    /// A snapshot is due after so many bytes of changelog, or as many as the last
    /// snapshot had, whichever is more: a large state is then rewritten no more often
    /// than it changes.
    pub snapshot_bytes: u64,
}

impl DriverConfig {
    /// 16 MiB are some hundred thousand commands: a fraction of a second of replay.
    #[must_use]
    pub fn new(core: CoreConfig, clean: bool) -> DriverConfig {
        DriverConfig {
            core,
            clean,
            snapshot_bytes: 16 << 20,
        }
    }
}

/// Why the coordinator cannot start.
#[derive(Debug)]
pub enum OpenError {
    Changelog(ChangelogError),
    /// A file or folder could not be read or made.
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
    /// The tree cannot hold what the coordinator needs in it.
    Start(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Changelog(error) => error.fmt(f),
            OpenError::Io { path, error } => write!(f, "{}: {error}", path.display()),
            OpenError::Start(what) => write!(f, "the coordinator's tree: {what}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<ChangelogError> for OpenError {
    fn from(error: ChangelogError) -> OpenError {
        OpenError::Changelog(error)
    }
}

/// No answer: the coordinator is closed, or its changelog failed. What was asked may
/// have been done or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    pub why: Rc<str>,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Stopped {}

pub struct Driver<I: Io, H: Host> {
    io: I,
    desk: Rc<Desk<I, H>>,
    dir: PathBuf,
    changelog: Changelog<I>,
    core: RefCell<Core>,
    clients: RefCell<Option<Rc<dyn Clients>>>,

    /// What the core gave out since the last batch was taken to the changelog.
    gathered: RefCell<Output>,
    committing: Cell<bool>,
    /// Everything up to here is committed.
    committed: Cell<Zxid>,

    /// Told whenever one of the above empties, a deadline moves forward, or it stops.
    changed: Rc<Signal>,
    /// When the ticker looks next.
    armed: Cell<Option<Nanos>>,
    stopped: RefCell<Option<Stopped>>,
    closing: Cell<bool>,

    snapshot_bytes: u64,
    snapshot: RefCell<SnapshotState>,
}

#[derive(Default)]
struct SnapshotState {
    writing: bool,
    last_len: u64,
    /// Bytes of changelog since then.
    since: u64,
}

impl<I: Io, H: Host> Driver<I, H> {
    /// Reads the newest readable snapshot and the changelog behind it, makes what is
    /// missing of Kafka's tree, and has the host serve by the first image.
    pub async fn open(
        io: I,
        data: &Path,
        config: DriverConfig,
        host: H,
    ) -> Result<Rc<Driver<I, H>>, OpenError> {
        let dir = data.join(FOLDER);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        io.create_dir_all(&dir).await.map_err(failed(&dir))?;
        io.sync_dir(data).await.map_err(failed(data))?;
        let (mut core, last_len) = restore(&io, &dir, &config.core).await?;
        let last = core.zxid();
        let changelog = Changelog::open(io.clone(), &dir.join(CHANGELOG), config.clean).await?;
        changelog
            .replay(last, |zxid, command| core.apply(zxid, command))
            .await?;
        io.sync_dir(&dir).await.map_err(failed(&dir))?;
        let committed = core.zxid();
        core.start(now(&io))
            .map_err(|error| OpenError::Start(error.message))?;

        let changed = Signal::new();
        let this = Rc::new(Driver {
            dir,
            changelog,
            core: RefCell::new(core),
            clients: RefCell::default(),
            gathered: RefCell::default(),
            committing: Cell::new(false),
            committed: Cell::new(committed),
            desk: Desk::new(io.clone(), host, changed.clone()),
            io,
            changed,
            armed: Cell::new(None),
            stopped: RefCell::default(),
            closing: Cell::new(false),
            snapshot_bytes: config.snapshot_bytes,
            snapshot: RefCell::new(SnapshotState {
                last_len,
                ..SnapshotState::default()
            }),
        });
        this.collect();
        this.settled().await;
        if let Some(stopped) = this.stopped.borrow().as_ref() {
            return Err(OpenError::Start(stopped.to_string()));
        }
        this.io.spawn(this.clone().run_ticker());
        Ok(this)
    }

    /// Asks. The order of the calls is the order of the steps. Where the future is
    /// dropped nobody waits any more; what was asked is done all the same.
    pub fn call(
        self: &Rc<Self>,
        request: Request,
    ) -> impl Future<Output = Result<Response, Stopped>> + use<I, H> + 'static {
        let receiver = self.submit(request);
        async move {
            let (guard, receiver) = receiver?;
            let answer = receiver.await;
            drop(guard);
            answer.unwrap_or_else(|_| {
                Err(Stopped {
                    why: "the coordinator is gone".into(),
                })
            })
        }
    }

    fn submit(
        self: &Rc<Self>,
        request: Request,
    ) -> Result<(Waiter<I, H>, oneshot::Receiver<Answer>), Stopped> {
        if let Some(stopped) = self.stopped.borrow().as_ref() {
            return Err(stopped.clone());
        }
        let (token, receiver) = self.desk.take_in();
        self.core.borrow_mut().step(token, request, now(&self.io));
        self.collect();
        Ok((
            Waiter {
                driver: self.clone(),
                token,
            },
            receiver,
        ))
    }

    /// The cluster as the core has it; a shard serves by the one that its host was given.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.core.borrow_mut().image()
    }

    /// Why nothing is answered any more, where that is so.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped.borrow().clone()
    }

    /// Answers what was asked and committed, refuses the rest, writes a snapshot where
    /// that saves a replay, and closes the changelog.
    pub async fn close(self: &Rc<Self>) -> Result<(), ChangelogError> {
        self.closing.set(true);
        if self.stopped.borrow().is_none() {
            self.core.borrow_mut().end_own_session(now(&self.io));
            self.collect();
        }
        self.settled().await;
        let failed_before = self.stopped().is_some();
        self.stop("the coordinator is closed");
        if !failed_before {
            let is_due = {
                let snapshot = self.snapshot.borrow();
                snapshot.since * 8 >= self.snapshot_bytes.max(snapshot.last_len)
            };
            let this = self.clone();
            self.changed
                .until(move || (!this.snapshot.borrow().writing).then_some(()))
                .await;
            if is_due {
                let snapshot = self.core.borrow_mut().begin_snapshot();
                self.write_snapshot(snapshot).await;
            }
        }
        self.changelog.close().await
    }

    // -- from the core to the disk and the host

    /// Takes what the core gave out; sees to it that someone carries it on.
    fn collect(self: &Rc<Self>) {
        let (output, deadline) = {
            let mut core = self.core.borrow_mut();
            (core.take_output(), core.next_deadline())
        };
        if deadline.is_some_and(|at| self.armed.get().is_none_or(|armed| at < armed)) {
            self.changed.wake();
        }
        self.tell_clients(output.fired, output.hang_up);
        let mut gathered = self.gathered.borrow_mut();
        if gathered.persist.is_empty() {
            gathered.persist = output.persist;
        } else {
            gathered.persist.extend(output.persist);
        }
        gathered.send.extend(output.send);
        gathered.image = output.image.or(gathered.image.take());
        if gathered.is_empty() || self.committing.get() {
            return;
        }
        if gathered.persist.is_empty() {
            // Nothing to wait for: all that these answers rest on is committed.
            let output = std::mem::take(&mut *gathered);
            drop(gathered);
            self.desk.publish(output.image, output.send);
            return;
        }
        self.committing.set(true);
        self.io.spawn(self.clone().run_commits());
    }

    fn tell_clients(&self, fired: Vec<Fired>, hang_up: Vec<ConnectionId>) {
        if fired.is_empty() && hang_up.is_empty() {
            return;
        }
        let clients = self.clients.borrow().clone();
        let Some(clients) = clients else { return };
        if !fired.is_empty() {
            clients.fired(fired);
        }
        for connection in hang_up {
            clients.hang_up(connection);
        }
    }

    /// Takes batch after batch to the changelog until nothing has gathered.
    async fn run_commits(self: Rc<Self>) {
        while self.stopped.borrow().is_none() {
            let output = std::mem::take(&mut *self.gathered.borrow_mut());
            if output.is_empty() {
                break;
            }
            let snapshot = self.snapshot_if_due();
            match self.changelog.commit(&output.persist).await {
                Ok(bytes) => {
                    self.snapshot.borrow_mut().since += bytes;
                    if let Some((last, _)) = output.persist.last() {
                        self.committed.set(*last);
                        let clients = self.clients.borrow().clone();
                        if let Some(clients) = clients {
                            clients.committed(*last);
                        }
                    }
                }
                Err(error) => {
                    log::error!("{error}; the coordinator answers nothing from now on");
                    self.stop(&error.to_string());
                    break;
                }
            }
            if let Some(snapshot) = snapshot {
                let this = self.clone();
                self.io
                    .spawn(async move { this.write_snapshot(snapshot).await });
            }
            self.desk.publish(output.image, output.send);
        }
        self.committing.set(false);
        self.changed.wake();
    }

    /// Tells everyone who waits, and everyone to come.
    fn stop(&self, why: &str) {
        let stopped = self
            .stopped
            .borrow_mut()
            .get_or_insert_with(|| Stopped { why: why.into() })
            .clone();
        self.desk.refuse_all(&stopped);
        let clients = self.clients.borrow().clone();
        if let Some(clients) = clients {
            clients.stopped();
        }
        self.changed.wake();
    }

    /// Resolves once nothing is under way.
    fn settled(self: &Rc<Self>) -> impl Future<Output = ()> + use<I, H> {
        let this = self.clone();
        self.changed
            .until(move || (!this.committing.get() && !this.desk.is_publishing()).then_some(()))
    }

    // -- time

    /// Ticks the core when something is due.
    async fn run_ticker(self: Rc<Self>) {
        while self.stopped.borrow().is_none() && !self.closing.get() {
            let due = self.core.borrow().next_deadline();
            self.armed.set(due);
            let this = self.clone();
            let sooner = self.changed.until(move || {
                let next = this.core.borrow().next_deadline();
                let is_sooner = next.is_some_and(|at| due.is_none_or(|due| at < due));
                (is_sooner || this.closing.get() || this.stopped.borrow().is_some()).then_some(())
            });
            if let Some(due) = due {
                let wait = Duration::from_nanos(due.0.saturating_sub(self.io.now().0));
                if let Either::Right(_) =
                    future::select(pin!(self.io.sleep(wait)), pin!(sooner)).await
                {
                    continue;
                }
                self.core.borrow_mut().tick(now(&self.io));
                self.collect();
            } else {
                sooner.await;
            }
        }
    }

    // -- snapshots

    /// The state with all that the batch taken last holds, where it is time for one.
    fn snapshot_if_due(&self) -> Option<Snapshot> {
        let mut state = self.snapshot.borrow_mut();
        if state.writing || state.since < self.snapshot_bytes.max(state.last_len) {
            return None;
        }
        (state.writing, state.since) = (true, 0);
        Some(self.core.borrow_mut().begin_snapshot())
    }

    /// Writes a snapshot of committed changes and cuts the changelog. A failure costs
    /// nothing but a longer replay; the next one is tried when it is due.
    async fn write_snapshot(&self, mut snapshot: Snapshot) {
        while !self
            .core
            .borrow_mut()
            .go_on_with_snapshot(&mut snapshot, NODES_AT_ONCE)
        {
            // Everybody else has a turn between two pieces.
            self.io.sleep(Duration::ZERO).await;
        }
        let Snapshot { zxid, bytes, .. } = snapshot;
        let len = bytes.len() as u64;
        match snapshot::write(&self.io, &self.dir, zxid, bytes).await {
            Ok(oldest) => {
                self.snapshot.borrow_mut().last_len = len;
                log::info!("coordinator: snapshot at zxid {zxid}, {len} bytes");
                if oldest > Zxid::ZERO
                    && let Err(error) = self.changelog.cut_before(oldest.next()).await
                {
                    log::error!("{error}");
                }
            }
            Err(error) => {
                let path = snapshot::path(&self.dir, zxid);
                log::error!(
                    "could not write {}: {error}; the changelog stays whole",
                    path.display()
                );
            }
        }
        self.snapshot.borrow_mut().writing = false;
        self.changed.wake();
    }
}

impl<I: Io, H: Host> Keeper for Rc<Driver<I, H>> {
    fn with(&self, work: &mut dyn FnMut(&mut Core, Now)) {
        work(&mut self.core.borrow_mut(), now(&self.io));
        self.collect();
    }

    fn committed(&self) -> Zxid {
        self.committed.get()
    }

    fn set_clients(&self, clients: Rc<dyn Clients>) {
        *self.clients.borrow_mut() = Some(clients);
    }

    fn stopped(&self) -> Option<Stopped> {
        Driver::stopped(self)
    }
}

/// One who waits for an answer, or went away.
struct Waiter<I: Io, H: Host> {
    driver: Rc<Driver<I, H>>,
    token: Token,
}

impl<I: Io, H: Host> Drop for Waiter<I, H> {
    fn drop(&mut self) {
        if self.driver.desk.forget(self.token) {
            self.driver.core.borrow_mut().abandon(self.token);
        }
    }
}

/// A clock that was never set may stand before 1970, where records have no times.
fn now<I: Io>(io: &I) -> Now {
    Now {
        mono: io.now(),
        wall: io.wall().max(TimestampMs(0)),
    }
}

/// The core of the newest snapshot that can be read, and that one's length.
async fn restore<I: Io>(io: &I, dir: &Path, config: &CoreConfig) -> Result<(Core, u64), OpenError> {
    let found = snapshot::list(io, dir)
        .await
        .map_err(|error| OpenError::Io {
            path: dir.to_owned(),
            error,
        })?;
    for zxid in found {
        let path = snapshot::path(dir, zxid);
        let bytes = match io.read_file(&path).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(OpenError::Io { path, error }),
        };
        match Core::restore(config.clone(), &bytes) {
            Ok(core) if core.zxid() == zxid => return Ok((core, bytes.len() as u64)),
            Ok(core) => log::error!(
                "{}: holds zxid {}, not what its name says",
                path.display(),
                core.zxid()
            ),
            // The older one and the changelog give the same; where they do not reach
            // back far enough, the replay says so.
            Err(error) => log::error!(
                "{}: {error}; falling back to the one before it",
                path.display()
            ),
        }
    }
    Ok((Core::new(config.clone()), 0))
}

#[cfg(test)]
mod tests;
