//! What a handler is given.
//!
//! ```text
//!   Context (one request)   version, client id, correlation id, peer
//!      |
//!   Local (one shard)       io, image of the cluster, limits and budgets
//!      |        \
//!      |         on(shard, work)    another shard's Local: the partition's home, or
//!      |                            the coordinator's shard
//!   coordinator(request)            topics, groups, offsets: there, from anywhere
//! ```

use crate::kafka::closing::Closing;
use crate::kafka::cores::{Cores, Gone};
use crate::kafka::lateness::Lateness;
use crate::kafka::limits::{Budget, Limits};
use crate::kafka::profile::{self, Recorder, Watch};
use crate::kafka::turns::Turn;
use futures_util::future::{Either, select};
use kafka_protocol::protocol::StrBytes;
use klamm_coord::core::coordinator::{Request, Response};
use klamm_coord::core::image::Image;
use klamm_engine::io::Io;
use klamm_engine::signal::Signal;
use klamm_engine::store::Store;
use klamm_engine::units::ShardId;
use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The coordinator, on its own shard. Behind a trait so that a handler can be tested
/// against the bare state machine.
pub trait Coordinator {
    /// The answer, once what it rests on is committed. Requests are taken in the order
    /// of the calls.
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<Response, Gone>>>>;
}

/// One shard's side of the front: shared by all its connections.
pub struct Local<I: Io> {
    pub io: I,
    pub cores: Cores<I>,
    /// This shard's partitions.
    pub store: Rc<Store<I>>,
    /// On [`ShardId::COORDINATOR`] only.
    coordinator: OnceCell<Rc<dyn Coordinator>>,
    /// This broker's number, as it is in the image.
    pub broker_id: i32,
    /// The listener that these connections come through.
    pub listener: String,
    pub limits: Limits,
    /// Bytes of requests that wait or are worked on.
    pub request_bytes: Budget,
    /// Bytes of records that were read for answers and not yet sent.
    pub answer_bytes: Budget,
    pub closing: Closing,
    /// What requests took.
    pub profile: Rc<Recorder<I>>,
    /// Which of them have taken too long.
    pub lateness: Rc<Lateness<I>>,
    image: RefCell<Arc<Image>>,
    image_changed: Rc<Signal>,
}

impl<I: Io> Local<I> {
    #[allow(clippy::too_many_arguments)] // one call, where everything is wired
    pub fn new(
        io: I,
        cores: Cores<I>,
        store: Rc<Store<I>>,
        image: Arc<Image>,
        broker_id: i32,
        listener: String,
        limits: Limits,
    ) -> Rc<Local<I>> {
        let profile = profile::Settings::default();
        Local::profiled(
            io, cores, store, image, broker_id, listener, limits, profile,
        )
    }

    /// The same, with something else to record than by default.
    #[allow(clippy::too_many_arguments)] // as above
    pub fn profiled(
        io: I,
        cores: Cores<I>,
        store: Rc<Store<I>>,
        image: Arc<Image>,
        broker_id: i32,
        listener: String,
        limits: Limits,
        profile: profile::Settings,
    ) -> Rc<Local<I>> {
        Rc::new(Local {
            profile: Recorder::new(io.clone(), profile),
            lateness: Lateness::new(io.clone()),
            request_bytes: Budget::new(limits.request_bytes_max),
            answer_bytes: Budget::new(limits.answer_bytes_max),
            closing: Closing::default(),
            image: RefCell::new(image),
            image_changed: Signal::new(),
            io,
            cores,
            store,
            coordinator: OnceCell::new(),
            broker_id,
            listener,
            limits,
        })
    }

    /// Makes this the coordinator's shard. Until then requests for the coordinator are
    /// answered as by a broker that is stopping; no connection is accepted before.
    pub fn set_coordinator(&self, coordinator: Rc<dyn Coordinator>) {
        let first = self.coordinator.set(coordinator).is_ok();
        assert!(first, "there is one coordinator");
    }

    /// The newest image that this shard was given. Hold it for one request, so that
    /// the request sees one state of the cluster.
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Exchanges the image; an older one is not taken.
    pub fn set_image(&self, image: Arc<Image>) {
        let mut held = self.image.borrow_mut();
        if image.zxid >= held.zxid {
            *held = image;
            drop(held);
            self.image_changed.wake();
        }
    }

    /// Waits until the image is as wanted, or `patience` is at its end.
    pub async fn image_where(
        self: &Rc<Self>,
        patience: Duration,
        wanted: impl Fn(&Image) -> bool + Unpin + 'static,
    ) {
        let this = self.clone();
        let changed = self
            .image_changed
            .until(move || wanted(&this.image.borrow()).then_some(()));
        let late = self.io.sleep(patience);
        match select(pin!(changed), pin!(late)).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    /// Runs work on a shard. It starts in the order of the calls from this shard.
    pub fn on<R, F, W>(
        self: &Rc<Self>,
        shard: ShardId,
        work: W,
    ) -> impl Future<Output = Result<R, Gone>> + use<I, R, F, W>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
        W: FnOnce(Rc<Local<I>>) -> F + Send + 'static,
    {
        self.cores.on(self, shard, work)
    }

    /// Asks the coordinator.
    pub fn coordinator(
        self: &Rc<Self>,
        request: Request,
    ) -> impl Future<Output = Result<Response, Gone>> + use<I> {
        let answer = self.on(ShardId::COORDINATOR, move |local| {
            // Called here and not in the future: the order of the calls is kept.
            let call = local.coordinator.get().map(|c| c.call(request));
            async move {
                match call {
                    Some(call) => call.await,
                    None => Err(Gone),
                }
            }
        });
        async move { answer.await.and_then(|answered| answered) }
    }
}

/// Who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// It connected to this core's own port, and so to the node that this core is.
    pub own_port: bool,
}

impl Peer {
    /// At the port that all cores accept at.
    pub fn at(address: SocketAddr) -> Peer {
        let own_port = false;
        Peer { address, own_port }
    }
}

/// One request's surroundings. Cheap to copy.
pub struct Context<I: Io> {
    pub local: Rc<Local<I>>,
    pub peer: Rc<Peer>,
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
    /// As the client sent it: escape it (`{:?}`) where a person will read it.
    pub client_id: Option<StrBytes>,
    /// When it is this request's turn to leave.
    pub turn: Turn,
    /// What its time goes into.
    pub watch: Watch<I>,
}

impl<I: Io> Clone for Context<I> {
    fn clone(&self) -> Self {
        Context {
            local: self.local.clone(),
            peer: self.peer.clone(),
            api_key: self.api_key,
            version: self.version,
            correlation_id: self.correlation_id,
            client_id: self.client_id.clone(),
            turn: self.turn.clone(),
            watch: self.watch.clone(),
        }
    }
}

impl<I: Io> Context<I> {
    /// The client id, or "" where there is none: what Kafka's coordinator does too.
    pub fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or("")
    }

    /// The client's address as Kafka shows it: "/127.0.0.1".
    pub fn client_host(&self) -> String {
        format!("/{}", self.peer.address.ip())
    }

    /// The cluster as this shard knows it now.
    pub fn image(&self) -> Arc<Image> {
        self.local.image()
    }

    /// Asks the coordinator, on whichever shard it runs. `Err` where the broker is
    /// stopping: COORDINATOR_NOT_AVAILABLE to group APIs, a retriable error to others.
    pub fn coordinator(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, Gone>> + use<I> {
        self.watch.waiting(self.local.coordinator(request))
    }
}
