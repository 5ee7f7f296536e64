//! What the connections of ZooKeeper's clients share: the way to the state machine, the
//! table of who is there, and what waits for a commit.
//!
//! ```text
//!   connection --serve--> keeper.with(core) ---- answers --> own outbox
//!                              |                  events --> others' outboxes
//!                              v                               |
//!                          changelog --committed(upto)--> those that wait: opened, woken
//! ```
//!
//! All of it lives on shard 0, in one thread with the state machine, so that a request
//! is answered by a call and nothing crosses a core. On a commit only the connections
//! that wait for one are looked at, however many there are.

use crate::kafka::closing::Closing;
use crate::zookeeper::jute::{Field, put_str};
use crate::zookeeper::limits::{About, Limits};
use crate::zookeeper::outbox::{Outbox, Pool};
use crate::zookeeper::records::{ReplyHeader, SYNC_CONNECTED, xid};
use crate::zookeeper::stats::Stats;
use klamm_coord::core::Zxid;
use klamm_coord::core::acl::{self, Identity};
use klamm_coord::core::stat::Perms;
use klamm_coord::core::zookeeper::{ConnectionId, Fired, SessionId};
use klamm_coord::driver::{Clients, Keeper};
use klamm_engine::units::{Nanos, TimestampMs};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

/// Bytes of one receive, and so of one batch of requests. 64 requests of 100 bytes fit
/// five times; a full one holds other connections up for well below 10 ms.
pub const RECEIVE_BYTES: usize = 32 << 10;

pub struct Front {
    pub keeper: Rc<dyn Keeper>,
    pub limits: Limits,
    pub about: About,
    pub stats: Stats,
    pub closing: Closing,
    is_stopped: Cell<bool>,
    started: Nanos,
    clock: Box<dyn Fn() -> (Nanos, TimestampMs)>,
    clients: RefCell<BTreeMap<ConnectionId, Rc<Client>>>,
    next_id: Cell<u64>,
    /// Those with something gated in their outbox.
    waiting: RefCell<Vec<Rc<Client>>>,
    /// Those to whom something came that may be sent at once.
    to_wake: RefCell<Vec<Rc<Client>>>,
    pub(super) pool: RefCell<Pool>,
    /// Every connection receives into this.
    scratch: RefCell<Option<Box<[u8]>>>,
    /// Bytes of begun frames, of all connections.
    pub(super) partial_bytes: Cell<usize>,
}

/// Why a connection is to end, said from elsewhere than its own task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// Its session has ended, or is on another connection.
    Session,
    /// It does not read what it is told.
    Slow,
    /// A deadline passed.
    Late(Patience),
    /// The coordinator answers nothing any more.
    Stopped,
}

/// What a connection is given time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The first frame.
    Greeting,
    /// The rest of a frame.
    Frame,
    /// To close, after it was told so.
    Closing,
    /// To take its last answers, while the broker stops.
    Drain,
}

/// One connection, as others see it.
pub struct Client {
    pub id: ConnectionId,
    pub address: SocketAddr,
    /// None before it has one.
    pub session: Cell<Option<SessionId>>,
    pub timeout_ms: Cell<i32>,
    pub identities: RefCell<Rc<[Identity]>>,
    pub(super) outbox: RefCell<Outbox>,
    pub(super) hang_up: Cell<Option<HangUp>>,
    deadline: Cell<Option<(Nanos, Patience)>>,
    waker: RefCell<Option<Waker>>,
    /// Whether it is among those that wait for a commit.
    waits: Cell<bool>,
    pub counts: Counts,
}

/// For the four-letter words.
pub struct Counts {
    pub since: TimestampMs,
    pub received: Cell<u64>,
    pub sent: Cell<u64>,
    pub last_op: Cell<i32>,
    pub last_xid: Cell<i32>,
    pub last_zxid: Cell<Zxid>,
    pub last_sent: Cell<TimestampMs>,
    pub latency: crate::zookeeper::stats::Latency,
}

impl Front {
    /// With the clocks of whoever runs it.
    pub fn new(
        keeper: Rc<dyn Keeper>,
        limits: Limits,
        about: About,
        clock: impl Fn() -> (Nanos, TimestampMs) + 'static,
    ) -> Rc<Front> {
        let front = Rc::new(Front {
            is_stopped: Cell::new(keeper.stopped().is_some()),
            keeper,
            limits,
            about,
            stats: Stats::default(),
            closing: Closing::default(),
            started: clock().0,
            clock: Box::new(clock),
            clients: RefCell::default(),
            next_id: Cell::new(1),
            waiting: RefCell::default(),
            to_wake: RefCell::default(),
            pool: RefCell::default(),
            scratch: RefCell::default(),
            partial_bytes: Cell::new(0),
        });
        front
            .keeper
            .set_clients(Rc::new(Told(Rc::downgrade(&front))));
        front
    }

    pub fn now(&self) -> Nanos {
        (self.clock)().0
    }

    pub fn uptime_ms(&self) -> u64 {
        self.now().0.saturating_sub(self.started.0) / 1_000_000
    }

    pub fn wall(&self) -> TimestampMs {
        (self.clock)().1
    }

    pub(super) fn take_scratch(&self) -> Box<[u8]> {
        let held = self.scratch.borrow_mut().take();
        held.unwrap_or_else(|| vec![0; RECEIVE_BYTES].into())
    }

    pub(super) fn put_scratch(&self, scratch: Box<[u8]>) {
        *self.scratch.borrow_mut() = Some(scratch);
    }

    // -- who is there

    pub fn enter(&self, address: SocketAddr) -> Rc<Client> {
        let id = ConnectionId(self.next_id.get());
        self.next_id.set(id.0 + 1);
        let client = Rc::new(Client {
            id,
            address,
            session: Cell::new(None),
            timeout_ms: Cell::new(0),
            identities: RefCell::new(Rc::new([Identity::ip(address.ip())])),
            outbox: RefCell::default(),
            hang_up: Cell::new(None),
            deadline: Cell::new(None),
            waker: RefCell::new(None),
            waits: Cell::new(false),
            counts: Counts {
                since: self.wall(),
                received: Cell::new(0),
                sent: Cell::new(0),
                last_op: Cell::new(0),
                last_xid: Cell::new(0),
                last_zxid: Cell::new(Zxid::ZERO),
                last_sent: Cell::new(TimestampMs(0)),
                latency: Default::default(),
            },
        });
        client.give_time(self, Some((self.limits.frame_time_max, Patience::Greeting)));
        self.clients.borrow_mut().insert(id, client.clone());
        client
    }

    /// The connection is gone; what it watched goes with it.
    pub fn leave(&self, client: &Client) {
        client
            .outbox
            .borrow_mut()
            .clear(&mut self.pool.borrow_mut());
        self.clients.borrow_mut().remove(&client.id);
        if let Some(session) = client.session.get()
            && !self.is_stopped()
        {
            self.keeper
                .with(&mut |core, _| core.disconnect(client.id, Some(session)));
        }
    }

    pub fn connections(&self) -> usize {
        self.clients.borrow().len()
    }

    pub fn client(&self, id: ConnectionId) -> Option<Rc<Client>> {
        self.clients.borrow().get(&id).cloned()
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<Rc<Client>> {
        self.clients.borrow().values().cloned().collect()
    }

    // -- what they are told

    /// Puts what fired into the outboxes of those whom it concerns. `zxid`: what to say of
    /// when it was, where that is not the change that fired it.
    pub fn deliver(&self, fired: &[Fired], zxid: Option<Zxid>, committed: Zxid, now: Nanos) {
        let clients = self.clients.borrow();
        for one in fired {
            for connection in &one.connections {
                // A connection that is gone meanwhile needs to know nothing.
                let Some(client) = clients.get(connection) else {
                    continue;
                };
                // Not even that there is something is for those who may not read it.
                let acl = one.event.acl.as_deref();
                if acl
                    .is_some_and(|acl| !acl::allows(acl, Perms::READ, &client.identities.borrow()))
                {
                    continue;
                }
                self.put(client, one.zxid, committed, now, |to| {
                    let header = ReplyHeader {
                        xid: xid::NOTIFICATION,
                        zxid: zxid.unwrap_or(one.zxid),
                        err: 0,
                    };
                    header.put(to);
                    (one.event.kind as i32).put(to);
                    SYNC_CONNECTED.put(to);
                    put_str(&one.event.path, to);
                });
                let is_slow = client.outbox.borrow().bytes() > self.limits.outbox_bytes_limit;
                if is_slow && client.hang_up.get().is_none() {
                    client.hang_up.set(Some(HangUp::Slow));
                }
                if is_slow || !client.waits.get() {
                    self.to_wake.borrow_mut().push(client.clone());
                }
            }
        }
    }

    /// Wakes those who were told something. Waking may poll at once in some executors,
    /// so it is not done in the middle of work on the state.
    pub(super) fn wake_told(&self) {
        loop {
            // One at a time: nothing is borrowed while a waker runs.
            let next = self.to_wake.borrow_mut().pop();
            match next {
                Some(client) => client.wake(),
                None => return,
            }
        }
    }

    /// Appends a frame to an outbox, and has it sent once `gate` is committed.
    pub(super) fn put(
        &self,
        client: &Rc<Client>,
        gate: Zxid,
        committed: Zxid,
        now: Nanos,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut outbox = client.outbox.borrow_mut();
        outbox.push(&mut self.pool.borrow_mut(), gate, committed, now, fill);
        client.counts.sent.set(client.counts.sent.get() + 1);
        self.stats.sent();
        if outbox.is_gated() && !client.waits.replace(true) {
            self.waiting.borrow_mut().push(client.clone());
        }
    }

    fn open(&self, committed: Zxid) {
        let now = self.now();
        self.waiting.borrow_mut().retain(|client| {
            let mut outbox = client.outbox.borrow_mut();
            let has_ready = outbox.open(committed, |items, since| {
                let took = now.0.saturating_sub(since.0);
                self.stats.latency.saw(items, took);
                client.counts.latency.saw(items, took);
            });
            client.waits.set(outbox.is_gated());
            if has_ready {
                self.to_wake.borrow_mut().push(client.clone());
            }
            client.waits.get()
        });
        self.wake_told();
    }

    fn end_all(&self, why: HangUp) {
        for client in self.all() {
            client.end(why);
        }
    }

    /// Whether nothing is committed any more: nothing that is asked can be answered.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.get()
    }

    /// Takes no more requests; connections end once what they asked is answered.
    pub fn close(&self) {
        self.closing.say();
        for client in self.all() {
            client.give_time(self, Some((self.limits.drain_time_max, Patience::Drain)));
            client.wake();
        }
    }

    /// Ends those whose time is up. In one pass over all of them now and then, instead
    /// of a timer for each.
    pub fn sweep(&self) {
        let now = self.now();
        let mut late = Vec::new();
        for client in self.clients.borrow().values() {
            if let Some((at, patience)) = client.deadline.get()
                && at <= now
            {
                late.push((client.clone(), patience));
            }
        }
        for (client, patience) in late {
            client.end(HangUp::Late(patience));
        }
    }
}

impl Counts {
    pub fn reset(&self) {
        self.received.set(0);
        self.sent.set(0);
        self.latency.reset();
    }
}

impl Client {
    /// Has its task look again.
    pub fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn wait(&self, waker: &Waker) {
        let mut held = self.waker.borrow_mut();
        match &mut *held {
            Some(held) => held.clone_from(waker),
            None => *held = Some(waker.clone()),
        }
    }

    pub fn end(&self, why: HangUp) {
        if self.hang_up.get().is_none() {
            self.hang_up.set(Some(why));
        }
        self.wake();
    }

    /// None: for as long as its session lives.
    pub(super) fn give_time(&self, front: &Front, time: Option<(std::time::Duration, Patience)>) {
        let deadline = time.map(|(time, patience)| (front.now().plus(time), patience));
        self.deadline.set(deadline);
    }

    pub(super) fn patience(&self) -> Option<Patience> {
        self.deadline.get().map(|(_, patience)| patience)
    }
}

/// What the driver tells. Weak: the driver outlives the front.
struct Told(std::rc::Weak<Front>);

impl Clients for Told {
    fn fired(&self, fired: Vec<Fired>) {
        if let Some(front) = self.0.upgrade() {
            let committed = front.keeper.committed();
            front.deliver(&fired, None, committed, front.now());
            front.wake_told();
        }
    }

    fn hang_up(&self, connection: ConnectionId) {
        if let Some(front) = self.0.upgrade()
            && let Some(client) = front.client(connection)
        {
            client.end(HangUp::Session);
        }
    }

    fn committed(&self, upto: Zxid) {
        if let Some(front) = self.0.upgrade() {
            front.open(upto);
        }
    }

    fn stopped(&self) {
        if let Some(front) = self.0.upgrade() {
            front.is_stopped.set(true);
            front.end_all(HangUp::Stopped);
        }
    }
}
