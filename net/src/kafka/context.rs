//! What a handler is given.
//!
//! ```text
//!   Context (one request)   version, client id, correlation id, peer
//!      |
//!   Local (one shard)       io, limits, budgets, what this shard holds
//! ```

use crate::kafka::coordinator::Coordinator;
use crate::kafka::limits::{Budget, Limits};
use kafka_protocol::protocol::StrBytes;
use klamm_engine::io::Io;
use std::net::SocketAddr;
use std::rc::Rc;

/// One shard's side of the front: shared by all its connections.
pub struct Local<I: Io> {
    pub io: I,
    pub limits: Limits,
    /// Bytes of requests that wait or are worked on.
    pub request_bytes: Budget,
    /// Bytes of records that were read for answers and not yet sent.
    pub answer_bytes: Budget,
    pub coordinator: Rc<dyn Coordinator>,
    /// This broker's number.
    pub broker_id: i32,
    /// Which of a broker's endpoints its clients are told of.
    pub listener: Rc<str>,
}

/// Who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
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
        }
    }
}

impl<I: Io> Context<I> {
    /// The client id, or "" where there is none: what Kafka's coordinator does too.
    pub fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or("")
    }

    pub fn broker_id(&self) -> i32 {
        self.local.broker_id
    }

    pub fn listener(&self) -> &str {
        &self.local.listener
    }

    /// The client's address as Kafka shows it: "/127.0.0.1".
    pub fn client_host(&self) -> String {
        format!("/{}", self.peer.address.ip())
    }
}
