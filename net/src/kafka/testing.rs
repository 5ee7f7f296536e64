//! A shard's front on the simulator, and clients whose sockets are lists of bytes.
//!
//! ```text
//!   Client --bytes--> Pipe --poll_recv--> Connection --> handlers --> Store (simulated)
//!          <--bytes--      <--poll_send--
//! ```

use crate::kafka::connection::{Connection, End};
use crate::kafka::context::{Context, Local, Peer};
use crate::kafka::cores::Cores;
use crate::kafka::following;
use crate::kafka::limits::Limits;
use crate::kafka::profile::Watch;
use crate::kafka::turns::Turns;
use crate::pipe::{Pipe, PipeSocket};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use klamm_coord::core::image::{Broker, Endpoint, Image, Partition, Topic};
use klamm_coord::core::settings::{BrokerConfig, TopicConfig};
use klamm_engine::batch::BatchBuilder;
use klamm_engine::codec::Codec;
use klamm_engine::io::Io;
use klamm_engine::io::shards::Shards;
use klamm_engine::io::sim::{Sim, SimIo};
use klamm_engine::profile::StoreProfile;
use klamm_engine::store::Store;
use klamm_engine::units::{LeaderEpoch, TopicId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub const BROKER: i32 = 3;
pub const LISTENER: &str = "PLAINTEXT";

pub struct Front {
    pub sim: Sim,
    /// The shard that clients are connected to.
    pub local: Rc<Local<SimIo>>,
}

impl Front {
    pub fn new() -> Front {
        Front::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Front {
        Front::of_shards(1, limits)
    }

    /// All shards on one thread: what crosses them travels by simulated tasks.
    pub fn of_shards(count: usize, limits: Limits) -> Front {
        let sim = Sim::from_seed(7);
        let settings = BrokerConfig::default();
        let empty = Arc::new(Image::empty("klamm-klamm-klamm-klam", settings));
        let shards: Vec<_> = (0..count)
            .map(|_| {
                Local::new(
                    sim.io(),
                    Cores::later(),
                    Store::profiled(
                        sim.io(),
                        "/data".into(),
                        true,
                        1 << 20,
                        Some(StoreProfile::new()),
                    ),
                    empty.clone(),
                    BROKER,
                    LISTENER.to_owned(),
                    limits.clone(),
                )
            })
            .collect();
        let handles = Shards::together(sim.io(), shards.clone());
        for (local, handle) in shards.iter().zip(handles) {
            local.cores.link(handle);
        }
        Front {
            sim,
            local: shards[0].clone(),
        }
    }

    /// Makes topics with their partitions, led here in epoch 4.
    pub async fn topics(&self, topics: &[(&str, usize)]) {
        self.publish(topics.iter().map(|(name, count)| topic(name, *count, &[])))
            .await;
    }

    /// Makes topics beside those that there are.
    pub async fn publish(&self, topics: impl Iterator<Item = Topic>) {
        let image = Image::clone(&self.local.image());
        self.publish_from(image, topics).await;
    }

    /// Makes these topics, and deletes all others.
    pub async fn publish_only(&self, topics: impl Iterator<Item = Topic>) {
        let mut image = Image::empty("klamm-klamm-klamm-klam", BrokerConfig::default());
        image.zxid = self.local.image().zxid;
        self.publish_from(image, topics).await;
    }

    async fn publish_from(&self, mut image: Image, topics: impl Iterator<Item = Topic>) {
        image.zxid = image.zxid.next();
        let endpoint = Endpoint {
            listener: LISTENER.to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "gorge.example".to_owned(),
            port: 9092,
        };
        let broker = Broker {
            id: BROKER,
            rack: Some("left".to_owned()),
            endpoints: vec![endpoint],
            hosts_coordinator: false,
        };
        image.brokers.insert(BROKER, Arc::new(broker));
        image.controller = Some(BROKER);
        for topic in topics {
            image = image.with_topic(topic);
        }
        following::publish(&self.local, Arc::new(image)).await;
    }

    pub fn context(&self, api_key: i16, version: i16) -> Context<SimIo> {
        Context {
            local: self.local.clone(),
            peer: Rc::new(peer()),
            api_key,
            version,
            correlation_id: 77,
            client_id: Some(StrBytes::from_static_str("a client")),
            turn: Turns::default().take(),
            watch: Watch::default(),
        }
    }

    /// A client with a socket that takes `window` bytes before the client reads.
    pub fn connect_with_window(&self, window: usize) -> Client {
        let pipe = Pipe::with_window(window);
        let end = Rc::new(RefCell::new(None));
        let connection = Connection::new(self.local.clone(), peer(), PipeSocket(pipe.clone()));
        let ended = end.clone();
        self.local.io.spawn(async move {
            *ended.borrow_mut() = Some(connection.run().await);
        });
        Client {
            pipe,
            end,
            io: self.local.io.clone(),
            correlation_id: Cell::new(0),
            came: RefCell::default(),
        }
    }

    pub fn connect(&self) -> Client {
        self.connect_with_window(1 << 20)
    }
}

fn peer() -> Peer {
    Peer::at("127.0.0.1:50000".parse().unwrap())
}

pub fn topic(name: &str, partitions: usize, overrides: &[(&str, &str)]) -> Topic {
    let partition = Partition {
        leader: Some(BROKER),
        leader_epoch: LeaderEpoch(4),
        replicas: vec![BROKER],
        isr: vec![BROKER],
    };
    let overrides: BTreeMap<String, String> = overrides
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut id = [0; 16];
    for (at, byte) in name.bytes().take(16).enumerate() {
        id[at] = byte;
    }
    Topic {
        name: name.into(),
        id: TopicId(id),
        partitions: vec![partition; partitions],
        config: Arc::new(TopicConfig::resolve_valid(
            &overrides,
            &BrokerConfig::default(),
        )),
        overrides,
    }
}

/// A batch of records with these values, at a time that no topic refuses.
pub fn batch(io: &SimIo, values: &[&str]) -> Bytes {
    let now = io.wall();
    let builder = BatchBuilder::new(Codec::None);
    let add = |b: BatchBuilder, value: &&str| b.record(now, None, Some(value.as_bytes()));
    values.iter().fold(builder, add).finish().into()
}

pub struct Client {
    pipe: Rc<Pipe>,
    end: Rc<RefCell<Option<End>>>,
    pub io: SimIo,
    correlation_id: Cell<i32>,
    /// Taken out of the pipe, and not yet asked for.
    came: RefCell<BytesMut>,
}

impl Client {
    pub fn send(&self, bytes: &[u8]) {
        self.pipe.to_server.borrow_mut().extend(bytes);
        self.pipe.changed();
    }

    /// How many of the sent bytes the connection has not yet taken.
    pub fn unread(&self) -> usize {
        self.pipe.to_server.borrow().len()
    }

    pub fn hang_up(&self) {
        self.pipe.client_done.set(true);
        self.pipe.changed();
    }

    /// Sends a request; its answer comes in its turn.
    pub fn ask<Q: Request>(&self, version: i16, request: &Q) -> i32 {
        let correlation_id = self.correlation_id.get();
        self.correlation_id.set(correlation_id + 1);
        self.send(&frame(version, correlation_id, request));
        correlation_id
    }

    /// The next frame.
    pub async fn frame(&self) -> Bytes {
        let size = self.take(4).await.get_i32();
        self.take(usize::try_from(size).unwrap()).await
    }

    async fn take(&self, len: usize) -> Bytes {
        poll_fn(|cx| {
            let mut came = self.came.borrow_mut();
            let new: Vec<u8> = self.pipe.to_client.borrow_mut().drain(..).collect();
            came.extend_from_slice(&new);
            if came.len() >= len {
                return Poll::Ready(came.split_to(len).freeze());
            }
            assert!(!self.pipe.server_done.get(), "closed: {:?}", self.end);
            self.pipe.wait(cx);
            if !new.is_empty() {
                self.pipe.changed();
            }
            Poll::Pending
        })
        .await
    }

    /// The answer to a request of that kind.
    pub async fn answer<Q: Request>(&self, version: i16, correlation_id: i32) -> Q::Response {
        let mut bytes = self.frame().await;
        let header = Q::Response::header_version(version);
        let header = ResponseHeader::decode(&mut bytes, header).unwrap();
        assert_eq!(header.correlation_id, correlation_id, "answers in order");
        let response = Q::Response::decode(&mut bytes, version).unwrap();
        assert!(bytes.is_empty(), "bytes are left");
        response
    }

    pub async fn call<Q: Request>(&self, version: i16, request: &Q) -> Q::Response {
        let correlation_id = self.ask(version, request);
        self.answer::<Q>(version, correlation_id).await
    }

    /// Waits until the connection has ended; how.
    pub async fn end(&self) -> String {
        poll_fn(|cx| {
            if let Some(end) = &*self.end.borrow() {
                return Poll::Ready(end.to_string());
            }
            self.pipe.wait(cx);
            Poll::Pending
        })
        .await
    }

    pub fn is_open(&self) -> bool {
        !self.pipe.server_done.get()
    }

    /// Lets everything that can happen happen.
    pub async fn settle(&self) {
        self.io.sleep(Duration::from_millis(1)).await;
    }
}

pub fn frame<Q: Request>(version: i16, correlation_id: i32, request: &Q) -> Bytes {
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("a client")))
        .encode(&mut body, Q::header_version(version))
        .unwrap();
    request.encode(&mut body, version).unwrap();
    let mut frame = BytesMut::new();
    frame.put_i32(body.len() as i32);
    frame.put_slice(&body);
    frame.freeze()
}
