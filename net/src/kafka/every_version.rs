//! Each API at each version that the table serves: a client's frame in, the answer's
//! frame out, both in the hands of kafka-protocol's own codec, with a coordinator
//! that says what the test tells it to.
//!
//! ```text
//!   request --encode--> frame --route::start--> guard, decode, read --> Script.asked
//!   response <--decode-- frame <----------------- encode, write <------ Script.answers
//! ```

mod cluster;
mod groups;

use crate::kafka::answer::Answer;
use crate::kafka::context::{Coordinator, Local, Peer};
use crate::kafka::cores::{Cores, Gone};
use crate::kafka::limits::Limits;
use crate::kafka::profile::Watch;
use crate::kafka::route;
use crate::kafka::turns::Turns;
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use klamm_coord::core::coordinator::{Request, Response};
use klamm_coord::core::image::{Broker, Endpoint, Image, Partition, Topic};
use klamm_coord::core::settings::{BrokerConfig, TopicConfig};
use klamm_engine::io::sim::{DATA, Sim, SimIo};
use klamm_engine::store::Store;
use klamm_engine::units::{LeaderEpoch, TopicId};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

const BROKER: i32 = 3;
const LISTENER: &str = "PLAINTEXT";
const ORDERS: TopicId = TopicId([7; 16]);

/// A coordinator that was told what to say.
#[derive(Default)]
struct Script {
    asked: RefCell<Vec<Request>>,
    /// None: it is gone.
    answers: RefCell<VecDeque<Option<Response>>>,
}

impl Coordinator for Script {
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<Response, Gone>>>> {
        self.asked.borrow_mut().push(request);
        let answer = self.answers.borrow_mut().pop_front();
        let answer = answer.expect("the coordinator was asked more often than foreseen");
        Box::pin(std::future::ready(answer.ok_or(Gone)))
    }
}

/// One shard's front before a scripted coordinator. The cluster has a broker and the
/// topic "orders" with two partitions.
struct Front {
    sim: Sim,
    local: Rc<Local<SimIo>>,
    script: Rc<Script>,
}

impl Front {
    fn new() -> Front {
        let sim = Sim::from_seed(1);
        let script = Rc::new(Script::default());
        let local = Local::new(
            sim.io(),
            Cores::alone(),
            Store::new(sim.io(), DATA.into(), true, 1 << 20),
            Arc::new(image()),
            BROKER,
            LISTENER.to_owned(),
            Limits::default(),
        );
        local.set_coordinator(script.clone());
        Front { sim, local, script }
    }

    /// Sends a request whose handler asks the coordinator once.
    fn ask<Q: kafka_protocol::protocol::Request>(
        &self,
        version: i16,
        request: &Q,
        answer: impl Into<Option<Response>>,
    ) -> (Request, Q::Response) {
        self.script.answers.borrow_mut().push_back(answer.into());
        let response = self.call(version, request);
        let mut asked = self.script.asked.borrow_mut();
        assert!(self.script.answers.borrow().is_empty(), "it was not asked");
        (asked.pop().expect("one question"), response)
    }

    /// Sends a request; the coordinator is asked what the script has answers for.
    fn call<Q: kafka_protocol::protocol::Request>(&self, version: i16, request: &Q) -> Q::Response {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(Some(StrBytes::from_static_str("a client")));
        header
            .encode(&mut frame, Q::header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();

        let peer = Rc::new(Peer::at("127.0.0.1:50000".parse().unwrap()));
        let answering = route::start(
            &self.local,
            &peer,
            Turns::default().take(),
            Watch::default(),
            frame.freeze(),
        );
        let answering = answering.unwrap_or_else(|refused| panic!("version {version}: {refused}"));
        let parts = match self.sim.run(answering) {
            Answer::Send(parts) => parts,
            Answer::Nothing => panic!("version {version}: no answer"),
            Answer::Close(why) => panic!("version {version}: closed: {why}"),
        };
        let whole: Vec<u8> = parts
            .iter()
            .flat_map(|part| part.in_memory().unwrap().to_vec())
            .collect();
        let mut bytes = Bytes::from(whole);
        let size = bytes::Buf::get_i32(&mut bytes);
        assert_eq!(usize::try_from(size).unwrap(), bytes.len());
        let header = Q::Response::header_version(version);
        let header = ResponseHeader::decode(&mut bytes, header).unwrap();
        assert_eq!(header.correlation_id, 77);
        let response = Q::Response::decode(&mut bytes, version)
            .unwrap_or_else(|e| panic!("version {version}: {e}"));
        assert!(bytes.is_empty(), "version {version}: bytes are left");
        response
    }
}

/// The versions that the table serves of a request's API.
fn versions<Q: kafka_protocol::protocol::Request>() -> RangeInclusive<i16> {
    let api = route::lookup(Q::KEY).expect("the API is in the table");
    api.served_min..=api.max
}

fn image() -> Image {
    let partition = Partition {
        leader: Some(BROKER),
        leader_epoch: LeaderEpoch(0),
        replicas: vec![BROKER],
        isr: vec![BROKER],
    };
    let settings = BrokerConfig::default();
    let topic = Topic {
        name: "orders".into(),
        id: ORDERS,
        partitions: vec![partition.clone(), partition],
        overrides: BTreeMap::new(),
        config: Arc::new(TopicConfig::resolve_valid(&BTreeMap::new(), &settings)),
    };
    let mut image = Image::empty("klamm-klamm-klamm-klam", settings).with_topic(topic);
    let broker = Broker {
        id: BROKER,
        rack: Some("left".to_owned()),
        hosts_coordinator: false,
        endpoints: vec![Endpoint {
            listener: LISTENER.to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "gorge.example".to_owned(),
            port: 9092,
        }],
    };
    image.brokers.insert(BROKER, Arc::new(broker));
    image.controller = Some(BROKER);
    image
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

/// A value from a version on; before, what the codec puts in its place.
fn from<T>(version: i16, first: i16, value: T, before: T) -> T {
    if version >= first { value } else { before }
}
