//! A client of ZooKeeper's protocol: what a broker uses whose cluster is kept by an
//! ensemble, or by another Klamm's coordinator.
//!
//! ```text
//!   multi, read, ... --> out ---+                      +--> waiting, in order: answers
//!                               |   one connection     |
//!                 ping, timer --+--> server 1, 2, 3 ---+--> notices: events
//!                                    the next one when it fails
//! ```
//!
//! The session outlives its connections: a new one takes it up, sets the watches again
//! and says [`Notice::Reconnected`], since what happened meanwhile was not told. Where the
//! session has expired there is a new one, and [`Notice::NewSession`]. What was asked on a
//! connection that is lost gets no answer; it may have been done or not.

use crate::socket::{Connect, Socket};
use crate::zookeeper::jute::{Field, Reader};
use crate::zookeeper::records::{
    ConnectRequest, ConnectResponse, Create2Response, CreateRequest, ErrorResponse,
    GetDataResponse, MultiHeader, PathsResponse, ReadRequest, ReplyHeader, RequestHeader,
    SetDataRequest, StatResponse, VersionRequest, WatcherEvent, WatchesRequest, err, op, xid,
};
use bytes::{Buf as _, BytesMut};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use klamm_coord::core::Zxid;
use klamm_coord::core::stat::Lifetime;
use klamm_coord::core::tree::{Event, EventKind, MultiError, Op, OpResult, Seen, TreeError};
use klamm_coord::core::zookeeper::SessionId;
use klamm_coord::remote::{Ensemble, Lost, Notice};
use klamm_engine::io::Io;
use klamm_engine::signal::Signal;
use klamm_engine::units::Nanos;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Where the ensemble is, and how patient to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    pub servers: Vec<SocketAddr>,
    /// "" or "/a/b": what every path is below.
    pub chroot: String,
    /// `zookeeper.session.timeout.ms`, as it is asked for.
    pub session_timeout_ms: i32,
    /// `zookeeper.connection.timeout.ms`: how long the first session may take.
    pub connection_timeout: Duration,
}

/// How long one server may take to answer a connection; then the next one is tried.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Between two rounds of servers of which none answered.
const PAUSE: Duration = Duration::from_millis(100);

/// No answer to what is asked here comes near it: ZooKeeper's own limit is 1 MiB.
const FRAME_BYTES_MAX: usize = 64 << 20;

const RECV_BYTES: usize = 64 << 10;

/// The session. Clones are the same one.
pub struct ZooKeeper<I: Io, C: Connect>(Rc<Inner<I, C>>);

struct Inner<I: Io, C: Connect> {
    io: I,
    connector: C,
    config: ClientConfig,
    session: Cell<SessionId>,
    password: RefCell<Vec<u8>>,
    timeout: Cell<Duration>,
    last_zxid: Cell<Zxid>,
    state: Cell<State>,
    /// Nobody is to connect again.
    is_closing: Cell<bool>,

    xid: Cell<i32>,
    out: RefCell<BytesMut>,
    /// There is something new in `out`, or the connection is to be given up.
    is_news: Cell<bool>,
    waiting: RefCell<VecDeque<(i32, oneshot::Sender<Reply>)>>,
    heard: Cell<Nanos>,
    give_up: RefCell<Option<String>>,

    watched: RefCell<Vec<String>>,
    notices: RefCell<VecDeque<Notice>>,
    changed: Rc<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No session yet, or none that is connected.
    Away,
    Connected,
    Closed,
}

/// An answer's error code and its record.
type Reply = (i32, Vec<u8>);

/// A request that was sent; None where there was no connection.
struct Asked(Option<oneshot::Receiver<Reply>>);

impl Asked {
    async fn reply(self) -> Result<Reply, Lost> {
        let Some(receiver) = self.0 else {
            return Err(lost("there is no connection to the ensemble"));
        };
        receiver
            .await
            .map_err(|_| lost("the connection to the ensemble was lost"))
    }
}

impl<I: Io, C: Connect> ZooKeeper<I, C> {
    /// Opens a session, on whichever server answers first.
    pub async fn open(
        io: I,
        connector: C,
        config: ClientConfig,
    ) -> Result<ZooKeeper<I, C>, String> {
        assert!(!config.servers.is_empty(), "settings name a server");
        let this = Rc::new(Inner {
            heard: Cell::new(io.now()),
            io,
            connector,
            session: Cell::new(SessionId(0)),
            password: RefCell::new(vec![0; 16]),
            timeout: Cell::new(Duration::from_millis(
                config.session_timeout_ms.unsigned_abs().into(),
            )),
            last_zxid: Cell::new(Zxid::ZERO),
            state: Cell::new(State::Away),
            is_closing: Cell::new(false),
            xid: Cell::new(0),
            out: RefCell::default(),
            is_news: Cell::new(false),
            waiting: RefCell::default(),
            give_up: RefCell::default(),
            watched: RefCell::default(),
            notices: RefCell::default(),
            changed: Signal::new(),
            config,
        });
        this.io.spawn(this.clone().run());
        this.io.spawn(this.clone().run_pings());
        let watcher = this.clone();
        let connected = this
            .changed
            .until(move || (watcher.state.get() == State::Connected).then_some(()));
        let patience = this.io.sleep(this.config.connection_timeout);
        if let Either::Right(_) = select(pin!(connected), pin!(patience)).await {
            this.is_closing.set(true);
            this.state.set(State::Closed);
            return Err(format!(
                "no ZooKeeper server gave a session within {} ms (zookeeper.connection.timeout.ms): {}; \
                 are they running, and reachable from here?",
                this.config.connection_timeout.as_millis(),
                this.servers()
            ));
        }
        this.make_chroot().await?;
        Ok(ZooKeeper(this))
    }
}

impl<I: Io, C: Connect> Inner<I, C> {
    fn servers(&self) -> String {
        let servers: Vec<String> = self
            .config
            .servers
            .iter()
            .map(ToString::to_string)
            .collect();
        servers.join(", ")
    }

    /// As Kafka does: the chroot is there before anything is put below it.
    async fn make_chroot(self: &Rc<Self>) -> Result<(), String> {
        let chroot = self.config.chroot.clone();
        let ends = chroot.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends.chain([chroot.len()]).filter(|end| *end > 0) {
            let path = &chroot[..end];
            let made = self.request(op::CREATE2, |to| put_create(path, &[], 0, to));
            let made = made.reply().await.map_err(|lost| lost.why)?;
            if made.0 != err::OK && made.0 != TreeError::NodeExists.code() {
                return Err(format!(
                    "the chroot {path} could not be made: error {}",
                    made.0
                ));
            }
        }
        Ok(())
    }

    // -- the connection

    async fn run(self: Rc<Self>) {
        let mut server = 0;
        let mut had_session = false;
        while !self.is_closing.get() {
            let address = self.config.servers[server % self.config.servers.len()];
            server += 1;
            let handshake = pin!(self.handshake(address));
            let late = pin!(self.io.sleep(HANDSHAKE));
            let shaken = match select(handshake, late).await {
                Either::Left((shaken, _)) => shaken,
                Either::Right(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            let (mut socket, is_new) = match shaken {
                Ok(shaken) => shaken,
                Err(error) => {
                    log::debug!("{address}: {error}");
                    if server % self.config.servers.len() == 0 {
                        self.io.sleep(PAUSE).await;
                    }
                    continue;
                }
            };
            if self.is_closing.get() {
                break;
            }
            log::info!(
                "ZooKeeper session 0x{:x} on {address}",
                self.session.get().0
            );
            self.heard.set(self.io.now());
            self.state.set(State::Connected);
            self.changed.wake();
            if had_session {
                self.watch_again();
                let notice = match is_new {
                    true => Notice::NewSession,
                    false => Notice::Reconnected,
                };
                self.notices.borrow_mut().push_back(notice);
                self.changed.wake();
            }
            had_session = true;
            let why = self.serve(&mut socket).await;
            drop(socket);
            self.state.set(State::Away);
            if !self.is_closing.get() {
                log::warn!("the connection to {address} is gone: {why}");
            }
            self.out.borrow_mut().clear();
            // Whoever waits is told: their senders are dropped.
            self.waiting.borrow_mut().clear();
            self.give_up.borrow_mut().take();
            self.changed.wake();
        }
        self.state.set(State::Closed);
        self.notices.borrow_mut().push_back(Notice::Closed);
        self.changed.wake();
    }

    /// A connection, and whether its session is a new one.
    async fn handshake(&self, address: SocketAddr) -> io::Result<(C::Socket, bool)> {
        let mut is_new = self.session.get().0 == 0;
        loop {
            let mut socket = self.connector.connect(address).await?;
            let password = self.password.borrow().clone();
            let mut frame = Vec::new();
            framed(&mut frame, |to| {
                ConnectRequest {
                    protocol_version: 0,
                    last_zxid_seen: self.last_zxid.get(),
                    timeout_ms: self.config.session_timeout_ms,
                    session: self.session.get().0,
                    password: Some(&password),
                    read_only: Some(false),
                }
                .put(to);
            });
            send_all(&mut socket, &frame).await?;
            let mut inbox = BytesMut::new();
            let answer = recv_frame(&mut socket, &mut inbox).await?;
            let answer: ConnectResponse<'_> = Reader::new(&answer)
                .take()
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            if answer.timeout_ms > 0 && answer.session != 0 {
                self.session.set(SessionId(answer.session));
                *self.password.borrow_mut() = answer.password.unwrap_or_default().to_vec();
                let timeout = answer.timeout_ms.unsigned_abs();
                self.timeout.set(Duration::from_millis(timeout.into()));
                assert!(inbox.is_empty(), "nothing was asked yet");
                return Ok((socket, is_new));
            }
            // Expired: the same server gives a new one.
            self.session.set(SessionId(0));
            *self.password.borrow_mut() = vec![0; 16];
            is_new = true;
        }
    }

    /// Sends and receives until the connection ends; says why it did.
    async fn serve(&self, socket: &mut C::Socket) -> String {
        let mut inbox = BytesMut::new();
        self.is_news.set(true);
        loop {
            let news = self
                .changed
                .until(|| self.is_news.replace(false).then_some(()));
            let mut news = pin!(news);
            let came = poll_fn(|cx| {
                let mut out = self.out.borrow_mut();
                while !out.is_empty() {
                    match socket.poll_send(cx, &[IoSlice::new(&out)]) {
                        Poll::Ready(Ok(n)) => out.advance(n),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => break,
                    }
                }
                drop(out);
                inbox.reserve(RECV_BYTES);
                match socket.poll_recv(cx, &mut inbox) {
                    Poll::Ready(Ok(0)) => {
                        Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)))
                    }
                    Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => news.as_mut().poll(cx).map(Ok),
                }
            });
            if let Err(error) = came.await {
                return error.to_string();
            }
            if let Some(why) = self.give_up.borrow().clone() {
                return why;
            }
            loop {
                match take_frame(&mut inbox) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        self.heard.set(self.io.now());
                        if let Err(why) = self.take_in(&frame) {
                            return why;
                        }
                    }
                    Err(error) => return error.to_string(),
                }
            }
        }
    }

    /// An answer, an event, or what the server says of a ping.
    fn take_in(&self, frame: &[u8]) -> Result<(), String> {
        let malformed = |_| "the server sent something that is no answer".to_owned();
        let mut from = Reader::new(frame);
        let header: ReplyHeader = from.take().map_err(malformed)?;
        let body = &frame[frame.len() - from.left()..];
        if header.zxid > self.last_zxid.get() {
            self.last_zxid.set(header.zxid);
        }
        match header.xid {
            xid::PING => Ok(()),
            xid::NOTIFICATION => {
                let event: WatcherEvent<'_> = from.take().map_err(malformed)?;
                self.notify(&event);
                Ok(())
            }
            answered => {
                let first = self.waiting.borrow_mut().pop_front();
                match first {
                    Some((asked, sender)) if asked == answered => {
                        // Who no longer waits need not know.
                        drop(sender.send((header.err, body.to_vec())));
                        Ok(())
                    }
                    Some((asked, _)) => Err(format!(
                        "the server answered request {answered} where {asked} was next"
                    )),
                    None => Err(format!(
                        "the server answered request {answered}, which nobody asked"
                    )),
                }
            }
        }
    }

    fn notify(&self, event: &WatcherEvent<'_>) {
        let kind = match event.kind {
            1 => EventKind::Created,
            2 => EventKind::Deleted,
            3 => EventKind::DataChanged,
            4 => EventKind::ChildrenChanged,
            _ => return,
        };
        let path = event.path.as_deref().unwrap_or_default();
        if let Some(path) = self.below_chroot(path) {
            let event = Event::open(kind, path);
            self.notices.borrow_mut().push_back(Notice::Event(event));
            self.changed.wake();
        }
    }

    /// Asks while nothing else does, and gives a connection up that is silent.
    async fn run_pings(self: Rc<Self>) {
        while !self.is_closing.get() {
            let third = self.timeout.get() / 3;
            self.io.sleep(third).await;
            if self.state.get() != State::Connected {
                continue;
            }
            let silence = self.io.now().0.saturating_sub(self.heard.get().0);
            if Duration::from_nanos(silence) > third * 2 {
                *self.give_up.borrow_mut() = Some(format!(
                    "nothing was heard for {} ms",
                    Duration::from_nanos(silence).as_millis()
                ));
            } else {
                let mut frame = Vec::new();
                framed(&mut frame, |to| {
                    RequestHeader {
                        xid: xid::PING,
                        op: op::PING,
                    }
                    .put(to);
                });
                self.out.borrow_mut().extend_from_slice(&frame);
            }
            self.is_news.set(true);
            self.changed.wake();
        }
    }

    // -- requests

    /// Sends a request; its place is that of the call.
    fn request(&self, code: i32, put: impl FnOnce(&mut Vec<u8>)) -> Asked {
        if self.state.get() != State::Connected {
            return Asked(None);
        }
        let (sender, receiver) = oneshot::channel();
        let xid = self.xid.get().checked_add(1).unwrap_or(1);
        self.xid.set(xid);
        let mut frame = Vec::new();
        framed(&mut frame, |to| {
            RequestHeader { xid, op: code }.put(to);
            put(to);
        });
        self.out.borrow_mut().extend_from_slice(&frame);
        self.waiting.borrow_mut().push_back((xid, sender));
        self.is_news.set(true);
        self.changed.wake();
        Asked(Some(receiver))
    }

    /// A read that sets no watch: changes are told by those of `add_watch`.
    fn ask_to_read(&self, code: i32, path: &str) -> Asked {
        let path = Some(self.full(path));
        self.request(code, |to| ReadRequest { path, watch: false }.put(to))
    }

    fn watch_again(&self) {
        for path in self.watched.borrow().iter() {
            // The answer says no more than that it came.
            drop(self.add_watch(path));
        }
    }

    fn add_watch(&self, path: &str) -> Asked {
        let path = self.full(path);
        self.request(op::ADD_WATCH, |to| {
            WatchesRequest {
                path: Some(path),
                kind: 1,
            }
            .put(to);
        })
    }

    fn full<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match (self.config.chroot.as_str(), path) {
            ("", _) => Cow::Borrowed(path),
            (chroot, "/") => Cow::Owned(chroot.to_owned()),
            (chroot, _) => Cow::Owned(format!("{chroot}{path}")),
        }
    }

    fn below_chroot<'a>(&self, path: &'a str) -> Option<&'a str> {
        match path.strip_prefix(self.config.chroot.as_str())? {
            "" => Some("/"),
            rest => rest.starts_with('/').then_some(rest),
        }
    }
}

impl<I: Io, C: Connect> Ensemble for ZooKeeper<I, C> {
    fn session(&self) -> SessionId {
        self.0.session.get()
    }

    fn multi(
        &self,
        ops: &[Op],
    ) -> impl Future<Output = Result<Result<Vec<OpResult>, MultiError>, Lost>> + 'static {
        let kinds: Vec<i32> = ops.iter().map(code_of).collect();
        let answer = self.0.request(op::MULTI, |to| {
            for op in ops {
                put_op(op, &self.0.full(op.path()), to);
            }
            MultiHeader {
                op: -1,
                done: true,
                err: -1,
            }
            .put(to);
        });
        let this = self.0.clone();
        async move {
            let (code, body) = answer.reply().await?;
            if code != err::OK {
                return Err(lost(&format!("a multi was refused with error {code}")));
            }
            this.read_multi(&kinds, &body)
        }
    }

    fn read(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Result<Seen, TreeError>, Lost>> + 'static {
        let answer = self.0.ask_to_read(op::GET_DATA, path);
        async move {
            let (code, body) = answer.reply().await?;
            checked(code, || {
                let read: GetDataResponse<'_> = Reader::new(&body).take().map_err(malformed)?;
                Ok(Seen {
                    data: read.data.map(<[u8]>::to_vec),
                    stat: read.stat,
                })
            })
        }
    }

    fn children(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Result<Vec<String>, TreeError>, Lost>> + 'static {
        let answer = self.0.ask_to_read(op::GET_CHILDREN, path);
        async move {
            let (code, body) = answer.reply().await?;
            checked(code, || {
                let read: PathsResponse<'_> = Reader::new(&body).take().map_err(malformed)?;
                let names = read.paths.unwrap_or_default().into_iter();
                Ok(names
                    .map(|name| name.unwrap_or_default().into_owned())
                    .collect())
            })
        }
    }

    fn watch(&self, path: &str) -> impl Future<Output = Result<(), Lost>> + 'static {
        self.0.watched.borrow_mut().push(path.to_owned());
        let answer = self.0.add_watch(path);
        async move {
            match answer.reply().await? {
                (err::OK, _) => Ok(()),
                (err::UNIMPLEMENTED, _) => Err(lost(
                    "it does not know persistent watches; ZooKeeper 3.6 or newer is needed",
                )),
                (code, _) => Err(lost(&format!("a watch was refused with error {code}"))),
            }
        }
    }

    fn notice(&self) -> impl Future<Output = Notice> {
        let this = self.0.clone();
        self.0
            .changed
            .until(move || this.notices.borrow_mut().pop_front())
    }

    async fn close(&self) {
        // However it is answered, or not: the session ends now or at its timeout.
        self.0.is_closing.set(true);
        let answer = self.0.request(op::CLOSE_SESSION, |_| {});
        let late = self.0.io.sleep(HANDSHAKE);
        let _ = select(pin!(answer.reply()), pin!(late)).await;
        *self.0.give_up.borrow_mut() = Some("the session is closed".to_owned());
        self.0.is_news.set(true);
        self.0.changed.wake();
    }
}

impl<I: Io, C: Connect> Inner<I, C> {
    fn read_multi(
        &self,
        kinds: &[i32],
        body: &[u8],
    ) -> Result<Result<Vec<OpResult>, MultiError>, Lost> {
        let mut from = Reader::new(body);
        let mut results = Vec::with_capacity(kinds.len());
        let mut failed = None;
        for (index, kind) in kinds.iter().enumerate() {
            let header: MultiHeader = from.take().map_err(malformed)?;
            if header.done {
                return Err(lost("a multi was answered in part"));
            }
            if header.op == op::ERROR {
                let ErrorResponse { err: code } = from.take().map_err(malformed)?;
                // 0 before the one that failed, -2 after it.
                if code != err::OK && failed.is_none() {
                    let error = TreeError::from_code(code).ok_or_else(|| {
                        lost(&format!("an operation was refused with error {code}"))
                    })?;
                    failed = Some(MultiError { index, error });
                }
                continue;
            }
            results.push(match *kind {
                op::CREATE2 => {
                    let made: Create2Response<'_> = from.take().map_err(malformed)?;
                    let path = made.path.unwrap_or_default();
                    OpResult::Create {
                        path: self.below_chroot(&path).unwrap_or(&path).to_owned(),
                        stat: made.stat,
                    }
                }
                op::SET_DATA => {
                    let StatResponse { stat } = from.take().map_err(malformed)?;
                    OpResult::Set { stat }
                }
                op::DELETE => OpResult::Delete,
                _ => OpResult::Check,
            });
        }
        match failed {
            Some(failed) => Ok(Err(failed)),
            None if results.len() == kinds.len() => Ok(Ok(results)),
            None => Err(lost("a multi was refused without saying why")),
        }
    }
}

fn lost(why: &str) -> Lost {
    Lost {
        why: why.to_owned(),
    }
}

fn malformed(error: crate::zookeeper::jute::Malformed) -> Lost {
    lost(&error.to_string())
}

/// The answer's record, where there is one.
fn checked<T>(
    code: i32,
    read: impl FnOnce() -> Result<T, Lost>,
) -> Result<Result<T, TreeError>, Lost> {
    match (code, TreeError::from_code(code)) {
        (err::OK, _) => read().map(Ok),
        (_, Some(error)) => Ok(Err(error)),
        (_, None) => Err(lost(&format!("the ensemble answered error {code}"))),
    }
}

fn code_of(op: &Op) -> i32 {
    match op {
        Op::Create { .. } => op::CREATE2,
        Op::Delete { .. } => op::DELETE,
        Op::Set { .. } => op::SET_DATA,
        Op::Check { .. } => op::CHECK,
        Op::SetAcl { .. } => unreachable!("ACLs are not set in a multi"),
    }
}

fn put_op(op: &Op, path: &str, to: &mut Vec<u8>) {
    MultiHeader {
        op: code_of(op),
        done: false,
        err: -1,
    }
    .put(to);
    let path = Some(Cow::Borrowed(path));
    match op {
        Op::Create {
            data,
            acl,
            lifetime,
            sequential,
            ..
        } => {
            let ephemeral = matches!(lifetime, Lifetime::Ephemeral(_));
            CreateRequest {
                path,
                data: data.as_deref(),
                acl: Some(acl.clone()),
                flags: i32::from(ephemeral) | i32::from(*sequential) << 1,
            }
            .put(to);
        }
        Op::Delete { version, .. } | Op::Check { version, .. } => VersionRequest {
            path,
            version: *version,
        }
        .put(to),
        Op::Set { data, version, .. } => SetDataRequest {
            path,
            data: data.as_deref(),
            version: *version,
        }
        .put(to),
        Op::SetAcl { .. } => unreachable!("ACLs are not set in a multi"),
    }
}

fn put_create(path: &str, data: &[u8], flags: i32, to: &mut Vec<u8>) {
    CreateRequest {
        path: Some(Cow::Borrowed(path)),
        data: Some(data),
        acl: Some(klamm_coord::core::stat::Acl::open()),
        flags,
    }
    .put(to);
}

/// A frame around what is put into it.
fn framed(to: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    0i32.put(to);
    put(to);
    let len = i32::try_from(to.len() - at - 4).expect("requests stay below 2 GiB");
    to[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// The first whole frame, without its length.
fn take_frame(inbox: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some(len) = inbox.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = usize::try_from(i32::from_be_bytes(*len))
        .ok()
        .filter(|len| *len <= FRAME_BYTES_MAX)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the server sent a frame of an impossible length",
            )
        })?;
    if inbox.len() < 4 + len {
        return Ok(None);
    }
    inbox.advance(4);
    Ok(Some(inbox.split_to(len)))
}

async fn send_all(socket: &mut impl Socket, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let left = [IoSlice::new(&bytes[sent..])];
        sent += poll_fn(|cx| socket.poll_send(cx, &left)).await?;
    }
    Ok(())
}

async fn recv_frame(socket: &mut impl Socket, inbox: &mut BytesMut) -> io::Result<BytesMut> {
    loop {
        if let Some(frame) = take_frame(inbox)? {
            return Ok(frame);
        }
        inbox.reserve(4096);
        if poll_fn(|cx| socket.poll_recv(cx, inbox)).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
}

/// `host:port,host:port/chroot`, as Kafka's `zookeeper.connect` has it, with or without
/// `zk://` before it. Ports default to 2181.
pub fn parse_connect(text: &str) -> Result<(Vec<String>, String), String> {
    let rest = text.strip_prefix("zk://").unwrap_or(text);
    let (hosts, chroot) = match rest.find('/') {
        Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
        None => (rest, ""),
    };
    if !chroot.is_empty() && klamm_coord::core::path::validate(chroot).is_err() {
        return Err(format!(
            "{chroot:?} in {text:?} is no path in ZooKeeper's tree"
        ));
    }
    let mut servers = Vec::new();
    for host in hosts.split(',') {
        let host = host.trim();
        let has_port = host.rsplit_once(':').is_some_and(|(before, port)| {
            port.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'))
        });
        if host.is_empty() {
            return Err(format!(
                "{text:?} names no server; write zk://host:2181,host:2181/chroot"
            ));
        }
        servers.push(match has_port {
            true => host.to_owned(),
            false => format!("{host}:2181"),
        });
    }
    Ok((servers, chroot.to_owned()))
}

#[cfg(test)]
mod tests;
