//! The front on the simulator with a real driver behind it, and clients whose sockets
//! are lists of bytes.

use crate::pipe::{Pipe, PipeSocket};
use crate::zookeeper::connection::Connection;
use crate::zookeeper::frame;
use crate::zookeeper::front::Front;
use crate::zookeeper::jute::{Field, Reader};
use crate::zookeeper::limits::{About, Limits};
use crate::zookeeper::records::*;
use bytes::BytesMut;
use klamm_coord::core::Zxid;
use klamm_coord::core::coordinator::CoreConfig;
use klamm_coord::core::image::Image;
use klamm_coord::core::settings::BrokerConfig;
use klamm_coord::core::stat::Acl;
use klamm_coord::driver::{Driver, DriverConfig, Host};
use klamm_engine::io::Io;
use klamm_engine::io::sim::{Sim, SimIo};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Nobody serves topics.
pub struct Nobody;

impl Host for Nobody {
    async fn apply_image(&self, _: Arc<Image>) {}
}

pub struct Server {
    pub io: SimIo,
    pub front: Rc<Front>,
    pub driver: Rc<Driver<SimIo, Nobody>>,
}

/// Runs a story on a fresh server.
pub fn story(limits: Limits, tell: impl AsyncFnOnce(Server)) {
    let sim = Sim::from_seed(7);
    sim.run(async {
        let server = Server::open(sim.io(), limits).await;
        tell(server).await;
    });
}

impl Server {
    pub async fn open(io: SimIo, limits: Limits) -> Server {
        let core = CoreConfig {
            broker: BrokerConfig::default(),
            cluster_id: None,
            id_seed: 1,
            session_secret: 2,
            zookeeper: Default::default(),
        };
        let config = DriverConfig::new(core, false);
        let driver = Driver::open(io.clone(), "/data".as_ref(), config, Nobody).await;
        let driver = driver.unwrap_or_else(|e| panic!("{e}"));
        let about = About {
            version: "0.0.0",
            address: "127.0.0.1:2181".parse().unwrap(),
            data: "/data".into(),
            tick_time_ms: 2000,
            min_session_timeout_ms: 4000,
            max_session_timeout_ms: 40_000,
        };
        let clock = io.clone();
        let now = move || (clock.now(), clock.wall());
        let front = Front::new(Rc::new(driver.clone()), limits, about, now);
        Server { io, front, driver }
    }

    pub fn connect(&self) -> Client {
        self.connect_with_window(1 << 20)
    }

    /// With a socket that takes so many bytes before the client reads.
    pub fn connect_with_window(&self, window: usize) -> Client {
        let pipe = Pipe::with_window(window);
        let address = "127.0.0.1:50000".parse().unwrap();
        let connection = Connection::new(self.front.clone(), address, PipeSocket(pipe.clone()));
        self.io.spawn(connection.run());
        Client {
            pipe,
            io: self.io.clone(),
            came: RefCell::default(),
            xid: Cell::new(1),
        }
    }

    /// A client with a session of 10 s.
    pub async fn client(&self) -> Client {
        let client = self.connect();
        let session = client.greet(0, &[0; 16]).await;
        assert!(session.timeout_ms > 0);
        client
    }
}

pub struct Client {
    pub pipe: Rc<Pipe>,
    io: SimIo,
    came: RefCell<BytesMut>,
    xid: Cell<i32>,
}

/// A session, as a connect is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: i64,
    pub timeout_ms: i32,
    pub password: Vec<u8>,
}

/// An answer or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub xid: i32,
    pub zxid: Zxid,
    pub err: i32,
    pub body: Vec<u8>,
}

impl Client {
    pub fn send(&self, bytes: &[u8]) {
        self.pipe.to_server.borrow_mut().extend(bytes);
        self.pipe.changed();
    }

    pub fn send_frame(&self, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, |to| to.extend_from_slice(payload));
        self.send(&bytes);
    }

    pub fn send_greeting(&self, session: i64, password: &[u8], timeout_ms: i32) {
        let mut payload = Vec::new();
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms,
            session,
            password: Some(password),
            read_only: Some(false),
        }
        .put(&mut payload);
        self.send_frame(&payload);
    }

    pub async fn greet(&self, session: i64, password: &[u8]) -> Session {
        self.send_greeting(session, password, 10_000);
        self.greeted().await
    }

    pub async fn greeted(&self) -> Session {
        let bytes = self.frame().await.expect("an answer to the connect");
        let response: ConnectResponse<'_> = Reader::new(&bytes).take().unwrap();
        Session {
            id: response.session,
            timeout_ms: response.timeout_ms,
            password: response.password.unwrap().to_vec(),
        }
    }

    /// Sends a request; its answer comes in its turn.
    pub fn ask<'a>(&self, op: i32, request: &impl Field<'a>) -> i32 {
        let xid = self.xid.get();
        self.xid.set(xid + 1);
        self.send_frame(&payload(xid, op, request));
        xid
    }

    /// The answer to a request that is sent now. No events may be under way.
    pub async fn call<'a>(&self, op: i32, request: &impl Field<'a>) -> Answer {
        let xid = self.ask(op, request);
        let answer = self.answer().await;
        assert_eq!(answer.xid, xid, "answers come in order");
        answer
    }

    pub async fn answer(&self) -> Answer {
        let bytes = self.frame().await.expect("an answer");
        let mut from = Reader::new(&bytes);
        let header: ReplyHeader = from.take().unwrap();
        Answer {
            xid: header.xid,
            zxid: header.zxid,
            err: header.err,
            body: bytes[bytes.len() - from.left()..].to_vec(),
        }
    }

    /// (kind, path)
    pub async fn event(&self) -> (i32, String) {
        let answer = self.answer().await;
        assert_eq!(answer.xid, xid::NOTIFICATION, "an event: {answer:?}");
        let event: WatcherEvent<'_> = Reader::new(&answer.body).take().unwrap();
        assert_eq!(event.state, SYNC_CONNECTED);
        (event.kind, event.path.unwrap().into_owned())
    }

    /// The next frame; None: the connection is closed.
    pub async fn frame(&self) -> Option<Vec<u8>> {
        let length = self.take(4).await?;
        let length = i32::from_be_bytes(length.try_into().unwrap());
        self.take(usize::try_from(length).unwrap()).await
    }

    async fn take(&self, len: usize) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            let mut came = self.came.borrow_mut();
            let new: Vec<u8> = self.pipe.to_client.borrow_mut().drain(..).collect();
            came.extend_from_slice(&new);
            if !new.is_empty() {
                // There is room again.
                self.pipe.changed();
            }
            if came.len() >= len {
                return Poll::Ready(Some(came.split_to(len).to_vec()));
            }
            if self.pipe.server_done.get() {
                assert!(came.is_empty(), "a frame ends early: {came:?}");
                return Poll::Ready(None);
            }
            self.pipe.wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Everything up to the end, as text.
    pub async fn text(&self) -> String {
        let mut text = Vec::new();
        while let Some(byte) = self.take(1).await {
            text.extend(byte);
        }
        String::from_utf8(text).unwrap()
    }

    pub fn hang_up(&self) {
        self.pipe.client_done.set(true);
        self.pipe.changed();
    }

    pub async fn sleep(&self, ms: u64) {
        self.io.sleep(Duration::from_millis(ms)).await;
    }

    // -- what is asked most

    pub async fn create(&self, path: &str, data: &[u8]) -> Answer {
        self.call(op::CREATE, &create(path, data, 0)).await
    }

    pub async fn get(&self, path: &str, watch: bool) -> Answer {
        self.call(op::GET_DATA, &read(path, watch)).await
    }

    pub async fn set(&self, path: &str, data: &[u8]) -> Answer {
        let request = SetDataRequest {
            path: Some(path.into()),
            data: Some(data),
            version: -1,
        };
        self.call(op::SET_DATA, &request).await
    }
}

pub fn payload<'a>(xid: i32, op: i32, request: &impl Field<'a>) -> Vec<u8> {
    let mut payload = Vec::new();
    RequestHeader { xid, op }.put(&mut payload);
    request.put(&mut payload);
    payload
}

pub fn create<'a>(path: &'a str, data: &'a [u8], flags: i32) -> CreateRequest<'a> {
    CreateRequest {
        path: Some(path.into()),
        data: Some(data),
        acl: Some(Acl::open()),
        flags,
    }
}

pub fn read(path: &str, watch: bool) -> ReadRequest<'_> {
    ReadRequest {
        path: Some(path.into()),
        watch,
    }
}

pub fn at(path: &str) -> PathRequest<'_> {
    PathRequest {
        path: Some(path.into()),
    }
}

pub fn versioned(path: &str, version: i32) -> VersionRequest<'_> {
    VersionRequest {
        path: Some(path.into()),
        version,
    }
}

pub fn watching(path: &str, kind: i32) -> WatchesRequest<'_> {
    WatchesRequest {
        path: Some(path.into()),
        kind,
    }
}

/// Nothing behind the header.
pub struct Nothing;

impl Field<'_> for Nothing {
    const BYTES_MIN: usize = 0;

    fn get(_: &mut Reader<'_>) -> Result<Nothing, crate::zookeeper::jute::Malformed> {
        Ok(Nothing)
    }

    fn put(&self, _: &mut Vec<u8>) {}
}

/// The operations of a multi.
#[derive(Default)]
pub struct Ops(pub Vec<u8>);

impl Ops {
    pub fn with<'a>(mut self, op: i32, request: &impl Field<'a>) -> Ops {
        let (done, err) = (false, -1);
        MultiHeader { op, done, err }.put(&mut self.0);
        request.put(&mut self.0);
        self
    }
}

impl Field<'_> for Ops {
    const BYTES_MIN: usize = 9;

    fn get(_: &mut Reader<'_>) -> Result<Ops, crate::zookeeper::jute::Malformed> {
        unreachable!("only sent")
    }

    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.0);
        let (op, done, err) = (-1, true, -1);
        MultiHeader { op, done, err }.put(to);
    }
}

/// The payload of a request of every kind, under its name.
pub fn every_request() -> Vec<(&'static str, Vec<u8>)> {
    let mut connect = Vec::new();
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(7),
        timeout_ms: 10_000,
        session: 0x1234,
        password: Some(&[9; 16]),
        read_only: Some(false),
    }
    .put(&mut connect);
    let set = SetDataRequest {
        path: Some("/a".into()),
        data: None,
        version: 3,
    };
    let set_acl = SetAclRequest {
        path: Some("/a".into()),
        acl: Some(Acl::open()),
        version: -1,
    };
    let ttl = CreateTtlRequest {
        path: Some("/ttl".into()),
        data: Some(b"x"),
        acl: Some(Acl::open()),
        flags: 5,
        ttl_ms: 1000,
    };
    let paths = || Some(vec![Some("/a".into()), Some("/b/c".into())]);
    let set_watches = SetWatchesRequest {
        relative_zxid: Zxid(5),
        data: paths(),
        exist: paths(),
        child: Some(vec![]),
    };
    let set_watches2 = SetWatches2Request {
        relative_zxid: Zxid(5),
        data: paths(),
        exist: Some(vec![]),
        child: paths(),
        persistent: paths(),
        recursive: paths(),
    };
    let auth = AuthRequest {
        kind: 0,
        scheme: Some("digest".into()),
        auth: Some(b"me:secret"),
    };
    let reconfig = ReconfigRequest {
        joining: None,
        leaving: Some("1".into()),
        new_members: None,
        config: -1,
    };
    let multi = Ops::default()
        .with(op::CREATE, &create("/m", b"1", 0))
        .with(op::CREATE_TTL, &ttl)
        .with(op::SET_DATA, &set)
        .with(op::CHECK, &versioned("/m", 1))
        .with(op::DELETE, &versioned("/m", -1));
    let multi_read = Ops::default()
        .with(op::GET_DATA, &read("/m", false))
        .with(op::GET_CHILDREN, &read("/", false));
    let sasl = SaslToken { token: Some(b"t") };
    vec![
        ("connect", connect),
        ("create", payload(1, op::CREATE, &create("/a", b"data", 3))),
        ("create2", payload(2, op::CREATE2, &create("/a", b"", 0))),
        (
            "create_container",
            payload(3, op::CREATE_CONTAINER, &create("/c", b"", 4)),
        ),
        ("create_ttl", payload(4, op::CREATE_TTL, &ttl)),
        ("delete", payload(5, op::DELETE, &versioned("/a", 2))),
        ("exists", payload(6, op::EXISTS, &read("/a", true))),
        ("get_data", payload(7, op::GET_DATA, &read("/a", false))),
        ("set_data", payload(8, op::SET_DATA, &set)),
        ("get_acl", payload(9, op::GET_ACL, &at("/a"))),
        ("set_acl", payload(10, op::SET_ACL, &set_acl)),
        (
            "get_children",
            payload(11, op::GET_CHILDREN, &read("/", false)),
        ),
        (
            "get_children2",
            payload(12, op::GET_CHILDREN2, &read("/", true)),
        ),
        ("sync", payload(13, op::SYNC, &at("/"))),
        ("ping", payload(xid::PING, op::PING, &Nothing)),
        ("multi", payload(14, op::MULTI, &multi)),
        ("multi_read", payload(15, op::MULTI_READ, &multi_read)),
        ("reconfig", payload(16, op::RECONFIG, &reconfig)),
        (
            "check_watches",
            payload(17, op::CHECK_WATCHES, &watching("/a", 3)),
        ),
        (
            "remove_watches",
            payload(18, op::REMOVE_WATCHES, &watching("/a", 1)),
        ),
        ("add_watch", payload(19, op::ADD_WATCH, &watching("/a", 1))),
        (
            "delete_container",
            payload(20, op::DELETE_CONTAINER, &at("/c")),
        ),
        ("auth", payload(xid::AUTH, op::AUTH, &auth)),
        (
            "set_watches",
            payload(xid::SET_WATCHES, op::SET_WATCHES, &set_watches),
        ),
        (
            "set_watches2",
            payload(xid::SET_WATCHES, op::SET_WATCHES2, &set_watches2),
        ),
        ("sasl", payload(21, op::SASL, &sasl)),
        ("get_ephemerals", payload(22, op::GET_EPHEMERALS, &at("/"))),
        (
            "get_all_children_number",
            payload(23, op::GET_ALL_CHILDREN_NUMBER, &at("/")),
        ),
        ("who_am_i", payload(24, op::WHO_AM_I, &Nothing)),
        ("close_session", payload(25, op::CLOSE_SESSION, &Nothing)),
        ("unknown", payload(26, 9999, &Nothing)),
    ]
}

mod bad_input;
mod stories;
mod wire;
